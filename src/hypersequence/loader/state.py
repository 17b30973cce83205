"""Where a loader stands, as something that can be written into a checkpoint."""

# The loader reads sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import hashlib
from typing import Any, cast

from ..errors import ArgumentError
from ..order import Order, fingerprint, outermost_seed
from ..sequence import HyperSequence
from .legs import Leg

_VERSION = 1


class Cursor:
    """The position of one iterator, after the last batch that it handed over.

    Args:
        epoch: Where it begins.
        position: In records of all ranks together.
    """

    __slots__ = ("_batch", "_epoch", "_leg", "_position")

    def __init__(self, epoch: int, position: int = 0) -> None:
        self.move(epoch, position)

    def __reduce__(self) -> Any:
        return Cursor, self.place()

    def move(self, epoch: int, position: int) -> None:
        """Stand somewhere."""
        self._leg: Leg | None = None
        self._epoch, self._position, self._batch = epoch, position, 0

    def handed_over(self, leg: Leg, batch: int) -> None:
        """Stand behind a batch. Every batch comes by here: where that is, is worked out when somebody asks."""
        self._leg, self._batch = leg, batch

    def mark(self) -> tuple[Leg, int]:
        """The epoch and the number of the batch behind which it stands, for another cursor that follows."""
        assert self._leg is not None  # asked after a batch was handed over
        return self._leg, self._batch

    def place(self) -> tuple[int, int]:
        """Epoch and position."""
        leg = self._leg
        if leg is None:
            return self._epoch, self._position
        after = self._batch + 1
        return (leg.epoch, leg.position(after)) if after < leg.n_batches else (leg.epoch + 1, 0)


class Identity:
    """What data and what order a state belongs to."""

    def __init__(self, sequence: HyperSequence) -> None:
        order: Order = sequence._whole
        files = hashlib.sha256(b"".join(file.stored.digest for file in sequence._source.files()))
        self.data = files.hexdigest()[:16]
        self.order = fingerprint(order)
        self.seed = outermost_seed(order)
        self.n_records = order.n

    def state(self, epoch: int, position: int) -> dict[str, Any]:
        """A place as plain values."""
        return {
            "version": _VERSION,
            "epoch": epoch,
            "position": position,
            "seed": self.seed,
            "records": self.n_records,
            "data": self.data,
            "order": self.order,
        }

    def place_in(self, state: Any) -> tuple[int, int]:
        """Epoch and position in a state, if it belongs here.

        Raises:
            ArgumentError: It is no state, or one of other data or another order; the message says what differs.
        """
        given = cast("dict[str, Any]", state)
        if not isinstance(state, dict) or set(self.state(0, 0)) - set(given):
            raise ArgumentError(f"load_state_dict: this is no state of a loader: {str(cast('object', state))[:100]}")
        if given["version"] != _VERSION:
            raise ArgumentError(f"load_state_dict: a state of version {given['version']!r}, not {_VERSION}")
        differing = [
            f"{what} ({given[key]} in the state, {own} here)"
            for key, what, own in (
                ("data", "the files' content", self.data),
                ("records", "the number of records", self.n_records),
                ("seed", "the seed", self.seed),
            )
            if given[key] != own
        ]
        if not differing and given["order"] != self.order:
            differing = ["the chain of split, select, shuffled, ... that makes the order"]
        if differing:
            raise ArgumentError(
                "load_state_dict: the state belongs to something else; what differs: "
                + ", ".join(differing)
                + ". Make the sequence as it was when the state was saved"
            )
        epoch, position = given["epoch"], given["position"]
        if (
            type(epoch) is not int
            or type(position) is not int
            or not 0 <= epoch <= 1 << 62
            or not 0 <= position <= self.n_records
        ):
            raise ArgumentError(f"load_state_dict: epoch {epoch!r}, position {position!r}: no place in this order")
        return epoch, position

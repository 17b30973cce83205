"""Checking what a person passes to the operations of a sequence."""

from __future__ import annotations

import operator
import secrets
from typing import Any, Literal

from ..errors import ArgumentError
from ..order import Sharded, Uneven

Unit = Literal["batch", "record"]
#: More processes than anybody has, and few enough for positions to stay below 2**63.
MAX_WORLD = 1 << 24

ShuffleUnit = Literal["window", "record", "batch"]


def seed_of(seed: int | None) -> int:
    """A seed, fresh if none was given."""
    if seed is None:
        return secrets.randbits(32)  # short enough to be copied from a repr by hand
    return whole_number(seed, "seed", 0)


def one_of(value: Any, what: str, *allowed: Any) -> Any:
    """The value, if it is among those allowed.

    Raises:
        ArgumentError: It is not.
    """
    if value not in allowed:
        raise ArgumentError(f"{what} is {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}, not {value!r}")
    return value


def share_of(total: int, batch_size: int, rank: int, world: int, uneven: Uneven, origin: int = 0) -> Sharded:
    """A rank's share of ``total`` records from ``origin`` on.

    Raises:
        ArgumentError: There is no such rank, or some rank would have no last batch.
    """
    world = whole_number(world, "world", 1)
    rank = whole_number(rank, "rank", 0)
    if rank >= world or world > MAX_WORLD:
        raise ArgumentError(f"rank {rank} of {world}: ranks go from 0 to {min(world, MAX_WORLD) - 1}")
    share = Sharded(total, batch_size, rank, world, uneven, origin)
    if share.uneven == "short" and 0 < share.n_tail < world:
        raise ArgumentError(
            f"uneven='short': the last global batch has {share.n_tail} records for {world} ranks, and some would have "
            "one batch less than others; use uneven='pad' or uneven='drop'"
        )
    return share


def whole_number(value: Any, what: str, least: int, most: int = (1 << 64) - 1) -> int:
    """A whole number from ``least`` to ``most``; ``what`` names it in the message.

    Raises:
        ArgumentError: Anything else.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{what}: expected a whole number, got {value!r}") from None
    if not least <= number <= most:
        reach = f"to {most}" if number > most else "on"
        raise ArgumentError(f"{what}: expected a whole number from {least} {reach}, got {number}")
    return number

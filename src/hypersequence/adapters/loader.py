"""What the loaders for PyTorch and JAX have in common: passes, their place in the data, and a rank's share."""

# Adapters read sequences and loaders from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError
from ..loader import Loader, LoaderStats
from ..loader.api import LoaderIterator
from ..loader.legs import Leg
from ..loader.state import Cursor
from ..order import Uneven
from ..schema import Batch
from ..sequence import HyperSequence
from ..sequence.arguments import one_of, whole_number


@dataclass(frozen=True, slots=True)
class Share:
    """What a person says about the part of the data that a process gets.

    Args:
        rank: Number of this process; ``None`` to ask the framework.
        world: How many there are; ``None`` to ask the framework.
        global_batch: Records of all ranks' batches together; ``None`` where each has the sequence's own batch size.
        uneven: As in ``shard``; ``None`` for ``"drop"`` among several ranks, and to leave a single one as it is.
    """

    rank: int | None
    world: int | None
    global_batch: int | None
    uneven: Uneven | None

    def __post_init__(self) -> None:
        if (self.rank is None) != (self.world is None):
            raise ArgumentError("rank and world go together: give both, or neither to ask the framework")
        if self.global_batch is not None:
            whole_number(self.global_batch, "global_batch", 1)
        if self.uneven is not None:
            one_of(self.uneven, "uneven", "pad", "drop", "short")
        if self.world is not None:
            world = whole_number(self.world, "world", 1)
            whole_number(self.rank, f"rank of {world}", 0, most=world - 1)

    def of(self, sequence: HyperSequence, rank: int, world: int) -> HyperSequence:
        """The share of a rank; a sequence that is a shard already is one.

        Raises:
            ArgumentError: The global batch cannot be dealt out evenly, or no batch is left.
        """
        if self.global_batch is not None:
            n, rest = divmod(self.global_batch, world)
            if rest or not n:
                raise ArgumentError(
                    f"global_batch={self.global_batch} does not divide evenly among a world of {world}: take a multiple"
                )
            sequence = sequence.rebatch(n, drop_last=sequence._drop_last)
        sharded = sequence._share is not None and self.rank is None and self.uneven is None
        if sharded or (world == 1 and self.uneven is None):
            return sequence
        share = sequence.shard(rank, world, self.uneven or "drop")
        if not len(share) and len(sequence):
            raise ArgumentError(
                f"{sequence.n_records:,} records are less than one global batch of {world} x {sequence.batch_size()}, "
                "and uneven='drop' leaves nothing; use smaller batches, uneven='pad' or uneven='short'"
            )
        return share


@dataclass(frozen=True, slots=True)
class Way:
    """How batches get to where they are wanted. Small ones go several at a time, which costs the least.

    Args:
        set_out: Takes how many batches the loader made together, and these as if they were one; gives them one by one,
            or whatever ``arrive`` takes.
        arrive: Takes what ``set_out`` gave, one step later, and gives the batches; ``None`` where nothing travels.
    """

    set_out: Callable[[int, Batch], Any]
    arrive: Callable[[Any], list[Any]] | None = None


class FrameworkLoader(ABC, Iterable[Any]):
    """Batches of a sequence for a framework; every iteration is a pass, and epochs follow each other.

    Passes, epochs and states are those of :class:`hypersequence.Loader`.

    Args:
        sequence: What is loaded.
        share: The part of this process. Where the framework is asked, it is asked anew for every pass, since people
            make their data before they start its processes.
        **options: For :class:`hypersequence.Loader`.
    """

    def __init__(self, sequence: HyperSequence, share: Share, **options: Any) -> None:
        self._whole = sequence._with()
        self._share = share
        self._options = options
        self._made: tuple[tuple[int, int], Loader] | None = None
        # What makes no sense is refused now, and not when training begins. The framework is not asked yet.
        if share.rank is None:
            Loader(self._whole, **options)
        else:
            self._loader()

    # --- for each framework ----------------------------------------------------------------------------------------

    @abstractmethod
    def _rank_and_world(self) -> tuple[int, int]:
        """What the framework says of its processes."""

    @abstractmethod
    def _way(self, world: int) -> Way:
        """How the batches of one pass get to where they are wanted, in a world of so many ranks."""

    # --- for people ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Batches of an epoch, of this rank."""
        return len(self._loader())

    def __iter__(self) -> Iterator[Any]:
        """A pass; it begins where :class:`hypersequence.Loader` says, and when the first batch is asked for."""
        return self._pass()

    @property
    def sequence(self) -> HyperSequence:
        """What is loaded: this rank's share."""
        return self._loader().sequence

    @property
    def batch_size(self) -> int:
        """Records of a batch of this rank."""
        return self.sequence.batch_size()

    @property
    def stats(self) -> LoaderStats:
        """What the newest pass did, and what held it back."""
        return self._loader().stats

    @property
    def skipped_blocks(self) -> int:
        """As :attr:`hypersequence.Loader.skipped_blocks`."""
        return self._loader().skipped_blocks

    def set_epoch(self, epoch: int) -> None:
        """As :meth:`hypersequence.Loader.set_epoch`: the next pass is this epoch's."""
        self._loader().set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`hypersequence.Loader.state_dict`: behind the last batch that was handed over."""
        return self._loader().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As :meth:`hypersequence.Loader.load_state_dict`: the next pass begins where the state was taken.

        Raises:
            ArgumentError: The state belongs to other data or another order; the message says what differs.
        """
        self._loader().load_state_dict(state_dict)

    def __repr__(self) -> str:
        epoch, position = self._loader()._cursor.place()
        return f"<{type(self).__name__}, epoch {epoch}, position {position:,}, of {self.sequence.at_epoch(epoch)!r}>"

    # --- passes ----------------------------------------------------------------------------------------------------

    def _loader(self) -> Loader:
        """The loader of the present rank and world; it stands where the one before it stood."""
        rank, world = self._share.rank, self._share.world
        present = self._rank_and_world() if rank is None or world is None else (rank, world)
        if self._made is None or self._made[0] != present:
            loader = Loader(self._share.of(self._whole, *present), **self._options)
            if self._made is not None:
                loader._cursor, loader._resuming = self._made[1]._cursor, self._made[1]._resuming
            self._made = present, loader
        return self._made[1]

    def _pass(self) -> Iterator[Any]:
        loader = self._loader()
        epoch, position = loader._begin()
        way = self._way(self._made[0][1] if self._made is not None else 1)
        with closing(loader._walk(epoch, position, epoch + 1, together=True)) as walk:
            # The loader counts what it hands over, which is more than a person has by then.
            drawn = loader._cursor
            loader._cursor = handed_over = Cursor(*drawn.place())
            for leg, number, batches in _travelling(walk, drawn, way):
                batches.reverse()
                while batches:
                    handed_over.handed_over(leg, number)
                    number += 1
                    yield batches.pop()  # kept by whoever gets it, and by nobody else
            handed_over.move(*drawn.place())


def _travelling(walk: LoaderIterator, drawn: Cursor, way: Way) -> Iterator[tuple[Leg, int, list[Any]]]:
    """Batches that lay together, where they are wanted, with the epoch and the number of the first one.

    Where they have to travel, the next ones set out before these are handed over; if those cannot be made, these are
    handed over all the same.
    """
    if way.arrive is None:
        yield from _setting_out(walk, drawn, way)
        return
    setting_out = _setting_out(walk, drawn, way)
    coming, failed = _next(setting_out)
    while coming is not None:
        (leg, number, moving), (coming, failed) = coming, _next(setting_out)
        yield leg, number, way.arrive(moving)
    if failed is not None:
        raise failed


def _setting_out(walk: Any, drawn: Cursor, way: Way) -> Iterator[tuple[Leg, int, Any]]:
    for n_batches, together in walk:
        leg, last = drawn.mark()
        moving = way.set_out(n_batches, together)
        del together  # its memory is to be free for those that are made next
        yield leg, last + 1 - n_batches, moving
        del moving


def _next(setting_out: Iterator[Any]) -> tuple[Any, Exception | None]:
    """What sets out next, ``None`` at the end; or why it cannot."""
    try:
        return next(setting_out, None), None
    except Exception as error:
        return None, error

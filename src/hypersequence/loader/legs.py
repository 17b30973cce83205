"""What a pass goes through: epochs, each from some position on, cut into chunks and jobs."""

# The loader reads sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import threading
from collections.abc import Iterator

from ..sequence import HyperSequence
from ..sequence.ahead import PLAN_POSITIONS, Ahead
from ..sequence.delivery import delivery_of
from ..source.buffers import MIN_LEASE_NBYTES

_ALIGNMENT = 64


class Leg:
    """One epoch, or the rest of one.

    Args:
        sequence: What is read.
        epoch: Which epoch.
        origin: Position, in records of all ranks together, at which its batches begin.
    """

    def __init__(self, sequence: HyperSequence, epoch: int, origin: int) -> None:
        self.epoch = epoch
        self.origin = origin
        self.delivery = delivery_of(sequence, epoch, origin)
        self.n_batches = self.delivery.n_batches
        self.total = self.delivery.whole.n
        self._share = share = self.delivery.share
        fields = self.delivery.fields
        self.record_nbytes = sum(field.nbytes for field in fields)
        #: Whether batches that follow each other in memory lie at multiples of 64. Small ones need not: the allocator
        #: would not place them there either.
        sizes = [field.nbytes * self.delivery.batch_size for field in fields]
        self.aligned = all(nbytes % _ALIGNMENT == 0 or nbytes < MIN_LEASE_NBYTES for nbytes in sizes)
        self.world = share.world if share is not None else 1
        #: Records of all ranks' batches together.
        self.step = self.delivery.batch_size * self.world

    def position(self, batch: int) -> int:
        """Where batch number ``batch`` of this leg begins, in records of all ranks together."""
        return min(self.origin + batch * self.step, self.total)

    def bounds(self, first: int, last: int) -> tuple[int, int]:
        """Positions of this rank that batches ``first .. last-1`` hold."""
        size = self.delivery.batch_size
        return first * size, min(last * size, self.delivery.n_records)

    def n_batches_before(self, position: int) -> int:
        """How many batches end before a position of all ranks together."""
        return self.n_batches if position >= self.total else max(0, position - self.origin) // self.step

    def cut(self, batch: int, position: int) -> int:
        """Where a position of all ranks together divides a batch of this rank, in positions of this rank."""
        start, stop = self.bounds(batch, batch + 1)
        return min(max(start, self.own(position)), stop)

    def own(self, position: int) -> int:
        """How many positions of this rank lie before a position of all ranks together."""
        return min(position if self._share is None else self._share.n_before(position), self.delivery.n_records)

    def n_records(self, batch: int) -> int:
        """Records of a batch of this rank."""
        size, n_records = self.delivery.batch_size, self.delivery.n_records
        return size if (batch + 1) * size <= n_records else n_records - batch * size

    def is_contiguous(self, batch: int) -> bool:
        """Whether the records of a batch follow each other."""
        return isinstance(self.delivery.order.span(*self.bounds(batch, batch + 1)), range)

    def chunks(self) -> Iterator[tuple[int, int, Chunk]]:
        """Batches that are worked out together: the first, the one after the last, and where they lie."""
        size = max(1, PLAN_POSITIONS // self.delivery.batch_size)
        for first in range(0, self.n_batches, size):
            yield first, min(first + size, self.n_batches), Chunk(self, first)


class Chunk:
    """Where the records of some tens of thousands of positions lie, worked out by whoever needs it first."""

    def __init__(self, leg: Leg, first: int) -> None:
        self._leg = leg
        self._first = first
        self._lock = threading.Lock()
        self._ahead: Ahead | None = None

    def get(self) -> Ahead:
        """The plan."""
        with self._lock:
            if self._ahead is None:
                delivery = self._leg.delivery
                start = self._first * delivery.batch_size
                self._ahead = Ahead(delivery.source, delivery.order, start, delivery.n_records, delivery.batch_size)
            return self._ahead


def legs(sequence: HyperSequence, epoch: int, position: int, end_epoch: int) -> Iterator[Leg]:
    """The legs of a pass that begins at a position and ends before ``end_epoch``."""
    for number in range(epoch, end_epoch):
        yield Leg(sequence, number, position if number == epoch else 0)

"""From positions to a batch: where its records lie, the gather, the mask of a shard, the functions over batches."""

# A sequence and what delivers its batches are one thing in two files.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..order import Order, Sharded, compose, in_runs
from ..schema import Array, Batch
from ..source import Source
from ..source.buffers import lease
from .ahead import Ahead
from .arguments import share_of
from .mapping import Mapper

if TYPE_CHECKING:
    from .core import HyperSequence

#: Gives an array of this shape and dtype, for whatever is made into it.
Allocate = Callable[[tuple[int, ...], Any], Array]
#: Batches whose places are worked out at once: enough for NumPy's fixed costs to vanish.
_RUNS_TOGETHER = 256


class Delivery:
    """Makes the batches of one epoch.

    Args:
        source: What the records come from.
        whole: The order of all records, before they are dealt out to ranks.
        share: The rank's share of it, or ``None`` for everything.
        batch_size: Records a batch.
        drop_last: Whether a short last batch is left out.
        chosen: Columns to read.
        mappers: Functions over batches.
        epoch: For their random streams.

    Thread-safe.
    """

    def __init__(
        self,
        source: Source,
        whole: Order,
        share: Sharded | None,
        batch_size: int,
        drop_last: bool,
        chosen: tuple[int, ...],
        mappers: tuple[Mapper, ...],
        epoch: int,
    ) -> None:
        self.source = source
        #: The order of all ranks together, for whoever reads ahead; ``order`` is this rank's.
        self.whole = whole
        self.epoch = epoch
        self.fields = [source.schema.columns[number].field for number in chosen]
        self.order: Order = whole if share is None else compose(share, whole)
        self.share = share
        self.batch_size = batch_size
        self.chosen = chosen
        self.mappers = mappers
        n = self.order.n
        self.n_batches = n // batch_size if drop_last else -(-n // batch_size)
        self.n_records = self.n_batches * batch_size if drop_last else n
        self._counts = share.counts if share is not None and share.uneven == "pad" else None
        self.build: Callable[[Sequence[Array]], Batch] = source.schema.builder(chosen)
        #: Whether a batch is its arrays and nothing else.
        self.plain = self._counts is None and not mappers
        self._ahead: Ahead | None = None
        self._expected = -1

    def batch(self, start: int, stop: int) -> Batch:
        """The batch at these positions."""
        arrays = self.arrays(start, stop)
        return self.build(arrays) if self.plain else self.finish(arrays, start, stop)

    def batches(self) -> Iterator[Batch]:
        """Every batch in turn; where batches are runs of records, what many of them need is worked out at once."""
        size, whole = self.batch_size, self.n_records // self.batch_size
        n_runs = whole if in_runs(self.order, size) else 0
        for first in range(0, n_runs, _RUNS_TOGETHER):
            positions = np.arange(first, min(first + _RUNS_TOGETHER, n_runs), dtype=np.int64) * size
            runs = self.source.runs(self.order.at(positions), size, self.chosen)
            if self.plain:
                yield from map(self.build, runs)
            else:
                for start, arrays in zip(positions.tolist(), runs, strict=True):
                    yield self.finish(arrays, start, start + size)
        for number in range(n_runs, self.n_batches):
            start = number * size
            yield self.batch(start, min(start + size, self.n_records))

    def owned(self, start: int, stop: int) -> Batch:
        """The batch at these positions, in memory of its own."""
        arrays = self.arrays(start, stop, lease)
        return self.build(arrays) if self.plain else self.finish(arrays, start, stop)

    def arrays(self, start: int, stop: int, allocate: Allocate | None = None) -> list[Array]:
        """The arrays of the chosen columns at these positions.

        Args:
            start: First position, the beginning of a batch.
            stop: Position after the last.
            allocate: Gives the memory to copy them into, by shape and dtype; without it, contiguous records are views.
        """
        ahead = self._ahead
        if ahead is None or not ahead.start <= start < ahead.stop:
            ahead = self._plan_ahead(start)
        if ahead is not None and start - ahead.start not in ahead.contiguous:
            part = slice(start - ahead.start, stop - ahead.start)
            out = None if allocate is None else self.new_arrays(stop - start, allocate)
            return self.source.gather(ahead.plan, part, self.chosen, out)
        numbers = self.order.span(start, stop)
        if type(numbers) is not range:
            self._expected = stop
        if allocate is None:
            return self.source.read(numbers, self.chosen)
        out = self.new_arrays(stop - start, allocate)
        if isinstance(numbers, range):
            self.source.fill([numbers], self.chosen, out)
        else:
            self.source.gather(self.source.plan(numbers), slice(0, stop - start), self.chosen, out)
        return out

    def new_arrays(self, n_records: int, allocate: Allocate) -> list[Array]:
        """Memory for the chosen columns of that many records."""
        return [allocate((n_records, *field.shape), field.dtype) for field in self.fields]

    def _plan_ahead(self, start: int) -> Ahead | None:
        """A plan for many batches, if the last one was scattered and this one follows it."""
        if start != self._expected:
            return None
        ahead = Ahead(self.source, self.order, start, self.n_records, self.batch_size)
        self._expected = ahead.stop
        self._ahead = ahead  # at last, and at once: other threads see the old one or the new one
        return ahead

    def finish(self, arrays: Sequence[Array], start: int, stop: int, ahead: Ahead | None = None) -> Batch:
        """From the arrays of these positions to the batch that a person gets; ``ahead`` is a plan that has them."""
        batch = self.build(arrays)
        if self._counts is not None:
            batch = _weigh(batch, self._counts(start, stop))
        if self.mappers:
            first_record = cache(partial(self._number, start, ahead or self._ahead))
            for mapper in self.mappers:
                batch = mapper(batch, self.epoch, first_record)
        return batch

    def _number(self, position: int, ahead: Ahead | None) -> int:
        """The number of the record at a position, read off a plan if it is there."""
        if ahead is not None and ahead.start <= position < ahead.stop:
            return int(ahead.numbers[position - ahead.start])
        return int(self.order.span(position, position + 1)[0])


def delivery_of(sequence: HyperSequence, epoch: int | None = None, position: int = 0) -> Delivery:
    """What makes a sequence's batches, in any epoch, from any position of all ranks' common order on.

    Raises:
        ArgumentError: As ``shard`` does, since another position leaves another tail.
    """
    whole, share = sequence._whole, sequence._share
    if epoch is not None and epoch != sequence._epoch:
        whole = whole.at_epoch(epoch)
    if share is not None:
        share = share_of(share.total, share.batch, share.rank, share.world, share.uneven, position)
    elif position:
        share = Sharded(whole.n, sequence._batch_size, 0, 1, "drop" if sequence._drop_last else "short", position)
    return Delivery(
        sequence._source,
        whole,
        share,
        sequence._batch_size,
        sequence._drop_last,
        sequence._chosen,
        sequence._mappers,
        sequence._epoch if epoch is None else epoch,
    )


def _weigh(batch: Batch, counts: Array) -> Batch:
    """The batch with sample weights, zero for the records that do not count."""
    inputs, outputs, weights = (*batch, None, None)[:3]
    if weights is None:
        return inputs, outputs, counts.astype(np.float32)
    return inputs, outputs, weights if bool(counts.all()) else _masked(weights, counts)


def _masked(weights: Any, counts: Array) -> Any:
    if isinstance(weights, dict):
        return {name: _masked(value, counts) for name, value in cast("dict[str, Any]", weights).items()}
    if isinstance(weights, tuple):
        return tuple(_masked(value, counts) for value in cast("Sequence[Any]", weights))
    # Not a product: padding may be NaN.
    return np.where(counts.reshape(-1, *[1] * (weights.ndim - 1)), weights, np.zeros((), weights.dtype))

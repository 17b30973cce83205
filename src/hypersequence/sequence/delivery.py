"""From positions to a batch: where its records lie, the gather, the mask of a shard, the functions over batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np

from ..order import Order, Sharded, compose
from ..schema import Array, Batch
from ..source import Source
from .ahead import Ahead
from .mapping import Mapper


class Delivery:
    """Makes the batches of one epoch.

    Args:
        source: What the records come from.
        order: The order of all records, before they are dealt out to ranks.
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
        order: Order,
        share: Sharded | None,
        batch_size: int,
        drop_last: bool,
        chosen: tuple[int, ...],
        mappers: tuple[Mapper, ...],
        epoch: int,
    ) -> None:
        self.source = source
        self.order: Order = order if share is None else compose(share, order)
        self.batch_size = batch_size
        self.chosen = chosen
        self.mappers = mappers
        self._epoch = epoch
        n = self.order.n
        self.n_batches = n // batch_size if drop_last else -(-n // batch_size)
        self.n_records = self.n_batches * batch_size if drop_last else n
        self._counts = share.counts if share is not None and share.uneven == "pad" else None
        self.build: Callable[[list[Array]], Batch] = source.schema.builder(chosen)
        self._plain = self._counts is None and not mappers
        self._ahead: Ahead | None = None
        self._expected = -1

    def batch(self, start: int, stop: int) -> Batch:
        """The batch at these positions."""
        ahead = self._ahead
        if ahead is None or not ahead.start <= start < ahead.stop:
            ahead = self._plan_ahead(start)
        if ahead is not None and start - ahead.start not in ahead.contiguous:
            part = slice(start - ahead.start, stop - ahead.start)
            arrays = self.source.gather(ahead.plan, part, self.chosen)
        else:
            numbers = self.order.span(start, stop)
            if type(numbers) is not range:
                self._expected = stop
            arrays = self.source.read(numbers, self.chosen)
        return self.build(arrays) if self._plain else self.finish(arrays, start, stop)

    def _plan_ahead(self, start: int) -> Ahead | None:
        """A plan for many batches, if the last one was scattered and this one follows it."""
        if start != self._expected:
            return None
        ahead = Ahead(self.source, self.order, start, self.n_records, self.batch_size)
        self._expected = ahead.stop
        self._ahead = ahead  # at last, and at once: other threads see the old one or the new one
        return ahead

    def finish(self, arrays: list[Array], start: int, stop: int) -> Batch:
        """From the arrays of these positions to the batch that a person gets."""
        batch = self.build(arrays)
        if self._counts is not None:
            batch = _weigh(batch, self._counts(start, stop))
        if self.mappers:
            first_record = int(self.order.span(start, start + 1)[0])
            for mapper in self.mappers:
                batch = mapper(batch, self._epoch, first_record)
        return batch


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
    return weights * counts.astype(weights.dtype).reshape(-1, *[1] * (weights.ndim - 1))

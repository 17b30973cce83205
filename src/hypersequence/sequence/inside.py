"""What other parts of the package read of a sequence that a person does not ask for."""

# Instead of their looking for themselves: what a sequence is made of is known in this package only.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Sequence

from ..order import Natural, Order
from ..schema import Array, Column
from ..source import Source
from .core import HyperSequence


def source_of(sequence: HyperSequence) -> Source:
    """What the records are read from."""
    return sequence._source


def order_of(sequence: HyperSequence) -> Order:
    """From positions in the sequence to numbers of records; of a shard, this rank's."""
    return sequence._order


def whole_order_of(sequence: HyperSequence) -> Order:
    """The same for all ranks together."""
    return sequence._whole


def read_columns(
    sequence: HyperSequence, start: int, stop: int, columns: Sequence[Column] | None = None
) -> list[Array]:
    """What is stored for consecutive positions of a sequence, an array a field; views where there can be.

    Args:
        sequence: Any sequence.
        start: The first position.
        stop: The position after the last.
        columns: Which fields; ``None`` for those that the sequence has.
    """
    chosen = sequence._chosen if columns is None else [column.number for column in columns]
    return sequence._source.read(sequence._order.span(start, stop), chosen)


def first_records(sequence: HyperSequence, n_records: int, batch_size: int) -> HyperSequence:
    """The first records of a file in the order of the file, as if there were no others: shuffles are of these alone."""
    return sequence._with(whole=Natural(n_records), batch_size=batch_size)

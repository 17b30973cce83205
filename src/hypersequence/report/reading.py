"""The stored values of a sequence, a column at a time."""

# A sequence and what is said about it are one thing in two places.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from ..schema import Array
from ..sequence import HyperSequence


def read_columns(sequence: HyperSequence, start: int, stop: int) -> list[Array]:
    """What is stored for consecutive positions of a sequence, an array a field; views where there can be."""
    return sequence._source.read(sequence._order.span(start, stop), sequence._chosen)

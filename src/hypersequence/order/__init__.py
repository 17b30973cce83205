"""Orders: which record comes at which position. Integers only; no file, no data, no thread.

An order is an immutable value. ``order.at(positions)`` maps any int64 positions to numbers; ``order.span(start, stop)``
does it for consecutive positions and gives a ``range`` where the numbers are consecutive too. ``order.at_epoch(e)`` is
the same order with its shuffles set to another epoch.
"""

from .base import Chosen, Composed, Evenly, Fixed, InChunks, Natural, Order, Sliced, Span, compose, split_counts
from .permute import Permutation, Shuffled

__all__ = [
    "Chosen",
    "Composed",
    "Evenly",
    "Fixed",
    "InChunks",
    "Natural",
    "Order",
    "Permutation",
    "Shuffled",
    "Sliced",
    "Span",
    "compose",
    "split_counts",
]

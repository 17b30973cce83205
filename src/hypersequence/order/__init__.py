"""Orders: which record comes at which position. Integers only; no file, no data, no thread.

An order is an immutable value. ``order.at(positions)`` maps any int64 positions to numbers; ``order.span(start, stop)``
does it for consecutive positions and gives a ``range`` where the numbers are consecutive too. ``order.at_epoch(e)`` is
the same order with its shuffles set to another epoch. ``order.stretch(start, stop)`` tells a reader where the numbers
of coming positions lie.
"""

from .base import (
    Chosen,
    Composed,
    Evenly,
    Fixed,
    InChunks,
    Natural,
    Order,
    Sliced,
    Span,
    compose,
    in_runs,
    merged,
    split_counts,
    without,
)
from .fingerprint import fingerprint, outermost_seed
from .joined import Concatenated, Mixed, parts_of, whole_weights
from .permute import Permutation
from .sharded import Sharded, Uneven
from .shuffle import Shuffled, Windowed

__all__ = [
    "Chosen",
    "Composed",
    "Concatenated",
    "Evenly",
    "Fixed",
    "InChunks",
    "Mixed",
    "Natural",
    "Order",
    "Permutation",
    "Sharded",
    "Shuffled",
    "Sliced",
    "Span",
    "Uneven",
    "Windowed",
    "compose",
    "fingerprint",
    "in_runs",
    "merged",
    "outermost_seed",
    "parts_of",
    "split_counts",
    "whole_weights",
    "without",
]

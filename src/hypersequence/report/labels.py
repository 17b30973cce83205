"""Labels of records: their field of the file, or, for want of one, ten parts of the file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..order.base import Positions
from ..schema import Array, Column
from ..sequence import HyperSequence
from ..sequence.inside import source_of

#: Labels are put together into at most so many groups.
N_GROUPS = 10
_CHUNK_NBYTES = 16 << 20
_CHUNK_RECORDS = 1 << 14


def groups_of_places(everywhere: Positions, places: Positions) -> tuple[Positions, Positions]:
    """Groups as if the file were sorted by class: ten parts of it, with equal numbers of the sequence's records.

    Args:
        everywhere: Where records of the whole sequence lie.
        places: Where the records of some batches lie.

    Returns:
        The groups of both.
    """
    n = len(everywhere)
    n_groups = min(N_GROUPS, n)
    cuts = np.sort(everywhere)[np.arange(1, n_groups) * n // n_groups] if n else everywhere
    return np.searchsorted(cuts, everywhere, side="right"), np.searchsorted(cuts, places, side="right")


def groups_of_labels(
    seq: HyperSequence, label: str, everywhere: Positions, numbers: Positions
) -> tuple[Positions, Positions]:
    """Groups by the stored label: each value one, or, if there are more than ten, neighbouring values together.

    Args:
        seq: The sequence.
        label: A field's name, as ``fields()`` takes it.
        everywhere: Numbers of records of the whole sequence.
        numbers: Numbers of the records of some batches.

    Returns:
        The groups of both.

    Raises:
        ArgumentError: Not exactly one field is called so, or it is no label.
        HyperSequenceError: As reading raises.
    """
    column = _column_of(seq, label)
    wanted, back = np.unique(np.concatenate((everywhere, numbers.reshape(-1))), return_inverse=True)
    values, codes = np.unique(_read(seq, column, wanted), return_inverse=True)
    codes = codes.reshape(-1)[back]
    n = len(everywhere)
    if len(values) > N_GROUPS:
        counts = np.bincount(codes[:n], minlength=len(values))
        middles = np.cumsum(counts) - counts / 2
        codes = np.minimum(N_GROUPS - 1, (middles * N_GROUPS / max(1, n)).astype(np.int64))[codes]
    return codes[:n], codes[n:].reshape(numbers.shape)


def _column_of(seq: HyperSequence, label: str) -> Column:
    found = seq.schema.choose((label,))
    if len(found) != 1:
        raise ArgumentError(f"shuffle_quality(label={label!r}): {len(found)} fields are called so; name one of them")
    column = seq.schema.columns[found[0]]
    field = column.field
    if len(field.shape) > 1 or field.shape == (0,) or (field.shape and field.dtype.kind in "SUMm"):
        raise ArgumentError(
            f"shuffle_quality(label={label!r}): a label is a number or text, or a one-hot vector, and {column.label} "
            f"is {field}"
        )
    return column


def _read(seq: HyperSequence, column: Column, numbers: Positions) -> Array:
    """One value for each of these records, read in rising order and in pieces."""
    field = column.field
    piece = max(1, min(_CHUNK_RECORDS, _CHUNK_NBYTES // max(1, field.nbytes)))
    found: list[Any] = [
        _plain(source_of(seq).read(numbers[start : start + piece], (column.number,))[0], field.shape)
        for start in range(0, len(numbers), piece)
    ]
    return np.concatenate(found) if found else np.empty(0)


def _plain(values: Any, shape: tuple[int, ...]) -> Any:
    if values.dtype.kind == "V":  # bfloat16 and the like do not sort
        values = values.astype(np.float64)
    if math.prod(shape) > 1:
        return values.argmax(axis=1)
    return values.reshape(-1).copy()  # not a piece of a buffer that others wait for

"""The arrays of a batch, one by one, whatever structure they are in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..sequence import HyperSequence


def each_array(part: Any, convert: Callable[[Any], Any]) -> Any:
    """A batch, or a part of one, with every array converted.

    Args:
        part: Arrays in tuples, lists and dicts; ``None`` stays.
        convert: From one array to whatever a framework wants.
    """
    if isinstance(part, np.ndarray):
        return convert(part)
    if isinstance(part, tuple | list):
        return tuple([each_array(member, convert) for member in part])
    if isinstance(part, dict):
        return {name: each_array(member, convert) for name, member in part.items()}
    return None if part is None else convert(part)


def apart(part: Any, n: int, split: Callable[[Any], Sequence[Any]]) -> list[Any]:
    """Several batches that lie together, as single ones of the same structure.

    Args:
        part: What a loader gives for ``n`` batches, or a part of it.
        n: How many batches it holds.
        split: From one array to its ``n`` parts, as whatever a framework wants.
    """
    if isinstance(part, np.ndarray):
        return list(split(part))
    if isinstance(part, tuple):
        return list(zip(*[apart(member, n, split) for member in part], strict=True))
    if isinstance(part, dict):
        members = zip(*[apart(member, n, split) for member in part.values()], strict=True)
        return [dict(zip(part, values, strict=True)) for values in members]
    return [part] * n


def refuse_types(sequence: HyperSequence, framework: str, reason: Callable[[np.dtype[Any]], str | None]) -> None:
    """Say which stored field a framework cannot take; ``map`` may turn anything into something else.

    Args:
        sequence: What is handed over.
        framework: Its name.
        reason: For a dtype, what to do about it beside ``fields`` and ``map``, or ``None`` if it can be taken.

    Raises:
        ArgumentError: A field has elements of such a type.
    """
    if sequence.has_map:
        return
    for column in sequence.columns:
        hint = reason(column.field.dtype)
        if hint is not None:
            raise ArgumentError(
                f"{column.label} has elements of type {column.field.type_name}, which {framework} does not take; "
                f"{hint}leave it out with fields(...), or convert it with map(...)"
            )

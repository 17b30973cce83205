"""Stored values for people and for JSON: names of fields, numbers, text, arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..schema import Array, Column
from ..terminal import safe

#: Arrays of so many values are shown in full.
SHORT = 64
_FIRST_TIME = -(1 << 63) + (1 << 40)
_N_FIRST = 8


def short_names(columns: Sequence[Column]) -> list[str]:
    """A name for each field, as ``fields()`` takes it: its own, its role if it is alone there, or both."""
    names = [column.name for column in columns]

    def short(column: Column) -> str:
        if column.name is None:
            return column.address if column.of_several else column.role
        return column.name if names.count(column.name) == 1 else column.address

    return list(map(short, columns))


def scalar_text(value: Any) -> str:
    """A single value as it is."""
    if isinstance(value, str):
        return safe(value)
    return safe(repr(bytes(value)) if isinstance(value, bytes) else str(value))


def number_text(value: Any) -> str:
    """A number in a few digits; whole ones in all of theirs."""
    if value is None:
        return ""
    if isinstance(value, complex):
        return f"{value:.6g}"
    return f"{value:.6g}" if isinstance(value, float) else scalar_text(value)


def value_text(value: Any) -> str:
    """One record's value of a field: alone as it is, a short array in full, a long one in a few words."""
    array = np.asarray(value)
    if array.ndim == 0:
        return scalar_text(value[()] if isinstance(value, np.ndarray) else value)
    if not array.size:
        return f"{array.dtype} {array.shape}, no values"
    if array.size <= SHORT:
        if array.ndim == 1:
            return f"[{', '.join(map(_element_text, array))}]"
        return np.array2string(array, separator=", ", max_line_width=100, threshold=SHORT + 1, floatmode="unique")
    first = array.reshape(-1)[:_N_FIRST]
    if array.dtype.kind == "f":
        first = map(number_text, first.tolist())
    told = ", ".join(filter(None, [f"{array.dtype} {array.shape}", _span(array)]))
    return f"{told}: {', '.join(safe(_element_text(each), 40) for each in first)}, ..."


def _element_text(value: Any) -> str:
    return scalar_text(value) if not isinstance(value, str) or type(value) is str else repr(str(value))


def _span(array: Array) -> str:
    """Smallest, mean and largest of many numbers."""
    if array.dtype.kind in "SUMmc":
        return ""
    numbers = array.astype(np.float64) if array.dtype.kind in "fV" else array
    good = numbers[np.isfinite(numbers)]
    n_odd = numbers.size - good.size
    odd = f"{n_odd:,} not finite" if n_odd else ""
    if not good.size:
        return odd
    with np.errstate(all="ignore"):
        mean = float(good.mean(dtype=np.float64))
    low, high = (number_text(value.item()) for value in (good.min(), good.max()))
    return ", ".join(filter(None, [f"{low} to {high}", f"mean {number_text(mean)}", odd]))


def plain(value: Any) -> Any:
    """A value, or a structure of values, as JSON has them.

    What JSON does not know: NaN and infinities are the text ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, complex
    numbers are pairs, bytes are text with a character (U+0000 to U+00FF) each, times are ISO 8601 text (a whole number
    of the field's unit where that is too far away), durations whole numbers, and what is no time is ``"NaT"``.

    >>> plain({"x": np.array([1.5, np.nan], np.float32), "when": np.datetime64("2024-02-29")})
    {'x': [1.5, 'NaN'], 'when': '2024-02-29'}
    """
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in cast("list[Any]", value)]
    if isinstance(value, np.ndarray | np.generic):
        return _plain_array(np.asarray(cast("Any", value)))
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _plain_array(array: Array) -> Any:
    kind = array.dtype.kind
    if kind == "m":
        return np.where(np.isnat(array), "NaT", array.astype(np.int64).astype(object)).tolist()
    if kind == "M":
        return _plain_times(array)
    if kind == "V":  # bfloat16 and the like
        array, kind = array.astype(np.float32), "f"
    if kind in "biuU" or (kind == "f" and bool(np.isfinite(array).all())):
        return array.tolist()
    return plain(array.tolist())


def _plain_times(array: Array) -> Any:
    """ISO 8601 where that is the same time when it is read again, which it is not ages from now; else whole numbers."""
    texts = np.datetime_as_string(array)
    try:
        # Where days begin, NumPy's calendar overflows, and reads what it wrote as wrongly.
        same = (texts.astype(array.dtype) == array) & (array.astype(np.int64) > _FIRST_TIME)
    except (ValueError, TypeError):
        same = np.zeros(array.shape, bool)
    same |= np.isnat(array)
    return np.where(same, texts.astype(object), array.astype(np.int64).astype(object)).tolist()

"""Stored values for people and for JSON: names of fields, numbers, text, arrays."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from ..schema import Array, Column

#: Arrays of so many values are shown in full.
SHORT = 64
_N_FIRST = 8
_LONGEST_TEXT = 2000
#: What moves the cursor, ends the line or turns the direction of what follows is shown by its number.
_ODD_KINDS = {"Cc", "Cs", "Zl", "Zp"}
_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def short_names(columns: Sequence[Column]) -> list[str]:
    """A name for each field: its own, or, where there is none or two roles have the same, one with its role."""
    names = [column.name for column in columns]
    return [
        column.name if column.name is not None and names.count(column.name) == 1 else column.label for column in columns
    ]


def safe(text: str, longest: int = _LONGEST_TEXT) -> str:
    r"""Text that does nothing to a terminal; a long one is cut.

    >>> safe("Größe\x1b[2J"), safe("0123456789", 4)
    ('Größe\\x1b[2J', '0123... (10 characters)')
    """
    shown = "".join(
        ascii(sign)[1:-1] if unicodedata.category(sign) in _ODD_KINDS or ord(sign) in _TURNING else sign
        for sign in text[:longest]
    )
    return shown if len(text) <= longest else f"{shown}... ({len(text):,} characters)"


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
        same = (texts.astype(array.dtype) == array) | np.isnat(array)
    except (ValueError, TypeError):
        same = np.isnat(array)
    return np.where(same, texts.astype(object), array.astype(np.int64).astype(object)).tolist()

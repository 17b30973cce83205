"""Arrow's types and arrays taken apart: which element type of NumPy's, how many lists around it, text of one width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ..errors import SourceError
from ..schema import Array
from .arrays import explained
from .base import require

#: Says where the value of a number is, counted over all values of some rows.
Place: TypeAlias = Callable[[int], str]


def layers(type: Any) -> tuple[list[int | None], Any]:
    """The lengths of the lists in a type from outside in, ``None`` where it is open, and what they hold in the end.

    Raises:
        ValueError: There is a tensor within; the message says what to do.
    """
    pa = require("pyarrow")
    known, sizes, whole = pa.types, list[int | None](), type
    while True:
        if isinstance(type, pa.FixedShapeTensorType) and type is not whole:
            raise ValueError(
                "the shape of a tensor within others would be lost; make one tensor of all, or plain lists"
            )
        if _is_bool8(type):
            return sizes, pa.bool_()
        if isinstance(type, pa.BaseExtensionType):
            type = type.storage_type
        elif known.is_dictionary(type) or known.is_run_end_encoded(type):
            type = type.value_type
        elif known.is_fixed_size_binary(type):  # bytes of one number may well end in NUL
            return [*sizes, type.byte_width], pa.uint8()
        elif known.is_fixed_size_list(type):
            sizes.append(type.list_size)
            type = type.value_type
        elif any(is_one(type) for is_one in (known.is_list, known.is_large_list)) or _is_list_view(type):
            sizes.append(None)
            type = type.value_type
        else:
            return sizes, type


def _is_bool8(type: Any) -> bool:
    """Whether a type is stored as ``int8``, and stands for truth values: all but 0 are true."""
    return isinstance(type, require("pyarrow").BaseExtensionType) and type.extension_name == "arrow.bool8"


def _is_list_view(type: Any) -> bool:
    known = require("pyarrow").types
    return known.is_list_view(type) or known.is_large_list_view(type)


def element(type: Any) -> np.dtype[Any]:
    """NumPy's type for one of Arrow's.

    Raises:
        ValueError: There is none; the message says what to do.
    """
    known = require("pyarrow").types
    if known.is_boolean(type) or known.is_integer(type) or known.is_floating(type):
        return np.dtype(type.to_pandas_dtype())
    if known.is_timestamp(type) or known.is_date(type):
        return np.dtype(f"<M8[{'D' if known.is_date32(type) else 'ms' if known.is_date64(type) else type.unit}]")
    if known.is_duration(type) or known.is_time(type):
        return np.dtype(f"<m8[{type.unit}]")
    if known.is_string(type) or known.is_large_string(type) or known.is_string_view(type):
        return np.dtype("<U0")
    if known.is_binary(type) or known.is_large_binary(type) or known.is_binary_view(type):
        return np.dtype("S0")
    hints = {
        "a decimal is not rounded unasked; cast it to float64, or to an integer of the smallest unit": known.is_decimal,
        "flatten it, so that each member is a column of its own": known.is_struct,
        "nothing but nulls is in it": known.is_null,
    }
    raise ValueError(next((hint for hint, fits in hints.items() if fits(type)), f"{type} is not an array of one shape"))


def plain(array: Any) -> Any:
    """An array as what it is stored as: no extension type, no dictionary, no runs, no views of text."""
    pa = require("pyarrow")
    while True:
        if _is_bool8(array.type):
            array = array.storage.cast(pa.bool_())
        elif isinstance(array, pa.ExtensionArray):
            array = array.storage
        elif pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        elif pa.types.is_run_end_encoded(array.type):
            array = require("pyarrow.compute").run_end_decode(array)
        elif pa.types.is_string_view(array.type):
            array = array.cast(pa.large_string())
        elif pa.types.is_binary_view(array.type):
            array = array.cast(pa.large_binary())
        else:
            return array


def lengths_of(array: Any) -> Array:
    """How many values each list has."""
    pa = require("pyarrow")
    if pa.types.is_fixed_size_binary(array.type):
        return np.full(len(array), array.type.byte_width)
    if pa.types.is_fixed_size_list(array.type):
        return np.full(len(array), array.type.list_size)
    return require("pyarrow.compute").list_value_length(array).to_numpy(zero_copy_only=False)


def inside(array: Any) -> Any:
    """The values of all lists, one after the other."""
    pa = require("pyarrow")
    if not pa.types.is_fixed_size_binary(array.type):
        return array.flatten()
    width, held = array.type.byte_width, array.buffers()[1]
    return pa.Array.from_buffers(pa.uint8(), len(array) * width, [None, held], offset=array.offset * width)


def padded_text(array: Any, dtype: np.dtype[Any], place: Place) -> Array:
    """An Arrow array of text or bytes, in NumPy's form: all of one width.

    Args:
        array: Without nulls.
        dtype: ``U`` or ``S`` of the width.
        place: Says where a value is.

    Raises:
        SourceError: One is wider, or ends in NUL, which this form cannot keep.
    """
    pa, pc, n = require("pyarrow"), require("pyarrow.compute"), len(array)
    raw = array.cast(pa.large_binary())
    out = np.zeros((n, dtype.itemsize // (4 if dtype.kind == "U" else 1)), "<u4" if dtype.kind == "U" else "u1")
    if n:
        bounds = np.frombuffer(raw.buffers()[1], np.int64)[raw.offset : raw.offset + n + 1]
        held = raw.buffers()[2]  # of all, though this may be a part of a longer array
        data = memoryview(held or b"")[bounds[0] : bounds[-1]]
        if dtype.kind == "U":
            with explained(f"{place(0)} and after it"):
                codes = np.frombuffer(str(data, "utf-8").encode("utf-32-le"), "<u4")
            lengths = pc.utf8_length(array).to_numpy()
        else:
            codes, lengths = np.frombuffer(data, "u1"), np.diff(bounds)
        _check_text(codes, lengths, out.shape[1], place)
        out[np.arange(out.shape[1]) < lengths[:, None]] = codes
    return out.view(dtype).reshape(n) if out.shape[1] else np.ndarray((n,), dtype)


def _check_text(codes: Array, lengths: Array, width: int, place: Place) -> None:
    wide = np.flatnonzero(lengths > width)
    if wide.size:
        raise SourceError(
            f"{place(wide[0])}: has {lengths[wide[0]]:,} characters, where the longest text has {width:,}"
        )
    filled = np.flatnonzero(lengths)
    nul = filled[codes[np.cumsum(lengths)[filled] - 1] == 0]
    if nul.size:
        raise SourceError(
            f"{place(nul[0])}: ends in NUL, which text of one width cannot keep; store bytes as lists of uint8, all of "
            "one length"
        )

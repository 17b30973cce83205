"""Element types: the closed list of what an array may hold, by their names in the file."""

from __future__ import annotations

import re
import sys
from typing import Any

import ml_dtypes
import numpy as np

from .errors import RecordError

_FLOAT8 = ("e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu")
_NUMPY = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
)
# The closed list of fixed-width element types: name in the file -> little-endian dtype.
_BY_NAME: dict[str, np.dtype[Any]] = {
    # newbyteorder() makes a new object, and native types are quicker to compare when they are the one that NumPy has.
    **{name: np.dtype(name) if sys.byteorder == "little" else np.dtype(name).newbyteorder("<") for name in _NUMPY},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    **{f"float8_{kind}": np.dtype(getattr(ml_dtypes, f"float8_{kind}")) for kind in _FLOAT8},
}
_TIME_UNITS = ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")
_PARAMETRIC = re.compile(
    r"(?P<text>[SU])(?P<width>0|[1-9]\d{0,9})"
    rf"|(?P<time>datetime64|timedelta64)\[(?P<count>[1-9]\d{{0,8}})?(?P<unit>{'|'.join(_TIME_UNITS)})\]",
    re.ASCII,
)


def dtype_from_name(name: str) -> np.dtype[Any] | None:
    """The dtype of an element type's name, or ``None`` if the name is not on the closed list.

    The name is looked up and taken apart here; it never reaches NumPy's own parser of type strings.

    >>> dtype_from_name("float32"), dtype_from_name("U5"), dtype_from_name("object")
    (dtype('float32'), dtype('<U5'), None)
    """
    fixed = _BY_NAME.get(name)
    if fixed is not None:
        return fixed
    match = _PARAMETRIC.fullmatch(name)
    if match is None:
        return None
    if match["text"]:
        width = int(match["width"])
        if width * (4 if match["text"] == "U" else 1) > np.iinfo(np.int32).max:
            return None
        return np.dtype(f"<{match['text']}{width}")
    letter = "M" if match["time"] == "datetime64" else "m"
    return np.dtype(f"<{letter}8[{match['count'] or ''}{match['unit']}]")


def name_of_dtype(dtype: np.dtype[Any]) -> str | None:
    """The element type's name in the file, byte order aside, or ``None`` if the type cannot be stored.

    >>> name_of_dtype(np.dtype(">f4")), name_of_dtype(np.dtype("M8[25s]")), name_of_dtype(np.dtype(object))
    ('float32', 'datetime64[25s]', None)
    """
    if dtype.kind in "SU":
        return f"{dtype.kind}{dtype.itemsize // (4 if dtype.kind == 'U' else 1)}"
    if dtype.kind in "mM":
        return dtype.name if dtype_from_name(dtype.name) is not None else None
    known = _BY_NAME.get(dtype.name)
    return dtype.name if known is not None and known == dtype.newbyteorder("<") else None


def storable_dtype(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The dtype that a file stores for this one: the same, little-endian.

    Raises:
        RecordError: It cannot be stored; the message begins with ``where`` and says what to do.
    """
    name = name_of_dtype(dtype)
    found = dtype_from_name(name) if name is not None else None
    if found is not None:
        return found
    if dtype.kind == "O":
        hint = "Python objects are never stored (no pickle); convert to an array of numbers, bytes or text first"
    elif dtype.kind == "V" and dtype.names is not None:
        hint = "store each member of a structured type as a field of its own: inputs={'a': rec['a'], ...}"
    elif dtype.kind in "mM":
        hint = "give it a unit, for instance astype('datetime64[ns]')"
    elif dtype.kind == "T":
        hint = "convert to fixed-length text, for instance astype('U32')"
    else:
        hint = "convert it first, for instance with astype('float64')"
    raise RecordError(f"{where}: elements of type {dtype} cannot be stored; {hint}")

"""The encodings of MosaicML's MDS: from a column's bytes to an array."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, cast

import numpy as np

from ..errors import SourceError
from ..schema import Array
from .base import require
from .images import decode_image, image_array
from .jsonfields import Json
from .samples import Decoder, integer, octets, single, text

_SCALARS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
# What stands for a type in an array whose encoding does not name it.
_ARRAY_TYPES = dict(
    zip(
        (8, 9, 16, 17, 18, 32, 33, 34, 64, 65, 66),
        ("uint8", "int8", "uint16", "int16", "float16", "uint32", "int32", "float32", "uint64", "int64", "float64"),
        strict=True,
    )
)


def uint32(data: bytes) -> list[int]:
    """Numbers of four bytes; what is left over at the end is left out."""
    return cast("list[int]", np.frombuffer(data, "<u4", len(data) // 4).tolist())


def decoder(name: str, encoding: str, images: dict[str, Any], where: str) -> Decoder | SourceError:
    """What makes an array of a column's bytes; or why nothing can.

    Args:
        name: The column's.
        encoding: As the index names it.
        images: What :func:`decode_image` is told.
        where: What messages call the data set.
    """
    kind, _, detail = encoding.partition(":")
    simple: dict[str, Callable[[bytes], Array]] = {
        **{scalar: partial(_scalar, np.dtype(scalar).newbyteorder("<")) for scalar in _SCALARS},
        "int": partial(_scalar, np.dtype("<i8")),
        "str": text,
        "str_int": integer,
        "str_float": _decimal,
        "str_decimal": text,  # no float has all its digits
        "bytes": octets,
    }
    if kind in simple:
        return single(name, simple[kind])
    if kind == "ndarray":
        return single(name, partial(_ndarray, *_static(detail)))
    if kind == "json":
        return Json(name)
    one: dict[str, Callable[[bytes, str], Array]] = {
        "jpeg": lambda data, where: decode_image(data, where, **images),
        "png": lambda data, where: decode_image(data, where, **images),
        "pil": lambda data, where: _pil(data, where, images),
    }
    if kind in one:
        return lambda data, where: {name: one[kind](data, where)}
    if kind in ("jpeg_array", "jpegarray"):
        return lambda data, where: {name: _list(data, where, one["jpeg"])}
    member = kind.removeprefix("list[").removesuffix("]")
    if kind == f"list[{member}]" and member in one:
        return lambda data, where: {name: _list(data[4:], where, one[member])}  # after four bytes without a meaning yet
    why = (
        "is pickled, and nothing is ever unpickled"
        if kind == "pkl"
        else f"is encoded as {encoding!r}, which is not known"
    )
    return SourceError(f"{where}: the column {name!r} {why}; choose others with inputs= and outputs=")


def _scalar(dtype: np.dtype[Any], data: bytes) -> Array:
    return np.frombuffer(data, dtype).reshape(())


def _decimal(data: bytes) -> Array:
    value = float(data)
    if math.isinf(value) and b"inf" not in data.lower():
        raise ValueError(f"{data[:40]!r} is too large for float64")
    return np.array(value, np.float64)


def _static(detail: str) -> tuple[np.dtype[Any] | None, tuple[int, ...] | None]:
    """Type and shape of arrays, so far as an encoding names them: ``int32:28,28``."""
    dtype, _, shape = detail.partition(":")
    if dtype and dtype not in _ARRAY_TYPES.values():
        raise SourceError(f"arrays of {dtype!r} are not known")
    return (
        np.dtype(dtype).newbyteorder("<") if dtype else None,
        tuple(int(n) for n in shape.split(",")) if shape else None,
    )


def _ndarray(dtype: np.dtype[Any] | None, shape: tuple[int, ...] | None, data: bytes) -> Array:
    at = 0
    if dtype is None:
        if data[:1] == b"" or data[0] not in _ARRAY_TYPES:
            raise ValueError(f"an array of the type number {data[:1].hex() or 'none'}, which is not known")
        dtype, at = np.dtype(_ARRAY_TYPES[data[0]]).newbyteorder("<"), 1
    if shape is None:
        if len(data) == at:
            raise ValueError("an array without a shape")
        n_axes, width = data[at] >> 2, 1 << (data[at] & 3)
        shape = tuple(np.frombuffer(data, f"<u{width}", n_axes, at + 1).tolist())
        at += 1 + n_axes * width
    if math.prod(shape) * dtype.itemsize != len(data) - at:
        raise ValueError(f"an array of {dtype}{list(shape)} in {len(data) - at:,} bytes")
    return np.ndarray(shape, dtype, data, at)


def _pil(data: bytes, where: str, images: dict[str, Any]) -> Array:
    """An image as Pillow has it in memory."""
    if len(data) < 12:
        raise ValueError("an image of less than 12 bytes")
    width, height, n_mode = uint32(data[:12])
    mode, values = data[12 : 12 + min(n_mode, 16)].decode("utf-8"), data[12 + n_mode :]
    try:
        image = require("PIL.Image").frombytes(mode, (width, height), values)
    except Exception as error:  # Pillow raises much
        raise ValueError(f"cannot be read as an image of mode {mode!r}: {error}") from error
    return image_array(image, where, **images)


def _list(data: bytes, where: str, decode: Callable[[bytes, str], Array]) -> Array:
    """Images one behind the other, all of one size, as one array."""
    n = uint32(data[:4])[0] if len(data) >= 4 else 0
    sizes = uint32(data[4 : 4 + 4 * n])
    bounds = list(accumulate(sizes, initial=4 + 4 * n))
    if not n or len(sizes) != n or bounds[-1] != len(data):
        raise ValueError("a list of images that is empty, or whose sizes do not add up")
    arrays = [decode(data[a:b], f"{where}[{i}]") for i, (a, b) in enumerate(pairwise(bounds))]
    return np.stack(arrays)

"""The features of a ``tf.train.Example``: what they are, from them to arrays, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..errors import RecordError
from ..schema import Array, Field
from .base import raw, require
from .images import decode_image
from .samples import Decoder
from .tfmessages import delimited, head, messages

# TensorFlow's DataType, by its numbers.
_TENSOR_TYPES = {
    1: "float32",
    2: "float64",
    3: "int32",
    4: "uint8",
    5: "int16",
    6: "int8",
    8: "complex64",
    9: "int64",
    10: "bool",
    14: "bfloat16",
    17: "uint16",
    18: "complex128",
    19: "float16",
    22: "uint32",
    23: "uint64",
    24: "float8_e5m2",
    25: "float8_e4m3fn",
}
_IMAGE_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")
_TYPE = re.compile(r"(?P<type>\w+(?:\[\d*[A-Za-z]+\])?)(?:\[(?P<shape>[\d,\s]*)\])?")


@dataclass(frozen=True)
class Spec:
    """What a feature is.

    Args:
        type: An element type of numbers, ``S32`` or ``U32`` for text, ``"image"`` or ``"tensor"``.
        shape: Of the array; ``()`` is a single value.
    """

    type: str
    shape: tuple[int, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Spec:
        """From ``"uint8[28,28]"``.

        Raises:
            ValueError: It is none.
        """
        match = _TYPE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"{text!r} is no type; write uint8[28,28], int64, S32, image or tensor")
        spec = cls(match["type"], tuple(int(n) for n in (match["shape"] or "").split(",") if n.strip()))
        if spec.is_coded:
            if match["shape"] is not None:
                raise ValueError(f"{text!r}: an {spec.type} has a shape of its own")
        else:
            _ = spec.field
        return spec

    @property
    def is_coded(self) -> bool:
        """Whether only the value itself tells its type and shape."""
        return self.type in ("image", "tensor")

    @property
    def field(self) -> Field:
        """What it is stored as."""
        try:
            return Field(self.type, self.shape)
        except RecordError:
            raise ValueError(f"{self.type!r} is no type; write uint8[28,28], int64, S32, image or tensor") from None

    def __str__(self) -> str:
        return f"{self.type}[{','.join(map(str, self.shape))}]" if self.shape else self.type


def parse_features(given: str | Mapping[str, str]) -> dict[str, Spec | None]:
    """Features and what they are, from ``"image:uint8[28,28],label"`` or a dict; ``None`` where that is to be seen."""
    if isinstance(given, str):
        items = [item.strip() for item in re.findall(r"(?:[^,\[]|\[[^\]]*\]?)+", given)]
        pairs = [(name or kind, kind if name else "") for name, _, kind in (item.rpartition(":") for item in items)]
    else:
        pairs = list(given.items())
    if not pairs:
        raise ValueError("names no feature")
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a feature stands twice")
    return {name: Spec.parse(kind) if kind else None for name, kind in pairs}


def infer(feature: Any) -> Spec:
    """What a feature seems to be.

    Raises:
        ValueError: It is empty.
    """
    kind = feature.WhichOneof("kind")
    values = cast("list[Any]", getattr(feature, kind).value if kind else [])
    if not len(values):
        raise ValueError("the first record has no values here; say in features= what it is")
    shape = (len(values),) if len(values) > 1 else ()
    if kind == "int64_list":
        return Spec("int64", shape)
    if kind == "float_list":
        return Spec("float32", shape)
    longest = max(map(len, values))
    if all(_is_text(value) for value in values):
        return Spec(f"S{longest}", shape)
    if shape:
        raise ValueError("the first record has several values of bytes here; say in features= what it is")
    if values[0].startswith(_IMAGE_BEGINNINGS) or (values[0][:4] == b"RIFF" and values[0][8:12] == b"WEBP"):
        return Spec("image")
    return Spec("uint8", (longest,))


def _is_text(value: bytes) -> bool:
    """Whether bytes are readable, which bytes of numbers hardly ever are."""
    try:
        return value.decode("utf-8").isprintable()
    except UnicodeDecodeError:
        return False


def decoder(name: str, spec: Spec, images: dict[str, Any]) -> Decoder:
    """What makes an array of a feature.

    Args:
        name: The feature's.
        spec: What it is.
        images: What :func:`decode_image` is told.
    """
    if spec.type == "image":
        return lambda feature, where: {name: decode_image(_one(feature), where, **images)}
    if spec.type == "tensor":
        return lambda feature, where: {name: _tensor(_one(feature))}
    field = spec.field
    return lambda feature, where: {name: _array(feature, field, name)}


def _array(feature: Any, field: Field, name: str) -> Array:
    kind, dtype = feature.WhichOneof("kind"), field.dtype
    if kind == "bytes_list":
        if dtype.kind in "SU":
            return _shaped(np.array([_text(value, dtype, name) for value in feature.bytes_list.value], dtype), field)
        return _from_bytes(_one(feature), dtype, field.shape)
    if kind == "float_list" and dtype in (np.dtype("<f4"), np.dtype("<f8")):
        return _shaped(_floats(feature.float_list), field).astype(dtype, copy=False)
    if kind == "int64_list" and dtype.kind in "biu":
        count = len(feature.int64_list.value)
        values = _shaped(np.fromiter(feature.int64_list.value, np.int64, count), field)
        if dtype == values.dtype:
            return values
        narrow = values.astype(dtype)
        if (narrow != values).any():
            raise ValueError(f"expected {field}, found numbers that do not fit it: {values[narrow != values][:3]}")
        return narrow
    raise ValueError(f"expected {field}, found {kind or 'nothing'}")


def _floats(message: Any) -> Array:
    """The values of a float list."""
    count = len(message.value)
    # Protobuf gives the values as they are, behind a few bytes; and behind them, of other writers, fields that are not
    # known here. It says nowhere that it will always do so.
    packed, before = message.SerializeToString(), head(1, 4 * count)
    if packed.startswith(before):
        return np.frombuffer(packed, "<f4", count, len(before))
    return np.fromiter(message.value, "<f4", count)


def _shaped(values: Array, field: Field) -> Array:
    if values.size != math.prod(field.shape):
        raise ValueError(
            f"expected {field}, found {values.size} values; features= says how many there are, and where they differ "
            "from record to record they have to be padded before"
        )
    return values.reshape(field.shape)


def _one(feature: Any) -> bytes:
    values = feature.bytes_list.value
    if feature.WhichOneof("kind") != "bytes_list" or len(values) != 1:
        raise ValueError(f"expected one value of bytes, found {feature.WhichOneof('kind') or 'nothing'}, {len(values)}")
    return values[0]


def _text(value: bytes, dtype: np.dtype[Any], name: str) -> bytes | str:
    found = value.decode("utf-8") if dtype.kind == "U" else value
    width = dtype.itemsize // (4 if dtype.kind == "U" else 1)
    if len(found) > width:
        room = 1 << (len(found) - 1).bit_length()
        raise ValueError(
            f"expected at most {width} characters, found {len(found)}: {found[:50]!r}; say how long texts are, as in "
            f"features='{name}:{dtype.kind}{room}', where all features that are wanted have to stand"
        )
    if found and found[-1] in ("\0", 0):
        raise ValueError("text that ends in NUL cannot be kept; for bytes of one length say uint8[length]")
    return found


def _from_bytes(data: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    expected = math.prod(shape) * dtype.itemsize
    if len(data) != expected:
        raise ValueError(
            f"expected {expected:,} bytes for {dtype}{list(shape)}, found {len(data):,}; features= says what they are, "
            "and where lengths differ from record to record they have to be padded before"
        )
    if dtype == np.bool_ and any(byte > 1 for byte in set(data)):
        raise ValueError("expected bytes of 0 and 1 for bool, found others")
    return np.ndarray(shape, dtype, data)


def _tensor(data: bytes) -> Array:
    """What ``tf.io.serialize_tensor`` wrote."""
    try:
        tensor = messages()["Tensor"].FromString(data)
    except require("google.protobuf.message").DecodeError as error:
        raise ValueError(f"is no tensor of TensorFlow's: {error}") from None
    name = _TENSOR_TYPES.get(tensor.dtype)
    if name is None:
        raise ValueError(f"is a tensor of TensorFlow's type number {tensor.dtype}, which cannot be read")
    shape = tuple(dimension.size for dimension in tensor.tensor_shape.dim)
    if tensor.tensor_shape.unknown_rank or any(n < 0 for n in shape):
        raise ValueError("is a tensor without a shape")
    return _from_bytes(tensor.tensor_content, Field(name).dtype, shape)


def encoded(name: str, field: Field, values: Array) -> Iterator[bytes]:
    """A feature with its name, as bytes of an Example, for each of many records.

    Whole numbers become int64 lists if they are single or a vector, and none is ``uint64``; ``float32`` becomes float
    lists; text becomes its bytes, of ``U`` in UTF-8. All else is the bytes of the array, little-endian.
    """
    key = delimited(1, name.encode("utf-8"))
    for value in values:
        yield delimited(1, key + delimited(2, _feature(np.asarray(value), field)))


def is_int64_list(field: Field) -> bool:
    """Whether a field is written as an int64 list, whose numbers take as many bytes as they need."""
    return field.dtype.kind in "biu" and field.dtype != np.dtype("<u8") and len(field.shape) < 2


def _feature(value: Array, field: Field) -> bytes:
    dtype = field.dtype
    if dtype == np.dtype("<f4"):
        return delimited(2, delimited(1, raw(value)))
    if is_int64_list(field):
        numbers = value.reshape(-1).astype(np.int64).tolist()
        return delimited(3, messages()["Int64List"](value=numbers).SerializeToString())
    if dtype.kind in "SU":
        texts = value.reshape(-1).tolist()
        return delimited(1, b"".join(delimited(1, t.encode("utf-8") if dtype.kind == "U" else t) for t in texts))
    return delimited(1, delimited(1, raw(value)))

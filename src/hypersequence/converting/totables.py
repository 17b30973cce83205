"""From exports to Arrow's tables."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import strictjson
from ..errors import ArgumentError
from ..schema import Array, Field
from .arrowtypes import layers
from .base import Export, require
from .columns import KEY

_TIMES = tuple(f"{kind}[{unit}]" for kind in ("datetime64", "timedelta64") for unit in ("s", "ms", "us", "ns"))
_MAX_LIST = (1 << 31) - 1


def schema_for(export: Export, *, parquet: bool) -> Any:
    """Arrow's schema for an export, with all that we know of it as metadata.

    Args:
        export: What is to be written.
        parquet: Whether it has to do for Parquet, which has no seconds and no empty lists.

    Raises:
        ArgumentError: A field is of a type or shape that Arrow or Parquet does not have.
    """
    pa = require("pyarrow")
    fields = [
        pa.field(name, _type(name, field, parquet=parquet), metadata={KEY: field.type_name})
        for name, field in export.fields.items()
    ]
    return pa.schema(fields, metadata={KEY: strictjson.encode(export.description.as_dict())})


def batches_of(export: Export, schema: Any) -> Iterator[Any]:
    """All records as record batches, of some 8 MiB each."""
    pa = require("pyarrow")
    for piece in export.pieces():
        yield pa.record_batch([_array(piece[field.name], field) for field in schema], schema=schema)


def values_in(field: Field) -> int:
    """How many values a record has of a field."""
    return math.prod(field.shape)


def _type(name: str, field: Field, *, parquet: bool) -> Any:
    """Arrow's type for a field.

    One dimension makes a list of fixed length, which every reader of Arrow knows. More make the tensor type of Arrow's
    own extensions: who does not know it sees such a list of all values, and who does sees the shape.
    """
    pa, type, shape = require("pyarrow"), _element(name, field, parquet=parquet), field.shape
    if values_in(field) > _MAX_LIST:
        raise ArgumentError(
            f"{name}: a record has {values_in(field):,} values, and Arrow's lists at most {_MAX_LIST:,}"
        )
    if parquet and not values_in(field):
        raise ArgumentError(
            f"{name}: Parquet has no lists without values, as the shape {shape} makes them; leave the field out with "
            "fields(), or write an .arrow file"
        )
    if len(shape) > 1 and field.dtype.kind not in "SU":
        return pa.fixed_shape_tensor(type, shape)
    for size in reversed(shape):
        type = pa.list_(type, size)
    return type


def _element(name: str, field: Field, *, parquet: bool) -> Any:
    pa, dtype = require("pyarrow"), field.dtype
    if dtype.kind in "SU":
        return pa.string() if dtype.kind == "U" else pa.binary()
    if field.type_name == "datetime64[s]" and parquet:
        return pa.timestamp("ms")
    if (dtype.kind in "biuf" and dtype.isbuiltin == 1) or field.type_name in (*_TIMES, "datetime64[D]"):
        return pa.from_numpy_dtype(dtype)
    if dtype.kind in "mM":
        raise ArgumentError(f"{name}: is {field.type_name}; Arrow has: {', '.join(_TIMES)}, datetime64[D]")
    into = "two float fields" if dtype.kind == "c" else "float32"
    raise ArgumentError(f"{name}: Arrow has no {field.type_name}; map() it to {into} and save() that first")


def _array(array: Array, field: Any) -> Any:
    """Arrow's array of some records."""
    pa, element = require("pyarrow"), layers(field.type)[1]
    flat = np.ascontiguousarray(array).reshape(-1)
    if flat.dtype.kind in "SU":  # by way of Python, as text with a NUL in it would be cut off there
        values = pa.array(flat.tolist(), element)
    else:
        _check_days(flat, field.name)
        values = pa.array(flat)  # NaT becomes null
        try:
            values = values.cast(element)
        except pa.ArrowInvalid as error:
            raise ArgumentError(f"{field.name}: {error}") from None
    return _nested(field.type, values, len(array))


def _check_days(flat: Array, name: str) -> None:
    """Arrow's days have 32 bits, and larger ones would become others without a word."""
    if flat.dtype == np.dtype("M8[D]"):
        wide = ~np.isnat(flat) & (np.abs(flat.view(np.int64)) > _MAX_LIST)
        if wide.any():
            raise ArgumentError(f"{name}: Arrow's dates do not reach {flat[wide][0]}")


def _nested(type: Any, values: Any, n: int) -> Any:
    """So many lists of values that follow each other."""
    pa = require("pyarrow")
    if isinstance(type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type, _nested(type.storage_type, values, n))
    if not pa.types.is_fixed_size_list(type):
        return values
    inside = _nested(type.value_type, values, n * type.list_size)
    return pa.Array.from_buffers(type, n, [None], children=[inside])

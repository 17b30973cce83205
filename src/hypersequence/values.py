"""From what a person appends to what a column stores: inferring fields, checking values, exact conversions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

import numpy as np

from .errors import RecordError
from .schema import ROLES, Array, Column, Field, Schema, outline

_PYTHON_SCALARS = (bool, int, float, complex, bytes, str)


def infer_schema(given: tuple[Any, Any, Any], *, many: bool) -> Schema:
    """The schema that the first record fixes.

    Args:
        given: ``(inputs, outputs, sample_weights)`` as passed to ``append`` or ``extend``.
        many: Whether a leading axis of records is to be taken off.

    Raises:
        RecordError: Something that cannot be stored; the message names the field.
    """

    def infer(value: Any, where: str) -> Field:
        array = _as_array(value, where)
        if many and array.ndim == 0:
            raise RecordError(f"{where}: extend() needs a leading axis of records; for one record use append()")
        try:
            return Field(array.dtype, array.shape[1:] if many else array.shape)
        except (RecordError, ValueError) as error:
            raise RecordError(f"{where}: {str(error).removeprefix('Field: ')}") from None

    structures: list[Any] = []
    for role, value in zip(ROLES, given, strict=True):
        if isinstance(value, Mapping):
            named = cast("Mapping[Any, Any]", value)
            structures.append({name: infer(member, f"{role}[{name!r}]") for name, member in named.items()})
        elif isinstance(value, tuple):
            members = cast("tuple[Any, ...]", value)
            structures.append(tuple(infer(member, f"{role}[{i}]") for i, member in enumerate(members)))
        else:
            structures.append(None if value is None else infer(value, role))
    if structures[0] is None:
        raise RecordError("inputs: a record needs inputs; got None")
    try:
        return Schema(*structures)
    except ValueError as error:
        raise RecordError(str(error)) from None


def _as_array(value: Any, where: str) -> Array:
    if isinstance(value, np.ndarray):
        if np.ma.isMaskedArray(cast("Array", value)):
            raise RecordError(
                f"{where}: a masked array would lose its mask; use filled(), and store the mask as a field"
            )
        return cast("Array", value)
    if type(value) in _PYTHON_SCALARS:
        _refuse_trailing_nul(value, where)
        try:
            return np.asarray(value, dtype=np.int64) if type(value) is int else np.asarray(value)
        except OverflowError:
            raise RecordError(f"{where}: {value} does not fit int64; say the type with schema=") from None
    if isinstance(value, list):
        raise RecordError(
            f"{where}: a list is ambiguous; give np.asarray(...) for one array, a tuple for several fields"
        )
    if isinstance(value, np.generic) or hasattr(value, "__array__"):
        _refuse_trailing_nul(cast("Any", value), where)
        try:
            return np.asarray(cast("Any", value))
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecordError(
                f"{where}: {type(cast('Any', value)).__name__} cannot be made into an array: {error}"
            ) from error
    raise RecordError(f"{where}: expected one array or scalar, got {outline(value)}")


def _refuse_trailing_nul(value: Any, where: str) -> None:
    if (isinstance(value, bytes) and value.endswith(b"\0")) or (isinstance(value, str) and value.endswith("\0")):
        raise RecordError(
            f"{where}: {value!r} ends in NUL, which fixed-length strings cannot keep; store it as an array of uint8"
        )


def check_value(column: Column, value: Any) -> Any:
    """One record's value for a column, ready to be stored.

    Returns:
        An array or scalar that assigns into the column without any change of value.

    Raises:
        RecordError: Type or shape differ, or a Python scalar has no exact counterpart.
    """
    field = column.field
    if type(value) in _PYTHON_SCALARS:
        return _exact_scalar(column, value)
    array = _as_array(value, column.label)
    if array.shape != field.shape:
        raise RecordError(f"{column.label}: expected shape {field.shape}, got {array.shape}")
    _check_dtype(column, array)
    return array


def check_values(column: Column, values: Any) -> Array:
    """Many records' values for a column (leading axis = records); same rules as :func:`check_value`."""
    array = _as_array(values, column.label)
    if array.ndim == 0 or array.shape[1:] != column.field.shape:
        expected = ("n", *column.field.shape)
        raise RecordError(f"{column.label}: expected shape ({', '.join(map(str, expected))}), got {array.shape}")
    _check_dtype(column, array)
    return array


def _check_dtype(column: Column, array: Array) -> None:
    wanted, found = column.field.dtype, array.dtype
    if found == wanted:
        return
    if found.newbyteorder("<") == wanted:
        return  # big-endian input; assignment swaps the bytes
    if found.kind == wanted.kind and found.kind in "SU":
        if found.itemsize > wanted.itemsize:
            longest = int(np.max(np.strings.str_len(array), initial=0))
            width = wanted.itemsize // (4 if wanted.kind == "U" else 1)
            if longest > width:
                raise RecordError(
                    f"{column.label}: a text of {longest} characters does not fit {wanted.kind}{width}; "
                    f"the first record fixed that width, schema= can give a larger one"
                )
        return
    hint = " (schema= fixes the type; convert with astype)"
    raise RecordError(f"{column.label}: expected elements of type {column.field.type_name}, got {found}{hint}")


def _exact_scalar(column: Column, value: Any) -> Any:
    """A Python scalar as the column's type, if nothing is lost."""
    field, label = column.field, column.label
    if field.shape != ():
        raise RecordError(f"{label}: expected shape {field.shape}, got the scalar {value!r}")
    dtype = field.dtype
    _refuse_trailing_nul(value, label)
    textual = {"U": str, "S": bytes}.get(dtype.kind)
    if dtype.kind in "mM" or (type(value) in (str, bytes)) != (textual is not None):
        raise RecordError(f"{label}: expected {field.type_name}, got {type(value).__name__} {value!r}")
    if textual is not None:
        width = dtype.itemsize // (4 if dtype.kind == "U" else 1)
        if type(value) is not textual:
            raise RecordError(f"{label}: expected {field.type_name}, got {type(value).__name__} {value!r}")
        if len(value) > width:
            raise RecordError(
                f"{label}: {value!r} has {len(value)} characters, {field.type_name} holds {width}; "
                f"the first record fixed that width, schema= can give a larger one"
            )
        return value
    try:
        with np.errstate(all="ignore"):
            array = np.asarray(value, dtype)
        back = array.item()
        # Both are Python numbers here, which compare exactly; NumPy would round a large int first.
        exact = back == value or (back != back and value != value)
    except (OverflowError, TypeError, ValueError):
        exact, array = False, None
    if not exact or array is None or _lost_sign(value, dtype):
        raise RecordError(
            f"{label}: {value!r} is not exactly a {field.type_name}; round it yourself with "
            f"np.asarray(value, dtype), or give schema= a wider type"
        )
    return array


def _lost_sign(value: Any, dtype: np.dtype[Any]) -> bool:
    return type(value) is float and value == 0 and math.copysign(1, value) < 0 and dtype.kind in "biu"

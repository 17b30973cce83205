"""What a record is made of: fields, their element types, and the structure that a person gave them.

A record has up to three *roles*: ``inputs``, ``outputs`` and ``sample_weights``. Each role is one field, a tuple of
fields, or a dict of named fields. The schema knows shapes and types only; it has no idea where anything is stored.
"""

from __future__ import annotations

import math
import operator
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from .elements import dtype_from_name, name_of_dtype, storable_dtype
from .errors import ArgumentError, RecordError

ROLES = ("inputs", "outputs", "sample_weights")
MAX_FIELDS = 4096
MAX_DIMENSIONS = 32
MAX_RECORD_NBYTES = 1 << 40
MAX_NAME_NBYTES = 255

Array: TypeAlias = np.ndarray[Any, Any]
Batch: TypeAlias = "tuple[Any, ...]"


class Field:
    """One array of a record: its element type and its shape.

    Args:
        dtype: Anything ``np.dtype`` takes, or a name of SPEC.md's list (``"bfloat16"``). A sub-array dtype such as
            ``np.dtype(("f4", (28, 28)))`` brings its own shape. Big-endian types become little-endian.
        shape: Shape of one record, without the batch axis; ``()`` (the default) is a scalar.

    Raises:
        RecordError: The type cannot be stored.
        ArgumentError: The shape is impossible.

    Immutable, hashable, comparable.

    >>> Field("float32", (28, 28)).nbytes
    3136
    """

    __slots__ = ("dtype", "nbytes", "shape")
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    nbytes: int

    def __init__(self, dtype: Any, shape: Sequence[int] = ()) -> None:
        given = dtype_from_name(dtype) if isinstance(dtype, str) else None
        try:
            given = np.dtype(dtype) if given is None else given
        except TypeError as error:
            raise RecordError(f"Field: {dtype!r} is no element type: {error}") from None
        base, inner = given.base, given.shape
        try:
            dims = (*(operator.index(n) for n in shape), *inner)
        except TypeError:
            raise ArgumentError(f"Field: shape must be a tuple of integers, not {shape!r}") from None
        if len(dims) > MAX_DIMENSIONS or any(n < 0 for n in dims):
            raise ArgumentError(
                f"Field: shape {_short(dims)} must have at most {MAX_DIMENSIONS} dimensions, none negative"
            )
        stored = storable_dtype(base, "Field")
        extent = 1 if max(dims, default=0) > MAX_RECORD_NBYTES else math.prod(n for n in dims if n)
        if extent * max(1, stored.itemsize) > MAX_RECORD_NBYTES or max(dims, default=0) > MAX_RECORD_NBYTES:
            raise ArgumentError(
                f"Field: a record of shape {_short(dims)} is over the limit of {MAX_RECORD_NBYTES} bytes"
            )
        object.__setattr__(self, "dtype", stored)
        object.__setattr__(self, "shape", dims)
        object.__setattr__(self, "nbytes", math.prod(dims) * stored.itemsize)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a Field is immutable")

    @property
    def type_name(self) -> str:
        """The element type's name as it stands in the file, for instance ``"float32"`` or ``"U5"``."""
        return name_of_dtype(self.dtype) or str(self.dtype)

    @property
    def record_dtype(self) -> np.dtype[Any]:
        """The dtype of one record, as hypersequence 0.10 gave it: ``.shape`` is the record's, ``.base`` the type."""
        # NumPy refuses sub-arrays of zero-width strings, and of more than 2 GiB.
        fits = self.dtype.itemsize and self.extent < 1 << 31
        return np.dtype((self.dtype, self.shape)) if self.shape and fits else self.dtype

    @property
    def extent(self) -> int:
        """What NumPy multiplies when it makes an array, even an empty one: bytes as if no dimension were 0."""
        return math.prod(n for n in self.shape if n) * max(1, self.dtype.itemsize)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Field) and self.dtype == other.dtype and self.shape == other.shape

    def __hash__(self) -> int:
        return hash((self.type_name, self.shape))

    def __repr__(self) -> str:
        return f"Field({self.type_name!r}, {self.shape})" if self.shape else f"Field({self.type_name!r})"

    def __str__(self) -> str:
        return f"{self.type_name} {self.shape}" if self.shape else self.type_name

    def __reduce__(self) -> Any:
        return Field, (self.type_name, self.shape)


def _short(shape: Sequence[int]) -> str:
    return f"({', '.join(str(n)[:20] for n in shape[:8])}{', ...' if len(shape) > 8 else ''})"


Structure: TypeAlias = Field | tuple[Field, ...] | dict[str, Field]


@dataclass(frozen=True, slots=True)
class Column:
    """One field in its place: what the file stores as one column."""

    number: int
    role: str
    name: str | None
    position: int
    of_several: bool
    field: Field

    @property
    def label(self) -> str:
        """How messages name it: ``inputs``, ``inputs[1]`` or ``inputs['image']``."""
        if self.name is not None:
            return f"{self.role}[{self.name!r}]"
        return f"{self.role}[{self.position}]" if self.of_several else self.role

    @property
    def address(self) -> str:
        """What ``fields()`` calls this one and no other: ``inputs.image``, or ``inputs.0`` if it has no name."""
        return f"{self.role}.{self.position if self.name is None else self.name}"

    def matches(self, wanted: str) -> bool:
        """Whether ``fields(wanted)`` means this one: its role, its name, or ``role.name`` / ``role.number``."""
        own = self.name if self.name is not None else str(self.position)
        return wanted in (self.role, f"{self.role}.{own}") or (self.name is not None and wanted == self.name)


def _structure(role: str, given: Any) -> Structure | None:
    def leaf(value: Any) -> Field:
        if isinstance(value, Field):
            return value
        return Field(value)

    if given is None:
        return None
    if isinstance(given, Mapping):
        named = cast("Mapping[Any, Any]", given)
        for name in named:
            _check_name(role, name)
        fields: Structure = {name: leaf(value) for name, value in named.items()}
    elif isinstance(given, tuple):
        members = cast("tuple[Any, ...]", given)
        fields = tuple(leaf(value) for value in members)
        fields = fields[0] if len(fields) == 1 else fields
    else:
        fields = leaf(given)
    if fields in ((), {}):
        raise ArgumentError(f"{role} has no fields; leave it out instead of giving an empty structure")
    return fields


def _check_name(role: str, name: Any) -> None:
    if not isinstance(name, str):
        raise RecordError(f"{role}: field names are text, not {type(name).__name__}: {name!r}")
    problem = name_problem(name)
    if problem:
        raise ArgumentError(f"{role}: the field name {name!r} {problem}")


def name_problem(name: str) -> str | None:
    """Why a text cannot be a field name, or ``None`` if it can."""
    try:
        n_bytes = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if not 1 <= n_bytes <= MAX_NAME_NBYTES:
        return f"must have 1 to {MAX_NAME_NBYTES} bytes, not {n_bytes}"
    # Not str.isprintable(): it refuses joiners that some scripts need, and changes with the version of Unicode.
    odd = {"Cc": "control", "Cs": "surrogate", "Zl": "line separator", "Zp": "paragraph separator"}
    found = [odd[kind] for kind in map(unicodedata.category, name) if kind in odd]
    return f"has a {found[0]} character" if found else None


class Schema:
    """The structure of every record of a sequence.

    Args:
        inputs: A :class:`Field` (or anything that ``Field`` takes as ``dtype``), a tuple of them, or a dict of names
            to them. A tuple of one is the same as the field alone.
        outputs: The same, or ``None`` for unlabelled data.
        sample_weights: The same, or ``None``.

    Raises:
        RecordError: A type cannot be stored, or a name is not text.
        ArgumentError: An empty structure, a bad name, or over 4,096 fields.

    Immutable, comparable, picklable.

    >>> schema = Schema(inputs={"image": Field("uint8", (28, 28))}, outputs="int64")
    >>> schema
    Schema(inputs={'image': Field('uint8', (28, 28))}, outputs=Field('int64'))
    >>> schema.record_nbytes
    792
    """

    def __init__(self, inputs: Any, outputs: Any = None, sample_weights: Any = None) -> None:
        if inputs is None:
            raise ArgumentError("a schema needs inputs")
        self._roles = {
            role: structure
            for role, given in zip(ROLES, (inputs, outputs, sample_weights), strict=True)
            if (structure := _structure(role, given)) is not None
        }
        columns: list[Column] = []
        for role, structure in self._roles.items():
            names: list[str | None]
            if isinstance(structure, dict):
                names, fields = cast("list[str | None]", list(structure)), list(structure.values())
            else:
                fields = list(structure) if isinstance(structure, tuple) else [structure]
                names = [None] * len(fields)
            columns += [
                Column(len(columns) + i, role, name, i, len(fields) > 1, field)
                for i, (name, field) in enumerate(zip(names, fields, strict=True))
            ]
        if len(columns) > MAX_FIELDS:
            raise ArgumentError(f"a schema has at most {MAX_FIELDS} fields, not {len(columns)}")
        self._columns = tuple(columns)

    @property
    def inputs(self) -> Structure:
        """The inputs: a field, a tuple of fields, or a dict of fields."""
        return self._roles["inputs"]

    @property
    def outputs(self) -> Structure | None:
        """The outputs, or ``None`` for unlabelled data."""
        return self._roles.get("outputs")

    @property
    def sample_weights(self) -> Structure | None:
        """The sample weights, or ``None``."""
        return self._roles.get("sample_weights")

    @property
    def columns(self) -> tuple[Column, ...]:
        """All fields in the order in which the file numbers them: inputs, outputs, sample weights."""
        return self._columns

    @property
    def record_nbytes(self) -> int:
        """Bytes of one record, all fields together."""
        return sum(column.field.nbytes for column in self._columns)

    def choose(self, wanted: Sequence[str]) -> tuple[int, ...]:
        """Column numbers that the names stand for, in file order.

        Args:
            wanted: Field names, roles (``"inputs"``: all of them), or both (``"outputs.label"``, ``"inputs.0"``).

        Raises:
            ArgumentError: Nothing is named, or a name matches no field.
        """
        chosen: set[int] = set()
        for name in wanted:
            found = [column.number for column in self._columns if column.matches(name)]
            if not found:
                offered = ", ".join(column.address for column in self._columns[:20])
                raise ArgumentError(f"fields(): no field is called {name!r}; there are: {offered}")
            chosen.update(found)
        if not chosen:
            raise ArgumentError("fields() needs at least one name")
        return tuple(sorted(chosen))

    def flatten(self, given: tuple[Any, Any, Any]) -> list[Any]:
        """The values of one record (or of many) in column order.

        Args:
            given: ``(inputs, outputs, sample_weights)`` as passed to ``append``.

        Raises:
            RecordError: The structure differs from the schema's.
        """
        values: list[Any] = []
        for role, value in zip(ROLES, given, strict=True):
            structure = self._roles.get(role)
            if structure is None or value is None:
                if (structure is None) != (value is None):
                    expected = "nothing (the schema has none)" if structure is None else f"{outline(structure)}"
                    raise RecordError(f"{role}: expected {expected}, got {outline(value)}")
            elif isinstance(structure, dict):
                if not isinstance(value, Mapping) or set(cast("Mapping[str, Any]", value)) != set(structure):
                    raise RecordError(f"{role}: expected {outline(structure)}, got {outline(value)}")
                values += [value[name] for name in structure]
            else:
                members = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
                n_fields = len(structure) if isinstance(structure, tuple) else 1
                if isinstance(value, Mapping) or len(members) != n_fields:
                    raise RecordError(f"{role}: expected {outline(structure)}, got {outline(value)}")
                values += members
        return values

    def builder(self, chosen: Sequence[int]) -> Callable[[Sequence[Array]], Batch]:
        """A function that puts arrays of the chosen columns into the structure of a batch.

        Returns:
            A function of arrays that gives ``(inputs,)``, ``(inputs, outputs)`` or
            ``(inputs, outputs, sample_weights)``. A role of which nothing was chosen is ``None`` where a later one
            follows, and absent otherwise.
        """
        plans: list[tuple[list[str] | None, slice] | None] = []
        start = 0
        for role in ROLES:
            members = [c for c in self._columns if c.role == role and c.number in set(chosen)]
            stop = start + len(members)
            names = [c.name for c in members if c.name is not None]
            plans.append((names or None, slice(start, stop)) if members else None)
            start = stop
        while plans and plans[-1] is None:
            plans.pop()
        if all(plan is not None and plan[0] is None and plan[1].stop - plan[1].start == 1 for plan in plans):
            return tuple  # one unnamed array a role: the list of arrays is the batch

        def build(arrays: Sequence[Array]) -> Batch:
            batch: list[Any] = []
            for plan in plans:
                if plan is None:
                    batch.append(None)
                    continue
                names, span = plan
                members = arrays[span]
                if names is not None:
                    batch.append(dict(zip(names, members, strict=True)))
                else:
                    batch.append(members[0] if len(members) == 1 else tuple(members))
            return tuple(batch)

        return build

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self._columns == other._columns

    def __hash__(self) -> int:
        return hash(self._columns)

    def __repr__(self) -> str:
        return f"Schema({', '.join(f'{role}={fields!r}' for role, fields in self._roles.items())})"

    def __reduce__(self) -> Any:
        return Schema, tuple(self._roles.get(role) for role in ROLES)


def outline(value: Any) -> str:
    """A structure in a few words, for messages."""
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a dict of " + ", ".join(repr(name) for name in list(cast("Mapping[Any, Any]", value))[:20])
    if isinstance(value, tuple):
        return f"a tuple of {len(cast('tuple[Any, ...]', value))}"
    storable = isinstance(value, Field | str | bytes | int | float | complex) or hasattr(value, "__array__")
    return "one array or scalar" if storable else f"a {type(value).__name__}"

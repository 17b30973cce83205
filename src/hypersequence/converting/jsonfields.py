"""From JSON to fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np

from .. import strictjson
from ..schema import Array
from .samples import text_array


class Json:
    """Decodes JSON: a number, a text, or a list of numbers, and an object of them, perhaps nested, as many fields.

    Args:
        name: What the field is called; of an object, what the names of its fields begin with.

    Where the first record has a number with a fraction, later ones may be without, as some writers leave out ``.0``.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._floats: set[str] | None = None

    def __call__(self, data: bytes, where: str) -> dict[str, Array]:
        """Fields by their names.

        Raises:
            ValueError: Not JSON, something that is no array, or two values whose fields would have one name.
        """
        found = dict[str, Array]()
        for name, value in _leaves(self._name, strictjson.decode(data, allow_nan=True)):
            if name in found:
                raise ValueError(
                    f"two of its values would be a field {name!r}, since a key has a dot in it; rename one"
                )
            found[name] = value
        if self._floats is None:
            self._floats = {name for name, value in found.items() if value.dtype == np.float64}
        for name in self._floats & found.keys():
            value = found[name]
            if value.dtype == np.int64 and (np.abs(value) <= 1 << 53).all():
                found[name] = value.astype(np.float64)
        return found


def _leaves(name: str, value: Any) -> Iterator[tuple[str, Array]]:
    if isinstance(value, dict):
        for key, member in cast("dict[str, Any]", value).items():
            yield from _leaves(f"{name}.{key}", member)
    elif isinstance(value, str):
        yield name, text_array(value)
    else:
        yield name, _numbers(name, value)


def _numbers(name: str, value: Any) -> Array:
    numbers = list(_flat(value))
    kinds = set(map(type, numbers))
    if not any(kinds <= allowed for allowed in ({bool}, {int}, {int, float})):
        found = ", ".join(sorted("null" if kind is type(None) else kind.__name__ for kind in kinds))
        raise ValueError(f"{name} should be a number, or a list of numbers of one kind, and has {found}")
    if kinds == {int, float} and any(abs(number) > 1 << 53 for number in numbers if type(number) is int):
        raise ValueError(f"{name} has a number that is not exactly a float64")
    return np.asarray(value, bool if kinds == {bool} else np.float64 if float in kinds else np.int64)


def _flat(value: Any) -> Iterator[Any]:
    if not isinstance(value, list):
        yield value
        return
    for member in cast("list[Any]", value):
        yield from _flat(member)

"""Which field of a source is an input, which an output, which a weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ArgumentError
from ..schema import ROLES, Field, Schema
from .base import Piece

#: Field names, in lower case, that are outputs where nobody says what is.
LABELS = frozenset(
    {"label", "labels", "target", "targets", "output", "outputs", "y", "class", "cls", "fine_label", "coarse_label"}
)


class Choice:
    """The fields that are converted, and where each goes.

    Args:
        fields: All fields of the source.
        labels: Those that the source calls outputs.
        chosen: For ``inputs``, ``outputs`` and ``sample_weights`` the names that were asked for; ``None`` for a role of
            which nothing was said.
        named: Whether fields keep their names: each role is a dict. Else it is an array, or a tuple of arrays. Or for
            each field the name that it gets, ``None`` for none: a role is a dict if one of its fields has a name.

    Raises:
        ArgumentError: A name that no field has, or that stands twice; no input is left.
    """

    def __init__(
        self,
        fields: dict[str, Field],
        labels: Iterable[str],
        chosen: Sequence[Sequence[str] | None],
        *,
        named: bool | Mapping[str, str | None],
    ) -> None:
        self._roles = _roles(list(fields), set(labels), chosen)
        self._new_names = {name: name if named else None for name in fields} if isinstance(named, bool) else named
        #: The fields to read, in the order in which the file numbers them.
        self.names = [name for names in self._roles for name in names]
        #: What the file has.
        self.schema = Schema(*self.arrange(fields))

    def arrange(self, piece: Piece | dict[str, Field]) -> tuple[Any, Any, Any]:
        """Inputs, outputs and weights, as ``extend`` takes them."""
        inputs, outputs, weights = (self._structure(names, piece) for names in self._roles)
        return inputs, outputs, weights

    def _structure(self, names: list[str], piece: Piece | dict[str, Field]) -> Any:
        if not names:
            return None
        given = [self._new_names[name] for name in names]
        if any(given):
            new = [name or old for name, old in zip(given, names, strict=True)]
            return dict(zip(new if len({*new}) == len(new) else names, map(piece.__getitem__, names), strict=True))
        return piece[names[0]] if len(names) == 1 else tuple(piece[name] for name in names)


def _roles(names: list[str], labels: set[str], chosen: Sequence[Sequence[str] | None]) -> list[list[str]]:
    """The names of each role."""
    asked = [None if given is None else list(given) for given in chosen]
    named = [name for given in asked for name in given or ()]
    for name in named:
        if name not in names:
            raise ArgumentError(f"no field is called {name!r}; the source has: {_listed(names)}")
        if named.count(name) > 1:
            raise ArgumentError(f"the field {name!r} is asked for twice")
    inputs, outputs, weights = asked
    if inputs is None and outputs is None:
        outputs = [name for name in names if (name in labels or name.lower() in LABELS) and name not in named]
        if len(outputs) + len(weights or ()) == len(names):
            outputs = []  # nothing but labels: whoever has these alone wants them as they are
    taken = {*(outputs or ()), *(weights or ())}
    if inputs is None:
        inputs = [name for name in names if name not in taken]
    if not inputs:
        raise ArgumentError(
            f"{ROLES[0]}: no field is left for them; say which ones are, of: {_listed(names)}",
        )
    return [inputs, outputs or [], weights or []]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")

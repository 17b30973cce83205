"""What an export leaves beside its values, where the format has room for it, and what an import finds of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from ..schema import ROLES


@dataclass(frozen=True)
class Description:
    """What the fields of an export are, and the metadata.

    Args:
        roles: ``"inputs"``, ``"outputs"``, ``"sample_weights"`` to the names of their fields.
        names: Fields that are called otherwise in the ``.hsq`` file, to what they are called there; ``None`` for
            nothing at all.
        user_meta: The file's metadata; ``None`` if nothing is known of any.
    """

    roles: Mapping[str, list[str]] = field(default_factory=dict[str, list[str]])
    names: Mapping[str, str | None] = field(default_factory=dict[str, str | None])
    user_meta: dict[str, Any] | None = None

    @classmethod
    def of(cls, given: Any) -> Description:
        """From what stands in a file, which may be anything by now."""
        known = _dict(given)
        roles = {role: names for role, names in _dict(known.get("roles")).items() if role in ROLES}
        lists = {role: cast("list[Any]", names) for role, names in roles.items() if isinstance(names, list)}
        names = _dict(known.get("names"))
        return cls(
            {role: [name for name in names if isinstance(name, str)] for role, names in lists.items()},
            {name: own for name, own in names.items() if own is None or isinstance(own, str)},
            _dict(known["user_meta"]) if isinstance(known.get("user_meta"), dict) else None,
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"roles": dict(self.roles), "names": dict(self.names), "user_meta": self.user_meta}

    @property
    def fields(self) -> list[str]:
        """All fields that have a role, in the order in which the file numbers them."""
        return [name for role in ROLES for name in self.roles.get(role, ())]

    @property
    def outputs(self) -> tuple[str, ...]:
        """The fields that are outputs."""
        return tuple(self.roles.get("outputs", ()))


def _dict(given: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", given) if isinstance(given, dict) else {}

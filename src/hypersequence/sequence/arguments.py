"""Checking what a person passes to the operations of a sequence."""

from __future__ import annotations

import operator
import secrets
from typing import Any, Literal

from ..errors import ArgumentError

Unit = Literal["batch", "record"]


def seed_of(seed: int | None) -> int:
    """A seed, fresh if none was given."""
    if seed is None:
        return secrets.randbits(32)  # short enough to be copied from a repr by hand
    return whole_number(seed, "seed", 0)


def unit_of(by: Unit) -> Unit:
    """``"batch"`` or ``"record"``.

    Raises:
        ArgumentError: Anything else.
    """
    if by not in ("batch", "record"):
        raise ArgumentError(f"by is 'batch' or 'record', not {by!r}")
    return by


def whole_number(value: Any, what: str, least: int) -> int:
    """A whole number from ``least`` to 2**64-1; ``what`` names it in the message.

    Raises:
        ArgumentError: Anything else.
    """
    try:
        number = operator.index(value)
    except TypeError:
        raise ArgumentError(f"{what}: expected a whole number, got {value!r}") from None
    if not least <= number < 1 << 64:
        raise ArgumentError(f"{what}: expected a whole number from {least} on, got {number}")
    return number

"""What makes an order the order it is, as a few bytes."""

from __future__ import annotations

import hashlib
from dataclasses import fields, is_dataclass
from typing import Any, cast

from .base import Chosen, Composed, Fixed, InChunks, Order
from .joined import Concatenated


def terms(order: Order, held: bool = False) -> Any:
    """An order as nested lists of plain values: what it is made of, without the epoch that it happens to be in.

    An epoch at which a part is held does belong to what it is.
    """
    if isinstance(order, Fixed):
        return ["Fixed", terms(order.order, held=True)]
    if isinstance(order, Composed):  # a row of orders, however it was put together
        return [*_row(order.outer, held), *_row(order.inner, held)]
    if isinstance(order, Chosen):
        return ["Chosen", hashlib.sha256(order.numbers.astype("<i8").tobytes()).hexdigest()]
    if isinstance(order, Concatenated):
        return ["Concatenated", [[terms(part.order, held), part.first] for part in order.parts]]
    assert is_dataclass(order)
    return [
        type(order).__name__,
        *(_plain(getattr(order, f.name), held) for f in fields(order) if _counts(f.name, held)),
    ]


def _row(order: Order, held: bool) -> list[Any]:
    found = terms(order, held)
    return found if isinstance(order, Composed) else [found]


def _counts(name: str, held: bool) -> bool:
    return held or name != "epoch"


def _plain(value: Any, held: bool) -> Any:
    if isinstance(value, tuple):
        return [_plain(member, held) for member in cast("tuple[Any, ...]", value)]
    if isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "first"):  # a part of a mix
        return [terms(value.order, held), value.first]
    return terms(value, held)


def fingerprint(order: Order) -> str:
    """16 hexadecimal digits that tell this order from others."""
    return hashlib.sha256(repr(["hsq order 1", terms(order)]).encode()).hexdigest()[:16]


def outermost_seed(order: Order) -> int | None:
    """The seed of the last shuffle or mix in a chain, or ``None`` if there is none that follows the epoch."""
    if isinstance(order, Composed):
        seed = outermost_seed(order.outer)
        return outermost_seed(order.inner) if seed is None else seed
    if isinstance(order, InChunks):
        return outermost_seed(order.chunks)
    if isinstance(order, Concatenated):
        return next((seed for part in order.parts if (seed := outermost_seed(part.order)) is not None), None)
    return getattr(order, "seed", None)

"""JSON from a file that nobody vouches for."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn, cast

MAX_DEPTH = 64
#: Small values take some hundred times their bytes in memory.
MAX_VALUES = 5_000_000


def decode(data: bytes, *, allow_nan: bool = False) -> Any:
    """A JSON value with no key twice, no number beyond a double, at most 64 levels and five million values.

    Args:
        data: UTF-8 text.
        allow_nan: Whether ``NaN`` and ``Infinity`` may stand in it, which Python writes though JSON has none.

    Raises:
        ValueError: Any of that, or no JSON at all.
    """
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} values")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    def finite(text: str) -> float:
        if math.isinf(number := float(text)):
            raise ValueError(f"{text[:20]}... is too large")
        return number

    def whole(text: str) -> int:
        finite(text)  # first, because it takes no time that grows with the square of the digits
        return int(text)

    hooks: dict[str, Any] = {"object_pairs_hook": unique, "parse_float": finite, "parse_int": whole}
    if not allow_nan:
        hooks["parse_constant"] = constant
    try:
        value = json.loads(data.decode("utf-8"), **hooks)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels") from None
    if _deeper_than(value, MAX_DEPTH):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return value


def _deeper_than(value: Any, limit: int) -> bool:
    level: list[Any] = [value]
    for _ in range(limit + 1):
        level = [member for item in level for member in _members(item)]
        if not level:
            return False
    return True


def _members(item: Any) -> list[Any]:
    if isinstance(item, dict):
        return list(cast("dict[str, Any]", item).values())
    return cast("list[Any]", item) if isinstance(item, list) else []


def encode(value: Any) -> bytes:
    """JSON as it is stored: UTF-8, no spaces."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")

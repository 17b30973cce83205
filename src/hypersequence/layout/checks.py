"""The small tools of validation: one error a rule, suspicious JSON, sums."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any, NoReturn, cast

from ..errors import FormatError, UnsupportedError

MAX_JSON_DEPTH = 64
MAX_U63 = (1 << 63) - 1  # offsets are unsigned on disk, but must fit the signed ones of every operating system


def fail(path: str, rule: str, message: str, *, unsupported: bool = False) -> NoReturn:
    """Raise the error of a rule of SPEC.md."""
    kind = UnsupportedError if unsupported else FormatError
    raise kind(f"{path}: {message} [rule {rule}]", path=path, rule=rule)


def align(n: int, unit: int = 64) -> int:
    """The least multiple of ``unit`` that is not below ``n``."""
    return -(-n // unit) * unit


def crc32(data: bytes | memoryview) -> int:
    """CRC-32 as in zlib, PNG and gzip."""
    return zlib.crc32(data)


def decode_json(data: bytes, path: str, rule: str, what: str) -> Any:
    """JSON with no duplicate keys, no NaN, no more than 64 levels; anything else is an error of ``rule``."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a key stands twice")
        return found

    def constant(name: str) -> NoReturn:
        raise ValueError(f"{name} is not JSON")

    def finite(text: str) -> float:
        if math.isinf(number := float(text)):
            raise ValueError(f"{text} is too large")
        return number

    def whole(text: str) -> int:
        finite(text)  # first, because it takes no time that grows with the square of the digits
        return int(text)

    hooks: dict[str, Any] = {"object_pairs_hook": unique, "parse_constant": constant}
    hooks |= {"parse_float": finite, "parse_int": whole}
    try:
        value = json.loads(data.decode("utf-8"), **hooks)
    except (ValueError, RecursionError) as error:
        fail(path, rule, f"the {what} is not valid JSON ({type(error).__name__}: {str(error)[:100]})")
    if _deeper_than(value, MAX_JSON_DEPTH):
        fail(path, rule, f"the {what} nests deeper than {MAX_JSON_DEPTH} levels")
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


def encode_json(value: Any) -> bytes:
    """JSON as it is stored: UTF-8, no spaces."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")

"""The small tools of validation: one error a rule, suspicious JSON, sums."""

from __future__ import annotations

import zlib
from typing import Any, NoReturn

from .. import strictjson
from ..errors import FormatError, UnsupportedError

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
    """JSON as strict as :func:`strictjson.decode` takes it; anything else is an error of ``rule``."""
    try:
        return strictjson.decode(data)
    except ValueError as error:
        fail(path, rule, f"the {what} is not valid JSON ({str(error)[:100]})")

"""Whether user metadata can be stored without loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast

from .. import strictjson
from ..errors import RecordError
from ..layout import MAX_META_NBYTES

_MAX_INT_BITS = 1023  # what every reader's floating-point numbers can hold


def check_meta(meta: Mapping[str, Any]) -> None:
    """Refuse what JSON cannot hold, or would silently change (keys that are not text, NaN).

    Raises:
        RecordError: The message names the key.
    """
    _check(meta, "user_meta()", 0)
    encoded = strictjson.encode(meta)
    if len(encoded) > MAX_META_NBYTES:
        raise RecordError(f"user_meta(): {len(encoded)} bytes of JSON are over the limit of {MAX_META_NBYTES}")
    try:
        strictjson.decode(encoded)
    except ValueError as error:
        raise RecordError(f"user_meta(): a reader would refuse this: {error}") from None


def _check(value: Any, where: str, depth: int) -> None:
    if depth > strictjson.MAX_DEPTH:
        raise RecordError(f"{where[:80]}...: nested deeper than {strictjson.MAX_DEPTH} levels")
    if isinstance(value, dict):
        for key, member in cast("dict[Any, Any]", value).items():
            if not isinstance(key, str):
                raise RecordError(f"{where}: keys are text, not {type(key).__name__}: {key!r}")
            _check(member, f"{where}[{key!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        for i, member in enumerate(cast("list[Any]", value)):
            _check(member, f"{where}[{i}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where}: {value} is not JSON; store it as text or leave it out")
    elif isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise RecordError(f"{where}: {value!r} is not valid Unicode") from None
    elif type(value) is int and value.bit_length() > _MAX_INT_BITS:
        raise RecordError(f"{where}: a number of {value.bit_length()} bits is too large for JSON; store it as text")
    elif value is not None and type(value) not in (bool, int):
        raise RecordError(f"{where}: {type(value).__name__} is not JSON; convert it to a number, text, list or dict")

"""Functions over batches, each with a random generator that can be repeated."""

from __future__ import annotations

import hashlib
import inspect
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from ..errors import ArgumentError
from ..schema import Batch


@dataclass(frozen=True, slots=True)
class Mapper:
    """A person's function, whether it wants a generator, and how many functions come before it."""

    fn: Callable[..., Batch]
    wants_rng: bool
    seed: int
    number: int

    def __call__(self, batch: Batch, epoch: int, first_record: Callable[[], int]) -> Batch:
        """The function's batch.

        Args:
            batch: What the function is given.
            epoch: Together with the first record, what the generator depends on.
            first_record: Gives the number of the batch's first record; asked only for a generator, since to work it
                out may take longer than to gather the batch.

        Raises:
            ArgumentError: It gave something else than a tuple of one to three.
        """
        result: Any = self.fn(batch, self._rng(epoch, first_record())) if self.wants_rng else self.fn(batch)
        if not isinstance(result, tuple) or not 1 <= len(cast("Batch", result)) <= 3:
            raise ArgumentError(
                f"map: {getattr(self.fn, '__name__', self.fn)!r} must return (inputs,), (inputs, outputs) or "
                f"(inputs, outputs, sample_weights), not {type(cast('object', result)).__name__}"
            )
        return cast("Batch", result)

    def _rng(self, epoch: int, first_record: int) -> np.random.Generator:
        digest = hashlib.sha256(
            b"hsq map 1" + struct.pack("<QQQQ", self.seed, self.number, epoch, first_record)
        ).digest()
        return np.random.Generator(np.random.Philox(key=np.frombuffer(digest[:16], "<u8")))


def as_mapper(fn: Callable[..., Batch], seed: int, number: int) -> Mapper:
    """Find out whether ``fn`` takes ``(batch)`` or ``(batch, rng)``."""
    if not callable(fn):
        raise ArgumentError(f"map: {fn!r} is no function")
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # some built-ins have no signature
        return Mapper(fn, False, seed, number)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    starred = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    wants_rng = len(required) == 2 or (len(required) < 2 and len(positional) >= 2 and positional[1].name == "rng")
    if len(required) > 2 or (not positional and not starred):
        raise ArgumentError(f"map: {getattr(fn, '__name__', fn)!r} must take (batch) or (batch, rng)")
    return Mapper(fn, wants_rng, seed, number)

"""Arrays whose first axes are the records': what the files of NumPy, HDF5 and Zarr have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from ..errors import ArgumentError, RecordError, SourceError
from ..schema import Array, Field
from ..source.buffers import lease
from .base import PIECE_NBYTES

#: The arrays of one source, by the names of their fields.
Arrays: TypeAlias = "dict[str, StoredArray]"


class StoredArray(ABC):
    """An array in a source.

    Args:
        where: As messages name it: the file, and the array in it.
        shape: Its shape; the first axis is the records'.
        dtype: Its type.
        chunk: How many records can only be read together, because they are compressed or lie among each other.
        in_turn: Whether it has to be read from its beginning to its end, by one thread.

    Raises:
        SourceError: It has no axis of records, or its type cannot be stored.
    """

    def __init__(
        self, where: str, shape: Sequence[int], dtype: np.dtype[Any], *, chunk: int = 1, in_turn: bool = False
    ) -> None:
        if not shape:
            raise SourceError(f"{where}: holds a single value; records need an array with an axis of their own")
        try:
            self.field = Field(dtype, shape[1:])
        except (RecordError, ArgumentError) as error:
            raise SourceError(f"{where}: {str(error).removeprefix('Field: ')}") from None
        self.where, self.n_records, self.in_turn = where, shape[0], in_turn
        self.chunk = max(1, min(chunk, self.n_records))

    def look_closer(self) -> None:  # noqa: B027 - few have to
        """Find out what takes reading, as the width of text; comes once, for those that are wanted."""

    @abstractmethod
    def read(self, start: int, stop: int) -> Array:
        """The records from ``start`` to before ``stop``, at least one.

        Raises:
            SourceError: They cannot be read.
        """

    def close(self) -> None:  # noqa: B027 - few have to
        """Give back what is open."""

    def place(self, start: int, stop: int) -> str:
        """Where some records are, for a message."""
        return f"{self.where}, records {start:,} to {stop - 1:,}"


class Unreadable(StoredArray):
    """Stands for an array that cannot be converted, as long as nobody wants it."""

    def __init__(self, error: SourceError) -> None:
        super().__init__("", (0,), np.dtype("S0"))
        self.error = error

    def read(self, start: int, stop: int) -> Array:
        """Raise it."""
        raise self.error


def if_readable(make: Callable[[], StoredArray]) -> StoredArray:
    """An array; or one that raises the SourceError of making it when it turns out to be wanted."""
    try:
        return make()
    except SourceError as error:
        return Unreadable(error)


class StoredText(StoredArray):
    """Text that has no width of its own in the source: it gets that of the longest.

    Args:
        where: As above.
        shape: As above.
        kind: ``"U"`` for text, ``"S"`` for bytes.
        chunk: As above.
    """

    def __init__(self, where: str, shape: Sequence[int], kind: str, *, chunk: int = 1) -> None:
        super().__init__(where, shape, np.dtype(f"{kind}0"), chunk=chunk)

    @abstractmethod
    def values(self, start: int, stop: int) -> Array:
        """Some records, as an array of objects or of NumPy's text without a width."""

    def look_closer(self) -> None:
        """Read all of it, to see how long it gets."""
        width, start, step = 0, 0, 1  # nothing is known yet of how long they are
        while start < self.n_records:
            stop = min(start + step, self.n_records)
            with explained(self.place(start, stop)):
                found = self.values(start, stop).reshape(-1).tolist()
            lengths = list(map(len, found))
            if any(length and value[-1:] in ("\0", b"\0") for length, value in zip(lengths, found, strict=True)):
                raise SourceError(
                    f"{self.place(start, stop)}: a text ends in NUL, which text of one width cannot keep; store it as "
                    "an array of uint8"
                )
            width, start = max(width, *lengths, 0), stop
            # Python's objects are some 64 bytes each, and a single text can be very long.
            step = min(2 * step, 1 << 16) if sum(lengths) + 64 * len(lengths) < PIECE_NBYTES // 4 else max(1, step // 2)
        self.field = Field(f"{self.field.dtype.kind}{width}", self.field.shape)

    def read(self, start: int, stop: int) -> Array:
        """The records from ``start`` to before ``stop``, as wide as the longest."""
        out = lease((stop - start, *self.field.shape), self.field.dtype)
        if out.size:
            step = max(1, (1 << 16) // math.prod(self.field.shape))  # objects are many times as large as short text
            for first in range(start, stop, step):
                last = min(first + step, stop)
                with explained(self.place(first, last)):
                    out[first - start : last - start] = self.values(first, last)
        return out


@contextmanager
def explained(where: str) -> Generator[None]:
    """Make whatever a library raises over damaged data an error that says where."""
    try:
        yield
    except (SourceError, MemoryError):
        raise
    except Exception as error:
        raise SourceError(f"{where}: cannot be read: {str(error) or type(error).__name__}") from error

"""What is stored: records of a few shapes, each with its number in it, the same in every environment."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

#: Two arrays that go together: one record's, or as many records' as the first axis is long.
Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Workload:
    """Records of one shape. ``y`` holds the record's number as its first element.

    Args:
        name: Short, for the command line.
        title: What the records stand for.
        x: Shape and dtype of the first array.
        y: Shape and dtype of the second.
        batch: Records of a batch.
        n_records: How many there are.
        memory_nbytes: Memory for all processes and the page cache together, if that is limited.
    """

    name: str
    title: str
    x: tuple[tuple[int, ...], str]
    y: tuple[tuple[int, ...], str]
    batch: int
    n_records: int
    memory_nbytes: int | None = None

    @property
    def x_nbytes(self) -> int:
        """Bytes of the first array of a record."""
        return math.prod(self.x[0]) * np.dtype(self.x[1]).itemsize

    @property
    def y_nbytes(self) -> int:
        """Bytes of the second."""
        return math.prod(self.y[0]) * np.dtype(self.y[1]).itemsize

    @property
    def record_nbytes(self) -> int:
        """Bytes of a record."""
        return self.x_nbytes + self.y_nbytes

    @cached_property
    def _noise(self) -> list[np.ndarray]:
        random = np.random.RandomState(12345)  # the one generator whose numbers no version of NumPy changes
        drawn = [np.asarray(random.randint(0, 1 << 62, shape), np.uint64) for shape, _ in (self.x, self.y)]
        return [words * np.uint64(2) + np.uint64(1) for words in drawn]

    def make(self, start: int, stop: int) -> Pair:
        """Records ``start .. stop-1``: noise, of which a compressor finds no more than the type itself gives away."""
        numbers = np.arange(start, stop, dtype=np.uint64)
        factors = (numbers + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x, y = (
            _as(dtype, factors.reshape(-1, *[1] * len(shape)) * noise)
            for (shape, dtype), noise in zip((self.x, self.y), self._noise, strict=True)
        )
        y.reshape(stop - start, -1)[:, 0] = numbers
        return x, y

    def numbers(self, y: np.ndarray) -> np.ndarray:
        """The numbers of the records of a batch."""
        return np.asarray(y).reshape(len(y), -1)[:, 0].astype(np.int64)


def _as(dtype: str, words: np.ndarray) -> np.ndarray:
    """Values of a dtype from random words; those of float64 are no values of float32."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return words.astype(kind) / kind.type(3 << 62)
    return (words >> np.uint64(48)).astype(kind)


class Records:
    """Records in memory, handed to whoever writes them, until it takes too long.

    Args:
        workload: Which.
        seconds: Nothing is handed over after so many seconds, so that slow writers make smaller files, not longer runs.
    """

    def __init__(self, workload: Workload, seconds: float = math.inf) -> None:
        self.workload = workload
        step = max(1, (4 << 20) // workload.record_nbytes)
        firsts = range(0, workload.n_records, step)
        self._chunks = [workload.make(first, min(first + step, workload.n_records)) for first in firsts]
        self._step = step
        self._seconds = seconds
        self._end = math.inf
        self.n_handed = 0

    def start(self) -> None:
        """From now on the time counts."""
        self._end = time.perf_counter() + self._seconds
        self.n_handed = 0

    def chunks(self) -> Iterator[Pair]:
        """Records in arrays of a few MiB, for those who write many at once."""
        for x, y in self._chunks:
            if time.perf_counter() > self._end:
                return
            self.n_handed += len(x)
            yield x, y

    def __iter__(self) -> Iterator[Pair]:
        """One record after another; ``y`` without axes is a scalar of NumPy's."""
        for x, y in self._chunks:
            for record in zip(x, y, strict=True):
                if time.perf_counter() > self._end:
                    return
                self.n_handed += 1
                yield record

    def __len__(self) -> int:
        return self.workload.n_records

    def __getitem__(self, number: int) -> Pair:
        """Any record, for those who ask by number; no time limit, all are handed over."""
        self.n_handed = len(self)
        chunk, row = divmod(number, self._step)
        x, y = self._chunks[chunk]
        return x[row], y[row]


_IMAGES = ((3, 224, 224), "float32"), ((), "int64")
_PAIRS = ((10, 10), "float64"), ((2, 10, 2), "float64")
_TOKENS = ((4096,), "int32"), ((), "int64")
_FULL = {
    workload.name: workload
    for workload in (
        Workload("images", "602 KB float32 images with a label", *_IMAGES, 32, 832),
        Workload("pairs", "1.1 KB float64 pairs", *_PAIRS, 256, 458_752),
        Workload("tokens", "16 KB windows of int32 tokens", *_TOKENS, 32, 30_720),
        Workload("digits", "784 B uint8 images with a label", ((28, 28), "uint8"), ((), "int64"), 256, 655_360),
        Workload(
            "features", "64 B of float32 features with a label", ((16,), "float32"), ((), "int64"), 1024, 4_194_304
        ),
        Workload("volumes", "8 MB float32 volumes with a label", ((128, 128, 128), "float32"), ((), "int64"), 4, 60),
        Workload("large", "602 KB images, 2 GB in 1 GiB of memory", *_IMAGES, 32, 3328, 1 << 30),
        Workload("large-tokens", "16 KB windows of tokens, 2 GB in 1 GiB of memory", *_TOKENS, 32, 122_880, 1 << 30),
        Workload("large-pairs", "1.1 KB pairs, 2 GB in 1 GiB of memory", *_PAIRS, 256, 1_789_952, 1 << 30),
    )
}


def workload(name: str, share: float = 1.0) -> Workload:
    """A workload, with a share of its records (whole batches); more than 1 repeats none, but makes more."""
    full = _FULL[name]
    n_records = max(8, round(full.n_records * share / full.batch)) * full.batch
    return replace(full, n_records=n_records)


def names() -> list[str]:
    """All workloads."""
    return list(_FULL)

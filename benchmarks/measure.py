"""Interleaved rounds, medians, and tables."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

RECORDS = {"64 B": ((16,), 1024), "1 KiB": ((256,), 256), "16 KiB": ((4096,), 64), "600 KiB": ((3, 224, 224), 32)}


def interleaved(rounds: int, **functions: Callable[[], object]) -> dict[str, list[float]]:
    """Seconds of each function, run in turn and in changing order, so that a slow moment meets them all."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()  # warm up
    for _ in range(rounds):
        for name, function in random.sample(list(functions.items()), len(functions)):
            started = time.perf_counter()
            function()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratio(seconds: dict[str, list[float]], limit: str, ours: str) -> float:
    """Median over the rounds of limit / ours: 1 is as fast as the limit."""
    return statistics.median(a / b for a, b in zip(seconds[limit], seconds[ours], strict=True))


def row(*cells: object) -> None:
    print("  ".join(f"{cell:>18}" if i else f"{cell!s:<26}" for i, cell in enumerate(cells)), flush=True)


def aligned(shape: tuple[int, ...], dtype: object) -> np.ndarray:
    """Uninitialised memory at a multiple of 64: what a careful person would gather into."""
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def forget(path: Path) -> None:
    """Drop a file from the page cache.

    It is read before, so that the memory is at hand that the next reading needs: a virtual machine may have given free
    memory back to its host, and to get that again took up to 2 s a GB where this was written.
    """
    with path.open("rb", buffering=0) as file:
        buffer = bytearray(4 << 20)
        while file.readinto(buffer):
            pass
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder, in $BENCH_DIR if that is set (choose the disk that you care about)."""
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as name:
        yield Path(name)

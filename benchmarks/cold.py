"""The loader on data that are on disk only: beside the disk's own limit. `python -m benchmarks.cold`.

Needs some 2 GiB of free disk; put it on the disk that you care about with BENCH_DIR.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import random
import statistics
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np

import hypersequence as hs

from .compare.disk import read_directly
from .measure import RECORDS, folder, forget, ratio, row

TOTAL_NBYTES = 1 << 30
WINDOW_NBYTES = 256 << 20
ROUNDS = 7
ORDERS = ("in order", "window", "batch", "record")
READ_NBYTES = 4 << 20


def main() -> None:
    with folder() as where:
        print(
            f"{TOTAL_NBYTES >> 20} MiB, windows of {WINDOW_NBYTES >> 20} MiB; GB/s, and beside the disk "
            "(O_DIRECT reads in a row)\n"
        )
        row("record", "disk", "with one copy", "system, in order", *ORDERS, "first / window", "batch: first / block")
        for name in ("1 KiB", "16 KiB", "600 KiB"):
            path = write(where / f"{name}.hsq", RECORDS[name][0], TOTAL_NBYTES)
            epochs(name, path)
            path.unlink()
        print("\nTen epochs with evict=True: the file's pages in memory, in windows (less than 2)\n")
        row("file", "most", "mean")
        path = write(where / "evict.hsq", RECORDS["16 KiB"][0], 2 * TOTAL_NBYTES)
        evicting(path)


def write(path: Path, shape: tuple[int, ...], nbytes: int) -> Path:
    n, per_record = 0, int(np.prod(shape)) * 4
    piece = max(1, (64 << 20) // per_record)
    values = np.random.default_rng(0).random((piece, *shape), np.float32)
    with hs.HyperSequenceWriter(path, 32) as writer:
        while n * per_record < nbytes:
            writer.extend(values, np.arange(n, n + piece))
            n += piece
    return path


def direct(path: Path, nbytes: int, copied: bool = False) -> float:
    """Seconds that the disk takes for so many bytes in a row, past the page cache, and perhaps to copy them once."""
    found, seconds = read_directly(path, nbytes, copied)
    return seconds * nbytes / found


def system(path: Path, nbytes: int) -> float:
    """Seconds to read a file in order into memory that is used again, and to do nothing with it."""
    forget(path)
    buffer = bytearray(READ_NBYTES)
    begun = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begun


def cold(path: Path, order: str, size: int) -> tuple[float, float]:
    """Seconds to the first batch and to the last, with nothing in the page cache."""
    gc.collect()
    forget(path)
    begun = time.perf_counter()
    with hs.open(path) as file:
        options = {"window": WINDOW_NBYTES} if order == "window" else {}
        sequence = file if order == "in order" else file.shuffled(1, by=order, **options)
        iterator = iter(hs.Loader(sequence.rebatch(size)))
        next(iterator)
        first = time.perf_counter() - begun
        for _ in iterator:
            pass
    return first, time.perf_counter() - begun


def epochs(name: str, path: Path) -> None:
    size, nbytes = RECORDS[name][1], path.stat().st_size
    with hs.open(path) as file:
        block_nbytes = file._source.stored.stride
    seconds: dict[str, list[float]] = {way: [] for way in ("disk", "copied", "system", *ORDERS)}
    first, first_of_batch = [], []
    for _ in range(ROUNDS):
        seconds["disk"].append(direct(path, nbytes))
        seconds["copied"].append(direct(path, nbytes, copied=True))
        seconds["system"].append(system(path, nbytes))
        for order in random.sample(ORDERS, len(ORDERS)):
            begin, all_of_it = cold(path, order, size)
            seconds[order].append(all_of_it)
            if order == "window":
                first.append(begin / direct(path, WINDOW_NBYTES))
            if order == "batch":
                first_of_batch.append(begin / direct(path, max(READ_NBYTES, block_nbytes)))
    rates = {way: nbytes / statistics.median(of_way) / 1e9 for way, of_way in seconds.items()}
    row(
        name,
        f"{rates['disk']:.2f}",
        *(f"{rates[way]:.2f}, {ratio(seconds, 'disk', way):.2f}" for way in ("copied", "system", *ORDERS)),
        f"{statistics.median(first):.2f}",
        f"{statistics.median(first_of_batch):.2f}",
    )


def resident_nbytes(path: Path) -> int:
    """Bytes of a file in the page cache; asking by reading would bring them there."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        view = np.frombuffer(mapping, np.uint8)
        pages = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        if libc.mincore(view.ctypes.data, len(view), pages.ctypes.data):
            raise OSError(ctypes.get_errno(), "mincore")
        del view
    return int((pages & 1).sum()) * mmap.PAGESIZE


def evicting(path: Path) -> None:
    forget(path)
    seen = []
    with hs.open(path) as file:
        loader = hs.Loader(file.shuffled(1, window=WINDOW_NBYTES).rebatch(256), epochs=10, evict=True)
        for number, _ in enumerate(islice(loader, None)):
            if number % 64 == 0:
                seen.append(resident_nbytes(path) / WINDOW_NBYTES)
    row("2 GiB", f"{max(seen):.2f}", f"{statistics.mean(seen):.2f}")


if __name__ == "__main__":
    if not hasattr(os, "O_DIRECT") or not hasattr(os, "RWF_NOWAIT"):
        sys.exit("needs a system with O_DIRECT and RWF_NOWAIT, such as Linux")
    main()

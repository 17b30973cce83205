"""The loader on data that are on disk only: beside the disk's own limit. `python -m benchmarks.cold`.

Needs some 2 GiB of free disk; put it on the disk that you care about with BENCH_DIR.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import statistics
import sys
import time
from itertools import islice
from pathlib import Path

import numpy as np

import hypersequence as hs

from .measure import RECORDS, folder, forget, row

TOTAL_NBYTES = 1 << 30
WINDOW_NBYTES = 256 << 20
ROUNDS = 7
READ_NBYTES = 4 << 20


def main() -> None:
    with folder() as where:
        print(f"{TOTAL_NBYTES >> 20} MiB, windows of {WINDOW_NBYTES >> 20} MiB; the disk: O_DIRECT reads in a row\n")
        row("record", "disk GB/s", "window GB/s", "ratio", "first / window", "batch: first / block")
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


def direct(path: Path, nbytes: int) -> float:
    """Seconds that the disk takes for so many bytes in a row, past the page cache."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    buffer = mmap.mmap(-1, READ_NBYTES)
    begun = time.perf_counter()
    for offset in range(0, nbytes // READ_NBYTES * READ_NBYTES, READ_NBYTES):
        os.preadv(descriptor, [buffer], offset)
    seconds = time.perf_counter() - begun
    os.close(descriptor)
    return seconds * nbytes / (nbytes // READ_NBYTES * READ_NBYTES)


def cold(path: Path, by: str, size: int, verify: str = "first") -> tuple[float, float]:
    """Seconds to the first batch and to the last, with nothing in the page cache."""
    gc.collect()
    forget(path)
    begun = time.perf_counter()
    with hs.open(path, verify=verify) as file:
        options = {"window": WINDOW_NBYTES} if by == "window" else {}
        iterator = iter(hs.Loader(file.shuffled(1, by=by, **options).rebatch(size)))
        next(iterator)
        first = time.perf_counter() - begun
        if by == "window":
            for _ in iterator:
                pass
        iterator.close()
    return first, time.perf_counter() - begun


def epochs(name: str, path: Path) -> None:
    size, nbytes = RECORDS[name][1], path.stat().st_size
    with hs.open(path) as file:
        block_nbytes = file._source.stored.stride
    disk, ours, first, first_of_batch = [], [], [], []
    for _ in range(ROUNDS):
        forget(path)
        disk.append(direct(path, nbytes))
        begin, all_of_it = cold(path, "window", size)
        ours.append(all_of_it)
        first.append(begin / direct(path, WINDOW_NBYTES))
        first_of_batch.append(cold(path, "batch", 32)[0] / direct(path, max(READ_NBYTES, block_nbytes)))
    ratios = [a / b for a, b in zip(disk, ours, strict=True)]
    row(
        name,
        f"{nbytes / statistics.median(disk) / 1e9:.2f}",
        f"{nbytes / statistics.median(ours) / 1e9:.2f}",
        f"{statistics.median(ratios):.2f}",
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

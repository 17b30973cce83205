"""Verifying and recovering files, beside hashing the same bytes, the disk, and plain reading and writing.

``python -m benchmarks.integrity [GiB]``: 1 GiB if nothing is said; recovery of large files is measured with 10.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import xxhash

import hypersequence as hs

from .compare.disk import read_directly
from .measure import folder, forget, interleaved, ratio, row

SHAPE, BATCH = (250, 251), 32  # records of 251 KB, so that runs and records have nothing to do with pages
PIECE_NBYTES = 1 << 20
ROUNDS = 5


def write(path: Path, nbytes: int) -> None:
    with hs.HyperSequenceWriter(path, BATCH) as writer:
        chunk = np.random.default_rng(0).random((BATCH, *SHAPE), np.float32)
        for start in range(0, nbytes // chunk[0].nbytes, BATCH):
            chunk += 1
            writer.extend(chunk, np.arange(start, start + BATCH))


def hash_all(path: Path) -> None:
    """XXH3's own speed: one thread, over the file's mapping."""
    data, hasher = np.memmap(path, np.uint8, "r").data, xxhash.xxh3_64()
    for start in range(0, len(data), PIECE_NBYTES):
        hasher.update(data[start : start + PIECE_NBYTES])


def read_all(path: Path) -> None:
    buffer = bytearray(PIECE_NBYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def copy(path: Path, out: Path) -> None:
    """Read and write, and see it to the disk."""
    buffer = memoryview(bytearray(PIECE_NBYTES))
    with path.open("rb", buffering=0) as source, out.open("wb", buffering=0) as target:
        while n := source.readinto(buffer):  # type: ignore[arg-type]
            target.write(buffer[:n])
        os.fsync(target.fileno())


def rounds(nbytes: int) -> int:
    """Files that take minutes are measured less often."""
    return ROUNDS if nbytes < 4 << 30 else 3


def timed(path: Path, **functions: Callable[[], object]) -> dict[str, list[float]]:
    """As interleaved(), each with the file out of memory."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds(path.stat().st_size)):
        names = list(functions)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            forget(path)
            started = time.perf_counter()
            functions[name]()
            seconds[name].append(time.perf_counter() - started)
    return seconds


def show(what: str, seconds: dict[str, list[float]], limit: str, nbytes: int) -> None:
    for name, times in seconds.items():
        rate = nbytes / statistics.median(times) / 1e9
        row(what, name, f"{rate:.2f} GB/s", "" if name == limit else f"{ratio(seconds, limit, name):.2f}")


def part_of(path: Path) -> Path:
    """The file as a writer leaves it that is killed before its end: all blocks, and nothing behind them."""
    with hs.open(path) as seq:
        stored = seq._source.files()[0].stored
    part = path.rename(path.with_name(f"{path.name}.0123abcd.part"))
    os.truncate(part, stored.first_block + (stored.n_blocks - 1) * stored.stride + 4096)  # the last block is broken
    return part


def recover_in_place(part: Path) -> None:
    found = hs.recover(part)
    found.path.rename(part)
    os.truncate(part, part.stat().st_size - 128)  # its end is missing once more


def main() -> None:
    nbytes = int(float(sys.argv[1] if len(sys.argv) > 1 else 1) * (1 << 30))
    with folder() as where:
        path, out = where / "a.hsq", where / "out.hsq"
        write(path, nbytes)
        size = path.stat().st_size
        row("", "", "", "of the limit")
        limits = {"XXH3 alone": partial(hash_all, path)}
        ours = {f"verify, threads={n}": partial(hs.verify, path, threads=n) for n in (0, 1)}
        show("in memory", interleaved(rounds(size), **limits, **ours), "XXH3 alone", size)
        limits = {"O_DIRECT": partial(read_directly, where, size), "read()": partial(read_all, path)}
        show("from disk", timed(path, **limits, **ours, default=partial(hs.verify, path)), "O_DIRECT", size)

        part = part_of(path)
        size = part.stat().st_size
        functions = {"read()": partial(read_all, part), "recover in place": partial(recover_in_place, part)}
        show("in memory", interleaved(rounds(size), **functions), "read()", size)
        show("from disk", timed(part, **functions), "read()", size)
        functions = {
            "read and write": partial(copy, part, out),
            "recover to a file": partial(hs.recover, part, out, overwrite=True),
        }
        show("in memory", interleaved(rounds(size), **functions), "read and write", size)
        show("from disk", timed(part, **functions), "read and write", size)


if __name__ == "__main__":
    main()

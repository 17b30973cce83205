"""Ways into the page cache, and past it: how fast, at what price, and how much came. `python -m benchmarks.readahead`.

Needs 1 GiB of free disk; put it on the disk that you care about with BENCH_DIR.
"""

from __future__ import annotations

import mmap
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hypersequence.source.handle import FileHandle

from .cold import resident_nbytes
from .compare.disk import read_directly
from .measure import folder, forget, row

BLOCK_NBYTES, N_BLOCKS, N_TAKEN = 8 << 20, 128, 40
PIECE_NBYTES, STEPS_AHEAD = 2 << 20, 4
ROUNDS = 7

Blocks = list[int]


def main() -> None:
    print(
        f"Blocks of {BLOCK_NBYTES >> 20} MiB, all of {N_BLOCKS} in order and {N_TAKEN} in random order: GB/s, of "
        "the disk, processor\nseconds a GB, and bytes in the page cache per byte wanted\n"
    )
    with folder() as where:
        path = where / "file"
        with path.open("wb") as file:
            for _ in range(N_BLOCKS):
                file.write(os.urandom(BLOCK_NBYTES))
        row("", "in order", "of the disk", "CPU s/GB", "random blocks", "of the disk", "CPU s/GB", "in the cache")
        order = [number * BLOCK_NBYTES for number in range(N_BLOCKS)]
        in_order = rounds(path, order)
        scattered = rounds(path, random.Random(0).sample(order, N_TAKEN))
        for way in WAYS:
            row(way, *in_order[way][:3], *scattered[way])


def rounds(path: Path, blocks: Blocks) -> dict[str, list[str]]:
    """Every way in turn and in changing order."""
    nbytes = len(blocks) * BLOCK_NBYTES
    found: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way in random.sample(list(WAYS), len(WAYS)):
            forget(path)
            begun, cpu = time.perf_counter(), time.process_time()
            WAYS[way](path, blocks)
            seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
            found[way].append((seconds, cpu / nbytes * 1e9, resident_nbytes(path) / nbytes))
    disk = [seconds for seconds, _, _ in found[DISK]]
    return {
        way: [
            f"{nbytes / statistics.median(seconds for seconds, _, _ in rows) / 1e9:.2f}",
            f"{statistics.median(beside / seconds for beside, (seconds, _, _) in zip(disk, rows, strict=True)):.2f}",
            f"{statistics.median(cpu for _, cpu, _ in rows):.3f}",
            f"{statistics.median(cached for _, _, cached in rows):.2f}",
        ]
        for way, rows in found.items()
    }


def directly(path: Path, blocks: Blocks) -> None:
    """As much as the blocks are, from the beginning: what the disk can do."""
    read_directly(path, len(blocks) * BLOCK_NBYTES)


def into_small_pages(path: Path, blocks: Blocks) -> None:
    descriptor, memory = os.open(path, os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, BLOCK_NBYTES)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    for block in blocks:
        os.preadv(descriptor, [memory], block)
    os.close(descriptor)


def read(path: Path, blocks: Blocks) -> None:
    descriptor, memory = os.open(path, os.O_RDONLY), bytearray(PIECE_NBYTES)
    for block in blocks:
        for at in range(block, block + BLOCK_NBYTES, PIECE_NBYTES):
            os.preadv(descriptor, [memory], at)
    os.close(descriptor)


def ask(path: Path, blocks: Blocks) -> None:
    """``posix_fadvise``, some blocks ahead, and wait for each."""
    handle = FileHandle(str(path))
    for number in range(len(blocks) + STEPS_AHEAD):
        if number < len(blocks):
            handle.will_need(blocks[number], BLOCK_NBYTES)
        if number >= STEPS_AHEAD:
            handle.wait_for(blocks[number - STEPS_AHEAD], BLOCK_NBYTES)
    handle.close()


def touch(path: Path, blocks: Blocks) -> None:
    bytes_of = np.memmap(path, np.uint8, "r")
    for block in blocks:
        bytes_of[block : block + BLOCK_NBYTES : mmap.PAGESIZE].max()


def large_pages(path: Path, blocks: Blocks) -> None:
    """As the loader does, by one thread."""
    handle = FileHandle(str(path))
    handle.map()
    for block in blocks:
        handle.bring(block, block + BLOCK_NBYTES)
    handle.close()


DISK = "O_DIRECT, large pages"
WAYS: dict[str, Callable[[Path, Blocks], None]] = {
    DISK: directly,
    "O_DIRECT, small pages": into_small_pages,
    "read": read,
    "posix_fadvise": ask,
    "touched mapping": touch,
    "large pages": large_pages,
}


if __name__ == "__main__":
    if not hasattr(os, "O_DIRECT"):
        sys.exit("needs a system with O_DIRECT, such as Linux")
    main()

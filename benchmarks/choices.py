"""What stands behind the choices in docs/decisions.md. `python -m benchmarks.choices`."""

from __future__ import annotations

import hashlib
import os
import statistics
import struct
import tempfile
import timeit

import numpy as np

from hypersequence.order import Permutation
from hypersequence.order.permute import SORT_LIMIT, _sorted_permutation
from hypersequence.source.buffers import lease

from .measure import aligned, interleaved, ratio, row


def fisher_yates(seed: int, n: int) -> list[int]:
    """The loop that a sort by hashed keys replaces, drawing from a hashed stream (modulo bias aside)."""
    draws: list[int] = []
    for counter in range(-(-n // 8)):
        draws += struct.unpack("<8Q", hashlib.sha512(struct.pack("<QQ", seed, counter)).digest())
    numbers = list(range(n))
    for i in range(n - 1, 0, -1):
        j = draws[i] % (i + 1)
        numbers[i], numbers[j] = numbers[j], numbers[i]
    return numbers


def permutations() -> None:
    seeds = iter(range(10**9))
    seconds = interleaved(
        9,
        sort=lambda: _sorted_permutation(next(seeds), 0, SORT_LIMIT, 0, 0),
        loop=lambda: fisher_yates(next(seeds), SORT_LIMIT),
    )
    print(
        f"A permutation of {SORT_LIMIT:,}: the sort takes {1 / ratio(seconds, 'loop', 'sort'):.3f} of the loop's time\n"
    )
    row("permutation of", "ns a position")
    for n in (10**5, 10**6, 2**20, 2**20 + 1, 10**9, 2**32, 10**10):
        permutation, positions = Permutation(n, 0, 0), np.arange(SORT_LIMIT)
        times = timeit.repeat(lambda p=permutation, at=positions: p.at(at), number=1, repeat=15)
        row(f"{n:,}", f"{statistics.median(times) / SORT_LIMIT * 1e9:.1f}")


def memory() -> None:
    source = np.random.default_rng(0).random((200, 150_528), np.float32)
    order = np.random.default_rng(1).integers(0, 200, 80)
    kept = aligned((80, 150_528), np.float32)

    def gather(out: np.ndarray) -> None:
        for i, number in enumerate(order):
            out[i] = source[number]

    seconds = interleaved(
        15,
        kept=lambda: gather(kept),
        leased=lambda: gather(lease((80, 150_528), np.dtype(np.float32))),
        fresh=lambda: gather(np.empty((80, 150_528), np.float32)),
    )
    print("\nGathering a batch of 48 MB, as a share of the speed into an aligned buffer that is used again")
    row("leased", f"{ratio(seconds, 'kept', 'leased'):.3f}")
    row("fresh (np.empty)", f"{ratio(seconds, 'kept', 'fresh'):.3f}")


def calls() -> None:
    values, places, out = np.arange(1000.0), np.arange(8), np.empty(8)
    with tempfile.TemporaryFile() as file:
        fd = file.fileno()
        pairs = {
            "np.take / ndarray.take": (
                lambda: np.take(values, places, axis=0, out=out, mode="clip"),
                lambda: values.take(places, 0, out, "clip"),
            ),
            "fstat / seek to the end": (lambda: os.fstat(fd).st_size, lambda: os.lseek(fd, 0, os.SEEK_END)),
        }
        print("\nCalls that are made for every batch, one as a multiple of the other")
        for name, (slow, quick) in pairs.items():
            seconds = interleaved(
                15, slow=lambda f=slow: [f() for _ in range(5000)], quick=lambda f=quick: [f() for _ in range(5000)]
            )
            row(name, f"{ratio(seconds, 'slow', 'quick'):.2f}")


if __name__ == "__main__":
    permutations()
    memory()
    calls()

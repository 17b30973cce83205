"""The loader on data in memory: a gather by hand beside it, what a batch costs. `python -m benchmarks.loading`."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

import hypersequence as hs

from .measure import RECORDS, aligned, folder, interleaved, ratio, row
from .reading import bare_gather, write

THREADS = (None, 0, 1, 2)


def epoch_of(loader: hs.Loader):
    def run() -> None:
        loader.set_epoch(0)
        for _ in loader:
            pass

    return run


def main() -> None:
    with folder() as where:
        files = {name: write(where / f"{name}.hsq", RECORDS[name][0]) for name in ("1 KiB", "16 KiB", "600 KiB")}
        print("An epoch of all records shuffled, through the loader, beside the same gather by hand (1 is as fast)\n")
        row("record", "batch", *(f"threads={n}" for n in THREADS))
        for name, path in files.items():
            hot(name, path)
        print("\nThe same for 600 KiB beside np.copyto between aligned buffers\n")
        row("record", "batch", *(f"threads={n}" for n in THREADS))
        copying(files["600 KiB"])
        print("\nMicroseconds that a zero-copy batch costs in the loader (buffers='view', in order)\n")
        row("record", "batch", *(f"threads={n}" for n in THREADS))
        for name, path in files.items():
            overhead(name, path)


def loaders(seq: hs.HyperSequence, **options: object) -> dict[str, hs.Loader]:
    return {f"threads_{n}": hs.Loader(seq, threads=n, **options) for n in THREADS}


def hot(name: str, path: Path) -> None:
    for size in sorted({RECORDS[name][1], 4 * RECORDS[name][1]}):
        with hs.HyperSequenceFile(path) as file:
            for _ in file:
                pass
            seq = file.shuffled(1, by="record").rebatch(size, drop_last=True)
            numbers = np.asarray(seq._order.span(0, seq.n_records))
            runs = {key: epoch_of(loader) for key, loader in loaders(seq).items()}
            seconds = interleaved(9, by_hand=bare_gather(file, numbers, size), **runs)
            row(name, size, *(f"{ratio(seconds, 'by_hand', key):.3f}" for key in runs))


def copying(path: Path) -> None:
    size = RECORDS["600 KiB"][1]
    with hs.HyperSequenceFile(path) as file:
        for _ in file:
            pass
        seq = file.shuffled(1, by="record").rebatch(size, drop_last=True)
        shape = (size, *RECORDS["600 KiB"][0])
        source, target = aligned((4, *shape), np.float32), aligned(shape, np.float32)
        source[...] = 1

        def copy() -> None:
            for i in range(len(seq)):
                np.copyto(target, source[i % 4])

        runs = {key: epoch_of(loader) for key, loader in loaders(seq).items()}
        seconds = interleaved(9, copy=copy, **runs)
        row("600 KiB", size, *(f"{ratio(seconds, 'copy', key):.3f}" for key in runs))


def overhead(name: str, path: Path) -> None:
    with hs.HyperSequenceFile(path) as file:
        seq = file.rebatch(16)
        for _ in seq:
            pass
        cells = []
        for loader in loaders(seq, buffers="view", epochs=10).values():
            times = []
            for _ in range(9):
                loader.set_epoch(0)
                iterator = iter(loader)
                next(iterator)
                begun = time.perf_counter()
                n = sum(1 for _ in iterator)
                times.append((time.perf_counter() - begun) / n)
            cells.append(f"{statistics.median(times) * 1e6:.1f}")
        row(name, 16, *cells)


if __name__ == "__main__":
    main()

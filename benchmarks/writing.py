"""Writing, beside plain writes of the same bytes. `python -m benchmarks.writing`."""

from __future__ import annotations

import os
import statistics
import time

import numpy as np

import hypersequence as hs

from .measure import RECORDS, folder, interleaved, ratio, row

TOTAL_NBYTES = 1 << 30
N_APPENDS = 50_000


def main() -> None:
    with folder() as where:
        print("extend(), checksums on, flushed to disk, beside os.write + fsync of the same bytes\n")
        row("record", "ours", "plain", "ratio to plain")
        for name, (shape, _) in RECORDS.items():
            n = TOTAL_NBYTES // (int(np.prod(shape)) * 4)
            values = np.random.default_rng(0).random((n, *shape), np.float32)
            labels = np.arange(n)

            def ours(values=values, labels=labels) -> None:
                with hs.HyperSequenceWriter(where / "ours.hsq") as writer:
                    writer.extend(values, labels)

            def plain(values=values, labels=labels) -> None:
                # As we do: into a new file, put in place of the old one.
                fd = os.open(where / "new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                for array in (values, labels):
                    data = memoryview(array.reshape(-1).view(np.uint8))
                    for start in range(0, len(data), 8 << 20):
                        rest = data[start : start + (8 << 20)]
                        while rest:
                            rest = rest[os.write(fd, rest) :]
                os.fsync(fd)
                os.close(fd)
                (where / "new").replace(where / "plain")

            seconds = interleaved(7, ours=ours, plain=plain)
            speeds = [f"{values.nbytes / statistics.median(seconds[k]) / 1e9:.2f} GB/s" for k in ("ours", "plain")]
            row(name, *speeds, f"{ratio(seconds, 'plain', 'ours'):.3f}")
        print("\nappend() of one 1 KiB record with one output, beside buffer[i] = record\n")
        row("", "append()", "bare assignment", "difference")
        record, buffer = np.random.default_rng(0).random(128), np.empty((N_APPENDS, 128))
        pairs = [(appends(where / "a.hsq", record), bare(buffer, record)) for _ in range(9)]
        ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        difference = statistics.median(a - b for a, b in pairs)
        row("", *(f"{value * 1e6:.2f} µs" for value in (ours, theirs, difference)))


def appends(path, record: np.ndarray) -> float:
    """Seconds an append; writing full blocks is part of it, flushing to disk is not."""
    with hs.HyperSequenceWriter(path) as writer:
        started = time.perf_counter()
        for i in range(N_APPENDS):
            writer.append(record, i)
        return (time.perf_counter() - started) / N_APPENDS


def bare(buffer: np.ndarray, record: np.ndarray) -> float:
    started = time.perf_counter()
    for i in range(N_APPENDS):
        buffer[i] = record
    return (time.perf_counter() - started) / N_APPENDS


if __name__ == "__main__":
    main()

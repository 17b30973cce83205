"""Batches read hot: what a batch costs, and how near a gather comes to NumPy's own. `python -m benchmarks.reading`."""

from __future__ import annotations

import os
import statistics
import timeit
from pathlib import Path

import numpy as np

import hypersequence as hs

from .measure import RECORDS, aligned, folder, forget, interleaved, ratio, row

TOTAL_NBYTES = 400 << 20


def microseconds(statement, number: int = 5000) -> str:
    return f"{statistics.median(timeit.repeat(statement, number=number, repeat=9)) / number * 1e6:.2f} µs"


def bare_gather(seq: hs.HyperSequence, order: np.ndarray, size: int):
    """The same gather by hand: from the same mapping, into aligned buffers, places known beforehand."""
    columns, block_records = seq._source._columns, seq._source.stored.block_records
    buffers = [aligned((size, *column.shape), column.dtype) for column in columns]
    plans = []
    for start in range(0, len(order) // size * size, size):
        numbers = order[start : start + size]
        blocks = numbers // block_records
        plans.append(
            [
                numbers + blocks * column.gap
                if column.rows is not None
                else list(zip(blocks.tolist(), (numbers % block_records).tolist(), strict=True))
                for column in columns
            ]
        )

    def run() -> None:
        for plan in plans:
            for column, buffer, places in zip(columns, buffers, plan, strict=True):
                if column.rows is not None:
                    np.take(column.rows, places, axis=0, out=buffer, mode="clip")
                else:
                    for i, (block, record) in enumerate(places):
                        buffer[i] = column._blocks[block, record]

    return run


def main() -> None:
    with folder() as where:
        files = {name: write(where / f"{shape}.hsq", shape) for name, (shape, _) in RECORDS.items()}
        print("One contiguous batch, zero-copy (native 16), and through views\n")
        row("record", "seq[i]", "split+rebatch(8)", "shuffled")
        for name, path in files.items():
            contiguous(name, path)
        print("\nA scattered batch (records and labels, all shuffled) beside the same gather by hand\n")
        row("record", "batch", "µs a batch", "GB/s", "ratio to by hand")
        for name, path in files.items():
            scattered(name, path)
        os.sync()
        print("\nWhat verification adds to a sequential pass (each byte summed up by the reader)\n")
        row("record", "cold first pass", "hot later pass")
        for name, path in files.items():
            verification(name, path)


def scattered(name: str, path: Path) -> None:
    size = RECORDS[name][1]
    with hs.HyperSequenceFile(path) as seq:
        for _ in seq:
            pass
        order = np.random.default_rng(0).permutation(seq.n_records)
        ours = seq.select(order).rebatch(size, drop_last=True)

        def run() -> None:
            for _ in ours:
                pass

        seconds = interleaved(15, ours=run, by_hand=bare_gather(seq, order, size))
        each = statistics.median(seconds["ours"]) / len(ours)
        speed = size * seq.schema.record_nbytes / each / 1e9
        row(name, size, f"{each * 1e6:.1f}", f"{speed:.2f}", f"{ratio(seconds, 'by_hand', 'ours'):.3f}")


def contiguous(name: str, path: Path) -> None:
    with hs.HyperSequenceFile(path) as seq:
        for _ in seq:
            pass
        view, shuffled = seq.split(0.8)[0].rebatch(8), seq.shuffled(0, by="batch")
        statements = [lambda s=s: s[3] for s in (seq, view, shuffled)]
        assert all(not statement()[0].flags.writeable for statement in statements)
        row(name, *(microseconds(statement) for statement in statements))


def verification(name: str, path: Path) -> None:
    # No mapping of the file may be alive here: pages that are mapped cannot be dropped from the cache.
    def epoch(seq: hs.HyperSequence) -> None:
        for inputs, _ in seq:
            inputs.sum()

    def cold(verify: str):
        def run() -> None:
            forget(path)
            with hs.HyperSequenceFile(path, verify=verify) as seq:
                epoch(seq.rebatch(RECORDS[name][1]))

        return run

    seconds = interleaved(21, first=cold("first"), never=cold("never"))
    with hs.HyperSequenceFile(path) as checked, hs.HyperSequenceFile(path, verify="never") as unchecked:
        pair = [seq.rebatch(RECORDS[name][1]) for seq in (checked, unchecked)]
        hot = interleaved(9, first=lambda: epoch(pair[0]), never=lambda: epoch(pair[1]))
    medians = [[statistics.median(pairs[name]) for name in ("first", "never")] for pairs in (seconds, hot)]
    row(name, *(f"{first / never - 1:+.1%}" for first, never in medians))


def write(path: Path, shape: tuple[int, ...]) -> Path:
    n = TOTAL_NBYTES // (int(np.prod(shape)) * 4)
    values = np.random.default_rng(0).random((n, *shape), np.float32)
    with hs.HyperSequenceWriter(path, 16) as writer:
        writer.extend(values, np.arange(n))
    return path


if __name__ == "__main__":
    main()

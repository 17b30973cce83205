"""The same records in one file, in a few, in many: what a scattered batch costs. `python -m benchmarks.joined`."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

import numpy as np

import hypersequence as hs

from .measure import RECORDS, folder, interleaved, ratio, row
from .reading import bare_gather

#: 8 MiB a file where there are 200, so that all of them get large pages; smaller ones are slower in anybody's hands.
TOTAL_NBYTES = 1600 << 20
#: What a round reads of that.
ROUND_NBYTES = 100 << 20
N_FILES = (1, 20, 200)
ROUNDS = 15
#: 784 and 8,194 bytes divide no power of two: the addresses of their records have nothing in common.
SHAPES = {
    **{name: (shape, size, np.float32) for name, (shape, size) in RECORDS.items()},
    "784 B": ((28, 28), 256, np.uint8),
    "8,194 B": ((4097,), 128, np.uint16),
}
ORDER = ("64 B", "784 B", "1 KiB", "8,194 B", "16 KiB", "600 KiB")


def main() -> None:
    print("A scattered batch (records and labels, all shuffled); ratios to the gather by hand from one file\n")
    row("record", "batch", "µs, 1 file", *(f"{n} file{'s' * (n > 1)}" for n in N_FILES))
    with folder() as where:
        for name in ORDER:
            measure(name, where / "files")
            shutil.rmtree(where / "files")


def measure(name: str, where: Path) -> None:
    shape, size, dtype = SHAPES[name]
    sequences = {n: write(where / str(n), n, shape, dtype) for n in N_FILES}
    n_batches = ROUND_NBYTES // (size * sequences[1].schema.record_nbytes)
    order = np.random.default_rng(0).permutation(sequences[1].n_records)[: n_batches * size]
    for seq in sequences.values():
        for _ in seq:
            pass  # every checksum is checked
    batches = {n: seq.select(order).rebatch(size) for n, seq in sequences.items()}
    each = {str(n): lambda seq=seq: walk(seq) for n, seq in batches.items()}
    seconds = interleaved(ROUNDS, by_hand=bare_gather(sequences[1], order, size), **each)
    microseconds = statistics.median(seconds["1"]) / len(batches[1]) * 1e6
    row(name, size, f"{microseconds:.1f}", *(f"{ratio(seconds, 'by_hand', str(n)):.3f}" for n in N_FILES))
    for seq in sequences.values():
        seq.close()


def walk(seq: hs.HyperSequence) -> None:
    for _ in seq:
        pass


def write(where: Path, n_files: int, shape: tuple[int, ...], dtype: type) -> hs.HyperSequence:
    """The same number of records, in so many files."""
    where.mkdir(parents=True)
    n = TOTAL_NBYTES // (int(np.prod(shape)) * np.dtype(dtype).itemsize) // max(N_FILES)
    values = np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(dtype)
    for number in range(n_files):
        with hs.HyperSequenceWriter(where / f"{number:03}.hsq", 16) as writer:
            for part in range(max(N_FILES) // n_files):
                writer.extend(values, np.arange(n) + part)
    return hs.HyperSequenceFile(where / "000.hsq") if n_files == 1 else hs.open(where / "*.hsq")


if __name__ == "__main__":
    main()

"""Converting from other formats, beside reading the source with its own library and writing the bytes: time and memory.

``python -m benchmarks.converting [GiB]``: 1 GiB if nothing is said. Also how long ``hsq info`` takes from its start.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr

import hypersequence as hs

from .measure import folder, ratio, row

SHAPE = (64, 64)  # float32: records of 16 KiB, and a label
PIECE = 512  # records
ROUNDS = 5
PEAK = """
import sys
from pathlib import Path
import hypersequence as hs
import h5py, numpy, pyarrow.parquet, zarr

def kib(what):
    return int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])

hs.convert, hs.formats()
before = kib("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
hs.convert(sys.argv[1:-1], sys.argv[-1], overwrite=True)
print((kib("VmHWM") - before) / 1024)
"""


def pieces(n_records: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    images = random.random((PIECE, *SHAPE), np.float32)
    for start in range(0, n_records, PIECE):
        images += 1
        yield images, np.arange(start, start + PIECE)


def write_sources(where: Path, n: int) -> dict[str, list[Path]]:
    """The same records in every format, as its own library writes them."""
    names = ["image.npy", "label.npy"]
    arrays = [np.lib.format.open_memmap(where / names[0], "w+", np.float32, (n, *SHAPE)), np.empty(n, np.int64)]
    group = zarr.open_group(where / "a.zarr", mode="w")
    with h5py.File(where / "a.h5", "w") as file:
        stored = [file.create_dataset("image", (n, *SHAPE), "f4"), file.create_dataset("label", (n,), "i8")]
        chunked = [
            group.create_array("image", shape=(n, *SHAPE), chunks=(PIECE, *SHAPE), dtype="f4", compressors=None),
            group.create_array("label", shape=(n,), chunks=(n,), dtype="i8", compressors=None),
        ]
        schema = pa.schema({"image": pa.list_(pa.float32(), SHAPE[0] * SHAPE[1]), "label": pa.int64()})
        with pq.ParquetWriter(where / "a.parquet", schema, compression="none", use_dictionary=False) as table:
            for number, (images, labels) in enumerate(pieces(n)):
                at = slice(number * PIECE, (number + 1) * PIECE)
                for target in (arrays, stored, chunked):
                    target[0][at], target[1][at] = images, labels
                flat = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), SHAPE[0] * SHAPE[1])
                table.write_table(pa.table([flat, pa.array(labels)], schema=schema))
    arrays[0].flush()
    np.save(where / names[1], arrays[1])
    sources = {"npy": [where / name for name in names]}
    sources |= {"hdf5": [where / "a.h5"], "zarr": [where / "a.zarr"], "parquet": [where / "a.parquet"]}
    return sources


def read_npy(paths: list[Path]) -> None:
    for path in paths:
        array = np.load(path, mmap_mode="r")
        for start in range(0, len(array), PIECE):
            np.array(array[start : start + PIECE])


def read_hdf5(paths: list[Path]) -> None:
    with h5py.File(paths[0]) as file:
        read_slices(file)


def read_zarr(paths: list[Path]) -> None:
    read_slices(zarr.open_group(paths[0], mode="r"))


def read_slices(group: object) -> None:
    for start in range(0, group["image"].shape[0], PIECE):  # type: ignore[index]
        group["image"][start : start + PIECE]  # type: ignore[index]
    group["label"][:]  # type: ignore[index]


def read_parquet(paths: list[Path]) -> None:
    for batch in pq.ParquetFile(paths[0]).iter_batches(PIECE):
        batch["image"].values.to_numpy()  # a view


def write_raw(out: Path, nbytes: int) -> None:
    piece = memoryview(bytearray(1 << 20))
    with out.open("wb", buffering=0) as file:
        for _ in range(nbytes >> 20):
            file.write(piece)
        os.fsync(file.fileno())
    out.unlink()


def timed(functions: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(ROUNDS + 1):
        names = list(functions)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            os.sync()  # or whoever comes next pays for what this one wrote
            started = time.perf_counter()
            functions[name]()
            if number:
                seconds[name].append(time.perf_counter() - started)
    return seconds


def main() -> None:
    nbytes = int(float(sys.argv[1] if len(sys.argv) > 1 else 1) * (1 << 30))
    n = nbytes // (4 * SHAPE[0] * SHAPE[1]) // PIECE * PIECE
    readers = {"npy": read_npy, "hdf5": read_hdf5, "zarr": read_zarr, "parquet": read_parquet}
    with folder() as where:
        sources, out = write_sources(where, n), where / "out.hsq"
        row("from", "convert", "read, then write", "of that", "peak memory")
        for name, paths in sources.items():
            functions: dict[str, Callable[[], object]] = {
                "ours": partial(hs.convert, paths, out, overwrite=True),
                "read": partial(readers[name], paths),
                "write": partial(write_raw, where / "raw", nbytes),
            }
            seconds = timed(functions)
            seconds["both"] = [a + b for a, b in zip(seconds["read"], seconds["write"], strict=True)]
            command = [sys.executable, "-c", PEAK, *map(str, paths), str(out)]
            peak = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            rates = [f"{nbytes / statistics.median(seconds[each]) / 1e9:.2f} GB/s" for each in ("ours", "both")]
            row(name, *rates, f"{ratio(seconds, 'both', 'ours'):.2f}", f"+{peak:.0f} MiB")
        row("")
        row("", "median", "slowest")
        for what, command in {
            "hsq info": ["-m", "hypersequence", "info", str(out)],
            "import numpy": ["-c", "import numpy"],
        }.items():
            times = []
            for _ in range(9):
                started = time.perf_counter()
                subprocess.run([sys.executable, *command], capture_output=True, check=True)
                times.append(time.perf_counter() - started)
            row(what, f"{statistics.median(times):.3f} s", f"{max(times):.3f} s")


if __name__ == "__main__":
    main()

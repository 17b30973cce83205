"""Opening files of many blocks, first batch included. `python -m benchmarks.opening`."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import xxhash

import hypersequence as hs
from hypersequence import layout

from .measure import folder, row

PROBE = """
import sys, time
from pathlib import Path
import numpy as np, hypersequence as hs

def kib(what):
    return int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])

hs.HyperSequenceFile  # modules are imported when they are asked for
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
before = kib("VmRSS")
started = time.perf_counter()
with hs.HyperSequenceFile(sys.argv[1]) as seq:
    seq[0]
seconds = time.perf_counter() - started
print(seconds, (kib("VmHWM") - before) / 1024)
"""


def write_sparse(path: Path, n_blocks: int) -> None:
    """A whole, valid file whose records are all zero and take no space on disk."""
    schema = hs.Schema(hs.Field("float32", (256,)), "int64")
    sizes = [column.field.nbytes for column in schema.columns]
    geometry = layout.plan_geometry(sizes, 16, 4 << 20)
    header = layout.encode_header(schema, 16, geometry.block_records, geometry.stride, bytes(16), 0)
    chunks = []
    for nbytes, offset in zip(sizes, geometry.offsets, strict=True):
        run = layout.run_records(nbytes) * nbytes
        total = nbytes * geometry.block_records
        sums = [
            xxhash.xxh3_64_intdigest(bytes(min(run, total - at))).to_bytes(8, "little") for at in range(0, total, run)
        ]
        chunks.append(layout.Chunk(offset, total, run, b"".join(sums)))
    end = max(chunk.offset + chunk.nbytes for chunk in chunks)
    digest, index = layout.ContentDigest(layout.parse_header(header, "").schema_json), []
    for number in range(n_blocks):
        first = number * geometry.block_records
        offset = len(header) + number * geometry.stride
        frame = layout.Frame(number, offset, first, geometry.block_records, end, geometry.frame_nbytes, tuple(chunks))
        digest.add(frame)
        index.append(layout.encode_frame(frame, bytes(16)))
    n_records = n_blocks * geometry.block_records
    index_offset = layout.align(len(header) + (n_blocks - 1) * geometry.stride + end)
    entries = b"".join(index)
    footer, footer_crc = layout.encode_footer({})
    trailer = layout.Trailer(
        n_records=n_records,
        n_blocks=n_blocks,
        index_offset=index_offset,
        index_nbytes=len(entries),
        footer_offset=index_offset + len(entries),
        footer_nbytes=len(footer),
        footer_crc=footer_crc,
        file_nbytes=index_offset + len(entries) + len(footer) + layout.TRAILER_NBYTES,
        file_id=bytes(16),
        digest=digest.finish(n_records),
        header_crc=int.from_bytes(header[-4:], "little"),
    )
    with path.open("wb") as file:
        file.write(header)
        file.seek(index_offset)
        file.write(entries + footer + layout.encode_trailer(trailer))


def main() -> None:
    row("blocks", "size", "open, first batch", "the same, again", "peak memory")
    with folder() as where:
        for n_blocks in (1, 100, 10_000, 100_000):
            path = where / f"{n_blocks}.hsq"
            write_sparse(path, n_blocks)
            probes = [
                tuple(map(float, subprocess.check_output([sys.executable, "-c", PROBE, str(path)], text=True).split()))
                for _ in range(7)
            ]
            first, memory = (statistics.median(column) for column in zip(*probes, strict=True))
            again = []
            for _ in range(50):
                started = time.perf_counter()
                with hs.HyperSequenceFile(path) as seq:
                    assert not np.any(seq[0][1])
                again.append(time.perf_counter() - started)
            size = f"{path.stat().st_size / 1e9:,.1f} GB"
            again_ms = f"{statistics.median(again) * 1e3:.2f} ms"
            row(f"{n_blocks:,}", size, f"{first * 1e3:.2f} ms", again_ms, f"+{memory:.1f} MiB")


if __name__ == "__main__":
    main()

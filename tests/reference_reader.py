"""A second reader of ``.hsq`` version 3, written from SPEC.md and from nothing else.

It shares no line with the package, reads whole files into memory, and checks every sum there is. Tests compare what it
finds with what the package finds.
"""

import itertools
import json
import re
import struct
import zlib
from math import prod
from pathlib import Path

import ml_dtypes
import numpy as np
import xxhash

ROLES = ("inputs", "outputs", "sample_weights")
PLAIN = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128)")
SMALL = re.compile(r"bfloat16|float8_(e3m4|e4m3|e4m3b11fnuz|e4m3fn|e4m3fnuz|e5m2|e5m2fnuz|e8m0fnu)")
TIME = re.compile(r"(datetime|timedelta)64(\[([1-9]\d{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])")


def need(condition, what):
    if not condition:
        raise ValueError(what)


def element_type(name):
    if PLAIN.fullmatch(name):
        return np.dtype(name).newbyteorder("<")
    if SMALL.fullmatch(name):
        return np.dtype(getattr(ml_dtypes, name))
    if time := TIME.fullmatch(name):
        return np.dtype(f"<{'M' if time[1] == 'datetime' else 'm'}8{time[2]}")
    need(re.fullmatch(r"[SU](0|[1-9]\d*)", name), f"element type {name!r} is not on the list")
    return np.dtype(f"<{name}")


def unique(pairs):
    need(len(dict(pairs)) == len(pairs), "a JSON key stands twice")
    json.dumps(pairs, allow_nan=False)  # refuses what was too large for a double and became an infinity
    return dict(pairs)


def read_header(data):
    need(data[:8] == b"\x89HSQ\r\n\x1a\n" and len(data) >= 4096, "no .hsq file")
    version, _, nbytes, required, _, file_id, created, batch, block, stride, n_schema, reserved = struct.unpack_from(
        "<HHIQQ16sqQQQII", data, 8
    )
    need(version == 3, "a version that is not known")
    need(nbytes % 4096 == 0 and 88 + n_schema + 4 <= nbytes <= min(len(data), 16 << 20), "header length")
    (crc,) = struct.unpack_from("<I", data, nbytes - 4)
    need(crc == zlib.crc32(data[: nbytes - 4]), "header CRC")
    need(required == 0 and reserved == 0, "a feature that is not known")
    need(batch >= 1 and block >= 1 and block % batch == 0 and stride % 64 == 0, "geometry")
    return nbytes, file_id, created, batch, block, stride, crc, data[88 : 88 + n_schema]


def read_frame(data, file_id, record_nbytes):
    """Numbers of a frame, its chunks as ``(offset, run length, checksums)``, and the bytes of its checksums."""
    need(data[:8] == b"HSQBLOCK" and data[8:24] == file_id, "no frame of this file")
    number, offset, first, n_records, nbytes, length, n_chunks, flags, reserved = struct.unpack_from("<5Q4I", data, 24)
    need(length % 64 == 0 and 84 + 48 * n_chunks <= length <= len(data), "frame length")
    need(struct.unpack_from("<I", data, length - 4)[0] == zlib.crc32(data[: length - 4]), "frame CRC")
    need(n_chunks == len(record_nbytes) and flags == 0 and reserved == 0, "frame fields")
    rows = [struct.unpack_from("<I4B4Q2I", data, 80 + 48 * c) for c in range(n_chunks)]
    total = sum(row[9] for row in rows)
    sums_at = 80 + 48 * n_chunks
    need(sums_at + 8 * total + 4 <= length, "checksums pass the frame")
    sums = struct.unpack_from(f"<{total}Q", data, sums_at)
    chunks, seen, parts = [], 0, [(0, length)]
    for c, (column, role, encoding, codec, spare, at, stored, raw, run, n_runs, first_run) in enumerate(rows):
        need((column, role, encoding, codec, spare) == (c, 0, 0, 0, 0), "chunk kind")
        need(stored == raw == n_records * record_nbytes[c] and at % 64 == 0, "chunk place")
        if stored:
            need(run > 0 and run % record_nbytes[c] == 0 and n_runs == -(-stored // run), "checksum runs")
            parts.append((at, at + stored))
        else:
            need(run == n_runs == 0, "an empty chunk has no runs")
        need(first_run == seen, "first run")
        chunks.append((at, run, sums[seen : seen + n_runs]))
        seen += n_runs
    parts.sort()
    need(all(a[1] <= b[0] for a, b in itertools.pairwise(parts)), "chunks overlap")
    need(parts[-1][1] <= nbytes, "a chunk passes its block")
    return (number, offset, first, n_records), nbytes, length, chunks, data[sums_at : sums_at + 8 * total]


def read_footer(footer, crc):
    (n_sections,) = struct.unpack_from("<I", footer)
    end = 4 + 32 * n_sections
    need(n_sections <= 256 and end <= len(footer) and crc == zlib.crc32(footer[:end]), "footer directory")
    sections = {}
    for i in range(n_sections):
        tag, at, nbytes, section_crc, _ = struct.unpack_from("<8sQQII", footer, 4 + 32 * i)
        need(at == end and tag not in sections and zlib.crc32(footer[at : at + nbytes]) == section_crc, "section")
        sections[tag] = footer[at : at + nbytes]
        end = at + nbytes
    need(end == len(footer), "footer length")
    return json.loads(sections.get(b"usermeta", b"{}"), object_pairs_hook=unique)


def read(path):
    """Everything in a file: ``schema``, ``n_records``, ``batch_size``, ``user_meta``, ``columns`` (arrays in order)."""
    data = Path(path).read_bytes()
    header_nbytes, file_id, created_ns, batch_size, block_records, stride, header_crc, schema_bytes = read_header(data)
    schema = json.loads(schema_bytes, object_pairs_hook=unique)
    fields = [(element_type(f["type"]), f["shape"]) for r in ROLES if r in schema for f in schema[r]["fields"]]
    record_nbytes = [prod(shape) * dtype.itemsize for dtype, shape in fields]
    need(block_records * sum(record_nbytes) < stride, "stride")
    end = struct.unpack("<6Q4xIQ16s16sI16xI8s", data[-128:])
    n_records, n_blocks, index_at, index_nbytes, footer_at, footer_nbytes, footer_crc, file_nbytes, *ids = end[:-2]
    need(end[-1] == b"HSQ3END\n" and end[-2] == zlib.crc32(data[-128:-12]) and file_nbytes == len(data), "trailer")
    need((ids[0], ids[2]) == (file_id, header_crc), "header and trailer differ")
    need(index_at + index_nbytes == footer_at and footer_at + footer_nbytes + 128 == len(data), "places")
    index = data[index_at:footer_at]
    need(n_blocks == -(-n_records // block_records), "number of blocks")
    content = xxhash.xxh3_128(schema_bytes)
    parts = [[np.ndarray((0, *shape), dtype)] for dtype, shape in fields]
    block_end, places, alike, entry_at, first = header_nbytes, None, None, 0, 0
    for block in range(n_blocks):
        start = header_nbytes + block * stride
        count = min(block_records, n_records - first)
        found, nbytes, length, chunks, sums = read_frame(index[entry_at:], file_id, record_nbytes)
        need(found == (block, start, first, count) and start >= block_end, "an entry describes another block")
        need(data[start : start + length] == index[entry_at : entry_at + length], "the two copies of a frame differ")
        alike, places = alike or (length, nbytes), places or [(at, run) for at, run, _ in chunks]
        need(alike == (length, nbytes) or block == n_blocks - 1, "lengths differ")
        need(places == [(at, run) for at, run, _ in chunks], "places differ")
        for (at, run, checksums), (dtype, shape), n, arrays in zip(chunks, fields, record_nbytes, parts, strict=True):
            values = data[start + at : start + at + n * count]
            for i, checksum in enumerate(checksums):
                need(xxhash.xxh3_64_intdigest(values[i * run : (i + 1) * run]) == checksum, "checksum of a run")
            arrays.append(np.ndarray((count, *shape), dtype, values if n else None))
        content.update(sums)
        block_end, entry_at, first = start + nbytes, entry_at + length, first + count
    need(entry_at == index_nbytes and index_at == (block_end + 63) // 64 * 64, "the index is not behind the blocks")
    content.update(struct.pack("<Q", n_records))
    need(content.digest() == ids[1], "content digest")
    return {
        "schema": schema,
        "n_records": n_records,
        "batch_size": batch_size,
        "created_ns": created_ns,
        "user_meta": read_footer(data[footer_at : footer_at + footer_nbytes], footer_crc),
        "columns": [np.concatenate(arrays) for arrays in parts],
    }

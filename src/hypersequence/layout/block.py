"""Frames: what stands at the head of every block, and once more in the index."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from .checks import MAX_U63, align, crc32, fail

BLOCK_MAGIC = b"HSQBLOCK"
CHECKSUM_RUN_NBYTES = 256 << 10
ROLE_VALUES = 0
ENCODING_FIXED = 0
CODEC_RAW = 0
_HEAD = struct.Struct("<8s16sQQQQQIIII")  # magic, file id, number, offset, first record, records, nbytes, ...
_CHUNK = struct.Struct("<IBBBBQQQQII")
_CRC = struct.Struct("<I")
MAX_FRAME_NBYTES = 16 << 20
MAX_RUN_NBYTES = 1 << 41


@dataclass(frozen=True, slots=True)
class Chunk:
    """One column's part of a block. ``checksums`` holds a little-endian 64-bit number a run."""

    offset: int
    nbytes: int
    run_nbytes: int
    checksums: bytes


@dataclass(frozen=True, slots=True)
class Frame:
    """A block's description of itself."""

    number: int
    offset: int
    first_record: int
    n_records: int
    nbytes: int
    frame_nbytes: int
    chunks: tuple[Chunk, ...]


def frame_content_nbytes(n_chunks: int, n_runs: int) -> int:
    """Bytes of a frame up to its padding."""
    return _HEAD.size + n_chunks * _CHUNK.size + 8 * n_runs


def frame_nbytes(n_chunks: int, n_runs: int) -> int:
    """Bytes of a frame, a multiple of 64."""
    return align(frame_content_nbytes(n_chunks, n_runs) + _CRC.size)


#: So many bytes of a frame say which block it is of, and how long it is itself.
FRAME_HEAD_NBYTES = _HEAD.size


def claimed_nbytes(data: bytes) -> int:
    """The length that a frame gives itself, unchecked; 0 if it is cut off before that."""
    return int(_HEAD.unpack_from(data)[7]) if len(data) >= _HEAD.size else 0


def claimed_number(data: bytes | memoryview) -> int:
    """The block that a frame says it describes, unchecked; -1 if it does not look like a frame."""
    whole = len(data) >= _HEAD.size and data[: len(BLOCK_MAGIC)] == BLOCK_MAGIC
    return int(_HEAD.unpack_from(data)[2]) if whole else -1


def begins_index(data: bytes, file_id: bytes) -> bool:
    """Whether bytes, perhaps cut off by the end of a file, look like the index of a file with blocks."""
    expected = BLOCK_MAGIC + file_id + bytes(8)  # its first frame is that of block 0
    return bool(data) and data[: len(expected)] == expected[: len(data)]


def begins_footer(data: bytes, left: int) -> bool:
    """Whether bytes behind a header look like a footer of at most one section, and not like the records of a block.

    Args:
        data: The first 32 bytes, fewer where the file ends.
        left: Bytes from there to the end of the file.
    """
    n_sections = int.from_bytes(data[:4], "little")
    tag = data[4:12]
    return left < 4 or (n_sections == 0 and left <= 4 + 128) or (n_sections == 1 and b"usermeta"[: len(tag)] == tag)


def encode_frame(frame: Frame, file_id: bytes) -> bytes:
    """The bytes of a frame, CRC included."""
    head = _HEAD.pack(
        BLOCK_MAGIC,
        file_id,
        frame.number,
        frame.offset,
        frame.first_record,
        frame.n_records,
        frame.nbytes,
        frame.frame_nbytes,
        len(frame.chunks),
        0,
        0,
    )
    rows: list[bytes] = []
    n_runs = 0
    for column, chunk in enumerate(frame.chunks):
        runs = len(chunk.checksums) // 8
        kinds = (column, ROLE_VALUES, ENCODING_FIXED, CODEC_RAW, 0)
        rows.append(_CHUNK.pack(*kinds, chunk.offset, chunk.nbytes, chunk.nbytes, chunk.run_nbytes, runs, n_runs))
        n_runs += runs
    body = head + b"".join(rows) + b"".join(chunk.checksums for chunk in frame.chunks)
    body += bytes(frame.frame_nbytes - len(body) - _CRC.size)
    return body + _CRC.pack(crc32(body))


def parse_frame(data: bytes | memoryview, path: str, file_id: bytes, record_nbytes: Sequence[int], block: int) -> Frame:
    """A frame from bytes that begin with one.

    Args:
        data: At least the frame.
        path: For messages.
        file_id: The id that the header gives; frames of other files are refused.
        record_nbytes: Bytes a record, a number a column.
        block: The block that it should be of, for messages; whether it is, is not looked at.

    Raises:
        FormatError: A rule B1 to B9 is broken.
    """
    where = f"block {block}"
    if len(data) < _HEAD.size:
        fail(path, "B1", f"{where}: its frame is cut off after {len(data)} bytes")
    magic, found_id, number, offset, first, n_records, nbytes, length, n_chunks, flags, spare = _HEAD.unpack_from(data)
    if magic != BLOCK_MAGIC:
        fail(path, "B1", f"{where}: no frame where it should be (found {magic!r})")
    if not _HEAD.size + _CRC.size <= length <= min(len(data), MAX_FRAME_NBYTES) or length % 64:
        fail(path, "B2", f"{where}: its frame claims {length} bytes of {len(data)}")
    if _CRC.unpack_from(data, length - _CRC.size)[0] != crc32(data[: length - _CRC.size]):
        fail(path, "B3", f"{where}: its frame is damaged (CRC-32 differs)")
    if found_id != file_id:
        fail(path, "B4", f"{where}: its frame belongs to another file")
    if flags or spare:
        fail(path, "B5", f"{where}: unknown frame flags {flags:#x}", unsupported=True)
    if n_chunks != len(record_nbytes):
        fail(path, "B6", f"{where}: {n_chunks} chunks where the schema has {len(record_nbytes)} columns")
    rows_end = _HEAD.size + n_chunks * _CHUNK.size
    if rows_end + _CRC.size > length:
        fail(path, "B2", f"{where}: its {n_chunks} chunk rows do not fit its frame of {length} bytes")
    if max(offset + nbytes, first + n_records) > MAX_U63:
        fail(path, "B7", f"{where}: its offset or counts overflow")
    chunks: list[Chunk] = []
    spans: list[tuple[int, int]] = []
    n_runs = 0
    for column, record in enumerate(record_nbytes):
        row = _CHUNK.unpack_from(data, _HEAD.size + column * _CHUNK.size)
        at, stored, run, runs, first_run = _check_chunk(
            row, path, f"{where}, column {column}", column, record, n_records
        )
        start = rows_end + 8 * n_runs
        if first_run != n_runs or start + 8 * runs + _CRC.size > length:
            fail(path, "B9", f"{where}, column {column}: its checksums lie outside the frame")
        chunks.append(Chunk(at, stored, run, bytes(data[start : start + 8 * runs])))
        n_runs += runs
        if stored:
            spans.append((at, at + stored))
    end = length
    for low, high in sorted(spans):
        if low < end or high > nbytes:
            fail(path, "B8", f"{where}: a chunk overlaps another part or passes the end of the block")
        end = high
    return Frame(number, offset, first, n_records, nbytes, length, tuple(chunks))


def _check_chunk(
    row: tuple[int, ...], path: str, where: str, column: int, record_nbytes: int, n_records: int
) -> tuple[int, int, int, int, int]:
    """Offset, length, run length, number of runs and first run of a chunk row that keeps the rules."""
    number, role, encoding, codec, spare, offset, stored, raw, run, n_runs, first_run = row
    expected = record_nbytes * n_records
    if number != column:
        fail(path, "B6", f"{where}: its row is for column {number}")
    for what, value, known in (
        ("role", role, ROLE_VALUES),
        ("encoding", encoding, ENCODING_FIXED),
        ("codec", codec, CODEC_RAW),
        ("flags", spare, 0),
    ):
        if value != known:
            fail(path, "B5", f"{where}: chunk {what} {value} is not known to this release", unsupported=True)
    if stored != expected or raw != expected:
        fail(path, "B7", f"{where}: {stored} bytes ({raw} raw) where its records take {expected}")
    if offset % 64:
        fail(path, "B8", f"{where}: its chunk starts at {offset}, which is not a multiple of 64")
    whole = 0 < run <= MAX_RUN_NBYTES and run % record_nbytes == 0 if stored else run == 0
    if not whole or n_runs != (-(-stored // run) if stored else 0):
        fail(path, "B9", f"{where}: {n_runs} checksum runs of {run} bytes do not cover {stored} bytes")
    return offset, stored, run, n_runs, first_run


def check_place(frame: Frame, path: str, expected: tuple[int, int, int, int]) -> None:
    """Refuse a frame that does not describe the block that the file's geometry says.

    Args:
        frame: The frame.
        path: For messages.
        expected: Block number, absolute offset, first record, records.

    Raises:
        FormatError: Rule I2.
    """
    found = (frame.number, frame.offset, frame.first_record, frame.n_records)
    if found != expected:
        names = ("number", "offset", "first record", "records")
        differs = ", ".join(
            f"{name} {have} instead of {want}"
            for name, have, want in zip(names, found, expected, strict=True)
            if have != want
        )
        fail(path, "I2", f"the frame for block {expected[0]} describes another block: {differs}")


def check_same_places(frame: Frame, path: str, first: Frame) -> None:
    """Refuse a frame whose columns lie elsewhere than those of block 0.

    Raises:
        FormatError: Rule I3.
    """
    places = [(chunk.offset, chunk.run_nbytes) for chunk in frame.chunks]
    if places != [(chunk.offset, chunk.run_nbytes) for chunk in first.chunks]:
        fail(path, "I3", f"block {frame.number} places its columns differently from block 0")

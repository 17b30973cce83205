"""Collecting records into blocks, and the bytes of a file from its header to its trailer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xxhash

from ..errors import ArgumentError
from ..layout import (
    TRAILER_NBYTES,
    Chunk,
    ContentDigest,
    Frame,
    Geometry,
    Header,
    Trailer,
    align,
    block_geometry,
    encode_footer,
    encode_frame,
    encode_header,
    encode_trailer,
    frame_nbytes,
    parse_header,
    plan_geometry,
    run_records,
)
from ..schema import Array, Schema
from .partfile import PartFile

_ALIGNMENT = 4096
_CLEARED_NBYTES = 1 << 20


class BlockBuffer:
    """Memory for one block, laid out as in the file, with an array a column to write records into."""

    def __init__(self, schema: Schema, geometry: Geometry) -> None:
        self.geometry = geometry
        try:
            raw = np.zeros(geometry.stride + _ALIGNMENT, np.uint8)
        except (MemoryError, ValueError):
            raise _too_large(geometry) from None
        start = -raw.__array_interface__["data"][0] % _ALIGNMENT
        self._bytes = raw[start : start + geometry.stride]
        try:
            self.columns = [
                np.ndarray((geometry.block_records, *c.field.shape), c.field.dtype, self._bytes, offset)
                if c.field.nbytes
                else np.ndarray((geometry.block_records, *c.field.shape), c.field.dtype)
                for c, offset in zip(schema.columns, geometry.offsets, strict=True)
            ]
        except ValueError:  # records of no bytes, and more of them than NumPy has numbers for
            raise _too_large(geometry) from None

    def chunk(self, number: int, n_records: int) -> Array:
        """The bytes of a column's first records."""
        nbytes = n_records * self._record_nbytes(number)
        offset = self.geometry.offsets[number]
        return self._bytes[offset : offset + nbytes]

    def _record_nbytes(self, number: int) -> int:
        return self.columns[number].nbytes // self.geometry.block_records

    def clear_behind(self, n_records: int) -> None:
        """Zero what lies between the records of a short block."""
        for number, column in enumerate(self.columns):
            start = self.geometry.offsets[number] + n_records * self._record_nbytes(number)
            end = self.geometry.offsets[number] + column.nbytes
            for at in range(start, end, _CLEARED_NBYTES):
                piece = self._bytes[at : min(at + _CLEARED_NBYTES, end)]
                if piece.any():  # memory that nobody has used yet takes no room until it is written to
                    piece[:] = 0
        self._bytes[: min(self.geometry.offsets, default=0)] = 0

    def image(self, head: bytes, nbytes: int) -> memoryview:
        """The block with its frame in front."""
        self._bytes[: len(head)] = np.frombuffer(head, np.uint8)
        image: Any = self._bytes
        return memoryview(image)[:nbytes]


class _Known(NamedTuple):
    """How many records and blocks there are, where the last block ends, and their digest."""

    n_records: int
    n_blocks: int
    end: int
    digest: ContentDigest


class Ending:
    """What stands behind the blocks: index, footer and trailer. It is told of every block in turn."""

    def __init__(self, header: Header) -> None:
        self._header = header
        self._index: list[bytes] = []
        #: What is known of the blocks so far. It changes in one step, or Ctrl-C would leave half a change behind.
        self.known = _Known(0, 0, header.nbytes, ContentDigest(header.schema_json))

    def add(self, frame: Frame, head: bytes) -> None:
        """The next block, and the bytes of its frame."""
        known, digest = self.known, self.known.digest.copy()
        digest.add(frame)
        self._index[known.n_blocks :] = [head]
        n_records, end = known.n_records + frame.n_records, frame.offset + frame.nbytes
        self.known = _Known(n_records, known.n_blocks + 1, end, digest)

    def write(self, part: PartFile, user_meta: Mapping[str, Any]) -> None:
        """Write it; can be done again if it failed."""
        known = self.known
        part.go_back(known.end)
        part.write(bytes(align(part.nbytes) - part.nbytes))
        index_offset, index = part.nbytes, b"".join(self._index[: known.n_blocks])
        footer, footer_crc = encode_footer(user_meta)
        part.write(index)
        part.write(footer)
        trailer = Trailer(
            n_records=known.n_records,
            n_blocks=known.n_blocks,
            index_offset=index_offset,
            index_nbytes=len(index),
            footer_offset=index_offset + len(index),
            footer_nbytes=len(footer),
            footer_crc=footer_crc,
            file_nbytes=part.nbytes + TRAILER_NBYTES,
            file_id=self._header.file_id,
            digest=known.digest.finish(known.n_records),
            header_crc=self._header.crc,
        )
        part.write(encode_trailer(trailer))


class FileBuilder:
    """Writes a file's blocks in their order.

    Args:
        part: The file, which holds the header at least.
        header: Its header.
        ending: What is known of blocks that are there already.
    """

    def __init__(self, part: PartFile, header: Header, ending: Ending) -> None:
        self._part, self._header, self.ending = part, header, ending
        self._record_nbytes = [column.field.nbytes for column in header.schema.columns]
        geometry = block_geometry(self._record_nbytes, header.block_records)
        self.buffer = BlockBuffer(header.schema, geometry)
        self._short: bytes | None = None  # the frame of a block that stands in the file, but is not full
        self._n_short = 0  # its records

    @property
    def n_written(self) -> int:
        """Records of full blocks, and of a last one that is not full once it was written."""
        return self.ending.known.n_records

    @property
    def n_safe(self) -> int:
        """Records that are in the file, those of a short block too."""
        return self.n_written + self._n_short

    def keep_short(self, head: bytes, n_records: int) -> None:
        """A short block more stands in the file, under this frame; its records are in the buffer."""
        self._short, self._n_short = head, n_records

    def write_full_block(self) -> None:
        """Write the buffer, all rows of it."""
        self._add(self.buffer, self.buffer.geometry.block_records)

    def write_short_block(self, n_records: int) -> None:
        """Write the first rows of the buffer as a block that may become longer."""
        self.buffer.clear_behind(n_records)
        _, head = self._write(self.buffer, n_records)
        self.keep_short(head, n_records)

    def write_last_block(self, n_records: int) -> None:
        """Write the first rows of the buffer as the file's last, short block, behind which nothing comes."""
        if not n_records:
            return
        buffer = self.buffer
        if self.ending.known.n_blocks or self._short is not None:
            buffer.clear_behind(n_records)
        else:  # the only block: nothing has to lie where other blocks have it
            buffer = BlockBuffer(self._header.schema, block_geometry(self._record_nbytes, n_records))
            for target, column in zip(buffer.columns, self.buffer.columns, strict=True):
                if target.itemsize:  # NumPy would go through values of no bytes one by one
                    target[:] = column[:n_records]
        self._add(buffer, n_records)

    def _add(self, buffer: BlockBuffer, n_records: int) -> None:
        frame, head = self._write(buffer, n_records)
        self.ending.add(frame, head)
        self._short, self._n_short = None, 0

    def _frame(self, buffer: BlockBuffer, n_records: int) -> Frame:
        chunks = [self._chunk(buffer, number, n_records) for number in range(len(self._record_nbytes))]
        n_runs = sum(len(chunk.checksums) // 8 for chunk in chunks)
        length = frame_nbytes(len(chunks), n_runs)
        end = max([length, *(chunk.offset + chunk.nbytes for chunk in chunks if chunk.nbytes)])
        number = self.ending.known.n_blocks
        return Frame(number, self._place(number), self.n_written, n_records, end, length, tuple(chunks))

    def _chunk(self, buffer: BlockBuffer, number: int, n_records: int) -> Chunk:
        data = buffer.chunk(number, n_records)
        step = run_records(self._record_nbytes[number]) * self._record_nbytes[number]
        checksums = b"".join(_checksum(data[start : start + step]) for start in range(0, len(data), step or 1))
        return Chunk(buffer.geometry.offsets[number], len(data), step if len(data) else 0, checksums)

    def _place(self, number: int) -> int:
        return self._header.nbytes + number * self._header.stride

    def _write(self, buffer: BlockBuffer, n_records: int) -> tuple[Frame, bytes]:
        frame = self._frame(buffer, n_records)
        head = encode_frame(frame, self._header.file_id)
        image = buffer.image(head, frame.nbytes)
        if self._short is not None:
            self._write_over(frame, image, self._short)
        else:
            # Padding belongs to the block that comes: behind the last one there is none.
            self._part.go_back(self.ending.known.end)
            self._part.write(bytes(frame.offset - self._part.nbytes))
            self._part.write(image)
        return frame, head

    def _write_over(self, frame: Frame, image: memoryview, short: bytes) -> None:
        """Write a block over itself with fewer records: those are in the file already, and stay whatever happens.

        They keep their places, so only the frame has to change in one instant. A copy of the old one stands where the
        next block will begin until the new one is on disk.
        """
        part, data = self._part, self.buffer.geometry.frame_nbytes
        part.write_over(short, self._place(frame.number + 1))
        part.write_over(image[data:], frame.offset + data)
        part.flush()
        part.write_over(image[:data], frame.offset)
        part.flush()
        part.go_back(frame.offset + frame.nbytes)


def plan_header(
    schema: Schema, batch_size: int, block_nbytes: int, file_id: bytes, created_ns: int
) -> tuple[Header, bytes]:
    """The header of a new file, and its bytes."""
    geometry = plan_geometry([column.field.nbytes for column in schema.columns], batch_size, block_nbytes)
    if max(geometry.stride, geometry.block_records) >= 1 << 63:
        raise _too_large(geometry)
    sizes = batch_size, geometry.block_records, geometry.stride
    data = encode_header(schema, *sizes, file_id, created_ns)
    return parse_header(data, "a new file"), data


def _too_large(geometry: Geometry) -> ArgumentError:
    return ArgumentError(
        f"a writer holds one block in memory, and one of {geometry.block_records} records takes {geometry.stride} "
        "bytes; choose a smaller batch_size"
    )


def begin_file(part: PartFile, header: Header, data: bytes) -> FileBuilder:
    """Write a header, whose bytes these are, and have a builder for what comes behind it."""
    builder = FileBuilder(part, header, Ending(header))
    part.go_back(0)
    part.write(data)
    return builder


def _checksum(data: Any) -> bytes:
    hasher = xxhash.xxh3_64()
    hasher.update(data)
    return hasher.intdigest().to_bytes(8, "little")

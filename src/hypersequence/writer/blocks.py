"""Collecting records into blocks, and the bytes of a file from its first block to its trailer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from ..errors import ArgumentError
from ..layout import (
    TRAILER_NBYTES,
    Chunk,
    ContentDigest,
    Frame,
    Geometry,
    Trailer,
    align,
    compact_geometry,
    encode_footer,
    encode_frame,
    encode_header,
    encode_trailer,
    frame_nbytes,
    plan_geometry,
    run_records,
)
from ..schema import Array, Schema
from .partfile import PartFile

_ALIGNMENT = 4096


class BlockBuffer:
    """Memory for one block, laid out as in the file, with an array a column to write records into."""

    def __init__(self, schema: Schema, geometry: Geometry) -> None:
        self.geometry = geometry
        try:
            raw = np.zeros(geometry.stride + _ALIGNMENT, np.uint8)
        except (MemoryError, ValueError):
            raise ArgumentError(
                f"a writer holds one block in memory, and one of {geometry.block_records} records takes "
                f"{geometry.stride} bytes; choose a smaller batch_size"
            ) from None
        start = -raw.__array_interface__["data"][0] % _ALIGNMENT
        self._bytes = raw[start : start + geometry.stride]
        self.columns = [
            np.ndarray((geometry.block_records, *c.field.shape), c.field.dtype, self._bytes, offset)
            if c.field.nbytes
            else np.ndarray((geometry.block_records, *c.field.shape), c.field.dtype)
            for c, offset in zip(schema.columns, geometry.offsets, strict=True)
        ]

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
            self._bytes[start : self.geometry.offsets[number] + column.nbytes] = 0
        self._bytes[: min(self.geometry.offsets, default=0)] = 0

    def image(self, head: bytes, nbytes: int) -> memoryview:
        """The block with its frame in front."""
        self._bytes[: len(head)] = np.frombuffer(head, np.uint8)
        image: Any = self._bytes
        return memoryview(image)[:nbytes]


class FileBuilder:
    """Writes a file's parts in their order."""

    def __init__(
        self, part: PartFile, schema: Schema, batch_size: int, block_nbytes: int, file_id: bytes, created_ns: int
    ) -> None:
        self._part = part
        self._schema = schema
        self._file_id = file_id
        self._record_nbytes = [column.field.nbytes for column in schema.columns]
        geometry = plan_geometry(self._record_nbytes, batch_size, block_nbytes)
        self.buffer = BlockBuffer(schema, geometry)
        header = encode_header(schema, batch_size, geometry.block_records, geometry.stride, file_id, created_ns)
        self._header_crc = int.from_bytes(header[-4:], "little")
        self._digest = ContentDigest(schema)
        self._index: list[bytes] = []
        self.n_written = 0
        self._part.go_back(0)
        self._part.write(header)
        self._first_block = self._end = len(header)

    def write_full_block(self) -> None:
        """Write the buffer, all rows of it."""
        self._write(self.buffer, self.buffer.geometry.block_records)

    def write_last_block(self, n_records: int) -> None:
        """Write the first rows of the buffer as the file's last, short block."""
        if not n_records:
            return
        buffer = self.buffer
        if self._index:
            buffer.clear_behind(n_records)
        else:  # the only block: nothing has to lie where other blocks have it
            buffer = BlockBuffer(self._schema, compact_geometry(self._record_nbytes, n_records))
            for target, column in zip(buffer.columns, self.buffer.columns, strict=True):
                target[:] = column[:n_records]
        self._write(buffer, n_records)

    def _frame(self, buffer: BlockBuffer, n_records: int) -> Frame:
        chunks = [self._chunk(buffer, number, n_records) for number in range(len(self._record_nbytes))]
        n_runs = sum(len(chunk.checksums) // 8 for chunk in chunks)
        length = frame_nbytes(len(chunks), n_runs)
        end = max([length, *(chunk.offset + chunk.nbytes for chunk in chunks if chunk.nbytes)])
        return Frame(len(self._index), self._part.nbytes, self.n_written, n_records, end, length, tuple(chunks))

    def _chunk(self, buffer: BlockBuffer, number: int, n_records: int) -> Chunk:
        data = buffer.chunk(number, n_records)
        step = run_records(self._record_nbytes[number]) * self._record_nbytes[number]
        checksums = b"".join(_checksum(data[start : start + step]) for start in range(0, len(data), step or 1))
        return Chunk(buffer.geometry.offsets[number], len(data), step if len(data) else 0, checksums)

    def _write(self, buffer: BlockBuffer, n_records: int) -> None:
        # Padding belongs to the block that comes: behind the last one there is none.
        self._part.go_back(self._end)
        start = self._first_block + len(self._index) * self.buffer.geometry.stride
        self._part.write(bytes(start - self._part.nbytes))
        frame = self._frame(buffer, n_records)
        head = encode_frame(frame, self._file_id)
        self._part.write(buffer.image(head, frame.nbytes))
        self._end = self._part.nbytes
        self._index.append(head)
        self._digest.add(frame)
        self.n_written += frame.n_records

    def finish(self, user_meta: Mapping[str, Any]) -> None:
        """Write index, footer and trailer; can be done again if it failed."""
        self._part.go_back(self._end)
        self._part.write(bytes(align(self._part.nbytes) - self._part.nbytes))
        index_offset, index = self._part.nbytes, b"".join(self._index)
        footer, footer_crc = encode_footer(user_meta)
        self._part.write(index)
        self._part.write(footer)
        trailer = Trailer(
            n_records=self.n_written,
            n_blocks=len(self._index),
            index_offset=index_offset,
            index_nbytes=len(index),
            footer_offset=index_offset + len(index),
            footer_nbytes=len(footer),
            footer_crc=footer_crc,
            file_nbytes=self._part.nbytes + TRAILER_NBYTES,
            file_id=self._file_id,
            digest=self._digest.finish(self.n_written),
            header_crc=self._header_crc,
        )
        self._part.write(encode_trailer(trailer))


def _checksum(data: Any) -> bytes:
    hasher = xxhash.xxh3_64()
    hasher.update(data)
    return hasher.intdigest().to_bytes(8, "little")

"""A whole file, from the reads of a caller to one validated description."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from ..errors import FormatError
from ..stored import Read, StoredFile
from .block import MAX_FRAME_NBYTES, Frame, check_place, check_same_places, claimed_nbytes, parse_frame
from .checks import align, fail
from .header import HEADER_PAGE_NBYTES, Header, header_nbytes, parse_header
from .tail import (
    MAX_META_NBYTES,
    SECTION_META,
    TAIL_READ_NBYTES,
    TRAILER_NBYTES,
    Section,
    Trailer,
    parse_footer,
    parse_meta,
    parse_trailer,
)

_FOOTER_READ_NBYTES = 16 << 10
_FRAME_READ_NBYTES = 16 << 10


@dataclass(frozen=True, slots=True)
class Parts:
    """Header, trailer, footer sections and index of a file, and the frame of its first block, if there is one."""

    header: Header
    trailer: Trailer
    sections: dict[bytes, Section]
    index: Index
    first: Frame | None


def open_parts(read: Read, file_nbytes: int, path: str) -> Parts:
    """Validate the metadata of a version 3 file.

    Two reads open most files: the first page, and the last 64 KiB. Frames between the first and the last are checked
    when their block is first touched, so that opening costs the same for a hundred blocks and for a million.

    Args:
        read: Gives bytes of the file.
        file_nbytes: The file's length.
        path: For messages.

    Raises:
        FormatError: A rule of SPEC.md is broken.
    """
    first_page = read(0, HEADER_PAGE_NBYTES)
    rest = header_nbytes(first_page, path) - len(first_page)
    header = parse_header(first_page + (read(len(first_page), rest) if rest else b""), path)
    tail_offset, tail = _read_tail(read, file_nbytes)
    trailer = parse_trailer(tail[-TRAILER_NBYTES:], path, file_nbytes, header)

    def near_end(offset: int, nbytes: int) -> bytes:
        return tail[offset - tail_offset :][:nbytes] if offset >= tail_offset else read(offset, nbytes)

    footer = near_end(trailer.footer_offset, min(trailer.footer_nbytes, _FOOTER_READ_NBYTES))
    sections = parse_footer(footer, path, trailer)
    index = Index(path, header, trailer)
    first = index.entry(near_end, 0, None)[0] if trailer.n_blocks else None
    if first is not None:
        index.check_ends(first, index.entry(near_end, trailer.n_blocks - 1, first)[0])
    return Parts(header, trailer, sections, index, first)


def _read_tail(read: Read, file_nbytes: int) -> tuple[int, bytes]:
    """What is at the end of a file, and from where on."""
    offset = max(0, file_nbytes - TAIL_READ_NBYTES)
    try:
        return offset, read(offset, file_nbytes - offset)
    except (OSError, FormatError):  # a bad sector among the last records concerns those alone
        offset = max(0, file_nbytes - TRAILER_NBYTES)
        return offset, read(offset, file_nbytes - offset)


def describe_file(read: Read, file_nbytes: int, path: str) -> StoredFile:
    """What a reader must know of a version 3 file; raises as :func:`open_parts`."""
    parts = open_parts(read, file_nbytes, path)
    header, trailer, first = parts.header, parts.trailer, parts.first
    columns = header.schema.columns
    return StoredFile(
        version="3",
        schema=header.schema,
        n_records=trailer.n_records,
        batch_size=header.batch_size,
        block_records=header.block_records,
        n_blocks=trailer.n_blocks,
        first_block=header.nbytes,
        stride=header.stride,
        column_offsets=tuple(chunk.offset for chunk in first.chunks) if first else (0,) * len(columns),
        stored_dtypes=tuple(column.field.dtype for column in columns),
        file_id=header.file_id,
        created_ns=header.created_ns,
        digest=trailer.digest,
        read_meta=partial(read_meta, path, parts.sections.get(SECTION_META)),
        run_records=_run_records(first, parts.index.record_nbytes),
        read_checksums=partial(parts.index.checksums, first) if first else None,
    )


def read_meta(path: str, section: Section | None, read: Read) -> dict[str, Any]:
    """The user metadata of a footer section, if there is one; raises the error of rule F3."""
    if section is None:
        return {}
    # A section over the limit is refused by its length; it is not read to find that out.
    return parse_meta(read(section.offset, min(section.nbytes, MAX_META_NBYTES)), path, section)


def _run_records(first: Frame | None, record_nbytes: list[int]) -> tuple[int, ...]:
    if first is None:
        return (1,) * len(record_nbytes)
    return tuple(
        chunk.run_nbytes // nbytes if chunk.run_nbytes else max(1, first.n_records)
        for chunk, nbytes in zip(first.chunks, record_nbytes, strict=True)
    )


class Index:
    """Which bytes of the index describe which block, and what they must say."""

    def __init__(self, path: str, header: Header, trailer: Trailer) -> None:
        self.path = path
        self.header = header
        self.trailer = trailer
        self.record_nbytes = [column.field.nbytes for column in header.schema.columns]

    def entry(self, read: Read, block: int, first: Frame | None) -> tuple[Frame, bytes]:
        """The frame of a block as the index has it, and its bytes.

        Args:
            read: Gives bytes of the file.
            block: Its number.
            first: The frame of block 0, unless that is asked for.

        Raises:
            FormatError: A rule of frames, or I1 to I3, is broken.
        """
        header, trailer = self.header, self.trailer
        entry = first.frame_nbytes if first else trailer.index_nbytes
        start = block * entry
        last = block == trailer.n_blocks - 1
        nbytes = trailer.index_nbytes - start if last else entry
        if nbytes <= 0 or start + nbytes > trailer.index_nbytes:
            fail(self.path, "I1", f"the index of {trailer.index_nbytes} bytes has no entry for block {block}")
        # Frames at either end may have any length, which only they can tell; the others are as long as the first.
        known = nbytes if first and not last else min(nbytes, _FRAME_READ_NBYTES)
        data = read(trailer.index_offset + start, known)
        if (first is None or last) and len(data) < (claimed := min(claimed_nbytes(data), nbytes, MAX_FRAME_NBYTES)):
            data = read(trailer.index_offset + start, claimed)
        n_records = trailer.n_records - block * header.block_records if last else header.block_records
        expected = (block, header.nbytes + block * header.stride, block * header.block_records, n_records)
        frame = parse_frame(data, self.path, header.file_id, self.record_nbytes, block)
        check_place(frame, self.path, expected)
        if first is not None:
            check_same_places(frame, self.path, first)
            if not last and (frame.frame_nbytes, frame.nbytes) != (entry, first.nbytes):
                fail(self.path, "I1", f"index entry {block} has another length, or its block has, than the first")
        return frame, data[: frame.frame_nbytes]

    def check_ends(self, first: Frame, last: Frame) -> None:
        """The index is as long as its entries, the blocks end where it begins."""
        n_blocks, header, trailer = self.trailer.n_blocks, self.header, self.trailer
        if (n_blocks - 1) * first.frame_nbytes + last.frame_nbytes != trailer.index_nbytes:
            fail(self.path, "I1", f"the index of {trailer.index_nbytes} bytes does not hold {n_blocks} entries")
        if n_blocks > 1 and first.nbytes > header.stride:
            fail(self.path, "I4", f"blocks of {first.nbytes} bytes overlap at a stride of {header.stride}")
        if align(last.offset + last.nbytes) != trailer.index_offset:
            fail(
                self.path, "I4", f"the last block ends at {last.offset + last.nbytes}, the index is not right behind it"
            )

    def checksums(self, first: Frame, read: Read, block: int) -> tuple[bytes, ...]:
        """The checksums of a block's runs, for each column."""
        frame = first if block == 0 else self.entry(read, block, first)[0]
        return tuple(chunk.checksums for chunk in frame.chunks)

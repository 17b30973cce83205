"""The end of a file: footer sections and the trailer that says where everything is."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from .. import strictjson
from ..errors import FormatError
from .checks import MAX_U63, crc32, decode_json, fail
from .header import Header

TRAILER_NBYTES = 128
TAIL_READ_NBYTES = 64 << 10
MAX_META_NBYTES = 64 << 20
MAX_SECTIONS = 256
SECTION_META = b"usermeta"
_END_MAGIC = b"HSQ3END\n"
_TRAILER = struct.Struct("<QQQQQQ4sIQ16s16sI16sI8s")
_CRC = struct.Struct("<I")
_N_SECTIONS = struct.Struct("<I")
_SECTION = struct.Struct("<8sQQII")


@dataclass(frozen=True, slots=True)
class Trailer:
    """The fixed-size end of a file."""

    n_records: int
    n_blocks: int
    index_offset: int
    index_nbytes: int
    footer_offset: int
    footer_nbytes: int
    footer_crc: int
    file_nbytes: int
    file_id: bytes
    digest: bytes
    header_crc: int


@dataclass(frozen=True, slots=True)
class Section:
    """A tagged part of the footer; ``offset`` is absolute."""

    offset: int
    nbytes: int
    crc: int


def encode_trailer(trailer: Trailer) -> bytes:
    """The last 128 bytes of a file."""
    t = trailer
    fields = (t.n_records, t.n_blocks, t.index_offset, t.index_nbytes, t.footer_offset, t.footer_nbytes)
    sums = (bytes(4), t.footer_crc, t.file_nbytes, t.file_id, t.digest, t.header_crc)
    unsigned = _TRAILER.pack(*fields, *sums, bytes(16), 0, _END_MAGIC)
    crc = crc32(unsigned[: TRAILER_NBYTES - 12])
    return _TRAILER.pack(*fields, *sums, bytes(16), crc, _END_MAGIC)


def parse_trailer(data: bytes, path: str, file_nbytes: int, header: Header) -> Trailer:
    """The trailer from the last 128 bytes of a file.

    Raises:
        FormatError: Rules T1 to T7.
    """
    if len(data) != TRAILER_NBYTES or data[-8:] != _END_MAGIC:
        fail(
            path,
            "T1",
            "the end of the file is missing: it was cut off, something was appended to it, or its writer never "
            "closed it; copy or download it again",
        )
    # Reserved bytes may be given a meaning that older readers can do without.
    fields = _TRAILER.unpack(data)
    trailer, crc = Trailer(*fields[:6], *fields[7:12]), fields[13]
    if crc != crc32(data[: TRAILER_NBYTES - 12]):
        fail(path, "T2", "the trailer is damaged (CRC-32 differs)")
    if trailer.file_nbytes != file_nbytes:
        fail(
            path, "T3", f"has {file_nbytes} bytes, but its trailer says {trailer.file_nbytes}: parts were lost or added"
        )
    if trailer.file_id != header.file_id or trailer.header_crc != header.crc:
        fail(path, "T4", "its header and its end belong to different files")
    n, blocks = trailer.n_records, trailer.n_blocks
    if blocks != -(-n // header.block_records):
        fail(path, "T5", f"{n} records in {blocks} blocks of {header.block_records} do not agree")
    if n * max(column.field.extent for column in header.schema.columns) > MAX_U63:
        fail(path, "T5", f"{n} records of this schema are more than can be addressed")
    footer_end = trailer.footer_offset + trailer.footer_nbytes
    index_end = trailer.index_offset + trailer.index_nbytes
    if index_end != trailer.footer_offset or footer_end + TRAILER_NBYTES != file_nbytes:
        fail(path, "T6", "index, footer and trailer do not follow each other to the end of the file")
    blocks_end = header.nbytes + max(0, blocks - 1) * header.stride
    if trailer.index_offset < blocks_end or trailer.index_offset % 64:
        fail(path, "T7", f"the index at {trailer.index_offset} lies inside the blocks")
    if bool(blocks) != bool(trailer.index_nbytes) or (not blocks and trailer.index_offset != header.nbytes):
        fail(path, "T7", f"an index of {trailer.index_nbytes} bytes for {blocks} blocks")
    return trailer


def encode_footer(user_meta: Mapping[str, Any]) -> tuple[bytes, int]:
    """The footer and the CRC of its directory."""
    sections = [(SECTION_META, strictjson.encode(user_meta))] if user_meta else []
    directory_nbytes = _N_SECTIONS.size + len(sections) * _SECTION.size
    rows: list[bytes] = []
    at = directory_nbytes
    for tag, content in sections:
        rows.append(_SECTION.pack(tag, at, len(content), crc32(content), 0))
        at += len(content)
    directory = _N_SECTIONS.pack(len(sections)) + b"".join(rows)
    return directory + b"".join(content for _, content in sections), crc32(directory)


def parse_footer(data: bytes, path: str, trailer: Trailer) -> dict[bytes, Section]:
    """The sections of a footer by tag.

    Args:
        data: The beginning of the footer: all of it, or at least its directory (9 KiB hold the longest).
        path: For messages.
        trailer: The file's trailer.

    Raises:
        FormatError: Rules F1 and F2.
    """
    nbytes = trailer.footer_nbytes
    n_sections = _N_SECTIONS.unpack_from(data)[0] if len(data) >= _N_SECTIONS.size else MAX_SECTIONS + 1
    directory_nbytes = _N_SECTIONS.size + n_sections * _SECTION.size
    if n_sections > MAX_SECTIONS or directory_nbytes > min(nbytes, len(data)):
        fail(path, "F1", f"the footer's directory does not fit its {nbytes} bytes")
    if crc32(data[:directory_nbytes]) != trailer.footer_crc:
        fail(path, "F1", "the footer's directory is damaged (CRC-32 differs)")
    sections: dict[bytes, Section] = {}
    end = directory_nbytes
    for i in range(n_sections):
        tag, at, length, crc, _ = _SECTION.unpack_from(data, _N_SECTIONS.size + i * _SECTION.size)
        if at != end or at + length > nbytes or tag in sections:
            fail(path, "F2", f"footer section {tag!r} overlaps another, lies outside, or is there twice")
        end = at + length
        sections[tag] = Section(trailer.footer_offset + at, length, crc)
    if end != nbytes:
        fail(path, "F2", f"{nbytes - end} bytes of the footer belong to no section")
    return sections


def find_meta(data: bytes, path: str) -> dict[str, Any]:
    """User metadata from a footer whose trailer is lost, so that only its sections' own CRCs say that it is one.

    Args:
        data: What stands where the footer should be, to the end of the file; it may be cut off, or something else.
        path: For messages.

    Returns:
        The metadata; empty if there are no sound ones.
    """
    n_sections = _N_SECTIONS.unpack_from(data)[0] if len(data) >= _N_SECTIONS.size else 0
    for i in range(min(n_sections, MAX_SECTIONS, (len(data) - _N_SECTIONS.size) // _SECTION.size)):
        tag, at, length, crc, _ = _SECTION.unpack_from(data, _N_SECTIONS.size + i * _SECTION.size)
        if tag == SECTION_META:
            with suppress(FormatError):
                return parse_meta(data[at : at + length], path, Section(at, length, crc))
            break  # there can be one
    return {}


def parse_meta(data: bytes, path: str, section: Section) -> dict[str, Any]:
    """User metadata from the bytes of their section.

    Raises:
        FormatError: Rule F3.
    """
    if section.nbytes > MAX_META_NBYTES:
        fail(path, "F3", f"{section.nbytes} bytes of user metadata are over the limit of {MAX_META_NBYTES}")
    if len(data) != section.nbytes or crc32(data) != section.crc:
        fail(path, "F3", "the user metadata are damaged (CRC-32 differs)")
    meta = decode_json(data, path, "F3", "user metadata")
    if not isinstance(meta, dict):
        fail(path, "F3", "the user metadata are no JSON object")
    return cast("dict[str, Any]", meta)

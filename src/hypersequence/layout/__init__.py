"""Every on-disk constant of ``.hsq`` version 3: bytes to plain, validated values and back.

No file is opened here and nothing is cached: functions take bytes and give values, or take values and give bytes.
SPEC.md describes the same structures for readers in other languages; tests hold the two together.
"""

from .block import CHECKSUM_RUN_NBYTES, Chunk, Frame, encode_frame, frame_nbytes, parse_frame, parse_index_frame
from .checks import align
from .digest import ContentDigest
from .file import describe_file
from .geometry import (
    DEFAULT_BLOCK_NBYTES,
    JOIN_LIMIT_NBYTES,
    Geometry,
    compact_geometry,
    plan_geometry,
    run_records,
)
from .header import HEADER_PAGE_NBYTES, MAGIC, MAX_HEADER_NBYTES, VERSION, Header, encode_header, parse_header
from .tail import (
    MAX_META_NBYTES,
    TAIL_READ_NBYTES,
    TRAILER_NBYTES,
    Section,
    Trailer,
    encode_footer,
    encode_trailer,
    parse_footer,
    parse_meta,
    parse_trailer,
)

__all__ = [
    "CHECKSUM_RUN_NBYTES",
    "DEFAULT_BLOCK_NBYTES",
    "HEADER_PAGE_NBYTES",
    "JOIN_LIMIT_NBYTES",
    "MAGIC",
    "MAX_HEADER_NBYTES",
    "MAX_META_NBYTES",
    "TAIL_READ_NBYTES",
    "TRAILER_NBYTES",
    "VERSION",
    "Chunk",
    "ContentDigest",
    "Frame",
    "Geometry",
    "Header",
    "Section",
    "Trailer",
    "align",
    "compact_geometry",
    "describe_file",
    "encode_footer",
    "encode_frame",
    "encode_header",
    "encode_trailer",
    "frame_nbytes",
    "parse_footer",
    "parse_frame",
    "parse_header",
    "parse_index_frame",
    "parse_meta",
    "parse_trailer",
    "plan_geometry",
    "run_records",
]

"""Every on-disk constant of ``.hsq`` version 3: bytes to plain, validated values and back.

No file is opened here and nothing is cached: functions take bytes and give values, or take values and give bytes.
SPEC.md describes the same structures for readers in other languages; tests hold the two together.
"""

from .block import (
    CHECKSUM_RUN_NBYTES,
    Chunk,
    Frame,
    claimed_number,
    encode_frame,
    frame_nbytes,
    parse_frame,
)
from .checks import align
from .digest import ContentDigest
from .file import Parts, describe_file, open_parts, read_meta
from .geometry import (
    DEFAULT_BLOCK_NBYTES,
    JOIN_LIMIT_NBYTES,
    Geometry,
    block_geometry,
    plan_geometry,
    run_records,
)
from .header import (
    HEADER_PAGE_NBYTES,
    MAGIC,
    MAX_HEADER_NBYTES,
    VERSION,
    Header,
    encode_header,
    header_nbytes,
    header_padding,
    parse_header,
)
from .tail import (
    MAX_META_NBYTES,
    SECTION_META,
    TAIL_READ_NBYTES,
    TRAILER_NBYTES,
    Section,
    Trailer,
    encode_footer,
    encode_trailer,
    find_meta,
    parse_footer,
    parse_meta,
    parse_trailer,
)
from .walk import UNREADABLE, BlockWalk, ReadPiece, Run, RunCheck, checksum_error, guarded, placed

__all__ = [
    "CHECKSUM_RUN_NBYTES",
    "DEFAULT_BLOCK_NBYTES",
    "HEADER_PAGE_NBYTES",
    "JOIN_LIMIT_NBYTES",
    "MAGIC",
    "MAX_HEADER_NBYTES",
    "MAX_META_NBYTES",
    "SECTION_META",
    "TAIL_READ_NBYTES",
    "TRAILER_NBYTES",
    "UNREADABLE",
    "VERSION",
    "BlockWalk",
    "Chunk",
    "ContentDigest",
    "Frame",
    "Geometry",
    "Header",
    "Parts",
    "ReadPiece",
    "Run",
    "RunCheck",
    "Section",
    "Trailer",
    "align",
    "block_geometry",
    "checksum_error",
    "claimed_number",
    "describe_file",
    "encode_footer",
    "encode_frame",
    "encode_header",
    "encode_trailer",
    "find_meta",
    "frame_nbytes",
    "guarded",
    "header_nbytes",
    "header_padding",
    "open_parts",
    "parse_footer",
    "parse_frame",
    "parse_header",
    "parse_meta",
    "parse_trailer",
    "placed",
    "plan_geometry",
    "read_meta",
    "run_records",
]

"""The digest of a file's content: equal for equal schema, records and blocks, whatever the file's id and date."""

from __future__ import annotations

import struct

import xxhash

from .block import Frame


class ContentDigest:
    """XXH3-128 over the schema's JSON, every chunk's checksums block by block, and the number of records.

    Args:
        schema_json: The schema as it stands in the header.
    """

    def __init__(self, schema_json: bytes) -> None:
        self._hasher = xxhash.xxh3_128(schema_json)

    def copy(self) -> ContentDigest:
        """Another one of the same blocks."""
        other = ContentDigest.__new__(ContentDigest)
        other._hasher = self._hasher.copy()
        return other

    def add(self, frame: Frame) -> None:
        """The next block."""
        for chunk in frame.chunks:
            self._hasher.update(chunk.checksums)

    def finish(self, n_records: int) -> bytes:
        """The 16 bytes of the digest, if there come no more blocks."""
        hasher = self._hasher.copy()
        hasher.update(struct.pack("<Q", n_records))
        return hasher.digest()

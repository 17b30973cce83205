"""What a reader must know of a file, whatever version wrote it: the common ground of ``layout`` and ``legacy``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from .schema import Schema

#: Reads ``nbytes`` at ``offset``; fewer only where the file ends.
Read: TypeAlias = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A validated description of where records lie.

    Record ``row`` of block ``block`` of column ``c`` begins at
    ``first_block + block * stride + column_offsets[c] + row * column nbytes``. All blocks have ``block_records``
    records but the last, which may have fewer. ``stored_dtypes`` differ from the schema's in byte order alone.
    ``run_records`` is ``None`` where the file has no checksums, and so is ``read_checksums``.
    """

    version: str
    schema: Schema
    n_records: int
    batch_size: int
    block_records: int
    n_blocks: int
    first_block: int
    stride: int
    column_offsets: tuple[int, ...]
    stored_dtypes: tuple[np.dtype[Any], ...]
    file_id: bytes
    created_ns: int | None
    digest: bytes
    read_meta: Callable[[Read], dict[str, Any]]
    run_records: tuple[int, ...] | None = None
    read_checksums: Callable[[Read, int], tuple[bytes, ...]] | None = None

"""What a file says of itself, and where its bytes are; no record is read for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..layout import MAGIC, SECTION_META, TRAILER_NBYTES, open_parts, read_meta
from ..legacy import describe_legacy_file, looks_legacy
from ..schema import Column, Schema
from ..source.handle import FileHandle
from ..stored import StoredFile
from ..terminal import safe
from .readable import plain, short_names
from .tables import TextTable, as_html, as_text

#: The marker before the metadata of hypersequence 0.9, and what stands behind those of 0.10, are as long.
_LEGACY_END_NBYTES = 8
_LONGEST_META = 200
_PARTS = {
    "header": "header, with the schema",
    "frames": "block frames, with checksums",
    "records": "records",
    "padding": "padding",
    "index": "index, the frames again",
    "footer": "footer",
    "user_meta": "user metadata",
    "trailer": "trailer",
}


@dataclass(frozen=True, slots=True)
class Description:
    """What a file says of itself; what :func:`describe` gives.

    ``print`` shows it as tables, a notebook as well. Immutable.

    Attributes:
        path: The file's absolute path.
        nbytes: Its length.
        version: ``"3"``, or ``"0.10"`` or ``"0.9"`` for files of older packages.
        schema: Fields, types and shapes of its records.
        n_records: Its records.
        batch_size: Records of a native batch.
        n_blocks: Its blocks.
        block_records: Records of a full block.
        created_ns: When it was written, in nanoseconds since 1970-01-01 UTC; ``None`` for older versions.
        file_id: Its random name, as 32 hexadecimal digits; ``None`` for older versions.
        digest: What tells its content from that of others, as 32 hexadecimal digits: made of schema, counts and
            checksums of all records; of older versions, of the metadata and both ends of the data.
        has_checksums: Whether records are checked when they are read.
        user_meta: The user metadata.
        space: Where its bytes are: ``header``, ``frames``, ``records``, ``padding``, ``index``, ``footer``,
            ``user_meta`` and ``trailer``, whose sum is ``nbytes``.
    """

    path: str
    nbytes: int
    version: str
    schema: Schema
    n_records: int
    batch_size: int
    n_blocks: int
    block_records: int
    created_ns: int | None
    file_id: str | None
    digest: str
    has_checksums: bool
    user_meta: dict[str, Any]
    space: dict[str, int]

    @property
    def n_batches(self) -> int:
        """Batches of the native size, a short last one included."""
        return -(-self.n_records // self.batch_size)

    @property
    def created(self) -> str | None:
        """When it was written, as ISO 8601 has it, in UTC; ``None`` if that is not known."""
        if self.created_ns is None or self.created_ns == np.iinfo(np.int64).min:
            return None
        return f"{np.datetime64(self.created_ns, 'ns').astype('M8[us]')}Z"

    @property
    def padding_share(self) -> float:
        """The share of the file that is padding between records."""
        return self.space["padding"] / self.nbytes

    def field_nbytes(self, column: Column) -> int:
        """Bytes that the records of one field take, of those in ``space["records"]``."""
        return self.n_records * column.field.nbytes

    def lines(self) -> list[str]:
        """What is told in a line each."""
        made = f"written {self.created[:19].replace('T', ' ')} UTC" if self.created else "time of writing not known"
        blocks = f"{self.n_blocks:,} {'block' if self.n_blocks == 1 else 'blocks'}"
        if self.n_blocks > 1:
            blocks += f" of {self.block_records:,} records"
        return [
            safe(self.path),
            f"  {self.n_records:,} records in {self.n_batches:,} batches of {self.batch_size:,}, in {blocks}",
            f"  {self.nbytes:,} bytes, version {self.version}, {made}, "
            + ("with checksums" if self.has_checksums else "without checksums"),
            "  " + (f"file id {self.file_id}, " if self.file_id else "") + f"digest {self.digest}",
        ]

    def tables(self) -> list[TextTable]:
        """Fields, where the bytes are, and user metadata."""
        names = short_names(self.schema.columns)
        fields = [
            (safe(name), column.role, column.field.type_name, _shape(column), f"{column.field.nbytes:,}")
            for name, column in zip(names, self.schema.columns, strict=True)
        ]
        header = ("field", "role", "type", "shape", "bytes a record")
        tables = [TextTable("fields", header, tuple(fields), frozenset(range(4)))]
        header = ("part", "bytes", "share")
        tables.append(TextTable("where the bytes are", header, tuple(self._space_rows(names)), frozenset({0})))
        if self.user_meta:
            rows = tuple((safe(name, _LONGEST_META), _meta_text(value)) for name, value in self.user_meta.items())
            header = ("user metadata", "value")
            tables.append(TextTable("", header, rows, frozenset({0, 1})))
        return tables

    def _space_rows(self, names: list[str]) -> list[tuple[str, str, str]]:
        sizes: list[tuple[str, int]] = []
        for part, title in _PARTS.items():
            if part == "records":
                fields = zip(names, self.schema.columns, strict=True)
                sizes += [(f"records: {safe(name)}", self.field_nbytes(column)) for name, column in fields]
            elif self.space[part]:
                sizes.append((title, self.space[part]))
        sizes.append(("the file", self.nbytes))
        return [(title, f"{nbytes:,}", f"{nbytes / self.nbytes:.2%}") for title, nbytes in sizes]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON has it; NaN, which files of 0.9 and 0.10 may have in their metadata, as text."""
        names = ("path", "nbytes", "version", "n_records", "batch_size", "n_batches", "n_blocks", "block_records")
        more = ("created", "file_id", "digest", "has_checksums")
        fields = [
            {
                "field": name,
                "role": column.role,
                "type": column.field.type_name,
                "shape": list(column.field.shape),
                "record_nbytes": column.field.nbytes,
                "nbytes": self.field_nbytes(column),
            }
            for name, column in zip(short_names(self.schema.columns), self.schema.columns, strict=True)
        ]
        return {
            **{name: getattr(self, name) for name in (*names, *more)},
            "fields": fields,
            "space": self.space,
            "padding_share": self.padding_share,
            "user_meta": plain(self.user_meta),
        }

    def __str__(self) -> str:
        return as_text(self.lines(), self.tables())

    def _repr_html_(self) -> str:
        return as_html(self.lines(), self.tables())


def _shape(column: Column) -> str:
    return str(column.field.shape) if column.field.shape else "scalar"


def _meta_text(value: Any) -> str:
    return safe(value if isinstance(value, str) else str(value), _LONGEST_META)


def describe(path: str | os.PathLike[str]) -> Description:
    """What a file says of itself: schema, counts, metadata, and where its bytes are.

    Takes milliseconds, whatever the size: the two ends of the file are read, and no record.

    Args:
        path: The file, of any version.

    Returns:
        A :class:`Description`; ``print`` it.

    Raises:
        OSError: There is no such file, or it cannot be read.
        FormatError: It is no ``.hsq`` file, or its metadata are damaged.

    Thread-safe: it only reads.

    >>> found = describe(example_path)
    >>> found.n_records, found.schema.inputs, found.has_checksums
    (100, Field('float32', (4, 4)), True)
    >>> sum(found.space.values()) == found.nbytes == example_path.stat().st_size
    True
    """
    handle = FileHandle(str(Path(path).absolute()))
    try:
        if handle.read(0, len(MAGIC)) != MAGIC and looks_legacy(handle.read, handle.nbytes):
            return _describe_legacy(handle)
        return _describe(handle)
    finally:
        handle.close()


def _describe(handle: FileHandle) -> Description:
    parts = open_parts(handle.read, handle.nbytes, handle.path)
    header, trailer = parts.header, parts.trailer
    meta = parts.sections.get(SECTION_META)
    meta_nbytes = meta.nbytes if meta else 0
    n_frames = trailer.index_nbytes  # the index is all frames once more, and rule I1 says that it is nothing else
    records = trailer.n_records * header.schema.record_nbytes
    space = {
        "header": header.nbytes,
        "frames": n_frames,
        "records": records,
        "padding": trailer.index_offset - header.nbytes - n_frames - records,
        "index": trailer.index_nbytes,
        "footer": trailer.footer_nbytes - meta_nbytes,
        "user_meta": meta_nbytes,
        "trailer": TRAILER_NBYTES,
    }
    return Description(
        path=handle.path,
        nbytes=handle.nbytes,
        version="3",
        schema=header.schema,
        n_records=trailer.n_records,
        batch_size=header.batch_size,
        n_blocks=trailer.n_blocks,
        block_records=header.block_records,
        created_ns=header.created_ns,
        file_id=header.file_id.hex(),
        digest=trailer.digest.hex(),
        has_checksums=True,
        user_meta=read_meta(handle.path, meta, handle.read),
        space=space,
    )


def _describe_legacy(handle: FileHandle) -> Description:
    stored: StoredFile = describe_legacy_file(handle.read, handle.nbytes, handle.path)
    records = stored.n_records * stored.schema.record_nbytes
    space = dict.fromkeys(_PARTS, 0)
    space |= {"records": records, "trailer": _LEGACY_END_NBYTES}
    space["footer"] = handle.nbytes - records - _LEGACY_END_NBYTES
    return Description(
        path=handle.path,
        nbytes=handle.nbytes,
        version=stored.version,
        schema=stored.schema,
        n_records=stored.n_records,
        batch_size=stored.batch_size,
        n_blocks=stored.n_blocks,
        block_records=stored.block_records,
        created_ns=None,
        file_id=None,
        digest=stored.digest.hex(),
        has_checksums=False,
        user_meta=stored.read_meta(handle.read),
        space=space,
    )

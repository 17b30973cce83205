"""Arrow's IPC files, which Feather's are too, and streams."""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import SourceError
from ..arrays import explained
from ..base import Export, Format, Options, as_stored, require
from ..columns import ROWS_NBYTES, Rows, RowsJob
from ..folders import ends_in, files_in, is_folder_of
from ..images import IMAGE_OPTIONS
from ..tables import TableReader, common_schema
from ..totables import batches_of, schema_for

ENDINGS = (".arrow", ".feather", ".ipc")
_IS_NAMED, _KIND = ends_in(*ENDINGS), "*.arrow, *.feather or *.ipc"


class IpcReader(TableReader):
    """The rows of some files or streams, one after the other, from a mapping."""

    def __init__(self, paths: list[Path], options: Options, names: Sequence[str] | None = None) -> None:
        files = [(path, _opened(path, _mapped(path)).schema) for path in paths]
        super().__init__(common_schema(files), str(paths[0]), options, names)
        self._schemas = dict(files)
        narrowest = [_narrowest(files[0][1])]
        self._counts = [(path, list(map(len, self._batches(path, narrowest)))) for path in paths]
        self.n_records = sum(sum(counts) for _, counts in self._counts)

    def rows(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[RowsJob]:
        """Parts of batches; several where batches are small, and fewer rows where these are large."""
        for path, counts in self._counts:
            first, number = 0, 0
            while number < len(counts) and first + counts[number] <= start:
                first, number = first + counts[number], number + 1
            if number < len(counts):
                memory = _mapped(path)
                batches = self._batches(path, wanted, number, memory)
                skip, first = start - first, start
                for some in _in_steps(batches, skip, n_records):
                    yield partial(_checked, Rows(str(path), first, some, partial(_let_go, memory)))
                    first += sum(map(len, some))
            start = max(0, start - sum(counts))

    def _batches(
        self, path: Path, wanted: Sequence[str], first: int = 0, memory: mmap.mmap | None = None
    ) -> Iterator[Any]:
        """The batches from a number on; nothing of their bytes is read yet, unless they are compressed."""
        schema = self._schemas[path]
        memory = _mapped(path) if memory is None else memory
        reader = _opened(path, memory, [schema.get_field_index(name) for name in wanted])
        n = getattr(reader, "num_record_batches", None)  # of a file; a stream has to be gone through
        for number in range(first if n is not None else 0, n if n is not None else 1 << 62):
            with explained(f"{path}, batch {number:,}"):
                try:
                    batch = reader.get_batch(number) if n is not None else reader.read_next_batch()
                except StopIteration:
                    return
            if number >= first:
                yield batch


def _mapped(path: Path) -> mmap.mmap:
    with explained(str(path)), path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


def _let_go(memory: mmap.mmap) -> None:
    """Take pages that were read out of this process; the system has them still, for whoever reads them again."""
    if hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED)


def _opened(path: Path, memory: mmap.mmap, columns: Sequence[int] = ()) -> Any:
    """A reader of a file or a stream, of some of its columns (of all, if none is given)."""
    pa, ipc = require("pyarrow"), require("pyarrow.ipc")
    if memory[:4] == b"FEA1":
        raise SourceError(
            f"{path}: is of Feather's first version; read and write it with pyarrow.feather, and convert that"
        )
    open_ = ipc.open_file if memory[:6] == b"ARROW1" else ipc.open_stream
    with explained(str(path)):
        options = ipc.IpcReadOptions(included_fields=list(columns))
        return open_(pa.BufferReader(pa.py_buffer(memory)), options=options)


def _narrowest(schema: Any) -> str:
    """A column that costs little to read, where only the number of rows is asked for."""
    is_plain = require("pyarrow").types.is_primitive
    return next((field.name for field in schema if is_plain(field.type)), schema.names[0])


def _in_steps(batches: Iterator[Any], skip: int, n_rows: int) -> Iterator[list[Any]]:
    """All but the first rows in parts: of some ``n_rows``, or fewer where they are large in the file.

    Args:
        batches: All rows.
        skip: How many of the first batch to leave out.
        n_rows: How many a part may have.
    """
    share = max(1, ROWS_NBYTES // n_rows)
    held, free = list[Any](), ROWS_NBYTES
    for batch in batches:
        # What all of its rows take, as nobody has seen yet whether the offsets that tell it of some can be trusted.
        cost = max(share, batch.get_total_buffer_size() // max(1, len(batch)))
        rest, skip = batch.slice(skip), 0
        while len(rest):
            held.append(rest.slice(0, max(1, free // cost)))
            rest = rest.slice(len(held[-1]))
            free -= cost * len(held[-1])
            if free < cost:
                yield held
                held, free = [], ROWS_NBYTES
    if held:
        yield held


def _checked(rows: Rows) -> Rows:
    """The same rows, when lengths and offsets in them point nowhere that they should not."""
    with explained(f"{rows.where}, rows from {rows.first:,} on"):
        for batch in rows.batches:
            batch.validate(full=True)
    return rows


def _write(export: Export, path: Path, options: Options) -> None:
    schema = schema_for(export, parquet=False)
    with require("pyarrow.ipc").new_file(path, schema) as writer:
        for batch in batches_of(export, schema):
            writer.write_batch(batch)


FORMATS = [
    Format(
        "arrow",
        "Arrow's IPC files and streams",
        ENDINGS,
        lambda sources, options: IpcReader(files_in(sources, _IS_NAMED, _KIND), options),
        _write,
        options=IMAGE_OPTIONS,
        recognises=partial(is_folder_of, _IS_NAMED),
        packages=("pyarrow",),
        needs=as_stored,
    )
]

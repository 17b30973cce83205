"""CSV: text with a record a line."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from ...errors import ArgumentError, SourceError
from ...schema import Array, Field
from ...source.buffers import lease
from ..ahead import in_order
from ..arrowtypes import padded_text
from ..base import Format, Job, Options, Piece, Reader, require
from ..csvoptions import OPTIONS, delimiter_of, groups, named
from ..csvtext import Block, blocks, header, is_rounded, opened, problem

#: What a column may turn out to be; a larger one has room for the smaller ones' values.
_WHOLE, _LARGE, _NUMBER, _TEXT = range(4)
#: From here on whole numbers may be missing among those of ``float64``.
_EXACT = 1 << 53
_KINDS = {_WHOLE: "int64", _LARGE: "int64", _NUMBER: "float64", _TEXT: "text"}


@dataclass(frozen=True)
class _Seen:
    """A block that was looked at.

    Args:
        source: The number of its source. Its path would not do, as a file may be given twice.
        offset: Of its first byte.
        line: The number of its first line.
        is_open: Whether it ends within quotes.
        nbytes: How long it is.
        n_records: How many records it has.
        large: The columns that have numbers too large.
    """

    source: int
    offset: int
    line: int
    is_open: bool
    nbytes: int
    n_records: int
    large: tuple[str, ...]


class _CsvReader(Reader):
    """The rows of some files, one after the other. All of them are read before, to find out the types."""

    def __init__(self, paths: list[Path], options: Options) -> None:
        self.meta = {}
        self._options = options
        self._paths = paths
        self._delimiters = {path: delimiter_of(path, options) for path in paths}
        self._starts: dict[Path, tuple[int, int]] = {}
        self._names: list[str] = []
        for path in paths:
            self._begin(path)
        self._groups = groups(self._names, options["join"])
        self.fields = {field: Field("S0") for field in self._groups}  # until choose()
        for field in options["types"]:
            if field not in self._groups:
                raise ArgumentError(f"types: no field is called {field!r}; there are: {', '.join(self._groups)}")

    def _begin(self, path: Path) -> None:
        found = header(path, self._delimiters[path])
        if self._options["header"]:
            names = named(found.values, path)
            self._starts[path] = found.stop, 1 + found.n_lines
        else:
            names = [f"c{number}" for number in range(len(found.values))]
            self._starts[path] = found.start, 1
        self._names = self._names or names
        if names != self._names:
            differ = sorted(set(names) ^ set(self._names)) or ["they come in another order"]
            raise SourceError(
                f"{path}: has other columns than {self._paths[0]}: {', '.join(differ[:20])}; convert files "
                "with different columns one by one"
            )

    def choose(self, wanted: Sequence[str]) -> None:
        """Look at all values of these fields: at their types first, then at the lengths of texts."""
        unknown = [field for field in wanted if field not in self._options["types"]]
        self._kinds = {column: _WHOLE for field in unknown for column in self._groups[field]}
        self._seen: list[_Seen] = []
        jobs = (
            partial(self._look, source, block)
            for source, path in enumerate(self._paths)
            for block in blocks(path, *self._starts[path], self._delimiters[path])
        )
        for some, n_threads in ((islice(jobs, 1), 0), (jobs, self.n_threads)):  # mostly the first block tells
            with closing(in_order(some, n_threads)) as found:
                for seen, kinds in found:
                    self._seen.append(seen)
                    self._kinds = {column: max(kind, kinds[column]) for column, kind in self._kinds.items()}
        self.n_records = sum(seen.n_records for seen in self._seen)
        self._types = {field: self._type(field) for field in wanted}
        widths = self._widths([field for field in wanted if self._types[field] == "text"])
        for field, type in self._types.items():
            columns = self._groups[field]
            shape = (len(columns),) if self._is_joined(field) else ()
            self.fields[field] = Field(f"U{max(widths[each] for each in columns)}" if type == "text" else type, shape)

    def _is_joined(self, field: str) -> bool:
        return field in self._options["join"]

    def _type(self, field: str) -> str:
        """What all columns of a field have room in."""
        if field in self._options["types"]:
            return self._options["types"][field]
        kinds = {column: self._kinds[column] for column in self._groups[field]}
        column = max(kinds, key=lambda column: kinds[column])
        if kinds[column] == _LARGE:
            seen = next(seen for seen in self._seen if column in seen.large)
            with self._reread([seen]) as read:
                found = self._problem(next(read), {column: "int64"})
            raise SourceError(f"{found}; types={field}=uint64 has room for larger numbers, types={field}=text for any")
        return _KINDS[kinds[column]]

    def _look(self, source: int, block: Block) -> tuple[_Seen, dict[str, int]]:
        """What a block has, and of what kinds its columns are. Mostly it is what was seen before; one look tells."""
        found, large = dict(self._kinds), ()
        types = {column: _KINDS[kind] for column, kind in found.items()} or {self._names[0]: "text"}
        try:
            table = self._parse(block, types)
            empty = {column for column, type in types.items() if type != "text" and table.column(column).null_count}
        except require("pyarrow").ArrowInvalid:
            table = self._table(block, dict.fromkeys(types, "text"))
            own = {column: _kind(table.column(column)) for column in found}
            large = tuple(column for column, kind in own.items() if kind == _LARGE)
            found = {column: max(kind, own[column]) for column, kind in found.items()}
            empty = {column for column in found if _any_empty(table.column(column))}
        for column in empty if isinstance(self._options["missing"], float) else ():
            found[column] = max(found[column], _NUMBER)
        place = source, block.offset, block.line, block.is_open
        return _Seen(*place, len(block.data), table.num_rows, large), found

    def _widths(self, fields: list[str]) -> dict[str, int]:
        """Characters of the longest text of each column."""
        columns = [column for field in fields for column in self._groups[field]]
        widths, longest = dict.fromkeys(columns, 0), require("pyarrow.compute")

        def look(block: Block) -> dict[str, int]:
            table = self._table(block, dict.fromkeys(columns, "text"))
            return {each: longest.max(longest.utf8_length(table.column(each))).as_py() or 0 for each in columns}

        if columns:
            with (
                self._reread(self._seen) as read,
                closing(in_order((partial(look, block) for block in read), self.n_threads)) as looked,
            ):
                for found in looked:
                    widths = {column: max(width, found[column]) for column, width in widths.items()}
        return widths

    def _reread(self, seen: list[_Seen]) -> closing[Generator[Block]]:
        """The same blocks again."""

        def read() -> Generator[Block]:
            for source, here in groupby(seen, key=lambda each: each.source):
                path = self._paths[source]
                with opened(path) as stream:
                    for each in here:
                        stream.seek(each.offset)
                        data = stream.read(each.nbytes)
                        if len(data) < each.nbytes:
                            raise SourceError(f"{path}: has become shorter while it was read")
                        yield Block(path, each.offset, each.line, data, each.is_open)

        return closing(read())

    def jobs(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[Job]:
        first, rest = 0, list(self._seen)
        while rest and first + rest[0].n_records <= start:
            first += rest.pop(0).n_records
        with self._reread(rest) as read:
            for block in read:
                yield partial(self._piece, block, start - first, wanted)
                start = first = 0

    def _piece(self, block: Block, skip: int, wanted: Sequence[str]) -> Piece:
        table = self._table(block, {column: self._types[field] for field in wanted for column in self._groups[field]})
        piece: Piece = {}
        for name in wanted:
            field, columns = self.fields[name], self._groups[name]
            values = (self._values(block, table.column(column), column, name)[skip:] for column in columns)
            if not self._is_joined(name):
                piece[name] = next(values)
                continue
            piece[name] = lease((table.num_rows - skip, *field.shape), field.dtype)
            for number, column in enumerate(values):
                piece[name][:, number] = column
        self._refuse_rounded(block, piece)
        return piece

    def _refuse_rounded(self, block: Block, piece: Piece) -> None:
        """A whole number beside fractions must be one that ``float64`` holds, where nobody asked for that type."""
        for field, values in piece.items():
            if self._types[field] != "float64" or field in self._options["types"]:
                continue
            large = (np.abs(values) >= _EXACT).reshape(len(values), -1).any(axis=0)
            columns = [self._groups[field][number] for number in np.flatnonzero(large)]
            if not columns:
                continue
            table = self._table(block, dict.fromkeys(columns, "text"))
            rounded = {column: "number" for column in columns if _any_rounded(table.column(column))}
            if rounded:
                raise SourceError(
                    f"{self._problem(block, rounded)}, as other values of this column need float64; "
                    f"types={field}=float64 takes that, types={field}=text keeps all digits"
                )

    def _values(self, block: Block, column: Any, name: str, field: str) -> Array:
        """The values of one column of a block."""
        array, type, missing = column.combine_chunks(), self._types[field], self._options["missing"]
        if type == "text":
            return padded_text(
                array,
                self.fields[field].dtype,
                lambda row: f"{block.path}, row {row:,} after line {block.line:,}, {name!r}",
            )
        if array.null_count and missing is not None:
            if not _holds(array.type, missing):
                raise ArgumentError(f"missing={missing} is no {type}, which {field!r} is")
            array = array.fill_null(require("pyarrow").scalar(missing, array.type))
        values = array.to_numpy(zero_copy_only=False) if not array.null_count else None
        if values is None or (values.dtype.kind == "f" and np.isinf(values).any()):
            found = self._problem(block, {name: type})  # a number may be too large, and so have become infinite
            if found or values is None:
                raise SourceError(found or f"{block.path}, from line {block.line:,} on, column {name!r}: has no value")
        return cast("Array", values)

    def _table(self, block: Block, types: dict[str, str]) -> Any:
        """The columns of a block; what is wrong is found again, value by value, to say where it is."""
        error: Exception | None = None
        try:
            table = self._parse(block, types)
            if not block.is_open:
                return table
        except require("pyarrow").ArrowInvalid as caught:
            table, error = None, caught
        found = self._problem(block, types)
        if found or error is not None:
            raise SourceError(found or f"{block.path}, from line {block.line:,} on: {error}")
        return table

    def _problem(self, block: Block, types: Mapping[str, str]) -> str | None:
        missing = self._options["missing"] is not None
        return problem(block, self._names, types, self._delimiters[block.path], missing)

    def _parse(self, block: Block, types: dict[str, str]) -> Any:
        pa, csv = require("pyarrow"), require("pyarrow.csv")
        known = {"text": pa.string(), "bool": pa.bool_()}
        return csv.read_csv(
            pa.BufferReader(block.data),
            csv.ReadOptions(column_names=self._names, use_threads=False, block_size=len(block.data) + 1),
            csv.ParseOptions(delimiter=self._delimiters[block.path], newlines_in_values=True),
            csv.ConvertOptions(
                column_types={
                    name: known.get(type) or pa.from_numpy_dtype(np.dtype(type)) for name, type in types.items()
                },
                include_columns=list(types),
                null_values=[""],
                strings_can_be_null=False,
            ),
        )


def _kind(column: Any) -> int:
    """The least that has room for all values of a column of text; empty ones need none."""
    pa, pc = require("pyarrow"), require("pyarrow.compute")
    bare = pc.utf8_trim_whitespace(column)
    bare = bare.filter(pc.not_equal(bare, ""))

    def is_all(type: Any) -> bool:
        try:
            bare.slice(0, 100).cast(type)  # before all of them, as values that cannot be cast take very long
            bare.cast(type)
        except pa.ArrowInvalid:
            return False
        return True

    if is_all(pa.int64()):
        return _WHOLE
    if not is_all(pa.float64()):
        return _TEXT
    return _LARGE if pc.all(pc.match_substring_regex(bare, r"^-?\d+$")).as_py() else _NUMBER


def _any_rounded(column: Any) -> bool:
    """Whether a column of text has whole numbers that ``float64`` does not hold."""
    pc = require("pyarrow.compute")
    bare = pc.utf8_trim_whitespace(column)
    return any(map(is_rounded, bare.filter(pc.match_substring_regex(bare, r"^[+-]?\d{16,}$")).to_pylist()))


def _holds(type: Any, missing: float) -> bool:
    """Whether a type has a number; one with a fraction may be rounded to ``float32``, as those in the file are."""
    pa = require("pyarrow")
    try:
        stored = pa.scalar(missing, type).as_py()
    except (ValueError, TypeError, OverflowError):
        return False
    if isinstance(missing, float) and pa.types.is_floating(type):
        return math.isfinite(stored) == math.isfinite(missing)
    return stored == missing


def _any_empty(column: Any) -> bool:
    pc = require("pyarrow.compute")
    return bool(pc.any(pc.equal(column, "")).as_py())


FORMATS = [
    Format(
        "csv",
        "CSV and TSV files",
        (".csv", ".tsv", ".csv.gz", ".tsv.gz"),
        lambda sources, options: _CsvReader(sources, options),
        options=OPTIONS,
        packages=("pyarrow",),
    )
]

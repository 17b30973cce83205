"""Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from ..arrays import explained
from ..base import Export, Format, Option, Options, one_of, require
from ..columns import SCAN_ROWS, Rows, RowsJob
from ..folders import ends_in, files_in, is_folder_of
from ..images import IMAGE_OPTIONS
from ..int96 import UNITS, Int96
from ..tables import TableReader, common_schema
from ..totables import batches_of, schema_for, values_in

ENDINGS = (".parquet", ".pq")
_IS_NAMED, _KIND = ends_in(*ENDINGS), "*.parquet or *.pq"
_COMPRESSIONS = ("none", "snappy", "gzip", "brotli", "lz4", "zstd")
#: What decoding takes for each value of a list: two levels of nesting, the value as stored, and what it becomes.
_VALUE_NBYTES = 12
#: As much may one thread take for it. Row groups that need more are read bit by bit.
_MEMORY_NBYTES = 16 << 20


class _ParquetReader(TableReader):
    """The rows of some files, one after the other.

    Args:
        sources: The files, or folders of them.
        options: Those of images.
        unit: Of timestamps of the type INT96.
    """

    def __init__(self, sources: list[Any], options: Options, unit: str = "ns") -> None:
        self._paths, self._unit = files_in(sources, _IS_NAMED, _KIND), unit
        self._n_rows, self._with_int96 = list[int](), list[Path]()
        files = list[tuple[Path, Any]]()
        for path in self._paths:
            with self._open(path) as file:
                files.append((path, file.schema_arrow))
                self._n_rows.append(file.metadata.num_rows)
                if any(column.physical_type == "INT96" for column in file.schema):
                    self._with_int96.append(path)
        super().__init__(common_schema(files), str(self._paths[0]), options)
        self.n_records = sum(self._n_rows)

    def choose(self, wanted: Sequence[str]) -> None:
        """Find out their types and shapes, and before it the unit of timestamps whose type does not tell it."""
        if self._with_int96 and self._unit_of(wanted) != self._unit:
            coarse = _ParquetReader(self._paths, self._options, "us")
            self._unit, self._schema = coarse._unit, coarse._schema
        super().choose(wanted)

    def _unit_of(self, wanted: Sequence[str]) -> str:
        for name in wanted:
            self._column(self._schema.field(name))  # raises if it cannot be converted anyway
        found = Int96()
        for path in dict.fromkeys(self._with_int96):
            readers = [_ParquetReader([path], self._options, unit) for unit in UNITS]
            for name in wanted:
                if len({reader._schema.field(name).type for reader in readers}) == len(UNITS):
                    for rows in zip(*(reader._scan(name, SCAN_ROWS) for reader in readers), strict=True):
                        found.look(name, rows)
        return found.unit

    def _open(self, path: Path, footer: Any = None) -> Any:
        with explained(str(path)):
            return require("pyarrow.parquet").ParquetFile(
                path,
                metadata=footer,
                buffer_size=1 << 20,  # without one of its own it would take in a whole column of a row group at once
                page_checksum_verification=True,
                coerce_int96_timestamp_unit=self._unit,
            )

    def rows(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[RowsJob]:
        for path, n_rows in zip(self._paths, self._n_rows, strict=True):
            if start < n_rows:
                yield from self._rows_of(path, start, wanted, n_records)
            start = max(0, start - n_rows)

    def _rows_of(self, path: Path, start: int, wanted: Sequence[str], n_records: int) -> Iterator[RowsJob]:
        """Row groups that are small come as jobs, some together; large ones are read here, a batch after the other."""
        with self._open(path) as file:
            footer = file.metadata
        costs = [_cost(footer.row_group(number), wanted) for number in range(footer.num_row_groups)]
        counts = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
        firsts = list(accumulate(counts, initial=0))
        number = 0
        while number < len(counts):
            stop = number + 1
            while (
                stop < len(counts)
                and firsts[stop + 1] - firsts[number] <= n_records
                and sum(costs[number : stop + 1]) <= _MEMORY_NBYTES
            ):
                stop += 1
            skip = max(0, start - firsts[number])
            if firsts[number] + skip < firsts[stop]:
                groups = list(range(number, stop))
                if sum(costs[number:stop]) <= _MEMORY_NBYTES:
                    yield partial(self._whole, path, footer, groups, firsts[number], skip, wanted)
                else:
                    n_rows = max(1, min(n_records, counts[number] * _MEMORY_NBYTES // costs[number]))
                    yield from self._bit_by_bit(path, footer, number, firsts[number], skip, wanted, n_rows)
            number = stop

    def _whole(self, path: Path, footer: Any, groups: list[int], first: int, skip: int, wanted: Sequence[str]) -> Rows:
        with explained(_place(path, groups)), self._open(path, footer) as file:
            table = file.read_row_groups(groups, columns=list(wanted), use_threads=False)
            return Rows(str(path), first + skip, table.slice(skip).combine_chunks().to_batches())

    def _bit_by_bit(
        self, path: Path, footer: Any, group: int, first: int, skip: int, wanted: Sequence[str], n_rows: int
    ) -> Iterator[RowsJob]:
        with self._open(path, footer) as file:
            batches = file.iter_batches(n_rows, row_groups=[group], columns=list(wanted))
            while True:
                with explained(_place(path, [group])):
                    batch = next(batches, None)
                if batch is None:
                    return
                if skip < len(batch):
                    yield partial(Rows, str(path), first + skip, [batch.slice(skip)])
                first, skip = first + len(batch), max(0, skip - len(batch))


def _place(path: Path, groups: list[int]) -> str:
    return f"{path}, row group {groups[0]}{f' to {groups[-1]}' if len(groups) > 1 else ''}"


def _cost(group: Any, wanted: Sequence[str]) -> int:
    """Bytes that some columns of a row group take while they are decoded."""
    parts = (group.column(number) for number in range(group.num_columns))
    mine = [each for each in parts if any(f"{each.path_in_schema}.".startswith(f"{name}.") for name in wanted)]
    return sum(max(each.total_uncompressed_size, _VALUE_NBYTES * each.num_values) for each in mine)


def _write(export: Export, path: Path, options: Options) -> None:
    pq, schema = require("pyarrow.parquet"), schema_for(export, parquet=True)
    cost = sum(max(field.nbytes, _VALUE_NBYTES * values_in(field)) for field in export.fields.values())
    n_rows = max(1, _MEMORY_NBYTES // cost)  # what can be read in one go, by several threads
    with pq.ParquetWriter(path, schema, compression=options["compression"], write_page_checksum=True) as writer:
        for batch in batches_of(export, schema):
            writer.write_batch(batch, row_group_size=n_rows)


FORMATS = [
    Format(
        "parquet",
        "Parquet files",
        ENDINGS,
        lambda sources, options: _ParquetReader(sources, options),
        _write,
        options=(
            Option(
                "compression",
                one_of(*_COMPRESSIONS),
                f"of files that are written: {', '.join(_COMPRESSIONS)}",
                "snappy",
            ),
            *IMAGE_OPTIONS,
        ),
        recognises=partial(is_folder_of, _IS_NAMED),
        packages=("pyarrow",),
    )
]

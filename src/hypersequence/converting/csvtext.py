"""CSV taken apart: blocks of whole rows, the header, and the place of what is wrong."""

from __future__ import annotations

import csv
import gzip
import io
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

from ..errors import SourceError
from .arrays import explained

BLOCK_NBYTES = 4 << 20
_FIRST_NBYTES = 64 << 10
_MAX_ROW_NBYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Block:
    """Some rows of a file.

    Args:
        path: The file.
        offset: Of its first byte, without compression.
        line: The number of its first line, counted from 1.
        data: The rows.
    """

    path: Path
    offset: int
    line: int
    data: bytes

    @property
    def is_odd(self) -> bool:
        """Whether there is one quote more than pairs of them: of the last block of a file, perhaps damage."""
        return self.data.count(b'"') % 2 == 1


@contextmanager
def opened(path: Path) -> Generator[IO[bytes]]:
    """A file's bytes, without compression."""
    if path.suffix.lower() == ".gz":
        with explained(str(path)), gzip.open(path) as stream:
            yield cast("IO[bytes]", stream)
    else:
        with explained(str(path)), path.open("rb") as stream:
            yield stream


class Header(NamedTuple):
    """The first row of a file.

    Args:
        values: What stands in it.
        start: Where it begins.
        stop: Where the row after it begins.
        n_lines: How many lines it takes.
    """

    values: list[str]
    start: int
    stop: int
    n_lines: int


def header(path: Path, delimiter: str) -> Header:
    """The first row.

    Raises:
        SourceError: There is none.
    """
    with opened(path) as stream:
        data = stream.read(BLOCK_NBYTES)
    start, stop = len(_BOM) if data.startswith(_BOM) else 0, _end_of_first(data)
    if b"\r" in data[:stop].rstrip(b"\r\n").replace(b"\r\n", b"") and b'"' not in data[:stop]:
        raise SourceError(f"{path}, line 1: its lines end in CR alone; have them end in LF, as `tr '\\r' '\\n'` does")
    try:
        text = data[start:stop].decode()
        values = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), list[str]())
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path}, line 1: is no row of CSV in UTF-8: {error}") from None
    if not values:
        raise SourceError(f"{path}: is empty, or begins with an empty line")
    return Header([value.strip() for value in values], start, stop, max(1, data.count(b"\n", 0, stop)))


def blocks(path: Path, offset: int, line: int) -> Generator[Block]:
    """All rows from a place on, some megabytes at a time; the first ones are few, so that a look at them is quick.

    Raises:
        SourceError: A row does not end.
    """
    with opened(path) as stream:
        stream.seek(offset)
        data, size = b"", min(_FIRST_NBYTES, BLOCK_NBYTES)
        while True:
            read, size = stream.read(size), BLOCK_NBYTES
            data += read
            end = _end_of_last(data) if read else len(data)
            if end:
                yield Block(path, offset, line, data[:end])
                offset, line, data = offset + end, line + data.count(b"\n", 0, end), data[end:]
            if not read:
                return
            if len(data) > _MAX_ROW_NBYTES:
                raise SourceError(f"{path}, line {line:,}: a row begins that does not end; is a quote never closed?")


def _end_of_first(data: bytes) -> int:
    """Where the first row ends: at the first newline that stands in no quotes."""
    end = 0
    while True:
        end = data.find(b"\n", end) + 1
        if not end:
            return len(data)
        if data.count(b'"', 0, end) % 2 == 0:
            return end


def _end_of_last(data: bytes) -> int:
    """Where the last row ends that is there as a whole; 0 if none is."""
    end, quotes = len(data), data.count(b'"')
    while True:
        before = data.rfind(b"\n", 0, end) + 1
        quotes -= data.count(b'"', before, end)
        if not before or quotes % 2 == 0:
            return before
        end = before - 1  # that newline stands in quotes


def problem(block: Block, names: list[str], wanted: Mapping[str, str], delimiter: str, missing: bool) -> str | None:
    """What is wrong with a block, with its place; ``None`` if nothing is found.

    Args:
        block: The block.
        names: Of all columns.
        wanted: Columns whose values are looked at, and their types: ``"int64"``, ``"text"``, ...; ``"number"`` is
            ``float64`` that nobody asked for, in which a whole number must not be rounded.
        delimiter: Between values.
        missing: Whether values may be missing.
    """
    try:
        text = block.data.decode()
    except UnicodeDecodeError as error:
        line = block.line + block.data.count(b"\n", 0, error.start)
        return f"{block.path}, line {line:,}: is not UTF-8 ({error.reason}); save the file as UTF-8"
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=block.is_odd)
    line = block.line
    try:
        for row in rows:
            where, line = f"{block.path}, line {line:,}", block.line + rows.line_num
            if row and len(row) != len(names):
                return f"{where}: has {len(row):,} values, and there are {len(names):,} columns"
            for name, cell in zip(names, row, strict=False):
                wrong = _wrong(cell, wanted[name], missing) if name in wanted else None
                if wrong:
                    return f"{where}, column {name!r}: {wrong}"
    except csv.Error as error:
        return f"{block.path}, line {line:,}: {error}"
    return None


def _wrong(cell: str, type: str, missing: bool) -> str | None:
    """What is wrong with one value."""
    bare = cell.strip()
    if type == "text":
        return None
    if not bare:
        if missing and not cell:
            return None
        return "a number is missing; fill it in the file, or say missing=nan, or missing= another number"
    try:
        if type == "bool":
            good = bare.lower() in ("true", "false", "0", "1")
        elif type == "number":
            if is_rounded(bare):
                return f"{cell[:40]!r} would be rounded, to {float(bare):.0f}"
            good = True
        elif type.startswith("float"):
            with np.errstate(over="ignore"):
                good = not np.isinf(np.float64(bare).astype(type)) or "inf" in bare.lower()
        else:
            value, bits = int(bare), int(type.removeprefix("u").removeprefix("int"))
            good = 0 <= value < 1 << bits if type[0] == "u" else -(1 << bits - 1) <= value < 1 << bits - 1
    except ValueError:
        good = False
    return None if good else f"{cell[:40]!r} is no {type}"


def is_rounded(bare: str) -> bool:
    """Whether a number is a whole one that ``float64`` does not hold."""
    if not (bare.isascii() and bare.lstrip("+-").isdigit()):
        return False
    value = float(bare)
    return math.isinf(value) or int(bare) != value

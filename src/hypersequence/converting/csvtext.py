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
from ..schema import Array
from .arrays import explained

BLOCK_NBYTES = 4 << 20
_FIRST_NBYTES = 64 << 10
_MAX_ROW_NBYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"
#: Quotes are looked for in so many bytes at a time, since each takes some twenty bytes of memory then.
_STEP_NBYTES = 1 << 20
_QUOTE = ord('"')
_ENDLESS = "a row begins that does not end; is a quote never closed?"


@dataclass(frozen=True)
class Block:
    """Some rows of a file.

    Args:
        path: The file.
        offset: Of its first byte, without compression.
        line: The number of its first line, counted from 1.
        data: The rows.
        is_open: Whether they end within quotes: those of the last block of a file, and it is damaged then.
    """

    path: Path
    offset: int
    line: int
    data: bytes
    is_open: bool


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
    start = len(_BOM) if data.startswith(_BOM) else 0
    stop = start + _end_of_first(data[start:], delimiter)
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


def blocks(path: Path, offset: int, line: int, delimiter: str) -> Generator[Block]:
    """All rows from a place on, some megabytes at a time; the first ones are few, so that a look at them is quick.

    Raises:
        SourceError: A row does not end.
    """
    with opened(path) as stream:
        stream.seek(offset)
        quotes, data, size = Quotes(delimiter), b"", min(_FIRST_NBYTES, BLOCK_NBYTES)
        while read := stream.read(size):
            size, end, begun = BLOCK_NBYTES, quotes.end_of_last(read), len(data)
            data += read
            if end:
                end += begun
                yield Block(path, offset, line, data[:end], is_open=False)
                offset, line, data = offset + end, line + data.count(b"\n", 0, end), data[end:]
            if len(data) > _MAX_ROW_NBYTES:
                raise SourceError(f"{path}, line {line:,}: {_ENDLESS}")
        if data:
            yield Block(path, offset, line, data, quotes.is_open)


class Quotes:
    """Follows the quotes of rows whose bytes come part by part.

    A quote opens only where a field begins. Elsewhere, as in ``a 5" pipe``, it is a character like any other, so that
    counting them does not tell what stands in quotes. The second one of a doubled quote, which stands for one quote in
    quotes, is taken as one that opens again what the first one closed.

    Args:
        delimiter: Between values.
    """

    #: Whether the next byte stands in quotes.
    is_open = False

    def __init__(self, delimiter: str) -> None:
        self._begins = np.zeros(256, bool)  # whether a field begins after a byte that stands in no quotes
        self._begins[list(delimiter.encode() + b"\r\n")] = True
        self._would_open = True  # a quote that came next, if nothing is open

    def end_of_last(self, part: bytes) -> int:
        """Go through the next part; returns where the last row ends that ends in it, 0 if none does."""
        found = 0
        for start in range(0, len(part), _STEP_NBYTES):
            step, was_open = part[start : start + _STEP_NBYTES], self.is_open
            end = _last_newline(step, self.turns(step), was_open) + 1
            found = start + end if end else found
        return found

    def turns(self, part: bytes) -> Array:
        """Go through the next part; returns where the quotes are that open and close, by turns."""
        octets = np.frombuffer(part, np.uint8)
        quotes = np.flatnonzero(octets == _QUOTE) if b'"' in part else np.empty(0, np.intp)
        if not self._take_turns(octets, quotes):
            quotes = self._picked(octets, quotes)
        if part:
            self.is_open ^= len(quotes) % 2 == 1
            self._would_open = bool(self._begins[octets[-1]]) or len(part) - 1 in quotes[-1:]
        return quotes

    def _take_turns(self, octets: Array, quotes: Array) -> bool:
        """Whether all quotes open and close by turns, as they do unless one stands within a field without quotes."""
        opening = quotes[int(self.is_open) :: 2]
        before = octets[opening - 1]
        fits = self._begins[before] | (before == _QUOTE)
        if opening.size and opening[0] == 0:
            fits[0] = self._would_open
        return bool(fits.all())

    def _picked(self, octets: Array, quotes: Array) -> Array:
        """Those that open and close, looked at one by one."""
        begins = self._begins[octets[quotes - 1]]
        if quotes[0] == 0:
            begins[0] = self._would_open
        found, last, is_open = list[int](), -2, self.is_open
        for quote, begins_field in zip(quotes.tolist(), begins.tolist(), strict=True):
            if is_open or begins_field or quote == last + 1:
                found.append(quote)
                last, is_open = quote, not is_open
        return np.array(found, np.intp)


def _last_newline(part: bytes, turns: Array, was_open: bool) -> int:
    """Where the last newline is that stands in no quotes; -1 if there is none.

    Args:
        part: Some bytes.
        turns: Where quotes open and close in it.
        was_open: Whether it begins in quotes.
    """
    end = part.rfind(b"\n")
    while end >= 0:
        n_before = int(np.searchsorted(turns, end))
        if (n_before % 2 == 1) == was_open:
            return end
        # The newlines back to where this was opened stand in the same quotes.
        end = part.rfind(b"\n", 0, int(turns[n_before - 1])) if n_before else -1
    return -1


def _end_of_first(data: bytes, delimiter: str) -> int:
    """Where the first row ends: behind the first newline that stands in no quotes."""
    turns, end = Quotes(delimiter).turns(data), data.find(b"\n")
    while end >= 0:
        n_before = int(np.searchsorted(turns, end))
        if n_before % 2 == 0:
            return end + 1
        end = data.find(b"\n", int(turns[n_before])) if n_before < len(turns) else -1
    return len(data)


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
    lines = io.StringIO(text, newline="")
    rows = csv.reader(lines, delimiter=delimiter)
    line = block.line
    try:
        for row in rows:
            where, line = f"{block.path}, line {line:,}", block.line + rows.line_num
            if block.is_open and lines.tell() == len(text):
                return f"{where}: {_ENDLESS}"
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

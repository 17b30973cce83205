"""Rows of results, kept as they came, a line of JSON each."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_BEGIN = b'{"stage": '
_NO_ROW = "no row of results, and nothing was changed; --results names their file"
_KEY = ("stage", "workload", "order", "group", "mode", "contender", "round")


class Results:
    """A file of rows, to which a run that was interrupted adds what is missing.

    Args:
        path: The file.
        stamp: What every new row says besides: where it comes from.
    """

    def __init__(self, path: Path, **stamp: Any) -> None:
        self._path, self._stamp = path, stamp
        self.rows: list[Row] = read(path) if path.exists() else []
        self._by_key = {_key(row): row for row in self.rows}

    def has(self, **key: Any) -> bool:
        """Whether there is a row of this stage, workload and so on."""
        return self.find(**key) is not None

    def find(self, **key: Any) -> Row | None:
        """The newest row of this stage, workload and so on."""
        return self._by_key.get(_key(key))

    def add(self, **row: Any) -> None:
        """Write a row down."""
        row = {**row, **self._stamp, "at_s": round(time.time())}
        self.rows.append(row)
        self._by_key[_key(row)] = row
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    def forget(self, workloads: Collection[str]) -> None:
        """Drop all rows of some workloads."""
        self.rows = [row for row in self.rows if row.get("workload") not in workloads]
        self._by_key = {_key(row): row for row in self.rows}
        part = self._path.with_suffix(".part")
        part.write_text("".join(json.dumps(row) + "\n" for row in self.rows))
        part.replace(self._path)


def read(path: Path) -> list[Row]:
    """All rows of a file; a last line that was cut off goes, also from the file, or the next row would be glued to it.

    Raises:
        ValueError: Another line is no row; then the file, which may be anything, stays as it is.
    """
    text = path.read_bytes()
    whole = text.rfind(b"\n") + 1
    rows = [_row(line, f"{path}, line {number}") for number, line in enumerate(text[:whole].splitlines(), 1)]
    if rest := text[whole:]:
        if not (rest.startswith(_BEGIN) or _BEGIN.startswith(rest)):
            raise ValueError(f"{path}, its end: {_NO_ROW}")
        os.truncate(path, whole)
    return rows


def _row(line: bytes, where: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or "stage" not in row:
        raise ValueError(f"{where}: {_NO_ROW}")
    return row


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _KEY)

"""Rows of results, kept as they came, a line of JSON each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_KEY = ("stage", "workload", "order", "group", "mode", "contender", "round")


class Results:
    """A file of rows, to which a run that was interrupted adds what is missing.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
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
        self.rows.append(row)
        self._by_key[_key(row)] = row
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(path: Path) -> list[Row]:
    """All rows of a file; a last line that was cut off is left out."""
    rows: list[Row] = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in _KEY)

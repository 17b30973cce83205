"""What ``hsq info`` does, without Typer."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import HyperSequenceError
from ..report.description import describe
from .failing import exit_code, told

if TYPE_CHECKING:
    from ..report.description import Description
    from ..report.tables import TextTable


def show_info(paths: Sequence[str], *, as_json: bool) -> int:
    """Print what files say of themselves; the exit code, 2 if one of them cannot be read."""
    found: list[Description] = []
    code = 0
    for path in paths:
        try:
            one = describe(path)
        except (HyperSequenceError, OSError) as error:
            print(f"error: {told(error, 'info')}", file=sys.stderr)
            if as_json:
                print(json.dumps({"path": path, "error": told(error, "info")}))
            code = max(code, exit_code(error))
            continue
        if as_json:
            print(json.dumps(one.as_dict(), allow_nan=False))
        else:
            if found:
                print()
            print_report(one.lines(), one.tables())
        found.append(one)
    if len(found) > 1 and not as_json:
        print("\n" + _together(found))
    return code


def _together(found: list[Description]) -> str:
    n_records, nbytes = sum(one.n_records for one in found), sum(one.nbytes for one in found)
    same = all(one.schema == found[0].schema for one in found)
    schemas = "all of one schema" if same else "of different schemas, so that they cannot be opened together"
    return f"{len(found)} files: {n_records:,} records, {nbytes:,} bytes, {schemas}"


def print_report(lines: list[str], tables: list[TextTable]) -> None:
    """What a report says: lines, and tables below."""
    for number, line in enumerate(lines):
        print(_styled(line, bold=not number))
    for number, table in enumerate(tables):
        if lines or number:
            print()
        print_table(table)


def print_table(table: TextTable) -> None:
    """A table, which is never cut. None of rich's, which takes longer to begin than all of ``hsq info``."""
    for number, line in enumerate(_printable(table).lines()):
        print(_styled(line, bold=bool(table.title) and not number, dim=number == bool(table.title)))


def _printable(table: TextTable) -> TextTable:
    """The table with what the terminal cannot show by its number already, so that columns stay columns."""
    encoding = sys.stdout.encoding or "utf-8"
    header, *rows = (
        tuple(cell.encode(encoding, "backslashreplace").decode(encoding) for cell in cells)
        for cells in (table.header, *table.rows)
    )
    return replace(table, header=header, rows=tuple(rows))


def _styled(text: str, *, bold: bool = False, dim: bool = False) -> str:
    code = "1" if bold else "2" if dim else ""
    return f"\x1b[{code}m{text}\x1b[0m" if code and sys.stdout.isatty() else text

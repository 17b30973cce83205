"""Tables of text: what is said of files and sequences, at a prompt and in a notebook."""

from __future__ import annotations

import html
from dataclasses import dataclass
from unicodedata import combining, east_asian_width


@dataclass(frozen=True, slots=True)
class TextTable:
    """Rows of text under a title.

    Args:
        title: What it is about; may be empty.
        header: Names of the columns, one a column.
        rows: Cells, as many a row as there are columns.
        left: Numbers of the columns whose cells begin at the left; the others end at the right, as figures do.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: frozenset[int] = frozenset()

    def lines(self) -> list[str]:
        """The table as text: the title, if there is one, the header, and a line a row."""
        widths = [max(map(_width, cells)) for cells in zip(self.header, *self.rows, strict=True)]
        rows = ["  " + "  ".join(self._aligned(cells, widths)).rstrip() for cells in (self.header, *self.rows)]
        return [self.title, *rows] if self.title else rows

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def _aligned(self, cells: tuple[str, ...], widths: list[int]) -> list[str]:
        columns = enumerate(zip(cells, widths, strict=True))
        blanks = [(number, cell, " " * (width - _width(cell))) for number, (cell, width) in columns]
        return [cell + blank if number in self.left else blank + cell for number, cell, blank in blanks]

    def html(self) -> str:
        """The table for a notebook."""

        def row(cells: tuple[str, ...], tag: str) -> str:
            sides = ["left" if number in self.left else "right" for number in range(len(cells))]
            columns = zip(cells, sides, strict=True)
            return "".join(f"<{tag} style='text-align:{side}'>{html.escape(cell)}</{tag}>" for cell, side in columns)

        caption = f"<caption style='text-align:left'>{html.escape(self.title)}</caption>" if self.title else ""
        body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in self.rows)
        return f"<table>{caption}<tr>{row(self.header, 'th')}</tr>{body}</table>"


def _width(text: str) -> int:
    """Places that a terminal needs for a text."""
    if text.isascii():
        return len(text)
    return sum(1 + (east_asian_width(sign) in "WF") for sign in text if not combining(sign))


def as_text(lines: list[str], tables: list[TextTable]) -> str:
    """Lines, and tables below them."""
    return "\n\n".join(["\n".join(lines), *map(str, tables)])


def as_html(lines: list[str], tables: list[TextTable]) -> str:
    """The same for a notebook."""
    paragraph = "<br>".join(map(html.escape, lines))
    return f"<p>{paragraph}</p>" + "".join(table.html() for table in tables)

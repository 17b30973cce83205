"""What a reader of CSV can be told, and what follows of it for the columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import ArgumentError, SourceError
from .base import Option, Options, yes_or_no

_INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_TYPES = (*_INTEGERS, "float32", "float64", "bool", "text")


def named(values: list[str], path: Path) -> list[str]:
    """Names of columns. One that has none, as that of a data frame's index, is called by its number."""
    names = [value or f"c{number}" for number, value in enumerate(values)]
    twice = next((name for name, count in Counter(names).items() if count > 1), None)
    if twice is not None:
        raise SourceError(f"{path}, line 1: two columns are called {twice!r}; rename one, or say header=no")
    return names


def groups(names: list[str], join: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    """The fields, and the columns of each.

    Args:
        names: Of all columns.
        join: Fields that are made of several, and the first and the last of these.

    Raises:
        ArgumentError: There are no such columns, or a field's name is taken.
    """
    members: dict[str, str] = {}
    for field, (first, last) in join.items():
        for end in (first, last):
            if end not in names:
                raise ArgumentError(f"join: no column is called {end!r}; there are: {', '.join(names[:20])}")
        for column in names[names.index(first) : names.index(last) + 1]:
            if members.setdefault(column, field) != field:
                raise ArgumentError(f"join: the column {column!r} belongs to {members[column]!r} and to {field!r}")
        if field not in members.values() or (field in names and members.get(field) != field):
            why = f"{last!r} stands before {first!r}" if field not in members.values() else "a column has that name"
            raise ArgumentError(f"join: {field!r} cannot be made of {first!r} to {last!r}: {why}")
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(members.get(name, name), []).append(name)
    return groups


def delimiter_of(path: Path, options: Options) -> str:
    """What stands between the values of a file."""
    return options["delimiter"] or ("\t" if ".tsv" in path.suffixes[-2:] else ",")


def _parse_pairs(given: Any, value: Callable[[str], Any]) -> dict[str, Any]:
    """From ``"a=1,b=2"``, or a dict."""
    pairs = given.items() if isinstance(given, Mapping) else (part.partition("=")[::2] for part in given.split(","))  # pyright: ignore
    found = {str(name).strip(): value(str(each).strip()) for name, each in pairs}  # pyright: ignore
    if "" in found:
        raise ValueError("a name is missing")
    return found


def _parse_range(text: str) -> tuple[str, str]:
    first, colon, last = text.partition(":")
    if not (first and colon and last):
        raise ValueError(f"{text!r} is not FIRST:LAST")
    return first.strip(), last.strip()


def _parse_type(text: str) -> str:
    if text not in _TYPES:
        raise ValueError(f"{text!r} is none of: {', '.join(_TYPES)}")
    return text


def _parse_delimiter(given: Any) -> str:
    found = {"tab": "\t", r"\t": "\t"}.get(str(given).lower(), str(given))
    if len(found) != 1 or found in '"\r\n' or not found.isascii():
        raise ValueError("is not one character")
    return found


def _parse_missing(given: Any) -> int | float:
    try:
        return int(given) if str(int(given)) == str(given).strip() else float(given)
    except ValueError:
        return float(given)


#: All of them.
OPTIONS = (
    Option("join", partial(_parse_pairs, value=_parse_range), "columns that make one array, as in pixels=p0:p783", {}),
    Option("types", partial(_parse_pairs, value=_parse_type), "types of fields, as in pixels=uint8,zip=text", {}),
    Option("delimiter", _parse_delimiter, "between values: one character, or tab (by the file's ending)"),
    Option("header", yes_or_no, "whether the first row has names: yes (default) or no", True),
    Option("missing", _parse_missing, "what stands for a number that is missing: nan, 0 (default: an error)"),
)

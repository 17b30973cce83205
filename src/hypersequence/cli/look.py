"""``hsq info``, ``head``, ``show`` and ``stats``: what is in a file."""

from __future__ import annotations

import json
import math
import sys
import warnings
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ArgumentError, PositionError
from .app import app, say

# Commands import what they work with when they are called, so that none waits for what others need.
if TYPE_CHECKING:
    from ..sequence import HyperSequence

#: More values than anybody means to have as JSON.
_MOST_JSON_VALUES = 1_000_000

_FILE = Annotated[Path, typer.Argument(metavar="FILE", help="The file.")]
_FIELDS = Annotated[
    list[str] | None, typer.Option(help="Only these fields, separated by commas: names, roles, or role.name.")
]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
_PICTURE = Annotated[
    Path | None, typer.Option(metavar="OUT.png", help="Save a picture of them instead (PNG, SVG or PDF).")
]
_OVERWRITE = Annotated[bool, typer.Option(help="Replace a picture that exists.")]


@app.command()
def info(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE", help="The files.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, a line a file.")] = False,
) -> None:
    """Show what files say of themselves: fields, records, blocks, metadata, and where their bytes are.

    No record is read, so it takes no longer for a large file. The exit code is 2 if a file cannot be read, of which
    JSON has nothing but "path" and "error".

    Examples:
        hsq info train.hsq

        hsq info data/*.hsq --json
    """
    from .info import show_info

    raise typer.Exit(show_info(list(map(str, paths)), as_json=as_json))


@app.command()
def head(
    path: _FILE,
    n: Annotated[int, typer.Option("-n", min=1, help="How many records.")] = 5,
    fields: _FIELDS = None,
    picture: _PICTURE = None,
    overwrite: _OVERWRITE = False,
    as_json: _JSON = False,
) -> None:
    """Show the first records: single values as they are, short arrays in full, long ones in a few words.

    Examples:
        hsq head train.hsq

        hsq head train.hsq -n 20 --fields image,label

        hsq head train.hsq -n 16 --picture digits.png
    """
    with _open(path, fields) as sequence:
        numbers = [range(min(n, sequence.n_records))]
        _show_records(sequence, numbers, picture, overwrite=overwrite, as_json=as_json)


@app.command(context_settings={"ignore_unknown_options": True})  # -1 is no option
def show(
    path: _FILE,
    numbers: Annotated[
        list[str],
        typer.Argument(metavar="NUMBERS", help="Record numbers from 0 on, and ranges such as 10:20 or 0:90:10."),
    ],
    fields: _FIELDS = None,
    picture: _PICTURE = None,
    overwrite: _OVERWRITE = False,
    as_json: _JSON = False,
) -> None:
    """Show records by their numbers; negative ones count from the end, and a range leaves out its last number.

    Examples:
        hsq show train.hsq 17 4711

        hsq show train.hsq -1 -5: 0:3

        hsq show train.hsq 0:1000:50 --picture every-fiftieth.png

        hsq show train.hsq 17 --json --fields label
    """
    with _open(path, fields) as sequence:
        chosen = _numbers(numbers, sequence.n_records)
        _show_records(sequence, chosen, picture, overwrite=overwrite, as_json=as_json)


@app.command()
def stats(
    paths: Annotated[list[str], typer.Argument(metavar="FILE", help="A file, or several of one schema.")],
    fields: _FIELDS = None,
    as_json: _JSON = False,
) -> None:
    """Show what the values are like: range, mean and deviation, zeros, NaN, and how often each label comes.

    Reads all records. Mean and deviation are of the finite values, those for images of each channel too.

    Examples:
        hsq stats train.hsq

        hsq stats data/*.hsq --fields label --json
    """
    from ..report import stats as stats_of
    from .info import print_report

    with _open(paths if len(paths) > 1 else paths[0], fields) as sequence:
        found = stats_of(sequence, progress=True)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), allow_nan=False))
    else:
        print_report(found.lines(), found.tables("█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"))


def _open(path: Any, fields: list[str] | None) -> HyperSequence:
    from ..sequence import open_files

    # Not mapped: what was read of a large file would count as this command's memory.
    sequence = open_files(path, use_mmap=False)
    return sequence.fields(*_listed(fields, sequence)) if fields else sequence


def _listed(fields: list[str], sequence: HyperSequence) -> list[str]:
    """Names of fields; one that has a comma itself is given alone."""
    whole = [name for name in fields if any(column.matches(name) for column in sequence.columns)]
    rest = [name for name in fields if name not in whole]
    return whole + [name.strip() for each in rest for name in each.split(",") if name.strip()]


def _numbers(given: list[str], n: int) -> list[range]:
    """Record numbers from 0 on, as ranges.

    Raises:
        ArgumentError: There is no such record.
    """
    found: list[range] = []
    for text in given:
        try:
            parts = [int(part) if part or ":" not in text else None for part in text.split(":")]
            if len(parts) > 1:
                found.append(range(n)[slice(*parts)])
                continue
        except (ValueError, TypeError):
            raise typer.BadParameter(
                f"{text!r} is no record number: give numbers such as 17 or -1, ranges such as 10:20, -5: or 0:90:10"
            ) from None
        number = int(text)
        if not -n <= number < n:
            there = f"has 0 to {n - 1:,}" if n else "has none"
            raise PositionError(f"record {number} of a file of {n:,} records, which {there}")
        found.append(range(number % n, number % n + 1))
    return found


def _show_records(
    sequence: HyperSequence, numbers: list[range], picture: Path | None, *, overwrite: bool, as_json: bool
) -> None:
    """Print records, or draw them."""
    if picture is not None and as_json:
        raise typer.BadParameter("say --picture or --json, not both")
    if picture is None and overwrite:
        raise typer.BadParameter("--overwrite is for a --picture")
    if picture is not None:
        _save_picture(sequence, numbers, picture, overwrite=overwrite)
    elif as_json:
        _print_json(sequence, numbers)
    else:
        _print_records(sequence, numbers)


def _print_records(sequence: HyperSequence, numbers: list[range]) -> None:
    from ..report.readable import short_names, value_text
    from ..sequence.inside import read_columns
    from ..terminal import safe

    names = [safe(name) for name in short_names(sequence.columns)]
    width = max(map(len, names))
    if not any(numbers):
        say("no records")
    for number in chain(*numbers):
        typer.secho(f"record {number:,}", bold=True)
        for name, array in zip(names, read_columns(sequence, number, number + 1), strict=True):
            text = value_text(array[0]).replace("\n", "\n" + " " * (width + 4))
            say(f"  {name:<{width}}  {text}")


def _print_json(sequence: HyperSequence, numbers: list[range]) -> None:
    from ..report.readable import plain
    from ..schema import ROLES

    n_values = sum(map(len, numbers)) * sum(math.prod(column.field.shape) for column in sequence.columns)
    if n_values > _MOST_JSON_VALUES:
        raise ArgumentError(
            f"{n_values:,} values are too many for JSON, of which there may be {_MOST_JSON_VALUES:,}: choose fewer "
            "records, or --fields; hsq convert writes all of them to other formats"
        )
    records: list[dict[str, Any]] = []
    for number in chain(*numbers):
        roles = zip(ROLES, sequence.records[number], strict=False)
        records.append({"record": number, **{role: plain(value) for role, value in roles if value is not None}})
    typer.echo(json.dumps({"records": records}, allow_nan=False))


def _save_picture(sequence: HyperSequence, numbers: list[range], path: Path, *, overwrite: bool) -> None:
    from ..converting.placing import PartFolder
    from ..report import picture

    if not path.suffix:  # matplotlib would give it one
        raise ArgumentError(f"{path}: its name does not tell what to make; let it end in .png, .svg or .pdf")
    positions = numbers[0] if len(numbers) == 1 else list(chain(*numbers))
    figure: Any
    with PartFolder(path, overwrite=overwrite) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of signs that matplotlib's fonts do not have
        figure = picture(sequence, positions)
        try:
            figure.savefig(part.path)
        except ValueError as error:  # of an ending that it does not know
            raise ArgumentError(f"{path}: {error}") from None
        part.put_in_place()
    say(f"{path}: {len(positions)} {'record' if len(positions) == 1 else 'records'}")

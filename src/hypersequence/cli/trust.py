"""``hsq recover`` and ``hsq verify``: what is left, and whether it is what was written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FileError, HyperSequenceError, UnsupportedError
from .app import app, say
from .failing import told

# Commands import what they work with when they are called, so that none waits for what others need.
if TYPE_CHECKING:
    from ..report import Verification


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
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found or recovered as JSON.")] = False,
) -> None:
    """Make a readable file of what an interrupted writer left beside its target, every whole block of it.

    Without --out the part file itself is completed, and gets the name that it was to have. Blocks that had to be left
    out are told; the exit code is 0 all the same.

    Examples:
        hsq recover --list data/

        hsq recover data/train.hsq.5f0c21aa.part

        hsq recover data/train.hsq.5f0c21aa.part -o data/rescued.hsq

        hsq recover --clean data/
    """
    if show and clean:
        raise typer.BadParameter("say --list or --clean, not both")
    if clean and as_json:
        raise typer.BadParameter("--clean asks and tells in words; for JSON say --list")
    if yes and not clean:
        raise typer.BadParameter("--yes is for --clean")
    if (show or clean) and (out is not None or overwrite):
        raise typer.BadParameter("--out and --overwrite are for recovering, and --list and --clean do not")
    if show or clean:
        _list_parts(path, clean=clean, yes=yes, as_json=as_json)
        return
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder: say --list or --clean, or give a part file")
    from ..writer import recover as recover_file

    found = recover_file(path, out, overwrite=overwrite, progress=True)
    if as_json:
        left_out = [str(problem) for problem in found.broken]
        facts = {"path": str(found.path), "n_records": found.n_records, "n_blocks": found.n_blocks}
        typer.echo(json.dumps({**facts, "user_meta": found.user_meta, "left_out": left_out}))
        return
    keys = "1 key" if len(found.user_meta) == 1 else f"{len(found.user_meta)} keys"
    meta = f"user metadata with {keys}" if found.user_meta else "no user metadata"
    blocks = "1 block" if found.n_blocks == 1 else f"{found.n_blocks:,} blocks"
    say(f"{found.path}: {found.n_records:,} records in {blocks}, {meta}")
    for problem in found.broken:
        say(f"left out: {problem}")


def _list_parts(folder: Path, *, clean: bool, yes: bool, as_json: bool) -> None:
    from ..report.tables import TextTable
    from ..sequence.display import readable_nbytes
    from ..terminal import safe
    from ..writer import list_parts, remove_part
    from .info import print_table

    parts = list_parts(folder)
    if as_json:
        typer.echo(json.dumps([{**dataclasses.asdict(part), "path": str(part.path)} for part in parts]))
        return
    if not parts:
        say(f"No part files in {folder.absolute()}.")
        return
    rows = [
        (
            safe(str(part.path)),
            readable_nbytes(part.nbytes),
            f"{_readable_age(part.age_s)} ago",
            "being written" if part.in_use else "left behind",
        )
        for part in parts
    ]
    print_table(TextTable("", ("part file", "size", "last written", "state"), tuple(rows), frozenset({0, 3})))
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
        say(f"Removed {n_removed}.")


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

    With --json, what was repaired has "repaired_bytes", and what could not be read nothing but "path" and "error". The
    exit code is 0 if all files are what was written, 1 if one is not, 2 if one cannot be read.

    Examples:
        hsq verify data/*.hsq

        hsq verify train.hsq --repair-from /backup/train.hsq
    """
    if repair_from is not None and len(paths) != 1:
        raise typer.BadParameter("--repair-from mends one file at a time")
    from ..report import repair
    from ..report import verify as verify_file

    code = 0
    for path in paths:
        try:
            found, n_repaired = _verify(path, threads, unless_repaired=repair_from is not None), None
            if repair_from is not None and (found is None or not found.ok):
                if found is not None and not as_json:
                    _show_verification(found)
                n_repaired = repair(path, repair_from, progress=True)
                differed = "1 byte was" if n_repaired == 1 else f"{n_repaired:,} bytes were"
                if not as_json:
                    say(f"{differed} different, copied from {repair_from}")
                found = None
            found = found or verify_file(path, threads=threads, progress=True)
        except (HyperSequenceError, OSError) as error:
            typer.echo(f"error: {told(error, 'verify')}", err=True)
            if as_json:
                typer.echo(json.dumps({"path": str(path), "error": told(error, "verify")}))
            code = 2
            continue
        if as_json:
            typer.echo(json.dumps(_facts(found, n_repaired)))
        else:
            _show_verification(found)
        code = max(code, int(not found.ok))
    raise typer.Exit(code)


def _verify(path: Path, threads: int | None, *, unless_repaired: bool) -> Verification | None:
    """What is found; or nothing, if it is of a version that nobody knows and a good copy may tell that bit better."""
    from ..report import verify as verify_file

    try:
        return verify_file(path, threads=threads, progress=True)
    except UnsupportedError:
        if not unless_repaired:
            raise
        return None


def _facts(found: Verification, n_repaired: int | None) -> dict[str, Any]:
    names = ("path", "ok", "n_records", "n_blocks", "n_bytes", "has_checksums")
    facts: dict[str, Any] = {name: getattr(found, name) for name in names}
    problems = [{"message": str(problem), **problem.facts} for problem in found.problems]
    repaired = {} if n_repaired is None else {"repaired_bytes": n_repaired}
    return {**facts, "problems": problems, **repaired}


def _show_verification(found: Verification) -> None:
    from ..layout import UNREADABLE

    style = None if found.ok else "red"
    say(str(found), style=style)
    if any(problem.rule[0] in "TFI" or problem.rule == UNREADABLE for problem in found.problems):
        say(f"`hsq recover {found.path} -o OUT` writes every whole block to another file")


def _readable_age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"

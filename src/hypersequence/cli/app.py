"""The ``hsq`` command: what all subcommands share, and its entry point."""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

app = typer.Typer(
    name="hsq",
    help="Work with HyperSequence (.hsq) data sets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def _main() -> None:  # pyright: ignore[reportUnusedFunction] - or an only subcommand would be no subcommand
    pass


@cache
def console() -> Console:
    """Where tables are printed."""
    from rich.console import Console  # not at import time: it takes longer than most commands

    # Where the output is piped, a table is as wide as it needs to be: paths must stay whole.
    return Console(width=None if sys.stdout.isatty() else 200)


def show(what: RenderableType) -> None:
    """Print a table."""
    console().print(what)


def say(text: str, *, style: str | None = None) -> None:
    """A line of plain text, which is never wrapped, coloured by its content or taken for markup."""
    if style is None:
        typer.echo(text)
    else:
        console().print(text, style=style, soft_wrap=True, markup=False, highlight=False)

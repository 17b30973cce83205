"""The ``hsq`` command: what all subcommands share, and its entry point."""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from ..terminal import safe_lines
from .failing import fail

if TYPE_CHECKING:
    from rich.console import Console


class _Commands(TyperGroup):
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is not None and command.help is not None:
            command.help = _reflowed(command.help)
        return command

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:  # before Typer sees it, which would not say what is left
            raise fail(interrupt, ctx.invoked_subcommand) from None
        except typer.Abort as abort:  # at a question; or its answer does not come, since input is at its end
            if not isinstance(abort.__context__, KeyboardInterrupt):
                raise
            raise fail(abort.__context__, ctx.invoked_subcommand) from None


def _reflowed(text: str) -> str:
    """Help whose lines end where the terminal's do: Typer keeps those of a docstring, but for the first paragraph."""
    said, title, examples = inspect.cleandoc(text).partition("\n\nExamples:\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in said.split("\n\n")) + title + examples


app = typer.Typer(
    name="hsq",
    cls=_Commands,
    help="Work with HyperSequence (.hsq) data sets.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        say(f"hypersequence {__version__}")
        raise typer.Exit


@app.callback()
def _main(  # pyright: ignore[reportUnusedFunction] - or an only subcommand would be no subcommand
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@cache
def console() -> Console:
    """Where tables are printed."""
    from rich.console import Console  # not at import time: it takes longer than most commands

    # Where the output is piped, a table is as wide as it needs to be: paths must stay whole.
    return Console(width=None if sys.stdout.isatty() else 200)


def say(text: str, *, style: str | None = None) -> None:
    """A line of plain text, which is never wrapped, coloured by its content or taken for markup."""
    text = safe_lines(text)
    if style is None:
        typer.echo(text)
    else:
        console().print(text, style=style, soft_wrap=True, markup=False, highlight=False)

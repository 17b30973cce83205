"""Writes ``docs/commands.md`` from the help of the ``hsq`` command: ``python docs/make_commands.py``.

A test compares the two, so that the page cannot fall behind.
"""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import Any

import typer.main

from hypersequence.cli import load_commands
from hypersequence.cli.app import app

PAGE = Path(__file__).parent / "commands.md"
INTRODUCTION = """\
# The `hsq` command

What each subcommand does, from its own help (`hsq COMMAND --help`); `hsq --version` tells the version. Tables are
printed as JSON with `--json`. Exit codes are 0 for done, 1 for damage found or an error on the way, 2 for a mistake in
what was typed, a file that cannot be read or must not be replaced, 130 after Ctrl-C. What goes through a
file for over a second shows a progress bar on a terminal, and nothing elsewhere.

"""


def page() -> str:
    """The page as it should be."""
    load_commands()
    commands: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    listed = ", ".join(f"[{name}](#hsq-{name})" for name in sorted(commands))
    return INTRODUCTION + f"{listed}\n" + "".join(_section(name, commands[name]) for name in sorted(commands))


def _section(name: str, command: Any) -> str:
    text, _, examples = inspect.cleandoc(command.callback.__doc__).partition("\n\nExamples:\n")
    lines = [f"\n## hsq {name}\n", text, ""]
    if examples:
        shown = [line for line in textwrap.dedent(examples).splitlines() if line]
        lines += ["```console", *shown, "```", ""]
    lines += ["| | |", "| --- | --- |", *map(_row, command.params)]
    return "\n".join(lines) + "\n"


def _row(param: Any) -> str:
    opts = [*param.opts, *param.secondary_opts]
    names = opts if opts[0].startswith("-") else [param.metavar or param.name.upper()]
    shown = ", ".join(f"`{each}`" for each in names)
    default = param.default
    told = (
        "" if default is None or callable(default) or default in (False, [], ()) else f" Default: `{_plain(default)}`."
    )
    return f"| {shown} | {(param.help or '').replace('|', ' or ')}{told} |"


def _plain(default: Any) -> str:
    return "yes" if default is True else str(getattr(default, "value", default))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

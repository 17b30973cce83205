"""The ``hsq`` command. A module here has the subcommands of one purpose."""

from __future__ import annotations

import io
import os
import sys
import warnings
from importlib import import_module

#: In which module each subcommand is. Only that one is imported: Typer takes milliseconds for every option that it is
#: told of, and importing what it checks them with takes as long as NumPy.
COMMANDS = {
    "bench": "bench",
    "convert": "data",
    "demo": "demo",
    "formats": "data",
    "head": "look",
    "info": "look",
    "merge": "data",
    "recover": "trust",
    "sample": "data",
    "show": "look",
    "split": "data",
    "stats": "look",
    "upgrade": "data",
    "verify": "trust",
}


def main() -> None:
    """The entry point: errors made for people are shown without a traceback."""
    for stream in (sys.stdout, sys.stderr):  # names of files are any bytes, and no error is worth another one
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = sys.argv[1:]
    try:
        from ..errors import HyperSequenceError
        from .failing import fail, warn

        warnings.showwarning = warn
        try:
            try:
                _run(arguments)
            finally:
                if sys.stdout is not None:  # as it is where it was closed from the beginning
                    sys.stdout.flush()  # here, where it can be told that nobody reads it
        except BrokenPipeError:  # as that of ``hsq info ... | head -1``, which knows enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains at its end
            raise SystemExit(1) from None  # as Typer has it where it comes by such a one first
        except (HyperSequenceError, OSError) as error:
            raise fail(error, arguments[0] if arguments else "") from None
    except KeyboardInterrupt:  # while something was imported: what commands do is looked after in app
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _run(arguments: list[str]) -> None:
    if arguments[:1] == ["info"] and not any(each.startswith("-") and each != "--json" for each in arguments[1:]):
        # Typer takes longer to begin than all of this does.
        from .info import show_info

        paths = [each for each in arguments[1:] if each != "--json"]
        if paths:
            raise SystemExit(show_info(paths, as_json="--json" in arguments))
    load_commands(arguments[0] if arguments else "")
    from .app import app

    app()


def load_commands(name: str = "") -> None:
    """Import the module of a subcommand, so that the command knows it; all of them if there is no such one."""
    for module in [COMMANDS[name]] if name in COMMANDS else sorted(set(COMMANDS.values())):
        import_module(f".{module}", __name__)

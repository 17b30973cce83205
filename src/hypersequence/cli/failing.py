"""Errors as the command tells them: in terms of its own options, and with an exit code."""

from __future__ import annotations

import errno
import re
import sys
from typing import Any

from ..errors import ArgumentError, ChecksumError, FileChangedError, FormatError, PositionError
from ..terminal import safe_lines

#: What messages advise those who write Python, and the same for those who type.
_ADVICE = (
    (r"HyperSequenceWriter\.resume goes on with it", "the same command with --resume goes on with it"),
    (r"\(overwrite(=True)?\)", "(--overwrite)"),
    (r"\bsay overwrite\b", "say --overwrite"),
    (r"\bresume=True\b", "--resume"),
    (r"\bwithout resume\b", "without --resume"),
    (r"\((?:from_|to)=, (--\w+)\)", r"(\1)"),
    (r"\b(inputs|outputs)=(?=\s|$)", r"--\1"),  # not those of a schema's repr
    (r"split\(\.\.\., by='record'\)", "--by record"),
    (r"\bbatch_size (?=\d)", "--batch-size "),
    (r"open the files in it with hypersequence\.open\('(.*)'\)", r"give the files in it: \1"),
)
#: The disk has no room.
_FULL = {errno.ENOSPC, errno.EDQUOT}
#: What only some can do.
_GOING_ON = ", the same command with --resume goes on with it"


def fail(error: BaseException, command: str) -> SystemExit:
    """Say what went wrong.

    Args:
        error: Any error, or Ctrl-C.
        command: The subcommand that met it.

    Returns:
        What ends the program.
    """
    interrupted = isinstance(error, KeyboardInterrupt)
    title = "interrupted" if interrupted else "error:"
    styled = f"\x1b[1;31m{title}\x1b[0m" if sys.stderr.isatty() else title
    notes = [in_options(note, command) for note in getattr(error, "__notes__", ())]
    lines = [styled if interrupted else f"{styled} {told(error, command)}", *map(safe_lines, notes)]
    print("\n".join(lines), file=sys.stderr)
    return SystemExit(exit_code(error))


def told(error: BaseException, command: str) -> str:
    """An error's message for people who typed a command."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:  # one of the system's
        return safe_lines(f"{error.filename}: {error.strerror[:1].lower()}{error.strerror[1:]}")
    return safe_lines(in_options(str(error), command))


def in_options(text: str, command: str) -> str:
    """A message that speaks of Python's arguments, in terms of the command's options.

    >>> in_options("a.hsq exists already; allow that it is replaced (overwrite=True)", "merge")
    'a.hsq exists already; allow that it is replaced (--overwrite)'
    """
    for pattern, words in _ADVICE:
        text = re.sub(pattern, words, text)
    if command not in ("convert", "merge"):
        text = text.replace(_GOING_ON, "")
    if command != "convert":
        return text.replace("fields()", "--fields")
    text = text.replace("fields()", "--inputs and --outputs")
    text = re.sub(r"(?<=has no use for ).+(?=; leave that out)", _dashed, text)
    from ..converting.registry import formats

    names = {option.name for each in formats().values() for option in each.options}
    return re.sub(rf"(?<![\w-])(?=(?:{'|'.join(sorted(names))})=)", "-O ", text)


def _dashed(names: re.Match[str]) -> str:
    return ", ".join("--" + name.replace("_", "-") for name in names[0].split(", "))


def exit_code(error: BaseException) -> int:
    """1 for damage and for what went wrong on the way, 2 for what could not work: names, numbers, unreadable files."""
    if isinstance(error, KeyboardInterrupt):
        return 130  # as shells have it
    if isinstance(error, ArgumentError | PositionError):
        return 2
    if isinstance(error, FormatError):
        return 1 if isinstance(error, ChecksumError) else 2
    if not isinstance(error, OSError) or isinstance(error, FileChangedError):
        return 1
    return 1 if {error.errno, getattr(error.__cause__, "errno", None)} & _FULL else 2


def warn(message: Warning | str, *_: Any) -> None:
    """Takes the place of ``warnings.showwarning``: those who type do not ask for a line of the source."""
    print(f"warning: {safe_lines(str(message))}", file=sys.stderr)

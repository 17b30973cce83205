"""Text that may come from a file, or be its name, and that does nothing to a terminal."""

from __future__ import annotations

import unicodedata

_LONGEST_TEXT = 2000
#: What moves the cursor, ends the line or turns the direction of what follows is shown by its number.
_ODD_KINDS = {"Cc", "Cs", "Zl", "Zp"}
_TURNING = {*range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def safe(text: str, longest: int = _LONGEST_TEXT) -> str:
    r"""Text on one line; a long one is cut.

    >>> safe("Größe\x1b[2J"), safe("0123456789", 4)
    ('Größe\\x1b[2J', '0123... (10 characters)')
    """
    shown = "".join(
        ascii(sign)[1:-1] if unicodedata.category(sign) in _ODD_KINDS or ord(sign) in _TURNING else sign
        for sign in text[:longest]
    )
    return shown if len(text) <= longest else f"{shown}... ({len(text):,} characters)"


def safe_lines(text: str) -> str:
    r"""Text on several lines, all of it.

    >>> print(safe_lines("one\ntwo\x1b[2J"))
    one
    two\x1b[2J
    """
    return "\n".join(safe(line, len(line)) for line in text.split("\n"))

"""Progress bars: on a terminal, for what takes over a second, and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

PROGRAM = """
import sys, time
from hypersequence.progress import ByteProgress, RecordProgress

kind, total, seconds = sys.argv[1], int(sys.argv[2]) or None, float(sys.argv[3])
with {"bytes": ByteProgress, "records": RecordProgress}[kind]("working", total, True) as bar:
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        bar.advance(1000)
        time.sleep(0.05)
"""


def shown(kind: str, total: int, seconds: float, *, terminal: bool = True) -> str:
    """What a program writes to its standard error."""
    command = [sys.executable, "-c", PROGRAM, kind, str(total), str(seconds)]
    if not terminal:
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stderr=theirs, stdin=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    found = b""
    try:
        while piece := os.read(ours, 4096):
            found += piece
    except OSError:  # how a terminal says that nobody writes any more
        pass
    os.close(ours)
    assert process.wait() == 0
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", found.decode())


@pytest.mark.parametrize(
    ("kind", "total", "expected"),
    [
        ("bytes", 100_000, r"working .*[\d.]+/97\.7 KiB .*KiB/s|working .*kB"),
        ("records", 100_000, r"working .*[\d,]+ of 100,000 records, [\d,]+ a second"),
        ("records", 0, r"working .*[\d,]+ records, [\d,]+ a second"),
    ],
)
def test_a_bar_with_rate_on_a_terminal(kind: str, total: int, expected: str) -> None:
    assert re.search(expected, shown(kind, total, 2.2))


def test_nothing_for_what_is_over_in_a_second() -> None:
    assert shown("records", 100, 0.3) == ""


def test_nothing_where_there_is_no_terminal() -> None:
    assert shown("bytes", 100_000, 1.5, terminal=False) == ""

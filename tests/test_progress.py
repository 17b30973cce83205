"""Progress bars: on a terminal, for what takes over a second, and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

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


#: Writes records that print something when they are made, for longer than a second.
WRITES = """
import sys, time
import hypersequence as hs

def records(first):
    for i in range(25):
        print("record", i)
        time.sleep(0.06)
        yield i

if sys.argv[1] == "write":
    hs.write(sys.argv[2], records, progress=True)
else:
    with hs.HyperSequenceWriter(sys.argv[2], 1, progress=True, block_nbytes=1) as writer:
        for i in records(0):
            writer.append(i)
"""


def shown(kind: str, total: int, seconds: float, *, terminal: bool = True) -> str:
    """What a program writes to its standard error."""
    command = [sys.executable, "-c", PROGRAM, kind, str(total), str(seconds)]
    if not terminal:
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr
    return on_terminal(command)


def on_terminal(command: list[str], stdout: Any = None) -> str:
    """What a program writes to a terminal that is its standard error."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(command, stdout=stdout, stderr=theirs, stdin=subprocess.DEVNULL, env=environment)
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


@pytest.mark.parametrize("how", ["write", "writer"])
def test_what_is_printed_meanwhile_stays_where_it_was_sent(tmp_path: Path, how: str) -> None:
    """And names are text: no markup, nothing that moves a terminal's cursor."""
    name = "[bold]a\x1b[2J.hsq" if how == "write" else "[bold]b.hsq"
    with (tmp_path / "out.txt").open("w") as out:
        seen = on_terminal([sys.executable, "-c", WRITES, how, str(tmp_path / name)], out)
    assert (tmp_path / "out.txt").read_text() == "".join(f"record {i}\n" for i in range(25))
    assert ("[bold]a\\x1b[2J.hsq" if how == "write" else "[bold]b.hsq: ") in seen
    assert "record 1" not in seen
    if how == "writer":
        assert re.search(r"\d+ records, \d+ a second", seen)

"""Shared by the tests: small files and what they must contain."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from tried import TRIED

#: Tests that take chances take so many times as many in the long form: CONTRIBUTING.md.
LONG = int(os.environ.get("HSQ_LONG", "1"))


def pytest_configure() -> None:
    """Who runs tests in the background has them, and the processes that they start, ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that runs a part of the tests hands over what it has tried."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tried"] = dict(TRIED)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Such a process has ended."""
    TRIED.update(getattr(node, "workeroutput", {}).get("tried", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What came of each is asserted by the tests; how often it was tried stands in docs/promises.md."""
    for what, count in sorted(TRIED.items()):
        terminalreporter.write_line(f"tried: {count:,} {what}")


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """103 records of (float32 (3, 5) full of the number, the number), 8 a batch, several blocks, a short tail."""
    return write_numbered(tmp_path / "numbered.hsq")


def write_numbered(path: Path) -> Path:
    """The records of ``numbered``."""
    with hs.HyperSequenceWriter(path, batch_size=8, block_nbytes=1500) as writer:
        for i in range(103):
            writer.append(inputs=np.full((3, 5), i, np.float32), outputs=i)
    return path


def labels(sequence: hs.HyperSequence) -> list[int]:
    """The labels of every batch in turn; checks that inputs and outputs still belong together."""
    found: list[int] = []
    for inputs, outputs in sequence:
        assert (inputs == outputs.astype(np.float32)[:, None, None]).all()
        found += outputs.tolist()
    return found

"""What is shown on a terminal while something takes long: a line that counts records, a bar that counts bytes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self


class RecordCounter:
    """Shows how many records were written and how fast; does nothing unless asked, and nothing off a terminal."""

    def __init__(self, name: str, enabled: bool) -> None:
        self._name = name
        self._enabled = enabled
        self._status: Any = None
        self._started = time.monotonic()

    def show(self, n_records: int) -> None:
        """Update the line."""
        if not self._enabled:
            return
        if self._status is None:
            from rich.console import Console  # not at import time: few writers show progress

            console = Console(stderr=True)
            self._enabled = console.is_terminal
            if not self._enabled:
                return
            self._status = console.status("")
            self._status.start()
        rate = n_records / max(1e-9, time.monotonic() - self._started)
        self._status.update(f"{self._name}: {n_records:,} records, {rate:,.0f} a second")

    def stop(self) -> None:
        """Take the line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


class ByteProgress:
    """A bar with rate and time left; does nothing unless asked, and nothing off a terminal.

    Args:
        what: What is going on, in a few words.
        n_bytes: How many bytes it takes.
        enabled: Whether it was asked for.
    """

    def __init__(self, what: str, n_bytes: int, enabled: bool) -> None:
        self._what, self._n_bytes, self._enabled = what, n_bytes, enabled
        self._bar: Any = None

    def __enter__(self) -> Self:
        if self._enabled:
            from rich import progress
            from rich.console import Console

            console = Console(stderr=True)
            if console.is_terminal:
                columns = (
                    progress.TextColumn("{task.description}", markup=False),
                    progress.BarColumn(),
                    progress.DownloadColumn(binary_units=True),
                    progress.TransferSpeedColumn(),
                    progress.TimeRemainingColumn(),
                )
                self._bar = progress.Progress(*columns, console=console, transient=True)
                self._task = self._bar.add_task(self._what, total=self._n_bytes)
                self._bar.start()
        return self

    def advance(self, n_bytes: int) -> None:
        """So many bytes more are done; from any thread."""
        if self._bar is not None:
            self._bar.advance(self._task, n_bytes)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

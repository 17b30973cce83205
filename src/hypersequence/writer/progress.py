"""A line that counts records on a terminal."""

from __future__ import annotations

import time
from typing import Any


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

"""What is shown on a terminal while something takes long: a line or a bar that counts."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Any, Self

from .terminal import safe

#: Bars that are there, whether or not anything of them is shown yet.
_bars: set[Progress] = set()


class RecordCounter:
    """Shows how many records were written and how fast; does nothing unless asked, off a terminal, or beside a bar."""

    def __init__(self, name: str, enabled: bool) -> None:
        self._name = safe(name)
        self._enabled = enabled
        self._live: Any = None
        self._started = time.monotonic()

    def show(self, n_records: int) -> None:
        """Update the line."""
        if not self._enabled or _bars:
            return
        if self._live is None:
            from rich.console import Console  # not at import time: few writers show progress
            from rich.live import Live
            from rich.spinner import Spinner
            from rich.text import Text

            console = Console(stderr=True)
            self._enabled = console.is_terminal
            if not self._enabled:
                return
            self._line, self._text = Spinner("dots"), Text
            self._live = Live(self._line, console=console, transient=True, redirect_stdout=_is_terminal())
            self._live.start()
        rate = n_records / max(1e-9, time.monotonic() - self._started)
        self._line.update(text=self._text(f"{self._name}: {n_records:,} records, {rate:,.0f} a second"))

    def stop(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


class Progress:
    """A bar with rate and time left; does nothing unless asked, nothing off a terminal, and nothing for a second.

    Args:
        what: What is going on, in a few words.
        total: How much there is to do; ``None`` if only the end tells.
        enabled: Whether it was asked for.
        done: How much of it is done already.
    """

    def __init__(self, what: str, total: int | None, enabled: bool, done: int = 0) -> None:
        self._what, self._total, self._enabled, self._done = safe(what), total, enabled, done
        self._bar: Any = None
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        if self._enabled:
            # Here and not in advance(): of two threads at an import, one of which Ctrl-C ends, the other may hang.
            from rich import progress
            from rich.console import Console

            self._console, self._rich = Console(stderr=True), progress
            self._enabled = self._console.is_terminal
        if self._enabled:
            _bars.add(self)
        return self

    def advance(self, count: int) -> None:
        """So much more is done; from any thread."""
        if not self._enabled:
            return
        with self._lock:
            self._done += count
            if self._bar is not None:
                self._bar.update(self._task, completed=self._done)
            elif time.monotonic() - self._started > 1:
                self._begin()

    def _begin(self) -> None:
        progress = self._rich
        shown = progress.BarColumn(), *self._columns(progress), progress.TimeRemainingColumn()
        columns = progress.TextColumn("{task.description}", markup=False), *shown
        bar = progress.Progress(*columns, console=self._console, transient=True, redirect_stdout=_is_terminal())
        self._task = bar.add_task(self._what, total=self._total, completed=self._done)
        bar.start()
        self._bar = bar

    def _columns(self, progress: Any) -> tuple[Any, ...]:
        """What is counted, and how fast."""
        raise NotImplementedError

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        _bars.discard(self)
        if self._bar is not None:
            self._bar.stop()


def _is_terminal() -> bool:
    """Whether what is printed meanwhile would be written over the bar; elsewhere it must stay where it was sent."""
    return sys.stdout is not None and sys.stdout.isatty()  # pyright: ignore[reportUnnecessaryComparison]


class ByteProgress(Progress):
    """A bar that counts bytes."""

    def _columns(self, progress: Any) -> tuple[Any, ...]:
        return progress.DownloadColumn(binary_units=True), progress.TransferSpeedColumn()


class RecordProgress(Progress):
    """A bar that counts records."""

    def _columns(self, progress: Any) -> tuple[Any, ...]:
        from rich.text import Text  # which comes with progress

        class Speed(progress.ProgressColumn):
            def render(self, task: Any) -> Any:
                of = "" if task.total is None else f" of {int(task.total):,}"
                speed = "" if task.speed is None else f", {task.speed:,.0f} a second"
                return Text(f"{int(task.completed):,}{of} records{speed}", style="progress.data.speed")

        return (Speed(),)

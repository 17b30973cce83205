"""What a process and its children use: processor time and memory, as the kernel counts them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found, index = [pid], 0
    while index < len(found):
        for task in _list(Path(f"/proc/{found[index]}/task")):
            found += [int(child) for child in _read(task / "children").split()]
        index += 1
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its descendants, dead ones that were waited for included."""
    total = 0
    for each in family(pid):
        fields = _read(Path(f"/proc/{each}/stat")).rpartition(")")[2].split()
        if fields:
            total += sum(map(int, fields[11:13]))
            if each == pid:
                total += sum(map(int, fields[13:15]))
    return total / _TICK


def memory_nbytes(pid: int) -> dict[str, int]:
    """Proportional set size of a family: all of it, and what no file stands behind and cannot be dropped."""
    total = {"pss": 0, "anonymous": 0}
    for each in family(pid):
        for line in _read(Path(f"/proc/{each}/smaps_rollup")).splitlines():
            name, _, rest = line.partition(":")
            if name == "Pss":
                total["pss"] += int(rest.split()[0]) << 10
            elif name in ("Pss_Anon", "Pss_Shmem"):
                total["anonymous"] += int(rest.split()[0]) << 10
    return total


class Peak:
    """The largest memory of a family while a block runs, looked at every so many seconds."""

    def __init__(self, pid: int, seconds: float = 0.05) -> None:
        self._pid, self._seconds = pid, seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak = memory_nbytes(pid)

    def _watch(self) -> None:
        while not self._over.is_set():
            for name, nbytes in memory_nbytes(self._pid).items():
                self.peak[name] = max(self.peak[name], nbytes)
            time.sleep(self._seconds)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _list(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # it has ended meanwhile
        return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""

"""Less memory than there are data: a control group with a limit, where the machine lets us make one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class NoLimit(Exception):
    """No control group can be made here, and why."""


@contextmanager
def memory_limit(nbytes: int) -> Iterator[Path]:
    """A control group with so much memory, page cache included.

    Raises:
        NoLimit: None can be made here.
    """
    group = _parent() / f"benchmark-{os.getpid()}"
    try:
        group.mkdir()
        limit = "memory.max" if (group / "memory.max").exists() else "memory.limit_in_bytes"
        (group / limit).write_text(str(nbytes))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        raise NoLimit(f"no control group with a memory limit: {error}") from error
    try:
        yield group
    finally:
        for _ in range(50):  # those in it end a moment after they were killed
            with suppress(OSError):
                group.rmdir()
                break
            time.sleep(0.1)


def _parent() -> Path:
    """The control group of this process, in whichever of the two systems counts memory."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        number, controllers, path = line.split(":", 2)
        if controllers == "memory":
            return Path("/sys/fs/cgroup/memory") / path.lstrip("/")
        if number == "0" and Path("/sys/fs/cgroup/cgroup.controllers").exists():
            return Path("/sys/fs/cgroup") / path.lstrip("/")
    raise NoLimit("no control groups that count memory")

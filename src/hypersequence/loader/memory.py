"""How much memory there is: of the machine, and of the control groups that this process is in."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

#: Which control groups this process is in.
_MEMBERSHIP = Path("/proc/self/cgroup")
#: Control groups of version 2 and 1: where they are, the file with the limit, and what is counted that cannot be
#: dropped.
_VERSIONS = {
    "": (Path("/sys/fs/cgroup"), "memory.max", "anon"),
    "memory": (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "total_rss"),
}


@cache  # half a millisecond, at the beginning of every pass otherwise
def allowed_nbytes() -> int:
    """Memory that this process may use, the page cache included: the machine's, or its control group's if that is less.

    What it was when this was first asked.

    >>> allowed_nbytes() > 0
    True
    """
    found = [_of_machine() or 8 << 30, _least_of_groups(limit_nbytes)]
    return min(nbytes for nbytes in found if nbytes is not None)


def available_nbytes() -> int | None:
    """Memory that is free or could be, the page cache included; ``None`` where the system does not tell.

    >>> available_nbytes() is None or available_nbytes() > 0
    True
    """
    found = [_free_of_machine(), _least_of_groups(left_nbytes)]
    return min((nbytes for nbytes in found if nbytes is not None), default=None)


def limit_nbytes(group: Path) -> int | None:
    """The memory limit of a control group.

    Returns:
        ``None`` if there is none.
    """
    for _, name, _ in _VERSIONS.values():
        with suppress(OSError, ValueError):  # another version's file is not there; "max" is no number, and no limit
            return int((group / name).read_text())
    return None


def left_nbytes(group: Path) -> int | None:
    """What the memory limit of a control group leaves beside what cannot be dropped.

    Returns:
        ``None`` if there is no limit.
    """
    limit = limit_nbytes(group)
    if limit is None:
        return None
    with suppress(OSError, ValueError):
        counted = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return max(0, limit - sum(int(counted.get(name, 0)) for _, _, name in _VERSIONS.values()))
    return limit


def _of_machine() -> int | None:
    with suppress(AttributeError, OSError, ValueError):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _free_of_machine() -> int | None:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    total = _of_machine()  # a system that tells only how much it has in all
    return None if total is None else total // 2


def _least_of_groups(figure: Callable[[Path], int | None]) -> int | None:
    """The least of a figure over the control groups of this process and those that these are in."""
    found: list[int] = []
    with suppress(OSError):
        for line in _MEMBERSHIP.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            for controller, (root, _, _) in _VERSIONS.items():
                if controller in controllers.split(","):
                    # In a container the path may be the host's, which is not there; the root is the container's then.
                    own = root / path.lstrip("/")
                    groups = [own, *(each for each in own.parents if each.is_relative_to(root))]
                    found += [nbytes for each in groups if (nbytes := figure(each)) is not None]
    return min(found, default=None)

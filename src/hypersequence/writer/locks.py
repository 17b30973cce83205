"""Who holds a part file, so that nobody cleans it up or takes it over meanwhile."""

from __future__ import annotations

import time
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows, where an open file can be neither renamed nor removed anyway
    fcntl = None

_TRIES, _WAIT_S = 20, 0.01


def try_lock(fd: int) -> bool:
    """Hold a file until its descriptor is closed; ``False`` if another process does.

    File systems without locks let everybody have it.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_WAIT_S)  # somebody may just have been looking at it
        if not is_locked(fd, exclusive=True):
            return True
    return False


def is_locked(fd: int, *, exclusive: bool = False) -> bool:
    """Whether another process holds a file; if none does, this one has the lock until it closes the descriptor.

    Args:
        fd: The file. Some file systems give an exclusive lock only to who may write it.
        exclusive: Whether to keep out those who only look, too.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    return False


def unlock(fd: int) -> None:
    """Let go of a file for processes that were forked meanwhile as well."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_UN)

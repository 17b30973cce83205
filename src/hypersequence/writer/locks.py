"""Who holds a part file, so that nobody cleans it up or takes it over meanwhile."""

from __future__ import annotations

import os
import time
from contextlib import suppress

try:
    import fcntl
except ImportError:  # Windows, where an open file can be neither renamed nor removed anyway
    fcntl = None

_TRIES, _WAIT_S = 20, 0.01
#: Where there are no locks, a file that was written to more recently than this is not taken over, or not removed.
QUIET_S, LONG_QUIET_S = 60.0, 86400.0


def try_lock(fd: int, *, quiet_s: float = QUIET_S) -> bool:
    """Hold a file until its descriptor is closed; ``False`` if another process does.

    File systems without locks let everybody have it, unless it was written to in the last ``quiet_s`` seconds: 0 for a
    file that the caller has made.
    """
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(_WAIT_S)  # somebody may just have been looking at it
        if not is_locked(fd, exclusive=True, quiet_s=quiet_s):
            return True
    return False


def is_locked(fd: int, *, exclusive: bool = False, quiet_s: float = LONG_QUIET_S) -> bool:
    """Whether another process holds a file; if none does, this one has the lock until it closes the descriptor.

    Args:
        fd: The file. Some file systems give an exclusive lock only to who may write it.
        exclusive: Whether to keep out those who only look, too.
        quiet_s: On a file system without locks, somebody is taken to hold a file that was written to in the last so
            many seconds.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return abs(time.time() - os.fstat(fd).st_mtime) < quiet_s
    return False


def unlock(fd: int) -> None:
    """Let go of a file for processes that were forked meanwhile as well."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_UN)

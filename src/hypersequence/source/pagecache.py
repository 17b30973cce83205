"""What the page cache of Linux tells: whether bytes of a file are there, and how much of one it takes at a time."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


def _mincore() -> Any:
    if sys.platform != "linux":
        return None
    mincore = ctypes.CDLL(None).mincore
    mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    return mincore


_MINCORE = _mincore()
#: What disks read ahead if nobody says otherwise, and so the least that they can be asked for at a time.
_LEAST_NBYTES = 128 << 10
_MOST_NBYTES = 2 << 20
_SYS = Path("/sys")


def address_of(mapping: memoryview) -> int:
    """Where a mapping begins in memory."""
    return np.frombuffer(mapping, np.uint8).ctypes.data


def is_absent(address: int, offset: int) -> bool:
    """Whether a byte of a mapped file is known not to be in the page cache.

    Of files that this process does not own and may not write to, the system calls everything present.
    """
    found = ctypes.create_string_buffer(1)
    page = address + offset // mmap.PAGESIZE * mmap.PAGESIZE
    return _MINCORE is not None and _MINCORE(page, 1, found) == 0 and not found.raw[0] & 1


def reads_at_once(fd: int, offset: int) -> bool:
    """Whether a byte is read without waiting; ``False`` where the system does not tell.

    Where it is not there the system begins to read it, and if it is quicker than we are, it was: :func:`n_blocks_read`
    tells.
    """
    try:
        os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT)
    except (OSError, AttributeError):  # not there; no such flag on this system, or not for this file system
        return False
    return True


def n_blocks_read() -> int:
    """How much this thread has had disks read, in blocks of 512 bytes; always 0 where the system does not tell."""
    try:
        import resource

        return resource.getrusage(resource.RUSAGE_THREAD).ru_inblock
    except (ImportError, AttributeError):
        return 0


@cache
def asked_nbytes(device: int) -> int:
    """How much is read of a file on a device when the system is asked to read ahead once.

    That is the disk's own read-ahead, or what it takes in one request if that is more; what goes beyond is forgotten
    without a word. Of devices that tell neither, the least.
    """
    found = [each for name in ("max_sectors_kb", "read_ahead_kb") if (each := _told(device, name)) is not None]
    return min(max([_LEAST_NBYTES, *found]), _MOST_NBYTES)


@cache
def read_ahead_nbytes(device: int) -> int | None:
    """How far the system reads ahead by itself where a file on a device is read in a row; ``None`` if nobody tells.

    Of file systems that are made of others, as containers have, nobody does.
    """
    return _told(device, "read_ahead_kb")


def _told(device: int, name: str) -> int | None:
    """What a device tells of itself in KiB; of several answers the largest."""
    number = f"{os.major(device)}:{os.minor(device)}"
    disk = (_SYS / "dev/block" / number).resolve()
    found: list[int] = []
    for queue in (disk / "queue", disk.parent / "queue", _SYS / "class/bdi" / number):  # a disk, its part, or none
        with suppress(OSError, ValueError):
            found.append(int((queue / name).read_text()) << 10)
    return max(found, default=None)

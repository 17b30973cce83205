"""Names on disk."""

from __future__ import annotations

import errno
import os
from pathlib import Path

#: What network and user-space file systems say that do not flush folders.
_NO_FLUSH = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES}


def give_name(path: Path, target: Path) -> None:
    """Give a file a name that no other has: a hard link never replaces what came up meanwhile, as a rename would.

    Where the file system has no such links, it gets the name instead of its own.

    Raises:
        FileExistsError: Something has this name.
        OSError: The file system refused.
    """
    try:
        os.link(path, target)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        path.replace(target)


def flush_folder(folder: Path) -> None:
    """Have the names in a folder on disk, where the system can be told so.

    Raises:
        OSError: The disk failed to take them.
    """
    if os.name != "posix":
        return  # Windows has no such call; its rename is in the journal
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder that may be written to and not be listed
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(descriptor)

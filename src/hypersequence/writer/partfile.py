"""The file that a writer fills beside its target, and what becomes of it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import FileError
from ..layout import MAGIC

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be removed anyway
    fcntl = None

_EARLY_NBYTES = 1 << 20
#: A call with more makes the system look for pages of the page cache in pieces of many MiB, which may take ten times as
#: long as the copying: 0.3 GB/s were seen with calls of 4 MiB, and 3 GB/s with these.
_CALL_NBYTES = 1 << 20
_HAS_FADVISE = hasattr(os, "posix_fadvise")
_NAME = re.compile(r".+\.[0-9a-f]{8}\.part")


class PartFile:
    """A uniquely named file beside the target, written from front to back."""

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        # A link is followed, so that the data go where it points and the link stays.
        self.target = Path(os.path.realpath(target))
        self._overwrite = overwrite
        if self.target.is_dir():
            raise FileError(f"{self.target} is a directory; give the name of a file")
        if self.target.exists() and not self.target.is_file():
            raise FileError(f"{self.target} is no regular file, and would be replaced by one; give another name")
        if not overwrite and self.target.exists():
            raise self._exists()
        self.path = self.target.with_name(f"{self.target.name}.{secrets.token_hex(4)}.part")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            self._fd = os.open(self.path, flags, 0o666)
        except OSError as error:
            raise FileError(f"{self.target}: cannot write into its folder: {error}") from error
        if fcntl is not None:
            # Tells `hsq recover --clean` that somebody is still writing. Some network file systems have no locks.
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.nbytes = 0

    def _exists(self) -> FileError:
        return FileError(f"{self.target} exists already; remove it, or leave out overwrite=False")

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes, all of them, and have the system begin to write large pieces to disk.

        Raises:
            FileError: The file system refused; what was written before is whole.
        """
        rest, start = memoryview(data), self.nbytes
        try:
            while len(rest):
                done = os.write(self._fd, rest[:_CALL_NBYTES])
                self.nbytes += done
                rest = rest[done:]
            if len(data) >= _EARLY_NBYTES and _HAS_FADVISE:
                # On dirty pages this advice begins their writing, so that the flush at the end finds little left to
                # do; pages that are not clean stay in the cache.
                os.posix_fadvise(self._fd, start, len(data), os.POSIX_FADV_DONTNEED)
        except OSError as error:
            raise FileError(
                f"{self.path}: writing failed after {self.nbytes} bytes: {error}", path=str(self.path)
            ) from error

    def go_back(self, nbytes: int) -> None:
        """Forget what was written behind this place: a write that failed in the middle may have left a piece."""
        if self.nbytes != nbytes:
            os.ftruncate(self._fd, nbytes)
            os.lseek(self._fd, nbytes, os.SEEK_SET)
            self.nbytes = nbytes

    def commit(self) -> None:
        """Flush to disk, put in place of the target, flush the folder.

        Raises:
            FileError: Flushing failed, or the target exists and must not be replaced; the part file stays.
        """
        try:
            if hasattr(os, "fchmod") and self._overwrite and self.target.exists():
                os.fchmod(self._fd, stat.S_IMODE(self.target.stat().st_mode))  # a private file stays private
            os.fsync(self._fd)
            if os.name != "posix":
                self._release()  # Windows moves no open file; elsewhere its lock is held until the move is done
            if self._overwrite:
                self.path.replace(self.target)
            else:
                self._link()
            self._release()
            self._flush_folder()
        except OSError as error:
            if isinstance(error, FileError):
                raise
            raise FileError(
                f"{self.target}: could not be put in place: {error}; the data are in {self.path}"
            ) from error

    def _link(self) -> None:
        """A hard link never replaces a file that came up meanwhile, as a rename would."""
        try:
            os.link(self.path, self.target)
        except FileExistsError:
            raise self._exists() from None
        except OSError:  # a file system without hard links
            if self.target.exists():
                raise self._exists() from None
            self.path.replace(self.target)
            return
        self.path.unlink()

    def _flush_folder(self) -> None:
        if os.name != "posix":
            return  # Windows has no such call; its rename is in the journal
        folder = os.open(self.target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def keep(self) -> None:
        """Leave the part file where it is."""
        self._release()

    def discard(self) -> None:
        """Remove the part file."""
        self._release()
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class StalePart:
    """A part file that some writer left. ``in_use`` is whether a writer still holds it."""

    path: Path
    nbytes: int
    age_s: float
    in_use: bool


def list_parts(folder: Path) -> list[StalePart]:
    """The part files in a folder, oldest first; only files that begin as ours do, or are empty.

    Raises:
        FileError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileError(f"{folder} is no folder; give the folder in which the file was being written")
    return sorted(_parts(folder), key=lambda part: -part.age_s)


def _parts(folder: Path) -> Iterator[StalePart]:
    for path in folder.iterdir():
        if not _NAME.fullmatch(path.name) or not path.is_file():
            continue
        with path.open("rb") as file:
            if file.read(len(MAGIC)) not in (MAGIC, b""):
                continue
            status = os.fstat(file.fileno())
            yield StalePart(path, status.st_size, time.time() - status.st_mtime, _locked(file.fileno()))


def _locked(fd: int) -> bool:
    if fcntl is None:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def remove_part(part: StalePart) -> None:
    """Remove a part file that no writer holds.

    Raises:
        FileError: Somebody is still writing it.
    """
    if part.in_use:
        raise FileError(f"{part.path} is being written right now; it was not removed")
    part.path.unlink(missing_ok=True)

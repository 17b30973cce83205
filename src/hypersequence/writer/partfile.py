"""The file that a writer fills beside its target, and what becomes of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import weakref
from pathlib import Path

from ..errors import FileError
from .folders import flush_folder, give_name
from .locks import try_lock, unlock

_EARLY_NBYTES = 1 << 20
#: A call with more makes the system look for pages of the page cache in pieces of many MiB, which may take ten times as
#: long as the copying: 0.3 GB/s were seen with calls of 4 MiB, and 3 GB/s with these.
_CALL_NBYTES = 1 << 20
_NAME_TRIES = 5
_HAS_FADVISE = hasattr(os, "posix_fadvise")
_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)
#: Windows neither moves nor removes a file that is open.
_MOVES_OPEN_FILES = os.name == "posix"


class PartFile:
    """The file that a writer fills, from front to back, before it takes the name of its target.

    :meth:`create` and :meth:`take_up` make one.
    """

    def __init__(self, path: Path, target: Path, *, overwrite: bool) -> None:
        self._fd = -1  # first, for __del__
        self.path, self.target = path, target
        self._overwrite = overwrite
        self._unsafe = self._placed = False
        self._n_names: int | None = None  # how many it had before it was to be put in place
        #: Whether it was made by us, and not taken up.
        self.is_new = False
        self.nbytes = 0
        _all.add(self)

    def __del__(self) -> None:
        self.let_go()  # Ctrl-C may have come before anybody had it

    def let_go(self) -> None:
        """Close the descriptor and nothing else: in a forked child, the lock and the name are the parent's."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                os.close(fd)

    @property
    def placed(self) -> bool:
        """Whether it has become the target, so that its bytes must not change any more.

        The file system is asked, since Ctrl-C may have come between the renaming and the note that is made of it. Not
        for the target, which somebody may have moved on: what has left its own name, or has one more, was placed.

        Raises:
            FileError: The file system does not tell, or the file has gone.
        """
        if self._placed or self._n_names is None or self.path == self.target:
            return self._placed
        try:
            has_moved = self._has_moved()
            gone = not has_moved and self._fd >= 0 and not _is_there(self._fd, self.path)
        except OSError as error:
            text = f"whether it was put in place cannot be found out: {error}"
            raise FileError(f"{self.path}: {text}", path=str(self.path)) from error
        if gone:
            text = "is gone: somebody removed it, or what it had become"
            raise FileError(f"{self.path}: {text}", path=str(self.path))
        return has_moved

    def _has_moved(self) -> bool:
        """Whether it has another name than before, since that was tried."""
        if self._fd < 0:
            return not self.path.exists() and self.target.exists()
        n_names = os.fstat(self._fd).st_nlink
        return n_names > (self._n_names or 0) or (n_names > 0 and not _is_there(self._fd, self.path))

    @classmethod
    def create(cls, target: Path, *, overwrite: bool) -> PartFile:
        """A new one, uniquely named, beside the target.

        Raises:
            FileError: The folder cannot be written, or the target cannot or must not be replaced.
        """
        target = _replaceable(target, overwrite=overwrite)
        for _ in range(_NAME_TRIES):
            path = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
            part = cls(path, target, overwrite=overwrite)
            try:
                part._fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
                # The lock tells whoever would clean up or take over that somebody is writing.
                if try_lock(part._fd, quiet_s=0) and _is_there(part._fd, path):
                    part.is_new = True
                    return part
            except BaseException as error:
                if part._fd >= 0:
                    with contextlib.suppress(FileError):
                        part.discard()
                if isinstance(error, OSError):
                    raise FileError(f"{target}: cannot write into its folder: {error}") from error
                raise
            part._release()  # it was cleaned up before we had the lock
        raise FileError(f"{target}: its part files are removed as soon as they are there; who does that?")

    @classmethod
    def take_up(cls, path: Path, target: Path, *, overwrite: bool) -> PartFile:
        """One that is there, as it is.

        Raises:
            FileError: It cannot be written, somebody is writing it, it is the target already, or that cannot or must
                not be replaced.
        """
        target = path if target == path else _replaceable(target, overwrite=overwrite)
        part = cls(path, target, overwrite=overwrite or target == path)
        try:
            part._take_hold()
        except BaseException as error:
            part._release()
            if isinstance(error, FileError | FileNotFoundError) or not isinstance(error, OSError | ValueError):
                raise
            raise FileError(f"{path}: cannot be opened for writing: {error}", path=str(path)) from error
        return part

    def _take_hold(self) -> None:
        """Open and lock a file that is there."""
        path, target, problem = self.path, self.target, ""
        try:
            # A part file is no link: whoever made one in a folder that others write to would have us cut another file.
            self._fd = os.open(path, _FLAGS | (_NO_LINKS if target != path else 0))
        except OSError:
            if target == path or not path.is_symlink():
                raise
            raise FileError(f"{path}: is a link; give the part file that it leads to", path=str(path)) from None
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            problem = "is no regular file"
        elif not try_lock(self._fd):
            problem = "is being written right now; wait for its writer, or end it"
        elif not _is_there(self._fd, path):
            problem = "was being put in place right now"
        elif target != path and target.exists() and target.samefile(path):
            problem = f"is a second name of {target}, which is complete; remove it"
        elif target != path and os.fstat(self._fd).st_nlink > 1:  # it was complete, perhaps, and moved on
            problem = "has a second name, whose file would change; go on with a copy of it, or remove one of them"
        if problem:
            raise FileError(f"{path}: {problem}", path=str(path))
        self.nbytes = os.lseek(self._fd, 0, os.SEEK_END)

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes, all of them, and have the system begin to write large pieces to disk.

        Raises:
            FileError: The file system refused; what was written before is whole.
        """
        start = self.nbytes
        try:
            self._write_all(data)
        except OSError as error:
            raise FileError(
                f"{self.path}: writing failed after {self.nbytes} bytes: {error}", path=str(self.path)
            ) from error
        if len(data) >= _EARLY_NBYTES and _HAS_FADVISE:
            # On dirty pages this advice begins their writing, so that the flush at the end finds little left to do;
            # pages that are not clean stay in the cache. Not every file system takes it.
            with contextlib.suppress(OSError):
                os.posix_fadvise(self._fd, start, len(data), os.POSIX_FADV_DONTNEED)

    def write_over(self, data: bytes | memoryview, offset: int) -> None:
        """Write bytes at some place; what is appended comes behind the end all the same.

        Raises:
            FileError: The file system refused.
        """
        try:
            try:
                os.lseek(self._fd, offset, os.SEEK_SET)
                self._write_all(data)
            finally:
                self.nbytes = os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise FileError(f"{self.path}: writing at {offset} failed: {error}", path=str(self.path)) from error

    def _write_all(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while len(rest):
            done = os.write(self._fd, rest[:_CALL_NBYTES])
            self.nbytes += done
            rest = rest[done:]

    def flush(self) -> None:
        """Have everything on disk before anything else is written.

        Raises:
            FileError: The file system refused, now or an earlier time: it may then have dropped what it could not write
                and say nothing of that the next time.
        """
        if self._unsafe:
            raise FileError(
                f"{self.path}: the disk failed to take it before, so parts may be missing; free or mend the disk, then "
                "`hsq recover` tells what is whole",
                path=str(self.path),
            )
        try:
            os.fsync(self._fd)
        except OSError as error:
            self._unsafe = True
            raise FileError(f"{self.path}: the disk failed to take it: {error}", path=str(self.path)) from error

    def settle(self) -> None:
        """Have everything on disk, and out of memory, so that what is read next is what the disk has.

        After a flush that failed, which may have happened to another process, the system goes on to show from memory
        what never reached the disk.

        Raises:
            FileError: The file system refused.
        """
        self.flush()
        if _HAS_FADVISE:
            with contextlib.suppress(OSError):  # a file system without a cache
                os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def go_back(self, nbytes: int) -> None:
        """Forget what was written behind this place: a write that failed in the middle may have left a piece.

        Raises:
            FileError: The file system refused.
        """
        try:
            # The size is asked for, since Ctrl-C may have come between a write and the note that is made of it.
            if os.lseek(self._fd, 0, os.SEEK_END) != nbytes:
                os.ftruncate(self._fd, nbytes)
            os.lseek(self._fd, nbytes, os.SEEK_SET)
        except OSError as error:
            raise FileError(f"{self.path}: could not be cut to {nbytes} bytes: {error}", path=str(self.path)) from error
        self.nbytes = nbytes

    def commit(self) -> None:
        """Flush to disk, put in place of the target, flush the folder. Can be done again if it failed.

        Raises:
            FileError: Flushing failed, or the target exists and must not be replaced; the part file stays. Or the
                target is in place, but the folder could not be flushed.
        """
        try:
            if not self.placed:
                if hasattr(os, "fchmod") and self._overwrite and self.target.exists():
                    os.fchmod(self._fd, stat.S_IMODE(self.target.stat().st_mode))  # a private file stays private
                self.flush()
                self._move()
                self._placed = True
            self._drop_second_name()
            self.flush_folder()
            self._placed = True  # it may be what the file system told; now the descriptor goes, which tells it
            self._release()
        except FileError:
            raise
        except OSError as error:
            if self.placed:
                raise FileError(f"{self.target}: is in place, but its folder could not be flushed: {error}") from error
            raise FileError(
                f"{self.target}: could not be put in place: {error}; the data are in {self.path}"
            ) from error

    def _move(self) -> None:
        """Give it the name of its target."""
        self._n_names = os.fstat(self._fd).st_nlink
        if not _MOVES_OPEN_FILES:
            self._release()  # elsewhere its lock is held until the move is done
        try:
            if self._overwrite:
                self.path.replace(self.target)
            else:
                self._link()
        except OSError as error:
            if self._has_moved():  # network file systems ask again if an answer was lost, and are told that it is done
                return
            self._n_names = None
            if isinstance(error, FileNotFoundError):
                raise FileError(f"{self.path}: is gone, somebody removed it: {error}", path=str(self.path)) from error
            if self._fd < 0:  # it has to be open for another try
                self._fd = os.open(self.path, _FLAGS)
                try_lock(self._fd, quiet_s=0)
            raise

    def _link(self) -> None:
        try:
            give_name(self.path, self.target)
        except FileExistsError:
            raise _exists(self.target) from None

    def _drop_second_name(self) -> None:
        """After a hard link the file has two names."""
        if self.path != self.target and self._fd >= 0 and _is_there(self._fd, self.path):
            with contextlib.suppress(OSError):  # then it keeps both
                self.path.unlink()

    def flush_folder(self) -> None:
        """Have the names in its folder on disk: see :func:`flush_folder`."""
        flush_folder(self.target.parent)

    def keep(self) -> bool:
        """Leave the part file where it is; whether the disk has taken all of it, and its name."""
        try:
            if self._fd >= 0:
                if self.placed:
                    self._drop_second_name()
                self.flush()
                if self.is_new:
                    self.flush_folder()
        except OSError:
            return False
        finally:
            self._release()
        return True

    def discard(self) -> None:
        """Remove the part file.

        Raises:
            FileError: The file system refused.
        """
        try:
            if not _MOVES_OPEN_FILES:
                self._release()
            self.path.unlink(missing_ok=True)  # while it is held, or somebody could take it up
        except OSError as error:
            raise FileError(f"{self.path}: could not be removed: {error}", path=str(self.path)) from error
        finally:
            self._release()

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            unlock(fd)
            with contextlib.suppress(OSError):  # what had to be on disk was flushed
                os.close(fd)


#: All that have not been collected, for children that are forked.
_all: weakref.WeakSet[PartFile] = weakref.WeakSet()


def _let_go_of_all() -> None:
    """In a forked child, which would hold the locks of a parent that is killed."""
    for part in list(_all):
        part.let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go_of_all)


def _is_there(fd: int, path: Path) -> bool:
    """Whether a descriptor is that of the file with this name, which others may have removed or renamed."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))  # noqa: PTH116
    except FileNotFoundError:
        return False


def _exists(target: Path) -> FileError:
    return FileError(f"{target} exists already; remove it, or allow that it is replaced (overwrite=True)")


def _replaceable(target: Path, *, overwrite: bool) -> Path:
    """The file itself, if there can be one under this name: a link is followed, so that it stays and the data move."""
    try:
        target = Path(os.path.realpath(target))
        status: os.stat_result | None = target.stat()
    except FileNotFoundError:
        status = None
    except (OSError, ValueError) as error:  # a name that is too long, a folder that may not be entered
        raise FileError(f"{target}: cannot be written: {error}", path=str(target)) from error
    if status is None:
        return target
    if stat.S_ISDIR(status.st_mode):
        raise FileError(f"{target} is a directory; give the name of a file")
    if not stat.S_ISREG(status.st_mode):
        raise FileError(f"{target} is no regular file, and would be replaced by one; give another name")
    if not overwrite:
        raise _exists(target)
    return target

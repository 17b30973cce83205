"""Where an export is written before it gets its name: a hidden folder beside the target, which nobody else takes."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import FileError
from ..writer.folders import flush_folder, give_name
from ..writer.locks import is_locked, try_lock, unlock

_TRIES = 5
#: What stood in the target's place and is a folder, while the new one takes its name.
_OLD = "old"


def refuse_existing(target: Path, *, overwrite: bool, resume: bool = False) -> None:
    """Refuse a target that exists and must not be replaced.

    Raises:
        FileError: It is there.
    """
    if overwrite or not target.exists():
        return
    if resume:
        raise FileError(
            f"{target} is there and complete, so there is nothing to go on with; to make it once more, allow that it "
            "is replaced (overwrite)",
            path=str(target),
        )
    raise _exists(target)


def _exists(target: Path) -> FileError:
    return FileError(
        f"{target} exists already; choose another name, or allow that it is replaced (overwrite)", path=str(target)
    )


def no_folder(_: Path) -> bool:
    """Whether a folder may be replaced, of those who make none: it is somebody's."""
    return False


class PartFolder:
    """A folder for something that becomes the target when it is complete; for the time of a ``with`` statement.

    A lock on it tells others that it is in use. What is left of a process that was killed has none, and is removed by
    the next export to the same target.

    Args:
        target: A file or folder. A link is followed, so that it stays and what it refers to is replaced.
        overwrite: Whether it may exist.
        may_replace: Whether a folder that stands there may be replaced.

    Raises:
        FileError: It exists and must not be replaced, or its folder cannot be written.
    """

    def __init__(self, target: Path, *, overwrite: bool, may_replace: Callable[[Path], bool] = no_folder) -> None:
        self._target = Path(os.path.realpath(target))
        self._overwrite, self._may_replace = overwrite, may_replace
        self._fd = -1

    def __enter__(self) -> Self:
        if not self._target.parent.is_dir():
            raise FileError(f"{self._target}: the folder {self._target.parent} does not exist", path=str(self._target))
        _clean_up(self._target)
        self._check()
        for _ in range(_TRIES):
            self._folder = self._target.with_name(f".{self._target.name}.{secrets.token_hex(4)}.tmp")
            try:
                if self._begin():
                    return self
            except OSError as error:
                raise FileError(f"{self._target}: cannot write into its folder: {error}") from error
            except BaseException:
                self._end()
                raise
        raise FileError(f"{self._target}: what is written there is removed as soon as it is begun; who does that?")

    def _begin(self) -> bool:
        """Make it; whether it is ours then: another process may have taken it for left over before it was locked."""
        self._folder.mkdir()
        if os.name != "posix":  # Windows opens no folders
            return True
        with suppress(FileNotFoundError):
            self._fd = os.open(self._folder, os.O_RDONLY)
            if try_lock(self._fd, quiet_s=0) and self._folder.exists():
                return True
            self._end()
        return False

    @property
    def path(self) -> Path:
        """What is to be written, a file or a folder."""
        return self._folder / self._target.name

    def put_in_place(self) -> None:
        """Have it on disk, and give it the target's name.

        Raises:
            OSError: The file system refused; the target is what it was.
            FileError: Something has come up under that name that must not be replaced. Or the target is in place, but
                its folder could not be flushed.
        """
        _flush(self.path)
        self._check()
        if self._target.is_dir():  # which no rename replaces
            self._target.rename(self._folder / _OLD)
        elif self._target.exists():
            self.path.chmod(stat.S_IMODE(self._target.stat().st_mode))  # a private file stays private
        if self._overwrite or self.path.is_dir():  # in the place of a folder there is room for another by now
            self.path.replace(self._target)
        else:
            self._give_name()
        try:
            flush_folder(self._target.parent)
        except OSError as error:
            raise FileError(f"{self._target}: is in place, but its folder could not be flushed: {error}") from error

    def _give_name(self) -> None:
        try:
            give_name(self.path, self._target)
        except FileExistsError:
            raise _exists(self._target) from None

    def _check(self) -> None:
        """See whether what has the target's name now may be replaced.

        Raises:
            FileError: It must not.
        """
        target = self._target
        refuse_existing(target, overwrite=self._overwrite)
        if target.is_dir() and not self._may_replace(target):
            raise FileError(
                f"{target}: is a folder that this format did not make, and is not replaced", path=str(target)
            )
        if target.exists() and not (target.is_dir() or target.is_file()):
            raise FileError(f"{target}: is no regular file, and would be replaced by one", path=str(target))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._end()
        except BaseException:  # Ctrl-C came now
            self._end()
            raise

    def _end(self) -> None:
        _remove(self._folder, self._target)
        fd, self._fd = self._fd, -1
        if fd >= 0:
            unlock(fd)
            os.close(fd)


def _remove(folder: Path, target: Path) -> None:
    """Remove what is left; if the target was moved aside, and nothing has come in its place, it is put back."""
    if not target.exists() and (folder / _OLD).exists():
        (folder / _OLD).rename(target)
    shutil.rmtree(folder, ignore_errors=True)


def _clean_up(target: Path) -> None:
    """Remove what killed exports to a target left; a target that one of them had just moved aside is put back.

    On Windows, where no lock tells whether somebody is at work, everything is left alone.
    """
    if os.name != "posix":
        return
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.tmp")
    with suppress(OSError):  # a folder that may not be listed, or that has just gone
        for path in list(target.parent.iterdir()):
            if name.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
                _remove_unused(path, target)


def _remove_unused(folder: Path, target: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        if not is_locked(fd):  # from here on nobody else has it
            _remove(folder, target)
    finally:
        os.close(fd)


def _flush(path: Path) -> None:
    """Have the disk take everything, before it gets the name under which people look for it."""
    inside = list(path.rglob("*")) if path.is_dir() else []
    for each in [path, *inside]:
        if each.is_dir():
            flush_folder(each)
            continue
        descriptor = os.open(each, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

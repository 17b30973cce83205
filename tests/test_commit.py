"""Putting a file in place: once it is there, nothing that goes wrong afterwards touches it."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from test_recovery import assert_records, pairs, parts_of
from tried import TRIED

N = 60


def begin(path: Path, **options: Any) -> hs.HyperSequenceWriter:
    writer = hs.HyperSequenceWriter(path, 4, block_nbytes=500, **options)
    writer.extend(*pairs(0, N))
    return writer


def is_folder(fd: int) -> bool:
    return stat.S_ISDIR(os.fstat(fd).st_mode)


class Watched:
    """Notes calls that change one file; ``inode`` is set when it is known."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.inode = -1
        self.changes: list[str] = []
        for name in ("write", "ftruncate", "fsync"):
            patch.setattr(os, name, self._watching(name, getattr(os, name)))

    def _watching(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(fd: int, *arguments: Any) -> Any:
            if os.fstat(fd).st_ino == self.inode:
                self.changes.append(name)
            return real(fd, *arguments)

        return call


def failing_once(real: Callable[..., Any], error: int, *, folders: bool) -> Callable[..., Any]:
    failed: list[bool] = []

    def call(fd: int) -> None:
        if is_folder(fd) is folders and not failed:
            failed.append(True)
            raise OSError(error, os.strerror(error))
        real(fd)

    return call


@pytest.mark.parametrize("overwrite", [True, False])
def test_closing_again_after_the_folder_could_not_be_flushed_leaves_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool
) -> None:
    path = tmp_path / "a.hsq"
    writer = begin(path, overwrite=overwrite)
    monkeypatch.setattr(os, "fsync", failing_once(os.fsync, errno.EIO, folders=True))
    with pytest.raises(hs.FileError, match="is in place, but its folder could not be flushed"):
        writer.close()
    before, reader = path.read_bytes(), hs.open(path)
    watched = Watched(monkeypatch)
    watched.inode = path.stat().st_ino
    writer.close()
    writer.close()
    assert watched.changes == []
    assert path.read_bytes() == before
    assert reader[0][1].tolist() == [0, 1, 2, 3]
    assert parts_of(path) == []


@pytest.mark.parametrize("name", ["replace", "link", "unlink", "fsync", "open", "close"])
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("after", [True, False], ids=["after the call", "before the call"])
@pytest.mark.parametrize("then", ["close", "abort", "with"])
def test_ctrl_c_while_the_file_is_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, overwrite: bool, after: bool, then: str
) -> None:
    """At each call of that kind in turn: the target is whole or not there, and what is said of it is true."""
    number, interrupted = 0, True
    while interrupted:
        number += 1
        path = tmp_path / f"{number}.hsq"
        with monkeypatch.context() as patch:
            real, calls = getattr(os, name), [0]

            def call(*arguments: Any, real: Any = real, calls: Any = calls, at: int = number, **options: Any) -> Any:
                calls[0] += 1
                if calls[0] == at and not after:
                    raise KeyboardInterrupt
                result = real(*arguments, **options)
                if calls[0] == at:
                    if name == "open":
                        os.close(result)
                    raise KeyboardInterrupt
                return result

            writer = begin(path, overwrite=overwrite)
            patch.setattr(os, name, call)
            interrupted, notes = False, ""
            try:
                if then == "with":
                    with writer:
                        pass
                else:
                    writer.close()
            except KeyboardInterrupt as error:
                TRIED["calls after which Ctrl-C came"] += 1
                interrupted, notes = True, " ".join(getattr(error, "__notes__", []))
        placed = path.exists()
        with monkeypatch.context() as patch:
            watched = Watched(patch)
            if placed:
                watched.inode = path.stat().st_ino
                assert_records(path, pairs, N)
            if then == "close":
                writer.close()
            elif then == "abort":
                notes = writer.abort()
        if placed:
            assert "write" not in watched.changes
            assert "ftruncate" not in watched.changes
            assert "was not written" not in notes
            assert parts_of(path) == [] or then == "close"
        if then == "close" or placed:
            assert_records(path, pairs, N)
            assert hs.verify(path).ok
        elif interrupted:
            assert str(parts_of(path)[0]) in notes
            with hs.HyperSequenceWriter.resume(path) as again:
                assert again.n_records == N
            assert_records(path, pairs, N)
    assert number > 1 or name in ("link", "unlink", "replace")


@pytest.mark.parametrize("error", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_folders_that_cannot_be_flushed_are_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if is_folder(fd):
            raise OSError(error, os.strerror(error))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    begin(tmp_path / "a.hsq").close()
    assert_records(tmp_path / "a.hsq", pairs, N)


def test_advice_that_a_file_system_does_not_take_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EINVAL, "no advice here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend(np.zeros((64, 1 << 17)))
    assert hs.open(tmp_path / "a.hsq").n_records == 64


def test_what_never_came_to_the_disk_is_not_called_safe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(hs.FileError) as caught, hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend(np.arange(1000))
        monkeypatch.setattr(os, "write", full)
    assert "none of the 1,000 records appended had come to the disk" in caught.value.__notes__[0]
    assert list(tmp_path.iterdir()) == []


def test_the_reason_for_giving_up_is_told_even_if_the_part_file_cannot_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, "no")

    with pytest.raises(RuntimeError, match="the real reason") as caught, hs.HyperSequenceWriter(tmp_path / "a.hsq"):
        monkeypatch.setattr(os, "unlink", refuse)
        raise RuntimeError("the real reason")
    assert "could not be removed" in caught.value.__notes__[0]


def test_a_name_that_is_too_long_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(hs.FileError, match="cannot be written"):
        hs.HyperSequenceWriter(tmp_path / ("x" * 300))


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("then", ["close", "abort"])
def test_what_was_put_in_place_and_moved_on_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, then: str
) -> None:
    """Ctrl-C came right behind the call that put the file in place, and then somebody gave it another name."""
    path, elsewhere = tmp_path / "a.hsq", tmp_path / "b.hsq"
    writer = begin(path, overwrite=overwrite)
    name = "replace" if overwrite else "link"
    real = getattr(os, name)

    def call(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, name, call)
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    path.rename(elsewhere)
    before, times = elsewhere.read_bytes(), elsewhere.stat().st_mtime_ns
    if then == "close":
        writer.close()
    else:
        assert "was not written" not in writer.abort()
    assert (elsewhere.read_bytes(), elsewhere.stat().st_mtime_ns) == (before, times)
    assert parts_of(path) == []


def test_a_part_file_that_somebody_removed_is_told(tmp_path: Path) -> None:
    writer = begin(tmp_path / "a.hsq", overwrite=True)
    writer.append(*[value[0] for value in pairs(0, 1)])
    for part in parts_of(tmp_path / "a.hsq"):
        part.unlink()
    for _ in range(2):
        with pytest.raises(hs.FileError, match="is gone, somebody removed it"):
            writer.close()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_putting_in_place_is_tried_again_where_open_files_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Windows, where the file is closed first, and opened again if it could not be moved."""
    path = tmp_path / "a.hsq"
    writer = begin(path, overwrite=True)
    monkeypatch.setattr("hypersequence.writer.partfile._MOVES_OPEN_FILES", False)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", failing(errno.EACCES))
        for _ in range(2):
            with pytest.raises(hs.FileError, match="could not be put in place"):
                writer.close()
    assert not path.exists()
    writer.close()
    assert_records(path, pairs, N)
    assert hs.verify(path).ok


def failing(error: int) -> Callable[..., Any]:
    def call(*_: Any, **__: Any) -> Any:
        raise OSError(error, os.strerror(error))

    return call


def test_nothing_is_written_where_nobody_can_tell_whether_it_is_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.hsq"
    writer = begin(path, overwrite=True)
    real = os.replace

    def call(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", call)
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fstat", failing(errno.EIO))
        with pytest.raises(hs.FileError, match="cannot be found out"):
            writer.close()
        assert "perhaps written" in writer.abort()
    assert path.read_bytes() == before
    assert hs.verify(path).ok


def test_the_name_of_a_part_file_is_on_disk_when_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, real, folders = begin(tmp_path / "a.hsq"), os.fsync, list[int]()

    def fsync(fd: int) -> None:
        if is_folder(fd):
            folders.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    assert "are in" in writer.abort()
    assert len(folders) == 1


@pytest.mark.parametrize("go_on", [hs.HyperSequenceWriter.resume, hs.recover])
def test_a_part_file_with_another_name_is_left_alone(tmp_path: Path, go_on: Callable[[Path], Any]) -> None:
    """Killed between both calls that put it in place; then somebody moved what had become the target."""
    path, moved = tmp_path / "a.hsq", tmp_path / "b.hsq"
    begin(path).abort()
    (part,) = parts_of(path)
    os.link(part, moved)
    before = moved.read_bytes()
    with pytest.raises(hs.FileError, match="has a second name"):
        go_on(part)
    assert moved.read_bytes() == before
    moved.unlink()
    assert hs.recover(part).n_records == N


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("error", [errno.EEXIST, errno.ENOENT, errno.EIO])
def test_an_answer_that_was_lost_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, error: int
) -> None:
    """A network file system does what it was asked for, is asked again, and says that it cannot."""
    path, name = tmp_path / "a.hsq", "replace" if overwrite else "link"
    writer, real = begin(path, overwrite=overwrite), getattr(os, name)

    def call(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        raise OSError(error, os.strerror(error))

    with monkeypatch.context() as patched:
        patched.setattr(os, name, call)
        writer.close()
    assert_records(path, pairs, N)
    assert parts_of(path) == []


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("then", ["close", "abort"])
def test_ctrl_c_before_a_part_file_of_two_names_is_put_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overwrite: bool, then: str
) -> None:
    path, snapshot = tmp_path / "a.hsq", tmp_path / "snapshot"
    writer = begin(path, overwrite=overwrite)
    (part,) = parts_of(path)
    os.link(part, snapshot)

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace" if overwrite else "link", interrupted)
        with pytest.raises(KeyboardInterrupt):
            writer.close()
    if then == "close":
        writer.close()
        assert_records(path, pairs, N)
    else:
        assert "was not written" in writer.abort()
        assert part.exists()


def test_what_was_removed_is_not_said_to_be_there(tmp_path: Path) -> None:
    writer = begin(tmp_path / "a.hsq")
    parts_of(tmp_path / "a.hsq")[0].unlink()
    assert "somebody removed" in writer.abort()


@pytest.mark.parametrize("name", ["a\0b.hsq", "a\0b.hsq.01234567.part"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    attempts = (hs.HyperSequenceWriter, hs.HyperSequenceWriter.resume, hs.recover, hs.open, hs.verify)
    for attempt in attempts:
        with pytest.raises(hs.HyperSequenceError):
            attempt(tmp_path / name)

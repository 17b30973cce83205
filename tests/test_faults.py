"""Faults on purpose: every call that changes a file fails in turn, processes vanish, the power goes out.

Whatever happens, the target is the old file or the whole new one, and what was complete can be recovered.
"""

from __future__ import annotations

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from conftest import LONG
from hypersequence.writer.remains import Remains
from test_recovery import assert_records, pairs, parts_of
from tried import TRIED

#: Everything through which the writer, and whoever recovers, changes files.
CALLS = (
    *("open", "write", "fsync", "ftruncate", "fchmod", "link", "replace", "unlink", "close"),
    *("stat", "fstat", "lseek"),
)
N, OLD, BATCH, BLOCK_NBYTES = 60, 7, 4, 500
BLOCK_RECORDS = 16


class Faults:
    """Fails one call, or all from one on.

    Args:
        monkeypatch: What to patch ``os`` with.
        number: Which call fails, counted from 1.
        error: Its errno; ``None`` for a write that takes only half of the bytes.
        how_long: ``"once"``; or ``"for good"``: all calls of that kind that come after it fail as well; or ``"dead
            disk"``: all calls of any kind.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, error: int | None, *, how_long: str) -> None:
        self.number, self.error, self.how_long = number, error, how_long
        self.n_calls = 0
        self.failed = ""
        self.paused = False
        for name in CALLS:
            monkeypatch.setattr(os, name, self._faulty(name, getattr(os, name)))

    def _faulty(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            if self.paused:
                return real(*arguments, **options)
            self.n_calls += 1
            if self.n_calls == self.number:
                self.failed = name
            again = {"once": self.n_calls == self.number, "for good": self.failed == name, "dead disk": True}
            if self.failed and again[self.how_long]:
                if self.error is not None:
                    if name == "close":
                        real(*arguments)  # the descriptor is gone all the same
                    raise OSError(self.error, os.strerror(self.error))
                if name == "write":
                    return real(arguments[0], arguments[1][: max(1, len(arguments[1]) // 2)])
            return real(*arguments, **options)

        return call


def write_all(path: Path, resume: bool, options: dict[str, Any], written: Callable[[], int]) -> tuple[bool, int]:
    """A person who tries everything once more and then gives up.

    Returns:
        Whether the file was closed, and how many records must be safe if it was not.
    """

    def open_writer() -> hs.HyperSequenceWriter:
        return hs.HyperSequenceWriter.resume(path, **options) if resume else begin(path, **options)

    try:
        writer = open_writer()
    except hs.FileError:
        try:
            writer = open_writer()
        except hs.FileError:
            return False, 0
    inputs, outputs = pairs(0, N)
    try:
        while writer.n_records < N:
            row = writer.n_records
            try:
                writer.append(inputs[row], outputs[row])
            except hs.FileError:
                if writer.n_records == row:  # there was no header yet
                    writer.append(inputs[row], outputs[row])
        try:
            writer.close()
        except hs.FileError:
            writer.close()
    except hs.FileError:
        n_blocks = written()
        assert writer.abort()
        return False, n_blocks * BLOCK_RECORDS
    return True, N


def begin(path: Path, **options: Any) -> hs.HyperSequenceWriter:
    return hs.HyperSequenceWriter(path, BATCH, block_nbytes=BLOCK_NBYTES, **options)


def whole_blocks(path: Path) -> int:
    """How many full blocks the part file of a target has, whatever its writer thinks."""
    counts = [0]
    for part in parts_of(path):
        if part.stat().st_size >= 4096:
            with Remains(part) as remains:
                heads = remains.look(lambda nbytes: None).heads
                counts.append(sum(remains.frame(head).n_records == BLOCK_RECORDS for head in heads))
    return max(counts)


def looked_at(faults: Faults, path: Path) -> int:
    """The same, by somebody whose calls do not fail."""
    faults.paused = True
    try:
        return whole_blocks(path)
    finally:
        faults.paused = False


def assert_nothing_lost(path: Path, closed: bool, n_old: int, n_safe: int) -> None:
    """The target is old or new; what was safe before is in it or in the part file."""
    with hs.open(path, verify="always") as seq:
        n = seq.n_records
    assert n in (n_old, N)
    assert_records(path, pairs, n)
    assert hs.verify(path).ok
    if closed:
        assert n == N
    if n == N:
        return
    parts = [part for part in parts_of(path) if part.stat().st_size >= 4096]
    assert len(parts) <= 1
    if n_safe:
        found = hs.recover(parts[0], path.with_name("rescued.hsq"))
        assert found.n_records >= n_safe
        assert_records(found.path, pairs, found.n_records)


@pytest.mark.parametrize("overwrite", [True, False], ids=["overwriting", "not overwriting"])
@pytest.mark.parametrize("resume", [False, True], ids=["from the beginning", "going on"])
@pytest.mark.parametrize("how_long", ["once", "for good", "dead disk"])
@pytest.mark.parametrize(
    "error",
    [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, None],
    ids=["EIO", "ENOSPC", "EDQUOT", "EINTR", "short write"],
)
def test_every_call_fails_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None, how_long: str, resume: bool, overwrite: bool
) -> None:
    number, more = 0, True
    n_safe = 2 * BLOCK_RECORDS + 3 if resume else 0
    while more:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "a.hsq"
        with begin(path) as writer:
            writer.extend(*pairs(0, OLD))
        if resume:
            writer = begin(path)
            writer.extend(*pairs(0, n_safe))
            writer.abort()
        if not overwrite:
            path.rename(folder / "old.hsq")
        with monkeypatch.context() as patched:
            faults = Faults(patched, number, error, how_long=how_long)
            closed, n_whole = write_all(path, resume, {"overwrite": overwrite}, partial(looked_at, faults, path))
        more = faults.n_calls >= number
        TRIED["calls that failed, or wrote half"] += more
        assert not error or not more or faults.failed
        if not overwrite and not path.exists():
            (folder / "old.hsq").rename(path)
        assert_nothing_lost(path, closed, OLD, max(n_safe, n_whole))
        # What fails once is tried once more, and a failed flush alone is not believed the second time.
        if error is None or (how_long == "once" and faults.failed != "fsync"):
            assert closed
        shutil.rmtree(folder)
    assert number > 12


@pytest.mark.parametrize("how_long", ["once", "for good", "dead disk"])
@pytest.mark.parametrize(
    "error",
    [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EINTR, None],
    ids=["EIO", "ENOSPC", "EDQUOT", "EINTR", "short write"],
)
@pytest.mark.parametrize("elsewhere", [False, True], ids=["in place", "to another file"])
def test_every_call_fails_in_turn_while_recovering(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None, how_long: str, elsewhere: bool
) -> None:
    number, more = 0, True
    while more:
        number += 1
        folder = tmp_path / str(number)
        folder.mkdir()
        path, out = folder / "a.hsq", folder / "out.hsq"
        writer = begin(path)
        writer.extend(*pairs(0, N))
        writer.abort()
        (part,) = parts_of(path)
        with monkeypatch.context() as patched:
            faults = Faults(patched, number, error, how_long=how_long)
            try:
                hs.recover(part, out if elsewhere else None)
                done = True
            except hs.FileError:
                done = False
        more = faults.n_calls >= number
        TRIED["calls that failed, or wrote half"] += more
        target = out if elsewhere else path
        assert done or error is not None
        if not target.exists():
            assert not done
            # Nothing is left of the try: the first one would otherwise take the room that the second one needs.
            assert not elsewhere or parts_of(out) == [] or how_long == "dead disk" or faults.failed == "unlink"
            assert hs.recover(part, out if elsewhere else None).n_records == N
        assert_records(target, pairs, N)
        assert hs.verify(target).ok
        shutil.rmtree(folder)
    assert number > 3


# --- the power goes out ----------------------------------------------------------------------------------------------

SECTOR = 512


class Recorder:
    """Notes every change that is made through ``os``, to replay it on a disk that loses power."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.log: list[tuple[Any, ...]] = []
        self._numbers: dict[int, int | None] = {}  # descriptor -> inode, None for the folder
        real = {name: getattr(os, name) for name in (*CALLS, "lseek")}
        at: dict[int, int] = {}

        def open_(path: Any, flags: int, *mode: Any, **options: Any) -> int:
            fd = real["open"](path, flags, *mode, **options)
            self._numbers[fd] = None if Path(path) == folder else os.fstat(fd).st_ino
            at[fd] = 0
            if flags & os.O_CREAT:
                self.log.append(("create", os.fstat(fd).st_ino, Path(path).name))
            return fd

        def lseek(fd: int, offset: int, how: int) -> int:
            at[fd] = real["lseek"](fd, offset, how)
            return at[fd]

        def write(fd: int, data: Any) -> int:
            done = real["write"](fd, data)
            self.log.append(("write", self._numbers[fd], at[fd], bytes(memoryview(data)[:done])))
            at[fd] += done
            return done

        def ftruncate(fd: int, length: int) -> None:
            real["ftruncate"](fd, length)
            self.log.append(("truncate", self._numbers[fd], length))

        def fsync(fd: int) -> None:
            real["fsync"](fd)
            self.log.append(("flush", self._numbers[fd]))

        def replace(source: Any, target: Any) -> None:
            real["replace"](source, target)
            self.log.append(("rename", Path(source).name, Path(target).name))

        def link(source: Any, target: Any) -> None:
            real["link"](source, target)
            self.log.append(("link", Path(source).name, Path(target).name))

        def unlink(path: Any) -> None:
            real["unlink"](path)
            self.log.append(("unlink", Path(path).name, None))

        for name, fake in (
            ("open", open_),
            ("lseek", lseek),
            ("write", write),
            ("ftruncate", ftruncate),
            ("fsync", fsync),
            ("replace", replace),
            ("link", link),
            ("unlink", unlink),
        ):
            monkeypatch.setattr(os, name, fake)


def after_power_loss(
    log: list[tuple[Any, ...]], names: dict[str, int], files: dict[int, bytes], choice: np.random.Generator
) -> Iterator[dict[str, bytes]]:
    """What a folder may hold if the power goes out after each entry of a log: name to content."""
    for end in range(len(log) + 1):
        durable = {inode: bytearray(data) for inode, data in files.items()}
        pending: dict[int, list[tuple[Any, ...]]] = {}
        sure, unsure = dict(names), list[tuple[Any, ...]]()
        for entry in log[:end]:
            what, *rest = entry
            if what in ("create", "rename", "link", "unlink"):
                unsure.append(entry)
                if what == "create":
                    durable[rest[0]] = bytearray()
            elif what == "flush" and rest[0] is None:
                sure = _named(sure, unsure)
                unsure = []
            elif what == "flush":
                for change in pending.pop(rest[0], []):
                    _apply(durable[rest[0]], change, None)
            else:
                pending.setdefault(rest[0], []).append(entry)
        for inode, changes in pending.items():
            # A size may be there without the bytes, bytes without those before; but a shorter size ends everything.
            for change in changes[: int(choice.integers(0, len(changes) + 1))]:
                _apply(durable[inode], change, choice)
        found = _named(sure, unsure[: int(choice.integers(0, len(unsure) + 1))])
        yield {name: bytes(durable[inode]) for name, inode in found.items()}


def _named(names: dict[str, int], changes: list[tuple[Any, ...]]) -> dict[str, int]:
    names = dict(names)
    for what, first, second in changes:
        if what == "create":
            names[second] = first
        elif what == "unlink":
            del names[first]
        elif what == "link":
            names[second] = names[first]
        else:
            names[second] = names.pop(first)
    return names


def _apply(content: bytearray, change: tuple[Any, ...], choice: np.random.Generator | None) -> None:
    """Change a file's content; with ``choice``, any sector of a write may be missing."""
    what, _, *rest = change
    if what == "truncate":
        del content[rest[0] :]
        content.extend(bytes(rest[0] - len(content)))
        return
    offset, data = rest
    content.extend(bytes(max(0, offset + len(data) - len(content))))
    for start in range(offset - offset % SECTOR, offset + len(data), SECTOR):
        low, high = max(start, offset), min(start + SECTOR, offset + len(data))
        if choice is None or choice.random() < 0.6:
            content[low:high] = data[low - offset : high - offset]


@pytest.mark.parametrize(
    "n_before", [0, 3, 2 * BLOCK_RECORDS, 2 * BLOCK_RECORDS + 5], ids=lambda n: f"after {n} records"
)
@pytest.mark.parametrize("seed", range(4 * LONG))
def test_power_goes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_before: int, seed: int) -> None:
    """At every moment, with any of the sectors there that nobody waited for: no torn target, and nothing safe lost."""
    choice = np.random.default_rng(seed)
    folder, lab = tmp_path / "folder", tmp_path / "lab"
    folder.mkdir()
    path = folder / "a.hsq"
    with begin(path) as writer:
        writer.extend(*pairs(0, OLD))
    if n_before:
        writer = begin(path)
        writer.extend(*pairs(0, n_before))
        writer.abort()
    names = {each.name: each.stat().st_ino for each in folder.iterdir()}
    files = {each.stat().st_ino: each.read_bytes() for each in folder.iterdir()}
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, folder)
        writer = hs.HyperSequenceWriter.resume(path) if n_before else begin(path)
        assert writer.n_records == n_before
        for start in range(n_before, N, 3):
            writer.extend(*pairs(start, min(start + 3, N)))
        writer.close()
    seen = {"old": 0, "new": 0}
    for found in after_power_loss(recorder.log, names, files, choice):
        shutil.rmtree(lab, ignore_errors=True)
        lab.mkdir()
        for name, content in found.items():
            (lab / name).write_bytes(content)
        TRIED["losses of power"] += 1
        with hs.open(lab / "a.hsq", verify="always") as seq:
            n = seq.n_records
        assert n in (OLD, N)
        assert hs.verify(lab / "a.hsq").ok
        assert_records(lab / "a.hsq", pairs, n)
        seen["new" if n == N else "old"] += 1
        if n == OLD and n_before:
            for part in parts_of(lab / "a.hsq"):
                with suppress(hs.FormatError):  # one whose header had not come to the disk
                    assert_in_order(hs.recover(part, lab / "rescued.hsq", overwrite=True).path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of whole blocks behind a broken one
                again = hs.HyperSequenceWriter.resume(lab / "a.hsq")
            assert again.n_records >= n_before
            again.abort()
    assert seen["old"] > 5 and seen["new"] > 0


def assert_in_order(path: Path) -> None:
    """Of what nobody waited for any block may be there; a disk does not take them in their order."""
    with hs.open(path, verify="always") as seq:
        inputs, outputs = seq.records[:]
    assert sorted(set(outputs.tolist())) == outputs.tolist()
    assert (inputs == outputs[:, None]).all()


@pytest.mark.parametrize("n", [3, 2 * BLOCK_RECORDS, 2 * BLOCK_RECORDS + 5], ids=lambda n: f"{n} records")
@pytest.mark.parametrize("killed_at", [None, 1, 2, 3], ids=lambda at: f"killed at call {at}" if at else "aborted")
@pytest.mark.parametrize("seed", range(2 * LONG))
def test_power_goes_out_while_recovering_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, killed_at: int | None, seed: int
) -> None:
    """What could be recovered before can be recovered after, or is in place: sound, to the last byte of padding."""
    choice = np.random.default_rng(seed)
    folder, lab = tmp_path / "folder", tmp_path / "lab"
    folder.mkdir()
    path = folder / "a.hsq"
    writer = begin(path)
    writer.extend(*pairs(0, n))
    writer.abort()
    if killed_at is not None:
        go_on_and_die(path, monkeypatch, n, killed_at)
    names = {each.name: each.stat().st_ino for each in folder.iterdir()}
    files = {each.stat().st_ino: each.read_bytes() for each in folder.iterdir()}
    (part,) = [each for each in parts_of(path) if each.stat().st_size > 4096]
    with monkeypatch.context() as patched:
        recorder = Recorder(patched, folder)
        n_found = hs.recover(part).n_records
    assert n_found >= n
    assert_records(path, pairs, n_found)
    assert hs.verify(path).ok
    placed = 0
    for found in after_power_loss(recorder.log, names, files, choice):
        shutil.rmtree(lab, ignore_errors=True)
        lab.mkdir()
        for name, content in found.items():
            (lab / name).write_bytes(content)
        TRIED["losses of power"] += 1
        placed += (lab / "a.hsq").exists()
        if not (lab / "a.hsq").exists():
            assert hs.recover(lab / part.name).n_records == n_found
        assert_records(lab / "a.hsq", pairs, n_found)
        assert hs.verify(lab / "a.hsq").ok
    assert placed


def go_on_and_die(path: Path, monkeypatch: pytest.MonkeyPatch, n: int, at: int) -> None:
    """Resume, write more, and vanish at some call, as if killed."""

    class Vanished(BaseException):
        pass

    writer = hs.HyperSequenceWriter.resume(path)
    with monkeypatch.context() as patched:
        calls = 0

        def vanishing(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls >= at:
                    raise Vanished
                return real(*arguments)

            return call

        for name in ("write", "fsync", "ftruncate"):
            patched.setattr(os, name, vanishing(getattr(os, name)))
        with suppress(Vanished):
            writer.extend(*pairs(n, N))
    part, writer._part = writer._part, None
    assert part is not None
    part._release()

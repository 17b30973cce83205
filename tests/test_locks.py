"""Who has a part file: writers keep theirs, whoever lists, cleans up or recovers at the same time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from hypersequence.writer import list_parts, locks, remove_part
from test_recovery import left_behind, pairs, parts_of

fcntl = pytest.importorskip("fcntl", reason="Windows: an open file can be neither renamed nor removed there")


def held_by_us(path: Path) -> bool:
    """Whether another process is kept out."""
    program = "import fcntl,sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_SH | fcntl.LOCK_NB)"
    return subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True).returncode != 0


def test_a_writer_gets_its_lock_although_somebody_is_just_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, n_refused = fcntl.flock, 3

    def busy(fd: int, how: int) -> None:
        nonlocal n_refused
        if how & fcntl.LOCK_EX and n_refused:
            n_refused -= 1
            raise BlockingIOError
        flock(fd, how)

    monkeypatch.setattr(fcntl, "flock", busy)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.append(1)
        assert n_refused == 0
        (part,) = parts_of(tmp_path / "a.hsq")
        assert held_by_us(part)
    assert not held_by_us(tmp_path / "a.hsq")


def test_a_part_file_that_was_cleaned_up_before_it_was_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock, removed = locks.try_lock, list[Path]()

    def late(fd: int, **options: float) -> bool:
        if len(removed) < 2:
            (part,) = parts_of(tmp_path / "a.hsq")
            part.unlink()
            removed.append(part)
        return lock(fd, **options)

    monkeypatch.setattr("hypersequence.writer.partfile.try_lock", late)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.append(7)
        (part,) = parts_of(tmp_path / "a.hsq")
        assert part not in removed and held_by_us(part)
    with hs.open(tmp_path / "a.hsq") as seq:
        assert seq[0][0].tolist() == [7]


def test_what_somebody_took_up_meanwhile_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    left_behind(path, pairs, 50)
    (part,) = list_parts(tmp_path)
    assert not part.in_use
    with hs.HyperSequenceWriter.resume(path) as writer:
        with pytest.raises(hs.FileError, match="being written right now"):
            remove_part(part)
        with pytest.raises(hs.FileError, match="being written right now"):
            hs.recover(part.path)
        assert list_parts(tmp_path)[0].in_use
        n_safe = writer.n_records
        assert hs.recover(part.path, tmp_path / "copy.hsq").n_records == n_safe  # what there is by now
    remove_part(part)  # it has gone
    with hs.open(path) as seq:
        assert seq.n_records == n_safe


def test_a_link_is_no_part_file(tmp_path: Path) -> None:
    """Somebody else's, in a folder that many write to, would have us cut another file."""
    precious = tmp_path / "precious.hsq"
    with hs.HyperSequenceWriter(precious) as writer:
        writer.extend(np.arange(100))
    before = precious.read_bytes()
    link = tmp_path / "a.hsq.00000000.part"
    link.symlink_to(precious)
    assert list_parts(tmp_path) == []
    with pytest.raises(hs.NothingToResumeError):
        hs.HyperSequenceWriter.resume(tmp_path / "a.hsq")
    for go_on in (hs.recover, hs.HyperSequenceWriter.resume):
        with pytest.raises(hs.FileError, match="is a link; give the part file"):
            go_on(link)
    assert precious.read_bytes() == before


def test_a_file_whose_end_was_lost_may_be_named_by_a_link(tmp_path: Path) -> None:
    path, link = tmp_path / "a.hsq", tmp_path / "link.hsq"
    with hs.HyperSequenceWriter(path) as writer:
        writer.extend(np.arange(100))
    os.truncate(path, path.stat().st_size - 20)
    link.symlink_to(path)
    assert hs.recover(link).n_records == 100
    assert link.is_symlink() and hs.verify(path).ok


def test_a_part_file_that_becomes_the_target_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stays open, or locked."""
    path = tmp_path / "a.hsq"
    part = left_behind(path, pairs, 50)
    descriptors = Path("/proc/self/fd")
    n_open = len(list(descriptors.iterdir())) if descriptors.is_dir() else 0
    lock = locks.try_lock

    def late(fd: int, **options: float) -> bool:
        part.rename(path)
        return lock(fd, **options)

    monkeypatch.setattr("hypersequence.writer.partfile.try_lock", late)
    with pytest.raises(hs.FileError, match="was being put in place right now"):
        hs.recover(part)
    assert not held_by_us(path)
    assert n_open == (len(list(descriptors.iterdir())) if n_open else 0)


def test_an_old_part_file_that_cannot_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that had to begin anew leaves no second part file behind."""
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.extend(np.arange(3))
    part = path.rename(tmp_path / "a.hsq.0123abcd.part")  # one small block, which has no room for more
    before, unlink = part.read_bytes(), Path.unlink

    def refuse(self: Path, **options: Any) -> None:
        if self == part:
            raise PermissionError(13, "no")
        unlink(self, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", refuse)
        with pytest.raises(hs.FileError, match="could not be removed"):
            hs.HyperSequenceWriter.resume(part)
    assert parts_of(path) == [part] and part.read_bytes() == before
    with hs.HyperSequenceWriter.resume(part) as writer:
        writer.append(3)
    with hs.open(path) as seq:
        assert seq.records[:][0].tolist() == [0, 1, 2, 3]


FORKING = """
import os, signal, sys, time
import hypersequence as hs
writer = hs.HyperSequenceWriter(sys.argv[1], 4, block_nbytes=500)
for number in range(100):
    writer.append(float(number))
child = os.fork()
if child:
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""


def test_a_child_does_not_hold_the_lock_of_a_writer_that_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    process = subprocess.Popen([sys.executable, "-c", FORKING, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        process.wait()
        with hs.HyperSequenceWriter.resume(path) as writer:
            assert writer.n_records > 0
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()

"""Exports of all formats: full disks, Ctrl-C, killed processes, text that is none, and what is on disk in the end."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from hypersequence.converting import placing

ENDINGS = [".npz", ".h5", ".zarr", ".zarr.zip", ".parquet", ".arrow", ".tfrecord", ".tar"]
#: Exports the file that is named first to the second, and waits for ever when a piece has been written.
SLOW = """
import sys, time
import hypersequence as hs
from hypersequence.converting import exporting

pieces = exporting.in_pieces
def slow(sequence):
    for piece in pieces(sequence):
        yield piece
        print("under way", flush=True)
        while True:
            time.sleep(0.05)  # in short ones, as a signal just before one of them would be seen after it

exporting.in_pieces = slow
hs.convert(sys.argv[1], sys.argv[2], overwrite=True)
"""
#: The command, with the arguments that follow.
MAIN = "from hypersequence.cli import main; main()"
#: Exports the file that is named first to the second, interrupted at many moments; tells how often that came to pass.
INTERRUPTED = """
import asyncio, os, signal, sys, threading, time
import hypersequence as hs
from zarr.storage import LocalStore

hs.convert(sys.argv[1], sys.argv[2])
put = LocalStore.set
async def late(*given):
    await asyncio.sleep(0.01)
    await put(*given)
LocalStore.set = late

n = 0
for delay in range(1, 40, 3):
    timer = threading.Timer(delay / 1000, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        hs.convert(sys.argv[1], sys.argv[2], overwrite=True)
        time.sleep(1)
    except KeyboardInterrupt:
        n += 1
time.sleep(0.1)  # whoever is at work behind our back has time to
print(n)
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A hundred numbers."""
    (tmp_path / "in").mkdir()
    with hs.HyperSequenceWriter(tmp_path / "in" / "a.hsq") as writer:
        writer.extend({"x": np.arange(100)})
    return tmp_path / "in" / "a.hsq"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True, check=False)
    if mounted.returncode:
        if os.environ.get("CI") or os.geteuid() == 0:
            pytest.fail(f"no file system could be mounted: {mounted.stderr!r}")
        pytest.skip("mounting a file system is not allowed here; run this test as root")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_disk_that_gets_full_leaves_the_old_target(small: Path, small_disk: Path, ending: str) -> None:
    """In a process of its own, which HDF5 used to take with it."""
    target, large = small_disk / f"a{ending}", small.with_name("large.hsq")
    hs.convert(small, target)
    with hs.HyperSequenceWriter(large) as writer:  # text, of which nobody knows how much room it takes
        noise = np.random.default_rng(0).integers(1, 128, (50, 80 * 700), np.uint8).view("S700")
        writer.extend({f"text{i}": noise[:, i] for i in range(80)})
    code = "import sys, hypersequence as hs; hs.convert(sys.argv[1], sys.argv[2], overwrite=True)"
    done = subprocess.run([sys.executable, "-c", code, large, target], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert f"FileError: {target}: could not be written, and nothing of it is left: [Errno 28]" in done.stderr
    assert [path.name for path in small_disk.iterdir()] == [target.name]
    hs.convert(target, small.with_name("b.hsq"))
    with hs.open(small.with_name("b.hsq")) as seq:
        assert seq.records[:][0]["x"].tolist() == list(range(100))


@pytest.mark.parametrize("ending", ENDINGS)
def test_too_little_room_is_seen_before_anything_is_written(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    with hs.HyperSequenceWriter(small) as writer:
        writer.extend({"x": np.zeros((100, 10, 10), np.float32)})
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=39_999))
    if ending == ".parquet":  # compresses, so that nobody knows
        hs.convert(small, tmp_path / f"a{ending}")
        return
    with pytest.raises(hs.FileError, match=rf"a{ending}: takes 40,000 bytes at least, and its disk has 39,999 free"):
        hs.convert(small, tmp_path / f"a{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=40_000))
    hs.convert(small, tmp_path / f"a{ending}")


@pytest.mark.parametrize("ending", [".h5", ".parquet", ".arrow", ".tfrecord", ".tar"])
def test_text_that_is_none_is_named_with_its_field_and_record(small: Path, tmp_path: Path, ending: str) -> None:
    texts = np.full((3000, 2), "a" * 1000)  # several pieces
    texts[2900, 1] = "b\udc80"
    with hs.HyperSequenceWriter(small) as writer:
        writer.extend({"x": np.arange(3000), "word": texts if ending not in (".tar",) else texts[:, 1]})
    with pytest.raises(hs.RecordError, match=rf"a{ending}: the field 'word' of record 2,900 has half of a UTF-16 pair"):
        hs.convert(small, tmp_path / f"a{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("ending", [".npz", ".zarr"])
def test_formats_that_keep_such_text_keep_it(small: Path, tmp_path: Path, ending: str) -> None:
    with hs.HyperSequenceWriter(small) as writer:
        writer.extend({"word": np.array(["a", "b\udc80"])})
    hs.convert(small, tmp_path / f"a{ending}")
    hs.convert(tmp_path / f"a{ending}", tmp_path / "b.hsq")
    with hs.open(tmp_path / "b.hsq") as seq:
        assert seq.records[:][0]["word"].tolist() == ["a", "b\udc80"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_everything_is_on_disk_before_it_gets_its_name(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    flushed: dict[int, int] = {}  # inode to size
    order: list[int] = []
    fsync = os.fsync

    def note(fd: int) -> None:
        status = os.fstat(fd)
        flushed[status.st_ino] = status.st_size
        order.append(status.st_ino)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", note)
    target = tmp_path / f"a{ending}"
    hs.convert(small, target)
    files = [target, *target.rglob("*")] if target.is_dir() else [target]
    for path in files:
        assert path.is_dir() or flushed[path.stat().st_ino] == path.stat().st_size
        assert path.stat().st_ino in order
    assert order[-1] == tmp_path.stat().st_ino  # and then its name


@pytest.mark.parametrize("ending", [".npz", ".h5", ".zarr", ".zarr.zip"])
def test_ctrl_c_leaves_nothing(small: Path, tmp_path: Path, ending: str) -> None:
    """Zarr's own threads go on when an exception comes where they are waited for."""
    with hs.HyperSequenceWriter(small) as writer:
        writer.extend({"x": np.zeros((24, 1 << 19), np.float32)})
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, small, tmp_path / f"a{ending}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5
    assert {path.name for path in tmp_path.iterdir()} <= {"in", f"a{ending}"}


@pytest.mark.parametrize("ending", [".npz", ".parquet"])
def test_ctrl_c_says_that_nothing_was_written(small: Path, tmp_path: Path, ending: str) -> None:
    command = [sys.executable, "-c", SLOW.replace("hs.convert(sys.argv[1], sys.argv[2], overwrite=True)", MAIN)]
    command += ["convert", str(small), str(tmp_path / f"a{ending}")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said == f"interrupted\na{ending}: is not written, and what was begun of it is removed\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.skipif(os.name != "posix", reason="no lock tells on Windows whether somebody is at work")
@pytest.mark.parametrize("ending", [".npz", ".zarr"])
def test_what_a_killed_export_left_is_removed_by_the_next_one(small: Path, tmp_path: Path, ending: str) -> None:
    target, command = tmp_path / f"a{ending}", [sys.executable, "-c", SLOW, small]
    (tmp_path / f".b{ending}.01234567.tmp").mkdir()  # of another target
    with subprocess.Popen([*command, target], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            (left,) = tmp_path.glob(f".a{ending}.*.tmp")
            hs.convert(small, target)
            assert left.is_dir()  # somebody is at work there
        finally:
            process.kill()
    assert left.is_dir()
    hs.convert(small, target, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".b{ending}.01234567.tmp", target.name, "in"]


@pytest.mark.skipif(os.name != "posix", reason="no lock tells on Windows whether somebody is at work")
def test_a_store_that_a_killed_export_had_moved_aside_is_put_back(small: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zarr"
    hs.convert(small, target)
    (tmp_path / ".a.zarr.01234567.tmp").mkdir()
    target.rename(tmp_path / ".a.zarr.01234567.tmp" / "old")
    with pytest.raises(hs.FileError, match=r"a\.zarr.* exists already"):
        hs.convert(small, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "in"]
    assert hs.convert(target, tmp_path / "b.hsq").n_records == 100


@pytest.mark.parametrize("error", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_a_store_is_still_there_if_the_new_one_does_not_get_its_name(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    target, replace = tmp_path / "a.zarr", Path.replace
    hs.convert(small, target)
    (target / "mine").touch()

    def refuse(path: Path, to: Path) -> Path:
        if to == target:
            raise error
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises((hs.FileError, KeyboardInterrupt)):
        hs.convert(small, target, overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "in"]
    assert (target / "mine").exists()


@pytest.mark.parametrize("ending", [".npz", ".zarr"])
def test_a_file_system_without_locks_is_written_to(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", refuse)
    hs.convert(small, tmp_path / f"a{ending}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a{ending}", "in"]


@pytest.mark.skipif(os.name != "posix", reason="Windows flushes no folders")
def test_a_folder_that_could_not_be_flushed_is_told(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync, target = os.fsync, tmp_path / "a.npz"

    def failing(fd: int) -> None:
        if target.exists() and os.fstat(fd).st_ino == tmp_path.stat().st_ino:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(hs.FileError, match="is in place, but its folder could not be flushed"):
        hs.convert(small, target)
    monkeypatch.undo()
    hs.convert(target, tmp_path / "b.hsq")


@pytest.mark.parametrize("ending", [".npz", ".zarr"])
@pytest.mark.parametrize("comes", ["file", "folder"])
def test_what_came_up_meanwhile_is_not_replaced(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, comes: str
) -> None:
    """Unless that was asked for, and never a folder of somebody's."""
    target = tmp_path / f"a{ending}"
    flush = placing._flush  # pyright: ignore[reportPrivateUsage] - the last thing before it gets its name

    def somebody_comes(path: Path) -> None:
        flush(path)
        if comes == "folder":
            target.mkdir()
            (target / "precious.txt").write_text("mine")
        else:
            target.write_text("mine")

    monkeypatch.setattr(placing, "_flush", somebody_comes)
    with pytest.raises(hs.FileError, match="exists already"):
        hs.convert(small, target)
    if comes == "folder":
        shutil.rmtree(target)
        with pytest.raises(hs.FileError, match="is a folder that this format did not make"):
            hs.convert(small, target, overwrite=True)
    assert (target / "precious.txt" if comes == "folder" else target).read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [target.name, "in"]


def test_a_name_taken_in_the_last_moment(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def late(path: Path, target: Path) -> None:
        target.write_text("mine")
        link(path, target)

    monkeypatch.setattr(os, "link", late)
    with pytest.raises(hs.FileError, match="exists already"):
        hs.convert(small, tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_text() == "mine"


def test_links_are_followed_and_permissions_kept(small: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    hs.convert(small, tmp_path / "data" / "a.npz")
    (tmp_path / "data" / "a.npz").chmod(0o600)
    (tmp_path / "a.npz").symlink_to(tmp_path / "data" / "a.npz")
    hs.convert(small, tmp_path / "a.npz", overwrite=True)
    assert (tmp_path / "a.npz").is_symlink()
    assert (tmp_path / "data" / "a.npz").stat().st_mode & 0o777 == 0o600
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(hs.FileError, match="is no regular file"):
        hs.convert(small, tmp_path / "pipe.npz", overwrite=True)

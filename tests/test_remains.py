"""What is left in odd states: torn, sparse, out of proportion, made to harm, on file systems that can do little."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from hypersequence.layout import (
    encode_header,
    parse_header,
)
from hypersequence.writer import list_parts, remove_part
from hypersequence.writer.parts import StalePart
from test_recovery import FIXED, assert_records, block_records, ends, left_behind, pairs, parts_of, write

GOLDEN = Path(__file__).parent / "golden" / "several-blocks.hsq"


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


def test_metadata_stay_if_the_last_block_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 4, block_nbytes=500) as writer:
        writer.extend(*pairs(0, 120))
        writer.user_meta()["note"] = "kept"
    flip(path, ends(path)[-1] - 1)
    found = hs.recover(path, tmp_path / "out.hsq")
    assert found.user_meta == {"note": "kept"}
    assert [error.rule for error in found.broken] == ["C1"]
    assert hs.open(tmp_path / "out.hsq").user_meta() == {"note": "kept"}


def test_a_file_is_not_mended_from_another_one_that_was_given_its_id(tmp_path: Path) -> None:
    path, other = tmp_path / "a.hsq", tmp_path / "b.hsq"
    write(path, pairs, 100)
    write(other, lambda start, stop: pairs(start + 1000, stop + 1000), 100)
    os.truncate(path, path.stat().st_size - 1)
    before = path.read_bytes()
    with pytest.raises(hs.FileError, match="no copy of this file"):
        hs.repair(path, other)
    assert path.read_bytes() == before


def test_a_damaged_version_is_mended_like_any_other_byte(tmp_path: Path) -> None:
    path, good = tmp_path / "a.hsq", tmp_path / "good.hsq"
    write(path, pairs, 100)
    shutil.copy(path, good)
    flip(path, 8)
    with pytest.raises(hs.UnsupportedError):
        hs.verify(path)
    command = [sys.executable, "-m", "hypersequence", "verify", str(path), "--repair-from", str(good)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == good.read_bytes()


def test_blocks_stay_as_large_as_they_were(tmp_path: Path) -> None:
    """Or a shuffle would give what was recovered in another order."""
    path, out = tmp_path / "a.hsq", tmp_path / "out.hsq"
    write(path, pairs, 3000, block_nbytes=20_000)
    with hs.open(path) as seq:
        order = [int(label) for _, labels in seq.shuffled(1, window=2000) for label in labels]
    size = block_records(path)
    os.truncate(path, path.stat().st_size - 1)
    hs.recover(path, out)
    assert block_records(out) == size
    with hs.open(out) as seq:
        assert [int(label) for _, labels in seq.shuffled(1, window=2000) for label in labels] == order


@pytest.mark.parametrize("only", [True, False], ids=["the only block", "the last block"])
def test_a_block_whose_frame_is_lost_is_told(tmp_path: Path, only: bool) -> None:
    path = tmp_path / "a.hsq"
    n = 30 if only else 130
    part = left_behind(path, pairs, n, block_nbytes=1600 if only else 700)
    data = bytearray(part.read_bytes())
    header = parse_header(bytes(data[:4096]), "")
    n_whole = n // header.block_records if not only else 0
    at = header.nbytes + n_whole * header.stride
    data[at : at + 512] = bytes(len(data[at : at + 512]))
    part.write_bytes(data)
    if not n_whole:
        with pytest.raises(hs.FileError, match="no whole block"):
            hs.recover(part)
        assert part.read_bytes() == data
    found = hs.recover(part, tmp_path / "out.hsq")
    assert found.n_records == n_whole * header.block_records
    assert [error.rule for error in found.broken] == ["B1"]


def test_a_frame_that_was_torn_while_a_block_became_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longer frame came to the disk but for its first sector: what is recovered in place has no trace of it."""

    class Vanished(BaseException):
        pass

    def large(start: int, stop: int) -> Any:
        return np.repeat(np.arange(start, stop)[:, None], 40_000, 1)

    path = tmp_path / "a.hsq"
    writer = hs.HyperSequenceWriter(path, 64, block_nbytes=64 * 320_000)
    writer.extend(large(0, 1))
    writer.abort()
    (part,) = parts_of(path)
    writer = hs.HyperSequenceWriter.resume(path)
    real = os.write

    def torn(fd: int, data: Any) -> int:
        if os.lseek(fd, 0, os.SEEK_CUR) == 4096:
            os.pwrite(fd, bytes(data)[512:], 4096 + 512)
            raise Vanished
        return real(fd, data)

    with monkeypatch.context() as patched, pytest.raises(Vanished):
        patched.setattr(os, "write", torn)
        writer.extend(large(1, 64))
    vanish(writer)
    assert hs.recover(part).n_records == 1
    assert hs.verify(path).ok


def vanish(writer: hs.HyperSequenceWriter) -> None:
    """As if the process were gone: its lock is, its file is as it is."""
    part, writer._part = writer._part, None
    assert part is not None
    part._release()


def test_two_part_files_of_one_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between the new part file of an only short block and the removal of the old one."""
    path = tmp_path / "a.hsq"
    write(path, pairs, 3)
    path.rename(tmp_path / "a.hsq.0123abcd.part")
    with monkeypatch.context() as patched:
        patched.setattr(os, "unlink", lambda *_, **__: None)
        writer = hs.HyperSequenceWriter.resume(path)
    vanish(writer)
    assert len(parts_of(path)) == 2
    writer = hs.HyperSequenceWriter.resume(path)
    assert writer.n_records == 3
    writer.extend(*pairs(3, 60))
    vanish(writer)
    with hs.HyperSequenceWriter.resume(path) as writer:
        n = writer.n_records
        assert 3 < n <= 60
        writer.extend(*pairs(n, 80))
    assert_records(path, pairs, 80)


def test_a_part_file_of_which_nothing_was_written_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    for name, age in (("00000000", 100), ("ffffffff", -100)):
        empty = tmp_path / f"a.hsq.{name}.part"
        empty.write_bytes(encode_header(hs.Schema(hs.Field("uint8")), 1, 1, 256, bytes(16), 0))
        os.utime(empty, (time.time() - age, time.time() - age))
    left_behind(path, pairs, 97)
    with hs.HyperSequenceWriter.resume(path) as writer:
        assert writer.n_records == 97


def test_a_part_file_that_goes_while_one_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.hsq"
    gone, part = left_behind(path, pairs, 10, file_id=bytes(16)), left_behind(path, pairs, 97)
    assert gone != part

    def listed(target: Path) -> list[StalePart]:
        found = list_parts(target.parent)
        gone.unlink(missing_ok=True)
        return found

    monkeypatch.setattr("hypersequence.writer.resuming.parts_of", listed)
    with hs.HyperSequenceWriter.resume(path) as writer:
        assert writer.n_records == 97


@pytest.mark.parametrize("n_bytes", [0, 10, 4096, 8191])
def test_a_part_file_without_a_whole_header_is_none_to_go_on_with(tmp_path: Path, n_bytes: int) -> None:
    path = tmp_path / "a.hsq"
    writer = hs.HyperSequenceWriter(path, 4)
    writer.append({f"field {number}": 0.5 for number in range(150)})
    writer.abort()
    (part,) = parts_of(path)
    os.truncate(part, n_bytes)
    with pytest.raises(hs.NothingToResumeError):
        hs.HyperSequenceWriter.resume(path)
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.append(1)
    assert hs.open(path).n_records == 1


def test_a_lock_is_given_back_if_going_on_is_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.hsq"
    left_behind(path, pairs, 120)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(hs.HyperSequenceWriter, "_prepare", interrupt)
        hs.HyperSequenceWriter.resume(path)
    with hs.HyperSequenceWriter.resume(path) as writer:
        assert writer.n_records == 120


@pytest.mark.parametrize("meta", [{}, {"note": "kept"}])
def test_a_file_of_no_records_is_recovered_at_every_length(tmp_path: Path, meta: dict[str, str]) -> None:
    path = tmp_path / "a.hsq"
    schema = hs.Schema({"x": hs.Field("float32", (3,))}, "int64")
    with hs.HyperSequenceWriter(path, 4, schema=schema) as writer:
        writer.user_meta().update(meta)
    data = path.read_bytes()
    for nbytes in range(4096, len(data)):
        part = tmp_path / "b.hsq.0123abcd.part"
        part.write_bytes(data[:nbytes])
        found = hs.recover(part, overwrite=True)
        assert (found.n_records, found.broken) == (0, ()), nbytes
        assert found.user_meta in ({}, meta)
        assert hs.verify(tmp_path / "b.hsq").ok
    assert found.user_meta == meta


def test_a_block_in_the_place_of_another_is_mended(tmp_path: Path) -> None:
    path, good = tmp_path / "a.hsq", tmp_path / "good.hsq"
    write(path, pairs, 100)
    shutil.copy(path, good)
    data = bytearray(path.read_bytes())
    header = parse_header(bytes(data[:4096]), "")
    first, second = (header.nbytes + number * header.stride for number in (1, 2))
    data[second : second + header.stride] = data[first : first + header.stride]
    path.write_bytes(data)
    assert hs.repair(path, good) > 0
    assert path.read_bytes() == good.read_bytes()


# --- file systems that can do little ---------------------------------------------------------------------------------


def test_a_live_writer_is_left_alone_where_there_are_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr("fcntl.flock", refuse)
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 4, block_nbytes=700, **FIXED) as writer:
        (listed,) = list_parts(tmp_path)
        assert (listed.nbytes, listed.in_use) == (0, True)
        with pytest.raises(hs.FileError, match="being written"):
            remove_part(listed)
        writer.extend(*pairs(0, 97))
        (listed,) = list_parts(tmp_path)
        assert listed.in_use
        with pytest.raises(hs.FileError, match="being written"):
            remove_part(listed)
        with pytest.raises(hs.FileError, match="being written"):
            hs.HyperSequenceWriter.resume(path)
    assert_records(path, pairs, 97)


def test_a_part_file_that_nobody_wrote_to_for_long_is_taken_where_there_are_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    part = left_behind(tmp_path / "a.hsq", pairs, 97)
    monkeypatch.setattr("fcntl.flock", refuse)
    os.utime(part, (time.time() - 100, time.time() - 100))
    with hs.HyperSequenceWriter.resume(tmp_path / "a.hsq") as writer:
        assert writer.n_records == 97
    part = left_behind(tmp_path / "b.hsq", pairs, 97)
    os.utime(part, (time.time() + 100, time.time() + 100))  # by the clock of another machine
    (listed,) = list_parts(tmp_path)
    assert listed.in_use
    os.utime(part, (time.time() - 100_000, time.time() - 100_000))
    (listed,) = list_parts(tmp_path)
    assert not listed.in_use
    remove_part(listed)
    assert parts_of(tmp_path / "b.hsq") == []


LITTLE_MEMORY = """
import resource, sys
import numpy as np
import hypersequence as hs
with hs.open(sys.argv[1], verify="never") as seq:
    now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (64 << 20),) * 2)
    for read in (lambda: seq.rebatch(90)[0], lambda: seq.rebatch(90).shuffled(1)[0], lambda: seq.records[:90]):
        try:
            read()
        except MemoryError as error:
            print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_batch_for_which_there_is_no_memory(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 1) as writer:
        for number in range(100):
            writer.append(np.full(1 << 17, number, np.float64))
    command = [sys.executable, "-c", LITTLE_MEMORY, str(tmp_path / "a.hsq")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("make batches smaller") == 3

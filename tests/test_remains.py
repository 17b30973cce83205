"""What is left in odd states: torn, sparse, out of proportion, made to harm, on file systems that can do little."""

from __future__ import annotations

import errno
import os
import shutil
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash

import hypersequence as hs
from hypersequence.layout import (
    Chunk,
    Frame,
    Trailer,
    encode_footer,
    encode_frame,
    encode_header,
    encode_trailer,
    parse_header,
)
from hypersequence.writer import list_parts, remove_part
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
    write(path, pairs, 120)
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
    with hs.HyperSequenceWriter.resume(path) as writer:
        assert writer.n_records == 3
        writer.extend(*pairs(3, 50))
    assert_records(path, pairs, 50)


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


# --- made to harm ----------------------------------------------------------------------------------------------------


def test_frames_that_are_longer_than_the_others(tmp_path: Path) -> None:
    """With right checksums, and inside the stride: readers find blocks by the length of the first."""
    path = Path(shutil.copy(GOLDEN, tmp_path / "a.hsq"))
    data = bytearray(path.read_bytes())
    header = parse_header(bytes(data[:4096]), "")
    (length,) = struct.unpack_from("<I", data, header.nbytes + 64)
    at = header.nbytes + header.stride
    frame = data[at : at + length]
    struct.pack_into("<Q", frame, 56, struct.unpack_from("<Q", frame, 56)[0] + 16)
    struct.pack_into("<I", frame, length - 4, zlib.crc32(frame[:-4]))
    data[at : at + length] = frame
    path.write_bytes(data[:-1])
    with pytest.raises(hs.FileError, match="I1"):
        hs.recover(path)
    found = hs.recover(path, tmp_path / "out.hsq")
    assert [error.rule for error in found.broken] == ["I1"]
    assert hs.verify(tmp_path / "out.hsq").ok


def test_a_sparse_part_file_of_billions_of_places(tmp_path: Path) -> None:
    part = tmp_path / "a.hsq.0123abcd.part"
    part.write_bytes(encode_header(hs.Schema(hs.Field("uint8")), 1, 1, 64, bytes(16), 0))
    os.truncate(part, 1 << 43)
    started = time.monotonic()
    assert hs.recover(part).n_records == 0
    assert time.monotonic() - started < 60  # a place at a time it would be a day and more


def test_blocks_behind_a_hole_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    part = left_behind(path, pairs, 97, block_nbytes=200_000)
    data = part.read_bytes()
    header = parse_header(data[:4096], "")
    hole = tmp_path / "hole.hsq.0123abcd.part"
    with hole.open("wb") as file:  # all but the first block
        file.write(data[: header.nbytes])
        file.seek(header.nbytes + header.stride)
        file.write(data[header.nbytes + header.stride :])
    found = hs.recover(hole, tmp_path / "out.hsq")
    assert found.n_records == max(0, 97 - header.block_records)


@pytest.mark.parametrize("stride", [2**63 - 64, 2**62])
def test_strides_that_lead_out_of_any_file(tmp_path: Path, stride: int) -> None:
    part = tmp_path / "a.hsq.0123abcd.part"
    header = encode_header(hs.Schema(hs.Field("uint8")), 1, 1, stride, bytes(16), 0)
    part.write_bytes(header + b"HSQBLOCK" + bytes(300))
    for attempt in (hs.recover, hs.HyperSequenceWriter.resume):
        with pytest.raises(hs.FileError):
            attempt(part)
    assert hs.recover(part, tmp_path / "out.hsq").n_records == 0


def test_more_records_of_no_bytes_than_there_are_numbers_for(tmp_path: Path) -> None:
    schema = hs.Schema(hs.Field("uint8", (0, 2**30)))
    with pytest.raises(hs.ArgumentError, match="smaller batch_size"):
        hs.HyperSequenceWriter(tmp_path / "a.hsq", 2**40, schema=schema)
    part = tmp_path / "x.hsq.0123abcd.part"
    part.write_bytes(encode_header(schema, 2**40, 2**40, 2**20, bytes(16), 0))
    with pytest.raises(hs.ArgumentError, match="smaller batch_size"):
        hs.recover(part, tmp_path / "out.hsq")
    assert [each.name for each in tmp_path.iterdir()] == [part.name]


def write_sparse(path: Path, header: bytes, n: int, frame: Callable[[int], Frame], blocks: bytes = b"") -> None:
    """A file of n blocks of a record each, of which there is hardly more than the ends of its index."""
    parsed, last = parse_header(header, ""), frame(n - 1)
    index_offset = -(-(last.offset + last.nbytes) // 64) * 64
    length = last.frame_nbytes
    footer, crc = encode_footer({})
    footer_offset = index_offset + length * n
    end = footer_offset + len(footer) + 128
    sizes = n, n, index_offset, length * n, footer_offset, len(footer)
    with path.open("wb") as file:
        file.write(header + blocks)
        for number in (0, n - 1):
            file.seek(index_offset + length * number)
            file.write(encode_frame(frame(number), bytes(16)))
        file.write(footer + encode_trailer(Trailer(*sizes, crc, end, bytes(16), bytes(16), parsed.crc)))


OPEN = """
import resource, sys
import hypersequence as hs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with hs.open(sys.argv[1]) as seq:
    assert seq.n_records == 400_000_000
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_sparse_file_of_endless_blocks_takes_no_memory(tmp_path: Path) -> None:
    header = encode_header(hs.Schema(hs.Field("uint8")), 1, 1, 256, bytes(16), 0)

    def frame(number: int) -> Frame:
        return Frame(number, 4096 + 256 * number, number, 1, 193, 192, (Chunk(192, 1, 1, bytes(8)),))

    write_sparse(tmp_path / "a.hsq", header, 400_000_000, frame)
    command = [sys.executable, "-c", OPEN, str(tmp_path / "a.hsq")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50_000  # KiB; a byte for each block would be 390,000


def test_a_part_file_that_is_cut_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = left_behind(tmp_path / "a.hsq", pairs, 120)
    monkeypatch.setattr("hypersequence.writer.remains._HELD_NBYTES", 0)  # as if blocks were too large to be held
    monkeypatch.setattr("hypersequence.writer.remains._ROWS_NBYTES", 100)
    real = hs.HyperSequenceWriter.extend

    def cutting(writer: hs.HyperSequenceWriter, *arrays: Any) -> None:
        os.truncate(part, 4096 + 100)
        real(writer, *arrays)

    monkeypatch.setattr(hs.HyperSequenceWriter, "extend", cutting)
    with pytest.raises(hs.FileChangedError, match="shrank"):
        hs.recover(part, tmp_path / "out.hsq")
    assert not (tmp_path / "out.hsq").exists()


def test_an_index_that_is_claimed_to_be_long_is_not_read(tmp_path: Path) -> None:
    """Of a part file with an end that counts millions of blocks, most of it a hole."""
    header = encode_header(hs.Schema(hs.Field("uint8")), 1, 1, 256, bytes(16), 0)

    def frame(number: int) -> Frame:
        return Frame(number, 4096 + 256 * number, number, 1, 193, 192, (Chunk(192, 1, 1, xxh3(b"\0")),))

    part = tmp_path / "a.hsq.0123abcd.part"
    write_sparse(part, header, 40_000_000, frame, encode_frame(frame(0), bytes(16)))
    command = [sys.executable, "-c", RECOVER, str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    n_records, n_told, nbytes = done.stdout.split()
    assert (n_records, n_told) == ("1", "1")
    assert int(nbytes) < 100_000  # KiB; the index alone would be 7,500,000


RECOVER = """
import resource, sys
import hypersequence as hs
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = hs.recover(sys.argv[1])
print(found.n_records, len(found.broken), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def xxh3(data: bytes) -> bytes:
    return xxhash.xxh3_64_intdigest(data).to_bytes(8, "little")


def test_a_hole_between_the_columns_of_a_block_is_not_read_through(tmp_path: Path) -> None:
    """The second column lies terabytes behind the first, as the frame of a hostile file says."""
    far = 1 << 42
    schema = hs.Schema((hs.Field("uint8"), hs.Field("uint8")))
    header = encode_header(schema, 1, 1, far + 128, bytes(16), 0)
    frame = Frame(0, 4096, 0, 1, far + 1, 256, (Chunk(256, 1, 1, xxh3(b"a")), Chunk(far, 1, 1, xxh3(b"b"))))
    part = tmp_path / "a.hsq.0123abcd.part"
    with part.open("wb") as file:
        file.write(header + encode_frame(frame, bytes(16)) + b"a")
        file.seek(4096 + far)
        file.write(b"b")
    started = time.monotonic()
    assert hs.recover(part).n_records == 1
    assert time.monotonic() - started < 60  # a piece at a time it would be an hour
    with hs.open(tmp_path / "a.hsq") as seq:
        assert [value.tolist() for value in seq[0][0]] == [[ord("a")], [ord("b")]]


def test_notes_of_what_was_checked_take_no_memory_for_every_field(tmp_path: Path) -> None:
    """A thousand fields, of each of which there seem to be 900,000 checksums."""
    n_fields, stride = 1000, 1 << 17
    header = encode_header(hs.Schema((hs.Field("uint8"),) * n_fields), 1, 1, stride, bytes(16), 0)
    length = -(-(80 + n_fields * 56 + 4) // 64) * 64
    chunks = tuple(Chunk(length + 64 * column, 1, 1, bytes(8)) for column in range(n_fields))

    def frame(number: int) -> Frame:
        return Frame(number, len(header) + stride * number, number, 1, chunks[-1].offset + 1, length, chunks)

    write_sparse(tmp_path / "a.hsq", header, 900_000, frame)
    command = [sys.executable, "-c", OPEN.replace("400_000_000", "900_000"), str(tmp_path / "a.hsq")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000  # KiB; a byte for each would be 880,000


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

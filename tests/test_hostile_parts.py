"""Part files made to harm whoever recovers them, and files whose metadata are out of proportion."""

from __future__ import annotations

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
from test_recovery import block_records, left_behind, pairs

GOLDEN = Path(__file__).parent / "golden" / "several-blocks.hsq"


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
    monkeypatch.setattr("hypersequence.writer.scan._HELD_NBYTES", 0)  # as if blocks were too large to be held
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


def test_a_short_block_of_a_file_of_gigantic_blocks(tmp_path: Path) -> None:
    """Recovered to another file, whose writer would have to hold two gigabytes for each of its blocks."""
    n = 1 << 31
    header = encode_header(hs.Schema(hs.Field("uint8")), 1, n, n + 4096, bytes(16), 0)
    frame = Frame(0, 4096, 0, 3, 195, 192, (Chunk(192, 3, 1 << 18, xxh3(b"abc")),))
    part = tmp_path / "a.hsq.0123abcd.part"
    part.write_bytes(header + encode_frame(frame, bytes(16)) + b"abc")
    assert hs.recover(part, tmp_path / "out.hsq").n_records == 3
    assert block_records(tmp_path / "out.hsq") <= 8 << 20


def test_a_torn_block_behind_a_hole_is_found(tmp_path: Path) -> None:
    """Its own frame is part of the hole; a copy stands where the next block would begin."""

    def mostly_zeros(start: int, stop: int) -> tuple[Any, ...]:
        values = np.zeros((stop - start, 28), np.uint8)
        values[-1] = 1
        return (values,)

    part = left_behind(tmp_path / "a.hsq", mostly_zeros, 30_000, block_nbytes=200_000)
    data = part.read_bytes()
    header = parse_header(data[:4096], "")
    last = (30_000 - 1) // header.block_records
    place = header.nbytes + last * header.stride
    hole = tmp_path / "hole.hsq.0123abcd.part"
    with hole.open("wb") as file:
        file.write(data[: header.nbytes + header.stride])
        file.seek(place + 4096)
        file.write(data[place + 4096 :])
        file.seek(place + header.stride)
        file.write(data[place : place + 4096])
    found = hs.recover(hole, tmp_path / "out.hsq")
    whole = header.block_records + 30_000 - last * header.block_records
    assert last > 2
    assert found.n_blocks == 2, found.broken
    assert found.n_records == whole


@pytest.mark.parametrize("type_name", ["S0", "U0"])
def test_endless_text_of_no_characters(tmp_path: Path, type_name: str) -> None:
    """NumPy goes through values of no bytes one by one."""
    n = 1 << 40
    header = encode_header(hs.Schema(hs.Field(type_name)), 1, n, 4096, bytes(16), 0)
    frame = Frame(0, 4096, 0, n - 1, 192, 192, (Chunk(192, 0, 0, b""),))
    part = tmp_path / "a.hsq.0123abcd.part"
    part.write_bytes(header + encode_frame(frame, bytes(16)) + bytes(64))
    program = "import sys, hypersequence as hs; print(hs.recover(sys.argv[1], sys.argv[2]).n_records)"
    command = [sys.executable, "-c", program, str(part), str(tmp_path / "out.hsq")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.strip() == str(n - 1) or "HyperSequenceError" in done.stderr or "ArgumentError" in done.stderr
    program = "import sys, hypersequence as hs; print(hs.HyperSequenceWriter.resume(sys.argv[1]).n_records)"
    done = subprocess.run([sys.executable, "-c", program, str(part)], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == str(n - 1), done.stderr


def test_frames_at_every_place_that_seem_to_reach_to_the_end(tmp_path: Path) -> None:
    header = encode_header(hs.Schema(hs.Field("uint8")), 1, 1, 128, bytes(16), 0)
    nbytes = 2 << 20
    head = b"HSQBLOCK" + bytes(16)
    frames = bytearray()
    for number in range(nbytes // 128):
        length = (nbytes - 128 * number) // 64 * 64
        numbers = number, 4096 + 128 * number, number, 1, 128, length, 1, 0, 0
        frames += (head + struct.pack("<QQQQQIIII", *numbers)).ljust(128, b"\1")
    part = tmp_path / "a.hsq.0123abcd.part"
    part.write_bytes(header + frames)
    started = time.monotonic()
    assert hs.recover(part, tmp_path / "out.hsq").n_records == 0
    assert time.monotonic() - started < 30  # each to its end it would be minutes


def test_a_footer_that_names_its_metadata_many_times(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.extend(*pairs(0, 8))
    data = path.read_bytes()
    footer = int.from_bytes(data[-96:-88], "little")
    text = b'{"a":"' + b"x" * 2_000_000 + b'"'
    row = struct.pack("<8sQQII", b"usermeta", 4 + 32 * 250, len(text), zlib.crc32(text), 0)
    rows = row * 250
    (tmp_path / "b.hsq").write_bytes(data[:footer] + struct.pack("<I", 250) + rows + text)
    started = time.monotonic()
    found = hs.recover(tmp_path / "b.hsq", tmp_path / "out.hsq")
    assert (found.n_records, found.user_meta) == (8, {})
    assert time.monotonic() - started < 20


LITTLE = """
import resource, sys
import hypersequence as hs
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (300 << 20),) * 2)
try:
    hs.recover(sys.argv[1], sys.argv[2])
except hs.FileError as error:
    print(error)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_a_record_for_which_there_is_no_memory(tmp_path: Path) -> None:
    n = 128 << 20
    header = encode_header(hs.Schema(hs.Field("uint8", (n,))), 1, 1, n + 4096, bytes(16), 0)
    frame = Frame(0, 4096, 0, 1, 192 + n, 192, (Chunk(192, n, n, xxh3(bytes(n))),))
    part = tmp_path / "a.hsq.0123abcd.part"
    part.write_bytes(header + encode_frame(frame, bytes(16)))
    os.truncate(part, 4096 + 192 + n)
    command = [sys.executable, "-c", LITTLE, str(part), str(tmp_path / "out.hsq")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "too little memory" in done.stdout, done.stderr
    assert not (tmp_path / "out.hsq").exists()

"""Blocks of which nothing is there, or something older: which of them are told, and what is made of the file."""

from __future__ import annotations

import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest

import hypersequence as hs
from hypersequence.layout import HEADER_PAGE_NBYTES, Header, parse_header
from test_recovery import FIXED, left_behind, pairs, write


def header_of(path: Path) -> Header:
    with path.open("rb") as file:
        return parse_header(file.read(HEADER_PAGE_NBYTES), str(path))


def blank(path: Path, blocks: range, *, hole: bool = False) -> None:
    """Have nothing but zeros where these blocks stand, up to what comes behind the last of them."""
    header, size = header_of(path), path.stat().st_size
    with hs.open(path) as seq:
        n_blocks = -(-seq.n_records // header.block_records)
    data = path.read_bytes()
    start = header.nbytes + blocks[0] * header.stride
    stop = header.nbytes + blocks[-1] * header.stride + header.stride
    if blocks[-1] == n_blocks - 1:
        stop = int.from_bytes(data[size - 128 + 16 : size - 128 + 24], "little")  # where the trailer says the index is
    with path.open("wb") as file:
        file.write(data[:start])
        if hole:
            file.seek(stop)
        else:
            file.write(bytes(stop - start))
        file.write(data[stop:])


def finished(folder: Path, n: int = 200) -> Path:
    """A finished file of seven blocks or more, under the name of a part file."""
    with hs.HyperSequenceWriter(folder / "a.hsq", 4, block_nbytes=700) as writer:
        writer.extend(*pairs(0, n))
        writer.user_meta()["note"] = "kept"
    return (folder / "a.hsq").rename(folder / "a.hsq.0123abcd.part")


@pytest.mark.parametrize("hole", [False, True], ids=["zeros", "hole"])
@pytest.mark.parametrize("first", [0, 1, 4])
def test_blocks_that_a_sound_end_counts_are_told_although_nothing_is_there(
    tmp_path: Path, first: int, hole: bool
) -> None:
    part = finished(tmp_path)
    size = header_of(part).block_records
    n_blocks = -(-200 // size)
    assert n_blocks > 5
    blank(part, range(first, n_blocks), hole=hole)
    found = hs.recover(part, tmp_path / "out.hsq")
    assert (found.n_records, found.user_meta) == (first * size, {"note": "kept"})
    assert [(error.block, error.last_block) for error in found.broken] == [(first, n_blocks - 1)]
    assert f"blocks {first} to {n_blocks - 1}" in str(found.broken[0])
    before = part.read_bytes()
    if first == 0:
        with pytest.raises(hs.FileError, match="no whole block"):
            hs.recover(part)
        assert part.read_bytes() == before
    else:
        found = hs.recover(part)
        assert (found.n_records, len(found.broken)) == (first * size, 1)
        assert hs.verify(tmp_path / "a.hsq").ok


def test_blocks_in_a_row_of_which_nothing_is_there_are_told_as_one(tmp_path: Path) -> None:
    part = finished(tmp_path)
    blank(part, range(1, 4), hole=True)
    os.truncate(part, part.stat().st_size - 1)  # and nobody knows how many there were
    found = hs.recover(part, tmp_path / "out.hsq")
    assert [(error.block, error.last_block) for error in found.broken] == [(1, 3)]
    with pytest.raises(hs.FileError, match="3 blocks are broken"):
        hs.recover(part)


@pytest.mark.parametrize("n_blocks", [2, 5])
def test_a_last_block_in_whose_place_is_another_is_told(tmp_path: Path, n_blocks: int) -> None:
    """Its frame is that of block 0, which an index would begin with."""
    part = finished(tmp_path, n_blocks * header_records(tmp_path))
    header = header_of(part)
    data = bytearray(part.read_bytes())
    first, last = header.nbytes, header.nbytes + (n_blocks - 1) * header.stride
    data[last : last + header.stride] = data[first : first + header.stride]
    part.write_bytes(data[: last + header.stride - 64])  # without an end
    found = hs.recover(part, tmp_path / "out.hsq")
    assert found.n_records == (n_blocks - 1) * header.block_records
    assert [error.block for error in found.broken] == [n_blocks - 1]


def header_records(folder: Path) -> int:
    """How many records a block of :func:`finished` has."""
    part = finished(folder, 8)
    return header_of(part).block_records


def test_an_index_is_not_taken_for_a_block(tmp_path: Path) -> None:
    for n_blocks in (1, 2, 5):
        part = finished(tmp_path, n_blocks * header_records(tmp_path))
        data = part.read_bytes()
        index_offset = int.from_bytes(data[-128 + 16 : -128 + 24], "little")
        for nbytes in range(index_offset, len(data)):
            part.write_bytes(data[:nbytes])
            found = hs.recover(part, tmp_path / "out.hsq", overwrite=True)
            assert (found.n_blocks, found.broken) == (n_blocks, ()), (n_blocks, nbytes - index_offset)


def test_an_older_state_of_a_block_is_kept_and_told(tmp_path: Path) -> None:
    """The write that made the last block longer never came to the disk, which kept what was there before."""
    path = tmp_path / "a.hsq"
    older = left_behind(path, pairs, 150, block_nbytes=700).read_bytes()
    with hs.HyperSequenceWriter.resume(path) as writer:
        writer.extend(*pairs(150, 160))
    header = header_of(path)
    last = header.nbytes + 159 // header.block_records * header.stride
    assert 150 // header.block_records == 159 // header.block_records
    data = bytearray(path.read_bytes())
    data[last : len(older)] = older[last:]
    path.write_bytes(data)
    found = hs.recover(path, tmp_path / "out.hsq")
    assert found.n_records == 150
    assert [(error.rule, error.first_record, error.last_record) for error in found.broken] == [("I2", 150, 159)]
    with hs.open(tmp_path / "out.hsq") as seq:
        assert seq.records[:][1].tolist() == list(range(150))


def test_a_write_that_was_lost_is_mended_without_an_end(tmp_path: Path) -> None:
    path, good = tmp_path / "a.hsq", tmp_path / "good.hsq"
    older = left_behind(path, pairs, 150, block_nbytes=700).read_bytes()
    with hs.HyperSequenceWriter.resume(path) as writer:
        writer.extend(*pairs(150, 160))
    shutil.copy(path, good)
    header = header_of(path)
    last = header.nbytes + 159 // header.block_records * header.stride
    data = bytearray(path.read_bytes())
    data[last : len(older)] = older[last:]
    path.write_bytes(data[:-40])
    assert hs.repair(path, good) > 0
    assert path.read_bytes() == good.read_bytes()


def test_a_shorter_file_that_was_given_the_same_id_is_not_overwritten(tmp_path: Path) -> None:
    path, other = tmp_path / "a.hsq", tmp_path / "b.hsq"
    for name, first, n in ((path, 0, 7), (other, 1000, 8)):
        write(name, lambda start, stop, first=first: pairs(first + start, first + stop), n, **FIXED)
    assert path.read_bytes()[:4096] == other.read_bytes()[:4096]
    os.truncate(path, path.stat().st_size - 1)
    before = path.read_bytes()
    with pytest.raises(hs.FileError, match="no copy of this file"):
        hs.repair(path, other)
    assert path.read_bytes() == before


@pytest.mark.parametrize("full", [False, True])
def test_a_frame_that_was_not_cut_off_is_no_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool) -> None:
    """Killed behind the longer frame and before the copy of the old one was cut off."""
    path = tmp_path / "a.hsq"
    part = left_behind(path, pairs, 150, block_nbytes=700)
    header = header_of(part)
    n = -(-150 // header.block_records) * header.block_records - (not full)
    calls = 0

    def dies(*_: object) -> None:
        nonlocal calls
        calls += 1
        raise KeyboardInterrupt

    writer = hs.HyperSequenceWriter.resume(path)
    with monkeypatch.context() as patched:
        patched.setattr("hypersequence.writer.partfile.PartFile.go_back", dies)
        with pytest.raises(KeyboardInterrupt):
            writer.extend(*pairs(150, n))
            writer.close()
    killed = shutil.copy(part, tmp_path / "killed.hsq.0123abcd.part")
    writer.abort()
    assert calls == 1
    assert killed.stat().st_size > header.nbytes + -(-n // header.block_records) * header.stride
    found = hs.recover(killed, tmp_path / "out.hsq")
    assert (found.n_records, found.broken) == (n, ())
    assert hs.recover(killed).broken == ()
    assert hs.verify(tmp_path / "killed.hsq").ok


def test_whole_blocks_behind_an_older_state_of_one_are_saved(tmp_path: Path) -> None:
    """The write of one sector was lost: the frame is that of a time at which the block was the last, and short."""
    path = tmp_path / "a.hsq"
    older = left_behind(path, pairs, 150, block_nbytes=700).read_bytes()
    writer = hs.HyperSequenceWriter.resume(path)
    writer.extend(*pairs(150, 1000))
    writer.abort()
    (part,) = tmp_path.glob("*.part")
    header, data = header_of(part), bytearray(part.read_bytes())
    at = header.nbytes + 149 // header.block_records * header.stride
    data[at : at + 256] = older[at : at + 256]
    part.write_bytes(data)
    size = (149 // header.block_records + 1) * header.block_records
    found = hs.recover(part, tmp_path / "out.hsq")
    assert [(error.rule, error.first_record, error.last_record) for error in found.broken] == [("I2", 150, size - 1)]
    with hs.open(tmp_path / "out.hsq") as seq:
        assert seq.records[:][1].tolist() == [*range(150), *range(size, 1000)]
    with pytest.raises(hs.FileError, match="whole ones lie behind the first"):
        hs.recover(part)
    assert part.read_bytes() == data


def test_a_byte_too_many_costs_nothing_in_place(tmp_path: Path) -> None:
    part = finished(tmp_path)
    header, data = header_of(part), part.read_bytes()
    at = header.nbytes + header.stride + 300
    part.write_bytes(data[:at] + b"x" + data[at:])
    with pytest.raises(hs.FileError, match=r"more than a writer leaves that was killed.*-o OUT"):
        hs.recover(part)
    assert len(part.read_bytes()) == len(data) + 1
    assert hs.recover(part, tmp_path / "out.hsq").n_records == header.block_records


def test_metadata_are_found_by_the_end_although_the_index_is_lost(tmp_path: Path) -> None:
    part = finished(tmp_path)
    header, data = header_of(part), bytearray(part.read_bytes())
    index = int.from_bytes(data[-112:-104], "little")
    last = header.nbytes + 199 // header.block_records * header.stride
    data[last : index + 64] = bytes(index + 64 - last)
    part.write_bytes(data)
    found = hs.recover(part, tmp_path / "out.hsq")
    assert (found.user_meta, len(found.broken)) == ({"note": "kept"}, 1)
    assert hs.recover(part).user_meta == {"note": "kept"}


def test_records_of_a_block_are_damaged_before_a_hole(tmp_path: Path) -> None:
    part = finished(tmp_path)
    blank(part, range(3, 6), hole=True)
    header = header_of(part)
    with part.open("r+b") as file:
        file.seek(header.nbytes + 2 * header.stride + 300)
        file.write(b"damage")
    found = hs.recover(part, tmp_path / "out.hsq")
    assert [type(error) for error in found.broken] == [hs.ChecksumError, hs.FormatError]
    assert [(error.block, error.facts.get("last_block")) for error in found.broken] == [(2, None), (3, 5)]


def test_an_end_with_another_digest_is_written_anew(tmp_path: Path) -> None:
    part = finished(tmp_path)
    data = bytearray(part.read_bytes())
    data[-48] ^= 1
    at = len(data) - 128
    struct.pack_into("<I", data, len(data) - 12, zlib.crc32(data[at : len(data) - 12]))
    part.write_bytes(data)
    hs.recover(part)
    assert hs.verify(tmp_path / "a.hsq").ok


def test_a_file_that_went_on_otherwise_is_not_overwritten(tmp_path: Path) -> None:
    """Two files of one id with the same first blocks; of one the end is lost."""
    path, other = tmp_path / "a.hsq", tmp_path / "b.hsq"
    for name, first in ((path, 0), (other, 1000)):
        with hs.HyperSequenceWriter(name, 4, block_nbytes=700, **FIXED) as writer:
            writer.extend(*pairs(0, 96))
            writer.extend(*pairs(first + 96, first + 150))
    os.truncate(path, path.stat().st_size - 1)
    before = path.read_bytes()
    with pytest.raises(hs.FileError, match="no copy of this file"):
        hs.repair(path, other)
    assert path.read_bytes() == before


def test_a_file_that_went_on_is_not_cut_to_its_copy(tmp_path: Path) -> None:
    path, good = tmp_path / "a.hsq", tmp_path / "good.hsq"
    part = left_behind(path, pairs, 96, block_nbytes=700)
    shutil.copy(part, tmp_path / "good.hsq.0123abcd.part")
    hs.recover(tmp_path / "good.hsq.0123abcd.part")
    with hs.HyperSequenceWriter.resume(path) as writer:
        writer.extend(*pairs(96, 200))
    os.truncate(path, path.stat().st_size - 1)
    before = path.read_bytes()
    with pytest.raises(hs.FileError, match="no copy of this file"):
        hs.repair(path, good)
    assert path.read_bytes() == before


def test_a_last_block_that_went_on_otherwise_is_not_overwritten(tmp_path: Path) -> None:
    """Of fewer records than the other's, but its own."""
    path, other = tmp_path / "a.hsq", tmp_path / "b.hsq"
    for name, n in ((path, 5), (other, 15)):
        with hs.HyperSequenceWriter(name, 4, block_nbytes=700, **FIXED) as writer:
            writer.extend(*pairs(0, 96))
            writer.extend(*pairs(n * 1000, n * 1000 + n))
    os.truncate(path, path.stat().st_size - 1)
    before = path.read_bytes()
    with pytest.raises(hs.FileError, match="no copy of this file"):
        hs.repair(path, other)
    assert path.read_bytes() == before


def test_a_block_in_the_place_of_another_is_mended_without_an_end(tmp_path: Path) -> None:
    path, good = tmp_path / "a.hsq", tmp_path / "good.hsq"
    write(path, pairs, 150)
    shutil.copy(path, good)
    header, data = header_of(path), bytearray(path.read_bytes())
    first, second = (header.nbytes + number * header.stride for number in (1, 2))
    data[second : second + header.stride] = data[first : first + header.stride]
    path.write_bytes(data[:-1])
    assert hs.repair(path, good) > 0
    assert path.read_bytes() == good.read_bytes()


def test_padding_of_any_block_is_zero_after_recovering_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    part = left_behind(path, lambda start, stop: (pairs(start, stop)[1],), 200, block_nbytes=1000)
    header = header_of(part)
    data = bytearray(part.read_bytes())
    data[header.nbytes + header.stride - 1] = 1  # the last byte of block 0 is none of a record
    part.write_bytes(data)
    assert hs.recover(part).n_records == 200
    assert hs.verify(path).ok


def test_very_many_broken_blocks_are_not_told_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = finished(tmp_path)
    header, data = header_of(part), bytearray(part.read_bytes())
    for number in (1, 2, 4):
        data[header.nbytes + number * header.stride + 300] ^= 1  # a record
    data[header.nbytes + 3 * header.stride + 20] ^= 1  # a frame
    part.write_bytes(data)
    assert [error.block for error in hs.recover(part, tmp_path / "one.hsq").broken] == [1, 2, 3, 4]
    monkeypatch.setattr("hypersequence.writer.scan._MAX_BROKEN", 2)
    found = hs.recover(part, tmp_path / "other.hsq")
    assert [(error.block, error.facts.get("last_block")) for error in found.broken] == [(1, None), (2, 4)]
    with pytest.raises(hs.FileError, match="4 blocks are broken"):
        hs.recover(part)

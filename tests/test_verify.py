"""Every byte is looked at: what ``verify`` notices, what it says of it, and mending a file from a copy."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
import reference_reader
from bad_disk import BadSectors
from hypersequence.layout import header
from test_bad_input import TRAILER, Parts, footer_of
from test_cli import hsq

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.hsq"))


def write(path: Path, n: int = 38, **options: Any) -> Path:
    with hs.HyperSequenceWriter(path, 4, **{"block_nbytes": 500, **options}) as writer:
        numbers = np.arange(n)
        writer.extend({"image": np.repeat(numbers.astype(np.float32)[:, None], 7, 1), "id": numbers}, numbers % 3)
        writer.user_meta()["note"] = "a file"
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write(tmp_path / "a.hsq")


def flip(path: Path, offset: int, bit: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1 << bit]))


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_sound_files(golden: Path, threads: int) -> None:
    found = hs.verify(golden, threads=threads)
    with hs.open(golden) as seq:
        assert found.ok and found.has_checksums and found.problems == ()
        assert (found.n_records, found.n_bytes) == (seq.n_records, golden.stat().st_size)
    assert "all as written" in str(found)
    assert "all as written" in found._repr_html_()


def test_every_flipped_bit_is_noticed(path: Path) -> None:
    """All of them, in records, in metadata, in padding: there is no byte that means nothing."""
    whole = path.read_bytes()
    for offset in range(len(whole)):
        damaged = bytearray(whole)
        damaged[offset] ^= 1 << offset % 8
        path.write_bytes(damaged)
        try:
            assert not hs.verify(path, threads=0).ok, offset
        except hs.UnsupportedError:
            assert offset in (8, 9), "the version"
    path.write_bytes(whole)
    assert hs.verify(path).ok


def test_every_length_but_the_right_one_is_noticed(path: Path) -> None:
    whole = path.read_bytes()
    for nbytes in [*range(0, len(whole), 7), len(whole) - 1, len(whole) + 1, len(whole) + 4096]:
        path.write_bytes((whole + bytes(5000))[:nbytes])
        assert not hs.verify(path).ok, nbytes


@pytest.mark.parametrize("threads", [0, 2])
def test_damage_is_told_by_block_records_field_and_offset(path: Path, threads: int) -> None:
    with hs.open(path) as seq:
        stored = seq._source.files()[0].stored
    assert stored.n_blocks > 4
    hit = [(1, 0, 0), (1, 1, 5), (3, 2, stored.block_records - 1)]  # block, column, row
    for block, column, row in hit:
        size = stored.schema.columns[column].field.nbytes
        place = stored.first_block + block * stored.stride + stored.column_offsets[column]
        flip(path, place + row * size)
    found = hs.verify(path, threads=threads)
    assert not found.ok
    assert {(p.block, p.field) for p in found.problems} == {(1, "inputs['image']"), (1, "inputs['id']"), (3, "outputs")}
    assert [p.block for p in found.problems] == [1, 1, 3]
    for problem in found.problems:
        assert isinstance(problem, hs.ChecksumError)
        assert problem.first_record == problem.block * stored.block_records
        for fact in (problem.path, problem.block, problem.first_record, problem.last_record, problem.offset):
            assert str(fact) in str(problem)
    assert "3 problems" in str(found)


def with_crc(data: bytearray, start: int, stop: int) -> None:
    """Put the right CRC behind bytes that were changed."""
    data[stop : stop + 4] = struct.pack("<I", zlib.crc32(data[start:stop]))


def test_what_no_checksum_finds_is_found_all_the_same(path: Path) -> None:
    """A writer that leaves rubbish in the padding, or whose index or digest is not that of its blocks."""
    whole = path.read_bytes()
    with hs.open(path) as seq:
        stored = seq._source.files()[0].stored

    def problems(change: Any) -> list[str]:
        data = bytearray(whole)
        change(data)
        path.write_bytes(data)
        return [problem.rule for problem in hs.verify(path).problems]

    def header_padding(data: bytearray) -> None:
        data[4000] = 1
        with_crc(data, 0, 4092)
        data[-32:-28] = data[4092:4096]  # the trailer repeats it
        with_crc(data, len(data) - 128, len(data) - 12)

    def behind_a_block(data: bytearray) -> None:
        assert data[stored.first_block + stored.stride - 1] == 0
        data[stored.first_block + stored.stride - 1] = 7

    def own_frame(data: bytearray) -> None:
        data[stored.first_block + stored.stride + 24] ^= 1

    def digest(data: bytearray) -> None:
        data[-48] ^= 1
        with_crc(data, len(data) - 128, len(data) - 12)

    assert problems(lambda data: None) == []
    assert problems(header_padding) == ["P1"]
    assert problems(behind_a_block) == ["P1"]
    assert problems(own_frame) == ["P2"]
    assert problems(digest) == ["P3"]


def test_what_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hs.verify(tmp_path / "missing.hsq")
    with pytest.raises(hs.FileError, match="directory"):
        hs.verify(tmp_path)
    with pytest.raises(hs.ArgumentError, match="threads"):
        hs.verify(GOLDEN[0], threads=-1)
    empty = tmp_path / "empty.hsq"
    empty.touch()
    assert not hs.verify(empty).ok


def test_a_file_that_shrinks_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hypersequence.layout import ContentDigest

    path, real, seen = write(tmp_path / "a.hsq", 3000), ContentDigest.add, [0]

    def add(digest: ContentDigest, frame: Any) -> None:
        real(digest, frame)
        seen[0] += 1
        if seen[0] == 20:
            os.truncate(path, 6000)

    monkeypatch.setattr(ContentDigest, "add", add)
    with pytest.raises(hs.FileChangedError, match="shrank"):
        hs.verify(path, threads=0)


def test_sections_that_this_release_does_not_know_are_looked_at_too(path: Path) -> None:
    whole = Parts(path.read_bytes()).footer(*footer_of((b"usermeta", b"{}"), (b"unknown!", b"abc"))).build()
    path.write_bytes(whole)
    assert hs.verify(path).ok
    path.write_bytes(whole.replace(b"abc", b"abd"))
    assert [problem.rule for problem in hs.verify(path).problems] == ["P4"]
    with hs.open(path) as seq:
        assert seq.user_meta() == {}


def test_a_file_that_is_nothing_but_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 1, block_nbytes=1) as writer:
        writer.extend(np.zeros((3000, 2)))
    with hs.open(path) as seq:
        stored = seq._source.files()[0].stored
    data = bytearray(path.read_bytes())
    for block in range(3000):
        data[stored.first_block + block * stored.stride + stored.column_offsets[0]] = 1
    path.write_bytes(data)
    for threads in (0, 2):
        assert len(hs.verify(path, threads=threads).problems) == 1000


# --- repairing -------------------------------------------------------------------------------------------------------


def test_a_damaged_file_becomes_what_it_was(path: Path, tmp_path: Path) -> None:
    good = Path(shutil.copy(path, tmp_path / "good.hsq"))
    whole = good.read_bytes()
    choice = np.random.default_rng(1)
    for round_ in range(60):
        damaged = bytearray(whole)
        for offset in choice.integers(0, len(whole), 1 + round_ % 7):
            damaged[offset] ^= 1 << round_ % 8
        n_different = sum(a != b for a, b in zip(damaged, whole, strict=True))
        if round_ % 5 == 4:
            damaged = damaged[: int(choice.integers(4096, len(whole)))]
            n_different = -1
        if round_ % 5 == 3:
            damaged += b"more"
            n_different += 4
        path.write_bytes(damaged)
        try:
            found = hs.repair(path, good)
        except hs.FileError as error:  # both ends are damaged
            assert "no copy of this file" in str(error)
            assert bytes(damaged) == path.read_bytes()
            continue
        assert n_different < 0 or found == n_different
        assert path.read_bytes() == whole
    assert good.read_bytes() == whole


def test_only_a_whole_copy_of_the_same_file_will_do(path: Path, tmp_path: Path) -> None:
    good = Path(shutil.copy(path, tmp_path / "good.hsq"))
    other = write(tmp_path / "other.hsq")  # the same records, written another time
    flip(path, 4600)
    before = path.read_bytes()
    with pytest.raises(hs.FileError, match="is no copy of this file"):
        hs.repair(path, other)
    flip(good, 5000)
    with pytest.raises(hs.FileError, match="cannot be repaired from: it is damaged itself"):
        hs.repair(path, good)
    assert path.read_bytes() == before
    flip(good, 5000)
    flip(path, 10)  # the header, so that the trailer has to tell
    assert hs.repair(path, good) == 2
    flip(path, 10)
    flip(path, path.stat().st_size - 3)
    with pytest.raises(hs.FileError, match="nobody can tell"):
        hs.repair(path, good)


def test_files_that_share_an_id_are_not_copies_of_each_other(tmp_path: Path) -> None:
    """Whoever asks for reproducible bytes gives the id; and a file that was gone on with keeps it."""
    fixed = {"file_id": bytes(16), "created_ns": 0}
    one, other = write(tmp_path / "a.hsq", 100, **fixed), write(tmp_path / "b.hsq", 50, **fixed)
    before = one.read_bytes()
    with pytest.raises(hs.FileError, match="is no copy of this file"):
        hs.repair(one, other)
    flip(one, 5000)
    with pytest.raises(hs.FileError, match="is no copy of this file"):
        hs.repair(one, other)
    flip(one, 5000)
    assert one.read_bytes() == before


# --- disks that fail -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 2])
def test_sectors_that_cannot_be_read(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """Each costs what lies in it, and the rest is looked at all the same."""
    write(path, 8000, block_nbytes=5000, overwrite=True)
    good = Path(shutil.copy(path, tmp_path / "good.hsq"))
    with hs.open(path) as seq:
        stored = seq._source.files()[0].stored
    index_offset = TRAILER.get(path.read_bytes()[-TRAILER.nbytes :], "index_offset")
    starts = [stored.first_block + block * stored.stride for block in range(stored.n_blocks)]
    records = starts[1] + stored.column_offsets[0]
    flip(path, starts[3] + stored.column_offsets[0])
    disk = BadSectors(monkeypatch, path, [records + 200, starts[2]])
    found = hs.verify(path, threads=threads)
    assert {problem.rule for problem in found.problems} == {"C1", "P5"}
    assert {problem.block for problem in found.problems if problem.rule == "C1"} == {3}
    bad = [problem for problem in found.problems if problem.rule == "P5"]
    assert {problem.block for problem in bad} - {1, 2} <= {0}  # which shares the sector of a frame
    assert {problem.facts.get("field") for problem in bad if problem.block == 1} >= {"inputs['image']"}
    assert {problem.offset for problem in bad if problem.block == 2} >= {starts[2]}
    for problem in found.problems:
        assert str(problem).startswith(f"{path}: ")
        assert problem.rule == "C1" or "Input/output error" in str(problem)
    assert hs.repair(path, good) > 0
    assert not disk.bad
    assert hs.verify(path).ok
    assert path.read_bytes() == good.read_bytes()
    for offset in (100, index_offset + 600, path.stat().st_size - 200, path.stat().st_size - 10):
        disk.bad = {offset // 512}
        found = hs.verify(path, threads=threads)
        assert found.problems[0].rule == "P5", offset
        assert hs.repair(path, good) > 0
        assert hs.verify(path).ok


def test_a_disk_that_takes_no_repair(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = Path(shutil.copy(path, tmp_path / "good.hsq"))
    flip(path, 4600)

    def full(fd: int) -> None:
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(hs.FileError, match=r"could not be repaired: .*No space left.*can be done again"):
            hs.repair(path, good)
    with pytest.raises(hs.FileError, match="could not be repaired"):
        hs.repair(tmp_path / "missing.hsq", good)


def test_a_schema_that_another_writer_spaced_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The digest is over the schema's bytes, not over what they mean."""
    encode = header._encode_schema
    with monkeypatch.context() as patched:
        patched.setattr(header, "_encode_schema", lambda schema: encode(schema).replace(b":", b" : "))
        path = write(tmp_path / "spaced.hsq")
    assert b'"kind" : ' in path.read_bytes()
    reference_reader.read(str(path))
    assert hs.verify(path).ok
    os.truncate(path, path.stat().st_size - 1)
    hs.recover(path)
    assert hs.verify(path).ok


# --- hsq verify ------------------------------------------------------------------------------------------------------


def test_the_command(path: Path, tmp_path: Path) -> None:
    good = Path(shutil.copy(path, tmp_path / "good.hsq"))
    shown = hsq("verify", path, good)
    assert shown.returncode == 0
    assert shown.stdout.count("all as written") == 2
    flip(path, 4700)
    shown = hsq("verify", good, path)
    assert shown.returncode == 1
    assert "block 0" in shown.stdout and "records 0 to" in shown.stdout and str(path) in shown.stdout
    as_json = [json.loads(line) for line in hsq("verify", "--json", good, path).stdout.splitlines()]
    assert [found["ok"] for found in as_json] == [True, False]
    assert as_json[1]["problems"][0]["rule"] == "C1"
    shown = hsq("verify", "--json", tmp_path / "missing.hsq", good)
    assert shown.returncode == 2
    missing, found = map(json.loads, shown.stdout.splitlines())
    assert set(missing) == {"path", "error"} and "no such file" in missing["error"].lower() and found["ok"]
    mended = hsq("verify", path, "--repair-from", good)
    assert mended.returncode == 0
    assert "1 byte was different" in mended.stdout and "all as written" in mended.stdout
    assert path.read_bytes() == good.read_bytes()
    assert hsq("verify", path, good, "--repair-from", good).returncode == 2
    flip(path, 4700)
    mended = hsq("verify", path, "--repair-from", good, "--json")
    (found,) = map(json.loads, mended.stdout.splitlines())
    assert found["ok"] and found["repaired_bytes"] == 1
    with path.open("r+b") as file:
        file.truncate(5000)
    shown = hsq("verify", path)
    assert shown.returncode == 1
    assert "hsq recover" in shown.stdout

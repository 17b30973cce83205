"""What an interrupted writer left is not lost: making a file of it, and going on with it."""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import hypersequence as hs
from bad_disk import SECTOR, BadSectors, StaleCache
from hypersequence.layout import BlockWalk, ContentDigest, parse_header
from hypersequence.writer.remains import Remains
from tried import TRIED

FIXED: dict[str, Any] = {"file_id": b"0123456789abcdef", "created_ns": 1}


def pairs(start: int, stop: int) -> tuple[Any, ...]:
    numbers = np.arange(start, stop)
    return np.repeat(numbers.astype(np.float32)[:, None], 5, 1), numbers


def many_fields(start: int, stop: int) -> tuple[Any, ...]:
    numbers = np.arange(start, stop)
    inputs = {
        "image": np.repeat(numbers.astype(np.uint16), 6).reshape(-1, 2, 3),
        "text": np.array([f"n{number}" for number in numbers], "U8"),
        "nothing": np.zeros((len(numbers), 0, 3)),
    }
    return inputs, (numbers.astype(ml_dtypes.bfloat16), numbers.astype("M8[s]")), numbers.astype(np.float32)


def large(start: int, stop: int) -> tuple[Any, ...]:
    """Each record a checksum run by itself."""
    return (np.repeat(np.arange(start, stop)[:, None], 40_000, 1),)


RECORDS = {"pairs": pairs, "many fields": many_fields, "large": large}
records_of_a_kind = pytest.mark.parametrize("records", RECORDS.values(), ids=RECORDS.keys())


def write(path: Path, records: Any, n: int, batch_size: int = 4, **options: Any) -> None:
    with hs.HyperSequenceWriter(path, batch_size, **{"block_nbytes": 700, **FIXED, **options}) as writer:
        writer.extend(*records(0, n))


def left_behind(path: Path, records: Any, n: int, batch_size: int = 4, **options: Any) -> Path:
    """The part file of a writer that gave up after so many records."""
    writer = hs.HyperSequenceWriter(path, batch_size, **{"block_nbytes": 700, **FIXED, **options})
    writer.extend(*records(0, n))
    assert "not written" in writer.abort()
    return parts_of(path)[-1]


def parts_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.*.part"), key=lambda part: part.stat().st_mtime_ns)


def assert_records(path: Path, records: Any, n: int) -> None:
    with hs.open(path, verify="always") as seq:
        assert seq.n_records == n
        assert same(seq.records[:], records(0, n))


def same(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(same(found[name], expected[name]) for name in expected)
    if isinstance(expected, tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found.dtype == expected.dtype and np.array_equal(found, expected)


def block_records(path: Path) -> int:
    return parse_header(path.read_bytes()[:4096], "").block_records


def ends(path: Path) -> list[int]:
    """Where the blocks of a file end, in turn."""
    data = path.read_bytes()
    header = parse_header(data[:4096], "")
    walk = BlockWalk(lambda offset, nbytes: data[offset : offset + nbytes], len(data), header, str(path))
    with hs.open(path) as seq:
        frames = [walk.frame(number)[0] for number in range(-(-seq.n_records // header.block_records))]
    return [frame.offset + frame.nbytes for frame in frames]


# --- recovering ------------------------------------------------------------------------------------------------------


@records_of_a_kind
@pytest.mark.parametrize("n", [1, 3, 30, 97])
@pytest.mark.parametrize("elsewhere", [False, True], ids=["in place", "to another file"])
def test_nothing_that_was_appended_before_an_abort_is_lost(
    tmp_path: Path, records: Any, n: int, elsewhere: bool
) -> None:
    path, out = tmp_path / "a.hsq", tmp_path / "out.hsq"
    part = left_behind(path, records, n)
    before = part.read_bytes()
    found = hs.recover(part, out if elsewhere else None)
    assert (found.path, found.n_records, found.broken, found.user_meta) == (out if elsewhere else path, n, (), {})
    assert_records(found.path, records, n)
    assert path.exists() is not elsewhere
    assert [each.read_bytes() for each in parts_of(path)] == ([before] if elsewhere else [])


@records_of_a_kind
def test_every_whole_block_of_a_file_cut_off_anywhere_is_recovered(tmp_path: Path, records: Any) -> None:
    """At every length around the structures, and at some in between: of a part file, and of a finished file."""
    whole = tmp_path / "whole.hsq"
    with hs.HyperSequenceWriter(whole, 4, block_nbytes=700, **FIXED) as writer:
        writer.extend(*records(0, 50))
        writer.user_meta()["note"] = "kept"
    data, limits, size = whole.read_bytes(), ends(whole), block_records(whole)
    lengths = {limit + step for limit in (*limits, len(data)) for step in (-129, -64, -1, 0, 1, 63, 64, 130)}
    lengths |= set(range(4096, len(data), max(1, len(data) // 100)))
    for nbytes in sorted(length for length in lengths if 4096 <= length < len(data)):
        n_blocks = sum(limit <= nbytes for limit in limits)
        n_records = min(50, n_blocks * size)
        cut = tmp_path / "cut.hsq.0123abcd.part"
        cut.write_bytes(data[:nbytes])
        for path, out in ((cut, tmp_path / "out.hsq"), (cut, None)):
            if out is None and not n_blocks and nbytes > 4200:  # a block was begun: its bytes are not thrown away
                with pytest.raises(hs.FileError, match="no whole block"):
                    hs.recover(path, overwrite=True)
                assert cut.read_bytes() == data[:nbytes]
                cut.unlink()
                continue
            if out is None and not n_blocks:
                cut.write_bytes(data[:4096])
            found = hs.recover(path, out, overwrite=True)
            assert (found.n_blocks, found.n_records) == (n_blocks, n_records), nbytes
            assert_records(found.path, records, n_records)
            with hs.open(found.path) as seq:
                assert seq.user_meta() == found.user_meta
            assert found.user_meta in ({}, {"note": "kept"})
            assert len(found.broken) <= 1
        assert not cut.exists()
        if not n_blocks:
            continue
        finished = tmp_path / "finished.hsq"  # has no other name to get
        finished.write_bytes(data[:nbytes])
        assert hs.recover(finished).path == finished
        assert_records(finished, records, n_records)
    assert hs.recover(cut.with_name("cut.hsq"), tmp_path / "copy.hsq", overwrite=True).n_records == n_records


def test_metadata_are_kept_if_only_the_trailer_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 4, block_nbytes=700) as writer:
        writer.extend(*pairs(0, 50))
        writer.user_meta()["note"] = "kept"
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    assert hs.recover(path, tmp_path / "b.hsq").user_meta == {"note": "kept"}
    assert hs.recover(path).user_meta == {"note": "kept"}
    assert path.read_bytes() == data


def damage(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("where", ["frame", "records"])
@pytest.mark.parametrize("broken", [[0], [2], [1, 3], [4], [0, 1, 2, 3, 4]], ids=str)
def test_blocks_around_a_broken_one_are_saved(tmp_path: Path, where: str, broken: list[int]) -> None:
    path = tmp_path / "a.hsq"
    write(path, pairs, 120)
    limits, size = ends(path), block_records(path)
    assert len(limits) == 5
    part = tmp_path / "a.hsq.0123abcd.part"
    path.rename(part)
    for block in broken:
        damage(part, limits[block] - 1 if where == "records" else limits[block] - limits[0] + 4096 + 20)
    before = part.read_bytes()
    kept = [n for n in range(120) if n // size not in broken]
    found = hs.recover(part, tmp_path / "out.hsq")
    assert found.n_records == len(kept)
    with hs.open(tmp_path / "out.hsq") as seq:
        assert seq.records[:][1].tolist() == kept if kept else len(seq) == 0
    last_whole = max((block for block in range(5) if block not in broken), default=-1)
    assert [error.block for error in found.broken] == broken
    for block, error in zip(broken, found.broken, strict=True):
        assert f"block {block}" in str(error) and str(part) in str(error)
        assert isinstance(error, hs.ChecksumError) is (where == "records")
    if any(block < last_whole for block in broken):
        with pytest.raises(hs.FileError, match="have all whole blocks written to another file"):
            hs.recover(part)
        assert part.read_bytes() == before
        assert not path.exists()
    elif not kept:
        with pytest.raises(hs.FileError, match="has no whole block"):
            hs.recover(part)
        assert part.read_bytes() == before
    else:
        assert hs.recover(part).n_records == len(kept)
        assert_records(path, pairs, len(kept))


@pytest.mark.parametrize("where", ["frame", "records"])
@pytest.mark.parametrize("broken", [[0], [1], [1, 4], [5], [6], [0, 1, 2, 3, 4, 5, 6]], ids=str)
def test_blocks_around_a_sector_that_cannot_be_read_are_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: list[int], where: str
) -> None:
    """To another file; in place nothing is touched, since another try may get more."""
    part = left_behind(tmp_path / "a.hsq", pairs, 4500, block_nbytes=20_000)
    header = parse_header(part.read_bytes()[:4096], "")
    assert 4500 // header.block_records == 6 and header.stride % SECTOR == 0
    before = part.read_bytes()
    bad = [header.nbytes + block * header.stride + (0 if where == "frame" else 1024) for block in broken]
    kept = [n for n in range(4500) if n // header.block_records not in broken]
    with monkeypatch.context() as patched:
        disk = BadSectors(patched, part, bad)
        found = hs.recover(part, tmp_path / "out.hsq")
        assert {problem.rule for problem in found.broken} == {"P5"}
        assert [problem.block for problem in found.broken if "block" in problem.facts] == broken
        assert len(found.broken) == len(broken) or kept
        assert "Input/output error" in str(found.broken[0])
        for go_on in (hs.recover, hs.HyperSequenceWriter.resume):
            with pytest.raises(hs.FileError, match=r"Input/output error.*Nothing was changed.*-o OUT"):
                go_on(part)
        disk.bad.clear()
        assert part.read_bytes() == before
    with hs.open(tmp_path / "out.hsq") as seq:
        assert seq.records[:][1].tolist() == kept if kept else seq.n_records == 0
    assert hs.recover(part).n_records == 4500
    assert_records(tmp_path / "a.hsq", pairs, 4500)


def test_metadata_that_cannot_be_read_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.extend(*pairs(0, 5000))
        writer.user_meta()["note"] = "here"
    os.truncate(path, path.stat().st_size - 100)
    before = path.read_bytes()
    with monkeypatch.context() as patched:
        disk = BadSectors(patched, path, [path.stat().st_size - 1])
        found = hs.recover(path, tmp_path / "out.hsq")
        assert (found.user_meta, [problem.rule for problem in found.broken]) == ({}, ["P5"])
        for bad in (path.stat().st_size - 1, 0):
            disk.bad = {bad // 512}
            with pytest.raises(hs.FileError, match=r"Input/output error.*Nothing was changed"):
                hs.recover(path)
    assert_records(tmp_path / "out.hsq", pairs, 5000)
    assert path.read_bytes() == before
    assert hs.recover(path).user_meta == {"note": "here"}


def test_a_disk_that_gives_something_else_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was checked is what is taken, or nothing."""
    part = left_behind(tmp_path / "a.hsq", pairs, 5000, block_nbytes=20_000)
    monkeypatch.setattr("hypersequence.writer.scan._HELD_NBYTES", 0)  # as for blocks of more than 64 MiB
    assert hs.recover(part, tmp_path / "out.hsq").n_records == 5000
    assert_records(tmp_path / "out.hsq", pairs, 5000)
    reads = {"n": 0}
    rows = Remains.rows

    def changed(self: Any, frame: Any) -> Any:
        reads["n"] += 1
        if reads["n"] == 3:
            damage(part, frame.offset + frame.nbytes - 1)
        return rows(self, frame)

    monkeypatch.setattr(Remains, "rows", changed)
    with pytest.raises(hs.ChecksumError, match=r"block 2 is another one each time"):
        hs.recover(part, tmp_path / "other.hsq")
    assert not (tmp_path / "other.hsq").exists()


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="this system cannot be told to drop its cache")
def test_what_never_reached_the_disk_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a flush that failed, the system shows what it has in memory to whoever comes."""
    for number, go_on in enumerate((hs.recover, hs.HyperSequenceWriter.resume)):
        path = tmp_path / f"{number}.hsq"
        part = left_behind(path, pairs, 60)
        size, nbytes = block_records(part), part.stat().st_size
        with monkeypatch.context() as patched:
            cache = StaleCache(patched, part, range(nbytes - 8, nbytes))
            found = go_on(part)
            assert cache.dropped
        assert found.n_records == 59 // size * size
        if isinstance(found, hs.HyperSequenceWriter):
            found.close()
        assert_records(path, pairs, found.n_records)


def test_blocks_of_other_files_or_places_are_never_taken(tmp_path: Path) -> None:
    """Space on a disk is reused, and every checksum of an old block is right."""
    path, other = tmp_path / "a.hsq", tmp_path / "b.hsq"
    write(path, pairs, 120)
    write(other, pairs, 120, file_id=b"another file's!!")
    data, old, limits = path.read_bytes(), other.read_bytes(), ends(path)
    stride = limits[1] - limits[0]
    for stale in (old, data[:4096] + data[4096 + stride :]):  # of another file; of the next place
        place = 4096 + 2 * stride
        path.write_bytes(data[:place] + stale[place : place + stride] + data[place + stride : -200])
        with pytest.raises(hs.FileError, match="another file"):
            hs.recover(path)
        found = hs.recover(path, tmp_path / "out.hsq", overwrite=True)
        assert found.n_blocks == 4
        path.write_bytes(data[:place] + stale[place:-200])
        assert hs.recover(path, tmp_path / "out.hsq", overwrite=True).n_blocks == 2


def test_a_part_file_that_was_complete_is_put_in_place(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    write(path, pairs, 50)
    data = path.read_bytes()
    part = path.rename(tmp_path / "a.hsq.0123abcd.part")
    assert hs.recover(part).n_records == 50
    assert path.read_bytes() == data
    assert not part.exists()


@pytest.mark.parametrize("entry", [0, 1, 2])
def test_a_part_file_whose_index_is_damaged(tmp_path: Path, entry: int) -> None:
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 4, block_nbytes=700) as writer:
        writer.extend(*pairs(0, 50))
        writer.user_meta()["note"] = "kept"
    whole, index = path.read_bytes(), -(-ends(path)[-1] // 64) * 64
    part = path.rename(tmp_path / "a.hsq.0123abcd.part")
    damage(part, index + 256 * entry + 100)
    assert hs.recover(part).user_meta == {"note": "kept"}
    assert path.read_bytes() == whole


def test_what_cannot_be_recovered_is_left_alone(tmp_path: Path) -> None:
    path, part = tmp_path / "a.hsq", tmp_path / "a.hsq.0123abcd.part"
    write(path, pairs, 50)
    data = path.read_bytes()
    with pytest.raises(hs.FileError, match="has its end"):
        hs.recover(path)
    part.write_bytes(data[:-1])
    with pytest.raises(hs.FileError, match="exists already"):
        hs.recover(part)
    with pytest.raises(hs.FileError, match="exists already"):
        hs.recover(part, path)
    with pytest.raises(hs.FileError, match="another name"):
        hs.recover(part, part)
    with pytest.raises(hs.FileError, match="directory"):
        hs.recover(tmp_path)
    with pytest.raises(FileNotFoundError):
        hs.recover(tmp_path / "missing.part")
    for nothing in (b"", data[:100], data[:4095], b"something else" * 1000, data[:50] + b"\1" + data[51:]):
        bad = tmp_path / "bad.hsq.0123abcd.part"
        bad.write_bytes(nothing)
        for out in (None, tmp_path / "out.hsq"):
            with pytest.raises(hs.FormatError) as caught:
                hs.recover(bad, out)
            assert str(bad) in str(caught.value)
        assert bad.read_bytes() == nothing
    assert path.read_bytes() == data
    assert part.read_bytes() == data[:-1]
    assert not (tmp_path / "out.hsq").exists()
    with hs.HyperSequenceWriter(tmp_path / "live.hsq", 4, block_nbytes=700) as writer:
        writer.extend(*pairs(0, 30))
        (live,) = parts_of(tmp_path / "live.hsq")
        with pytest.raises(hs.FileError, match="being written right now"):
            hs.recover(live)
        with pytest.raises(hs.FileError, match="being written right now"):
            hs.HyperSequenceWriter.resume(tmp_path / "live.hsq")
    assert hs.recover(part, overwrite=True).n_records == 50


def test_a_header_alone_becomes_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    write(path, pairs, 50)
    path.write_bytes(path.read_bytes()[:4096])
    assert hs.recover(path).n_records == 0
    with hs.open(path) as seq:
        assert (len(seq), seq.batch_size()) == (0, 4)


def test_records_without_bytes(tmp_path: Path) -> None:
    def nothing(start: int, stop: int) -> tuple[Any, ...]:
        return (np.zeros((stop - start, 0), np.int8),)

    part = left_behind(tmp_path / "a.hsq", nothing, 10, block_nbytes=1)
    with hs.HyperSequenceWriter.resume(part) as writer:
        assert writer.n_records == 10
        writer.extend(*nothing(10, 31))
    assert_records(tmp_path / "a.hsq", nothing, 31)


def test_records_without_bytes_are_counted_not_copied(tmp_path: Path) -> None:
    """As many as there are numbers for."""
    n = 1 << 44
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", n) as writer:
        writer.extend(np.zeros((n, 0), np.float32))
    data = (tmp_path / "a.hsq").read_bytes()
    (tmp_path / "a.hsq").write_bytes(data[:-1])
    assert hs.recover(tmp_path / "a.hsq", tmp_path / "b.hsq").n_records == n
    assert hs.verify(tmp_path / "b.hsq").ok


def test_a_part_file_whose_metadata_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.extend(*pairs(0, 50))
        writer.user_meta()["note"] = "lost"
    part = path.rename(tmp_path / "a.hsq.0123abcd.part")
    damage(part, part.stat().st_size - 130)
    before = part.read_bytes()
    with pytest.raises(hs.FileError, match=r"user metadata are damaged.*-o OUT"):
        hs.recover(part)
    assert part.read_bytes() == before
    found = hs.recover(part, tmp_path / "out.hsq")
    assert (found.n_records, found.user_meta, [error.rule for error in found.broken]) == (50, {}, ["F3"])
    with pytest.warns(RuntimeWarning, match="user metadata have to be given again"):
        writer = hs.HyperSequenceWriter.resume(path)
    with writer:
        writer.extend(*pairs(50, 60))
    assert_records(path, pairs, 60)


# --- going on --------------------------------------------------------------------------------------------------------


@records_of_a_kind
@pytest.mark.parametrize("n", [0, 1, 3, 4, 30, 97, 119])
def test_a_resumed_file_is_the_same_as_an_undisturbed_one(tmp_path: Path, records: Any, n: int) -> None:
    path, undisturbed = tmp_path / "a.hsq", tmp_path / "b.hsq"
    write(undisturbed, records, 120)
    writer = hs.HyperSequenceWriter(path, 4, block_nbytes=700, schema=hs.open(undisturbed).schema, **FIXED)
    writer.extend(*records(0, n)) if n else None
    writer.abort()
    if not n:
        assert parts_of(path) == []
        with pytest.raises(hs.NothingToResumeError, match="no part file") as caught:
            hs.HyperSequenceWriter.resume(path)
        assert isinstance(caught.value, FileNotFoundError)
        return
    while n < 120:
        with hs.HyperSequenceWriter.resume(path) as writer:
            assert writer.n_records == n
            step = min(13, 120 - n)
            writer.extend(*records(n, n + step))
            n += step
            if n < 120:
                writer.abort()
    assert path.read_bytes() == undisturbed.read_bytes()
    assert parts_of(path) == []


def test_going_on_with_nothing_more(tmp_path: Path) -> None:
    for n in (3, 30, 97):
        part = left_behind(tmp_path / "a.hsq", pairs, n)
        hs.HyperSequenceWriter.resume(part).close()
        assert_records(tmp_path / "a.hsq", pairs, n)
        (tmp_path / "a.hsq").unlink()


def test_a_writer_that_could_not_finish_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The only block is as small as it can be by then, and has to make room."""
    path = tmp_path / "a.hsq"
    writer = hs.HyperSequenceWriter(path, 4)
    writer.extend(*pairs(0, 10))
    writer.user_meta()["bad"] = object()
    with pytest.raises(hs.RecordError):
        writer.close()
    writer.extend(*pairs(10, 20))  # metadata are looked at first, so that nothing has happened
    writer.user_meta().clear()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(hs.FileError, match="Input/output"):
        writer.close()
    monkeypatch.undo()
    with pytest.raises(hs.ClosedError, match="no record can be added"):
        writer.append(*(array[0] for array in pairs(20, 21)))
    with pytest.raises(hs.ClosedError, match="no record can be added"):
        writer.extend(*pairs(20, 21))
    with pytest.raises(hs.FileError, match="parts may be missing"):
        writer.close()  # the system says nothing of it a second time
    assert "first 20 of the records" in writer.abort()
    with hs.HyperSequenceWriter.resume(path) as writer:
        assert writer.n_records == 20
        writer.extend(*pairs(20, 25))
    assert_records(path, pairs, 25)
    assert parts_of(path) == []


def fail(*_: Any) -> Any:
    raise OSError(errno.EIO, "Input/output error")


def test_one_of_several_part_files_has_to_be_named(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    first, second = left_behind(path, pairs, 10), left_behind(path, pairs, 20, file_id=bytes(16))
    (tmp_path / "a.hsq.00000000.part").touch()
    with pytest.raises(hs.FileError) as caught:
        hs.HyperSequenceWriter.resume(path)
    assert str(first) in str(caught.value) and str(second) in str(caught.value)
    with hs.HyperSequenceWriter.resume(second) as writer:
        assert writer.n_records == 20
    assert_records(path, pairs, 20)
    with pytest.raises(hs.FileError, match="exists already"):
        hs.HyperSequenceWriter.resume(first, overwrite=False)
    with hs.HyperSequenceWriter.resume(first) as writer:
        assert writer.n_records == 10


@pytest.mark.filterwarnings("ignore:writer of:ResourceWarning")
def test_blocks_behind_a_broken_one_are_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    write(path, pairs, 120)
    undisturbed, limits, size = path.read_bytes(), ends(path), block_records(path)
    part = path.rename(tmp_path / "a.hsq.0123abcd.part")
    damage(part, limits[2] - 1)
    with pytest.warns(RuntimeWarning, match="block 2.*behind the first 48 records.*2 whole blocks too"):
        writer = hs.HyperSequenceWriter.resume(path)
    assert writer.n_records == 2 * size
    writer.extend(*pairs(2 * size, 120))
    writer.close()
    assert path.read_bytes() == undisturbed


def test_files_that_are_laid_out_otherwise_are_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The format leaves freedom, of which another writer may make another use."""
    from hypersequence.layout import geometry

    with monkeypatch.context() as patched:
        patched.setattr(geometry, "CHECKSUM_RUN_NBYTES", 100)
        part = left_behind(tmp_path / "a.hsq", pairs, 60)
    with pytest.raises(hs.FileError, match="not laid out as this release"):
        hs.HyperSequenceWriter.resume(part)
    assert hs.recover(part).n_records == 60
    assert_records(tmp_path / "a.hsq", pairs, 60)


@pytest.mark.filterwarnings("ignore:.*whole blocks too:RuntimeWarning")
def test_a_resumed_file_is_never_thrown_away(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    write(path, pairs, 120)
    part = path.rename(tmp_path / "a.hsq.0123abcd.part")
    damage(part, 4096 + 20)
    with hs.HyperSequenceWriter.resume(path) as writer:
        assert writer.n_records == 0
        writer.abort()
    assert hs.recover(part, tmp_path / "out.hsq").n_records == 96


def test_a_second_name_of_a_target_is_left_alone(tmp_path: Path) -> None:
    """A process was killed between giving a file its name and taking the old one away."""
    path, part = tmp_path / "a.hsq", tmp_path / "a.hsq.0123abcd.part"
    write(path, pairs, 50)
    os.link(path, part)
    for action in (lambda: hs.recover(part, overwrite=True), lambda: hs.HyperSequenceWriter.resume(path)):
        with pytest.raises(hs.FileError, match="second name"):
            action()
    assert_records(path, pairs, 50)


def test_a_file_whose_header_another_writer_made(tmp_path: Path) -> None:
    """Flags that a reader may ignore stay, and so does the header's sum."""
    part = left_behind(tmp_path / "a.hsq", pairs, 20, block_nbytes=1 << 20)
    hs.recover(part)
    data = bytearray((tmp_path / "a.hsq").read_bytes())
    data[24] = 1
    data[4092:4096] = zlib.crc32(data[:4092]).to_bytes(4, "little")
    (tmp_path / "b.hsq.0123abcd.part").write_bytes(data[:-100])
    with hs.HyperSequenceWriter.resume(tmp_path / "b.hsq") as writer:
        writer.extend(*pairs(20, 90))
    assert_records(tmp_path / "b.hsq", pairs, 90)
    assert (tmp_path / "b.hsq").read_bytes()[24] == 1


@pytest.mark.filterwarnings("ignore:writer of:ResourceWarning")
@pytest.mark.parametrize("name", ["write", "lseek", "digest"])
def test_interrupted_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Ctrl-C comes after a call is done and before anybody has made a note of it; then the person goes on."""
    owner, called = (ContentDigest, "add") if name == "digest" else (os, name)
    real, at, interrupted = getattr(owner, called), 0, True
    while interrupted:
        at, interrupted, calls = at + 1, False, [0]

        def call(*arguments: Any, at: int = at, calls: list[int] = calls) -> Any:
            calls[0] += 1
            done = real(*arguments)
            if calls[0] == at:
                raise KeyboardInterrupt
            return done

        path = tmp_path / f"{at}.hsq"
        writer = hs.HyperSequenceWriter(path, 4, block_nbytes=700)
        with monkeypatch.context() as patched:
            patched.setattr(owner, called, call)
            while path.exists() is False:
                try:
                    if writer.n_records < 120:
                        writer.extend(*pairs(writer.n_records, 120))
                    writer.close()
                except KeyboardInterrupt:
                    interrupted = True
                    TRIED["calls after which Ctrl-C came"] += 1
        assert_records(path, pairs, 120)
        assert hs.verify(path).ok
    assert at > 1


# --- killed ----------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for the end of the process: nothing catches it, nothing comes after it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, at: int, share: float) -> None:
    """The Nth call that changes a file does a share of its work, and then the process is gone."""
    calls = [0]
    real = {name: getattr(os, name) for name in ("write", "fsync", "ftruncate")}

    def gone(name: str) -> Any:
        def call(fd: int, *arguments: Any) -> Any:
            calls[0] += 1
            if calls[0] > at:
                raise Killed
            if calls[0] == at:
                if name == "write":
                    real["write"](fd, arguments[0][: round(len(arguments[0]) * share)])
                raise Killed
            return real[name](fd, *arguments)

        return call

    for name in real:
        monkeypatch.setattr(os, name, gone(name))


@pytest.mark.filterwarnings("ignore:writer of:ResourceWarning")
@pytest.mark.parametrize("share", [0, 0.5, 1])
@pytest.mark.parametrize("n", [3, 30, 97])
def test_records_that_were_safe_stay_safe_while_a_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, share: float
) -> None:
    """Killed at the first, second, ... call: in no moment is a block that was whole before lost."""
    path = tmp_path / "a.hsq"
    template = left_behind(path, pairs, n).rename(tmp_path / "template")
    part = tmp_path / "a.hsq.0123abcd.part"
    at, finished = 0, False
    while not finished:
        at += 1
        path.unlink(missing_ok=True)
        shutil.copy(template, part)
        writer = hs.HyperSequenceWriter.resume(part)
        assert writer.n_records == n
        with monkeypatch.context() as patched:
            kill_at(patched, at, share)
            try:
                writer.extend(*pairs(n, 120))
                writer.close()
                finished = True
            except Killed:
                pass
        TRIED["calls at which a process vanished"] += not finished
        if writer._part is not None:
            writer._part.keep()
            writer._part = None  # gone without another word
        if finished or path.exists():
            assert_records(path, pairs, 120)
            continue
        out = tmp_path / "out.hsq"
        found = hs.recover(part, out, overwrite=True)
        assert found.n_records >= n
        assert_records(out, pairs, found.n_records)
        with hs.HyperSequenceWriter.resume(part) as writer:
            assert writer.n_records == found.n_records
            writer.extend(*pairs(writer.n_records, 120))
        assert_records(path, pairs, 120)
    assert at > 5

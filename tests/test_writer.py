"""The writer's promises: nothing half-made at the target, nothing lost, nothing silently changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs


def parts_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.part"))


def write(path: Path, n: int = 10, **options: Any) -> None:
    with hs.HyperSequenceWriter(path, 4, **options) as writer:
        for i in range(n):
            writer.append(np.full(3, i), i)


def test_nothing_appended_is_lost(tmp_path: Path) -> None:
    for n in (1, 3, 4, 5, 50):
        write(tmp_path / "a.hsq", n, block_nbytes=300)
        with hs.HyperSequenceFile(tmp_path / "a.hsq") as seq:
            assert seq.n_records == n
            assert np.concatenate([y for _, y in seq]).tolist() == list(range(n))


def test_a_batch_of_more_records_than_there_are_numbers_for(tmp_path: Path) -> None:
    for field in (hs.Field("uint8", (0,)), hs.Field("uint8")):
        with pytest.raises(hs.ArgumentError, match="choose a smaller batch_size"):
            hs.HyperSequenceWriter(tmp_path / "a.hsq", 2**63, schema=hs.Schema(field))
    assert list(tmp_path.iterdir()) == []


def test_no_records(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "empty.hsq", schema=hs.Schema(hs.Field("float32", (3,)), "int64")):
        pass
    with hs.HyperSequenceFile(tmp_path / "empty.hsq") as seq:
        assert (len(seq), seq.n_records, list(seq), seq.records[:][0].shape) == (0, 0, [], (0, 3))
        assert len(seq.rebatch(7).shuffled(1)) == 0
        with pytest.raises(hs.PositionError):
            seq[0]
    with (
        pytest.raises(hs.RecordError, match="schema="),
        hs.HyperSequenceWriter(tmp_path / "unknown.hsq"),
    ):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.hsq"]


def test_the_target_changes_only_when_the_new_file_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    write(path, 5)
    old = path.read_bytes()
    writer = hs.HyperSequenceWriter(path, 4)
    for i in range(9):
        writer.append(np.full(3, i), i)
        assert path.read_bytes() == old
    writer.close()
    writer.close()
    with hs.HyperSequenceFile(path) as seq:
        assert seq.n_records == 9
    assert parts_in(tmp_path) == []


def test_a_reader_keeps_the_file_it_opened_when_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    write(path, 5)
    with hs.HyperSequenceFile(path) as old:
        write(path, 9)
        assert old.n_records == 5
        assert old[1][1].tolist() == [4]


def test_an_exception_aborts_and_says_where_the_records_are(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    with (
        pytest.raises(RuntimeError) as caught,
        hs.HyperSequenceWriter(path, 4, block_nbytes=200) as writer,
    ):
        for i in range(33):
            writer.append(np.full(3, i), i)
        raise RuntimeError("the source broke")
    assert not path.exists()
    (part,) = parts_in(tmp_path)
    (note,) = caught.value.__notes__
    assert "first 33 of the records" in note
    assert str(part) in note
    with pytest.raises(hs.ClosedError):
        writer.append(np.zeros(3), 1)


def test_an_exception_before_the_first_record_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), hs.HyperSequenceWriter(tmp_path / "a.hsq"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_overwrite_false_refuses_at_once_and_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    write(path, 5, overwrite=False)
    with pytest.raises(hs.FileError, match="exists"):
        hs.HyperSequenceWriter(path, overwrite=False)
    other = tmp_path / "b.hsq"
    writer = hs.HyperSequenceWriter(other, overwrite=False)
    writer.append(1)
    other.write_text("somebody else was quicker")
    with pytest.raises(hs.FileError, match="exists"):
        writer.close()
    assert other.read_text() == "somebody else was quicker"
    assert "first 1 of the records" in writer.abort()


@pytest.mark.parametrize("fails_at", range(1, 16))
def test_a_disk_that_fills_up_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int) -> None:
    """The Nth write takes half its bytes and the next one fails; then there is room again, and all goes on."""
    real, calls = os.write, [0]

    def full(fd: int, data: memoryview) -> int:
        calls[0] += 1
        if calls[0] == fails_at + 1:
            raise OSError(28, "No space left on device")
        return real(fd, data[: len(data) // 2] if calls[0] == fails_at and len(data) > 1 else data)

    def again(action: Any, *arguments: Any) -> None:
        try:
            action(*arguments)
        except hs.FileError as error:
            assert isinstance(error, OSError)
            assert "No space left" in str(error)
            # A record whose block could not be written is kept; one that came before there was a header is not.
            if action != writer.append or not writer.n_records:
                action(*arguments)

    path = tmp_path / "a.hsq"
    write(path, 3)
    writer = hs.HyperSequenceWriter(path, 4, block_nbytes=200)
    monkeypatch.setattr(os, "write", full)
    for i in range(22):
        again(writer.append, np.full(3, i), i)
    assert writer.n_records == 22
    again(writer.close)
    monkeypatch.undo()
    with hs.HyperSequenceFile(path) as seq:
        assert seq.records[:][1].tolist() == list(range(22))
        assert seq.records[:][0][:, 2].tolist() == list(range(22))
    assert parts_in(tmp_path) == []


def test_append_says_whether_it_kept_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    kept = []
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4, block_nbytes=1) as writer:
        for i in range(3):
            writer.append(i)
            kept.append(i)
        monkeypatch.setattr(os, "write", full)
        for i in range(3, 6):
            with pytest.raises(hs.FileError, match="this record is") as caught:
                writer.append(i)
            kept += [i] * caught.value.n_kept
            assert writer.n_records == len(kept)
        monkeypatch.undo()
        writer.append(6)
        kept.append(6)
    assert kept == [0, 1, 2, 3, 6]
    assert hs.open(tmp_path / "a.hsq").records[:][0].tolist() == kept


@pytest.mark.parametrize("n_more", [0, 1, 5, 50])
def test_nothing_can_be_added_when_close_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_more: int
) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(28, "No space left on device")

    writer = hs.HyperSequenceWriter(tmp_path / "a.hsq", 16)
    writer.extend(np.arange(10))
    monkeypatch.setattr(os, "write", full)
    with pytest.raises(hs.FileError, match="No space"):
        writer.close()
    monkeypatch.undo()
    with pytest.raises(hs.ClosedError, match="no record can be added"):
        writer.extend(np.arange(n_more))
    with pytest.raises(hs.ClosedError, match="no record can be added"):
        writer.append(1)
    assert writer.n_records == 10
    writer.close()
    assert hs.open(tmp_path / "a.hsq").records[:][0].tolist() == list(range(10))


def test_extend_says_how_far_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.arange(100)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4, block_nbytes=160) as writer:
        writer.extend(values[:30])

        def full(fd: int, data: memoryview) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(hs.FileError, match="the first 10 of these 70 records are kept") as caught:
            writer.extend(values[30:])
        monkeypatch.undo()
        writer.extend(values[30 + caught.value.n_kept :])
    assert writer.n_records == 100
    assert hs.HyperSequenceFile(tmp_path / "a.hsq").records[:][0].tolist() == values.tolist()


def test_a_refused_first_extend_fixes_nothing(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        with pytest.raises(hs.RecordError, match="different numbers"):
            writer.extend(np.ones((3, 2)), np.ones(4))
        writer.append(np.ones(5, np.int8))
    assert hs.HyperSequenceFile(tmp_path / "a.hsq").schema == hs.Schema(hs.Field("int8", (5,)))


@pytest.mark.skipif(os.name != "posix", reason="permissions and pipes")
def test_only_regular_files_are_replaced_and_keep_their_mode(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(hs.FileError, match="regular"):
        hs.HyperSequenceWriter(tmp_path / "pipe")
    write(tmp_path / "private.hsq")
    (tmp_path / "private.hsq").chmod(0o600)
    write(tmp_path / "private.hsq")
    assert (tmp_path / "private.hsq").stat().st_mode & 0o777 == 0o600


def test_bad_places(tmp_path: Path) -> None:
    with pytest.raises(hs.FileError, match="folder"):
        hs.HyperSequenceWriter(tmp_path / "missing" / "a.hsq")
    with pytest.raises(hs.FileError, match="directory"):
        hs.HyperSequenceWriter(tmp_path)
    with pytest.raises(OSError):
        hs.HyperSequenceWriter(tmp_path)


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.hsq"
    link.symlink_to(tmp_path / "real" / "data.hsq")
    write(link)
    assert link.is_symlink()
    assert hs.HyperSequenceFile(tmp_path / "real" / "data.hsq").n_records == 10


def test_a_forgotten_close_warns_and_keeps_the_records(tmp_path: Path) -> None:
    writer = hs.HyperSequenceWriter(tmp_path / "a.hsq")
    writer.append(1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del writer
    assert [w.category for w in caught] == [ResourceWarning]
    assert "first 1 of the records" in str(caught[0].message)
    assert len(parts_in(tmp_path)) == 1
    assert not (tmp_path / "a.hsq").exists()


def test_a_forked_child_cannot_commit_its_parents_file(tmp_path: Path) -> None:
    code = f"""
import os, hypersequence as hs
writer = hs.HyperSequenceWriter({str(tmp_path / "a.hsq")!r}, 4)
writer.append(1)
if os.fork() == 0:
    try:
        writer.close()
    except hs.ClosedError as error:
        os._exit(0 if "process" in str(error) else 1)
    os._exit(2)
assert os.wait()[1] == 0
writer.append(2)
writer.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert hs.HyperSequenceFile(tmp_path / "a.hsq").n_records == 2


def test_a_forked_child_cannot_begin_its_parents_file(tmp_path: Path) -> None:
    code = f"""
import os, hypersequence as hs
writer = hs.HyperSequenceWriter({str(tmp_path / "a.hsq")!r}, 4)
if os.fork() == 0:
    try:
        writer.append(1)
    except hs.ClosedError as error:
        os._exit(0 if "process" in str(error) else 1)
    os._exit(2)
assert os.wait()[1] == 0
writer.append(2)
writer.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert hs.verify(tmp_path / "a.hsq").ok


def test_a_forked_child_does_not_touch_its_parents_part_file(tmp_path: Path) -> None:
    code = f"""
import os, numpy as np, hypersequence as hs
writer = hs.HyperSequenceWriter({str(tmp_path / "a.hsq")!r}, 4)
writer.append(np.zeros(3), 1)
if os.fork() == 0:
    del writer
    os._exit(0)
os.wait()
writer.append(np.ones(3), 2)
writer.close()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    with hs.HyperSequenceFile(tmp_path / "a.hsq") as seq:
        assert seq[0][1].tolist() == [1, 2]


# --- refusing records ------------------------------------------------------------------------------------------------

REFUSED: list[tuple[tuple[Any, ...], tuple[Any, ...], str]] = [
    ((np.zeros(3), 1), (np.zeros(4), 1), r"inputs: expected shape \(3,\), got \(4,\)"),
    ((np.zeros(3), 1), (np.zeros((3, 1)), 1), r"inputs: expected shape"),
    ((np.zeros(3), 1), (np.zeros(3, np.float32), 1), "inputs: expected elements of type float64, got float32"),
    ((np.zeros(3), 1), (np.zeros(3), 1.5), "outputs: 1.5 is not exactly a int64"),
    ((np.zeros(3), 1), (np.zeros(3), float("nan")), "outputs: nan"),
    ((np.zeros(3), 1), (np.zeros(3), 2**63), "outputs: 9223372036854775808"),
    ((np.zeros(3), 1), (np.zeros(3), -0.0), "outputs: -0.0"),
    ((np.zeros(3), 1), (np.zeros(3), np.int32(1)), "outputs: expected elements of type int64, got int32"),
    ((np.zeros(3), 1), (np.zeros(3), "1"), "outputs: expected int64, got str"),
    ((np.zeros(3), 1), (np.zeros(3), None), "outputs: expected one array"),
    ((np.zeros(3), 1), (np.zeros(3),), "outputs: expected one array"),
    ((np.zeros(3), 1), (np.zeros(3), 1, 1.0), "sample_weights: expected nothing"),
    ((np.zeros(3), 1), ((np.zeros(3), 1), 1), "inputs: expected one array or scalar, got a tuple of 2"),
    ((np.zeros(3), 1), ({"a": np.zeros(3)}, 1), "inputs: expected one array or scalar, got a dict"),
    ((np.zeros(3),), (np.zeros(3), 1), "outputs: expected nothing"),
    (((1, 2.0), 1), ((1,), 1), "inputs: expected a tuple of 2, got a tuple of 1"),
    (((1, 2.0), 1), ((1, "a"), 1), r"inputs\[1\]: expected float64, got str"),
    (({"a": 1, "b": 2},), ({"a": 1},), "inputs: expected a dict of 'a', 'b', got a dict of 'a'"),
    (({"a": 1, "b": 2},), ({"a": 1, "c": 2},), "got a dict of 'a', 'c'"),
    (({"a": 1, "b": 2},), ({"a": 1, "b": np.zeros(2)},), r"inputs\['b'\]: expected shape \(\)"),
    ((True,), (2,), "2 is not exactly a bool"),
    ((1.0,), (2**53 + 1,), "not exactly a float64"),
    (("abc",), ("abcd",), "has 4 characters, U3 holds 3"),
    (("abc",), (b"abc",), "expected U3, got bytes"),
    ((b"abc",), (b"ab\0",), "ends in NUL"),
    (("abc",), ("ab\0",), "ends in NUL"),
    ((np.array(["abc"]),), (np.array(["abcd"]),), "4 characters does not fit U3"),
    (
        (np.datetime64("2020-01-01"),),
        (np.datetime64("2020-01-01T00:00"),),
        r"expected elements of type datetime64\[D\]",
    ),
    ((np.datetime64("2020-01-01"),), (7,), r"expected datetime64\[D\], got int"),
]


@pytest.mark.parametrize(("first", "second", "message"), REFUSED, ids=[row[2][:40] for row in REFUSED])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_record_that_differs_is_refused_whole(
    tmp_path: Path, first: tuple[Any, ...], second: tuple[Any, ...], message: str, batch_size: int
) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", batch_size) as writer:
        writer.append(*first)
        with pytest.raises(hs.RecordError, match=message) as caught:
            writer.append(*second)
        assert isinstance(caught.value, TypeError)
        assert isinstance(caught.value, ValueError)
        writer.append(*first)
    with hs.HyperSequenceFile(tmp_path / "a.hsq") as seq:
        assert seq.n_records == 2
        first_record, second_record = (repr(seq.records[i]) for i in range(2))
        assert first_record == second_record


UNSTORABLE: list[tuple[Any, str]] = [
    (np.array([None, "x"], object), "objects are never stored"),
    (np.zeros(2, [("a", "i4"), ("b", "f4")]), "structured"),
    (np.zeros(2, "V8"), "cannot be stored"),
    (np.array("NaT", "M8"), "give it a unit"),
    ([1, 2, 3], "a list is ambiguous"),
    (None, "needs inputs"),
    (object(), "got an? object"),
    ({1: 2}, "names are text"),
    ({}, "has no fields|have no fields"),
    ((), "no fields"),
    ({"": 1}, "bytes"),
    ({"a\nb": 1}, "control character"),
    ({"x" * 256: 1}, "255"),
    ("ab\0", "NUL"),
    (np.bytes_(b"ab\0"), "NUL"),
    (np.str_("ab\0"), "NUL"),
    (2**64, "int64"),
    (np.ma.masked_array([1, 2], [True, False]), "mask"),
    (np.zeros(3, np.longdouble), "cannot be stored") if np.dtype("g").itemsize > 8 else (set(), "got a set"),
    (np.array(["a", "b"], np.dtypes.StringDType()), "fixed-length text"),
]


@pytest.mark.parametrize(("value", "message"), UNSTORABLE, ids=[row[1] for row in UNSTORABLE])
def test_what_cannot_be_stored_is_refused_by_append_and_extend(tmp_path: Path, value: Any, message: str) -> None:
    writer = hs.HyperSequenceWriter(tmp_path / "a.hsq")
    with pytest.raises(hs.RecordError, match=message):
        writer.append(value)
    if isinstance(value, np.ndarray) and value.ndim:
        with pytest.raises(hs.RecordError, match=message):
            writer.extend(value)
    writer.append(1)  # the writer is as good as new
    writer.close()
    assert hs.HyperSequenceFile(tmp_path / "a.hsq").n_records == 1


def test_exact_python_numbers_are_taken(tmp_path: Path) -> None:
    cases: list[tuple[str, list[Any]]] = [
        ("float32", [1, 0.5, True, float("inf"), -3]),
        ("float64", [1, 0.1, 2**53]),
        ("int8", [1, -128, 2.0, False]),
        ("uint64", [2**64 - 1, 0]),
        ("bfloat16", [1, 0.5, -2.0]),
        ("complex64", [1, 1j, 0.5]),
        ("bool", [True, 0, 1.0]),
        ("U4", ["", "abcd", "ü"]),
        ("S4", [b"", b"abcd", b"a\0b"]),
    ]
    for name, values in cases:
        path = tmp_path / f"{name}.hsq"
        with hs.HyperSequenceWriter(path, schema=hs.Schema(hs.Field(name))) as writer:
            for value in values:
                writer.append(value)
        with hs.HyperSequenceFile(path) as seq:
            assert seq.schema.inputs == hs.Field(name)
            assert [array.item() for (array,) in (seq.records[i] for i in range(len(values)))] == values
    with hs.HyperSequenceWriter(tmp_path / "f.hsq", schema=hs.Schema(hs.Field("float32"))) as writer:
        with pytest.raises(hs.RecordError, match=r"0\.1 is not exactly a float32"):
            writer.append(0.1)
        writer.append(np.float32(0.1))


def test_extend_refuses_whole(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4, block_nbytes=200) as writer:
        writer.extend(np.zeros((5, 3)), np.arange(5))
        for inputs, outputs, message in [
            (np.zeros((30, 3)), np.arange(29), "different numbers of records"),
            (np.zeros((30, 4)), np.arange(30), r"expected shape \(n, 3\), got \(30, 4\)"),
            (np.zeros((30, 3), "f4"), np.arange(30), "expected elements of type float64"),
            (np.zeros((30, 3)), 7, "expected shape"),
            (np.zeros((30, 3)), None, "outputs: expected one array"),
        ]:
            with pytest.raises(hs.RecordError, match=message):
                writer.extend(inputs, outputs)
        assert writer.n_records == 5
        writer.extend(np.zeros((0, 3)), np.arange(0))
        writer.extend(np.ones((40, 3)), np.arange(5, 45))
    with hs.HyperSequenceFile(tmp_path / "a.hsq") as seq:
        assert seq.records[:][1].tolist() == list(range(45))
    with (
        pytest.raises(hs.RecordError, match="append"),
        hs.HyperSequenceWriter(tmp_path / "b.hsq") as writer,
    ):
        writer.extend(np.float64(1))


def test_bad_arguments(tmp_path: Path) -> None:
    for options in (
        {"batch_size": 0},
        {"batch_size": 1.5},
        {"batch_size": True},
        {"file_id": b"short"},
        {"file_id": "sixteen letters."},
        {"created_ns": 2**70},
        {"block_nbytes": 0},
    ):
        with pytest.raises(hs.ArgumentError):
            hs.HyperSequenceWriter(tmp_path / "a.hsq", **options)
    for make in (
        lambda: hs.Schema(None),
        lambda: hs.Schema(()),
        lambda: hs.Schema({"a": "float32"}, {}),
        lambda: hs.Field("float32", (-1,)),
        lambda: hs.Field("float32", (2**62, 2**62)),
        lambda: hs.Field("float32", (1,) * 33),
        lambda: hs.Schema(tuple("float32" for _ in range(4097))),
    ):
        with pytest.raises(hs.ArgumentError):
            make()
    for bad in ("object", "no such type", np.dtype(object), np.dtype("V4")):
        with pytest.raises(hs.RecordError):
            hs.Field(bad)
    assert list(tmp_path.iterdir()) == []


# --- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"a": float("nan")}, r"user_meta\(\)\['a'\]: nan"),
        ({"a": {1: 2}}, "keys are text"),
        ({"a": [np.float32(1)]}, r"\['a'\]\[0\]: float32 is not JSON"),
        ({"a": "\ud800"}, "Unicode"),
        ({"a": object()}, "object is not JSON"),
        ({"a": 10**400}, "too large"),
        ({"a": "," * 5_000_001}, "a reader would refuse"),
    ],
)
def test_metadata_that_would_change_are_refused_and_can_be_mended(tmp_path: Path, meta: Any, message: str) -> None:
    writer = hs.HyperSequenceWriter(tmp_path / "a.hsq")
    writer.append(1)
    writer.user_meta().update(meta)
    with pytest.raises(hs.RecordError, match=message):
        writer.close()
    writer.user_meta()["a"] = "mended"
    writer.close()
    assert hs.HyperSequenceFile(tmp_path / "a.hsq").user_meta() == {"a": "mended"}


def test_large_metadata(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.append(1)
        writer.user_meta()["text"] = "ü" * 500_000
    assert hs.HyperSequenceFile(tmp_path / "a.hsq").user_meta() == {"text": "ü" * 500_000}


# --- other -----------------------------------------------------------------------------------------------------------


def test_frameworks_arrays_are_taken(tmp_path: Path) -> None:
    import torch

    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.append(torch.ones(3), torch.tensor(1))
        with pytest.raises(hs.RecordError, match="Tensor cannot be made into an array"):
            writer.append(torch.ones(3, requires_grad=True), torch.tensor(1))
    assert hs.HyperSequenceFile(tmp_path / "a.hsq").dtypes()[0][0] == np.dtype(("f4", (3,)))


def test_writers_in_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    threads = [threading.Thread(target=write, args=(tmp_path / f"{i}.hsq", 200 + i)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [hs.HyperSequenceFile(tmp_path / f"{i}.hsq").n_records for i in range(4)] == [200, 201, 202, 203]


def test_progress_is_silent_off_a_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.hsq", 100, progress=True, block_nbytes=100)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_progress_shows_on_a_terminal(tmp_path: Path) -> None:
    import pty

    code = (
        "import numpy as np, hypersequence as hs\n"
        f"with hs.HyperSequenceWriter({str(tmp_path / 'a.hsq')!r}, progress=True, block_nbytes=100) as w:\n"
        "    for i in range(100): w.append(np.zeros(3), i)\n"
    )
    parent, child = pty.openpty()
    env = {**os.environ, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", code], check=True, stderr=child, stdout=child, env=env)
    os.close(child)
    assert b"records" in os.read(parent, 100_000)
    os.close(parent)

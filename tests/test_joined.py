"""Many files read as one: every type, geometry and version, and what happens when one of the files goes bad."""

from __future__ import annotations

import gc
import json
import mmap
import os
import pickle
import sys
import threading
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import hypersequence as hs
from conftest import labels
from hypersequence.source.verify import RunChecker
from test_bad_input import run_script
from test_roundtrip import bits, random_array

MODES = [pytest.param(True, id="mmap"), pytest.param(False, id="pread")]
#: Records a file, batch size, block size: one block or many, some of them short, files without records between.
GEOMETRIES = [(40, 4, 3000), (1, 16, 8 << 20), (0, 2, 100), (33, 1, 1), (100, 5, 9000), (0, 1, 1), (26, 13, 8 << 20)]
N = sum(n for n, _, _ in GEOMETRIES)


def write_files(where: Path, columns: list[np.ndarray]) -> list[Path]:
    """The columns as inputs, dealt out over files of all geometries, with their numbers as labels."""
    where.mkdir(exist_ok=True)
    schema = hs.Schema(tuple(hs.Field(c.dtype, c.shape[1:]) for c in columns), "int64")
    paths: list[Path] = []
    start = 0
    for n, batch_size, block_nbytes in GEOMETRIES:
        paths.append(where / f"{len(paths)}.hsq")
        with hs.HyperSequenceWriter(paths[-1], batch_size, schema=schema, block_nbytes=block_nbytes) as writer:
            if n:
                writer.extend(tuple(c[start : start + n] for c in columns), np.arange(start, start + n))
        start += n
    return paths


def flat(batch: Any) -> list[np.ndarray]:
    inputs, outputs = batch
    return [*(inputs if isinstance(inputs, tuple) else (inputs,)), outputs]


def check(seq: hs.HyperSequence, columns: list[np.ndarray], order: np.ndarray) -> None:
    """Batches of several sizes, in turn and out of turn, and all at once, bit for bit."""
    columns = [*columns, np.arange(len(columns[0]))]
    chosen = seq.select(order)
    for size in (1, 7, 64, len(order)):
        batches = chosen.rebatch(size)
        for i, batch in [*enumerate(batches), (len(batches) // 2, batches[len(batches) // 2])]:
            for array, column in zip(flat(batch), columns, strict=True):
                wanted = column[order[i * size : (i + 1) * size]]
                assert (array.dtype, array.shape) == (wanted.dtype, wanted.shape)
                assert bits(array) == bits(wanted)
                assert array.flags.writeable or size < 64  # or its records happen to follow each other
    assert [bits(array) for array in flat(seq.records[order])] == [bits(column[order]) for column in columns]
    assert [bits(array) for array in flat(seq.records[:])] == [bits(column) for column in columns]
    for size in (1, 9, 50):
        found = zip(*map(flat, seq.rebatch(size)), strict=True)
        assert [b"".join(map(bits, arrays)) for arrays in found] == [bits(column) for column in columns]


TYPES = ["bool", "uint8", "int16", "float32", "complex128", "S7", "U5", "datetime64[25s]", "timedelta64[ms]"]
EXTENSION = [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e8m0fnu]


@pytest.mark.parametrize("use_mmap", MODES)
@pytest.mark.parametrize("dtype", [*map(np.dtype, TYPES), *map(np.dtype, EXTENSION)], ids=str)
def test_every_type(tmp_path: Path, dtype: np.dtype, use_mmap: bool) -> None:
    columns = [random_array(dtype, (N, *shape)) for shape in [(), (3,), (2, 0), (4, 5)]]
    with hs.open(write_files(tmp_path, columns), use_mmap=use_mmap) as seq:
        assert seq.n_records == N
        check(seq, columns, np.random.default_rng(0).permutation(N))


def test_records_of_all_sizes(tmp_path: Path) -> None:
    """Those whose addresses have a divisor, those that have none, and large ones: each goes its own way."""
    rng = np.random.default_rng(0)
    order = rng.integers(0, N, N)  # some twice, some never
    ways: set[int] = set()
    for i, sizes in enumerate(
        [(1, 8, 64, 128), (12, 784), (1000, 1024), (8194, 3), (16_384, 65_536), (65_537, 16_385)]
    ):
        columns = [rng.integers(0, 256, (N, size), np.uint8) for size in sizes]
        with hs.open(write_files(tmp_path / str(i), columns)) as seq:
            check(seq, columns, order)
            ways |= {min(2, column.unit) for column in seq._source._columns.values()}
    assert ways == {0, 1, 2}


def write_legacy(path: Path, columns: list[np.ndarray], batch_size: int) -> Path:
    """A file of hypersequence 0.9, in whatever byte order the columns have; the last column is the outputs."""
    members = [[f"f{i}", c.dtype.str, [batch_size, *c.shape[1:]]] for i, c in enumerate(columns)]
    n_batches = len(columns[0]) // batch_size
    parts = [c[i * batch_size : (i + 1) * batch_size].tobytes() for i in range(n_batches) for c in columns]
    meta = {"version": "0.9.7", "records": n_batches, "batch_size": batch_size, "dtype": members}
    meta |= {"no_inputs": len(columns) - 1, "no_outputs": 1}
    path.write_bytes(b"".join(parts) + b"@@FSEQ@@" + json.dumps(meta).encode())
    return path


@pytest.mark.parametrize("use_mmap", MODES)
def test_files_of_old_versions_beside_new_ones(tmp_path: Path, use_mmap: bool) -> None:
    """Old ones have other strides, odd addresses, no checksums, and some have their bytes the other way round."""
    columns = [
        random_array(np.dtype(dtype), (N + 72, *shape), seed)
        for seed, (dtype, shape) in enumerate(
            [("u1", (3,)), ("f4", (7,)), ("U3", ()), ("M8[s]", (2,)), ("c16", ()), ("f8", (2, 0)), ("i2", (20_000,))]
        )
    ]
    numbers = np.arange(N + 72)
    paths = write_files(tmp_path, [column[:N] for column in columns])
    for i, (start, batch_size, order) in enumerate([(N, 5, "<"), (N + 30, 1, ">"), (N + 40, 8, ">"), (N + 64, 4, "<")]):
        stop = [N + 30, N + 40, N + 64, N + 72][i]
        old = [c[start:stop].astype(c.dtype.newbyteorder(order)) for c in [*columns, numbers]]
        paths.append(write_legacy(tmp_path / f"old-{i}.hsq", old, batch_size))
    with hs.open(paths, use_mmap=use_mmap) as seq:
        assert seq.n_records == N + 72
        check(seq, columns, np.random.default_rng(0).permutation(N + 72))
        targets = [np.ones((20, *c.shape[1:]), c.dtype) for c in [*columns, numbers]]
        where = np.arange(N + 20, N + 40)[::-1]
        seq._source.gather(seq._source.plan(where), slice(0, 20), range(8), targets)
        assert [bits(t) for t in targets] == [bits(c[where]) for c in [*columns, numbers]]


@pytest.fixture
def columns() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (N, size), np.uint8) for size in (64, 784, 20_001)]


@pytest.fixture
def paths(tmp_path: Path, columns: list[np.ndarray]) -> list[Path]:
    return write_files(tmp_path, columns)


def test_mapped_files_beside_others(paths: list[Path], columns: list[np.ndarray]) -> None:
    parts = [hs.open(path, use_mmap=i % 2 == 0) for i, path in enumerate(paths)]
    with hs.concat(parts) as seq:
        check(seq, columns, np.random.default_rng(0).permutation(N))


def test_joined_ones_are_joined(paths: list[Path], columns: list[np.ndarray]) -> None:
    """However they were put together, one gather reads them all."""
    with hs.concat([hs.concat([hs.open(paths[:2]), hs.open(paths[2])]), hs.open(paths[3:])]) as seq:
        assert [file.path for file in seq._source.files()] == [str(path) for path in paths]
        check(seq, columns, np.random.default_rng(0).permutation(N))
        assert labels_of(seq.shuffled(3)) == labels_of(hs.open(paths).shuffled(3))
    with hs.open(paths[4]) as one:
        first, second = one.split(0.5)
        assert sorted(labels_of(hs.concat([second, first, one]).shuffled(1, by="record"))) == sorted(2 * labels_of(one))


def labels_of(seq: hs.HyperSequence) -> list[int]:
    return [int(label) for batch in seq for label in batch[1]]


def test_very_many_files_of_very_different_sizes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = [*rng.integers(0, 4, 150).tolist(), 50_000, *rng.integers(0, 4, 150).tolist()]
    paths: list[Path] = []
    start = 0
    for n in sizes:
        paths.append(tmp_path / f"{len(paths)}.hsq")
        with hs.HyperSequenceWriter(paths[-1], 4, schema=hs.Schema("float64", "int64")) as writer:
            if n:
                writer.extend(np.arange(start, start + n) / 2, np.arange(start, start + n))
        start += n
    with hs.open(paths) as seq:
        order = rng.permutation(start)
        order = np.concatenate([order[(order < 300) | (order >= start - 300)], order[:3000]])
        halves, numbers = seq.select(order).records[:]
        assert numbers.tolist() == order.tolist() == (halves * 2).astype(int).tolist()
        assert labels_of(seq.select(order).rebatch(100)) == order.tolist()


def test_only_numbers_of_records_become_addresses(paths: list[Path]) -> None:
    with hs.open(paths) as seq:
        for numbers in ([N], [0, -1], [5, 1 << 62], [-(1 << 63)]):
            with pytest.raises(hs.PositionError):
                seq._source.plan(np.array(numbers))
        numbers = np.arange(N)[::-1].copy()
        plan = seq._source.plan(numbers)
        numbers[:] = 1 << 40  # whose they were may do with them what he likes
        found = seq._source.gather(plan, slice(0, N), (3,))
        assert found[0].tolist() == list(range(N))[::-1]
    with hs.open([paths[2], paths[5]]) as empty:
        assert len(empty) == 0 and len(empty.records[[]][1]) == 0


def test_out_is_filled(paths: list[Path], columns: list[np.ndarray]) -> None:
    with hs.open(paths) as seq:
        order = np.random.default_rng(0).permutation(N)
        plan = seq._source.plan(order)
        for part in (slice(10, 60), slice(0, N), slice(7, 8), slice(5, 5)):
            out = [None, np.zeros((part.stop - part.start, 784), np.uint8), None]
            found = seq._source.gather(plan, part, (2, 1, 0), out)
            assert found[1] is out[1]
            for array, column in zip(found, columns[::-1], strict=True):
                assert np.array_equal(array, column[order[part]])
    with hs.open(paths[4]) as one, hs.concat([one, one]) as seq:  # all in one file
        numbers = np.arange(0, 100, 7)
        out = [np.zeros((15, 64), np.uint8)]
        assert seq._source.gather(seq._source.plan(numbers), slice(0, 15), (0,), out)[0] is out[0]
        assert np.array_equal(out[0], one.records[numbers][0][0])


def test_out_may_lie_between_the_files(paths: list[Path], columns: list[np.ndarray]) -> None:
    """Mappings and batches share the address space; NumPy is told that all from the first to the last is one array."""
    parts, rooms = [], []
    for path in paths:
        parts.append(hs.open(path))
        rooms.append(np.frombuffer(mmap.mmap(-1, 1 << 16), np.uint8))
    with hs.concat(parts) as seq:
        order = np.random.default_rng(0).permutation(N)
        plan = seq._source.plan(order)
        for room in rooms:
            for number, size in ((0, 64), (1, 784)):
                out = room[: 50 * size].reshape(50, size)
                seq._source.gather(plan, slice(60, 110), (number,), [out])
                assert np.array_equal(out, columns[number][order[60:110]])
        addresses = [np.frombuffer(f._handle.mapping, np.uint8).ctypes.data for f in seq._source.files()]
        between = [min(addresses) < room.ctypes.data < max(addresses) for room in rooms]
        assert any(between) or sys.platform != "linux"


# --- when a file goes bad ---------------------------------------------------------------------------------------------


def damage(path: Path, content: bytes) -> None:
    """Change a byte of a record in place."""
    data = bytearray(path.read_bytes())
    data[data.index(content)] ^= 1
    with path.open("r+b") as file:
        file.write(data)


@pytest.mark.parametrize("use_mmap", MODES)
def test_damage_is_noticed_in_the_file_that_has_it(
    paths: list[Path], columns: list[np.ndarray], use_mmap: bool
) -> None:
    damage(paths[4], columns[1][90].tobytes())  # record 16 of its file
    sound = np.flatnonzero(np.abs(np.arange(N) - 90) > 40)
    with hs.open(paths, use_mmap=use_mmap) as seq:
        for _ in range(2):
            check_sound = seq.select(np.random.default_rng(0).permutation(sound)).rebatch(30)
            assert sorted(labels_of(check_sound)) == sound.tolist()
            with pytest.raises(hs.ChecksumError, match=r"4\.hsq: block .* field inputs") as caught:
                seq.records[[3, 170, 90, 42]]
            assert caught.value.path == str(paths[4])
            assert caught.value.first_record <= 16 <= caught.value.last_record
            with pytest.raises(hs.ChecksumError):
                list(seq.shuffled(1, by="record"))
        assert labels_of(seq.fields("outputs").shuffled(1, by="record")) == labels_of(
            seq.fields("outputs").shuffled(1, by="record")
        )
    with hs.open(paths, use_mmap=use_mmap, verify="never") as seq:
        assert sorted(labels_of(seq.shuffled(1, by="record"))) == list(range(N))


def test_every_run_is_checked_once_always_or_never(paths: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[tuple[str, int, int]] = []
    original = RunChecker._check

    def counting(checker: RunChecker, column: int, run: int) -> None:
        checked.append((checker._handle.path, column, run))
        original(checker, column, run)

    monkeypatch.setattr(RunChecker, "_check", counting)
    order = np.random.default_rng(0).permutation(N)
    for verify, often in {"first": 1, "always": 2, "never": 0}.items():
        checked.clear()
        with hs.open(paths, verify=verify) as seq:
            shuffled = seq.select(order)
            for _ in range(2):
                list(shuffled.rebatch(20))
            counts = [checked.count(run) for run in set(checked)]
            assert all(count == 1 if often == 1 else count > 1 for count in counts) and bool(counts) == bool(often)
            if verify == "first":
                assert {path for path, _, _ in checked} == {str(paths[i]) for i in (0, 1, 3, 4, 6)}
                assert not any(file._checker.unchecked for file in seq._source.files())
    with hs.open(paths) as seq:  # what is not read is not checked
        checked.clear()
        seq.fields("outputs").records[[2, 50]]
        assert {column for _, column, _ in checked} == {3}
        seq.records[[2, 50]]
        assert len(checked) == 8


def n_mapped(path: Path) -> int:
    return Path("/proc/self/maps").read_text().count(str(path))


@pytest.mark.parametrize("use_mmap", MODES)
def test_closed_files(paths: list[Path], columns: list[np.ndarray], use_mmap: bool) -> None:
    parts = [hs.open(path, use_mmap=use_mmap) for path in paths]
    seq = hs.concat(parts)
    order = np.random.default_rng(0).permutation(N)
    shuffled = seq.select(order).rebatch(20)
    list(shuffled)
    kept = shuffled[3]
    parts[4].close()
    gc.collect()
    assert n_mapped(paths[4]) == 0  # nothing of it is held for later
    assert n_mapped(paths[3]) == use_mmap
    for reading in (lambda: shuffled[0], lambda: list(shuffled), lambda: seq.records[[2, 100]]):
        with pytest.raises(hs.ClosedError, match=r"4\.hsq: the file was closed"):
            reading()
    others = order[(order < 74) | (order >= 174)]
    assert labels_of(seq.select(others).rebatch(20)) == others.tolist()
    late = hs.concat([hs.concat(parts[:4]), *parts[4:]])  # joined when one was closed already
    assert labels_of(late.select(others).rebatch(20)) == others.tolist()
    assert labels_of(late.select(others).rebatch(20)) == others.tolist()
    seq.close()
    gc.collect()
    assert not any(n_mapped(path) for path in paths)
    with pytest.raises(hs.ClosedError):
        shuffled[0]
    for array, column in zip(flat(kept), [*columns, np.arange(N)], strict=True):
        assert np.array_equal(array, column[order[60:80]])


@pytest.mark.parametrize("use_mmap", MODES)
def test_closing_one_while_others_read(paths: list[Path], columns: list[np.ndarray], use_mmap: bool) -> None:
    wrong: list[object] = []

    def read(seq: hs.HyperSequence) -> None:
        try:
            while True:
                for (first, *_), numbers in seq:
                    assert np.array_equal(first, columns[0][numbers])
        except hs.ClosedError as error:
            if "4.hsq" not in str(error):
                wrong.append(error)
        except Exception as error:
            wrong.append(error)

    for round_ in range(20):
        parts = [hs.open(path, use_mmap=use_mmap, verify="never") for path in paths]
        seq = hs.concat(parts).shuffled(round_, by="record").rebatch(50)
        readers = [threading.Thread(target=read, args=(seq,)) for _ in range(4)]
        for reader in readers:
            reader.start()
        parts[4].close()
        for reader in readers:
            reader.join()
        seq.close()
    assert wrong == []


TRUNCATE = """
import os, sys
import hypersequence as hs

paths = sys.argv[1:]
victim, data = paths[4], open(paths[4], "rb").read()
for nbytes in (0, 4096, len(data) // 2, len(data) - 1):
    for use_mmap in (True, False):
        for verify in ("first", "never"):
            for touched in (False, True):
                with hs.open(paths, use_mmap=use_mmap, verify=verify) as seq:
                    order = [100, 3, 50, 173, 199, 0, 74]
                    small, whole = seq.select(order * 9).rebatch(7), seq.shuffled(1, by="record").rebatch(500)
                    if touched:
                        list(small), list(whole)
                    os.truncate(victim, nbytes)
                    readings = lambda: small[1], lambda: list(small), lambda: whole[0], lambda: seq.records[order]
                    for reading in readings:
                        try:
                            reading()
                            print("no error", nbytes, use_mmap, verify, touched)
                        except hs.FileChangedError as error:
                            assert str(nbytes) in str(error) and victim in str(error)
                    assert seq.records[[3, 50, 199]][1].tolist() == [3, 50, 199]
                    with open(victim, "r+b") as file:
                        file.write(data)
                    assert small[1][1].tolist() == order
print("done")
"""


def test_a_truncated_file(paths: list[Path]) -> None:
    """In a process of its own, because what must not happen here is a bus error."""
    assert run_script(TRUNCATE, *paths).splitlines() == ["done"]


# --- threads and processes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_mmap", MODES)
def test_many_threads_read_one_plan(paths: list[Path], columns: list[np.ndarray], use_mmap: bool) -> None:
    wrong: list[object] = []
    with hs.open(paths, use_mmap=use_mmap) as seq:
        plan = seq._source.plan(np.random.default_rng(0).integers(0, N, 4000))

        def read(number: int) -> None:
            try:
                for start in range(0, 4000, 100):
                    at = (start + number * 500) % 4000
                    small, odd, large, numbers = seq._source.gather(plan, slice(at, at + 100), (0, 1, 2, 3))
                    for array, column in zip((small, odd, large), columns, strict=True):
                        assert np.array_equal(array, column[numbers])
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def select(seq: hs.HyperSequence) -> hs.HyperSequence:
    return seq.select(slice(None, None, 7)).rebatch(10)


def test_pickles_and_forks(numbered: Path) -> None:
    with hs.open([numbered, numbered, numbered]) as seq:
        expected = labels(select(seq))
        data = pickle.dumps(seq)
        assert len(data) < 4000 and len(pickle.dumps(select(seq))) < 4000
        again = pickle.loads(data)
        assert labels(select(again)) == expected
        child = os.fork()
        if child == 0:
            os._exit(0 if labels(select(seq)) == labels(select(again)) == expected else 1)
        assert os.waitpid(child, 0)[1] == 0
        again.close()
        assert labels(select(seq)) == expected

"""A shuffle of all records where memory is short: those of many batches are picked out in one pass over the data."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hypersequence as hs
from hypersequence.loader.readahead import n_staying
from hypersequence.loader.sweep import Sweep, Sweeps
from test_loader import forget, resident_nbytes, settle

MIB = 1 << 20
N = 20_003
SIZE = 64
#: A sweep holds a quarter of it: of records of 1.2 KiB some three thousand, so that an epoch takes seven.
MEMORY = 16 * MIB


def write(path: Path, first: int = 0, n: int = N, **options: Any) -> Path:
    """Records of which each value tells the number, in several columns, with blocks of 1 MiB."""
    with hs.HyperSequenceWriter(path, SIZE, block_nbytes=MIB, **options) as writer:
        for start in range(first, first + n, 500):
            rows = np.arange(start, min(start + 500, first + n))
            x = np.repeat(rows.astype(np.float32)[:, None], 256, 1)
            small = (rows[:, None] % 251 + np.arange(3)).astype(ml_dtypes.bfloat16)
            writer.extend({"x": x, "small": small, "none": np.zeros((len(rows), 0), np.int8)}, rows)
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 MiB."""
    return write(tmp_path_factory.mktemp("sweep") / "small.hsq")


def set_memory(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    """Have the loader believe that there is so much memory."""
    for name in ("readahead", "stretches", "sweep"):
        module = sys.modules[f"hypersequence.loader.{name}"]
        for function in {"allowed_nbytes", "available_nbytes"} & vars(module).keys():
            monkeypatch.setattr(module, function, lambda: nbytes)


@pytest.fixture(autouse=True)
def short_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    set_memory(monkeypatch, MEMORY)


#: Where a sweep began, and the positions that were copied out of it.
Swept = list[tuple[int, int, int]]


@pytest.fixture
def swept(monkeypatch: pytest.MonkeyPatch) -> Swept:
    found: Swept = []
    copy = Sweep.copy

    def noting(self: Sweep, start: int, stop: int, targets: Any) -> bool:
        done = copy(self, start, stop, targets)
        if done:
            found.append((self.start, start, stop))
        return done

    monkeypatch.setattr(Sweep, "copy", noting)
    return found


def numbers(batches: Any) -> list[list[int]]:
    """The records of batches, which are what they should be."""
    found: list[list[int]] = []
    for x, y, *_ in batches:  # and weights, if some records are padding
        assert (x["x"] == y[:, None]).all()
        assert (x["small"] == (y[:, None] % 251 + np.arange(3)).astype(ml_dtypes.bfloat16)).all()
        assert x["none"].shape == (len(y), 0)
        found.append(y.tolist())
    return found


def expected(seq: Any, epochs: int = 1) -> list[list[int]]:
    """As a plain sequence has them."""
    return [batch[1].tolist() for epoch in range(epochs) for batch in seq.at_epoch(epoch)]


def n_positions(swept: Swept) -> int:
    return sum(stop - start for _, start, stop in swept)


def n_sweeps(swept: Swept) -> int:
    return len({first for first, _, _ in swept})


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"threads": 0},
        {"threads": 3, "prefetch": 2},
        {"buffers": "reuse"},
        {"buffers": "view"},
        {"evict": True},
        {"evict": False},
        {"evict": False, "threads": 0, "buffers": "view"},
    ],
    ids=str,
)
def test_order_and_values_are_those_of_any_other_way(path: Path, swept: Swept, options: dict[str, Any]) -> None:
    forget(path)
    with hs.open(path) as file:
        for seq in (file.shuffled(1, by="record"), file.shuffled(2, by="record").rebatch(1000, drop_last=True)):
            del swept[:]
            assert numbers(hs.Loader(seq, epochs=2, **options)) == expected(seq, 2)
            # All of it but for the rest of an epoch that no pass over everything is worth.
            assert n_positions(swept) >= 2 * 0.8 * N


@pytest.mark.parametrize("verify", ["first", "always", "never"])
def test_whatever_is_checked_and_however_it_is_read(path: Path, swept: Swept, verify: str) -> None:
    for use_mmap in (True, False):
        with hs.open(path, verify=verify, use_mmap=use_mmap) as file:
            seq = file.shuffled(1, by="record")
            assert numbers(hs.Loader(seq)) == expected(seq)
    assert n_positions(swept) > N


def test_parts_fields_and_files_together(path: Path, tmp_path: Path, swept: Swept) -> None:
    other = write(tmp_path / "other.hsq", first=N, n=5000)
    with hs.open([path, other]) as both:
        for seq in (
            both.shuffled(3, by="record"),
            both.split(0.9)[0].shuffled(3, by="record"),
            both.shuffled(3, by="record")[40:],
            both.shuffled(3, by="record").map(lambda batch: batch),
        ):
            del swept[:]
            assert numbers(hs.Loader(seq)) == expected(seq)
            assert n_positions(swept) > N // 2
        del swept[:]
        some = both.fields("inputs").shuffled(3, by="record")
        found = [int(n) for batch in hs.Loader(some) for n in batch[0]["x"][:, 0]]
        assert sorted(found) == list(range(N + 5000))
        assert n_positions(swept) > N


def test_windows_that_are_too_large_are_swept_too(path: Path, swept: Swept) -> None:
    with hs.open(path) as file:
        seq = file.shuffled(1, window=18 * MIB)
        assert numbers(hs.Loader(seq)) == expected(seq)
    assert n_positions(swept) > N // 2


def test_as_few_sweeps_as_there_is_memory_for(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swept: Swept
) -> None:
    """Also of orders that tell what the next batches need, and no more."""
    set_memory(monkeypatch, 48 * MIB)  # more than is read at a time by itself for a quarter of it
    other = write(tmp_path / "other.hsq", first=N, n=15_000)
    with hs.open(path) as one, hs.open(other) as two, hs.open([path, other]) as both:
        whole = both.shuffled(1, by="record")
        parts = [one.shuffled(1, by="record"), two.shuffled(2, by="record")]
        mixed = hs.mix(parts, weights=[1, 1], seed=3)
        for seq in (whole, mixed, whole.split(0.9)[0], whole[::2], whole.select(np.arange(3, 30_000))):
            del swept[:]
            assert numbers(hs.Loader(seq)) == expected(seq)
            assert n_positions(swept) > 0.6 * seq.n_records
            assert n_sweeps(swept) <= 4
        del swept[:]
        assert numbers(hs.Loader(hs.concat(parts))) == expected(hs.concat(parts))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_memory_and_any_batches(path: Path, data: st.DataObject) -> None:
    """However little a sweep holds, and wherever batches begin and end in it."""
    size = data.draw(st.sampled_from([1, 3, 7, 50, 64, 1000, 4096]), "batch")
    options: dict[str, Any] = {
        "threads": data.draw(st.integers(0, 3), "threads"),
        "evict": data.draw(st.sampled_from([None, True, False]), "evict"),
        "buffers": data.draw(st.sampled_from(["own", "view", "reuse"]), "buffers"),
    }
    seed = data.draw(st.integers(0, 9), "seed")
    memory = data.draw(st.integers(64 << 10, 30 * MIB), "memory")
    with pytest.MonkeyPatch.context() as patched, hs.open(path) as file:
        patched.setattr(sys.modules["hypersequence.loader.sweep"], "available_nbytes", lambda: memory)
        seq = file.shuffled(seed, by="record").rebatch(size)[:: data.draw(st.sampled_from([1, 1, 3]), "step")]
        wanted = expected(seq)
        first = data.draw(st.integers(0, len(wanted) - 1), "first")
        loader = hs.Loader(seq, **options)
        loader.load_state_dict({**loader.state_dict(), "position": size * first})
        assert numbers(loader) == wanted[first:]


def test_a_pass_begins_anywhere(path: Path, swept: Swept) -> None:
    with hs.open(path) as file:
        seq = file.shuffled(1, by="record")
        wanted = expected(seq)
        for batch in (1, 47, 48, 290, len(wanted) - 1):
            loader = hs.Loader(seq)
            loader.load_state_dict({**loader.state_dict(), "position": SIZE * batch})
            assert numbers(loader) == wanted[batch:]
            n_before = len(swept)
            taken = iter(hs.Loader(seq))
            assert numbers(next(taken) for _ in range(3)) == wanted[:3]
            assert len(swept) > n_before


@pytest.mark.parametrize("uneven", ["drop", "pad", "short"])
@pytest.mark.parametrize("evict", [None, True])
def test_ranks_read_their_own_records_one_by_one(path: Path, swept: Swept, uneven: Any, evict: bool | None) -> None:
    """Each would pass over everything for its own; and is told what that costs."""
    ways: list[dict[str, Any]] = [{"by": "record"}, {"window": 18 * MIB}]
    for rank, way in enumerate(ways):
        forget(path)
        with hs.open(path) as file:
            seq = file.shuffled(1, **way).shard(rank, 3, uneven=uneven)
            loader = hs.Loader(seq, evict=evict)
            with pytest.warns(RuntimeWarning, match=r"small\.hsq: .* 1,\d\d\d bytes.*shuffle in windows that fit"):
                assert numbers(loader) == expected(seq)
            assert loader.stats.read_s > 0  # page faults would not be counted
            again = hs.Loader(seq, threads=0, evict=evict)
            again.load_state_dict({**again.state_dict(), "position": 3 * SIZE * 5})
            with pytest.warns(RuntimeWarning):
                assert numbers(again) == expected(seq)[5:]
    assert not swept


@pytest.mark.filterwarnings("error")
def test_ranks_whose_windows_fit_are_told_nothing(path: Path) -> None:
    with hs.open(path) as file:
        for seq in (file.shuffled(1, window=4 * MIB).shard(0, 2), file.shard(1, 2)):
            assert numbers(hs.Loader(seq)) == expected(seq)


def test_where_a_pass_would_be_for_few_records_they_are_read_one_by_one(
    path: Path, monkeypatch: pytest.MonkeyPatch, swept: Swept
) -> None:
    monkeypatch.setattr(sys.modules["hypersequence.loader.sweep"], "available_nbytes", lambda: MIB // 2)
    with hs.open(path) as file:
        seq = file.shuffled(1, by="record")
        assert numbers(hs.Loader(seq)) == expected(seq)
    assert not swept


def test_a_batch_that_is_larger_than_a_sweep(path: Path, swept: Swept) -> None:
    with hs.open(path) as file:
        seq = file.shuffled(1, by="record").rebatch(5000)
        assert numbers(hs.Loader(seq)) == expected(seq)
    assert not swept


def damage(path: Path, to: Path, number: int) -> Path:
    data = bytearray(path.read_bytes())
    data[data.index(np.float32(number).tobytes() * 256) + 500] ^= 1
    to.write_bytes(data)
    return to


def test_damage_is_an_error_at_its_batch_and_at_no_other(path: Path, tmp_path: Path, swept: Swept) -> None:
    with hs.open(path) as sound:
        wanted = expected(sound.shuffled(1, by="record"))
    with hs.open(damage(path, tmp_path / "damaged.hsq", 12_345)) as file:
        seq = file.shuffled(1, by="record")
        # All that share its checksum are refused with it.
        first, n_rows = next((start, stop - start) for start, stop in run_bounds(file) if start <= 12_345 < stop)
        refused = {number for number, batch in enumerate(wanted) if any(first <= n < first + n_rows for n in batch)}
        iterator = iter(hs.Loader(seq))
        n_before = min(refused)
        assert numbers(next(iterator) for _ in range(n_before)) == wanted[:n_before]
        with pytest.raises(hs.ChecksumError, match=r"damaged\.hsq"):
            next(iterator)
        sound_again = min(set(range(n_before, len(wanted))) - refused)
        del swept[:]
        loader = hs.Loader(seq)
        loader.load_state_dict({**loader.state_dict(), "position": SIZE * sound_again})
        assert next(iter(loader))[1].tolist() == wanted[sound_again]
        assert (sound_again * SIZE, (sound_again + 1) * SIZE) in {(start, stop) for _, start, stop in swept}
        with pytest.warns(RuntimeWarning):
            skipping = numbers_of(hs.Loader(seq, on_corrupt="skip_block"))
    assert len(skipping) == N
    assert 12_345 not in skipping


def run_bounds(file: Any) -> Iterator[tuple[int, int]]:
    """First record and the one after the last of each checksum run of the large column."""
    source = file._source
    [column] = [c.number for c in source.schema.columns if c.field.nbytes == 1024]
    size = source.stored.run_records[column]
    for block in range(0, source.n_records, source.block_records):
        end = min(block + source.block_records, source.n_records)
        for first in range(block, end, size):
            yield first, min(first + size, end)


def numbers_of(batches: Any) -> list[int]:
    return [n for _, y in batches for n in y.tolist()]


def test_a_file_that_shrinks_is_an_error(path: Path, tmp_path: Path) -> None:
    shrinking = tmp_path / "shrinking.hsq"
    shrinking.write_bytes(path.read_bytes())
    with hs.open(shrinking, use_mmap=False) as file:
        iterator = iter(hs.Loader(file.shuffled(1, by="record")))
        next(iterator)
        with shrinking.open("r+b") as raw:
            raw.truncate(5 * MIB)
        with pytest.raises(hs.FileChangedError, match=r"shrinking\.hsq"):
            for _ in iterator:
                pass


def test_a_closed_file_is_an_error(path: Path) -> None:
    file = hs.open(path)
    iterator = iter(hs.Loader(file.shuffled(1, by="record")))
    next(iterator)
    file.close()
    with pytest.raises(hs.ClosedError, match=r"small\.hsq"):
        for _ in iterator:
            pass


def test_memory_is_used_again_and_given_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sweeps at a time, however many there are; and none when the loader goes, without a collector."""
    made: list[weakref.ref[Any]] = []
    take = Sweeps._take

    def noting(self: Sweeps, *arguments: Any) -> list[Any]:
        arrays = take(self, *arguments)
        if not any(ref() is array for ref in made for array in arrays):
            made.extend(map(weakref.ref, arrays))
        return arrays

    monkeypatch.setattr(Sweeps, "_take", noting)
    gc.collect()
    gc.disable()
    try:
        with hs.open(path) as file:
            iterator: Iterator[Any] = iter(hs.Loader(file.shuffled(1, by="record"), epochs=3))
            for _ in iterator:
                pass
            n_columns = 4
            assert len(made) == 2 * n_columns
            del made[:]
            iterator = iter(hs.Loader(file.shuffled(1, by="record"), epochs=3))
            for _ in range(100):
                next(iterator)
            del iterator
            assert made
            settle(lambda: all(ref() is None for ref in made), 2)
    finally:
        gc.enable()


def test_passes_that_begin_together_do_not_count_on_the_same_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    take = Sweeps._take

    def noting(self: Sweeps, *arguments: Any) -> list[Any]:
        arrays = take(self, *arguments)
        sizes.append(len(arrays[0]))
        return arrays

    monkeypatch.setattr(Sweeps, "_take", noting)
    with hs.open(path) as file:
        seqs = [file.shuffled(seed, by="record") for seed in (1, 2)]
        iterators = [iter(hs.Loader(seq, threads=0)) for seq in seqs]
        found = [[next(iterator) for iterator in iterators] for _ in range(3)]
        for seq, batches in zip(seqs, zip(*found, strict=True), strict=True):
            assert numbers(batches) == expected(seq)[:3]
    assert sizes[1] < 0.8 * sizes[0]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what is in the page cache")
def test_what_went_by_is_dropped_or_a_part_stays(path: Path, swept: Swept) -> None:
    for evict, least, most in ((True, 0, 1), (None, 2, 8), (False, 19, 21)):
        forget(path)
        with hs.open(path) as file:
            for _ in hs.Loader(file.shuffled(1, by="record"), evict=evict):
                pass
        assert least * MIB <= resident_nbytes(path) <= most * MIB, evict
    assert n_positions(swept) > 2 * N


def test_of_windows_that_are_swept_a_part_stays_too(path: Path) -> None:
    with hs.open(path) as file:
        for seq in (file.shuffled(1, window=12 * MIB), file.shuffled(1, by="record")):
            assert 0.1 * N < n_staying(seq, 0) < 0.3 * N


def test_when_the_program_ends_no_thread_goes_on_with_a_sweep(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whoever still asks for batches reads for themselves."""
    monkeypatch.setattr(sys.modules["hypersequence.loader.readahead"], "program_ends", lambda: True)
    with hs.open(path) as file:
        seq = file.shuffled(1, by="record")
        assert numbers(hs.Loader(seq)) == expected(seq)


@pytest.mark.parametrize("evict", [None, False])
def test_memory_is_not_used_again_while_somebody_copies_from_it(
    path: Path, monkeypatch: pytest.MonkeyPatch, evict: bool | None
) -> None:
    failed: list[int] = []
    copy = Sweep.copy

    def slow(self: Sweep, start: int, stop: int, targets: Any) -> bool:
        if stop > self.stop - 30 * SIZE:  # the last batches of a sweep, while the next one is there
            time.sleep(0.05)
        done = copy(self, start, stop, targets)
        failed.extend([] if done else [start])
        return done

    monkeypatch.setattr(Sweep, "copy", slow)
    with hs.open(path) as file:
        seq = file.shuffled(1, by="record")
        assert numbers(hs.Loader(seq, threads=3, evict=evict)) == expected(seq)
    assert failed == []

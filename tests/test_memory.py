"""Data larger than memory: what stays in the page cache, what is dropped, and what is read by itself."""

from __future__ import annotations

import gc
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.compare.limited import NoLimit, memory_limit

import hypersequence as hs
from hypersequence.loader import memory
from hypersequence.loader.memory import allowed_nbytes, available_nbytes, left_nbytes, limit_nbytes
from hypersequence.loader.readahead import n_staying
from hypersequence.order import without
from hypersequence.source import largepages
from test_loader import forget, is_resident, resident_nbytes, settle

MIB = 1 << 20
RECORD = (64, 1024)  # 256 KiB of float32
N = 480

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what is in the page cache")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 MiB: 480 records of 256 KiB and their numbers, 8 in a block."""
    path = tmp_path_factory.mktemp("memory") / "large.hsq"
    with hs.HyperSequenceWriter(path, 4, block_nbytes=2 * MIB) as writer:
        for number in range(N):
            writer.append(np.full(RECORD, number, np.float32), number)
    return path


@pytest.fixture
def cold(path: Path) -> Path:
    """The same, not in the page cache."""
    forget(path)
    return path


def order_of(path: Path, epochs: int, by: str, seed: int = 1) -> list[list[int]]:
    """The records of some epochs, as a plain sequence has them."""
    with hs.open(path) as file:
        seq = file if by == "file" else file.shuffled(seed, by=by, window=8 * MIB)
        found = [[int(n) for _, y in seq.at_epoch(epoch).fields("outputs") for n in y] for epoch in range(epochs)]
    forget(path)
    return found


def small_memory(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    """Have the loader believe that there is so much memory."""
    for name in ("readahead", "stretches", "sweep"):
        module = sys.modules[f"hypersequence.loader.{name}"]
        for function in {"allowed_nbytes", "available_nbytes"} & vars(module).keys():
            monkeypatch.setattr(module, function, lambda: nbytes)


def numbers(loader: Iterable[Any]) -> list[int]:
    """The records of an epoch, which are what they should be."""
    found: list[int] = []
    for x, y in loader:
        assert x.shape[1:] == RECORD and (x == y[:, None, None]).all()
        found += y.tolist()
    return found


# --- what stays and what goes ----------------------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("by", ["window", "batch", "record", "file"])
def test_of_data_that_do_not_fit_the_same_part_stays(cold: Path, monkeypatch: pytest.MonkeyPatch, by: str) -> None:
    expected = order_of(cold, 2, by)
    small_memory(monkeypatch, 80 * MIB)
    with hs.open(cold) as file:
        loader = hs.Loader(file if by == "file" else file.shuffled(1, by=by, window=8 * MIB))
        for epoch in range(2):
            assert numbers(loader) == expected[epoch]
            gc.collect()  # pages that a mapping has touched stay until the last view of it dies
            # 60 MiB, without two windows of 8 MiB, batches, or records.
            settle(lambda: 40 * MIB <= resident_nbytes(cold) <= 64 * MIB)


@on_linux
@pytest.mark.parametrize("options", [{"evict": False}, {}])
def test_data_that_fit_stay(cold: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]) -> None:
    small_memory(monkeypatch, 80 * MIB if options else 200 * MIB)
    with hs.open(cold) as file:
        assert sorted(numbers(hs.Loader(file.shuffled(1, window=8 * MIB), **options))) == list(range(N))
    assert is_resident(cold)


@on_linux
def test_a_part_that_fits_stays_though_the_file_does_not(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_memory(monkeypatch, 80 * MIB)
    with hs.open(cold) as file:
        few = file.take(N // 4 // 3).shuffled(1, window=8 * MIB)  # 40 MiB
        loader = hs.Loader(few)
        for _ in range(2):
            assert sorted(numbers(loader)) == list(range(N // 3))
        assert is_resident(cold, 40 * MIB)
        assert len(numbers(hs.Loader(file.fields("inputs", "outputs").split(0.3)[0]))) == pytest.approx(0.3 * N, abs=4)


@on_linux
def test_whoever_reads_without_a_loader_afterwards_does_not_do_so_page_by_page(
    cold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_memory(monkeypatch, 40 * MIB)
    with hs.open(cold) as file:
        for evict in (None, True):
            assert sorted(numbers(hs.Loader(file.shuffled(1, window=8 * MIB), evict=evict))) == list(range(N))
            settle(lambda: not is_random(cold))


def is_random(path: Path) -> bool:
    """Whether the system was told that a mapping that is read from is touched here and there."""
    mine = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0] and not words[0].endswith(":"):
            mine = line.endswith(str(path))
        elif mine and words[0] == "VmFlags:" and "rr" in words and "hg" not in words:
            return True
    return False


@on_linux
def test_nothing_is_dropped_that_other_ranks_may_still_need(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_memory(monkeypatch, 80 * MIB)
    with hs.open(cold) as file:
        seq = file.shuffled(1, window=8 * MIB)
        found = [numbers(hs.Loader(seq.shard(rank, 2, uneven="drop"))) for rank in range(2)]
    assert sorted(found[0] + found[1]) == list(range(N))
    assert is_resident(cold)


def read_nbytes() -> int:
    """What this process has had the disk read."""
    [line] = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes")]
    return int(line.split()[1])


CHAINS = {
    "two files in order": lambda path, other: hs.open([path, other]),
    "two files in windows": lambda path, other: hs.open([path, other]).shuffled(1, window=8 * MIB),
    "a split in windows": lambda path, other: hs.open(path).split(0.9)[0].shuffled(1, window=8 * MIB),
    "a mix": lambda path, other: hs.mix(
        [hs.open(each).shuffled(1, window=8 * MIB) for each in (path, other)], weights=[1, 1], seed=1
    ),
    "batches over several stretches": lambda path, other: hs.open([path, other]).rebatch(70),
}


@on_linux
@pytest.mark.parametrize("threads", [0, 1])
@pytest.mark.parametrize("chain", CHAINS)
def test_nothing_is_dropped_that_was_read_ahead(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain: str, threads: int
) -> None:
    """What two stretches share stays for the second; and what a batch needs, until it is made."""
    other = tmp_path / "other.hsq"
    with hs.HyperSequenceWriter(other, 3, block_nbytes=3 * MIB) as writer:  # blocks that begin elsewhere
        for number in range(199):
            writer.append(np.full(RECORD, number, np.float32), number)
    forget(path)
    forget(other)
    small_memory(monkeypatch, 80 * MIB)
    seq = CHAINS[chain](path, other)
    before, n_faults = read_nbytes(), resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    n_records = len(numbers(hs.Loader(seq, threads=threads)))
    assert n_records == seq.n_records
    nbytes = path.stat().st_size + (0 if "split" in chain else other.stat().st_size)
    assert read_nbytes() - before < 1.2 * nbytes
    assert resource.getrusage(resource.RUSAGE_SELF).ru_majflt - n_faults < 300  # it would come page by page


@pytest.mark.parametrize("evict", ["none", "True", 3, 0.5])
def test_what_to_drop_is_one_of_three(path: Path, evict: Any) -> None:
    with hs.open(path) as file, pytest.raises(hs.ArgumentError, match="evict"):
        hs.Loader(file, evict=evict)


def test_what_is_left_of_runs() -> None:
    rng = np.random.default_rng(1)
    for _ in range(300):
        runs, others = (np.sort(rng.choice(60, 2 * rng.integers(1, 9), False)).reshape(-1, 2) for _ in range(2))
        left = without(runs, others[rng.permutation(len(others))])
        wanted = {n for a, b in runs for n in range(a, b)} - {n for a, b in others for n in range(a, b)}
        assert [n for a, b in left for n in range(a, b)] == sorted(wanted)
        assert (left[1:, 0] > left[:-1, 1]).all()


@on_linux
def test_what_is_read_in_one_go_stays(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where everything can be read at once, though other programs have some of the memory."""
    readahead = sys.modules["hypersequence.loader.readahead"]
    monkeypatch.setattr(readahead, "allowed_nbytes", lambda: 200 * MIB)
    monkeypatch.setattr(readahead, "available_nbytes", lambda: 150 * MIB)
    with hs.open(cold) as file:
        loader = hs.Loader(file.shuffled(1, by="record"))
        assert sorted(numbers(loader)) == list(range(N))
        assert is_resident(cold)


def test_it_does_not_matter_where_a_pass_begins(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_memory(monkeypatch, 80 * MIB)
    with hs.open(path) as file:
        seq = file.shuffled(1, window=16 * MIB)
        assert 0 < n_staying(seq, 0) < N
        expected = [y.tolist() for _, y in seq]
        for batch in (1, 15, 16, 60, 119):
            loader = hs.Loader(seq)
            loader.load_state_dict({**loader.state_dict(), "position": 4 * batch})
            assert [y.tolist() for _, y in loader] == expected[batch:]


def some_memory_free(monkeypatch: pytest.MonkeyPatch, nbytes: int) -> None:
    """Have the loader believe that other programs, or its own, have some of the memory."""
    small_memory(monkeypatch, 100 * MIB)
    for name in ("readahead", "sweep"):
        monkeypatch.setattr(sys.modules[f"hypersequence.loader.{name}"], "available_nbytes", lambda: nbytes)


@on_linux
def test_no_more_of_the_next_window_is_read_ahead_than_there_is_room_for(
    cold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_memory_free(monkeypatch, 60 * MIB)
    resident, seen = 0, list[int]()
    with hs.open(cold) as file:
        for x, y in hs.Loader(file.shuffled(1, window=48 * MIB)):
            assert (x == y[:, None, None]).all()
            seen += y.tolist()
            resident = max(resident, resident_nbytes(cold))
    assert sorted(seen) == list(range(N))
    assert resident <= (60 + 2 * 8) * MIB  # a step that was begun, and one that was sent early


@on_linux
def test_a_window_that_does_not_fit_into_what_is_free_is_not_read_as_a_whole(
    cold: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some_memory_free(monkeypatch, 50 * MIB)
    with hs.open(cold) as file:
        iterator = iter(hs.Loader(file.shuffled(1, window=48 * MIB), threads=0))
        found = next(iterator)[1].tolist()
        assert resident_nbytes(cold) <= 20 * MIB
        assert sorted(found + numbers(iterator)) == list(range(N))


# --- records read one by one -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["record", "window"])
@pytest.mark.parametrize("verify", ["first", "always", "never"])
def test_records_are_right_whatever_is_checked(
    cold: Path, monkeypatch: pytest.MonkeyPatch, by: str, verify: str
) -> None:
    expected = order_of(cold, 2, by)
    small_memory(monkeypatch, 40 * MIB)
    with hs.open(cold, verify=verify) as file:
        loader = hs.Loader(file.shuffled(1, by=by, window=8 * MIB))
        assert [numbers(loader) for _ in range(2)] == expected


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 MiB: 25 records of 8 MiB and their numbers, blocks of three."""
    path = tmp_path_factory.mktemp("volumes") / "volumes.hsq"
    with hs.HyperSequenceWriter(path, 3) as writer:
        for number in range(25):
            writer.append(np.full((8, 512, 512), number, np.float32), number)
    return path


@pytest.mark.parametrize("by", ["file", "window", "batch", "record"])
@pytest.mark.parametrize("options", [{}, {"evict": True}, {"threads": 0}], ids=str)
def test_records_of_megabytes_come_in_every_order(volumes: Path, by: str, options: dict[str, Any]) -> None:
    with hs.open(volumes) as file:
        whole = file if by == "file" else file.shuffled(1, by=by, window=80 * MIB)
        part = file.split(0.4)[1].shuffled(2, by="record")
        for seq in (whole, whole.rebatch(2), whole.shard(1, 2, uneven="drop"), part):
            loader = hs.Loader(seq, **options)
            for epoch in range(2):
                expected = [y.tolist() for _, y in seq.at_epoch(epoch)]
                forget(volumes)
                found: list[list[int]] = []
                for x, y in loader:
                    assert (x == y[:, None, None, None]).all()
                    found.append(y.tolist())
                assert found == expected


def resident_of_a_batch(path: Path, by: Any = "window", **options: Any) -> int:
    """What is in memory when the first batch of three is."""
    forget(path)
    with hs.open(path, **options) as file:
        next(iter(hs.Loader(file.shuffled(1, by=by, window=80 * MIB), threads=0)))
        return resident_nbytes(path)


has_large_pages = pytest.mark.skipif(not largepages.are_there(), reason="needs Linux 5.14, and large pages of 2 MiB")


@has_large_pages
def test_a_batch_of_records_of_megabytes_waits_for_no_others(volumes: Path) -> None:
    for by in ("window", "record"):
        assert 3 * 8 * MIB <= resident_of_a_batch(volumes, by) < 60 * MIB  # of 200


@has_large_pages
def test_records_of_many_pieces_come_in_windows(volumes: Path, tmp_path: Path) -> None:
    """As those do that come in small pages."""
    with hs.HyperSequenceWriter(tmp_path / "pieces.hsq", 3) as writer:
        for _ in range(25):
            writer.append({str(number): np.zeros((512, 512), np.float32) for number in range(8)}, 1)
    assert resident_of_a_batch(tmp_path / "pieces.hsq") > 70 * MIB
    assert resident_of_a_batch(volumes, use_mmap=False) > 70 * MIB


@on_linux
@pytest.mark.parametrize("runs", [[[2, 5]], [[2, 4], [8, 10]]], ids=str)
def test_what_is_there_of_a_selection_is_seen(volumes: Path, runs: list[list[int]]) -> None:
    """Though a run of it ends within a block, and what lies behind was never read."""
    forget(volumes)
    with hs.open(volumes) as file:
        for start, stop in runs:
            for number in range(start, stop):
                file._source.read(range(number, number + 1), (0, 1))[0].sum()
        assert file._source.resident(np.array(runs), (0, 1))


def test_damage_is_an_error_at_its_batch_when_records_are_read_one_by_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = tmp_path / "damaged.hsq"
    data = bytearray(path.read_bytes())
    place = data.index(np.float32(123).tobytes() * 1024)
    data[place + 5000] ^= 1
    damaged.write_bytes(data)
    forget(damaged)
    small_memory(monkeypatch, 40 * MIB)
    with hs.open(damaged) as file:
        seq = file.shuffled(1, by="record")
        [order] = order_of(path, 1, "record")
        n_before = order.index(123) // 4
        iterator = iter(hs.Loader(seq))
        assert [n for _ in range(n_before) for n in next(iterator)[1].tolist()] == order[: 4 * n_before]
        with pytest.raises(hs.ChecksumError, match=r"damaged\.hsq") as caught:
            next(iterator)
        assert "123" in str(caught.value) or any("123" in note for note in caught.value.__notes__)
        skipping = hs.Loader(seq, on_corrupt="skip_block")
        with pytest.warns(RuntimeWarning):
            assert len(numbers(skipping)) == N


def test_small_records_come_by_themselves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with the rest of its checksum run, where no pass over everything is worth it."""
    monkeypatch.setattr(sys.modules["hypersequence.loader.sweep"], "JUMP_NBYTES", 0)
    path = tmp_path / "small.hsq"
    n = 20_000
    with hs.HyperSequenceWriter(path, 64, block_nbytes=1 * MIB) as writer:
        for start in range(0, n, 500):
            rows = np.arange(start, start + 500)
            writer.extend(np.repeat(rows.astype(np.float32)[:, None], 300, 1), rows)
    forget(path)
    small_memory(monkeypatch, 20 * MIB)
    with hs.open([path, path]) as both:
        seq = both.shuffled(3, by="record")
        found = [int(number) for x, y in hs.Loader(seq) for number in y if (x == y[:, None]).all()]
    assert sorted(found) == sorted([*range(n), *range(n)])


def test_what_is_checked_is_read_as_a_whole(tmp_path: Path) -> None:
    """A record's checksum covers its run; once that was checked, the record alone is read."""
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 10) as writer:
        writer.extend(np.zeros((50, 4096), np.float32))  # 16 to a run of 256 KiB, and 2 that are left
    for verify, before, after in (("first", 16, 1), ("always", 16, 16), ("never", 1, 1)):
        with hs.open(tmp_path / "a.hsq", verify=verify) as file:
            source = file._source
            assert [nbytes for _, nbytes in source.extents(20, 21, (0,))] == [before << 14]
            assert [nbytes for _, nbytes in source.extents(15, 17, (0,))] == [max(2, 2 * before) << 14]
            file[2]  # records 20 to 29
            assert [nbytes for _, nbytes in source.extents(20, 21, (0,))] == [after << 14]
            assert [nbytes for _, nbytes in source.extents(49, 50, (0,))] == [(1 if verify == "never" else 2) << 14]


# --- how much there is -----------------------------------------------------------------------------------------------


def test_the_limit_of_a_control_group_counts_what_cannot_be_dropped(tmp_path: Path) -> None:
    assert limit_nbytes(tmp_path) is None and left_nbytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.stat").write_text("anon 3000\nfile 5000\n")
    assert limit_nbytes(tmp_path) is None and left_nbytes(tmp_path) is None
    (tmp_path / "memory.max").write_text("10000\n")
    assert limit_nbytes(tmp_path) == 10000 and left_nbytes(tmp_path) == 7000
    (tmp_path / "memory.max").write_text("1000\n")
    assert left_nbytes(tmp_path) == 0


def test_control_groups_of_the_first_version_count_too(tmp_path: Path) -> None:
    (tmp_path / "memory.limit_in_bytes").write_text("10000\n")
    (tmp_path / "memory.stat").write_text("cache 1\nrss 2000\ntotal_cache 5\ntotal_rss 4000\n")
    assert limit_nbytes(tmp_path) == 10000 and left_nbytes(tmp_path) == 6000


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("inside", [True, False])
def test_the_strictest_group_of_all_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int, inside: bool
) -> None:
    """Of a process's own group and those around it; in a container the path may be the host's, which is not there."""
    root, membership = tmp_path / "root", tmp_path / "membership"
    own = root / "jobs" / "mine"
    own.mkdir(parents=True)
    name = "memory.max" if version == 2 else "memory.limit_in_bytes"
    line = "0::" if version == 2 else "9:cpu,memory:"
    membership.write_text(f"7:pids:/other\n{line}{'/jobs/mine' if inside else '/docker/1234'}\n")
    (root / name).write_text(f"{9 * MIB}\n")
    (own / name).write_text(f"{7 * MIB}\n")
    (own.parent / name).write_text(f"{5 * MIB}\n")
    versions = {"" if version == 2 else "memory": (root, name, "anon")}
    monkeypatch.setattr(memory, "_VERSIONS", versions)
    monkeypatch.setattr(memory, "_MEMBERSHIP", membership)
    assert allowed_nbytes.__wrapped__() == (5 * MIB if inside else 9 * MIB)
    membership.unlink()
    assert allowed_nbytes.__wrapped__() > 1 << 30  # the machine's own


def test_what_is_allowed_and_free_is_told() -> None:
    assert allowed_nbytes() > 1 << 28
    found = available_nbytes()
    assert found is None or found > 1 << 20


def test_a_real_limit_is_found() -> None:
    code = "from hypersequence.loader.memory import *; print(allowed_nbytes(), available_nbytes())"
    script = f"import os, sys; open(sys.argv[1] + '/cgroup.procs', 'w').write(str(os.getpid()))\n{code}"
    try:
        with memory_limit(300 * MIB) as group:
            done = subprocess.run(
                [sys.executable, "-c", script, str(group)], capture_output=True, text=True, check=True
            )
    except NoLimit as error:
        pytest.skip(str(error))
    allowed, available = map(int, done.stdout.split())
    assert allowed == 300 * MIB and 100 * MIB < available < 300 * MIB

"""Reading ahead by large pages: exactly what is wanted, nothing left behind, and another way wherever it is refused."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hypersequence as hs
from hypersequence.source import largepages, pagecache, readahead
from hypersequence.source.handle import FileHandle
from hypersequence.source.largepages import LARGE_PAGE_NBYTES, LargePages
from test_loader import forget, is_resident, resident_nbytes
from test_memory import is_random

on_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what is in the page cache")

MIB = 1 << 20
N = 600
RECORD = (125, 1000)  # half a megabyte, so that blocks begin anywhere


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 MB: 600 records and their numbers, blocks of 8 MB."""
    path = tmp_path_factory.mktemp("large") / "large.hsq"
    with hs.HyperSequenceWriter(path, 4) as writer:
        for number in range(N):
            writer.append(np.full(RECORD, number, np.float32), number)
    return path


@pytest.fixture
def cold(path: Path) -> Path:
    forget(path)
    return path


def numbers(loader: hs.Loader) -> list[int]:
    """The records of an epoch, which are what they should be."""
    found: list[int] = []
    for x, y in loader:
        assert (x == y[:, None, None]).all()
        found += y.tolist()
    return found


def n_mappings(path: Path) -> int:
    return sum(line.rstrip().endswith(str(path)) for line in Path("/proc/self/maps").read_text().splitlines())


def opened(path: Path) -> FileHandle:
    handle = FileHandle(str(path))
    handle.map()
    return handle


def noted(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, failing: int) -> list[tuple[int, int]]:
    """What a function is asked for; with an error instead, if one is given."""
    asked: list[tuple[int, int]] = []
    function = getattr(where, name)

    def noting(what: Any, start: int, end: int) -> None:
        asked.append((start, end))
        if failing:
            raise OSError(failing, os.strerror(failing))
        function(what, start, end)

    monkeypatch.setattr(where, name, noting)
    return asked


def brings(monkeypatch: pytest.MonkeyPatch, failing: int = 0) -> list[tuple[int, int]]:
    """What large pages are asked for."""
    return noted(monkeypatch, LargePages, "bring", failing)


def touches(monkeypatch: pytest.MonkeyPatch, failing: int = 0) -> list[tuple[int, int]]:
    """What is touched of a row."""
    return noted(monkeypatch, sys.modules[FileHandle.__module__], "touch", failing)


# --- what is brought -------------------------------------------------------------------------------------------------


@on_linux
def test_large_pages_come_and_nothing_around_them(cold: Path) -> None:
    handle = opened(cold)
    handle.bring(4 * MIB, 10 * MIB)
    assert resident_nbytes(cold) == 6 * MIB
    end = handle.nbytes
    handle.bring(end // LARGE_PAGE_NBYTES * LARGE_PAGE_NBYTES, end)  # the last is shorter
    assert 6 * MIB + end % LARGE_PAGE_NBYTES <= resident_nbytes(cold) <= 8 * MIB
    handle.close()


@pytest.mark.parametrize("order", ["file", "window", "batch", "record"])
@pytest.mark.parametrize("options", [{}, {"evict": True}, {"threads": 0}], ids=str)
def test_every_order_is_delivered_as_a_plain_sequence_has_it(cold: Path, order: str, options: dict[str, Any]) -> None:
    with hs.open(cold) as file:
        seq = file if order == "file" else file.shuffled(5, by=order, window=40 * MIB)
        expected = [int(n) for _, y in seq.fields("outputs") for n in y]
        forget(cold)
        assert numbers(hs.Loader(seq, **options)) == expected


@on_linux
def test_an_epoch_in_windows_reads_by_large_pages(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = brings(monkeypatch)
    monkeypatch.setattr(FileHandle, "is_cached", lambda *_: False)  # nor left to what the system read by itself
    with hs.open(cold) as file:
        assert sorted(numbers(hs.Loader(file.shuffled(1, window=40 * MIB)))) == list(range(N))
    assert all(start % LARGE_PAGE_NBYTES == 0 and start < end for start, end in asked)
    covered = {page for start, end in asked for page in range(start, end, LARGE_PAGE_NBYTES)}
    assert len(covered) > 0.9 * cold.stat().st_size / LARGE_PAGE_NBYTES


has_large_pages = pytest.mark.skipif(not largepages.are_there(), reason="needs Linux 5.14, and large pages of 2 MiB")


def reads_ahead(monkeypatch: pytest.MonkeyPatch, nbytes: int | None) -> None:
    """Have the disk be one of which the system reads so far ahead by itself, as far as is known."""
    monkeypatch.setattr(sys.modules[FileHandle.__module__], "read_ahead_nbytes", lambda _: nbytes)


def nbytes_of(asked: list[tuple[int, int]]) -> int:
    return sum(end - start for start, end in asked)


def steps_of(file: hs.HyperSequenceFile, beside: readahead.Beside | None = None, check: bool = True) -> Iterator[int]:
    """All of a file, read ahead."""
    steps = file._source.load(np.array([[0, N]]), (0, 1), readahead.Way(check, True, beside))
    return (step.nbytes for step in steps)


@has_large_pages
@pytest.mark.parametrize(
    ("far", "options"), [(2 * MIB, {}), (None, {}), (8 * MIB, {"evict": True})], ids=["near", "unknown", "evict"]
)
def test_a_long_row_comes_in_large_pages(
    cold: Path, monkeypatch: pytest.MonkeyPatch, far: int | None, options: dict[str, Any]
) -> None:
    reads_ahead(monkeypatch, far)
    brought, touched = brings(monkeypatch), touches(monkeypatch)
    with hs.open(cold) as file:
        assert numbers(hs.Loader(file, **options)) == list(range(N))
    assert nbytes_of(brought) > 0.9 * cold.stat().st_size
    assert not touched


@has_large_pages
def test_a_long_row_is_left_to_a_system_that_reads_far_ahead(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads_ahead(monkeypatch, 8 * MIB)
    brought, touched = brings(monkeypatch), touches(monkeypatch)
    with hs.open(cold) as file:
        assert numbers(hs.Loader(file)) == list(range(N))
        assert nbytes_of(brought) <= 48 * MIB  # until it is known for one
        assert nbytes_of(touched) > 0.8 * cold.stat().st_size
        assert touched == sorted(touched)
        touched.clear()
        forget(cold)
        assert sorted(numbers(hs.Loader(file.shuffled(1, window=40 * MIB)))) == list(range(N))
        assert nbytes_of(touched) < 0.2 * cold.stat().st_size


@on_linux
def test_what_is_touched_is_there(cold: Path) -> None:
    handle = opened(cold)
    before = resident_nbytes(cold)
    handle.touch(100 * MIB, 164 * MIB)
    assert resident_nbytes(cold) - before >= 64 * MIB
    handle.close()
    with pytest.raises(hs.ClosedError):
        handle.touch(0, 1 * MIB)


@has_large_pages
@pytest.mark.parametrize("number", [errno.EFAULT, errno.EINVAL])
def test_a_row_that_cannot_be_touched_is_read_ahead_all_the_same(
    cold: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    reads_ahead(monkeypatch, 8 * MIB)
    touched = touches(monkeypatch, failing=number)
    with hs.open(cold) as file:
        monkeypatch.setattr(type(file._source), "check", lambda *_: None)  # which would read it as well
        assert sum(steps_of(file)) > 0.9 * cold.stat().st_size
        assert len(touched) > 20 if number == errno.EFAULT else len(touched) == 1  # what no row can do is not tried on
    assert is_resident(cold)


@has_large_pages
def test_a_row_that_nobody_checks_is_not_mapped(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several ranks read it, each of which needs a part."""
    reads_ahead(monkeypatch, 8 * MIB)
    touched = touches(monkeypatch)
    with hs.open(cold) as file:
        assert sum(steps_of(file, check=False)) > 0.9 * cold.stat().st_size
    assert not touched


@has_large_pages
def test_a_row_is_not_touched_when_somebody_begins_to_evict(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One page after the other would come."""
    reads_ahead(monkeypatch, 8 * MIB)
    brought, touched = brings(monkeypatch), touches(monkeypatch)
    with hs.open(cold) as file:
        steps = steps_of(file)
        while not touched:
            next(steps)
        file._source.begin_evicting(steps)
        brought.clear()
        touched.clear()
        assert sum(steps) > 0.7 * cold.stat().st_size
        file._source.end_evicting(steps)
    assert nbytes_of(brought) > 0.7 * cold.stat().st_size
    assert not touched


@has_large_pages
@pytest.mark.parametrize(("far", "early"), [(2 * MIB, True), (8 * MIB, False), (None, False)])
def test_the_next_step_of_a_row_comes_while_one_is_checked(
    cold: Path, monkeypatch: pytest.MonkeyPatch, far: int | None, early: bool
) -> None:
    """Unless the system does so by itself, or may do so."""
    reads_ahead(monkeypatch, far)
    given: list[int] = []

    def beside(function: Callable[[], object]) -> Callable[[], object]:
        given.append(1)
        return function

    with hs.open(cold) as file:
        steps = steps_of(file, beside)
        assert next(steps) == 0  # the first is on its way
        assert next(steps) > 0
        assert len(given) == (4 if early else 2)  # each in two halves
        assert sum(steps) > 0.9 * cold.stat().st_size


@has_large_pages
def test_touching_behind_the_end_of_a_truncated_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short.bin"
    path.write_bytes(bytes(8 * MIB))
    handle = opened(path)
    os.truncate(path, 3 * MIB)
    assert handle._address is not None
    with pytest.raises(OSError, match="EFAULT"):  # and the process lives
        largepages.touch(handle._address, 1 * MIB, 8 * MIB)
    handle.touch(1 * MIB, 8 * MIB)
    handle.close()


@on_linux
def test_what_came_with_neighbours_is_not_taken_for_the_whole(cold: Path) -> None:
    with hs.open(cold) as file, cold.open("rb") as plain:
        source = file._source
        blocks = [(n, min(n + source.block_records, N)) for n in range(0, N, source.block_records)]
        os.posix_fadvise(plain.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        for start, stop in blocks:
            [(offset, nbytes)] = source.extents(start, stop, (0, 1))
            for at in (offset, offset + nbytes - 4096):
                os.pread(plain.fileno(), 4096, at)
        assert not any(source.resident(np.array([block]), (0, 1)) for block in blocks)
        assert resident_nbytes(cold) < 1 * MIB  # and to ask brought nothing
        cold.read_bytes()
        assert source.resident(np.array(blocks), (0, 1))


def read_nbytes() -> int:
    """What this process had the disk read."""
    [line] = [line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("read_bytes")]
    return int(line.split()[1])


@on_linux
def test_what_came_while_it_was_asked_for_was_not_there(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may be quicker than a thread that has to wait for a processor."""
    tried: list[int] = []

    def slowly(handle: FileHandle, offset: int) -> bool:
        tried.append(offset)
        return len(handle.read(offset, 1)) == 1

    with hs.open(cold) as file:
        runs = np.array([[0, 64]])
        monkeypatch.setattr(FileHandle, "is_absent", lambda *_: False)
        monkeypatch.setattr(FileHandle, "is_cached", slowly)
        assert not file._source.resident(runs, (0, 1))
        assert file._source.resident(runs, (0, 1))
    assert len(tried) > 2


@on_linux
def test_what_is_evicted_was_read_once(cold: Path) -> None:
    before = read_nbytes()
    with hs.open(cold) as file:
        assert len(numbers(hs.Loader(file.shuffled(1, window=40 * MIB), evict=True))) == N
    # Small pages over edges of blocks come twice, and the system reads around some of them.
    assert read_nbytes() - before < 1.1 * cold.stat().st_size


@given(
    wanted=st.lists(st.tuples(st.integers(0, 299 * MIB), st.integers(1, 40 * MIB), st.booleans(), st.booleans())),
    evicting=st.booleans(),
)
def test_large_pages_lie_in_what_is_wanted_or_over_its_edges(
    path: Path, wanted: list[tuple[int, int, bool, bool]], evicting: bool
) -> None:
    handle = opened(path)
    if evicting:
        handle.begin_evicting(wanted)
    for offset, nbytes, goes_on, shared in wanted:
        nbytes = min(nbytes, handle.nbytes - offset)
        start, end = handle.to_bring(offset, nbytes, goes_on, shared)
        if start == end:
            continue
        assert start % LARGE_PAGE_NBYTES == 0 and (end % LARGE_PAGE_NBYTES == 0 or end == handle.nbytes)
        assert offset - LARGE_PAGE_NBYTES < start < end < offset + nbytes + LARGE_PAGE_NBYTES
        assert max(start, offset) < min(end, offset + nbytes)
    handle.close()


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(0, 1))))
def test_halves_are_even_and_miss_nothing(wanted: list[tuple[int, int, int]]) -> None:
    stretches, at = [], 0
    for gap, n_pages, short in wanted:  # the last page of a file may be shorter
        start = at + gap
        at = start + n_pages
        stretches.append((start * LARGE_PAGE_NBYTES, at * LARGE_PAGE_NBYTES - short))
    first, second = readahead._halves(stretches)

    def pages(part: list[tuple[int, int]]) -> list[int]:
        return [page for start, end in part for page in range(start, end, LARGE_PAGE_NBYTES)]

    assert pages(first) + pages(second) == pages(stretches)
    assert 0 <= len(pages(second)) - len(pages(first)) <= 1
    assert {end for _, end in stretches} <= {end for _, end in first + second}


# --- nothing is left behind ------------------------------------------------------------------------------------------


@on_linux
def test_no_descriptor_is_needed_and_the_mapping_goes_with_the_file(cold: Path) -> None:
    descriptors = Path("/proc/self/fd")
    with hs.open(cold) as file:
        before, mapped = len(list(descriptors.iterdir())), n_mappings(cold)
        assert len(numbers(hs.Loader(file))) == N
        assert len(list(descriptors.iterdir())) == before
        assert n_mappings(cold) <= mapped + 1
    assert n_mappings(cold) == 0


@on_linux
def test_a_child_process_reads_by_large_pages_of_its_own(cold: Path) -> None:
    with hs.open(cold) as file:
        loader = hs.Loader(file)
        assert len(numbers(loader)) == N
        forget(cold)
        child = os.fork()
        if child == 0:
            os._exit(0 if len(numbers(hs.Loader(file))) == N else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert len(numbers(hs.Loader(file))) == N


@on_linux
def test_the_mapping_is_made_anew_now_and_then(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux from 6.19 on counts what it did not find, and then reads small pages."""
    made: list[int] = []
    init = LargePages.__init__

    def noting(pages: LargePages, fd: int, nbytes: int) -> None:
        made.append(fd)
        init(pages, fd, nbytes)

    monkeypatch.setattr(LargePages, "__init__", noting)
    monkeypatch.setattr(sys.modules[FileHandle.__module__], "MOST_PAGES", 10)
    with hs.open(cold) as file:
        mapped = n_mappings(cold)
        assert len(numbers(hs.Loader(file.shuffled(1, window=40 * MIB)))) == N
        assert n_mappings(cold) <= mapped + 1
    assert len(made) > 8


@on_linux
def test_a_file_that_is_closed_meanwhile_keeps_no_mapping(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    handle = opened(cold)
    init = LargePages.__init__

    def closing(pages: LargePages, fd: int, nbytes: int) -> None:
        init(pages, fd, nbytes)
        handle.close()

    monkeypatch.setattr(LargePages, "__init__", closing)
    handle.bring(0, 2 * MIB)
    assert n_mappings(cold) == 0


@on_linux
def test_what_is_on_its_way_when_a_pass_is_left_is_dropped_too(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring = LargePages.bring

    def slowly(pages: LargePages, start: int, end: int) -> None:
        time.sleep(0.1)
        bring(pages, start, end)

    monkeypatch.setattr(LargePages, "bring", slowly)
    with hs.open(cold) as file:
        for seed in range(3):
            batches = iter(hs.Loader(file.shuffled(seed, window=40 * MIB), evict=True))
            for _ in range(3 * seed):
                next(batches)
            time.sleep(0.3)  # what is made of the records, and touches them, is done then
            batches.close()
            del batches
            assert resident_nbytes(cold) < 3 * MIB  # the file's own begin and end, and a batch in the making


@on_linux
def test_a_child_does_not_go_on_evicting_for_its_parent(cold: Path) -> None:
    with hs.open(cold) as file:
        mine = iter(hs.Loader(file.shuffled(1, window=40 * MIB), evict=True))
        next(mine)
        assert is_random(cold)
        child = os.fork()
        if child == 0:
            assert len(numbers(hs.Loader(file.shuffled(2, window=40 * MIB), evict=True))) == N
            os._exit(is_random(cold))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert is_random(cold)
        mine.close()


@on_linux
def test_what_is_left_to_page_faults_does_not_come_page_by_page(tmp_path: Path) -> None:
    path = tmp_path / "small.hsq"
    with hs.HyperSequenceWriter(path, 64) as writer:
        writer.extend(np.zeros((200_000, 64), np.float32), np.arange(200_000))
    forget(path)
    with hs.open(path) as file:
        loader = iter(hs.Loader(file.select(range(0, 200_000, 20)), evict=True))
        assert next(loader)[1].tolist() == list(range(0, 64 * 20, 20))
        assert not is_random(path)
        loader.close()


# --- another way -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EPERM])
def test_a_system_without_them_is_asked_once(cold: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    asked = brings(monkeypatch, failing=number)
    with hs.open(cold) as file:
        seq = file.shuffled(1, window=40 * MIB)
        assert sorted(numbers(hs.Loader(seq))) == list(range(N))
        n_asked = len(asked)
        assert sorted(numbers(hs.Loader(seq.at_epoch(1)))) == list(range(N))
    assert n_asked <= 8  # steps that were planned before that was known
    assert len(asked) == n_asked


def test_without_the_c_library_everything_is_read_the_other_way(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = brings(monkeypatch)
    monkeypatch.setattr(largepages._system, "libc", None)
    with hs.open(cold) as file:
        assert sorted(numbers(hs.Loader(file.shuffled(1, window=40 * MIB)))) == list(range(N))
    assert asked == []


@on_linux
def test_a_system_that_brings_small_pages_is_found_out(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux 5.14 to 5.17 takes all the advice, and waits for every small page by itself."""
    monkeypatch.setattr(largepages._system, "libc", largepages._system.libc)  # which is put back
    waits = iter(range(0, 1 << 30, 512))
    monkeypatch.setattr(largepages, "_n_waits", lambda: next(waits))
    asked = brings(monkeypatch)
    with hs.open(cold) as file:
        assert sorted(numbers(hs.Loader(file.shuffled(1, window=40 * MIB)))) == list(range(N))
    assert largepages._system.libc is None
    n_asked = len(asked)
    forget(cold)
    with hs.open(cold) as file:  # nor for other files
        assert sorted(numbers(hs.Loader(file.shuffled(1, window=40 * MIB)))) == list(range(N))
    assert n_asked == len(asked) <= 2


def test_large_pages_of_another_size_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "hpage_pmd_size"
    for content in ("536870912", "", "none", None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)
        monkeypatch.setattr(largepages, "_PMD_NBYTES", path)
        assert largepages._System().libc is None


@on_linux
def test_what_is_asked_for_comes_as_a_whole(cold: Path) -> None:
    handle = opened(cold)
    handle.will_need(5 * MIB + 1, 11 * MIB)
    handle.wait_for(5 * MIB + 1, 11 * MIB)
    assert 11 * MIB <= resident_nbytes(cold) <= 12 * MIB
    handle.close()


@on_linux
@pytest.mark.parametrize(
    ("told", "nbytes"),
    [
        ({"dev/block/8:16/queue/max_sectors_kb": "1280\n", "dev/block/8:16/queue/read_ahead_kb": "128"}, 1280 << 10),
        ({"dev/block/8:16/queue/max_sectors_kb": "64", "dev/block/8:16/queue/read_ahead_kb": "4096"}, 2048 << 10),
        ({"dev/block/queue/max_sectors_kb": "256", "dev/block/8:16/partition": "1"}, 256 << 10),
        ({"class/bdi/8:16/read_ahead_kb": "512"}, 512 << 10),
        ({"class/bdi/8:16/read_ahead_kb": "none"}, 128 << 10),
        ({}, 128 << 10),
    ],
)
def test_no_more_is_asked_for_at_a_time_than_the_system_heeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], nbytes: int
) -> None:
    for name, content in told.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(pagecache, "_SYS", tmp_path)
    assert pagecache.asked_nbytes.__wrapped__(os.makedev(8, 16)) == nbytes
    known = [
        int(said) << 10 for name, said in told.items() if name.endswith("read_ahead_kb") and said.strip().isdigit()
    ]
    assert pagecache.read_ahead_nbytes.__wrapped__(os.makedev(8, 16)) == max(known, default=None)


def test_without_advice_everything_is_read(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: nothing else would be at work ahead of the consumer."""
    read: list[int] = []
    read_through = FileHandle._read_through

    def noting(handle: FileHandle, offset: int, nbytes: int) -> None:
        read.append(nbytes)
        read_through(handle, offset, nbytes)

    monkeypatch.setattr(FileHandle, "_read_through", noting)
    monkeypatch.setattr(largepages._system, "libc", None)
    monkeypatch.setattr(sys.modules[FileHandle.__module__], "_HAS_FADVISE", False)
    with hs.open(cold) as file:
        assert numbers(hs.Loader(file)) == list(range(N))
    assert sum(read) > 0.9 * cold.stat().st_size


@pytest.mark.parametrize("number", [errno.EFAULT, errno.EIO, errno.ENOMEM])
def test_a_failure_is_of_that_stretch_alone(cold: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    asked = brings(monkeypatch, failing=number)
    with hs.open(cold) as file:
        assert sorted(numbers(hs.Loader(file.shuffled(1, window=40 * MIB)))) == list(range(N))
    assert len(asked) > 20


@on_linux
def test_bytes_behind_the_end_of_a_truncated_file_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "short.bin"
    path.write_bytes(bytes(8 * MIB))
    with path.open("rb") as file:
        pages = LargePages(file.fileno(), 8 * MIB)  # needs no descriptor from now on
    os.truncate(path, 3 * MIB)
    pages.bring(0, 2 * MIB)
    with pytest.raises(OSError, match="EFAULT"):  # and the process lives
        pages.bring(4 * MIB, 8 * MIB)


def test_without_a_mapping_none_are_brought(cold: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = brings(monkeypatch)
    with hs.open(cold, use_mmap=False) as file:
        assert sorted(numbers(hs.Loader(file.shuffled(1, window=40 * MIB)))) == list(range(N))
    assert asked == []

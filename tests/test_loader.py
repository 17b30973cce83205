"""The loader: the same batches as the sequence, whatever threads, buffers and interruptions."""

from __future__ import annotations

import gc
import itertools
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from itertools import islice
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hypersequence as hs
from conftest import labels

N = 103


def flat(batches) -> list[int]:
    return [int(label) for batch in batches for label in batch[1]]


def hsq_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hsq")]


def settle(condition, seconds: float = 10) -> None:
    """Wait until something is so; threads that were told to stop need a moment."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    gc.collect()
    settle(lambda: not hsq_threads())


CHAINS = {
    "file order": lambda seq: seq,
    "window": lambda seq: seq.shuffled(1, window=3000),
    "everything in one window": lambda seq: seq.shuffled(1),
    "record": lambda seq: seq.shuffled(1, by="record").rebatch(7),
    "batch": lambda seq: seq.shuffled(1, by="batch"),
    "drop_last": lambda seq: seq.shuffled(1).rebatch(10, drop_last=True),
    "pad": lambda seq: seq.shuffled(2).shard(1, 3),
    "short": lambda seq: seq.shuffled(2, window=3000).shard(2, 3, "short"),
    "map": lambda seq: seq.shuffled(3).map(lambda batch, rng: (batch[0] + rng.random(), batch[1])),
    "concat": lambda seq: hs.concat([seq.shuffled(1).take(3), seq]),
    "mix": lambda seq: hs.mix([seq.shuffled(1), seq], [2, 1], seed=1),
    "fields": lambda seq: seq.shuffled(4).fields("outputs"),
    "one record a batch": lambda seq: seq.shuffled(5).rebatch(1),
    "one batch": lambda seq: seq.shuffled(5).rebatch(1000),
    "nothing": lambda seq: seq.take(0),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("buffers", ["own", "view", "reuse"])
def test_the_batches_of_the_sequence_epoch_by_epoch(numbered: Path, chain: str, buffers: str) -> None:
    with hs.open(numbered) as file:
        seq = CHAINS[chain](file)
        for threads in (0, 1, 3):
            for prefetch in (None, 1, 5):
                loader = hs.Loader(seq, threads=threads, prefetch=prefetch, buffers=buffers)
                assert len(loader) == len(seq)
                for epoch in range(3):
                    expected = seq.at_epoch(epoch)
                    n = 0
                    for batch, same in zip(loader, expected, strict=True):
                        assert len(batch) == len(same)
                        for array, other in zip(batch, same, strict=True):
                            assert other is None or np.array_equal(array, other)
                        n += 1
                    assert n == len(seq)
                    assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (epoch + 1, 0)


def test_large_batches_are_made_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "large.hsq"
    values = np.random.default_rng(0).random((60, 300_000))
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.extend(values, np.arange(60))
    with hs.open(path) as file:
        for seq in (file.rebatch(25), file.shuffled(1, by="record").rebatch(25), file.shuffled(1).rebatch(60)):
            for threads in (0, 1, 4):
                for x, y in hs.Loader(seq, threads=threads):
                    assert np.array_equal(x, values[y])


def test_whole_batches_of_all_kinds_of_types_are_copied_together(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    fields = {
        "bool": random.random((300, 3)) > 0.5,
        "swapped": random.random(300).astype(">f8"),
        "text": np.array([f"n{i}" for i in range(300)]),
        "bytes": np.array([b"x" * (i % 7) for i in range(300)]),
        "bfloat16": random.random((300, 2, 2)).astype(ml_dtypes.bfloat16),
        "complex": random.random(300) + 1j,
        "dates": np.arange(300).astype("M8[s]"),
        "nothing": np.zeros((300, 0), np.float32),
    }
    paths = [tmp_path / "a.hsq", tmp_path / "b.hsq"]
    for path, part in zip(paths, (slice(0, 200), slice(200, 300)), strict=True):
        with hs.HyperSequenceWriter(path, 5, block_nbytes=4096) as writer:
            writer.extend({name: values[part] for name, values in fields.items()}, np.arange(300)[part])
    for where, use_mmap in itertools.product((paths[0], paths), (True, False)):
        with hs.open(where, use_mmap=use_mmap) as file:
            seq = file.rebatch(7).shuffled(1, by="batch")
            for threads in (0, 2):
                seen: list[int] = []
                for x, y in hs.Loader(seq, threads=threads):
                    for name, values in fields.items():
                        assert x[name].tobytes() == values[y].astype(x[name].dtype).tobytes(), name
                    seen += y.tolist()
                assert seen == [int(label) for _, y in seq for label in y]
                assert sorted(seen) == list(range(file.n_records))


# --- buffers ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """400 records of 16 KiB whose values are their number."""
    path = tmp_path / "wide.hsq"
    with hs.HyperSequenceWriter(path, 10) as writer:
        for i in range(400):
            writer.append(np.full(4096, i, np.float32), i)
    return path


@pytest.mark.parametrize("threads", [0, 2])
def test_owned_batches_never_change(wide: Path, threads: int) -> None:
    with hs.open(wide) as file:
        for seq in (file, file.shuffled(1, by="record").rebatch(16), file.rebatch(7)):
            kept = []
            for x, y in hs.Loader(seq, threads=threads):
                assert x.flags.writeable and x.ctypes.data % 64 == 0
                x += 0
                kept.append((x, y))
            assert all((x == y[:, None]).all() for x, y in kept)
            kept[0][0][...] = -1  # and nobody else's do when one is written to
            assert all((x == y[:, None]).all() for x, y in kept[1:])


def test_views_are_views_where_batches_are_contiguous(wide: Path) -> None:
    with hs.open(wide) as file:
        assert all(not x.flags.writeable for x, _ in hs.Loader(file.shuffled(1, by="batch"), buffers="view"))
        assert all(x.flags.writeable for x, _ in hs.Loader(file.shuffled(1, by="record"), buffers="view"))


@pytest.mark.parametrize("threads", [0, 2])
def test_a_ring_is_used_again_after_two_batches(wide: Path, threads: int) -> None:
    with hs.open(wide) as file:
        seq = file.shuffled(1).rebatch(8)
        made: list[int] = []

        def allocate(nbytes):
            made.append(1)
            return np.zeros(nbytes, np.uint8)

        for buffers in ("reuse", allocate):
            addresses, before = set(), None
            for x, y in hs.Loader(seq, threads=threads, prefetch=2, buffers=buffers):
                if before is not None:
                    assert (before[0] == before[1][:, None]).all()  # still there while the next one is in use
                before = (x, y)
                addresses.add(x.ctypes.data)
            assert len(addresses) <= 5
        assert len(made) <= 5


@pytest.mark.parametrize(
    "give", [lambda n: np.zeros(n - 1, np.uint8), lambda n: bytearray(n), lambda n: np.zeros(n), lambda n: None]
)
def test_a_ring_of_the_wrong_memory_is_refused(wide: Path, give) -> None:
    with hs.open(wide) as file, pytest.raises(hs.ArgumentError, match="uint8"):
        next(iter(hs.Loader(file.shuffled(1), buffers=give)))


def test_memory_in_flight_is_bounded(wide: Path) -> None:
    """No more batches than asked for are made ahead of the consumer."""
    made: list[int] = []
    with hs.open(wide) as file:
        seq = file.shuffled(1).rebatch(4).map(lambda batch: (made.append(1), batch)[1])
        iterator = iter(hs.Loader(seq, threads=2, prefetch=6))
        next(iterator)
        time.sleep(0.3)
        assert len(made) <= 8
        iterator.close()


# --- passes and states -----------------------------------------------------------------------------------------------


def test_passes(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        epochs = [labels(seq.at_epoch(e)) for e in range(7)]

        loader = hs.Loader(seq)
        assert [flat(loader) for _ in range(3)] == epochs[:3]
        loader.set_epoch(1)
        assert flat(loader) == epochs[1]

        loader = hs.Loader(seq, epochs=3)
        assert len(loader) == 3 * len(seq)
        assert flat(loader) == epochs[0] + epochs[1] + epochs[2]
        loader.set_epoch(4)  # a pass ends at the next multiple
        assert flat(loader) == epochs[4] + epochs[5]

        assert flat(hs.Loader(seq.at_epoch(2))) == epochs[2]


def test_an_epoch_that_was_left_is_begun_again_but_the_state_stays(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loader = hs.Loader(seq)
        for i, _ in enumerate(loader):
            if i == 2:
                break
        state = loader.state_dict()
        assert (state["epoch"], state["position"]) == (0, 24)
        assert flat(loader) == labels(seq)  # begun again
        loader.load_state_dict(state)
        assert flat(loader) == labels(seq)[24:]  # gone on with
        assert flat(loader) == labels(seq.at_epoch(1))


def test_a_state_is_small_json_and_exact(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(2**64 - 1, by="record").rebatch(10)
        whole = labels(seq) + labels(seq.at_epoch(1))
        for taken in range(len(seq) * 2 + 1):
            loader = hs.Loader(seq, epochs=2)
            seen = flat(islice(loader, taken))
            state = json.loads(json.dumps(loader.state_dict()))
            assert len(json.dumps(state)) < 300
            other = hs.Loader(seq, epochs=2, threads=0)
            other.load_state_dict(state)
            assert seen + flat(other) == whole or taken == len(seq) * 2
        assert state["epoch"] == 2
        assert state["position"] == 0


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_going_on_with_other_threads_world_and_batch_size(numbered: Path, seed: int) -> None:
    """The global order stays the same, however often and wherever training is interrupted and regrouped."""
    choice = random.Random(seed)
    with hs.open(numbered) as file:
        for by in ("window", "record", "batch"):
            base = file.shuffled(3, by=by, window=2500)
            expected = labels(base) + labels(base.at_epoch(1))
            seen: list[int] = []
            state = None
            while len(seen) < len(expected):
                world, size = choice.choice([1, 2, 3, 5]), choice.choice([1, 4, 7, 60])
                ranks = [
                    hs.Loader(base.rebatch(size).shard(rank, world), epochs=2, threads=choice.randint(0, 2))
                    for rank in range(world)
                ]
                if state is not None:
                    for rank in ranks:
                        rank.load_state_dict(state)
                steps = choice.randint(1, 8)
                for step in islice(zip(*ranks, strict=True), steps):
                    for _, y, weights in step:
                        seen += y[weights > 0].tolist()
                states = [rank.state_dict() for rank in ranks]
                assert all(one == states[0] for one in states)
                state = states[0]
            assert seen == expected


def test_a_state_of_something_else_is_refused(numbered: Path, tmp_path: Path) -> None:
    other_path = tmp_path / "other.hsq"
    with hs.HyperSequenceWriter(other_path, 8) as writer:
        for i in range(N):
            writer.append(np.full((3, 5), i, np.float32), i + 1)
    with hs.open(numbered) as file, hs.open(other_path) as other:
        seq = file.shuffled(1)
        loader = hs.Loader(seq)
        next(iter(loader))
        state = loader.state_dict()

        def refused(sequence: hs.HyperSequence, match: str, changed: dict | None = None) -> None:
            with pytest.raises(hs.ArgumentError, match=match):
                hs.Loader(sequence).load_state_dict({**state, **(changed or {})})

        refused(other.shuffled(1), "content")
        refused(file.shuffled(2), "seed")
        refused(file, "seed")
        refused(file.take(5).shuffled(1), "number of records")
        refused(file.shuffled(1, by="record"), "chain")
        refused(file.shuffled(1, window=1), "chain")
        refused(file.select(list(range(N))[::-1]).shuffled(1), "chain")
        refused(seq, "no place", {"position": N + 1})
        refused(seq, "no place", {"epoch": -1})
        refused(seq, "no place", {"epoch": 1.5})
        refused(seq, "version", {"version": 99})
        for nonsense in (None, {}, 3, "state", {"epoch": 1}):
            with pytest.raises(hs.ArgumentError, match="no state"):
                hs.Loader(seq).load_state_dict(nonsense)
        # What does not change which records come when:
        for same in (
            seq.rebatch(5),
            seq.fields("outputs"),
            seq.map(lambda batch: batch),
            seq.shard(1, 4),
            seq.at_epoch(3),
            hs.open(numbered, use_mmap=False, verify="never").shuffled(1),
        ):
            hs.Loader(same).load_state_dict(state)


def test_two_iterators_have_positions_of_their_own(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader = hs.Loader(file.shuffled(1), threads=1)
        expected = labels(file.shuffled(1))
        outer = iter(loader)
        first = flat([next(outer), next(outer)])
        inner = iter(loader)
        assert flat([next(inner)]) == expected[:8]
        assert loader.state_dict()["position"] == 8  # the newest one's
        assert first + flat(outer) == expected
        assert flat(inner) == expected[8:]
        # nested, and all pairs
        assert sum(len(flat(loader)) for _ in islice(loader, 3)) == 3 * N


def test_many_threads_read_one_sequence(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1, by="record").rebatch(9)
        expected, found, errors = labels(seq), [], []

        def read() -> None:
            try:
                found.append(flat(hs.Loader(seq, threads=1)))
                found.append(labels(seq))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(found) == 64 and all(one == expected for one in found)


# --- stopping --------------------------------------------------------------------------------------------------------


def descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_loaders_that_are_abandoned_leave_nothing(wide: Path) -> None:
    before = descriptors()
    for i in range(100):
        loader = hs.Loader(hs.open(wide).shuffled(i).rebatch(5), threads=2)
        iterator = iter(loader)
        for _ in range(i % 5):
            next(iterator)
        if i % 3 == 0:
            iterator.close()
    del loader, iterator
    gc.collect()
    settle(lambda: not hsq_threads())
    gc.collect()
    assert descriptors() == before
    assert str(wide) not in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("evict", [False, True])
def test_memory_comes_back_without_the_garbage_collector(wide: Path, evict: bool) -> None:
    rings: list[weakref.ref[np.ndarray]] = []

    def give(nbytes: int) -> np.ndarray:
        memory = np.empty(nbytes, np.uint8)
        rings.append(weakref.ref(memory))
        return memory

    gc.collect()
    gc.disable()
    try:
        iterator = iter(hs.Loader(hs.open(wide).shuffled(seed=1), buffers=give, evict=evict))
        next(iterator)
        iterator.close()
        del iterator
        deadline = time.monotonic() + 10
        while any(ring() is not None for ring in rings) and time.monotonic() < deadline:
            time.sleep(0.01)  # a thread may be at its last piece
    finally:
        gc.enable()
    assert rings and [ring() for ring in rings] == [None] * len(rings)


@pytest.mark.parametrize("how", ["break", "exception", "close", "drop"])
def test_threads_stop_when_the_loop_is_left(wide: Path, how: str) -> None:
    with hs.open(wide) as file:
        loader = hs.Loader(file.shuffled(1).rebatch(2), threads=3, prefetch=8)
        if how == "break":
            for _ in loader:
                break
        elif how == "exception":
            with pytest.raises(ZeroDivisionError):
                for _ in loader:
                    1 / 0
        else:
            iterator = iter(loader)
            next(iterator)
            if how == "close":
                iterator.close()
                assert list(iterator) == []
            del iterator
        gc.collect()
        settle(lambda: not hsq_threads())


@pytest.mark.parametrize("threads", [0, 1, 2])
def test_ctrl_c_that_is_caught_loses_nothing(numbered: Path, threads: int) -> None:
    """Whatever was under way is made again, behind the last batch that was handed over."""
    raised: list[int] = []
    with hs.open(numbered) as file:
        seq = file.shuffled(1)

        def interrupt(batch):
            if batch[1][0] not in raised:
                raised.append(int(batch[1][0]))
                raise KeyboardInterrupt
            return batch

        iterator = iter(hs.Loader(seq.map(interrupt), threads=threads, prefetch=4))
        seen, interrupts = [], 0
        while True:
            try:
                seen += next(iterator)[1].tolist()
            except KeyboardInterrupt:
                interrupts += 1
            except StopIteration:
                break
        assert interrupts > 0
        assert seen == labels(seq)


@pytest.mark.parametrize("threads", [0, 2])
def test_stop_iteration_in_map_is_not_the_end(numbered: Path, threads: int) -> None:
    with hs.open(numbered) as file:
        loader = hs.Loader(file.map(lambda batch: next(iter(()))), threads=threads)
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(loader)


def test_shuffling_in_place_does_not_change_a_loader(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader = hs.Loader(file)
        file.shuffle(3)
        assert flat(loader) == list(range(N))


def forget(path: Path) -> None:
    """Drop a file from the page cache, where the system can be asked to."""
    if hasattr(os, "posix_fadvise"):
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def resident_nbytes(path: Path) -> int:
    """Bytes of a file in the page cache."""
    import ctypes
    import mmap

    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapping:
        view = np.frombuffer(mapping, np.uint8)
        pages = np.zeros(-(-len(view) // mmap.PAGESIZE), np.uint8)
        mincore = ctypes.CDLL(None).mincore
        mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
        assert mincore(view.ctypes.data, len(view), pages.ctypes.data) == 0
        del view
    return int((pages & 1).sum()) * mmap.PAGESIZE


def is_resident(path: Path, nbytes: int | None = None) -> bool:
    """Whether the page cache holds a file, or so many bytes of it, but for what the system took away again at once."""
    return resident_nbytes(path) > 0.95 * (path.stat().st_size if nbytes is None else nbytes)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks Linux what is in the page cache")
@pytest.mark.parametrize("use_mmap", [True, False])
@pytest.mark.parametrize("threads", [0, 1])
def test_evicting_leaves_the_page_cache_as_it_was(tmp_path: Path, threads: int, use_mmap: bool) -> None:
    path = tmp_path / "large.hsq"
    mebibyte, n = 1 << 20, 6 * 1024
    with hs.HyperSequenceWriter(path, 16, block_nbytes=2 * mebibyte) as writer:
        for start in range(0, n, 512):
            writer.extend(np.full((512, 4096), start, np.float32), np.arange(start, start + 512))
    with hs.open(path, use_mmap=use_mmap) as file:
        seq = file.shuffled(1, window=16 * mebibyte).rebatch(64)
        for sequence in (seq, file):
            loader, seen, most = hs.Loader(sequence, threads=threads, evict=True), [], 0
            forget(path)
            for number, (x, y) in enumerate(loader):
                assert (x[:, 0] == y // 512 * 512).all()
                seen += y.tolist()
                if number % 8 == 0:
                    most = max(most, resident_nbytes(path))
            assert sorted(seen) == list(range(n))
            assert most < (2 * 16 + 32) * mebibyte < path.stat().st_size
            settle(lambda: resident_nbytes(path) < 4 * mebibyte)


SCRIPT = """
import signal, sys, time, threading
import numpy as np
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs tests in the background ignores it
import hypersequence as hs
seq = hs.open(sys.argv[1]).shuffled(1).rebatch(2)
loader = hs.Loader(seq.map(lambda batch: (time.sleep(0.1), batch)[1]), threads=2, prefetch=4)
iterator = iter(loader)
next(iterator)
print(time.time(), flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["", "raise ValueError('as scripts do')", "sys.exit(3)", "del iterator"])
def test_a_script_that_ends_in_mid_epoch_exits_soon(wide: Path, end: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(end=end), str(wide)], capture_output=True, text=True, timeout=60
    )
    assert time.time() - float(result.stdout.split()[0]) < 5  # an epoch takes ten seconds and more
    assert "hsq" not in result.stderr  # no thread complains


def test_a_thread_that_outlives_the_main_thread_gets_all_its_batches(numbered: Path) -> None:
    script = """
import sys, threading, time
import hypersequence as hs
def train():
    time.sleep(0.2)
    print(sum(len(y) for x, y in hs.Loader(hs.open(sys.argv[1]).shuffled(1), threads=2)))
threading.Thread(target=train).start()
"""
    done = subprocess.run([sys.executable, "-c", script, str(numbered)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{N}\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_ctrl_c_ends_a_script(wide: Path) -> None:
    script = SCRIPT.format(end="for _ in iterator: time.sleep(0.05)")
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(wide)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, err = process.communicate(timeout=30)
    assert time.monotonic() - begun < 5
    assert b"KeyboardInterrupt" in err


INTERRUPTED = """
import faulthandler, random, signal, sys, time
import hypersequence as hs

faulthandler.dump_traceback_later(60, exit=True)
armed = False

def interrupt(*_):
    if armed:
        raise KeyboardInterrupt

signal.signal(signal.SIGALRM, interrupt)
seq = hs.open(sys.argv[1]).take(5).shuffled(1).rebatch(2)
wanted = [y.tolist() for epoch in range(2) for _, y in seq.at_epoch(epoch)]
n_interrupts = 0
random.seed(1)
end = time.monotonic() + 4
while time.monotonic() < end:
    loader, iterator, seen = hs.Loader(seq, threads=2, prefetch=8, epochs=2), None, []
    while True:
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 2e-3), 5e-3)
            armed = True
            iterator = iterator or iter(loader)
            for batch in iterator:
                seen.append(batch[1].tolist())
            armed = False
            break
        except KeyboardInterrupt:
            armed = False
            n_interrupts += 1
    rest = iter(wanted)
    assert all(batch in rest for batch in seen)  # each once and in order
    assert len(wanted) - len(seen) <= n_interrupts  # one that came while a batch was handed over took it along
assert n_interrupts > 100, n_interrupts
signal.setitimer(signal.ITIMER_REAL, 0)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers here")
def test_ctrl_c_at_any_moment(numbered: Path) -> None:
    """Interrupted thousands of times, at starting threads and at asking them, a pass goes on and the program ends."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED, str(numbered)], capture_output=True, timeout=90)
    assert done.returncode == 0, done.stderr[-2000:].decode()


# --- processes -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_after_a_fork(numbered: Path, tmp_path: Path) -> None:
    """A loader, and an iterator that is half through, go on in a child, and in the parent."""
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loader = hs.Loader(seq, threads=2, prefetch=4)
        iterator = iter(loader)
        begun = flat([next(iterator), next(iterator)])
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                good = flat(iterator) == labels(seq)[16:] and flat(hs.Loader(seq)) == labels(seq)
                status = 0 if good else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert begun + flat(iterator) == labels(seq)


def test_pickled(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        for corrupt in ("error", "skip_block"):
            loader = hs.Loader(seq, on_corrupt=corrupt)
            next(iter(loader))
            again = pickle.loads(pickle.dumps(loader))
            assert again.state_dict() == loader.state_dict()
            assert flat(again) == labels(seq)


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_in_map_comes_at_its_batch_with_its_records(numbered: Path, threads: int) -> None:
    with hs.open(numbered) as file:
        shuffled = file.shuffled(1)
        victim = labels(shuffled)[5 * 8 + 3]

        def fail(batch):
            if victim in batch[1]:
                raise LookupError("in the middle of an epoch")
            return batch

        loader = hs.Loader(shuffled.map(fail), threads=threads)
        seen = []
        with pytest.raises(LookupError, match="in the middle of an epoch") as caught:
            for batch in loader:
                seen += batch[1].tolist()
        assert seen == labels(shuffled)[:40]
        assert loader.state_dict()["position"] == 40
        (note,) = caught.value.__notes__
        assert "batch 5 of epoch 0" in note and str(victim) in note
        assert "fail" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def damage(path: Path, block: int, seq: hs.HyperSequence) -> range:
    """Change a byte of a block; gives the records of the block."""
    stored = seq._source.stored
    offset = stored.first_block + block * stored.stride + stored.column_offsets[0] + 5
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    return range(block * stored.block_records, min((block + 1) * stored.block_records, seq.n_records))


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("by", [None, "window", "record", "batch"])
@pytest.mark.parametrize("verify", ["first", "always"])
@pytest.mark.parametrize("cold", [False, True])
def test_damage_is_an_error_at_its_batch(numbered: Path, threads: int, by: str | None, verify: str, cold: bool) -> None:
    with hs.open(numbered) as seq:
        expected = labels(seq.shuffled(1, by=by) if by else seq)
        bad = damage(numbered, 2, seq)
    first = min(expected.index(record) for record in bad)
    if cold:  # what is read ahead is checked by who reads it
        forget(numbered)
    with hs.open(numbered, verify=verify) as file:
        loader = hs.Loader(file.shuffled(1, by=by) if by else file, threads=threads)
        seen = []
        with pytest.raises(hs.ChecksumError, match="block 2") as caught:
            for batch in loader:
                seen += batch[1].tolist()
        assert seen == expected[: first // 8 * 8]
        assert f"batch {first // 8} of epoch 0" in caught.value.__notes__[0]


def test_a_damaged_block_can_be_skipped(numbered: Path) -> None:
    """The same records stand in on every rank, with every order, every number of threads and every choice of fields."""
    with hs.open(numbered) as seq:
        block = seq._source.block_records
        bad = damage(numbered, 2, seq)
    stand_ins = {record: record + block for record in bad}
    with hs.open(numbered) as file:
        for threads in (0, 2):
            for seq in (file, file.shuffled(1), file.shuffled(1, by="batch"), file.fields("outputs").shuffled(2)):
                loader = hs.Loader(seq, threads=threads, on_corrupt="skip_block", buffers="view")
                with pytest.warns(RuntimeWarning, match="block 2"):
                    found = flat(loader)
                assert found == [stand_ins.get(record, record) for record in flat(seq_labels(numbered, seq))]
                assert loader.skipped_blocks == 1
            ranks = [hs.Loader(file.shuffled(1).shard(r, 3), on_corrupt="skip_block") for r in range(3)]
            with pytest.warns(RuntimeWarning):
                seen = [int(label) for steps in zip(*ranks, strict=True) for _, y, w in steps for label in y[w > 0]]
            order = flat(seq_labels(numbered, file.shuffled(1)))
            assert seen == [stand_ins.get(record, record) for record in order]
            assert [rank.skipped_blocks for rank in ranks] == [1, 1, 1]


def seq_labels(path: Path, like: hs.HyperSequence):
    """The batches of the same order, unverified: labels are sound in these tests."""
    plain = hs.open(path, verify="never")
    return like._with(source=plain._source)


def test_too_much_damage_is_an_error_all_the_same(numbered: Path) -> None:
    with hs.open(numbered) as seq:
        damage(numbered, 1, seq)
        damage(numbered, 3, seq)
    with hs.open(numbered) as file:
        loader = hs.Loader(file, on_corrupt="skip_block")
        with pytest.warns(RuntimeWarning), pytest.raises(hs.ChecksumError) as caught:
            flat(loader)
        assert any("bears 1 damaged" in note for note in caught.value.__notes__)
    with pytest.raises(hs.ArgumentError, match="verify='never'"):
        hs.Loader(hs.open(numbered, verify="never"), on_corrupt="skip_block")


def test_a_file_that_is_replaced_between_epochs(numbered: Path, tmp_path: Path) -> None:
    """An open file stays what it is; a loader that is opened again by its path refuses another file."""
    loader = hs.Loader(hs.open(numbered).shuffled(1))
    epochs = [labels(loader.sequence.at_epoch(e)) for e in range(2)]
    assert flat(loader) == epochs[0]
    pickled = pickle.dumps(loader)
    with hs.HyperSequenceWriter(numbered, 8) as writer:
        writer.append(np.zeros((3, 5), np.float32), 1)
    assert flat(loader) == epochs[1]
    with pytest.raises(hs.FileChangedError):
        pickle.loads(pickled)


@pytest.mark.parametrize("threads", [0, 2])
def test_a_file_that_is_truncated_or_closed_between_epochs(numbered: Path, threads: int) -> None:
    file = hs.open(numbered)
    loader = hs.Loader(file.shuffled(1), threads=threads)
    assert len(flat(loader)) == N
    os.truncate(numbered, 3000)
    with pytest.raises(hs.FileChangedError):
        flat(loader)
    file.close()
    with pytest.raises(hs.ClosedError):
        flat(loader)


def test_arguments(numbered: Path) -> None:
    with hs.open(numbered) as seq:
        for wrong in (
            {"threads": -1},
            {"threads": 1.5},
            {"prefetch": 0},
            {"epochs": 0},
            {"buffers": "mine"},
            {"on_corrupt": "ignore"},
        ):
            with pytest.raises(hs.ArgumentError, match=next(iter(wrong))):
                hs.Loader(seq, **wrong)
        with pytest.raises(hs.ArgumentError, match="expected a sequence"):
            hs.Loader(str(numbered))
        with pytest.raises(hs.ArgumentError):
            hs.Loader(seq).set_epoch(-1)


def test_a_shard_that_cannot_go_on_short_says_so(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader = hs.Loader(file.rebatch(10))
        for _ in islice(loader, 10):
            pass
        state = loader.state_dict()
        assert state["position"] == 100
        shard = hs.Loader(file.rebatch(10).shard(0, 4, "short"))
        shard.load_state_dict(state)
        with pytest.raises(hs.ArgumentError, match="short"):
            next(iter(shard))


# --- what it tells ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 1])
def test_stats(numbered: Path, threads: int) -> None:
    with hs.open(numbered) as file:
        loader = hs.Loader(file.shuffled(1).map(lambda batch: batch), threads=threads, prefetch=4)
        assert str(loader.stats) == "no batches yet"
        list(loader)
        stats = loader.stats
        assert (stats.batches, stats.records, stats.nbytes) == (13, N, N * 68)
        assert 0 <= stats.waited_s <= stats.elapsed_s
        assert min(stats.first_s, stats.gather_s, stats.map_s) > 0
        assert 0 <= stats.queue_fill <= 1
        assert "13 batches, 103 records" in str(stats)
        assert "epoch 1" in repr(loader)


@pytest.mark.parametrize(
    ("times", "limit"),
    [
        ({"waited_s": 0.1}, "consumer"),
        ({"waited_s": 3, "disk_s": 2}, "disk"),
        ({"waited_s": 3, "disk_s": 1, "gather_s": 2, "map_s": 1}, "gather"),
        ({"waited_s": 3, "disk_s": 1, "gather_s": 1, "map_s": 2}, "map"),
    ],
)
def test_what_holds_training_back(times: dict[str, float], limit: str) -> None:
    stats = hs.LoaderStats(batches=9, records=90, record_nbytes=1 << 20, elapsed_s=10, **times)
    assert stats.limit == limit
    assert f"waited {times['waited_s'] / 10:.1%}" in str(stats) and "90.0 MiB in 10.0 s (9.0 MiB/s)" in str(stats)

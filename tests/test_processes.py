"""Threads, forks, other processes: one handle serves them all, and says so when the file is another."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import hypersequence as hs
from conftest import labels


def read_all(sequence: hs.HyperSequence) -> list[int]:
    return labels(sequence)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("use_mmap", [True, False], ids=["mmap", "pread"])
def test_worker_processes(numbered: Path, method: str, use_mmap: bool) -> None:
    with hs.HyperSequenceFile(numbered, use_mmap=use_mmap) as seq:
        shuffled = seq.shuffled(1, by="record")
        expected = labels(shuffled)
        with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool:
            assert list(pool.map(read_all, [shuffled] * 4)) == [expected] * 4


def test_a_forked_child_reads_through_the_same_handle(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered, use_mmap=False) as seq:
        assert labels(seq.take(3)) == list(range(24))
        child = os.fork()
        if child == 0:
            os._exit(0 if labels(seq) == list(range(103)) else 1)
        assert labels(seq) == list(range(103))
        assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("use_mmap", [True, False], ids=["mmap", "pread"])
def test_many_threads_read_one_sequence(numbered: Path, use_mmap: bool) -> None:
    wrong: list[object] = []
    with hs.HyperSequenceFile(numbered, use_mmap=use_mmap) as seq:
        shuffled = seq.shuffled(1, by="record").rebatch(10)
        expected = labels(shuffled)

        def read(number: int) -> None:
            try:
                for i in range(20):
                    odd = (i + number) % 2
                    assert labels(shuffled if odd else seq) == (expected if odd else list(range(103)))
            except Exception as error:
                wrong.append(error)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize("use_mmap", [True, False], ids=["mmap", "pread"])
def test_closing_while_others_read(tmp_path: Path, numbered: Path, use_mmap: bool) -> None:
    """A reader gets its records or a ClosedError; never another file that was given the same descriptor."""
    other = tmp_path / "other"
    other.write_bytes(b"\xff" * numbered.stat().st_size)
    wrong: list[object] = []

    def read(seq: hs.HyperSequence) -> None:
        try:
            while True:
                labels(seq)
        except hs.ClosedError:
            pass
        except Exception as error:
            wrong.append(error)

    for _ in range(30):
        with hs.HyperSequenceFile(numbered, use_mmap=use_mmap, verify="never") as seq:
            readers = [
                threading.Thread(target=read, args=(seq.rebatch(20).shuffled(i, by="record"),)) for i in range(4)
            ]
            for reader in readers:
                reader.start()
        strangers = [os.open(other, os.O_RDONLY) for _ in range(4)]
        for reader in readers:
            reader.join()
        for stranger in strangers:
            assert os.lseek(stranger, 0, os.SEEK_CUR) == 0
            os.close(stranger)
    assert wrong == []


def test_pickles_are_small_and_open_the_file_again(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        chosen = seq.split(0.8)[0].rebatch(5).shuffled(2).fields("inputs")
        data = pickle.dumps(chosen)
        expected = [batch[0].tolist() for batch in chosen]
    assert len(data) < 3000
    again = pickle.loads(data)
    assert [batch[0].tolist() for batch in again] == expected
    again.close()


def test_relative_paths_survive_a_change_of_folder(
    numbered: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(numbered.parent)
    with hs.HyperSequenceFile(numbered.name) as seq:
        monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
        assert labels(pickle.loads(pickle.dumps(seq))) == list(range(103))


def test_import_stays_light() -> None:
    code = (
        "import sys, hypersequence as hs\n"
        "heavy = {'keras', 'tensorflow', 'torch', 'jax', 'rich', 'typer', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_descriptor_is_left_behind(numbered: Path) -> None:
    def n_descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = n_descriptors()
    for _ in range(20):
        with hs.HyperSequenceFile(numbered) as seq:
            seq[0]
        hs.HyperSequenceFile(numbered)[0]  # never closed
        with pytest.raises(FileNotFoundError):
            hs.HyperSequenceFile(numbered.with_name("missing"))
    assert n_descriptors() == before
    assert np.asarray(hs.HyperSequenceFile(numbered)[0][1]).tolist() == list(range(8))

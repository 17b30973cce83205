"""Converting ahead in threads: in order, no job behind the back of an error, and in bounded memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import hypersequence as hs
from hypersequence.converting import csvtext
from hypersequence.converting.ahead import in_order
from hypersequence.converting.array_reader import ArraysReader
from hypersequence.converting.formats import numpy as numpy_format
from hypersequence.converting.registry import formats
from hypersequence.loader.threads import Task


@pytest.fixture
def pieces(tmp_path: Path) -> Path:
    """Numbers that come in eight pieces."""
    np.save(tmp_path / "x.npy", np.arange(8 << 20).reshape(8, 1 << 20))
    return tmp_path / "x.npy"


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_order_however_long_each_takes(threads: int) -> None:
    def late(number: int) -> int:
        time.sleep(0.03 * (number % 3 == 0))
        return number

    assert list(in_order((partial(late, number) for number in range(10)), threads)) == list(range(10))


def test_records_come_in_order_however_long_each_piece_takes(pieces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = numpy_format._NpyFile.read

    def late(self: Any, start: int, stop: int) -> Any:
        time.sleep(0.1 * (start % 3 == 0))
        return read(self, start, stop)

    monkeypatch.setattr(numpy_format._NpyFile, "read", late)
    hs.convert(pieces, pieces.with_name("x.hsq"), threads=3, batch_size=1)
    with hs.open(pieces.with_name("x.hsq")) as seq:
        assert [record[0]["x"][0] >> 20 for record in seq.records] == list(range(8))


def test_no_job_is_under_way_when_an_error_of_the_writer_is_raised(
    pieces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, close, extend = numpy_format._NpyFile.read, ArraysReader.close, hs.HyperSequenceWriter.extend
    events: list[str] = []

    def late(self: Any, start: int, stop: int) -> Any:
        time.sleep(0.05)
        events.append("read")
        return read(self, start, stop)

    def note(self: Any) -> None:
        events.append("closed")
        close(self)

    def refuse(self: hs.HyperSequenceWriter, *given: Any) -> None:
        if self.n_records == 2:
            raise hs.FileError("the disk is full")
        extend(self, *given)

    monkeypatch.setattr(numpy_format._NpyFile, "read", late)
    monkeypatch.setattr(ArraysReader, "close", note)
    monkeypatch.setattr(hs.HyperSequenceWriter, "extend", refuse)
    with pytest.raises(hs.FileError, match="the disk is full") as caught:
        hs.convert(pieces, pieces.with_name("x.hsq"), threads=3, batch_size=1)
    time.sleep(0.1)
    assert events[-1] == "closed"
    assert not [each for each in threading.enumerate() if each.name == "hsq convert"]
    assert caught.value.__traceback__ is not None  # which refers to all that was at work


def test_an_interruption_waits_for_the_job_that_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = threading.Event(), threading.Event()

    def job() -> None:
        begun.set()
        time.sleep(0.1)
        over.set()

    def interrupted(task: Task) -> None:
        begun.wait()
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(Task, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(in_order([job], 1))
    assert over.is_set()


def grown(code: str, *arguments: Any) -> float:
    """By how many MiB the memory of a process grows, at its peak, beside what imports take."""
    pytest.importorskip("resource")
    program = f"""
import resource, sys
from pathlib import Path
import numpy as np, hypersequence as hs

folder = Path(sys.argv[1])
np.save(folder / "warm.npy", np.zeros(3))
hs.convert(folder / "warm.npy", folder / "warm.hsq", overwrite=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
{code}
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) / (1 << (20 if sys.platform == "darwin" else 10)))
"""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr
    return float(done.stdout)


def test_memory_for_large_records_is_a_few_of_them(tmp_path: Path) -> None:
    """A block of the writer's, two that are read ahead, and one on its way."""
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (12, 64 << 20)).flush()
    code = 'hs.convert(folder / "x.npy", folder / "x.hsq", threads=4)'
    assert grown(code, tmp_path) < 5 * 64


@pytest.mark.parametrize(("shape", "expected"), [((10,), 16), ((1 << 20,), 16), ((5 << 20,), 6), ((64 << 20,), 1)])
def test_large_records_make_small_batches(tmp_path: Path, shape: tuple[int, ...], expected: int) -> None:
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.uint8, (2, *shape)).flush()
    hs.convert(tmp_path / "x.npy", tmp_path / "x.hsq")
    with hs.open(tmp_path / "x.hsq") as seq:
        assert seq.batch_size() == expected
    with pytest.raises(hs.ArgumentError):
        hs.convert(tmp_path / "x.npy", tmp_path / "y.hsq", batch_size=0)


def test_memory_does_not_grow_with_the_number_of_records(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((400_000, 64), np.float64))  # 195 MiB
    assert grown('hs.convert(folder / "x.npy", folder / "x.hsq", threads=2)', tmp_path) < 100


def test_images_of_many_pixels_are_not_all_decoded_at_once(tmp_path: Path) -> None:
    """Pillow takes 95 MiB for one, which is nothing when it is resized."""
    (tmp_path / "in").mkdir()
    for number in range(8):
        Image.new("RGB", (5000, 5000), (number, 2, 3)).save(tmp_path / "in" / f"{number}.png", compress_level=1)
    one_a_piece = "from hypersequence.converting import importing; importing.PIECE_NBYTES = 8 * 8 * 3 * 8"
    assert grown(f'{one_a_piece}\nhs.convert(folder / "in", folder / "x.hsq", threads=4, size=8)', tmp_path) < 300


def test_what_is_known_of_a_block_of_csv_does_not_grow_with_its_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csvtext, "BLOCK_NBYTES", 1000)
    (tmp_path / "x.csv").write_text((",".join(["7"] * 400) + "\n") * 300)
    format = formats()["csv"]
    for _ in range(2):  # the first time imports what it works with
        with format.opens([tmp_path / "x.csv"], format.parse({"header": "no"})) as reader:
            tracemalloc.start()
            reader.choose(list(reader.fields))
            held, _ = tracemalloc.get_traced_memory()
            tracemalloc.stop()
    assert reader.n_records == 300
    assert held < 1_000_000  # a table of 400 columns for each of 300 blocks takes 5 MB

"""write(): every kind of source, with and without worker processes, and whatever may interrupt it."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from hypersequence import write
from hypersequence.converting import workers as workers_module
from hypersequence.converting.maker import Made

N = 300


class Trouble(Exception):
    """Cannot be made again from its arguments, as many people's exceptions."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"{why} {number}")


class Unclear(ValueError):
    """A plain one."""


def make(number: Any) -> tuple[np.ndarray, int]:
    return np.full((2, 3), number, np.float32), int(number)


def expect(path: Path, n: int = N) -> None:
    """What make() makes of the first n numbers."""
    with hs.open(path) as seq:
        inputs, outputs = seq.records[:]
    assert outputs.tolist() == list(range(n))
    np.testing.assert_array_equal(inputs, np.stack([make(i)[0] for i in range(n)]))


def temporary(pid: int) -> list[Path]:
    """What the workers of a process have left."""
    return list(Path(tempfile.gettempdir()).glob(f"hypersequence-{pid}-*"))


class Numbers:
    """A data set with length and items, whose item ``broken`` raises."""

    def __init__(self, n: int = N, broken: int = -1) -> None:
        self.n, self.broken = n, broken

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        if number == self.broken:
            raise Unclear(f"number {number} is broken")
        return make(number)


def generator(first: int = 0, n: int = N, broken: int = -1) -> Iterator[Any]:
    for number in range(first, n):
        if number == broken:
            raise Unclear(f"number {number} is broken")
        yield make(number)


class Iterable:
    def __init__(self, broken: int = -1) -> None:
        self.broken = broken

    def __iter__(self) -> Iterator[Any]:
        return generator(broken=self.broken)


# --- what a record is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "roles"),
    [
        (np.arange(3), ["inputs"]),
        (7, ["inputs"]),
        ((np.arange(3),), ["inputs"]),
        ((np.arange(3), 1.5), ["inputs", "outputs"]),
        ((np.arange(3), 1.5, 2.5), ["inputs", "outputs", "sample_weights"]),
        ((np.arange(3), None, 2.5), ["inputs", "sample_weights"]),
        (((np.arange(3), 1), 2), ["inputs", "inputs", "outputs"]),
        ({"a": 1, "b": "text"}, ["inputs", "inputs"]),
        (({"a": 1}, {"b": True}), ["inputs", "outputs"]),
    ],
)
def test_a_record_is_what_append_takes(tmp_path: Path, record: Any, roles: list[str]) -> None:
    done = write(tmp_path / "a.hsq", [record] * 5)
    assert (done.path, done.n_records, done.format) == (str(tmp_path / "a.hsq"), 5, "records")
    with hs.HyperSequenceWriter(tmp_path / "b.hsq") as writer:
        for _ in range(5):
            writer.append(*(record if isinstance(record, tuple) else (record,)))
    with hs.open(tmp_path / "a.hsq") as ours, hs.open(tmp_path / "b.hsq") as theirs:
        assert ours.schema == theirs.schema
        assert [column.role for column in ours.columns] == roles
        np.testing.assert_equal(ours.records[:], theirs.records[:])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("length", [0, 4])
def test_a_tuple_of_another_length_is_no_record(tmp_path: Path, length: int, workers: int) -> None:
    records = [(1, 2)] * 7 + [(1,) * length]
    with pytest.raises(hs.RecordError, match=rf"record 7: a record is .* not a tuple of {length}; .*\(\(a, b\), out"):
        write(tmp_path / "a.hsq", records, fn=same, workers=workers)


def same(item: Any) -> Any:
    return item


# --- sources ---------------------------------------------------------------------------------------------------------


def test_lists_arrays_generators_functions_and_sequences(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    for source in (
        [make(i) for i in range(N)],
        tuple(make(i) for i in range(N)),
        Numbers(),
        generator(),
        Iterable(),
        generator_from,
        lambda first: generator(first),
    ):
        assert write(path, source, overwrite=True, batch_size=7).n_records == N
        expect(path)
    with hs.open(path) as seq:
        assert seq.batch_size() == 7
        write(tmp_path / "b.hsq", seq.shuffled(1, by="record").records)
        with hs.open(tmp_path / "b.hsq") as shuffled:
            np.testing.assert_equal(shuffled.records[:], seq.shuffled(1, by="record").records[:])
    rows = np.arange(30, dtype=np.int16).reshape(10, 3)
    write(tmp_path / "c.hsq", rows)
    with hs.open(tmp_path / "c.hsq") as seq:
        np.testing.assert_array_equal(seq.records[:][0], rows)


def generator_from(first: int) -> Iterator[Any]:
    return generator(first)


def test_fn_makes_records_of_items(tmp_path: Path) -> None:
    write(tmp_path / "a.hsq", range(N), fn=make)
    expect(tmp_path / "a.hsq")


@pytest.mark.parametrize("workers", [0, 1])
def test_progress_changes_nothing(tmp_path: Path, workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "a.hsq", range(N), fn=unhurried, workers=workers, progress=True)
    expect(tmp_path / "a.hsq")
    assert capfd.readouterr() == ("", "")


def unhurried(number: int) -> Any:
    time.sleep(0.005)
    return make(number)


def test_data_sets_of_pytorch(tmp_path: Path) -> None:
    import torch
    from torch.utils.data import IterableDataset, Subset, TensorDataset

    images, labels = torch.arange(60.0).reshape(10, 2, 3), torch.arange(10)
    data = TensorDataset(images, labels)

    class Stream(IterableDataset):
        def __len__(self) -> int:  # has an indexing too, which raises
            return 10

        def __iter__(self) -> Iterator[Any]:
            return iter(zip(images, labels, strict=True))

    for source in (data, Stream()):
        write(tmp_path / "a.hsq", source, overwrite=True)
        with hs.open(tmp_path / "a.hsq") as seq:
            inputs, outputs = seq.records[:]
        assert (inputs.dtype, outputs.dtype) == (np.float32, np.int64)
        np.testing.assert_array_equal(inputs, images.numpy())
        np.testing.assert_array_equal(outputs, labels.numpy())
    write(tmp_path / "b.hsq", Subset(data, [3, 1]))
    with hs.open(tmp_path / "b.hsq") as seq:
        assert seq.records[:][1].tolist() == [3, 1]


def test_data_sets_of_tensorflow(tmp_path: Path) -> None:
    import tensorflow as tf

    images, labels = np.arange(60, dtype=np.float32).reshape(10, 2, 3), np.arange(10)
    for data in (
        tf.data.Dataset.from_tensor_slices((images, labels)),
        tf.data.Dataset.from_tensor_slices((images, labels)).filter(lambda image, label: True),  # of unknown length
    ):
        write(tmp_path / "a.hsq", data, overwrite=True)
        with hs.open(tmp_path / "a.hsq") as seq:
            np.testing.assert_equal(seq.records[:], (images, labels))
    broken = data.map(
        lambda image, label: (tf.debugging.check_numerics(image / tf.cast(5 - label, tf.float32), ""), label)
    )
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        write(tmp_path / "a.hsq", broken, overwrite=True)
    assert "at record 5" in caught.value.__notes__
    whole = data.map(lambda image, label: (image / tf.cast(5.5 - tf.cast(label, tf.float32), tf.float32), label))
    with pytest.raises(hs.SourceError, match="record 4 of the source is not the one"):
        write(tmp_path / "a.hsq", whole, overwrite=True, resume=True)
    mended = data.map(lambda image, label: (tf.math.divide_no_nan(image, tf.cast(5 - label, tf.float32)), label))
    write(tmp_path / "a.hsq", mended, overwrite=True, resume=True)
    with hs.open(tmp_path / "a.hsq") as seq:
        inputs, outputs = seq.records[:]
    np.testing.assert_array_equal(inputs, np.stack([image for image, _ in mended.as_numpy_iterator()]))
    assert outputs.tolist() == list(range(10))


def test_data_sets_of_hugging_face(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_dict({"x": [[1.5, 2.5], [3.5, 4.5]], "label": [0, 1]}).with_format("numpy")
    for source in (data, data.to_iterable_dataset()):
        write(tmp_path / "a.hsq", source, overwrite=True)
        with hs.open(tmp_path / "a.hsq") as seq:
            (inputs,) = seq.records[:]
        assert inputs["label"].tolist() == [0, 1]
        assert inputs["x"].tolist() == [[1.5, 2.5], [3.5, 4.5]]


NO_SOURCES: list[Any] = [
    *("train.npy", b"bytes", Path("x"), {"a": np.zeros(3)}, 7, None, lambda: [1, 2], np.array(3), np.float64(3))
]


@pytest.mark.parametrize("source", NO_SOURCES)
def test_what_is_no_source_is_refused(tmp_path: Path, source: Any) -> None:
    with pytest.raises(hs.ArgumentError):
        write(tmp_path / "a.hsq", source)
    assert list(tmp_path.iterdir()) == []


def test_batches_and_columns_are_not_taken_for_records(tmp_path: Path, numbered: Path) -> None:
    import pandas
    import pyarrow

    with (
        hs.open(numbered) as seq,
        pytest.raises(hs.ArgumentError, match=r"gives batches, .* its \.records, .* save\(\)"),
    ):
        write(tmp_path / "a.hsq", seq)
    table = pandas.DataFrame({"x": [1, 2], "y": [1.5, 2.5]}, index=[7, 9])
    for columns in (table, pyarrow.table(table)):
        with pytest.raises(hs.ArgumentError, match=r"gives columns, .* a dict of its columns"):
            write(tmp_path / "a.hsq", columns)
    assert not (tmp_path / "a.hsq").exists()
    write(tmp_path / "a.hsq", table["y"])  # whose numbers are labels
    with hs.open(tmp_path / "a.hsq") as seq:
        assert seq.records[:][0].tolist() == [1.5, 2.5]


def test_no_records_need_a_schema(tmp_path: Path) -> None:
    with pytest.raises(hs.RecordError, match="schema="):
        write(tmp_path / "a.hsq", [])
    assert write(tmp_path / "a.hsq", [], schema=hs.Schema("int64")).n_records == 0
    assert write(tmp_path / "b.hsq", Numbers(0), workers=1, schema=hs.Schema("int64")).n_records == 0


def test_a_target_that_exists_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    write(tmp_path / "a.hsq", [1, 2])
    with pytest.raises(hs.FileError, match="exists"):
        write(tmp_path / "a.hsq", [3])
    write(tmp_path / "a.hsq", [3], overwrite=True)
    with hs.open(tmp_path / "a.hsq") as seq:
        assert seq.n_records == 1


# --- worker processes ------------------------------------------------------------------------------------------------


class WhoMadeIt(Numbers):
    def __getitem__(self, number: int) -> tuple[int, int]:
        time.sleep(0.002)
        return number, os.getpid()


def test_the_items_of_a_data_set_are_made_in_the_workers(tmp_path: Path) -> None:
    write(tmp_path / "a.hsq", WhoMadeIt(), workers=2)
    with hs.open(tmp_path / "a.hsq") as seq:
        numbers, makers = seq.records[:]
    assert numbers.tolist() == list(range(N))
    assert len(set(makers.tolist())) == 2
    assert os.getpid() not in makers
    assert all(not Path(f"/proc/{maker}").exists() for maker in set(makers.tolist()))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("source", ["list", "data set", "generator", "function"])
def test_workers_change_nothing(tmp_path: Path, source: str) -> None:
    given: Any = {
        "list": list(range(N)),
        "data set": np.arange(N),
        "generator": iter(range(N)),
        "function": lambda first: range(first, N),
    }[source]
    write(tmp_path / "a.hsq", given, fn=make, workers=2)
    expect(tmp_path / "a.hsq")
    assert not temporary(os.getpid())


def exact(number: int) -> Any:
    """Values that append() converts, of the second and later records."""
    array = {"small": np.uint8(3), "text": np.asarray("long text"), "weights": np.float32(0.5)}
    return array if number == 0 else {"small": 255, "text": "text", "weights": -0.25}


@pytest.mark.parametrize("workers", [0, 2])
def test_values_are_converted_as_append_does_it(tmp_path: Path, workers: int) -> None:
    write(tmp_path / "a.hsq", range(5), fn=exact, workers=workers)
    with hs.open(tmp_path / "a.hsq") as seq:
        (inputs,) = seq.records[:]
    assert inputs["small"].tolist() == [3] + [255] * 4
    assert inputs["text"].tolist() == ["long text"] + ["text"] * 4
    assert inputs["weights"].tolist() == [0.5] + [-0.25] * 4
    schema = hs.Schema(("uint8", hs.Field("float32", (2, 3))))
    write(tmp_path / "b.hsq", range(200), fn=swapped, workers=workers, schema=schema)
    with hs.open(tmp_path / "b.hsq") as seq:
        assert seq.schema == schema
        assert seq.records[:][0][0].tolist() == list(range(200))


def swapped(number: int) -> Any:
    array, label = make(number)
    return ((label, array),)


def test_a_data_set_of_pytorch_in_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(
        "import torch\n"
        "class Squares(torch.utils.data.Dataset):\n"
        "    def __len__(self):\n"
        "        return 50\n"
        "    def __getitem__(self, i):\n"
        "        return torch.full((2, 2), float(i)), i * i\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from my_data import Squares  # pyright: ignore[reportMissingImports]

    write(tmp_path / "a.hsq", Squares(), workers=2)
    with hs.open(tmp_path / "a.hsq") as seq:
        inputs, outputs = seq.records[:]
    assert outputs.tolist() == [i * i for i in range(50)]
    np.testing.assert_array_equal(inputs, np.arange(50, dtype=np.float32)[:, None, None] * np.ones((2, 2), np.float32))


def large(number: int) -> np.ndarray:
    return np.full(1 << 21, number % 256, np.uint8)


def test_records_larger_than_a_chunk(tmp_path: Path) -> None:
    write(tmp_path / "a.hsq", range(12), fn=large, workers=2)
    with hs.open(tmp_path / "a.hsq") as seq:
        for number in range(12):
            (record,) = seq.records[number]
            assert (record == number).all()


def nothing(number: int) -> Any:
    return {"nothing": np.zeros((0, 3)), "empty": b"", "number": number}


def test_fields_of_no_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a.hsq", range(N), fn=nothing, workers=1)
    with hs.open(tmp_path / "a.hsq") as seq:
        (inputs,) = seq.records[:]
    assert inputs["number"].tolist() == list(range(N))
    assert inputs["nothing"].shape == (N, 0, 3)
    assert inputs["empty"].tolist() == [b""] * N


def test_text_of_no_width(tmp_path: Path) -> None:
    """NumPy's own functions make it a byte wide."""
    schema = hs.Schema({"nothing": hs.Field("float64", (0, 3)), "empty": "S0", "number": "int64"})
    for workers in (0, 1):
        write(tmp_path / f"{workers}.hsq", range(N), fn=nothing, workers=workers, schema=schema)
        with hs.open(tmp_path / f"{workers}.hsq") as seq:
            assert seq.records[:][0]["number"].tolist() == list(range(N))


def random(number: int) -> float:
    time.sleep(0.002)
    return float(np.random.random())  # noqa: NPY002 - what many people use


def test_workers_draw_different_random_numbers(tmp_path: Path) -> None:
    write(tmp_path / "a.hsq", range(200), fn=random, workers=2)
    with hs.open(tmp_path / "a.hsq") as seq:
        assert len(set(seq.records[:][0].tolist())) == 200


def test_what_cannot_be_sent_to_workers_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(hs.ArgumentError, match=r"fn=<function .*<lambda> .*cannot be sent to .* top of a module"):
        write(tmp_path / "a.hsq", range(3), fn=lambda i: i, workers=2)
    numbers: Any = Numbers()
    numbers.lock = threading.Lock()
    with pytest.raises(hs.ArgumentError, match=r"the data set \(Numbers\) cannot be sent"):
        write(tmp_path / "a.hsq", numbers, workers=2)
    with pytest.raises(hs.ArgumentError, match="an item from 0 on cannot be sent"):
        write(tmp_path / "a.hsq", [threading.Lock()], fn=same, workers=2)
    with pytest.raises(hs.ArgumentError, match="workers have nothing to do"):
        write(tmp_path / "a.hsq", generator(), workers=2)
    with pytest.raises(hs.ArgumentError, match="0 or more"):
        write(tmp_path / "a.hsq", [1], workers=-1)
    assert list(tmp_path.iterdir()) == []
    assert not temporary(os.getpid())


def run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments, script], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_function_of_a_prompt_and_a_script_without_main_guard_are_told_why(tmp_path: Path) -> None:
    script = "from hypersequence import write\ndef fn(i):\n    return i\nwrite('a.hsq', range(9), fn=fn, workers=2)\n"
    at_prompt = run(script, tmp_path, "-c")
    assert at_prompt.returncode == 1
    assert "ArgumentError: a worker process cannot load fn" in at_prompt.stderr
    (tmp_path / "script.py").write_text(script)
    unguarded = run("script.py", tmp_path)
    assert unguarded.returncode == 1
    assert 'put the call of write() under `if __name__ == "__main__":`' in unguarded.stderr
    assert "HyperSequenceError: a worker process ended" in unguarded.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["script.py"]
    (tmp_path / "script.py").write_text(script.replace("write(", "if __name__ == '__main__':\n    write("))
    guarded = run("script.py", tmp_path)
    assert (guarded.returncode, guarded.stderr) == (0, "")
    with hs.open(tmp_path / "a.hsq") as seq:
        assert seq.n_records == 9


# --- what goes wrong, and going on -----------------------------------------------------------------------------------


def breaking(number: Any) -> Any:
    if number == 123:
        raise Unclear(f"number {number} is broken")
    return make(number)


KINDS: dict[str, tuple[Callable[[int], Any], Any]] = {
    "list": (lambda broken: list(range(N)), breaking),
    "data set": (lambda broken: Numbers(broken=broken), None),
    "iterable": (lambda broken: Iterable(broken), same),
    "generator": (lambda broken: generator(broken=broken), same),
    "function": (lambda broken: lambda first: generator(first, broken=broken), same),
}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_comes_through_with_its_record_and_writing_goes_on(
    tmp_path: Path, kind: str, workers: int
) -> None:
    path = tmp_path / "a.hsq"
    source, fn = KINDS[kind]
    with pytest.raises(Unclear, match="number 123 is broken") as caught:
        write(path, source(123), fn=fn, workers=workers)
    assert "at record 123" in caught.value.__notes__
    assert any("the first 123 of the records" in note for note in caught.value.__notes__)
    assert not path.exists()
    mended = make if fn is breaking else fn
    assert write(path, source(-1), fn=mended, workers=workers, resume=True).n_records == N
    expect(path)
    assert [each.name for each in tmp_path.iterdir()] == ["a.hsq"]


def troubled(number: int) -> Any:
    if number == 5:
        raise Trouble(number, "trouble at")
    return make(number)


def test_exceptions_of_workers_say_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(Unclear) as caught:
        write(tmp_path / "a.hsq", range(N), fn=breaking, workers=1)
    assert any("in a worker process" in note and "in breaking" in note for note in caught.value.__notes__)
    with pytest.raises(RuntimeError, match="Trouble: trouble at 5") as caught:
        write(tmp_path / "b.hsq", range(N), fn=troubled, workers=1)
    assert "at record 5" in caught.value.__notes__


def misshapen(number: int) -> Any:
    return np.zeros((2, 4), np.float32) if number == 234 else np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_record_of_another_shape_is_named_by_number(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "a.hsq"
    with pytest.raises(hs.RecordError, match=r"^record 234: inputs: expected shape \(2, 3\), got \(2, 4\)") as caught:
        write(path, range(N), fn=misshapen, workers=workers)
    assert any("the first 234 of the records" in note for note in caught.value.__notes__)
    with pytest.raises(hs.RecordError, match=r"^record 1,234: inputs: expected"):
        write(tmp_path / "b.hsq", (np.zeros(2 if i == 1234 else 3) for i in range(2000)))


@pytest.mark.parametrize("workers", [0, 1])
def test_another_source_is_noticed(tmp_path: Path, workers: int) -> None:
    path = tmp_path / "a.hsq"
    with pytest.raises(Unclear):
        write(path, range(N), fn=breaking)
    for other in (
        [i + 1 for i in range(N)],  # other values
        range(50),  # too short
        [],
    ):
        with pytest.raises(hs.SourceError, match=r"record 122 .*another source"):
            write(path, other, fn=make, workers=workers, resume=True)
    with pytest.raises(TypeError) as caught:
        write(path, range(N), fn=len, workers=workers, resume=True)
    assert "at record 122" in caught.value.__notes__
    for fn in (float, np.zeros, {}.get):
        with pytest.raises(hs.SourceError, match=r"record 122 .*another source"):
            write(path, range(N), fn=fn, workers=workers, resume=True)
    with pytest.raises(hs.SourceError, match="has other fields"):
        write(path, range(N), fn=make, schema=hs.Schema("int64"), workers=workers, resume=True)
    write(path, range(N), fn=make, workers=workers, resume=True)
    expect(path)


def ending(number: int) -> Any:
    """What somebody means for the end of something else, and forgets."""
    return make(number) if number != 123 else next(iter([]))


class Ending(Numbers):
    def __getitem__(self, number: int) -> tuple[np.ndarray, int]:
        return ending(number)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("progress", [False, True])
@pytest.mark.parametrize(("source", "fn"), [(range(N), ending), (Ending(), None), (Ending(), same)])
def test_the_end_of_something_else_is_not_the_end_of_the_records(
    tmp_path: Path, workers: int, progress: bool, source: Any, fn: Any
) -> None:
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        write(tmp_path / "a.hsq", source, fn=fn, workers=workers, progress=progress)
    assert "at record 123" in caught.value.__notes__
    assert not (tmp_path / "a.hsq").exists()


def test_a_list_that_becomes_shorter_is_noticed(tmp_path: Path) -> None:
    numbers = list(range(100))
    with pytest.raises(hs.SourceError, match=r"a\.hsq: 50 records came of a list of 100, which became shorter"):
        write(tmp_path / "a.hsq", numbers, fn=lambda number: (numbers.pop(), number)[1])
    assert not (tmp_path / "a.hsq").exists()


class Estimate(Iterable):
    """Says of its length what it thinks."""

    def __len__(self) -> int:
        return 2 * N


def test_the_length_of_what_is_only_iterated_over_may_be_an_estimate(tmp_path: Path) -> None:
    assert write(tmp_path / "a.hsq", Estimate()).n_records == N


def test_a_worker_that_makes_too_few_records_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = workers_module.Workers._run

    def shortened(self: Any, chunk: Any) -> Any:
        done = run(self, chunk)
        if chunk.first > 5:
            (self._folder / f"{chunk.slot}.made").write_bytes(pickle.dumps(Made()))
        return done

    monkeypatch.setattr(workers_module.Workers, "_run", shortened)
    with pytest.raises(hs.HyperSequenceError, match=r"a worker made 0 records of the \d+ items from \d+ on"):
        write(tmp_path / "a.hsq", range(N), fn=make, workers=1)
    assert not (tmp_path / "a.hsq").exists()


def test_an_iterable_is_not_made_into_records_again(tmp_path: Path) -> None:
    made: list[int] = []

    def fn(number: int) -> Any:
        made.append(number)
        return breaking(number) if len(made) < 200 else make(number)

    with pytest.raises(Unclear):
        write(tmp_path / "a.hsq", iter(range(N)), fn=fn)
    made[:] = [0] * 200
    write(tmp_path / "a.hsq", iter(range(N)), fn=fn, resume=True)
    assert made[200:] == list(range(122, N))
    expect(tmp_path / "a.hsq")


def suicidal(number: int) -> Any:
    if number == 123:
        os.kill(os.getpid(), signal.SIGKILL)
    return make(number)


def test_a_killed_worker_is_an_error_and_writing_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    with pytest.raises(hs.HyperSequenceError, match=r"a worker process ended while the records .* killed") as caught:
        write(path, range(N), fn=suicidal, workers=2)
    assert any("of the records appended are in" in note for note in caught.value.__notes__)
    assert not multiprocessing.active_children()
    assert write(path, range(N), fn=make, workers=2, resume=True).n_records == N
    expect(path)


def test_workers_that_are_killed_at_any_moment_hang_nobody(tmp_path: Path) -> None:
    choice = np.random.default_rng(1)

    def kill_one() -> None:
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        time.sleep(0.6 + choice.random() / 2)
        children[0].kill()

    for attempt in range(4):
        killer = threading.Thread(target=kill_one)
        killer.start()
        with pytest.raises(hs.HyperSequenceError, match="a worker process ended"):
            write(tmp_path / f"{attempt}.hsq", (i % 9 for i in range(10**6)), fn=large, workers=2)
        killer.join()
        for part in tmp_path.glob("*.part"):
            part.unlink()
    assert not multiprocessing.active_children()
    assert not temporary(os.getpid())


SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from hypersequence import write

def fn(number):
    Path(f"pid{os.getpid()}").touch()
    if number == 60:
        Path("ready").touch()
    time.sleep(1000 if number >= 60 and "hang" in sys.argv else 0.005)
    return np.full((2, 3), number, np.float32), number

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs tests in the background ignores it
    write("a.hsq", range(5000), fn=fn, workers=2)
"""


def interrupt(folder: Path, how: str, *arguments: str) -> tuple[int, str]:
    """Run the script until it is well under way, and end it; gives its exit code and what it said."""
    (folder / "script.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, "script.py", *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until = time.monotonic() + 60
    while not (folder / "ready").exists() or len(list(folder.glob("pid*"))) < 2:  # one may be late
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    if how == "terminal":  # sends it to everybody
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGKILL if how == "kill -9" else signal.SIGINT)
    _, said = process.communicate(timeout=20)
    workers = [int(path.name[3:]) for path in folder.glob("pid*")]
    assert len(workers) == 2
    until = time.monotonic() + 10
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not temporary(process.pid)
    return process.returncode, said


@pytest.mark.parametrize("arguments", [[], ["hang"]])
@pytest.mark.parametrize("how", ["kill -2", "terminal"])
def test_ctrl_c_ends_the_workers_and_writing_goes_on(tmp_path: Path, how: str, arguments: list[str]) -> None:
    code, said = interrupt(tmp_path, how, *arguments)
    assert code == -signal.SIGINT
    assert said.count("KeyboardInterrupt\n") == 1  # the workers are silent
    (part,) = tmp_path.glob("*.part")
    assert part.name in said
    write(tmp_path / "a.hsq", range(5000), fn=make, resume=True)
    expect(tmp_path / "a.hsq", 5000)


def test_workers_end_when_the_one_they_work_for_is_killed(tmp_path: Path) -> None:
    code, said = interrupt(tmp_path, "kill -9", "hang")
    assert code == -signal.SIGKILL
    assert "Traceback" not in said


def test_chunks_are_no_larger_than_their_items_allow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of some bytes may be made of items of a megabyte each."""
    store, sizes = workers_module._store, list[int]()

    def noted(path: Path, *what: Any) -> int:
        nbytes = store(path, *what)
        if path.suffix == ".items":
            sizes.append(nbytes)
        return nbytes

    monkeypatch.setattr(workers_module, "_store", noted)
    assert write(tmp_path / "a.hsq", (bytes(1 << 20) for _ in range(120)), fn=len, workers=1).n_records == 120
    assert max(sizes) < 10 << 20

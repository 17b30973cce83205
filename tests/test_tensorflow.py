"""TensorFlow: a dataset whose every iteration is the next epoch of the sequence."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hypersequence as hs
from hypersequence.elements import dtype_from_name

N = 103
NUMBERS = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "bfloat16"),
    *(f"float8_{kind}" for kind in ("e4m3fn", "e4m3b11fnuz", "e4m3fnuz", "e5m2fnuz")),
]
FOREIGN = {
    "datetime64[D]": np.datetime64("2020-01-01"),
    "timedelta64[s]": np.timedelta64(3, "s"),
    **{f"float8_{kind}": np.zeros(2, dtype_from_name(f"float8_{kind}")) for kind in ("e3m4", "e4m3", "e8m0fnu")},
}


def hsq_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hsq")]


def no_thread_is_left(seconds: float = 20) -> bool:
    """Whether the threads go; TensorFlow drops an iterator in its own time."""
    end = time.monotonic() + seconds
    while hsq_threads() and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    return not hsq_threads()


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert no_thread_is_left()


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """400 records of 16 KiB whose values are their number."""
    path = tmp_path / "wide.hsq"
    with hs.HyperSequenceWriter(path, 10, block_nbytes=1 << 20) as writer:
        for i in range(400):
            writer.append(np.full(4096, i, np.float32), i)
    return path


def same(batch: Any, other: Any) -> bool:
    """Whether a batch of tensors and one of arrays have one structure, the same types, and the same bits."""
    if isinstance(other, tuple):
        return type(batch) is tuple and len(batch) == len(other) and all(map(same, batch, other))
    if isinstance(other, dict):
        return type(batch) is dict and list(batch) == list(other) and all(same(batch[k], other[k]) for k in other)
    assert isinstance(batch, tf.Tensor)
    array = batch.numpy()
    return (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())


def all_same(batches: Any, others: Any) -> bool:
    return all(same(batch, other) for batch, other in zip(batches, others, strict=True))


def flat(batches: Any) -> list[int]:
    return [int(label) for batch in batches for label in np.asarray(batch[1])]


def fits(spec: Any, batch: Any) -> bool:
    """Whether batches are what the dataset says of them."""
    tf.nest.assert_same_structure(spec, batch)
    return all(
        one.dtype == other.dtype and one.shape.is_compatible_with(other.shape)
        for one, other in zip(tf.nest.flatten(spec), tf.nest.flatten(batch), strict=True)
    )


def run(code: str, *args: Any, **environment: str) -> None:
    """Runs code with a process, and settings, of its own."""
    env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", **environment}
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(code) + "\nprint('done')\n"
    command = [sys.executable, "-c", code, *map(str, args)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith("done\n")
    assert "Exception ignored" not in done.stderr and "hsq" not in done.stderr, done.stderr[-4000:]


PRELUDE = """
import sys
import numpy as np
import hypersequence as hs
"""


# --- the same records in the same order ------------------------------------------------------------------------------

CHAINS = {
    "file order": lambda seq: seq,
    "window": lambda seq: seq.shuffled(1, window=3000),
    "record, odd batches": lambda seq: seq.shuffled(1, by="record").rebatch(7),
    "batch": lambda seq: seq.shuffled(1, by="batch"),
    "drop_last": lambda seq: seq.shuffled(1).rebatch(10, drop_last=True),
    "pad": lambda seq: seq.shuffled(2).shard(1, 3),
    "short": lambda seq: seq.shuffled(2, window=3000).shard(2, 3, "short"),
    "map": lambda seq: seq.shuffled(3).map(lambda batch, rng: (batch[0] + rng.random(), batch[1])),
    "concat": lambda seq: hs.concat([seq.shuffled(1).take(3), seq]),
    "inputs": lambda seq: seq.shuffled(4).fields("inputs"),
    "one record a batch": lambda seq: seq.shuffled(5).rebatch(1),
    "one batch": lambda seq: seq.shuffled(5).rebatch(1000),
    "as large as the data": lambda seq: seq.shuffled(5).rebatch(N),
    "from epoch 5": lambda seq: seq.shuffled(5, epoch=5),
    "nothing": lambda seq: seq.take(0),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_every_iteration_is_the_next_epoch(numbered: Path, chain: str) -> None:
    with hs.open(numbered) as file:
        seq = CHAINS[chain](file)
        for options in ({}, {"threads": 0} if len(chain) % 2 else {"threads": 2, "prefetch": 2}):
            dataset = seq.as_tf_dataset(**options)
            assert isinstance(dataset, tf.data.Dataset)
            assert len(dataset) == int(dataset.cardinality()) == len(seq)
            for epoch in range(seq.epoch, seq.epoch + 3):
                batches = list(dataset)
                assert all_same(batches, seq.at_epoch(epoch))
                assert all(fits(dataset.element_spec, batch) for batch in batches)


def test_repeat_goes_through_the_epochs(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1).rebatch(7)
        stream = [batch for epoch in range(5) for batch in seq.at_epoch(epoch)]
        dataset = seq.as_tf_dataset()
        assert all_same(dataset.repeat(2), stream[: 2 * len(seq)])
        endless = dataset.repeat().take(3 * len(seq))
        assert all_same(endless, stream[2 * len(seq) :])


def test_a_shuffle_in_place_later_changes_nothing(numbered: Path) -> None:
    with hs.open(numbered) as file:
        dataset = file.as_tf_dataset()
        file.shuffle(seed=3)
        assert flat(dataset) == list(range(N))


def write_structures(folder: Path) -> list[Path]:
    x, y, w = np.arange(4, dtype=np.float32), np.int32(1), np.float32(0.5)
    records = {
        "inputs": (x,),
        "tuple": ((x, x + 1), y),
        "dicts": ({"b": x, "a": y}, {"z": y, "c": x}),
        "weights": (x, y, w),
        "weights by name": (x, {"p": y, "q": y}, {"p": w, "q": w}),
        "empty record": (np.zeros((2, 0), np.float32), y),
        "deep": (np.zeros((1,) * 6, np.float16), y),
        "text": ({"t": np.str_("x"), "a": y}, y),
    }
    for name, record in records.items():
        with hs.HyperSequenceWriter(folder / f"{name}.hsq", 3, block_nbytes=100) as writer:
            for i in range(10):
                writer.append(*(tf.nest.map_structure(lambda a, i=i: a if a.dtype.kind == "U" else a + i, record)))
    return [folder / f"{name}.hsq" for name in records]


def test_every_structure_arrives_as_it_is(tmp_path: Path) -> None:
    for path in write_structures(tmp_path):
        with hs.open(path) as file:
            padded = file.rebatch(4).shard(1, 2, "pad" if file.no_outputs() else "short")
            for seq in (file, file.rebatch(2).shuffled(1), padded, file.fields("inputs")):
                dataset = seq.as_tf_dataset()
                if path.stem == "text":
                    for (x, *_), (plain, *_) in zip(dataset, seq, strict=True):
                        assert list(x) == list(plain)
                        assert [t.decode() for t in x["t"].numpy()] == plain["t"].tolist()
                    continue
                assert all_same(dataset, seq)


def spec(shape: Any, dtype: Any) -> tf.TensorSpec:
    return tf.TensorSpec(shape, dtype)


def test_the_element_spec_is_exact(numbered: Path, tmp_path: Path) -> None:
    f4, i8 = tf.float32, tf.int64
    with hs.open(numbered) as file:
        short, whole = file.rebatch(8), file.rebatch(8, drop_last=True)
        for seq, n in (
            (short, None),
            (whole, 8),
            (file.rebatch(1), 1),
            (file.rebatch(N), N),
            (file.take(12), 8),
            (file.shuffled(1).shard(1, 2, "drop"), 8),
            (file.shuffled(1).shard(1, 2, "short"), None),
            (file.take(0), 8),
        ):
            assert seq.as_tf_dataset().element_spec == (spec((n, 3, 5), f4), spec((n,), i8))
        padded = file.shard(1, 2, "pad").as_tf_dataset()
        assert padded.element_spec == (spec((8, 3, 5), f4), spec((8,), i8), spec((8,), f4))
        assert file.fields("inputs").as_tf_dataset().element_spec == (spec((None, 3, 5), f4),)
        for seq, n in ((short, None), (whole, 8)):
            mapped = seq.map(lambda batch: ({"a": batch[0][:, 0], "b": batch[1]}, batch[1] / 2)).as_tf_dataset()
            expected = {"a": spec((n, 5), f4), "b": spec((n,), i8)}, spec((n,), tf.float64)
            assert mapped.element_spec == expected
    for path in write_structures(tmp_path):
        with hs.open(path) as file:
            dataset = file.as_tf_dataset()
            assert all(fits(dataset.element_spec, batch) for batch in dataset)
            tf.nest.assert_same_structure(dataset.element_spec, file[0])


def test_a_single_batch_that_is_not_full_has_a_length_too(numbered: Path) -> None:
    with hs.open(numbered) as file:
        dataset = file.rebatch(1000).as_tf_dataset()
        assert dataset.element_spec[0].shape == (N, 3, 5)


def test_eagerly_and_inside_a_function(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1).rebatch(7)
        dataset = seq.as_tf_dataset()

        @tf.function
        def total(dataset: tf.data.Dataset) -> tf.Tensor:
            result = tf.constant(0, tf.int64)
            for _, y in dataset:
                result = result * 3 + tf.reduce_sum(y)
            return result

        @tf.function
        def captured() -> tf.Tensor:
            return dataset.reduce(tf.constant(0, tf.int64), lambda old, batch: old * 3 + tf.reduce_sum(batch[1]))

        def expected(epoch: int) -> int:
            result = np.int64(0)
            with np.errstate(over="ignore"):
                for _, y in seq.at_epoch(epoch):
                    result = result * np.int64(3) + y.sum()
            return int(result)

        assert int(total(dataset)) == expected(0)
        assert int(captured()) == expected(1)
        assert int(total(dataset)) == expected(2)
        assert flat(dataset) == flat(seq.at_epoch(3))


# --- types -----------------------------------------------------------------------------------------------------------


def random_bits(name: str) -> np.ndarray:
    """40 records of any values, NaN and subnormal numbers included."""
    dtype, rng = np.dtype(dtype_from_name(name)), np.random.default_rng(0)
    if name == "bool":
        return rng.integers(0, 2, (40, 16)).astype(bool)
    return np.frombuffer(rng.bytes(40 * 16 * dtype.itemsize), dtype).reshape(40, 16)


def test_numbers_arrive_bit_for_bit(tmp_path: Path) -> None:
    values = {name: random_bits(name) for name in NUMBERS}
    scalars = {f"one {name}": array[:, 0].copy() for name, array in values.items()}
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 8, block_nbytes=5000) as writer:
        writer.extend(values | scalars, np.arange(40))
    with hs.open(tmp_path / "a.hsq") as file:
        for seq in (file, file.shuffled(1, by="record").rebatch(7), file.rebatch(3).map(lambda batch: batch)):
            for x, y in seq.as_tf_dataset():
                for name, array in (values | scalars).items():
                    assert x[name].dtype == tf.as_dtype(array.dtype)
                    assert x[name].numpy().tobytes() == array[y.numpy()].tobytes(), name


def test_float8_e5m2_arrives_or_is_refused_at_once(tmp_path: Path) -> None:
    """TensorFlow has this type; not all versions of tf.data do."""
    values = np.arange(256, dtype=np.uint8).view(dtype_from_name("float8_e5m2")).reshape(16, 16)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 3) as writer:
        writer.extend({"odd": values}, np.arange(16))
    with hs.open(tmp_path / "a.hsq") as file:
        try:
            dataset = file.as_tf_dataset()
        except hs.ArgumentError as error:
            assert all(word in str(error) for word in ("inputs['odd']", "float8_e5m2", "fields(", "map("))
        else:
            assert b"".join(x["odd"].numpy().tobytes() for x, _ in dataset) == values.tobytes()


TEXTS = ["", "a", "é" * 5, "日本語", "\U0001f600x", "a b", "a\0b", "tail   "]


def strings(values: np.ndarray) -> list[Any]:
    return [text.encode() if isinstance(text, str) else text for text in values.ravel().tolist()]


@pytest.mark.parametrize("kind", ["text", "ASCII", "bytes"])
def test_text_and_bytes_come_as_strings(tmp_path: Path, kind: str) -> None:
    texts = [text for text in TEXTS if text.isascii()] if kind == "ASCII" else TEXTS
    values = np.array([text.encode()[:12] for text in texts]) if kind == "bytes" else np.array(texts)
    k = np.arange(20) % len(texts)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 3) as writer:
        writer.extend({"one": values[k], "many": values[np.stack([k, k // 3], 1)]}, np.arange(20))
    with hs.open(tmp_path / "a.hsq") as file:
        for seq in (file, file.rebatch(5).shuffled(1), file.rebatch(7).map(lambda batch: batch), file.rebatch(1)):
            dataset = seq.as_tf_dataset()
            assert all(leaf.dtype == tf.string for leaf in dataset.element_spec[0].values())
            for (x, _), (plain, _) in zip(dataset, seq, strict=True):
                for name in ("one", "many"):
                    assert x[name].shape == plain[name].shape
                    assert x[name].numpy().ravel().tolist() == strings(plain[name])


def test_text_that_is_empty_everywhere(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 3) as writer:
        for i in range(7):
            writer.append({"t": np.array(["", ""], "U0"), "b": np.array(b"", "S0")}, i)
    with hs.open(tmp_path / "a.hsq") as file:
        for seq in (file, file.rebatch(2).shuffled(1)):
            for x, _ in seq.as_tf_dataset():
                assert set(x["t"].numpy().ravel()) == set(x["b"].numpy()) == {b""}


@pytest.mark.parametrize("name", FOREIGN)
def test_types_that_tensorflow_has_not_are_refused_by_name(tmp_path: Path, name: str) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 3) as writer:
        for i in range(7):
            writer.append({"x": np.float32(i), "odd": FOREIGN[name]}, i)
    with hs.open(tmp_path / "a.hsq") as file:
        with pytest.raises(hs.ArgumentError) as caught:
            file.as_tf_dataset()
        for word in ("inputs['odd']", name, "TensorFlow", "fields(", "map("):
            assert word in str(caught.value)
        assert flat(file.fields("x", "outputs").as_tf_dataset()) == list(range(7))
        assert flat(file.map(lambda batch: (batch[0]["x"], batch[1])).as_tf_dataset()) == list(range(7))
        with pytest.raises(hs.ArgumentError, match=r"map"):
            file.map(lambda batch: (batch[0]["odd"], batch[1])).as_tf_dataset()


def test_none_in_a_batch_is_refused_with_what_to_do(numbered: Path) -> None:
    with hs.open(numbered) as file:
        outputs = file.fields("outputs")
        with pytest.raises(hs.ArgumentError, match=r"None.*map\("):
            outputs.as_tf_dataset()
        alone = outputs.map(lambda batch: (batch[1],)).as_tf_dataset()
        assert [int(y) for (batch,) in alone for y in batch] == list(range(N))
        with pytest.raises(hs.ArgumentError, match="None"):
            file.map(lambda batch: (None, batch[1])).as_tf_dataset()


def test_what_map_gives_arrives(numbered: Path) -> None:
    """Scalars, arrays in any layout, tensors, nested structures."""

    def odd(batch: Any) -> Any:
        x, y = batch
        strided = {"t": x.T, "b": x[::-1], "f": np.asfortranarray(x), "o": x[:, ::2]}
        return strided, (y.sum(), {"text": y.astype("U3"), "half": float(y[0]) / 2})

    with hs.open(numbered) as file:
        seq = file.rebatch(10, drop_last=True)
        for (x, (total, more)), (plain, y) in zip(seq.map(odd).as_tf_dataset(), seq, strict=True):
            assert np.array_equal(x["t"], plain.T) and np.array_equal(x["b"], plain[::-1])
            assert np.array_equal(x["f"], plain) and np.array_equal(x["o"], plain[:, ::2])
            assert int(total) == y.sum() and total.shape == ()
            assert more["text"].numpy().tolist() == [b"%d" % n for n in y]
            assert float(more["half"]) == y[0] / 2
        with pytest.raises(hs.ArgumentError, match="map"):
            file.map(lambda batch: batch if len(batch[1]) == 8 else (batch[0],)).as_tf_dataset()


@pytest.fixture(params=["together", "one by one"])
def copied(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether small batches of a map are handed over together, which otherwise depends on how quickly they come."""
    monkeypatch.setattr("hypersequence.adapters.tensorflow._SLOW_S", float("inf" if request.param == "together" else 0))
    return request.param


@pytest.mark.usefixtures("copied")
@pytest.mark.parametrize("threads", [0, 2])
def test_small_batches_of_a_map_arrive_as_they_are(numbered: Path, threads: int) -> None:
    def several(batch: Any) -> Any:
        x, y = batch
        half = x.astype(ml_dtypes.bfloat16)
        return {"x": x, "half": half, "none": x[:, :0], "empty": x[:0]}, (y, y.sum(), y.astype("U5"), y.astype("S"))

    with hs.open(numbered) as file:
        for seq in (file, file.rebatch(7), file.shuffled(1).rebatch(1)):
            mapped = seq.map(several)
            for (x, (y, total, text, _)), (a, (b, c, d, _)) in zip(
                mapped.as_tf_dataset(threads=threads), mapped, strict=True
            ):
                assert same(x, a) and same(y, b) and int(total) == c
                assert text.numpy().tolist() == [word.encode() for word in d]


@pytest.mark.usefixtures("copied")
def test_an_error_in_map_comes_after_all_batches_before_it(numbered: Path) -> None:
    def fail(batch: Any) -> Any:
        if 33 in batch[1]:
            raise LookupError("not this one")
        return batch

    with hs.open(numbered) as file:
        seen: list[Any] = []
        with pytest.raises(Exception, match="not this one"):
            seen.extend(file.rebatch(1).map(fail).as_tf_dataset(threads=1))
        assert flat(seen) == list(range(33))


@pytest.mark.usefixtures("copied")
def test_a_map_whose_batches_differ_in_shape_is_an_error(numbered: Path) -> None:
    def grow(batch: Any) -> Any:
        return batch if 33 not in batch[1] else (np.concatenate(batch[:1] * 2, axis=1), batch[1])

    with hs.open(numbered) as file:
        seen: list[Any] = []
        with pytest.raises(Exception, match="not compatible with expected shape"):
            seen.extend(file.map(grow).as_tf_dataset(threads=0))
        assert flat(seen) == list(range(32))


@pytest.mark.usefixtures("copied")
def test_text_that_a_map_makes_with_tensorflow_reaches_keras(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 600) as writer:
        writer.extend(np.arange(6000), np.arange(6000))
    with hs.open(tmp_path / "a.hsq") as file:
        named = file.map(lambda batch: (tf.constant([f"number {n}" for n in batch[0]]), batch[1]))
        found = [text for words, _ in named.as_keras().get_tf_dataset() for text in words.numpy().tolist()]
        assert found == [b"number %d" % n for n in range(6000)]


def test_slow_batches_do_not_wait_for_each_other(numbered: Path) -> None:
    made: list[int] = []

    def slow(batch: Any) -> Any:
        made.append(int(batch[1][0]))
        time.sleep(0.05)
        return batch

    with hs.open(numbered) as file:
        iterator = iter(file.rebatch(1).map(slow).as_tf_dataset(threads=0))
        made.clear()
        for i in range(12):
            assert int(next(iterator)[1][0]) == i
            # one piece is made ahead, and one may be under way
            assert len(made) <= i + 3


def test_the_byte_order_of_what_map_gives_does_not_matter(numbered: Path) -> None:
    with hs.open(numbered) as file:
        swapped = file.map(lambda batch: (batch[0].astype(">f4"), batch[1].astype(">i4")))
        for (x, y), (plain, labels) in zip(swapped.as_tf_dataset(), file, strict=True):
            assert np.array_equal(x, plain) and np.array_equal(y, labels)


# --- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 64, 399, 400, 1000])
def test_batches_of_all_sizes(wide: Path, size: int) -> None:
    """From 16 KiB to all 6.5 MB."""
    with hs.open(wide) as file:
        for options in ({}, {"threads": 0}, {"threads": 2, "prefetch": 1}):
            seq = (file.shuffled(1, by="record") if options else file).rebatch(size)
            assert all_same(seq.as_tf_dataset(**options), seq)


def test_tiny_records(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 100) as writer:
        writer.extend(np.arange(2011) % 251 == 0, (np.arange(2011) % 256).astype(np.uint8))
    with hs.open(tmp_path / "a.hsq") as file:
        for size in (1, 3, 64, 4096):
            seq = file.shuffled(1, by="record").rebatch(size)
            assert all_same(seq.as_tf_dataset(), seq)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    folder = tmp_path_factory.mktemp("files")
    for n in (1, 2, 40, 257):
        with hs.HyperSequenceWriter(folder / f"{n}.hsq", 8, block_nbytes=500) as writer:
            writer.extend(np.arange(3 * n, dtype=np.float32).reshape(n, 3), np.arange(n))
    return {n: folder / f"{n}.hsq" for n in (1, 2, 40, 257)}


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_any_chain(files: dict[int, Path], data: st.DataObject) -> None:
    n = data.draw(st.sampled_from(list(files)))
    with hs.open(files[n]) as seq:
        by = data.draw(st.sampled_from([None, "record", "batch", "window"]))
        seq = seq.rebatch(data.draw(st.integers(1, 70)), drop_last=data.draw(st.booleans()))
        seq = seq.shuffled(data.draw(st.integers(0, 9)), by=by, window=1000) if by else seq
        try:
            seq = data.draw(st.sampled_from(seq.split(0.3, 0.3, by="record"))) if data.draw(st.booleans()) else seq
            world = data.draw(st.integers(1, 4))
            uneven = data.draw(st.sampled_from(["pad", "drop", "short"]))
            seq = seq.shard(data.draw(st.integers(0, world - 1)), world, uneven) if data.draw(st.booleans()) else seq
        except hs.ArgumentError:
            return  # too few records for so many
        seq = seq.map(lambda batch: tuple(batch)) if data.draw(st.booleans()) else seq
        dataset = seq.as_tf_dataset(threads=data.draw(st.integers(0, 2)))
        assert len(dataset) == len(seq)
        for epoch in range(2):
            batches = list(dataset)
            assert all_same(batches, seq.at_epoch(epoch))
            lengths = {len(batch[1]) for batch in batches}
            if lengths and lengths != {seq.n_records}:
                first_axes = {leaf.shape[0] for leaf in dataset.element_spec}
                assert first_axes == (lengths if len(lengths) == 1 else {None})


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_in_map_comes_with_its_message(numbered: Path, threads: int) -> None:
    def fail(batch: Any) -> Any:
        if 44 in batch[1]:
            raise LookupError("in the middle of an epoch")
        return batch

    with hs.open(numbered) as file:
        dataset = file.map(fail).as_tf_dataset(threads=threads)
        seen: list[Any] = []
        with pytest.raises(Exception, match="in the middle of an epoch"):
            seen.extend(dataset)
        assert flat(seen) == list(range(40))
        with pytest.raises(Exception, match="in the middle of an epoch"):
            dataset.reduce(0, lambda old, batch: old + 1)


def damage(path: Path, block: int) -> int:
    """Changes a byte of a block; gives the records of a block."""
    with hs.open(path) as seq:
        stored = seq._source.stored
        offset, n = stored.first_block + block * stored.stride + stored.column_offsets[0] + 5, stored.block_records
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    return n


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("size", [8, 1])
def test_damage_is_an_error_that_says_where(numbered: Path, threads: int, size: int) -> None:
    block = damage(numbered, 2)
    with hs.open(numbered) as file:
        seen: list[Any] = []
        with pytest.raises(Exception, match=r"(?s)ChecksumError.*block 2"):
            seen.extend(file.rebatch(size).as_tf_dataset(threads=threads))
        assert flat(seen) == list(range(2 * block // size * size))
        with pytest.raises(Exception, match="block 2"):
            list(file.shuffled(1, by="record").as_tf_dataset(threads=threads))


@pytest.mark.parametrize("block", [0, 2])
@pytest.mark.parametrize("mapped", [False, True])
def test_damage_can_be_skipped(numbered: Path, block: int, mapped: bool) -> None:
    n = damage(numbered, block)
    bad = range(block * n, block * n + n)
    with hs.open(numbered) as file:
        seq = file.map(lambda batch: batch) if mapped else file
        with pytest.warns(RuntimeWarning, match=f"block {block}"):
            found = flat(seq.as_tf_dataset(on_corrupt="skip_block"))
        assert found == [i + n if i in bad else i for i in range(N)]


def test_wrong_options_are_refused_at_once(numbered: Path) -> None:
    with hs.open(numbered) as file:
        for options in ({"threads": -1}, {"prefetch": 0}, {"on_corrupt": "ignore"}):
            with pytest.raises(hs.ArgumentError, match=next(iter(options))):
                file.as_tf_dataset(**options)


# --- iterators and datasets that go ----------------------------------------------------------------------------------


def test_abandoned_iterators_leave_no_threads(wide: Path) -> None:
    with hs.open(wide) as file:
        dataset = file.shuffled(1, by="record").rebatch(4).as_tf_dataset(threads=2, prefetch=4)
        assert len(list(dataset.take(3))) == 3
        assert no_thread_is_left()
        iterator = iter(dataset)
        next(iterator)
        assert hsq_threads()
        del iterator
        assert no_thread_is_left()
        for _ in dataset.repeat():
            break
        assert no_thread_is_left()
        assert flat(dataset) == flat(file.shuffled(1, by="record").at_epoch(3))


def test_the_operation_that_slows_down_the_process_is_not_used(numbered: Path) -> None:
    with hs.open(numbered) as file:
        ours = file.as_tf_dataset(threads=1)
        theirs = tf.data.Dataset.from_generator(lambda: iter([1]), output_signature=tf.TensorSpec((), tf.int32))
        assert b"GeneratorDataset" in theirs._as_serialized_graph().numpy()
        assert b"GeneratorDataset" not in ours._as_serialized_graph().numpy()


def test_many_datasets_come_and_go(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        expected = flat(seq)
        for i in range(20):
            dataset = seq.as_tf_dataset(threads=1)
            assert flat(dataset.take(2)) == expected[:16]
            if i % 10 == 0:
                assert flat(dataset.repeat(2))[: 0 + N] == flat(seq.at_epoch(1))
        del dataset
        assert no_thread_is_left()


def test_a_dataset_is_usable_when_its_name_is_gone(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        expected = flat(seq)
        made = seq.as_tf_dataset().map(lambda x, y: (x, y)).prefetch(2)
        gc.collect()
        assert flat(made) == expected
        iterator = iter(seq.as_tf_dataset())
        gc.collect()
        assert flat(iterator) == expected

        def read() -> Any:
            dataset = seq.as_tf_dataset()
            return tf.function(lambda: dataset.reduce(np.int64(0), lambda old, batch: old + tf.reduce_sum(batch[1])))

        total = read()
        gc.collect()
        assert int(total()) == sum(range(N))
    dataset = hs.open(numbered).as_tf_dataset()
    gc.collect()
    assert flat(dataset) == list(range(N))


def test_the_file_may_go_while_tensors_are_kept(wide: Path) -> None:
    with hs.open(wide) as file:
        kept = list(file.as_tf_dataset()) + list(file.shuffled(1).rebatch(300).as_tf_dataset())
    wide.unlink()
    gc.collect()
    assert all((x.numpy() == y.numpy()[:, None]).all() for x, y in kept)


def test_iterators_of_one_dataset_at_the_same_time_have_epochs_of_their_own(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1).rebatch(7)
        dataset = seq.as_tf_dataset(threads=1)
        one, other = iter(dataset), iter(dataset)
        pairs = list(zip(one, other, strict=True))
        assert flat(a for a, _ in pairs) == flat(seq)
        assert flat(b for _, b in pairs) == flat(seq.at_epoch(1))

        found: list[list[int]] = []
        threads = [threading.Thread(target=lambda: found.append(flat(dataset))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(found) == sorted(flat(seq.at_epoch(epoch)) for epoch in range(2, 6))


def test_it_composes_with_the_steps_of_tf_data(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        first, second = flat(seq), flat(seq.at_epoch(1))

        def fresh() -> tf.data.Dataset:
            return seq.as_tf_dataset()

        doubled = (
            fresh().map(lambda x, y: (x * 2, y * 2), num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
        )
        assert flat(doubled) == [2 * y for y in first] and flat(doubled) == [2 * y for y in second]
        assert flat(fresh().skip(2).take(3)) == first[16:40]
        cached = fresh().cache()
        assert flat(cached) == flat(cached) == first
        assert flat(fresh().unbatch().batch(10)) == first
        assert sorted(flat(fresh().unbatch().shuffle(50, seed=1).batch(10))) == sorted(first)
        pairs = list(tf.data.Dataset.zip(fresh(), fresh()))
        assert flat(a for a, _ in pairs) == flat(b for _, b in pairs) == first
        dataset = fresh()
        pairs = list(tf.data.Dataset.zip(dataset, dataset))
        assert sorted([flat(a for a, _ in pairs), flat(b for _, b in pairs)]) == sorted([first, second])
        assert flat(fresh().concatenate(fresh())) == first * 2
        assert flat(fresh().rebatch(5)) == first
        assert flat(fresh().shard(2, 1)) == [y for k in range(1, len(seq), 2) for y in first[8 * k : 8 * k + 8]]
        assert len(fresh().map(lambda x, y: y)) == len(seq)
        assert flat(b for b in fresh().as_numpy_iterator()) == first
        options = tf.data.Options()
        options.deterministic = False
        options.threading.private_threadpool_size = 1
        assert flat(fresh().with_options(options)) == first
        interleaved = tf.data.Dataset.from_tensors(0).repeat(2).interleave(lambda _: dataset, cycle_length=2)
        assert sorted(flat(interleaved)) == sorted([*range(N)] * 2)


# --- memory ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 10, 64, 300])
def test_tensors_that_are_kept_never_change(wide: Path, size: int) -> None:
    with hs.open(wide) as file:
        for seq in (file.rebatch(size), file.shuffled(1, by="record").rebatch(size)):
            dataset = seq.as_tf_dataset(threads=2, prefetch=2)
            kept = [batch for _ in range(2) for batch in dataset]
            del dataset
            gc.collect()
            assert sum(len(y) for _, y in kept) == 800
            assert all((x.numpy() == y.numpy()[:, None]).all() for x, y in kept)


@pytest.mark.parametrize("size", [10, 200])
def test_nothing_that_is_done_to_a_batch_reaches_the_file(wide: Path, size: int) -> None:
    """TensorFlow computes in place where it believes to be the only one that has a tensor."""
    before = wide.read_bytes()

    @tf.function
    def in_place(x: tf.Tensor) -> tf.Tensor:
        return tf.raw_ops.Relu(features=tf.negative(x) - 1.0)

    def scatter(x: tf.Tensor, y: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.tensor_scatter_nd_update(tf.negative(x), [[0, 0]], [7.0]), y

    with hs.open(wide) as file:
        for seq in (file.rebatch(size), file.shuffled(1, by="batch").rebatch(size), file.shuffled(1).rebatch(size)):
            dataset = seq.as_tf_dataset()
            for x, _ in dataset:
                assert (in_place(x).numpy() == 0).all()
                variable = tf.Variable(x)
                variable.assign(x * 0 - 5)
                variable.assign_add(x)
                array = x.numpy()
                if array.flags.writeable:
                    array[:] = -1
            for x, _ in dataset.map(scatter).map(lambda x, y: (tf.nn.relu(x + 1) * -1, y)):
                assert x.numpy()[0, 0] == -8
            ends = dataset.map(lambda x, y: (tf.raw_ops.InplaceUpdate(x=x, i=[0], v=tf.zeros_like(x[:1])), y))
            assert all((x.numpy()[0] == 0).all() for x, _ in ends)
            total = dataset.reduce(tf.zeros(4096), lambda old, batch: tf.nn.relu(old + tf.reduce_sum(batch[0], 0)))
            assert (total.numpy() == sum(range(400))).all()
        assert all((x == y[:, None]).all() for x, y in file)
    assert wide.read_bytes() == before


# --- training --------------------------------------------------------------------------------------------------------


def test_two_replicas_split_every_batch(numbered: Path) -> None:
    run(
        """
        import tensorflow as tf

        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        file = hs.open(sys.argv[1])
        numbers = lambda tensor: tensor.numpy().tolist()

        for seq in (file.shuffled(1).rebatch(16), file.shuffled(1).rebatch(16, drop_last=True)):
            distributed = strategy.experimental_distribute_dataset(seq.as_tf_dataset())

            @tf.function
            def step(x, y):
                tf.debugging.assert_equal(x[:, 0, 0], tf.cast(y, tf.float32))
                return y

            for epoch in range(2):
                steps = 0
                for batch, (_, expected) in zip(distributed, seq.at_epoch(epoch), strict=True):
                    parts = strategy.experimental_local_results(strategy.run(step, batch))
                    assert sum(map(numbers, parts), []) == expected.tolist()
                    if len(expected) == 16:
                        assert [len(part) for part in parts] == [8, 8]
                    steps += 1
                assert steps == len(seq)

        # Batches of a replica; where all have one shape, TensorFlow leaves out a step that not every replica has.
        for seq, uneven in ((file.shuffled(1).rebatch(13), "pad"), (file.shuffled(1).rebatch(8), "short")):
            def of_worker(context):
                share = seq.shard(context.input_pipeline_id, context.num_input_pipelines, uneven)
                return share.as_tf_dataset()

            distributed = strategy.distribute_datasets_from_function(of_worker)
            for epoch in range(2):
                seen = []
                for _, y, *w in distributed:
                    labels = np.concatenate(strategy.experimental_local_results(y))
                    counted = np.concatenate(strategy.experimental_local_results(w[0])) > 0 if w else ...
                    seen += labels[counted].tolist()
                assert seen == [int(label) for batch in seq.at_epoch(epoch) for label in batch[1]]

        # A script ends in the middle of an epoch without a complaint.
        iterator = iter(seq.rebatch(2).as_tf_dataset(threads=2, prefetch=2))
        next(iterator)
        """,
        numbered,
    )


@pytest.mark.parametrize("end", ["pass", "raise SystemExit"])
def test_a_program_ends_while_tensorflow_waits_for_a_batch(numbered: Path, end: str) -> None:
    """A thread of TensorFlow that still waits for the interpreter never gets it, and the program waits for it."""
    run(
        f"""
        import time
        import tensorflow as tf

        def slow(batch):
            time.sleep(0.2)
            return batch

        seq = hs.open(sys.argv[1]).rebatch(2).map(slow)
        iterators = [iter(seq.as_tf_dataset(threads=threads).repeat().prefetch(2)) for threads in (0, 2)]
        for iterator in iterators:
            next(iterator)
        print("done", flush=True)
        {end}
        """,
        numbered,
    )


def test_keras_trains_epoch_after_epoch(tmp_path: Path) -> None:
    run(
        """
        import keras
        import tensorflow as tf

        rng = np.random.default_rng(0)
        x = rng.standard_normal((1000, 4)).astype(np.float32)
        path = sys.argv[1] + "/a.hsq"
        with hs.HyperSequenceWriter(path, 25) as writer:
            writer.extend(x, x @ np.array([1, -2, 3, 0.5], np.float32))
        train, validation = hs.open(path).split(0.8)
        train = train.shuffled(1)

        begun = []
        noted = train.map(lambda batch: (begun.append(float(batch[1][0])), batch)[1])
        dataset = noted.as_tf_dataset(threads=0)
        begun.clear()  # the first and the last batch were made once, for the element_spec
        model = keras.Sequential([keras.layers.Dense(1)])
        model.compile(keras.optimizers.SGD(0.05), "mse")
        held_out = validation.as_tf_dataset()
        history = model.fit(dataset, validation_data=held_out, epochs=6, verbose=0).history
        assert history["val_loss"][-1] < 1e-3, history
        expected = [float(y[0]) for epoch in range(6) for _, y in train.at_epoch(epoch)]
        assert begun == expected
        assert model.evaluate(held_out, verbose=0) < 1e-3
        assert model.predict(validation.fields("inputs").as_tf_dataset(), verbose=0).shape == (200, 1)

        begun.clear()
        model.fit(noted.as_tf_dataset(threads=0).repeat(), steps_per_epoch=20, epochs=3, verbose=0)
        # the first two are for the element_spec again
        steps = [float(y[0]) for epoch in range(2) for _, y in train.at_epoch(epoch)]
        assert begun[2:62] == steps[:60]
        """,
        tmp_path,
    )


def test_without_tensorflow_the_message_names_the_extra(numbered: Path) -> None:
    run(
        """
        sys.modules["tensorflow"] = None  # what an environment without it looks like to import
        seq = hs.open(sys.argv[1])
        list(hs.Loader(seq))
        for use in (seq.as_tf_dataset, lambda: hs.tensorflow):
            try:
                use()
            except hs.MissingPackageError as error:
                assert isinstance(error, ImportError) and "hypersequence[tensorflow]" in str(error), error
            else:
                raise AssertionError
        """,
        numbered,
    )

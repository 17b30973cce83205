"""One sequence, five frameworks: the same batches everywhere, bit for bit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

import hypersequence as hs
from hypersequence.adapters.arrays import apart, each_array
from hypersequence.adapters.loader import FrameworkLoader, Share, Way

N = 211
EPOCHS = 2


@pytest.fixture
def several(tmp_path: Path) -> Path:
    """Records of two inputs, an output and weights, in types that every framework has."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((N, 4, 3)).astype(np.float32)
    codes = rng.integers(0, 256, (N, 5)).astype(np.uint8)
    weights = rng.random(N, np.float32)
    with hs.HyperSequenceWriter(tmp_path / "several.hsq", 16, block_nbytes=2000) as writer:
        writer.extend({"image": images, "code": codes}, np.arange(N, dtype=np.int32), weights)
    return tmp_path / "several.hsq"


class Recorder(keras.Model):
    """Trains nothing and remembers what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = self.add_weight(shape=(), initializer="zeros")
        self.given: list[Any] = []

    def call(self, inputs: Any, training: bool = False) -> Any:
        return inputs["image"][:, 0, 0] * self.weight

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        parts = (x, y) if sample_weight is None else (x, y, sample_weight)
        try:
            self.given.append(keras.tree.map_structure(keras.ops.convert_to_numpy, parts))
        except Exception:
            assert not self.given  # Keras looks at shapes with placeholders first
        return keras.ops.mean(y_pred)


def epochs_of(batches: Iterable[Any]) -> list[Any]:
    return [batch for _ in range(EPOCHS) for batch in batches]


def by_fit(seq: hs.HyperSequence) -> list[Any]:
    model = Recorder()
    model.compile("sgd", run_eagerly=True)
    model.fit(seq.as_keras(), epochs=EPOCHS, verbose=0)
    return model.given


def by_index(seq: hs.HyperSequence) -> list[Any]:
    feed, found = seq.as_keras(), []
    for epoch in range(EPOCHS):
        feed.load_state_dict({**feed.state_dict(), "epoch": epoch, "position": 0})
        found += [feed[i] for i in range(len(feed))]
    return found


def by_loop(seq: hs.HyperSequence) -> list[Any]:
    return [batch for epoch in range(EPOCHS) for batch in seq.at_epoch(epoch)]


WAYS: dict[str, Callable[[hs.HyperSequence], list[Any]]] = {
    "sequence": by_loop,
    "loader": lambda seq: epochs_of(hs.Loader(seq)),
    "loader of both epochs": lambda seq: list(hs.Loader(seq, epochs=EPOCHS, threads=0)),
    "keras": by_fit,
    "keras by index": by_index,
    "torch": lambda seq: epochs_of(seq.as_torch()),
    "jax": lambda seq: epochs_of(seq.as_jax()),
    "tensorflow": lambda seq: epochs_of(seq.as_tf_dataset()),
    "tensorflow, repeated": lambda seq: list(seq.as_tf_dataset().repeat(EPOCHS)),
}


def bits(part: Any) -> Any:
    """A batch of any framework as plain values."""
    if isinstance(part, tuple | list):
        return tuple(map(bits, part))
    if isinstance(part, dict):
        return {name: bits(value) for name, value in part.items()}
    if part is None:
        return None
    array = np.asarray(part)
    return array.dtype.name, array.shape, array.tobytes()


def double(batch: Any, rng: np.random.Generator) -> Any:
    inputs, *others = batch
    return ({**inputs, "image": inputs["image"] * 2 + rng.random(dtype=np.float32)}, *others)


CHAINS: dict[str, Callable[[hs.HyperSequence], hs.HyperSequence]] = {
    "rank 1 of 2, padded": lambda seq: (
        seq.split(0.8, by="record")[0].shuffled(seed=7, window=4000).rebatch(12).shard(1, 2, "pad")
    ),
    "the whole": lambda seq: seq.split(0.8)[0].shuffled(seed=7).rebatch(9),
    "no weights, padded": lambda seq: (
        seq.fields("inputs", "outputs").shuffled(seed=3, by="record").rebatch(20).shard(1, 2, "pad")
    ),
    "mapped": lambda seq: seq.split(0.3, 0.3)[1].shuffled(seed=7, by="batch").rebatch(10).map(double, seed=5),
    "in the order of the file": lambda seq: seq,
}


@pytest.mark.parametrize("chain", CHAINS)
def test_every_framework_gets_the_same_batches_in_the_same_order(several: Path, chain: str) -> None:
    with hs.open(several) as file:
        seq = CHAINS[chain](file)
        expected = [bits(batch) for batch in by_loop(seq)]
        assert len(expected) == EPOCHS * len(seq) > 0
        assert len({batch[1] for batch in expected}) == len(expected) or chain == "in the order of the file"
        for name, way in WAYS.items():
            found = [bits(batch) for batch in way(seq)]
            assert len(found) == len(expected), name
            for number, (batch, other) in enumerate(zip(found, expected, strict=True)):
                assert batch == other, f"{name}, batch {number}"


def test_a_place_in_the_data_means_the_same_to_every_loader(several: Path) -> None:
    with hs.open(several) as file:
        seq = file.shuffled(seed=1).rebatch(10)
        expected = [bits(batch) for batch in by_loop(seq)]
        for make in (hs.Loader, hs.HyperSequence.as_torch, hs.HyperSequence.as_jax):
            loader = make(seq)
            for number, _ in enumerate(loader, 1):
                if number == 4:
                    break
            state = loader.state_dict()
            for other in (hs.Loader, hs.HyperSequence.as_torch, hs.HyperSequence.as_jax):
                resumed = other(seq)
                resumed.load_state_dict(state)
                assert [bits(batch) for batch in resumed] == expected[4 : len(seq)]
                assert [bits(batch) for batch in resumed] == expected[len(seq) :]
            model, feed = Recorder(), seq.as_keras()
            model.compile("sgd", run_eagerly=True)
            feed.load_state_dict(state)
            model.fit(feed, epochs=2, verbose=0)
            assert [bits(batch) for batch in model.given] == expected[4:]


def test_a_classifier_of_scikit_learn_learns_digits_batch_by_batch(tmp_path: Path) -> None:
    images, digits = load_digits(return_X_y=True)
    with hs.HyperSequenceWriter(tmp_path / "digits.hsq", 32) as writer:
        writer.extend((images / 16).astype(np.float32), digits)
    with hs.open(tmp_path / "digits.hsq") as file:
        train, test = file.split(0.8, by="record")
        seq = train.shuffled(seed=1).rebatch(50)
        model = SGDClassifier(random_state=0)
        for x, y in seq:
            model.partial_fit(x, y, classes=np.arange(10))
        for _ in range(4):
            for x, y in hs.Loader(seq):
                model.partial_fit(x, y)
        scores = [model.score(x, y) * len(y) for x, y in test]
        assert sum(scores) / test.n_records > 0.9
        x, y = test.records[:]
        assert model.score(x, y) == pytest.approx(sum(scores) / len(y))


class Late(FrameworkLoader):
    """A device whose copies read a batch at the last moment: when it is handed over."""

    def __init__(self, sequence, **options):
        super().__init__(sequence, Share(None, None, None, None), **options)

    def _rank_and_world(self):
        return 0, 1

    def _way(self, world):
        size = self.batch_size

        def set_out(n_batches, together):
            cut = lambda array: [array[start : start + size] for start in range(0, len(array), size)]  # noqa: E731
            return apart(together, n_batches, cut) if n_batches > 1 else [together]

        return Way(set_out, lambda batches: [each_array(batch, np.array) for batch in batches])


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize("prefetch", [None, 1, 3])
@pytest.mark.parametrize("mapped", [False, True])
def test_a_ring_is_not_used_again_while_a_batch_is_on_its_way(tmp_path: Path, threads, prefetch, mapped) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 32) as writer:
        writer.extend(np.repeat(np.arange(1200, dtype=np.int32), 4097).reshape(1200, 4097), np.arange(1200))
    with hs.open(tmp_path / "a.hsq") as file:
        sequence = file.shuffled(1).rebatch(30)
        sequence = sequence.map(lambda batch: batch) if mapped else sequence
        own = lambda nbytes: np.empty(nbytes, np.uint8)  # noqa: E731
        got = list(Late(sequence, buffers=own, threads=threads, prefetch=prefetch))
        expected = list(sequence)
        assert len(got) == len(expected)
        for (x, y), (image, label) in zip(got, expected, strict=True):
            assert np.array_equal(x, image) and np.array_equal(y, label)

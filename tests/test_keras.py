"""Keras 3 on its three backends: the order that was asked for is the order that is trained."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

BACKENDS = ["tensorflow", "jax", "torch"]

# Runs in a process of its own, because Keras takes one backend a process.
PRELUDE = """
import sys, warnings
import numpy as np
import keras
import hypersequence as hs
from pathlib import Path

folder = Path(sys.argv[1])
backend = keras.backend.backend()

def write(path, n=18, size=4, **roles):
    with hs.HyperSequenceWriter(path, size, block_nbytes=200) as writer:
        for i in range(n):
            writer.append(np.full(3, i, np.float32), np.float32(i))
    return hs.HyperSequenceFile(path)

class Recorder(keras.Model):
    '''Trains nothing and remembers the first target of every batch it is given.'''

    def __init__(self):
        super().__init__()
        self.weight = self.add_weight(shape=(), initializer="zeros")
        self.trained, self.tested = [], []

    def call(self, x, training=False):
        return keras.ops.multiply(x[:, :1], self.weight)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        try:
            first = int(np.asarray(keras.ops.convert_to_numpy(y)).reshape(-1)[0])
        except Exception:
            first = None  # Keras looks at shapes with placeholders first
        if first is not None:
            (self.trained if training else self.tested).append(first)
        return keras.ops.mean((y_pred[:, 0] - keras.ops.reshape(y, (-1,))) ** 2)

def recorder(**options):
    model = Recorder()
    model.compile("sgd", run_eagerly=True, **options)
    return model

def starts(sequence):
    return [int(y[0]) for x, y in sequence]
"""


def run(backend: str, folder: Path, code: str) -> None:
    env = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    script = PRELUDE + textwrap.dedent(code) + "\nprint('done')\n"
    done = subprocess.run([sys.executable, "-c", script, str(folder)], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.endswith("done\n")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_order_holds_inside_fit(tmp_path: Path, backend: str) -> None:
    run(
        backend,
        tmp_path,
        """
        seq = write(folder / "a.hsq")
        shuffled = seq.shuffled(seed=5)
        epochs = [starts(shuffled.at_epoch(e)) for e in range(6)]
        assert len({tuple(e) for e in epochs}) == 6
        stream = sum(epochs, [])
        n = len(seq)

        # Keras's own shuffle, several workers: nothing changes the order, and each epoch has its own.
        for options in ({}, {"workers": 2}, {"workers": 3, "use_multiprocessing": False, "max_queue_size": 2}):
            ds = seq.as_keras(shuffle_on_epoch=True, seed=5, **options)
            assert isinstance(ds, keras.utils.PyDataset) and isinstance(ds, hs.KerasSequence)
            model = recorder()
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(ds, epochs=3, verbose=0, shuffle=True)
            assert model.trained == stream[: 3 * n], (options, model.trained)
            assert not [w for w in caught if "ran out of data" in str(w.message)]
            assert ds.epoch == 3
            model.fit(ds, epochs=1, verbose=0)  # another fit goes on
            assert model.trained == stream[: 4 * n]

        # Counting steps: the stream goes on where an epoch ends.
        for steps, rounds in ((3, 5), (n, 2), (7, 3)):
            model, ds = recorder(), seq.as_keras(True, 5)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model.fit(ds, epochs=rounds, steps_per_epoch=steps, verbose=0)
            assert model.trained == stream[: steps * rounds], (steps, model.trained)
            assert not [w for w in caught if "ran out of data" in str(w.message)]
            assert ds.epoch == steps * rounds // n

        # A pass that is abandoned does not count.
        class Stop(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if batch == 1:
                    self.model.stop_training = True

        model, ds = recorder(), seq.as_keras(True, 5)
        model.fit(ds, epochs=4, verbose=0, callbacks=[Stop()])
        assert (model.trained, ds.epoch) == (stream[:2], 0)
        model.fit(ds, epochs=1, verbose=0)
        assert model.trained[2:] == epochs[0] and ds.epoch == 1

        # So does one that ends in an exception.
        class Break(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                raise KeyError("from a callback")

        try:
            model.fit(ds, epochs=4, verbose=0, callbacks=[Break()])
        except KeyError:
            pass
        assert ds.epoch == 1

        # What a person asks for is the current epoch's order.
        assert int(ds[2][1][0]) == epochs[1][2] and len(ds) == n
        assert [int(y[0]) for x, y in ds] == epochs[1]
        ds.on_epoch_end()  # as custom loops do
        assert ds.epoch == 2 and int(ds[0][1][0]) == epochs[2][0]

        # One batch is a whole epoch, and is not mistaken for a rehearsal.
        one = seq.take(1).as_keras(True, 5)
        recorder().fit(one, epochs=3, verbose=0)
        assert one.epoch == 3

        # A sequence that is shuffled already walks through its epochs too.
        model = recorder()
        model.fit(seq.shuffled(5, epoch=2).as_keras(), epochs=2, verbose=0)
        assert model.trained == epochs[2] + epochs[3]
        """,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_validation_evaluation_prediction(tmp_path: Path, backend: str) -> None:
    run(
        backend,
        tmp_path,
        """
        seq = write(folder / "a.hsq")
        train, validation = seq.split(0.6)
        model = recorder()
        feed, check = train.as_keras(True, 1), validation.as_keras()
        model.fit(feed, validation_data=check, epochs=2, verbose=0)
        assert model.tested == starts(validation) * 2
        assert model.trained == starts(train.shuffled(1)) + starts(train.shuffled(1).at_epoch(1))
        model.tested.clear()
        model.evaluate(check, verbose=0)
        model.evaluate(check, steps=1, verbose=0)
        model.evaluate(check, verbose=0)
        assert model.tested == starts(validation) + starts(validation)[:1] + starts(validation)
        assert model.predict(seq.as_keras(), verbose=0).shape == (18, 1)
        assert model.predict(seq.fields("inputs").as_keras(), verbose=0).shape == (18, 1)
        assert model.predict(seq.as_keras(), steps=2, verbose=0).shape == (8, 1)

        # Results of a compiled model are those of the same arrays in memory.
        def trained(x, *rest, **options):
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)])
            model.compile("adam", "mse")
            model.fit(x, *rest, epochs=2, verbose=0, shuffle=False, **options)
            return model.evaluate(x, *rest, verbose=0, **options)

        x, y = seq.records[:]
        assert np.isclose(trained(seq.as_keras()), trained(x, y, batch_size=4), rtol=1e-5)
        if backend != "torch":
            model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", steps_per_execution=2)
            ds = seq.as_keras(True, 5)  # five batches, so the last execution is short
            model.fit(ds, epochs=2, verbose=0)
            assert ds.epoch == 2
        """,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_structures_and_weights(tmp_path: Path, backend: str) -> None:
    run(
        backend,
        tmp_path,
        """
        with hs.HyperSequenceWriter(folder / "dict.hsq", 4) as writer:
            for i in range(10):
                writer.append(
                    {"a": np.full(3, i, np.float32), "b": np.full((2, 2), i, np.float32)},
                    {"c": np.float32(i), "d": np.full(2, i, np.float32)},
                    {"c": np.float32(1), "d": np.float32(i % 2)},
                )
        seq = hs.HyperSequenceFile(folder / "dict.hsq")
        a, b = keras.Input((3,), name="a"), keras.Input((2, 2), name="b")
        both = keras.layers.Concatenate()([a, keras.layers.Flatten()(b)])
        outputs = {"c": keras.layers.Dense(1, name="c")(both), "d": keras.layers.Dense(2, name="d")(both)}
        model = keras.Model({"a": a, "b": b}, outputs)
        model.compile("sgd", {"c": "mse", "d": "mse"})
        model.fit(seq.as_keras(True, 0), epochs=2, verbose=0)
        assert set(model.predict(seq.as_keras(), verbose=0)) == {"c", "d"}

        with hs.HyperSequenceWriter(folder / "tuple.hsq", 4) as writer:
            for i in range(10):
                writer.append((np.full(3, i, np.float32), np.full(2, i, np.float32)), (np.float32(i), np.float32(-i)))
        seq = hs.HyperSequenceFile(folder / "tuple.hsq")
        a, b = keras.Input((3,)), keras.Input((2,))
        both = keras.layers.Concatenate()([a, b])
        model = keras.Model([a, b], [keras.layers.Dense(1)(both), keras.layers.Dense(1)(both)])
        model.compile("sgd", ["mse", "mse"])
        model.fit(seq.as_keras(True, 0), epochs=1, verbose=0)
        assert [p.shape for p in model.predict(seq.as_keras(), verbose=0)] == [(10, 1), (10, 1)]

        # Sample weights reach the loss.
        with hs.HyperSequenceWriter(folder / "weights.hsq", 4) as writer:
            for i in range(8):
                writer.append(np.ones(1, np.float32), np.float32(i), np.float32(i == 7))
        seq = hs.HyperSequenceFile(folder / "weights.hsq")
        model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1, kernel_initializer="zeros")])
        model.compile("sgd", "mse")
        assert np.isclose(model.evaluate(seq.as_keras(), verbose=0), 49 / 8)

        # Class weights, as Keras makes them itself.
        with hs.HyperSequenceWriter(folder / "classes.hsq", 4) as writer:
            for i in range(12):
                writer.append(np.full(2, i, np.float32), i % 3)
        seq = hs.HyperSequenceFile(folder / "classes.hsq")
        x, y = seq.records[:]

        def trained(feed, **options):
            keras.utils.set_random_seed(0)
            model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3, "softmax")])
            model.compile("sgd", "sparse_categorical_crossentropy")
            model.fit(*feed, epochs=2, verbose=0, shuffle=False, **options)
            return model.get_weights()[0]

        weights = {0: 5.0, 2: 0.1}
        ours = trained([seq.as_keras(class_weight=weights)])
        theirs = trained([x, y], batch_size=4, class_weight={**weights, 1: 1.0})
        assert np.allclose(ours, theirs, rtol=1e-4), (ours, theirs)
        one_hot = seq.map(lambda batch: (batch[0], np.eye(3, dtype=np.float32)[batch[1]]))
        of_one_hot, of_numbers = (s.as_keras(class_weight=weights)[0][2].tolist() for s in (one_hot, seq))
        assert of_one_hot == of_numbers

        # What would silently be ignored is refused.
        model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(3, "softmax")])
        model.compile("sgd", "sparse_categorical_crossentropy")
        for options in ({"class_weight": {0: 1.0}}, {"y": y}, {"sample_weight": np.ones(12)}):
            try:
                model.fit(seq.as_keras(), verbose=0, **options)
            except hs.ArgumentError as error:
                assert next(iter(options)) in str(error)
            else:
                raise AssertionError(options)
        for make in (
            lambda: seq.as_keras(seed=3),
            lambda: seq.fields("outputs").as_keras(),
            lambda: seq.fields("inputs").as_keras(class_weight={0: 1.0}),
            lambda: model.fit(seq.take(0).as_keras(), verbose=0),
        ):
            try:
                make()
            except hs.ArgumentError:
                pass
            else:
                raise AssertionError("not refused")
        with hs.HyperSequenceWriter(folder / "times.hsq") as writer:
            writer.append({"x": np.ones(2, np.float32), "when": np.datetime64("2020-01-01")}, 1)
        times = hs.HyperSequenceFile(folder / "times.hsq")
        try:
            times.as_keras()
        except hs.ArgumentError as error:
            assert "inputs['when']" in str(error) and "fields(" in str(error) and "map(" in str(error)
        else:
            raise AssertionError("a datetime was not refused")
        times.fields("x", "outputs").as_keras()
        try:
            class Changing(hs.KerasSequence):
                def __getitem__(self, index):
                    return super().__getitem__(index)
        except TypeError as error:
            assert "map(" in str(error)
        else:
            raise AssertionError("would silently be ignored")
        assert "seed" in repr(seq.as_keras(True)) and "epoch 0" in repr(seq.as_keras(True))
        """,
    )


def test_without_keras_the_message_names_the_extra(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["keras"] = None  # what an environment without it looks like to import
import hypersequence as hs
with hs.HyperSequenceWriter(sys.argv[1] + "/a.hsq") as writer:
    writer.append(1, 2)
with hs.HyperSequenceFile(sys.argv[1] + "/a.hsq") as seq:
    seq[0]
    for use in (seq.as_keras, lambda: hs.KerasSequence):
        try:
            use()
        except hs.MissingPackageError as error:
            assert isinstance(error, ImportError) and "hypersequence[keras]" in str(error), error
        else:
            raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_uses_of_the_old_package(tmp_path: Path) -> None:
    """The things that people did with hypersequence 0.10 and tf.keras, done the same way."""
    run(
        "tensorflow",
        tmp_path,
        """
        import tensorflow.keras as tfk

        with hs.HyperSequenceWriter(folder / "old.hsq", 16) as hsw:
            for _ in range(200):
                hsw.append(inputs=np.random.random((10, 10)), outputs=np.random.random((2, 10, 2)))
        with hs.HyperSequenceFile(folder / "old.hsq") as hsq:
            hsq64 = hsq.rebatch(64)
            train, validation = hsq64.split(0.8)
            (inp,), (out,) = hsq.dtypes()
            model = tfk.models.Sequential([
                tfk.layers.InputLayer(shape=inp.shape),
                tfk.layers.Flatten(),
                tfk.layers.Dense(int(np.prod(out.shape)), activation="relu"),
                tfk.layers.Reshape(out.shape),
            ])
            model.compile(optimizer="adam", loss="mean_squared_error")
            history = model.fit(
                hs.KerasSequence(train, shuffle_on_epoch=True),
                epochs=3,
                validation_data=validation.as_keras(),
                verbose=0,
            )
            assert history.history["loss"][-1] < history.history["loss"][0]
        with hs.HyperSequenceWriter(folder / "multi.hsq", 16) as hsw:
            for i in range(40):
                inputs = (np.ones((4, 4)), np.ones(7), np.ones((3, 3, 3)))
                hsw.append(inputs=inputs, outputs=(np.ones((2, 2)), np.zeros(5)))
        with hs.HyperSequenceFile(folder / "multi.hsq", use_mmap=False, thread_safe=True) as hsq:
            assert (hsq.no_inputs(), hsq.no_outputs(), hsq.batch_size()) == (3, 2, 16)
            (a, b, c), (d, e) = hsq[0]
            assert (a.shape, c.shape, d.shape, float(e.sum())) == ((16, 4, 4), (16, 3, 3, 3), (16, 2, 2), 0.0)
        """,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_interrupted_fit_goes_on_at_the_next_batch(tmp_path: Path, backend: str) -> None:
    run(
        backend,
        tmp_path,
        """
        import json, shutil

        seq = write(folder / "a.hsq")
        shuffled = seq.shuffled(seed=5)
        epochs = [starts(shuffled.at_epoch(e)) for e in range(6)]
        stream, n = sum(epochs, []), len(seq)

        def batches_of(sequence, n_batches):
            return [y for e in range(9) for x, y in sequence.at_epoch(e)][:n_batches]

        class Interrupt(keras.callbacks.Callback):
            # Before whoever saves: what is interrupted was not saved.
            def __init__(self, after):
                super().__init__()
                self.after = after

            def on_train_batch_end(self, batch, logs=None):
                self.after -= 1
                if self.after == 0:
                    raise KeyboardInterrupt

        def made():
            model = recorder()
            model(np.zeros((1, 3), np.float32))
            return model

        def weights(model):
            return [np.asarray(keras.ops.convert_to_numpy(w)).tolist() for w in model.weights]

        for options in ({}, {"steps_per_epoch": 3}):
            undisturbed = made()
            undisturbed.fit(seq.as_keras(True, 5), epochs=4, verbose=0, **options)
            for every in (1, 2, None):
                where = folder / "run"
                shutil.rmtree(where, ignore_errors=True)
                trained, fits = [], 0
                while True:
                    fits += 1
                    model, ds = made(), seq.as_keras(True, 5)
                    resume = hs.keras.ResumeCallback(where, ds, every=every)
                    with warnings.catch_warnings(record=True) as caught:
                        warnings.simplefilter("always")
                        try:
                            # 7 batches a try: more than an epoch, or nothing would ever be saved without `every`
                            model.fit(ds, epochs=4, verbose=0, callbacks=[Interrupt(7), resume], **options)
                            break
                        except KeyboardInterrupt:
                            pass
                        finally:
                            assert not [w for w in caught if "ran out of data" in str(w.message)]
                            trained.append(model.trained)
                assert fits > 1
                # What was trained after the last save is trained again; together they are the stream.
                seen = []
                for part in trained:
                    if not part:
                        continue
                    at = next(k for k in range(len(seen), -1, -1) if (seen[:k] + part) == stream[: k + len(part)])
                    assert len(seen) - at <= (every or n) , (at, len(seen))
                    seen = seen[:at] + part
                assert seen == undisturbed.trained, (options, every)
                assert weights(model) == weights(undisturbed)
                state = json.loads((where / "state.json").read_text())
                assert [file.name for file in where.glob("*.h5")] == [state["weights"]]
                # a finished training has nothing left to do
                model, ds = made(), seq.as_keras(True, 5)
                model.fit(ds, epochs=4, verbose=0, callbacks=[hs.keras.ResumeCallback(where, ds)], **options)
                assert model.trained == [] and weights(model) == weights(undisturbed)

        # several steps an execution, of which an epoch is no multiple: what counts is what was trained
        class Crash(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    raise RuntimeError("on_epoch_end of a callback before the one that saves")

        together = 1 if backend == "torch" else 4  # Keras has no more there

        def plain():
            model = keras.Sequential([keras.layers.Input((3,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse", steps_per_execution=together)
            return model

        for options, trained in (({}, n), ({"steps_per_epoch": 6}, -(-6 // together) * together)):
            shutil.rmtree(where, ignore_errors=True)
            model, ds = plain(), seq.as_keras(True, 5)
            try:
                resume = hs.keras.ResumeCallback(where, ds, every=1)
                model.fit(ds, epochs=3, verbose=0, callbacks=[Crash(), resume], **options)
            except RuntimeError:
                pass
            saved = json.loads((where / "state.json").read_text())["data"]
            assert (saved["epoch"] * 18 + saved["position"]) == sum(len(b) for b in batches_of(shuffled, 2 * trained))
            model, ds = plain(), seq.as_keras(True, 5)
            resume = hs.keras.ResumeCallback(where, ds, every=1)
            history = model.fit(ds, epochs=3, verbose=0, callbacks=[resume], **options)
            assert history.epoch == [2]
            assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 3 * trained
            # a later fit of the same model is its own
            assert model.fit(np.zeros((4, 3)), np.zeros(4), epochs=2, verbose=0).epoch == [0, 1]

        # a save of another order is refused
        where = folder / "other"
        done, ds = made(), seq.as_keras(True, 5)
        done.fit(ds, epochs=1, verbose=0, callbacks=[hs.keras.ResumeCallback(where, ds)])
        ds = seq.as_keras(True, 6)
        try:
            made().fit(ds, epochs=5, verbose=0, callbacks=[hs.keras.ResumeCallback(where, ds)])
        except hs.ArgumentError as error:
            assert "seed" in str(error)
        else:
            raise AssertionError
        """,
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_initial_epoch_and_state(tmp_path: Path, backend: str) -> None:
    run(
        backend,
        tmp_path,
        """
        seq = write(folder / "a.hsq")
        shuffled = seq.shuffled(seed=5)
        epochs = [starts(shuffled.at_epoch(e)) for e in range(6)]
        stream, n = sum(epochs, []), len(seq)

        model, ds = recorder(), seq.as_keras(True, 5)
        model.fit(ds, initial_epoch=2, epochs=4, verbose=0)
        assert model.trained == epochs[2] + epochs[3]
        model.fit(ds, initial_epoch=4, epochs=5, verbose=0)
        assert model.trained[2 * n :] == epochs[4]

        model, ds = recorder(), seq.as_keras(True, 5)
        model.fit(ds, initial_epoch=2, epochs=4, steps_per_epoch=3, verbose=0)
        assert model.trained == stream[6:12]

        # a state by hand, from a loader, in the middle of an epoch
        loader = hs.Loader(shuffled)
        for i, _ in enumerate(loader):
            if i == 1:
                break
        model, ds = recorder(), seq.as_keras(True, 5, threads=0)
        ds.load_state_dict(loader.state_dict())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(ds, epochs=2, verbose=0)
        assert not [w for w in caught if "ran out of data" in str(w.message)]
        assert model.trained == epochs[0][2:] + epochs[1]
        assert (ds.state_dict()["epoch"], ds.state_dict()["position"]) == (2, 0)
        assert ds.stats.batches >= n

        # evaluation over all ranks counts every record once
        model = recorder(weighted_metrics=["mse"])
        whole = model.evaluate(seq.as_keras(), verbose=0, return_dict=True)["mse"]
        shards = [seq.shard(rank, 4) for rank in range(4)]
        total = sum(
            model.evaluate(shard.as_keras(), verbose=0, return_dict=True)["mse"] * sum(w.sum() for _, _, w in shard)
            for shard in shards
        )
        assert abs(total / seq.n_records - whole) < 1e-3 * whole
        """,
    )


def test_map_may_give_tensors_to_the_torch_backend(tmp_path: Path) -> None:
    run(
        "torch",
        tmp_path,
        """
        import torch
        seq = write(folder / "a.hsq").map(lambda batch: (torch.from_numpy(batch[0]), batch[1][::-1]))
        model = recorder()
        model.fit(seq.as_keras(), epochs=1, verbose=0)
        assert model.trained == [3, 7, 11, 15, 17], model.trained
        """,
    )

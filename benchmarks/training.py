"""How long a small Keras model waits for its data. `python -m benchmarks.training` (needs Keras and a backend)."""

from __future__ import annotations

import os
import time

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np

import hypersequence as hs

from .measure import folder, row

N, SIZE, SHAPE = 20_000, 64, (28, 28, 1)


def model_of(width: int) -> keras.Model:
    model = keras.Sequential(
        [
            keras.layers.Input(SHAPE),
            keras.layers.Conv2D(width, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


class Steps(keras.callbacks.Callback):
    """Times an epoch without its first batch."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Begin behind the first batch."""
        if batch == 0:
            self.begun = time.perf_counter()
        self.n = batch

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Work out what a step took."""
        self.step = (time.perf_counter() - self.begun) / self.n


def main() -> None:
    with folder() as where:
        path = where / "train.hsq"
        with hs.HyperSequenceWriter(path, 32) as writer:
            writer.extend(np.random.default_rng(0).random((N, *SHAPE), np.float32), np.arange(N) % 10)
        print(f"Waiting for data after the first batch, batches of {SIZE}, on {keras.backend.backend()}\n")
        row("model", "ms a step", "threads=None", "threads=0")
        for width in (4, 16):
            shares, steps = [], Steps()
            for threads in (None, 0):
                with hs.open(path) as file:
                    feed = file.rebatch(SIZE).as_keras(shuffle_on_epoch=True, seed=1, threads=threads)
                    model = model_of(width)
                    model.fit(feed, epochs=1, verbose=0)  # compiles
                    model.fit(feed, epochs=1, verbose=0, callbacks=[steps])
                    shares.append(f"{feed.stats.waited_s / feed.stats.elapsed_s:.2%}")
            row(f"{width} filters", f"{steps.step * 1e3:.1f}", *shares)


if __name__ == "__main__":
    main()

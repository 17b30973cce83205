"""Small models, trained for some seconds on what a contender gives: how much of the time goes to waiting for data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from .workloads import Workload

#: For which workloads there is a model.
TRAINED = ("digits", "images")


def train_torch(batches: Iterator[tuple[Any, Any]], workload: Workload, seconds: float) -> dict[str, float]:
    """A plain PyTorch loop; the rate is that after the first three batches.

    Returns:
        ``records`` and the ``seconds`` that they took.
    """
    import torch

    model = _torch_model(workload)
    loss_of = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    n_records, begun = 0, time.perf_counter()
    for number, (x, y) in enumerate(batches):
        images, numbers = (torch.as_tensor(np.asarray(array)) for array in (x, y))
        optimizer.zero_grad()
        loss_of(model(images.float()), numbers % 10).backward()
        optimizer.step()
        n_records += len(images)
        if number == 2:
            n_records, begun = 0, time.perf_counter()
        elif number > 2 and time.perf_counter() - begun > seconds:
            break
    return {"records": n_records, "seconds": time.perf_counter() - begun}


def _torch_model(workload: Workload) -> Any:
    from torch import nn

    if workload.name == "digits":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    return nn.Sequential(nn.Conv2d(3, 8, 16, 16), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))


def fit_keras(arguments: dict[str, Any], workload: Workload, seconds: float) -> dict[str, float]:
    """Epochs of a Keras ``fit`` for so many seconds, after one that compiles.

    Args:
        arguments: What is given to ``fit``: ``x``, and what goes with it.
        workload: Of what.
        seconds: How long.

    Returns:
        ``records`` and the ``seconds`` that they took.
    """
    import keras

    class Count(keras.callbacks.Callback):
        """Counts batches, and ends training when the time is over."""

        n_batches = 0
        begun = 0.0

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.n_batches += 1
            if self.n_batches == 3:
                self.begun = time.perf_counter()
            elif self.n_batches > 3 and time.perf_counter() - self.begun > seconds:
                self.took = time.perf_counter() - self.begun
                self.model.stop_training = True

    model, count = _keras_model(workload), Count()
    model.fit(**arguments, epochs=1, verbose=0)
    model.fit(**arguments, epochs=1000, verbose=0, callbacks=[count])
    return {"records": (count.n_batches - 3) * workload.batch, "seconds": count.took}


def _keras_model(workload: Workload) -> Any:
    import keras

    layers = keras.layers
    if workload.name == "digits":
        hidden = [layers.Flatten(), layers.Dense(64, "relu")]
    else:
        hidden = [layers.Permute((2, 3, 1)), layers.Conv2D(8, 16, 16, activation="relu"), layers.Flatten()]
    model = keras.Sequential([layers.Input(workload.x[0]), *hidden, layers.Dense(10, "softmax")])
    model.compile("sgd", _loss)
    return model


def _loss(numbers: Any, scores: Any) -> Any:
    """The last digit of a record's number is its class; so everybody gives what is stored."""
    import keras

    return keras.losses.sparse_categorical_crossentropy(keras.ops.mod(numbers, 10), scores)

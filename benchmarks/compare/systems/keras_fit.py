"""What Keras's ``fit`` is given, on two backends: HyperSequence, arrays, and data sets that people write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..contenders import Contender, Shuffle
from ..workloads import Workload
from . import hypersequence, memmap

#: Makes what ``fit`` is given.
Maker = Callable[[Workload, Path], dict[str, Any]]


def as_keras(workload: Workload, folder: Path) -> dict[str, Any]:
    import hypersequence as hs

    return {"x": hs.open(folder / "data.hsq").as_keras(shuffle_on_epoch=True, seed=1)}


def as_tf_dataset(workload: Workload, folder: Path) -> dict[str, Any]:
    import hypersequence as hs

    return {"x": hs.open(folder / "data.hsq").shuffled(1).as_tf_dataset()}


def arrays(workload: Workload, folder: Path) -> dict[str, Any]:
    x, y = (np.array(array) for array in memmap.arrays(workload, folder))
    n = len(x) // workload.batch * workload.batch
    return {"x": x[:n], "y": y[:n], "batch_size": workload.batch}


def one_tensor(workload: Workload, folder: Path) -> dict[str, Any]:
    """The floor of TensorFlow: one batch over and over, without Python."""
    import tensorflow as tf

    x, y = memmap.arrays(workload, folder)
    batch = np.array(x[: workload.batch]), np.array(y[: workload.batch])
    return {"x": tf.data.Dataset.from_tensors(batch).repeat(len(x) // workload.batch)}


def data_set(workers: int, constant: bool) -> Maker:
    """A ``PyDataset`` as Keras's guide shows it; ``constant``: its floor, one batch over and over."""

    def make(workload: Workload, folder: Path) -> dict[str, Any]:
        import keras

        x, y = (np.asarray(array) for array in memmap.arrays(workload, folder))
        size = workload.batch
        first = np.array(x[:size]), np.array(y[:size])

        class Rows(keras.utils.PyDataset):
            def __init__(self) -> None:
                super().__init__(workers=workers, use_multiprocessing=False)
                self._order = np.random.default_rng(0).permutation(len(x))

            def __len__(self) -> int:
                return len(x) // size

            def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
                if constant:
                    return first
                numbers = self._order[index * size : (index + 1) * size]
                return x[numbers], y[numbers]

            def on_epoch_end(self) -> None:
                np.random.default_rng().shuffle(self._order)

        return {"x": Rows()}

    return make


_ALL = Shuffle("all records", True)
_TRAINED = ("digits", "images")


def _contender(
    name: str, make: Maker, backend: Literal["tensorflow", "jax"] = "tensorflow", limit: bool = False
) -> Contender:
    files, write = ("hypersequence", hypersequence.write) if "Hyper" in name else ("memmap", memmap.write)
    environment = "keras" if backend == "tensorflow" else "keras-jax"
    return Contender(
        f"{name} in fit{'' if backend == 'tensorflow' else ', JAX'}",
        environment,
        files,
        write,
        None,
        _ALL,
        workloads=_TRAINED,
        keras=make,
        backend=backend,
        only_trains=True,
        kind="limit" if limit else "loader",
    )


CONTENDERS = [
    _contender("HyperSequence, as_keras", as_keras),
    _contender("HyperSequence, as_tf_dataset", as_tf_dataset),
    _contender("arrays in memory", arrays, limit=True),
    _contender("one tensor over and over", one_tensor, limit=True),
    _contender("PyDataset, one batch over and over", data_set(1, True), limit=True),
    _contender("PyDataset over np.memmap", data_set(1, False)),
    _contender("PyDataset over np.memmap, two workers", data_set(2, False)),
    _contender("HyperSequence, as_keras", as_keras, "jax"),
    _contender("arrays in memory", arrays, "jax", limit=True),
    _contender("PyDataset, one batch over and over", data_set(1, True), "jax", limit=True),
    _contender("PyDataset over np.memmap", data_set(1, False), "jax"),
]

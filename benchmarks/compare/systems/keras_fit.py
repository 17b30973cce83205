"""What Keras's ``fit`` is given, on the TensorFlow backend: HyperSequence, arrays, and data sets that people write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..contenders import Contender, Shuffle
from ..workloads import Workload
from . import hypersequence, memmap


def ours(workload: Workload, folder: Path) -> dict[str, Any]:
    import hypersequence as hs

    seq = hs.open(folder / "data.hsq").map(_labelled)
    return {"x": seq.as_keras(shuffle_on_epoch=True, seed=1)}


def _labelled(batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return batch[0], batch[1] % 10


def arrays(workload: Workload, folder: Path) -> dict[str, Any]:
    x, y = (np.array(array) for array in memmap.arrays(workload, folder))
    n = len(x) // workload.batch * workload.batch
    return {"x": x[:n], "y": y[:n] % 10, "batch_size": workload.batch}


def data_set(workers: int, constant: bool) -> Callable[[Workload, Path], dict[str, Any]]:
    """A ``PyDataset`` as Keras's guide shows it; ``constant``: the floor, one batch over and over."""

    def make(workload: Workload, folder: Path) -> dict[str, Any]:
        import keras

        x, y = (np.asarray(array) for array in memmap.arrays(workload, folder))
        size = workload.batch
        first = np.array(x[:size]), np.array(y[:size] % 10)

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
                return x[numbers], y[numbers] % 10

            def on_epoch_end(self) -> None:
                np.random.default_rng().shuffle(self._order)

        return {"x": Rows()}

    return make


_ALL = Shuffle("all records", True)
_TRAINED = ("digits", "images")
CONTENDERS = [
    Contender(
        name, "keras", files, write, None, _ALL, workloads=_TRAINED, keras=keras, only_trains=True, is_limit=is_limit
    )
    for name, files, write, keras, is_limit in (
        ("HyperSequence, as_keras in fit", "hypersequence", hypersequence.write, ours, False),
        ("arrays in memory, in fit", "memmap", memmap.write, arrays, True),
        ("one batch over and over, in fit", "memmap", memmap.write, data_set(1, True), True),
        ("PyDataset over np.memmap, in fit", "memmap", memmap.write, data_set(1, False), False),
        ("PyDataset over np.memmap, two workers, in fit", "memmap", memmap.write, data_set(2, False), False),
    )
]

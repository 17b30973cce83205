"""Batches as PyTorch's, JAX's and TensorFlow's own, beside the loader's arrays and a ``DataLoader`` over memmaps.

``python -m benchmarks.frameworks [W1 W2 W3]`` (needs torch, jax and tensorflow). Records shuffled, hot page cache. Also
what JAX and TensorFlow take for nothing but handing over batches that are there already.
"""

from __future__ import annotations

import os
import statistics
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import tensorflow as tf
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

import hypersequence as hs

from .measure import aligned, folder, interleaved, ratio, row

#: Record shape, dtype, batch size, number of records.
WORKLOADS: dict[str, tuple[tuple[int, ...], type, int, int]] = {
    "W1": ((3, 224, 224), np.float32, 32, 960),
    "W2": ((140,), np.float64, 256, 256_000),
    "W3": ((4096,), np.int32, 32, 19_200),
}


class Memmap(Dataset):
    """What people write who have arrays on disk and no format."""

    def __init__(self, where: Path, shape: tuple[int, ...], dtype: type, n: int) -> None:
        self.x = np.memmap(where / "x.bin", dtype, "r", shape=(n, *shape))
        self.y = np.memmap(where / "y.bin", np.int64, "r", shape=(n,))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.as_tensor(np.array(self.x[index])), torch.as_tensor(np.array(self.y[index]))


def write(where: Path, shape: tuple[int, ...], dtype: type, size: int, n: int) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(n)
    with (
        (where / "x.bin").open("wb") as x,
        (where / "y.bin").open("wb") as y,
        hs.HyperSequenceWriter(where / "data.hsq", size) as writer,
    ):
        for start in range(0, n, size):
            part = rng.integers(0, 100, (min(size, n - start), *shape)).astype(dtype)
            writer.extend(part, labels[start : start + size])
            x.write(part.tobytes())
            y.write(labels[start : start + size].tobytes())


def walk(batches: Iterable[Any]) -> Callable[[], None]:
    def run() -> None:
        for _ in batches:
            pass

    return run


@tf.function
def consume(dataset: tf.data.Dataset) -> tf.Tensor:
    total = tf.constant(0, tf.int64)
    for _, labels in dataset:
        total += labels[0]
    return total


def put_again(n: int, batch: tuple[np.ndarray, np.ndarray]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(n):
            jax.device_put(batch)

    return run


def measure(name: str) -> None:
    shape, dtype, size, n = WORKLOADS[name]
    with folder() as where:
        write(where, shape, dtype, size, n)
        sequence = hs.open(where / "data.hsq").rebatch(size).shuffled(seed=1, by="record")
        n_batches = len(sequence)
        batch = aligned((size, *shape), dtype), aligned((size,), np.int64)
        batch[0][...], batch[1][...] = 0, 0
        there = tf.data.Dataset.from_tensors(tuple(map(tf.constant, batch))).repeat(n_batches)
        dataset = sequence.as_tf_dataset()
        seconds = interleaved(
            9,
            loader=walk(hs.Loader(sequence)),
            torch=walk(sequence.as_torch()),
            jax=walk(sequence.as_jax()),
            tf_eager=walk(dataset),
            tf_graph=lambda: consume(dataset),
            jax_itself=put_again(n_batches, batch),
            tf_eager_itself=walk(there),
            tf_graph_itself=lambda: consume(there),
        )

        def us(which: str) -> str:
            return f"{statistics.median(seconds[which]) / n_batches * 1e6:,.0f} us"

        print(f"\n{name}: {size} records of {np.prod(shape) * np.dtype(dtype).itemsize:,} bytes a batch\n")
        row("", "a batch", "of the loader", "framework itself")
        row("hs.Loader, NumPy", us("loader"), "", "")
        for which, itself in (("torch", ""), ("jax", "jax"), ("tf_eager", "tf_eager"), ("tf_graph", "tf_graph")):
            row(which, us(which), f"{ratio(seconds, 'loader', which):.2f}", us(f"{itself}_itself") if itself else "")

        memmap = Memmap(where, shape, dtype, n)
        peers = {
            "a record at a time": DataLoader(memmap, batch_size=size, shuffle=True),
            "a batch at a time": DataLoader(memmap, batch_size=None, sampler=sampler(memmap, size)),
            "a record, 2 workers": DataLoader(memmap, size, shuffle=True, num_workers=2, persistent_workers=True),
            "a batch, 2 workers": DataLoader(
                memmap, None, sampler=sampler(memmap, size), num_workers=2, persistent_workers=True
            ),
        }
        passes = {name: walk(loader) for name, loader in peers.items()}
        seconds = interleaved(3, torch=walk(sequence.as_torch()), **passes)
        print()
        row("DataLoader over np.memmap", "a batch", "as_torch is faster")
        for which in peers:
            row(which, us(which), f"{ratio(seconds, which, 'torch'):.1f} x")


def sampler(dataset: Dataset, size: int) -> BatchSampler:
    return BatchSampler(RandomSampler(dataset), size, drop_last=False)


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    warnings.filterwarnings("ignore", "os.fork", RuntimeWarning)  # DataLoader's workers do not use JAX
    for name in sys.argv[1:] or WORKLOADS:
        measure(name)


if __name__ == "__main__":
    main()

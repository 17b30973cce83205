"""One pass over what a contender gives: how fast, and what came."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Literal

import numpy as np

from .contenders import Contender, Epochs
from .memory import Buffers
from .training import train_torch
from .usage import cpu_seconds
from .workloads import Workload

Mode = Literal["consumed", "handed"]


class Feed:
    """Batches, epoch after epoch.

    Args:
        contender: Who gives them.
        workload: Of what.
        epochs: What its ``open`` returned.
    """

    def __init__(self, contender: Contender, workload: Workload, epochs: Epochs) -> None:
        self._contender, self._workload, self._epochs = contender, workload, epochs
        self._epoch = 0

    @cached_property
    def _buffers(self) -> Buffers:
        """For batches that are no buffers themselves."""
        return Buffers(self._workload)

    def _endless(self) -> Iterator[tuple[Any, Any]]:
        while True:
            batches = self._epochs(self._epoch)
            self._epoch += 1
            yield from batches

    def run(self, seconds: float, mode: Mode) -> dict[str, float]:
        """Batches for so many seconds, one epoch after another; the rate is that from the first batch on.

        Returns:
            ``records`` after the first batch, the ``seconds`` that they took, ``first_s`` until the first batch, and
            processor time of all processes (``cpu_s``) with the records (``cpu_records``) that it was spent on.
        """
        copied = mode == "consumed" and not self._contender.device_ready
        pid = os.getpid()
        cpu = cpu_seconds(pid)
        begun = time.perf_counter()
        batches = self._endless()
        n_first = self._take(next(batches), copied)
        first = time.perf_counter()
        n_records = 0
        now = first
        for batch in batches:
            n_records += self._take(batch, copied)
            now = time.perf_counter()
            if now - first >= seconds:
                break
        cpu = cpu_seconds(pid) - cpu
        batches.close()
        return {
            "first_s": first - begun,
            "records": n_records,
            "seconds": now - first,
            "cpu_s": cpu,
            "cpu_records": n_records + n_first,
        }

    def train(self, seconds: float) -> dict[str, float]:
        """A small PyTorch model trained on batches for so many seconds."""
        return train_torch(self._endless(), self._workload, seconds)

    def run_epoch(self, at_most: float) -> dict[str, float]:
        """One epoch from asking for it to its last batch, copied: for files that are not in memory."""
        pid = os.getpid()
        copied = not self._contender.device_ready
        cpu, begun, first = cpu_seconds(pid), time.perf_counter(), 0.0
        n_records = 0
        for batch in self._epochs(self._epoch):
            n_records += self._take(batch, copied)
            first = first or time.perf_counter() - begun
            if time.perf_counter() - begun > at_most:
                break
        seconds = time.perf_counter() - begun
        self._epoch += 1
        return {
            "first_s": first,
            "records": n_records,
            "seconds": seconds,
            "cpu_s": cpu_seconds(pid) - cpu,
            "cpu_records": n_records,
        }

    def _take(self, batch: tuple[Any, Any], copied: bool) -> int:
        """A batch as a consumer meets it; how many records it has."""
        x, y = (np.asarray(array) for array in batch)
        if copied:
            to_x, to_y = self._buffers.next()
            to_x[: len(x)] = x
            to_y[: len(y)] = y.reshape(len(y), *to_y.shape[1:])
        return len(x)

    def check(self, n_written: int, seconds: float) -> dict[str, Any]:
        """What came of an epoch: whether values and dtypes are those that were written, and how records were ordered.

        Args:
            n_written: Records in the files.
            seconds: Look no longer than this.

        Returns:
            ``dtypes`` of the arrays; ``wrong``, records (of four a batch) that are not those that were written;
            ``seen`` and ``twice``, how many records came and how many more than once; ``neighbours``, the share of
            records that follow the one before them in the file (1 in order, next to 0 in a shuffle of records);
            ``reach``, from how much of the file the records of one batch come (median; all shuffled: next to 1).
        """
        workload = self._workload
        end = time.perf_counter() + seconds
        batches: list[np.ndarray] = []
        wrong = 0
        dtypes: list[str] = []
        for batch in self._epochs(self._epoch):
            x, y = (np.asarray(array) for array in batch)
            dtypes = [str(x.dtype), str(y.dtype)]
            numbers = workload.numbers(y)
            batches.append(numbers)
            for row in range(0, len(numbers), max(1, len(numbers) // 4)):
                made = workload.make(int(numbers[row]), int(numbers[row]) + 1)
                wrong += not all(map(_is_same, (x[row], y[row]), made))
            if time.perf_counter() > end:
                break
        self._epoch += 1
        if not batches:
            raise ValueError(f"no batch in {seconds} s")
        order = np.concatenate(batches)
        spans = [int(numbers.max() - numbers.min()) + 1 for numbers in batches]
        return {
            "dtypes": dtypes,
            "wrong": wrong,
            "seen": len(order),
            "twice": len(order) - len(np.unique(order)),
            "neighbours": float(np.mean(np.diff(order) == 1)) if len(order) > 1 else 1.0,
            "reach": float(np.median(spans)) / n_written,
        }


def _is_same(found: np.ndarray, made: np.ndarray) -> bool:
    return found.dtype == made.dtype and np.array_equal(np.reshape(found, made.shape[1:]), made[0])

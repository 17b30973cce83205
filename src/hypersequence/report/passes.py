"""Passes over a part of some files, timed: from memory again and again, from disk after dropping them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Literal, NamedTuple, cast

from ..errors import ArgumentError
from ..loader import Loader
from ..loader.stretches import come_alone, n_swept
from ..sequence import HyperSequence, open_files
from ..sequence.inside import first_records, source_of
from .limits import DiskLimit, forget, parts_of

ORDERS = ("in order", "batch", "window", "record")
#: A shuffle from disk has so many windows of what is read.
WINDOWS = 4
#: So much is read from disk for a figure, and so much tells how fast it is.
_LEAST_COLD_NBYTES, _MOST_COLD_NBYTES, _TRIAL_NBYTES = 32 << 20, 2 << 30, 64 << 20
#: A pass from disk that takes so many times as long as it should is left.
_PATIENCE = 4
#: Files are brought into memory for so long at most.
_WARM_S = 5.0
_ENDLESS = 1 << 30
_SEED = 1


class Subject(NamedTuple):
    """What is measured, as it is opened again and again."""

    path: Any
    paths: tuple[str, ...]
    n_records: int
    record_nbytes: int
    batch_size: int
    block_nbytes: int
    comes_alone: bool
    threads: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all records."""
        return self.n_records * self.record_nbytes

    def first(self, seq: HyperSequence, n_records: int) -> HyperSequence:
        """So many of the first records of a sequence, as if there were no others."""
        return first_records(seq, n_records, self.batch_size)

    def records_of(self, nbytes: float) -> int:
        """How many records have at least so many bytes: whole batches, and no more than there are."""
        n_batches = -(-int(nbytes) // (self.batch_size * self.record_nbytes))
        return min(self.n_records, n_batches * self.batch_size)


def subject_of(seq: HyperSequence, path: Any, threads: tuple[int, ...]) -> Subject:
    """What there is to know of a sequence that was opened by its path.

    Raises:
        ArgumentError: It has no bytes.
    """
    source = source_of(seq)
    files = source.files()
    nbytes = seq.schema.record_nbytes
    if not seq.n_records * nbytes:
        what = "records have no bytes" if seq.n_records else "there are no records"
        raise ArgumentError(f"{files[0].path}: {what}, so there is nothing to measure")
    paths = tuple(dict.fromkeys(file.path for file in files))
    size = min(seq.batch_size(), seq.n_records)
    alone = come_alone(source, range(len(source.schema.columns)))
    return Subject(path, paths, seq.n_records, nbytes, size, files[0].stored.stride, alone, threads)


class Figure(NamedTuple):
    """What was measured in one round: records or bytes a second, seconds to the first batch, processor use."""

    rate: float
    first_s: float = 0.0
    busy: float = 0.0


class Passes:
    """Takes single figures of one subject.

    Args:
        subject: What is read.
        seconds: How long a figure takes, about.
    """

    def __init__(self, subject: Subject, seconds: float) -> None:
        self._subject, self._seconds = subject, seconds
        self._longest_s = 0.0  # of a pass from disk

    def warm(self, part: HyperSequence) -> int:
        """Bring records into memory and check them; gives how many that are when it has taken long enough."""
        loader, begun = Loader(part), time.perf_counter()
        with closing(iter(loader)) as batches:
            for _ in batches:
                if time.perf_counter() - begun > _WARM_S:
                    break
        return loader.stats.records

    def alone(self, limit: Callable[[float], float]) -> Figure:
        """What one thread does without us."""
        clock = _Clock()
        rate = limit(self._seconds)
        return Figure(rate, busy=clock.busy())

    def hot(self, seq: HyperSequence, threads: int) -> Figure:
        """Records a second, after the first batch, for as long as a figure takes, epoch after epoch."""
        loader = Loader(seq, threads=threads, epochs=_ENDLESS)
        with closing(iter(loader)) as batches:
            next(batches)
            n_first, clock = loader.stats.records, _Clock()
            for _ in batches:
                if clock.seconds() >= self._seconds:
                    break
            stats, busy = loader.stats, clock.busy()
        return Figure((stats.records - n_first) / stats.elapsed_s, stats.first_s, busy)

    def sample(self, most_nbytes: int) -> tuple[int, DiskLimit]:
        """As many records as a figure has time for, and the disk reading them."""
        subject = self._subject
        n_tried = subject.records_of(_TRIAL_NBYTES)
        rate = self.disk_alone(self._limit_of(n_tried)).rate
        self._longest_s = _PATIENCE * max(self._seconds, n_tried * subject.record_nbytes / rate)
        tried = self.cold("in order", subject.threads[-1], n_tried, 1, 1.0)
        rate = min(rate, tried.rate * subject.record_nbytes)
        wanted = max(_LEAST_COLD_NBYTES, 2 * WINDOWS * subject.block_nbytes, rate * self._seconds)
        n_records = subject.records_of(min(wanted, most_nbytes, _MOST_COLD_NBYTES))
        self._longest_s = _PATIENCE * max(self._seconds, n_records * subject.record_nbytes / rate)
        return n_records, self._limit_of(n_records)

    def _limit_of(self, n_records: int) -> DiskLimit:
        with open_files(self._subject.path) as seq:
            return DiskLimit(parts_of(source_of(seq), n_records))

    def n_swept(self) -> int | None:
        """Of how many records a shuffle by record passes over all of them, if it does."""
        with open_files(self._subject.path) as seq:
            return n_swept(ordered(seq.rebatch(self._subject.batch_size), "record", 1))

    def disk_alone(self, limit: DiskLimit) -> Figure:
        """What the disk does without us."""
        if not limit.direct:
            forget(self._subject.paths)
        return Figure(limit.rate())

    def cold(self, order: str, threads: int, n_records: int, window: int, scale: float) -> Figure:
        """Records a second and seconds to the first batch, with the opening of the file; small files several times.

        Args:
            order: One of ``ORDERS``.
            threads: Of the loader.
            n_records: So many of the first records are read.
            window: Bytes of a window, for that order.
            scale: How much longer than here the first batch would be waited for, were all records read.
        """
        records, spent, busy, firsts = 0, 0.0, 0.0, list[float]()
        while spent < self._seconds / 2:
            forget(self._subject.paths)
            clock = _Clock()
            with open_files(self._subject.path) as seq:
                loader = Loader(ordered(self._subject.first(seq, n_records), order, window), threads=threads)
                with closing(iter(loader)) as batches:
                    next(batches)
                    firsts.append(clock.seconds())
                    for _ in batches:
                        if clock.seconds() > self._longest_s:
                            break
                    spent += clock.seconds()
                    busy = clock.busy()
                records += loader.stats.records
                del batches, loader  # what is mapped cannot be dropped
        return Figure(records / spent, statistics.median(firsts) * scale, busy)


class _Clock:
    """Seconds since it was made, and how much of a processor this process used in them."""

    def __init__(self) -> None:
        self._begun, self._begun_busy = time.perf_counter(), time.process_time()

    def seconds(self) -> float:
        return time.perf_counter() - self._begun

    def busy(self) -> float:
        return (time.process_time() - self._begun_busy) / self.seconds()


def ordered(seq: HyperSequence, order: str, window: int) -> HyperSequence:
    """A sequence in one of ``ORDERS``."""
    if order == "in order":
        return seq
    by = cast("Literal['batch', 'window', 'record']", order)
    return seq.shuffled(_SEED, by=by, window=window)

"""How fast a file feeds training on this machine, beside what the machine can do at all."""

from __future__ import annotations

import html
import math
import os
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from ..errors import ArgumentError
from ..loader.memory import available_nbytes
from ..loader.stretches import reasonable_nbytes
from ..loader.threads import SPARE, default_threads, n_processors
from ..progress import Progress
from ..sequence import open_files
from ..sequence.arguments import whole_number
from ..sequence.core import DEFAULT_WINDOW_NBYTES
from ..sequence.display import readable_nbytes
from ..sequence.inside import source_of
from ..sequence.opening import PathLike
from .advice import SMALL_NBYTES, BenchRow, advise, readable_count, readable_seconds
from .limits import MemoryLimit, can_forget
from .passes import ORDERS, WINDOWS, Figure, Passes, Subject, ordered, subject_of
from .tables import TextTable, as_text

#: At most so much is measured from memory: two windows of the default size.
_HOT_NBYTES = 1 << 30
#: On an idle machine a thread that only copies gets more of a processor than this.
_IDLE = 0.9


@dataclass(frozen=True)
class Bench:
    """How fast files feed training on this machine; what :func:`bench` gives.

    ``print`` shows it as tables, a notebook as well. Immutable.

    Attributes:
        paths: The files.
        n_records: Their records.
        record_nbytes: Bytes of a record.
        batch_size: Records of a batch.
        n_processors: Processors that this process may use.
        available_nbytes: Memory that was free, the page cache included; ``None`` where the system does not tell.
        rows: The figures, one an order, a number of threads and a place.
        notes: What to know about them.
        verdict: What the bottleneck is, and which settings to use.
    """

    paths: tuple[str, ...]
    n_records: int
    record_nbytes: int
    batch_size: int
    n_processors: int
    available_nbytes: int | None
    rows: tuple[BenchRow, ...]
    notes: tuple[str, ...]
    verdict: str

    @property
    def title(self) -> str:
        """What was measured."""
        names = self.paths[0] if len(self.paths) == 1 else f"{self.paths[0]} and {len(self.paths) - 1} more"
        total = readable_nbytes(self.n_records * self.record_nbytes)
        return (
            f"{names}: {self.n_records:,} records of {readable_nbytes(self.record_nbytes)}, {total}, in batches of "
            f"{self.batch_size:,} ({readable_nbytes(self.batch_size * self.record_nbytes)}); "
            f"{self.n_processors} processors"
        )

    def tables(self) -> list[TextTable]:
        """The figures as text: for each place a table with a row an order."""
        return [
            table
            for place, title in (("memory", "From memory (page cache)"), ("disk", "From disk"))
            if (table := self._table(place, title)) is not None
        ]

    def _table(self, place: str, title: str) -> TextTable | None:
        rows = [row for row in self.rows if row.place == place]
        if not rows:
            return None
        threads = sorted({row.threads for row in rows})
        header = ["order", *(f"threads={n}" for n in threads), "limit", "best records/s"]
        header += ["first batch"] if place == "disk" else []
        lines: list[tuple[str, ...]] = []
        for order in ORDERS:
            own = {row.threads: row for row in rows if row.order == order}
            if not own:  # a note says why
                continue
            best = max(own.values(), key=lambda row: row.nbytes_per_s)
            line = [order if order == "in order" else f"by {order}"]
            line += [f"{own[n].nbytes_per_s / 1e9:.3g} {own[n].ratio:>4.0%}" for n in threads]
            line += [f"{best.limit_nbytes_per_s / 1e9:.3g} {best.limit}", readable_count(best.records_per_s)]
            lines.append((*line, *([readable_seconds(best.first_s)] if place == "disk" else [])))
        return TextTable(f"{title}: GB/s, share of the limit", tuple(header), tuple(lines), frozenset({0}))

    def __str__(self) -> str:
        told = [as_text([self.title], self.tables()), "\n".join(self.notes), self.verdict]
        return "\n\n".join(filter(None, told))

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def bench(
    path: PathLike | Sequence[PathLike],
    *,
    batch_size: int | None = None,
    seconds: float = 1.0,
    rounds: int = 3,
    cold: bool = True,
    threads: Sequence[int] | None = None,
    progress: bool = False,
) -> Bench:
    """Measure how fast files feed training on this machine: each order, from memory and from disk, by threads.

    Figures are those of :class:`hypersequence.Loader`, with a loop that does nothing else, beside what the machine can
    do at all: from memory one copy of a batch, or for shuffles one ``np.take``, into an aligned buffer by one thread;
    from disk reading the same part of the file in a row past the page cache. They are taken in turn, round by round in
    changing order, and medians count. From memory at most the first GiB is measured, from disk as much as can be
    read in the time.

    Args:
        path: As for :func:`hypersequence.open`: a file of any version, a pattern, or several.
        batch_size: Records of a batch; ``None`` for that of the file.
        seconds: How long each figure is measured, all rounds together; 1 by default, which steady machines need.
        rounds: How many rounds, 3 by default, so that a slow one does not count.
        cold: Measure from disk too, on Linux: the file is dropped from the page cache, again and again, which slows
            down whoever else is reading it.
        threads: Numbers of threads for the loader; ``None`` for 0, 1, 2 and as many as it takes by itself.
        progress: Show a progress bar on a terminal. ``False`` (default) is silent.

    Returns:
        The figures, and in a sentence or two what they mean. What cannot be measured is left out, and a note says why:
        from memory, what does not fit into the memory that is free; from disk, where the system does not let go of a
        file's pages.

    Raises:
        ArgumentError: There is nothing that can be measured.

    Thread-safe; but whatever else is at work is measured too.

    >>> import hypersequence as hs
    >>> from hypersequence.report.feeding import bench
    >>> found = bench(example_path, seconds=0.01, rounds=1, cold=False, threads=[0])
    >>> [row.order for row in found.rows]
    ['in order', 'batch', 'window', 'record']
    """
    rounds = whole_number(rounds, "rounds", 1)
    if not 0 < seconds < math.inf:
        raise ArgumentError(f"seconds: expected more than 0 and an end, got {seconds!r}")
    if threads is None:
        threads = (0, 1, 2, default_threads(SPARE))
    threads = sorted({whole_number(number, "threads", 0, most=1024) for number in threads})
    if not threads:
        raise ArgumentError("threads: expected at least one number")
    with open_files(path) as seq:
        subject = subject_of(seq if batch_size is None else seq.rebatch(batch_size), path, tuple(threads))
    return _Measuring(subject, seconds / rounds, rounds).run(cold, progress)


#: One kind of figure: an order and a number of threads; -1 for a limit and its name.
_Kind: TypeAlias = tuple[str, int]
_COPY, _TAKE, _DISK = ("one copy", -1), ("np.take", -1), ("disk", -1)


class _Measuring:
    """Takes the figures of one file.

    Args:
        subject: What is measured.
        seconds: How long a figure of one round takes.
        rounds: How many rounds.
    """

    def __init__(self, subject: Subject, seconds: float, rounds: int) -> None:
        self._subject, self._rounds = subject, rounds
        self._available = available_nbytes()
        self._notes: list[str] = []
        self._window_nbytes = DEFAULT_WINDOW_NBYTES
        self._passes = Passes(subject, seconds)
        self._kinds: list[_Kind] = [(order, n) for order in ORDERS for n in subject.threads]
        self._n_swept = self._passes.n_swept()
        # A pass over everything may take minutes, and what comes of it can be reckoned.
        self._cold_kinds = [kind for kind in self._kinds if kind[0] != "record" or self._n_swept is None]

    def run(self, cold: bool, progress: bool) -> Bench:
        """Everything that can be measured."""
        subject, rows = self._subject, list[BenchRow]()
        cold = cold and self._knows_how_to_drop()
        fits = self._available is None or subject.nbytes <= self._available
        if not fits:
            self._note(
                f"The records ({readable_nbytes(subject.nbytes)}) do not fit into the memory that is free "
                f"({readable_nbytes(self._available or 0)}), so they are measured from disk only."
            )
        n_figures = self._rounds * (fits * (len(self._kinds) + 2) + cold * (len(self._cold_kinds) + 1))
        with _FigureProgress("measuring", n_figures, progress) as bar:
            if fits:
                rows += self._from_memory(bar)
            if cold:
                rows += self._from_disk(bar, fits)
        if not rows:
            raise ArgumentError(f"{subject.paths[0]}: nothing could be measured. {' '.join(self._notes)}".rstrip())
        if subject.nbytes < SMALL_NBYTES:
            self._note(
                f"{readable_nbytes(subject.nbytes)} is little: figures from memory are those of the processor's cache, "
                "and those from disk have the opening of the file in them."
            )
        verdict = advise(
            rows,
            n_records=subject.n_records,
            record_nbytes=subject.record_nbytes,
            batch_size=subject.batch_size,
            block_nbytes=subject.block_nbytes,
            default_threads=default_threads(SPARE),
            n_processors=n_processors(),
            window_nbytes=self._window_nbytes,
            fits=fits,
        )
        facts = subject.paths, subject.n_records, subject.record_nbytes, subject.batch_size
        return Bench(*facts, n_processors(), self._available, tuple(rows), tuple(self._notes), verdict)

    def _note(self, text: str) -> None:
        self._notes.append(text)

    # --- from memory ---------------------------------------------------------------------------------------------

    def _from_memory(self, bar: _FigureProgress) -> list[BenchRow]:
        subject = self._subject
        with open_files(subject.path) as seq:
            n_records = self._passes.warm(subject.first(seq, subject.records_of(_HOT_NBYTES)))
            part = subject.first(seq, n_records)
            limit = MemoryLimit(source_of(seq), n_records, subject.batch_size)
            measures: dict[_Kind, Callable[[], Figure]] = {
                _COPY: partial(self._passes.alone, limit.copy),
                _TAKE: partial(self._passes.alone, limit.gather),
            }
            for order, n in self._kinds:
                measures[order, n] = partial(self._passes.hot, ordered(part, order, DEFAULT_WINDOW_NBYTES), n)
            found = self._interleaved(measures, bar)
        if n_records < subject.n_records:
            self._note(f"From memory, the first {readable_nbytes(n_records * subject.record_nbytes)} were measured.")
        busy = statistics.median(figure.busy for kind in (_COPY, _TAKE) for figure in found[kind])
        if busy < _IDLE:
            self._note(
                f"The machine was busy with something else: one thread got {busy:.0%} of a processor. Measure again "
                "when it is idle."
            )
        return [
            self._row("memory", kind, found, _COPY)
            if kind[0] in ("in order", "batch")
            else self._row("memory", kind, found, _TAKE, limit.gather_name)
            for kind in self._kinds
        ]

    # --- from disk -----------------------------------------------------------------------------------------------

    def _knows_how_to_drop(self) -> bool:
        """Whether this system can be asked to drop files from the page cache; a note says that it cannot."""
        if hasattr(os, "posix_fadvise") and hasattr(os, "RWF_NOWAIT"):
            return True
        self._note("From disk nothing was measured: only Linux drops a file from memory when it is asked to.")
        return False

    def _drops(self) -> bool:
        """Whether these files can be dropped; a note says that they cannot."""
        if can_forget(self._subject.paths):
            return True
        self._note(
            "From disk nothing was measured: the system keeps the file in memory. Its disk may be memory itself, or "
            "another program has it mapped."
        )
        return False

    def _from_disk(self, bar: _FigureProgress, fits: bool) -> list[BenchRow]:
        if not self._drops():
            return []
        subject = self._subject
        most_nbytes = subject.nbytes if fits or self._available is None else self._available // 4
        n_records, limit = self._passes.sample(most_nbytes)
        nbytes = n_records * subject.record_nbytes
        self._window_nbytes = window = min(DEFAULT_WINDOW_NBYTES, max(1, nbytes // WINDOWS))
        measures: dict[_Kind, Callable[[], Figure]] = {_DISK: partial(self._passes.disk_alone, limit)}
        for order, n in self._cold_kinds:
            # What is too much to be read at once is read record by record, and a part of it would not show that.
            count = subject.n_records if order == "record" and subject.nbytes > reasonable_nbytes() else n_records
            # What the first batch waits for, as a multiple of what it waits for here.
            scale = 1.0
            if order == "record" and not subject.comes_alone:
                scale = subject.n_records / count
            elif order == "window" and not (subject.comes_alone and fits):  # what does not fit is evicted
                here = min(max(window, subject.block_nbytes), nbytes)
                if subject.comes_alone:
                    here = subject.batch_size * subject.record_nbytes
                scale = min(DEFAULT_WINDOW_NBYTES, subject.nbytes) / here
            measures[order, n] = partial(self._passes.cold, order, n, count, window, scale)
        found = self._interleaved(measures, bar)
        if n_records < subject.n_records:
            self._note(
                f"From disk, the first {readable_nbytes(nbytes)} were read for each figure, in windows of "
                f"{readable_nbytes(window)}; the time to the first batch is reckoned for all of it."
            )
        if not limit.direct:
            self._note("The disk was read through the page cache, since its file system has no way past it.")
        if self._n_swept is not None:
            part, whole = (readable_nbytes(n * subject.record_nbytes) for n in (self._n_swept, subject.n_records))
            self._note(
                f"From disk, a shuffle by record was not measured: for each {part} of records it reads all {whole}, so "
                f"that {self._n_swept / subject.n_records:.0%} of the disk's rate are the most it comes to."
            )
        return [self._row("disk", kind, found, _DISK) for kind in self._cold_kinds]

    # --- both ----------------------------------------------------------------------------------------------------

    def _interleaved(
        self, measures: dict[_Kind, Callable[[], Figure]], bar: _FigureProgress
    ) -> dict[_Kind, list[Figure]]:
        """Figures taken in turn, in changing order, so that a slow moment meets them all."""
        found: dict[_Kind, list[Figure]] = {kind: [] for kind in measures}
        for _ in range(self._rounds):
            for kind in random.sample(list(measures), len(measures)):
                found[kind].append(measures[kind]())
                bar.advance(1)
        return found

    def _row(
        self, place: str, kind: _Kind, found: dict[_Kind, list[Figure]], limit: _Kind, name: str | None = None
    ) -> BenchRow:
        own, limits = found[kind], [each.rate for each in found[limit]]
        nbytes = self._subject.record_nbytes
        records_per_s = statistics.median(each.rate for each in own)
        return BenchRow(
            place=place,
            order=kind[0],
            threads=kind[1],
            nbytes_per_s=records_per_s * nbytes,
            records_per_s=records_per_s,
            first_s=statistics.median(each.first_s for each in own),
            limit=name or limit[0],
            limit_nbytes_per_s=statistics.median(limits),
            ratio=statistics.median(each.rate * nbytes / rate for each, rate in zip(own, limits, strict=True)),
            busy=statistics.median(each.busy for each in own),
        )


class _FigureProgress(Progress):
    """A bar that counts figures."""

    def _columns(self, progress: Any) -> tuple[Any, ...]:
        return (progress.MofNCompleteColumn(), progress.TextColumn("figures"))

"""One pass at work: jobs in flight, handed over in order."""

# The loader reads sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from ..schema import Array, Batch
from ..sequence import HyperSequence
from ..sequence.delivery import Allocate
from ..source.buffers import lease
from .buffers import Ring, lease_bytes
from .jobs import PART_NBYTES, Inline, Job
from .legs import Chunk, Leg, legs
from .readahead import ReadAhead, n_staying
from .state import Cursor
from .stats import LoaderStats
from .threads import Threads

_IN_FLIGHT_NBYTES = 16 << 20
_MAX_JOBS = 16


@dataclass(frozen=True, slots=True)
class Settings:
    """How a person wants batches to be made."""

    threads: int
    prefetch: int | None
    buffers: str | Callable[[int], Array]
    evict: bool | None


@dataclass(frozen=True, slots=True)
class _Planned:
    """Batches of a job that is still to be made; inline, each is made when it is asked for."""

    leg: Leg
    chunk: Chunk
    first: int
    last: int
    inline: bool

    @property
    def end(self) -> int:
        return self.leg.position(self.last)


class Run:
    """Makes and hands over the batches of one pass. For one thread at a time.

    Args:
        sequence: What is read.
        settings: How.
        cursor: Where to begin; kept up to date.
        end_epoch: The epoch before which the pass ends.
        stats: Kept up to date.
    """

    def __init__(
        self, sequence: HyperSequence, settings: Settings, cursor: Cursor, end_epoch: int, stats: LoaderStats
    ) -> None:
        self._cursor, self._end_epoch, self._stats = cursor, end_epoch, stats
        self._views = settings.buffers == "view"
        record_nbytes = sum(column.field.nbytes for column in sequence.columns)
        stats.record_nbytes = record_nbytes
        batch_nbytes = max(1, record_nbytes * min(sequence.batch_size(), sequence.n_records))
        prefetch = settings.prefetch or min(4096, max(2, _IN_FLIGHT_NBYTES // batch_nbytes))
        self._job_batches = max(1, min(PART_NBYTES // batch_nbytes, prefetch // 4))
        self._n_jobs = max(1, min(_MAX_JOBS, prefetch // self._job_batches))
        self._memory: Callable[[], Allocate] = lambda: lease
        if callable(settings.buffers) or settings.buffers == "reuse":
            allocate = settings.buffers if callable(settings.buffers) else lease_bytes
            nbytes = self._job_batches * (batch_nbytes + 64 * len(sequence.columns))
            self._memory = Ring(self._n_jobs + 2, nbytes, allocate).take
        self._pool = Threads(settings.threads, "hsq gather") if settings.threads else None
        # Two of one thread each, since the first gives work to the second.
        self._reader, self._beside = [Threads(1, "hsq read ahead") if settings.threads else None for _ in range(2)]
        epoch, position = cursor.place()
        staying = n_staying(sequence, epoch) if settings.evict is None else 0
        self._evict = settings.evict is not False and staying < sequence._source.n_records
        coming = legs(sequence, epoch, position, end_epoch)
        self._planned = self._plan(coming)
        self._next: _Planned | None = next(self._planned, None)
        self._ahead = ReadAhead(
            sequence._source,
            sequence._delivery.chosen,
            legs(sequence, epoch, position, end_epoch),
            self._reader,
            self._beside,
            self._evict,
            staying,
            stats,
        )
        self._jobs: deque[Job | Inline] = deque()
        self._current: Job | Inline | None = None
        self._number = 0  # of the next batch of the current job
        self._begun_at: float | None = None  # when the first batch was handed over

    def _plan(self, coming: Iterator[Leg]) -> Generator[_Planned]:
        """The batches of a pass, as many at a time as are made together; few at first, so that the first comes soon."""
        n_together = 1
        for leg in coming:
            for first, last, chunk in leg.chunks():
                inline = self._pool is None or (self._views and leg.delivery.plain and leg.is_contiguous(first))
                while first < last:
                    end = last if inline else min(first + n_together, last)  # inline, as far as reading ahead has come
                    yield _Planned(leg, chunk, first, end, inline)
                    first, n_together = end, min(2 * n_together, self._job_batches)

    def next(self) -> Batch | None:
        """The next batch; ``None`` when the pass is over."""
        begun = time.perf_counter()
        job, number = self._current, self._number
        if job is None or number == job.last:
            job = self._take()
            if job is None:
                return None
            number = job.first
        batch = job.batch(number)
        self._number = number + 1
        self._cursor.handed_over(job.leg, number)
        self._count(begun, 1, job.leg.n_records(number))
        return batch

    def next_together(self) -> tuple[int, Batch] | None:
        """The next batches that lie one behind the other in memory, as if they were one batch, and how many they are.

        ``None`` when the pass is over.
        """
        begun = time.perf_counter()
        job, first = self._current, self._number
        if job is None or first == job.last:
            job = self._take()
            if job is None:
                return None
            first = job.first
        n_batches, batch = job.together(first)
        self._number = last = first + n_batches
        self._cursor.handed_over(job.leg, last - 1)
        start, stop = job.leg.bounds(first, last)
        self._count(begun, n_batches, stop - start)
        return n_batches, batch

    def _count(self, begun: float, n_batches: int, n_records: int) -> None:
        """Take into the statistics what somebody asked for at that moment and gets now."""
        stats = self._stats
        stats.batches += n_batches
        stats.records += n_records
        now = time.perf_counter()
        if self._begun_at is None:
            stats.first_s, self._begun_at = now - begun, now
        else:
            stats.waited_s += now - begun
            stats.elapsed_s = now - self._begun_at

    def _take(self) -> Job | Inline | None:
        """The next job, done; ``None`` when there is none left."""
        self._current = None
        self._top_up()
        if not self._jobs:
            self._cursor.move(self._end_epoch, 0)
            return None
        job = self._jobs[0]
        self._note_queue()
        while not job.done:
            # Rather than wait, make what no thread has begun: of this job, or of one behind it.
            if not any(other.help() for other in self._jobs):
                job.wait()
        self._jobs.popleft()
        self._stats.gather_s += job.gather_s
        self._stats.map_s += job.map_s
        self._current = job
        return job

    def _note_queue(self) -> None:
        """Take the share of jobs that are ready into the mean."""
        stats = self._stats
        ready = sum(job.done for job in self._jobs) / self._n_jobs
        weight = self._job_batches / max(self._job_batches, stats.batches + self._job_batches)
        stats.queue_fill += (ready - stats.queue_fill) * weight

    def _top_up(self) -> None:
        """Have as many jobs in flight as there may be, and the disk at work."""
        while self._next is not None and len(self._jobs) < (self._n_jobs if self._pool else 1):
            planned = self._within_stretch(self._next)
            epoch, end = planned.leg.epoch, planned.end
            job = None
            if not (self._ahead.is_current(epoch, end) and self._ahead.is_ready(epoch, end)):
                if self._jobs and not self._may_move_on(epoch, end):
                    break  # there is something to hand over meanwhile
                job = self._begun_before_eviction(planned)
                self._ahead.wait(epoch, planned.leg.position(planned.first), end)
            self._jobs.append(self._job(planned, job))
            if planned.last < self._next.last:
                self._next = replace(self._next, first=planned.last)
            else:
                self._next = next(self._planned, None)
            self._ahead.push(epoch, end)
        if self._next is not None:
            self._ahead.push(self._next.leg.epoch, self._next.end)

    def _within_stretch(self, planned: _Planned) -> _Planned:
        """As many of the batches as need nothing behind the stretch in use, where that matters; at least one."""
        swept = self._ahead.sweep() is not None
        if not (self._evict or planned.inline or swept):
            return planned
        leg = planned.leg
        in_use = self._ahead.is_current(leg.epoch, leg.position(planned.first) + 1)
        last = leg.n_batches_before(self._ahead.current_end()) if in_use else planned.first + 1
        if swept:  # whose batches are copied, and so no more of them at a time than of others
            last = min(last, planned.first + (self._job_batches if self._pool else 1))
        return replace(planned, last=min(planned.last, max(last, planned.first + 1)))

    def _begun_before_eviction(self, planned: _Planned) -> Job | None:
        """A batch that needs the stretch in use as well as the next: the first part is made before that goes.

        Touching what was evicted would bring back megabytes around it, since the system reads ahead.
        """
        if not self._evict or planned.last - planned.first != 1:
            return None
        leg = planned.leg
        if not self._ahead.is_current(leg.epoch, leg.position(planned.first) + 1):
            return None
        start, stop = leg.bounds(planned.first, planned.last)
        cut = leg.cut(planned.first, self._ahead.current_end())
        if not start < cut < stop:
            return None
        job = Job(leg, planned.chunk, planned.first, planned.last, self._memory(), False, cut, self._ahead.sweep())
        job.begin()
        return job

    def _job(self, planned: _Planned, job: Job | None) -> Job | Inline:
        """The job, under way where there are threads."""
        leg, first, last, sweep = planned.leg, planned.first, planned.last, self._ahead.sweep()
        if job is None and planned.inline and sweep is None:
            return Inline(leg, first, last, None if self._views else self._memory, self._stats)
        views = self._views and sweep is None
        job = job or Job(leg, planned.chunk, first, last, self._memory(), views, sweep=sweep)
        if self._pool is not None:
            job.submit(self._pool)
        return job

    def _may_move_on(self, epoch: int, end: int) -> bool:
        """Whether what comes is there; and where a stretch is evicted or swept, whether nobody needs the one before."""
        ready = self._ahead.is_ready(epoch, end)
        in_use = (isinstance(job, Inline) or not job.done for job in self._jobs)
        leaves = self._evict or self._ahead.sweep() is not None
        return ready and not (leaves and any(in_use))

    def close(self) -> None:
        """Stop the threads; each finishes the piece that it is at."""
        for job in self._jobs:  # first, or they would touch what is dropped
            job.cancel()
        self._ahead.close()
        self._planned.close()  # it refers to us; without this, memory would wait for the garbage collector
        for pool in (self._pool, self._reader, self._beside):
            if pool is not None:
                pool.close()

"""Reading ahead of the batches: stretches of the order, loaded by a thread before they are needed."""

# The loader reads sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import islice

import numpy as np

from ..errors import HyperSequenceError
from ..order import without
from ..schema import Array
from ..sequence import HyperSequence
from ..source import Source
from ..source.largepages import LARGE_PAGE_NBYTES
from ..source.readahead import ASKED_AHEAD_NBYTES, STEP_NBYTES, Way
from .legs import Leg
from .memory import allowed_nbytes, available_nbytes
from .stats import LoaderStats
from .stretches import Found, Stretch, come_alone, find, n_records_of, step_records
from .sweep import Sweep, Sweeps
from .threads import Task, Threads, program_ends

#: Stretches that are short are begun this far ahead, so that the disk never stands still.
_AHEAD_NBYTES = 32 << 20
_MAX_STRETCHES = 8
_MAX_GROWTH = 32
#: What the thread reads in one go. It is asked again whenever a job is taken.
_TASK_NBYTES = 8 * STEP_NBYTES
#: A window is read as fast as the one before it is used, an eighth early. Where windows are evicted, the last eighth is
#: read when the one before it is gone, so that the page cache never holds two of them.
_LEAD = 1 / 8
#: Who reads such a share of the records reads those around any of them as well.
_MOST = 0.75


class ReadAhead:
    """Keeps the disk at work for the batches to come, within bounds. For one thread; the work may be done in another.

    Args:
        source: What is read.
        chosen: Its columns.
        legs: The epochs to come.
        pool: One thread, or ``None`` to read only when a batch needs it.
        beside: One more for what is read while other things are checked.
        evict: Whether stretches that are used up are dropped from the page cache.
        n_staying: So many records, from the first on, are not dropped.
        stats: Where times are counted.
    """

    def __init__(
        self,
        source: Source,
        chosen: tuple[int, ...],
        legs: Iterable[Leg],
        pool: Threads | None,
        beside: Threads | None,
        evict: bool,
        n_staying: int,
        stats: LoaderStats,
    ) -> None:
        self._source, self._chosen, self._pool, self._evict, self._stats = source, chosen, pool, evict, stats
        self._n_staying, self._beside = n_staying, None if beside is None else _Beside(beside)
        self._drop = partial(_drop, source, chosen, n_staying)
        self._record_nbytes = sum(source.schema.columns[number].field.nbytes for number in chosen)
        self._alone = not evict and come_alone(source, chosen)  # what is evicted comes in long runs, as it goes
        self._size = 1 if self._alone else step_records(source)
        self._sweeps = Sweeps()
        self._coming = self._stretches(legs)
        self._queue: deque[Stretch] = deque()
        self._task: Task | None = None
        self._moving = False  # whether the first stretch is there
        self.stopped = False
        #: What a batch needs that reaches over several stretches, until it is made.
        self._held: list[Stretch] = []
        self._evicting, self._early_nbytes = False, 0

    def _stretches(self, legs: Iterable[Leg]) -> Generator[Stretch]:
        # The first batch waits for itself alone, the next for twice as much, and so on up to a step of reading; and
        # further where everything is in memory already, since to find that out has its price.
        size, limit = 1, self._size
        stretch: Stretch | None = None
        for leg in legs:
            position = leg.origin
            while position < leg.total:
                size = max(size, leg.step)
                stop = position + size if size < self._size else position - position % self._size + size
                found = find(leg, position, min(stop, leg.total), self._alone, self._sweeps)
                # What is evicted as it is used is not there. Nor is all of what follows something that was not: the
                # system may have some of it, and to bring long runs that are there takes little.
                look = not self._evict and (
                    stretch is None
                    or stretch.was_there
                    or stretch.epoch < leg.epoch
                    or not (stretch.goes_on(found.runs) or self._are_long(found.runs))
                )
                record_nbytes = self._source.schema.record_nbytes
                stretch = Stretch(leg.epoch, position, found, record_nbytes, self._steps(leg, found, look))
                yield stretch
                position = stretch.end
                limit = min(2 * limit, _MAX_GROWTH * self._size) if stretch.was_there else self._size
                size = min(2 * size, limit)

    def _steps(self, leg: Leg, found: Found, look: bool) -> Iterator[int] | None:
        """What reads a stretch step by step; nothing if it is left alone, or there already."""
        source, chosen = self._source, self._chosen
        if found.sweep is not None:
            loading = source.load(found.runs, chosen, Way(True, False, self._beside))
            return found.sweep.steps(loading, self._drop if self._evict else None)
        if found.scattered or (look and source.resident(found.runs, chosen)):
            return None
        # Checked as it comes, while it is in the processor's cache and the disk is at work. But a window that several
        # ranks read is checked by those who gather from it, each its own part.
        alone = leg.world == 1
        check = alone or n_records_of(found.runs) * source.schema.record_nbytes <= _AHEAD_NBYTES
        dense = alone and not self._evict and leg.total >= _MOST * source.n_records
        return (step.nbytes for step in source.load(found.runs, chosen, Way(check, dense, self._beside)))

    def is_ready(self, epoch: int, position: int) -> bool:
        """Whether everything before a position is there, without waiting."""
        for stretch in self._queue:
            if not stretch.finished:
                return False
            if (stretch.epoch, stretch.end) >= (epoch, position):
                return True
        return False

    def is_current(self, epoch: int, position: int) -> bool:
        """Whether a position belongs to the stretch that is in use."""
        return bool(self._queue) and (self._queue[0].epoch, self._queue[0].end) >= (epoch, position)

    def sweep(self) -> Sweep | None:
        """What holds the records of the stretch that is in use, or is the first to be, if they are picked out."""
        if not self._queue:
            self._extend()
        return self._queue[0].sweep if self._queue else None

    def current_end(self) -> int:
        """Position at which the stretch that is in use ends."""
        return self._queue[0].end

    def wait(self, epoch: int, start: int, position: int) -> None:
        """Wait until everything from ``start`` to before a position is there.

        Stretches that begin before ``start`` and end before the position are used up now.
        """
        begun = time.perf_counter()
        self._extend()
        while self._held:
            self._leave(self._held.pop())
        while self._queue:
            stretch = self._queue[0]
            while not stretch.finished:
                if not self._settled():
                    self._read(tuple(self._queue), stretch, float("inf"))
            self._moving = True
            if (stretch.epoch, stretch.end) >= (epoch, position):
                break
            self._queue.popleft()
            self._extend()
            if (stretch.epoch, stretch.start) >= (epoch, start):
                self._held.append(stretch)
            else:
                self._leave(stretch)
        self._stats.disk_s += time.perf_counter() - begun

    def push(self, epoch: int, position: int) -> None:
        """Have the thread read on, as far as that is due when batches up to ``position`` were asked for."""
        if self._pool is None or (self._task is not None and not self._task.done):
            return
        self._extend()
        for stretch in self._queue:
            due = self._due(stretch, epoch, position)
            if not stretch.finished and stretch.n_done < due:
                self._give(self._pool, partial(self._read, tuple(self._queue), stretch, due, program_ends))
                return

    def _due(self, stretch: Stretch, epoch: int, position: int) -> float:
        current = self._queue[0]
        if stretch is current or stretch.sweep is not None or stretch.nbytes <= _AHEAD_NBYTES:
            return float("inf")
        used = 1.0
        if current.epoch == epoch:
            used = min(1.0, max(0.0, (position - current.start) / (current.end - current.start)))
        if not self._evict or self._n_staying:  # there is room for two whole stretches
            return stretch.nbytes * min(used + _LEAD, 1)
        early = self._early_nbytes if self._are_long(stretch.runs) else ASKED_AHEAD_NBYTES
        # No more than there is room for, or the system would drop what is in use.
        return min(stretch.nbytes * min(used + _LEAD, 1 - _LEAD), self._sweeps.room_nbytes - current.nbytes) - early

    def _are_long(self, runs: Array) -> bool:
        """Whether runs of records are of large pages for the most part."""
        return n_records_of(runs) * self._record_nbytes >= 2 * LARGE_PAGE_NBYTES * len(runs)

    def _extend(self) -> None:
        """Have stretches in the queue: the current one, and some more."""
        while not self._queue or (len(self._queue) < _MAX_STRETCHES and self._is_short_of_work()):
            stretch = next(self._coming, None)
            if stretch is None:
                return
            if self._evict and not self._evicting and not stretch.scattered:
                self._evicting = True  # before anything is read ahead: what comes too much would stay
                for file in self._source.files():
                    file.begin_evicting(self)
                    self._early_nbytes = max(self._early_nbytes, file.early_nbytes)
            self._queue.append(stretch)

    def _is_short_of_work(self) -> bool:
        """Whether the disk may soon have nothing to do; there are two sweeps at most, as they need memory."""
        coming = list(islice(self._queue, 1, None))
        return all(s.sweep is None for s in coming) and sum(s.nbytes for s in coming) < _AHEAD_NBYTES

    def _read(
        self,
        queue: tuple[Stretch, ...],
        stretch: Stretch,
        due: float,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Some steps of a stretch, with the disk already at work for those behind it (but nothing before the first)."""
        if self.stopped:
            return
        begun = time.perf_counter()
        stretch.begin()
        for other in queue if self._moving else ():
            other.begin()
        due = min(due, stretch.n_done + max(_TASK_NBYTES, stretch.nbytes // 8 if stretch.sweep else 0))
        while not (stretch.finished or self.stopped or stretch.n_done >= due or is_over()):
            stretch.step()
        self._stats.read_s += time.perf_counter() - begun

    def _settled(self) -> bool:
        """Have what the thread was given be done, if that is not so already."""
        if self._task is None or self._task.done:
            return False
        self._task.wait()
        return True

    def _give(self, pool: Threads, function: Callable[[], None]) -> None:
        """Have the thread do something next."""
        self._task = Task(function)
        pool.give(self._task)

    def _leave(self, stretch: Stretch) -> None:
        """Drop what no stretch needs that is being read ahead, and give memory back."""
        if stretch.sweep is not None:
            self._sweeps.give_back(stretch.sweep)
            return
        if not self._evict or stretch.scattered:
            return
        others = [other.runs for other in (*self._queue, *self._held) if not other.scattered]
        runs = without(stretch.runs, np.concatenate([stretch.runs[:0], *others]))
        if not len(runs):  # as always before a sweep, which takes long
            return
        self._settled()
        if self._pool is None:
            self._drop(runs)
        else:
            self._give(self._pool, partial(self._drop, runs))

    def close(self) -> None:
        """Stop; what the thread is doing ends soon."""
        self.stopped = True
        self._coming.close()  # it refers to us
        if self._evict:
            self._settled()  # or what it was given to drop, and has not begun with, would stay
            if self._beside is not None:
                self._beside.settle()
            for stretch in (*self._held, *self._queue):
                if not stretch.scattered:
                    self._drop(stretch.runs)
        if self._evicting:
            for file in self._source.files():
                file.end_evicting(self)


def _drop(source: Source, chosen: tuple[int, ...], n_staying: int, runs: Array) -> None:
    """Drop runs of records from the page cache, but for the first records of all."""
    runs = np.maximum(runs, n_staying)
    with suppress(HyperSequenceError, OSError):  # a hint; a file that was closed has nothing to drop
        source.evict(runs[runs[:, 0] < runs[:, 1]], chosen)


class _Beside:
    """Has a thread run something, unless whoever waits for it is first."""

    def __init__(self, pool: Threads) -> None:
        self._pool = pool
        self._given: deque[Task] = deque()

    def __call__(self, function: Callable[[], object]) -> Callable[[], object]:
        while self._given and self._given[0].done:
            self._given.popleft()
        task = Task(function)
        self._given.append(task)
        self._pool.give(task)
        return task.wait

    def settle(self) -> None:
        """Have nobody begin with anything, and wait for what is under way."""
        for task in self._given:
            task.cancel()
        for task in self._given:
            with suppress(HyperSequenceError, OSError):  # of whoever waits for it
                task.wait()
        self._given.clear()


def n_staying(sequence: HyperSequence, epoch: int) -> int:
    """How many records of a sequence's source, from the first on, have room in memory for all epochs.

    Beside them there must be room for two stretches that come and go. The system would keep what was used last, though
    what was used first is needed no later; and it drops what was read and not yet touched before what was used. So, of
    data that do not fit, the same part stays.
    """
    n_records, record_nbytes = sequence._source.n_records, max(1, sum(c.field.nbytes for c in sequence.columns))
    if n_records * record_nbytes <= allowed_nbytes() // 4:
        return n_records
    leg = Leg(sequence, epoch, 0)
    if leg.world > 1 or not leg.total:  # other ranks are not done with a window when this one is
        return n_records
    found = find(leg, 0, min(step_records(sequence._source), leg.total), False, Sweeps())
    n_read = n_records_of(found.runs)
    n_moving = n_read if found.sweep is None else found.end
    n_used = min(n_records, n_read * leg.total // found.reach)
    available = available_nbytes()
    room = (allowed_nbytes() if available is None else available) * 3 // 4 // record_nbytes
    if n_used <= room or n_moving >= n_used:  # what is read in one go fits, or it would not be
        return n_records
    return n_records * max(0, room - 2 * n_moving) // n_used

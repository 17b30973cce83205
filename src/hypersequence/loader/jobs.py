"""Jobs: batches that are made together, so that threads are asked seldom."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

from ..schema import Array, Batch
from ..sequence.delivery import Allocate
from .legs import Chunk, Leg
from .stats import LoaderStats
from .sweep import Sweep
from .threads import Task, Threads

#: About what one thread makes at a time: half a millisecond of copying, several times a hand-over.
PART_NBYTES = 4 << 20


class Inline:
    """Batches that whoever takes them makes one by one: views, which cost less than asking a thread.

    Args:
        leg: The epoch.
        first: Number of the first batch.
        last: Number after the last batch.
        memory: Gives what gives a batch its memory; ``None`` for views where that is possible.
        stats: Where times are counted, since nobody asks again when a batch was made.
    """

    done = True
    gather_s = map_s = 0.0

    def __init__(
        self, leg: Leg, first: int, last: int, memory: Callable[[], Allocate] | None, stats: LoaderStats
    ) -> None:
        self.leg, self.first, self.last = leg, first, last
        self._memory, self._stats = memory, stats

    def help(self) -> bool:
        """Nothing is made before it is asked for."""
        return False

    def wait(self) -> None:
        """Nothing is under way."""

    def cancel(self) -> None:
        """Nothing is under way."""

    def batch(self, number: int) -> Batch:
        """Batch ``number`` of the leg."""
        delivery = self.leg.delivery
        size = delivery.batch_size
        start = number * size
        stop = min(start + size, delivery.n_records)
        try:
            begun = time.perf_counter()
            arrays = delivery.arrays(start, stop, None if self._memory is None else self._memory())
            gathered = time.perf_counter()
            self._stats.gather_s += gathered - begun
            if delivery.plain:
                return delivery.build(arrays)
            batch = delivery.finish(arrays, start, stop)
            self._stats.map_s += time.perf_counter() - gathered
            return batch
        except Exception as error:
            explain(error, self.leg, number)
            raise

    def together(self, number: int) -> tuple[int, Batch]:
        """Batch ``number``, by itself."""
        return 1, self.batch(number)


class Job:
    """Several small batches in one gather, or one large batch in parts.

    Args:
        leg: The epoch.
        chunk: Where the records lie.
        first: Number of the first batch.
        last: Number after the last batch.
        allocate: Where memory comes from.
        views: Whether a contiguous batch may stay a view.
        cut: Position of this rank at which a single batch is made in two parts.
        sweep: What holds the records in the order of the batches.

    Parts may be run by any thread, each once; the job is done when all are.
    """

    __slots__ = (
        "_allocate", "_chunk", "_counter", "_cuts", "_error", "_made", "_out", "_start", "_stop", "_sweep", "_tasks",
        "_views", "done", "first", "gather_s", "last", "leg", "map_s",
    )  # fmt: skip

    def __init__(
        self,
        leg: Leg,
        chunk: Chunk,
        first: int,
        last: int,
        allocate: Allocate,
        views: bool,
        cut: int | None = None,
        sweep: Sweep | None = None,
    ) -> None:
        self.leg, self.first, self.last = leg, first, last
        self.done = False
        self.gather_s = self.map_s = 0.0
        self._chunk, self._allocate, self._views, self._sweep = chunk, allocate, views, sweep
        self._start, self._stop = leg.bounds(first, last)
        self._out: list[Array] = []
        self._made: list[Batch] = []
        self._error: Exception | None = None
        self._cuts = [(self._start, self._stop)]
        n_parts = round((self._stop - self._start) * leg.record_nbytes / PART_NBYTES)
        if cut is not None:
            self._cuts = [(self._start, cut), (cut, self._stop)]
        elif n_parts > 1 and last - first == 1 and not views:
            cuts = [self._start + (self._stop - self._start) * i // n_parts for i in range(n_parts + 1)]
            self._cuts = list(itertools.pairwise(cuts))
        if len(self._cuts) > 1:
            self._out = leg.delivery.new_arrays(self._stop - self._start, allocate)  # by whom, if not here?
        self._tasks = [Task(partial(self._run, start, stop)) for start, stop in self._cuts]
        self._counter = itertools.count(1)  # counts parts; next() is one step that no other thread can come between

    def begin(self) -> None:
        """Run the first part here and now."""
        self._tasks[0].run()

    def submit(self, threads: Threads) -> None:
        """Have threads run the other parts."""
        for task in self._tasks:
            if not task.done:
                threads.give(task)

    def help(self) -> bool:
        """Run a part that no thread has begun, if there is one."""
        return any(task.run() for task in self._tasks)

    def wait(self) -> None:
        """Wait until threads have finished what they began; raises only what ends a program."""
        for task in self._tasks:
            task.wait()

    def cancel(self) -> None:
        """Have threads leave alone what they have not begun."""
        for task in self._tasks:
            task.cancel()

    def batch(self, number: int) -> Batch:
        """Batch ``number`` of the leg, once the job is done.

        Raises:
            Exception: What making it raised; batches before it are there all the same.
        """
        at = number - self.first
        if at < len(self._made):
            return self._made[at]
        if self._error is not None:
            raise self._error
        return self.leg.delivery.build(self._slices(number))

    def together(self, number: int) -> tuple[int, Batch]:
        """As many batches from ``number`` on as lie one behind the other, as one; and how many they are.

        Raises:
            Exception: As :meth:`batch`.
        """
        if self._made or self._error is not None:
            return 1, self.batch(number)
        start = (number - self.first) * self.leg.delivery.batch_size
        return self.last - number, self.leg.delivery.build([array[start:] for array in self._out])

    def _slices(self, number: int) -> list[Array]:
        size = self.leg.delivery.batch_size
        start = (number - self.first) * size
        return [array[start : start + size] for array in self._out]

    # --- in any thread -----------------------------------------------------------------------------------------------

    def _run(self, start: int, stop: int) -> None:
        """The part between two positions; the last to be finished makes the batches."""
        begun = time.perf_counter()
        try:
            if not self._out and not self._one_by_one():
                self._out = self.leg.delivery.new_arrays(self._stop - self._start, self._allocate)
            if self._out and self._error is None:
                self._copy(start, stop, [array[start - self._start : stop - self._start] for array in self._out])
        except Exception as error:  # raised again where the batch is asked for
            self._error = error
        self.gather_s += time.perf_counter() - begun
        if next(self._counter) == len(self._cuts):
            self._make()
            self.done = True

    def _one_by_one(self) -> bool:
        """Whether batches cannot share memory: some are views, or most would lie at odd addresses."""
        numbers = range(self.first, self.last)
        return (self._views and any(map(self._is_contiguous, numbers))) or (len(numbers) > 1 and not self.leg.aligned)

    def _is_contiguous(self, number: int) -> bool:
        ahead = self._chunk.get()
        return number * self.leg.delivery.batch_size - ahead.start in ahead.contiguous

    def _copy(self, start: int, stop: int, targets: list[Array]) -> None:
        """Records of these positions into arrays."""
        origin = self.leg.origin
        if self._sweep is not None and self._sweep.copy(origin + start, origin + stop, targets):
            return
        delivery, ahead = self.leg.delivery, self._chunk.get()
        size = delivery.batch_size
        if isinstance(ahead.numbers, range):
            delivery.source.fill([ahead.numbers[start - ahead.start : stop - ahead.start]], delivery.chosen, targets)
            return
        numbers = range(start // size, -(-stop // size))
        if not ahead.contiguous or not all(map(self._is_contiguous, numbers)):
            delivery.source.gather(ahead.plan, slice(start - ahead.start, stop - ahead.start), delivery.chosen, targets)
            return
        runs: list[range] = []
        for number in numbers:
            low, high = max(start, number * size), min(stop, number * size + size)
            first = int(ahead.numbers[low - ahead.start])
            runs.append(range(first, first + high - low))
        delivery.source.fill(runs, delivery.chosen, targets)

    def _make(self) -> None:
        """Batches from arrays; where one fails, those before it are kept, and the error says which it was."""
        delivery = self.leg.delivery
        if self._error is None and self._out and delivery.plain:
            return  # a slice and a tuple: left to whoever takes the batch
        again = self._error is not None
        self._error = None
        number = self.first
        try:
            for number in range(self.first, self.last):
                start, stop = self.leg.bounds(number, number + 1)
                begun = time.perf_counter()
                arrays = self._slices(number) if self._out and not again else self._single(number, start, stop)
                gathered = time.perf_counter()
                self._made.append(delivery.finish(arrays, start, stop, self._chunk.get() if delivery.mappers else None))
                self.gather_s += gathered - begun
                self.map_s += time.perf_counter() - gathered
        except Exception as error:
            self._error = error
            explain(error, self.leg, number)

    def _single(self, number: int, start: int, stop: int) -> list[Array]:
        """The arrays of one batch by itself."""
        delivery = self.leg.delivery
        if self._views and self._is_contiguous(number):
            first = int(delivery.order.span(start, start + 1)[0])
            return delivery.source.read(range(first, first + stop - start), delivery.chosen)
        targets = delivery.new_arrays(stop - start, self._allocate)
        self._copy(start, stop, targets)
        return targets


def explain(error: Exception, leg: Leg, number: int) -> None:
    """Have an error say which batch and which records it concerns."""
    where = f"while making batch {number} of epoch {leg.epoch}, from position {leg.position(number)}"
    try:
        records = [int(record) for record in leg.delivery.order.span(*leg.bounds(number, number + 1))]
    except Exception:
        error.add_note(where)
        return
    shown = ", ".join(map(str, records[:12])) + (f", ... ({len(records)} in all)" if len(records) > 12 else "")
    error.add_note(f"{where}: records {shown}")

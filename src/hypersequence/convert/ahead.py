"""Jobs that run ahead in threads, and whose results come in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

from ..loader.threads import Task, Threads

T = TypeVar("T")


class _Slot(Generic[T]):
    """A job, and in the end its result."""

    def __init__(self, job: Callable[[], T]) -> None:
        self._job: Callable[[], T] | None = job
        self._result: list[T] = []
        self.task = Task(self._run)

    def _run(self) -> None:
        job, self._job = self._job, None
        assert job is not None
        self._result.append(job())

    def result(self) -> T:
        """What it gave, or raises what it raised; waits for it, or runs it."""
        self.task.wait()
        return self._result.pop()


def in_order(
    jobs: Iterable[Callable[[], T]], n_threads: int, give_up: Callable[[], object] | None = None
) -> Generator[T]:
    """What jobs give, one after the other, while up to ``n_threads`` of the next ones run in threads.

    Args:
        jobs: Drawn from by the thread that draws from this, no more than ``n_threads + 1`` ahead.
        n_threads: 0 for none: each job is run when its result is asked for.
        give_up: Called when this ends early, before it waits for the jobs that are under way: makes them end soon.

    An exception of a job, or of ``jobs`` itself, is raised in its place, after the results of all jobs before.
    """
    if not n_threads:
        for job in jobs:
            yield job()
        return
    threads = Threads(n_threads, "hsq convert")
    slots: deque[_Slot[T]] = deque()
    failure: BaseException | None = None
    iterator = iter(jobs)
    try:
        while True:
            try:
                slots.append(_Slot(next(iterator)))
            except StopIteration:
                break
            except Exception as error:  # raised again when what came before it has been handed over
                failure = error
                break
            threads.give(slots[-1].task)
            if len(slots) > n_threads:
                yield slots.popleft().result()
        while slots:
            yield slots.popleft().result()
        if failure is not None:
            raise failure
    finally:
        for slot in slots:
            slot.task.cancel()
        if slots and give_up is not None:
            give_up()
        for slot in slots:  # one that is under way may use what is about to be closed
            if not slot.task.done:
                _over(slot.task)
        threads.close()


def _over(task: Task) -> None:
    """Wait for the end of a task, whatever comes of it."""
    try:
        task.wait()
    except Exception:  # of a job whose result nobody wants any more
        return

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

    An exception of a job, or of ``jobs`` itself, is raised in its place, after the results of all jobs before. Whoever
    may leave off before the end closes this, or jobs would go on for as long as an exception refers to it.
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
                yield _taken(slots)
        while slots:
            yield _taken(slots)
        if failure is not None:
            raise failure
    finally:
        for slot in slots:
            slot.task.cancel()
        under_way = [slot.task for slot in slots if not slot.task.done]
        if under_way and give_up is not None:
            give_up()
        for task in under_way:  # it may use what is about to be closed
            _over(task)
        threads.close()


def _taken(slots: deque[_Slot[T]]) -> T:
    """The first result; its slot stays among the others until it is there, so that an interruption waits for it."""
    result = slots[0].result()
    slots.popleft()
    return result


def _over(task: Task) -> None:
    """Wait for the end of a task, whatever comes of it."""
    try:
        task.wait()
    except Exception:  # of a job whose result nobody wants any more
        return

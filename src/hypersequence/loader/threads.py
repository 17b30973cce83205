"""Threads that run tasks, and that no Ctrl-C can leave waiting for each other."""

# The standard library's pool and its futures are made of conditions, and a KeyboardInterrupt between taking and leaving
# one in the main thread leaves it taken for good: the threads of the pool then wait for it, and the interpreter for
# them. One in seventy programs that were ended by Ctrl-C while a loader began hung in that way. Here the main thread
# and the others share only what the interpreter does in one step: locks and a SimpleQueue.

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TypeAlias

# np.unique() would import it at its first call; and of two threads at an import, one of which is interrupted, the other
# may wait for ever.
import numpy.ma  # noqa: F401  # pyright: ignore[reportUnusedImport]

#: Processors that a loader leaves to the training.
SPARE = 1


def default_threads(spare: int = 0) -> int:
    """How many threads to use where nobody says it: one a processor, but for so many that others need; one to four."""
    return max(1, min(4, n_processors() - spare))


def n_processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Task:
    """Something to be run once, by whoever comes first.

    Args:
        function: What to run.
    """

    __slots__ = ("_begun", "_error", "_function", "_under_way")

    def __init__(self, function: Callable[[], object]) -> None:
        self._function: Callable[[], object] | None = function
        self._error: BaseException | None = None
        self._begun = threading.Lock()  # taken by whoever runs it, and never left
        self._under_way = threading.Lock()  # left when it is over
        self._under_way.acquire()

    @property
    def done(self) -> bool:
        """Whether it has been run, or cancelled."""
        return not self._under_way.locked()

    @property
    def begun(self) -> bool:
        """Whether somebody has begun it, or cancelled it."""
        return self._begun.locked()

    def run(self) -> bool:
        """Run it here and now, unless somebody has begun it; returns whether it was run. Raises what it raises."""
        function = self._function
        if function is None or not self._begun.acquire(blocking=False):
            return False
        self._function = None  # it may refer to whoever has this task
        try:
            function()
        except BaseException as error:
            self._error = error
            raise
        finally:
            self._under_way.release()
        return True

    def wait(self) -> None:
        """Wait until it is over, or run it; raises what it raised, wherever that was."""
        if not self.run():
            with self._under_way:
                pass
            if self._error is not None:
                raise self._error

    def cancel(self) -> None:
        """Have nobody run it who has not begun."""
        if self._begun.acquire(blocking=False):
            self._function = None
            self._under_way.release()


class Threads:
    """A few threads that run tasks in the order in which they are given. For use by one thread.

    They are started when they are needed, and end with :meth:`close`, when the object is no longer referred to, or with
    the program, which waits for the task that each is at. After that nobody runs tasks but those who wait for them.

    Args:
        number: How many threads.
        name: Theirs.
    """

    # At the very end of a program modules are gone, and threads with them.
    _is_finalizing = staticmethod(sys.is_finalizing)

    def __init__(self, number: int, name: str) -> None:
        self._number, self._name = number, name
        self._n_started = 0
        self._queue: Tasks = SimpleQueue()
        self._pid = os.getpid()

    def give(self, task: Task) -> None:
        """Have a thread run a task."""
        if self._n_started < self._number and not program_ends():
            self._n_started += 1
            _start(threading.Thread(target=_work, args=(self._queue,), name=self._name, daemon=True))
        self._queue.put(task)

    def close(self) -> None:
        """End the threads, each after the task that it is at; the others are left alone."""
        if os.getpid() == self._pid:  # after a fork they are in the other process
            self._number = 0
            _empty(self._queue)
            for _ in range(self._n_started):
                self._queue.put(None)

    def __del__(self) -> None:
        if not self._is_finalizing():
            self.close()


Tasks: TypeAlias = "SimpleQueue[Task | None]"
_working: dict[threading.Thread, Tasks] = {}
_program_end = threading.Event()


def program_ends() -> bool:
    """Whether the program ends, so that nothing long is to be gone on with."""
    return _program_end.is_set()


def _start(thread: threading.Thread) -> None:
    """Start a thread; a daemon, since one that is interrupted here may stay, and nobody must wait for it."""
    try:
        thread.start()
    except RuntimeError as error:  # the interpreter is ending, and whoever waits for a task runs it
        if isinstance(error.__context__, KeyboardInterrupt):  # or Ctrl-C left a lock of the thread's in a wrong state
            raise error.__context__ from error


def _work(queue: Tasks) -> None:
    """What a thread does, until it is given nothing."""
    me = threading.current_thread()
    _working[me] = queue
    while (task := queue.get()) is not None:
        with suppress(BaseException):  # raised again where somebody waits for it
            task.run()
        del task  # with the memory that it holds
    del _working[me]


def _empty(queue: Tasks) -> None:
    with suppress(Empty):
        while True:
            queue.get_nowait()


def _end_all() -> None:
    """End all threads, so that none is at work while the interpreter is taken apart."""
    _program_end.set()
    working = list(_working.items())
    for _, queue in working:
        _empty(queue)
    for _, queue in working:
        queue.put(None)
    for thread, _ in working:
        thread.join()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_working.clear)

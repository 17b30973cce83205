"""Processes that make records from items, many at a time."""

# What goes through the pipes of the pool is short, so that a process writes it in one go; items and records go through
# files. Where a process is killed with half of a long message sent, the pool waits for the other half for good. And the
# main thread does not touch the pool's futures, in which Ctrl-C may leave locks taken: loader/threads.py.

from __future__ import annotations

import multiprocessing
import os
import pickle
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Self

from ..errors import ArgumentError, HyperSequenceError
from ..schema import Schema
from ..source.buffers import lease
from . import maker
from .ahead import in_order
from .base import raw
from .maker import Made

#: Many records at a time, since a chunk costs a millisecond or two on its way; few enough to hold several of them, and
#: the items that they are made of, which may be much larger.
_CHUNK_NBYTES = 4 << 20
#: A chunk should take so many seconds: long beside a message, short for somebody who waits.
_SHORT, _LONG = 0.05, 0.2


@dataclass(frozen=True)
class _Chunk:
    """Some items.

    Args:
        first: The number of the first record.
        count: How many items.
        nbytes: Theirs, on the way to a process.
        slot: The number in its files' names.
        known: Whether the schema is.
    """

    first: int
    count: int
    nbytes: int
    slot: int
    known: bool


class Workers:
    """Some processes, for the time of a ``with`` statement.

    Args:
        n_workers: How many.
        fn: Makes a record of an item; ``None`` if items are records.
        data: A data set whose items the processes make themselves, by number; ``None`` if they are given them.

    Raises:
        ArgumentError: ``fn`` or ``data`` cannot be sent to another process.
    """

    def __init__(self, n_workers: int, fn: Callable[[Any], Any] | None, data: Any) -> None:
        _refuse_beginning()
        self._n_workers, self._size, self._pool = n_workers, 1, None
        self._temporary = TemporaryDirectory(prefix=f"hypersequence-{os.getpid()}-")
        self._folder = Path(self._temporary.name)
        try:
            advice = "define it at the top of a module or script, not as a lambda or inside of a function"
            _store(self._folder / "fn", fn, f"fn={fn!r}", advice)
            advice = "let it open files when it is first asked for an item"
            _store(self._folder / "data", data, f"the data set ({type(data).__name__})", advice)
        except BaseException:
            self._temporary.cleanup()
            raise

    def __enter__(self) -> Self:
        methods = multiprocessing.get_all_start_methods()  # a process with threads, as we are, must not be forked
        context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
        self._pool = ProcessPoolExecutor(self._n_workers, context, maker.begin, (str(self._folder),))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None:
            self._kill()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._temporary.cleanup()

    def chunks(self, first: int, items: Iterator[Any] | range, schema: Callable[[], Schema | None]) -> Generator[Made]:
        """What is made of items, in their order.

        Args:
            first: The number of the first record.
            items: The items, or their numbers if the processes have the data set.
            schema: What is known of the records' structure by now.

        Raises:
            HyperSequenceError: A process ended before its time.

        An exception of ``items`` is raised in its place; one in a process stands in the chunk.
        """
        jobs = self._jobs(first, items, schema)
        with closing(in_order(jobs, 2 * self._n_workers, self._kill)) as done:
            for chunk, seconds in done:
                known = schema()
                self._adapt(chunk, seconds, known)
                yield self._read(chunk, known)

    def _jobs(
        self, first: int, items: Iterator[Any] | range, schema: Callable[[], Schema | None]
    ) -> Iterator[Callable[[], tuple[_Chunk, float]]]:
        iterator, known = iter(items), False
        # More of them than are under way: the oldest is read before another is drawn.
        for slot in cycle(range(2 * self._n_workers + 2)):
            drawn, failure = _draw(iterator, self._size)
            if drawn:
                advice = "send what it is made of, and make it in fn"
                nbytes = _store(self._folder / f"{slot}.items", drawn, f"an item from {first:,} on", advice)
                (self._folder / f"{slot}.made").touch()
                if not known and (found := schema()) is not None:
                    _store(self._folder / "schema", found, "the schema", "")
                    known = True
                yield partial(self._run, _Chunk(first, len(drawn), nbytes, slot, known))
                first += len(drawn)
            if failure is not None:
                raise failure
            if not drawn:
                return

    def _run(self, chunk: _Chunk) -> tuple[_Chunk, float]:
        """Have a process make a chunk, and wait for it; gives the chunk and how many seconds that took."""
        assert self._pool is not None
        try:
            return chunk, self._pool.submit(maker.make, chunk.slot, chunk.known).result()
        except (BrokenProcessPool, EOFError, ConnectionError):
            raise HyperSequenceError(
                f"a worker process ended while the records from {chunk.first:,} on were being made: it was killed, "
                "perhaps for lack of memory, or it could not begin: then its own message says why"
            ) from None

    def _read(self, chunk: _Chunk, schema: Schema | None) -> Made:
        """What a process left."""
        with (self._folder / f"{chunk.slot}.made").open("rb") as stream:
            made: Made = pickle.load(stream)
            if chunk.known and schema is not None:
                made.columns = [lease((made.n_records, *c.field.shape), c.field.dtype) for c in schema.columns]
                whole = all(stream.readinto(raw(column)) == column.nbytes for column in made.columns if column.nbytes)
                if not whole:
                    raise HyperSequenceError("a worker's records do not fit the schema; please report this")
        if made.error is None and made.n_records != chunk.count:
            raise HyperSequenceError(
                f"a worker made {made.n_records:,} records of the {chunk.count:,} items from {chunk.first:,} on; "
                "please report this"
            )
        return made

    def _adapt(self, chunk: _Chunk, seconds: float, schema: Schema | None) -> None:
        """Make chunks larger or smaller."""
        if chunk.count < self._size or schema is None:
            return
        wanted = self._size
        if seconds < _SHORT:
            wanted = 2 * self._size
        elif seconds > _LONG:
            wanted = self._size // 2
        largest = max(1, schema.record_nbytes, chunk.nbytes // chunk.count)
        self._size = max(1, min(wanted, _CHUNK_NBYTES // largest))

    def _kill(self) -> None:
        """End the processes where they are, since nobody wants what they make any more."""
        processes = self._pool._processes if self._pool is not None else None
        for process in list(processes.values()) if processes else ():
            process.kill()


def _refuse_beginning() -> None:
    """A script is run again in each of its processes, as far as they need what it defines."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise RuntimeError(
            "this script begins to write again in a worker process, which runs the script for what it defines; put the "
            'call of write() under `if __name__ == "__main__":`'
        )


def _draw(iterator: Iterator[Any], size: int) -> tuple[list[Any], Exception | None]:
    """So many items or what comes in a short time, and the exception that ended them."""
    drawn: list[Any] = []
    until = time.monotonic() + _LONG
    try:
        for item in islice(iterator, size):
            drawn.append(item)
            if time.monotonic() > until:
                break
    except Exception as error:
        return drawn, error
    return drawn, None


def _store(path: Path, value: Any, what: str, advice: str) -> int:
    """Write something where the processes find it; returns how many bytes it takes."""
    try:
        with path.open("wb") as stream:
            pickle.dump(value, stream, pickle.HIGHEST_PROTOCOL)
            return stream.tell()
    except OSError:
        raise
    except Exception as error:
        raise ArgumentError(f"{what} cannot be sent to worker processes ({error}); {advice}") from error

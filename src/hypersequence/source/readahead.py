"""Reading ahead: runs of records into memory, in the order of the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from ..errors import ChecksumError
from ..schema import Array
from .handle import FileHandle
from .largepages import LARGE_PAGE_NBYTES

if TYPE_CHECKING:
    from .reader import FileSource

#: What is waited for and checked in one step.
STEP_NBYTES = 8 << 20
#: How many steps ahead the disk is asked; with one or two, it stands still while a step is checked.
_STEPS_AHEAD = 4
ASKED_AHEAD_NBYTES = _STEPS_AHEAD * STEP_NBYTES
#: More than these no disk needs, and to ask may mean to wait.
_MOST_STEPS_AHEAD = 256

#: Has another thread run something, and returns what waits for that; or runs it where it is waited for.
Beside: TypeAlias = Callable[[Callable[[], object]], Callable[[], object]]


class Way(NamedTuple):
    """How to read ahead.

    Args:
        check: Whether to check bytes as they come; else that is left to whoever reads them.
        dense: Whether everything around is read some time as well, and stays in memory until then.
        beside: Another thread to bring half of the large pages, so that a disk far away has two requests at a time.
    """

    check: bool
    dense: bool
    beside: Beside


def load(source: FileSource, handle: FileHandle, runs: Array, chosen: Sequence[int], way: Way) -> Iterator[int]:
    """Bring runs of records into the page cache, step by step.

    Large pages are brought when it is their turn; for what lies beside them, and where there are none, the system is
    asked some steps early. A step ends when its bytes have arrived. Every call that waits lets other threads run.

    Args:
        source: The file.
        handle: Its handle.
        runs: Rows of ``[first, last + 1]``, rising and apart.
        chosen: Column numbers.
        way: How.

    Yields:
        0 when the first steps are on their way; then the bytes of each step that is there.

    Damage ends the checking, not the loading: the batch that needs the records meets it again.

    Raises:
        HyperSequenceError: The file was closed or truncated; the rest is not loaded then.
    """
    steps, check = _asked(source, handle, runs, chosen, way.dense), way.check
    first = next(steps, None)
    yield 0
    for step in () if first is None else chain((first,), steps):
        handle.ensure_whole()
        for begin, end in step.brought:
            _bring(handle, begin, end, way.beside)
        for offset, nbytes in step.asked:
            handle.wait_for(offset, nbytes)
        if check:
            try:
                source.check(step.start, step.stop, chosen)
            except ChecksumError:
                check = False
        yield step.nbytes


def _bring(handle: FileHandle, start: int, end: int, beside: Beside) -> None:
    """Large pages, half of them by another thread; where there are none by one alone, as it is to be a row of reads."""
    middle = start + -(-(end - start) // (2 * LARGE_PAGE_NBYTES)) * LARGE_PAGE_NBYTES
    if middle >= end or not handle.has_large_pages:
        handle.bring(start, end)
        return
    done = beside(partial(handle.bring, middle, end))
    handle.bring(start, middle)
    done()


class _Step(NamedTuple):
    """Consecutive records, their bytes, and where these lie: what is brought, and offsets and lengths beside that."""

    start: int
    stop: int
    nbytes: int
    brought: list[tuple[int, int]]
    asked: list[tuple[int, int]]


def _asked(source: FileSource, handle: FileHandle, runs: Array, chosen: Sequence[int], dense: bool) -> Iterator[_Step]:
    """Steps in turn, each when the system was asked for those behind it, but for large pages."""
    coming: deque[_Step] = deque()
    nbytes = 0
    for start, stop, goes_on in _steps(source, runs):
        step = _step(source, handle, start, stop, chosen, goes_on, dense)
        for offset, length in step.asked:
            handle.will_need(offset, length)
        coming.append(step)
        nbytes += step.nbytes
        while (len(coming) > _STEPS_AHEAD and nbytes > ASKED_AHEAD_NBYTES) or len(coming) > _MOST_STEPS_AHEAD:
            nbytes -= coming[0].nbytes
            yield coming.popleft()
    yield from coming


def _step(
    source: FileSource, handle: FileHandle, start: int, stop: int, chosen: Sequence[int], goes_on: bool, dense: bool
) -> _Step:
    """Where consecutive records lie."""
    step = _Step(start, stop, 0, [], [])
    shared = dense and len(chosen) == len(source.schema.columns)
    extents = source.extents(start, stop, chosen)
    for offset, nbytes in extents:
        first, last = handle.to_bring(offset, nbytes, goes_on and len(extents) == 1, shared)
        end = offset + nbytes
        if first < last:
            step.brought.append((first, last))
            step.asked.extend((at, to - at) for at, to in ((offset, first), (last, end)) if at < to)
        else:
            step.asked.append((offset, nbytes))
    return step._replace(nbytes=sum(nbytes for _, nbytes in extents))


def _steps(source: FileSource, runs: Array) -> Iterator[tuple[int, int, bool]]:
    """Ranges of records of about one step each, ending with blocks where they can, and whether their run goes on."""
    block_nbytes = max(1, source.stored.stride)
    size = source.block_records * max(1, STEP_NBYTES // block_nbytes)
    for start, stop in runs.tolist():
        while start < stop:
            end = min(stop, start - start % size + size)
            yield start, end, end < stop
            start = end

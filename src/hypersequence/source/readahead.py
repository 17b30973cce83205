"""Reading ahead: runs of records into memory, in the order of the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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

#: Has another thread run something, and returns what waits for that.
Beside: TypeAlias = Callable[[Callable[[], object]], Callable[[], object]]


class Loaded(NamedTuple):
    """How many bytes came in a step, and the record before which all is there that was asked for."""

    nbytes: int
    stop: int


class Way(NamedTuple):
    """How to read ahead.

    Args:
        check: Whether to check bytes as they come; else that is left to whoever reads them.
        dense: Whether everything around is read some time as well, and stays in memory until then.
        beside: Another thread, which brings large pages while what came before is checked; then they do so together,
            so that a disk far away has two requests at a time. ``None`` to bring them when they are waited for.
    """

    check: bool
    dense: bool
    beside: Beside | None


def load(source: FileSource, handle: FileHandle, runs: Array, chosen: Sequence[int], way: Way) -> Iterator[Loaded]:
    """Bring runs of records into the page cache, step by step.

    Large pages are brought early, by another thread: those of the first step when it is sent, others while the step
    before is checked. What goes on a long row is left to a system that reads far ahead by itself, and touched so that
    it does. For what lies beside large pages, and where there are none, the system is asked some steps early. A step
    ends when its bytes have arrived. Every call that waits lets other threads run.

    Args:
        source: The file.
        handle: Its handle.
        runs: Rows of ``[first, last + 1]``, rising and apart.
        chosen: Column numbers.
        way: How.

    Yields:
        Nothing when the first steps are on their way; then what each step brought.

    Damage ends the checking, not the loading: the batch that needs the records meets it again.

    Raises:
        HyperSequenceError: The file was closed or truncated; the rest is not loaded then.
    """
    steps, check = _asked(source, handle, runs, chosen, way), way.check
    step = next(steps, None)
    on_their_way = _sent_early(handle, step, way.beside)
    yield Loaded(0, 0 if step is None else step.start)
    while step is not None:
        handle.ensure_whole()
        for done in reversed(on_their_way or _sent(handle, step, way.beside)):  # the other begins with the first
            done()
        for offset, nbytes in step.asked:
            handle.wait_for(offset, nbytes)
        coming = next(steps, None)
        on_their_way = _sent_early(handle, coming, way.beside)  # comes while this one is checked
        if check:
            try:
                source.check(step.start, step.stop, chosen)
            except ChecksumError:
                check = False
        yield Loaded(step.nbytes, step.stop)
        step = coming


def _sent(handle: FileHandle, step: _Step, beside: Beside | None) -> list[Callable[[], object]]:
    """Have another thread bring a step; what waits for its halves, or brings what is not begun."""
    if step.touched and handle.has_large_pages and not handle.evicting:  # or pages would come one by one
        return [partial(handle.touch, *stretch) for stretch in step.brought]
    if beside is None:
        return [partial(_bring, handle, step.brought)]
    parts = _halves(step.brought) if handle.has_large_pages else [step.brought]  # without them, it is a row of reads
    return [beside(partial(_bring, handle, part)) for part in parts if part]


def _sent_early(handle: FileHandle, step: _Step | None, beside: Beside | None) -> list[Callable[[], object]]:
    """The same for a step whose turn is next, or nothing if it is to wait for that.

    What goes on where another ended a system that reads far ahead begins to read by itself, in large pages, when that
    is checked; to do so at the same time makes small ones of both. It does not where somebody evicts.
    """
    alone = handle.evicting or (handle.has_large_pages and handle.reads_far is False)
    return [] if step is None or (step.follows and not alone) else _sent(handle, step, beside)


def _bring(handle: FileHandle, stretches: list[tuple[int, int]]) -> None:
    for start, end in stretches:
        handle.bring(start, end)


def _halves(stretches: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Two parts of about as many large pages."""
    n_left = sum(-(-(end - start) // LARGE_PAGE_NBYTES) for start, end in stretches) // 2
    first: list[tuple[int, int]] = []
    second: list[tuple[int, int]] = []
    for start, end in stretches:
        middle = min(end, start + n_left * LARGE_PAGE_NBYTES)
        n_left -= -(-(middle - start) // LARGE_PAGE_NBYTES)
        first.extend([(start, middle)] if start < middle else [])
        second.extend([(middle, end)] if middle < end else [])
    return [first, second]


class _Step(NamedTuple):
    """Consecutive records, their bytes, and where these lie: what is brought, or asked for beside that."""

    start: int
    stop: int
    follows: bool
    nbytes: int
    brought: list[tuple[int, int]]
    asked: list[tuple[int, int]]
    touched: bool = False  # whether what is brought goes on a row that is left to the system


def _asked(source: FileSource, handle: FileHandle, runs: Array, chosen: Sequence[int], way: Way) -> Iterator[_Step]:
    """Steps in turn, each when the system was asked for those behind it, but for large pages."""
    coming: deque[_Step] = deque()
    nbytes = 0
    for start, stop, goes_on in _steps(source, runs):
        step = _step(source, handle, start, stop, chosen, goes_on, way)
        for offset, length in step.asked:
            handle.will_need(offset, length)
        coming.append(step)
        nbytes += step.nbytes
        while (len(coming) > _STEPS_AHEAD and nbytes > ASKED_AHEAD_NBYTES) or len(coming) > _MOST_STEPS_AHEAD:
            nbytes -= coming[0].nbytes
            yield coming.popleft()
    yield from coming


def _step(
    source: FileSource, handle: FileHandle, start: int, stop: int, chosen: Sequence[int], goes_on: bool, way: Way
) -> _Step:
    """Where consecutive records lie."""
    shared = way.dense and len(chosen) == len(source.schema.columns)
    extents = source.extents(start, stop, chosen)
    step = _Step(start, stop, bool(extents) and handle.follows(extents[0][0]), 0, [], [])
    for offset, nbytes in extents:
        first, last = handle.to_bring(offset, nbytes, goes_on and len(extents) == 1, shared)
        end = offset + nbytes
        if first < last:
            step.brought.append((first, last))
            step.asked.extend((at, to - at) for at, to in ((offset, first), (last, end)) if at < to)
        else:
            step.asked.append((offset, nbytes))
    touched = way.check and len(extents) == 1 and bool(handle.reads_far) and handle.goes_on_a_long_row(extents[0][0])
    return step._replace(nbytes=sum(nbytes for _, nbytes in extents), touched=touched)


def _steps(source: FileSource, runs: Array) -> Iterator[tuple[int, int, bool]]:
    """Ranges of records of about one step each, ending with blocks where they can, and whether their run goes on."""
    block_nbytes = max(1, source.stored.stride)
    size = source.block_records * max(1, STEP_NBYTES // block_nbytes)
    for start, stop in runs.tolist():
        while start < stop:
            end = min(stop, start - start % size + size)
            yield start, end, end < stop
            start = end

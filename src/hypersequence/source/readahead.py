"""Reading ahead: runs of records into memory, in the order of the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from ..errors import ChecksumError
from ..schema import Array
from .handle import FileHandle

if TYPE_CHECKING:
    from .reader import FileSource

#: What is waited for and checked in one step.
STEP_NBYTES = 8 << 20
#: How many steps ahead the disk is kept busy; with one or two, it stands still while a step is checked.
_STEPS_AHEAD = 4
ASKED_AHEAD_NBYTES = _STEPS_AHEAD * STEP_NBYTES
#: More than these no disk needs, and to ask may mean to wait.
_MOST_STEPS_AHEAD = 256


def load(source: FileSource, handle: FileHandle, runs: Array, chosen: Sequence[int], check: bool) -> Iterator[int]:
    """Bring runs of records into the page cache, step by step.

    The system is asked for coming steps early. In a long row they are read instead, piece by piece, which it meets with
    read-ahead of its own and large pages. A step ends when its bytes have arrived. Every call that waits lets other
    threads run.

    Args:
        source: The file.
        handle: Its handle.
        runs: Rows of ``[first, last + 1]``, rising and apart.
        chosen: Column numbers.
        check: Whether to check them as they come; else that is left to whoever reads them.

    Yields:
        0 when the first steps are on their way; then the bytes of each step that is there.

    Damage ends the checking, not the loading: the batch that needs the records meets it again.

    Raises:
        HyperSequenceError: The file was closed or truncated; the rest is not loaded then.
    """
    steps = _asked(source, handle, runs, chosen)
    first = next(steps, None)
    yield 0
    for step in () if first is None else chain((first,), steps):
        handle.ensure_whole()
        for offset, nbytes in step.extents:
            if step.in_a_row:
                handle.read_through(offset, nbytes)
            else:
                handle.wait_for(offset, nbytes)
        if check:
            try:
                source.check(step.start, step.stop, chosen)
            except ChecksumError:
                check = False
        yield step.nbytes


class _Step(NamedTuple):
    """Consecutive records, their offsets and numbers of bytes, and whether these go on a long row."""

    start: int
    stop: int
    extents: list[tuple[int, int]]
    in_a_row: bool

    @property
    def nbytes(self) -> int:
        """How much that is."""
        return sum(nbytes for _, nbytes in self.extents)


def _asked(source: FileSource, handle: FileHandle, runs: Array, chosen: Sequence[int]) -> Iterator[_Step]:
    """Steps in turn, each when the system was asked for those behind it, as far as they will not be read in a row."""
    coming: deque[_Step] = deque()
    nbytes = 0
    for start, stop in _steps(source, runs):
        extents = source.extents(start, stop, chosen)
        in_a_row = len(extents) == 1 and handle.in_a_row(*extents[0])
        for offset, length in () if in_a_row else extents:
            handle.will_need(offset, length)
        coming.append(_Step(start, stop, extents, in_a_row))
        nbytes += coming[-1].nbytes
        while (len(coming) > _STEPS_AHEAD and nbytes > ASKED_AHEAD_NBYTES) or len(coming) > _MOST_STEPS_AHEAD:
            nbytes -= coming[0].nbytes
            yield coming.popleft()
    yield from coming


def _steps(source: FileSource, runs: Array) -> Iterator[tuple[int, int]]:
    """Ranges of records of about one step each, ending with blocks where they can."""
    block_nbytes = max(1, source.stored.stride)
    size = source.block_records * max(1, STEP_NBYTES // block_nbytes)
    for start, stop in runs.tolist():
        while start < stop:
            end = min(stop, start - start % size + size)
            yield start, end
            start = end

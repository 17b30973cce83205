"""From record numbers to arrays: a view where rows are contiguous, one gather a column where they are not."""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..errors import ArgumentError, FileChangedError
from ..layout import describe_file
from ..legacy import describe_legacy_file, looks_legacy
from ..schema import Array, Schema
from ..stored import StoredFile
from .columns import Plan, StoredColumn
from .handle import MAX_GAP_NBYTES, FileHandle
from .pagecache import n_blocks_read
from .readahead import ASKED_AHEAD_NBYTES, STEP_NBYTES, Loaded, Way, load
from .verify import RunChecker, Verify

#: Record numbers: a range with step 1 where they are contiguous, else an int64 array.
Numbers: TypeAlias = "range | Array"

_V3_MAGIC = b"\x89HSQ"
_SMALL_BLOCK_NBYTES = 1 << 20
_MIN_SAMPLES, _MAX_SAMPLES, _MAX_SAMPLES_A_RUN = 4, 128, 16
_SAMPLE_NBYTES = 4 << 20


class Source(Protocol):
    """What a sequence reads from: one file, or several in a row."""

    schema: Schema
    n_records: int
    batch_size: int
    block_records: int

    def read(self, numbers: Numbers, chosen: Sequence[int]) -> list[Array]:
        """Arrays of the chosen columns for these records, leading axis = records."""
        ...

    def runs(self, starts: Array, n_rows: int, chosen: Sequence[int]) -> Iterator[Sequence[Array]]:
        """What ``read`` gives for so many records from each of these on, one after the other."""
        ...

    def fill(self, runs: Sequence[range], chosen: Sequence[int], out: Sequence[Array]) -> None:
        """Copy runs of consecutive records, one behind the other, into these arrays, one a chosen column."""
        ...

    def plan(self, numbers: Array) -> Any:
        """Work out where these records lie, for several calls of ``gather``."""
        ...

    def gather(
        self, plan: Any, part: slice, chosen: Sequence[int], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """The chosen columns of a part of a plan's records, in ``out`` or owned memory."""
        ...

    def prefetch(self, numbers: range, chosen: Sequence[int]) -> None:
        """Ask the system to read ahead what ``read`` will be asked for; returns at once."""
        ...

    def load(self, runs: Array, chosen: Sequence[int], way: Way) -> Iterator[Loaded]:
        """Bring runs of records into memory in the order of the disk, checked if asked to, step by step."""
        ...

    def resident(self, runs: Array, chosen: Sequence[int]) -> bool:
        """Whether runs of records are in memory already, as far as samples tell."""
        ...

    def evict(self, runs: Array, chosen: Sequence[int]) -> None:
        """Tell the system that runs of records will not be needed soon."""
        ...

    def user_meta(self) -> dict[str, Any]:
        """The user metadata."""
        ...

    def files(self) -> list[FileSource]:
        """The files behind this source, in order."""
        ...

    def close(self) -> None:
        """Close every file."""
        ...


class FileSource:
    """One open file.

    Thread-safe, fork-safe, picklable (it is opened again by its path, and must then be the same file).
    """

    def __init__(self, path: str, *, use_mmap: bool, copy_buffer: bool, verify: Verify) -> None:
        if verify not in ("first", "always", "never"):
            raise ArgumentError(f"verify is 'first', 'always' or 'never', not {verify!r}")
        self.path = path
        self._options: dict[str, Any] = {"use_mmap": use_mmap, "copy_buffer": copy_buffer, "verify": verify}
        self._handle = FileHandle(path)
        try:
            self.stored = _describe(self._handle)
            mapping = self._map() if use_mmap else None
        except BaseException:
            self._handle.close()
            raise
        self.schema = self.stored.schema
        self.n_records = self.stored.n_records
        self.batch_size = self.stored.batch_size
        self.block_records = self.stored.block_records
        self._views = mapping is not None and not copy_buffer
        self._columns = [StoredColumn(self.stored, c.number, self._handle) for c in self.schema.columns]
        self._checker = RunChecker(self.stored, self._handle, verify)
        self._meta: dict[str, Any] | None = None

    def _map(self) -> memoryview | None:
        """The file's mapping; where the system has none for us, the file is read as it is with ``use_mmap=False``."""
        try:
            return self._handle.map() if self._handle.nbytes else None
        except (OSError, OverflowError) as error:
            warnings.warn(
                f"{self.path}: cannot be mapped ({error}); it is read instead, and every batch is a copy",
                RuntimeWarning,
                stacklevel=2,
            )
            return None

    def read(self, numbers: Numbers, chosen: Sequence[int]) -> list[Array]:
        """Arrays of the chosen columns for these records.

        Args:
            numbers: Record numbers, all inside the file (the caller has checked): a range of step 1, or an int64 array
                of any shape, which becomes the leading axes of the result.
            chosen: Column numbers.

        Returns:
            For a range inside one block of a mapped file: read-only views. Otherwise owned, writable arrays.

        Raises:
            ChecksumError: A checksum run touched for the first time is damaged.
            ClosedError: After ``close()``.
            FileChangedError: The file was truncated.
        """
        if type(numbers) is not range:
            array = np.asarray(numbers)
            found = self.gather(self.plan(array.reshape(-1)), slice(0, array.size), chosen)
            return found if array.ndim == 1 else [a.reshape(*array.shape, *a.shape[1:]) for a in found]
        start = numbers.start
        n_rows = numbers.stop - start
        block, row = divmod(start, self.block_records)
        if row + n_rows > self.block_records:
            return self.read(np.arange(start, numbers.stop), chosen)
        self._handle.ensure_whole()
        if self._checker.unchecked:
            self._checker.check_rows(chosen, block, row, n_rows)
        arrays: list[Array] = []
        for number in chosen:
            column = self._columns[number]
            if self._views and column.rows is not None:  # the usual case, in the fewest steps
                at = start + block * column.gap
                arrays.append(column.rows[at : at + n_rows])
            else:
                arrays.append(column.read_rows(block, row, n_rows, view=self._views))
        return arrays

    def runs(self, starts: Array, n_rows: int, chosen: Sequence[int]) -> Iterator[Sequence[Array]]:
        """What ``read`` gives for so many records from each of these on, at a third of its cost; raises as it does."""
        columns = [self._columns[number] for number in chosen]
        blocks = starts // self.block_records
        views = self._views and not self._checker.unchecked and all(column.rows is not None for column in columns)
        if not views or bool(((starts + n_rows - 1) // self.block_records != blocks).any()):
            for start in starts.tolist():
                yield self.read(range(start, start + n_rows), chosen)
            return
        # A slice touches nothing, so the file may be looked at afterwards.
        for arrays in zip(*(column.views(starts + blocks * column.gap, n_rows) for column in columns), strict=True):
            self._handle.ensure_whole()
            yield arrays

    def plan(self, numbers: Array) -> Plan:
        """Work out where these records lie, for several calls of ``gather``."""
        return Plan(numbers, self.block_records, self.stored.n_blocks)

    def gather(
        self, plan: Plan, part: slice, chosen: Sequence[int], out: Sequence[Array | None] | None = None
    ) -> list[Array]:
        """The chosen columns of a part of a plan's records.

        Args:
            plan: What ``plan`` gave.
            part: A slice of its records, with both ends.
            chosen: Column numbers.
            out: C-contiguous arrays of the right shape and type to gather into; where there is none, or ``None``, it
                is leased.

        Raises:
            HyperSequenceError: As ``read`` does.
        """
        self._handle.ensure_whole()
        if self._checker.unchecked:
            self._checker.check_scattered(chosen, plan.blocks[part], plan.rows[part])
        if out is None:
            return [self._columns[number].gather(plan, part) for number in chosen]
        return [self._columns[number].gather(plan, part, target) for number, target in zip(chosen, out, strict=True)]

    def fill(self, runs: Sequence[range], chosen: Sequence[int], out: Sequence[Array]) -> None:
        """Copy runs of consecutive records, one behind the other, into these arrays; raises as ``read`` does."""
        self._handle.ensure_whole()
        pieces = [piece[:3] for run in runs for piece in self.pieces(run.start, run.stop)]
        if self._checker.unchecked:
            for block, row, n_rows in pieces:
                self._checker.check_rows(chosen, block, row, n_rows)
        for number, target in zip(chosen, out, strict=True):
            self._columns[number].fill(pieces, target)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
        """Consecutive records block by block: block, first row, number of rows, records before."""
        at = start
        while at < stop:
            block, row = divmod(at, self.block_records)
            n_rows = min(stop - at, self.block_records - row)
            yield block, row, n_rows, at - start
            at += n_rows

    def prefetch(self, numbers: range, chosen: Sequence[int]) -> None:
        """Ask the system to read these records ahead; returns at once."""
        for offset, nbytes in self.extents(numbers.start, numbers.stop, chosen):
            self._handle.will_need(offset, nbytes)

    def extents(self, start: int, stop: int, chosen: Sequence[int]) -> list[tuple[int, int]]:
        """Where consecutive records lie in the file: offsets and numbers of bytes, rising.

        Whole blocks where all columns are wanted, or where blocks are so small that gaps cost more than they save; and
        columns beside each other are one, or the jump would end the system's own read-ahead. With the rest of each
        checksum run that is not checked yet.
        """
        first, last = start // self.block_records, (stop - 1) // self.block_records
        stored = self.stored
        if first < last and (len(chosen) == len(self._columns) or stored.stride < _SMALL_BLOCK_NBYTES):
            offset = stored.first_block + first * stored.stride
            return [(offset, min((last + 1 - first) * stored.stride, self._handle.nbytes - offset))]
        found: list[tuple[int, int]] = []
        for block, row, n_rows, _ in self.pieces(start, stop):
            touched = ((number, self._checker.rows_touched(number, block, row, n_rows)) for number in chosen)
            for offset, nbytes in sorted(self._columns[number].extent(block, *rows) for number, rows in touched):
                if found and 0 <= offset - sum(found[-1]) <= MAX_GAP_NBYTES:
                    found[-1] = (found[-1][0], offset + nbytes - found[-1][0])
                elif nbytes:
                    found.append((offset, nbytes))
        return found

    def check(self, start: int, stop: int, chosen: Sequence[int]) -> None:
        """Check what was not checked yet of consecutive records.

        Raises:
            ChecksumError: Stored data changed after they were written.
        """
        if self._checker.unchecked:
            for block, row, n_rows, _ in self.pieces(start, stop):
                self._checker.check_rows(chosen, block, row, n_rows)

    def load(self, runs: Array, chosen: Sequence[int], way: Way) -> Iterator[Loaded]:
        """Bring runs of records into memory, checked if asked to."""
        return load(self, self._handle, runs, chosen, way._replace(check=way.check and self._checker.keeps))

    def resident(self, runs: Array, chosen: Sequence[int]) -> bool:
        """Whether runs of records are in the page cache, as far as samples tell."""
        before = n_blocks_read()
        for number, offset in enumerate(self._samples(runs, chosen)):
            # Mostly everything is there or nothing; and to try what is not leaves a small page in a large one's place.
            if (number == 0 and self._handle.is_absent(offset)) or not self._handle.is_cached(offset):
                return False
        return n_blocks_read() == before

    def _samples(self, runs: Array, chosen: Sequence[int]) -> Iterator[int]:
        """Offsets of bytes that stand for runs of records: some a run, of many runs not all.

        To try one takes 2 us, as long as some tens of KB take to be used: more of them where there is more. They are in
        the middle of what they stand for: at its edges is often what came with its neighbours.
        """
        total = int((runs[:, 1] - runs[:, 0]).sum()) * self.schema.record_nbytes
        n_runs = min(_MAX_SAMPLES, max(_MIN_SAMPLES, total // _SAMPLE_NBYTES))
        for start, stop in runs[:: max(1, len(runs) // n_runs)].tolist():
            extents = self._own_extents(start, stop, chosen)
            for offset, nbytes in extents[:: max(1, len(extents) // _MAX_SAMPLES_A_RUN)]:
                n_samples = max(1, min(_MAX_SAMPLES_A_RUN, nbytes // _SAMPLE_NBYTES))
                for sample in range(n_samples):
                    yield offset + nbytes * (2 * sample + 1) // (2 * n_samples)

    def evict(self, runs: Array, chosen: Sequence[int]) -> None:
        """Drop runs of records from the page cache; of blocks that they share with others, their part only."""
        for start, stop in runs.tolist():
            for offset, nbytes in self._own_extents(start, stop, chosen):
                self._handle.evict(offset, nbytes)

    def _own_extents(self, start: int, stop: int, chosen: Sequence[int]) -> list[tuple[int, int]]:
        """What :meth:`extents` gives, but of blocks that records share with others their part only."""
        size = self.block_records
        edges = {start, min(-(-start // size) * size, stop), max(stop // size * size, start), stop}
        parts = itertools.pairwise(sorted(edges))
        return [extent for first, last in parts for extent in self.extents(first, last, chosen)]

    @property
    def has_large_pages(self) -> bool:
        """Whether the system brings large pages of this file, as far as is known."""
        return self._handle.has_large_pages

    @property
    def early_nbytes(self) -> int:
        """How many bytes of long runs come, at most, before what is loaded is asked for them."""
        return max(STEP_NBYTES, self.stored.stride) if self.has_large_pages else ASKED_AHEAD_NBYTES

    def begin_evicting(self, who: object) -> None:
        """Somebody is going to evict: what is touched by chance is to come alone."""
        self._handle.begin_evicting(who)

    def end_evicting(self, who: object) -> None:
        """They do not any more: who reads without reading ahead is not to do so page by page."""
        self._handle.end_evicting(who)

    def user_meta(self) -> dict[str, Any]:
        """The user metadata, read once."""
        if self._meta is None:
            self._handle.ensure_whole()
            self._meta = self.stored.read_meta(self._handle.read)
        return self._meta

    def files(self) -> list[FileSource]:
        """This file alone."""
        return [self]

    @property
    def verifies(self) -> bool:
        """Whether checksums are checked, if there are any."""
        return self._options["verify"] != "never"

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return self._handle.closed

    def close(self) -> None:
        """Close the file; arrays stay valid."""
        self._handle.close()
        self._columns = [StoredColumn(self.stored, c.number, self._handle) for c in self.schema.columns]

    def __reduce__(self) -> Any:
        return _reopen, (self.path, self._options, self.same())

    def same(self) -> tuple[Any, ...]:
        """What tells this file from another one at the same path."""
        stored = self.stored
        return stored.file_id, stored.digest, stored.n_records, self._handle.nbytes


def _describe(handle: FileHandle) -> StoredFile:
    if handle.read(0, len(_V3_MAGIC)) != _V3_MAGIC and handle.nbytes and looks_legacy(handle.read, handle.nbytes):
        return describe_legacy_file(handle.read, handle.nbytes, handle.path)
    return describe_file(handle.read, handle.nbytes, handle.path)


def open_source(path: str | os.PathLike[str], *, use_mmap: bool, copy_buffer: bool, verify: Verify) -> FileSource:
    """Open one file of version 3, or of hypersequence 0.9 or 0.10."""
    return FileSource(str(Path(path).absolute()), use_mmap=use_mmap, copy_buffer=copy_buffer, verify=verify)


def _reopen(path: str, options: dict[str, Any], same: tuple[Any, ...]) -> FileSource:
    source = FileSource(path, **options)
    if source.same() != same:
        source.close()
        raise FileChangedError(
            f"{path}: the file was replaced since this sequence was made; make the sequence again", path=path
        )
    return source

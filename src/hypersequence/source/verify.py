"""Checksums: which runs of a file were checked already, and checking those that were not."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import xxhash

from ..errors import FileError
from ..layout import Run, checksum_error
from ..schema import Array
from ..stored import StoredFile
from .buffers import anonymous, lease
from .handle import FileHandle

Verify: TypeAlias = Literal["first", "always", "never"]


#: More flags than this, of all columns together, are memory that is there when it is touched.
_MANY_FLAGS = 1 << 20


def _flags(n_runs: int, few: int, path: str) -> bytearray | mmap.mmap:
    """A byte of zero for each run. A hostile file may claim more runs than there is memory."""
    if n_runs <= few:
        return bytearray(n_runs)
    try:
        return anonymous(n_runs, getattr(mmap, "MAP_NORESERVE", 0))
    except (OSError, ValueError, OverflowError) as error:
        raise FileError(
            f"{path}: there is no memory to note for {n_runs:,} checksums which were checked ({error}); open it with "
            "verify='never'",
            path=path,
        ) from error


class RunChecker:
    """Checks every checksum run the first time that this handle touches it (or always, or never).

    What was checked is remembered in one byte a run. Nothing here takes a lock: flags only ever go from 0 to 1, and
    two threads that check the same run find the same.
    """

    def __init__(self, stored: StoredFile, handle: FileHandle, verify: Verify) -> None:
        self._stored = stored
        self._handle = handle
        #: Whether what was checked is remembered, so that it pays to check before anybody asks.
        self.keeps = verify == "first"
        self._columns = [c.field.nbytes for c in stored.schema.columns]
        self._run_records = stored.run_records or (1,) * len(self._columns)
        self._runs_per_block = [-(-stored.block_records // n) for n in self._run_records]
        self._last_checksums: tuple[int, tuple[bytes, ...]] = (-1, ())
        self._flags: list[bytearray | mmap.mmap] = []
        self._arrays: list[Array] = []
        self._done_until: list[int] = []
        #: Columns that may still have unchecked runs; empty means that reading needs no look at checksums at all.
        self.unchecked: set[int] = set()
        if verify == "never" or stored.read_checksums is None:
            return
        for column, nbytes in enumerate(self._columns):
            n_runs = self._n_runs(column) if nbytes else 0
            self._flags.append(_flags(n_runs, _MANY_FLAGS // len(self._columns), handle.path))
            self._arrays.append(np.frombuffer(self._flags[-1], np.bool_)[:n_runs])
            self._done_until.append(0)
            if n_runs:
                self.unchecked.add(column)

    def _n_runs(self, column: int) -> int:
        stored = self._stored
        if not stored.n_blocks:
            return 0
        last_records = stored.n_records - (stored.n_blocks - 1) * stored.block_records
        return (stored.n_blocks - 1) * self._runs_per_block[column] + -(-last_records // self._run_records[column])

    def rows_touched(self, column: int, block: int, row: int, n_rows: int) -> tuple[int, int]:
        """First row and number of rows that are read for consecutive ones: whole runs, where these are unchecked."""
        if column not in self.unchecked or not n_rows:
            return row, n_rows
        size, first = self._run_records[column], block * self._runs_per_block[column]
        low, high = row // size, (row + n_rows - 1) // size + 1
        if self._flags[column].find(b"\0", first + low, first + high) < 0:
            return row, n_rows
        block_records = min(self._stored.block_records, self._stored.n_records - block * self._stored.block_records)
        return low * size, min(high * size, block_records) - low * size

    def check_rows(self, chosen: Sequence[int], block: int, row: int, n_rows: int) -> None:
        """Check the runs that hold consecutive rows of a block.

        Raises:
            ChecksumError: Stored data changed after they were written.
        """
        for column in chosen:
            if column not in self.unchecked or not n_rows:
                continue
            first = block * self._runs_per_block[column]
            low = first + row // self._run_records[column]
            high = first + (row + n_rows - 1) // self._run_records[column] + 1
            flags = self._flags[column]
            run = flags.find(b"\0", low, high)
            while run >= 0:
                self._check(column, run)
                run = flags.find(b"\0", run + 1, high)

    def check_scattered(self, chosen: Sequence[int], blocks: Array, rows: Array) -> None:
        """Check the runs that hold scattered rows; ``blocks`` and ``rows`` go together.

        Raises:
            ChecksumError: Stored data changed after they were written.
        """
        for column in chosen:
            if column not in self.unchecked:
                continue
            runs = blocks * self._runs_per_block[column] + rows // self._run_records[column]
            unseen = runs[~self._arrays[column][runs]]
            for run in np.unique(unseen).tolist():
                self._check(column, run)

    def _check(self, column: int, run: int) -> None:
        stored, nbytes = self._stored, self._columns[column]
        block, run_in_block = divmod(run, self._runs_per_block[column])
        row = run_in_block * self._run_records[column]
        block_records = min(stored.block_records, stored.n_records - block * stored.block_records)
        n_rows = min(self._run_records[column], block_records - row)
        offset = stored.first_block + block * stored.stride + stored.column_offsets[column] + row * nbytes
        checksums = self._checksums(block)[column]
        expected = int.from_bytes(checksums[8 * run_in_block : 8 * run_in_block + 8], "little")
        # update() lets other threads run while it hashes; xxhash's one-shot functions do not.
        hasher = xxhash.xxh3_64()
        hasher.update(self._bytes(offset, n_rows * nbytes))
        if hasher.intdigest() != expected:
            found = Run(column, offset, n_rows * nbytes, block * stored.block_records + row, n_rows, expected)
            label = stored.schema.columns[column].label
            raise checksum_error(self._handle.path, block, found, label, hasher.intdigest())
        if self.keeps:
            self._mark(column, run)

    def _mark(self, column: int, run: int) -> None:
        flags = self._flags[column]
        flags[run] = 1
        until = flags.find(b"\0", self._done_until[column], len(self._arrays[column]))
        if until >= 0:
            self._done_until[column] = until
        else:
            self.unchecked.discard(column)

    def _checksums(self, block: int) -> tuple[bytes, ...]:
        known, checksums = self._last_checksums
        if known != block:
            assert self._stored.read_checksums is not None
            checksums = self._stored.read_checksums(self._handle.read, block)
            self._last_checksums = (block, checksums)
        return checksums

    def _bytes(self, offset: int, nbytes: int) -> Any:
        mapping = self._handle.mapping
        if mapping is not None:
            return mapping[offset : offset + nbytes]
        memory = lease((nbytes,), np.dtype(np.uint8)).data
        self._handle.read_into(memory, offset)
        return memory

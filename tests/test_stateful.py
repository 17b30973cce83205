"""Anything that people do with files, in any order, beside the same in plain lists."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import hypersequence as hs
from conftest import LONG

SCHEMA = hs.Schema(hs.Field("float32", [3]), hs.Field("int64"))
VALUES = st.integers(0, 1 << 20)


def rows(values: list[int]) -> tuple[Any, Any]:
    numbers = np.array(values, np.int64)
    return np.repeat(numbers.astype(np.float32)[:, None], 3, 1), numbers


class Files(RuleBasedStateMachine):
    """One target, a writer at a time, any number of readers, and arrays that somebody holds.

    ``committed`` is what the target has, ``None`` without one; ``pending`` what was appended to the file being written,
    or left behind, and ``n_safe`` how many records of that no crash can take.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "a.hsq"
        self.committed: list[int] | None = None
        self.writer: hs.HyperSequenceWriter | None = None
        self.resumed = self.left = False
        self.pending: list[int] = []
        self.n_safe = 0
        self.readers: list[tuple[hs.HyperSequence, list[int]]] = []
        self.held: list[tuple[Any, list[int]]] = []

    def teardown(self) -> None:
        if self.writer is not None:
            self.writer.abort()
        for seq, _ in self.readers:
            seq.close()
        shutil.rmtree(self.folder)

    @property
    def part(self) -> Path:
        (part,) = self.folder.glob("a.hsq.*.part")
        return part

    def block_records(self) -> int:
        assert self.writer is not None
        return self.writer._block_records

    # --- writing -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.writer is None and not self.left)
    @rule(batch_size=st.integers(1, 6), block_nbytes=st.sampled_from([1, 100, 300]))
    def begin(self, batch_size: int, block_nbytes: int) -> None:
        self.writer = hs.HyperSequenceWriter(self.path, batch_size, schema=SCHEMA, block_nbytes=block_nbytes)
        self.pending, self.n_safe, self.resumed = [], 0, False

    @precondition(lambda self: self.writer is not None)
    @rule(value=VALUES)
    def append(self, value: int) -> None:
        assert self.writer is not None
        self.writer.append(np.full(3, value, np.float32), value)
        self.appended([value])

    @precondition(lambda self: self.writer is not None)
    @rule(values=st.lists(VALUES, max_size=40))
    def extend(self, values: list[int]) -> None:
        assert self.writer is not None
        self.writer.extend(*rows(values))
        self.appended(values)

    def appended(self, values: list[int]) -> None:
        assert self.writer is not None
        self.pending += values
        size = self.block_records()
        self.n_safe = max(self.n_safe, len(self.pending) // size * size)
        assert self.writer.n_records == len(self.pending)

    @precondition(lambda self: self.writer is not None)
    @rule()
    def refuse(self) -> None:
        assert self.writer is not None
        with pytest.raises(hs.RecordError):
            self.writer.append(np.zeros(4, np.float32), 1)
        with pytest.raises(hs.RecordError):
            self.writer.extend(np.zeros((2, 3), np.float32), np.zeros(3, np.int64))

    @precondition(lambda self: self.writer is not None)
    @rule(note=st.one_of(st.none(), st.text(max_size=5)))
    def close(self, note: str | None) -> None:
        assert self.writer is not None
        if note is not None:
            self.writer.user_meta()["note"] = note
        self.writer.close()
        with hs.open(self.path) as seq:
            assert seq.user_meta() == ({} if note is None else {"note": note})
        self.committed, self.writer = self.pending, None

    @precondition(lambda self: self.writer is not None)
    @rule()
    def abort(self) -> None:
        assert self.writer is not None
        self.writer.abort()
        self.writer = None
        self.left = bool(self.pending) or self.resumed  # what somebody else wrote is never thrown away
        self.n_safe = len(self.pending)

    @precondition(lambda self: self.writer is not None)
    @rule()
    def kill(self) -> None:
        """The file is what it is at this moment, whatever the writer still does."""
        assert self.writer is not None
        part = self.part
        data = part.read_bytes()
        self.writer.abort()
        self.writer = None
        part.write_bytes(data)
        self.left = True

    @precondition(lambda self: self.left)
    @rule()
    def resume(self) -> None:
        self.writer = hs.HyperSequenceWriter.resume(self.path)
        assert self.writer.n_records == self.n_safe
        self.pending = self.pending[: self.n_safe]
        self.resumed, self.left = True, False

    @precondition(lambda self: self.left)
    @rule()
    def recover(self) -> None:
        found = hs.recover(self.part, overwrite=True)
        assert found.n_records == self.n_safe
        self.committed, self.left = self.pending[: self.n_safe], False

    @precondition(lambda self: self.left)
    @rule()
    def recover_elsewhere(self) -> None:
        out = self.folder / "out.hsq"
        assert hs.recover(self.part, out, overwrite=True).n_records == self.n_safe
        with hs.open(out, verify="always") as seq:
            assert [int(label) for _, y in seq for label in y] == self.pending[: self.n_safe]
        out.unlink()

    @precondition(lambda self: self.left)
    @rule()
    def clean(self) -> None:
        self.part.unlink()
        self.left = False

    # --- reading -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self.committed is not None)
    @rule(use_mmap=st.booleans(), verify=st.sampled_from(["first", "always", "never"]))
    def open(self, use_mmap: bool, verify: Any) -> None:
        assert self.committed is not None
        self.readers.append((hs.open(self.path, use_mmap=use_mmap, verify=verify), self.committed))

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), size=st.integers(1, 9), seed=st.integers(0, 5))
    def read(self, data: st.DataObject, size: int, seed: int) -> None:
        seq, expected = data.draw(st.sampled_from(self.readers))
        found = [int(label) for x, y in seq.rebatch(size) for label in y if (x[0] == y[0]).all()]
        assert found == expected
        for by in ("window", "record", "batch"):
            shuffled = seq.rebatch(size).shuffled(seed, by=by)
            assert sorted(int(label) for _, y in shuffled for label in y) == sorted(expected)
        if expected:
            numbers = data.draw(st.lists(st.integers(0, len(expected) - 1), max_size=8))
            x, y = seq.records[numbers]
            assert y.tolist() == [expected[number] for number in numbers]
            assert (x == y[:, None]).all()

    @precondition(lambda self: any(expected for _, expected in self.readers))
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        seq, expected = data.draw(st.sampled_from([each for each in self.readers if each[1]]))
        number = data.draw(st.integers(0, len(seq) - 1))
        size = seq.batch_size()
        self.held.append((seq[number], expected[number * size : number * size + size]))

    @precondition(lambda self: self.readers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        seq, _ = self.readers.pop(data.draw(st.integers(0, len(self.readers) - 1)))
        seq.close()
        with pytest.raises(hs.ClosedError):
            seq.records[:]

    # --- always ------------------------------------------------------------------------------------------------------

    @invariant()
    def the_target_is_what_was_committed(self) -> None:
        if self.committed is None:
            assert not self.path.exists()
            return
        found = hs.verify(self.path, threads=0)
        assert found.ok
        assert found.n_records == len(self.committed)
        with hs.open(self.path) as seq:
            assert [int(label) for _, y in seq for label in y] == self.committed

    @invariant()
    def what_somebody_holds_stays(self) -> None:
        for (x, y), expected in self.held:
            assert y.tolist() == expected
            assert (x == y[:, None]).all()

    @invariant()
    def one_part_file_at_most(self) -> None:
        n_parts = len(list(self.folder.glob("*.part")))
        assert n_parts == (self.writer is not None or self.left)


TestFiles = Files.TestCase
TestFiles.settings = settings(
    max_examples=60 * LONG, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)

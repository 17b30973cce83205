"""What a worker process of :func:`write` does: from items to records, many at a time."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, RecordError
from ..schema import Array, Schema
from ..values import check_value
from .base import raw


@dataclass
class Made:
    """What came of a chunk of items.

    Args:
        n_records: Records that were made.
        columns: Theirs, if the schema was known. They stand behind this in the chunk's file.
        records: Themselves, if it was not.
        error: What the next one raised; the chunk ends before it.
        trace: Where that was.
    """

    n_records: int = 0
    columns: list[Array] = field(default_factory=list[Array])
    records: list[Any] = field(default_factory=list[Any])
    error: Exception | None = None
    trace: str = ""


def as_given(record: Any) -> tuple[Any, Any, Any]:
    """``(inputs, outputs, sample_weights)`` of what ``write`` takes for a record.

    Raises:
        RecordError: A tuple of another length.
    """
    if not isinstance(record, tuple):
        return record, None, None
    members: tuple[Any, ...] = record  # pyright: ignore[reportUnknownVariableType]
    if not 1 <= len(members) <= 3:
        raise RecordError(
            f"a record is inputs, or a tuple (inputs, outputs) or (inputs, outputs, sample_weights), not a tuple of "
            f"{len(members)}; several inputs are a tuple in that tuple: ((a, b), outputs)"
        )
    inputs, outputs, weights = (*members, None, None)[:3]
    return inputs, outputs, weights


class _Maker:
    """Makes chunks, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Array] = []  # used again, since fresh memory costs more than what is put there

    def _load(self, name: str) -> Any:
        with (self._folder / name).open("rb") as stream:
            return pickle.load(stream)

    @cached_property
    def _source(self) -> tuple[Callable[[Any], Any] | None, Any]:
        try:
            return self._load("fn"), self._load("data")
        except Exception as error:
            raise ArgumentError(
                f"a worker process cannot load fn or the data set: {error}; define them in a module or script, not at "
                "a prompt or in a notebook"
            ) from error

    @cached_property
    def _schema(self) -> Schema:
        return self._load("schema")

    def make(self, slot: int, known: bool) -> float:
        """Make a chunk; returns how many seconds that took."""
        began = time.perf_counter()
        made, columns = Made(), list[Array]()
        try:
            fn, data = self._source
            given: list[Any] = self._load(f"{slot}.items")
            # No map(), which would let a StopIteration of theirs through, and that would be the end of the chunk.
            chosen: Iterable[Any] = given if data is None else (data[number] for number in given)
            records = chosen if fn is None else (fn(item) for item in chosen)
            if known:
                columns = self._room(len(given))
                _fill(made, columns, records, self._schema)
            else:
                for record in records:
                    made.records.append(record)
                    made.n_records += 1
        except Exception as error:
            made.error, made.trace = _sendable(error), traceback.format_exc()
        with (self._folder / f"{slot}.made").open("r+b") as stream:  # written over: its pages are there already
            pickle.dump(made, stream, pickle.HIGHEST_PROTOCOL)
            for column in columns:
                stream.write(raw(column[: made.n_records]))
        return time.perf_counter() - began

    def _room(self, count: int) -> list[Array]:
        """A place for so many rows of each column."""
        if not self._rows or len(self._rows[0]) < count:
            fields = [column.field for column in self._schema.columns]
            self._rows = [np.ndarray((count, *field.shape), field.dtype) for field in fields]  # np.empty widens S0
        return self._rows


def _fill(made: Made, columns: list[Array], records: Iterable[Any], schema: Schema) -> None:
    """Put records side by side, checked as the writer does it."""
    targets = [(rows, rows.dtype, rows.shape[1:], column) for rows, column in zip(columns, schema.columns, strict=True)]
    for row, record in enumerate(records):
        values = schema.flatten(as_given(record))
        for (rows, dtype, shape, column), value in zip(targets, values, strict=True):
            fits = type(value) is np.ndarray and value.dtype is dtype and value.shape == shape
            rows[row] = value if fits else check_value(column, value)
        made.n_records = row + 1  # only now: of a record that is refused nothing counts


def _sendable(error: Exception) -> Exception:
    """The exception, or one that says the same if it cannot be sent."""
    with suppress(Exception):
        pickle.loads(pickle.dumps(error))
        return error
    return RuntimeError(f"{type(error).__name__}: {error}")


_maker: _Maker


def begin(folder: str) -> None:
    """Make a process a worker.

    Args:
        folder: Where it finds ``fn``, ``data``, ``schema`` and items, and where it leaves what it makes.
    """
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that waits for us is interrupted too, and ends us
    np.random.seed()  # noqa: NPY002 - processes that come from one another would all draw the same numbers
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    _maker = _Maker(Path(folder))


def _end_with_parent(folder: str) -> None:
    """Where the process that we work for is killed, nobody else would end us."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)


def make(slot: int, known: bool) -> float:
    """Make the chunk of a slot.

    Args:
        slot: The number in its files' names.
        known: Whether the schema is.

    Returns:
        How many seconds it took.
    """
    return _maker.make(slot, known)

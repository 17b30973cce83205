"""write(): any iterable, data set or function into an ``.hsq`` file."""

from __future__ import annotations

import inspect
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import ArgumentError, RecordError, SourceError
from ..progress import RecordProgress
from ..schema import Schema
from ..sequence import HyperSequence
from ..values import check_value
from ..writer import HyperSequenceWriter
from .api import Converted
from .importing import begin, check_last
from .maker import Made, as_given
from .placing import refuse_existing
from .workers import Workers


def write(
    path: str | os.PathLike[str],
    records: Any,
    *,
    fn: Callable[[Any], Any] | None = None,
    workers: int = 0,
    batch_size: int = 16,
    schema: Schema | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Converted:
    """Write records from Python, one after the other.

    A record is what :meth:`HyperSequenceWriter.append` takes: a tuple of two or three is ``(inputs, outputs)`` or
    ``(inputs, outputs, sample_weights)``, a tuple of one is ``(inputs,)``, and anything else, an array, a number, a
    dict, is inputs alone. Tensors of PyTorch and TensorFlow are arrays here.

    Args:
        path: The file to write. It appears when it is complete.
        records: Where they come from: a data set with length and items (a list, an array whose rows are records, a
            ``Dataset`` of PyTorch or Hugging Face, ``sequence.records``); any iterable (a generator, a
            ``tf.data.Dataset``, an ``IterableDataset``); or a function that is given the number of the first record
            wanted and returns an iterable from there on.
        fn: Makes a record of each item of ``records``; ``None`` if they are records.
        workers: Processes (not threads, since Python code that decodes runs in one thread at a time) in which ``fn``
            runs, and in which the items of a data set are made. What they run has to be picklable, and a script needs
            its ``if __name__ == "__main__":``. The order stays what it was. 0 for none.
        batch_size: Records of a native batch.
        schema: The structure of the records; ``None`` lets the first one fix it.
        resume: Go on where an earlier call stopped, if there was one. A data set is asked for the items from there on,
            a function for the iterable from there on, and of an iterable everything before is drawn and left out; all
            of them must give the same records in the same order, as a look at the last safe record shows.
        overwrite: Replace a file that exists. ``False`` (default) refuses, at once.
        progress: Show a progress bar on a terminal.

    Returns:
        What was written.

    Raises:
        RecordError: A record does not have the structure of the first one; the message has its number.
        SourceError: On resuming, the records are not those of the first try.
        ArgumentError: Something is no source of records, or cannot be sent to other processes.
        HyperSequenceError: A worker process was killed.
        FileError: The file exists or cannot be written.

    An exception of ``fn`` or ``records`` comes through as it is, with the number of the record in its notes. In all
    cases, and after Ctrl-C, what was complete stays in a part file: call it again with ``resume=True``.

    Thread-safe, if ``records`` and ``fn`` are: every call has a part file of its own.

    >>> def squares(first):
    ...     for i in range(first, 100):
    ...         yield np.full((2, 2), i, np.float32), i * i
    >>> write(folder / "squares.hsq", squares).n_records
    100
    """
    if workers < 0:
        raise ArgumentError(f"workers is 0 or more, not {workers}")
    source = _source_of(records)
    if workers and fn is None and source.data is None:
        raise ArgumentError(
            "workers have nothing to do: they run fn=, and make the items of a data set that is indexed; these records "
            "are made by whoever draws them"
        )
    target = Path(path)
    refuse_existing(target, overwrite=overwrite, resume=resume)
    with ExitStack() as stack:
        # First, so that nothing is begun if it cannot work.
        crew = stack.enter_context(Workers(workers, fn, source.data)) if workers else None
        writer = begin(
            target,
            schema,
            batch_size=batch_size,
            usual=batch_size,
            overwrite=overwrite,
            resume=resume,
            progress=progress,
        )
        stack.enter_context(writer)
        filling = stack.enter_context(_Filling(writer))
        first = filling.next
        bar = stack.enter_context(RecordProgress(target.name, source.n_items, progress, done=first))
        if crew is None:
            # No map(), which would let a StopIteration of fn through, and that would be the end of the records.
            made = source.items(first) if fn is None else (fn(item) for item in source.items(first))
            filling.append_all(_shown(made, bar) if progress else made)
        else:
            items = source.items(first) if source.data is None else range(first, len(source.data))
            chunks = stack.enter_context(closing(crew.chunks(first, items, lambda: filling.schema)))
            filling.extend_all(chunks, bar)
        if writer.n_records < source.n_least:
            raise SourceError(
                f"{target}: {writer.n_records:,} records came of a {type(records).__name__} of {source.n_least:,}, "
                "which became shorter meanwhile; give one that nobody changes"
            )
    return Converted(str(target), writer.n_records, "records")


# --- where records come from -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Source:
    """Items, from any number on.

    Args:
        items: Gives them from a number on.
        n_items: How many there are, if that is known.
        data: A data set that makes them by number.
        n_least: How many there have to be; 0 where a length may be an estimate, as of what can only be iterated over.
    """

    items: Callable[[int], Iterator[Any]]
    n_items: int | None = None
    data: Any = None
    n_least: int = 0


def _source_of(records: Any) -> _Source:
    """What kind of source something is.

    Raises:
        ArgumentError: It is none.
    """
    kind = type(records).__name__
    if isinstance(records, str | bytes | os.PathLike | Mapping):
        raise ArgumentError(
            f"a {kind} is no sequence of records; convert() takes files, and a "
            "HyperSequenceWriter's extend() takes arrays of many records"
        )
    if isinstance(records, HyperSequence):
        raise ArgumentError(
            f"a {kind} gives batches, and here every item is a record: give its .records, or write it with save()"
        )
    if getattr(records, "shape", None) == ():
        raise ArgumentError(f"a {kind} of no axes is a single value; give an array whose rows are records, or [value]")
    if hasattr(records, "columns") and hasattr(records, "shape"):  # of pandas, Polars or Arrow
        raise ArgumentError(
            f"a {kind} gives columns, and here every item is a record: give a HyperSequenceWriter's extend() a dict of "
            "its columns as arrays, or convert() a Parquet file of it"
        )
    if hasattr(records, "as_numpy_iterator"):  # tf.data
        return _Source(lambda first: iter(records.skip(first).as_numpy_iterator()), _length(records))
    if isinstance(records, list | tuple | range | deque | np.ndarray):  # drawing from them is no work for others
        n_items = _length(records) or 0
        return _Source(partial(_drawn_from, records), n_items, n_least=n_items)
    if hasattr(records, "__getitem__") and hasattr(records, "__len__") and not _iterates_only(records):
        n_items = len(records)
        return _Source(lambda first: (records[i] for i in range(first, n_items)), n_items, records, n_items)
    if hasattr(records, "__iter__"):
        return _Source(partial(_drawn_from, records), _length(records))
    if callable(records):
        _refuse_without_number(records)
        return _Source(partial(_from_number, records))  # pyright: ignore[reportArgumentType]
    raise ArgumentError(f"a {kind} is no source of records: it has no length and items, is no iterable, no function")


def _iterates_only(records: Any) -> bool:
    """PyTorch's iterable data sets have a length, and an indexing that raises; that of a pandas Series is by label."""
    return hasattr(records, "iloc") or any(base.__name__ == "IterableDataset" for base in type(records).__mro__)


def _length(records: Any) -> int | None:
    try:
        return len(records)
    except (TypeError, NotImplementedError):
        return None


def _drawn_from(records: Iterable[Any], first: int) -> Iterator[Any]:
    return islice(records, first, None)


def _from_number(function: Callable[[int], Iterable[Any]], first: int) -> Iterator[Any]:
    return iter(function(first))


def _refuse_without_number(function: Callable[..., Any]) -> None:
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        raise ArgumentError(
            f"{function!r} has to take the number of the first record wanted, so that writing can go on from there; or "
            "give what it returns"
        ) from None
    except ValueError:  # a built-in that does not say what it takes
        return


def _shown(items: Iterable[Any], bar: RecordProgress) -> Iterator[Any]:
    """The same, with a bar that moves ten times a second."""
    n, last = 0, time.monotonic()
    for item in items:
        yield item
        n += 1
        if (now := time.monotonic()) - last > 0.1:
            bar.advance(n)
            n, last = 0, now


# --- into the file ---------------------------------------------------------------------------------------------------


class _Filling:
    """Records on their way into a writer. Used in a ``with`` statement, exceptions say at which record they came."""

    def __init__(self, writer: HyperSequenceWriter) -> None:
        self._writer = writer
        self._n_known = min(1, writer.n_records)  # the last record that is safe is looked at once more

    @property
    def next(self) -> int:
        """The number of the record that comes next."""
        return self._writer.n_records - self._n_known

    @property
    def schema(self) -> Schema | None:
        """What is known of the records' structure."""
        return self._writer.schema

    def append_all(self, records: Iterator[Any]) -> None:
        """Append records, one by one."""
        if self._n_known:
            self._look_at(records)
        append = self._writer.append
        for record in records:
            if not isinstance(record, tuple):
                append(record)
            elif 1 <= len(record) <= 3:  # pyright: ignore[reportUnknownArgumentType]
                append(*record)  # pyright: ignore[reportUnknownArgumentType]
            else:
                as_given(record)  # raises

    def extend_all(self, chunks: Iterator[Made], bar: RecordProgress) -> None:
        """Write what workers made."""
        for made in chunks:
            if made.records:
                self.append_all(iter(made.records))
            elif made.n_records:
                self._extend(made)
            bar.advance(made.n_records)
            if made.error is not None:
                made.error.add_note(f"in a worker process:\n{made.trace}")
                raise made.error
        if self._n_known:
            check_last(self._writer, None)

    def _extend(self, made: Made) -> None:
        schema, n_known = self.schema, self._n_known
        assert schema is not None
        if n_known:
            check_last(self._writer, made.columns)
            self._n_known = 0
        arrange = schema.builder(range(len(schema.columns)))
        self._writer.extend(*arrange([column[n_known:] for column in made.columns]))

    def _look_at(self, records: Iterator[Any]) -> None:
        """See whether the next record is the last one that is safe."""
        schema, nothing = self.schema, object()
        assert schema is not None
        record = next(records, nothing)
        if record is nothing:
            check_last(self._writer, None)
        values = schema.flatten(as_given(record))
        checked = [check_value(column, value) for column, value in zip(schema.columns, values, strict=True)]
        check_last(self._writer, [np.asarray(value)[np.newaxis] for value in checked])
        self._n_known = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        where = f"record {self.next:,}"
        if isinstance(error, RecordError):
            if self._n_known:
                raise SourceError(f"{where} is not what was stored before, but another source's: {error}") from error
            raise RecordError(f"{where}: {error}", **error.facts) from error
        if isinstance(error, Exception) and not isinstance(error, SourceError):
            error.add_note(f"at {where}")

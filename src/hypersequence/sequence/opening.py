"""Where sequences come from, and the class names of hypersequence 0.10."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import ArgumentError
from ..order import Order
from ..schema import Batch
from ..source import JoinedSource, Source, open_source
from ..source.verify import Verify
from .core import HyperSequence
from .picking import chosen_order

PathLike = str | os.PathLike[str]


class HyperSequenceFile(HyperSequence):
    """One ``.hsq`` file, opened for reading: a :class:`HyperSequence` of its batches in the order of writing.

    Files of hypersequence 0.9 and 0.10 open as well; :func:`hypersequence.upgrade` rewrites them.

    Args:
        path: The file.
        use_mmap: Map the file to memory (default), so that batches can be views. ``False`` reads with ordinary
            calls, for file systems on which mappings misbehave, and where other processes may truncate the file.
        copy_buffer: Always give owned, writable arrays, never views.
        thread_safe: Accepted for compatibility. Every sequence can be read by many threads at once, so this has
            nothing left to do.
        verify: Checksums are checked the ``"first"`` time this handle touches a run of records (default),
            ``"always"``, or ``"never"``.

    Raises:
        FileNotFoundError: There is no such file.
        FormatError: It is no ``.hsq`` file, or its metadata are damaged; the message names the rule of SPEC.md.

    Use it in a ``with`` statement, or call :meth:`close`; arrays that were read stay valid.

    >>> with HyperSequenceFile(example_path) as seq:
    ...     images, labels = seq[0]
    >>> images.shape, labels.dtype
    ((16, 4, 4), dtype('int64'))
    """

    def __init__(
        self,
        path: PathLike,
        use_mmap: bool = True,
        copy_buffer: bool = False,
        thread_safe: bool = False,
        verify: Verify = "first",
    ) -> None:
        del thread_safe
        super().__init__(open_source(path, use_mmap=use_mmap, copy_buffer=copy_buffer, verify=verify))

    @property
    def path(self) -> str:
        """The file's absolute path."""
        return self._source.files()[0].path

    @property
    def version(self) -> str:
        """The format version: ``"3"``, or ``"0.10"`` or ``"0.9"`` for files of older packages."""
        return self._source.files()[0].stored.version

    @property
    def created_ns(self) -> int | None:
        """When the file was written, in nanoseconds since 1970-01-01 UTC; ``None`` for older versions."""
        return self._source.files()[0].stored.created_ns


class HyperSequenceView(HyperSequence):
    """Some batches of a sequence, chosen by number, as in hypersequence 0.10.

    Args:
        hyperseq: The sequence to look at.
        indices: Batch numbers in any order; ``None`` for all. A short batch moves to the end.

    >>> [int(y[0]) for x, y in HyperSequenceView(example, [2, 0])]
    [32, 0]
    """

    def __init__(self, hyperseq: HyperSequence, indices: Any = None) -> None:
        chosen = hyperseq if indices is None else hyperseq._choose_batches(_short_last(indices, hyperseq))
        self.__dict__.update(chosen.__dict__)
        self._unshuffled = None
        self._settle()


def _short_last(indices: Any, hyperseq: HyperSequence) -> Order:
    """Batch numbers as an order, the short batch (if it is among them) moved to the end, where it can be short."""
    n_batches = len(hyperseq)
    order = chosen_order(indices, n_batches)
    if hyperseq.n_records % hyperseq.batch_size() == 0:
        return order
    numbers = np.asarray(order.span(0, order.n))
    n_short = int((numbers == n_batches - 1).sum())
    if n_short > 1:
        raise ArgumentError(f"batch {n_batches - 1} is short and can be in a view only once")
    return chosen_order([*numbers[numbers != n_batches - 1].tolist(), *[n_batches - 1] * n_short], n_batches)


class FetchingHyperSequence(HyperSequence):
    """A sequence that asks the system to read the coming batches ahead while this one is used.

    Args:
        hyperseq: The sequence to read.
        max_prefetch: How many batches ahead.

    The batches are the same. In hypersequence 0.10 a thread did this; now the operating system does, for batches whose
    records lie together.
    """

    def __init__(self, hyperseq: HyperSequence, max_prefetch: int = 10) -> None:
        self.__dict__.update(hyperseq.__dict__)
        self._unshuffled = None
        self._settle()
        self._max_prefetch = max(1, int(max_prefetch))
        self._asked = 0

    def __getitem__(self, index: Any) -> Any:
        """Batch ``index``, after asking for the ones that follow."""
        batch = super().__getitem__(index)
        if isinstance(index, int):
            self._ask(index % self._n_batches + 1)
        return batch

    def _ask(self, first: int) -> None:
        """Ask for the batches from ``first`` on that were not asked for yet and lie together on disk."""
        stop = min(first + self._max_prefetch, self._n_batches)
        for number in range(max(first, min(self._asked, stop)), stop):
            start = number * self._batch_size
            numbers = self._order.span(start, min(start + self._batch_size, self._n_records))
            if isinstance(numbers, range):
                self._source.prefetch(numbers, self._chosen)
        self._asked = stop

    def __iter__(self) -> Iterator[Batch]:
        """Every batch in turn, with the next ones on their way."""
        return (self[index] for index in range(len(self)))


def open_files(
    path: PathLike | Sequence[PathLike],
    *,
    use_mmap: bool = True,
    copy_buffer: bool = False,
    verify: Verify = "first",
) -> HyperSequence:
    """Open one file, or several of one schema as one sequence.

    Args:
        path: A file; a pattern with ``*``, ``?`` or ``[``, whose files come in sorted order; or a sequence of files
            and patterns, in the order given.
        use_mmap: See :class:`HyperSequenceFile`.
        copy_buffer: See :class:`HyperSequenceFile`.
        verify: See :class:`HyperSequenceFile`.

    Returns:
        A :class:`HyperSequenceFile` for a single file that is named, else a :class:`HyperSequence` over all records,
        with the first file's batch size and user metadata.

    Raises:
        FileNotFoundError: A file does not exist, or a pattern matches none.
        ArgumentError: The files have different schemas.

    Thread-safe, as what it returns is for reading.

    >>> len(open_files(example_path))
    7
    """
    options: dict[str, Any] = {"use_mmap": use_mmap, "copy_buffer": copy_buffer, "verify": verify}
    if isinstance(path, str | os.PathLike) and not _is_pattern(path):
        return HyperSequenceFile(path, **options)
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    names = [name for one in given for name in (_matches(one) if _is_pattern(one) else [os.fspath(one)])]
    if not names:
        raise ArgumentError("open: no files were given")
    parts: list[Source] = []
    try:
        parts.extend(open_source(name, **options) for name in names)
        return HyperSequence(JoinedSource(parts))
    except BaseException:
        for part in parts:
            part.close()
        raise


def _is_pattern(path: PathLike) -> bool:
    # A file whose own name has brackets is meant as that file.
    return glob.has_magic(os.fspath(path)) and not os.path.exists(path)  # noqa: PTH110


def _matches(pattern: PathLike) -> list[str]:
    found = sorted(glob.glob(os.fspath(pattern), recursive=True))  # noqa: PTH207 - takes absolute patterns too
    if not found:
        raise FileNotFoundError(f"{os.fspath(pattern)}: no file matches this pattern")
    return found

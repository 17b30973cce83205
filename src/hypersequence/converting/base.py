"""What a format is to the rest: something that reads records in pieces, something that writes them, a name."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np

from ..errors import ArgumentError, MissingPackageError
from ..schema import Array, Field
from .description import Description

#: Many records: for each field an array whose leading axis is theirs.
Piece: TypeAlias = dict[str, Array]
#: Gives one piece; run once, in any thread, perhaps beside others.
Job: TypeAlias = Callable[[], Piece]
#: What a format was told, by the names of its options; every option is there.
Options: TypeAlias = Mapping[str, Any]

#: What a piece should come near to: large for the disk, small beside the memory of any machine.
PIECE_NBYTES = 8 << 20


class Reader(ABC):
    """Records of another format, in their order there.

    A subclass sets the attributes in its constructor, which reads no more than it needs for them, and raises
    :class:`~hypersequence.SourceError` where the source is not what it should be.

    Attributes:
        fields: Names and types of all fields, in the source's order.
        n_records: How many records there are; ``None`` if only the end tells.
        labels: Names of fields that the source itself calls outputs.
        described: What the source says of itself, if it was written from an ``.hsq`` file.
        meta: What of the source's own metadata goes into the file: JSON, ``{}`` if nothing.
        n_threads: How many threads :meth:`choose` may use; set from outside, before it is called.
    """

    fields: dict[str, Field]
    n_records: int | None = None
    labels: tuple[str, ...] = ()
    described: Description = Description()
    meta: dict[str, Any]
    n_threads: int = 0

    def choose(self, wanted: Sequence[str]) -> None:  # noqa: B027 - few have to
        """Take note of the fields that will be read; comes once, before anything is written.

        A reader may leave to this what it would look up in vain for other fields: the width of text, how many records
        there are, whether they can be converted at all. It then puts that into ``fields`` and ``n_records``.

        Args:
            wanted: Their names.

        Raises:
            SourceError: One of them cannot be converted.
        """

    @abstractmethod
    def jobs(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[Job]:
        """Jobs that give the records from ``start`` on, in order.

        Args:
            start: The first record wanted, at most the number of records.
            wanted: Names of the fields to read; every piece has just these.
            n_records: Records a piece should have; more or fewer are allowed, but not so many as to matter to memory.

        The iterator is drawn from by one thread, and does what has to be done in order (reading a stream). What can be
        done beside it (decoding) belongs into the jobs. Both raise SourceError with the record's place in the source.
        """

    def close(self) -> None:  # noqa: B027 - few have to
        """Give back what is open. No job is run afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


class SlicingReader(Reader):
    """A reader that can read any range of records at any time, from any thread."""

    n_records: int  # pyright: ignore[reportIncompatibleVariableOverride] - always known here

    @abstractmethod
    def piece(self, start: int, stop: int, wanted: Sequence[str]) -> Piece:
        """The records from ``start`` to before ``stop``."""

    def jobs(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[Job]:
        """A job for each so many records."""
        for first in range(start, self.n_records, n_records):
            yield partial(self.piece, first, min(first + n_records, self.n_records), wanted)


@dataclass(frozen=True)
class Export:
    """What is to be written in another format.

    Args:
        fields: Names and types, in file order; names are distinct.
        n_records: How many records.
        description: Their roles and own names, and the file's metadata. A format with room for metadata keeps this,
            under the name ``hypersequence``.
        pieces: ``pieces()`` gives all records in order, a piece of some 8 MiB after the other; ``pieces("label")``
            those fields alone. Arrays may be views, which are read-only and not aligned.
    """

    fields: dict[str, Field]
    n_records: int
    description: Description
    pieces: Callable[..., Iterator[Piece]]


@dataclass(frozen=True)
class Option:
    """Something that a format can be told.

    Args:
        name: A Python name; on the command line ``-O name=value``.
        parse: Makes the value from text, and checks one that is none; raises ValueError.
        help: One sentence, with the default.
        default: If nothing is said.
    """

    name: str
    parse: Callable[[Any], Any]
    help: str
    default: Any = None


@dataclass(frozen=True)
class Format:
    """Another format: what it is called, and what reads and writes it.

    Args:
        name: One lower-case word, for ``--from`` and ``--to``.
        title: What people call it.
        endings: Of file names, lower-case, with the dot.
        opens: Makes a reader from the sources (paths, or objects that ``takes`` accepts) and options.
        writes: Writes an export to a path that does not exist, a file or a folder, which is put in place afterwards.
        options: What both can be told.
        recognises: Whether a path without such an ending (a folder, say) is of this format.
        makes_folders: Whether ``writes`` makes a folder, so that one that it recognises may be replaced.
        takes: Whether an object is a source of this format.
        packages: What has to be installed, by the names that ``import`` has for them.
        needs: How many bytes a record of a field takes at least in what is written; 0 where nobody knows.
    """

    name: str
    title: str
    endings: tuple[str, ...] = ()
    opens: Callable[[list[Any], Options], Reader] | None = None
    writes: Callable[[Export, Path, Options], None] | None = None
    options: tuple[Option, ...] = ()
    recognises: Callable[[Path], bool] = field(default=lambda path: False)
    makes_folders: bool = False
    takes: Callable[[Any], bool] = field(default=lambda source: False)
    packages: tuple[str, ...] = ()
    needs: Callable[[Field, Options], int] = field(default=lambda field, options: 0)

    def parse(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options, those that were not given by their defaults.

        Raises:
            ArgumentError: An option that this format does not have, or a value that it cannot use.
        """
        known = {option.name: option for option in self.options}
        values = {name: option.default for name, option in known.items()}
        for name, value in given.items():
            if name not in known:
                offered = f"it has: {', '.join(known)}" if known else "it has none"
                raise ArgumentError(f"{self.name}: no option is called {name!r}; {offered}")
            try:
                values[name] = known[name].parse(value)
            except (ValueError, TypeError) as error:
                raise ArgumentError(f"{self.name}: {name}={value!r}: {error}; {known[name].help}") from None
        return values


def one_of(*words: str) -> Callable[[Any], str]:
    """For an :class:`Option`: one of some words in lower case; others may be given."""

    def parse(given: Any) -> str:
        if (found := str(given).lower()) not in words:
            raise ValueError(f"is none of: {', '.join(words)}")
        return found

    return parse


def yes_or_no(given: Any) -> bool:
    """For an :class:`Option`."""
    known = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}
    if (found := str(given).lower()) not in known:
        raise ValueError("is neither yes nor no")
    return known[found]


def from_one(given: Any) -> int:
    """For an :class:`Option`: a whole number."""
    if (found := int(given)) < 1:
        raise ValueError("must be 1 or more")
    return found


def as_stored(field: Field, options: Options) -> int:
    """What a record of a field takes where numbers stand as they are, for :attr:`Format.needs`."""
    packed = field.dtype.kind in "bSU"  # bits of Arrow's, text without what fills it up
    return 0 if packed or options.get("compression") not in (None, "none") else field.nbytes


def raw(array: Array) -> memoryview:
    """The bytes of an array of any type, in C order; a copy only where they do not lie together."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return flat.view(np.uint8).data if flat.nbytes else memoryview(b"")


def require(package: str) -> Any:
    """A package that a format needs.

    Raises:
        MissingPackageError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingPackageError(
            f"this format needs {package.partition('.')[0]} ({error}): pip install 'hypersequence[convert]'"
        ) from error

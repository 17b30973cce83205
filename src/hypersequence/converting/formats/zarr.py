"""Zarr stores: folders, and ``.zip`` archives of them."""

from __future__ import annotations

import signal
import threading
import warnings
from collections.abc import Generator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from ...errors import ArgumentError, SourceError
from ...schema import Array, Field
from ...source.buffers import lease
from ..array_reader import MEMORY, ArraysReader
from ..arrays import Arrays, StoredArray, StoredText, explained, if_readable
from ..base import PIECE_NBYTES, Export, Format, Option, Options, Reader, as_stored, one_of, require


class _Numbers(StoredArray):
    """An array of numbers, times, or text of one width."""

    def __init__(self, where: str, array: Any) -> None:
        super().__init__(where, array.shape, array.dtype, chunk=array.chunks[0] if array.shape else 1)
        self._array, self._buffer = array, require("zarr.buffer.cpu").NDBuffer

    def read(self, start: int, stop: int) -> Array:
        out = lease((stop - start, *self.field.shape), self._array.dtype)
        if out.nbytes:
            with explained(self.place(start, stop)):
                self._array.get_basic_selection(np.s_[start:stop], out=self._buffer.from_numpy_array(out))
        return out


class _Text(StoredText):
    """An array of text of any length."""

    def __init__(self, where: str, array: Any) -> None:
        super().__init__(where, array.shape, "U", chunk=array.chunks[0] if array.shape else 1)
        self._array = array

    def values(self, start: int, stop: int) -> Array:
        return self._array[start:stop]


def _stored(where: str, array: Any) -> StoredArray:
    with explained(where):
        return _by_type(where, array)


def _by_type(where: str, array: Any) -> StoredArray:
    if array.dtype.kind == "T":
        return _Text(where, array)
    if array.dtype.kind in "OV" and array.dtype.names is None:
        raise SourceError(f"{where}: holds values of no type that all have; store them as numbers or text of one width")
    return _Numbers(where, array)


class _Opening:
    """Finds out what is in a store: a group with arrays, or an array."""

    def __init__(self, path: Path, group: str, stack: ExitStack) -> None:
        zarr = require("zarr")
        self.arrays: Arrays = {}
        with explained(f"{path}, {group}" if group else str(path)), _without_warnings():
            store = zarr.storage.ZipStore(path, mode="r") if path.is_file() else zarr.storage.LocalStore(path)
            stack.callback(_close, store)
            found = zarr.open(store, path=group, mode="r")
            self.attributes: dict[str, Any] = dict(found.attrs)
            self.is_group = isinstance(found, zarr.Group)
            if not self.is_group:
                name = path.name.partition(".zarr")[0] or path.stem
                self.arrays[name] = if_readable(partial(_stored, str(path), found))
                return
            for name, member in sorted(found.members(max_depth=None)):
                where = f"{path}, {f'{group}/' if group else ''}{name}"
                if isinstance(member, zarr.Array) and member.shape == ():
                    self.attributes[name] = np.asarray(member[()])
                elif isinstance(member, zarr.Array):
                    self.arrays[name] = if_readable(partial(_stored, where, member))


def _close(store: Any) -> None:
    with suppress(AttributeError):  # Zarr's, of an archive that could not be opened
        store.close()


@contextmanager
def _without_warnings() -> Generator[None]:
    """Zarr warns that text of one width and times are not in its standard yet, and of files that are not its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(sources: list[Path], options: Options) -> Reader:
    with ExitStack() as stack:
        opened = [(path, _Opening(path, options["group"], stack)) for path in sources]
        first = opened[0][1]
        stores = [(str(path), each.arrays) for path, each in opened]
        if not all(each.is_group for _, each in opened):  # single arrays: a field for each, as of .npy files
            stores = [(str(sources[0].parent), _side_by_side(opened))]
        description = first.attributes.get("hypersequence")
        memory, close = options["memory"], stack.pop_all().close
        return ArraysReader(stores, memory=memory, attributes=first.attributes, description=description, close=close)


def _side_by_side(opened: list[tuple[Path, _Opening]]) -> Arrays:
    arrays: Arrays = {}
    for path, each in opened:
        if each.is_group:
            raise SourceError(f"{path}: is a group, and other sources are single arrays; convert them one by one")
        for name, array in each.arrays.items():
            if name in arrays:
                raise SourceError(f"{path}: another source is called {name!r} too; rename one")
            arrays[name] = array
    return arrays


def _write_folder(export: Export, path: Path, options: Options) -> None:
    _write(export, require("zarr").storage.LocalStore(path), options)


def _write_zip(export: Export, path: Path, options: Options) -> None:
    _write(export, require("zarr").storage.ZipStore(path, mode="w"), options)


def _write(export: Export, store: Any, options: Options) -> None:
    zarr = require("zarr")
    codec = zarr.codecs.ZstdCodec() if options["compression"] == "zstd" else None
    try:
        with _without_warnings(), _uninterrupted():
            group = zarr.create_group(store, attributes={"hypersequence": export.description.as_dict()})
            created = {name: _create(group, name, export, codec) for name in export.fields}
        for name, array in created.items():  # one after the other, so that pieces are just its chunks
            done = 0
            for piece in export.pieces(name):
                stop = done + len(piece[name])
                with _uninterrupted():
                    array[done:stop] = piece[name]
                done = stop
    finally:
        store.close()


@contextmanager
def _uninterrupted() -> Generator[None]:
    """Have Ctrl-C wait for the end of a block of some milliseconds.

    Zarr's own threads do the work, and an exception where they are waited for ends none of them: they would go on to
    make files, and folders for them, when all of that had been removed.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # no exception comes here
        return
    came: list[tuple[int, FrameType | None]] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(*came[0])


def _create(group: Any, name: str, export: Export, codec: Any) -> Any:
    """An array, with chunks of whole records."""
    field = export.fields[name]
    if any(other.startswith(f"{name}/") for other in export.fields):
        raise ArgumentError(f"Zarr has no place for something in the field {name!r}; write it by another name")
    n_records = min(export.n_records, PIECE_NBYTES // max(1, field.nbytes))
    try:
        array = group.create_array(
            name,
            shape=(export.n_records, *field.shape),
            chunks=tuple(max(1, length) for length in (n_records, *field.shape)),
            dtype=field.dtype,
            compressors=codec,
            config={"write_empty_chunks": True},  # -0.0 is equal to what fills a missing chunk, and not the same
        )
    except (ValueError, TypeError, OSError) as error:
        raise ArgumentError(f"Zarr takes no array {name!r} of {_described(field)}: {error}") from error
    if array.dtype != field.dtype:  # text of no width
        raise ArgumentError(f"Zarr would store {name!r} as {array.dtype} and not as {field.type_name}; leave it out")
    if array.path != name:
        raise ArgumentError(f"Zarr would call the field {name!r} {array.path!r}; write it by another name")
    return array


def _described(field: Field) -> str:
    return f"type {field.type_name} and shape {field.shape}"


def _recognises(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


_OPTIONS = (
    Option("group", lambda given: str(given).strip("/"), "the group to read; by default all of them", ""),
    Option("compression", one_of("none", "zstd"), "zstd, to compress what is written; none by default", "none"),
    MEMORY,
)

_FORMAT = partial(Format, options=_OPTIONS, packages=("zarr",), needs=as_stored)

FORMATS = [
    _FORMAT("zarr", "Zarr stores", (".zarr",), _open, _write_folder, recognises=_recognises, makes_folders=True),
    _FORMAT("zarrzip", "zipped Zarr stores", (".zarr.zip",), _open, _write_zip),
]

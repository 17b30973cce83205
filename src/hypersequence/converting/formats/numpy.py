"""NumPy's ``.npy`` and ``.npz``."""

from __future__ import annotations

import io
import math
import zipfile
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import ArgumentError, SourceError
from ...schema import Array
from ...source.buffers import lease
from ..array_reader import MEMORY, ArraysReader
from ..arrays import Arrays, StoredArray, Unreadable, explained, if_readable
from ..base import PIECE_NBYTES, Export, Format, Options, Reader, as_stored, raw
from ..npyheader import NpyHeader, npy_header, refuse_unknown

#: Columns of Fortran's order that are shorter than this are read as a whole: quicker than to jump.
_SHORT_COLUMN_NBYTES = 16 << 10


def _header(stream: IO[bytes], where: str) -> NpyHeader:
    try:
        return NpyHeader(stream)
    except (ValueError, EOFError) as error:
        raise SourceError(f"{where}: is no array in NumPy's format: {error}") from None


class _NumpyArray(StoredArray):
    """An array in NumPy's format, read from a stream that starts with its header."""

    def __init__(self, where: str, header: NpyHeader, *, in_turn: bool) -> None:
        # In Fortran's order the values of a record lie all over the file, as if everything were one chunk.
        chunk = header.shape[0] if header.fortran else 1
        super().__init__(where, header.shape, header.dtype, chunk=chunk, in_turn=in_turn)
        self._header = header

    def _read(self, stream: IO[bytes], start: int, stop: int) -> Array:
        if self._header.fortran:
            return self._read_columns(stream, start, stop)
        out = lease((stop - start, *self.field.shape), self._header.dtype)
        if out.nbytes:
            stream.seek(self._header.nbytes + start * self.field.nbytes)
            _fill(stream, out)
        return out

    def _read_columns(self, stream: IO[bytes], start: int, stop: int) -> Array:
        """From Fortran's order, where all records' first values come first, then all their second ones."""
        n, header = self.n_records, self._header
        out = lease((math.prod(self.field.shape), stop - start), header.dtype)
        column_nbytes = n * header.dtype.itemsize
        if out.nbytes and column_nbytes < _SHORT_COLUMN_NBYTES:
            some = lease((max(1, PIECE_NBYTES // column_nbytes), n), header.dtype)
            stream.seek(header.nbytes)
            for first in range(0, len(out), len(some)):
                columns = some[: len(out) - first]
                _fill(stream, columns)
                out[first : first + len(some)] = columns[:, start:stop]
        elif out.nbytes:
            for number, column in enumerate(out):
                stream.seek(header.nbytes + number * column_nbytes + start * header.dtype.itemsize)
                _fill(stream, column)
        return out.reshape(*reversed(self.field.shape), stop - start).T


class _NpyFile(_NumpyArray):
    """A file of one array."""

    def __init__(self, path: Path) -> None:
        with explained(str(path)), path.open("rb") as stream:
            header = _header(stream, str(path))
            held = stream.seek(0, io.SEEK_END) - header.nbytes
        super().__init__(str(path), header, in_turn=False)
        self._path = path
        needed = self.n_records * self.field.nbytes
        if held < needed:
            raise SourceError(f"{path}: is cut off: {needed:,} bytes of values should follow, {held:,} do")

    def read(self, start: int, stop: int) -> Array:
        with explained(self.place(start, stop)), self._path.open("rb", buffering=0) as stream:
            return self._read(stream, start, stop)


class _NpzMember(_NumpyArray):
    """One of the arrays of an archive: a stream, as it may be compressed."""

    def __init__(self, path: Path, member: str, header: NpyHeader) -> None:
        self._path, self._member = path, member
        self._stream: IO[bytes] | None = None
        super().__init__(f"{path}, {member}", header, in_turn=True)

    def _open(self) -> IO[bytes]:
        with zipfile.ZipFile(self._path) as archive:  # which stays open as long as the stream
            return archive.open(self._member)

    def read(self, start: int, stop: int) -> Array:
        if self._stream is None:
            self._check()
            self._stream = self._open()
        with explained(self.place(start, stop)):
            found = self._read(self._stream, start, stop)
        if stop == self.n_records:
            self.close()
        return found

    def _check(self) -> None:
        """Read all of it once: its checksum is at the end, and damage must be known before any of it is handed on."""
        with explained(self.where), self._open() as stream:
            header = _header(stream, self.where)
            nbytes = header.nbytes
            while read := len(stream.read(1 << 20)):
                nbytes += read
        needed = header.nbytes + self.n_records * self.field.nbytes
        if nbytes < needed:
            raise SourceError(f"{self.where}: is cut off: it should have {needed:,} bytes, and has {nbytes:,}")

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _fill(stream: Any, out: Array) -> None:
    """Read into an array, whatever its type is."""
    target, done = out.reshape(-1).view(np.uint8).data, 0
    while done < target.nbytes:
        got = stream.readinto(target[done:])
        if not got:
            raise EOFError(f"the file ends {target.nbytes - done:,} bytes early")
        done += got


def _open_npy(sources: list[Path], options: Options) -> Reader:
    """A field for each file, called as the file is."""
    arrays: Arrays = {}
    for path in sources:
        if path.stem in arrays:
            raise SourceError(f"{path}: another source is called {path.stem!r} too; rename one")
        arrays[path.stem] = if_readable(partial(_NpyFile, path))
    return ArraysReader([(str(sources[0].parent), arrays)], memory=options["memory"])


def _open_npz(sources: list[Path], options: Options) -> Reader:
    """A field for each array; of several archives the records follow each other."""
    opened = [_Archive(path) for path in sources]
    return ArraysReader(
        [(str(path), each.arrays) for path, each in zip(sources, opened, strict=True)],
        memory=options["memory"],
        attributes=opened[0].values,
    )


class _Archive:
    """What is in an archive: arrays of records, and single values."""

    def __init__(self, path: Path) -> None:
        self.arrays: Arrays = {}
        self.values: dict[str, Any] = {}
        with explained(str(path)), zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                name = member.removesuffix(".npy")
                if name in self.arrays or name in self.values:
                    raise SourceError(f"{path}: has two arrays called {name!r}")
                try:
                    self._see(path, archive, name, member)
                except SourceError as error:
                    self.arrays[name] = Unreadable(error)

    def _see(self, path: Path, archive: zipfile.ZipFile, name: str, member: str) -> None:
        where = f"{path}, {member}"
        with explained(where), archive.open(member) as stream:
            header = _header(stream, where)
            if header.shape == () and not header.dtype.hasobject:
                self.values[name] = _single(stream, header)
                return
        self.arrays[name] = _NpzMember(path, member, header)


def _single(stream: IO[bytes], header: NpyHeader) -> Any:
    """The value that stands behind a header."""
    found = np.zeros(1, header.dtype)
    if header.dtype.itemsize:  # NumPy widens text of no width
        _fill(stream, found)
    stream.read(1)  # the end, where the checksum is
    return found[0]


def _write_npy(export: Export, path: Path, options: Options) -> None:
    if len(export.fields) > 1:
        raise ArgumentError(
            f"an .npy file holds one field, and there are {len(export.fields)}: {', '.join(export.fields)}; write an "
            ".npz, or choose one with fields()"
        )
    ((name, field),) = export.fields.items()
    refuse_unknown(name, field)
    with path.open("wb") as stream:
        stream.write(npy_header(field, (export.n_records, *field.shape)))
        for piece in export.pieces():
            stream.write(raw(piece[name]))


def _write_npz(export: Export, path: Path, options: Options) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, field in export.fields.items():
            refuse_unknown(name, field)
        for name, field in export.fields.items():  # a member at a time, as the archive takes no two at once
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                stream.write(npy_header(field, (export.n_records, *field.shape)))
                for piece in export.pieces(name):
                    stream.write(raw(piece[name]))


FORMATS = [
    Format("npy", "NumPy's .npy files", (".npy",), _open_npy, _write_npy, (MEMORY,), needs=as_stored),
    Format("npz", "NumPy's .npz archives", (".npz",), _open_npz, _write_npz, (MEMORY,), needs=as_stored),
]

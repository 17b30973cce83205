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
from ...schema import Array, Field
from ...source.buffers import lease
from ..array_reader import MEMORY, ArraysReader
from ..arrays import Arrays, StoredArray, explained, if_readable
from ..base import PIECE_NBYTES, Export, Format, Options, Reader, as_stored, raw

#: Columns of Fortran's order that are shorter than this are read as a whole: quicker than to jump.
_SHORT_COLUMN_NBYTES = 16 << 10


class _Header:
    """What stands at the beginning of an ``.npy`` file.

    Raises:
        SourceError: No array is there.
    """

    def __init__(self, stream: IO[bytes], where: str) -> None:
        try:
            version = np.lib.format.read_magic(stream)
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
                # Differs from 2.0 where members of structured types have names beyond Latin-1, which are no records.
                (3, 0): np.lib.format.read_array_header_2_0,
            }
            found: tuple[tuple[int, ...], bool, np.dtype[Any]] = read[version](stream)
        except (ValueError, KeyError, EOFError) as error:
            raise SourceError(f"{where}: is no array in NumPy's format: {error}") from None
        self.shape, fortran, self.dtype = found  # the type as it stands in the file, perhaps big-endian
        if min(self.shape, default=0) < 0 or self.dtype.subdtype is not None:
            raise SourceError(f"{where}: is no array in NumPy's format: it has {self.dtype} in the shape {self.shape}")
        self.fortran = bool(fortran) and len(self.shape) > 1
        self.offset = stream.tell()


class _NumpyArray(StoredArray):
    """An array in NumPy's format, read from a stream that starts with its header."""

    def __init__(self, where: str, header: _Header, *, in_turn: bool) -> None:
        # In Fortran's order the values of a record lie all over the file, as if everything were one chunk.
        chunk = header.shape[0] if header.fortran else 1
        super().__init__(where, header.shape, header.dtype, chunk=chunk, in_turn=in_turn)
        self._header = header

    def _read(self, stream: IO[bytes], start: int, stop: int) -> Array:
        if self._header.fortran:
            return self._read_columns(stream, start, stop)
        out = lease((stop - start, *self.field.shape), self._header.dtype)
        if out.nbytes:
            stream.seek(self._header.offset + start * self.field.nbytes)
            _fill(stream, out)
        return out

    def _read_columns(self, stream: IO[bytes], start: int, stop: int) -> Array:
        """From Fortran's order, where all records' first values come first, then all their second ones."""
        n, header = self.n_records, self._header
        out = lease((math.prod(self.field.shape), stop - start), header.dtype)
        column_nbytes = n * header.dtype.itemsize
        if out.nbytes and column_nbytes < _SHORT_COLUMN_NBYTES:
            some = lease((max(1, PIECE_NBYTES // column_nbytes), n), header.dtype)
            stream.seek(header.offset)
            for first in range(0, len(out), len(some)):
                columns = some[: len(out) - first]
                _fill(stream, columns)
                out[first : first + len(some)] = columns[:, start:stop]
        elif out.nbytes:
            for number, column in enumerate(out):
                stream.seek(header.offset + number * column_nbytes + start * header.dtype.itemsize)
                _fill(stream, column)
        return out.reshape(*reversed(self.field.shape), stop - start).T


class _NpyFile(_NumpyArray):
    """A file of one array."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            header = _Header(stream, str(path))
            held = stream.seek(0, io.SEEK_END) - header.offset
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

    def __init__(self, path: Path, archive: zipfile.ZipFile, member: str) -> None:
        self._path, self._member = path, member
        self._stream: IO[bytes] | None = None
        where = f"{path}, {member}"
        with explained(where), archive.open(member) as stream:
            header = _Header(stream, where)
        super().__init__(where, header, in_turn=True)

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
            header = _Header(stream, self.where)
            nbytes = header.offset
            while read := len(stream.read(1 << 20)):
                nbytes += read
        needed = header.offset + self.n_records * self.field.nbytes
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
    return ArraysReader([(str(path), _members(path)) for path in sources], memory=options["memory"])


def _members(path: Path) -> Arrays:
    arrays: Arrays = {}
    with explained(str(path)), zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if name in arrays:
                raise SourceError(f"{path}: has two arrays called {name!r}")
            arrays[name] = if_readable(partial(_NpzMember, path, archive, member))
    return arrays


def _write_header(stream: IO[bytes], field: Field, n_records: int) -> None:
    if field.dtype.kind == "V" or field.dtype.isbuiltin == 2:
        raise ArgumentError(f"NumPy's files know no {field.type_name}; map() it to float32 and save() that first")
    described = {"descr": np.lib.format.dtype_to_descr(field.dtype), "fortran_order": False}
    np.lib.format.write_array_header_1_0(stream, {**described, "shape": (n_records, *field.shape)})


def _write_npy(export: Export, path: Path, options: Options) -> None:
    if len(export.fields) > 1:
        raise ArgumentError(
            f"an .npy file holds one field, and there are {len(export.fields)}: {', '.join(export.fields)}; write an "
            ".npz, or choose one with fields()"
        )
    ((name, field),) = export.fields.items()
    with path.open("wb") as stream:
        _write_header(stream, field, export.n_records)
        for piece in export.pieces():
            stream.write(raw(piece[name]))


def _write_npz(export: Export, path: Path, options: Options) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, field in export.fields.items():  # a member at a time, as the archive takes no two at once
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                _write_header(stream, field, export.n_records)
                for piece in export.pieces(name):
                    stream.write(raw(piece[name]))


FORMATS = [
    Format("npy", "NumPy's .npy files", (".npy",), _open_npy, _write_npy, (MEMORY,), needs=as_stored),
    Format("npz", "NumPy's .npz archives", (".npz",), _open_npz, _write_npz, (MEMORY,), needs=as_stored),
]

"""NumPy's ``.npy`` and ``.npz``."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import ArgumentError, RecordError, SourceError
from ...schema import Array, Field
from ...source.buffers import lease
from ..base import Export, Format, Job, Options, Piece, Reader, SlicingReader, raw


class _Header:
    """What stands at the beginning of an ``.npy`` file."""

    def __init__(self, stream: IO[bytes], where: str) -> None:
        try:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            if version == (3, 0):  # as 2.0, in UTF-8, which only the private function reads
                shape, fortran, dtype = np.lib.format._read_array_header(stream, version)  # type: ignore[attr-defined] # pyright: ignore
            else:
                shape, fortran, dtype = read[version](stream)
        except (ValueError, KeyError, EOFError) as error:
            raise SourceError(f"{where}: is no array in NumPy's format: {error}") from None
        if not shape:
            raise SourceError(f"{where}: holds a single value; records need an array with an axis of their own")
        self.n_records = shape[0]
        self.shape, self.fortran = shape, bool(fortran) and len(shape) > 1
        try:
            self.field = Field(dtype, shape[1:])
        except (RecordError, ValueError) as error:
            raise SourceError(f"{where}: {error}") from None
        self.dtype = dtype  # as it stands in the file, perhaps big-endian
        self.offset = stream.tell()


class _NpyReader(SlicingReader):
    """Files of one array each, whose first axes are the records'; a field for each, called as the file is."""

    def __init__(self, paths: list[Path]) -> None:
        self.meta = {}
        self._paths, self._headers = dict[str, Path](), dict[str, _Header]()
        for path in paths:
            if path.stem in self._paths:
                raise SourceError(f"{path}: another source is called {path.stem!r} too; rename one")
            with path.open("rb") as stream:
                header = _Header(stream, str(path))
                held = stream.seek(0, io.SEEK_END) - header.offset
            needed = header.n_records * header.field.nbytes
            if held < needed:
                raise SourceError(f"{path}: is cut off: {needed:,} bytes of values should follow, {held:,} do")
            self._paths[path.stem], self._headers[path.stem] = path, header
        self.fields = {name: header.field for name, header in self._headers.items()}
        counts = {str(self._paths[name]): header.n_records for name, header in self._headers.items()}
        self.n_records = _one_count(counts)

    def piece(self, start: int, stop: int, wanted: Sequence[str]) -> Piece:
        return {name: self._read(name, start, stop) for name in wanted}

    def _read(self, name: str, start: int, stop: int) -> Array:
        path, header = self._paths[name], self._headers[name]
        if header.fortran:  # a record's values lie all over the file
            return np.ascontiguousarray(np.load(path, mmap_mode="r", allow_pickle=False)[start:stop])
        out = lease((stop - start, *header.field.shape), header.dtype)
        if out.nbytes:
            with path.open("rb", buffering=0) as stream:
                stream.seek(header.offset + start * header.field.nbytes)
                _fill(stream, out, f"{path}, records {start:,} to {stop - 1:,}")
        return out


class _NpzReader(Reader):
    """One archive of arrays, each a field."""

    def __init__(self, path: Path) -> None:
        self.meta = {}
        try:
            self._archive = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError) as error:
            raise SourceError(f"{path}: is no .npz archive: {error}") from None
        self._path = path
        self._headers: dict[str, _Header] = {}
        for member in self._archive.namelist():
            with self._archive.open(member) as stream:
                self._headers[member.removesuffix(".npy")] = _Header(stream, f"{path}, {member}")
        if not self._headers:
            raise SourceError(f"{path}: has no arrays")
        self.fields = {name: header.field for name, header in self._headers.items()}
        self.n_records = _one_count({f"{path}, {name}": header.n_records for name, header in self._headers.items()})

    def jobs(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[Job]:
        # Members are deflated, so that each can be read from its beginning only: all of them at once, side by side.
        streams = {name: self._open(name, start) for name in wanted}
        for first in range(start, self.n_records, n_records):
            stop = min(first + n_records, self.n_records)
            piece = {name: read(first, stop) for name, read in streams.items()}
            yield partial(dict[str, Array], piece)

    def _open(self, name: str, start: int) -> Callable[[int, int], Array]:
        header, where = self._headers[name], f"{self._path}, {name}"
        if header.fortran:
            with self._archive.open(_member(self._archive, name)) as stream:
                whole: Array = np.lib.format.read_array(stream, allow_pickle=False)
            return lambda first, stop: np.ascontiguousarray(whole[first:stop])
        stream = self._archive.open(_member(self._archive, name))
        stream.seek(header.offset + start * header.field.nbytes)

        def read(first: int, stop: int) -> Array:
            out = lease((stop - first, *header.field.shape), header.dtype)
            if out.nbytes:
                try:
                    _fill(stream, out, f"{where}, records {first:,} to {stop - 1:,}")
                except zipfile.BadZipFile as error:
                    raise SourceError(f"{where}: is damaged near records {first:,} to {stop - 1:,}: {error}") from None
            return out

        return read

    def close(self) -> None:
        self._archive.close()


def _member(archive: zipfile.ZipFile, name: str) -> str:
    return name if name in archive.NameToInfo else f"{name}.npy"


def _one_count(counts: dict[str, int]) -> int:
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{where}: {count:,}" for where, count in counts.items())
        raise SourceError(f"the arrays have different numbers of records: {listed}")
    return next(iter(counts.values()))


def _fill(stream: Any, out: Array, where: str) -> None:
    """Read into an array, whatever its type is."""
    target, done = memoryview(out.reshape(-1).view(np.uint8)), 0
    while done < target.nbytes:
        got = stream.readinto(target[done:])
        if not got:
            raise SourceError(f"{where}: the file ends {target.nbytes - done:,} bytes early")
        done += got


def _open_npz(sources: list[Any], options: Options) -> Reader:
    if len(sources) > 1:
        raise SourceError("convert .npz archives one by one, and merge the files")
    return _NpzReader(sources[0])


def _write_header(stream: IO[bytes], field: Field, n_records: int) -> None:
    if field.dtype.kind == "V" or field.dtype.isbuiltin == 2:
        raise ArgumentError(f"NumPy's files know no {field.type_name}; map() it to float32 and save() that first")
    described = {"descr": np.lib.format.dtype_to_descr(field.dtype), "fortran_order": False}
    np.lib.format.write_array_header_2_0(stream, {**described, "shape": (n_records, *field.shape)})


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
    Format("npy", "NumPy's .npy files", (".npy",), lambda sources, options: _NpyReader(sources), _write_npy),
    Format("npz", "NumPy's .npz archives", (".npz",), _open_npz, _write_npz),
]

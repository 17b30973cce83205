"""HDF5, with h5py."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ... import strictjson
from ...errors import ArgumentError, MissingPackageError, SourceError
from ...schema import Array, Field
from ...source.buffers import lease
from ..array_reader import MEMORY, ArraysReader
from ..arrays import Arrays, StoredArray, StoredText, Unreadable, explained, if_readable
from ..base import Export, Format, Option, Options, Reader, as_stored, raw, require
from ..hdf5parts import refuse_incomplete

#: More than pieces can be under way at a time, each of another file, and fewer than any system lets a program open.
_MAX_OPEN = 64
#: More than HDF5 writes of its own for a field, and for the file.
_HEAD_NBYTES = 16 << 10


class _Files:
    """Open files, by their paths; of thousands, only those that were read last."""

    def __init__(self) -> None:
        self._h5py = require("h5py")
        with suppress(MissingPackageError):
            require("hdf5plugin")  # which, if it is there, makes more kinds of compression known
        self._open: OrderedDict[Path, Any] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, path: Path) -> Any:
        with self._lock:
            file = self._open.pop(path, None)
            if file is None:
                with explained(str(path)):
                    file = self._h5py.File(path, "r")
            self._open[path] = file
            while len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            return file

    def close(self) -> None:
        """Close them all."""
        while self._open:
            self._open.popitem()[1].close()


class _DataSet(StoredArray):
    """A data set of numbers, or of bytes of one width.

    Args:
        find: Gives the data set.
        where: As messages name it.
        data: The data set, as it is now.
    """

    def __init__(self, find: Callable[[], Any], where: str, data: Any) -> None:
        super().__init__(where, data.shape, data.dtype, chunk=(data.chunks or (1,))[0])
        self._find, self._dtype = find, data.dtype

    def read(self, start: int, stop: int) -> Array:
        with explained(self.place(start, stop)):
            if self._dtype.subdtype is not None:  # arrays as elements, which cannot be read into one of more axes
                return self._find()[start:stop]
            out = lease((stop - start, *self.field.shape), self._dtype)
            if out.nbytes:
                self._find().read_direct(out, np.s_[start:stop])
            return out


class _Member(StoredArray):
    """One member of a data set of records that have several."""

    def __init__(self, find: Callable[[], Any], where: str, data: Any, member: str) -> None:
        super().__init__(where, data.shape, data.dtype[member], chunk=(data.chunks or (1,))[0])
        self._find, self._member = find, member

    def read(self, start: int, stop: int) -> Array:
        with explained(self.place(start, stop)):
            return self._find().fields(self._member)[start:stop]


class _Text(StoredText):
    """A data set of text: of any length, or of a width that is counted in bytes and not in characters."""

    def __init__(self, find: Callable[[], Any], where: str, data: Any, kind: str) -> None:
        super().__init__(where, data.shape, kind, chunk=(data.chunks or (1,))[0])
        self._find = find

    def values(self, start: int, stop: int) -> Array:
        data = self._find()
        return (data.asstr() if self.field.dtype.kind == "U" else data)[start:stop]


class _Opening:
    """Finds out what is in a file, or in a group of it.

    Args:
        files: Where files are open.
        path: Which one.
        group: The group, or ``""``.
    """

    def __init__(self, files: _Files, path: Path, group: str) -> None:
        self._h5py = require("h5py")
        self._files, self._path, self._group = files, path, group
        self.arrays: Arrays = {}
        #: Attributes, and what has no axis of records.
        self.attributes: dict[str, Any] = {}
        found = files[path].get(group) if group else files[path]
        if not isinstance(found, self._h5py.Group):
            raise ArgumentError(f"{path}: there is no group {group!r}; there are: {', '.join(_groups(files[path]))}")
        for name in found.attrs:
            with suppress(OSError, TypeError, ValueError):  # of a type that h5py does not know: JSON neither
                self.attributes[name] = found.attrs[name]
        with explained(str(path)):
            # Of links, and not of objects, each of which would come once though it has two names.
            found.visititems_links(partial(self._see, found))

    def _see(self, group: Any, name: str, link: Any) -> None:
        item: Any = group[name] if isinstance(link, self._h5py.HardLink) else None
        if not isinstance(item, self._h5py.Dataset):
            return
        where = f"{self._path}, {f'{self._group}/' if self._group else ''}{name}"
        try:
            with explained(where):
                members = item.dtype.names
                refuse_incomplete(item, self._path, where)
        except SourceError as error:
            self.arrays[name] = Unreadable(error)
            return
        if item.shape == ():
            with suppress(OSError, TypeError, ValueError):  # text that is no UTF-8: JSON has no place for it
                self.attributes[name] = item.asstr()[()] if self._h5py.check_string_dtype(item.dtype) else item[()]
        elif members is None:
            self.arrays[name] = if_readable(partial(self._array, item, name, where))
        else:
            for member in members:
                make = partial(_Member, partial(self._find, name), f"{where}, member {member}", item, member)
                self.arrays[f"{name}/{member}"] = if_readable(make)

    def _find(self, name: str) -> Any:
        file = self._files[self._path]
        return (file[self._group] if self._group else file)[name]

    def _array(self, data: Any, name: str, where: str) -> StoredArray:
        if data.shape is None:
            raise SourceError(f"{where}: has no values at all, only a type; leave it out")
        find, text = partial(self._find, name), self._h5py.check_string_dtype(data.dtype)
        if text is not None and (text.encoding == "utf-8" or text.length is None):
            return _Text(find, where, data, "U" if text.encoding == "utf-8" else "S")
        if self._h5py.check_vlen_dtype(data.dtype) is not None:
            raise SourceError(
                f"{where}: holds arrays of various lengths; fill them up to one length, and store the lengths as a "
                "data set of their own"
            )
        if data.dtype.kind in "OV" and data.dtype.subdtype is None:
            kind = "references to other data" if data.dtype.kind == "O" else "bytes of a type that HDF5 does not know"
            raise SourceError(f"{where}: holds {kind}; store what they stand for as numbers or text")
        return _DataSet(find, where, data)


def _groups(file: Any) -> list[str]:
    found: list[str] = []

    def see(name: str, item: Any) -> None:
        if not hasattr(item, "shape"):
            found.append(name)

    file.visititems(see)
    return found[:20]


def _open(sources: list[Path], options: Options) -> Reader:
    files = _Files()
    try:
        opened = [_Opening(files, path, options["group"]) for path in sources]
        attributes = opened[0].attributes
        return ArraysReader(
            [(str(path), each.arrays) for path, each in zip(sources, opened, strict=True)],
            memory=options["memory"],
            attributes=attributes,
            description=_description(attributes.get("hypersequence")),
            close=files.close,
        )
    except BaseException:
        files.close()
        raise


def _description(text: Any) -> Any:
    try:
        return strictjson.decode(text.encode())
    except (AttributeError, ValueError):
        return None


def _write(export: Export, path: Path, options: Options) -> None:
    """Have HDF5 lay the file out, and write the values without it.

    On a disk that is full, or that fails, HDF5 cannot close a file that has values to be written, and then takes the
    process with it.
    """
    description = strictjson.encode(export.description.as_dict())
    # So that what HDF5 itself writes has room.
    path.write_bytes(bytes(_HEAD_NBYTES * (1 + len(export.fields)) + 2 * len(description)))
    columns = _laid_out(export, path, description)
    done = 0
    with path.open("r+b") as stream:
        for piece in export.pieces():
            for name, array in piece.items():
                columns[name].write(stream, array, done)
            done += len(next(iter(piece.values())))


def _laid_out(export: Export, path: Path, description: bytes) -> dict[str, _Column]:
    """Make a file with all that it has beside the values; returns where these belong."""
    h5py = require("h5py")
    with h5py.File(path, "w", track_order=True) as file:
        file.attrs["hypersequence"] = description.decode()
        return {name: _Column(h5py, file, name, export) for name in export.fields}


class _Column:
    """A new data set, whose values lie in one piece.

    Raises:
        ArgumentError: HDF5 has no place for its name, or no type for it.
    """

    def __init__(self, h5py: Any, file: Any, name: str, export: Export) -> None:
        field = export.fields[name]
        self._dtype = _stored_type(h5py, name, field, export)
        plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)  # it has its place at once
        plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        try:
            data = file.create_dataset(name, (export.n_records, *field.shape), self._dtype, dcpl=plan)
        except (ValueError, TypeError, OSError) as error:
            raise ArgumentError(f"HDF5 takes no data set {name!r} of {field}: {error}") from error
        if data.name != f"/{name}":
            raise ArgumentError(f"HDF5 would call the field {name!r} {data.name[1:]!r}; write it by another name")
        self._offset = data.id.get_offset()  # None where there are no values
        self._record_nbytes = self._dtype.itemsize * math.prod(field.shape)

    def write(self, stream: IO[bytes], array: Array, start: int) -> None:
        """Write some records to their place."""
        if array.size:
            encoded = np.strings.encode(array, "utf-8") if array.dtype.kind == "U" else array
            stream.seek(self._offset + start * self._record_nbytes)
            stream.write(raw(encoded.astype(self._dtype.str if array.dtype.kind == "U" else array.dtype)))


def _stored_type(h5py: Any, name: str, field: Field, export: Export) -> np.dtype[Any]:
    """The type as h5py knows it: text is UTF-8, as wide as the longest is, and a time has a name and no meaning."""
    dtype = field.dtype
    if dtype.kind == "V" or dtype.isbuiltin == 2:
        raise ArgumentError(f"HDF5 knows no {field.type_name}; map() {name!r} to float32 and save() that first")
    if dtype.kind in "SU" and not dtype.itemsize:
        raise ArgumentError(f"HDF5 knows no text of no width, as {name!r} is; leave it out with fields()")
    if dtype.kind == "U":
        encoded = (np.strings.encode(piece[name], "utf-8") for piece in export.pieces(name))
        return h5py.string_dtype(
            "utf-8", max(1, *(int(np.strings.str_len(each).max(initial=0)) for each in encoded), 1)
        )
    return h5py.opaque_dtype(dtype) if dtype.kind in "mM" else dtype


_GROUP = Option("group", lambda given: str(given).strip("/"), "the group to read; by default all of them", "")

FORMATS = [
    Format(
        "hdf5",
        "HDF5 files",
        (".h5", ".hdf5", ".hdf"),
        _open,
        _write,
        (_GROUP, MEMORY),
        packages=("h5py",),
        needs=as_stored,
    ),
]

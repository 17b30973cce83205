"""WebDataset: tar archives, in which the files of one record stand together under one name."""

from __future__ import annotations

import io
import math
import re
import tarfile
from collections.abc import Collection, Generator, Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from ... import strictjson
from ...errors import ArgumentError, HyperSequenceError, SourceError
from ...schema import Array, Field
from ..base import Export, Format, Option, Options, Reader, as_stored, one_of, raw, require
from ..description import Description
from ..folders import ends_in, files_in, is_folder_of
from ..images import IMAGE_ENDINGS, IMAGE_OPTIONS, decode_image
from ..jsonfields import Json
from ..npyheader import NpyHeader, npy_header, refuse_unknown
from ..roles import LABELS
from ..samples import TEXT_OPTION, Decoder, Sample, SampleReader, names, octets, single, text
from ..tars import add, members

#: Where an archive that was written here says what its records were. Readers of WebDataset pass over such names.
_DESCRIPTION = "__hypersequence__"
_IS_NAMED = ends_in(".tar", ".tar.gz", ".tgz")
_LABELS = ("cls", "cls2", "class")
_INTEGERS = (*_LABELS, "count", "index", "inx", "id")
_IMAGES = tuple(ending[1:] for ending in IMAGE_ENDINGS)
_NAME = re.compile(r"((?:.*/)?[^./][^/.]*)\.([^/]*)", re.DOTALL)  # a record's key, and a member's ending


class _WebDatasetReader(SampleReader):
    """Shards, one behind the other."""

    about_text = "text= says how long texts are"
    about_new_parts = "members= says which files of a record are wanted"

    def __init__(self, paths: list[Path], options: Options) -> None:
        self.meta, self._paths = {}, paths
        self._chosen = cast("tuple[str, ...] | None", options["members"])
        images = {option.name: options[option.name] for option in IMAGE_OPTIONS}
        description = _described(paths[0])
        known = self._known(description)
        first = self.first()
        files = dict.fromkeys([*known, *(first.data if first is not None else ())])
        for member in self._chosen or ():
            if member not in files:
                raise SourceError(f"{paths[0]}: its first record has no {member!r}; it has: {', '.join(files)}")
        decoders = {member: _decoder(member, known.get(member), images, str(paths[0])) for member in files}
        if options["size"] is not None or options["mode"] is not None:  # then images are not as they were described
            known = {member: field for member, field in known.items() if _ending(member) not in _IMAGES}
        if options["text"] is not None and first is not None:  # nor are texts
            known = {member: (name, field) for member, (name, field) in known.items() if field.dtype.kind != "U"}
        self.begin(str(paths[0]), first, decoders, known, options["text"])
        if description is not None:
            self.described = Description.of(description)
            self.labels, self.meta = self.described.outputs, self.described.user_meta or {}
        else:
            self.labels = tuple(name for name in self.fields if _ending(name) in _LABELS)

    def _known(self, description: dict[str, Any] | None) -> dict[str, tuple[str, Field]]:
        """The name and type of each member's field, where the archive says it."""
        try:
            rows: dict[str, Any] = description["members"] if description is not None else {}
            known = {m: (str(row["field"]), Field(str(row["type"]), row["shape"])) for m, row in rows.items()}
        except (KeyError, TypeError, AttributeError, HyperSequenceError) as error:
            raise SourceError(f"{self._paths[0]}: its {_DESCRIPTION} is damaged: {error!r}; delete it") from None
        return {member: field for member, field in known.items() if self._chosen is None or member in self._chosen}

    def samples(self, start: int, parts: Collection[str] | None) -> Generator[Sample, None, None]:
        n = 0
        for path in self._paths:
            key, found = None, dict[str, bytes | None]()
            with closing(members(path)) as entries:
                for name, read in entries:
                    match = _NAME.fullmatch(name)
                    if match is None:
                        continue
                    ending = match[2].lower()
                    if self._chosen is not None and ending not in self._chosen:
                        continue
                    if match[1] != key:
                        if key is not None and n > start:
                            yield _sample(path, key, found)
                        key, found, n = match[1], dict[str, bytes | None](), n + 1
                    if ending in found:
                        raise SourceError(f"{path}, sample {key}: has {ending!r} twice")
                    found[ending] = read() if n > start and (parts is None or ending in parts) else None
            if key is not None and n > start:
                yield _sample(path, key, found)


def _ending(member: str) -> str:
    """What follows the last dot, which tells the type: of ``seg.png`` that is ``png``."""
    return member.rpartition(".")[2]


def _sample(path: Path, key: str, found: dict[str, bytes | None]) -> Sample:
    return Sample(f"{path}, sample {key}", sum(len(data or b"") for data in found.values()), found)


def _described(path: Path) -> dict[str, Any] | None:
    """What an archive says of itself, in its first member."""
    with closing(members(path, notes=True)) as found:
        name, read = next(found, (None, None))
        if name != _DESCRIPTION or read is None:
            return None
        try:
            described = strictjson.decode(read())
        except SourceError:
            raise
        except ValueError as error:
            raise SourceError(f"{path}: its {_DESCRIPTION} is damaged: {error}; delete it") from None
    return cast("dict[str, Any]", described) if isinstance(described, dict) else None


def _decoder(member: str, known: tuple[str, Field] | None, images: dict[str, Any], path: str) -> Decoder | SourceError:
    """What makes an array of a member, by its ending; or why nothing can."""
    name, kind = known[0] if known else member, _ending(member)
    if kind in _IMAGES:
        return lambda data, where: {name: decode_image(data, where, **images)}
    if kind in _INTEGERS:
        dtype = known[1].dtype if known else np.dtype(np.int64)
        return single(name, lambda data: np.array(int(data), dtype))
    if kind in ("json", "jsn"):
        return Json(name)
    simple = {"npy": _npy, "bin": octets, "raw": octets, "txt": text, "text": text, "transcript": text}
    if kind not in simple:
        why = "is never unpickled" if kind in ("pkl", "pickle", "pyd", "pt", "pth") else "cannot be read"
        return SourceError(f"{path}: .{member} {why}; choose others with inputs= and outputs=")
    return single(name, simple[kind])


def _npy(data: bytes) -> Array:
    # The version is in the sixth byte, and the length of the header behind it.
    start = (
        10 + int.from_bytes(data[8:10], "little") if data[6:7] == b"\1" else 12 + int.from_bytes(data[8:12], "little")
    )
    header = _npy_header(data[:start])
    expected = math.prod(header.shape) * header.dtype.itemsize
    if len(data) - start != expected:
        raise ValueError(f"expected {expected:,} bytes of values, found {len(data) - start:,}")
    return np.ndarray(header.shape, header.dtype, data, start, order="F" if header.fortran else "C")


@lru_cache(maxsize=256)
def _npy_header(head: bytes) -> NpyHeader:
    """Remembered, as the headers of all records should be the same."""
    header = NpyHeader(io.BytesIO(head))
    if header.dtype.hasobject:
        raise ValueError("holds Python objects, which are never unpickled")
    return header


def _write(export: Export, path: Path, options: Options) -> None:
    files = _names_of_members(export, png=options["images"] == "png")
    described = {
        member: {"field": name, "type": export.fields[name].type_name, "shape": list(export.fields[name].shape)}
        for name, member in files.items()
    }
    digits = max(6, len(str(export.n_records)))
    with tarfile.open(path, "w") as archive:
        add(archive, _DESCRIPTION, strictjson.encode({**export.description.as_dict(), "members": described}))
        number = 0
        for piece in export.pieces():
            columns = [
                (files[name], _encoded(files[name], field, piece[name])) for name, field in export.fields.items()
            ]
            for row in zip(*(values for _, values in columns), strict=True):
                for (member, _), data in zip(columns, row, strict=True):
                    add(archive, f"{number:0{digits}}.{member}", data)
                number += 1


def _names_of_members(export: Export, *, png: bool) -> dict[str, str]:
    """What the members of each field are called, after the record's number."""
    fields = export.fields
    numbers = [name for name, field in fields.items() if field.dtype.kind in "iu" and not field.shape]
    labels = [name for name in numbers if name in export.description.outputs or name.lower() in LABELS]
    files: dict[str, str] = {}
    for name, field in fields.items():
        refuse_unknown(name, field)
        # WebDataset's own readers make endings lower-case, and know a type by what follows the last dot.
        stem = re.sub(r"[^\w-]", "_", name).lower()
        if name in labels:
            files[name] = "cls" if len(labels) == 1 else f"{stem}.cls"
        elif field.dtype.kind == "U" and not field.shape:
            files[name] = f"{stem}.txt"
        else:
            files[name] = f"{stem}.png" if png and _is_picture(field) else f"{stem}.npy"
    if len(set(files.values())) < len(files):
        raise ArgumentError(f"two fields would have files of one name: {', '.join(fields)}; choose some with fields()")
    return files


def _is_picture(field: Field) -> bool:
    shape = field.shape
    return field.dtype == np.uint8 and 0 not in shape and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 3))


def _encoded(member: str, field: Field, values: Array) -> Iterator[bytes]:
    """The file of each record."""
    kind = _ending(member)
    if kind in ("cls", "txt"):
        yield from (str(value).encode("utf-8") for value in values.tolist())
    elif kind == "png":
        image = require("PIL.Image")
        for value in values:
            stream = io.BytesIO()
            image.fromarray(np.ascontiguousarray(value)).save(stream, "PNG")
            yield stream.getvalue()
    else:
        header = npy_header(field, field.shape)
        for value in values:
            yield b"".join((header, raw(np.asarray(value, field.dtype))))


def _open(sources: list[Any], options: Options) -> Reader:
    return _WebDatasetReader(files_in(sources, _IS_NAMED, "*.tar, *.tar.gz or *.tgz"), options)


def _recognises(path: Path) -> bool:
    return is_folder_of(_IS_NAMED, path) or (_IS_NAMED(path.name.lower()) and path.is_file())


FORMATS = [
    Format(
        "webdataset",
        "WebDataset's tar archives",
        (".tar",),
        _open,
        _write,
        options=(
            Option("members", names, "endings of the files of a record to read: jpg,cls (by default all are)"),
            *IMAGE_OPTIONS,
            TEXT_OPTION,
            Option(
                "images",
                one_of("npy", "png"),
                "what to write images as that have 8 bits a value: npy (default) or png",
                "npy",
            ),
        ),
        recognises=_recognises,
        needs=lambda field, options: 0 if options["images"] == "png" else as_stored(field, options),
    )
]

"""MosaicML's MDS: a folder of shards and an ``index.json``, version 2."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import zlib
from collections.abc import Collection, Generator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import xxhash

from ... import strictjson
from ...errors import SourceError
from ..base import Format, Option, Options, Reader, require
from ..images import IMAGE_OPTIONS
from ..mdsvalues import decoder, uint32
from ..samples import TEXT_OPTION, Decoder, Sample, SampleReader, names

_ERRORS = (EOFError, OSError, zlib.error)
_STEP = 1 << 20


@dataclass(frozen=True)
class _Shard:
    """A row of the index.

    Args:
        path: Of the file that is there.
        compression: Of that file.
        nbytes: Of the file without compression.
        n_samples: How many it says it has.
        hashes: Names of algorithms, and what they give for the file that is there.
        columns: Names, encodings and sizes; a size is ``None`` where samples differ in it.
    """

    path: Path
    compression: str | None
    nbytes: int
    n_samples: int
    hashes: dict[str, str]
    columns: tuple[tuple[str, str, int | None], ...]


def _shards(folder: Path) -> list[_Shard]:
    """What the index of a folder lists."""
    index = folder / "index.json"
    try:
        found = strictjson.decode(index.read_bytes())
        if found["version"] != 2:
            raise SourceError(f"{index}: is of version {found['version']}, and 2 is what can be read")
        return [_shard(folder, each) for each in found["shards"]]
    except SourceError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{index}: is no index of MDS: {error!r}") from error


def _shard(folder: Path, row: Any) -> _Shard:
    if row["format"] != "mds" or row["version"] != 2:
        raise SourceError(
            f"{folder}: a shard is {row['format']} of version {row['version']}; mds of version 2 can be read"
        )
    columns = tuple(zip(row["column_names"], row["column_encodings"], row["column_sizes"], strict=True))
    raw, packed = row["raw_data"], row["zip_data"]
    path, of_file, compression = _inside(folder, raw["basename"]), raw, None
    if packed is not None and not path.exists():
        path, of_file, compression = (
            _inside(folder, packed["basename"]),
            packed,
            str(row["compression"]).partition(":")[0],
        )
    if not path.exists():
        raise SourceError(f"{path}: is in the index, and not there")
    return _Shard(path, compression, int(raw["bytes"]), int(row["samples"]), dict(of_file["hashes"]), columns)


def _inside(folder: Path, name: str) -> Path:
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise SourceError(f"{folder}: the index names a shard outside the folder: {name}")
    return folder / name


class _MdsReader(SampleReader):
    """The samples of one folder, or of several, shard by shard."""

    about_text = "text= says how long texts are"

    def __init__(self, folders: list[Path], options: Options) -> None:
        self.meta = {}
        self._shards = [shard for folder in folders for shard in _shards(folder)]
        self.n_records = sum(shard.n_samples for shard in self._shards)
        self._columns = self._shards[0].columns if self._shards else ()
        for shard in self._shards:
            if shard.columns != self._columns:
                raise SourceError(f"{shard.path}: its columns are {shard.columns}, those before {self._columns}")
        self._n_sizes = sum(not size for _, _, size in self._columns)
        images = {option.name: options[option.name] for option in IMAGE_OPTIONS}
        decoders: dict[str, Decoder | SourceError] = {}
        for name, encoding, _ in self._columns:
            kind = "jpeg" if encoding == "bytes" and name in options["images"] else encoding
            decoders[name] = decoder(name, kind, images, str(folders[0]))
        self.begin(str(folders[0]), self.first(), decoders, text=options["text"])

    def samples(self, start: int, parts: Collection[str] | None) -> Generator[Sample, None, None]:
        for shard in self._shards:
            if start < shard.n_samples:
                yield from _samples(shard, start)
            start = max(0, start - shard.n_samples)

    def parts(self, sample: Sample) -> Mapping[str, Any]:
        data, found = cast("bytes", sample.data), dict[str, bytes]()
        sizes, at = iter(uint32(data[: 4 * self._n_sizes])), 4 * self._n_sizes
        if len(data) < at:
            raise SourceError(f"{sample.where}: has {len(data)} bytes, and the sizes of its values alone take {at}")
        for name, _, fixed in self._columns:
            size = fixed or next(sizes)
            found[name] = data[at : at + size]
            at += size
        if at != len(data):
            raise SourceError(f"{sample.where}: has {len(data):,} bytes, and its values should take {at:,}")
        return found


def _samples(shard: _Shard, start: int) -> Generator[Sample, None, None]:
    """Samples of one shard."""
    _check_hashes(shard)
    where, number = str(shard.path), start
    try:
        with _opened(shard) as stream:
            n = int.from_bytes(stream.read(4), "little")
            if n != shard.n_samples:
                raise SourceError(f"{where}: has {n} samples, and the index says {shard.n_samples}")
            offsets = uint32(stream.read(4 * (n + 1)))
            at = 4 * (n + 2)
            if len(offsets) != n + 1 or any(a > b for a, b in pairwise([at, *offsets])) or offsets[-1] != shard.nbytes:
                raise SourceError(f"{where}: its table of samples is damaged, or the file is cut off")
            _skip(stream, offsets[start] - at, seekable=shard.compression is None)
            for number, (begin, end) in enumerate(pairwise(offsets[start:]), start):
                data = stream.read(end - begin)
                if len(data) < end - begin:
                    raise SourceError(f"{where}, sample {number:,} at byte {begin:,}: is cut off")
                yield Sample(f"{where}, sample {number:,}", len(data), data)
    except _ERRORS as error:
        raise SourceError(f"{where}, near sample {number:,}: cannot be read: {error}") from error


def _check_hashes(shard: _Shard) -> None:
    """Whether the file is the one that the index knows; passes over algorithms that are not there."""
    for name, expected in shard.hashes.items():
        if name in xxhash.algorithms_available:
            state: Any = getattr(xxhash, name)()
        elif name in hashlib.algorithms_available and not name.startswith("shake"):
            state = hashlib.new(name, usedforsecurity=False)
        else:
            continue
        with shard.path.open("rb") as stream:
            while data := stream.read(_STEP):
                state.update(data)
        if state.hexdigest() != expected:
            raise SourceError(f"{shard.path}: is damaged: its {name} is {state.hexdigest()}, in the index {expected}")


def _opened(shard: _Shard) -> AbstractContextManager[Any]:
    """A stream of what the shard was before compression."""
    compression, path = shard.compression, shard.path
    if compression is None:
        return path.open("rb")
    if compression in ("gz", "bz2"):
        return {"gz": gzip.open, "bz2": bz2.open}[compression](path, "rb")
    if compression in ("zstd", "br"):
        return require("pyarrow").input_stream(str(path), compression={"zstd": "zstd", "br": "brotli"}[compression])
    raise SourceError(
        f"{path}: is compressed as {compression}; what can be read is gz, bz2, zstd, br and no compression. Decompress "
        "the shards, and leave them beside the index under their names without that ending"
    )


def _skip(stream: Any, nbytes: int, *, seekable: bool) -> None:
    if seekable:
        stream.seek(nbytes, 1)
        return
    while nbytes > 0 and (got := len(stream.read(min(nbytes, _STEP)))):
        nbytes -= got


def _recognises(path: Path) -> bool:
    """A folder whose index lists shards."""
    try:
        found = json.loads((path / "index.json").read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "shards" in found


def _open(sources: list[Any], options: Options) -> Reader:
    return _MdsReader(sources, options)


FORMATS = [
    Format(
        "mds",
        "MosaicML's MDS folders",
        (),
        _open,
        options=(
            Option("images", names, "names of columns of bytes that are image files (default: none)", ()),
            *IMAGE_OPTIONS,
            TEXT_OPTION,
        ),
        recognises=_recognises,
    )
]

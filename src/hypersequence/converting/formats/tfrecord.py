"""TensorFlow's TFRecord files of ``tf.train.Example``."""

from __future__ import annotations

import gzip
import re
import struct
import zlib
from collections.abc import Collection, Generator, Mapping
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

from ...errors import SourceError
from ..base import Export, Format, Option, Options, Reader, as_stored, one_of, require
from ..folders import files_in, is_folder_of
from ..images import IMAGE_OPTIONS
from ..samples import Sample, SampleReader
from ..tfexample import Spec, decoder, encoded, infer, is_int64_list, parse_features
from ..tfmessages import joined, messages

#: Protobuf's own limit of a message.
_MAX_NBYTES = (1 << 31) - 1
_COMPRESSIONS = ("none", "gzip")
_SHARD = re.compile(r"(\.tfrecords?|-\d{5}-of-\d{5})(-\d+-of-\d+)?(\.gz)?", re.IGNORECASE)


@cache
def _crc32c() -> Any:
    return require("google_crc32c").value


def _masked(data: bytes) -> int:
    """The checksum that stands beside data: a CRC, turned and shifted, because the data may hold CRCs themselves."""
    crc = _crc32c()(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


class _TFRecordReader(SampleReader):
    """Files of Examples, one behind the other."""

    def __init__(self, paths: list[Path], options: Options) -> None:
        self.meta = {}
        self._paths, self._compression = paths, cast("str | None", options["compression"])
        self._example = messages()["Example"]
        self._decode_error = require("google.protobuf.message").DecodeError
        given = cast("dict[str, Spec | None] | None", options["features"])
        images = {option.name: options[option.name] for option in IMAGE_OPTIONS}
        first = self.first()
        features: Mapping[str, Any] = self._features(first) if first is not None else {}
        if first is None and (given is None or not all(given.values())):
            raise SourceError(f"{paths[0]}: has no records; say in features= which features there are, and what")
        # Their order in a record means nothing, and differs from one to the next.
        asked = dict.fromkeys(sorted(features)) if given is None else given
        found = _inferred(features, asked, first.where if first is not None else "")
        specs = {name: spec for name, spec in found.items() if isinstance(spec, Spec)}
        decoders = {
            name: decoder(name, spec, images) if isinstance(spec, Spec) else spec for name, spec in found.items()
        }
        known = {name: (name, spec.field) for name, spec in specs.items() if not spec.is_coded}
        listed = ",".join(f"{name}:{spec}" for name, spec in specs.items())
        self.about_new_parts = None if given is not None else f"say which are wanted, as in features='{listed}'"
        self.begin(str(paths[0]), first, decoders, known)

    def samples(self, start: int, parts: Collection[str] | None) -> Generator[Sample, None, None]:
        for path in self._paths:
            start -= yield from self._records(path, start)

    def _records(self, path: Path, n_skipped: int) -> Generator[Sample, None, int]:
        """The records of one file; returns how many of those to skip it had."""
        number, offset = 0, 0
        where = str(path)
        try:
            with _opened(path, self._compression) as stream:
                while head := stream.read(12):
                    where = f"{path}, record {number:,} at byte {offset:,}"
                    length = _length(head, where)
                    if number < n_skipped:
                        stream.seek(length + 4, 1)
                    else:
                        data, crc = stream.read(length), stream.read(4)
                        if len(crc) < 4:
                            missing = length + 4 - len(data) - len(crc)
                            raise SourceError(f"{where}: the file ends {missing:,} bytes early; it is cut off")
                        yield Sample(where, length, (data, crc))
                    number, offset = number + 1, offset + 16 + length
        except (EOFError, OSError, zlib.error) as error:
            raise SourceError(f"{where}: cannot be read: {error}") from error
        return min(number, n_skipped)

    def parts(self, sample: Sample) -> Mapping[str, Any]:
        return self._features(sample)

    def _features(self, sample: Sample) -> Mapping[str, Any]:
        data, crc = sample.data
        if _masked(data) != int.from_bytes(crc, "little"):
            raise SourceError(f"{sample.where}: is damaged: its checksum is another one")
        try:
            example = self._example.FromString(data)
        except self._decode_error as error:
            raise SourceError(f"{sample.where}: is no tf.train.Example: {error}") from None
        if example.feature_lists:
            raise SourceError(f"{sample.where}: is a SequenceExample, whose lists have no fixed length; pad them first")
        if not example.features.feature:
            raise SourceError(f"{sample.where}: is no tf.train.Example, or one without features")
        return example.features.feature


def _inferred(
    features: Mapping[str, Any], given: Mapping[str, Spec | None], where: str
) -> dict[str, Spec | SourceError]:
    """What each feature is, by the first record where nobody said it; or why that cannot be told."""
    found = dict[str, Spec | SourceError]()
    for name, spec in given.items():
        try:
            if spec is None and name not in features:
                raise SourceError(f"has no such feature; it has: {', '.join(sorted(features))}")
            found[name] = infer(features[name]) if spec is None else spec
        except ValueError as error:
            found[name] = SourceError(f"{where}, {name}: {error}")
    return found


def _length(head: bytes, where: str) -> int:
    """How long a record is, from what stands before it."""
    if len(head) < 12:
        raise SourceError(f"{where}: the file ends {12 - len(head)} bytes early; it is cut off")
    length, crc = struct.unpack("<QI", head)
    if _masked(head[:8]) != crc:
        raise SourceError(f"{where}: no record begins here: the checksum of its length is another one")
    if length > _MAX_NBYTES:
        raise SourceError(f"{where}: says that it has {length:,} bytes, and no Example can")
    return length


def _opened(path: Path, compression: str | None) -> IO[bytes]:
    """The file, through gzip if that was said, or if it is a gzip file and no other."""
    if compression is None:
        with path.open("rb") as stream:
            head = stream.read(12)
        # A record may be so long that its length begins as a gzip file does.
        is_record = len(head) == 12 and _masked(head[:8]) == int.from_bytes(head[8:], "little")
        compression = "gzip" if head.startswith(b"\x1f\x8b") and not is_record else "none"
    return cast("IO[bytes]", gzip.open(path, "rb")) if compression == "gzip" else path.open("rb")


def _write(export: Export, path: Path, options: Options) -> None:
    with gzip.open(path, "wb") if options["compression"] == "gzip" else path.open("wb") as stream:
        for piece in export.pieces():
            columns = [encoded(name, field, piece[name]) for name, field in export.fields.items()]
            for entries in zip(*columns, strict=True):
                data = joined(entries)
                length = struct.pack("<Q", len(data))
                stream.write(b"".join((length, _crc(length), data, _crc(data))))


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", _masked(data))


def _is_named(name: str) -> bool:
    """As ``train.tfrecord-00000-of-00010``, ``train-00000-of-00010`` and ``train.tfrecord.gz`` are."""
    match = _SHARD.search(name)
    return match is not None and match.end() == len(name)


def _recognises(path: Path) -> bool:
    return is_folder_of(_is_named, path) or (_is_named(path.name) and path.is_file())


def _open(sources: list[Any], options: Options) -> Reader:
    return _TFRecordReader(files_in(sources, _is_named, "*.tfrecord, or as one of several shards"), options)


FORMATS = [
    Format(
        "tfrecord",
        "TFRecord files of tf.train.Example",
        (".tfrecord", ".tfrecords"),
        _open,
        _write,
        options=(
            Option(
                "features",
                parse_features,
                "what features are: a:uint8[28,28],label:int64,name:S32,photo:image,state:tensor; of a name alone the "
                "first record tells (default: all of its features)",
            ),
            Option(
                "compression", one_of(*_COMPRESSIONS), "gzip or none (by default seen when reading, none when writing)"
            ),
            *IMAGE_OPTIONS,
        ),
        recognises=_recognises,
        packages=("google_crc32c", "google.protobuf"),
        needs=lambda field, options: 0 if is_int64_list(field) else as_stored(field, options),
    )
]

"""Records that come one by one, each a bundle of encoded parts: decoded beside the stream, stacked into pieces."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..errors import ArgumentError, RecordError, SourceError
from ..schema import Array, Field
from ..source.buffers import lease
from .base import PIECE_NBYTES, Job, Option, Piece, Reader, from_one

#: From a part of a sample, and what messages call it, to fields. Raises ValueError, or SourceError, which names it.
Decoder: TypeAlias = Callable[[Any, str], dict[str, Array]]
#: What a sample takes beside its bytes, or pieces of very small records would be very many objects.
_OVERHEAD_NBYTES = 512


class Sample(NamedTuple):
    """One record, still encoded.

    Args:
        where: What messages call it.
        nbytes: How much memory ``data`` takes.
        data: What :meth:`SampleReader.parts` takes apart.
    """

    where: str
    nbytes: int
    data: Any


class SampleReader(Reader):
    """A reader of a stream of samples.

    A subclass gives samples in order, and calls :meth:`begin` in its constructor. Each sample is a number of parts
    (files, features, columns), and a part gives a field or, if it is JSON, several.
    """

    #: What to do about a text that is too long, for messages.
    about_text = ""
    #: What to do about parts that the first record has not; ``None`` to pass over them.
    about_new_parts: str | None = None

    @abstractmethod
    def samples(self, start: int, parts: Collection[str] | None) -> Generator[Sample, None, None]:
        """All samples from ``start`` on, of which no other parts are needed than these."""

    def parts(self, sample: Sample) -> Mapping[str, Any]:
        """The parts of a sample by their names; done beside the stream."""
        return sample.data

    def first(self) -> Sample | None:
        """The first sample, if there is one."""
        with closing(self.samples(0, None)) as samples:
            return next(samples, None)

    def begin(
        self,
        where: str,
        first: Sample | None,
        decoders: Mapping[str, Decoder | SourceError],
        known: Mapping[str, tuple[str, Field]] | None = None,
        text: int | None = None,
    ) -> None:
        """Find out which fields there are.

        Args:
            where: What messages call the source.
            first: What :meth:`first` gave.
            decoders: For each part; or why it cannot be read, which is raised if somebody wants it.
            known: Name and type of the field that a part gives, where no look at the first sample is needed.
            text: Characters of text fields; ``None`` to look at all of them beforehand.
        """
        self.fields, self._names = {}, dict[str, list[str]]()
        self._decoders, self._unreadable = dict[str, Decoder](), dict[str, SourceError]()
        self._whole, self._text, self._texts = True, text, list[str]()
        parts: Mapping[str, Any] = self.parts(first) if first is not None else {}
        for part, decoder in decoders.items():
            if known and part in known:
                found = dict([known[part]])
            elif first is None:
                break
            else:
                found = self._look(first, parts, part, decoder)
            for name in found:
                if name in self.fields:
                    raise SourceError(f"{part}: two fields are called {name!r}; rename one")
            if not isinstance(decoder, SourceError):
                self._decoders[part] = decoder
            self._names[part] = list(found)
            self.fields |= found
        if len(self._names) < max(1, len(decoders)):
            raise SourceError(f"{where}: has not a single record, so that nothing tells which fields there are")

    def _look(
        self, first: Sample, parts: Mapping[str, Any], part: str, decoder: Decoder | SourceError
    ) -> dict[str, Field]:
        """The fields that a part of the first sample gives; one that stands for it if it cannot be read."""
        try:
            if isinstance(decoder, SourceError):
                raise decoder
            values = _decoded(first, parts, part, decoder)
            found = {name: _field(value, f"{first.where}, {name}") for name, value in values.items()}
            if not found:  # later records may give some, which would be left out
                raise SourceError(
                    f"{first.where}, {part}: gives no field in the first record, which decides what all records have; "
                    "choose others with inputs= and outputs="
                )
        except SourceError as error:
            self._unreadable[part] = error
            return {part: Field("S0")}
        self._texts += [name for name, field in found.items() if field.dtype.kind == "U"]
        return found

    def choose(self, wanted: Sequence[str]) -> None:
        """Raise why a field cannot be read, and find out how long texts are."""
        for name in wanted:
            if name in self._unreadable:
                raise self._unreadable[name]
        self._whole = len(wanted) == len(self.fields)
        widths = {name: self._text or 0 for name in self._texts if name in wanted}
        if widths and self._text is None:
            self._look_at_all(widths)
        self.fields |= {name: Field(f"U{width}", self.fields[name].shape) for name, width in widths.items()}

    def _look_at_all(self, widths: dict[str, int]) -> None:
        """Find the longest texts, and how many samples there are.

        Raises:
            SourceError: One cannot be read: how long those behind it are is not known, and the file's type depends on
                it.
        """
        n, parts = 0, self._parts_of(widths)
        with closing(self.samples(0, parts)) as samples:
            for sample in samples:
                found = self._decode(sample, parts)
                for name in widths:
                    widths[name] = max(widths[name], found[name].dtype.itemsize // 4)
                n += 1
        self.n_records = n

    def _parts_of(self, names: Collection[str]) -> set[str]:
        """The parts that give these fields."""
        return {part for part, given in self._names.items() if not set(given).isdisjoint(names)}

    def jobs(self, start: int, wanted: Sequence[str], n_records: int) -> Iterator[Job]:
        """Samples are read here, and decoded in the jobs."""
        parts = self._parts_of(wanted)
        with closing(self.samples(start, parts)) as samples:
            for chunk in _chunks(samples, n_records):
                yield partial(self._stacked, chunk, parts, wanted)

    def _stacked(self, samples: list[Sample], parts: set[str], wanted: Sequence[str]) -> Piece:
        fields = {name: self.fields[name] for name in wanted}
        piece = {name: lease((len(samples), *field.shape), field.dtype) for name, field in fields.items()}
        for row, sample in enumerate(samples):
            values = self._decode(sample, parts)
            for name, field in fields.items():
                value = values[name]
                if value.dtype != field.dtype or value.shape != field.shape:
                    self._check(value, field, f"{sample.where}, {name}")
                piece[name][row] = value
        return piece

    def _decode(self, sample: Sample, parts: Collection[str]) -> dict[str, Array]:
        found, given = dict[str, Array](), self.parts(sample)
        if len(given) > len(self._names) and self._whole and self.about_new_parts is not None:
            new = sorted(set(given) - set(self._names))
            raise SourceError(f"{sample.where}: has {', '.join(new)}, the first record has not; {self.about_new_parts}")
        for part in parts:
            values = _decoded(sample, given, part, self._decoders[part])
            if len(values) != len(self._names[part]) or not all(name in values for name in self._names[part]):
                raise SourceError(
                    f"{sample.where}, {part}: expected the fields of the first record, {', '.join(self._names[part])}; "
                    f"found {', '.join(values) or 'none'}"
                )
            found |= values
        return found

    def _check(self, value: Array, field: Field, where: str) -> None:
        """Whether a value that is not just as the first one was can be stored without any change."""
        if value.shape == field.shape:
            if value.dtype.newbyteorder("<") == field.dtype:
                return
            width = field.dtype.itemsize // (4 if field.dtype.kind == "U" else 1)
            if value.dtype.kind == field.dtype.kind and value.dtype.kind in "SU" and _length(value) <= width:
                return
        raise SourceError(f"{where}: expected {field}, found {_field(value, where)}; {self._advice(value, field)}")

    def _advice(self, value: Array, field: Field) -> str:
        """What to do about a value that differs from the first one."""
        if value.dtype.kind == field.dtype.kind and value.dtype.kind in "SU" and value.shape == field.shape:
            return self.about_text
        if value.dtype == field.dtype == np.uint8 and value.ndim in (2, 3):
            return "if these are images, size= resizes them, and mode= gives them the same channels"
        return "all must have one shape and type: make them so, or choose other fields with inputs= and outputs="


def _chunks(samples: Iterator[Sample], n_records: int) -> Iterator[list[Sample]]:
    """Samples together, as many as asked for or as memory allows; those before an error come before it."""
    chunk, nbytes = list[Sample](), 0
    try:
        for sample in samples:
            chunk.append(sample)
            nbytes += sample.nbytes + _OVERHEAD_NBYTES
            if len(chunk) == n_records or nbytes >= PIECE_NBYTES:
                yield chunk
                chunk, nbytes = [], 0
    except SourceError:
        if chunk:
            yield chunk
        raise
    if chunk:
        yield chunk


def _decoded(sample: Sample, parts: Mapping[str, Any], part: str, decoder: Decoder) -> dict[str, Array]:
    if part not in parts:
        raise SourceError(f"{sample.where}: has no {part!r}; it has: {', '.join(map(str, parts)) or 'nothing'}")
    where = f"{sample.where}, {part}"
    try:
        return decoder(parts[part], where)
    except (SourceError, ArgumentError):
        raise
    except (ValueError, OverflowError) as error:
        raise SourceError(f"{where}: {error}") from error


def _field(value: Array, where: str) -> Field:
    try:
        return Field(value.dtype, value.shape)
    except (RecordError, ValueError) as error:
        raise SourceError(f"{where}: {str(error).removeprefix('Field: ')}") from None


def _length(value: Array) -> int:
    """Characters of the longest text."""
    return int(np.max(np.strings.str_len(value), initial=0))


def single(name: str, decode: Callable[[Any], Array]) -> Decoder:
    """A decoder that gives one field, from a function that knows bytes alone."""
    return lambda data, where: {name: decode(data)}


def text(data: bytes) -> Array:
    """UTF-8 as an array of one text.

    Raises:
        ValueError: It is none, or ends in NUL, which arrays of text do not keep.
    """
    return text_array(data.decode("utf-8"))


def text_array(value: str) -> Array:
    """The same for text."""
    if value.endswith("\0"):
        raise ValueError("text that ends in NUL cannot be kept")
    return np.asarray(value)


def octets(data: bytes) -> Array:
    """Bytes as an array of them."""
    return np.frombuffer(data, np.uint8)


def integer(data: bytes) -> Array:
    """Decimal digits as ``int64``."""
    return np.array(int(data), np.int64)


def names(given: Any) -> tuple[str, ...]:
    """For an option: names from ``"a,b"``, or from a sequence of them."""
    found = given.split(",") if isinstance(given, str) else given
    return tuple(str(name).strip() for name in found)


#: For a format that has text.
TEXT_OPTION = Option("text", from_one, "characters of text fields (by default all texts are looked at beforehand)")

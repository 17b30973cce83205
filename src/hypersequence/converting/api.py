"""convert(): from any format into ``.hsq``, and back."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias, cast

from ..errors import ArgumentError
from ..loader.threads import default_threads
from ..schema import ROLES, Column, Schema
from ..sequence import HyperSequence, open_files
from ..writer import check_meta
from . import registry
from .base import Format, Reader
from .copying import copy
from .exporting import write_out
from .importing import begin, read_into
from .placing import refuse_existing
from .registry import format_named, format_of_sources, format_of_target
from .roles import Choice
from .sequences import SequenceReader

#: A path, several of them, or a data set that some format takes as it is.
Sources: TypeAlias = Any
_USUAL_BATCH_NBYTES = 32 << 20
#: For inputs, outputs and weights the fields that they are to have; ``None`` where nothing was said.
Roles: TypeAlias = "tuple[list[str] | None, ...]"


@dataclass(frozen=True, slots=True)
class Converted:
    """What came of a conversion.

    Args:
        path: What was written.
        n_records: Its records.
        format: The format of the other side, as :func:`formats` names it.
    """

    path: str
    n_records: int
    format: str


def convert(
    source: Sources,
    target: str | os.PathLike[str],
    *,
    from_: str | None = None,
    to: str | None = None,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    sample_weights: Sequence[str] | None = None,
    named: bool | None = None,
    batch_size: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    threads: int | None = None,
    progress: bool = False,
    **options: Any,
) -> Converted:
    """Convert data of another format into an ``.hsq`` file, or an ``.hsq`` file into another format.

    Records are streamed: memory does not grow with their number. The target appears when it is complete.

    Args:
        source: A path, a pattern with ``*``, or a sequence of them; a :class:`HyperSequence`, of which the records are
            taken in its order; or an object that a format takes, as a data set of Hugging Face's.
        target: What to write; ``.hsq``, or the ending of another format.
        from_: The source's format, where its name does not tell.
        to: The target's format, where its name does not tell.
        inputs: Names of the fields that are inputs. Where neither ``inputs`` nor ``outputs`` are given, fields that the
            source calls labels, or that are called ``label``, ``target``, ``class``, ``y`` or the like, are outputs and
            all others inputs. With ``outputs`` alone all others are inputs, with ``inputs`` alone there are no outputs.
            Of ``.hsq`` files all that :meth:`HyperSequence.fields` takes are names.
        outputs: Names of the fields that are outputs.
        sample_weights: Names of the fields that are weights.
        named: Whether fields keep their names, so that inputs and outputs are dicts. ``False`` makes each an array, or
            a tuple of arrays: what a Keras model with one output wants. ``None`` (default) is ``True``, but for fields
            that have no names in the ``.hsq`` file that they come from, or came from before they were exported.
        batch_size: Records of a native batch of the ``.hsq`` file; ``None`` for what an ``.hsq`` source has, or else
            16, or fewer where these would take more than 32 MiB, since a batch at least is held in memory.
        resume: Go on where an earlier conversion of this source to this target stopped, if there was one. That the
            source is the same is seen by its fields and the last record that is safe.
        overwrite: Replace a target that exists. ``False`` (default) refuses, at once.
        threads: Threads that read and decode ahead; ``None`` for as many as there are processors, up to four.
        progress: Show a progress bar on a terminal.
        **options: What the format can be told; ``hsq formats NAME`` lists it.

    Returns:
        What was written.

    Raises:
        SourceError: The source is damaged, or its records do not have one shape; the message says where. What was
            complete stays in a part file: mend the source, and convert with ``resume=True``.
        ArgumentError: An argument makes no sense, or a field does not exist.
        MissingPackageError: The format's own library is not installed.
        FileError: The target exists or cannot be written.
        FileNotFoundError: There is no such source.

    Thread-safe: sources are only read, and every call has a part file, or folder, of its own.

    >>> np.save(folder / "images.npy", np.zeros((100, 8, 8), np.uint8))
    >>> np.save(folder / "digits.npy", np.arange(100) % 10)
    >>> done = convert([folder / "images.npy", folder / "digits.npy"], folder / "all.hsq", outputs=["digits"])
    >>> done.n_records, HyperSequenceFile(folder / "all.hsq").schema
    (100, Schema(inputs={'images': Field('uint8', (8, 8))}, outputs={'digits': Field('int64')}))
    """
    if threads is not None and threads < 0:
        raise ArgumentError(f"threads is 0 or more, not {threads}")
    sources = _sources(source)
    asked = _Asked(
        target=Path(target),
        chosen=tuple(_names(*each) for each in zip(ROLES, (inputs, outputs, sample_weights), strict=True)),
        named=named,
        batch_size=batch_size,
        resume=resume,
        overwrite=overwrite,
        threads=threads,
        progress=progress,
        options=options,
    )
    ours, into_hsq = _all_hsq(sources, from_), to == "hsq" or (to is None and asked.target.suffix.lower() == ".hsq")
    if not (ours or into_hsq):
        raise ArgumentError(f"{target}: one side of a conversion is an .hsq file; go by way of one")
    refuse_existing(asked.target, overwrite=overwrite, resume=resume)
    if not ours:
        format = format_of_sources(sources) if from_ is None else _format_of(sources, from_)
        return Converted(str(target), _import(sources, format, asked), format.name)
    with _opened(sources) as sequence:
        if into_hsq:
            return Converted(str(target), _rewrite(sequence, asked), "hsq")
        format = format_of_target(asked.target) if to is None else format_named(to)
        _export(sequence, format, asked)
        return Converted(str(target), sequence.n_records, format.name)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is to be written, and how; ``None`` where nothing was said. ``chosen`` has the fields of each role."""

    target: Path
    chosen: tuple[list[str] | None, ...]
    named: bool | None
    batch_size: int | None
    resume: bool
    overwrite: bool
    threads: int | None
    progress: bool
    options: dict[str, Any]

    @property
    def any_chosen(self) -> bool:
        """Whether somebody said which fields to take."""
        return any(given is not None for given in self.chosen)

    def refuse(self, where: str, *names: str) -> None:
        """Refuse arguments that mean nothing here, lest somebody waits for what they do.

        Raises:
            ArgumentError: One of these was given.
        """
        given = dict(zip(ROLES, self.chosen, strict=True)) | {
            "named": self.named,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "resume": self.resume or None,
        }
        useless = [name for name in names if given[name] is not None]
        if useless:
            raise ArgumentError(f"{where} has no use for {', '.join(useless)}; leave that out")


def _import(sources: list[Any], format: Format, asked: _Asked) -> int:
    """From another format into an ``.hsq`` file; returns how many records that has."""
    if format.opens is None:
        raise ArgumentError(f"{format.title} are written, not read")
    with format.opens(sources, format.parse(asked.options)) as reader:
        return _write(reader, asked.chosen if asked.any_chosen else _roles_of(reader), asked)


def _rewrite(sequence: HyperSequence, asked: _Asked) -> int:
    """From a sequence into an ``.hsq`` file; returns how many records that has."""
    for option in asked.options:
        raise ArgumentError(f"no option is called {option!r}: from one .hsq file to another there are none")
    size = sequence.batch_size()
    if sequence.has_map:
        asked.refuse(
            "a sequence with map(), which is saved as its function makes it,", *ROLES, "named", "resume", "threads"
        )
        size = size if asked.batch_size is None else asked.batch_size
        meta = sequence.user_meta()
        copy(sequence, asked.target, meta, size, overwrite=asked.overwrite, progress=asked.progress)
        return sequence.n_records
    reader = SequenceReader(sequence)
    roles = _meant_by(reader, asked) if asked.any_chosen else _roles_of(reader)
    return _write(reader, roles, asked, batch_size=size)


def _usual_batch_size(schema: Schema) -> int:
    """16 records, or fewer where they are large: a writer holds a batch at least."""
    return max(1, min(16, _USUAL_BATCH_NBYTES // max(1, schema.record_nbytes)))


def _export(sequence: HyperSequence, format: Format, asked: _Asked) -> None:
    """From a sequence to another format."""
    asked.refuse(f"{asked.target}: another format than .hsq", "named", "batch_size", "resume", "threads")
    roles: dict[str, list[Column]] | None = None
    if asked.any_chosen:
        reader = SequenceReader(sequence)
        fields = Choice(reader.fields, (), _meant_by(reader, asked), named=True).schema.columns
        roles = {role: [reader.column(str(each.name)) for each in fields if each.role == role] for role in ROLES}
        sequence = sequence.fields(*(each.address for members in roles.values() for each in members))
    write_out(
        sequence,
        asked.target,
        format,
        asked.options,
        roles=roles,
        overwrite=asked.overwrite,
        progress=asked.progress,
    )


def _write(
    reader: Reader,
    roles: Roles,
    asked: _Asked,
    *,
    batch_size: int | None = None,
) -> int:
    """What a reader gives into an ``.hsq`` file. Whatever is wrong with its fields is found before that is begun."""
    own = {name: reader.described.names.get(name, name) for name in reader.fields}
    named = own if asked.named is None else asked.named
    reader.n_threads = default_threads() if asked.threads is None else asked.threads
    reader.choose(Choice(reader.fields, reader.labels, roles, named=named).names)
    check_meta(reader.meta)
    choice = Choice(reader.fields, reader.labels, roles, named=named)  # its types are known now
    start = partial(
        begin,
        asked.target,
        choice.schema,
        batch_size=asked.batch_size,
        usual=_usual_batch_size(choice.schema) if batch_size is None else batch_size,
        overwrite=asked.overwrite,
        resume=asked.resume,
        progress=asked.progress,
    )
    return read_into(
        asked.target,
        reader,
        choice,
        begin_writer=start,
        meta=reader.meta,
        threads=reader.n_threads,
        progress=asked.progress,
    )


def _meant_by(reader: SequenceReader, asked: _Asked) -> Roles:
    """The fields of a sequence that were asked for."""
    return tuple(
        None if given is None else list(chain.from_iterable(map(reader.meant_by, given))) for given in asked.chosen
    )


def formats() -> dict[str, Format]:
    """Every format that :func:`convert` knows.

    Returns:
        Names, as ``from_`` and ``to`` take them, to formats.

    Thread-safe; the dict is a new one each time.

    >>> formats()["npz"].title
    "NumPy's .npz archives"
    """
    return dict(registry.formats())


def _names(role: str, given: Sequence[str] | None) -> list[str] | None:
    """Field names that were given for a role."""
    if given is None:
        return None
    if isinstance(given, str) or not isinstance(given, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"{role} are a list of field names, not {given!r}: {role}=[{str(given)!r}]")
    return list(given)


def _roles_of(reader: Reader) -> Roles:
    """The roles that a source's fields had, if it says so of all of them."""
    described = reader.described
    if set(described.fields) != set(reader.fields):
        return None, None, None
    return tuple(list(described.roles.get(role, ())) for role in ROLES)


def _sources(source: Sources) -> list[Any]:
    """Every single source."""
    given = list(cast("list[Any]", source)) if isinstance(source, list | tuple) else [source]
    found: list[Any] = []
    for one in given:
        if not isinstance(one, str | os.PathLike):
            found.append(one)
            continue
        path = Path(cast("str", one))
        if glob.has_magic(str(path)) and not path.exists():
            matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207 - takes absolute patterns too
            if not matches:
                raise ArgumentError(f"{path}: no file matches this pattern")
            found += map(Path, matches)
        elif not path.exists():
            raise FileNotFoundError(errno.ENOENT, "there is no such file or folder", str(path))
        else:
            found.append(path)
    if not found:
        raise ArgumentError("convert: no source is given")
    return found


def _all_hsq(sources: list[Any], from_: str | None) -> bool:
    if from_ is not None:
        return from_ == "hsq"
    are = [
        isinstance(one, HyperSequence) or (isinstance(one, Path) and one.suffix.lower() == ".hsq") for one in sources
    ]
    if any(are) and not all(are):
        raise ArgumentError("some sources are .hsq files and some are not; convert them one by one")
    return all(are)


def _format_of(sources: list[Any], name: str) -> Format:
    """The format of this name, if the sources can be of it."""
    format = format_named(name)
    for one in sources:
        if not isinstance(one, Path) and not format.takes(one):
            raise ArgumentError(f"a {type(one).__name__} is no source of {format.title}")
    return format


def _opened(sources: list[Any]) -> AbstractContextManager[HyperSequence]:
    """The sequence of some sources, closed afterwards if it was opened here."""
    ours = [one for one in sources if isinstance(one, HyperSequence)]
    if ours and len(sources) > 1:
        raise ArgumentError("convert: give one sequence; hypersequence.concat makes one of several")
    return nullcontext(ours[0]) if ours else open_files(sources if len(sources) > 1 else sources[0])

"""convert(): from any format into ``.hsq``, and back."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

from ..errors import ArgumentError, FileError
from ..schema import ROLES
from ..sequence import HyperSequence, open_files
from ..writer import check_meta
from .base import Reader
from .copying import save
from .exporting import write_out
from .importing import begin, default_threads, read_into
from .registry import format_named, format_of_sources, format_of_target
from .roles import Choice

#: A path, several of them, or a data set that some format takes as it is.
Sources: TypeAlias = Any


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
    named: bool = True,
    batch_size: int = 16,
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
        outputs: Names of the fields that are outputs.
        sample_weights: Names of the fields that are weights.
        named: Whether fields keep their names, so that inputs and outputs are dicts (default). ``False`` makes each an
            array, or a tuple of arrays: what a Keras model with one output wants.
        batch_size: Records of a native batch of the ``.hsq`` file.
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

    >>> np.save(folder / "images.npy", np.zeros((100, 8, 8), np.uint8))
    >>> np.save(folder / "digits.npy", np.arange(100) % 10)
    >>> done = convert([folder / "images.npy", folder / "digits.npy"], folder / "all.hsq", outputs=["digits"])
    >>> done.n_records, HyperSequenceFile(folder / "all.hsq").schema
    (100, Schema(inputs={'images': Field('uint8', (8, 8))}, outputs={'digits': Field('int64')}))
    """
    threads = default_threads() if threads is None else threads
    if threads < 0:
        raise ArgumentError(f"threads is 0 or more, not {threads}")
    target = Path(target)
    chosen = inputs, outputs, sample_weights
    sources = _sources(source)
    ours = _all_hsq(sources, from_)
    if not overwrite and target.exists():
        raise FileError(f"{target} exists already; choose another name, or allow that it is replaced (overwrite)")
    if ours and (any(given is not None for given in chosen) or resume):
        raise ArgumentError("inputs, outputs, sample_weights and resume are for other formats' data")
    into_hsq = to == "hsq" or (to is None and target.suffix.lower() == ".hsq")
    if ours:
        with _opened(sources) as sequence:
            if into_hsq:
                _no_options(options)
                save(sequence, target, overwrite=overwrite, progress=progress)
                return Converted(str(target), sequence.n_records, "hsq")
            format = format_of_target(target) if to is None else format_named(to)
            write_out(sequence, target, format, options, overwrite=overwrite, progress=progress)
            return Converted(str(target), sequence.n_records, format.name)
    if not into_hsq:
        raise ArgumentError(f"{target}: one side of a conversion is an .hsq file; go by way of one")
    format = format_of_sources(sources) if from_ is None else format_named(from_)
    if format.opens is None:
        raise ArgumentError(f"{format.title} are written, not read")
    with format.opens(sources, format.parse(options)) as reader:
        choice = _choose(reader, chosen, named=named)
        start = partial(begin, target, choice.schema, batch_size=batch_size, overwrite=overwrite, resume=resume)
        n = read_into(target, reader, choice, begin_writer=start, meta=reader.meta, threads=threads, progress=progress)
    return Converted(str(target), n, format.name)


def _choose(reader: Reader, chosen: tuple[Sequence[str] | None, ...], *, named: bool) -> Choice:
    """What is read, and where it goes; whatever is wrong with that is found before anything is written."""
    if all(given is None for given in chosen):
        chosen = _roles_of(reader)
    reader.choose(Choice(reader.fields, reader.labels, chosen, named=named).names)
    check_meta(reader.meta)
    return Choice(reader.fields, reader.labels, chosen, named=named)  # its types are known now


def _roles_of(reader: Reader) -> tuple[list[str] | None, ...]:
    """The roles that a source's fields had, if it says so of all of them."""
    said = {name for names in reader.roles.values() for name in names}
    if said != set(reader.fields):
        return None, None, None
    return tuple(list(reader.roles.get(role, ())) for role in ROLES)


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


def _opened(sources: list[Any]) -> AbstractContextManager[HyperSequence]:
    """The sequence of some sources, closed afterwards if it was opened here."""
    ours = [one for one in sources if isinstance(one, HyperSequence)]
    if ours and len(sources) > 1:
        raise ArgumentError("convert: give one sequence; hypersequence.concat makes one of several")
    return nullcontext(ours[0]) if ours else open_files(sources if len(sources) > 1 else sources[0])


def _no_options(options: dict[str, Any]) -> None:
    if options:
        raise ArgumentError(f"no option is called {next(iter(options))!r} here")

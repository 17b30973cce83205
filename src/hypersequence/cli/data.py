"""``hsq convert`` and its kin: other formats in and out, and new files of old ones."""

from __future__ import annotations

import inspect
import json
from collections.abc import Container
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ArgumentError, FileError
from .app import app, console, say

# Commands import what they work with when they are called, so that none waits for what others need.
if TYPE_CHECKING:
    from ..converting import Format
    from ..sequence import HyperSequence

_OVERWRITE = Annotated[bool, typer.Option(help="Replace a file that exists.")]
_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _option(help: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, **more)


@app.command()
def convert(
    paths: Annotated[
        list[str], typer.Argument(metavar="SOURCE... TARGET", help="Files, patterns, folders; last the new file.")
    ],
    source_format: Annotated[str | None, _option("The source's format, if its name does not tell.", "--from")] = None,
    target_format: Annotated[str | None, _option("The target's format, if its name does not tell.", "--to")] = None,
    inputs: Annotated[list[str] | None, _option("Fields that are inputs, separated by commas.")] = None,
    outputs: Annotated[list[str] | None, _option("Fields that are outputs.")] = None,
    sample_weights: Annotated[list[str] | None, _option("Fields that are weights.")] = None,
    named: Annotated[
        bool | None, _option("Whether fields keep their names, so that batches hold dicts; yes if left out.")
    ] = None,
    batch_size: Annotated[
        int | None,
        _option("Records of a batch; if left out, what an .hsq source has, or 16, or fewer of more than 2 MiB.", min=1),
    ] = None,
    option: Annotated[
        list[str] | None, _option("What the format can be told: see hsq formats NAME.", "-O", metavar="NAME=VALUE")
    ] = None,
    resume: Annotated[bool, _option("Go on where an interrupted conversion stopped.")] = False,
    overwrite: _OVERWRITE = False,
    threads: Annotated[int | None, _option("Threads that read and decode ahead.", min=0)] = None,
    as_json: _JSON = False,
) -> None:
    """Convert data of another format to .hsq, an .hsq file to another format, or .hsq files to one with other fields.

    Fields are called as they are in the source. If nothing is said, those that the source calls labels, or that are
    called label, target, class or y, are outputs, and all others inputs.

    Examples:
        hsq convert images.npy labels.npy train.hsq --outputs labels

        hsq convert photos/ photos.hsq -O size=224x224

        hsq convert "shards/*.parquet" train.hsq --outputs price --batch-size 256

        hsq convert train.hsq train.h5

        hsq convert train.hsq small.hsq --inputs image --outputs label --batch-size 256
    """
    if len(paths) < 2:
        raise typer.BadParameter("give at least one source, and the target last")
    from ..converting import convert as convert_data

    *sources, target = paths
    chosen = {"inputs": _listed(inputs), "outputs": _listed(outputs), "sample_weights": _listed(sample_weights)}
    done = convert_data(
        sources if len(sources) > 1 else sources[0],
        target,
        from_=source_format,
        to=target_format,
        named=named,
        batch_size=batch_size,
        resume=resume,
        overwrite=overwrite,
        threads=threads,
        progress=True,
        **chosen,
        **_options(option or [], inspect.signature(convert_data).parameters),
    )
    if as_json:
        typer.echo(json.dumps({"path": done.path, "n_records": done.n_records, "format": done.format}))
    else:
        say(f"{done.path}: {done.n_records:,} records")


def _listed(given: list[str] | None) -> list[str] | None:
    return [name.strip() for one in given for name in one.split(",") if name.strip()] if given else None


def _options(given: list[str], taken: Container[str]) -> dict[str, str]:
    """Options of a format, which must not be called as what all formats are told."""
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.isidentifier():
            raise typer.BadParameter(f"-O {each}: an option is given as NAME=VALUE")
        if name in taken:
            raise typer.BadParameter(f"-O {each}: {name!r} is no format's option; hsq convert --help has all others")
        found[name] = value
    return found


@app.command(name="formats")
def list_formats(
    name: Annotated[str | None, typer.Argument(help="One format, for its options.")] = None, as_json: _JSON = False
) -> None:
    """List the formats that hsq convert knows, or what one of them can be told.

    Examples:
        hsq formats

        hsq formats images
    """
    from ..converting.registry import formats

    known = formats()
    if name is not None and name not in known:
        raise ArgumentError(f"no format is called {name!r}; there are: {', '.join(known)}")
    shown = [known[name]] if name is not None else list(known.values())
    if as_json:
        typer.echo(json.dumps([_facts(each) for each in shown]))
        return
    if name is None:
        _show_formats(shown)
    else:
        _show_options(shown[0])


def _show_formats(formats: list[Format]) -> None:
    from ..report.tables import TextTable
    from .info import print_table

    rows = [
        (each.name, "yes" if each.opens else "", "yes" if each.writes else "", each.title, " ".join(each.endings))
        for each in formats
    ]
    print_table(TextTable("", ("name", "read", "written", "what", "endings"), tuple(rows), frozenset(range(5))))
    say("hsq formats NAME says what one of them can be told with -O.")


def _show_options(format: Format) -> None:
    say(f"{format.title}: {_ways(format)}" + ("" if format.options else "; there is nothing to tell it with -O"))
    width = max([len(option.name) for option in format.options], default=0)
    for option in format.options:
        text = f"  -O {option.name + '=...':<{width + 4}}  {option.help}"
        say(fill(text, console().width, subsequent_indent=" " * (width + 11), break_long_words=False))


def _ways(format: Format) -> str:
    return " and ".join(
        [way for way, there in (("read", format.opens), ("written", format.writes)) if there is not None]
    )


def _facts(format: Format) -> dict[str, Any]:
    options = [{"name": option.name, "help": option.help} for option in format.options]
    return {
        "name": format.name,
        "title": format.title,
        "endings": list(format.endings),
        "read": format.opens is not None,
        "written": format.writes is not None,
        "options": options,
    }


@app.command()
def upgrade(
    old: Annotated[Path, typer.Argument(help="A file of hypersequence 0.9 or 0.10.")],
    new: Annotated[Path | None, typer.Argument(help="The new file; if left out, the old one is replaced.")] = None,
    overwrite: _OVERWRITE = False,
) -> None:
    """Rewrite a file of hypersequence 0.9 or 0.10 in the format of today: the same records, with checksums.

    Examples:
        hsq upgrade old.hsq new.hsq

        hsq upgrade train.hsq
    """
    from ..converting import upgrade as upgrade_file
    from ..report import describe

    if new is None and (version := describe(old).version) == "3":
        say(f"{old}: is of version {version} already")
        return
    upgrade_file(old, old if new is None else new, overwrite=overwrite, progress=True)
    _tell(new or old)


@app.command()
def merge(
    paths: Annotated[list[str], typer.Argument(metavar="FILE... OUT", help="Files of one schema; last the new one.")],
    resume: Annotated[bool, _option("Go on where an interrupted merge of these files stopped.")] = False,
    overwrite: _OVERWRITE = False,
) -> None:
    """Write the records of several files into one, one file after the other.

    Batch size and metadata are those of the first one. Files need not be merged to be read: hs.open("data/*.hsq") is
    one sequence of them all.

    Examples:
        hsq merge monday.hsq tuesday.hsq week.hsq
    """
    from ..converting import convert as convert_data
    from ..sequence import open_files

    if len(paths) < 2:
        raise typer.BadParameter("give the files, and the new one last")
    *sources, out = paths
    with open_files(sources) as sequence:
        if _reads(sequence, Path(out)):
            raise FileError(f"{out}: is one of the files to be merged, and the last name is that of the new one")
        done = convert_data(sequence, out, to="hsq", resume=resume, overwrite=overwrite, progress=True)
    say(f"{out}: {done.n_records:,} records")


@app.command()
def split(
    path: Annotated[Path, typer.Argument(help="The file to split.")],
    parts: Annotated[
        list[str],
        typer.Argument(metavar="OUT=SHARE... OUT", help="New files and their shares; the last one gets the rest."),
    ],
    by: Annotated[
        Literal["batch", "record"], typer.Option(help="batch: whole batches, quick to read; record: exact shares.")
    ] = "record",
    seed: Annotated[int | None, typer.Option(min=0, help="Draw the records by chance, with this seed.")] = None,
    overwrite: _OVERWRITE = False,
) -> None:
    """Split a file into several: disjoint, complete, each spread evenly over the file, or drawn by chance with --seed.

    A file need not be split to be read in parts: seq.split(0.8) does it without copying.

    Examples:
        hsq split all.hsq train.hsq=0.8 validation.hsq=0.1 test.hsq

        hsq split all.hsq train.hsq=0.8 test.hsq --seed 1
    """
    from ..converting import save
    from ..sequence import open_files

    names, shares = _shares(parts)
    with open_files(path) as sequence:
        _check_parts(sequence, list(map(Path, names)), overwrite=overwrite)
        whole: HyperSequence = sequence if seed is None else sequence.shuffled(seed, by="record")
        divided = whole.split(*shares, by=by)
        for name, part in zip(names, divided, strict=True):
            save(part, name, overwrite=overwrite, progress=True)
            _tell(Path(name))


def _reads(sequence: HyperSequence, path: Path) -> bool:
    """Whether a file is one of those that a sequence reads."""
    from ..sequence.inside import source_of

    return path.exists() and any(Path(file.path).samefile(path) for file in source_of(sequence).files())


def _check_parts(sequence: HyperSequence, parts: list[Path], *, overwrite: bool) -> None:
    """See that all parts can be written, before the first one is."""
    from ..converting.placing import refuse_existing

    if len({part.resolve() for part in parts}) < len(parts):
        raise typer.BadParameter("every part needs a file of its own")
    for part in parts:
        if _reads(sequence, part):
            raise FileError(f"{part}: is the file that is split, and would be lost with its first part")
        refuse_existing(part, overwrite=overwrite)
        if part.is_dir() or not part.parent.is_dir():
            reason = "is a folder" if part.is_dir() else f"the folder {part.parent} does not exist"
            raise FileError(f"{part}: {reason}; nothing was written")


def _shares(parts: list[str]) -> tuple[list[str], list[float]]:
    *given, last = parts
    names, shares = list[str](), list[float]()
    if not given or _share(last) is not None:
        raise typer.BadParameter(
            "give OUT=SHARE for each part but the last, which gets the rest: train.hsq=0.8 test.hsq"
        )
    for each in given:
        name, share = each.rpartition("=")[0], _share(each)
        if not name or share is None:
            raise typer.BadParameter(f"{each}: parts but the last are given as OUT=SHARE, for instance train.hsq=0.8")
        if not 0 < share < 1:
            raise typer.BadParameter(f"{each}: a share lies between 0 and 1: {name}=0.8 for 80%")
        names.append(name)
        shares.append(share)
    return [*names, last], shares


def _share(part: str) -> float | None:
    """The number behind a part's last ``=``, which a name may have too."""
    try:
        return float(part.rpartition("=")[2]) if "=" in part else None
    except ValueError:
        return None


@app.command()
def sample(
    path: Annotated[Path, typer.Argument(help="The file to take from.")],
    n: Annotated[int, typer.Argument(min=1, help="How many records.")],
    out: Annotated[Path, typer.Argument(help="The new file.")],
    seed: Annotated[int, typer.Option(min=0, help="Which records: a pure function of this.")] = 0,
    overwrite: _OVERWRITE = False,
) -> None:
    """Write some records of a file, drawn by chance without repetition and in the order of the file, to a new one.

    Examples:
        hsq sample train.hsq 1000 small.hsq
    """
    from ..converting import save
    from ..sequence import open_files

    with open_files(path) as sequence:
        if n > sequence.n_records:
            raise ArgumentError(f"{path}: has {sequence.n_records:,} records, {n:,} are more than that")
        save(_drawn(sequence, n, seed), out, overwrite=overwrite, progress=True)
    _tell(out)


def _drawn(sequence: HyperSequence, n: int, seed: int) -> HyperSequence:
    """Some records, in their order, drawn by chance: the first of a shuffle, which SPEC.md pins."""
    import numpy as np

    from ..order import Shuffled
    from ..sequence.arguments import seed_of

    numbers = np.asarray(Shuffled(sequence.n_records, seed_of(seed), 0).span(0, n))
    return sequence.select(np.sort(numbers))


def _tell(path: Path) -> None:
    from ..sequence import open_files

    with open_files(path) as sequence:
        say(f"{path}: {sequence.n_records:,} records")

"""``hsq bench``."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from .app import app, console, say

# Commands import what they work with when they are called, so that none waits for what others need.
if TYPE_CHECKING:
    from ..report.feeding import Bench


@app.command()
def bench(
    paths: Annotated[list[str], typer.Argument(metavar="FILE...", help="A file, several of one schema, or a pattern.")],
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Records of a batch; the file's own number if left out.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="How long each figure is measured, all rounds together.")] = 1.0,
    rounds: Annotated[int, typer.Option(min=1, help="Figures are taken in turn, so many times; medians count.")] = 3,
    cold: Annotated[
        bool, typer.Option(help="Measure from disk too: the file is dropped from the page cache (Linux only).")
    ] = True,
    threads: Annotated[
        str | None,
        typer.Option(help="Numbers of threads for the loader, separated by commas; 0,1,2 and its default if left out."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Measure how fast this file feeds training on this machine, and say what the bottleneck is.

    Every order (the file's own, whole batches shuffled, the default shuffle by window, all records shuffled) with
    each number of threads of hs.Loader; from memory beside one thread's copy or np.take of a batch, from disk beside
    reading in a row past the page cache. Threads can pass the limit of one thread. Takes well under a minute.

    While it measures from disk, others who read the file are slowed down.

    Examples:
        hsq bench train.hsq

        hsq bench train.hsq --batch-size 256 --threads 0,1,2,4

        hsq bench "shards/*.hsq" --no-cold --json
    """
    from ..report.feeding import bench as measure

    found = measure(
        paths if len(paths) > 1 else paths[0],
        batch_size=batch_size,
        seconds=seconds,
        rounds=rounds,
        cold=cold,
        threads=None if threads is None else _numbers(threads),
        progress=True,
    )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found)))
    else:
        _show(found)


def _numbers(given: str) -> list[int]:
    try:
        return [int(number) for number in given.split(",")]
    except ValueError:
        raise typer.BadParameter(f"--threads {given}: give numbers, separated by commas, such as 0,1,2") from None


def _show(found: Bench) -> None:
    from .info import print_report

    print_report([found.title], found.tables())
    for text, style in (*((note, "dim") for note in found.notes), (found.verdict, "bold")):
        say("")
        console().print(text, style=style, markup=False, highlight=False)  # prose, which may be wrapped

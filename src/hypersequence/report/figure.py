"""A picture of how an order mixes. Matplotlib is imported here and in `drawing` alone."""

# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .quality import Scatter, ShuffleQuality

_DOTS, _BARS, _LINE, _QUIET = "#1f5fa8", "#7fa8d4", "#c4452d", "#6b6b6b"
_MOST_BARS = 50


def draw(quality: ShuffleQuality, path: str | os.PathLike[str] | None) -> Figure:
    """The figure of a ``ShuffleQuality``, saved if there is a path.

    Raises:
        MissingPackageError: Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(f"plot() needs matplotlib ({error}): pip install 'hypersequence[plot]'") from error
    figure: Any = Figure(figsize=(11, 3.6), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # draws without a window, and without pyplot's own list of figures
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 0.9))
    figure.suptitle(textwrap.fill(quality.verdict, 130), fontsize=10, color="black")
    _scatter(left, quality._epoch, quality._n_places, "The whole epoch")
    left.set_ylabel("record number in the file", fontsize=9, color=_QUIET)
    n_first = -(-int(quality._beginning.positions.max(initial=-1) + 1) // quality.batch_size)
    _scatter(
        middle,
        quality._beginning,
        quality._n_places,
        f"Its first {n_first:,} batches" if n_first > 1 else "Its first batch",
    )
    middle.tick_params(labelleft=False)
    _bars(right, quality)
    if path is not None:
        figure.savefig(os.fspath(path))
    return figure


def _scatter(axes: Any, points: Scatter, n_places: int, title: str) -> None:
    axes.scatter(points.positions, points.places, s=2.5, linewidths=0, color=_DOTS, alpha=0.75, rasterized=True)
    axes.set_ylim(-0.02 * n_places, 1.02 * max(1, n_places))
    axes.set_xlabel("position in the epoch", fontsize=9, color=_QUIET)
    _plain(axes, title)


def _bars(axes: Any, quality: ShuffleQuality) -> None:
    counts = quality._counts
    shown = counts[np.unique(np.linspace(0, len(counts) - 1, min(_MOST_BARS, len(counts))).astype(int))]
    axes.bar(np.arange(len(shown)), shown, width=0.8, color=_BARS)
    full = quality.blocks_per_batch_full
    axes.axhline(full, color=_LINE, linewidth=1.3)
    axes.text(
        0.02,
        0.98,
        f"\N{EM DASH} a full shuffle: {full:,.1f}",
        transform=axes.transAxes,
        va="top",
        color=_LINE,
        fontsize=9,
    )
    axes.set_ylim(0, 1.22 * max(full, float(counts.max(initial=1))))
    axes.set_xticks([])
    axes.set_xlabel(f"{len(shown)} of {quality.n_batches:,} batches", fontsize=9, color=_QUIET)
    _plain(axes, f"Blocks that feed a batch: {quality.blocks_per_batch:,.1f}")


def _plain(axes: Any, title: str) -> None:
    """Short numbers, no frame."""
    axes.set_facecolor("white")
    axes.set_title(title, fontsize=9.5, loc="left", color="black")
    axes.tick_params(labelsize=8, length=3, colors=_QUIET)
    axes.xaxis.set_major_formatter(_short)
    axes.yaxis.set_major_formatter(_short)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)


def _short(value: float, _: Any = None) -> str:
    """10,000,000 as 10 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"

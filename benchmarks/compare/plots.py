"""Pictures of the figures (needs matplotlib)."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .figures import DEFAULT, OURS, REFERENCE, Figure, Figures, by_record, system
from .results import Row
from .systems import contenders
from .workloads import workload

_OURS, _PEER, _LOOP, _LESS, _OURS_LESS = "#0b6e4f", "#6c8ebf", "#b39ddb", "#d5dbe5", "#a3cdbd"


class Bar(NamedTuple):
    """One of a picture."""

    label: str
    value: float
    colour: str


def draw(figures: Figures, docs: Path) -> None:
    """``compare-shuffled.png`` and ``compare-disk.png``: every workload, the quickest way of each system."""
    import matplotlib as mpl

    mpl.use("Agg")
    names = [name for name in figures.workloads() if figures.hot(name, "shuffled")]
    bars = {name: _from_memory(figures.hot(name, "shuffled")) for name in names}
    title = "Shuffled, files in memory: as a share of NumPy's gather (dashed) in the same rounds; logarithmic"
    _panels(bars, title, docs / "compare-shuffled.png")
    names = [name for name in figures.workloads() if figures.cold(name, "shuffled")]
    bars = {name: _from_disk(figures, name) for name in names}
    title = "Shuffled, files on disk: as a share of what the disk gives by itself (dashed) right before; logarithmic"
    _panels(bars, title, docs / "compare-disk.png")


def _panels(bars: dict[str, list[Bar]], title: str, path: Path) -> None:
    from matplotlib import pyplot as plt
    from matplotlib.patches import Patch

    n_rows = -(-max(1, len(bars)) // 2)
    figure, axes = plt.subplots(n_rows, 2, figsize=(12, 4.4 * n_rows), squeeze=False)
    for axis, (name, shown) in zip(axes.flat, bars.items(), strict=False):
        _bars(axis, shown, workload(name).title)
    for axis in axes.flat[len(bars) :]:
        axis.set_visible(False)
    kinds = {"HyperSequence": _OURS, "in windows of the data": _OURS_LESS, "loader": _PEER, "loop by hand": _LOOP}
    kinds["shuffles less than all records"] = _LESS
    patches = [Patch(color=colour, label=label) for label, colour in kinds.items()]
    figure.legend(handles=patches, loc="lower center", ncols=5, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    figure.tight_layout(rect=(0, 0.03, 1, 0.98))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _bars(axis: Any, shown: list[Bar], title: str) -> None:
    """On a logarithmic axis: between the first and the last there are factors of a thousand."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    shown = sorted(shown, key=lambda bar: bar.value)
    axis.barh([bar.label for bar in shown], [bar.value for bar in shown], color=[bar.colour for bar in shown])
    axis.set_xscale("log")
    axis.axvline(1, color="#b00", linestyle="--", linewidth=1, zorder=0)
    behind = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}  # or the dashed line runs through the figure
    for row, bar in enumerate(shown):
        at, text = (bar.value, row), np.format_float_positional(bar.value, 2, fractional=False, trim="-")
        axis.annotate(text, at, (4, 0), textcoords="offset points", va="center", fontsize=7, bbox=behind)
    axis.margins(x=0.12)
    is_wide = shown[0].value < 3e-4  # then there is no room for two numbers a decade
    axis.xaxis.set_major_locator(LogLocator(subs=(1,) if is_wide else (1, 3), numticks=9))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_title(title, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _from_memory(hot: list[Figure]) -> list[Bar]:
    best: dict[str, Bar] = {}
    for each in sorted(hot, key=lambda each: (not each.by_record, -(each.to_limit or 0))):
        if not each.is_limit and each.to_limit is not None and _is_shown(each.contender, {REFERENCE, DEFAULT}):
            label = f"{system(each.contender)}, by hand" if each.is_loop else _label(each.contender)
            best.setdefault(label, Bar(label, each.to_limit, _colour(each.contender, each.check)))
    return list(best.values())


def _from_disk(figures: Figures, name: str) -> list[Bar]:
    ways, best = contenders(), dict[str, Bar]()
    checks = figures.checks(name, "shuffled")
    shown = {REFERENCE, DEFAULT}
    if not by_record(checks.get(REFERENCE, {})):  # then ours of all records belongs beside it
        shown.add(f"{REFERENCE}, by record")
    # One round says little on a disk that swings: a way that had them all goes before one that had the first only.
    by_rounds = sorted(figures.cold(name, "shuffled"), key=lambda each: (-each.n, -each.ratio))
    for each in sorted(by_rounds, key=lambda each: not by_record(checks.get(each.contender, {}))):
        check = checks.get(each.contender)
        known = check is not None and each.contender in ways and _is_shown(each.contender, shown)
        if known and check["kind"] != "limit":
            label = f"{system(each.contender)}, by hand" if check["kind"] == "loop" else _label(each.contender)
            best.setdefault(label, Bar(label, each.ratio, _colour(each.contender, check)))
    return list(best.values())


def _label(contender: str) -> str:
    named = {REFERENCE: "HyperSequence, into buffers", f"{REFERENCE}, by record": "HyperSequence, by record"}
    return named.get(contender, system(contender))


def _is_shown(contender: str, ours: Collection[str]) -> bool:
    """Anybody else's, and of ours some."""
    return system(contender) != OURS or contender in ours


def _colour(contender: str, check: Row) -> str:
    if system(contender) == OURS:
        return _OURS if by_record(check) else _OURS_LESS
    if not by_record(check):
        return _LESS
    return _LOOP if check["kind"] == "loop" else _PEER

"""Pictures of the figures (needs matplotlib)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .figures import LIMIT, Figure, Figures, system
from .workloads import workload

_OURS, _PEER, _NOT_RECORDS = "#0b6e4f", "#6c8ebf", "#d5dbe5"


def draw(figures: Figures, docs: Path) -> None:
    """``compare-shuffled.png``: every workload, the quickest way of each system."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = figures.workloads()
    n_rows = -(-len(names) // 2)
    figure, axes = plt.subplots(n_rows, 2, figsize=(12, 4.2 * n_rows), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        _bars(axis, figures.hot(name, "shuffled"), workload(name).title)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    figure.suptitle("Shuffled, files in memory: GB/s into the consumer's buffers, the quickest way of each system")
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(docs / "compare-shuffled.png", dpi=80)
    plt.close(figure)


def _bars(axis: Any, hot: list[Figure], title: str) -> None:
    best: dict[str, Figure] = {}
    for each in sorted(hot, key=lambda each: not each.by_record):  # whole batches only of who shuffles nothing smaller
        if not each.is_limit:
            best.setdefault(system(each.contender), each)
    shown = sorted(best.values(), key=lambda each: each.gb)
    colours = [_OURS if each.is_ours else _PEER if each.by_record else _NOT_RECORDS for each in shown]
    spread = [[each.gb - each.low for each in shown], [each.high - each.gb for each in shown]]
    axis.barh([system(each.contender) for each in shown], [each.gb for each in shown], color=colours)
    middles = [each.gb for each in shown]
    axis.errorbar(middles, range(len(shown)), xerr=spread, fmt="none", ecolor="#444", elinewidth=0.8)
    for row, each in enumerate(shown):  # behind the whisker
        axis.annotate(f"{each.gb:.2g}", (each.high, row), (4, 0), textcoords="offset points", va="center", fontsize=8)
    limit = next((each for each in hot if each.contender == LIMIT["shuffled"]), None)
    if limit is not None:
        axis.axvline(limit.gb, color="#b00", linestyle="--", linewidth=1)
        axis.annotate(" limit", (limit.gb, 0), color="#b00", fontsize=8)
    axis.set_title(title, fontsize=10)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)

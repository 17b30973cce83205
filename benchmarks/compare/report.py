"""Results as tables: on the terminal, and as the documentation's page."""

from __future__ import annotations

from pathlib import Path
from string import Template

from .figures import FLOOR, LIMIT, OURS, Figure, Figures, system
from .results import Results, Row
from .systems import contenders
from .workloads import names, workload

Table = list[list[str]]
#: The share of the limit that we mean to reach.
GOAL = 0.85
#: And of what the disk gives by itself.
GOAL_ON_DISK = 0.9
#: And of what Keras makes of arrays in memory.
GOAL_IN_FIT = {"fit tensorflow": 0.97, "fit jax": 0.97}
_PAGE = Path(__file__).parent / "page.md"
_TRAINING = {
    "train": "training a small PyTorch model",
    "fit tensorflow": "training a small Keras model on TensorFlow",
    "fit jax": "training a small Keras model on JAX",
}
_HOT = [
    "",
    "GB/s consumed",
    "spread",
    "of the limit",
    "of ours",
    "records/s",
    "GB/s handed",
    "first batch",
    "CPU s/GB",
    "memory (PSS)",
    "of it anonymous",
    "order",
]


def list_contenders() -> None:
    """What may be named on the command line."""
    _show([["workload", ""], *([name, workload(name).title] for name in names())])
    _show(
        [
            ["contender", "environment", "shuffle"],
            *(
                [each.name, each.environment, each.shuffle.how if each.shuffle else ""]
                for each in contenders().values()
            ),
        ]
    )


def print_tables(results: Results) -> None:
    """What was measured, for a terminal."""
    figures = Figures(results)
    for name in figures.workloads():
        for order in ("shuffled", "sequential"):
            print(f"\n{workload(name).title}, {order}, files in memory; the limit is {LIMIT[order]}")
            _show(_hot(figures, name, order))
            if cold := figures.cold(name, order):
                print(f"\n{workload(name).title}, {order}, files on disk")
                _show(_cold(cold))
        for stage, title in _TRAINING.items():
            if trained := figures.training(stage, name):
                print(f"\n{workload(name).title}, {title}")
                _show(_trained(trained))
        print(f"\n{workload(name).title}, writing")
        _show(_writing(figures, name))
    for row in figures.failures():
        print(f"failed: {row.get('contender')}, {row.get('workload', '')} {row['at']}: {row['error']}")


def render(results: Results, docs: Path) -> None:
    """Write the page and its pictures."""
    from .plots import draw

    figures = Figures(results)
    parts = [_workload(figures, name) for name in figures.workloads()]
    page = Template(_PAGE.read_text()).substitute(
        machine=_machines(figures.machines()),
        summary=_markdown(_summary(figures)),
        losses=_losses(figures),
        workloads="\n\n".join(parts),
        failures=_failures(figures),
        versions=_versions(figures),
        ways=_markdown(_ways(figures)),
    )
    (docs / "benchmarks.md").write_text(page)
    draw(figures, docs)


# --- tables ----------------------------------------------------------------------------------------------------------


def _hot(figures: Figures, name: str, order: str) -> Table:
    return [_HOT, *(_figure(each, order) for each in figures.hot(name, order))]


def _figure(each: Figure, order: str) -> list[str]:
    if order == "sequential":
        came = ""
    elif each.by_record:
        came = "records"
    else:
        came = f"{each.check['neighbours']:.0%} follow, reach {each.check['reach']:.0%}"
    if not each.exact:
        came = f"VALUES CHANGED ({', '.join(each.check['dtypes'])}) {came}"
    return [
        each.contender,
        f"{each.gb:.3g}",
        f"{each.low:.3g}–{each.high:.3g}",
        _number(each.to_limit, ".2f"),
        _number(each.to_ours, ".2g"),
        f"{each.records:,.0f}",
        _number(each.handed, ".3g"),
        f"{each.first_ms:.3g} ms",
        f"{each.cpu_s:.2g}",
        f"{_number(each.pss, '.0f')} MB",
        f"{_number(each.anonymous, '.0f')} MB",
        came,
    ]


def _cold(cold: list[tuple[str, float, float, float]]) -> Table:
    rows = [[who, f"{gb:.3g}", f"{ratio:.2f}", f"{first:.3g} ms"] for who, gb, ratio, first in cold]
    return [["", "GB/s", "of the disk", "first batch"], *rows]


def _trained(trained: list[tuple[str, float, float | None]]) -> Table:
    rows = [[who, f"{records:,.0f}", _number(lost, ".1%")] for who, records, lost in trained]
    return [["", "records/s", "time lost"], *rows]


def _writing(figures: Figures, name: str) -> Table:
    rows = [
        [files, f"{gb:.3g}", _number(ratio, ".2f"), f"{size:.2f}", "" if done else "stopped by the time limit"]
        for files, gb, ratio, size, done in figures.writing(name)
    ]
    return [["", "GB/s", "of plain files", "bytes on disk a byte", ""], *rows]


def _summary(figures: Figures) -> Table:
    """The best of each system that truly shuffles records, and how far ours is from the best of them and the limit."""
    names_ = figures.workloads()
    best: dict[str, dict[str, Figure]] = {}
    for name in names_:
        for each in figures.hot(name, "shuffled"):
            if each.by_record and each.exact:
                best.setdefault(_shown(each), {}).setdefault(name, each)
    order = sorted(best, key=lambda who: -sum(best[who][name].gb for name in names_ if name in best[who]))
    rows = [[who, *(f"{best[who][name].gb:.3g}" if name in best[who] else "–" for name in names_)] for who in order]
    peers = [figures.best_peer(name, "shuffled", lambda each: each.by_record and each.exact) for name in names_]
    ours = [figures.best_of_ours(name, "shuffled") for name in names_]
    rows.append(["ours / best loader of others", *(_number(_times_ours(peer), ".1f") for peer in peers)])
    rows.append(["ours / limit", *(_number(each and each.to_limit, ".2f") for each in ours)])
    return [["", *(workload(name).title for name in names_)], *rows]


def _shown(each: Figure) -> str:
    return f"{system(each.contender)}, by hand" if each.is_by_hand else system(each.contender)


def _times_ours(peer: Figure | None) -> float | None:
    return 1 / peer.to_ours if peer and peer.to_ours else None


def _losses(figures: Figures) -> str:
    """Where somebody is faster, or we are further from the limit than we mean to be."""
    found: list[str] = []
    floors = {who for who, each in contenders().items() if each.is_limit}
    for name in figures.workloads():
        for order in ("shuffled", "sequential"):
            where = f"{workload(name).title}, {order}"
            hot = figures.hot(name, order)
            ours = figures.best_of_ours(name, order)
            if ours is None:
                continue
            whole = next(each for each in hot if each.is_ours)  # whole batches too, beside others that shuffle those
            for each in hot:
                loose = order == "shuffled" and not each.by_record
                mine = whole if loose else ours
                if not (each.is_limit or each.is_ours) and each.gb > mine.gb:
                    how = ", which shuffles no records" if loose else ""
                    found.append(f"- {where}: {each.contender}{how}, {each.gb:.3g} GB/s; ours {mine.gb:.3g}.")
            if order == "shuffled" and ours.to_limit is not None and ours.to_limit < GOAL:
                found.append(f"- {where}: {ours.to_limit:.2f} of the limit.")
            limits = {each.contender for each in hot if each.is_limit}
            found += [f"- {where}, from disk: {what}" for what in _lost_cold(figures.cold(name, order), limits)]
        for stage, training in _TRAINING.items():
            trained = figures.training(stage, name)
            mine = max((records for who, records, _ in trained if system(who) == OURS), default=0.0)
            found += [
                f"- {workload(name).title}, {training}: {who} {records:,.0f} records/s; ours {mine:,.0f}."
                for who, records, _ in trained
                if records > mine
                and (who not in floors or (stage in GOAL_IN_FIT and who.startswith(FLOOR[stage])))
                and mine < GOAL_IN_FIT.get(stage, 1) * records
            ]
        written = figures.writing(name)
        mine = next((gb for files, gb, *_ in written if files == "hypersequence"), 0.0)
        found += [
            f"- {workload(name).title}, writing: {files} {gb:.3g} GB/s; ours {mine:.3g}."
            for files, gb, *_ in written
            if gb > mine and files != "memmap"
        ]
    return "\n".join(found) or "Nowhere in this run."


def _lost_cold(cold: list[tuple[str, float, float, float]], limits: set[str]) -> list[str]:
    """Who is faster than we are with files on disk, and whether we are further from the disk than we mean to be."""
    ours = [(gb, ratio) for who, gb, ratio, _ in cold if system(who) == OURS]
    if not ours:
        return []
    mine, of_the_disk = max(ours)
    found = [
        f"{who}{' (a limit)' if who in limits else ''} {gb:.3g} GB/s; ours {mine:.3g}."
        for who, gb, *_ in cold
        if gb > mine
    ]
    return found if of_the_disk >= GOAL_ON_DISK else [*found, f"{of_the_disk:.2f} of the disk."]


def _workload(figures: Figures, name: str) -> str:
    title = workload(name).title
    parts = [f"### {title}"]
    for order in ("shuffled", "sequential"):
        hot = _markdown(_hot(figures, name, order))
        parts.append(f"**{order.capitalize()}, files in memory.** The limit is {LIMIT[order]}.\n\n{hot}")
        if cold := figures.cold(name, order):
            parts.append(f"**{order.capitalize()}, files on disk.**\n\n{_markdown(_cold(cold))}")
    for stage, training in _TRAINING.items():
        if trained := figures.training(stage, name):
            beside = f"Time lost is beside *{FLOOR[stage]}*."
            parts.append(f"**{training[0].upper()}{training[1:]}.** {beside}\n\n{_markdown(_trained(trained))}")
    parts.append(f"**Writing.**\n\n{_markdown(_writing(figures, name))}")
    return "\n\n".join(parts)


def _ways(figures: Figures) -> Table:
    """How each contender shuffles, and what should be known of it."""
    rows: dict[str, list[str]] = {}
    for name in figures.workloads():
        for each in figures.hot(name, "shuffled"):
            rows.setdefault(each.contender, [each.contender, each.check.get("how", ""), each.check.get("note", "")])
    return [["", "shuffle", ""], *(rows[name] for name in sorted(rows))]


def _failures(figures: Figures) -> str:
    rows = [
        f"- {row.get('contender')}, {row.get('workload', '')} {row['at']}: `{row['error'][:200]}`"
        for row in figures.failures()
    ]
    return "\n".join(rows) or "Nothing failed in this run."


def _versions(figures: Figures) -> str:
    named = {
        "torch",
        "numpy",
        "tensorflow-cpu",
        "tensorflow",
        "keras",
        "grain",
        "array-record",
        "ffcv",
        "h5py",
        "zarr",
        "lmdb",
        "webdataset",
        "datasets",
        "pyarrow",
        "tensordict",
        "pylance",
        "litdata",
        "mosaicml-streaming",
        "hypersequence",
        "jax",
    }
    rows = [
        [name, ", ".join(f"{what} {found[what]}" for what in sorted(found) if what.replace("_", "-").lower() in named)]
        for name, found in figures.versions().items()
    ]
    return _markdown([["environment", ""], *rows])


def _machines(rows: list[Row]) -> str:
    """Each machine once, with the days on which it was used."""
    days: dict[str, list[str]] = {}
    for row in rows:
        memory = f"{row['memory_nbytes'] / 2**30:.0f} GiB"
        cores = f"{row['n_processors']} cores of an {row['cpu']}"
        days.setdefault(f"{cores}, {memory}, {row['system']}, Python {row['python']}", []).append(row["date"])
    return "; ".join(f"{what}, {' and '.join(dict.fromkeys(when))}" for what, when in days.items())


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _show(table: Table) -> None:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    for row in table:
        print(
            "  ".join(
                f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}"
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
        )


def _markdown(table: Table) -> str:
    head, *rows = table
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)

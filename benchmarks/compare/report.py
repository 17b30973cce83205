"""Results as tables: on the terminal, and as the documentation's page."""

from __future__ import annotations

from pathlib import Path
from string import Template

from .figures import (
    DEFAULT,
    FLOOR,
    LIMIT,
    REFERENCE,
    TRAINING,
    Figure,
    Figures,
    Trained,
    by_record,
    short,
    system,
)
from .goals import GOALS, Outcome
from .losses import losses
from .results import Results, Row
from .systems import contenders
from .workloads import names, workload

Table = list[list[str]]
_PAGE = Path(__file__).parent / "page.md"
_HOT = [
    "",
    "of the limit",
    "of ours",
    "GB/s consumed",
    "rounds, spread",
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
            if figures.hot(name, order):
                print(f"\n{workload(name).title}, {order}, files in memory; the limit is {LIMIT[order]}")
                _show(_hot(figures, name, order))
            if figures.cold(name, order):
                print(f"\n{workload(name).title}, {order}, files on disk")
                _show(_cold(figures, name, order))
        for stage, title in TRAINING.items():
            if trained := figures.training(stage, name):
                print(f"\n{workload(name).title}, {title}")
                _show(_trained(trained))
        print(f"\n{workload(name).title}, writing")
        _show(_writing(figures, name))
    for row in figures.failures():
        print(f"failed: {_failed(row)}: {row['error']}")


def render(results: Results, docs: Path) -> None:
    """Write the page and its pictures."""
    from .plots import draw

    figures = Figures(results)
    parts = [_workload(figures, name) for name in figures.workloads()]
    page = Template(_PAGE.read_text()).substitute(
        machine=_machines(figures.machines()),
        summary=_markdown(_summary(figures)),
        goals=_markdown(_goals(figures)),
        losses=losses(figures),
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


def _came(check: Row, order: str) -> str:
    """What came of the order, and of values."""
    if order == "sequential":
        came = ""
    elif by_record(check):
        came = "records"
    else:
        came = f"{check['neighbours']:.0%} follow, reach {check['reach']:.0%}"
    return f"VALUES CHANGED ({', '.join(check['dtypes'])}) {came}" if check["wrong"] else came


def _figure(each: Figure, order: str) -> list[str]:
    return [
        each.contender,
        short(each.to_limit),
        short(each.to_ours),
        short(each.gb),
        _spread(each.n, each.low, each.high),
        f"{each.records:,.0f}",
        short(each.handed),
        f"{short(each.first_ms)} ms",
        short(each.cpu_s),
        "–" if each.pss is None else f"{each.pss:,.0f} MB",
        "–" if each.anonymous is None else f"{each.anonymous:,.0f} MB",
        _came(each.check, order),
    ]


def _cold(figures: Figures, name: str, order: str) -> Table:
    checks = figures.checks(name, order)
    rows = [
        [
            each.contender,
            short(each.gb),
            _spread(each.n, each.low, each.high),
            short(each.ratio),
            short(each.to_copied),
            short(each.disk_gb),
            f"{each.first_s:.2f} s",
            short(each.then_gb),
            short(each.cpu_s),
            _came(checks[each.contender], order) if each.contender in checks else "",
        ]
        for each in figures.cold(name, order)
    ]
    head = ["", "GB/s", "rounds, spread", "of the disk", "with one copy", "the disk, GB/s", "opened, and first batch"]
    return [[*head, "GB/s after it", "CPU s/GB", "order"], *rows]


def _trained(trained: list[Trained]) -> Table:
    rows = [
        [
            each.contender,
            f"{each.records:,.0f}",
            "–" if each.lost is None else f"{each.lost:.0%}",
            "–" if each.least is None or each.most is None else f"{each.least:.0%} to {each.most:.0%}",
        ]
        for each in trained
    ]
    return [["", "records/s", "time lost", "round by round"], *rows]


def _writing(figures: Figures, name: str) -> Table:
    rows = [
        [
            each.files,
            short(each.gb),
            str(each.n),
            short(each.ratio),
            f"{each.size:.2f}",
            "" if each.is_whole else "stopped by the time limit",
        ]
        for each in figures.writing(name)
    ]
    disk = figures.disk_writes(name)
    rows += [["*the disk itself, `O_DIRECT`*", short(disk), "", "", "", ""]] if disk else []
    return [["", "GB/s", "rounds", "of plain files", "disk bytes per data byte", ""], *rows]


def _summary(figures: Figures) -> Table:
    """The best of each system that truly shuffles records, of ours two, as a share of the limit."""
    names_ = [name for name in figures.workloads() if figures.hot(name, "shuffled")]
    best: dict[str, dict[str, float]] = {}
    for name in names_:
        for each in figures.hot(name, "shuffled"):
            if each.is_ours and each.contender not in (REFERENCE, DEFAULT):
                continue
            if each.by_record and each.exact and each.to_limit is not None:
                of_system = best.setdefault(_shown(each), {})
                of_system[name] = max(of_system.get(name, 0), each.to_limit)
    order = sorted(best, key=lambda who: -sum(best[who].values()) / len(best[who]))
    rows = [[who, *(short(best[who].get(name)) for name in names_)] for who in order]
    return [["", *(workload(name).title for name in names_)], *rows]


def _shown(each: Figure) -> str:
    if each.is_limit or each.is_ours:
        return f"*{each.contender}*" if each.is_limit else each.contender
    return f"{system(each.contender)}, by hand" if each.is_loop else system(each.contender)


def _goals(figures: Figures) -> Table:
    """Every goal and what came of it."""
    names_ = figures.workloads()
    rows = [[goal.title, *(_outcome(goal.outcome(figures, name)) for name in names_)] for goal in GOALS]
    return [["", *(workload(name).title for name in names_)], *rows]


def _outcome(outcome: Outcome) -> str:
    if outcome.value is None:
        return "–"
    against = f" ({outcome.against})" if outcome.against else ""
    return f"{outcome.value:.2f} {'✓' if outcome.reached else '✗'}{against}"


def _workload(figures: Figures, name: str) -> str:
    title = workload(name).title
    commits = ", ".join(figures.commits(name))
    parts = [f"### {title}", f"Measured at {commits}."]
    for order in ("shuffled", "sequential"):
        if hot := figures.hot(name, order):
            often, once = ([each for each in hot if (each.n > 1) is several] for several in (True, False))
            tables = [_markdown([_HOT, *(_figure(each, order) for each in some)]) for some in (often, once)]
            parts.append(f"**{order.capitalize()}, files in memory.** The limit is {LIMIT[order]}.\n\n{tables[0]}")
            if once:
                parts.append(f"<details><summary>Ways that had one round</summary>\n\n{tables[1]}\n\n</details>")
        if figures.cold(name, order):
            parts.append(f"**{order.capitalize()}, files on disk.**\n\n{_markdown(_cold(figures, name, order))}")
    for stage, training in TRAINING.items():
        if trained := figures.training(stage, name):
            beside = f"Time lost is beside *{FLOOR[stage]}*; below zero, less time was needed."
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
    rows = [f"- {_failed(row)}: `{row['error'][:200]}`" for row in figures.failures()]
    return "\n".join(rows) or "Nothing failed in this run."


def _failed(row: Row) -> str:
    """Who, and where."""
    order = f", {row['order']}" if row.get("order") else ""
    return f"{row.get('contender')}, {row.get('workload', '')} {row['at']}{order}"


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
        "lancedb",
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


def _spread(n: int, low: float, high: float) -> str:
    return "1" if n == 1 else f"{n}: {short(low)} to {short(high)}"


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

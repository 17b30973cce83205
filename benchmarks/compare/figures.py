"""From rows to figures: medians over the rounds, and ratios within each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .results import Results, Row
from .workloads import names, workload

OURS = "HyperSequence"
#: Ours that goes in every group of contenders, beside the limit.
REFERENCE = "HyperSequence, Loader into buffers"
#: Ours as it is without being told anything: batches whose memory is the consumer's, so that a copy is owed.
DEFAULT = "HyperSequence, Loader"
#: What one copy of the same bytes takes.
COPY = "one copy"
#: Beside which contenders are shown.
LIMIT = {"sequential": COPY, "shuffled": "np.take into aligned buffers"}

#: Kinds of training.
TRAINING = {
    "train": "training a small PyTorch model",
    "fit tensorflow": "training a small Keras model on TensorFlow",
    "fit jax": "training a small Keras model on JAX",
}
#: Beside what the time is lost, for each of them: its name begins so.
FLOOR = {"train": "arrays in memory", "fit tensorflow": "arrays in memory", "fit jax": "arrays in memory"}


def system(contender: str) -> str:
    """Which system a contender is a way of using."""
    return contender.partition(",")[0]


def by_record(check: Row) -> bool:
    """Whether an order was one of all records: its maker says so, and an epoch that was looked at agrees."""
    return bool(check.get("by_record")) and check["neighbours"] < 0.1 and check["reach"] > 0.5


def short(value: float | None) -> str:
    """Three figures, and no powers of ten."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}"


@dataclass(frozen=True)
class Figure:
    """A contender's figures for a workload and an order, with files in memory.

    ``to_limit``, ``to_ours`` and ``to_copy`` compare with others in the same ``n`` rounds; ``gb`` by itself may be of
    another hour than that of other systems.
    """

    contender: str
    check: Row
    n: int
    gb: float
    low: float
    high: float
    to_limit: float | None
    to_ours: float | None
    to_copy: float | None
    records: float
    handed: float | None
    first_ms: float
    cpu_s: float
    pss: float | None
    anonymous: float | None

    @property
    def is_limit(self) -> bool:
        """Whether this is the machine, not a system."""
        return self.check["kind"] == "limit"

    @property
    def is_ours(self) -> bool:
        """Whether this is HyperSequence."""
        return system(self.contender) == OURS

    @property
    def is_loop(self) -> bool:
        """Whether somebody wrote a loop of their own over a system's files, instead of using its loader."""
        return self.check["kind"] == "loop"

    @property
    def is_loader(self) -> bool:
        """Whether this is somebody else's loader, or what stands in for one."""
        return not (self.is_limit or self.is_ours or self.is_loop)

    @property
    def by_record(self) -> bool:
        """Whether the order was one of all records: its maker says so, and an epoch that was looked at agrees."""
        return by_record(self.check)

    @property
    def exact(self) -> bool:
        """Whether values came as they were written."""
        return not self.check["wrong"]


@dataclass(frozen=True)
class Cold:
    """A contender's figures with files on disk; ``ratio`` is to the disk's own rate right before, on the same files.

    ``to_copied`` is to the same with one copy of what comes. ``then_gb`` is without the first batch, which has what is
    done once: compiling, filling buffers, reading a window.
    """

    contender: str
    n: int
    gb: float
    low: float
    high: float
    ratio: float
    to_copied: float | None
    disk_gb: float
    first_s: float
    then_gb: float | None
    cpu_s: float


@dataclass(frozen=True)
class Written:
    """What writing took; ``ratio`` is to plain files in the same round, ``size`` bytes on disk for each byte."""

    files: str
    n: int
    gb: float
    ratio: float | None
    size: float
    is_whole: bool


@dataclass(frozen=True)
class Trained:
    """Records a second in training, and the share of the time that was lost beside data in memory, round by round."""

    contender: str
    records: float
    lost: float | None
    least: float | None
    most: float | None


class Figures:
    """All figures of a run.

    Args:
        results: Its rows.
    """

    def __init__(self, results: Results) -> None:
        self._rows = results.rows

    def workloads(self) -> list[str]:
        """Those that were measured, in the order of their list."""
        read = {row["workload"] for row in self._rows if row["stage"] in ("hot", "cold")}  # one may be under way
        return [name for name in names() if name in read]

    def hot(self, name: str, order: str) -> list[Figure]:
        """The contenders, the fastest first."""
        checks = self.checks(name, order)
        memory = _by_contender(self._of("memory", name, order))
        nbytes = workload(name).record_nbytes
        rows = self._of("hot", name, order)
        consumed = _by_contender(row for row in rows if row["mode"] == "consumed")
        handed = _by_contender(row for row in rows if row["mode"] == "handed")
        limit, ours, copy = (_of_rounds(consumed.get(who, []), nbytes) for who in (LIMIT[order], REFERENCE, COPY))
        if order == "shuffled":
            limit = _of_rounds([self._without_orders(row, name) for row in consumed.get(LIMIT[order], [])], nbytes)
        figures: list[Figure] = []
        for contender, mine in consumed.items():
            rates = [_gb(row, nbytes) for row in mine]
            seen = memory.get(contender, [])
            figures.append(
                Figure(
                    contender=contender,
                    check=checks[contender],
                    n=len(rates),
                    gb=statistics.median(rates),
                    low=min(rates),
                    high=max(rates),
                    to_limit=_median_ratio(mine, limit, nbytes),
                    to_ours=_median_ratio(mine, ours, nbytes),
                    to_copy=_median_ratio(mine, copy, nbytes),
                    records=statistics.median(rates) * 1e9 / nbytes,
                    handed=_median(handed.get(contender, []), lambda row: _gb(row, nbytes)),
                    first_ms=statistics.median(row["first_s"] for row in mine) * 1e3,
                    cpu_s=statistics.median(row["cpu_s"] / (row["cpu_records"] * nbytes / 1e9) for row in mine),
                    pss=_median(seen, lambda row: row["pss"] / 1e6),
                    anonymous=_median(seen, lambda row: row["anonymous"] / 1e6),
                )
            )
        return sorted(figures, key=lambda figure: -figure.gb)

    def _without_orders(self, row: Row, name: str) -> Row:
        """A pass of the limit without the time in which it made the orders of further epochs.

        That is what the first batch took, but for the batch itself: gathering is the limit, not how an order is made.
        Half of the time at most, since of a few batches the first has other causes to be slow.
        """
        batch = workload(name).batch
        n_records = self._find("write", name, "memmap")["records"] // batch * batch
        n_orders = (row["records"] + batch - 1) // n_records
        an_order = max(0.0, row["first_s"] - row["seconds"] * batch / row["records"])
        return {**row, "seconds": row["seconds"] - min(n_orders * an_order, row["seconds"] / 2)}

    def _find(self, stage: str, name: str, contender: str) -> Row:
        key = (stage, name, contender)
        return next(row for row in self._rows if (row["stage"], row.get("workload"), row.get("contender")) == key)

    def checks(self, name: str, order: str) -> dict[str, Row]:
        """What came of an epoch of each contender."""
        return {row["contender"]: row for row in self._of("check", name, order)}

    def best(self, name: str, order: str, pick: Callable[[Figure], bool]) -> Figure | None:
        """Of those that gave what was written, shuffled if that was asked for, the one that is nearest to ours."""
        able = [
            each
            for each in self.hot(name, order)
            if pick(each) and each.exact and each.to_ours is not None and (order == "sequential" or each.by_record)
        ]
        return max(able, key=lambda each: each.to_ours or 0, default=None)

    def ours(self, name: str, order: str, contender: str = REFERENCE) -> Figure | None:
        """One of ours; the default if nothing else is said."""
        return next((each for each in self.hot(name, order) if each.contender == contender), None)

    def cold(self, name: str, order: str) -> list[Cold]:
        """The contenders with files on disk, the fastest first."""
        nbytes, batch = workload(name).record_nbytes, workload(name).batch
        found: list[Cold] = []
        for contender, mine in _by_contender(self._of("cold", name, order)).items():
            rates = [_gb(row, nbytes) for row in mine]
            disk = [row["disk_nbytes"] / row["disk_seconds"] / 1e9 for row in mine]
            found.append(
                Cold(
                    contender=contender,
                    n=len(rates),
                    gb=statistics.median(rates),
                    low=min(rates),
                    high=max(rates),
                    ratio=statistics.median(rate / beside for rate, beside in zip(rates, disk, strict=True)),
                    to_copied=_median([row for row in mine if "copied_seconds" in row], partial(_to_copied, nbytes)),
                    disk_gb=statistics.median(disk),
                    first_s=statistics.median(row.get("open_s", 0) + row["first_s"] for row in mine),
                    then_gb=_median([row for row in mine if row["records"] > batch], partial(_then, batch, nbytes)),
                    cpu_s=statistics.median(row["cpu_s"] / (row["cpu_records"] * nbytes / 1e9) for row in mine),
                )
            )
        return sorted(found, key=lambda each: -each.gb)

    def writing(self, name: str) -> list[Written]:
        """Who wrote how fast, the fastest first."""
        nbytes = workload(name).record_nbytes
        rows = _by_contender(row for row in self._rows if row["stage"] == "write" and row["workload"] == name)
        plain = {row["round"]: row["records"] * nbytes / row["seconds"] for row in rows.get("memmap", [])}
        most = max((row["records"] for mine in rows.values() for row in mine), default=0)
        found: list[Written] = []
        for files, mine in rows.items():
            rates = [row["records"] * nbytes / row["seconds"] for row in mine]
            ratios = [
                rate / plain[row["round"]] for rate, row in zip(rates, mine, strict=True) if row["round"] in plain
            ]
            found.append(
                Written(
                    files=files,
                    n=len(rates),
                    gb=statistics.median(rates) / 1e9,
                    ratio=statistics.median(ratios) if ratios else None,
                    size=statistics.median(row["disk_nbytes"] / (row["records"] * nbytes) for row in mine),
                    is_whole=all(row["records"] == most for row in mine),
                )
            )
        return sorted(found, key=lambda each: -each.gb)

    def disk_writes(self, name: str) -> float | None:
        """GB/s of the disk itself, past the page cache."""
        rows = [row for row in self._rows if row["stage"] == "write directly" and row["workload"] == name]
        return _median(rows, lambda row: row["nbytes"] / row["seconds"] / 1e9)

    def training(self, stage: str, name: str) -> list[Trained]:
        """The contenders, the fastest first.

        Args:
            stage: ``"train"``, PyTorch's loop, or ``"fit tensorflow"`` and ``"fit jax"``, Keras's.
            name: The workload.
        """
        rows = _by_contender(self._of(stage, name, "shuffled"))
        floors = [mine for contender, mine in rows.items() if contender.startswith(FLOOR[stage])]
        floor = {row["round"]: row["records"] / row["seconds"] for mine in floors for row in mine}
        found: list[Trained] = []
        for contender, mine in rows.items():
            rates = [row["records"] / row["seconds"] for row in mine]
            lost = [
                1 - rate / floor[row["round"]] for rate, row in zip(rates, mine, strict=True) if row["round"] in floor
            ]
            middle = statistics.median(lost) if lost else None
            found.append(
                Trained(contender, statistics.median(rates), middle, min(lost, default=None), max(lost, default=None))
            )
        return sorted(found, key=lambda each: -each.records)

    def failures(self) -> list[Row]:
        """What could not be measured, also when it was tried again."""
        done = {_what(row["stage"], row) for row in self._rows if row["stage"] != "failed"}
        return [row for row in self._rows if row["stage"] == "failed" and _what(row["at"], row) not in done]

    def commits(self, name: str) -> list[str]:
        """Of which versions of this repository a workload's figures are, the oldest first."""
        return list(dict.fromkeys(row.get("commit", "?") for row in self._rows if row.get("workload") == name))

    def machines(self) -> list[Row]:
        """What was measured on, day by day."""
        return [row for row in self._rows if row["stage"] == "machine"]

    def versions(self) -> dict[str, dict[str, str]]:
        """What was installed, by environment."""
        return {row["contender"]: row["versions"] for row in self._rows if row["stage"] == "environment"}

    def _of(self, stage: str, name: str, order: str) -> list[Row]:
        return [
            row for row in self._rows if (row["stage"], row.get("workload"), row.get("order")) == (stage, name, order)
        ]


def _what(stage: str, row: Row) -> tuple[Any, ...]:
    return stage, row.get("workload"), row.get("order"), row.get("contender")


def _by_contender(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["contender"], []).append(row)
    return found


def _gb(row: Row, nbytes: int) -> float:
    return row["records"] * nbytes / row["seconds"] / 1e9


def _to_copied(nbytes: int, row: Row) -> float:
    return _gb(row, nbytes) / (row["disk_nbytes"] / row["copied_seconds"] / 1e9)


def _then(batch: int, nbytes: int, row: Row) -> float:
    """GB/s behind the first batch."""
    return (row["records"] - batch) * nbytes / (row["seconds"] - row["first_s"]) / 1e9


def _of_rounds(rows: list[Row], nbytes: int) -> dict[tuple[str, int], float]:
    return {(row["group"], row["round"]): _gb(row, nbytes) for row in rows}


def _median_ratio(rows: list[Row], beside: dict[tuple[str, int], float], nbytes: int) -> float | None:
    """Of rates to those of somebody in the same rounds."""
    places = [(row["group"], row["round"]) for row in rows]
    ratios = [_gb(row, nbytes) / beside[place] for row, place in zip(rows, places, strict=True) if place in beside]
    return statistics.median(ratios) if ratios else None


def _median(rows: list[Row], figure: Callable[[Row], float]) -> float | None:
    return statistics.median(map(figure, rows)) if rows else None

"""From rows to figures: medians over the rounds, and ratios within each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .results import Results, Row
from .workloads import names, workload

OURS = "HyperSequence"
#: Ours that goes in every group of contenders, beside the limit.
REFERENCE = "HyperSequence, Loader into buffers"
#: Beside which contenders are shown.
LIMIT = {"sequential": "one copy", "shuffled": "np.take into aligned buffers"}

#: What stands for no waiting at all, for each kind of training: its name begins so.
FLOOR = {"train": "one batch over and over", "fit tensorflow": "arrays in memory", "fit jax": "arrays in memory"}


def system(contender: str) -> str:
    """Which system a contender is a way of using."""
    return contender.partition(",")[0]


@dataclass(frozen=True)
class Figure:
    """A contender's figures for a workload and an order."""

    contender: str
    check: Row
    gb: float
    low: float
    high: float
    to_limit: float | None
    to_ours: float | None
    records: float
    handed: float | None
    first_ms: float
    cpu_s: float
    pss: float | None
    anonymous: float | None

    @property
    def is_limit(self) -> bool:
        """Whether this is the machine, not a system."""
        return bool(self.check.get("is_limit"))

    @property
    def is_ours(self) -> bool:
        """Whether this is HyperSequence."""
        return system(self.contender) == OURS

    @property
    def is_by_hand(self) -> bool:
        """Whether somebody wrote a loop of their own over a system's files, instead of using its loader."""
        return "by hand" in self.contender

    @property
    def by_record(self) -> bool:
        """Whether what came was an order of records, as far as one epoch shows it."""
        return self.check["neighbours"] < 0.1 and self.check["reach"] > 0.5

    @property
    def exact(self) -> bool:
        """Whether values came as they were written."""
        return not self.check["wrong"]


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
        checks = {row["contender"]: row for row in self._of("check", name, order)}
        memory = _by_contender(self._of("memory", name, order))
        nbytes = workload(name).record_nbytes
        rows = self._of("hot", name, order)
        consumed = _by_contender(row for row in rows if row["mode"] == "consumed")
        handed = _by_contender(row for row in rows if row["mode"] == "handed")
        limit, ours = (_of_rounds(consumed.get(who, []), nbytes) for who in (LIMIT[order], REFERENCE))
        figures: list[Figure] = []
        for contender, mine in consumed.items():
            rates = [_gb(row, nbytes) for row in mine]
            seen = memory.get(contender, [])
            figures.append(
                Figure(
                    contender=contender,
                    check=checks[contender],
                    gb=statistics.median(rates),
                    low=min(rates),
                    high=max(rates),
                    to_limit=_median_ratio(mine, limit, nbytes),
                    to_ours=_median_ratio(mine, ours, nbytes),
                    records=statistics.median(rates) * 1e9 / nbytes,
                    handed=_median(handed.get(contender, []), lambda row: _gb(row, nbytes)),
                    first_ms=statistics.median(row["first_s"] for row in mine) * 1e3,
                    cpu_s=statistics.median(row["cpu_s"] / (row["cpu_records"] * nbytes / 1e9) for row in mine),
                    pss=_median(seen, lambda row: row["pss"] / 1e6),
                    anonymous=_median(seen, lambda row: row["anonymous"] / 1e6),
                )
            )
        return sorted(figures, key=lambda figure: -figure.gb)

    def best_peer(self, name: str, order: str, pick: Callable[[Figure], bool] = lambda figure: True) -> Figure | None:
        """The fastest system's loader that is neither ours nor the machine's nor somebody's own loop."""
        others = (each for each in self.hot(name, order) if not (each.is_limit or each.is_ours or each.is_by_hand))
        return next((each for each in others if pick(each)), None)

    def best_of_ours(self, name: str, order: str) -> Figure | None:
        """Ours at its fastest; shuffled, of those that shuffle records."""
        ours = (each for each in self.hot(name, order) if each.is_ours)
        return next((each for each in ours if order == "sequential" or each.by_record), None)

    def cold(self, name: str, order: str) -> list[tuple[str, float, float, float]]:
        """Contender, GB/s, ratio to the disk over the same files, ms to the first batch; the fastest first."""
        nbytes = workload(name).record_nbytes
        found: list[tuple[str, float, float, float]] = []
        for contender, mine in _by_contender(self._of("cold", name, order)).items():
            rates = [_gb(row, nbytes) for row in mine]
            disk = [row["disk_nbytes"] / row["disk_seconds"] / 1e9 for row in mine]
            ratio = statistics.median(rate / beside for rate, beside in zip(rates, disk, strict=True))
            first = statistics.median(row["first_s"] for row in mine) * 1e3
            found.append((contender, statistics.median(rates), ratio, first))
        return sorted(found, key=lambda each: -each[1])

    def writing(self, name: str) -> list[tuple[str, float, float | None, float, bool]]:
        """Files, GB/s, ratio to plain files within each round, bytes on disk a byte, and whether all was written."""
        nbytes = workload(name).record_nbytes
        rows = _by_contender(row for row in self._rows if row["stage"] == "write" and row["workload"] == name)
        plain = {row["round"]: row["records"] * nbytes / row["seconds"] for row in rows.get("memmap", [])}
        most = max((row["records"] for mine in rows.values() for row in mine), default=0)
        found: list[tuple[str, float, float | None, float, bool]] = []
        for files, mine in rows.items():
            rates = [row["records"] * nbytes / row["seconds"] for row in mine]
            ratios = [
                rate / plain[row["round"]] for rate, row in zip(rates, mine, strict=True) if row["round"] in plain
            ]
            size = statistics.median(row["disk_nbytes"] / (row["records"] * nbytes) for row in mine)
            done = all(row["records"] == most for row in mine)
            found.append(
                (files, statistics.median(rates) / 1e9, statistics.median(ratios) if ratios else None, size, done)
            )
        return sorted(found, key=lambda each: -each[1])

    def training(self, stage: str, name: str) -> list[tuple[str, float, float | None]]:
        """Contender, records/s, and the share of the time that is lost to data within each round; the fastest first.

        Args:
            stage: ``"train"``, PyTorch's loop, or ``"fit tensorflow"`` and ``"fit jax"``, Keras's.
            name: The workload.
        """
        rows = _by_contender(self._of(stage, name, "shuffled"))
        floors = [mine for contender, mine in rows.items() if contender.startswith(FLOOR[stage])]
        floor = {row["round"]: row["records"] / row["seconds"] for mine in floors for row in mine}
        found: list[tuple[str, float, float | None]] = []
        for contender, mine in rows.items():
            rates = [row["records"] / row["seconds"] for row in mine]
            lost = [
                1 - rate / floor[row["round"]] for rate, row in zip(rates, mine, strict=True) if row["round"] in floor
            ]
            found.append((contender, statistics.median(rates), statistics.median(lost) if lost else None))
        return sorted(found, key=lambda each: -each[1])

    def failures(self) -> list[Row]:
        """What could not be measured."""
        return [row for row in self._rows if row["stage"] == "failed"]

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


def _by_contender(rows: Iterable[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["contender"], []).append(row)
    return found


def _gb(row: Row, nbytes: int) -> float:
    return row["records"] * nbytes / row["seconds"] / 1e9


def _of_rounds(rows: list[Row], nbytes: int) -> dict[tuple[str, int], float]:
    return {(row["group"], row["round"]): _gb(row, nbytes) for row in rows}


def _median_ratio(rows: list[Row], beside: dict[tuple[str, int], float], nbytes: int) -> float | None:
    """Of rates to those of somebody in the same rounds."""
    places = [(row["group"], row["round"]) for row in rows]
    ratios = [_gb(row, nbytes) / beside[place] for row, place in zip(rows, places, strict=True) if place in beside]
    return statistics.median(ratios) if ratios else None


def _median(rows: list[Row], figure: Callable[[Row], float]) -> float | None:
    return statistics.median(map(figure, rows)) if rows else None

"""From rows to figures: medians over the rounds, and ratios within each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .results import Results, Row
from .workloads import workload

OURS = "HyperSequence"
#: Beside which contenders are shown.
LIMIT = {"sequential": "one copy", "shuffled": "np.take into aligned buffers"}


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
        """Those that were measured."""
        return list(dict.fromkeys(row["workload"] for row in self._rows if row["stage"] == "write"))

    def hot(self, name: str, order: str) -> list[Figure]:
        """The contenders, the fastest first."""
        checks = {row["contender"]: row for row in self._of("check", name, order)}
        memory = {row["contender"]: row for row in self._of("memory", name, order)}
        nbytes = workload(name).record_nbytes
        rows = self._of("hot", name, order)
        consumed = _by_contender(row for row in rows if row["mode"] == "consumed")
        handed = _by_contender(row for row in rows if row["mode"] == "handed")
        limit = {row["round"]: _gb(row, nbytes) for row in consumed.get(LIMIT[order], [])}
        figures: list[Figure] = []
        for contender, mine in consumed.items():
            rates = [_gb(row, nbytes) for row in mine]
            ratios = [_gb(row, nbytes) / limit[row["round"]] for row in mine if row["round"] in limit]
            seen = memory.get(contender, {})
            figures.append(
                Figure(
                    contender=contender,
                    check=checks[contender],
                    gb=statistics.median(rates),
                    low=min(rates),
                    high=max(rates),
                    to_limit=statistics.median(ratios) if ratios else None,
                    records=statistics.median(rates) * 1e9 / nbytes,
                    handed=_median(handed.get(contender, []), lambda row: _gb(row, nbytes)),
                    first_ms=statistics.median(row["first_s"] for row in mine) * 1e3,
                    cpu_s=statistics.median(row["cpu_s"] / (row["cpu_records"] * nbytes / 1e9) for row in mine),
                    pss=seen["pss"] / 1e6 if seen else None,
                    anonymous=seen["anonymous"] / 1e6 if seen else None,
                )
            )
        return sorted(figures, key=lambda figure: -figure.gb)

    def best_peer(self, name: str, order: str, pick: Callable[[Figure], bool] = lambda figure: True) -> Figure | None:
        """The fastest system that is neither ours nor the machine."""
        return next(
            (each for each in self.hot(name, order) if not each.is_limit and not each.is_ours and pick(each)), None
        )

    def cold(self, name: str, order: str) -> list[tuple[str, float, float | None, float]]:
        """Contender, GB/s, ratio to the disk within each round, milliseconds to the first batch; the fastest first."""
        nbytes = workload(name).record_nbytes
        rows = _by_contender(self._of("cold", name, order))
        disk = {row["round"]: row["nbytes"] / row["seconds"] / 1e9 for row in rows.pop("disk", [])}
        found: list[tuple[str, float, float | None, float]] = []
        for contender, mine in rows.items():
            rates = [row["records"] * nbytes / row["seconds"] / 1e9 for row in mine]
            ratios = [rate / disk[row["round"]] for rate, row in zip(rates, mine, strict=True) if row["round"] in disk]
            first = statistics.median(row["first_s"] for row in mine) * 1e3
            found.append((contender, statistics.median(rates), statistics.median(ratios) if ratios else None, first))
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
            stage: ``"train"``, PyTorch's loop, or ``"fit"``, Keras's.
            name: The workload.
        """
        rows = _by_contender(self._of(stage, name, "shuffled"))
        floors = [mine for contender, mine in rows.items() if contender.startswith("one batch over and over")]
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

    def machine(self) -> Row:
        """What was measured on."""
        return next(row for row in self._rows if row["stage"] == "machine")

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


def _median(rows: list[Row], figure: Callable[[Row], float]) -> float | None:
    return statistics.median(map(figure, rows)) if rows else None

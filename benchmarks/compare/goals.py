"""What this project means to reach, and whether it did: every goal for every workload, whichever way it came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .figures import COPY, DEFAULT, OURS, REFERENCE, Cold, Figure, Figures, by_record, system
from .systems import limits
from .workloads import workload

_WHOLE = ("HyperSequence, plain sequence, whole batches", "HyperSequence, Loader, whole batches")
_FIT = "HyperSequence, as_keras in fit"
_OLD = "HyperSequence 0.10.0"  # slices a mapping and does nothing else: what can be had in Python


@dataclass(frozen=True)
class Outcome:
    """What came of a goal for a workload.

    Args:
        value: The figure; ``None`` if it was not measured.
        reached: Whether it is what was wanted.
        against: With whom it was compared, if that is not always the same.
    """

    value: float | None
    reached: bool
    against: str = ""


@dataclass(frozen=True)
class Goal:
    """A goal.

    Args:
        title: What is compared, and what is wanted of it.
        outcome: For a workload.
    """

    title: str
    outcome: Callable[[Figures, str], Outcome]


def _at_least(value: float | None, wanted: float, against: str = "") -> Outcome:
    return Outcome(value, value is not None and value >= wanted, against)


def _of_limit(figures: Figures, name: str) -> Outcome:
    ours = figures.ours(name, "shuffled")
    return _at_least(ours and ours.to_limit, 0.85)


def _times(figures: Figures, name: str, wanted: float, pick: Callable[[Figure], bool]) -> Outcome:
    best = figures.best(name, "shuffled", pick)
    return _at_least(1 / best.to_ours if best and best.to_ours else None, wanted, best.contender if best else "")


def _default_times(figures: Figures, name: str) -> Outcome:
    """As it comes, a copy is owed, which those do not owe who fill buffers."""
    mine = figures.ours(name, "shuffled", DEFAULT)
    best = figures.best(name, "shuffled", lambda each: each.is_loader)
    if mine is None or mine.to_ours is None or best is None or best.to_ours is None:
        return Outcome(None, False)
    return _at_least(mine.to_ours / best.to_ours, 1, best.contender)


def _whole_batches(figures: Figures, name: str) -> Outcome:
    found = (figures.ours(name, "shuffled", contender) for contender in _WHOLE)
    best = max((each.to_copy for each in found if each and each.to_copy), default=None)
    old = figures.ours(name, "shuffled", _OLD)
    return _at_least(best, 0.95, f"{_OLD}: {old.to_copy:.2f}" if old and old.to_copy else "")


def _of_disk(figures: Figures, name: str) -> Outcome:
    ours = _from_disk(figures, name)
    check = figures.checks(name, "shuffled").get(REFERENCE, {})
    return _at_least(ours and ours.ratio, 0.9, "in windows" if check and not by_record(check) else "")


def _ahead_from_disk(figures: Figures, name: str) -> Outcome:
    ours, machine = _from_disk(figures, name), limits()
    cold = [each for each in figures.cold(name, "shuffled") if each.n > 1 and each.contender not in machine]
    others = [each for each in cold if not _is_ours(each)]
    if ours is None or not others:
        return Outcome(None, False)
    best = max(others, key=lambda each: each.ratio)
    return _at_least(ours.ratio / best.ratio, 1, best.contender)


def _from_disk(figures: Figures, name: str) -> Cold | None:
    return next((each for each in figures.cold(name, "shuffled") if each.contender == REFERENCE), None)


def _is_ours(each: Cold) -> bool:
    return system(each.contender) == OURS


def _least(figures: Figures, name: str, figure: Callable[[Figure], float | None]) -> Outcome:
    """How many times what we need the most frugal of the others needs, of those that shuffle records."""
    ours = figures.ours(name, "shuffled")
    mine = figure(ours) if ours else None
    others = [
        (value, each.contender)
        for each in figures.hot(name, "shuffled")
        if not (each.is_ours or each.is_limit) and each.by_record and (value := figure(each)) is not None
    ]
    if not mine or not others:
        return Outcome(None, False)
    least, who = min(others)
    return _at_least(least / mine, 1, who)


def _writes_ahead(figures: Figures, name: str) -> Outcome:
    written = {each.files: each for each in figures.writing(name)}
    others = [each for files, each in written.items() if files not in ("hypersequence", "memmap")]
    if "hypersequence" not in written or not others:
        return Outcome(None, False)
    best = max(others, key=lambda each: each.ratio or 0)
    mine = written["hypersequence"].ratio
    value = mine / best.ratio if mine and best.ratio else None
    return Outcome(value, workload(name).record_nbytes < 1 << 10 or (value or 0) >= 1, best.files)


def _of_plain_files(figures: Figures, name: str) -> Outcome:
    mine = next((each.ratio for each in figures.writing(name) if each.files == "hypersequence"), None)
    return _at_least(mine, 0.85)


def _fit(figures: Figures, name: str, stage: str) -> Outcome:
    lost = next((each.lost for each in figures.training(stage, name) if each.contender.startswith(_FIT)), None)
    return _at_least(None if lost is None else 1 - lost, 0.97)


GOALS = [
    Goal("shuffled from memory, of the limit: 0.85", _of_limit),
    Goal("... times the best loader of others: 2", lambda f, n: _times(f, n, 2, lambda each: each.is_loader)),
    Goal("... in memory of the consumer's own, times the best loader of others: 1", _default_times),
    Goal("... times the best loop by hand: 1", lambda f, n: _times(f, n, 1, lambda each: each.is_loop)),
    Goal(f"whole batches shuffled, of {COPY}: 0.95", _whole_batches),
    Goal("processor time of the most frugal other, of ours: 1", lambda f, n: _least(f, n, lambda each: each.cpu_s)),
    Goal("memory of the most frugal other, of ours: 1", lambda f, n: _least(f, n, lambda each: each.pss)),
    Goal(
        "anonymous memory of the most frugal other, of ours: 1", lambda f, n: _least(f, n, lambda each: each.anonymous)
    ),
    Goal("shuffled from disk, of the disk: 0.9", _of_disk),
    Goal("... times the best of others: 1", _ahead_from_disk),
    Goal("writing, of plain files: 0.85", _of_plain_files),
    Goal("... times the best of others, records of 1 KiB and more: 1", _writes_ahead),
    Goal("Keras on TensorFlow, of arrays in memory: 0.97", lambda f, n: _fit(f, n, "fit tensorflow")),
    Goal("Keras on JAX, of arrays in memory: 0.97", lambda f, n: _fit(f, n, "fit jax")),
]

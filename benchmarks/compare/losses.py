"""Who is ahead of us: whoever is faster anywhere, whatever it promises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .figures import OURS, REFERENCE, TRAINING, Cold, Figures, short, system
from .systems import limits
from .workloads import workload


def losses(figures: Figures) -> str:
    """Whoever is faster than our loader into buffers: in the same rounds, from disk beside the disk right before."""
    found = [f"- {workload(name).title}, {what}" for name in figures.workloads() for what in _of(figures, name)]
    return "\n".join(found) or "Nowhere in this run."


def _of(figures: Figures, name: str) -> Iterator[str]:
    for order in ("shuffled", "sequential"):
        yield from (f"{order}, from memory: {what}" for what in _from_memory(figures, name, order))
        yield from (f"{order}, from disk: {what}" for what in _from_disk(figures, name, order))
    yield from (f"writing: {what}" for what in _writing(figures, name))
    for stage, training in TRAINING.items():
        yield from (f"{training}: {what}" for what in _training(figures, stage, name))


def _from_memory(figures: Figures, name: str, order: str) -> Iterator[str]:
    hot = [each for each in figures.hot(name, order) if not each.is_limit and each.to_ours is not None]
    for each in hot:
        if not each.is_ours and (each.to_ours or 0) > 1:
            loose = order == "shuffled" and not each.by_record
            alike = [mine for mine in hot if order == "sequential" or (loose and not mine.by_record)]
            others = _best(((mine.contender, mine.to_ours or 0) for mine in alike), 1)
            how = ", which shuffles no records" if loose else ""
            yield f"{each.contender}{how}, {short(each.to_ours)} times ours{others}."


def _from_disk(figures: Figures, name: str, order: str) -> Iterator[str]:
    """By either rate of the disk; with one round it may have been luck."""
    machine = limits()
    cold = [each for each in figures.cold(name, order) if each.contender not in machine and each.n > 1]
    mine = next((each for each in cold if each.contender == REFERENCE), None)
    for each in cold:
        if mine and system(each.contender) != OURS and _is_ahead(each, mine):
            alike = cold if order == "sequential" else []
            others = _best(((other.contender, other.ratio) for other in alike), mine.ratio)
            yield f"{each.contender}, {_of_disk(each)}; ours {_of_disk(mine)}{others}."


def _is_ahead(other: Cold, mine: Cold) -> bool:
    return other.ratio > mine.ratio or (other.to_copied or 0) > (mine.to_copied or 0)


def _of_disk(each: Cold) -> str:
    copied = "" if each.to_copied is None else f" ({short(each.to_copied)} with one copy)"
    return f"{short(each.ratio)} of the disk{copied}"


def _writing(figures: Figures, name: str) -> Iterator[str]:
    written = figures.writing(name)
    mine = next((each.ratio for each in written if each.files == "hypersequence"), None)
    for each in written:
        if mine is not None and each.ratio is not None and each.ratio > mine:
            yield f"{each.files}, {each.ratio / mine:.2f} times ours."


def _training(figures: Figures, stage: str, name: str) -> Iterator[str]:
    """Beside ours that shuffle records."""
    machine = limits()
    trained = [each for each in figures.training(stage, name) if each.lost is not None]
    ours = [each for each in trained if system(each.contender) == OURS and "whole batches" not in each.contender]
    least = min((each.lost for each in ours if each.lost is not None), default=None)
    for each in trained:
        is_other = system(each.contender) != OURS and each.contender not in machine
        if is_other and least is not None and each.lost is not None and each.lost < least:
            yield f"{each.contender}, {each.lost:.0%} of the time lost; ours {least:.0%}."


def _best(rates: Iterable[tuple[str, float]], least: float) -> str:
    """Another way of ours that is quicker, if there is one."""
    rate, who = max(((rate, who) for who, rate in rates if system(who) == OURS), default=(0.0, ""))
    return f"; our {who.removeprefix(f'{OURS}, ')} {short(rate)}" if rate > least else ""

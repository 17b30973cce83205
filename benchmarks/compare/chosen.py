"""Who is measured, and who more than once, by what is known of them."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Mapping

from .figures import COPY, DEFAULT, LIMIT, REFERENCE, Figures, system
from .results import Row

#: Ours that have all rounds from disk.
_FROM_DISK = (REFERENCE, DEFAULT, f"{REFERENCE}, by record", f"{DEFAULT}, whole batches")


def quickest_ways(figures: Figures) -> list[str]:
    """Of each system the loader and the loop that came nearest to ours, on average; and the limits.

    A way that shuffles records goes before those that do not.
    """
    sums: dict[tuple[str, bool], dict[str, list[tuple[bool, float]]]] = {}
    kept: dict[str, None] = {COPY: None, LIMIT["shuffled"]: None, REFERENCE: None}
    for name in figures.workloads():
        for each in figures.hot(name, "shuffled"):
            if not each.is_limit and not each.is_ours and each.to_ours is not None:
                ways = sums.setdefault((system(each.contender), each.is_loop), {})
                ways.setdefault(each.contender, []).append((each.by_record, each.to_ours))
    for ways in sums.values():
        kept[max(ways, key=lambda way: tuple(map(statistics.mean, zip(*ways[way], strict=True))))] = None
    return list(kept)


def worth_more_rounds(rows: Mapping[str, Row], limits: Collection[str], of_records: Collection[str] = ()) -> set[str]:
    """Of first rounds from disk: the limits, and of each system the quickest if it comes to a quarter of the quickest.

    More rounds of others would say no more. Beside the disk's rate right before, as that changes; and no limit is the
    quickest, as they need not shuffle. Of ours the default, into buffers too, by record and whole batches. The same
    once more among ``of_records``, who shuffle all records: with less memory than data that is slower than
    any other order.
    """
    rates = {
        name: row["records"] / row["seconds"] / (row["disk_nbytes"] / row["disk_seconds"]) for name, row in rows.items()
    }
    systems = {name: rate for name, rate in rates.items() if name not in limits}
    shuffling = {name: rate for name, rate in systems.items() if name in of_records}
    return (rates.keys() & set(limits)) | _quickest(systems) | _quickest(shuffling)


def _quickest(rates: Mapping[str, float]) -> set[str]:
    """Of each system the quickest, and ours that have all rounds, if they come to a quarter of the quickest of all."""
    least = max(rates.values(), default=0) / 4
    best: dict[str, str] = {}
    for who in sorted(rates, key=lambda who: -rates[who]):
        if rates[who] >= least:
            best.setdefault(who if who in _FROM_DISK else system(who), who)
    return set(best.values())

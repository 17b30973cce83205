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


def worth_more_rounds(rows: Mapping[str, Row], limits: Collection[str]) -> set[str]:
    """Of first rounds from disk: the limits, and of each system the quickest if it comes to a quarter of the quickest.

    More rounds of others would say no more. Beside the disk's rate right before, as that changes; and no limit is the
    quickest, as they need not shuffle. Of ours the default, into buffers too, by record and whole batches.
    """
    rates = {
        name: row["records"] / row["seconds"] / (row["disk_nbytes"] / row["disk_seconds"]) for name, row in rows.items()
    }
    least = max((rates[name] for name in rates.keys() - limits), default=0) / 4
    best: dict[str, str] = {}
    for who in sorted(rates, key=lambda who: -rates[who]):
        if who in limits or rates[who] >= least:
            best.setdefault(who if who in limits or who in _FROM_DISK else system(who), who)
    return set(best.values())

"""What a full shuffle would give, in closed form."""

from __future__ import annotations

from math import exp, lgamma, log
from typing import Any

import numpy as np

from ..order.base import Positions

#: From here on, drawing without replacement is as good as with it, and logarithms of factorials lose digits.
_MANY = 10**9


def expected_distinct(kinds: Any, n_drawn: int) -> float:
    """How many different kinds are expected among records drawn without replacement.

    Args:
        kinds: The kind of every record, or of a random sample of them.
        n_drawn: How many are drawn, at most as many as there are kinds given.

    Returns:
        The sum over kinds of ``1 - C(m - c, d) / C(m, d)``, where ``c`` of ``m`` records are of a kind and ``d`` are
        drawn. Of a random sample this is an unbiased estimate of what all records would give (Hurlbert 1971).
    """
    m = len(kinds)
    sizes, how_many = np.unique(np.unique(kinds, return_counts=True)[1], return_counts=True)
    logs = np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, m + 1)))))  # of factorials
    rest = m - sizes
    possible = rest >= n_drawn  # to draw none of this kind
    rest = rest[possible]
    none = np.zeros(len(sizes))
    none[possible] = np.exp(logs[rest] - logs[rest - n_drawn] - logs[m] + logs[m - n_drawn])
    return float((how_many * (1 - none)).sum())


def expected_distance(shares: Any, n: int, n_drawn: int) -> float:
    """The expected total variation distance between the shares of kinds in a draw and in everything.

    Args:
        shares: The share of each kind; they sum up to 1.
        n: How many records there are.
        n_drawn: How many are drawn without replacement.
    """
    n_drawn = min(n_drawn, n)
    return sum(_mean_deviation(float(share), n, n_drawn) for share in shares) / (2 * n_drawn) if n_drawn else 0.0


def _mean_deviation(share: float, n: int, drawn: int) -> float:
    """The mean absolute deviation of a hypergeometric count: ``2 k (n - K - d + k) / n * P(k)``.

    ``K`` of ``n`` records are of the kind, ``d`` are drawn, and ``k`` is the first whole number above the mean
    (De Moivre's formula for the binomial; Diaconis and Zabell 1991).
    """
    kind = round(share * n)
    k = drawn * kind // n + 1
    if k > min(drawn, kind):
        return 0.0
    if n >= _MANY:
        p = kind / n
        return 2 * k * (1 - p) * exp(_log_choose(drawn, k) + k * log(p) + (drawn - k) * log(1 - p)) if p < 1 else 0.0
    if drawn - k > n - kind:
        return 0.0
    chance = exp(_log_choose(kind, k) + _log_choose(n - kind, drawn - k) - _log_choose(n, drawn))
    return 2 * k * (n - kind - drawn + k) / n * chance


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)


def expected_neighbours(places: Positions, reach: int) -> float:
    """How likely it is that two records drawn without replacement are at most ``reach`` apart."""
    m = len(places)
    if m < 2:
        return 0.0
    rising = np.sort(places)
    pairs = np.searchsorted(rising, rising + reach, side="right") - np.arange(m) - 1
    return float(pairs.sum()) / (m * (m - 1) / 2)


def rank_correlation(a: Any, b: Any) -> float:
    """Spearman's rank correlation; equal values share the mean of their ranks. 0 where either does not vary."""
    ranks = [_ranks(values) for values in (a, b)]
    deviations = [rank - rank.mean() for rank in ranks if len(rank)]
    scale = float(np.sqrt(np.prod([(deviation**2).sum() for deviation in deviations])))
    return float((deviations[0] * deviations[1]).sum()) / scale if deviations and scale else 0.0


def _ranks(values: Any) -> Any:
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[places]

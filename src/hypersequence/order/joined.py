"""Orders over several: one after the other, or mixed in exact proportions."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate
from math import gcd, lcm
from typing import Any

import numpy as np

from ..errors import ArgumentError
from .base import Order, Positions, Span, Stretch, as_span, distinct, merged
from .permute import PURPOSE_MIX, key_words, sort_keys

#: A pattern is made for a whole period, however few of its positions are asked for.
MAX_PERIOD = 4096
#: Places of patterns that are made at once.
_COMMON_PLACES = 1 << 18


@dataclass(frozen=True, slots=True)
class Part:
    """An order whose numbers count from ``first`` on among those of all parts."""

    order: Order
    first: int


def parts_of(orders: Sequence[Order], sizes: Sequence[int]) -> tuple[Part, ...]:
    """Orders over sources of these sizes that stand in a row."""
    return tuple(Part(order, first) for order, first in zip(orders, accumulate(sizes, initial=0), strict=False))


class Concatenated:
    """The parts, one after the other."""

    __slots__ = ("_starts", "n", "parts")

    def __init__(self, parts: tuple[Part, ...]) -> None:
        self.parts = parts
        self._starts = list(accumulate((part.order.n for part in parts), initial=0))
        self.n = self._starts.pop()

    def at(self, positions: Positions) -> Positions:
        """Part by part."""
        numbers = np.empty_like(positions)
        owners = np.searchsorted(self._starts, positions, side="right") - 1
        for owner in distinct(owners):
            part, mine = self.parts[owner], owners == owner
            numbers[mine] = part.order.at(positions[mine] - self._starts[owner]) + part.first
        return numbers

    def span(self, start: int, stop: int) -> Span:
        """A range where it lies in one part and that part gives one."""
        owner, first = self._find(start)
        part = self.parts[owner] if self.parts else None
        if part is None or stop <= start:
            return range(0)
        if stop - first <= part.order.n:
            found = part.order.span(start - first, stop - first)
            if isinstance(found, range):
                return range(found.start + part.first, found.stop + part.first)
            return found + part.first
        return as_span(self.at(np.arange(start, stop)))

    def at_epoch(self, epoch: int) -> Order:
        """Every part in another epoch."""
        return Concatenated(tuple(Part(part.order.at_epoch(epoch), part.first) for part in self.parts))

    def stretch(self, start: int, stop: int) -> Stretch:
        """As the part says, and no further than its end."""
        owner, first = self._find(start)
        part = self.parts[owner]
        found = part.order.stretch(start - first, min(stop - first, part.order.n))
        return Stretch(found.end + first, found.runs + part.first)

    def _find(self, position: int) -> tuple[int, int]:
        owner = max(0, bisect_right(self._starts, position) - 1)  # the last of several that begin here: not empty
        return owner, self._starts[owner] if self._starts else 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Concatenated) and self.parts == other.parts

    def __hash__(self) -> int:
        return hash(self.parts)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Parts mixed by weight: each period of ``sum(weights)`` positions has exactly ``weights[k]`` of part ``k``.

    Args of the constructor:
        parts: What to mix; each an order in epoch 0 of the mix, none of them empty.
        weights: Positive whole numbers, one a part.
        n: Positions an epoch.
        seed: 0 to 2**64-1.
        epoch: Of the mix.

    Raises:
        ArgumentError: The epoch reaches position 2**63 of the endless list.

    The mix is one endless list, and epoch ``e`` is ``n`` of it from ``e * n`` on. Each part goes on where it stopped,
    over and over, with an epoch of its own that advances when the part has been through.
    """

    parts: tuple[Part, ...]
    weights: tuple[int, ...]
    n: int
    seed: int
    epoch: int = 0

    def __post_init__(self) -> None:
        if (self.epoch + 1) * self.n >= 1 << 63:
            raise ArgumentError(
                f"epoch {self.epoch} of a mix of {self.n} records reaches position 2**63; "
                "take a lower epoch or a shorter mix"
            )

    def at(self, positions: Positions) -> Positions:
        """Part by part, and epoch by epoch of each part."""
        flat = positions.reshape(-1) + self.epoch * self.n
        owners, turns = self._turns(flat)
        numbers: Positions = np.empty_like(flat)
        for owner in distinct(owners):
            part = self.parts[owner]
            mine = np.flatnonzero(owners == owner)
            epochs: Positions = turns[mine] // part.order.n
            places: Positions = turns[mine] - epochs * part.order.n
            for epoch in distinct(epochs):
                now = epochs == epoch
                numbers[mine[now]] = part.order.at_epoch(epoch).at(places[now]) + part.first
        return numbers.reshape(positions.shape)

    def span(self, start: int, stop: int) -> Span:
        """A range where it happens to be one."""
        return as_span(self.at(np.arange(start, stop)))

    def at_epoch(self, epoch: int) -> Order:
        """Further on in the endless list."""
        return Mixed(self.parts, self.weights, self.n, self.seed, epoch)

    def stretch(self, start: int, stop: int) -> Stretch:
        """What each part needs for these positions."""
        begin, period = self.epoch * self.n, sum(self.weights)
        found: list[Positions] = []
        for part, weight in zip(self.parts, self.weights, strict=True):
            first = (begin + start) // period * weight
            last = -(-(begin + stop) // period) * weight
            while first < last:
                epoch, place = divmod(first, part.order.n)
                end, runs = part.order.at_epoch(epoch).stretch(place, min(part.order.n, place + last - first))
                found.append(runs + part.first)
                first += end - place
        return Stretch(stop, merged(np.concatenate(found)))

    def _turns(self, flat: Positions) -> tuple[Positions, Positions]:
        """Which part each position of the endless list belongs to, and how many of that part came before."""
        period = sum(self.weights)
        rows: Positions
        periods: Positions = flat // period
        places: Positions = flat - periods * period
        if len(flat) and flat[-1] - flat[0] == len(flat) - 1 and (np.diff(flat) == 1).all():
            rows = periods - periods[0]
            needed = np.arange(int(periods[0]), int(periods[-1]) + 1)
        else:
            needed, rows = np.unique(periods, return_inverse=True)
        at_once = max(1, _COMMON_PLACES // period)
        if len(needed) > at_once:  # so that positions far apart do not need memory for everything around them
            mine, turns = np.empty_like(flat), np.empty_like(flat)
            for first in range(0, len(needed), at_once):
                these = np.flatnonzero((rows >= first) & (rows < first + at_once))
                mine[these], turns[these] = self._turns(flat[these])
            return mine, turns
        owners, ranks = _pattern(self.seed, self.weights, needed)
        mine = owners[rows, places]
        return mine, periods * np.asarray(self.weights)[mine] + ranks[rows, places]


def _pattern(seed: int, weights: tuple[int, ...], periods: Positions) -> tuple[Positions, Positions]:
    """For each period and place in it: the part, and how many of that part came before within the period."""
    period = sum(weights)
    counters = (periods[:, None] * period + np.arange(period)).astype(np.uint64)
    # Place argsort()[j] gets slot j; the first weights[0] slots are part 0's, and so on.
    places = np.argsort(sort_keys(_mix_start(seed, period), counters), axis=1, kind="stable")
    owners = np.empty_like(places)
    np.put_along_axis(owners, places, np.repeat(np.arange(len(weights)), weights)[None, :], axis=1)
    ranks = np.empty_like(places)
    for part in range(len(weights)):
        mine = owners == part
        ranks[mine] = (np.cumsum(mine, axis=1) - 1)[mine]
    return owners, ranks


@lru_cache(maxsize=16)
def _mix_start(seed: int, period: int) -> int:
    return key_words(seed, 0, period, PURPOSE_MIX, 1)[0]


def whole_weights(weights: Sequence[Any]) -> tuple[int, ...] | None:
    """The smallest whole numbers in the proportion of these, read as decimals; ``None`` if there are none that do."""
    try:
        exact = [Fraction(str(weight)) for weight in weights]
    except ValueError:
        return None
    if any(weight <= 0 for weight in exact):
        return None
    scale = lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    whole = [weight // gcd(*whole) for weight in whole]
    return tuple(whole) if sum(whole) <= MAX_PERIOD else None

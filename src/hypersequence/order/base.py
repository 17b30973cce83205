"""The building blocks of orders, each in closed form: none needs memory for the records it orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

import numpy as np

Positions: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Span: TypeAlias = "range | Positions"


class Order(Protocol):
    """A map from positions ``0 .. n-1`` to numbers."""

    @property
    def n(self) -> int:
        """How many positions there are."""
        ...

    def at(self, positions: Positions) -> Positions:
        """The numbers at any positions, as an int64 array of the same shape."""
        ...

    def span(self, start: int, stop: int) -> Span:
        """The numbers at consecutive positions: a range of step 1 where they are consecutive, else an int64 array."""
        ...

    def at_epoch(self, epoch: int) -> Order:
        """The same order in another epoch."""
        ...

    def stretch(self, start: int, stop: int) -> Stretch:
        """Where the numbers at positions ``start .. stop-1`` lie, for somebody who reads ahead."""
        ...


class Stretch(NamedTuple):
    """Positions up to ``end`` have all their numbers in ``runs``.

    ``end`` passes the ``stop`` that was asked for where a window reaches further, and stays below it where a window
    ends. ``runs`` is an int64 array of rows ``[first, last + 1]``, rising and apart.
    """

    end: int
    runs: Positions


def run_of(start: int, stop: int) -> Positions:
    """One run as an array of runs."""
    return np.array([[start, stop]], np.int64)


def merged(runs: Positions) -> Positions:
    """The same runs in rising order, those that touch or overlap made one."""
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    if len(runs) < 2:
        return runs
    ends = np.maximum.accumulate(runs[:, 1])
    first = np.flatnonzero(np.concatenate(([True], runs[1:, 0] > ends[:-1])))
    return np.stack((runs[first, 0], ends[np.append(first[1:] - 1, len(runs) - 1)]), axis=1)


def without(runs: Positions, others: Positions) -> Positions:
    """What of some runs is in none of the others. These may overlap; runs are rising and apart, before and after."""
    if not len(runs) or not len(others):
        return runs
    others = merged(others)
    edges = np.unique(np.concatenate((runs, others)))
    inside = _covers(runs, edges[:-1]) & ~_covers(others, edges[:-1])
    return merged(np.stack((edges[:-1][inside], edges[1:][inside]), axis=1))


def _covers(runs: Positions, numbers: Positions) -> np.ndarray[Any, np.dtype[np.bool]]:
    """Which numbers are in one of the runs."""
    owner = np.searchsorted(runs[:, 0], numbers, "right") - 1
    return (owner >= 0) & (numbers < runs[owner, 1])


def distinct(numbers: Positions) -> list[int]:
    """The numbers that occur, once each, rising."""
    return cast("list[int]", np.unique(numbers).tolist())


def as_span(numbers: Positions) -> Span:
    """A range instead of an array that counts up by one."""
    n = len(numbers)
    if n and numbers[-1] - numbers[0] == n - 1 and (n < 3 or bool((np.diff(numbers) == 1).all())):
        return range(int(numbers[0]), int(numbers[0]) + n)
    return numbers


def _counts_up(order: Order, start: int, stop: int) -> bool:
    """Whether the numbers at these positions are known to be consecutive; a few of them nearly always tell."""
    few = order.span(start, min(start + 16, stop))
    return isinstance(few, range) and isinstance(order.span(start, stop), range)


class _Steady:
    """An order that is the same in every epoch."""

    def at_epoch(self, epoch: int) -> Any:
        return self


@dataclass(frozen=True, slots=True)
class Natural(_Steady):
    """0, 1, 2 ..."""

    n: int

    def at(self, positions: Positions) -> Positions:
        """Positions themselves."""
        return positions

    def span(self, start: int, stop: int) -> Span:
        """Always a range."""
        return range(start, stop)

    def stretch(self, start: int, stop: int) -> Stretch:
        """One run."""
        return Stretch(stop, run_of(start, stop))


@dataclass(frozen=True, slots=True)
class Sliced(_Steady):
    """``n`` numbers from ``start`` on, ``step`` apart."""

    n: int
    start: int
    step: int = 1

    def at(self, positions: Positions) -> Positions:
        """``start + step * position``."""
        return positions * self.step + self.start

    def span(self, start: int, stop: int) -> Span:
        """A range where the step is 1."""
        if self.step == 1 or stop - start == 1:
            first = self.start + self.step * start
            return range(first, first + stop - start)
        return self.at(np.arange(start, stop))

    def stretch(self, start: int, stop: int) -> Stretch:
        """One run, with whatever lies between the numbers."""
        first, last = self.start + self.step * start, self.start + self.step * (stop - 1)
        return Stretch(stop, run_of(min(first, last), max(first, last) + 1))


class Chosen(_Steady):
    """Numbers that somebody listed."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: Positions) -> None:
        self.numbers = numbers

    @property
    def n(self) -> int:
        """How many were listed."""
        return len(self.numbers)

    def at(self, positions: Positions) -> Positions:
        """A look into the list."""
        return self.numbers[positions]

    def span(self, start: int, stop: int) -> Span:
        """A range where the list counts up."""
        return as_span(self.numbers[start:stop])

    def stretch(self, start: int, stop: int) -> Stretch:
        """Runs of those that were listed."""
        numbers = self.numbers[start:stop]
        return Stretch(stop, merged(np.stack((numbers, numbers + 1), axis=1)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chosen) and np.array_equal(self.numbers, other.numbers)

    def __hash__(self) -> int:
        return hash(self.numbers.tobytes())


def _ratio(positions: Positions, numerator: int, denominator: int) -> Positions:
    """``positions * numerator // denominator`` without overflow, for numbers below 2**53.

    The product may pass 64 bits. A float estimate of the quotient is off by little, and the remainder that shows by
    how much is small, so arithmetic that wraps around at 64 bits gives it exactly.
    """
    estimate = (positions.astype(np.float64) * (numerator / denominator)).astype(np.int64)
    for _ in range(2):
        with np.errstate(over="ignore"):
            remainder = positions * np.int64(numerator) - estimate * np.int64(denominator)
        estimate = estimate + remainder // denominator
    return estimate


@dataclass(frozen=True, slots=True)
class Evenly(_Steady):
    """``picked`` of ``total`` numbers, spread evenly; or, with ``rest``, the ones that are left.

    Number ``i`` is picked if ``(i + 1) * picked // total > i * picked // total``. The last one always is.
    """

    picked: int
    total: int
    rest: bool = False

    @property
    def n(self) -> int:
        """How many there are."""
        return self.total - self.picked if self.rest else self.picked

    def at(self, positions: Positions) -> Positions:
        """In closed form from the rule above."""
        if self.rest:
            return _ratio(positions, self.total, self.n)
        return -_ratio(-(positions + 1), self.total, self.n) - 1

    def span(self, start: int, stop: int) -> Span:
        """A range where the numbers are neighbours."""
        if stop <= start:
            return range(0)
        # They always rise, so the two ends tell whether there is a gap.
        first, last = self._one(start), self._one(stop - 1)
        return range(first, last + 1) if last - first == stop - 1 - start else self.at(np.arange(start, stop))

    def stretch(self, start: int, stop: int) -> Stretch:
        """One run, with those between that were not picked."""
        return Stretch(stop, run_of(self._one(start), self._one(stop - 1) + 1))

    def _one(self, position: int) -> int:
        if self.rest:
            return position * self.total // self.n
        return -(-(position + 1) * self.total // self.n) - 1


@dataclass(frozen=True, slots=True)
class InChunks:
    """An order of chunks of ``size`` numbers, each chunk in its own natural order.

    ``total`` numbers make the chunks; the last chunk may be short, and whoever made ``chunks`` puts it last.
    """

    chunks: Order
    size: int
    total: int

    @property
    def n(self) -> int:
        """How many numbers the chunks hold."""
        n_chunks = self.chunks.n
        short = -self.total % self.size
        if n_chunks and short:
            last = self.chunks.span(n_chunks - 1, n_chunks)[0]
            if (int(last) + 1) * self.size > self.total:
                return n_chunks * self.size - short
        return n_chunks * self.size

    def at(self, positions: Positions) -> Positions:
        """The chunk's number, then the place in it."""
        chunk, place = np.divmod(positions, self.size)
        return self.chunks.at(chunk) * self.size + place

    def span(self, start: int, stop: int) -> Span:
        """A range inside one chunk, or over chunks that follow each other."""
        size = self.size
        first, place = divmod(start, size)
        last = (stop - 1) // size if stop > start else first
        chunks = self.chunks.span(first, last + 1)
        if isinstance(chunks, range):
            begin = chunks.start * size + place
            return range(begin, begin + stop - start)
        begins = np.asarray(chunks) * size
        numbers = (begins[:, None] + np.arange(size)).reshape(-1)
        return numbers[place : place + stop - start]

    def at_epoch(self, epoch: int) -> Order:
        """The chunks' order in another epoch."""
        return InChunks(self.chunks.at_epoch(epoch), self.size, self.total)

    def stretch(self, start: int, stop: int) -> Stretch:
        """Exactly the chunks, in whatever order they come."""
        size = self.size
        chunks = np.asarray(self.chunks.span(start // size, (stop - 1) // size + 1)) * size
        runs = merged(np.stack((chunks, chunks + size), axis=1))
        return Stretch(stop, np.minimum(runs, self.total))


@dataclass(frozen=True, slots=True)
class Composed:
    """``outer`` says which position of ``inner`` comes."""

    outer: Order
    inner: Order

    @property
    def n(self) -> int:
        """As many as the outer order has."""
        return self.outer.n

    def at(self, positions: Positions) -> Positions:
        """One after the other."""
        return self.inner.at(self.outer.at(positions))

    def span(self, start: int, stop: int) -> Span:
        """A range where both agree on one."""
        between = self.outer.span(start, stop)
        if isinstance(between, range):
            return self.inner.span(between.start, between.stop)
        return as_span(self.inner.at(between))

    def at_epoch(self, epoch: int) -> Order:
        """Both in another epoch."""
        return Composed(self.outer.at_epoch(epoch), self.inner.at_epoch(epoch))

    def stretch(self, start: int, stop: int) -> Stretch:
        """The inner order's runs under each of the outer one's."""
        end, between = self.outer.stretch(start, stop)
        if len(between) == 1 and between[0, 1] - between[0, 0] == end - start and _counts_up(self.outer, start, end):
            # The outer order only counts up, so a window of the inner one is a window of this.
            first = int(between[0, 0])
            inner = self.inner.stretch(first, first + end - start)
            reach = min(start + inner.end - first, self.n)
            return Stretch(reach if _counts_up(self.outer, start, reach) else end, inner.runs)
        found: list[Positions] = []
        for first, last in between.tolist():
            while first < last:
                first, runs = self.inner.stretch(first, last)
                found.append(runs)
        return Stretch(end, merged(np.concatenate(found)))


@dataclass(frozen=True, slots=True)
class Fixed(_Steady):
    """An order held at its epoch: what was split or selected must not change members from epoch to epoch."""

    order: Order

    @property
    def n(self) -> int:
        """As many as the order has."""
        return self.order.n

    def at(self, positions: Positions) -> Positions:
        """As the order says."""
        return self.order.at(positions)

    def span(self, start: int, stop: int) -> Span:
        """As the order says."""
        return self.order.span(start, stop)

    def stretch(self, start: int, stop: int) -> Stretch:
        """As the order says."""
        return self.order.stretch(start, stop)


def compose(outer: Order, inner: Order) -> Order:
    """``outer`` over ``inner``, leaving out what changes nothing."""
    if isinstance(inner, Natural):
        return outer
    if isinstance(outer, Natural) and outer.n == inner.n:
        return inner
    return Composed(outer, inner)


def in_runs(order: Order, size: int) -> bool:
    """Whether each ``size`` positions have consecutive numbers, beginning with multiples of ``size`` here and there.

    That is known of some orders by what they are; ``False`` says nothing.
    """
    match order:
        case Natural():
            return True
        case Sliced():
            return order.step == 1 and order.start % size == 0
        case InChunks():
            return order.size % size == 0
        case Composed():
            return in_runs(order.outer, size) and in_runs(order.inner, size)
        case Fixed():
            return in_runs(order.order, size)
        case _:
            return False


def split_counts(n: int, shares: tuple[float, ...]) -> list[int] | None:
    """How many of ``n`` each share gets, the rest last; ``None`` if a part would be empty."""
    counts = [round(n * share) for share in shares]
    counts.append(n - sum(counts))
    return counts if min(counts) > 0 else None

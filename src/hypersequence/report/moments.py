"""Means and deviations of streams of values, in one pass and without losing digits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..schema import Array
from ..source.buffers import lease

#: Values that are taken together: enough for NumPy's fixed costs to vanish, few enough for the processor's cache.
CHUNK = 1 << 18
#: Streams that lie side by side are added up in rows of so many of each, since NumPy is slow on rows of three.
_FOLD = 256
#: The share that a mean's distance may have in the squares of distances from a place: then these lose two bits.
_FAR = 0.8
_FLOAT64 = np.dtype(np.float64)


class Moments:
    """Number, mean and sum of squared deviations of several streams of values.

    A chunk is seen from a place near its mean, as far as the spread makes that matter, and chunks are merged as Chan,
    Golub and LeVeque do, so that a sum of squares never is a small difference of large numbers. Means are kept as
    distances from such a place, which have more digits than the means: far from zero, rounding would spoil the squares.

    Args:
        n_streams: How many streams, such as channels.
    """

    __slots__ = ("_off", "_origin", "n", "squares")

    def __init__(self, n_streams: int) -> None:
        # Few numbers, for which lists are much quicker than arrays.
        self.n, self.squares, self._origin, self._off = ([0.0] * n_streams for _ in range(4))

    @property
    def means(self) -> list[float]:
        """The mean of each stream."""
        return [origin + off for origin, off in zip(self._origin, self._off, strict=True)]

    @property
    def deviations(self) -> list[float]:
        """The standard deviation of each stream."""
        return [math.sqrt(squares / max(n, 1)) for squares, n in zip(self.squares, self.n, strict=True)]

    def add(self, values: Array, kept: Array | None = None) -> None:
        """Add a chunk.

        Args:
            values: At most ``CHUNK`` real numbers in one dimension, the streams' values in turn.
            kept: Which of them count; all, if it is left out. All that count are finite.
        """
        k = len(self.n)
        n = [len(values) / k] * k if kept is None else _totals(kept.astype(np.float64), k)
        origin = self._origin
        sums, squares = _sums(values, origin, kept)
        if _is_far(n, sums, squares):
            # Where all values are the same, that is the place from which they are exactly 0.
            origin = [first if math.isfinite(first) else 0.0 for first in values[:k].astype(np.float64).tolist()]
            sums, squares = _sums(values, origin, kept)
        if _is_far(n, sums, squares):
            steps = [total / max(each, 1) for total, each in zip(sums, n, strict=True)]
            origin = [at + (step if math.isfinite(step) else 0.0) for at, step in zip(origin, steps, strict=True)]
            sums, squares = _sums(values, origin, kept)
        for number in range(k):
            off = sums[number] / max(n[number], 1)
            own = max(squares[number] - sums[number] * off, 0.0) if math.isfinite(squares[number]) else math.inf
            self._merge(number, n[number], origin[number], off, own)

    def merge(self, other: Moments) -> None:
        """Add what another one has seen: the same streams, or several times as many, which become one another's."""
        k = len(self.n)
        for number, parts in enumerate(zip(other.n, other._origin, other._off, other.squares, strict=True)):
            self._merge(number % k, *parts)

    def _merge(self, number: int, n: float, origin: float, off: float, squares: float) -> None:
        mine = self.n[number]
        if not mine:
            self._origin[number] = origin
        share = n / max(mine + n, 1)
        step = (origin - self._origin[number]) + (off - self._off[number])
        self.squares[number] += squares + step * (step * (mine * share))
        self._off[number] += step * share
        self.n[number] += n


def _is_far(n: list[float], sums: list[float], squares: list[float]) -> bool:
    """Whether some stream was seen from so far away that its squares tell little of its spread, or are too large."""
    return any(
        total != 0 and (total * total >= _FAR * count * square or not math.isfinite(square))
        for count, total, square in zip(n, sums, squares, strict=True)
    )


def _sums(values: Array, origin: list[float], kept: Array | None) -> tuple[list[float], list[float]]:
    """For each stream the sum of distances from its origin, and of their squares."""
    k = len(origin)
    away = _away(values, origin)
    if kept is not None:
        away = np.where(kept, away, 0.0)
    if k == 1:
        return [float(away.sum())], [float(np.dot(away, away))]
    body = len(away) // (_FOLD * k) * (_FOLD * k)
    wide, rest = away[:body].reshape(-1, _FOLD * k), away[body:].reshape(-1, k)
    squares: Any = np.einsum("ij,ij->j", wide, wide).reshape(-1, k).sum(axis=0) + (rest * rest).sum(axis=0)
    return _totals(away, k), squares.tolist()


def _away(values: Array, origin: list[float]) -> Array:
    """Distances from the streams' origins."""
    if not any(origin):
        if values.dtype == np.float64:
            return values
        away = lease((len(values),), _FLOAT64)
        np.copyto(away, values)
        return away
    away = lease((len(values),), _FLOAT64)
    if len(origin) == 1:
        return np.subtract(values, origin[0], out=away, dtype=np.float64)
    row = np.tile(origin, _FOLD)
    body = len(values) // len(row) * len(row)
    wide = values[:body].reshape(-1, len(row))
    np.subtract(wide, row, out=away[:body].reshape(wide.shape), dtype=np.float64)
    np.subtract(values[body:], row[: len(values) - body], out=away[body:], dtype=np.float64)
    return away


def _totals(values: Array, k: int) -> list[float]:
    """The sum of each of ``k`` streams."""
    if k == 1:
        return [float(values.sum())]
    body = len(values) // (_FOLD * k) * (_FOLD * k)
    found: Any = values[:body].reshape(-1, _FOLD * k).sum(axis=0).reshape(-1, k).sum(axis=0)
    return (found + values[body:].reshape(-1, k).sum(axis=0)).tolist()

"""Pseudo-random permutations, specified in SPEC.md: a pure function of seed, epoch and length.

Not NumPy's generators, whose streams may change between versions. Seed and epoch are hashed, never added, so that
epoch 1 of seed 0 has nothing to do with epoch 0 of seed 1.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .base import Order, Positions, Span, as_span

#: Up to here a permutation is a sort by hashed keys, above it a bijection in closed form.
SORT_LIMIT = 1 << 16
N_ROUNDS = 8
_LABEL = b"hsq permutation 1"
_MASK64 = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def key_words(seed: int, epoch: int, n: int, purpose: int, n_words: int) -> list[int]:
    """64-bit key words: SHA-256 of label, seed, epoch, length, purpose and a counter, four words a digest."""
    words: list[int] = []
    for counter in range(-(-n_words // 4)):
        digest = hashlib.sha256(_LABEL + struct.pack("<QQQII", seed, epoch, n, purpose, counter)).digest()
        words += struct.unpack("<4Q", digest)
    return words[:n_words]


def _mix(values: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014; constants by David Stafford)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=16)
def _sorted_permutation(seed: int, epoch: int, n: int, purpose: int) -> Positions:
    """All of a short permutation: the numbers below ``n``, sorted by a hashed key each.

    With 64-bit keys two are equal with a probability of less than 2**-32; a stable sort then keeps the lower first.
    """
    (start,) = key_words(seed, epoch, n, purpose, 1)
    counters = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN) + np.uint64(start)
    permutation = np.argsort(_mix(counters), kind="stable").astype(np.int64)
    permutation.setflags(write=False)
    return permutation


class Permutation:
    """A permutation of ``0 .. n-1`` of which any part can be asked for.

    Args:
        n: Length, up to 2**62.
        seed: 0 to 2**64-1.
        epoch: 0 to 2**64-1.
        purpose: Tells permutations apart that one seed and epoch need at once.
    """

    __slots__ = ("_keys", "_shift", "_type", "_words", "n")

    def __init__(self, n: int, seed: int, epoch: int, purpose: int = 0) -> None:
        self.n = n
        self._keys = (seed, epoch, n, purpose)
        bits = max(1, (n - 1).bit_length())
        self._shift = (bits + 1) // 2
        # Arithmetic modulo 2**bits: with up to 32 bits the upper half of a 64-bit word never matters.
        self._type: Any = np.uint32 if bits <= 32 else np.uint64
        mask = (1 << bits) - 1
        self._words = [word & mask for word in key_words(*self._keys, 2 * N_ROUNDS)] if n > SORT_LIMIT else []
        self._words.append(mask)

    def at(self, positions: Positions) -> Positions:
        """The permutation at any positions.

        Above 65,536: eight rounds of ``x = (x * odd + word) mod 2**b; x ^= x >> ceil(b/2)``; a result past the end
        goes through the rounds again until it is inside ("cycle walking", Black and Rogaway 2002).
        """
        if self.n <= SORT_LIMIT:
            return _sorted_permutation(*self._keys)[positions]
        shape = positions.shape
        values = self._rounds(positions.reshape(-1).astype(self._type))
        last = self._type(self.n - 1)
        outside = np.flatnonzero(values > last)
        while len(outside):
            again = self._rounds(values[outside])
            values[outside] = again
            outside = outside[again > last]
        return values.astype(np.int64).reshape(shape)

    def one(self, position: int) -> int:
        """The permutation at a single position."""
        if self.n <= SORT_LIMIT:
            return int(_sorted_permutation(*self._keys)[position])
        # In plain integers: NumPy's fixed costs would be twenty times this.
        value, mask = position, self._words[-1]
        while True:
            for number in range(N_ROUNDS):
                value = (value * (self._words[2 * number] | 1) + self._words[2 * number + 1]) & mask
                value ^= value >> self._shift
            if value < self.n:
                return value

    def _rounds(self, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        mask, shift, shifted = self._type(self._words[-1]), self._type(self._shift), np.empty_like(values)
        for number in range(N_ROUNDS):
            multiplier, addend = self._words[2 * number] | 1, self._words[2 * number + 1]
            values *= self._type(multiplier)
            values += self._type(addend)
            values &= mask
            np.right_shift(values, shift, out=shifted)
            values ^= shifted
        return values


@dataclass(frozen=True, slots=True)
class Shuffled:
    """All of ``n`` numbers in random order, another one each epoch.

    With ``last_stays``, the last number keeps its place: the short batch of a shuffle of whole batches.
    """

    n: int
    seed: int
    epoch: int = 0
    last_stays: bool = False

    def at(self, positions: Positions) -> Positions:
        """The permutation of this seed and epoch."""
        n_moving = self.n - self.last_stays
        permutation = _permutation(n_moving, self.seed, self.epoch)
        if not self.last_stays:
            return permutation.at(positions)
        moving = positions < n_moving
        return np.where(moving, permutation.at(np.where(moving, positions, 0)), positions) if n_moving else positions

    def span(self, start: int, stop: int) -> Span:
        """Seldom a range, unless it is of one."""
        if stop - start == 1:
            moves = start < self.n - self.last_stays
            one = _permutation(self.n - self.last_stays, self.seed, self.epoch).one(start) if moves else start
            return range(one, one + 1)
        return as_span(self.at(np.arange(start, stop)))

    def at_epoch(self, epoch: int) -> Order:
        """Another permutation."""
        return Shuffled(self.n, self.seed, epoch, self.last_stays)


@lru_cache(maxsize=64)
def _permutation(n: int, seed: int, epoch: int) -> Permutation:
    return Permutation(n, seed, epoch)

"""Pseudo-random permutations, specified in SPEC.md: a pure function of seed, epoch and length.

Not NumPy's generators, whose streams may change between versions. Seed and epoch are hashed, never added, so that
epoch 1 of seed 0 has nothing to do with epoch 0 of seed 1.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np

from .base import Positions

#: Up to here a permutation is a sort by hashed keys, above it a bijection in closed form.
SORT_LIMIT = 1 << 16
N_ROUNDS = 8
_LABEL = b"hsq permutation 1"
_ONE = np.uint64(1)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FINALISER = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
    (np.uint64(31), None),
)
_LOW = np.uint64(SORT_LIMIT - 1)

Words: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"


#: What a permutation is for. Those of one seed, epoch and length differ by it.
PURPOSE_ALL, PURPOSE_BLOCKS, PURPOSE_WINDOW, PURPOSE_MIX = 0, 1, 2, 3


def key_words(seed: int, epoch: int, n: int, purpose: int, n_words: int, window: int = 0) -> list[int]:
    """64-bit key words: SHA-256 of label, seed, epoch, length, purpose and a counter, four words a digest.

    The key of a window's records ends in the window's number as well.
    """
    tail = struct.pack("<Q", window) if purpose == PURPOSE_WINDOW else b""
    words: list[int] = []
    for counter in range(-(-n_words // 4)):
        digest = hashlib.sha256(_LABEL + struct.pack("<QQQII", seed, epoch, n, purpose, counter) + tail).digest()
        words += struct.unpack("<4Q", digest)
    return words[:n_words]


def sort_keys(start: int, counters: Words) -> Words:
    """A hashed 64-bit key for each counter, in its place: output ``counter`` of a SplitMix64 started at ``start``.

    SplitMix64 is by Steele, Lea and Flood (2014), the constants of its finaliser by David Stafford.
    """
    shifted = np.empty_like(counters)
    counters += _ONE
    counters *= _GOLDEN
    counters += np.uint64(start)
    for shift, factor in _FINALISER:
        np.right_shift(counters, shift, out=shifted)
        counters ^= shifted
        if factor:
            counters *= factor
    return counters


@lru_cache(maxsize=16)
def _sorted_permutation(seed: int, epoch: int, n: int, purpose: int, window: int) -> Positions:
    """All of a short permutation: the numbers below ``n``, sorted by a hashed key each, equal keys by number."""
    (start,) = key_words(seed, epoch, n, purpose, 1, window)
    # Sorting keys is several times as fast as argsort(). So the number takes the place of a key's lowest bits; if two
    # keys differ in those alone, as in one of 100,000 long lists, the long way is gone.
    packed = sort_keys(start, np.arange(n, dtype=np.uint64))
    packed &= ~_LOW
    packed |= np.arange(n, dtype=np.uint64)
    packed.sort()
    permutation = (packed & _LOW).view(np.int64)
    packed |= _LOW
    if bool((packed[1:] == packed[:-1]).any()):
        keys = sort_keys(start, np.arange(n, dtype=np.uint64))
        permutation = np.argsort(keys, kind="stable").astype(np.int64)
    permutation.setflags(write=False)
    return permutation


class Permutation:
    """A permutation of ``0 .. n-1`` of which any part can be asked for.

    Args:
        n: Length, up to 2**62.
        seed: 0 to 2**64-1.
        epoch: 0 to 2**64-1.
        purpose: Tells permutations apart that one seed and epoch need at once.
        window: The same for the windows of a shuffle.
    """

    __slots__ = ("_keys", "_shift", "_type", "_words", "n")

    def __init__(self, n: int, seed: int, epoch: int, purpose: int = PURPOSE_ALL, window: int = 0) -> None:
        self.n = n
        self._keys = (seed, epoch, n, purpose, window)
        bits = max(1, (n - 1).bit_length())
        self._shift = (bits + 1) // 2
        # Arithmetic modulo 2**bits: with up to 32 bits the upper half of a 64-bit word never matters.
        self._type: Any = np.uint32 if bits <= 32 else np.uint64
        mask = (1 << bits) - 1
        words = key_words(seed, epoch, n, purpose, 2 * N_ROUNDS, window) if n > SORT_LIMIT else []
        self._words = [word & mask for word in words]
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

    def span(self, start: int, stop: int) -> Positions:
        """The permutation at consecutive positions."""
        if self.n <= SORT_LIMIT:
            return _sorted_permutation(*self._keys)[start:stop]
        return self.at(np.arange(start, stop))

    def position_of(self, number: int) -> int:
        """The position at which a number comes: every round backwards."""
        if self.n <= SORT_LIMIT:
            return int(np.flatnonzero(_sorted_permutation(*self._keys) == number)[0])
        value, mask = number, self._words[-1]
        while True:
            for number_of_round in reversed(range(N_ROUNDS)):
                value ^= value >> self._shift  # the shift is half the bits or more, so once more undoes it
                inverse = pow(self._words[2 * number_of_round] | 1, -1, mask + 1)
                value = (value - self._words[2 * number_of_round + 1]) * inverse & mask
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

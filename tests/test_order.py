"""Orders: uniform, pure, exact at any size, the same everywhere."""

from __future__ import annotations

import hashlib
import itertools
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hypersequence as hs
from conftest import labels
from hypersequence.order import (
    Chosen,
    Composed,
    Concatenated,
    Evenly,
    Fixed,
    InChunks,
    Mixed,
    Natural,
    Permutation,
    Sharded,
    Shuffled,
    Sliced,
    Windowed,
    compose,
    fingerprint,
    parts_of,
    whole_weights,
)
from hypersequence.order.permute import PURPOSE_ALL, PURPOSE_BLOCKS, PURPOSE_MIX, PURPOSE_WINDOW, SORT_LIMIT


def whole(order) -> np.ndarray:
    return order.at(np.arange(order.n))


def digest(numbers: np.ndarray) -> str:
    return hashlib.sha256(numbers.astype("<i8").tobytes()).hexdigest()[:16]


# --- permutations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 100, SORT_LIMIT, SORT_LIMIT + 1, 2**17, 2**17 + 1, 10**6])
def test_a_permutation_has_every_number_once(n: int) -> None:
    found = whole(Permutation(n, 1, 2))
    assert found.dtype == np.int64
    assert np.array_equal(np.sort(found), np.arange(n))


def test_golden_permutations() -> None:
    """Pinned: a change here changes the order in which everybody's training sees its data."""
    assert whole(Permutation(10, 0, 0)).tolist() == GOLDEN_TEN
    assert Permutation(10**5, 1, 2).at(np.arange(8)).tolist() == GOLDEN_LARGE
    assert Permutation(10**10, 2**64 - 1, 3).at(np.array([0, 1, 10**10 - 1])).tolist() == GOLDEN_HUGE
    assert digest(whole(Permutation(70_000, 7, 0))) == GOLDEN_DIGEST


def test_any_position_can_be_asked_for_alone() -> None:
    for n in (1000, 10**6):
        permutation = Permutation(n, 3, 4)
        everything = whole(permutation)
        picked = np.random.default_rng(0).integers(0, n, (7, 11))
        assert np.array_equal(permutation.at(picked), everything[picked])
        assert [permutation.one(i) for i in (0, 5, n - 1)] == everything[[0, 5, n - 1]].tolist()


def check_uniform(shuffle: Callable[[int], Any], n: int, trials: int) -> None:
    """Means over seeds against what uniform permutations give, to five standard errors."""
    identity = np.arange(n)
    fixed, neighbours, first, correlation, parity = [], [], [], [], []
    for seed in range(trials):
        p = whole(shuffle(seed))
        fixed.append(int((p == identity).sum()))
        neighbours.append(int((np.abs(np.diff(p)) == 1).sum()))
        first.append(p[0] / (n - 1))
        correlation.append(np.corrcoef(p, identity)[0, 1] * math.sqrt(n - 1))
        if n <= 64:
            parity.append(int(np.triu(p[:, None] > p).sum()) % 2)  # of the pairs that stand the wrong way round
    error = 5 / math.sqrt(trials)
    assert abs(np.mean(fixed) - 1) < error
    assert abs(np.mean(neighbours) - 2 * (n - 1) / n) < error * math.sqrt(2)
    assert abs(np.mean(first) - 0.5) < error * math.sqrt((n + 1) / (12 * (n - 1)))
    assert abs(np.mean(correlation)) < error
    assert abs(np.std(correlation) - 1) < error
    if parity:
        assert abs(np.mean(parity) - 0.5) < error / 2


@pytest.mark.parametrize(("n", "trials"), [(5, 3000), (8, 3000), (64, 2000), (1000, 600), (65_537, 60), (300_000, 24)])
def test_permutations_look_random(n: int, trials: int) -> None:
    check_uniform(lambda seed: Permutation(n, seed, 0), n, trials)


@pytest.mark.parametrize("n", [4096, 131_072, 10**6])
def test_places_are_independent(n: int) -> None:
    """Chi-squared over a 16 x 16 table of where numbers go, by high and by low digits."""
    for seed in range(4):
        p, i = whole(Permutation(n, seed, 1)), np.arange(n)
        for to, frm in itertools.product((p % 16, p * 16 // n), (i % 16, i * 16 // n)):
            table = np.histogram2d(to, frm, 16)[0]
            expected = n / 256
            assert ((table - expected) ** 2 / expected).sum() < 225 + 6 * math.sqrt(450)


def test_differences_do_not_repeat() -> None:
    """Were the rounds too few, positions that differ by a power of two would often land at one distance."""
    n = 10**6
    p = whole(Permutation(n, 11, 0))
    for lag in (1, 2, 16, 1024, 2**19):
        counts = np.bincount((p[lag:] - p[:-lag]) % n, minlength=n)
        assert counts.max() < 16


def test_seeds_and_epochs_are_unrelated() -> None:
    n = 2000
    keys = [(seed, epoch) for seed in range(12) for epoch in range(12)]
    table = np.array([whole(Permutation(n, *key)) for key in keys], float)
    table -= (n - 1) / 2
    correlations = table @ table.T / (table[0] @ table[0])
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 6 / math.sqrt(n)
    assert len({tuple(row) for row in table.tolist()}) == len(keys)


@pytest.mark.parametrize(
    "n", [1, 2, 3, 100, SORT_LIMIT, SORT_LIMIT + 1, 10**6, 2**32 - 1, 2**32, 2**32 + 1, 10**10, 2**62]
)
def test_position_of_is_the_inverse(n: int) -> None:
    numbers = np.unique(np.random.default_rng(0).integers(0, n, 40)).tolist()
    for purpose, window in ((PURPOSE_ALL, 0), (PURPOSE_BLOCKS, 0), (PURPOSE_WINDOW, 7)):
        permutation = Permutation(n, 3, 2**64 - 1, purpose, window)
        for number in {0, n - 1, *numbers}:
            position = permutation.position_of(number)
            assert 0 <= position < n
            assert permutation.one(position) == number
            assert permutation.at(np.array([position])).tolist() == [number]


@pytest.mark.parametrize("n", [2000, SORT_LIMIT + 1])
def test_permutations_for_other_purposes_are_unrelated(n: int) -> None:
    """Blocks and windows of one shuffle often have the same length, seed and epoch."""
    keys = [
        (PURPOSE_ALL, 0),
        (PURPOSE_BLOCKS, 0),
        (PURPOSE_MIX, 0),
        *((PURPOSE_WINDOW, window) for window in range(20)),
    ]
    table = np.array([whole(Permutation(n, 1, 1, *key)) for key in keys], float) - (n - 1) / 2
    correlations = table @ table.T / (table[0] @ table[0])
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 6 / math.sqrt(n)


# --- window shuffles -------------------------------------------------------------------------------------------------


def windows_of(order: Windowed) -> list[tuple[int, int]]:
    """Where windows begin and end, as ``stretch`` tells it."""
    found, start = [], 0
    while start < order.n:
        end = order.stretch(start, start + 1).end
        found.append((start, end))
        start = end
    return found


def numbers_of(runs: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(first, stop) for first, stop in runs.tolist()])


def test_golden_window_shuffles() -> None:
    """Pinned: a change here changes the order in which everybody's training sees its data."""
    assert whole(Windowed(10, 3, 2, 0)).tolist() == GOLDEN_WINDOWS
    assert whole(Windowed(10, 3, 2, 0, 1)).tolist() == GOLDEN_WINDOWS_NEXT
    assert digest(whole(Windowed(10_007, 64, 5, 7, 3))) == GOLDEN_WINDOWS_DIGEST
    assert digest(whole(Windowed(300_001, 1000, 100, 2**64 - 1, 2**64 - 1))) == GOLDEN_LARGE_WINDOWS_DIGEST
    huge = Windowed(10**10, 4096, 128, 1, 2)
    assert huge.at(np.array([0, 1, 5 * 10**9, 10**10 - 1])).tolist() == GOLDEN_HUGE_WINDOWS


@given(st.integers(0, 300), st.integers(1, 40), st.integers(1, 12), st.integers(0, 2**64 - 1), st.data())
@settings(deadline=None, max_examples=150)
def test_a_window_shuffle_has_every_number_once(
    n: int, block: int, window: int, seed: int, data: st.DataObject
) -> None:
    epoch = data.draw(st.sampled_from([0, 1, 2**64 - 1]))
    order = Windowed(n, block, window, seed, epoch)
    everything = whole(order)
    assert everything.dtype == np.int64
    assert np.array_equal(np.sort(everything), np.arange(n))
    assert order.at_epoch(5) == Windowed(n, block, window, seed, 5)
    assert np.array_equal(whole(order.at_epoch(5).at_epoch(epoch)), everything)
    start = data.draw(st.integers(0, n))
    stop = data.draw(st.integers(start, n))
    assert np.array_equal(np.asarray(order.span(start, stop), np.int64), everything[start:stop])
    if n:
        picked = np.array(data.draw(st.lists(st.integers(0, n - 1), max_size=12)), np.int64)
        assert np.array_equal(order.at(picked), everything[picked])
        assert np.array_equal(order.at(np.stack([picked, picked])), everything[np.stack([picked, picked])])
        one = data.draw(st.integers(0, n - 1))
        assert [*order.span(one, one + 1)] == [everything[one]]


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 12), st.integers(0, 99))
@settings(deadline=None, max_examples=100)
def test_windows_are_whole_blocks(n: int, block: int, window: int, seed: int) -> None:
    """A window's stretch is exactly what its positions need: whole blocks, and no number twice."""
    order = Windowed(n, block, window, seed)
    everything, n_blocks = whole(order), -(-n // block)
    found = windows_of(order)
    assert len(found) == -(-n_blocks // window)
    for number, (start, end) in enumerate(found):
        numbers = np.sort(everything[start:end])
        blocks = np.unique(numbers // block)
        assert len(blocks) == min(window, n_blocks - number * window)
        assert np.array_equal(
            numbers, np.concatenate([np.arange(b * block, min(n, b * block + block)) for b in blocks])
        )
        for inside in {start, (start + end) // 2, end - 1}:
            stretch = order.stretch(inside, min(inside + 3, n))
            assert stretch.end == end
            assert np.array_equal(numbers_of(stretch.runs), numbers)


@pytest.mark.parametrize(
    ("n", "block", "window"),
    [
        (SORT_LIMIT, 64, 2**20),
        (SORT_LIMIT + 1, 1, 2**20),  # so many blocks that they are no sorted list
        (SORT_LIMIT + 1, 1, 16),
        (10**6, 1000, 100),  # windows that are no sorted list
        (10**6 + 1, 1000, 100),
        (10**6 - 1, 1000, 100),
        (999_983, 7, 10_007),
        (500_000, 5, 4096),
    ],
)
def test_large_window_shuffles_have_every_number_once(n: int, block: int, window: int) -> None:
    order = Windowed(n, block, window, 5, 6)
    everything = np.concatenate([np.asarray(order.span(i, min(i + 77_777, n))) for i in range(0, n, 77_777)])
    assert np.array_equal(np.sort(everything), np.arange(n))
    picked = np.random.default_rng(0).integers(0, n, 50)
    assert np.array_equal(order.at(picked), everything[picked])


def test_a_window_is_never_larger_than_the_data() -> None:
    """So that one order is one value, and has one fingerprint; and no product passes 64 bits."""
    for window in (20, 21, 2**62, 2**64 - 1):
        order = Windowed(100, 5, window, 1)
        assert order == Windowed(100, 5, 20, 1)
        assert np.array_equal(np.sort(whole(order)), np.arange(100))
    assert whole(Windowed(3, 2**62, 2**64 - 1, 1)).shape == (3,)
    assert np.array_equal(np.sort(whole(Windowed(100, 1, 2**64 - 1, 2))), np.arange(100))
    assert whole(Windowed(0, 5, 2, 1)).tolist() == [*Windowed(0, 5, 2, 1).span(0, 0)] == []


@pytest.mark.parametrize(
    ("n", "block", "trials"),
    [
        (5, 1, 1200),
        (5, 2, 1200),
        (8, 3, 1200),
        (64, 10, 1000),
        (1000, 64, 600),
        (65_537, 1000, 60),
        (300_000, 4096, 24),
        (10**6, 4096, 12),
    ],
)
def test_one_window_of_everything_is_uniform(n: int, block: int, trials: int) -> None:
    check_uniform(lambda seed: Windowed(n, block, -(-n // block), seed), n, trials)


@pytest.mark.parametrize(("n", "block"), [(4096, 60), (131_072, 1000), (10**6, 4096)])
def test_places_in_one_window_are_independent(n: int, block: int) -> None:
    """Chi-squared over a 16 x 16 table of where numbers go, by high and by low digits and by place in a block."""
    for seed in range(4):
        p, i = whole(Windowed(n, block, n, seed, 1)), np.arange(n)
        for to, frm in itertools.product((p % 16, p * 16 // n, p % block % 16), (i % 16, i * 16 // n)):
            table = np.bincount(to * 16 + frm, minlength=256).reshape(16, 16)
            expected = np.bincount(to, minlength=16)[:, None] * np.bincount(frm, minlength=16) / n
            assert ((table - expected) ** 2 / expected).sum() < 225 + 6 * math.sqrt(450)


def test_seeds_and_epochs_of_window_shuffles_are_unrelated() -> None:
    n = 2000
    keys = [(seed, epoch) for seed in range(12) for epoch in range(12)]
    table = np.array([whole(Windowed(n, 64, n, *key)) for key in keys], float)
    table -= (n - 1) / 2
    correlations = table @ table.T / (table[0] @ table[0])
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 6 / math.sqrt(n)
    assert len({tuple(row) for row in table.tolist()}) == len(keys)


def test_windows_of_one_epoch_and_of_several_are_unrelated() -> None:
    """Each window permutes its records in a way of its own: the ranks of its numbers say nothing about another's."""
    size, rows = 2000, []
    for seed, epoch in itertools.product(range(3), range(4)):
        everything = whole(Windowed(12 * size, 100, size // 100, seed, epoch)).reshape(12, size)
        rows += list(np.argsort(np.argsort(everything, axis=1), axis=1))
    table = np.array(rows, float) - (size - 1) / 2
    correlations = table @ table.T / (table[0] @ table[0])
    np.fill_diagonal(correlations, 0)
    assert np.abs(correlations).max() < 6 / math.sqrt(size)


def test_blocks_come_into_any_window() -> None:
    """The short one too. Counts over epochs are binomial; five standard errors."""
    n, block, window, epochs = 16 * 10 - 3, 10, 4, 600
    counts = np.zeros((16, 4))
    for epoch in range(epochs):
        order = Windowed(n, block, window, 1, epoch)
        for number, (start, end) in enumerate(windows_of(order)):
            counts[np.unique(np.asarray(order.span(start, end)) // block), number] += 1
    assert (counts.sum(axis=1) == epochs).all()
    assert np.abs(counts - epochs / 4).max() < 5 * math.sqrt(epochs * 3 / 16)


# --- shares of several sources ---------------------------------------------------------------------------------------


def test_golden_mixes() -> None:
    """Pinned: a change here changes the order in which everybody's training sees its data."""
    mixed = Mixed(parts_of([Natural(10), Shuffled(6, 4), Windowed(9, 2, 2, 5)], [10, 6, 9]), (3, 1, 2), 14, 8)
    assert whole(mixed).tolist() == GOLDEN_MIX
    assert whole(mixed.at_epoch(1)).tolist() == GOLDEN_MIX_NEXT
    large = Mixed(parts_of([Shuffled(70_000, 1), Natural(300)], [70_000, 300]), (1000, 7), 20_000, 2, 30)
    assert digest(whole(large)) == GOLDEN_MIX_DIGEST


@given(
    st.lists(st.tuples(st.integers(1, 25), st.integers(1, 6)), min_size=1, max_size=4),
    st.integers(1, 90),
    st.integers(0, 2**64 - 1),
    st.data(),
)
@settings(deadline=None, max_examples=60)
def test_mixes_have_exact_shares_and_every_record_in_turn(
    parts: list[tuple[int, int]], n: int, seed: int, data: st.DataObject
) -> None:
    """Over mix epochs whose length is no multiple of the period, and parts that are as long as they are."""
    lengths, weights = zip(*parts, strict=True)
    orders = [data.draw(st.sampled_from([Natural(k), Shuffled(k, 3), Windowed(k, 3, 2, 4)])) for k in lengths]
    mixed = Mixed(parts_of(orders, lengths), weights, n, seed)
    endless = np.concatenate([whole(mixed.at_epoch(epoch)) for epoch in range(8)])
    begins, period = np.cumsum([0, *lengths]), sum(weights)
    owners = np.searchsorted(begins, endless, side="right") - 1
    for first in range(0, len(endless) - period + 1, period):
        assert np.bincount(owners[first : first + period], minlength=len(parts)).tolist() == list(weights)
    for number, order in enumerate(orders):
        mine = endless[owners == number] - begins[number]
        for turn, first in enumerate(range(0, len(mine), order.n)):
            expected = whole(order.at_epoch(turn))[: len(mine) - first]
            assert np.array_equal(mine[first : first + order.n], expected)
    picked = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=9)), np.int64)
    epoch = data.draw(st.integers(0, 7))
    assert np.array_equal(mixed.at_epoch(epoch).at(picked), endless[epoch * n + picked])


def test_places_within_periods_are_uniform_and_independent() -> None:
    """Counts of where a rare part comes, within a period and in two periods in a row, to five standard errors."""
    n_periods = 20_000
    for seed in range(3):
        mixed = Mixed(parts_of([Natural(10**6)] * 2, [10**6] * 2), (1, 7), 8 * n_periods, seed)
        places = np.flatnonzero(whole(mixed) < 10**6)
        assert (places // 8 == np.arange(n_periods)).all()
        places %= 8
        assert np.abs(np.bincount(places, minlength=8) - n_periods / 8).max() < 5 * math.sqrt(n_periods * 7 / 64)
        both = np.bincount(places[1:] * 8 + places[:-1], minlength=64)
        assert np.abs(both - n_periods / 64).max() < 5 * math.sqrt(n_periods / 64)
    assert not np.array_equal(whole(Mixed(mixed.parts, (1, 7), 800, 0)) < 10**6, whole(mixed)[:800] < 10**6)


def test_scattered_positions_of_a_mix_with_a_long_period() -> None:
    """A pattern is made for whole periods, a few at a time: the result is that of positions in a row."""
    lengths = [500_000, 300]
    mixed = Mixed(parts_of([Shuffled(lengths[0], 1), Natural(lengths[1])], lengths), (4000, 96), 400_000, 9, 3)
    everything = np.asarray(mixed.span(0, mixed.n))
    picked = np.random.default_rng(0).integers(0, mixed.n, 3000)
    assert np.array_equal(mixed.at(picked), everything[picked])


def test_mixes_go_on_as_far_as_64_bits_reach() -> None:
    mixed = Mixed(parts_of([Natural(10)], [10]), (1,), 10, 1)
    last = 2**63 // 10 - 1
    assert sorted(whole(mixed.at_epoch(last)).tolist()) == list(range(10))
    with pytest.raises(hs.ArgumentError, match="take a lower epoch"):
        mixed.at_epoch(last + 1)


def test_whole_weights() -> None:
    assert whole_weights([3, 1]) == (3, 1) == whole_weights([0.75, 0.25]) == whole_weights(["3/4", "1/4"])
    assert whole_weights([np.float32(0.1), np.float64(0.2), np.int64(1)]) == (1, 2, 10)
    assert whole_weights([7]) == (1,)
    assert whole_weights([4095, 1]) == (4095, 1)
    for bad in ([4096, 1], [0, 1], [-1, 2], [float("nan")], [float("inf"), 1], ["a"], [None], [math.pi, 1]):
        assert whole_weights(bad) is None


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=5), st.data())
@settings(deadline=None, max_examples=100)
def test_concatenated_orders_follow_each_other(given_parts: list[tuple[int, int]], data: st.DataObject) -> None:
    """Empty ones too, and sources of which an order leaves out some."""
    orders = [Shuffled(n, extra) if n else Natural(0) for n, extra in given_parts]
    sizes = [n + extra for n, extra in given_parts]
    joined = Concatenated(parts_of(orders, sizes))
    begins = np.cumsum([0, *sizes])
    for epoch in (0, 3):
        expected = np.concatenate([whole(o.at_epoch(epoch)) + b for o, b in zip(orders, begins, strict=False)])
        assert np.array_equal(whole(joined.at_epoch(epoch)), expected)
    assert joined.n == sum(n for n, _ in given_parts)
    assert joined == Concatenated(parts_of(orders, sizes)) and hash(joined) == hash(joined.at_epoch(0))


# --- the rest --------------------------------------------------------------------------------------------------------


@given(st.integers(2, 400), st.data())
@settings(deadline=None, max_examples=200)
def test_even_splits_are_disjoint_complete_and_even(total: int, data: st.DataObject) -> None:
    picked = data.draw(st.integers(1, total - 1))
    chosen, rest = whole(Evenly(picked, total)), whole(Evenly(picked, total, rest=True))
    assert np.array_equal(np.sort(np.concatenate([chosen, rest])), np.arange(total))
    assert (np.diff(chosen) > 0).all()
    assert (np.diff(rest) > 0).all()
    for i in range(total + 1):  # every stretch from the start has its share, to one
        assert abs((chosen < i).sum() - i * picked / total) < 1


def test_even_splits_of_huge_numbers_are_exact() -> None:
    for total in (10**10, 2**40 + 7, 2**52 - 1):
        for picked in (1, 3, total // 2, int(total * 0.8), total - 1):
            for rest in (False, True):
                order = Evenly(picked, total, rest)
                places = np.unique(np.random.default_rng(0).integers(0, order.n, 50))
                expected = [
                    p * total // order.n if rest else -(-(p + 1) * total // order.n) - 1 for p in places.tolist()
                ]
                assert order.at(places).tolist() == expected


def chunked(n: int, size: int, seed: int) -> InChunks:
    return InChunks(Shuffled(-(-n // size), seed, 0, n % size != 0), size, n)


def sharded(total: int, batch: int, world: int, uneven: Any, origin: int) -> Sharded:
    origin = min(origin, total)
    uneven = "pad" if uneven == "short" and 0 < (total - origin) % (batch * world) < world else uneven
    return Sharded(total, batch, world - 1, world, uneven, origin)


def joined(orders: list[Any]) -> Concatenated:
    return Concatenated(parts_of(orders, [100] * len(orders)))


def mixed(orders: list[Any], weight: int, n: int, epoch: int) -> Mixed:
    filled = [order if order.n else Natural(3) for order in orders]
    return Mixed(parts_of(filled, [100] * len(filled)), tuple(range(weight, weight + len(filled))), n, 5, epoch)


def orders() -> st.SearchStrategy:
    """Orders of all kinds, over one another, with numbers below 500."""
    small, unevens = st.integers(1, 9), st.sampled_from(["pad", "drop", "short"])
    base = st.one_of(
        st.integers(0, 60).map(Natural),
        st.builds(Shuffled, st.integers(0, 60), st.integers(0, 9)),
        st.builds(Shuffled, st.integers(1, 60), st.integers(0, 9), st.just(2), st.just(True)),
        st.builds(Windowed, st.integers(0, 60), small, small, st.integers(0, 9)),
        st.lists(st.integers(0, 99), max_size=40).map(lambda v: Chosen(np.array(v, np.int64))),
        st.tuples(st.integers(1, 30), st.integers(1, 30), st.booleans()).map(lambda t: Evenly(t[0], t[0] + t[1], t[2])),
        st.builds(Sliced, st.integers(0, 40), st.integers(0, 9), st.integers(1, 4)),
        st.builds(chunked, st.integers(0, 60), small, st.integers(0, 5)),
    )
    several = st.lists(base, min_size=1, max_size=4)
    base = st.one_of(
        base,
        several.map(joined),
        st.builds(mixed, several, st.integers(1, 3), st.integers(0, 60), st.integers(0, 9)),
    )

    def over(order: Any) -> st.SearchStrategy:
        n = order.n
        outer: list[Any] = [
            st.tuples(st.integers(0, n), st.integers(0, n)).map(lambda t: Sliced(abs(t[0] - t[1]), min(t))),
            st.just(Sliced(n, n - 1, -1)),
            st.builds(Shuffled, st.just(n), st.integers(0, 9)),
            st.builds(Windowed, st.just(n), small, small, st.integers(0, 9)),
            st.builds(chunked, st.just(n), small, st.integers(0, 5)),
            st.builds(sharded, st.just(n), small, st.integers(1, 5), unevens, st.integers(0, 20)),
        ]
        if n > 1:
            outer.append(st.builds(Evenly, st.integers(1, n - 1), st.just(n), st.booleans()))
        return st.builds(compose, st.one_of(outer), st.sampled_from([order, Fixed(order)]))

    return st.one_of(base, base.flatmap(over), base.flatmap(over).flatmap(over))


@given(orders(), st.data())
@settings(deadline=None, max_examples=250, suppress_health_check=[HealthCheck.too_slow])
def test_span_and_at_agree(order, data: st.DataObject) -> None:
    everything = whole(order)
    assert everything.shape == (order.n,)
    start = data.draw(st.integers(0, order.n))
    stop = data.draw(st.integers(start, order.n))
    span = order.span(start, stop)
    assert isinstance(span, range | np.ndarray)
    if isinstance(span, range):
        assert span.step == 1
    assert np.array_equal(np.asarray(span, np.int64), everything[start:stop])


@given(orders(), st.integers(1, 40), st.data())
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_stretch_tells_what_coming_positions_need(order, ahead: int, data: st.DataObject) -> None:
    """From any position on, in steps of any size: it always gets further, and no number comes that it left out."""
    everything = whole(order)
    start = data.draw(st.integers(0, order.n))
    while start < order.n:
        end, runs = order.stretch(start, min(start + ahead, order.n))
        assert start < end <= order.n
        assert runs.dtype == np.int64 and runs.ndim == 2 and runs.shape[1] == 2
        assert (runs[:, 0] < runs[:, 1]).all() and (runs[1:, 0] > runs[:-1, 1]).all()
        assert runs[0, 0] >= 0 and runs[-1, 1] <= 500
        assert np.isin(everything[start:end], numbers_of(runs)).all()
        start = end


def test_stretch_of_a_shuffle_over_windows_or_parts() -> None:
    """What looks like one run may be a permutation of it, whose numbers lie in several windows of the order below."""
    below = Windowed(100, 7, 2, 2)
    parts = Concatenated(parts_of([Shuffled(50, 1), Natural(50)], [50, 50]))
    for outer in (Shuffled(100, 1), Windowed(100, 10, 1, 3), Windowed(100, 10, 10, 3), Sliced(100, 99, -1)):
        for inner in (below, parts):
            order, start = compose(outer, inner), 0
            while start < 100:
                end, runs = order.stretch(start, 100)
                assert np.isin(order.at(np.arange(start, end)), numbers_of(runs)).all()
                start = end


def test_stretch_of_what_counts_up_over_windows_is_a_window() -> None:
    """A slice, a start in mid-epoch and a part of a split read ahead as what they were made from does."""
    below = Windowed(1000, 10, 7, 2)
    for outer in (Sliced(900, 100), Sharded(1000, 8, 0, 1, "short", 100), compose(Sliced(900, 50), Sliced(950, 50))):
        order, start, seen = compose(outer, below), 0, []
        while start < order.n:
            end, runs = order.stretch(start, order.n)
            assert np.array_equal(runs, below.stretch(start + 100, start + 101).runs)
            seen.append(end + 100)
            start = end
        assert seen == [end for _, end in windows_of(below) if end > 100]
    # It goes no further than the outer order counts up, though the window does.
    spread = compose(Evenly(800, 1000), below)  # 1 to 4, 6 to 9, and so on
    end, runs = spread.stretch(0, 4)
    assert (end, below.stretch(1, 5).end) == (4, 70)
    assert np.array_equal(runs, below.stretch(1, 5).runs)


def test_contiguous_spans_are_ranges() -> None:
    assert Natural(100).span(3, 9) == range(3, 9)
    assert InChunks(Shuffled(10, 1), 8, 80).span(16, 24) == range(
        8 * Permutation(10, 1, 0).one(2), 8 * Permutation(10, 1, 0).one(2) + 8
    )
    four_of_five = InChunks(Evenly(80, 100), 16, 1600)
    assert four_of_five.span(64, 128) == range(96, 160)  # of every five batches the last four
    assert Chosen(np.array([4, 5, 6])).span(0, 3) == range(4, 7)


def test_what_was_selected_keeps_its_epoch() -> None:
    shuffled = Shuffled(50, 1)
    kept = compose(Evenly(40, 50), Fixed(shuffled))
    again = compose(Shuffled(40, 2), kept)
    assert np.array_equal(whole(kept.at_epoch(5)), whole(kept))
    assert not np.array_equal(whole(again.at_epoch(5)), whole(again))
    assert set(whole(again.at_epoch(5))) == set(whole(again))
    assert np.array_equal(whole(shuffled.at_epoch(5)), whole(Shuffled(50, 1, 5)))


# --- ten thousand million records ------------------------------------------------------------------------------------

HUGE = 10**10


def huge_orders() -> dict[str, Any]:
    windowed = Windowed(HUGE, 4095, 128, 1)
    sources = parts_of([windowed, Shuffled(HUGE, 2), Natural(HUGE)], [HUGE] * 3)
    return {
        "record": Shuffled(HUGE, 1),
        "window": windowed,
        "small windows": Windowed(HUGE, 100, 10, 1),
        "batch": InChunks(Shuffled(HUGE // 256, 1), 256, HUGE),
        "shard": compose(Sharded(HUGE, 256, 1023, 1024, "pad"), windowed),
        "split": compose(Evenly(8 * 10**9, HUGE), Fixed(windowed)),
        "concatenation": Concatenated(sources),
        "mix": Mixed(sources, (2, 1, 1), 3 * HUGE, 3, 10**6),
        "mix with a long period": Mixed(sources, (4000, 95, 1), 3 * HUGE, 3),
        "shuffled mix": compose(Windowed(3 * HUGE, 4095, 128, 5), Mixed(sources, (2, 1, 1), 3 * HUGE, 3)),
    }


@pytest.mark.parametrize("name", list(huge_orders()))
def test_orders_of_any_size_need_little_memory(name: str) -> None:
    """Spans of 65,536 positions, positions anywhere, and stretches, within 64 MiB; and both ways agree."""
    order = huge_orders()[name]
    rng = np.random.default_rng(0)
    tracemalloc.start()
    try:
        for start in (0, order.n - 65_536):
            span = np.asarray(order.span(start, start + 65_536))
            assert span.min() >= 0 and span.max() < 3 * HUGE
            some = rng.integers(0, 65_536, 20)
            assert np.array_equal(order.at(start + some), span[some])
            assert len(np.unique(span)) == 65_536
        for _ in range(2):
            found = order.at(rng.integers(0, order.n, 40))
            assert found.min() >= 0 and found.max() < 3 * HUGE
        if name != "shuffled mix":  # whose windows need all windows of its parts
            end, _ = order.stretch(order.n // 2, order.n // 2 + 65_536)
            assert end > order.n // 2
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 64 << 20


@pytest.mark.parametrize("name", ["record", "window", "small windows", "shard", "mix"])
def test_orders_of_any_size_lose_no_number(name: str) -> None:
    """Where each of a few numbers comes cannot be searched for; that all that come are different can."""
    order = huge_orders()[name]
    starts = np.random.default_rng(1).integers(0, order.n - 10_000, 6).tolist()
    found = np.concatenate([np.asarray(order.span(start, start + 10_000)) for start in starts])
    if name == "mix":  # each source is at its own place, which another part of the mix does not reach again
        found = found[found < HUGE]
    assert len(np.unique(found)) == len(found) > 10_000


# --- fingerprints ----------------------------------------------------------------------------------------------------


def test_fingerprints_do_not_tell_epochs_apart() -> None:
    parts = parts_of([Shuffled(20, 1), Natural(30)], [20, 30])
    for order in (
        Shuffled(50, 1),
        Windowed(50, 5, 2, 1),
        InChunks(Shuffled(10, 1), 5, 50),
        compose(Windowed(50, 5, 2, 1), Shuffled(50, 2)),
        compose(Sharded(50, 4, 1, 3, "pad"), Windowed(50, 5, 2, 1)),
        Concatenated(parts),
        Mixed(parts, (2, 3), 50, 1),
        compose(Shuffled(50, 1), Concatenated(parts)),
    ):
        assert not np.array_equal(whole(order), whole(order.at_epoch(7)))
        assert fingerprint(order) == fingerprint(order.at_epoch(7))
        assert fingerprint(Fixed(order)) != fingerprint(Fixed(order.at_epoch(7)))
        assert fingerprint(Fixed(order)) == fingerprint(Fixed(order).at_epoch(7))


def test_fingerprints_tell_orders_apart(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq, hs.HyperSequenceFile(numbered) as other:
        shuffled = seq.shuffled(1)
        every = {
            "plain": seq,
            "seed 1": shuffled,
            "seed 2": seq.shuffled(2),
            "small windows": seq.shuffled(1, window=1500),
            "records": seq.shuffled(1, "record"),
            "batches": seq.shuffled(1, "batch"),
            "batches of another size": seq.rebatch(9).shuffled(1, "batch"),
            "twice": shuffled.shuffled(2),
            "the other way round": seq.shuffled(2).shuffled(1),
            "first": seq.split(0.8)[0],
            "second": seq.split(0.8)[1],
            "of records": seq.split(0.8, by="record")[0],
            "smaller": seq.split(0.7)[0],
            "split of a shuffle": shuffled.split(0.8)[0],
            "of another epoch": shuffled.at_epoch(1).split(0.8)[0],
            "shuffle of a split": seq.split(0.8)[0].shuffled(1),
            "select": seq.select([3, 1, 2]),
            "select others": seq.select([3, 1, 4]),
            "slice": seq[2:5],
            "slice elsewhere": seq[3:6],
            "concat": hs.concat([seq, other]),
            "concat of shuffled": hs.concat([seq.shuffled(1), other]),
            "concat, other one shuffled": hs.concat([seq, other.shuffled(1)]),
            "mix": hs.mix([seq, other], [1, 1], seed=1),
            "mix of another seed": hs.mix([seq, other], [1, 1], seed=2),
            "mix of other weights": hs.mix([seq, other], [1, 2], seed=1),
            "mix of another length": hs.mix([seq, other], [1, 1], seed=1, n_records=99),
            "mix of shuffled": hs.mix([seq.shuffled(1), other], [1, 1], seed=1),
            "mix of held": hs.mix([seq.shuffled(1)[:], other], [1, 1], seed=1),
            "mix of held in another epoch": hs.mix([seq.shuffled(1, epoch=1)[:], other], [1, 1], seed=1),
        }
        found = {name: fingerprint(sequence._whole) for name, sequence in every.items()}
        assert len(set(found.values())) == len(found), sorted(found.items(), key=lambda item: item[1])
        for name, sequence in every.items():
            assert len(found[name]) == 16 and set(found[name]) <= set("0123456789abcdef")
            assert fingerprint(sequence.at_epoch(5)._whole) == found[name]
        # What does not change the order does not change its name.
        assert fingerprint(shuffled.fields("outputs").map(lambda batch: batch)._whole) == found["seed 1"]
        assert fingerprint(shuffled.rebatch(5)._whole) == found["seed 1"]
        assert fingerprint(seq.shuffled(1, window=1 << 40)._whole) == found["seed 1"]
        assert fingerprint(other.shuffled(1)._whole) == found["seed 1"]


def test_fingerprints_of_a_row_do_not_depend_on_how_it_was_put_together() -> None:
    a, b, c, d = Shuffled(40, 1), Windowed(40, 3, 2, 2), Sliced(40, 5), Shuffled(50, 3)
    together = [
        Composed(a, Composed(b, Composed(c, d))),
        Composed(Composed(a, b), Composed(c, d)),
        Composed(Composed(Composed(a, b), c), d),
        Composed(a, Composed(Composed(b, c), d)),
    ]
    assert len({fingerprint(order) for order in together}) == 1
    assert all(np.array_equal(whole(order), whole(together[0])) for order in together)
    assert len({fingerprint(Fixed(order)) for order in together}) == 1
    assert len({fingerprint(joined([order, Natural(3)])) for order in together}) == 1
    assert len({fingerprint(Mixed(parts_of([order], [60]), (1,), 40, 1)) for order in together}) == 1
    assert fingerprint(Composed(b, Composed(a, Composed(c, d)))) != fingerprint(together[0])


def test_golden_fingerprints() -> None:
    """Pinned: a saved state names its order by this."""
    parts = parts_of([Shuffled(20, 1), Chosen(np.array([3, 1]))], [20, 30])
    found = [
        fingerprint(order)
        for order in (
            Natural(10),
            compose(Sharded(50, 4, 1, 3, "pad"), Windowed(50, 5, 2, 1)),
            compose(Evenly(8, 10), Fixed(Shuffled(10, 3, 4))),
            Concatenated(parts),
            Mixed(parts, (2, 3), 50, 1),
        )
    ]
    assert found == GOLDEN_FINGERPRINTS


# --- sequences from several ------------------------------------------------------------------------------------------


def test_concat_of_sequences(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq, hs.HyperSequenceFile(numbered) as other:
        assert labels(hs.concat([seq])) == list(range(103))
        both = hs.concat([seq, other.rebatch(5)])
        assert (both.batch_size(), both.n_records, len(both)) == (8, 206, 26)
        assert labels(both) == [*range(103)] * 2
        first, second = seq.split(0.5)
        assert labels(hs.concat([second, first])) == labels(second) + labels(first)
        assert labels(hs.concat(iter([seq.rebatch(10, drop_last=True), other]))) == [*range(100), *range(103)]
        assert labels(hs.concat([seq.take(0), other])) == list(range(103))
        assert labels(hs.concat([seq.take(0), other.take(0)])) == []
        assert sorted(labels(both.shuffled(1, window=1))) == sorted([*range(103)] * 2)
        with pytest.raises(hs.PositionError):
            both[26]


def test_mix_of_sequences(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq, hs.HyperSequenceFile(numbered) as other:
        mixed = hs.mix([seq.take(4), other.skip(4)], [1, 3], seed=1)  # 32 and 71 records
        assert (mixed.n_records, len(mixed), mixed.batch_size()) == (103, 13, 8)
        for epoch in range(3):
            assert [sum(y < 32) for _, y in mixed.at_epoch(epoch)][1:-1] == pytest.approx([2] * 11, abs=1)
        assert [int(sum(y < 32)) for _, y in hs.mix([seq.take(4), other.skip(4)], [1, 3], 1, n_records=800)] == [
            2
        ] * 100
        endless = [label for epoch in range(16) for label in labels(mixed.at_epoch(epoch))]
        small = [label for label in endless if label < 32]
        assert small == [i % 32 for i in range(len(small))]
        large = [label for label in endless if label >= 32]
        assert large == [32 + i % 71 for i in range(len(large))]


def test_what_cannot_be_joined(numbered: Path, tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "strange.hsq", 4) as writer:
        writer.extend(np.zeros((5, 2)))
    with hs.HyperSequenceFile(numbered) as seq, hs.HyperSequenceFile(tmp_path / "strange.hsq") as strange:
        for name, join in (("concat", hs.concat), ("mix", hs.mix)):
            for bad, message in (
                ([], "at least one"),
                ([seq, 3], "expected sequences"),
                ([seq, seq.shard(0, 2)], rf"put {name}\(\) before it"),
                ([seq, seq.map(lambda batch: batch)], rf"use map\(\) on what {name}\(\) gives"),
                ([seq, seq.fields("outputs")], rf"use fields\(\) on what {name}\(\) gives"),
                ([seq, strange], "another schema|different fields"),
            ):
                with pytest.raises(hs.ArgumentError, match=message):
                    join(bad)
        with pytest.raises(hs.ArgumentError, match="without records"):
            hs.mix([seq, seq.take(0)])
        for weights in ([1], [1, 2, 3], [0, 1], [1, -1], [5000, 1], ["a", "b"]):
            with pytest.raises(hs.ArgumentError, match="expected 2 positive numbers"):
                hs.mix([seq, seq], weights)
        for bad in (0, 1.5, 2**64):
            with pytest.raises(hs.ArgumentError, match="n_records"):
                hs.mix([seq], n_records=bad)
        with pytest.raises(hs.ArgumentError, match="a shorter mix"):
            hs.mix([seq], n_records=2**63)


GOLDEN_TEN = [8, 1, 5, 2, 9, 4, 0, 3, 6, 7]
GOLDEN_LARGE = [3100, 64775, 78475, 93220, 56030, 34053, 5389, 13696]
GOLDEN_HUGE = [1340341068, 4564374853, 733974391]
GOLDEN_DIGEST = "a85bd4532813921d"
GOLDEN_WINDOWS = [4, 5, 9, 3, 0, 6, 8, 1, 2, 7]
GOLDEN_WINDOWS_NEXT = [7, 8, 6, 1, 0, 2, 3, 4, 9, 5]
GOLDEN_WINDOWS_DIGEST = "9a0e5d3ee0e1e94a"
GOLDEN_LARGE_WINDOWS_DIGEST = "8926bfd057515849"
GOLDEN_HUGE_WINDOWS = [4335433336, 2669819434, 4106169116, 1826098173]
GOLDEN_MIX = [0, 22, 1, 14, 2, 16, 3, 17, 4, 23, 15, 5, 13, 20]
GOLDEN_MIX_NEXT = [6, 7, 8, 21, 11, 9, 0, 24, 18, 1, 10, 2, 3, 19]
GOLDEN_MIX_DIGEST = "50bf13820a8cba86"
GOLDEN_FINGERPRINTS = [
    "a97b793fd89ebb60",
    "ed7f7cc6bca66c3d",
    "d8c30a595e1d79a9",
    "1f722be547a814c5",
    "8bda82401bc2818c",
]

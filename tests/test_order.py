"""Orders: uniform, pure, exact at any size, the same everywhere."""

from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypersequence.order import Chosen, Evenly, Fixed, InChunks, Natural, Permutation, Shuffled, Sliced, compose
from hypersequence.order.permute import SORT_LIMIT


def whole(order) -> np.ndarray:
    return order.at(np.arange(order.n))


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
    digest = hashlib.sha256(whole(Permutation(70_000, 7, 0)).astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == GOLDEN_DIGEST


def test_any_position_can_be_asked_for_alone() -> None:
    for n in (1000, 10**6):
        permutation = Permutation(n, 3, 4)
        everything = whole(permutation)
        picked = np.random.default_rng(0).integers(0, n, (7, 11))
        assert np.array_equal(permutation.at(picked), everything[picked])
        assert [permutation.one(i) for i in (0, 5, n - 1)] == everything[[0, 5, n - 1]].tolist()


@pytest.mark.parametrize(("n", "trials"), [(5, 3000), (8, 3000), (64, 2000), (1000, 600), (65_537, 60), (300_000, 24)])
def test_permutations_look_random(n: int, trials: int) -> None:
    """Means over seeds against what uniform permutations give, to five standard errors."""
    identity = np.arange(n)
    fixed, neighbours, first, correlation, parity = [], [], [], [], []
    for seed in range(trials):
        p = whole(Permutation(n, seed, 0))
        fixed.append(int((p == identity).sum()))
        neighbours.append(int((np.abs(np.diff(p)) == 1).sum()))
        first.append(p[0] / (n - 1))
        correlation.append(np.corrcoef(p, identity)[0, 1] * math.sqrt(n - 1))
        if n <= 64:
            parity.append(sum(p[i] > p[j] for i, j in itertools.combinations(range(n), 2)) % 2)
    error = 5 / math.sqrt(trials)
    assert abs(np.mean(fixed) - 1) < error
    assert abs(np.mean(neighbours) - 2 * (n - 1) / n) < error * math.sqrt(2)
    assert abs(np.mean(first) - 0.5) < error * math.sqrt((n + 1) / (12 * (n - 1)))
    assert abs(np.mean(correlation)) < error
    assert abs(np.std(correlation) - 1) < error
    if parity:
        assert abs(np.mean(parity) - 0.5) < error / 2


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


def orders() -> st.SearchStrategy:
    base = st.one_of(
        st.integers(0, 60).map(Natural),
        st.builds(Shuffled, st.integers(0, 60), st.integers(0, 9)),
        st.builds(Shuffled, st.integers(1, 60), st.integers(0, 9), st.just(2), st.just(True)),
        st.lists(st.integers(0, 99), max_size=40).map(lambda v: Chosen(np.array(v, np.int64))),
        st.tuples(st.integers(1, 30), st.integers(1, 30), st.booleans()).map(lambda t: Evenly(t[0], t[0] + t[1], t[2])),
        st.builds(Sliced, st.integers(0, 40), st.integers(0, 9), st.integers(1, 4)),
        st.tuples(st.integers(0, 60), st.integers(1, 9), st.integers(0, 5)).map(
            lambda t: InChunks(Shuffled(-(-t[0] // t[1]), t[2], 0, t[0] % t[1] != 0), t[1], t[0])
        ),
    )

    def sliced(order):
        return st.tuples(st.integers(0, order.n), st.integers(0, order.n)).map(
            lambda t: compose(Sliced(abs(t[0] - t[1]), min(t)), Fixed(order))
        )

    return st.one_of(base, base.flatmap(sliced))


@given(orders(), st.data())
@settings(deadline=None, max_examples=400)
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


GOLDEN_TEN = [8, 1, 5, 2, 9, 4, 0, 3, 6, 7]
GOLDEN_LARGE = [3100, 64775, 78475, 93220, 56030, 34053, 5389, 13696]
GOLDEN_HUGE = [1340341068, 4564374853, 733974391]
GOLDEN_DIGEST = "a85bd4532813921d"

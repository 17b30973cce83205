"""Shards: all ranks together read the global order, in batches that are the same whatever the world."""

from __future__ import annotations

import math
import pickle
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
from hypersequence.order import Evenly, Fixed, Mixed, Natural, Sharded, Shuffled, Windowed, compose, parts_of

N = 103
UNEVEN = ("pad", "drop", "short")


def refused(n: int, batch: int, world: int, uneven: str) -> bool:
    """Whether some rank would have no last batch."""
    return uneven == "short" and 0 < n % (batch * world) < world


def steps_of(sequence: hs.HyperSequence, world: int, uneven: Any) -> list[list[tuple[list[int], list[float] | None]]]:
    """For every step, the labels and the weights that each rank gets; checks that inputs belong to them."""
    shards = [sequence.shard(rank, world, uneven) for rank in range(world)]
    assert len({len(shard) for shard in shards}) == 1, "ranks differ in their number of steps"
    steps: list[list[tuple[list[int], list[float] | None]]] = []
    for k in range(len(shards[0])):
        step = []
        for shard in shards:
            inputs, outputs, *weights = shard[k]
            assert (inputs == outputs.astype(np.float32)[:, None, None]).all()
            assert len(weights) == (uneven == "pad")
            step.append((outputs.tolist(), weights[0].tolist() if weights else None))
        steps.append(step)
    return steps


def check_union(order: list[int], batch: int, world: int, uneven: str, steps: list[Any]) -> None:
    """All ranks' batches put side by side are the global order, and what becomes of its end is as asked."""
    n, size = len(order), batch * world
    n_full, tail = divmod(n, size)
    assert len(steps) == n_full + (tail > 0 and uneven != "drop")
    together = [[label for found, _ in step for label in found] for step in steps]
    for k, step in enumerate(steps):
        if k < n_full:
            assert together[k] == order[k * size : (k + 1) * size]
            assert all(len(found) == batch for found, _ in step)
    if uneven == "pad":
        assert all(len(found) == batch for step in steps for found, _ in step)
        weights = [w for step in steps for _, weights in step for w in weights]
        everything = [label for step in together for label in step]
        assert everything == [order[i % n] for i in range(len(steps) * size)]
        assert weights == [1.0] * n + [0.0] * (len(everything) - n)
    elif uneven == "drop":
        assert [label for step in together for label in step] == order[: n_full * size]
    else:
        assert [label for step in together for label in step] == order
        if tail:
            shares = [len(found) for found, _ in steps[-1]]
            assert min(shares) >= 1 and max(shares) - min(shares) <= 1


# --- through sequences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uneven", UNEVEN)
@pytest.mark.parametrize("batch", [1, 3, 8, 20])
def test_all_ranks_together_read_the_global_order(numbered: Path, uneven: str, batch: int) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        whole = seq.rebatch(batch).shuffled(seed=batch, window=3000)
        order = labels(whole)
        assert sorted(order) == list(range(N)) != order
        for world in range(1, 41):
            if refused(N, batch, world, uneven):
                for rank in (0, world - 1):  # on all ranks alike, or some would wait for others for ever
                    with pytest.raises(hs.ArgumentError, match="use uneven='pad' or uneven='drop'"):
                        whole.shard(rank, world, "short")
            else:
                check_union(order, batch, world, uneven, steps_of(whole, world, uneven))


@given(st.data())
@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_shards_of_any_chain(numbered: Path, data: st.DataObject) -> None:
    """Whatever stands before it in a chain, in any epoch, asked for before or after."""
    batch, world = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    uneven, epoch = data.draw(st.sampled_from(UNEVEN)), data.draw(st.integers(0, 3))
    with hs.HyperSequenceFile(numbered) as seq:
        chain = data.draw(
            st.sampled_from(
                [
                    seq,
                    seq.shuffled(1, "record"),
                    seq.shuffled(2, window=1),
                    seq.rebatch(5).shuffled(3, "batch"),
                    seq.shuffled(4).split(0.6)[1].shuffled(5),
                    seq.select(range(100, 2, -7)),
                    seq[3:4],
                    hs.concat([seq.split(0.5)[1], seq.shuffled(6)]),
                    hs.mix([seq.take(2), seq.shuffled(7)], [1, 2], seed=8),
                ]
            )
        ).rebatch(batch)
        order = labels(chain.at_epoch(epoch))
        if refused(len(order), batch, world, uneven):
            with pytest.raises(hs.ArgumentError, match="short"):
                chain.shard(0, world, uneven)
            return
        check_union(order, batch, world, uneven, steps_of(chain.at_epoch(epoch), world, uneven))
        rank = data.draw(st.integers(0, world - 1))
        before, after = (
            chain.at_epoch(epoch).shard(rank, world, uneven),
            chain.shard(rank, world, uneven).at_epoch(epoch),
        )
        assert [batch[1].tolist() for batch in before] == [batch[1].tolist() for batch in after]


@pytest.mark.parametrize("uneven", UNEVEN)
def test_the_global_batch_does_not_depend_on_the_world(numbered: Path, uneven: str) -> None:
    size = 24
    with hs.HyperSequenceFile(numbered) as seq:
        shuffled = seq.shuffled(seed=1, epoch=2)
        expected = [sorted(y.tolist()) for _, y in shuffled.rebatch(size)]
        for world in (1, 2, 3, 4, 6, 8, 12, 24):
            if refused(N, size // world, world, uneven):
                assert world > N % size
                continue
            steps = steps_of(shuffled.rebatch(size // world), world, uneven)
            found = [sorted(label for labels, _ in step for label in labels) for step in steps]
            assert found[:4] == expected[:4]
            if uneven == "short":
                assert found == expected
            elif uneven == "drop":
                assert found == expected[:-1]
            else:
                counted = [
                    label for labels, weights in steps[-1] for label, w in zip(labels, weights, strict=True) if w
                ]
                assert sorted(counted) == expected[-1]


def test_padding_is_the_default(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        shard = seq.shard(1, 4)
        assert (len(shard), shard.n_records, shard.batch_size(), len(shard.records)) == (4, 32, 8, 32)
        assert [y.tolist() for _, y, _ in shard] == [list(range(k, k + 8)) for k in (8, 40, 72, 1)]
        assert [w.tolist() for _, _, w in shard] == [[1.0] * 8] * 3 + [[0.0] * 8]
        assert all(w.dtype == np.float32 for _, _, w in shard)
        assert "rank 1 of 4" in repr(shard) and "'pad'" in repr(shard)
        assert shard.records[31][1] == 8  # single records are what is stored: without weights
        last = seq.shard(0, 4)[-1]
        assert (last[1].tolist(), last[2].tolist()) == ([96, 97, 98, 99, 100, 101, 102, 0], [1.0] * 7 + [0.0])
        assert all(len(batch) == 2 for batch in seq.shard(1, 4, "drop"))


def test_batches_of_a_shard_stay_views(numbered: Path) -> None:
    """A rank's part of a global batch is contiguous, so it costs nothing where the order is."""
    with hs.HyperSequenceFile(numbered) as seq:
        for rank in range(4):
            for x, y, _ in list(seq.shard(rank, 4))[:3]:
                assert not x.flags.writeable and not y.flags.writeable


def evaluate(shards: list[hs.HyperSequence], weights_of: Callable[[Any], Any]) -> tuple[float, float]:
    """Weighted sum of the labels, and sum of the weights, over all batches of all ranks."""
    total = weight = 0.0
    for shard in shards:
        for batch in shard:
            w = np.asarray(weights_of(batch[2]), np.float64)
            total += float((batch[1] * w).sum())
            weight += float(w.sum())
    return total, weight


@pytest.mark.parametrize("world", [1, 2, 3, 7, 13, 40])
def test_an_evaluation_over_all_ranks_counts_each_record_once(numbered: Path, world: int) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        shards = [seq.shuffled(1).shard(rank, world) for rank in range(world)]
        assert evaluate(shards, lambda w: w) == (sum(range(N)), N)


@pytest.mark.parametrize("structure", ["one", "tuple", "dict"])
def test_padding_multiplies_stored_weights(tmp_path: Path, structure: str) -> None:
    """Each array of them, whatever its type and shape, and leaves those of records that count as they are."""
    n, numbers = 21, np.arange(21)
    one = (numbers % 5 + 0.25).astype(np.float64)
    several = {"real": one, "whole": (numbers % 3 + 1).astype(np.int16), "flag": np.ones(n, bool)}
    several["map"] = np.stack([one, one + 1], axis=1).astype(np.float32)
    given = {"one": one, "tuple": tuple(several.values()), "dict": several}[structure]
    with hs.HyperSequenceWriter(tmp_path / "weighted.hsq", batch_size=4) as writer:
        writer.extend(numbers, numbers, given)
    with hs.HyperSequenceFile(tmp_path / "weighted.hsq") as seq:
        for world in (1, 2, 5, 9):
            counted = []
            for rank in range(world):
                for x, y, weights in seq.shard(rank, world):
                    assert x.tolist() == y.tolist()
                    seen = {None: weights} if structure == "one" else weights
                    seen = dict(zip(several, seen, strict=True)) if structure == "tuple" else seen
                    assert list(seen) == ([None] if structure == "one" else list(several))
                    for name, array in seen.items():
                        stored = one if name is None else several[name]
                        assert array.dtype == stored.dtype and array.shape == (4, *stored.shape[1:])
                        counts = (array != 0).reshape(4, -1).all(axis=1)
                        assert np.array_equal(array[counts], stored[x][counts])
                        assert not array[~counts].any()
                    counted += x[counts].tolist()
            assert sorted(counted) == list(range(n))
        shards = [seq.shard(rank, 9) for rank in range(9)]
        first = {"one": lambda w: w, "tuple": lambda w: w[0], "dict": lambda w: w["real"]}[structure]
        assert evaluate(shards, first) == ((numbers * one).sum(), one.sum())
        # Where nothing is padded, stored weights are handed out as they are.
        whole = seq.shard(0, 2)[0][2]
        for array in [whole] if structure == "one" else whole.values() if structure == "dict" else whole:
            assert not array.flags.writeable


def test_unlabelled_data_and_chosen_fields_have_weights_too(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "unlabelled.hsq", batch_size=4) as writer:
        writer.extend(np.arange(6))
    with hs.HyperSequenceFile(tmp_path / "unlabelled.hsq") as seq:
        (inputs, outputs, weights) = seq.shard(1, 2)[0]
        assert (inputs.tolist(), outputs, weights.tolist()) == ([4, 5, 0, 1], None, [1, 1, 0, 0])
        assert [len(batch) for batch in seq.shard(1, 2, "short")] == [1]
    with hs.HyperSequenceWriter(tmp_path / "weighted.hsq", batch_size=4) as writer:
        writer.extend(np.arange(6), np.arange(6), np.full(6, 0.5))
    with hs.HyperSequenceFile(tmp_path / "weighted.hsq") as seq:
        assert seq.shard(1, 2)[0][2].tolist() == [0.5, 0.5, 0, 0]
        inputs, outputs, weights = seq.fields("outputs").shard(1, 2)[0]
        assert (inputs, outputs.tolist(), weights.tolist()) == (None, [4, 5, 0, 1], [1, 1, 0, 0])
        assert seq.shard(1, 2).fields("inputs", "sample_weights")[0][2].tolist() == [0.5, 0.5, 0, 0]


@pytest.mark.parametrize("uneven", UNEVEN)
def test_drop_last_means_drop(numbered: Path, uneven: Any) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        whole = seq.rebatch(5, drop_last=True).shuffled(1, "record")
        order = labels(
            seq.shuffled(1, "record")
        )  # what is left out is decided after the shuffle, for all ranks together
        for world in (1, 2, 3, 7, 20, 21, 50):
            shards = [whole.shard(rank, world, uneven) for rank in range(world)]
            assert {len(shard) for shard in shards} == {N // (5 * world)}
            found = [y for k in range(len(shards[0])) for shard in shards for y in shard[k][1].tolist()]
            assert found == order[: N // (5 * world) * 5 * world]
            assert all(len(batch) == 2 for shard in shards for batch in shard)


@pytest.mark.parametrize("uneven", UNEVEN)
def test_nothing_can_be_shared(numbered: Path, uneven: Any) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        for empty in (seq.take(0), seq.select([]), seq[5:5].shuffled(1), seq.rebatch(9).take(0)):
            for world in (1, 2, 40):
                shard = empty.shard(world - 1, world, uneven)
                assert (len(shard), shard.n_records, list(shard)) == (0, 0, [])
                with pytest.raises(hs.PositionError):
                    shard[0]
        shard = seq.shard(2, 50, "drop")  # fewer records than a global batch
        assert (len(shard), list(shard)) == (0, [])


def test_a_few_records_for_many_ranks(numbered: Path) -> None:
    """Padding goes round as often as it must."""
    with hs.HyperSequenceFile(numbered) as seq:
        few = seq.select([7, 9, 4])
        steps = steps_of(few.rebatch(2), 5, "pad")
        assert steps == [[([7, 9], [1, 1]), ([4, 7], [1, 0]), ([9, 4], [0, 0]), ([7, 9], [0, 0]), ([4, 7], [0, 0])]]
        assert few.rebatch(1000).shard(0, 1)[0][2].sum() == 3
        assert steps_of(few.rebatch(1), 3, "short") == [[([7], None), ([9], None), ([4], None)]]


REFUSED: dict[str, Callable[[hs.HyperSequence], Any]] = {
    "rebatch": lambda shard: shard.rebatch(4),
    "shuffled": lambda shard: shard.shuffled(1),
    "shuffled by batch": lambda shard: shard.shuffled(1, "batch"),
    "shuffle": lambda shard: shard.shuffle(1),
    "shard": lambda shard: shard.shard(0, 2),
    "split": lambda shard: shard.split(0.5),
    "split by record": lambda shard: shard.split(0.5, by="record"),
    "select": lambda shard: shard.select([1, 2]),
    "slice": lambda shard: shard[1:2],
    "take": lambda shard: shard.take(1),
    "skip": lambda shard: shard.skip(1),
    "concat": lambda shard: hs.concat([shard]),
    "mix": lambda shard: hs.mix([shard]),
    "rebatch as a function": lambda shard: hs.rebatch(shard, 4),
}


@pytest.mark.parametrize("uneven", UNEVEN)
@pytest.mark.parametrize("name", list(REFUSED))
def test_what_changes_records_or_batches_is_refused_on_a_shard(numbered: Path, name: str, uneven: Any) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        shard = seq.shuffled(1).shard(1, 3, uneven)
        expected = [batch[1].tolist() for batch in shard]
        with pytest.raises(hs.ArgumentError, match=r"shard\(\) comes last; put .*before it in the chain"):
            REFUSED[name](shard)
        assert [batch[1].tolist() for batch in shard] == expected


def test_fields_map_and_epochs_are_allowed_on_a_shard(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        chain = seq.shuffled(1, "record")
        shard = chain.shard(2, 3)
        assert shard.epoch == 0 and shard.at_epoch(4).epoch == 4
        expected = [y.tolist() for _, y, _ in chain.at_epoch(4).shard(2, 3)]
        assert [y.tolist() for _, y, _ in shard.at_epoch(4)] == expected != [y.tolist() for _, y, _ in shard]
        assert [y.tolist() for _, y, _ in shard.fields("outputs").at_epoch(4)] == expected
        assert [y.tolist() for _, y, _ in chain.fields("outputs").at_epoch(4).shard(2, 3)] == expected

        def draw(batch: Any, rng: np.random.Generator) -> Any:
            inputs, outputs, weights = batch  # a function sees the weights that padding brings
            return inputs, outputs, weights * rng.random()

        before, after = chain.map(draw, seed=5).shard(2, 3), shard.map(draw, seed=5)
        for first, second in zip(before, after, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
        assert not np.array_equal(before[0][2], before.at_epoch(1)[0][2])


def test_a_shard_is_pickled_and_copied_like_any_sequence(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        for uneven in UNEVEN:
            shard = seq.shuffled(3).shard(1, 4, uneven)
            again = pickle.loads(pickle.dumps(shard))
            assert [batch[1].tolist() for batch in again] == [batch[1].tolist() for batch in shard]
            assert [len(batch) for batch in again] == [len(batch) for batch in shard]
            again.close()


def test_impossible_ranks(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        for rank, world in ((0, 0), (0, -1), (-1, 2), (2, 2), (5, 3), (0.5, 2), (0, "2"), (None, 2)):
            with pytest.raises(hs.ArgumentError, match=r"rank|world"):
                seq.shard(rank, world)  # pyright: ignore
        for uneven in ("even", "", None, 1):
            with pytest.raises(hs.ArgumentError, match="'pad', 'drop' or 'short'"):
                seq.shard(0, 2, uneven)  # pyright: ignore
        assert labels(seq.shard(np.int64(0), np.int32(1), "short")) == list(range(N))


# --- large worlds, in integers only ----------------------------------------------------------------------------------


WORLDS = (1, 2, 7, 64, 127, 509, 1024)


def some_steps(n_steps: int) -> list[int]:
    """The first, the last two, and some between."""
    if n_steps == 0:
        return []
    between = np.random.default_rng(n_steps).integers(0, n_steps, 2).tolist()
    return sorted({0, max(0, n_steps - 2), n_steps - 1, *between})


@pytest.mark.parametrize("uneven", UNEVEN)
@pytest.mark.parametrize("total", [10**9, 10**9 + 7, 1025])
def test_sampled_steps_of_large_worlds(total: int, uneven: Any) -> None:
    """In each step the ranks' parts follow each other without gap or overlap; the last step is what was asked for."""
    for world in WORLDS:
        for batch in (1, 37):
            if refused(total, batch, world, uneven):
                continue
            shares = [Sharded(total, batch, rank, world, uneven) for rank in range(world)]
            size, (n_full, tail) = batch * world, divmod(total, batch * world)
            n_steps = n_full + (tail > 0 and uneven != "drop")
            assert {-(-share.n // batch) for share in shares} == {n_steps}
            assert (
                sum(share.n for share in shares)
                == {
                    "pad": -(-total // size) * size,
                    "drop": n_full * size,
                    "short": total,
                }[uneven]
            )
            for k in some_steps(n_steps):
                spans = [share.span(k * batch, min((k + 1) * batch, share.n)) for share in shares]
                found = np.concatenate([np.asarray(span) for span in spans])
                expected = np.arange(k * size, min((k + 1) * size, total) if uneven == "short" else (k + 1) * size)
                assert np.array_equal(found, expected % total)
                counts = np.concatenate(
                    [s.counts(k * batch, k * batch + len(p)) for s, p in zip(shares, spans, strict=True)]
                )
                assert counts.sum() == (min(size, total - k * size) if uneven == "pad" else len(found))
                for rank in (0, world // 2, world - 1):
                    positions = np.arange(k * batch, min((k + 1) * batch, shares[rank].n))
                    assert np.array_equal(shares[rank].at(positions), np.asarray(spans[rank]))


@pytest.mark.parametrize("uneven", UNEVEN)
@pytest.mark.parametrize("origin", [0, 7])
def test_how_many_of_a_rank_lie_before_any_position(uneven: Any, origin: int) -> None:
    """As its positions say, one by one; padding lies behind the last."""
    for total in (7, 20, 31, 100, 101):
        for batch, world in ((1, 1), (8, 1), (8, 4), (3, 5), (1, 9)):
            for rank in range(world):
                share = Sharded(total, batch, rank, world, uneven, origin)
                positions = np.asarray(share.at(np.arange(share.n)))[share.counts(0, share.n)]
                for position in range(origin, total):
                    assert share.n_before(position) == (positions < position).sum()
                assert share.n_before(total) == share.n


@pytest.mark.parametrize("kind", ["record", "window", "split", "mix"])
def test_ranks_over_a_huge_shuffle_share_its_global_batches(kind: str) -> None:
    """A thousand million records, and nothing is ever listed: sampled steps of the composed orders."""
    n = 10**9
    windowed = Windowed(n, 4096, 128, 3, 4)
    order: Any = {
        "record": Shuffled(n, 3, 4),
        "window": windowed,
        "split": compose(Evenly(n // 5 * 4, n), Fixed(windowed)),
        "mix": Mixed(parts_of([windowed, Natural(n)], [n, n]), (3, 1), n, 5, 6),
    }[kind]
    tracemalloc.start()
    try:
        for world in (1, 5, 64, 1024):
            batch = 8192 // world
            shares = [compose(Sharded(order.n, batch, rank, world, "pad"), order) for rank in range(world)]
            n_steps = shares[0].n // batch
            for k in some_steps(n_steps)[-3:]:
                ranks = range(world) if world < 64 else range(0, world, world // 4)
                for rank in ranks:
                    found = np.asarray(shares[rank].span(k * batch, (k + 1) * batch))
                    first = (k * world + rank) * batch
                    expected = order.at(np.arange(first, first + batch) % order.n)
                    assert np.array_equal(found, expected)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@given(st.integers(1, 400), st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4)), max_size=5))
@settings(deadline=None, max_examples=100)
def test_a_world_that_changes_within_an_epoch_loses_nothing(total: int, stages: list[tuple[int, int, int]]) -> None:
    """Some steps with one world and batch size, then some with another from there, then the rest."""
    seen: list[int] = []
    origin = 0
    for world, batch, n_steps in stages:
        shares = [Sharded(total, batch, rank, world, "drop", origin) for rank in range(world)]
        n_steps = min(n_steps, shares[0].n // batch)
        for k in range(n_steps):
            seen += [p for share in shares for p in share.at(np.arange(k * batch, (k + 1) * batch)).tolist()]
        origin += n_steps * world * batch
    shares = [Sharded(total, 3, rank, 4, "pad", origin) for rank in range(4)]
    assert len({share.n for share in shares}) == 1
    rest = [
        (p, counts)
        for k in range(shares[0].n // 3)
        for share in shares
        for p, counts in zip(
            share.at(np.arange(3 * k, 3 * k + 3)).tolist(), share.counts(3 * k, 3 * k + 3).tolist(), strict=True
        )
    ]
    assert seen + [p for p, counts in rest if counts] == list(range(total))
    padding = [p for p, counts in rest if not counts]
    assert padding == [i % total for i in range(len(padding))]
    assert len(rest) == math.ceil((total - origin) / 12) * 12

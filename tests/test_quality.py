"""shuffle_quality: numbers that are known beforehand, closed forms against brute force, any size in bounded time."""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import sys
import tracemalloc
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from hypersequence.order import Chosen, Natural, Shuffled, Windowed, compose
from hypersequence.report.chance import expected_distance, expected_distinct, expected_neighbours, rank_correlation
from hypersequence.report.labels import groups_of_places
from hypersequence.report.sample import SAMPLE, Batches, Disk, members, scattered, some
from hypersequence.sequence import joining

BLOCK = 100


class Integers:
    """A source with record numbers and nothing behind them."""

    def __init__(self, n_records: int, block_records: int = BLOCK, batch_size: int = 32, path: str = "a") -> None:
        self.n_records, self.block_records, self.batch_size, self.path = n_records, block_records, batch_size, path
        self.schema = hs.Schema(inputs=hs.Field("uint8"))

    def files(self) -> list[Any]:
        return [self]


class InARow(Integers):
    """Several of them."""

    def __init__(self, parts: list[Any]) -> None:
        super().__init__(sum(part.n_records for part in parts), parts[0].block_records, parts[0].batch_size)
        self._files = [file for part in parts for file in part.files()]

    def files(self) -> list[Any]:
        return self._files


@pytest.fixture
def in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """concat() and mix() of integers, which have no files to join."""
    monkeypatch.setattr(joining, "JoinedSource", InARow)


def sequence(n: int, **options: Any) -> hs.HyperSequence:
    return hs.HyperSequence(Integers(n, **options))


def windows(seq: hs.HyperSequence, *n_blocks: int) -> list[hs.ShuffleQuality]:
    nbytes = seq._source.block_records * seq.schema.record_nbytes
    return [hs.shuffle_quality(seq.shuffled(seed=1, window=n * nbytes)) for n in n_blocks]


@pytest.fixture
def sorted_file(tmp_path: Path) -> Path:
    """2,000 records in blocks of 32 and batches of 16, sorted by ``kind``; ``noise`` is not."""
    path = tmp_path / "sorted.hsq"
    n = 2000
    kinds = np.arange(n) * 7 // n
    noise = np.random.default_rng(0).permutation(kinds)
    with hs.HyperSequenceWriter(path, batch_size=16, block_nbytes=4096) as writer:
        writer.extend(
            {"image": np.zeros((n, 4, 4), np.float32), "number": np.arange(n)},
            {
                "kind": kinds,
                "noise": noise,
                "text": np.array([f"kind {kind}" for kind in kinds]),
                "one_hot": np.eye(7, dtype=np.float32)[kinds],
                "exact": np.arange(n) / n,
            },
        )
    return path


# --- what is known beforehand ----------------------------------------------------------------------------------------


def test_file_order() -> None:
    quality = hs.shuffle_quality(sequence(10_000, batch_size=25))
    assert quality.blocks_per_batch == 1
    assert quality.label_distance == pytest.approx(0.9)
    assert quality.neighbours == quality.rank_correlation == 1
    assert quality.epoch_change == 0
    assert quality.verdict == "file order: records come as they were written; shuffled() mixes them"
    assert hs.shuffle_quality(sequence(10_000).select(slice(None, None, -1))).rank_correlation == pytest.approx(-1)


@pytest.mark.parametrize("n", [10_000, 10**6])
def test_a_full_shuffle(n: int) -> None:
    for seed in range(3):
        quality = hs.shuffle_quality(sequence(n).shuffled(seed, by="record"))
        assert quality.blocks_per_batch == pytest.approx(quality.blocks_per_batch_full, rel=0.03)
        assert quality.label_distance == pytest.approx(quality.label_distance_full, rel=0.06)
        assert quality.neighbours == pytest.approx(2 / n, abs=0.002)
        assert quality.neighbours_full == pytest.approx(2 / n, rel=0.5)
        assert abs(quality.rank_correlation) < 0.05
        assert quality.epoch_change > 0.99
        assert quality.block_mixing > 0.97
        assert quality.verdict == "as good as a full shuffle"


def test_references_are_those_of_all_records() -> None:
    """100 blocks of 100 records, batches of 32: what the textbook says, whatever the order is now."""
    for seq in (
        sequence(10_000),
        sequence(10_000).shuffled(1, by="batch"),
        sequence(10_000).rebatch(32, drop_last=True),
    ):
        quality = hs.shuffle_quality(seq)
        assert quality.blocks_per_batch_full == pytest.approx(100 * (1 - comb(9900, 32) / comb(10_000, 32)))
        by_count = sum(
            comb(1000, k) * comb(9000, 32 - k) / comb(10_000, 32) * abs(k - 3.2) for k in range(33)
        )  # the mean deviation of one class of ten
        assert quality.label_distance_full == pytest.approx(10 * by_count / 2 / 32)
        assert quality.neighbours_full == pytest.approx(2 / 10_000)


def test_whole_batches() -> None:
    quality = hs.shuffle_quality(sequence(10_000, batch_size=25).shuffled(1, by="batch"))
    assert quality.blocks_per_batch == 1
    assert quality.neighbours == pytest.approx(1 - 1 / 25, abs=0.01)
    assert quality.label_distance == pytest.approx(0.9)
    assert abs(quality.rank_correlation) < 0.2
    assert quality.epoch_change > 0.95
    assert "runs" in quality.verdict


def test_larger_windows_mix_more() -> None:
    for n in (50_000, 3_000_000):
        found = windows(sequence(n), 1, 4, 16, 64, 100_000)
        blocks = [quality.blocks_per_batch for quality in found]
        distances = [quality.label_distance for quality in found]
        assert blocks == sorted(blocks)
        assert distances == sorted(distances, reverse=True)
        # As a cluster sample: of windows of k blocks, each of them all one class, the variance is 1 + 31/k times that
        # of a full shuffle.
        assert found[2].label_distance == pytest.approx(found[2].label_distance_full * np.sqrt(1 + 31 / 16), rel=0.1)
        assert found[2].blocks_per_batch == pytest.approx(16 * (1 - (15 / 16) ** 32), rel=0.03)
        assert [quality.verdict.endswith("a larger window mixes more") for quality in found] == [True] * 4 + [False]
        assert found[-1].verdict == "as good as a full shuffle"


@pytest.mark.usefixtures("in_a_row")
def test_the_verdict_names_what_it_saw() -> None:
    (small,) = windows(sequence(200_000, batch_size=25), 4)
    assert small.verdict.startswith(
        "batches see 4 of the 25 blocks that a full shuffle would draw from; a larger window"
    )
    large_batches = sequence(100_000).rebatch(5000)
    (quality,) = windows(large_batches, 250)
    assert quality.block_mixing == pytest.approx(0.25, abs=0.01)
    few_blocks = hs.HyperSequence(Integers(100_000, 10_000)).rebatch(1000)
    (quality,) = windows(few_blocks, 5)
    assert quality.verdict.startswith("batches see 5 of the 10 blocks")
    halves = hs.concat([half.shuffled(1, by="record") for half in _halves(sequence(20_000))])
    quality = hs.shuffle_quality(halves)
    assert quality.rank_correlation == pytest.approx(0.75, abs=0.02)
    assert quality.verdict.startswith("the epoch runs through the file (rank correlation 0.7")
    assert hs.shuffle_quality(halves.shuffled(1, by="record")).verdict == "as good as a full shuffle"
    one_a_batch = sequence(10_000).rebatch(1).shuffled(1, by="record")
    assert "rebatch(32)" in hs.shuffle_quality(one_a_batch).verdict


def _halves(seq: hs.HyperSequence) -> list[hs.HyperSequence]:
    return [seq.select(slice(0, seq.n_records // 2)), seq.select(slice(seq.n_records // 2, None))]


def test_an_order_that_is_held() -> None:
    train = sequence(10_000).shuffled(1, by="record").split(0.8)[0]
    quality = hs.shuffle_quality(train)
    assert quality.epoch_change == 0
    assert quality.verdict == "as good as a full shuffle; every epoch repeats this order"
    assert hs.shuffle_quality(train.shuffled(2, by="record")).verdict == "as good as a full shuffle"
    assert hs.shuffle_quality(sequence(10_000).shuffled(1, epoch=2**64 - 1)).epoch_change > 0.9


def test_parts_are_compared_with_a_full_shuffle_of_the_part() -> None:
    seq = sequence(20_000)
    first = seq.select(slice(0, 500))  # five blocks
    quality = hs.shuffle_quality(first.shuffled(1, by="record"))
    assert quality.blocks_per_batch_full == pytest.approx(5, abs=0.05)
    assert quality.verdict == "as good as a full shuffle"
    by_record, _ = seq.split(0.5, by="record")  # every other record: still neighbours among those there are
    assert hs.shuffle_quality(by_record).neighbours == 1
    assert hs.shuffle_quality(by_record).verdict.startswith("file order")
    for part in seq.split(0.7, 0.2):
        assert hs.shuffle_quality(part.shuffled(1, by="record")).verdict == "as good as a full shuffle"


def test_shards() -> None:
    whole = sequence(20_000).shuffled(1, by="record")
    for rank, uneven in itertools.product((0, 3), ("pad", "drop", "short")):
        quality = hs.shuffle_quality(whole.shard(rank, 4, uneven=uneven))
        assert quality.verdict == "as good as a full shuffle"
        assert quality.blocks_per_batch_full == hs.shuffle_quality(whole).blocks_per_batch_full
    tiny = hs.shuffle_quality(sequence(10).rebatch(8).shard(1, 4))  # padded with what others have
    assert tiny.n_records == 8


@pytest.mark.usefixtures("in_a_row")
def test_concat_and_mix() -> None:
    seq = sequence(20_000)
    mixed = hs.mix([half.shuffled(1, by="record") for half in _halves(seq)], seed=1)
    assert hs.shuffle_quality(mixed).verdict == "as good as a full shuffle"
    three_to_one = hs.mix([half.shuffled(1, by="record") for half in _halves(seq)], weights=[3, 1], seed=1)
    quality = hs.shuffle_quality(three_to_one)
    assert quality.label_distance == pytest.approx(quality.label_distance_full, rel=0.08)
    windowed = hs.mix([half.shuffled(1, window=4 * BLOCK) for half in _halves(seq)], seed=1)
    assert hs.shuffle_quality(windowed).blocks_per_batch == pytest.approx(8, abs=1.5)
    once, twice = (hs.concat([seq] * times).shuffled(1, by="record") for times in (1, 2))
    assert hs.shuffle_quality(twice).blocks_per_batch == pytest.approx(hs.shuffle_quality(once).blocks_per_batch, abs=1)


def test_nothing_and_one_batch(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "none.hsq", batch_size=4, schema=hs.Schema(inputs=hs.Field("f4"))):
        pass
    with hs.HyperSequenceFile(tmp_path / "none.hsq") as none:
        for seq in (none, none.shuffled(1), hs.concat([none, none]), none.shard(0, 2)):
            quality = hs.shuffle_quality(seq)
            assert (quality.n_records, quality.blocks_per_batch, quality.block_mixing) == (0, 0, 1)
            assert quality.verdict == "there are no records to mix"
            assert quality.plot()
        assert hs.shuffle_quality(none, label="inputs").label_distance == 0
    quality = hs.shuffle_quality(sequence(300).rebatch(1000))
    assert quality.blocks_per_batch == quality.blocks_per_batch_full == 3
    assert quality.label_distance == pytest.approx(0)
    assert quality.label_distance_full == 0
    assert "one batch" in quality.verdict
    assert hs.shuffle_quality(sequence(1)).neighbours == 0
    assert hs.shuffle_quality(sequence(300).select([5] * 100)).blocks_per_batch == 1


# --- closed forms ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[1], [3], [2, 3], [1, 1, 4], [2, 2, 2, 1]])
def test_distinct_kinds_by_brute_force(sizes: list[int]) -> None:
    kinds = np.repeat(np.arange(len(sizes)), sizes)
    for drawn in range(1, len(kinds) + 1):
        counted = [len(set(chosen)) for chosen in itertools.combinations(kinds.tolist(), drawn)]
        assert expected_distinct(kinds, drawn) == pytest.approx(np.mean(counted))


@pytest.mark.parametrize("sizes", [[1], [4], [2, 3], [1, 1, 4], [2, 2, 2, 1], [0, 3, 3]])
def test_distances_by_brute_force(sizes: list[int]) -> None:
    kinds, shares = np.repeat(np.arange(len(sizes)), sizes), np.array(sizes) / sum(sizes)
    for drawn in range(1, len(kinds) + 1):
        distances = [
            np.abs(np.bincount(chosen, minlength=len(sizes)) / drawn - shares).sum() / 2
            for chosen in itertools.combinations(kinds.tolist(), drawn)
        ]
        assert expected_distance(shares, len(kinds), drawn) == pytest.approx(np.mean(distances), abs=1e-12)


def test_distances_do_not_jump_where_the_formula_changes() -> None:
    shares = np.array([0.5, 0.3, 0.2, 0.0])
    just_below, just_above = (expected_distance(shares, n, 64) for n in (10**9 - 1, 10**9))
    assert just_below == pytest.approx(just_above, rel=1e-4)
    assert expected_distance(np.array([1.0, 0.0]), 10**10, 64) == 0
    assert expected_distance(shares, 10**15, 65_536) == pytest.approx(
        np.sqrt(2 / np.pi * shares * (1 - shares) / 65_536).sum() / 2, rel=0.001
    )


def test_neighbours_by_brute_force() -> None:
    places = np.array([0, 1, 2, 5, 6, 9])
    for reach in (1, 2, 4, 20):
        pairs = list(itertools.combinations(places.tolist(), 2))
        assert expected_neighbours(places, reach) == np.mean([b - a <= reach for a, b in pairs])


def test_rank_correlation() -> None:
    a = np.arange(100)
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, a * 0) == 0 == rank_correlation(a[:1], a[:1]) == rank_correlation(a[:0], a[:0])
    b = np.random.default_rng(0).permutation(a)
    assert rank_correlation(a, b) == pytest.approx(1 - 6 * ((a - b) ** 2).sum() / (100 * (100**2 - 1)))
    assert rank_correlation(np.array([1, 2, 2, 4]), np.array([1, 2, 2, 4])) == pytest.approx(1)


def test_a_sample_estimates_what_everything_gives() -> None:
    kinds = np.arange(10**6) // 700
    assert expected_distinct(some(10**6, SAMPLE) // 700, 512) == pytest.approx(expected_distinct(kinds, 512), rel=0.002)


# --- samples ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_a_row")
def test_members_of_small_orders_are_all_of_them() -> None:
    n = 1003
    for order in (
        Natural(n),
        Shuffled(n, 1),
        Windowed(n, 10, 3, 1),
        compose(Windowed(n, 10, 3, 1), Shuffled(n, 2)),
        sequence(n).shuffled(1).split(0.6)[0].shuffled(2)._whole,
        hs.concat(list(sequence(n).shuffled(1).split(0.3)))._whole,
        sequence(n).shuffled(3).select([4, 4, 1000])._whole,
    ):
        assert np.array_equal(np.sort(members(order)), np.sort(order.at(np.arange(order.n))))
        assert len(members(order, 50)) == min(50, order.n)
    mixed = hs.mix(_halves(sequence(1000)), weights=[3, 1], seed=1)._whole
    assert (members(mixed) < 500).mean() == 0.75


def test_batches_are_the_sequence_s() -> None:
    order = Windowed(10_007, 10, 30, 1)
    found = Batches(order, 32)
    assert found.numbers.shape == (200, 32)
    assert np.array_equal(found.numbers, order.at(found.positions))
    assert (np.diff(found.positions[:, 0]) > 0).all()
    assert not (found.positions[:, 0] % 32).any()
    assert np.array_equal(found.after[found.followed], order.at(found.positions[found.followed][:, -1] + 1))
    everything = Batches(Natural(103), 10)
    assert everything.positions.shape == (10, 10)
    assert everything.followed.tolist() == [True] * 10
    assert Batches(Natural(100), 10).followed.tolist() == [True] * 9 + [False]
    costly = Batches(compose(Shuffled(10**9, 1), Windowed(10**9, 1000, 60, 1)), 10**6)  # a window for every record
    assert costly.numbers.shape == (4, 128)
    huge = Batches(Natural(10**9), 10**7)
    assert huge.numbers.shape == (16, SAMPLE)
    assert all(len(set(row.tolist())) == SAMPLE for row in huge.numbers)
    assert (huge.numbers.max(axis=1) - huge.numbers.min(axis=1) == 10**7 - 1).all()


def test_positions_in_too_many_windows_are_refused() -> None:
    order = compose(Shuffled(10**9, 1), Windowed(10**9, 1000, 60, 1))
    assert scattered(order, np.arange(100)) is not None
    assert scattered(order, np.arange(10_000)) is None
    assert scattered(compose(Chosen(np.arange(5)), order), np.arange(5)) is not None


def test_blocks_of_several_files() -> None:
    class Several:
        def files(self) -> list[Any]:
            return [Integers(25, 10, path="a"), Integers(12, 5, path="b"), Integers(25, 10, path="a")]

    disk, numbers = Disk(Several()), np.array([0, 9, 10, 24, 25, 29, 30, 36, 37, 61])  # type: ignore[arg-type]
    assert disk.blocks(numbers).tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 0, 2]
    assert disk.places(numbers).tolist() == [0, 9, 10, 24, 25, 29, 30, 36, 0, 24]
    assert disk.n_places == 37


def test_ten_parts_of_any_number_of_records() -> None:
    for n in (1, 2, 9, 10, 11, 1000):
        everywhere, some_of_them = groups_of_places(np.arange(n) * 7, np.arange(n)[::-1] * 7)
        counts = np.bincount(everywhere)
        assert len(counts) == min(10, n)
        assert counts.max() - counts.min() <= 1
        assert np.array_equal(some_of_them, everywhere[::-1])


# --- any size --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_a_row")
def test_any_size_in_bounded_memory() -> None:
    """10**10 records. What would be worked out for all of them, or for all windows, would never come to an end."""
    seq = sequence(10**10, block_records=1000)
    shuffled = seq.shuffled(1, window=64_000)
    cases = {
        "file order": seq,
        "by record": seq.shuffled(1, by="record"),
        "windows": shuffled,
        "split": shuffled.split(0.8)[0],
        "shard": shuffled.shard(7, 1000),
        "mix": hs.mix([shuffled, seq], weights=[4001, 3], seed=1),
        "nested": shuffled.take(10**6).shuffled(2, by="record"),
        "large batches": shuffled.rebatch(300_000),
    }
    found = {name: hs.shuffle_quality(case) for name, case in cases.items()}
    tracemalloc.start()
    try:
        hs.shuffle_quality(cases["large batches"])
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()
    assert found["windows"].blocks_per_batch == pytest.approx(64 * (1 - (63 / 64) ** 32), rel=0.02)
    assert found["split"].blocks_per_batch == pytest.approx(found["windows"].blocks_per_batch, rel=0.03)
    assert found["shard"].blocks_per_batch == pytest.approx(found["windows"].blocks_per_batch, rel=0.05)
    assert found["windows"].blocks_per_batch_full == pytest.approx(32, rel=0.001)
    assert found["by record"].verdict == found["nested"].verdict == "as good as a full shuffle"
    assert found["file order"].label_distance == pytest.approx(0.9)
    assert found["large batches"].blocks_per_batch < 500 < found["large batches"].blocks_per_batch_full


def test_it_is_the_same_every_time() -> None:
    seq = sequence(10**7).shuffled(1, window=1000)
    assert hs.shuffle_quality(seq) == hs.shuffle_quality(seq)
    assert repr(hs.shuffle_quality(seq)) == repr(hs.shuffle_quality(seq))


# --- real files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", ["kind", "text", "one_hot", "exact", "outputs.kind", "number"])
def test_labels_that_are_sorted(sorted_file: Path, label: str) -> None:
    with hs.HyperSequenceFile(sorted_file) as seq:
        worst, expected = (0.9, 0.29) if label in ("exact", "number") else (6 / 7, 0.25)
        assert hs.shuffle_quality(seq, label).label_distance == pytest.approx(worst, abs=0.03)
        quality = hs.shuffle_quality(seq.shuffled(1, by="record"), label=label)
        assert quality.label == label
        assert quality.label_distance_full == pytest.approx(expected, abs=0.02)
        assert quality.label_distance == pytest.approx(quality.label_distance_full, rel=0.1)


def test_labels_that_are_not_sorted(sorted_file: Path) -> None:
    with hs.HyperSequenceFile(sorted_file) as seq:
        for order in (seq, seq.shuffled(1, by="batch")):
            quality = hs.shuffle_quality(order, label="noise")
            assert quality.label_distance == pytest.approx(quality.label_distance_full, rel=0.1)
            assert quality.verdict.endswith("but their labels are as mixed as in a full shuffle")
        joined = hs.concat([seq, seq.fields("inputs", "outputs")])
        quality = hs.shuffle_quality(joined, label="noise")
        assert quality.label_distance == pytest.approx(quality.label_distance_full, rel=0.1)
        assert hs.shuffle_quality(seq.fields("image"), label="kind").label == "kind"  # whatever is delivered


@pytest.mark.parametrize(
    ("label", "message"),
    [("nothing", "no field is called 'nothing'"), ("image", "one-hot vector"), ("outputs", "5 fields are called so")],
)
def test_what_is_no_label(sorted_file: Path, label: str, message: str) -> None:
    with hs.HyperSequenceFile(sorted_file) as seq, pytest.raises(hs.ArgumentError, match=message):
        hs.shuffle_quality(seq, label=label)


def test_what_is_no_sequence() -> None:
    with pytest.raises(hs.ArgumentError, match="expected a sequence, not list"):
        hs.shuffle_quality([1, 2, 3])  # type: ignore[arg-type]


def test_nothing_is_read_without_a_label(sorted_file: Path) -> None:
    with hs.HyperSequenceFile(sorted_file) as seq:
        shuffled = seq.shuffled(1)
    assert hs.shuffle_quality(shuffled).n_records == 2000
    with pytest.raises(hs.ClosedError):
        hs.shuffle_quality(shuffled, label="kind")


def test_how_it_looks() -> None:
    quality = hs.shuffle_quality(sequence(10_000).shuffled(1, by="record"))
    for text in (repr(quality), str(quality), quality._repr_html_()):
        assert "10,000 records in batches of 32" in text
        assert quality.verdict in text
        assert f"{quality.blocks_per_batch_full:.1f}" in text
    assert len({len(line) for line in repr(quality).splitlines()[1:7]}) == 1
    with pytest.raises(AttributeError):
        quality.neighbours = 0.0  # type: ignore[misc]


# --- the picture -----------------------------------------------------------------------------------------------------


def test_a_picture(tmp_path: Path) -> None:
    from matplotlib import image, rcParams

    before, with_pyplot = dict(rcParams), "matplotlib.pyplot" in sys.modules
    quality = hs.shuffle_quality(sequence(10_000).shuffled(1, window=4 * BLOCK))
    path = tmp_path / "quality.png"
    figure = quality.plot(path)
    pixels = image.imread(path)[:, :, :3]
    height, width, _ = pixels.shape
    for third in range(3):  # something is drawn in each of the three parts
        part = pixels[height // 4 :, width * third // 3 : width * (third + 1) // 3]
        assert 0.005 < (part.min(axis=2) < 0.9).mean() < 0.6
    assert len(figure.axes) == 3
    assert dict(rcParams) == before
    assert ("matplotlib.pyplot" in sys.modules) == with_pyplot
    assert quality.plot() is not figure


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    quality = hs.shuffle_quality(sequence(100))
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(hs.MissingPackageError, match=re.escape("pip install 'hypersequence[plot]'")):
        quality.plot()


# --- the document ----------------------------------------------------------------------------------------------------


def test_the_document_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = (Path(__file__).parent.parent / "docs" / "shuffling.md").read_text("utf-8")
    printed, shown, names = io.StringIO(), [], {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
        if language == "text":
            shown.append(block)
        else:
            with contextlib.redirect_stdout(printed):
                exec(block, names)
    assert shown
    assert "".join(shown) == printed.getvalue()

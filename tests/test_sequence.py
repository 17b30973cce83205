"""Sequences against a model: the same operations on plain lists of record numbers."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import GroupKFold, KFold

import hypersequence as hs
from conftest import labels
from hypersequence.order import Shuffled

N = 103


def flat(sequence: hs.HyperSequence) -> list[int]:
    return sequence.records[:][1].tolist()


# --- one operation at a time -----------------------------------------------------------------------------------------


def test_indexing(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        assert (len(seq), seq.batch_size(), seq.n_records) == (13, 8, N)
        assert seq[0][1].tolist() == list(range(8))
        assert seq[-1][1].tolist() == list(range(96, 103))
        assert seq[np.int64(3)][1].tolist() == list(range(24, 32))
        for bad in (13, -14, 10**30):
            with pytest.raises(hs.PositionError) as caught:
                seq[bad]
            assert isinstance(caught.value, IndexError)
        with pytest.raises(TypeError):
            seq["a"]
        assert labels(seq) == list(range(N))
        assert list(reversed([y[0] for _, y in seq])) == [y[0] for _, y in reversed(seq)]


def test_slices_are_sequences(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        assert flat(seq[2:4]) == list(range(16, 32))
        assert flat(seq[-2:]) == list(range(88, 103))
        assert flat(seq[::4]) == [*range(8), *range(32, 40), *range(64, 72), *range(96, 103)]
        assert flat(seq[5:5]) == []
        assert flat(seq.take(2)) == list(range(16))
        assert flat(seq.take(99)) == list(range(N))
        assert flat(seq.skip(12)) == list(range(96, 103))
        assert flat(seq.skip(99)) == []
        with pytest.raises(hs.ArgumentError, match="backwards"):
            seq[::-1]


def test_records(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        records = seq.records
        assert len(records) == N
        image, label = records[42]
        assert (image.shape, label.shape, int(label)) == ((3, 5), (), 42)
        assert int(records[-1][1]) == 102
        assert records[5:20:3][1].tolist() == [5, 8, 11, 14, 17]
        assert records[::-1][1].tolist() == list(range(N))[::-1]
        assert records[[7, 7, -1]][1].tolist() == [7, 7, 102]
        assert records[np.array([3, 99])][1].tolist() == [3, 99]
        assert records[np.arange(N) % 50 == 0][1].tolist() == [0, 50, 100]
        assert [int(r[1]) for r in records] == list(range(N))
        for bad in (N, -N - 1, [N], [0, -N - 1]):
            with pytest.raises(hs.PositionError):
                records[bad]
        for bad in ([0.5], [[1]], np.ones(3, bool)):
            with pytest.raises(hs.ArgumentError):
                records[bad]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 8, 16, 24, 33, 64, 102, 103, 104, 1000])
def test_rebatch_takes_any_size(numbered: Path, n: int) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        assert labels(seq.rebatch(n)) == list(range(N))
        assert [len(y) for _, y in seq.rebatch(n)][:-1] == [n] * (-(-N // n) - 1)
        dropped = seq.rebatch(n, drop_last=True)
        assert labels(dropped) == list(range(N // n * n))
        assert (len(dropped), dropped.n_records) == (N // n, N // n * n)
        assert labels(hs.rebatch(seq, n)) == list(range(N))


def test_rebatch_inside_a_block_stays_zero_copy(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 16) as writer:
        writer.extend(np.arange(6400.0).reshape(-1, 4), np.arange(1600))
    with hs.HyperSequenceFile(tmp_path / "a.hsq") as seq:
        for n in (1, 4, 16, 64, 400):
            for whole in (seq.rebatch(n), seq.rebatch(n).split(0.75)[1].rebatch(n)):
                assert all(not x.flags.writeable for x, _ in whole)


def test_bad_sizes(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        for bad in (0, -1, 1.5, "8", 2**64):
            with pytest.raises(hs.ArgumentError):
                seq.rebatch(bad)
        for bad in (-1, 0.5):
            for operation in (seq.take, seq.skip, seq.at_epoch, seq.shuffled):
                with pytest.raises(hs.ArgumentError):
                    operation(bad)
        with pytest.raises(hs.ArgumentError, match="'window', 'record' or 'batch'"):
            seq.shuffled(1, by="window of opportunity")


@pytest.mark.parametrize("shares", [(0.8,), (0.7, 0.2), (0.25, 0.25, 0.25), (0.5, 0.1, 0.1, 0.1)])
@pytest.mark.parametrize("by", ["batch", "record"])
def test_split_parts_are_disjoint_complete_and_even(numbered: Path, shares: tuple[float, ...], by: Any) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        parts = seq.split(*shares, by=by)
        assert len(parts) == len(shares) + 1
        assert sorted(label for part in parts for label in labels(part)) == list(range(N))
        total = 13 if by == "batch" else N
        for part, share in zip(parts, shares, strict=False):
            assert (len(part) if by == "batch" else part.n_records) == round(total * share)
            if len(part) > 2:  # spread over the file, not a piece of it
                assert 35 < np.mean(labels(part)) < 68
        if by == "batch":
            starts = [y[0] for part in parts for _, y in part]
            assert all(start % 8 == 0 for start in starts)
            assert all(not x.flags.writeable for part in parts for x, _ in part)


def test_impossible_splits(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        for shares in ((), (0,), (1,), (1.2,), (-0.1,), (0.5, 0.5), (0.9, 0.2), (0.01,), (0.99,), (float("nan"),)):
            with pytest.raises(hs.ArgumentError):
                seq.split(*shares)
        with pytest.raises(hs.ArgumentError, match="by='record'"):
            seq.take(1).split(0.5)
        assert [part.n_records for part in seq.take(1).split(0.5, by="record")] == [4, 4]


def test_batch_shuffle_moves_whole_batches(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        shuffled = seq.shuffled(seed=3, by="batch")
        starts = [int(y[0]) for _, y in shuffled]
        assert starts[-1] == 96  # the short one stays last
        assert starts == [8 * i for i in Shuffled(13, 3, 0, last_stays=True).at(np.arange(13)).tolist()]
        assert sorted(labels(shuffled)) == list(range(N))
        assert all(not x.flags.writeable for x, _ in shuffled)
        assert labels(seq.shuffled(seed=3, by="batch")) == labels(shuffled)
        assert labels(seq.shuffled(seed=4, by="batch")) != labels(shuffled)
        assert labels(seq.shuffled(seed=3, by="batch", epoch=1)) == labels(shuffled.at_epoch(1)) != labels(shuffled)
        assert labels(shuffled.at_epoch(9).at_epoch(0)) == labels(shuffled)


def test_record_shuffle(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        shuffled = seq.shuffled(seed=3, by="record")
        assert flat(shuffled) == Shuffled(N, 3).at(np.arange(N)).tolist()
        assert labels(shuffled.rebatch(7)) == flat(shuffled)
        assert labels(seq.rebatch(7).shuffled(seed=3, by="record")) == flat(shuffled)
        # What drop_last leaves out is decided after the shuffle, so it changes from epoch to epoch.
        dropping = seq.rebatch(10, drop_last=True).shuffled(seed=3, by="record")
        assert [len(set(labels(dropping.at_epoch(e)))) for e in range(3)] == [100] * 3
        assert len({tuple(sorted(labels(dropping.at_epoch(e)))) for e in range(6)}) > 1


def test_an_unseeded_shuffle_shows_its_seed(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        shuffled = seq.shuffled()
        seed = int(repr(shuffled).split("seed ")[1].split(",")[0])
        assert labels(seq.shuffled(seed)) == labels(shuffled)
        assert labels(seq.shuffled()) != labels(shuffled)


def test_shuffle_in_place(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        before = seq.take(13)
        orders = []
        for _ in range(3):
            seq.shuffle()
            orders.append(labels(seq))
            assert sorted(orders[-1]) == list(range(N))
        assert len({tuple(order) for order in orders}) == 3
        assert labels(before) == list(range(N))
        seq.shuffle(seed=5)
        assert labels(seq) == labels(before.shuffled(5, by="batch"))


def test_a_pass_keeps_the_order_it_began_with(numbered: Path) -> None:
    with hs.open(numbered) as seq:
        batches = iter(seq)
        first = next(batches)[1].tolist()
        seq.shuffle(1)
        assert first + [label for _, y in batches for label in y] == list(range(N))
        assert labels(seq) != list(range(N))


def test_a_shuffle_joins_the_epoch_it_is_made_in(numbered: Path) -> None:
    """Whatever the chain, a sequence is what ``at_epoch`` of its own epoch gives: the order is pure."""
    with hs.HyperSequenceFile(numbered) as seq:
        first = seq.shuffled(1, epoch=5)
        for chain in (
            first,
            first.shuffled(2),
            first.shuffled(2, epoch=3),
            seq.at_epoch(4).shuffled(2, by="record"),
            first.rebatch(5).shuffled(3, by="record").map(lambda batch, rng: batch),
            first.take(4).shuffled(1),
        ):
            assert labels(chain.at_epoch(chain.epoch)) == labels(chain)
        assert first.shuffled(2).epoch == 5
        assert seq.at_epoch(4).shuffled(2).epoch == 4
        assert first.shuffled(2, epoch=3).epoch == 3


def test_members_of_a_split_do_not_change_with_the_epoch(numbered: Path) -> None:
    """A shuffle made before a split must not carry validation records into training."""
    with hs.HyperSequenceFile(numbered) as seq:
        train, validation = seq.shuffled(1, by="record").split(0.8, by="record")
        assert not set(labels(train.at_epoch(3))) & set(labels(validation))
        again = train.shuffled(2, by="record")
        assert labels(again.at_epoch(1)) != labels(again.at_epoch(2))
        assert set(labels(again.at_epoch(1))) == set(labels(train))
        for chosen in (seq.shuffled(1).take(3), seq.shuffled(1).skip(3), seq.shuffled(1).select(range(20))):
            assert labels(chosen.at_epoch(4)) == labels(chosen)


def test_select_takes_what_scikit_learn_gives(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        y = seq.records[:][1]
        for splitter, groups in (
            (KFold(4), None),
            (KFold(4, shuffle=True, random_state=0), None),
            (GroupKFold(3), y // 10),
        ):
            for train, test in splitter.split(y, groups=groups):
                assert labels(seq.select(train)) == train.tolist()
                assert (
                    labels(seq.shuffled(1, by="record").select(test))
                    == y[flat(seq.shuffled(1, by="record"))][test].tolist()
                )
        assert labels(seq.select([])) == []
        assert labels(seq.select(slice(10, 0, -3))) == [10, 7, 4, 1]
        assert labels(seq.select(range(100, 90, -4))) == [100, 96, 92]
        assert labels(seq.select(y > 97)) == list(range(98, 103))
        positions = np.array([1, 2])
        chosen = seq.select(positions)
        positions[0] = 50
        assert labels(chosen) == [1, 2]
        for bad in ([103], [-104], range(200), range(-200, 0)):
            with pytest.raises(hs.PositionError):
                seq.select(bad)


def test_fields(tmp_path: Path) -> None:
    path = tmp_path / "f.hsq"
    with hs.HyperSequenceWriter(path, 4) as writer:
        for i in range(10):
            writer.append({"image": np.full(2, i), "text": f"{i}"}, {"image": i, "label": i * i}, 0.5 * i)
    with hs.HyperSequenceFile(path) as seq:
        assert list(seq.fields("text")[0][0]) == ["text"]
        assert seq.fields("image", "label")[0][1]["label"].tolist() == [0, 1, 4, 9]
        assert list(seq.fields("image")[0][1]) == ["image"]
        assert [len(seq.fields(name)[0]) for name in ("inputs", "outputs.image", "inputs.image")] == [1, 2, 1]
        nothing, only = seq.fields("outputs.label")[0]
        assert nothing is None
        assert list(only) == ["label"]
        assert seq.fields("inputs.text", "sample_weights")[0][1] is None
        assert seq.fields("inputs.text", "sample_weights")[1][2].tolist() == [2.0, 2.5, 3.0, 3.5]
        assert seq.fields("outputs").no_inputs() == 0
        assert seq.fields("inputs").fields("text").dtypes() == ((np.dtype("U1"),), ())
        assert seq.fields("text").split(0.5)[0].rebatch(3).shuffled(1).no_inputs() == 1
        for names in ((), ("nothing",), ("inputs.label",)):
            with pytest.raises(hs.ArgumentError, match=r"fields"):
                seq.fields(*names)
        with pytest.raises(hs.ArgumentError, match="left"):
            seq.fields("text").fields("label")
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.append((np.zeros(2), 1), (2, 3))
    with hs.HyperSequenceFile(path) as seq:
        assert seq.fields("inputs.1", "outputs.0")[0][0].tolist() == [1]
        assert len(seq.fields("inputs")[0][0]) == 2


def test_fields_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "f.hsq"
    with hs.HyperSequenceWriter(path, 4) as writer:
        writer.extend(np.arange(4000.0).reshape(-1, 4), np.arange(1000))
    content = bytearray(path.read_bytes())
    with hs.HyperSequenceFile(path) as seq:
        image = content.index(np.arange(4.0).tobytes())
    content[image + 9] ^= 1
    path.write_bytes(content)
    with hs.HyperSequenceFile(path) as seq:
        assert seq.fields("outputs")[0][1].tolist() == [0, 1, 2, 3]
        with pytest.raises(hs.ChecksumError):
            seq[0]


def test_map(numbered: Path) -> None:
    calls = []

    def negate(batch: Any) -> Any:
        calls.append(len(batch[1]))
        return -batch[0], batch[1]

    with hs.HyperSequenceFile(numbered) as seq:
        mapped = seq.map(negate).rebatch(50).shuffled(1).take(2)
        batches = list(mapped)
        assert calls == [50, 50]
        assert all((x[:, 0, 0] == -y).all() for x, y in batches)
        assert int(mapped.records[0][0][0, 0]) == int(mapped.records[0][1])  # records are as they are stored
        twice = seq.map(negate).map(lambda batch: (batch[0] * 10, batch[1]))
        assert twice[1][0][3, 0, 0] == -110
        for bad in (lambda batch: None, lambda batch: [1], lambda batch: (1, 2, 3, 4)):
            with pytest.raises(hs.ArgumentError, match="must return"):
                seq.map(bad)[0]
        for bad in (7, lambda: None, lambda a, b, c: None):
            with pytest.raises(hs.ArgumentError, match="map"):
                seq.map(bad)
        with pytest.raises(ZeroDivisionError):
            seq.map(lambda batch: 1 / 0)[0]


def test_map_with_a_generator_can_be_repeated(numbered: Path) -> None:
    def noise(batch: Any, rng: np.random.Generator) -> Any:
        return (rng.random(len(batch[1])), batch[1])

    with hs.HyperSequenceFile(numbered) as seq:
        noisy = seq.shuffled(1, by="batch").map(noise)
        alone = noisy[7][0].tolist()
        assert [batch[0].tolist() for batch in noisy][7] == alone
        assert noisy.at_epoch(1)[7][0].tolist() != alone
        assert noisy.at_epoch(0)[7][0].tolist() == alone
        assert seq.shuffled(1, by="batch").map(noise, seed=1)[7][0].tolist() != alone
        assert noisy[6][0].tolist() != alone
        first = int(noisy[7][1][0]) // 8
        assert seq.map(noise)[first][0].tolist() == alone  # keyed by the first record, wherever it comes


# --- files -----------------------------------------------------------------------------------------------------------


def write(path: Path, start: int, n: int, size: int = 4) -> Path:
    with hs.HyperSequenceWriter(path, size, block_nbytes=700) as writer:
        for i in range(start, start + n):
            writer.append(np.full((3, 5), i, np.float32), i)
        writer.user_meta()["start"] = start
    return path


def test_several_files_are_one_sequence(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{i:02d}.hsq", start, n) for i, (start, n) in enumerate([(0, 30), (30, 1), (31, 41)])]
    empty = tmp_path / "zz.hsq"
    with hs.HyperSequenceWriter(empty, schema=hs.Schema(hs.Field("f4", (3, 5)), "int64")):
        pass
    for given_paths in (
        str(tmp_path / "*.hsq"),
        tmp_path / "*.hsq",
        paths,
        [*map(str, paths), empty],
        [tmp_path / "0*"],
    ):
        with hs.open(given_paths) as seq:
            assert seq.n_records == 72
            assert labels(seq) == list(range(72))
            assert labels(seq.rebatch(7)) == list(range(72))
            assert sorted(labels(seq.shuffled(1, by="record"))) == list(range(72))
            order = np.random.default_rng(0).permutation(72)
            assert labels(seq.select(order).rebatch(11)) == order.tolist()
            assert seq.records[[71, 30, 0, 29, 31]][1].tolist() == [71, 30, 0, 29, 31]
            assert seq.user_meta() == {"start": 0}
            assert labels(pickle.loads(pickle.dumps(seq.shuffled(5)))) == labels(seq.shuffled(5))
    assert isinstance(hs.open(paths[0]), hs.HyperSequenceFile)
    with pytest.raises(FileNotFoundError):
        hs.open(tmp_path / "nothing*.hsq")
    with pytest.raises(FileNotFoundError):
        hs.open([paths[0], tmp_path / "nothing.hsq"])
    with pytest.raises(hs.ArgumentError):
        hs.open([])
    with hs.HyperSequenceWriter(tmp_path / "other.hsq") as writer:
        writer.append(1)
    with pytest.raises(hs.ArgumentError, match=r"other\.hsq has another schema"):
        hs.open([paths[0], tmp_path / "other.hsq"])


def test_a_file_whose_name_has_brackets(tmp_path: Path) -> None:
    path = write(tmp_path / "data[1].hsq", 0, 5)
    assert labels(hs.open(path)) == [0, 1, 2, 3, 4]


def test_old_class_names(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered, use_mmap=True, copy_buffer=True, thread_safe=True) as seq:
        view = hs.HyperSequenceView(seq)
        assert labels(view) == list(range(N))
        view.shuffle()
        assert labels(view) != labels(seq)
        some = hs.HyperSequenceView(seq, np.array([12, 5, 0]))
        assert [int(y[0]) for _, y in some] == [40, 0, 96]  # the short batch comes last
        assert sorted(labels(hs.HyperSequenceView(seq, np.random.default_rng(0).permutation(13)))) == list(range(N))
        with pytest.raises(hs.ArgumentError, match="short"):
            hs.HyperSequenceView(seq, [12, 12])
        with pytest.raises(hs.PositionError):
            hs.HyperSequenceView(seq, [13])
        fetching = hs.FetchingHyperSequence(seq.shuffled(1), max_prefetch=3)
        assert labels(fetching) == labels(seq.shuffled(1))
        assert fetching[-1][1].tolist() == seq.shuffled(1)[-1][1].tolist()
        fetching.shuffle()
        assert sorted(labels(fetching)) == list(range(N))
        assert seq.no_inputs() == seq.no_outputs() == 1
        (image,), (label,) = seq.dtypes()
        assert (image.shape, image.base, label.shape) == ((3, 5), np.dtype("f4"), ())


def test_how_it_looks(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        text = repr(seq.shuffled(9))
        for part in ("numbered.hsq", "103", "13 of 8", "float32 (3, 5)", "seed 9", "epoch 0"):
            assert part in text
        assert "seed 9, held at epoch 2" in repr(seq.shuffled(9, epoch=2).take(3))
        assert "order" not in repr(seq.split(0.5)[0])
        assert "<table>" in seq._repr_html_()
        assert "float32 (3, 5)" in seq._repr_html_()
        assert "103 records" in repr(seq.records)
    assert "closed" in repr(seq)


# --- everything together ---------------------------------------------------------------------------------------------


class Model:
    """The same operations on plain lists. ``everything`` is the order; ``drop`` hides a short last batch."""

    def __init__(self, everything: list[int], size: int, drop: bool = False) -> None:
        self.everything, self.size, self.drop = everything, size, drop

    @property
    def visible(self) -> list[int]:
        return self.everything[: len(self.everything) // self.size * self.size] if self.drop else self.everything

    def batches(self) -> list[list[int]]:
        return [self.visible[i : i + self.size] for i in range(0, len(self.visible), self.size)]

    def of(self, everything: list[int]) -> Model:
        return Model(everything, self.size, self.drop)

    def shuffled(self, seed: int, by: str) -> Model:
        n = len(self.everything)
        if by == "record":
            return self.of([self.everything[i] for i in Shuffled(n, seed).at(np.arange(n)).tolist()])
        chunks = [self.everything[i : i + self.size] for i in range(0, n, self.size)]
        order = Shuffled(len(chunks), seed, 0, n % self.size != 0).at(np.arange(len(chunks))).tolist()
        return self.of([x for i in order for x in chunks[i]])


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("rebatch"), st.integers(1, 40), st.booleans()),
        st.tuples(st.just("shuffled"), st.integers(0, 9), st.sampled_from(["batch", "record"])),
        st.tuples(st.just("take"), st.integers(0, 14)),
        st.tuples(st.just("skip"), st.integers(0, 6)),
        st.tuples(st.just("slice"), st.integers(0, 5), st.integers(0, 14), st.integers(1, 3)),
        st.tuples(st.just("select"), st.lists(st.integers(0, 10**6), max_size=60)),
        st.tuples(st.just("split"), st.floats(0.1, 0.9), st.sampled_from(["batch", "record"]), st.integers(0, 1)),
        st.tuples(st.just("epoch"), st.integers(0, 3)),
    ),
    max_size=6,
)


@given(operations=OPERATIONS, use_mmap=st.booleans())
@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_operations_compose_in_any_order(numbered: Path, operations: list[Any], use_mmap: bool) -> None:
    with hs.HyperSequenceFile(numbered, use_mmap=use_mmap) as file:
        seq: hs.HyperSequence = file
        model = Model(list(range(N)), 8)
        for name, *arguments in operations:
            if name == "rebatch":
                seq, model = seq.rebatch(*arguments), Model(model.everything, *arguments)
            elif name == "shuffled":
                seq, model = seq.shuffled(arguments[0], by=arguments[1]), model.shuffled(*arguments)
            elif name == "epoch":  # there and back again
                epoch = seq.epoch
                seq = seq.at_epoch(arguments[0]).at_epoch(epoch)
            elif name == "select":
                picked = [p % max(1, seq.n_records) for p in arguments[0]] if seq.n_records else []
                seq, model = seq.select(picked), model.of([model.visible[p] for p in picked])
            elif name == "split":
                share, by, part = arguments
                total = len(seq) if by == "batch" else seq.n_records
                if not 0 < round(total * share) < total:
                    with pytest.raises(hs.ArgumentError):
                        seq.split(share, by=by)
                    continue
                parts = seq.split(share, by=by)
                both = [flat(p.rebatch(p.batch_size())) for p in parts]  # drop_last holds for each part
                assert sorted(both[0] + both[1]) == sorted(model.visible)
                seq, model = parts[part], model.of(both[part])
            else:
                chosen = {"take": lambda a: slice(0, a), "skip": lambda a: slice(a, None), "slice": slice}[name](
                    *arguments
                )
                seq = seq[chosen] if name == "slice" else getattr(seq, name)(*arguments)
                model = model.of([x for batch in model.batches()[chosen] for x in batch])
            assert len(seq) == len(model.batches())
        assert [y.tolist() for _, y in seq] == model.batches()
        assert labels(seq) == model.visible == flat(seq)
        for i in range(len(seq)):  # alone, and backwards, as well as in turn
            assert seq[-1 - i][1].tolist() == model.batches()[-1 - i]

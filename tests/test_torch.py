"""PyTorch: loaders and data sets that its own tools take for theirs, and that give every record where it belongs."""

from __future__ import annotations

import copy
import gc
import itertools
import json
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from itertools import islice
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Subset, SubsetRandomSampler, random_split

import hypersequence as hs

N = 103

#: Lightning and accelerate use things of Python and PyTorch that are going away.
lenient = pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning")


# --- helpers ---------------------------------------------------------------------------------------------------------


def hsq_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hsq")]


def settle(condition, seconds: float = 10) -> None:
    """Wait until something is so; threads that were told to stop need a moment."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    if hsq_threads():
        gc.collect()
        settle(lambda: not hsq_threads())


@pytest.fixture(autouse=True)
def no_tensor_of_read_only_memory():
    """PyTorch says so once a process, if it is not asked to say it every time."""
    torch.set_warn_always(True)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*not writable.*")
        yield
    torch.set_warn_always(False)


def flat(batches) -> list[int]:
    return [int(label) for batch in batches for label in batch[1]]


def joined(lists) -> list[int]:
    return list(itertools.chain.from_iterable(lists))


def bits(tensor: torch.Tensor) -> bytes:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(found, expected) -> None:
    """The same structure, types, shapes and bits, as tensors."""
    if expected is None:
        assert found is None
    elif isinstance(expected, dict):
        assert type(found) is dict and list(found) == list(expected)
        for name, part in expected.items():
            assert_same(found[name], part)
    elif isinstance(expected, tuple):
        assert type(found) is tuple and len(found) == len(expected)
        for part, other in zip(found, expected, strict=True):
            assert_same(part, other)
    else:
        assert type(found) is torch.Tensor
        assert str(found.dtype) == f"torch.{expected.dtype.name}"
        assert tuple(found.shape) == expected.shape
        assert bits(found) == expected.tobytes()


def tensors_in(part) -> list[torch.Tensor]:
    if isinstance(part, dict):
        part = tuple(part.values())
    if isinstance(part, tuple | list):
        return [tensor for member in part for tensor in tensors_in(member)]
    return [] if part is None else [part]


def run(code: str, *arguments: object, seconds: float = 90) -> str:
    """A program in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert done.returncode == 0, f"ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


# --- the same records in the same order ------------------------------------------------------------------------------

CHAINS = {
    "file order": lambda seq: seq,
    "window": lambda seq: seq.shuffled(1, window=3000),
    "everything in one window": lambda seq: seq.shuffled(1),
    "record": lambda seq: seq.shuffled(1, by="record").rebatch(7),
    "batch": lambda seq: seq.shuffled(1, by="batch"),
    "drop_last": lambda seq: seq.shuffled(1).rebatch(10, drop_last=True),
    "pad": lambda seq: seq.shuffled(2).shard(1, 3),
    "short": lambda seq: seq.shuffled(2, window=3000).shard(2, 3, "short"),
    "map": lambda seq: seq.shuffled(3).map(lambda batch, rng: (batch[0] + np.float32(rng.random()), batch[1])),
    "concat": lambda seq: hs.concat([seq.shuffled(1).take(3), seq]),
    "mix": lambda seq: hs.mix([seq.shuffled(1), seq], [2, 1], seed=1),
    "outputs only": lambda seq: seq.shuffled(4).fields("outputs"),
    "inputs only": lambda seq: seq.shuffled(4).fields("inputs"),
    "one record a batch": lambda seq: seq.shuffled(5).rebatch(1),
    "one batch": lambda seq: seq.shuffled(5).rebatch(1000),
    "one part of a split": lambda seq: seq.split(0.3)[1].shuffled(2),
    "begins at epoch 5": lambda seq: seq.shuffled(2, epoch=5),
    "nothing": lambda seq: seq.take(0),
}


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("options", [{}, {"threads": 0}, {"threads": 3, "prefetch": 5}, {"prefetch": 1, "evict": True}])
def test_the_batches_of_the_sequence_epoch_by_epoch(numbered: Path, chain: str, options: dict) -> None:
    with hs.open(numbered) as file:
        seq = CHAINS[chain](file)
        loader = seq.as_torch(**options)
        assert len(loader) == len(seq)
        for epoch in range(seq.epoch, seq.epoch + 3):
            expected, batches = seq.at_epoch(epoch), list(loader)
            assert len(batches) == len(expected)
            for i, batch in enumerate(batches):
                assert_same(batch, expected[i])
            assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (epoch + 1, 0)


def structures() -> dict[str, tuple]:
    x, y = np.arange(60, dtype=np.float32).reshape(20, 3), np.arange(20)
    return {
        "one and one": (x, y),
        "unlabelled": (x,),
        "tuples": ((x, x.astype(np.uint8)), (y, y % 2 == 0)),
        "a tuple of one": ((x,), y),
        "names": ({"image": x, "mask": x > 3}, {"label": y}),
        "weights": (x, y, y / 20),
        "named weights": (x, {"a": y, "b": -y}, {"a": y / 20, "b": y / 2}),
        "weights without labels": (x, None, y / 20),
        "no elements": (np.zeros((20, 0, 2), np.float32), y),
    }


@pytest.mark.parametrize("structure", structures())
def test_tuples_and_dicts_as_the_schema_says(tmp_path: Path, structure: str) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4) as writer:
        writer.extend(*structures()[structure])
    with hs.open(tmp_path / "a.hsq") as file:
        for seq in (file, file.rebatch(3).shuffled(1), file.shuffled(1).rebatch(6).shard(0, 2)):
            for batch, expected in zip(seq.as_torch(), seq, strict=True):
                assert_same(batch, expected)
            dataset = seq.as_torch_dataset("batch")
            for i in range(len(seq)):
                assert_same(dataset[i], seq[i])
        seq = file.shuffled(1)
        dataset = seq.as_torch_dataset()
        expected = seq.rebatch(1)
        for i in range(len(dataset)):
            for tensor, array in zip(tensors_in(dataset[i]), tensors_in_arrays(expected[i]), strict=True):
                assert_same(tensor, array[0])
        together, apart = dataset.__getitems__([3, 1, 2]), [dataset[3], dataset[1], dataset[2]]
        for found, record in zip(together, apart, strict=True):
            assert str(found) == str(record)


def tensors_in_arrays(part) -> list[np.ndarray]:
    return tensors_in(part)


def test_fields_that_were_left_out_are_none(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.fields("outputs")
        for inputs, labels in seq.as_torch():
            assert inputs is None and labels.dtype == torch.int64
        assert seq.as_torch_dataset("batch")[2][0] is None
        dataset = seq.as_torch_dataset()
        assert dataset[7][0] is None and int(dataset[7][1]) == 7
        together = dataset.__getitems__([7, 3])
        assert [(record[0], int(record[1])) for record in together] == [(None, 7), (None, 3)]


def test_records_left_without_inputs_go_through_a_dataloader(numbered: Path) -> None:
    def labels_of(samples) -> list[int]:
        return [int(label) for _, label in samples]

    with hs.open(numbered) as file:
        dataset = file.fields("outputs").as_torch_dataset()
        assert list(itertools.chain(*DataLoader(dataset, 10, collate_fn=labels_of))) == list(range(N))
        for batch in DataLoader(dataset, 10, collate_fn=dataset.collate):
            assert batch[0] is None and batch[1].dtype == torch.int64


def test_large_batches(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((60, 300_000), np.float32)
    with hs.HyperSequenceWriter(tmp_path / "large.hsq", 4) as writer:
        writer.extend(values, np.arange(60))
    with hs.open(tmp_path / "large.hsq") as file:
        for seq in (file.rebatch(25), file.shuffled(1, by="record").rebatch(25)):
            for x, y in seq.as_torch(threads=2):
                assert torch.equal(x, torch.from_numpy(values[y.numpy()]))


# --- passes and states -----------------------------------------------------------------------------------------------


def test_a_loader_is_what_torchdata_calls_stateful(numbered: Path) -> None:
    from torchdata.stateful_dataloader import Stateful

    with hs.open(numbered) as file:
        assert isinstance(file.as_torch(), Stateful)


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("size", [1, 8, 50])
def test_a_state_of_any_place_goes_on_there(numbered: Path, threads: int, size: int) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1).rebatch(size)
        stream = flat(seq) + flat(seq.at_epoch(1))
        loader = seq.as_torch(threads=threads)
        states = [loader.state_dict()]
        for batch in loader:
            assert batch is not None
            states.append(loader.state_dict())
        states.append(loader.state_dict())
        for state, done in zip(states[:: max(1, 20 // size)], range(0, 999, max(1, 20 // size)), strict=False):
            other = seq.as_torch(threads=2 - threads)
            other.load_state_dict(json.loads(json.dumps(state)))
            assert other.state_dict() == state
            rest = flat(other)
            start = min(done * size, N)
            assert rest == stream[start : N if start < N else 2 * N]
            following = other.state_dict()["epoch"]
            assert flat(other) == flat(seq.at_epoch(following))


def test_a_state_holds_for_other_batches_worlds_and_threads(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        order = flat(seq)
        loader = seq.rebatch(6).as_torch()
        assert flat(islice(loader, 4)) == order[:24]
        state = loader.state_dict()

        for size, threads in ((1, 0), (5, 1), (1000, 3)):
            other = seq.rebatch(size).as_torch(threads=threads)
            other.load_state_dict(state)
            assert flat(other) == order[24:]

        ranks = [seq.rebatch(6).as_torch(rank=rank, world=3, uneven="short") for rank in range(3)]
        for rank in ranks:
            rank.load_state_dict(state)
        assert sorted(label for rank in ranks for label in flat(rank)) == sorted(order[24:])

        for rank in ranks:
            rank.load_state_dict(state)
        passes = [iter(rank) for rank in ranks]
        seen = order[:24] + [label for each in passes for label in flat(islice(each, 2))]
        assert len({str(rank.state_dict()) for rank in ranks}) == 1
        other = seq.rebatch(9).as_torch()
        other.load_state_dict(ranks[2].state_dict())
        assert sorted(seen + flat(other)) == list(range(N))


def test_states_are_those_of_the_plain_loader(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        ours, plain = seq.as_torch(), hs.Loader(seq)
        a, b = iter(ours), iter(plain)
        for _ in range(5):
            next(a), next(b)
            assert ours.state_dict() == plain.state_dict()
        other = hs.Loader(seq)
        other.load_state_dict(ours.state_dict())
        assert flat(other) == flat(seq)[40:]
        again = seq.as_torch()
        again.load_state_dict(plain.state_dict())
        assert flat(again) == flat(seq)[40:]


def test_a_state_survives_torch_save(numbered: Path, tmp_path: Path) -> None:
    with hs.open(numbered) as file:
        loader = file.shuffled(1).as_torch()
        next(iter(loader))
        torch.save({"loader": loader.state_dict()}, tmp_path / "a.pt")
        other = file.shuffled(1).as_torch()
        other.load_state_dict(torch.load(tmp_path / "a.pt", weights_only=True)["loader"])
        assert flat(other) == flat(file.shuffled(1))[8:]


def test_set_epoch_after_a_state_of_this_epoch_keeps_the_place(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loader = seq.as_torch()
        loader.set_epoch(3)
        assert flat(islice(loader, 2)) == flat(seq.at_epoch(3))[:16]
        state = loader.state_dict()
        for epoch, expected in ((3, flat(seq.at_epoch(3))[16:]), (4, flat(seq.at_epoch(4))), (0, flat(seq))):
            other = seq.as_torch()
            other.load_state_dict(state)
            other.set_epoch(epoch)
            assert flat(other) == expected
            other.set_epoch(3)  # by now it is an epoch like any other
            assert flat(other) == flat(seq.at_epoch(3))


def test_break_begins_the_epoch_again(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loader = seq.as_torch()
        for _ in range(3):
            for n, _batch in enumerate(loader, 1):
                if n == 4:
                    break
            assert loader.state_dict()["position"] == 32
        assert [flat(loader) for _ in range(2)] == [flat(seq), flat(seq.at_epoch(1))]
        for n, _batch in enumerate(loader, 1):
            if n == len(loader):
                break
        assert flat(loader) == flat(seq.at_epoch(3))  # nothing of that epoch was left


def test_set_epoch_and_load_state_dict_leave_a_pass_alone(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loader = seq.as_torch()
        under_way = iter(loader)
        seen = flat(islice(under_way, 2))
        loader.set_epoch(7)
        seen += flat(islice(under_way, 2))
        assert (loader.state_dict()["epoch"], loader.state_dict()["position"]) == (7, 0)
        assert seen + flat(under_way) == flat(seq)
        assert flat(loader) == flat(seq.at_epoch(7))


def test_iterators_at_once_and_nested_have_places_of_their_own(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loader = seq.as_torch(threads=1)
        both = [(flat([a]), flat([b])) for a, b in zip(loader, loader, strict=True)]
        assert [a for a, _ in both] == [b for _, b in both] == [flat([batch]) for batch in seq]

        loader = seq.as_torch()
        outer = []
        for batch in loader:
            outer += flat([batch])
            if len(outer) % 32 == 0:
                assert flat(islice(loader, 2)) == flat(seq)[:16]
        assert outer == flat(seq)


def test_iterators_in_several_threads(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loaders, found = [seq.as_torch(threads=1) for _ in range(3)], {}

        def walk(number: int) -> None:
            found[number] = [flat(loaders[number]) for _ in range(3)]

        threads = [threading.Thread(target=walk, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        expected = [flat(seq.at_epoch(epoch)) for epoch in range(3)]
        assert all(found[number] == expected for number in range(3))


@pytest.mark.parametrize("seed", range(12))
def test_a_loader_does_what_the_plain_loader_does_whatever_happens(numbered: Path, seed: int) -> None:
    rng = random.Random(seed)
    with hs.open(numbered) as file:
        seq = file.shuffled(1).rebatch(rng.choice([1, 7, 30]))
        ours, plain = seq.as_torch(threads=seed % 2), hs.Loader(seq, threads=0)
        passes: list[tuple] = []
        states = [plain.state_dict()]
        for _ in range(80):
            step = rng.choice(["begin", "next", "next", "next", "next", "end", "close", "epoch", "load", "save"])
            if step == "begin":
                passes.append((iter(ours), iter(plain)))
            if step in ("begin", "next") and passes:
                a, b = passes[-1] if step == "begin" else rng.choice(passes)
                found, expected = next(a, None), next(b, None)
                assert (found is None) == (expected is None)
                assert found is None or found[1].tolist() == expected[1].tolist()
            elif step == "end" and passes:
                a, b = passes.pop()
                assert flat(a) == flat(b)
            elif step == "close" and passes:
                for each in passes.pop(rng.randrange(len(passes))):
                    each.close()
            elif step == "epoch":
                epoch = rng.randrange(4)
                ours.set_epoch(epoch), plain.set_epoch(epoch)
            elif step == "load":
                state = rng.choice(states)
                ours.load_state_dict(state), plain.load_state_dict(state)
            states.append(plain.state_dict())
            assert ours.state_dict() == states[-1]
        passes.clear()


def test_abandoned_iterators_leave_no_threads(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader = file.shuffled(1).as_torch(threads=2, prefetch=2)
        iterators = [iter(loader) for _ in range(5)]
        assert not hsq_threads()  # nothing begins before the first batch is asked for
        for iterator in iterators:
            next(iterator)
        assert hsq_threads()
        del iterator
        iterators.clear()
        settle(lambda: not hsq_threads())
        with pytest.raises(KeyError):
            for _ in loader:
                raise KeyError("in the loop's body")
        settle(lambda: not hsq_threads())


def test_an_error_of_a_map_comes_at_its_batch(numbered: Path) -> None:
    def fail(batch):
        if 50 in batch[1]:
            raise KeyError("fifty")
        return batch

    def stop(batch):
        raise StopIteration

    with hs.open(numbered) as file:
        loader = file.rebatch(4).map(fail).as_torch()
        seen = []
        with pytest.raises(KeyError, match="fifty") as caught:
            for batch in loader:
                seen += flat([batch])
        assert seen == list(range(48)) and loader.state_dict()["position"] == 48
        assert "batch 12 of epoch 0" in "".join(caught.value.__notes__)
        with pytest.raises(RuntimeError, match="StopIteration"):
            list(file.map(stop).as_torch())


def test_states_of_something_else_are_refused(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader = file.shuffled(1).as_torch()
        for state in (file.shuffled(2).as_torch().state_dict(), file.as_torch().state_dict(), {}, None):
            with pytest.raises(hs.ArgumentError, match="load_state_dict"):
                loader.load_state_dict(state)
        assert flat(loader) == flat(file.shuffled(1))


def test_a_pass_goes_on_in_a_forked_process(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loader = seq.as_torch(threads=2)
        under_way = iter(loader)
        seen = flat(islice(under_way, 3))
        receiver, sender = multiprocessing.Pipe(duplex=False)

        def child() -> None:
            sender.send([flat(under_way), loader.state_dict(), flat(loader)])

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            process = multiprocessing.get_context("fork").Process(target=child)
            process.start()
        assert receiver.poll(60)
        rest, state, following = receiver.recv()
        process.join(60)
        assert process.exitcode == 0
        assert seen + rest == flat(seq) and following == flat(seq.at_epoch(1))
        assert (state["epoch"], loader.state_dict()["position"]) == (1, 24)
        assert seen + flat(under_way) == flat(seq)


def test_a_program_may_end_in_the_middle_of_a_pass(numbered: Path) -> None:
    said = run(
        """
        import sys
        import hypersequence as hs

        iterator = iter(hs.open(sys.argv[1]).shuffled(1).as_torch(threads=2, prefetch=2))
        print(len(next(iterator)[1]))
        """,
        numbered,
    )
    assert said == "8\n"


def test_shuffling_the_sequence_in_place_does_not_change_its_loader(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader, dataset = file.as_torch(), file.as_torch_dataset()
        file.shuffle(3)
        assert flat(loader) == list(range(N)) == [int(dataset[i][1]) for i in range(N)]


def test_loaders_and_data_sets_are_copied_and_pickled(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        loader = seq.as_torch(threads=1, device="cpu", global_batch=8)
        loader.set_epoch(2)
        next(iter(loader))
        for other in (pickle.loads(pickle.dumps(loader)), copy.deepcopy(loader)):
            assert other.state_dict() == loader.state_dict()
            assert flat(other) == flat(seq.at_epoch(2))
        dataset = seq.as_torch_dataset()
        twice = pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(dataset))))
        for other in (twice, copy.copy(dataset), copy.deepcopy(dataset)):
            assert flat(DataLoader(other, 10)) == flat(seq)
        assert_same(pickle.loads(pickle.dumps(seq.as_torch_dataset("batch")))[3], seq[3])


def test_a_data_set_with_a_map_that_cannot_be_pickled_is_copied(numbered: Path) -> None:
    with hs.open(numbered) as file:
        dataset = file.map(lambda batch: (batch[0], -batch[1])).as_torch_dataset("batch")
        for other in (copy.copy(dataset), copy.deepcopy(dataset)):
            assert other[1][1].tolist() == list(range(-8, -16, -1))


def test_a_loader_says_what_it_is(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader = file.shuffled(7).as_torch(rank=1, world=2, global_batch=10)
        assert (loader.batch_size, loader.sequence.batch_size(), len(loader)) == (5, 5, 10)
        next(iter(loader))
        assert repr(loader).startswith("<TorchLoader, epoch 0, position 10, of ") and "7" in repr(loader)
        assert "single records" in repr(file.as_torch_dataset()) and "batches" in repr(file.as_torch_dataset("batch"))
        list(loader)
        assert loader.stats.batches == 10 and str(loader.stats)
        assert isinstance(loader, hs.torch.TorchLoader)
        assert isinstance(file.as_torch_dataset(), hs.torch.TorchDataset)


# --- ranks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_short_gives_every_record_to_one_rank(numbered: Path, world: int) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        for epoch in range(2):
            ranks = [seq.as_torch(rank=rank, world=world, uneven="short") for rank in range(world)]
            for rank in ranks:
                rank.set_epoch(epoch)
            assert len({len(rank) for rank in ranks}) == 1
            assert sorted(label for rank in ranks for label in flat(rank)) == list(range(N))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_pad_counts_every_record_once_by_its_weights(numbered: Path, world: int) -> None:
    with hs.open(numbered) as file:
        counted, sizes = [], set()
        for rank in range(world):
            for _, labels, weights in file.shuffled(1).as_torch(rank=rank, world=world, uneven="pad"):
                assert weights.dtype == torch.float32
                counted += labels[weights == 1].tolist()
                sizes.add(len(labels))
        assert sorted(counted) == list(range(N)) and sizes == {8}


def test_several_ranks_drop_what_is_left_and_one_does_not(numbered: Path) -> None:
    with hs.open(numbered) as file:
        ranks = [file.as_torch(rank=rank, world=2) for rank in range(2)]
        assert [len(rank) for rank in ranks] == [6, 6]
        assert sorted(flat(ranks[0]) + flat(ranks[1])) == list(range(96))
        assert flat(file.as_torch(rank=0, world=1)) == list(range(N))
        assert flat(file.as_torch(rank=0, world=1, uneven="drop")) == list(range(96))


def test_a_global_batch_is_the_same_records_whatever_the_world(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        expected = [sorted(flat([batch])) for batch in seq.rebatch(12, drop_last=True)]
        for world in (1, 2, 3, 4, 12):
            options = {"world": world, "global_batch": 12, "uneven": "drop"}
            ranks = [seq.as_torch(rank=rank, **options) for rank in range(world)]
            assert {rank.batch_size for rank in ranks} == {12 // world}
            together = [sorted(label for batch in batches for label in flat([batch])) for batches in zip(*ranks)]  # noqa: B905
            assert together == expected


def test_a_shard_stays_one(numbered: Path) -> None:
    with hs.open(numbered) as file:
        shard = file.shuffled(1).shard(1, 3, "short")
        assert flat(shard.as_torch()) == flat(shard)
        with pytest.raises(hs.ArgumentError, match="shard"):
            len(shard.as_torch(rank=0, world=2))
        with pytest.raises(hs.ArgumentError, match="shard"):
            len(shard.as_torch(global_batch=6))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rank": 2, "world": 2}, "rank of 2"),
        ({"rank": -1, "world": 2}, "rank of 2"),
        ({"rank": 0, "world": 0}, "world"),
        ({"rank": 0.5, "world": 2}, "rank"),
        ({"rank": 0}, "rank and world go together"),
        ({"world": 2}, "rank and world go together"),
        ({"rank": 0, "world": 2, "global_batch": 7}, "global_batch=7"),
        ({"global_batch": 0}, "global_batch"),
        ({"rank": 0, "world": 20}, "uneven='drop' leaves nothing"),
        ({"rank": 0, "world": 200, "uneven": "short"}, "short"),
        ({"rank": 0, "world": 2, "uneven": "maybe"}, "uneven"),
        ({"uneven": "maybe"}, "uneven"),
        ({"threads": -1}, "threads"),
        ({"prefetch": 0}, "prefetch"),
        ({"on_corrupt": "hope"}, "on_corrupt"),
        ({"device": "toaster"}, "toaster"),
        ({"device": 1.5}, "device"),
        ({"device": "cpu:x"}, "device"),
        *(
            [
                ({"device": "cuda"}, "CUDA"),
                ({"device": "cuda:0"}, "CUDA"),
                ({"device": torch.device("cuda")}, "CUDA"),
                ({"device": 0}, "device"),
                ({"pin_memory": True}, "CUDA"),
            ]
            if not torch.cuda.is_available()
            else [({"device": "cuda:99"}, "device")]
        ),
        *([({"device": "mps"}, "mps")] if not torch.backends.mps.is_available() else []),
        *([({"device": "xpu"}, "xpu")] if not torch.xpu.is_available() else []),
    ],
    ids=str,
)
def test_what_makes_no_sense_is_refused(numbered: Path, options: dict, says: str) -> None:
    with hs.open(numbered) as file, pytest.raises(hs.ArgumentError, match=says):
        next(iter(file.rebatch(6).as_torch(**options)))


def test_options_that_nobody_knows_are_refused(numbered: Path) -> None:
    with hs.open(numbered) as file:
        with pytest.raises(TypeError, match="num_workers"):
            file.as_torch(num_workers=2)
        with pytest.raises(hs.ArgumentError, match="unit"):
            file.as_torch_dataset("sample")


def one_of_two_ranks(rank: int, folder: Path) -> None:
    """Runs in a process of its own, one for each rank; what it finds goes into a file."""
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    seq = hs.open(folder / "numbered.hsq").shuffled(1)
    before = seq.as_torch(uneven="short")
    found["length before"] = len(before)
    resumed = seq.as_torch(uneven="short")
    resumed.load_state_dict(json.loads((folder / "state.json").read_text()))
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        found["length after"] = len(before)
        found["made before"] = [flat(before) for _ in range(2)]
        found["resumed"] = flat(resumed)
        found["made after"] = flat(seq.as_torch(uneven="short"))
        found["default"] = flat(seq.as_torch())
        padded = seq.as_torch(uneven="pad")
        found["padded"] = [label for _, y, weight in padded for label in y[weight == 1].tolist()]
        found["explicit"] = flat(seq.as_torch(rank=1 - rank, world=2, uneven="short"))
        found["shard"] = flat(seq.shard(2, 3, "short").as_torch())
        found["global batch"] = [flat([batch]) for batch in seq.as_torch(global_batch=6)]
        state = seq.as_torch(uneven="short")
        found["begun"] = flat(islice(state, 3))
        found["state"] = state.state_dict()
        try:
            len(seq.as_torch(global_batch=7))
        except hs.ArgumentError as error:
            found["refused"] = str(error)
        everybody = torch.zeros(N, dtype=torch.int64)
        for _, y in before:
            everybody[y] += 1
        torch.distributed.all_reduce(everybody)
        found["counted"] = everybody.tolist()
    finally:
        torch.distributed.destroy_process_group()
    found["length at the end"] = len(before)
    (folder / f"{rank}.json").write_text(json.dumps(found))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("ranks")
    with hs.HyperSequenceWriter(folder / "numbered.hsq", batch_size=8, block_nbytes=1500) as writer:
        for i in range(N):
            writer.append(inputs=np.full((3, 5), i, np.float32), outputs=i)
    with hs.open(folder / "numbered.hsq") as file:
        loader = file.shuffled(1).as_torch()
        next(iter(loader))
        (folder / "state.json").write_text(json.dumps(loader.state_dict()))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=one_of_two_ranks, args=(rank, folder), daemon=True) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder / "numbered.hsq", [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_torch_distributed_tells_rank_and_world(two_ranks) -> None:
    path, (first, second) = two_ranks
    with hs.open(path) as file:
        shares = [file.shuffled(1).shard(rank, 2, "short") for rank in range(2)]
        for found, share in zip((first, second), shares, strict=True):
            assert found["made after"] == flat(share)
            assert [found[f"length {when}"] for when in ("before", "after", "at the end")] == [13, 7, 13]
            assert found["made before"] == [flat(share), flat(share.at_epoch(1))]
    assert sorted(first["made after"] + second["made after"]) == list(range(N))
    assert sorted(first["padded"] + second["padded"]) == list(range(N))
    assert len(first["default"]) == len(second["default"]) == 48 and not set(first["default"]) & set(second["default"])
    assert first["counted"] == second["counted"] == [1] * N


def test_what_a_person_says_counts_for_more_than_torch_distributed(two_ranks) -> None:
    path, (first, second) = two_ranks
    assert (first["explicit"], second["explicit"]) == (second["made after"], first["made after"])
    with hs.open(path) as file:
        seq = file.shuffled(1)
        assert first["shard"] == second["shard"] == flat(seq.shard(2, 3, "short"))
        expected = [sorted(flat([batch])) for batch in seq.rebatch(6, drop_last=True)]
    pairs = zip(first["global batch"], second["global batch"], strict=True)
    assert [sorted(a + b) for a, b in pairs] == expected
    assert "global_batch=7" in first["refused"] and "world of 2" in first["refused"]


def test_states_go_from_one_process_to_two_and_back(two_ranks) -> None:
    path, (first, second) = two_ranks
    with hs.open(path) as file:
        seq = file.shuffled(1)
        order = flat(seq)
        assert sorted(first["resumed"] + second["resumed"]) == sorted(order[8:])
        assert first["state"] == second["state"]
        alone = seq.rebatch(5).as_torch()
        alone.load_state_dict(first["state"])
        assert sorted(first["begun"] + second["begun"] + flat(alone)) == list(range(N))


# --- types -----------------------------------------------------------------------------------------------------------

TYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "bfloat16"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu"),
]


def any_bits(name: str, n: int) -> np.ndarray:
    """Values of any bits: NaNs, infinities and denormals among them."""
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    raw = np.random.default_rng(1).integers(0, 256, n * dtype.itemsize, np.uint8)
    return (raw & 1).view(bool) if name == "bool" else raw.view(dtype)


@pytest.mark.parametrize("name", TYPES)
def test_every_type_that_torch_has_bit_for_bit(tmp_path: Path, name: str) -> None:
    rows, single = any_bits(name, 60).reshape(20, 3), any_bits(name, 20)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4) as writer:
        writer.extend(rows, single)
    with hs.open(tmp_path / "a.hsq") as file:
        for seq in (file, file.shuffled(1).rebatch(3), file.map(lambda batch: (batch[0][:, ::-1], batch[1].copy()))):
            for batch, expected in zip(seq.as_torch(), seq, strict=True):
                assert_same(batch, expected)
            dataset = seq.as_torch_dataset("batch")
            for i in range(len(seq)):
                assert_same(dataset[i], seq[i])


@pytest.mark.parametrize("name", TYPES)
def test_single_records_of_every_type(tmp_path: Path, name: str) -> None:
    rows, single = any_bits(name, 60).reshape(20, 3), any_bits(name, 20)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4) as writer:
        writer.extend(rows, single)
    with hs.open(tmp_path / "a.hsq") as file:
        dataset = file.as_torch_dataset()
        for i in (0, 7, -1):
            assert_same(dataset[i][0], rows[i])
            assert_same(dataset[i][1], np.asarray(single[i]))
        for collate in (None, dataset.collate):
            batches = list(DataLoader(dataset, 10, collate_fn=collate))
            assert b"".join(bits(x) for x, _ in batches) == rows.tobytes()
            assert b"".join(bits(y) for _, y in batches) == single.tobytes()
            assert {str(part.dtype) for batch in batches for part in batch} == {f"torch.{name}"}


@pytest.mark.parametrize(
    "values",
    [
        np.arange(8).astype("M8[s]"),
        np.arange(8).astype("m8[ms]"),
        np.arange(8).astype("U3"),
        np.arange(8).astype("S3"),
        *(
            np.zeros(8, getattr(ml_dtypes, name))
            for name in ("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz")
            if not hasattr(torch, name)
        ),
    ],
    ids=lambda values: values.dtype.name,
)
def test_types_that_torch_lacks_are_refused_by_name(tmp_path: Path, values: np.ndarray) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4) as writer:
        writer.extend({"image": np.zeros((8, 2), np.float32), "odd": values}, np.arange(8))
    with hs.open(tmp_path / "a.hsq") as file:
        for make in (file.as_torch, file.as_torch_dataset, lambda: file.as_torch_dataset("batch")):
            with pytest.raises(hs.ArgumentError, match=r"odd.*fields\(\.\.\.\).*map\(\.\.\.\)"):
                make()
        without = file.fields("image", "outputs")
        assert [list(x) for x, _ in without.as_torch()] == [["image"]] * 2
        assert list(without.as_torch_dataset()[0][0]) == ["image"]

        def convert(batch):
            inputs, outputs = batch
            return {**inputs, "odd": np.arange(len(outputs))}, outputs

        assert [x["odd"].tolist() for x, _ in file.map(convert).as_torch()] == [[0, 1, 2, 3]] * 2
        for make in (file.map(lambda batch: batch).as_torch, lambda: file.map(lambda b: b).as_torch_dataset("batch")):
            with pytest.raises(hs.ArgumentError, match=r"fields\(\.\.\.\).*map\(\.\.\.\)"):
                next(iter(make()))


# --- memory ----------------------------------------------------------------------------------------------------------


def frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


def packed(array: np.ndarray) -> np.ndarray:
    rows = np.zeros(array.shape, [("flag", "u1"), ("value", "f4")])
    rows["value"] = array
    return rows["value"]


MAPS = {
    "nothing": lambda x: x,
    "read-only": frozen,
    "flipped": lambda x: x[:, ::-1],
    "flipped twice": lambda x: x[::-1, :, ::-1],
    "flipped and read-only": lambda x: frozen(x)[:, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "transposed": lambda x: x.swapaxes(1, 2),
    "read-only and transposed": lambda x: frozen(x).swapaxes(1, 2),
    "in Fortran's order": np.asfortranarray,
    "every second": lambda x: x[:, ::2],
    "big-endian": lambda x: x.astype(">f4"),
    "big-endian, flipped and read-only": lambda x: frozen(x.astype(">f4"))[:, ::-1],
    "a member of packed structs": packed,
    "half precision": lambda x: x.astype(ml_dtypes.bfloat16)[:, ::-1],
    "a tensor": lambda x: torch.from_numpy(x.copy()),
    "numbers": lambda x: x.mean(),
    "a list": lambda x: [x, frozen(x)],
    "named": lambda x: {"a": x, "b": x[:, ::-1]},
}


def as_arrays(part):
    """What a map gave, as arrays of the machine's byte order."""
    if isinstance(part, dict):
        return {name: as_arrays(member) for name, member in part.items()}
    if isinstance(part, tuple | list):
        return tuple(as_arrays(member) for member in part)
    array = part.numpy() if isinstance(part, torch.Tensor) else np.asarray(part)
    return array.astype(array.dtype.newbyteorder("=")) if not array.dtype.isnative else array


@pytest.mark.parametrize("change", MAPS)
@pytest.mark.parametrize("chain", ["file order", "record"])
def test_whatever_a_map_gives_may_be_written_to(numbered: Path, change: str, chain: str) -> None:
    content = numbered.read_bytes()
    with hs.open(numbered) as file:
        plain = CHAINS[chain](file)
        seq = plain.map(lambda batch: (MAPS[change](batch[0]), batch[1]))
        ways = [plain.as_torch_dataset("batch"), plain.as_torch()] if change == "nothing" else []
        for way in [*ways, seq.as_torch(), seq.as_torch(threads=0), seq.as_torch_dataset("batch")]:
            kept = []
            batches = [way[i] for i in range(len(way))] if isinstance(way, torch.utils.data.Dataset) else way
            for batch, expected in zip(batches, seq, strict=True):
                assert_same(batch, as_arrays(expected))
                for tensor in tensors_in(batch):
                    tensor.copy_(torch.full_like(tensor.contiguous(), 77))
                kept.append(batch)
            assert all((tensor == 77).all() for batch in kept for tensor in tensors_in(batch))
        assert flat(plain) == flat(hs.open(numbered) if chain == "file order" else CHAINS[chain](hs.open(numbered)))
    assert numbered.read_bytes() == content


def test_single_records_may_be_written_to(numbered: Path) -> None:
    content = numbered.read_bytes()
    with hs.open(numbered) as file:
        dataset = file.as_torch_dataset()
        for samples in ([dataset[3]], dataset.__getitems__([4, 5, 6]), dataset.__getitems__([9, 2])):
            for x, y in samples:
                assert (x == y).all()
                x += 1
                y += 2
        batch = dataset.collate(dataset.__getitems__(list(range(8))))
        batch[0].zero_()
        assert [int(dataset[i][1]) for i in range(N)] == list(range(N))
        assert (dataset[4][0] == 4).all()
    assert numbered.read_bytes() == content


def tensors_over(batch):
    return torch.from_numpy(batch[0]), torch.as_tensor(batch[1])


@pytest.mark.parametrize("threads", [0, 2])
def test_a_map_may_make_tensors_over_its_batch(numbered: Path, threads: int) -> None:
    with hs.open(numbered) as file:
        kept = []
        for x, y in file.map(tensors_over).as_torch(threads=threads):
            assert (x == y[:, None, None]).all()
            kept.append((x.add_(1), y.add_(1)))
        assert all((x == y[:, None, None]).all() for x, y in kept)
        assert flat(file) == list(range(N))


def test_a_map_may_make_tensors_over_its_batch_in_a_data_set(numbered: Path) -> None:
    run(
        """
        import sys
        import torch
        import hypersequence as hs

        seq = hs.open(sys.argv[1]).map(lambda batch: (torch.from_numpy(batch[0]), torch.as_tensor(batch[1])))
        dataset = seq.as_torch_dataset("batch")
        for number in range(len(dataset)):
            x, y = dataset[number]
            assert y[0] == 8 * number and (x[0] == y[0]).all()
            x.add_(1)  # a program may be ended here by its system, if this is the file's mapping
            y.zero_()
        assert (hs.open(sys.argv[1])[0][1] == range(8)).all()
        """,
        numbered,
    )


@pytest.mark.parametrize("options", [{"threads": 0}, {"threads": 2, "prefetch": 1}, {"threads": 3}, {"evict": True}])
def test_tensors_that_are_kept_do_not_change(tmp_path: Path, options: dict) -> None:
    with hs.HyperSequenceWriter(tmp_path / "wide.hsq", 10) as writer:
        for i in range(400):
            writer.append(np.full(4096, i, np.float32), i)
    with hs.open(tmp_path / "wide.hsq") as file:
        for seq in (file, file.shuffled(1, by="record").rebatch(16), file.rebatch(7)):
            loader, kept = seq.as_torch(**options), []
            for _ in range(2):
                for x, y in loader:
                    kept.append((x[1:], y.clone(), x[:1].numpy()))
                    del x, y
            assert sum(len(x) + 1 for x, _, _ in kept) == 800
            for x, y, first in kept:
                assert (x == y[1:, None]).all() and (first == y[:1, None].numpy()).all()
            kept[0][0].fill_(-1)
            assert all((x == y[1:, None]).all() for x, y, _ in kept[1:])


def test_tensors_outlive_the_file(numbered: Path) -> None:
    with hs.open(numbered) as file:
        batches = list(file.as_torch())
        single = file.as_torch_dataset()[5]
    gc.collect()
    assert flat(batches) == list(range(N)) and int(single[1]) == 5
    assert all((x == y[:, None, None]).all() for x, y in batches)


def test_a_kept_tensor_is_saved_without_its_neighbours(numbered: Path, tmp_path: Path) -> None:
    with hs.open(numbered) as file:
        batches = list(file.rebatch(1).as_torch())
    torch.save(batches[50][0], tmp_path / "a.pt")
    assert (tmp_path / "a.pt").stat().st_size < 3000
    assert torch.equal(torch.load(tmp_path / "a.pt"), batches[50][0])


# --- devices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_the_cpu_is_a_device(numbered: Path, device) -> None:
    with hs.open(numbered) as file:
        loader = file.shuffled(1).as_torch(device=device)
        for batch, expected in zip(loader, file.shuffled(1), strict=True):
            assert_same(batch, expected)


def test_the_meta_device_has_shapes_and_types_only(numbered: Path) -> None:
    with hs.open(numbered) as file:
        for seq in (file.rebatch(5), file.map(lambda batch: batch).rebatch(5), file.fields("outputs").rebatch(5)):
            loader = seq.as_torch(device="meta")
            batches = list(loader)
            assert [len(y) for _, y in batches] == [5] * 20 + [3]
            assert all(y.device.type == "meta" and y.dtype == torch.int64 for _, y in batches)
            assert loader.state_dict()["epoch"] == 1
            assert len(list(islice(loader, 4))) == 4 and loader.state_dict()["position"] == 20


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("options", [{"device": "cuda"}, {"pin_memory": True}, {"device": "cuda", "threads": 0}])
@pytest.mark.parametrize("size", [1, 8, 300])
def test_batches_that_are_kept_on_a_gpu(tmp_path: Path, options: dict, size: int) -> None:
    with hs.HyperSequenceWriter(tmp_path / "wide.hsq", 10) as writer:
        for i in range(400):
            writer.append({"a": np.full(20_000, i, np.float32)}, i)
    with hs.open(tmp_path / "wide.hsq") as file:
        seq = file.shuffled(1).rebatch(size)
        loader, kept = seq.as_torch(**options), []
        for _ in range(2):
            for number, (x, y) in enumerate(loader, 1):
                assert x["a"].is_cuda if "device" in options else x["a"].is_pinned() and y.is_pinned()
                assert loader.state_dict()["position"] == (number * size if number * size < 400 else 0)
                kept.append((x["a"] + 0, x["a"], y))
        assert [int(label) for _, _, y in kept for label in y] == flat(seq) + flat(seq.at_epoch(1))
        for copied, x, y in kept:
            assert (x == y[:, None]).all() and (copied == y[:, None]).all()


# --- data sets -------------------------------------------------------------------------------------------------------


def test_single_records_by_number(numbered: Path) -> None:
    with hs.open(numbered) as file:
        dataset = file.as_torch_dataset()
        assert len(dataset) == N
        for index, expected in ((0, 0), (N - 1, N - 1), (-1, N - 1), (-N, 0), (np.int64(9), 9), (torch.tensor(4), 4)):
            x, y = dataset[index]
            assert x.shape == (3, 5) and y.shape == () and int(y) == expected and (x == expected).all()
        for index in (N, -N - 1, 10**30):
            with pytest.raises(IndexError):
                dataset[index]
        for index in (slice(3), "1", 1.0, None):
            with pytest.raises(TypeError):
                dataset[index]
        assert [int(y) for _, y in dataset] == list(range(N))  # an IndexError ends it


def test_several_records_by_number(numbered: Path) -> None:
    with hs.open(numbered) as file:
        dataset = file.as_torch_dataset()
        for indices in ([5], [3, 1, 2], [0, 1, 2, 3], [7, 7, 7], [-1, 0], [torch.tensor(4), torch.tensor(2)]):
            together = dataset.__getitems__(indices)
            assert len(together) == len(indices)
            assert [int(y) for _, y in together] == [int(i) % N for i in indices]
            assert int(together[-1][1]) == int(indices[-1]) % N
            for found, expected in zip(dataset.collate(together), together.batch, strict=True):
                assert torch.equal(found, expected)
        assert len(dataset.__getitems__([])) == 0
        for indices in ([N], [0, -N - 1]):
            with pytest.raises(IndexError):
                dataset.__getitems__(indices)
        together = dataset.__getitems__([3, 1, 2])
        assert [int(y) for _, y in together[1:]] == [1, 2]
        with pytest.raises(IndexError):
            together[3]


def test_batches_by_number(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1).map(lambda batch: (batch[0] * 2, batch[1]))
        dataset = seq.as_torch_dataset(unit="batch")
        assert len(dataset) == len(seq) == 13
        for i in (0, 5, 12, -1, -13):
            assert_same(dataset[i], seq[i])
        for i in (13, -14):
            with pytest.raises(IndexError):
                dataset[i]
        assert flat(DataLoader(dataset, batch_size=None)) == flat(seq)


def test_a_collate_function_of_ones_own_gets_a_sequence_of_records(numbered: Path) -> None:
    def descending(samples):
        samples = sorted(samples, key=lambda sample: -int(sample[1]))  # as for packing sequences of different lengths
        inputs, labels = zip(*samples, strict=True)
        return torch.stack(inputs), torch.stack(labels)

    with hs.open(numbered) as file:
        dataset = file.as_torch_dataset()
        assert flat(DataLoader(dataset, N, collate_fn=descending)) == list(reversed(range(N)))


def test_the_default_collate_and_ours_give_the_same(numbered: Path) -> None:
    with hs.open(numbered) as file:
        dataset = file.shuffled(1).as_torch_dataset()
        plain = list(DataLoader(dataset, 10, sampler=range(N)))
        ours = list(DataLoader(dataset, 10, sampler=range(N), collate_fn=dataset.collate))
        for (x, y), (xx, yy) in zip(plain, ours, strict=True):
            assert torch.equal(x, xx) and torch.equal(y, yy)
        assert flat(plain) == flat(file.shuffled(1))
        stacked = dataset.collate([dataset[2], dataset[0]])
        assert [tuple(part.shape) for part in stacked] == [(2, 3, 5), (2,)]


def test_samplers_subsets_and_splits(numbered: Path) -> None:
    with hs.open(numbered) as file:
        dataset = file.as_torch_dataset()
        for collate in (None, dataset.collate):
            options = {"batch_size": 10, "collate_fn": collate}
            assert flat(DataLoader(Subset(dataset, [5, 3, 9]), **options)) == [5, 3, 9]
            assert flat(DataLoader(Subset(dataset, np.arange(4, 40, 3)), **options)) == list(range(4, 40, 3))
            assert flat(DataLoader(Subset(dataset, torch.arange(4, 40, 3)), **options)) == list(range(4, 40, 3))
            parts = random_split(dataset, [0.8, 0.2], torch.Generator().manual_seed(0))
            found = [flat(DataLoader(part, shuffle=True, **options)) for part in parts]
            assert sorted(found[0] + found[1]) == list(range(N)) and len(found[1]) == 20
            for chosen in ([5, 6, 7], torch.tensor([5, 6, 7]), np.array([5, 6, 7])):
                sampler = SubsetRandomSampler(chosen)
                assert sorted(flat(DataLoader(dataset, sampler=sampler, **options))) == [5, 6, 7]
            both = ConcatDataset([dataset, dataset])
            assert flat(DataLoader(both, **options)) == [*range(N), *range(N)]
            distributed = torch.utils.data.DistributedSampler(dataset, 2, 1, shuffle=False, drop_last=True)
            assert flat(DataLoader(dataset, sampler=distributed, **options)) == list(range(1, N - 1, 2))


def negative(batch):
    return batch[0], -batch[1]


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_workers(numbered: Path, context: str) -> None:
    with hs.open(numbered) as file:
        options = {"num_workers": 2, "multiprocessing_context": context, "persistent_workers": True, "timeout": 60}
        dataset = file.shuffled(1).as_torch_dataset()
        assert int(dataset[0][1]) == flat(file.shuffled(1))[0]  # it was in use before workers begin
        loader = DataLoader(dataset, 10, shuffle=True, collate_fn=dataset.collate, **options)
        passes = []
        for _ in range(2):
            batches = list(loader)
            assert all((x == y[:, None, None]).all() for x, y in batches)
            passes.append(flat(batches))
        assert sorted(passes[0]) == sorted(passes[1]) == list(range(N)) and passes[0] != passes[1]


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_that_make_whole_batches(numbered: Path, context: str) -> None:
    with hs.open(numbered) as file:
        mapped = file.shuffled(1).map(negative)
        options = {"num_workers": 1, "multiprocessing_context": context, "persistent_workers": True, "timeout": 60}
        loader = DataLoader(mapped.as_torch_dataset("batch"), batch_size=None, **options)
        assert flat(loader) == flat(loader) == flat(mapped)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_default_collate_in_workers(numbered: Path, num_workers: int) -> None:
    with hs.open(numbered) as file:
        dataset = file.as_torch_dataset()
        loader = DataLoader(dataset, 10, num_workers=num_workers, shuffle=True)
        for _ in range(2):
            assert sorted(flat(loader)) == list(range(N))


def test_workers_that_are_forked_while_a_loader_is_at_work(numbered: Path) -> None:
    with hs.open(numbered) as file:
        under_way = iter(file.shuffled(1).as_torch(threads=2))
        first = next(under_way)
        loader = DataLoader(file.as_torch_dataset(), 10, num_workers=2, multiprocessing_context="fork", timeout=60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert flat(loader) == list(range(N))
        assert flat([first]) + flat(under_way) == flat(file.shuffled(1))


def test_torchdata_resumes_a_data_set(numbered: Path) -> None:
    from torchdata.stateful_dataloader import StatefulDataLoader

    with hs.open(numbered) as file:
        dataset = file.shuffled(1).as_torch_dataset()
        for workers in (0, 2):
            loader = StatefulDataLoader(dataset, 10, num_workers=workers, collate_fn=dataset.collate)
            iterator = iter(loader)
            first = flat(islice(iterator, 4))
            state = loader.state_dict()
            other = StatefulDataLoader(dataset, 10, num_workers=workers, collate_fn=dataset.collate)
            other.load_state_dict(state)
            assert first + flat(other) == flat(file.shuffled(1))
            del iterator, loader, other


@pytest.mark.parametrize(("context", "unit"), [("spawn", "record"), ("forkserver", "batch")])
def test_a_file_that_has_gone_is_an_error_in_the_training_process(numbered: Path, context: str, unit: str) -> None:
    with hs.open(numbered) as file:
        dataset, size = file.as_torch_dataset(unit), 4 if unit == "record" else None
        options = {"num_workers": 1, "multiprocessing_context": context, "timeout": 60}
        loader = DataLoader(dataset, size, sampler=range(4 if unit == "record" else 1), **options)
        numbered.unlink()
        iterator = iter(loader)
        with pytest.raises(FileNotFoundError, match=r"numbered\.hsq"):
            next(iterator)
        assert next(iterator, None) is None  # the worker lives, and ends


@pytest.mark.parametrize("unit", ["record", "batch"])
def test_damage_that_a_worker_finds_is_an_error_in_the_training_process(numbered: Path, unit: str) -> None:
    content = bytearray(numbered.read_bytes())
    place = content.index(np.full(15, 50, np.float32).tobytes())
    content[place] ^= 255
    numbered.write_bytes(content)
    with hs.open(numbered) as file:
        dataset, size = file.as_torch_dataset(unit), 4 if unit == "record" else None
        damaged = range(48, 52) if unit == "record" else [6]
        loader = DataLoader(dataset, size, sampler=damaged, num_workers=1, multiprocessing_context="fork", timeout=60)
        iterator = iter(loader)
        with pytest.raises(hs.ChecksumError, match=r"numbered\.hsq"):
            next(iterator)
        assert next(iterator, None) is None


def test_damage_is_an_error_at_its_batch_or_passed_over(numbered: Path) -> None:
    content = bytearray(numbered.read_bytes())
    place = content.index(np.full(15, 50, np.float32).tobytes())
    content[place] ^= 255
    numbered.write_bytes(content)
    with hs.open(numbered) as file:
        loader, seen = file.as_torch(), []
        with pytest.raises(hs.ChecksumError, match=r"numbered\.hsq"):
            for batch in loader:
                seen += flat([batch])
        assert seen == list(range(48)) and loader.state_dict()["position"] == 48
        with pytest.warns(RuntimeWarning, match=r"numbered\.hsq"):
            found = flat(file.as_torch(on_corrupt="skip_block"))
        assert len(found) == N and not set(range(48, 56)) & set(found)


def private_nbytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("Private_Dirty", "Shared_Dirty")))


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux")
@pytest.mark.parametrize("unit", ["record", "batch"])
def test_a_worker_does_not_grow(tmp_path: Path, unit: str) -> None:
    with hs.HyperSequenceWriter(tmp_path / "wide.hsq", 10) as writer:
        writer.extend(np.zeros((3000, 4096), np.float32), np.arange(3000))
    with hs.open(tmp_path / "wide.hsq") as file:
        dataset = file.shuffled(1).rebatch(50).as_torch_dataset(unit)
        loader = DataLoader(
            dataset,
            50 if unit == "record" else None,
            shuffle=True,
            num_workers=1,
            collate_fn=dataset.collate if unit == "record" else None,
            multiprocessing_context="fork",
            persistent_workers=True,
        )
        before = {child.pid for child in multiprocessing.active_children()}
        sizes, iterator = [], iter(loader)
        (worker,) = [child for child in multiprocessing.active_children() if child.pid not in before]
        for _ in range(6):
            assert sum(len(y) for _, y in iterator) == 3000
            sizes.append(private_nbytes(worker.pid))
            iterator = iter(loader)
        assert sizes[-1] - sizes[0] < 8 << 20, sizes
        del iterator, loader


def test_single_records_of_what_has_more_than_records_are_refused(numbered: Path) -> None:
    with hs.open(numbered) as file:
        with pytest.raises(hs.ArgumentError, match="unit='batch'"):
            file.map(negative).as_torch_dataset()
        with pytest.raises(hs.ArgumentError, match="unit='batch'"):
            file.shard(0, 3).as_torch_dataset()
        for uneven in ("drop", "short"):
            shard = file.shuffled(1).shard(1, 2, uneven)
            assert flat(DataLoader(shard.as_torch_dataset(), 8)) == flat(shard)
        padded = file.shard(1, 3)
        for batch, expected in zip(DataLoader(padded.as_torch_dataset("batch"), None), padded, strict=True):
            assert torch.equal(batch[2], torch.from_numpy(expected[2]))


def test_records_that_drop_last_leaves_out_are_not_in_the_data_set(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.rebatch(10, drop_last=True)
        assert len(seq.as_torch_dataset()) == 100 and len(seq.as_torch_dataset("batch")) == 10


# --- training --------------------------------------------------------------------------------------------------------


def test_a_bare_loop_learns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    inputs, slope = rng.standard_normal((640, 8)).astype(np.float32), np.arange(8, dtype=np.float32)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 32) as writer:
        writer.extend(inputs, inputs @ slope)
    torch.manual_seed(0)
    model = torch.nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with hs.open(tmp_path / "a.hsq") as file:
        loader = file.shuffled(1).as_torch()
        for _ in range(8):
            for x, y in loader:
                loss = ((model(x)[:, 0] - y) ** 2).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        assert loader.state_dict()["epoch"] == 8
    assert float(loss.detach()) < 1e-4 and np.allclose(model.weight.detach().numpy(), slope, atol=0.05)


def lightning_model(seen: list[list[int]], checked: list[list[int]] | None = None):
    import lightning

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer = torch.nn.Linear(15, 1)

        def training_step(self, batch, index):
            x, y = batch
            seen.append(y.tolist())
            return ((self.layer(x.flatten(1) / 100)[:, 0] - y / 100) ** 2).mean()

        def validation_step(self, batch, index):
            checked.append(batch[1].tolist())

        def test_step(self, batch, index):
            checked.append(batch[1].tolist())

        def predict_step(self, batch, index):
            return batch[1].tolist()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9)

    return Model()


def lightning_loaders(loaders: dict, mode: str):
    from lightning.pytorch.utilities import CombinedLoader

    return CombinedLoader(loaders, mode)


def trainer(folder: Path, epochs: int, **options):
    import lightning

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": any("callbacks" in name for name in options)}
    settings = {"accelerator": "cpu", "devices": 1, "max_epochs": epochs, "default_root_dir": folder}
    return lightning.Trainer(**settings, **quiet, **options)


@pytest.fixture
def lightning_says_nothing_of_resuming():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(resum|not stateful|mid-epoch|ended before the epoch).*")
        yield


@lenient
@pytest.mark.usefixtures("lightning_says_nothing_of_resuming")
class TestLightning:
    def test_fit_sees_the_orders_of_its_epochs(self, numbered: Path, tmp_path: Path) -> None:
        with hs.open(numbered) as file:
            seq, seen, checked = file.shuffled(1), [], []
            validation = file.rebatch(20)
            fit = trainer(tmp_path, 2, num_sanity_val_steps=2)
            fit.fit(lightning_model(seen, checked), seq.as_torch(), validation.as_torch())
            assert joined(seen) == flat(seq) + flat(seq.at_epoch(1))
            assert joined(checked) == [*range(40), *range(N), *range(N)]

    def test_validation_within_an_epoch_disturbs_nothing(self, numbered: Path, tmp_path: Path) -> None:
        with hs.open(numbered) as file:
            seq, seen, checked = file.shuffled(1), [], []
            fit = trainer(tmp_path, 2, num_sanity_val_steps=0, val_check_interval=5, limit_val_batches=3)
            fit.fit(lightning_model(seen, checked), seq.as_torch(), file.rebatch(10).as_torch())
            assert joined(seen) == flat(seq) + flat(seq.at_epoch(1))
            assert joined(checked) == [*range(30)] * 4

    def test_a_limit_of_batches_takes_others_every_epoch(self, numbered: Path, tmp_path: Path) -> None:
        with hs.open(numbered) as file:
            seq, seen = file.shuffled(1), []
            trainer(tmp_path, 3, limit_train_batches=4).fit(lightning_model(seen), seq.as_torch())
            assert joined(seen) == [label for epoch in range(3) for label in flat(seq.at_epoch(epoch))[:32]]

    def test_validation_test_and_prediction(self, numbered: Path, tmp_path: Path) -> None:
        with hs.open(numbered) as file:
            seq, checked = file.shuffled(1), []
            model = lightning_model([], checked)
            for act in (trainer(tmp_path, 1).validate, trainer(tmp_path, 1).test):
                act(model, seq.as_torch(), verbose=False)
                assert joined(checked) == flat(seq)
                checked.clear()
            assert joined(trainer(tmp_path, 1).predict(model, seq.as_torch())) == flat(seq)

    def test_loaders_that_are_made_anew_every_epoch(self, numbered: Path, tmp_path: Path) -> None:
        with hs.open(numbered) as file:
            seq, seen = file.shuffled(1), []
            model = lightning_model(seen)
            model.train_dataloader = seq.as_torch
            trainer(tmp_path, 3, reload_dataloaders_every_n_epochs=1).fit(model)
            assert joined(seen) == joined(flat(seq.at_epoch(epoch)) for epoch in range(3))

    def test_several_loaders(self, numbered: Path, tmp_path: Path) -> None:
        class Model(type(lightning_model([]))):
            def training_step(self, batch, index):
                seen.append((batch["a"][1].tolist(), batch["b"][1].tolist()))
                return self.layer(batch["a"][0].flatten(1)).mean()

        seen: list[tuple] = []
        with hs.open(numbered) as file:
            a, b = file.shuffled(1), file.shuffled(2).rebatch(4)
            loaders = lightning_loaders({"a": a.as_torch(), "b": b.as_torch()}, "min_size")
            trainer(tmp_path, 2).fit(Model(), loaders)
            assert [label for batch, _ in seen for label in batch] == flat(a) + flat(a.at_epoch(1))
            assert [label for _, batch in seen for label in batch] == flat(b)[:52] + flat(b.at_epoch(1))[:52]

    @pytest.mark.parametrize("stop", [5, 12, 13, 14, 20, 26])
    def test_a_checkpoint_goes_on_at_the_very_next_batch(self, numbered: Path, tmp_path: Path, stop: int) -> None:
        import lightning

        class Stop(lightning.Callback):
            def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
                if trainer.global_step == stop:
                    trainer.save_checkpoint(tmp_path / "stop.ckpt")
                    raise KeyboardInterrupt("power cut") if stop == 20 else OSError("power cut")

        with hs.open(numbered) as file:
            seq = file.shuffled(1)
            whole, undisturbed = [], lightning_model([])
            undisturbed = lightning_model(whole)
            trainer(tmp_path, 3).fit(undisturbed, seq.as_torch())

            seen: list[list[int]] = []
            with pytest.raises((OSError, KeyboardInterrupt, SystemExit)):
                trainer(tmp_path, 3, callbacks=[Stop()]).fit(lightning_model(seen), seq.as_torch())
            assert seen == whole[:stop]
            model = lightning_model(seen)
            trainer(tmp_path, 3).fit(
                model, seq.as_torch(threads=0), ckpt_path=tmp_path / "stop.ckpt", weights_only=False
            )
            assert seen == whole
            assert torch.equal(model.layer.weight, undisturbed.layer.weight)

    @pytest.mark.parametrize("every", [{"every_n_train_steps": 5}, {"every_n_epochs": 1}])
    def test_checkpoints_of_its_own_go_on(self, numbered: Path, tmp_path: Path, every: dict) -> None:
        from lightning.pytorch.callbacks import ModelCheckpoint

        with hs.open(numbered) as file:
            seq, whole = file.shuffled(1), []
            keep = ModelCheckpoint(tmp_path, "{step}", save_top_k=-1, **every)
            undisturbed = lightning_model(whole)
            trainer(tmp_path, 2, callbacks=[keep]).fit(undisturbed, seq.as_torch())
            steps = [13, 26] if "every_n_epochs" in every else [5, 10, 15, 20, 25]
            assert sorted(tmp_path.glob("*.ckpt")) == sorted(tmp_path / f"step={step}.ckpt" for step in steps)
            for step in steps:
                seen: list[list[int]] = []
                model = lightning_model(seen)
                path = tmp_path / f"step={step}.ckpt"
                trainer(tmp_path, 2).fit(model, seq.as_torch(), ckpt_path=path, weights_only=False)
                assert seen == whole[step:]
                assert torch.equal(model.layer.weight, undisturbed.layer.weight)

    def test_two_processes_share_the_records(self, numbered: Path, tmp_path: Path) -> None:
        script = tmp_path / "train.py"
        script.write_text(textwrap.dedent(DDP))
        started = subprocess.run(
            [sys.executable, script, numbered, tmp_path],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert started.returncode == 0, started.stderr[-4000:]
        found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
        with hs.open(numbered) as file:
            seq = file.shuffled(1)
            for rank in range(2):
                share = seq.shard(rank, 2, "drop")
                assert found[rank]["seen"] == flat(share) + flat(share.at_epoch(1))
            assert sorted(found[0]["checked"] + found[1]["checked"]) == list(range(N))


DDP = """
    import json, sys
    from pathlib import Path

    import lightning
    import torch
    import hypersequence as hs

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(15, 1)
            self.seen, self.checked = [], []

        def training_step(self, batch, index):
            self.seen += batch[1].tolist()
            return self.layer(batch[0].flatten(1)).mean()

        def validation_step(self, batch, index):
            _, labels, weights = batch
            self.checked += labels[weights == 1].tolist()

        def on_fit_end(self):
            found = json.dumps({"seen": self.seen, "checked": self.checked})
            (Path(sys.argv[2]) / f"{self.global_rank}.json").write_text(found)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    if __name__ == "__main__":
        file = hs.open(sys.argv[1])
        trainer = lightning.Trainer(
            accelerator="cpu", devices=2, strategy="ddp", max_epochs=2, logger=False, enable_progress_bar=False,
            enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, limit_val_batches=1.0,
            check_val_every_n_epoch=2,
        )
        trainer.fit(Model(), file.shuffled(1).as_torch(), file.as_torch(uneven="pad"))
"""


@lenient
class TestAccelerate:
    @pytest.fixture
    def accelerator(self, tmp_path: Path):
        from accelerate import Accelerator

        return Accelerator(cpu=True)

    def test_a_loader_is_prepared(self, numbered: Path, accelerator) -> None:
        with hs.open(numbered) as file:
            seq = file.shuffled(1)
            model = torch.nn.Linear(15, 1)
            model, optimizer, loader = accelerator.prepare(
                model, torch.optim.SGD(model.parameters(), 0.01), seq.as_torch(device=accelerator.device)
            )
            assert len(loader) == len(seq)
            for epoch in range(2):
                seen = []
                for x, y in loader:
                    seen += y.tolist()
                    accelerator.backward(model(x.flatten(1)).mean())
                    optimizer.step()
                    optimizer.zero_grad()
                assert seen == flat(seq.at_epoch(epoch))

    def test_a_saved_state_goes_on_within_the_epoch(self, numbered: Path, tmp_path: Path, accelerator) -> None:
        with hs.open(numbered) as file:
            seq = file.shuffled(1)
            loader = seq.as_torch()
            accelerator.register_for_checkpointing(loader)
            assert flat(loader) == flat(seq)
            assert flat(islice(loader, 4)) == flat(seq.at_epoch(1))[:32]
            accelerator.save_state(str(tmp_path / "state"))
            assert flat(loader) == flat(seq.at_epoch(1))  # left, and begun again
            accelerator.load_state(str(tmp_path / "state"))
            assert flat(loader) == flat(seq.at_epoch(1))[32:]
            assert flat(loader) == flat(seq.at_epoch(2))

    def test_a_dataloader_over_a_data_set_is_prepared(self, numbered: Path, accelerator) -> None:
        with hs.open(numbered) as file:
            dataset = file.as_torch_dataset()
            for collate in (None, dataset.collate):
                loader = accelerator.prepare(DataLoader(dataset, 10, shuffle=True, collate_fn=collate))
                assert sorted(flat(loader)) == list(range(N)) and len(loader) == 11
            batches = accelerator.prepare(DataLoader(file.as_torch_dataset("batch"), batch_size=None))
            assert flat(batches) == list(range(N))


# --- without PyTorch -------------------------------------------------------------------------------------------------


def test_without_torch_the_error_names_the_extra(numbered: Path) -> None:
    run(
        """
        import sys

        class NoTorch:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "torch":
                    raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        sys.meta_path.insert(0, NoTorch())
        import hypersequence as hs

        seq = hs.open(sys.argv[1])
        assert len(list(hs.Loader(seq))) == 13
        for ask in (seq.as_torch, seq.as_torch_dataset, lambda: hs.torch):
            for _ in range(2):
                try:
                    ask()
                except hs.MissingPackageError as error:
                    assert "hypersequence[torch]" in str(error), error
                else:
                    raise AssertionError("found PyTorch")
        """,
        numbered,
    )


def test_torch_is_imported_by_nobody_who_does_not_ask(numbered: Path) -> None:
    run(
        """
        import sys
        import hypersequence as hs
        assert list(hs.Loader(hs.open(sys.argv[1]))) and "torch" not in sys.modules
        """,
        numbered,
    )

"""JAX: the batches of the sequence, as arrays that nothing changes, on the devices that were asked for."""

from __future__ import annotations

import gc
import os
import pickle
import random
import socket
import subprocess
import sys
import textwrap
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import hypersequence as hs
from hypersequence.elements import dtype_from_name

N = 103
WIDE = ["int64", "uint64", "float64", "complex128"]
FLOAT8 = ["e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"]
OTHERS = [
    *("bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "float32", "complex64", "bfloat16"),
    *(f"float8_{kind}" for kind in FLOAT8),
]
FOREIGN = {
    "text": np.str_("é"),
    "bytes": np.bytes_(b"a"),
    "date": np.datetime64("2020-01-01"),
    "duration": np.timedelta64(3, "s"),
}


def hsq_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("hsq")]


def no_thread_is_left(seconds: float = 20) -> bool:
    """Whether the threads go; those that were told to stop need a moment."""
    end = time.monotonic() + seconds
    while hsq_threads() and time.monotonic() < end:
        gc.collect()
        time.sleep(0.01)
    return not hsq_threads()


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert no_thread_is_left()


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """103 records of (float32 (3, 5) full of the number, the number in 32 bits), 8 a batch, several blocks."""
    path = tmp_path / "numbered.hsq"
    with hs.HyperSequenceWriter(path, batch_size=8, block_nbytes=1500) as writer:
        for i in range(N):
            writer.append(np.full((3, 5), i, np.float32), np.int32(i))
    return path


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """400 records of 16 KiB whose values are their number."""
    path = tmp_path / "wide.hsq"
    with hs.HyperSequenceWriter(path, 10, block_nbytes=1 << 20) as writer:
        for i in range(400):
            writer.append(np.full(4096, i, np.float32), np.int32(i))
    return path


def same(batch: Any, other: Any) -> bool:
    """Whether a batch of JAX's arrays and one of NumPy's have one structure, the same types, and the same bits."""
    if isinstance(other, tuple):
        return type(batch) is tuple and len(batch) == len(other) and all(map(same, batch, other))
    if isinstance(other, dict):
        return type(batch) is dict and list(batch) == list(other) and all(same(batch[k], other[k]) for k in other)
    if other is None:
        return batch is None
    assert isinstance(batch, jax.Array)
    array = np.asarray(batch)
    return (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())


def all_same(batches: Any, others: Any) -> bool:
    return all(same(batch, other) for batch, other in zip(batches, others, strict=True))


def flat(batches: Any) -> list[int]:
    return [int(label) for batch in batches for label in np.asarray(batch[1])]


def script(code: str, *args: Any, devices: int = 1, **environment: str) -> subprocess.Popen:
    """Starts code with a process, and settings, of its own."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", **environment}
    env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(code) + "\nprint('done')\n"
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> None:
    try:
        out, err = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 0, err[-4000:]
    assert "done" in out.splitlines()  # what Gloo says may come before or after it


def run(code: str, *args: Any, devices: int = 1) -> None:
    finish(script(code, *args, devices=devices))


PRELUDE = """
import sys
from pathlib import Path
import numpy as np
import hypersequence as hs

def refused(make, *words):
    try:
        make()
    except hs.ArgumentError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError(f"not refused: {words}")
"""


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
    "map": lambda seq: seq.shuffled(3).map(lambda batch, rng: (batch[0] + rng.random(dtype=np.float32), batch[1])),
    "concat": lambda seq: hs.concat([seq.shuffled(1).take(3), seq]),
    "mix": lambda seq: hs.mix([seq.shuffled(1), seq], [2, 1], seed=1),
    "outputs": lambda seq: seq.shuffled(4).fields("outputs"),
    "inputs": lambda seq: seq.shuffled(4).fields("inputs"),
    "one record a batch": lambda seq: seq.shuffled(5).rebatch(1),
    "one batch": lambda seq: seq.shuffled(5).rebatch(1000),
    "split": lambda seq: seq.shuffled(5).split(0.7, by="record")[0],
    "from epoch 5": lambda seq: seq.shuffled(5, epoch=5),
    "nothing": lambda seq: seq.take(0),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_the_batches_of_the_sequence_epoch_by_epoch(numbered: Path, chain: str) -> None:
    with hs.open(numbered) as file:
        seq = CHAINS[chain](file)
        for options in ({}, {"threads": 0}, {"threads": 3, "prefetch": 1}, {"threads": 2, "prefetch": 50}):
            loader = seq.as_jax(**options)
            assert (len(loader), loader.batch_size) == (len(seq), seq.batch_size())
            for epoch in range(seq.epoch, seq.epoch + 3):
                assert all_same(loader, seq.at_epoch(epoch))
                place = loader.state_dict()
                assert (place["epoch"], place["position"]) == (epoch + 1, 0)


def test_a_shuffle_in_place_later_changes_nothing(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader = file.as_jax()
        file.shuffle(seed=3)
        assert flat(loader) == list(range(N))


def structures(folder: Path) -> list[Path]:
    x, y, w = np.arange(4, dtype=np.float32), np.int32(1), np.float32(0.5)
    records = {
        "inputs": (x,),
        "tuple": ((x, x + 1), y),
        "dicts": ({"b": x, "a": y}, {"z": y, "c": x}),
        "weights": (x, y, w),
        "weights by name": (x, {"p": y, "q": y}, {"p": w, "q": w}),
        "empty record": (np.zeros((2, 0), np.float32), y),
        "deep": (np.zeros((1,) * 20, np.float16), y),
    }
    for name, record in records.items():
        with hs.HyperSequenceWriter(folder / f"{name}.hsq", 3, block_nbytes=100) as writer:
            for i in range(10):
                writer.append(*jax.tree.map(lambda array, i=i: (array + i).astype(array.dtype), record))
    return [folder / f"{name}.hsq" for name in records]


def test_every_structure_arrives_as_it_is(tmp_path: Path) -> None:
    for path in structures(tmp_path):
        with hs.open(path) as file:
            for seq in (file, file.rebatch(2).shuffled(1), file.rebatch(4).shard(1, 2), file.fields("inputs")):
                assert all_same(seq.as_jax(), seq)
            if file.no_outputs():
                seq = file.fields("outputs").shuffled(2)
                assert all_same(seq.as_jax(), seq)
                assert next(iter(seq.as_jax()))[0] is None


def test_what_map_gives_arrives_as_device_put_would_make_it(numbered: Path) -> None:
    """Lists, scalars, JAX's own arrays, and arrays in any layout."""

    def odd(batch: Any) -> Any:
        x, y = batch
        strided = {"transposed": x.T, "backwards": x[::-1], "fortran": np.asfortranarray(x), "odd": x[1::2, 1:, ::2]}
        return strided, (jnp.asarray(y), y.sum(dtype=np.int32))

    with hs.open(numbered) as file:
        seq = file.rebatch(10).map(odd)
        for (x, (y, total)), (plain, labels) in zip(seq.as_jax(threads=2), file.rebatch(10), strict=True):
            assert np.array_equal(x["transposed"], plain.T) and np.array_equal(x["backwards"], plain[::-1])
            assert np.array_equal(x["fortran"], plain) and np.array_equal(x["odd"], plain[1::2, 1:, ::2])
            assert np.array_equal(y, labels) and int(total) == labels.sum()
            assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves((x, y, total)))


# --- passes and places -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["record", "batch", "window"])
def test_a_state_goes_on_at_the_next_batch_here_and_in_the_plain_loader(numbered: Path, by: Any) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1, by=by).rebatch(4)
        stream = [flat([batch]) for epoch in range(3) for batch in seq.at_epoch(epoch)]
        for n in (0, 1, 2, 9, len(seq) - 1, len(seq), len(seq) + 3):
            ours, plain = seq.as_jax(), hs.Loader(seq)
            for loader in (ours, plain):
                taken = 0
                while taken < n:
                    taken += sum(1 for _ in islice(loader, n - taken))
            assert ours.state_dict() == plain.state_dict()
            for resumed in (seq.as_jax(), hs.Loader(seq), seq.as_jax(threads=0, prefetch=1)):
                resumed.load_state_dict(ours.state_dict())
                assert resumed.state_dict() == ours.state_dict()
                rest = [flat([batch]) for batch in resumed] + [flat([batch]) for batch in resumed]
                assert rest == stream[n : (n // len(seq) + 2) * len(seq)]


def test_the_state_is_that_of_the_last_batch_in_hand_whatever_was_made_ahead(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1).rebatch(2)
        loader = seq.as_jax(prefetch=40)
        for number, _ in enumerate(loader, 1):
            position = loader.state_dict()["position"]
            assert position == (2 * number if number < len(seq) else 0)


def test_random_use_is_that_of_the_plain_loader(numbered: Path) -> None:
    """Whatever is done with a loader, in whatever order, does the same with both."""
    with hs.open(numbered) as file:
        seq = file.shuffled(7).rebatch(16)
        for trial in range(30):
            dice = random.Random(trial)
            both: list[Any] = [seq.as_jax(threads=trial % 3), hs.Loader(seq)]
            passes: list[list[Any]] = []
            states = [both[1].state_dict()]
            for _ in range(40):
                step = dice.choice(["begin", "next", "next", "next", "state", "load", "epoch", "drop"])
                if step == "begin":
                    passes.append([iter(loader) for loader in both])
                    seen = [flat(islice(made, 1)) for made in passes[-1]]
                    assert seen[0] == seen[1]
                elif step == "next" and passes:
                    seen = [flat(islice(made, 1)) for made in dice.choice(passes)]
                    assert seen[0] == seen[1]
                elif step == "drop" and passes:
                    passes.pop(dice.randrange(len(passes)))
                elif step == "load":
                    state = dice.choice(states)
                    for loader in both:
                        loader.load_state_dict(state)
                elif step == "epoch":
                    epoch = dice.randrange(4)
                    for loader in both:
                        loader.set_epoch(epoch)
                assert both[0].state_dict() == both[1].state_dict(), (trial, step)
                states.append(both[0].state_dict())


def test_a_state_of_another_order_is_refused(numbered: Path) -> None:
    with hs.open(numbered) as file, pytest.raises(hs.ArgumentError, match="seed"):
        file.shuffled(1).as_jax().load_state_dict(file.shuffled(2).as_jax().state_dict())


def test_set_epoch_break_and_nested_iteration(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        epochs = [flat(seq.at_epoch(epoch)) for epoch in range(5)]
        loader = seq.as_jax()
        loader.set_epoch(3)
        assert flat(loader) == epochs[3] and flat(loader) == epochs[4]
        loader.set_epoch(0)
        for _ in loader:
            break
        assert flat(loader) == epochs[0]  # what was left by break begins again
        loader.set_epoch(1)
        for _, labels in islice(loader, 2):
            assert flat(loader)[:8] != []
            assert labels.shape == (8,)
        loader.set_epoch(2)
        pairs = list(zip(loader, loader, strict=True))
        assert flat(a for a, _ in pairs) == flat(b for _, b in pairs) == epochs[2]


def test_abandoned_iterators_leave_no_threads(wide: Path) -> None:
    with hs.open(wide) as file:
        loader = file.shuffled(1, by="record").as_jax(threads=2)
        for _ in range(10):
            iterator = iter(loader)
            kept = next(iterator)
        assert hsq_threads()
        del iterator
        assert no_thread_is_left()
        assert (kept[0] == kept[1][:, None]).all()
        iterator = iter(loader)
        next(iterator)
        iterator.close()
        assert no_thread_is_left()


def test_an_error_in_map_comes_at_its_batch_and_leaves_the_loader_usable(numbered: Path) -> None:
    failing = True

    def fail(batch: Any) -> Any:
        if failing and 44 in batch[1]:
            raise LookupError("in the middle of an epoch")
        return batch

    with hs.open(numbered) as file:
        loader = file.map(fail).as_jax(threads=2)
        seen = []
        with pytest.raises(LookupError, match="in the middle") as caught:
            seen.extend(loader)
        assert flat(seen) == list(range(40))
        assert "batch 5 of epoch 0" in caught.value.__notes__[0]
        assert loader.state_dict()["position"] == 40
        failing = False
        loader.load_state_dict(loader.state_dict())
        assert flat(loader) == list(range(40, N))


def test_damage_is_an_error_or_skipped_as_was_asked(wide: Path) -> None:
    with hs.open(wide) as seq:
        stored = seq._source.stored
        block = stored.block_records
        offset = stored.first_block + stored.stride + stored.column_offsets[0] + 5
    data = bytearray(wide.read_bytes())
    data[offset] ^= 1
    wide.write_bytes(data)
    with hs.open(wide) as file:
        for seq in (file, file.shuffled(1)):
            with pytest.raises(hs.ChecksumError, match="block 1"):
                flat(seq.as_jax())
            with pytest.warns(RuntimeWarning, match="block 1"):
                found = sorted(flat(seq.as_jax(on_corrupt="skip_block")))
            expected = [*range(block), *range(2 * block, 3 * block), *range(2 * block, 400)]
            assert found == sorted(expected)


def test_share_of_a_rank(numbered: Path) -> None:
    with hs.open(numbered) as file:
        seq = file.shuffled(1)
        ranks = [seq.as_jax(rank=rank, world=4) for rank in range(4)]
        assert {len(rank) for rank in ranks} == {3}
        for epoch in range(2):
            seen = [label for step in zip(*ranks, strict=True) for label in flat(step)]
            assert seen == flat(seq.at_epoch(epoch))[:96]
        assert all_same(seq.as_jax(rank=1, world=2, uneven="pad"), seq.shard(1, 2, "pad"))
        assert all_same(seq.as_jax(rank=1, world=2, uneven="short"), seq.shard(1, 2, "short"))
        assert all_same(seq.as_jax(rank=1, world=2, global_batch=10), seq.rebatch(5).shard(1, 2, "drop"))
        assert all_same(seq.as_jax(global_batch=10), seq.rebatch(10))
        assert all_same(seq.shard(2, 3, "short").as_jax(), seq.shard(2, 3, "short"))
        for options, words in (
            ({"rank": 1}, "together"),
            ({"world": 2}, "together"),
            ({"rank": 2, "world": 2}, "rank"),
            ({"rank": 0, "world": 3, "global_batch": 10}, "multiple"),
            ({"rank": 0, "world": 30}, "one global batch"),
            ({"uneven": "some"}, "uneven"),
            ({"threads": -1}, "threads"),
            ({"on_corrupt": "ignore"}, "on_corrupt"),
        ):
            with pytest.raises(hs.ArgumentError, match=words):
                len(seq.as_jax(**options))


# --- types -----------------------------------------------------------------------------------------------------------


def every_bit_pattern(name: str) -> np.ndarray:
    """40 records of 64 values of any bits, those of NaN and of subnormal numbers included."""
    dtype = dtype_from_name(name)
    assert dtype is not None
    rng = np.random.default_rng(0)
    if name == "bool":
        return rng.integers(0, 2, (40, 64)).astype(bool)
    return np.frombuffer(rng.bytes(40 * 64 * dtype.itemsize), dtype).reshape(40, 64)


@pytest.mark.parametrize("name", OTHERS)
def test_types_of_up_to_32_bits_arrive_bit_for_bit(tmp_path: Path, name: str) -> None:
    values = every_bit_pattern(name)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 8, block_nbytes=1000) as writer:
        writer.extend({"many": values, "one": values[:, 0].copy()}, np.arange(40, dtype=np.int32))
    with hs.open(tmp_path / "a.hsq") as file:
        for seq in (file, file.shuffled(1, by="record").rebatch(7), file.rebatch(3)):
            for narrow in (False, True):
                for x, y in seq.as_jax(narrow=narrow):
                    assert x["many"].dtype == values.dtype
                    assert np.asarray(x["many"]).tobytes() == values[np.asarray(y)].tobytes()
                    assert np.asarray(x["one"]).tobytes() == values[np.asarray(y), 0].tobytes()


def write_types(path: Path, values: dict[str, Any]) -> Path:
    with hs.HyperSequenceWriter(path, 4) as writer:
        for i in range(6):
            writer.append({"x": np.full(3, i, np.float32), **values}, np.int32(i))
    return path


@pytest.mark.parametrize("name", WIDE)
def test_64_bits_are_refused_with_what_to_do_about_them(tmp_path: Path, name: str) -> None:
    with hs.open(write_types(tmp_path / "a.hsq", {"broad": np.ones(2, name)})) as file:
        with pytest.raises(hs.ArgumentError) as caught:
            file.as_jax()
        for word in ("inputs['broad']", name, "jax_enable_x64", "narrow=True", "fields(", "map("):
            assert word in str(caught.value)
        assert len(list(file.fields("x", "outputs").as_jax())) == 2
        converted = file.map(lambda batch: ({**batch[0], "broad": batch[0]["broad"].real.astype("f2")}, batch[1]))
        assert len(list(converted.as_jax())) == 2


@pytest.mark.parametrize("kind", FOREIGN)
def test_types_that_jax_has_not_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    with hs.open(write_types(tmp_path / "a.hsq", {kind: FOREIGN[kind]})) as file:
        for options in ({}, {"narrow": True}):
            with pytest.raises(hs.ArgumentError) as caught:
                file.as_jax(**options)
            for word in (f"inputs[{kind!r}]", "JAX", "fields(", "map("):
                assert word in str(caught.value)
            assert "x64" not in str(caught.value)
        assert len(list(file.fields("x").as_jax())) == 2
        given = file.map(lambda batch: (batch[0]["x"], batch[0][kind]))
        with pytest.raises(hs.ArgumentError, match=r"fields\(.*map\("):
            next(iter(given.as_jax()))


WIDE_FROM_MAP = {
    "array": lambda y: y.astype(np.int64),
    "floats": lambda y: y / 3,
    "array without axes": lambda y: np.array(2**40 + 1),
    "scalar": lambda y: np.int64(2**40 + 1),
    "mean": lambda y: (y / 3).mean(),
    "in a tuple": lambda y: (y, {"a": y.astype(np.uint64)}),
}


@pytest.mark.parametrize("what", WIDE_FROM_MAP)
def test_64_bits_that_map_makes_are_caught_at_their_batch(numbered: Path, what: str) -> None:
    with hs.open(numbered) as file:
        loader = file.map(lambda batch: (batch[0], WIDE_FROM_MAP[what](batch[1]))).as_jax()
        with pytest.raises(hs.ArgumentError, match="64"):
            next(iter(loader))


def test_narrow_makes_32_bits_of_64(tmp_path: Path) -> None:
    values = {
        "i": np.array([-(2**31), 2**31 - 1, 0]),
        "u": np.array([0, 2**32 - 1], np.uint64),
        "f": np.array([0.1, np.nan, 1e300, -np.inf]),
        "c": np.array([0.1 + 1j]),
        "none": np.zeros((0,), np.int64),
        "h": np.float16(0.1),
    }
    with hs.open(write_types(tmp_path / "a.hsq", values)) as file, np.errstate(over="ignore"):
        expected = {"i": np.int32, "u": np.uint32, "f": np.float32, "c": np.complex64, "none": np.int32}
        for seq in (file, file.shuffled(1).rebatch(1), file.rebatch(5)):
            for x, y in seq.as_jax(narrow=True):
                for name, array in values.items():
                    wanted = array.astype(expected.get(name, array.dtype))
                    repeated = np.broadcast_to(wanted, (len(y), *wanted.shape))
                    assert same(x[name], np.ascontiguousarray(repeated))


@pytest.mark.parametrize("value", [np.int64(2**31), np.int64(-(2**31) - 1), np.uint64(2**32), np.int64(2**40 + 1)])
def test_narrow_refuses_an_integer_that_does_not_fit(tmp_path: Path, value: Any) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4) as writer:
        for i in range(12):
            writer.append(value if i == 9 else type(value)(i), np.float32(i))
    with hs.open(tmp_path / "a.hsq") as file:
        seen = []
        with pytest.raises(hs.ArgumentError, match=f"{value}.*x64"):
            seen.extend(int(y[0]) for x, y in file.as_jax(narrow=True))
        assert seen == [0, 4]
        in_map = file.map(lambda batch: (batch[0][:1], batch[1]))
        with pytest.raises(hs.ArgumentError, match="does not fit"):
            list(in_map.rebatch(1).as_jax(narrow=True))


def test_with_x64_everything_arrives_exactly(tmp_path: Path) -> None:
    run(
        """
        import jax
        jax.config.update("jax_enable_x64", True)
        values = {
            "i": np.int64(2**40 + 1), "u": np.uint64(2**64 - 1), "f": np.float64(0.1), "c": np.complex128(0.1 + 3j),
        }
        path = Path(sys.argv[1]) / "a.hsq"
        with hs.HyperSequenceWriter(path, 4) as writer:
            for i in range(10):
                writer.append(values, i)
        with hs.open(path) as seq:
            for loader in (seq.as_jax(), seq.shuffled(1).rebatch(3).as_jax(threads=0)):
                for x, y in loader:
                    assert y.dtype == np.int64
                    for name, value in values.items():
                        assert x[name].dtype == value.dtype and (np.asarray(x[name]) == value).all(), name
            refused_late = iter(seq.as_jax(narrow=True))
            refused(lambda: next(refused_late), "does not fit")
            narrow = next(iter(seq.fields("f", "c", "outputs").as_jax(narrow=True)))
            assert (narrow[0]["f"].dtype, narrow[0]["c"].dtype, narrow[1].dtype) == ("float32", "complex64", "int32")
        """,
        tmp_path,
    )


# --- devices and memory ----------------------------------------------------------------------------------------------


def test_arrays_are_committed_to_a_device_that_was_asked_for_only(numbered: Path) -> None:
    with hs.open(numbered) as file:
        for batch in file.as_jax():
            assert all(not array.committed for array in batch)
        for batch in file.as_jax(device=jax.devices()[0]):
            assert all(array.committed for array in batch)


def test_arrays_are_on_the_device_that_was_asked_for(numbered: Path) -> None:
    run(
        """
        import jax
        with hs.open(sys.argv[1]) as seq:
            for chain in (seq, seq.shuffled(1).rebatch(3), seq.map(lambda b: (b[0], jax.numpy.asarray(b[1])))):
                for device in jax.devices()[::3]:
                    for x, y in chain.as_jax(device=device):
                        assert x.devices() == y.devices() == {device} and x.committed and y.committed
                        assert (np.asarray(x)[:, 0, 0] == np.asarray(y)).all()
                with jax.default_device(jax.devices()[5]):
                    for x, y in chain.rebatch(8).as_jax():
                        assert x.devices() == {jax.devices()[5]} and not x.committed
        """,
        numbered,
        devices=8,
    )


def test_batches_that_begin_at_64_bytes_are_not_copied(wide: Path) -> None:
    """Read twice, views of the file are the same memory; and a batch that was gathered stays where it was made."""
    with hs.open(wide) as file:
        views = [[x.unsafe_buffer_pointer() for x, _ in file.as_jax()] for _ in range(2)]
        kept = list(file)
        assert views[0] == views[1] == [x.ctypes.data for x, _ in kept]
        made = []

        def note(batch: Any) -> Any:
            made.append(batch[0])
            return batch

        for x, _ in file.shuffled(1, by="record").map(note).as_jax(threads=0):
            assert x.unsafe_buffer_pointer() == made[-1].ctypes.data


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize("rebatch", [1, 7, 10, 64])
def test_arrays_that_are_kept_never_change(wide: Path, threads: int, rebatch: int) -> None:
    with hs.open(wide) as file:
        for seq in (file.rebatch(rebatch), file.shuffled(1, by="record").rebatch(rebatch)):
            loader = seq.as_jax(threads=threads, prefetch=3)
            kept = [batch for _ in range(2) for batch in loader]
            del loader
            gc.collect()
            assert sum(len(y) for _, y in kept) == 800
            assert all(bool((x == y[:, None]).all()) for x, y in kept)


def test_a_part_of_what_was_made_together_is_kept_while_its_neighbours_go(numbered: Path) -> None:
    with hs.open(numbered) as file:
        loader = file.shuffled(1).rebatch(2).as_jax(threads=2)
        kept = [batch for _ in range(40) for number, batch in enumerate(loader) if number % 17 == 3]
        assert all((x[:, 0, 0] == y).all() for x, y in kept)


def test_work_that_is_still_under_way_sees_its_own_batch(wide: Path) -> None:
    """Nobody waits for a result, and no batch is kept: memory is used again only when JAX has done with it."""
    slow = jax.jit(lambda x: jax.lax.fori_loop(0, 20, lambda _, x: jnp.sqrt(x * x), x).mean(axis=1))
    with hs.open(wide) as file:
        for seq in (file, file.shuffled(1, by="record").rebatch(16)):
            results = [(slow(x), np.asarray(y).tolist()) for x, y in seq.as_jax(threads=2, prefetch=2)]
            assert all(np.allclose(mean, y) for mean, y in results)


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_donated_batches_never_reach_the_file(wide: Path) -> None:
    before = wide.read_bytes()
    spoil = jax.jit(lambda x: x * 0 - 1, donate_argnums=0)
    with hs.open(wide) as file:
        for seq in (file, file.shuffled(1, by="record"), file.rebatch(7), file.shuffled(1, by="batch")):
            for threads in (0, 2):
                for x, y in seq.as_jax(threads=threads):
                    labels = np.asarray(y).tolist()
                    assert (np.asarray(x) == np.asarray(labels)[:, None]).all()
                    assert bool((spoil(x) == -1).all())
        assert all((x == y[:, None]).all() for x, y in file)
    assert wide.read_bytes() == before


def test_arrays_outlive_the_file(wide: Path) -> None:
    with hs.open(wide) as file:
        kept = list(file.as_jax()) + list(file.shuffled(1).as_jax())
    del file
    wide.unlink()
    gc.collect()
    assert len(kept) == 80 and all(bool((x == y[:, None]).all()) for x, y in kept)


# --- several devices -------------------------------------------------------------------------------------------------

EIGHT = """
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P, SingleDeviceSharding

def pieces(array, batch, devices):
    '''Every device has the rows that its place in the layout says.'''
    assert (np.asarray(array) == batch).all() and array.shape == batch.shape and array.dtype == batch.dtype
    for shard in array.addressable_shards:
        assert (np.asarray(shard.data) == batch[shard.index]).all()
    return {shard.device: shard.index[0] for shard in array.addressable_shards} if devices else None

folder = Path(sys.argv[1])
with hs.HyperSequenceWriter(folder / "a.hsq", 16) as writer:
    for i in range(64):
        writer.append(np.full(4, i, np.float32), np.int32(i))
seq = hs.open(folder / "a.hsq")
devices = np.array(jax.devices())
line = Mesh(devices, ("data",))
grid = Mesh(devices.reshape(4, 2), ("data", "model"))
total = jax.jit(lambda x: x.sum())
"""


def test_a_layout_over_eight_devices_is_the_batch_in_pieces(tmp_path: Path) -> None:
    run(
        EIGHT
        + """
for mesh in (line, grid, Mesh(devices[::-1], ("data",)), Mesh(devices.reshape(2, 4).T, ("model", "data"))):
    for spec in (P("data"), P(), P(mesh.axis_names), P(None)):
        sharding = NamedSharding(mesh, spec)
        for chain in (seq, seq.shuffled(1, by="record").rebatch(8), seq.rebatch(16).shuffled(2, by="batch")):
            loader = chain.as_jax(sharding=sharding)
            for epoch in range(2):
                for (x, y), (bx, by) in zip(loader, chain.at_epoch(epoch), strict=True):
                    assert x.sharding.is_equivalent_to(sharding, 2) and y.sharding.is_equivalent_to(sharding, 1)
                    where = pieces(x, bx, True)
                    assert pieces(y, by, True) == where
                    assert where == {d: i[0] for d, i in sharding.devices_indices_map(bx.shape).items()}
                    assert float(total(x)) == bx.sum()
# four of the eight devices, one device, and labels alone
for sharding in (NamedSharding(Mesh(devices[4:], ("data",)), P("data")), SingleDeviceSharding(devices[6])):
    for (x, y), (bx, by) in zip(seq.as_jax(sharding=sharding), seq, strict=True):
        assert x.devices() == sharding.device_set
        pieces(x, bx, True)
for (x, y), (_, by) in zip(seq.fields("outputs").as_jax(sharding=NamedSharding(line, P("data"))), seq, strict=True):
    assert x is None
    pieces(y, by, True)
# the second axis, too, where every field has one
for (x,), (bx,) in zip(seq.fields("inputs").as_jax(sharding=NamedSharding(grid, P("data", "model"))),
                       seq.fields("inputs"), strict=True):
    assert {s.data.shape for s in x.addressable_shards} == {(4, 2)}
    pieces(x, bx, True)
# what map made, and a global batch
mapped = seq.map(lambda batch: ({"a": batch[0] * 2}, batch[1]))
for (x, y), (bx, by) in zip(mapped.as_jax(sharding=NamedSharding(line, P("data"))), mapped, strict=True):
    pieces(x["a"], bx["a"], True)
assert [y.shape for x, y in seq.as_jax(sharding=NamedSharding(line, P("data")), global_batch=32)] == [(32,), (32,)]
""",
        tmp_path,
        devices=8,
    )


def test_a_layout_that_does_not_fit_is_refused_at_once(tmp_path: Path) -> None:
    run(
        EIGHT
        + """
data = NamedSharding(line, P("data"))
refused(lambda: seq.rebatch(12).as_jax(sharding=data), "rebatch(", "drop_last")
refused(lambda: seq.rebatch(60).take(1).rebatch(40).as_jax(sharding=data), "last batch", "drop_last=True")
refused(lambda: seq.rebatch(7).as_jax(sharding=data), "rebatch(")
refused(lambda: seq.as_jax(sharding=data, global_batch=12), "rebatch(")
refused(lambda: seq.as_jax(sharding=data, device=devices[0]), "sharding")
refused(lambda: seq.as_jax(sharding=data, rank=0, world=1), "sharding")
refused(lambda: seq.as_jax(sharding=data, world=1))
refused(lambda: seq.as_jax(sharding=data, rank=0))
# a last batch that divides is none the worse for being short; and one left out is no trouble
assert [len(y) for _, y in seq.rebatch(40).as_jax(sharding=data)] == [40, 24]
assert [len(y) for _, y in seq.rebatch(24, drop_last=True).as_jax(sharding=data)] == [24, 24]
assert list(seq.take(0).as_jax(sharding=data)) == []
# what map makes is known when it is there
late = iter(seq.map(lambda batch: (batch[0][:5], batch[1])).as_jax(sharding=data))
refused(lambda: next(late), "sharding")
wide = iter(seq.map(lambda batch: (batch[0], batch[1].astype(np.int64))).as_jax(sharding=data))
refused(lambda: next(wide), "64")
foreign = iter(seq.map(lambda batch: (batch[0], batch[1].astype("U3"))).as_jax(sharding=data))
refused(lambda: next(foreign), "fields(", "map(")
""",
        tmp_path,
        devices=8,
    )


def test_a_layout_of_more_axes_than_a_label_has_is_refused_by_name(tmp_path: Path) -> None:
    run(
        EIGHT
        + """
both = NamedSharding(grid, P("data", "model"))
refused(lambda: seq.as_jax(sharding=both), "outputs", "first axis")
refused(lambda: seq.as_jax(sharding=NamedSharding(grid, P("data", None, "model"))), "sharding")
refused(lambda: seq.fields("outputs").as_jax(sharding=both), "()")
mapped = iter(seq.map(lambda batch: batch).as_jax(sharding=both))
refused(lambda: next(mapped), "sharding")
""",
        tmp_path,
        devices=8,
    )


# --- several processes -----------------------------------------------------------------------------------------------

WORKER = """
import os
rank, port, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")

seq = hs.open(path).shuffled(1).rebatch(6)
early = seq.as_jax()  # people make their data before they start the processes
jax.distributed.initialize(f"localhost:{port}", 2, rank)
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P

devices = np.array(jax.devices())
assert (jax.process_index(), jax.process_count(), len(devices)) == (rank, 2, 4)
gather = lambda array: np.asarray(multihost_utils.process_allgather(array, tiled=True))

def flat(batches):
    return [int(label) for batch in batches for label in np.asarray(batch[1])]

def same(batch, other):
    return all(np.array_equal(np.asarray(a), b) for a, b in zip(batch, other, strict=True))
line, grid = Mesh(devices, ("data",)), Mesh(devices.reshape(2, 2), ("data", "model"))
"""

SHARES_AND_LAYOUTS = """
# Without a layout: every process its share.
for loader in (early, seq.as_jax()):
    assert len(loader) == 8
    for epoch in range(2):
        mine = flat(loader)
        assert mine == flat(seq.at_epoch(epoch).shard(rank, 2, "drop"))
        steps = gather(np.array(mine).reshape(8, 1, 6)).reshape(2, 8, 6).swapaxes(0, 1)
        assert steps.reshape(-1).tolist() == flat(seq.at_epoch(epoch))[:96]
assert flat(seq.as_jax(global_batch=8)) == flat(seq.rebatch(4).shard(rank, 2, "drop"))
padded = list(seq.as_jax(uneven="pad"))
assert len(padded) == 9
counted = [int(y) for step in padded for y, w in zip(np.asarray(step[1]), np.asarray(step[2])) if w]
sizes = gather(np.array([len(counted)]))
assert sizes.sum() == 103
assert all(x.is_fully_addressable for x, _ in early)
early.set_epoch(0)
assert flat(seq.as_jax(rank=0, world=1)) == flat(seq)  # everything, for whoever says so

# With a layout over all devices: global arrays.
split_model = Mesh(devices.reshape(2, 2).T, ("data", "model"))  # processes differ in the model axis only
total = jax.jit(lambda y: y.sum())
for mesh, spec, world in (
    (line, P("data"), 2),
    (Mesh(devices[::-1], ("data",)), P("data"), 2),
    (grid, P("data"), 2),
    (grid, P(("data", "model")), 2),
    (line, P(), 1),
    (split_model, P("data"), 1),
):
    sharding = NamedSharding(mesh, spec)
    local = 12 // world
    chain = seq.rebatch(local, drop_last=True)
    loader = chain.as_jax(sharding=sharding)
    expected = seq.rebatch(12, drop_last=True)
    assert len(loader) == len(expected) == 8
    for epoch in range(2):
        for (x, y), (bx, by) in zip(loader, expected.at_epoch(epoch), strict=True):
            assert x.shape == bx.shape and y.shape == by.shape
            assert x.sharding.is_equivalent_to(sharding, 3)
            assert len(x.addressable_shards) == 2
            for shard in x.addressable_shards:
                assert (np.asarray(shard.data) == bx[shard.index]).all()
            assert (gather(y) == by).all()
            assert int(total(y)) == by.sum()
    # the same global batch, whoever says how large it is; and a place in the data, in either world
    loader = seq.as_jax(sharding=sharding, global_batch=12, uneven="drop")
    iterator = iter(loader)
    for (_, y), (_, by) in zip((next(iterator), next(iterator)), expected):
        assert (gather(y) == by).all()
    assert loader.state_dict()["position"] == 24
    plain = hs.Loader(seq.rebatch(12))
    plain.load_state_dict(loader.state_dict())
    assert flat([next(iter(plain))]) == flat([expected[2]])

interleaved = NamedSharding(Mesh(devices[[0, 2, 1, 3]], ("data",)), P("data"))
refused(lambda: seq.as_jax(sharding=interleaved), "run of rows")
alone = NamedSharding(Mesh(devices[:2], ("data",)), P("data"))
if rank == 1:
    refused(lambda: seq.as_jax(sharding=alone), "no device of this process")
refused(lambda: seq.rebatch(3).as_jax(sharding=NamedSharding(line, P("data"))), "rebatch(")
"""

FROM_MAP = """
made = seq.map(lambda batch: (jax.numpy.asarray(batch[0]), batch[1].astype(np.int16)))
loader = made.as_jax(sharding=NamedSharding(line, P("data")))
for (x, y), (bx, by) in zip(loader, seq.rebatch(12, drop_last=True), strict=True):
    assert (gather(y) == by).all()
    assert x.shape == bx.shape and (gather(x) == bx).all()
"""

END = """
multihost_utils.sync_global_devices("end")
jax.distributed.shutdown()
"""


@pytest.mark.parametrize("what", ["shares and layouts", "arrays that map made on one device"])
def test_two_processes_share_the_data_and_the_arrays(numbered: Path, what: str) -> None:
    body = SHARES_AND_LAYOUTS if what == "shares and layouts" else FROM_MAP
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes = [script(WORKER + body + END, rank, port, numbered, devices=2) for rank in range(2)]
    try:
        for process in processes:
            finish(process)
    finally:
        for process in processes:
            process.kill()


# --- around it -------------------------------------------------------------------------------------------------------


def test_grain_reads_all_records(numbered: Path) -> None:
    with hs.open(numbered) as file:
        for seq in (file, file.shuffled(1), file.split(0.5, by="record")[1]):
            expected = flat(seq)
            source = grain.MapDataset.source(seq.records)
            assert len(source) == len(expected)
            assert [int(y) for x, y in source] == expected
            assert int(source[17][1]) == expected[17]
            assert (source[5][0] == expected[5]).all()
            mixed = [int(y) for x, y in source.shuffle(seed=3)]
            assert mixed != expected and sorted(mixed) == sorted(expected)
            batches = list(source.batch(10))
            assert [int(label) for _, labels in batches for label in labels] == expected
            again = pickle.loads(pickle.dumps(seq.records))
            assert [int(y) for x, y in grain.MapDataset.source(again).to_iter_dataset()] == expected


def test_grain_reads_with_processes_of_its_own(numbered: Path) -> None:
    run(
        """
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # as absl.app.run() does, under which Grain's loader is to run
        if __name__ == "__main__":
            seq = hs.open(sys.argv[1])
            sampler = grain.samplers.IndexSampler(num_records=len(seq.records), num_epochs=1, shuffle=True, seed=1)
            loader = grain.DataLoader(data_source=seq.records, sampler=sampler, worker_count=1)
            assert sorted(int(y) for x, y in loader) == list(range(103))
        """,
        numbered,
    )


def test_without_jax_the_message_names_the_extra(numbered: Path) -> None:
    run(
        """
        sys.modules["jax"] = None  # what an environment without it looks like to import
        seq = hs.open(sys.argv[1])
        assert len(seq[0][1]) == 8
        for use in (seq.as_jax, lambda: hs.jax):
            try:
                use()
            except hs.MissingPackageError as error:
                assert isinstance(error, ImportError) and "hypersequence[jax]" in str(error), error
            else:
                raise AssertionError
        """,
        numbered,
    )


def test_jax_is_imported_when_it_is_asked_for(numbered: Path) -> None:
    run(
        """
        seq = hs.open(sys.argv[1])
        list(hs.Loader(seq.shuffled(1)))
        assert "jax" not in sys.modules
        seq.as_jax()
        assert "tensorflow" not in sys.modules and "torch" not in sys.modules
        assert hs.jax.JaxLoader is type(seq.as_jax())
        """,
        numbered,
    )


def test_a_script_that_leaves_a_file_open_ends_in_silence(numbered: Path) -> None:
    for code in ("loader = seq.as_jax()", "iterator = iter(seq.shuffled(1).as_jax()); next(iterator)"):
        process = script(f"seq = hs.open(sys.argv[1])\n{code}", numbered)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out) == (0, "done\n")
        assert "ignored" not in err and "hsq" not in err, err


def test_a_training_loop_learns(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 5)).astype(np.float32)
    truth = np.array([1, -2, 3, 0.5, 0], np.float32)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 32) as writer:
        writer.extend(x, x @ truth)

    @jax.jit
    def step(weights: jax.Array, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        loss, slope = jax.value_and_grad(lambda weights: jnp.mean((x @ weights - y) ** 2))(weights)
        return weights - 0.05 * slope, loss

    weights = jnp.zeros(5)
    with hs.open(tmp_path / "a.hsq") as seq:
        loader = seq.shuffled(seed=1).rebatch(50).as_jax()
        for _ in range(4):
            for images, labels in loader:
                weights, loss = step(weights, images, labels)
        assert step._cache_size() == 1
        assert loader.stats.batches == len(loader)
        assert "epoch 4" in repr(loader) and "JaxLoader" in repr(loader)
    assert float(loss) < 1e-4 and np.allclose(weights, truth, atol=1e-2)


def test_a_sharding_refuses_what_would_make_a_global_array_wrong(numbered: Path) -> None:
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:1]), ("data",)), PartitionSpec("data"))
    with hs.open(numbered) as seq:
        with pytest.raises(hs.ArgumentError, match="different sizes"):
            seq.as_jax(sharding=sharding, uneven="short")
        with pytest.raises(hs.ArgumentError, match=r"leave shard\(\) out"):
            seq.shard(1, 2).as_jax(sharding=sharding)
        with pytest.raises(hs.ArgumentError, match="rank and world"):
            seq.as_jax(sharding=sharding, world=2)
        with pytest.raises(hs.ArgumentError, match=r"jax\.devices"):
            seq.as_jax(device="cpu")
        with pytest.raises(hs.ArgumentError, match="NamedSharding"):
            seq.as_jax(sharding=jax.devices()[0])

"""Files of hypersequence 0.9 and 0.10: real ones, written by those packages themselves, and hostile ones.

The old packages are installed from the package index into a folder of their own, once.
"""

from __future__ import annotations

import gc
import gzip
import json
import os
import pickle
import random
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from test_bad_input import arrays_of, outcomes, same, same_columns

VERSIONS = ("0.9.3", "0.9.6", "0.9.7", "0.10.0")
MODES = [pytest.param({"use_mmap": True}, id="mmap"), pytest.param({"use_mmap": False}, id="read")]
META = {"name": "Größe", "classes": ["cat", "dog", None], "nested": {"scale": 0.5, "ok": True, "text": "@@FSEQ@@ HSQ2"}}

# --- files of the old packages --------------------------------------------------------------------------------------


@dataclass
class Case:
    """What is written: one array a field, with a leading axis of records."""

    inputs: list[np.ndarray]
    outputs: list[np.ndarray]
    batch_size: int
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def columns(self) -> list[np.ndarray]:
        """What must come back: whole batches, little-endian."""
        fields = [*self.inputs, *self.outputs]
        n_records = len(fields[0]) // self.batch_size * self.batch_size
        return [array[:n_records].astype(array.dtype.newbyteorder("<")) for array in fields]


NUMBERS = np.random.default_rng(11)


def noise(dtype: str, *shape: int) -> np.ndarray:
    """Random bytes, so that NaNs with odd payloads and negative zeros are among them."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer(NUMBERS.bytes(count), dtype).reshape(shape)


def truth(*shape: int) -> np.ndarray:
    return NUMBERS.integers(0, 2, shape).astype(np.bool_)


WORDS = np.array(["", "a", "Größe", "日本語", "longest", "x" * 7] * 10)
TYPES = ("i1", "u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8", "<c8", "<c16")
CASES: dict[str, Case] = {
    "images": Case([noise("<f4", 53, 4, 5)], [np.arange(53)], 8),
    "no-short-batch": Case([noise("u1", 32, 28, 28)], [np.arange(32, dtype=np.uint8)], 16),
    "two-to-three": Case(
        [noise("<f4", 25, 3), noise("u1", 25, 2, 2)],
        [noise("<f8", 25), noise("<i2", 25, 2), truth(25)],
        5,
    ),
    "three-to-one": Case([noise("<i4", 14), noise("<f8", 14, 2), truth(14, 3)], [noise("<f4", 14, 1)], 7),
    "one-to-two": Case([noise("<f4", 9, 2, 3, 4)], [noise("<f4", 9, 2), noise("<i8", 9)], 4),
    "every-type": Case([noise(name, 10, 3) for name in TYPES], [noise(name, 10) for name in TYPES] + [truth(10)], 3),
    "big-endian": Case(
        [noise(">f4", 21, 3), noise(">i8", 21), noise(">c16", 21, 2), noise(">u2", 21, 2, 2)],
        [WORDS[:21].astype(">U7"), np.arange(21).astype(">M8[s]"), noise(">f8", 21)],
        10,
    ),
    "text": Case([WORDS, WORDS.reshape(-1, 1).repeat(2, 1)], [np.char.encode(WORDS, "utf-8"), WORDS.astype("U20")], 8),
    "times": Case(
        [np.arange(12).astype("M8[ns]"), np.arange(24).reshape(12, 2).astype("M8[D]")],
        [np.arange(12).astype("m8[25s]"), np.array(["NaT", "2001-02-03T04:05"] * 6, "M8[m]")],
        4,
    ),
    "many-batches": Case([noise("<u2", 4001, 3)], [np.arange(4001)], 2),
    "batches-of-one": Case([noise("u1", 6, 3)], [noise("<f8", 6)], 1),
    "one-record": Case([noise("<f4", 1, 2)], [noise("<f4", 1)], 1),
    "odd-addresses": Case([noise("u1", 30, 3)], [noise("<f8", 30), noise("<c16", 30, 1)], 3),
    "larger-than-a-block": Case([noise("<f4", 40, 70_000)], [np.arange(40)], 8),
    "no-values": Case([noise("<f4", 10, 0, 3), noise("<f4", 10, 2)], [np.arange(10)], 4),
    "no-outputs": Case([noise("<f4", 10, 2)], [], 4),
    "metadata": Case([noise("<f4", 10, 2)], [np.arange(10)], 4, META),
    "large-metadata": Case([noise("<f4", 10, 2)], [np.arange(10)], 4, {"text": [hex(n**5) for n in range(50_000)]}),
}
# What the old packages wrote although nothing could read it safely, or at all.
REFUSED = {
    "structured": np.zeros(8, [("a", "<f4"), ("b", "<i2", (2,))]),
    "void": np.zeros((8, 2), "V5"),
    "long-double": np.zeros(8, np.longdouble),
    "unitless-times": np.zeros(8, "M8"),
}

WRITE = """
import json, sys
from pathlib import Path

import numpy as np
import hypersequence as hs

version, folder = sys.argv[1], Path(sys.argv[2])
assert hs.__version__ == version, hs.__file__
for case in json.loads((folder / "cases.json").read_text()):
    arrays = [np.load(folder / f"{case['name']}.{n}.npy") for n in range(case["no_inputs"] + case["no_outputs"])]
    with hs.HyperSequenceWriter(folder / f"{case['name']}.hsq", case["batch_size"]) as writer:
        if case["meta"]:
            writer.user_meta().update(case["meta"])
        for i in range(len(arrays[0])):
            record = [array[i, ...] for array in arrays]  # an array even if it has no dimensions
            inputs, outputs = tuple(record[: case["no_inputs"]]), tuple(record[case["no_inputs"] :])
            writer.append(
                inputs=inputs if len(inputs) != 1 else inputs[0], outputs=outputs if len(outputs) != 1 else outputs[0]
            )
"""


def install(version: str, cache: Path) -> Path:
    """The folder of an old package, from the cache or from the package index."""
    folder = cache / f"hypersequence-{version}"
    if not folder.is_dir():
        fresh = cache / f"{folder.name}.{os.getpid()}"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(fresh)]
        subprocess.run([*command, f"hypersequence=={version}"], check=True, timeout=300)
        # They import Keras without need, and some fail without it; this one has what they look for.
        (fresh / "tensorflow/keras").mkdir(parents=True)
        (fresh / "tensorflow/__init__.py").touch()
        (fresh / "tensorflow/keras/__init__.py").write_text("class utils:\n    class Sequence:\n        pass\n")
        try:
            fresh.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(fresh)
    return folder


@pytest.fixture(scope="session", params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A version, and a folder with all files that its package can write."""
    version = request.param
    package = install(version, request.config.cache.mkdir("legacy"))
    folder = tmp_path_factory.mktemp(version)
    cases = CASES | {name: Case([array], [np.arange(8)], 4) for name, array in REFUSED.items()}
    plans = []
    for name, case in cases.items():
        if not case.meta or version == "0.10.0":
            sizes = {"no_inputs": len(case.inputs), "no_outputs": len(case.outputs), "batch_size": case.batch_size}
            plans.append({"name": name, "meta": case.meta, **sizes})
            for n, array in enumerate([*case.inputs, *case.outputs]):
                np.save(folder / f"{name}.{n}.npy", array)
    (folder / "cases.json").write_text(json.dumps(plans))
    environment = os.environ | {"PYTHONPATH": str(package)}
    subprocess.run([sys.executable, "-c", WRITE, version, str(folder)], env=environment, check=True, timeout=120)
    return version, folder


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest, old: tuple[str, Path]) -> tuple[str, Case, Path]:
    """A version, and one of its files with what it must hold."""
    version, folder = old
    name = request.param
    if CASES[name].meta and version != "0.10.0":
        name = "images"  # there were no user metadata before
    return version, CASES[name], folder / f"{name}.hsq"


def structure(fields: list[np.ndarray]) -> Any:
    made = tuple(hs.Field(array.dtype, array.shape[1:]) for array in fields)
    return made[0] if len(made) == 1 else made or None


def flat(batch: Any, n_inputs: int) -> list[np.ndarray]:
    inputs, *outputs = batch
    members = [*inputs] if n_inputs != 1 else [inputs]
    return members + [one for role in outputs for one in (role if isinstance(role, tuple) else (role,))]


@pytest.mark.parametrize("options", MODES)
def test_what_a_file_says_of_itself(options: Any, case: tuple[str, Case, Path]) -> None:
    version, expected, path = case
    columns = expected.columns
    with hs.HyperSequenceFile(path, **options) as seq:
        assert seq.version == version.rsplit(".", 1)[0]
        assert seq.created_ns is None
        assert seq.path == str(path)
        assert seq.batch_size() == expected.batch_size
        assert seq.n_records == len(columns[0])
        assert len(seq) == len(columns[0]) // expected.batch_size
        assert (seq.no_inputs(), seq.no_outputs()) == (len(expected.inputs), len(expected.outputs))
        assert seq.schema == hs.Schema(structure(expected.inputs), structure(expected.outputs))
        dtypes = [np.dtype((array.dtype, array.shape[1:])) for array in columns]
        assert seq.dtypes() == (tuple(dtypes[: seq.no_inputs()]), tuple(dtypes[seq.no_inputs() :]))
        assert seq.user_meta() == expected.meta
        assert path.name in repr(seq)


def test_verify_says_that_there_are_no_checksums(case: tuple[str, Case, Path]) -> None:
    _, expected, path = case
    found = hs.verify(path)
    assert found.ok and not found.has_checksums
    assert found.n_records == len(expected.columns[0])
    assert "without checksums" in str(found)
    with pytest.raises(hs.FileError, match="it has no checksums"):
        hs.repair(path, path)


@pytest.mark.parametrize("options", MODES)
def test_every_batch_bit_for_bit(options: Any, case: tuple[str, Case, Path]) -> None:
    _, expected, path = case
    columns, size, n_inputs = expected.columns, expected.batch_size, len(expected.inputs)
    some = NUMBERS.integers(0, len(columns[0]), 50)
    with hs.HyperSequenceFile(path, **options) as seq, hs.HyperSequenceFile(path, copy_buffer=True, **options) as owned:
        for i, batch in enumerate(seq):
            wanted = [array[i * size : (i + 1) * size] for array in columns]
            assert same_columns(flat(batch, n_inputs), wanted)
            assert isinstance(batch[0], tuple) == (n_inputs != 1)
            assert len(batch) == (2 if expected.outputs else 1)
            copied = flat(owned[i], n_inputs)
            assert same_columns(copied, wanted)
            assert all(array.flags.writeable for array in copied)
        for other in (7, 1, len(columns[0]) + 1):
            rebatched = [flat(batch, n_inputs) for batch in seq.rebatch(other).take(300)]
            assert {len(arrays[0]) for arrays in rebatched[:-1]} <= {other}
            found = [np.concatenate(column) for column in zip(*rebatched, strict=True)]
            assert same_columns(found, [array[: 300 * other] for array in columns])
        for reading in (
            lambda: seq.records[some],
            lambda: seq.select(some).rebatch(50)[0],
            lambda: seq.records[list(some)],
        ):
            assert same_columns(flat(reading(), n_inputs), [array[some] for array in columns])
        for i in some[:5].tolist():
            for value, array in zip(flat(seq.records[i], n_inputs), columns, strict=True):
                # Alone, a text does not know how wide its column is.
                assert value == array[i] if type(value) in (np.str_, np.bytes_) else same(value, array[i])
        assert same_columns(flat(seq.records[::-1], n_inputs), [array[::-1] for array in columns])
        assert same_columns(flat(pickle.loads(pickle.dumps(seq))[0], n_inputs), [array[:size] for array in columns])
        assert same(flat(seq.fields("inputs")[-1], n_inputs)[-1], columns[n_inputs - 1][-size:])


@pytest.mark.parametrize("options", MODES)
def test_upgraded_files_are_the_same(options: Any, case: tuple[str, Case, Path], tmp_path: Path) -> None:
    _, expected, path = case
    n_inputs, target = len(expected.inputs), tmp_path / "new.hsq"
    before = path.read_bytes()
    hs.upgrade(path, target)
    assert path.read_bytes() == before
    with hs.HyperSequenceFile(target, verify="always", **options) as new, hs.HyperSequenceFile(path, **options) as seq:
        assert new.version == "3"
        assert (new.schema, new.batch_size(), new.n_records) == (seq.schema, seq.batch_size(), seq.n_records)
        assert new.user_meta() == seq.user_meta() == expected.meta
        assert same_columns(flat(new.records[:], n_inputs), expected.columns)
        # The same order of records in both, whatever is asked for.
        for by in ("batch", "record"):
            pairs = zip(new.shuffled(5, by=by).take(40), seq.shuffled(5, by=by).take(40), strict=True)
            assert all(same_columns(flat(one, n_inputs), flat(other, n_inputs)) for one, other in pairs)
    copied = tmp_path / "copy.hsq"
    shutil.copy(path, copied)
    hs.upgrade(copied, copied)
    with hs.HyperSequenceFile(copied, **options) as new:
        assert (new.version, new.batch_size(), new.user_meta()) == ("3", expected.batch_size, expected.meta)
        assert same_columns(flat(new.records[:], n_inputs), expected.columns)
    with pytest.raises(hs.FileError, match="exists already"):
        hs.upgrade(path, copied)
    hs.upgrade(path, copied, overwrite=True)
    assert sorted(tmp_path.iterdir()) == [copied, target]


def test_all_records_come_once_in_a_shuffle(old: tuple[str, Path]) -> None:
    with hs.HyperSequenceFile(old[1] / "many-batches.hsq") as seq:
        images = CASES["many-batches"].columns[0]
        for by in ("batch", "record"):
            order: list[int] = []
            for inputs, labels in seq.shuffled(1, by=by):
                assert same(inputs, images[labels])
                order += labels.tolist()
            assert sorted(order) == list(range(4000))
            assert order != sorted(order)


def test_batches_are_views_where_that_is_possible(old: tuple[str, Path]) -> None:
    _, folder = old
    with hs.HyperSequenceFile(folder / "no-short-batch.hsq") as seq:
        image, label = seq[1]
        assert not image.flags.owndata
        assert not (image.flags.writeable or label.flags.writeable)
    with hs.HyperSequenceFile(folder / "odd-addresses.hsq") as seq:
        assert all(array.flags.aligned for batch in seq for array in flat(batch, 1))
    assert same(image, CASES["no-short-batch"].columns[0][16:])


def test_files_of_all_versions_together(old: tuple[str, Path], tmp_path: Path) -> None:
    path = old[1] / "images.hsq"
    hs.upgrade(path, tmp_path / "new.hsq")
    with hs.open([path, tmp_path / "new.hsq"]) as seq:
        columns = CASES["images"].columns
        assert same_columns(flat(seq.records[:], 1), [np.concatenate([array, array]) for array in columns])


@pytest.mark.parametrize("name", REFUSED)
def test_types_that_were_written_but_cannot_be_read(name: str, old: tuple[str, Path]) -> None:
    with pytest.raises(hs.FormatError) as caught:
        hs.HyperSequenceFile(old[1] / f"{name}.hsq")
    assert caught.value.rule == "L4"


@pytest.mark.parametrize("name", ["images", "two-to-three"])
def test_cut_anywhere(name: str, old: tuple[str, Path], tmp_path: Path) -> None:
    """The old packages read files that lost their front, and gave wrong numbers."""
    version, folder = old
    data, path = (folder / f"{name}.hsq").read_bytes(), tmp_path / "cut.hsq"
    case = CASES[name]
    batch_nbytes = sum(array.nbytes for array in case.columns) // (len(case.columns[0]) // case.batch_size)
    start = sum(array.nbytes for array in case.columns)
    for n in {*range(1, start, 97), *range(batch_nbytes, start, batch_nbytes), start}:
        path.write_bytes(data[n:])
        with pytest.raises(hs.FormatError, match="the file was cut or added to") as caught:
            hs.HyperSequenceFile(path)
        assert caught.value.rule == "L5"
        path.write_bytes(data[: start - n] + data[start:])
        with pytest.raises(hs.FormatError) as caught:
            hs.HyperSequenceFile(path)
        assert caught.value.rule == "L5"
        path.write_bytes(bytes(n) + data)
        with pytest.raises(hs.FormatError) as caught:
            hs.HyperSequenceFile(path)
        assert caught.value.rule == "L5"
    rules: set[str] = set()
    for n in [*range(start + 1, len(data)), *range(0, start, 101)]:
        for part in (data[:n], data[n:] if n > start else b""):
            path.write_bytes(part)
            with pytest.raises(hs.FormatError) as caught:
                hs.HyperSequenceFile(path, use_mmap=bool(n % 2))
            rules.add(caught.value.rule)
    assert rules <= ({"H1", "L1"} if version == "0.10.0" else {"H1", "L2"})


def test_every_byte_of_the_metadata_changed(old: tuple[str, Path], tmp_path: Path) -> None:
    """gzip has a checksum, and 0.10 with it; 0.9 has none, but nothing of it may crash a reader."""
    version, folder = old
    data, path = (folder / "two-to-three.hsq").read_bytes(), tmp_path / "changed.hsq"
    case = CASES["two-to-three"]
    start, numbers, refused = sum(array.nbytes for array in case.columns), random.Random(5), 0
    for at in range(start, len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << numbers.randrange(8)
        path.write_bytes(changed)
        try:
            with hs.HyperSequenceFile(path, use_mmap=bool(at % 2)) as seq:
                found = flat(seq.records[:], seq.no_inputs())
        except hs.HyperSequenceError:
            refused += 1
        else:
            # gzip has bits that mean nothing, such as its date.
            assert version != "0.10.0" or same_columns(found, case.columns)
    assert refused > (len(data) - start) * 0.8


# --- files that no old package wrote --------------------------------------------------------------------------------

RECORDS, BATCH = 6, 2
INPUTS, OUTPUTS = np.arange(18, dtype="<f4").reshape(RECORDS, 3), np.arange(RECORDS, dtype="<i8")
DATA = b"".join(INPUTS[i : i + BATCH].tobytes() + OUTPUTS[i : i + BATCH].tobytes() for i in range(0, RECORDS, BATCH))
FIELDS: list[Any] = [["i0", "<f4", [BATCH, 3]], ["o0", "<i8", [BATCH]]]
GOOD: dict[str, Any] = {
    "version": "0.10.0",
    "records": RECORDS // BATCH,
    "batch_size": BATCH,
    "no_inputs": 1,
    "no_outputs": 1,
    "dtype": FIELDS,
}


def marked(meta: Any, data: bytes = DATA) -> bytes:
    """A file of 0.9."""
    return data + b"@@FSEQ@@" + (meta if isinstance(meta, bytes) else json.dumps(meta).encode())


def packed(packed_meta: bytes, data: bytes = DATA, nbytes: int | None = None) -> bytes:
    """The end of a file of 0.10, whatever its metadata are."""
    return data + packed_meta + struct.pack(">I", len(packed_meta) if nbytes is None else nbytes) + b"HSQ2"


def zipped(meta: Any, data: bytes = DATA) -> bytes:
    """A file of 0.10."""
    return packed(gzip.compress(meta if isinstance(meta, bytes) else json.dumps(meta).encode()), data)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in GOOD.items() if name != key}


def typed(type_string: Any, shape: Any = None, data: bytes | None = None) -> tuple[Any, bytes]:
    """Metadata with another first field, and no batches, so that no size is wrong."""
    first = ["i0", type_string, [BATCH, 3] if shape is None else shape]
    return GOOD | {"dtype": [first, FIELDS[1]], "records": 0}, b"" if data is None else data


def deep(levels: int) -> bytes:
    return b'{"usermeta":' + b"[" * levels + b"]" * levels + b"}"


# Rule, what is wrong, the metadata, and the data before them.
BOTH: list[tuple[str, str, Any, bytes]] = [
    ("L2", "empty", b"", DATA),
    ("L2", "no JSON", b"records: 3", DATA),
    ("L2", "JSON cut off", json.dumps(GOOD).encode()[:-1], DATA),
    ("L2", "more behind it", json.dumps(GOOD).encode() + b"{}", DATA),
    ("L2", "not UTF-8", json.dumps(GOOD).encode().replace(b"0.10.0", b"\xff"), DATA),
    ("L2", "a list", [GOOD], DATA),
    ("L2", "null", None, DATA),
    ("L2", "text", "records", DATA),
    ("L2", "100000 levels deep", deep(100_000), DATA),
    ("L2", "a number of 5000 digits", b'{"records":' + b"9" * 5000 + b"}", DATA),
    *(
        ("L2", f"{key} {str(value)[:20]}", GOOD | {key: value}, DATA)
        for key in ("records", "batch_size", "no_inputs", "no_outputs")
        for value in (-1, 2**62, 2**63, 2**64, 10**4000, True, 2.0, 1e300, "2", None, [2], {"a": 2})
    ),
    *(("L2", f"no {key}", without(key), DATA) for key in ("records", "batch_size", "no_inputs", "no_outputs")),
    ("L2", "batches of none", GOOD | {"batch_size": 0}, DATA),
    ("L2", "no inputs at all", GOOD | {"no_inputs": 0, "no_outputs": 2}, DATA),
    *(("L2", f"usermeta {value!r}", GOOD | {"usermeta": value}, DATA) for value in (None, [], "text", 5, True)),
    ("L3", "no dtype", without("dtype"), DATA),
    *(
        ("L3", f"dtype {value!r}", GOOD | {"dtype": value}, DATA)
        for value in (None, "f4", 5, {}, [], FIELDS[:1], FIELDS * 2)
    ),
    *(
        ("L3", f"{n_inputs} inputs, {n_outputs} outputs", GOOD | {"no_inputs": n_inputs, "no_outputs": n_outputs}, DATA)
        for n_inputs, n_outputs in ((1, 0), (2, 1), (1, 2), (2**61, 1), (2**61, 2**61))
    ),
    *(
        ("L3", f"field {entry!r}"[:60], GOOD | {"dtype": [entry, FIELDS[1]]}, DATA)
        for entry in (
            *(
                None,
                5,
                "<f4",
                [],
                {},
                ["i0"],
                ["i0", "<f4"],
                ["i0", "<f4", [2, 3], 0],
                ["i0", "<f4", None],
                ["i0", "<f4", 2],
            ),
            *(["i0", "<f4", "2"], ["i0", "<f4", []], ["i0", "<f4", [3]], ["i0", "<f4", [3, 2]], ["i0", "<f4", [2, -3]]),
            *(["i0", "<f4", [2, 3.0]], ["i0", "<f4", [2, True]], ["i0", "<f4", [2, "3"]], ["i0", "<f4", [2, [3]]]),
            *(["i0", "<f4", [-2, 3]], ["i0", "<f4", [10**300, 3]], ["i0", "<f4", {"0": 2}]),
        )
    ),
    (
        "L3",
        "more than 4096 fields",
        GOOD | {"records": 0, "no_inputs": 5000, "no_outputs": 0, "dtype": [["i", "|u1", [BATCH]]] * 5000},
        b"",
    ),
    *(
        ("L4", f"type {name!r}"[:60], *typed(name))
        for name in (
            *("|O", "O", "object", "<f4,<f4", "f4,f4", "V8", "|V8", "<f16", "<c32", "<f3", "<i3", "<u16", "<f0", "<i0"),
            *(
                "<M8[lightyears]",
                "<M8",
                "<M8[]",
                "<M8[0s]",
                "<m4[s]",
                "<M8[s",
                "<M8[1000000000s]",
                "<M8[-1s]",
                "<M8[s/2]",
            ),
            *("|S1000000000", "|S10000000000", "|S-1", "|S", "<U536870912", "<U999999999", "<U1000000000", "<U+1"),
            *("|b8", "<b2", ">b1", "<b1", "|b0", "|?1", "float32", "f4", "<F4", "", " <f4", "<f4 ", "\n<f4", "<f4\n"),
            *("<f\u0664", "<f4\0", "<<f4", "(2,)<f4", "{'names':['a'],'formats':['O']}", "a" * 100_000),
            *(None, 5, True, ["<f4"], [["a", "<f4"]], [["a", "|O"]], {"names": ["a"]}),
        )
    ),
    *(
        ("L4", f"shape {shape!r}"[:60], *typed("<f4", [BATCH, *shape]))
        for shape in ([2**62], [2**31, 2**31], [2**62, 0], [1] * 33, [1] * 100_000, [10**300])
    ),
    ("L2", "a shape of dimensions with 4000 digits", *typed("<f4", [BATCH, 10**4000, 10**4000])),
    ("L4", "a text of a terabyte", *typed("|S999999999", [BATCH, 10_000])),
    ("L5", "front lost", GOOD, DATA[1:]),
    ("L5", "a batch lost", GOOD, DATA[40:]),
    ("L5", "all lost", GOOD, b""),
    ("L5", "a byte before", GOOD, b"\0" + DATA),
    ("L5", "a batch too many", GOOD, DATA + DATA[:40]),
    *(("L5", f"{n} batches", GOOD | {"records": n}, DATA) for n in (0, 1, 2, 4, 2**61)),
    (
        "L5",
        "batches of 2**61",
        GOOD | {"batch_size": 2**61, "dtype": [["i0", "<f4", [2**61, 3]], ["o0", "<i8", [2**61]]]},
        DATA,
    ),
    (
        "L5",
        "sizes whose product is 120 in 64 bits",
        GOOD
        | {"records": 3 * 2**60, "batch_size": 2**61, "dtype": [["i0", "<f4", [2**61, 3]], ["o0", "<i8", [2**61]]]},
        DATA,
    ),
    ("L5", "other types", GOOD | {"dtype": [["i0", "<f8", [BATCH, 3]], FIELDS[1]]}, DATA),
]
MEMBER = gzip.compress(json.dumps(GOOD).encode())
ZIPPED_ONLY: list[tuple[str, str, bytes]] = [
    *(("L1", f"{n} bytes of metadata", packed(MEMBER, nbytes=n)) for n in (0, 1, 17, len(MEMBER) - 1, len(MEMBER) + 1)),
    *(("L1", f"{n} bytes of metadata", packed(MEMBER, nbytes=n)) for n in (len(MEMBER) + 121, 2**31, 2**32 - 1)),
    ("L1", "nothing but the magic", b"HSQ2"),
    ("L1", "part of a length", b"\0\0HSQ2"),
    ("L1", "no metadata", packed(b"", b"")),
    ("L1", "not compressed", packed(json.dumps(GOOD).encode())),
    ("L1", "zlib", packed(zlib.compress(json.dumps(GOOD).encode()))),
    ("L1", "cut", packed(MEMBER[:-1])),
    ("L1", "cut before its checksum", packed(MEMBER[:-8])),
    ("L1", "its checksum", packed(MEMBER[:-8] + bytes(4) + MEMBER[-4:])),
    ("L1", "its length", packed(MEMBER[:-4] + bytes(4))),
    ("L1", "zeros behind", packed(MEMBER + bytes(8))),
    ("L1", "bytes behind", packed(MEMBER + b"more")),
    ("L1", "two members", packed(MEMBER + MEMBER)),
]
TABLE = [
    *((f"{rule}-0.9-{what}", rule, marked(meta, data)) for rule, what, meta, data in BOTH),
    *((f"{rule}-0.10-{what}", rule, zipped(meta, data)) for rule, what, meta, data in BOTH),
    *((f"{rule}-0.10-{what}", rule, data) for rule, what, data in ZIPPED_ONLY),
]


@pytest.fixture
def hostile(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "hostile.hsq"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("make", [marked, zipped])
def test_the_good_one_is_good(make: Any, options: Any, hostile: Callable[[bytes], Path]) -> None:
    for extra in ({}, {"usermeta": {"name": "Größe"}}, {"unknown": 1}):
        with hs.HyperSequenceFile(hostile(make(GOOD | extra)), **options) as seq:
            assert seq.version == ("0.9" if make is marked else "0.10")
            assert same_columns(arrays_of(seq.records[:]), [INPUTS, OUTPUTS])
            assert seq.user_meta() == extra.get("usermeta", {})
    none = GOOD | {"records": 0}
    with hs.HyperSequenceFile(hostile(make(none, b"")), **options) as seq:
        assert (len(seq), seq.n_records, list(seq)) == (0, 0, [])
        assert seq.records[:][0].shape == (0, 3)


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize(("rule", "data"), [pytest.param(rule, data, id=name) for name, rule, data in TABLE])
def test_every_rule_is_enforced(rule: str, data: bytes, options: Any, hostile: Callable[[bytes], Path]) -> None:
    path = hostile(data)
    with pytest.raises(hs.FormatError) as caught:
        hs.HyperSequenceFile(path, **options)
    error = caught.value
    assert error.rule == rule, str(error)
    assert error.path == str(path)
    assert str(error).startswith(f"{path}: ")
    assert str(error).endswith(f"[rule {rule}]")
    assert len(str(error)) < 1000 + len(str(path))
    assert str(error).isprintable(), "a file must not write control characters to a terminal"


def test_every_rule_in_the_source_has_cases_here() -> None:
    source = (Path(hs.__file__).parent / "legacy.py").read_text(encoding="utf-8")
    assert {rule for _, rule, _ in TABLE} == set(re.findall(r'"([A-Z]\d+)"', source))


def test_no_case_of_the_table_takes_much_memory(tmp_path: Path) -> None:
    for i, (_, _, data) in enumerate(TABLE):
        (tmp_path / f"{i}.hsq").write_bytes(data)
    found = outcomes(*(tmp_path / f"{i}.hsq" for i in range(len(TABLE))))
    assert not [(name, have) for (name, want, _), have in zip(TABLE, found, strict=True) if have != want]


def bomb(piece: bytes, mib: int, front: bytes = b"", back: bytes = b"") -> bytes:
    """Many MiB of JSON that compress to next to nothing."""
    packer = zlib.compressobj(6, wbits=31)
    piece = piece * ((1 << 20) // len(piece))
    return (
        packer.compress(front)
        + b"".join(packer.compress(piece) for _ in range(mib))
        + packer.compress(back)
        + packer.flush()
    )


@pytest.mark.parametrize(
    ("mib", "rules"),
    [(65, {"L1"}), (100, {"L1"}), (60, {"L2"})],
    ids=["just over the limit", "far over it", "below it"],
)
def test_a_gzip_bomb_of_blanks(mib: int, rules: set[str], hostile: Callable[[bytes], Path]) -> None:
    path = hostile(packed(bomb(b" ", mib)))
    assert path.stat().st_size < 1 << 20
    assert set(outcomes(f"{path}|mmap", f"{path}|read", room=400 << 20)) == rules


@pytest.mark.parametrize("piece", [b"[],", b"{},"])
def test_a_gzip_bomb_of_small_values(piece: bytes, hostile: Callable[[bytes], Path]) -> None:
    """Forty kilobytes in the file, forty million bytes of JSON, and thirty times as much as Python objects."""
    path = hostile(packed(bomb(piece, 40, b'{"usermeta":{"a":[', b"0]}}")))
    assert path.stat().st_size < 1 << 18
    assert set(outcomes(f"{path}|read", room=500 << 20)) <= {"L1", "L2"}


@pytest.mark.parametrize("make", [marked, zipped])
def test_endless_batches_of_no_bytes(make: Any, tmp_path: Path) -> None:
    """Reading records without bytes must not count them one by one, nor overflow; a file may be refused for them."""
    tasks: list[str] = []
    for size in (1 << 20, 1 << 40, 1 << 61):
        for shape in ([0], [0, 3], [1 << 20, 0, 1 << 10]):
            meta = GOOD | {
                "records": size,
                "batch_size": size,
                "no_outputs": 0,
                "dtype": [["i0", "<f4", [size, *shape]]],
            }
            path = tmp_path / f"{len(tasks)}.hsq"
            path.write_bytes(make(meta, b""))
            tasks += [f"{path}|mmap", f"{path}|read"]
    assert set(outcomes(*tasks, room=64 << 20)) <= {"fine", "L2", "L3", "L4", "L5"}


def test_a_marker_among_the_records_is_not_taken_for_the_end(hostile: Callable[[bytes], Path]) -> None:
    text = b"@@FSEQ@@{}HSQ2"
    values = np.frombuffer(text * RECORDS, f"S{len(text)}")
    meta = GOOD | {"no_outputs": 0, "dtype": [["i0", f"|S{len(text)}", [BATCH]]]}
    for make in (marked, zipped):
        with hs.HyperSequenceFile(hostile(make(meta, values.tobytes()))) as seq:
            assert same(seq.records[:][0], values)
    with pytest.raises(hs.FormatError) as caught:
        hs.HyperSequenceFile(hostile(values.tobytes()))
    assert caught.value.rule == "L1"


def test_a_web_page_about_the_format_is_no_file(hostile: Callable[[bytes], Path]) -> None:
    for page in (b"<html>files of 0.9 end with @@FSEQ@@ and JSON</html>", b"<html>files of 0.10 end with HSQ2"):
        with pytest.raises(hs.FormatError) as caught:
            hs.HyperSequenceFile(hostile(page))
        assert caught.value.rule in ("L1", "L2")


def test_numbers_that_json_does_not_know_are_upgraded_to_text(tmp_path: Path) -> None:
    """The old packages wrote NaN as Python does; the new format has none, and says so."""
    path = tmp_path / "nan.hsq"
    path.write_bytes(zipped(GOOD | {"usermeta": {"loss": float("nan")}}))
    with hs.HyperSequenceFile(path) as seq:
        assert np.isnan(seq.user_meta()["loss"])
        records = seq.records[:]
    with pytest.warns(UserWarning, match="nan in the user metadata"):
        hs.upgrade(path, path)
    with hs.HyperSequenceFile(path) as seq:
        assert seq.version == "3"
        assert seq.user_meta() == {"loss": "nan"}
        assert all(np.array_equal(new, old) for new, old in zip(seq.records[:], records, strict=True))


def test_a_damaged_file_is_not_upgraded(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.hsq", tmp_path / "good.hsq"
    bad.write_bytes(marked(GOOD, DATA[1:]))
    good.write_bytes(b"left alone")
    for target in (good, bad):
        with pytest.raises(hs.FormatError):
            hs.upgrade(bad, target)
    assert good.read_bytes() == b"left alone"
    assert bad.read_bytes() == marked(GOOD, DATA[1:])
    assert sorted(tmp_path.iterdir()) == [bad, good]


@pytest.mark.parametrize("size", [2**45, 2**61])
def test_an_absurd_batch_size_cannot_be_upgraded(size: int, tmp_path: Path) -> None:
    """A file without batches may claim any size; a writer needs memory for one of them."""
    path = tmp_path / "absurd.hsq"
    fields = [["i0", "<f4", [size, 3]], ["o0", "<i8", [size]]]
    path.write_bytes(marked(GOOD | {"records": 0, "batch_size": size, "dtype": fields}, b""))
    with hs.HyperSequenceFile(path) as seq:
        assert (len(seq), seq.n_records, seq.batch_size()) == (0, 0, size)
        assert seq.records[:][0].shape == (0, 3)
    with pytest.raises(hs.HyperSequenceError):
        hs.upgrade(path, tmp_path / "new.hsq")
    gc.collect()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("options", MODES)
def test_truncated_or_replaced_while_open(options: Any, tmp_path: Path) -> None:
    path = tmp_path / "changes.hsq"
    path.write_bytes(zipped(GOOD))
    with hs.HyperSequenceFile(path, **options) as seq:
        pickled = pickle.dumps(seq.shuffled(1))
        other = tmp_path / "other.hsq"
        other.write_bytes(zipped(GOOD | {"records": 2}, DATA[:80]))
        other.replace(path)
        assert same_columns(arrays_of(seq.records[:]), [INPUTS, OUTPUTS])
        with pytest.raises(hs.FileChangedError):
            pickle.loads(pickled)
    with hs.HyperSequenceFile(path, **options) as seq:
        os.truncate(path, 70)
        for reading in (lambda: seq[0], lambda: seq.records[[1, 0]], seq.user_meta):
            with pytest.raises(hs.FileChangedError):
                reading()
        seq.close()
        with pytest.raises(hs.ClosedError):
            seq[0]


def test_a_thousand_lies(tmp_path: Path) -> None:
    """Values of the metadata replaced at random: an error of ours, or arrays of the size that they claim."""
    numbers, path, refused = random.Random(3), tmp_path / "lies.hsq", 0
    odd = [
        None,
        True,
        -1,
        0,
        1,
        2,
        3,
        4,
        6,
        2**61,
        1.5,
        "",
        "x",
        "<f4",
        "|S4",
        "<M8[s]",
        ">i2",
        [],
        {},
        [2],
        [2, 3],
        [2, 0],
    ]
    for i in range(1000):
        meta = json.loads(json.dumps(GOOD))
        for _ in range(numbers.choice([1, 1, 2, 3])):
            target = numbers.choice([meta, meta, *meta["dtype"]]) if isinstance(meta["dtype"], list) else meta
            if isinstance(target, dict):
                target[numbers.choice([*target, "usermeta"])] = numbers.choice(odd)
            elif isinstance(target, list) and target:
                target[numbers.randrange(len(target))] = numbers.choice(odd)
        path.write_bytes(numbers.choice([marked, zipped])(meta))
        try:
            with hs.HyperSequenceFile(path, use_mmap=bool(i % 2)) as seq:
                repr(seq), seq.dtypes(), seq.user_meta(), list(seq.take(10))
                arrays = flat(seq.records[:], seq.no_inputs())
        except hs.HyperSequenceError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"lie {i}: {meta}") from error
        else:
            assert sum(array.nbytes for array in arrays) == len(DATA)
    assert 500 < refused < 1000

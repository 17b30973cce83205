"""What was written is what is read: every type, shape and structure, against NumPy's own memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import hypersequence as hs

FLOAT8 = ["e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"]
NUMERIC = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "complex64",
    "complex128",
    "S1",
    "S7",
    "U1",
    "U5",
]
TIMES = ["datetime64[ns]", "datetime64[25s]", "datetime64[D]", "timedelta64[ms]", "timedelta64[Y]"]
EXTENSION = [ml_dtypes.bfloat16, *(getattr(ml_dtypes, f"float8_{kind}") for kind in FLOAT8)]
ALL_TYPES = [np.dtype(t) for t in [*NUMERIC, *TIMES, *EXTENSION]]


def bits(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def random_array(dtype: np.dtype, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Any bit pattern that the type allows."""
    rng = np.random.default_rng(seed)
    n = int(np.prod(shape))
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if dtype.kind in "SU":
        width = dtype.itemsize // (4 if dtype.kind == "U" else 1)
        texts = ["".join(chr(c) for c in rng.integers(65, 0x2FF if dtype.kind == "U" else 91, width)) for _ in range(n)]
        return np.array(texts or [""], dtype)[:n].reshape(shape)
    return np.frombuffer(rng.bytes(n * dtype.itemsize), dtype).reshape(shape)


@pytest.mark.parametrize("dtype", ALL_TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("use_mmap", [True, False], ids=["mmap", "pread"])
def test_every_type_and_shape(tmp_path: Path, dtype: np.dtype, shape: tuple[int, ...], use_mmap: bool) -> None:
    values = random_array(dtype, (23, *shape))
    by_append, by_extend = tmp_path / "a.hsq", tmp_path / "e.hsq"
    options: dict[str, Any] = {"batch_size": 4, "block_nbytes": 200, "file_id": bytes(16), "created_ns": 0}
    with hs.HyperSequenceWriter(by_append, schema=hs.Schema(hs.Field(dtype, shape)), **options) as writer:
        for value in values:
            writer.append(value)
    with hs.HyperSequenceWriter(by_extend, **options) as writer:
        writer.extend(values)
    assert by_append.read_bytes() == by_extend.read_bytes()
    with hs.HyperSequenceFile(by_append, use_mmap=use_mmap) as seq:
        assert seq.schema == hs.Schema(hs.Field(dtype, shape))
        for size in (4, 3, 23):
            (whole,) = zip(*seq.rebatch(size), strict=True)
            assert all(batch.dtype == dtype and batch.shape[1:] == shape for batch in whole)
            assert b"".join(map(bits, whole)) == bits(values)
        picked = [22, 0, 7, 7, 13]
        assert bits(seq.records[picked][0]) == bits(values[picked])
        assert seq.records[-1][0].shape == shape
        assert bits(seq.records[-1][0]) == bits(values[-1])


@given(
    shape=npst.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    dtype=st.sampled_from(ALL_TYPES),
    n_records=st.integers(0, 60),
    batch_size=st.integers(1, 9),
    block_nbytes=st.integers(1, 4000),
    new_size=st.integers(1, 70),
    seed=st.integers(0, 2**32),
)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_geometry(
    tmp_path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    n_records: int,
    batch_size: int,
    block_nbytes: int,
    new_size: int,
    seed: int,
) -> None:
    path = tmp_path / "any.hsq"
    values = random_array(dtype, (n_records, *shape), seed)
    labels = np.arange(n_records, dtype=np.int16)
    schema = hs.Schema(inputs={"x": hs.Field(dtype, shape), "number": "int16"}, outputs=hs.Field("S3"))
    names = np.array([f"{i % 1000}".encode() for i in range(n_records)], "S3")
    with hs.HyperSequenceWriter(path, batch_size, schema=schema, block_nbytes=block_nbytes) as writer:
        half = n_records // 2
        writer.extend({"x": values[:half], "number": labels[:half]}, names[:half])
        for i in range(half, n_records):
            writer.append({"number": labels[i], "x": values[i]}, bytes(names[i]))
    order = np.random.default_rng(seed).permutation(n_records)
    with hs.HyperSequenceFile(path) as seq:
        assert (seq.n_records, len(seq)) == (n_records, -(-n_records // batch_size))
        for sequence, expected in ((seq.rebatch(new_size), np.arange(n_records)), (seq.select(order), order)):
            at = 0
            for inputs, outputs in sequence:
                part = expected[at : at + len(outputs)]
                assert bits(inputs["x"]) == bits(values[part])
                assert inputs["number"].tolist() == part.tolist()
                assert outputs.tolist() == names[part].tolist()
                at += len(outputs)
            assert at == n_records


STRUCTURES: list[tuple[Any, Any, Any]] = [
    (np.zeros(3), None, None),
    (np.zeros(3), 1, None),
    (np.zeros(3), 1, 0.5),
    ((np.zeros(3), 1), None, None),
    ((np.zeros(3), 1, np.float32(2)), (True, "abc"), None),
    ({"a": np.zeros(3), "b": 1}, {"c": b"x"}, {"c": 1.0}),
    ({"a": np.zeros(3)}, (1, 2), 0.25),
    (1, {"ü": 2, "名前": 3}, None),
]


@pytest.mark.parametrize("record", STRUCTURES, ids=[str(i) for i in range(len(STRUCTURES))])
def test_structures_come_back_as_they_went_in(tmp_path: Path, record: tuple[Any, Any, Any]) -> None:
    path = tmp_path / "s.hsq"
    with hs.HyperSequenceWriter(path, 2) as writer:
        for _ in range(3):
            writer.append(*record)
    expected = tuple(part for part in record if part is not None)

    def same_kind(found: Any, given: Any) -> None:
        if isinstance(given, dict):
            assert list(found) == list(given)
            for name in given:
                same_kind(found[name], given[name])
        elif isinstance(given, tuple):
            assert isinstance(found, tuple)
            for one, other in zip(found, given, strict=True):
                same_kind(one, other)
        else:
            assert found.shape == (2, *np.shape(given))
            assert found[1].tolist() == np.asarray(given).tolist()

    with hs.HyperSequenceFile(path) as seq:
        batch = seq[0]
        assert type(batch) is tuple
        assert len(batch) == len(expected)
        same_kind(batch, expected)
        assert seq.no_inputs() == len(seq.dtypes()[0])
        assert seq.no_outputs() == len(seq.dtypes()[1])


def test_input_of_any_layout_is_stored_in_c_order(tmp_path: Path) -> None:
    base = np.arange(4 * 6 * 5, dtype=np.int32).reshape(4, 6, 5)
    for number, values in enumerate(
        [base[:, ::2], base[:, :, ::-1], np.asfortranarray(base), base.transpose(0, 2, 1), base.astype(">i4")]
    ):
        path = tmp_path / f"{number}.hsq"
        with hs.HyperSequenceWriter(path, 2) as writer:
            for value in values:
                writer.append(value)
            writer.extend(values)
        with hs.HyperSequenceFile(path) as seq:
            found = seq.records[:][0]
            assert found.dtype == np.dtype("<i4")
            assert np.array_equal(found, np.concatenate([values, values]))


def test_the_same_input_makes_the_same_bytes(tmp_path: Path) -> None:
    contents = set()
    for name in ("a", "b"):
        path = tmp_path / name
        with hs.HyperSequenceWriter(path, file_id=b"0123456789abcdef", created_ns=42) as writer:
            writer.user_meta()["k"] = [1, {"ü": None}]
            writer.extend(np.arange(1000), np.arange(1000) * 0.5)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    with hs.HyperSequenceFile(tmp_path / "a") as seq:
        assert seq.created_ns == 42
        assert seq.user_meta() == {"k": [1, {"ü": None}]}


def test_a_contiguous_batch_is_a_read_only_view_and_a_scattered_one_is_owned(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        view, gathered = seq[0][0], seq.select([5, 3, 1])[0][0]
        assert not view.flags.writeable
        assert not view.flags.owndata
        assert gathered.flags.writeable
        gathered[:] = -1
        assert seq[0][0][5, 0, 0] == 5
        with hs.HyperSequenceFile(numbered, copy_buffer=True) as copying:
            copy = copying[0][0]
            assert copy.flags.writeable
            copy[:] = -1
            assert copying[0][0][5, 0, 0] == 5


def test_blocks_and_their_columns_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "aligned.hsq"
    with hs.HyperSequenceWriter(path, 16, block_nbytes=1 << 16) as writer:
        writer.extend(np.zeros((5000, 16), np.float32), np.arange(5000))
    with hs.HyperSequenceFile(path) as seq:
        for inputs, outputs in seq:
            assert inputs.ctypes.data % 64 == 0
            assert outputs.ctypes.data % 64 == 0
        scattered = seq.select(np.arange(5000)[::-1]).rebatch(256)
        assert all(batch[0].ctypes.data % 64 == 0 for batch in scattered)


def test_arrays_are_never_overwritten_while_somebody_holds_them(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        backwards = seq.select(np.arange(103)[::-1]).rebatch(100)
        wide = np.random.default_rng(0).integers(0, 103, 5000)
        held = [seq.select(wide).rebatch(1000)[i] for i in range(5)]
        parts = [batch[0][10:20, 1] for batch in held]  # views of views keep the memory too
        copies = [part.copy() for part in parts]
        del held
        for _ in range(20):
            seq.select(wide[::-1]).rebatch(1000)[0][0][:] = -7
            backwards[0]
        for part, copy in zip(parts, copies, strict=True):
            assert np.array_equal(part, copy)


def test_arrays_outlive_the_file(numbered: Path) -> None:
    with hs.HyperSequenceFile(numbered) as seq:
        batch = seq[1]
    numbered.unlink()
    assert batch[1].tolist() == list(range(8, 16))
    assert (batch[0][:, 0, 0] == batch[1]).all()
    with pytest.raises(hs.ClosedError, match=r"numbered\.hsq"):
        seq[0]

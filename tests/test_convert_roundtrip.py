"""Out to every format that keeps metadata, and back: the same file, roles and user metadata included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hypersequence as hs

#: Endings of formats that have room for roles and metadata.
WHOLE = (".h5", ".zarr", ".parquet", ".arrow", ".tar")


def write(path: Path, n: int = 50) -> None:
    random = np.random.default_rng(0)
    with hs.HyperSequenceWriter(path, batch_size=4) as writer:
        for i in range(n):
            writer.append(
                {"label": random.random((3, 4), np.float32), "text": f"number {i:02}"},
                {"image": np.full((2, 2), i, np.uint8), "y": i},
                {"weight": np.float32(i / 2)},
            )
        writer.user_meta().update(note="kept", numbers=[1, 2.5, None])


@pytest.mark.parametrize("ending", WHOLE)
def test_roles_and_metadata_come_back(tmp_path: Path, ending: str) -> None:
    """Fields are called so that guessing by names would put them elsewhere."""
    write(tmp_path / "a.hsq")
    hs.convert(tmp_path / "a.hsq", tmp_path / f"b{ending}")
    hs.convert(tmp_path / f"b{ending}", tmp_path / "c.hsq", batch_size=4)
    with hs.open(tmp_path / "a.hsq") as before, hs.open(tmp_path / "c.hsq") as after:
        assert [(c.role, c.name, c.field.shape) for c in after.columns] == [
            (c.role, c.name, c.field.shape) for c in before.columns
        ]
        assert after.user_meta() == before.user_meta()
        for one, other in zip(before.records[:], after.records[:], strict=True):
            for name in one:
                assert (one[name] == other[name]).all()
                assert one[name].dtype.kind == other[name].dtype.kind


@pytest.mark.parametrize("ending", WHOLE)
@pytest.mark.parametrize(
    "schema",
    [
        hs.Schema("int64"),
        hs.Schema("int64", "float32"),
        hs.Schema(("int64", ("float32", (2,))), ("int16", "int32"), "float32"),
        hs.Schema({"x": "int64"}, {"x": "float32"}),
        hs.Schema({"x": "int64", "inputs": "int16"}, "float32"),
        hs.Schema(("int64", "int16"), {"inputs_0": "float32"}),
    ],
    ids=str,
)
def test_names_come_back_and_so_does_their_lack(tmp_path: Path, ending: str, schema: hs.Schema) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", schema=schema) as writer:
        columns = [np.ones((20, *column.field.shape), column.field.dtype) for column in schema.columns]
        writer.extend(*schema.builder(range(len(columns)))(columns))
    hs.convert(tmp_path / "a.hsq", tmp_path / f"b{ending}")
    hs.convert(tmp_path / f"b{ending}", tmp_path / "c.hsq")
    assert hs.open(tmp_path / "c.hsq").schema == schema
    hs.convert(tmp_path / f"b{ending}", tmp_path / "d.hsq", named=True)
    assert all(column.name is not None for column in hs.open(tmp_path / "d.hsq").columns)


@pytest.mark.parametrize("ending", WHOLE)
def test_what_is_asked_for_goes_before_what_the_source_says(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "a.hsq")
    hs.convert(tmp_path / "a.hsq", tmp_path / f"b{ending}")
    hs.convert(tmp_path / f"b{ending}", tmp_path / "c.hsq", inputs=["y"], outputs=["label"])
    with hs.open(tmp_path / "c.hsq") as seq:
        assert [(c.role, c.name) for c in seq.columns] == [("inputs", "y"), ("outputs", "label")]


@pytest.mark.parametrize("ending", [".h5", ".zarr", ".parquet", ".arrow", ".tar", ".npz"])
def test_an_export_that_fails_leaves_nothing(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "a.hsq")
    data = bytearray((tmp_path / "a.hsq").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "a.hsq").write_bytes(data)
    with pytest.raises(hs.ChecksumError):
        hs.convert(tmp_path / "a.hsq", tmp_path / f"b{ending}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.hsq"]


@pytest.mark.parametrize("ending", [".h5", ".zarr", ".parquet"])
def test_a_target_that_exists_is_replaced_when_asked(tmp_path: Path, ending: str) -> None:
    write(tmp_path / "a.hsq")
    target = tmp_path / f"b{ending}"
    hs.convert(tmp_path / "a.hsq", target)
    with pytest.raises(hs.FileError, match="exists already"):
        hs.convert(tmp_path / "a.hsq", target)
    with hs.open(tmp_path / "a.hsq") as seq:
        hs.convert(seq.take(2), target, overwrite=True)
    hs.convert(target, tmp_path / "c.hsq")
    assert hs.open(tmp_path / "c.hsq").n_records == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hsq", f"b{ending}", "c.hsq"]

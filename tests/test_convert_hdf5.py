"""HDF5 in and out, against files of h5py: values bit for bit, every layout, and a clear error for everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import pytest

import hypersequence as hs
from hypersequence.converting.formats import hdf5

NUMBERS = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128", "S4"),
]
TIMES = ["datetime64[ns]", "datetime64[25s]", "timedelta64[D]"]


def some(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of any type, with all bit patterns that it has."""
    rng, found = np.random.default_rng(7), np.dtype(dtype)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    if found.kind == "U":
        return np.array(["", "a", "äöü", "日本", "😀!", "x\0y"])[rng.integers(0, 6, shape)].astype(found)
    return rng.integers(0, 256, (*shape, found.itemsize), np.uint8).view(found)[..., 0]


def same(one: Any, other: np.ndarray) -> bool:
    """Whether two arrays are alike in type, shape and every bit."""
    return (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())


def read(path: Path) -> dict[str, np.ndarray]:
    """All records of a file, by the names of its fields."""
    with hs.HyperSequenceFile(path) as seq:
        roles = [role for role in seq.records[:] if role is not None]
        return {name: np.array(array) for role in roles for name, array in role.items()}


def meta_of(path: Path) -> dict[str, Any]:
    with hs.HyperSequenceFile(path) as seq:
        return seq.user_meta()


@pytest.mark.parametrize("dtype", NUMBERS + TIMES)
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 2)])
def test_every_type_comes_in_and_goes_out_bit_for_bit(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    given = some(dtype, (37, *shape))
    stored = h5py.opaque_dtype(given.dtype) if dtype in TIMES else given.dtype
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file.create_dataset("plain", data=given.astype(stored), dtype=stored)
        if given.size:
            file.create_dataset("packed", data=given.astype(stored), dtype=stored, chunks=(5, *shape), compression=1)
    hs.convert(tmp_path / "in.h5", tmp_path / "x.hsq")
    found = read(tmp_path / "x.hsq")
    assert all(same(array, given) for array in found.values())
    hs.convert(tmp_path / "x.hsq", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file) == set(found)
        assert all(same(data[:], given) for data in file.values())
    hs.convert(tmp_path / "out.h5", tmp_path / "y.hsq")
    assert all(same(array, given) for array in read(tmp_path / "y.hsq").values())


@pytest.mark.parametrize("dtype", [">i2", ">u8", ">f4", ">c16"])
def test_big_endian_values_become_little_endian_ones(tmp_path: Path, dtype: str) -> None:
    little = some(np.dtype(dtype).newbyteorder("<").str, (20, 3))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = little.astype(dtype)
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert same(read(tmp_path / "x.hsq")["x"], little)


@pytest.mark.parametrize("kind", ["plain", "gzip", "lzf", "scaled", "auto", "rows", "one chunk", "compact"])
@pytest.mark.parametrize("threads", [0, 3])
def test_every_layout(tmp_path: Path, kind: str, threads: int) -> None:
    n = 500 if kind != "compact" else 10
    images = np.arange(n * 4096, dtype=np.uint32).reshape(n, 64, 64) if kind != "compact" else some("u4", (n, 3))
    options: dict[str, Any] = {
        "plain": {},
        "gzip": {"chunks": (64, 16, 16), "compression": "gzip", "shuffle": True, "fletcher32": True},
        "lzf": {"chunks": (1, 64, 64), "compression": "lzf"},
        "scaled": {"chunks": (100, 64, 64), "scaleoffset": 0},
        "auto": {"chunks": True, "compression": 1},
        "rows": {"maxshape": (None, 64, 64), "chunks": (333, 8, 64)},
        "one chunk": {"chunks": images.shape},
        "compact": {},
    }[kind]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        if kind == "compact":
            creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            creation.set_layout(h5py.h5d.COMPACT)
            space = h5py.h5s.create_simple(images.shape)
            h5py.h5d.create(file.id, b"images", h5py.h5t.py_create(images.dtype), space, creation)
            file["images"][...] = images
        else:
            file.create_dataset("images", data=images, **options)
        file.create_dataset("numbers", data=np.arange(n), chunks=(n // 3,))
    for memory in (1, 72):
        hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq", memory=memory, threads=threads, overwrite=True)
        found = read(tmp_path / "x.hsq")
        assert same(found["images"], images)
        assert same(found["numbers"], np.arange(n))


def test_data_sets_in_groups_keep_their_names(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        for part, n in {"train": 7, "test": 3}.items():
            file[f"{part}/images"] = np.full((n, 2), n)
            file[f"{part}/labels"] = np.arange(n)
        file["test/deep/er"] = np.ones(3)
        file.attrs["whose"] = "the file's"
        file["train"].attrs["whose"] = "the group's"
    with pytest.raises(hs.SourceError, match=r"different numbers of records: .*test/images: 3.*train/images: 7"):
        hs.convert(tmp_path / "x.hdf5", tmp_path / "x.hsq")
    hs.convert(tmp_path / "x.hdf5", tmp_path / "x.hsq", inputs=["test/images", "test/deep/er"])
    assert {name: array.tolist() for name, array in read(tmp_path / "x.hsq").items()} == {
        "test/images": [[3, 3]] * 3,
        "test/deep/er": [1, 1, 1],
    }
    hs.convert(tmp_path / "x.hdf5", tmp_path / "train.hsq", group="/train/")
    with hs.HyperSequenceFile(tmp_path / "train.hsq") as seq:
        assert (list(seq.schema.inputs), list(seq.schema.outputs)) == (["images"], ["labels"])
        assert seq.user_meta() == {"whose": "the group's"}
        assert seq.records[:][1]["labels"].tolist() == list(range(7))
    with pytest.raises(hs.ArgumentError, match=r"no group 'valid'; there are: test, test/deep, train"):
        hs.convert(tmp_path / "x.hdf5", tmp_path / "y.hsq", group="valid")
    with pytest.raises(hs.ArgumentError, match="no group 'train/images'"):
        hs.convert(tmp_path / "x.hdf5", tmp_path / "y.hsq", group="train/images")


def test_labels_in_groups_are_outputs(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["train/x"] = np.zeros((3, 2))
        file["train/y"] = np.zeros(3)
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    with hs.HyperSequenceFile(tmp_path / "x.hsq") as seq:
        assert (list(seq.schema.inputs), list(seq.schema.outputs)) == (["train/x"], ["train/y"])


def test_several_files_follow_each_other(tmp_path: Path) -> None:
    x, y = some("float32", (200, 3)), np.arange(200)
    for i in range(100):  # more than are kept open
        with h5py.File(tmp_path / f"{i:03}.h5", "w") as file:
            file.create_dataset("x", data=x[2 * i : 2 * i + 2].astype(">f4" if i % 2 else "<f4"))
            file.create_dataset("y", data=y[2 * i : 2 * i + 2], chunks=(1,))
    for threads in (0, 4):
        hs.convert(tmp_path / "*.h5", tmp_path / "x.hsq", threads=threads, overwrite=True)
        found = read(tmp_path / "x.hsq")
        assert same(found["x"], x)
        assert same(found["y"], y)


def test_thousands_of_files_are_not_all_open(tmp_path: Path) -> None:
    """In a process that may open a hundred."""
    pytest.importorskip("resource")
    for i in range(150):
        with h5py.File(tmp_path / f"{i:03}.h5", "w") as file:
            file["x"] = np.arange(2 * i, 2 * i + 2)
    code = """
import resource, sys, hypersequence as hs
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
hs.convert(sys.argv[1], sys.argv[2])
"""
    subprocess.run([sys.executable, "-c", code, tmp_path / "*.h5", tmp_path / "x.hsq"], check=True)
    assert same(read(tmp_path / "x.hsq")["x"], np.arange(300))


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    contents: dict[str, dict[str, np.ndarray]] = {
        "0": {"x": np.zeros((2, 3)), "y": np.zeros(2)},
        "1": {"x": np.zeros((2, 3))},
        "2": {"x": np.zeros((2, 4)), "y": np.zeros(2)},
        "3": {"x": np.zeros((2, 3), "f4"), "y": np.zeros(2)},
        "4": {"x": np.zeros((2, 3)), "y": np.zeros(3)},
    }
    for name, arrays in contents.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.update(arrays)
    for other, message in {
        "1": r"1\.h5: has no 'y', which .*0\.h5 has; .*inputs=",
        "2": r"2\.h5, x: is float64 \(4,\), but .*0\.h5, x is float64 \(3,\)",
        "3": r"3\.h5, x: is float32 \(3,\), but .*0\.h5, x is float64 \(3,\)",
        "4": r"different numbers of records: .*4\.h5, x: 2, .*4\.h5, y: 3",
    }.items():
        with pytest.raises(hs.SourceError, match=message):
            hs.convert([tmp_path / "0.h5", tmp_path / f"{other}.h5"], tmp_path / "x.hsq")
    hs.convert([tmp_path / "0.h5", tmp_path / "1.h5", tmp_path / "4.h5"], tmp_path / "x.hsq", inputs=["x"])
    assert read(tmp_path / "x.hsq")["x"].shape == (6, 3)


TEXTS = ["", "a", "äöü", "日本語", "😀", "a longer one than all the others"]


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_text_of_any_length_gets_the_width_of_the_longest(tmp_path: Path, shape: tuple[int, ...]) -> None:
    given = np.array(TEXTS)[np.random.default_rng(1).integers(0, 6, (3000, *shape))]
    given[-1] = TEXTS[-1]
    raw = np.strings.encode(given, "utf-8")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        text = h5py.string_dtype()
        file.create_dataset("text", data=given.astype(object), dtype=text)
        file.create_dataset("packed", data=given.astype(object), dtype=text, chunks=(7, *shape), compression=1)
        file.create_dataset("bytes", data=raw.astype(object), dtype=h5py.string_dtype("ascii"))
        wide = h5py.string_dtype("utf-8", 50)
        file.create_dataset("wide", data=raw.astype(wide), dtype=wide)
        file.create_dataset("wide_bytes", data=raw.astype("S50"))
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    found = read(tmp_path / "x.hsq")
    assert all(same(found[name], given) for name in ("text", "packed", "wide"))
    assert same(found["bytes"], raw)
    assert same(found["wide_bytes"], raw.astype("S50"))


def test_text_in_several_files_gets_one_width(tmp_path: Path) -> None:
    for name, texts in {"0": ["a", "bb"], "1": ["cccc"], "2": []}.items():
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("x", data=texts, dtype=h5py.string_dtype())
            file.create_dataset("s", data=np.array(texts, f"S{max(1, *map(len, texts), 0)}"))
    hs.convert(tmp_path / "?.h5", tmp_path / "x.hsq")
    assert same(read(tmp_path / "x.hsq")["x"], np.array(["a", "bb", "cccc"]))
    assert same(read(tmp_path / "x.hsq")["s"], np.array([b"a", b"bb", b"cccc"]))


def test_long_texts_are_not_looked_at_many_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=["x" * 1_000_000] * 8 + ["x"] * 5000, dtype=h5py.string_dtype())
    read, held = hdf5._Text.values, list[int]()

    def values(text: Any, start: int, stop: int) -> np.ndarray:
        found = read(text, start, stop)
        held.append(sum(map(len, found)))
        return found

    monkeypatch.setattr(hdf5._Text, "values", values)
    hdf5._open([tmp_path / "x.h5"], {"group": "", "memory": 72}).choose(["x"])
    assert sum(held) == 8_005_000
    assert max(held) < 5_000_000
    assert len(held) < 40


def test_very_long_text_among_short_ones(tmp_path: Path) -> None:
    given = np.array(["short"] * 40 + ["x" * 100_000] + ["short"] * 40)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=given.astype(object), dtype=h5py.string_dtype())
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert same(read(tmp_path / "x.hsq")["x"], given)


@pytest.mark.parametrize("length", [None, 4])
def test_text_that_is_no_unicode_is_refused_where_it_stands(tmp_path: Path, length: int | None) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        texts = [b"good"] * 1000
        texts[600] = b"\xff\xfe"
        dtype = h5py.string_dtype("utf-8", length)
        file.create_dataset("x", data=np.array(texts, dtype), dtype=dtype)
    with pytest.raises(hs.SourceError, match=r"x\.h5, x, records 511 to 999: .*can't decode byte 0xff"):
        hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert not (tmp_path / "x.hsq").exists()


def test_text_goes_out_as_utf8_and_comes_back(tmp_path: Path) -> None:
    given = np.array(TEXTS * 3)
    with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
        writer.extend({"text": given, "none": np.array([""] * 18, "U3"), "two": some("U3", (18, 2))})
    hs.convert(tmp_path / "x.hsq", tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert h5py.check_string_dtype(file["text"].dtype) == ("utf-8", len(TEXTS[-1]))
        assert file["text"].asstr()[:].tolist() == given.tolist()
    hs.convert(tmp_path / "x.h5", tmp_path / "y.hsq")
    found = read(tmp_path / "y.hsq")
    assert same(found["text"], given)
    assert found["none"].tolist() == [""] * 18
    assert same(found["two"], some("U3", (18, 2)))


def test_members_of_records_are_fields(tmp_path: Path) -> None:
    rows = np.zeros(50, [("position", ">f4", (3,)), ("class", "i2"), ("name", "S3")])
    rows["position"], rows["class"], rows["name"] = some("float32", (50, 3)), np.arange(50), b"abc"
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("table", data=rows, chunks=(7,), compression=1)
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    with hs.HyperSequenceFile(tmp_path / "x.hsq") as seq:
        assert list(seq.schema.outputs) == ["table/class"]
    found = read(tmp_path / "x.hsq")
    assert same(found["table/position"], some("float32", (50, 3)))
    assert same(found["table/class"], np.arange(50, dtype="i2"))
    assert same(found["table/name"], np.array([b"abc"] * 50))


def test_enumerations_and_arrays_as_elements(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("kind", data=[0, 1, 1], dtype=h5py.enum_dtype({"cat": 0, "dog": 1}, "u1"))
        file.create_dataset("pairs", (3,), np.dtype(("f4", (2,))))[:] = np.arange(6).reshape(3, 2)
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert same(read(tmp_path / "x.hsq")["kind"], np.array([0, 1, 1], "u1"))
    assert same(read(tmp_path / "x.hsq")["pairs"], np.arange(6, dtype="f4").reshape(3, 2))


def test_what_cannot_be_converted_matters_only_if_it_is_wanted(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(3)
        file.create_dataset("ragged", (3,), h5py.vlen_dtype("i4"))[:] = [[1], [1, 2], []]
        file.create_dataset("links", data=[file.ref] * 3, dtype=h5py.ref_dtype)
        file["opaque"] = np.array([b"abc"] * 3, "V3")
        file["nothing"] = h5py.Empty("f4")
        file["long"] = np.zeros(3, np.longdouble)
        file["rows"] = np.array([(1, b"abc")] * 3, [("a", "i4"), ("b", "V3")])
    for name, message in {
        "ragged": "arrays of various lengths; fill them up",
        "links": "references",
        "opaque": "bytes of a type",
        "nothing": "no values at all",
        "long": "convert it first",
        "rows/b": "convert it first",
    }.items():
        with pytest.raises(hs.SourceError, match=rf"x\.h5, {name.replace('/', ', member ')}: .*{message}"):
            hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq", inputs=[name])
    with pytest.raises(hs.SourceError, match="choose other fields"):
        hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert not (tmp_path / "x.hsq").exists()
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq", inputs=["x"], outputs=["rows/a"])
    assert read(tmp_path / "x.hsq")["x"].tolist() == [0, 1, 2]


def test_attributes_and_single_values_become_metadata(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(3)
        file["scale"] = 0.5
        file["title"] = "Größe"
        file.create_dataset("latin", data=np.array(b"Gr\xf6\xdfe", h5py.string_dtype("utf-8", 6)))
        file.attrs.update({"n": 3, "mean": np.float32(0.25), "names": ["cat", "dog"], "grid": np.eye(2, dtype="i4")})
        file.attrs.update({"ok": True, "raw": np.bytes_(b"abc"), "nan": np.nan, "what": file.ref, "z": 1j})
        file.attrs["void"] = h5py.Empty("f4")
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert meta_of(tmp_path / "x.hsq") == {
        "scale": 0.5,
        "title": "Größe",
        "n": 3,
        "mean": 0.25,
        "names": ["cat", "dog"],
        "grid": [[1, 0], [0, 1]],
        "ok": True,
        "raw": "abc",
    }


def test_text_that_is_no_utf8_is_named_with_its_records(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(3)
        file["word"] = np.array([b"a", b"Gr\xf6\xdfe", b"b"], h5py.string_dtype("utf-8", 6))
    with pytest.raises(hs.SourceError, match=r"x\.h5, word, records 1 to 2: cannot be read: 'utf-8' codec"):
        hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq", inputs=["x"])
    assert read(tmp_path / "x.hsq")["x"].tolist() == [0, 1, 2]


def test_roles_order_and_metadata_survive_the_way_out_and_back(tmp_path: Path) -> None:
    meta = {"name": "Größe 日本 \0", "deep": {"list": [1, 2.5, None, "x" * 200_000]}}
    with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
        writer.extend({"zebra": np.arange(5), "ant": np.ones((5, 2))}, {"answer": np.arange(5.0)})
        writer.user_meta().update(meta)
    hs.convert(tmp_path / "x.hsq", tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert all(data.chunks is None for data in file.values())
        assert json.loads(file.attrs["hypersequence"])["roles"]["outputs"] == ["answer"]
    hs.convert(tmp_path / "x.h5", tmp_path / "y.hsq")
    with hs.HyperSequenceFile(tmp_path / "x.hsq") as one, hs.HyperSequenceFile(tmp_path / "y.hsq") as other:
        assert one.schema == other.schema
        assert list(other.schema.inputs) == ["zebra", "ant"]
    assert meta_of(tmp_path / "y.hsq") == meta


@pytest.mark.parametrize(
    "text", ["no JSON", "[1]", '{"roles": 3, "user_meta": []}', '{"roles": {"outputs": [[]]}}', "["]
)
def test_a_description_that_is_none_does_no_harm(tmp_path: Path, text: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(3)
        file.attrs["hypersequence"] = text
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert read(tmp_path / "x.hsq")["x"].tolist() == [0, 1, 2]


def test_names_that_hdf5_would_change_are_refused(tmp_path: Path) -> None:
    for names in (["."], ["/a"], ["a//b"], ["a/./b"], ["a/"], ["a", "a/b"]):
        with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
            writer.extend({name: np.zeros(2) for name in names})
        with pytest.raises(hs.ArgumentError, match=r"HDF5 (takes no data set|would call)"):
            hs.convert(tmp_path / "x.hsq", tmp_path / "x.h5")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.hsq"]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, "U0", "S0"])
def test_types_that_hdf5_does_not_know_are_refused_on_the_way_out(tmp_path: Path, dtype: Any) -> None:
    with hs.HyperSequenceWriter(tmp_path / "x.hsq", schema=hs.Schema({"x": hs.Field(dtype)})):
        pass
    with pytest.raises(hs.ArgumentError, match=r"HDF5 knows no .*'x'"):
        hs.convert(tmp_path / "x.hsq", tmp_path / "x.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.hsq"]


def test_virtual_data_sets_are_read_unless_a_part_is_missing(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout((6,), "i8")
    for i in range(2):
        with h5py.File(tmp_path / f"part{i}.h5", "w") as file:
            file["x"] = np.arange(3) + 3 * i
        layout[3 * i : 3 * i + 3] = h5py.VirtualSource(f"part{i}.h5", "x", (3,))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    hs.convert(tmp_path / "all.h5", tmp_path / "x.hsq")
    assert read(tmp_path / "x.hsq")["x"].tolist() == [0, 1, 2, 3, 4, 5]
    with h5py.File(tmp_path / "part1.h5", "r+") as file:
        file["y"] = file.pop("x")
    with pytest.raises(hs.SourceError, match=r"all\.h5, x: .*part1\.h5 should have 'x', and has not; or choose"):
        hs.convert(tmp_path / "all.h5", tmp_path / "y.hsq")
    (tmp_path / "part1.h5").write_bytes(b"no HDF5")
    with pytest.raises(hs.SourceError, match=r"all\.h5, x, of which a part is in .*part1\.h5: cannot be read"):
        hs.convert(tmp_path / "all.h5", tmp_path / "y.hsq")
    (tmp_path / "part1.h5").unlink()
    with pytest.raises(hs.SourceError, match=r"all\.h5, x: .*part1\.h5 is missing"):
        hs.convert(tmp_path / "all.h5", tmp_path / "y.hsq")


def virtual(file: h5py.File, name: str, source: str, data: str, dtype: Any = "f8") -> None:
    """A data set of three records that is another one."""
    layout = h5py.VirtualLayout((3,), dtype)
    layout[:] = h5py.VirtualSource(source, data, (3,), dtype)
    file.create_virtual_dataset(name, layout)


def test_virtual_data_sets_of_virtual_ones_are_looked_at_to_the_end(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file, h5py.File(tmp_path / "y.h5", "w") as other:
        file["real"], other["rows"] = np.arange(3.0), np.array([(1, 2.5)] * 3, [("a", "i4"), ("b", "f8")])
        virtual(other, "twice", "x.h5", "real")
        virtual(file, "thrice", "y.h5", "twice")
        virtual(file, "here", ".", "real")
        virtual(file, "gone", ".", "nothing")
        virtual(file, "far", "y.h5", "gone")
        virtual(other, "gone", "x.h5", "gone")
        virtual(file, "rows", "y.h5", "rows", other["rows"].dtype)
        virtual(file, "no rows", "y.h5", "no rows", other["rows"].dtype)
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq", inputs=["here", "thrice", "rows/b"])
    assert {name: values.tolist() for name, values in read(tmp_path / "x.hsq").items()} == {
        "here": [0, 1, 2],
        "thrice": [0, 1, 2],
        "rows/b": [2.5] * 3,
    }
    for name in ("gone", "far", "no rows"):
        with pytest.raises(hs.SourceError, match=rf"x\.h5, {name}: .*should have 'no.*', and has not"):
            hs.convert(tmp_path / "x.h5", tmp_path / "z.hsq", inputs=[name])


def test_virtual_data_sets_of_themselves_are_refused(tmp_path: Path) -> None:
    """Over them HDF5 crashes."""
    with h5py.File(tmp_path / "x.h5", "w") as file, h5py.File(tmp_path / "y.h5", "w") as other:
        virtual(file, "itself", ".", "itself")
        virtual(file, "there", "y.h5", "back")
        virtual(other, "back", "../" + tmp_path.name + "/x.h5", "there")
        for i in range(40):
            virtual(file, f"deep{i}", ".", f"deep{i + 1}")
        file["deep40"] = np.arange(3.0)
    for name in ("itself", "there", "deep0"):
        with pytest.raises(hs.SourceError, match=rf"x\.h5, {name}: is put together from .* 32 deep or without an end"):
            hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq", inputs=[name])
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq", inputs=["deep20"])
    assert read(tmp_path / "x.hsq")["deep20"].tolist() == [0, 1, 2]


def test_values_in_files_of_their_own_have_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # from where HDF5 looks for them
    with h5py.File("x.h5", "w") as file:
        values = [("a.bin", 8, 3 * 8), ("b.bin", 0, h5py.h5f.UNLIMITED)]
        file.create_dataset("x", data=np.arange(10), external=values)
        file.create_dataset("empty", (10, 0), "f4", external=[("never.bin", 0, h5py.h5f.UNLIMITED)])
    hs.convert("x.h5", "x.hsq")
    assert read(Path("x.hsq"))["x"].tolist() == list(range(10))
    for name, keep, message in (("b.bin", 55, "56 bytes and has 55,"), ("a.bin", 31, "32 bytes and has 31,")):
        os.truncate(name, keep)
        with pytest.raises(hs.SourceError, match=rf"x\.h5, x: its values are in the file {name}, .*{message}"):
            hs.convert("x.h5", "y.hsq")
    Path("a.bin").unlink()
    with pytest.raises(hs.SourceError, match=r"x\.h5, x: .*a\.bin, .*32 bytes and is not there"):
        hs.convert("x.h5", "y.hsq")


def test_a_data_set_of_two_names_comes_under_both(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["g/x"] = np.arange(3)
        file["a"], file["z"] = file["g/x"], file["g/x"]
        file["again"], file["g/up"] = file["g"], file["/"]
        file["soft"], file["far"] = h5py.SoftLink("/g/x"), h5py.ExternalLink("x.h5", "/g/x")
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert {name: values.tolist() for name, values in read(tmp_path / "x.hsq").items()} == {
        name: [0, 1, 2] for name in ("a", "again/x", "z")
    }


@pytest.mark.parametrize("keep", [0, 7, 500, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, keep: int) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = np.arange(1000)
    size = (tmp_path / "x.h5").stat().st_size
    os.truncate(tmp_path / "x.h5", keep % size)
    with pytest.raises(hs.SourceError, match=r"x\.h5: cannot be read: .*(truncated|signature not found)"):
        hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.h5"]


def test_a_file_without_records_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["number"] = 3
        file.create_group("empty")
    with pytest.raises(hs.SourceError, match=r"x\.h5: no arrays with an axis of records"):
        hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")


def test_damage_is_reported_where_it_is_and_what_comes_before_is_kept(tmp_path: Path) -> None:
    x = some("uint8", (1000, 40_000))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=x, chunks=(100, 40_000), fletcher32=True)
        chunk = data.id.get_chunk_info(7)
    sound = (tmp_path / "x.h5").read_bytes()
    with (tmp_path / "x.h5").open("r+b") as file:
        file.seek(chunk.byte_offset + 1000)
        file.write(bytes(16))
    with pytest.raises(hs.SourceError, match=r"x\.h5, x, records 600 to 799: cannot be read: ") as caught:
        hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq")
    assert "first 600 of the records" in caught.value.__notes__[0]
    assert not (tmp_path / "x.hsq").exists()
    (tmp_path / "x.h5").write_bytes(sound)
    hs.convert(tmp_path / "x.h5", tmp_path / "x.hsq", resume=True)
    assert same(read(tmp_path / "x.hsq")["x"], x)


@pytest.mark.parametrize("chunks", [None, (9, 50, 100), (300, 50, 50)])
def test_resuming_goes_on_where_it_stopped_in_the_second_file(tmp_path: Path, chunks: tuple[int, ...] | None) -> None:
    x, names = some("uint8", (1100, 100, 100)), np.array(["one", "two"])[np.arange(1100) % 2]
    for i, (start, stop) in enumerate([(0, 400), (400, 1100)]):
        with h5py.File(tmp_path / f"{i}.h5", "w") as file:
            file.create_dataset("x", data=x[start:stop], chunks=chunks)
            file.create_dataset("names", data=names[start:stop].astype(object), dtype=h5py.string_dtype())
    with pytest.raises(KeyboardInterrupt), hs.HyperSequenceWriter(tmp_path / "x.hsq", block_nbytes=1 << 20) as writer:
        writer.extend({"names": names[:777], "x": x[:777]})
        raise KeyboardInterrupt
    hs.convert(tmp_path / "?.h5", tmp_path / "x.hsq", resume=True, memory=2)
    found = read(tmp_path / "x.hsq")
    assert same(found["x"], x)
    assert same(found["names"], names)


@pytest.mark.parametrize("n", [0, 1])
def test_few_records(tmp_path: Path, n: int) -> None:
    given = {"x": some("float32", (n, 3)), "y": some("int64", (n,)), "text": np.array(["some text"][:n], "U9")}
    with h5py.File(tmp_path / "x.hdf", "w") as file:
        for name in ("x", "y"):
            file.create_dataset(name, data=given[name], maxshape=(None, *given[name].shape[1:]))
        file.create_dataset("text", data=given["text"].astype(object), dtype=h5py.string_dtype())
    assert hs.convert(tmp_path / "x.hdf", tmp_path / "x.hsq").n_records == n
    for name, array in read(tmp_path / "x.hsq").items():
        assert (array.shape, array.tolist()) == (given[name].shape, given[name].tolist())


def test_no_records_go_out_and_come_back(tmp_path: Path) -> None:
    schema = hs.Schema({"x": hs.Field("float32", (3,)), "text": "U5"}, {"y": "int64"})
    with hs.HyperSequenceWriter(tmp_path / "x.hsq", schema=schema):
        pass
    hs.convert(tmp_path / "x.hsq", tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5") as file:
        assert {name: data.shape for name, data in file.items()} == {"x": (0, 3), "text": (0,), "y": (0,)}
    assert hs.convert(tmp_path / "x.h5", tmp_path / "y.hsq").n_records == 0


def test_a_file_that_is_there_is_replaced_only_if_that_is_wanted(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
        writer.extend(np.arange(5))
    (tmp_path / "x.h5").write_text("something else")
    with pytest.raises(hs.FileError, match="exists already"):
        hs.convert(tmp_path / "x.hsq", tmp_path / "x.h5")
    hs.convert(tmp_path / "x.hsq", tmp_path / "x.h5", overwrite=True)
    with h5py.File(tmp_path / "x.h5") as file:
        assert file["inputs"][:].tolist() == [0, 1, 2, 3, 4]

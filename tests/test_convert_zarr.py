"""Zarr in and out, against stores of Zarr itself: values bit for bit, every layout, and errors for everything else."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.storage import LocalStore, ZipStore

import hypersequence as hs

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")

TYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "complex64", "complex128"),
    *("U3", "S4", "datetime64[ns]", "datetime64[25s]", "timedelta64[D]"),
]


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


def create(group: Any, name: str, data: np.ndarray, **options: Any) -> Any:
    array = group.create_array(name, shape=data.shape, dtype=data.dtype, **options)
    array[...] = data
    return array


@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 2)])
def test_every_type_comes_in_and_goes_out_bit_for_bit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    given = {dtype: some(dtype, (37, *shape)) for dtype in TYPES}
    chunks = tuple(max(1, n) for n in (15, *shape))
    for version in (2, 3):
        group = zarr.create_group(tmp_path / "in.zarr", zarr_format=version, overwrite=True)
        for name, array in given.items():
            create(group, name, array, chunks=chunks, config={"write_empty_chunks": True})
        hs.convert(tmp_path / "in.zarr", tmp_path / "x.hsq", overwrite=True)
        found = read(tmp_path / "x.hsq")
        assert [name for name in TYPES if not same(found[name], given[name])] == []
    hs.convert(tmp_path / "x.hsq", tmp_path / "out.zarr")
    hs.convert(tmp_path / "x.hsq", tmp_path / "packed.zarr", compression="zstd")
    hs.convert(tmp_path / "x.hsq", tmp_path / "out.zarr.zip")
    for store in ("out.zarr", "packed.zarr", "out.zarr.zip"):
        opened = ZipStore(tmp_path / store, mode="r") if store.endswith(".zip") else LocalStore(tmp_path / store)
        group = zarr.open_group(opened, mode="r")
        assert [name for name in TYPES if not same(np.asarray(group[name][...]), given[name])] == []
        opened.close()
        hs.convert(tmp_path / store, tmp_path / "y.hsq", overwrite=True)
        found = read(tmp_path / "y.hsq")
        assert [name for name in TYPES if not same(found[name], given[name])] == []


@pytest.mark.parametrize("dtype", [">i2", ">u8", ">f4", ">c16", ">U3", ">M8[us]"])
@pytest.mark.parametrize("version", [2, 3])
def test_big_endian_values_become_little_endian_ones(tmp_path: Path, dtype: str, version: int) -> None:
    little = some(np.dtype(dtype).newbyteorder("<").str, (20, 3))
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=version)
    create(group, "x", little.astype(dtype), chunks=(7, 2))
    hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    assert same(read(tmp_path / "x.hsq")["x"], little)


LAYOUTS: dict[str, dict[str, Any]] = {
    "rows": {"chunks": (4, 64, 64)},
    "whole chunks": {"chunks": (100, 64, 64), "compressors": None},
    "split": {"chunks": (333, 16, 64), "compressors": GzipCodec(level=1)},
    "one chunk": {"chunks": (700, 64, 64), "compressors": BloscCodec()},
    "shards": {"chunks": (10, 64, 64), "shards": (210, 64, 64), "compressors": ZstdCodec()},
    "auto": {},
    "version 2": {"chunks": (90, 64, 64), "zarr_format": 2},
    "Fortran": {"chunks": (90, 64, 64), "zarr_format": 2, "order": "F"},
}


@pytest.mark.parametrize("kind", LAYOUTS)
@pytest.mark.parametrize("threads", [0, 3])
def test_every_layout(tmp_path: Path, kind: str, threads: int) -> None:
    images = np.arange(700 * 4096, dtype=np.uint32).reshape(700, 64, 64)
    options = dict(LAYOUTS[kind])
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=options.pop("zarr_format", 3))
    create(group, "images", images, **options)
    create(group, "numbers", np.arange(700), chunks=(450,))
    for memory in (1, 72):
        hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq", memory=memory, threads=threads, overwrite=True)
        found = read(tmp_path / "x.hsq")
        assert same(found["images"], images)
        assert same(found["numbers"], np.arange(700))


@pytest.mark.parametrize("chunks", [(1, 128, 128), (50, 128, 128), (150, 128, 64), (300, 128, 128)])
def test_no_chunk_is_read_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunks: tuple[int, ...]) -> None:
    group = zarr.create_group(tmp_path / "x.zarr")
    create(group, "images", np.ones((400, 128, 128), np.uint32), chunks=chunks)
    create(group, "masks", np.ones((400, 128, 128), np.uint8), chunks=(97, 128, 128))
    create(group, "numbers", np.arange(400) + 1, chunks=(130,))
    seen: Counter[str] = Counter()
    get = LocalStore.get

    async def counted(self: LocalStore, key: str, *args: Any, **options: Any) -> Any:
        seen[key] += 1
        return await get(self, key, *args, **options)

    monkeypatch.setattr(LocalStore, "get", counted)
    hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    counts = {n for key, n in seen.items() if "/c/" in key}
    assert counts == {1}
    assert sum("/c/" in key for key in seen) == sum(path.is_file() for path in tmp_path.glob("x.zarr/*/c/**/*"))


def test_arrays_in_groups_keep_their_names(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "x.zarr", attributes={"whose": "the store's"})
    for part, n in {"train": 7, "test": 3}.items():
        inner = group.create_group(part, attributes={"whose": "the group's"})
        create(inner, "images", np.full((n, 2), n))
        create(inner, "labels", np.arange(n))
    with pytest.raises(hs.SourceError, match=r"different numbers of records: .*test/images: 3.*train/images: 7"):
        hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq", inputs=["test/images"])
    assert read(tmp_path / "x.hsq")["test/images"].tolist() == [[3, 3]] * 3
    assert meta_of(tmp_path / "x.hsq") == {"whose": "the store's"}
    hs.convert(tmp_path / "x.zarr", tmp_path / "train.hsq", group="/train/")
    with hs.HyperSequenceFile(tmp_path / "train.hsq") as seq:
        assert (list(seq.schema.inputs), list(seq.schema.outputs)) == (["images"], ["labels"])
        assert seq.user_meta() == {"whose": "the group's"}
        assert seq.records[:][1]["labels"].tolist() == list(range(7))
    with pytest.raises(hs.SourceError, match=r"x\.zarr, valid: cannot be read: "):
        hs.convert(tmp_path / "x.zarr", tmp_path / "y.hsq", group="valid")


@pytest.mark.parametrize("version", [2, 3])
def test_single_arrays_are_fields_called_as_their_stores(tmp_path: Path, version: int) -> None:
    for name, data in {"images": some("uint8", (30, 4)), "label": np.arange(30)}.items():
        zarr.create_array(tmp_path / f"{name}.zarr", data=data, chunks=(7, *data.shape[1:]), zarr_format=version)
    hs.convert([tmp_path / "images.zarr", tmp_path / "label.zarr"], tmp_path / "x.hsq")
    with hs.HyperSequenceFile(tmp_path / "x.hsq") as seq:
        assert (list(seq.schema.inputs), list(seq.schema.outputs)) == (["images"], ["label"])
    assert same(read(tmp_path / "x.hsq")["images"], some("uint8", (30, 4)))
    zarr.create_group(tmp_path / "group.zarr")
    with pytest.raises(hs.SourceError, match="is a group, and other sources are single arrays"):
        hs.convert([tmp_path / "images.zarr", tmp_path / "group.zarr"], tmp_path / "y.hsq")
    (tmp_path / "other").mkdir()
    shutil.copytree(tmp_path / "images.zarr", tmp_path / "other" / "images.zarr")
    with pytest.raises(hs.SourceError, match="another source is called 'images' too"):
        hs.convert([tmp_path / "images.zarr", tmp_path / "other" / "images.zarr"], tmp_path / "y.hsq")


def test_several_stores_follow_each_other_also_zipped_ones(tmp_path: Path) -> None:
    x = some("float32", (50, 3))
    for i, (start, stop) in enumerate([(0, 20), (20, 21), (21, 50)]):
        store = ZipStore(tmp_path / f"{i}.zarr.zip", mode="w")
        create(zarr.create_group(store), "x", x[start:stop], chunks=(8, 3))
        store.close()
        with hs.HyperSequenceWriter(tmp_path / "part.hsq") as writer:
            writer.extend({"x": x[start:stop]})
        hs.convert(tmp_path / "part.hsq", tmp_path / f"{i}.zarr")
    for pattern in ("?.zarr", "?.zarr.zip"):
        hs.convert(tmp_path / pattern, tmp_path / "x.hsq", overwrite=True)
        assert same(read(tmp_path / "x.hsq")["x"], x)
    hs.convert([tmp_path / "0.zarr", tmp_path / "2.zarr", tmp_path / "0.zarr"], tmp_path / "x.hsq", overwrite=True)
    assert same(read(tmp_path / "x.hsq")["x"], np.concatenate([x[:20], x[21:], x[:20]]))
    create(zarr.create_group(tmp_path / "9.zarr"), "x", x.astype("f8"))
    with pytest.raises(hs.SourceError, match=r"9\.zarr, x: is float64 \(3,\), but .*0\.zarr, x is float32 \(3,\)"):
        hs.convert(tmp_path / "?.zarr", tmp_path / "y.hsq")


def test_a_folder_of_any_name_is_recognised(tmp_path: Path) -> None:
    create(zarr.create_group(tmp_path / "three"), "x", np.arange(3))
    create(zarr.create_group(tmp_path / "two", zarr_format=2), "x", np.arange(3))
    for name in ("three", "two"):
        assert hs.convert(tmp_path / name, tmp_path / "x.hsq", overwrite=True).format == "zarr"
        assert read(tmp_path / "x.hsq")["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("version", [2, 3])
def test_text_of_any_length_gets_the_width_of_the_longest(tmp_path: Path, version: int) -> None:
    texts = np.array(["", "a", "äöü", "日本語", "😀", "a longer one than all the others"])
    given = texts[np.random.default_rng(1).integers(0, 6, (3000, 2))]
    given[-1] = texts[-1]
    group = zarr.create_group(tmp_path / "x.zarr", zarr_format=version)
    group.create_array("text", shape=given.shape, chunks=(700, 1), dtype=str)[...] = given.astype(object)
    hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    assert same(read(tmp_path / "x.hsq")["text"], given)


def test_text_that_would_lose_its_end_is_refused(tmp_path: Path) -> None:
    texts = ["good"] * 1000
    texts[600] = "bad\0"
    group = zarr.create_group(tmp_path / "x.zarr")
    group.create_array("x", shape=(1000,), dtype=str)[...] = np.array(texts, object)
    with pytest.raises(hs.SourceError, match=r"x\.zarr, x, records 511 to 999: a text ends in NUL"):
        hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    assert not (tmp_path / "x.hsq").exists()


def test_what_cannot_be_converted_matters_only_if_it_is_wanted(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "x.zarr")
    create(group, "x", np.arange(3))
    create(group, "epoch", np.array(7))
    group.create_array("opaque", shape=(3,), dtype="V3")
    group.create_array("bytes", shape=(3,), dtype="variable_length_bytes")
    create(group, "rows", np.zeros(3, [("a", "i4"), ("b", "f4")]))
    for name, message in {"opaque": "no type", "bytes": "no type", "rows": "store each member"}.items():
        with pytest.raises(hs.SourceError, match=rf"x\.zarr, {name}: .*{message}"):
            hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq", inputs=[name])
    with pytest.raises(hs.SourceError, match="choose other fields"):
        hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq", inputs=["x"])
    assert read(tmp_path / "x.hsq")["x"].tolist() == [0, 1, 2]
    assert meta_of(tmp_path / "x.hsq") == {"epoch": 7}


def test_a_missing_chunk_is_what_zarr_says_it_is(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "x.zarr")
    group.create_array("x", shape=(30,), chunks=(10,), dtype="i4", fill_value=-1)[10:20] = np.arange(10)
    hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    assert read(tmp_path / "x.hsq")["x"].tolist() == [-1] * 10 + list(range(10)) + [-1] * 10


@pytest.mark.parametrize("role", ["filters", "compressor"])
def test_stores_of_python_objects_are_refused_and_never_unpickled(tmp_path: Path, role: str) -> None:
    array = zarr.create_array(tmp_path / "x.zarr", shape=(4,), chunks=(4,), dtype="i4", zarr_format=2)
    array[:] = [1, 2, 3, 4]
    path = tmp_path / "x.zarr" / ".zarray"
    described = json.loads(path.read_text())
    described |= {"filters": None, "compressor": None}
    pickle = {"id": "pickle", "protocol": 4}
    described[role] = [pickle] if role == "filters" else pickle
    path.write_text(json.dumps(described))
    trap = tmp_path / "sprung"
    (tmp_path / "x.zarr" / "0").write_bytes(b"cos\nmkdir\n(V" + str(trap).encode() + b"\ntR.")
    with pytest.raises(hs.SourceError, match=r"x\.zarr: cannot be read: .*pickle"):
        hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    assert not trap.exists()


def test_roles_order_and_metadata_survive_the_way_out_and_back(tmp_path: Path) -> None:
    meta = {"name": "Größe", "deep": {"list": [1, 2.5, None, "x" * 200_000]}}
    with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
        writer.extend(
            {"zebra": np.arange(5), "ant/b": np.ones((5, 2)), "ant/a": np.ones(5)}, {"answer": np.arange(5.0)}
        )
        writer.user_meta().update(meta)
    for name in ("x.zarr", "x.zarr.zip"):
        hs.convert(tmp_path / "x.hsq", tmp_path / name)
        hs.convert(tmp_path / name, tmp_path / "y.hsq", overwrite=True)
        with hs.HyperSequenceFile(tmp_path / "x.hsq") as one, hs.HyperSequenceFile(tmp_path / "y.hsq") as other:
            assert one.schema == other.schema
            assert list(other.schema.inputs) == ["zebra", "ant/b", "ant/a"]
        assert meta_of(tmp_path / "y.hsq") == meta


def test_attributes_that_are_no_json_are_left_out(tmp_path: Path) -> None:
    create(zarr.create_group(tmp_path / "x.zarr", attributes={"a": [1, {"b": None}], "nan": np.nan}), "x", np.arange(3))
    hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    assert meta_of(tmp_path / "x.hsq") == {"a": [1, {"b": None}]}


def test_chunks_go_out_as_whole_records_of_some_megabytes(tmp_path: Path) -> None:
    images, labels = np.zeros((300, 256, 256), np.uint8), -np.zeros(300)
    with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
        writer.extend({"images": images}, {"labels": labels})
    hs.convert(tmp_path / "x.hsq", tmp_path / "x.zarr")
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert (group["images"].chunks, group["labels"].chunks) == ((128, 256, 256), (300,))
    assert group["images"].compressors == ()
    assert [path.stat().st_size for path in sorted((tmp_path / "x.zarr/images/c").glob("*/0/0"))] == [8 << 20] * 3
    hs.convert(tmp_path / "x.hsq", tmp_path / "small.zarr", compression="zstd")
    small = zarr.open_group(tmp_path / "small.zarr", mode="r")
    assert isinstance(small["images"].compressors[0], ZstdCodec)
    for found in (group, small):
        assert same(found["images"][:], images)
        assert same(found["labels"][:], labels)  # also the sign of zero
    with pytest.raises(hs.ArgumentError, match="compression='lz4': is none of: none, zstd"):
        hs.convert(tmp_path / "x.hsq", tmp_path / "y.zarr", compression="lz4")


def test_names_that_zarr_would_change_are_refused(tmp_path: Path) -> None:
    for names in (["."], [".."], ["/a"], ["a//b"], ["a/../b"], ["a/"], ["a", "a/b"], ["zarr.json"]):
        with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
            writer.extend({name: np.zeros(2) for name in names})
        with pytest.raises(hs.ArgumentError, match=r"Zarr (takes no array|would call|has no place)"):
            hs.convert(tmp_path / "x.hsq", tmp_path / "x.zarr")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x.hsq"]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e5m2, "U0", "S0"])
@pytest.mark.parametrize("target", ["x.zarr", "x.zarr.zip"])
def test_types_that_zarr_does_not_know_are_refused_on_the_way_out(tmp_path: Path, dtype: Any, target: str) -> None:
    with hs.HyperSequenceWriter(tmp_path / "x.hsq", schema=hs.Schema({"x": hs.Field(dtype)})):
        pass
    with pytest.raises(hs.ArgumentError, match=r"Zarr (takes no array|would store) 'x'"):
        hs.convert(tmp_path / "x.hsq", tmp_path / target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.hsq"]


@pytest.mark.parametrize("compressors", [None, ZstdCodec(checksum=True)])
def test_damage_is_reported_where_it_is_and_what_comes_before_is_kept(tmp_path: Path, compressors: Any) -> None:
    x = some("uint8", (1000, 40_000))
    create(zarr.create_group(tmp_path / "x.zarr"), "x", x, chunks=(200, 40_000), compressors=compressors)
    chunk = tmp_path / "x.zarr" / "x" / "c" / "3" / "0"
    sound = chunk.read_bytes()
    chunk.write_bytes(sound[: len(sound) // 2])
    with pytest.raises(hs.SourceError, match=r"x\.zarr, x, records 600 to 799: cannot be read: ") as caught:
        hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")
    assert "first 600 of the records" in caught.value.__notes__[0]
    assert not (tmp_path / "x.hsq").exists()
    chunk.write_bytes(sound)
    hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq", resume=True)
    assert same(read(tmp_path / "x.hsq")["x"], x)


@pytest.mark.parametrize("kind", ["no store", "metadata", "array", "zip", "no zip"])
def test_what_is_no_store_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / ("x.zarr.zip" if "zip" in kind else "x.zarr")
    if kind == "no store":
        path.mkdir()
    elif kind == "no zip":
        path.write_bytes(b"something else")
    elif kind == "zip":
        store = ZipStore(path, mode="w")
        create(zarr.create_group(store), "x", np.arange(1000))
        store.close()
        os.truncate(path, 500)
    else:
        create(zarr.create_group(path), "x", np.arange(1000))
        damaged = path / "zarr.json" if kind == "metadata" else path / "x" / "zarr.json"
        damaged.write_text(damaged.read_text()[:50])
    with pytest.raises(hs.SourceError, match=r"x\.zarr(\.zip)?: cannot be read: "):
        hs.convert(path, tmp_path / "x.hsq")
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name]


def test_a_store_without_records_is_refused(tmp_path: Path) -> None:
    create(zarr.create_group(tmp_path / "x.zarr"), "number", np.array(3))
    with pytest.raises(hs.SourceError, match=r"x\.zarr: no arrays with an axis of records"):
        hs.convert(tmp_path / "x.zarr", tmp_path / "x.hsq")


@pytest.mark.parametrize("chunks", [(9, 50, 100), (300, 50, 50), (1000, 100, 100)])
def test_resuming_goes_on_where_it_stopped_in_the_second_store(tmp_path: Path, chunks: tuple[int, ...]) -> None:
    x = some("uint8", (1100, 100, 100))
    for i, (start, stop) in enumerate([(0, 400), (400, 1100)]):
        create(zarr.create_group(tmp_path / f"{i}.zarr"), "x", x[start:stop], chunks=chunks, compressors=None)
    with pytest.raises(KeyboardInterrupt), hs.HyperSequenceWriter(tmp_path / "x.hsq", block_nbytes=1 << 20) as writer:
        writer.extend({"x": x[:777]})
        raise KeyboardInterrupt
    hs.convert(tmp_path / "?.zarr", tmp_path / "x.hsq", resume=True, memory=2)
    assert same(read(tmp_path / "x.hsq")["x"], x)


def test_no_records_go_out_and_come_back(tmp_path: Path) -> None:
    schema = hs.Schema({"x": hs.Field("float32", (3,)), "text": "U5"}, {"y": "int64"})
    with hs.HyperSequenceWriter(tmp_path / "x.hsq", schema=schema):
        pass
    hs.convert(tmp_path / "x.hsq", tmp_path / "x.zarr")
    assert {name: a.shape for name, a in zarr.open_group(tmp_path / "x.zarr", mode="r").arrays()} == {
        "x": (0, 3),
        "text": (0,),
        "y": (0,),
    }
    assert hs.convert(tmp_path / "x.zarr", tmp_path / "y.hsq").n_records == 0
    with hs.HyperSequenceFile(tmp_path / "y.hsq") as seq:
        assert seq.schema == schema


def test_a_store_that_is_there_is_replaced_only_if_that_is_wanted(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "x.hsq") as writer:
        writer.extend(np.arange(5))
    create(zarr.create_group(tmp_path / "x.zarr"), "old", np.arange(3))
    with pytest.raises(hs.FileError, match="exists already"):
        hs.convert(tmp_path / "x.hsq", tmp_path / "x.zarr")
    hs.convert(tmp_path / "x.hsq", tmp_path / "x.zarr", overwrite=True)
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert list(group) == ["inputs"]
    assert group["inputs"][:].tolist() == [0, 1, 2, 3, 4]

"""Parquet and Arrow: bit for bit, both ways, and every fault with its place."""

from __future__ import annotations

import decimal
import io
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pyarrow import feather

import hypersequence as hs
from hypersequence.converting.formats import parquet as parquet_module
from hypersequence.converting.registry import formats

ENDINGS = [".parquet", ".arrow"]
TYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "datetime64[ms]", "datetime64[us]", "datetime64[ns]", "datetime64[D]"),
    *("timedelta64[s]", "timedelta64[ms]", "timedelta64[us]", "timedelta64[ns]", "U5", "S5"),
]
SHAPES = [(), (3,), (2, 3), (2, 1, 3)]


def some(dtype: str, *shape: int) -> Any:
    """Values of a type, the odd ones among them."""
    rng = np.random.default_rng(7)
    kind = np.dtype(dtype).kind
    if kind == "U":
        return rng.choice(np.array(["", "a", "grüße", "𝄞x\0y", "two w"]), shape).astype(dtype)
    if kind == "S":
        return rng.choice(np.array([b"", b"a", b"\xff\0b", b"five!"]), shape).astype(dtype)
    if kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind == "f":
        values = rng.standard_normal(shape).astype(dtype)
        values.reshape(-1)[:4] = [np.nan, -0.0, np.inf, np.finfo(dtype).tiny]
        return values
    if kind in "mM":
        values = rng.integers(-(10**6), 10**6, shape).astype("int64").astype(dtype)
        values.reshape(-1)[3] = np.array("NaT", dtype)
        return values
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    values.reshape(-1)[:2] = limits.min, limits.max
    return values


def write_table(path: Path, table: pa.Table, **options: Any) -> Path:
    """With the library itself."""
    if path.suffix == ".parquet":
        pq.write_table(table, path, **options)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, **options)
    return path


def converted(source: Any, tmp_path: Path, **options: Any) -> Any:
    """What all records of a source are, by field."""
    target = tmp_path / "converted.hsq"
    hs.convert(source, target, overwrite=True, **options)
    with hs.open(target) as seq:
        inputs, *outputs = seq.records[:]
        return {**inputs, **(outputs[0] if outputs else {})}


def assert_same(found: Any, expected: Any) -> None:
    expected = np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == np.ascontiguousarray(expected).tobytes()


def tensor(values: Any) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_types_and_shapes_come_back_bit_for_bit(tmp_path: Path, ending: str) -> None:
    fields = {f"{dtype} {shape}": some(dtype, 11, *shape) for dtype in TYPES for shape in SHAPES}
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend(fields)
    hs.convert(tmp_path / "a.hsq", tmp_path / f"a{ending}")
    found = converted(tmp_path / f"a{ending}", tmp_path)
    assert list(found) == list(fields)
    for name, values in fields.items():
        assert_same(found[name], values)


@pytest.mark.parametrize("ending", ENDINGS)
def test_exports_are_what_pyarrow_reads(tmp_path: Path, ending: str) -> None:
    fields = {"a": some("float32", 9, 2, 3), "b": some("uint8", 9, 5), "c": some("U5", 9), "d": some("float16", 9)}
    times = np.array(["2020-01-02", "NaT", "1969-12-31"] * 3, "datetime64[us]")
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend({**fields, "t": times}, {"flag": some("bool", 9)})
    hs.convert(tmp_path / "a.hsq", tmp_path / f"a{ending}")
    read = pq.read_table if ending == ".parquet" else feather.read_table
    table = read(tmp_path / f"a{ending}")
    assert_same(table["a"].combine_chunks().to_numpy_ndarray(), fields["a"])
    assert table["b"].type == pa.list_(pa.uint8(), 5)
    assert table["b"].to_pylist() == fields["b"].tolist()
    assert table["c"].to_pylist() == fields["c"].tolist()
    assert_same(table["d"].to_numpy(), fields["d"])
    assert (table["t"].null_count, table["t"].type) == (3, pa.timestamp("us"))
    assert table["t"].to_pylist()[::3] == times.tolist()[::3]
    assert table["flag"].to_pylist() == some("bool", 9).tolist()


@pytest.mark.parametrize("ending", ENDINGS)
def test_roles_and_metadata_come_back(tmp_path: Path, ending: str) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend({"x": np.arange(5)}, {"speed": np.arange(5.0), "kind": np.arange(5) % 2})
        writer.user_meta().update(made="by hand", deep={"list": [1, 2.5, None]})
    hs.convert(tmp_path / "a.hsq", tmp_path / f"a{ending}")
    hs.convert(tmp_path / f"a{ending}", tmp_path / "b.hsq")
    with hs.open(tmp_path / "a.hsq") as before, hs.open(tmp_path / "b.hsq") as after:
        assert after.schema == before.schema
        assert after.user_meta() == before.user_meta()


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_records(tmp_path: Path, ending: str) -> None:
    schema = hs.Schema({"x": hs.Field("float32", (2, 3)), "text": "U7"}, {"y": hs.Field("int64")})
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", schema=schema):
        pass
    hs.convert(tmp_path / "a.hsq", tmp_path / f"a{ending}")
    assert hs.convert(tmp_path / f"a{ending}", tmp_path / "b.hsq").n_records == 0
    with hs.open(tmp_path / "b.hsq") as seq:
        assert seq.schema == schema


@pytest.mark.parametrize("ending", ENDINGS)
def test_types_that_arrow_has_not_are_refused(tmp_path: Path, ending: str) -> None:
    values = {
        "complex64": np.zeros(3, np.complex64),
        "bfloat16": np.zeros(3, ml_dtypes.bfloat16),
        "datetime64[h]": np.zeros(3, "M8[h]"),
        "datetime64[25s]": np.zeros(3, "M8[25s]"),
        "timedelta64[D]": np.zeros(3, "m8[D]"),
    }
    for name, array in values.items():
        with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
            writer.extend({"x": array})
        with pytest.raises(hs.ArgumentError, match="x: ") as caught:
            hs.convert(tmp_path / "a.hsq", tmp_path / f"a{ending}")
        assert name in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["a.hsq"]


def test_dates_and_seconds_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for values, ending in ((np.array([1 << 40], "M8[D]"), ".arrow"), (np.array([1 << 60], "M8[s]"), ".parquet")):
        with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
            writer.extend({"x": values})
        with pytest.raises(hs.ArgumentError, match="x: "):
            hs.convert(tmp_path / "a.hsq", tmp_path / f"a{ending}")


def test_seconds_are_milliseconds_in_parquet_and_stay_seconds_in_arrow(tmp_path: Path) -> None:
    times = np.array([1, -5, 10**9], "M8[s]")
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend({"x": times, "pair": np.stack([times, times], 1)})
    for ending, unit in ((".arrow", "s"), (".parquet", "ms")):
        hs.convert(tmp_path / "a.hsq", tmp_path / f"a{ending}")
        found = converted(tmp_path / f"a{ending}", tmp_path)
        assert_same(found["x"], times.astype(f"M8[{unit}]"))
        assert_same(found["pair"], np.stack([times, times], 1).astype(f"M8[{unit}]"))


def test_lists_without_values_are_kept_in_arrow_and_refused_by_parquet(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend({"x": np.arange(4), "none": np.zeros((4, 0, 3), np.float32)})
    hs.convert(tmp_path / "a.hsq", tmp_path / "a.arrow")
    assert converted(tmp_path / "a.arrow", tmp_path)["none"].shape == (4, 0, 3)
    with pytest.raises(hs.ArgumentError, match="none: Parquet has no lists without values"):
        hs.convert(tmp_path / "a.hsq", tmp_path / "a.parquet")


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_of_column_that_pyarrow_writes(tmp_path: Path, ending: str) -> None:
    images = some("float32", 4, 2, 3)
    turned = pa.fixed_shape_tensor(pa.int16(), (2, 3, 4), permutation=(2, 0, 1))
    stored = pa.FixedSizeListArray.from_arrays(pa.array(range(96), pa.int16()), 24)
    columns = {
        "tensor": (tensor(images), images),
        "turned": (
            pa.ExtensionArray.from_storage(turned, stored),
            np.arange(96, dtype=np.int16).reshape(4, 2, 3, 4).transpose(0, 3, 1, 2),
        ),
        "fixed": (pa.FixedSizeListArray.from_arrays(pa.array(range(8)), 2), np.arange(8).reshape(4, 2)),
        "lists": (pa.array(images.tolist(), pa.list_(pa.list_(pa.float32()))), images),
        "large": (pa.array(images.tolist(), pa.large_list(pa.list_(pa.float32(), 3))), images),
        "half": (pa.array(np.arange(4, dtype=np.float16)), np.arange(4, dtype=np.float16)),
        "flags": (pa.array([True, False, True, True]), np.array([1, 0, 1, 1], bool)),
        "words": (pa.array(["a", "größe", "", "ab"]), np.array(["a", "größe", "", "ab"])),
        "bytes": (pa.array([b"a", b"\0b", b"", b"abc"]), np.array([b"a", b"\0b", b"", b"abc"])),
        "pairs": (pa.array([["a", "bc"]] * 4), np.array([["a", "bc"]] * 4)),
        "kinds": (pa.array(["x", "yy", "x", "x"]).dictionary_encode(), np.array(["x", "yy", "x", "x"])),
        "stored as int8": (
            pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1, 2, -1], pa.int8())),
            np.array([0, 1, 1, 1], bool),
        ),
        "hash": (pa.array([b"a\0"] * 4, pa.binary(2)), np.array([[97, 0]] * 4, np.uint8)),
        "when": (pa.array([1, 2, 3, 4], pa.timestamp("ns", "UTC")), np.array([1, 2, 3, 4], "M8[ns]")),
        "date": (pa.array([1, -2, 3, 4], pa.date32()), np.array([1, -2, 3, 4], "M8[D]")),
        "date64": (pa.array([86_400_000] * 4, pa.date64()), np.array([86_400_000] * 4, "M8[ms]")),
        "clock": (pa.array([1, 2, 3, 4], pa.time32("ms")), np.array([1, 2, 3, 4], "m8[ms]")),
        "clock64": (pa.array([1, 2, 3, 4], pa.time64("us")), np.array([1, 2, 3, 4], "m8[us]")),
        "span": (pa.array([1, 2, 3, 4], pa.duration("s")), np.array([1, 2, 3, 4], "m8[s]")),
    }
    table = pa.table({name: array for name, (array, _) in columns.items()})
    if ending == ".parquet":
        table = table.set_column(table.schema.get_field_index("date64"), "date64", columns["date64"][0])
    found = converted(write_table(tmp_path / f"a{ending}", table), tmp_path)
    for name, (_, expected) in columns.items():
        if (name, ending) == ("date64", ".parquet"):
            expected = expected.astype("M8[D]")  # which is what Parquet makes of it
        found_type = found[name].dtype
        assert_same(found[name].astype(expected.dtype) if found_type.kind in "M" else found[name], expected)


def test_views_and_runs_in_arrow(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", "a longer text than fits inline", "b"], pa.string_view()),
        "list": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_view(pa.int64())),
        "runs": pa.RunEndEncodedArray.from_arrays([2, 3], pa.array([7, 8])),
    }
    found = converted(write_table(tmp_path / "a.arrow", pa.table(columns)), tmp_path)
    assert found["text"].tolist() == columns["text"].to_pylist()
    assert found["list"].tolist() == [[1, 2], [3, 4], [5, 6]]
    assert found["runs"].tolist() == [7, 7, 8]


@pytest.mark.parametrize("ending", ENDINGS)
def test_text_is_as_wide_as_the_longest_wherever_that_is(tmp_path: Path, ending: str) -> None:
    words = ["ab"] * 3000
    words[2900] = "the longest"
    options = {"row_group_size": 100} if ending == ".parquet" else {"max_chunksize": 100}
    path = write_table(tmp_path / f"a{ending}", pa.table({"word": words, "x": range(3000)}), **options)
    assert_same(converted(path, tmp_path)["word"], np.array(words))


@pytest.mark.parametrize("ending", ENDINGS)
def test_several_files_and_folders_are_rows_in_a_row(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, n in enumerate((3, 0, 5)):
        values = np.arange(n) + 10 * number
        write_table(folder / f"part-{number}{ending}", pa.table({"x": values, "text": values.astype(str)}))
    (folder / "_SUCCESS").touch()
    (folder / f".hidden{ending}").touch()
    expected = [0, 1, 2, 20, 21, 22, 23, 24]
    for source in (folder, str(folder / f"*{ending}"), sorted(folder.glob(f"p*{ending}"))):
        found = converted(source, tmp_path)
        assert found["x"].tolist() == expected
        assert found["text"].tolist() == list(map(str, expected))


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_given_twice_is_read_twice(tmp_path: Path, ending: str) -> None:
    for number in (0, 1):
        write_table(tmp_path / f"{number}{ending}", pa.table({"x": range(10 * number, 10 * number + 10)}))
    first, second = (tmp_path / f"{number}{ending}" for number in (0, 1))
    expected = [*range(10), *range(20), *range(10, 20)]
    assert converted([first, first, second, second], tmp_path)["x"].tolist() == expected


@pytest.mark.parametrize("ending", ENDINGS)
def test_folders_within_a_folder_are_not_passed_over(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / "shards"
    for number, name in enumerate((".", "_temporary", ".hidden", "other", "sub/deep")):
        (folder / name).mkdir(parents=True, exist_ok=True)
        if name != "other":
            write_table(folder / name / f"a{ending}", pa.table({"x": [number]}))
    (folder / "other" / "up").symlink_to(folder)
    for options in ({}, {"from_": ending[1:]}):
        with pytest.raises(
            hs.SourceError, match=rf"shards: .*sub/deep/a\{ending}, .*'{folder}/\*\*/\*\{ending}' takes"
        ):
            hs.convert(folder, tmp_path / "a.hsq", **options)
    assert converted(folder / f"*{ending}", tmp_path)["x"].tolist() == [0]
    assert 4 in converted(folder / "sub" / f"**/*{ending}", tmp_path)["x"]
    (folder / "sub" / "deep" / f"a{ending}").unlink()
    assert converted(folder, tmp_path)["x"].tolist() == [0]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_only_some_files_say_of_a_column_is_not_taken_for_all(tmp_path: Path, ending: str) -> None:
    exported = list[Path]()
    for word, time in (("abc", "NaT"), ("abcde", "2020-01-01")):
        with hs.HyperSequenceWriter(tmp_path / f"{word}.hsq") as writer:
            writer.extend({"word": np.array([word]), "when": np.array([time], "M8[us]")})
        exported.append(tmp_path / f"{word}{ending}")
        hs.convert(tmp_path / f"{word}.hsq", exported[-1])
    for sources in (exported, exported[::-1]):
        found = converted(sources, tmp_path)
        assert sorted(found["word"].tolist()) == ["abc", "abcde"]
        assert np.isnat(found["when"]).sum() == 1  # as all files say that null is NaT
    table = pa.table({"word": ["a longer one"], "when": pa.array([None], pa.timestamp("us"))})
    other = write_table(tmp_path / f"other{ending}", table)
    for sources in ([*exported, other], [other, *exported]):
        assert "a longer one" in converted(sources, tmp_path, inputs=["word"])["word"].tolist()
        with pytest.raises(hs.SourceError, match="row 0, column 'when': a value is missing"):
            hs.convert(sources, tmp_path / "a.hsq", inputs=["when"])


@pytest.mark.parametrize("ending", ENDINGS)
def test_text_that_was_changed_after_it_was_exported_is_looked_at(tmp_path: Path, ending: str) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend({"word": np.array(["a", "b"], "U3"), "raw": np.array([b"a", b"b"], "S3")})
    hs.convert(tmp_path / "a.hsq", tmp_path / f"a{ending}")
    assert converted(tmp_path / f"a{ending}", tmp_path)["word"].dtype == "U3"  # what it was, though all are shorter
    read = pq.read_table if ending == ".parquet" else feather.read_table
    schema = read(tmp_path / f"a{ending}").schema
    changed = pa.table({"word": ["much longer", "b"], "raw": [b"a", b"longer"]}, schema=schema)
    found = converted(write_table(tmp_path / f"a{ending}", changed), tmp_path)
    assert found["word"].tolist() == ["much longer", "b"]
    assert found["raw"].tolist() == [b"a", b"longer"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_with_other_columns_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    write_table(tmp_path / f"0{ending}", pa.table({"x": [1], "y": [1.0]}))
    sources = [tmp_path / f"0{ending}", tmp_path / f"1{ending}"]
    for table, difference in (
        (pa.table({"x": [1]}), "'y' is not there, but in .* it is double"),
        (pa.table({"x": [1], "y": [1]}), "'y' is int64, but in .* it is double"),
        (pa.table({"x": [1], "y": [1.0], "z": [1]}), "'z' is int64, but in .* it is not there"),
    ):
        write_table(sources[1], table)
        with pytest.raises(hs.SourceError, match=rf"1\{ending}: the column {difference}"):
            hs.convert(sources, tmp_path / "a.hsq")
    write_table(sources[1], pa.table({"y": [2.0], "x": [2]}))  # another order is none of them
    assert converted(sources, tmp_path)["y"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_has_no_shape_is_refused_with_its_place(tmp_path: Path, ending: str) -> None:
    n = 50
    lists = [[1, 2]] * n
    cases: list[tuple[Any, str]] = [
        (pa.array([*lists[:40], [1], *lists[41:]]), r"row 40, column 'x': a list has 1 values, where 2 are expected"),
        (pa.array([*([[[1], [2]]] * 30), [[1], [2, 3]]]), "row 30, column 'x': a list has 2 values, where 1 are"),
        (pa.array([[[1, 2], [3]]]), "row 0, column 'x': a list has 1 values"),
        (pa.array([*range(30), None]), r"row 30, column 'x': a value is missing \(null\)"),
        (pa.array([*lists[:20], None]), r"row 20, column 'x': a value is missing"),
        (pa.array([*lists[:20], [1, None]]), r"row 20, column 'x': a value is missing"),
        (pa.array([None, "a"]), r"row 0, column 'x': a value is missing"),
        (pa.array([None, [1]]), r"row 0, column 'x': a value is missing"),
        (pa.array(["a", None, "b"]).dictionary_encode(), r"row 1, column 'x': a value is missing"),
        (pa.array([None] * 3, pa.timestamp("us")), r"row 0, column 'x': a value is missing"),
        (pa.array(["a", "b\0"]), r"row 1, column 'x': ends in NUL"),
        (pa.array([b"a", b"", b"b\0"]), r"row 2, column 'x': ends in NUL"),
        (pa.array([decimal.Decimal("1.10")]), r"column 'x' is decimal128.*cast it to float64"),
        (pa.array([{"a": 1}]), r"column 'x' is struct.*flatten it"),
        (pa.array([[{"a": 1}]]), r"column 'x' is list.*flatten it"),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), r"column 'x' is map"),
        (pa.array([None, None]), r"column 'x' is null"),
        (pa.array([], pa.list_(pa.int64())), r"has no rows, so that nothing tells how long"),
        (
            pa.FixedSizeListArray.from_arrays(tensor(np.zeros((6, 2, 3))), 2),
            "column 'x' is fixed_size_list.*make one tensor",
        ),
    ]
    for array, message in cases:
        path = write_table(tmp_path / f"a{ending}", pa.table({"x": array, "good": np.arange(len(array))}))
        with pytest.raises(hs.SourceError, match=message) as caught:
            hs.convert(path, tmp_path / "a.hsq")
        assert str(path) in str(caught.value)
        assert not (tmp_path / "a.hsq").exists()
        assert len(converted(path, tmp_path, inputs=["good"])["good"]) == len(array)
        for part in tmp_path.glob("*.part"):
            part.unlink()


@pytest.mark.parametrize("ending", ENDINGS)
def test_conversion_goes_on_where_it_stopped(tmp_path: Path, ending: str) -> None:
    n, target = 30_000, tmp_path / "a.hsq"
    values = np.random.default_rng(1).random((n, 40))
    lists = pa.array([[1]] * (n - 1) + [[1, 2]])
    options = {"row_group_size": 7000} if ending == ".parquet" else {"max_chunksize": 7000}
    path = write_table(tmp_path / f"a{ending}", pa.table({"x": tensor(values), "list": lists}), **options)
    with pytest.raises(hs.SourceError, match=f"row {n - 1:,}, column 'list'") as caught:
        hs.convert(path, target)
    assert "first" in "".join(caught.value.__notes__)
    write_table(path, pa.table({"x": tensor(values), "list": pa.array([[1]] * n)}), **options)
    with hs.HyperSequenceWriter.resume(target) as writer:
        n_safe = writer.n_records
        writer.abort()
    assert 0 < n_safe < n
    assert hs.convert(path, target, resume=True).n_records == n
    with hs.open(target) as seq:
        assert_same(seq.records[:][0]["x"], values)


@pytest.mark.parametrize("threads", [0, 3])
def test_large_row_groups_are_read_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    values, text = some("uint8", 400, 10), list(map(str, range(400)))
    table = pa.table({"x": tensor(values), "text": text})
    for row_group_size in (400, 90, 7):
        path = write_table(tmp_path / "a.parquet", table, row_group_size=row_group_size)
        for memory in (1000, 20_000, 16 << 20):
            monkeypatch.setattr(parquet_module, "_MEMORY_NBYTES", memory)
            found = converted(path, tmp_path, threads=threads)
            assert_same(found["x"], values)
            assert found["text"].tolist() == text


def test_any_start_gives_the_same_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As resuming asks for it."""
    table = pa.table({"x": range(1000)})
    parquet = [write_table(tmp_path / f"{i}.parquet", table.slice(500 * i, 500), row_group_size=70) for i in range(2)]
    arrow = [write_table(tmp_path / f"{i}.arrow", table.slice(500 * i, 500), max_chunksize=70) for i in range(2)]
    for number, name in enumerate(("parquet", "arrow")):
        format = formats()[name]
        for memory in (500, 16 << 20):
            monkeypatch.setattr(parquet_module, "_MEMORY_NBYTES", memory)
            with format.opens((parquet, arrow)[number], format.parse({})) as reader:
                reader.choose(["x"])
                assert reader.n_records == 1000
                for start in (0, 1, 70, 499, 500, 501, 1000):
                    for step in (1000, 33):
                        pieces = [job()["x"] for job in reader.jobs(start, ["x"], step)]
                        assert [x for piece in pieces for x in piece] == list(range(start, 1000))


def test_streams_and_compressed_files(tmp_path: Path) -> None:
    values = some("int32", 500, 6)
    table = pa.table({"x": tensor(values), "kind": pa.array(["a", "b"] * 250).dictionary_encode()})
    with pa.ipc.new_stream(tmp_path / "stream.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=30)
    for compression in ("lz4", "zstd", "uncompressed"):
        feather.write_feather(table, tmp_path / f"{compression}.feather", compression=compression, chunksize=170)
    for path in [*tmp_path.glob("*.feather"), tmp_path / "stream.arrow"]:
        found = converted(path, tmp_path)
        assert_same(found["x"], values)
        assert found["kind"].tolist() == ["a", "b"] * 250
    for compression in ("none", "gzip", "brotli", "lz4", "zstd", "snappy"):
        hs.convert(tmp_path / "converted.hsq", tmp_path / f"{compression}.pq", compression=compression)
        assert_same(converted(tmp_path / f"{compression}.pq", tmp_path)["x"], values)
    with pytest.raises(hs.ArgumentError, match="is none of: none, snappy"):
        hs.convert(tmp_path / "converted.hsq", tmp_path / "a.parquet", compression="zip")


@pytest.mark.parametrize("ending", [*ENDINGS, ".stream.arrow"])
def test_files_that_are_cut_off(tmp_path: Path, ending: str) -> None:
    table = pa.table({"x": tensor(some("float64", 400, 3)), "text": list(map(str, range(400)))})
    path = tmp_path / f"a{ending}"
    if "stream" in ending:
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=100)
    else:
        write_table(path, table)
    whole = path.read_bytes()
    for n in (0, 3, 12, len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:n])
        with pytest.raises(hs.SourceError, match=str(path)):
            hs.convert(path, tmp_path / "a.hsq")
        assert not (tmp_path / "a.hsq").exists()


def test_damage_in_a_row_group_is_reported_with_its_number_and_what_is_before_is_kept(tmp_path: Path) -> None:
    n = 30_000
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend({"x": np.random.default_rng(0).random((n, 100))})
    hs.convert(tmp_path / "a.hsq", tmp_path / "a.parquet", compression="none")
    path = tmp_path / "a.parquet"
    footer = pq.read_metadata(path)
    last = footer.num_row_groups - 1
    assert last > 0
    data = bytearray(path.read_bytes())
    data[footer.row_group(last).column(0).data_page_offset + 5000] ^= 1  # which the checksum of its page tells
    path.write_bytes(data)
    with pytest.raises(hs.SourceError, match=rf"a\.parquet, row group {last}: cannot be read.*(?i:crc|checksum)"):
        hs.convert(path, tmp_path / "b.hsq")
    with hs.HyperSequenceWriter.resume(tmp_path / "b.hsq") as writer:
        assert writer.n_records == n - footer.row_group(last).num_rows
        writer.abort()


def test_arrow_files_whose_offsets_point_nowhere(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 2, 1 << 30, 5], np.int32))
    bad = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abcde")])
    path = write_table(tmp_path / "a.arrow", pa.table({"text": bad, "x": [1, 2, 3]}))
    with pytest.raises(hs.SourceError, match=r"a\.arrow, rows from 0 on: cannot be read"):
        hs.convert(path, tmp_path / "a.hsq")
    assert converted(path, tmp_path, inputs=["x"])["x"].tolist() == [1, 2, 3]


def test_text_that_is_no_utf8(tmp_path: Path) -> None:
    bad = pa.array([b"good", b"\xff\xfe"]).view(pa.string())
    for ending in ENDINGS:
        path = write_table(tmp_path / f"a{ending}", pa.table({"text": bad}))
        with pytest.raises(hs.SourceError, match=rf"a\{ending}, row.*cannot be read"):
            hs.convert(path, tmp_path / "a.hsq")


def _write_int96(path: Path, **columns: Any) -> Path:
    return write_table(path, pa.table(columns), use_deprecated_int96_timestamps=True, row_group_size=3)


def test_timestamps_of_twelve_bytes_keep_their_values_or_are_refused(tmp_path: Path) -> None:
    path, n = tmp_path / "a.parquet", 7
    near = np.array([1, -(2**62) - 1, 2**62 + 1, 5, 6, 7, 8], "M8[ns]")
    far = np.array(["2020-01-01T00:00:00.000001"] * 5 + ["9999-12-31", "1066-10-14"], "M8[us]")
    found = converted(_write_int96(path, near=near, x=range(n)), tmp_path)
    assert_same(found["near"], near)
    found = converted(_write_int96(path, far=far, pairs=pa.array(np.stack([far, far], 1).tolist())), tmp_path)
    assert_same(found["far"], far)
    assert_same(found["pairs"], np.stack([far, far], 1))
    _write_int96(path, far=far, near=near)
    for name, values in (("far", far), ("near", near)):
        assert_same(converted(path, tmp_path, inputs=[name])[name], values)
    message = r"row 5, column 'far': lies outside .*microseconds would round .*row 0, column 'near'"
    with pytest.raises(hs.SourceError, match=message):
        hs.convert(path, tmp_path / "a.hsq")
    _write_int96(path, far=pa.array([far[:1].tolist(), far[4:].tolist()] * 2))
    with pytest.raises(hs.SourceError, match="row 1, column 'far': a list has 3 values"):  # and not another fault
        hs.convert(path, tmp_path / "a.hsq")
    _write_int96(path, x=pa.array([1 << 50], pa.timestamp("s")))
    with pytest.raises(hs.SourceError, match="row 0, column 'x': is no time within 290,000 years"):
        hs.convert(path, tmp_path / "a.hsq")


def test_timestamps_of_twelve_bytes_in_one_of_several_files(tmp_path: Path) -> None:
    near, far = np.array(["2020-01-01"], "M8[ns]"), np.array(["9999-12-31"], "M8[us]")
    plain = write_table(tmp_path / "0.parquet", pa.table({"t": near}))
    old = _write_int96(tmp_path / "1.parquet", t=near)
    assert_same(converted([plain, old], tmp_path)["t"], np.concatenate([near, near]))
    assert_same(
        converted([_write_int96(tmp_path / "2.parquet", t=far), old], tmp_path)["t"],
        np.array([far[0], near[0]], "M8[us]"),
    )
    with pytest.raises(hs.SourceError, match=r"the column 't' is timestamp\[us\], but in .*0\.parquet it is"):
        hs.convert([plain, tmp_path / "2.parquet"], tmp_path / "a.hsq")


def test_rows_that_are_large_in_the_file_come_a_few_at_a_time(tmp_path: Path) -> None:
    """However small they are when decoded, as images are that are resized."""
    table = pa.table({"x": [b"x" * 100_000] * 400, "n": range(400)})
    path = write_table(tmp_path / "a.arrow", table, max_chunksize=300)
    format = formats()["arrow"]
    with format.opens([path], format.parse({})) as reader:
        pieces = [job() for job in reader.rows(0, ["x"], 1000)]
        assert sum(len(batch) for rows in pieces for batch in rows.batches) == 400
        assert max(sum(len(batch) for batch in rows.batches) for rows in pieces) <= 168
        assert len(list(reader.rows(0, ["n"], 1000))) == 1


def test_names_with_dots_and_names_that_stand_twice(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.parquet", pa.table({"a": [1], "a.b": [2.5], "a.b.c": ["x"]}))
    assert {name: values.tolist() for name, values in converted(path, tmp_path).items()} == {
        "a": [1],
        "a.b": [2.5],
        "a.b.c": ["x"],
    }
    assert converted(path, tmp_path, inputs=["a"])["a"].tolist() == [1]
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["x", "x"])
    for ending in ENDINGS:
        with pytest.raises(hs.SourceError, match="has 2 columns called 'x'"):
            hs.convert(write_table(tmp_path / f"a{ending}", twice), tmp_path / "a.hsq")


def test_images_of_the_hub_in_parquet_are_decoded(tmp_path: Path) -> None:
    pictures = some("uint8", 5, 6, 4, 3)

    def encoded(image: Any) -> bytes:
        Image.fromarray(image).save(stream := io.BytesIO(), "png")
        return stream.getvalue()

    rows = [{"bytes": encoded(image), "path": f"{i}.png"} for i, image in enumerate(pictures)]
    path = write_table(tmp_path / "a.parquet", pa.table({"image": rows, "label": range(5)}), row_group_size=2)
    found = converted(path, tmp_path)
    assert_same(found["image"], pictures)
    assert converted(path, tmp_path, size="3x2", mode="L")["image"].shape == (5, 3, 2)
    rows[3]["bytes"] = encoded(pictures[3][:5])
    rows[4]["bytes"] = None
    for n, message in ((4, r"row 3, column 'image': .*size= resizes"), (5, "row 4, column 'image': has no image")):
        table = pa.table({"image": [rows[n - 1] if i == n - 1 else rows[0] for i in range(n)]})
        with pytest.raises(hs.SourceError, match=message):
            hs.convert(write_table(path, table), tmp_path / "a.hsq")


def test_memory_stays_bounded_in_one_huge_row_group(tmp_path: Path) -> None:
    n = 12 << 20
    table = pa.table({"x": tensor(np.random.default_rng(0).integers(0, 255, n, np.uint8).reshape(-1, 4096))})
    path = write_table(tmp_path / "a.parquet", table, row_group_size=n)
    del table
    pool = pa.default_memory_pool()
    format, highest = formats()["parquet"], 0
    with format.opens([path], format.parse({})) as reader:
        reader.choose(["x"])
        before, n_seen = pool.bytes_allocated(), 0
        for job in reader.jobs(0, ["x"], 2048):
            piece = job()
            n_seen += len(piece["x"])
            highest = max(highest, pool.bytes_allocated() - before)
    assert n_seen == n // 4096
    assert highest < 48 << 20

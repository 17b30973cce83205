"""Looking into files: what they say of themselves, their records as text, JSON and pictures, and their statistics."""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import hypersequence as hs
from hypersequence.layout import BlockWalk, open_parts
from hypersequence.report import Description, FieldStats, Stats, describe, picture, stats
from hypersequence.report.moments import CHUNK
from make_golden import goldens
from test_cli import hsq
from test_legacy import CASES, GOOD, marked, old, zipped  # noqa: F401 - old is a fixture

GOLDEN = Path(__file__).parent / "golden"
RANDOM = np.random.default_rng(7)


def write(path: Path, inputs: Any, outputs: Any = None, batch_size: int = 4, **options: Any) -> Path:
    with hs.HyperSequenceWriter(path, batch_size, **options) as writer:
        writer.extend(inputs, outputs)
    return path


def stats_of(tmp_path: Path, values: np.ndarray, **options: Any) -> FieldStats:
    with hs.open(write(tmp_path / "one.hsq", values, overwrite=True, **options)) as seq:
        return stats(seq)["inputs"]


# --- info ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", goldens())
def test_the_bytes_of_every_golden_file_add_up(name: str) -> None:
    path = GOLDEN / f"{name}.hsq"
    data, found = path.read_bytes(), describe(path)
    assert sum(found.space.values()) == found.nbytes == len(data)
    parts = open_parts(lambda offset, n: data[offset : offset + n], len(data), str(path))
    walk = BlockWalk(lambda offset, n: data[offset : offset + n], len(data), parts.header, str(path))
    frames = padding = 0
    for number in range(parts.trailer.n_blocks):
        frame, _ = parts.index.entry(
            lambda offset, n: data[offset : offset + n], number, parts.first if number else None
        )
        last = number == parts.trailer.n_blocks - 1
        end = parts.trailer.index_offset if last else walk.place(number + 1)
        (inside_frame, frame_end), *gaps = walk.gaps(frame, end)
        assert inside_frame <= frame_end <= frame.offset + frame.frame_nbytes
        frames += frame.frame_nbytes
        padding += sum(stop - start for start, stop in gaps)
    assert (found.space["frames"], found.space["padding"]) == (frames, padding)
    golden = goldens()[name]
    columns = golden.columns()
    assert found.space["records"] == sum(column.nbytes for column in columns)
    assert [found.field_nbytes(column) for column in found.schema.columns] == [column.nbytes for column in columns]
    assert (found.n_records, found.batch_size, found.version) == (len(columns[0]), golden.batch_size, "3")
    assert found.user_meta == golden.meta and found.has_checksums
    assert found.n_batches == math.ceil(found.n_records / found.batch_size)
    assert math.isclose(found.padding_share, padding / len(data))
    with hs.open(path) as seq:
        assert found.schema == seq.schema
        assert (found.path, found.created_ns) == (seq.path, seq.created_ns)


def test_the_bytes_of_old_files_add_up(old: tuple[str, Path]) -> None:  # noqa: F811
    version, folder = old
    for name, case in CASES.items():
        path = folder / f"{name}.hsq"
        if case.meta and version != "0.10.0":
            continue
        found = describe(path)
        assert sum(found.space.values()) == found.nbytes == path.stat().st_size
        assert found.space["records"] == sum(array.nbytes for array in case.columns)
        assert found.version == version.rsplit(".", 1)[0]
        assert (found.created, found.file_id, found.has_checksums) == (None, None, False)
        assert (found.n_records, found.user_meta) == (len(case.columns[0]), case.meta)
        assert str(found).isprintable() or "\n" in str(found)


def test_no_record_is_read_to_describe_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "large.hsq", np.zeros((3000, 1024), np.float32), np.arange(3000), block_nbytes=1 << 16)
    describe(path)

    def n_read() -> int:
        return int(re.findall(r"rchar: (\d+)", Path("/proc/self/io").read_text())[0])

    idle = -n_read() + n_read()
    before = n_read()
    found = describe(path)
    assert found.nbytes > 12_000_000
    assert n_read() - before - idle < 200_000
    data = bytearray(path.read_bytes())
    for offset in range(1 << 20, 11 << 20):
        data[offset] ^= 255
    path.write_bytes(data)
    assert describe(path) == found


def test_a_description_is_shown_as_tables(tmp_path: Path) -> None:
    path = tmp_path / "train.hsq"
    with hs.HyperSequenceWriter(path, batch_size=8) as writer:
        writer.extend({"image": np.zeros((20, 4, 4), np.uint8)}, {"label": np.arange(20)})
        writer.user_meta().update({"made by": "a test", "evil": "\x1b[2Jgone", "long": "x" * 5000})
    found = describe(path)
    assert isinstance(found, Description)
    text = str(found)
    for expected in (
        "20 records in 3 batches of 8, in 1 block",
        "image",
        "uint8",
        "(4, 4)",
        "records: label",
        "a test",
    ):
        assert expected in text
    assert "\x1b" not in text and "\\x1b[2Jgone" in text
    assert "x" * 201 not in text and "(5,000 characters)" in text
    assert found._repr_html_().count("<table>") == 3
    shown = hsq("info", path)
    assert shown.returncode == 0, shown.stderr
    for expected in ("20 records in 3 batches of 8", "records: label", "padding", f"{path.stat().st_size:,}", "a test"):
        assert expected in shown.stdout
    assert "\x1b" not in shown.stdout


def test_info_as_json_is_a_line_a_file(tmp_path: Path, old: tuple[str, Path]) -> None:  # noqa: F811
    good, broken, nan = GOLDEN / "names.hsq", tmp_path / "broken.hsq", tmp_path / "nan.hsq"
    broken.write_bytes(good.read_bytes()[:-1])
    nan.write_bytes(zipped(GOOD | {"usermeta": {"loss": float("nan"), "deep": [1, float("-inf")]}}))
    shown = hsq("info", good, broken, nan, old[1] / "images.hsq", tmp_path / "missing.hsq", "--json")
    assert shown.returncode == 2
    assert "[rule T1]" in shown.stderr and "missing.hsq" in shown.stderr and "Traceback" not in shown.stderr
    first, bad, second, third, missing = map(json.loads, shown.stdout.splitlines())
    assert {*bad} == {*missing} == {"path", "error"} and "[rule T1]" in bad["error"]
    assert first["path"] == str(good)
    assert (first["n_records"], first["version"]) == (5, "3")
    assert first["created"].startswith("2023-11-14T22:13:20.123456") and first["created"].endswith("Z")
    assert sum(first["space"].values()) == first["nbytes"] == good.stat().st_size
    assert [field["field"] for field in first["fields"]] == [
        "image",
        "größe",
        "標籤 😀",
        'a "b" \\c',
        "Auf\u200clage",
        "y",
        "w" * 255,
    ]
    assert first["fields"][0] == {
        "field": "image", "role": "inputs", "type": "uint8", "shape": [2, 2], "record_nbytes": 4, "nbytes": 20
    }  # fmt: skip
    assert second["user_meta"] == {"loss": "NaN", "deep": [1, "-Infinity"]}
    assert (third["version"], third["created"], third["file_id"]) == (old[0].rsplit(".", 1)[0], None, None)


def test_info_of_several_files_says_whether_they_belong_together(tmp_path: Path) -> None:
    names = ("smallest", "one-short-block", "several-blocks")
    shown = hsq("info", *(GOLDEN / f"{name}.hsq" for name in names))
    assert shown.returncode == 0
    assert "3 files: 29 records" in shown.stdout and "of different schemas" in shown.stdout
    assert "all of one schema" in hsq("info", *(GOLDEN / f"{name}.hsq" for name in names[1:])).stdout


# --- head and show ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    fields = {
        "image": np.arange(30 * 28 * 28).reshape(30, 28, 28).astype(np.uint8),
        "word": np.array([f"w{i}" for i in range(29)] + ["\x1b[31mred\n"]),
        "small": np.arange(60, dtype=np.float32).reshape(30, 2) / 4,
    }
    return write(tmp_path / "mixed.hsq", fields, {"label": np.arange(30)})


def test_head_shows_values_for_people(mixed: Path) -> None:
    shown = hsq("head", mixed)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    assert [line for line in lines if line.startswith("record")] == [f"record {i}" for i in range(5)]
    assert "  label  4" in lines
    assert "  word   w0" in lines
    assert "  small  [0.5, 0.75]" in lines
    (image,) = [line for line in lines if line.startswith("  image")][:1]
    assert image == "  image  uint8 (28, 28), 0 to 255, mean 125.051: 0, 1, 2, 3, 4, 5, 6, 7, ..."
    shown = hsq("head", mixed, "-n", 50, "--fields", "word,outputs.label")
    assert shown.stdout.count("record") == 30
    assert "image" not in shown.stdout and "w28" in shown.stdout
    assert "\x1b" not in shown.stdout and r"\x1b[31mred\n" in shown.stdout
    wrong = hsq("head", mixed, "--fields", "wrod")
    assert wrong.returncode == 2 and "no field is called 'wrod'" in wrong.stderr


def test_show_takes_numbers_and_ranges(mixed: Path) -> None:
    def numbers(*given: object) -> list[int]:
        shown = hsq("show", "--fields", "label", mixed, *given)
        assert shown.returncode == 0, shown.stderr
        return [int(line.split()[1]) for line in shown.stdout.splitlines() if line.startswith("record")]

    assert numbers(3, -1, "2:5") == [3, 29, 2, 3, 4]
    assert numbers("-3:", "::10", ":-28", "10:2:-4") == [27, 28, 29, 0, 10, 20, 0, 1, 10, 6]
    assert numbers("100:200") == []
    assert numbers("--", "-30", "-2") == [0, 28]
    for wrong, code, message in (
        ("30", 2, "record 30 of a file of 30 records, which has 0 to 29"),
        ("-31", 2, "record -31 of a file"),
        ("x", 2, "'x' is no record number"),
        ("1.5", 2, "is no record number"),
        ("::0", 2, "is no record number"),
        ("1:2:3:4", 2, "is no record number"),
        ("--jsno", 2, "'--jsno' is no record number"),
    ):
        shown = hsq("show", mixed, wrong)
        assert shown.returncode == code
        assert message in " ".join(shown.stderr.replace("│", " ").split()) and "Traceback" not in shown.stderr


def from_json(value: Any, dtype: np.dtype) -> np.ndarray:
    """The array that JSON stands for."""
    if dtype.kind == "c":
        pairs = np.array(value, object)
        return pairs[..., 0].astype(float) + 1j * pairs[..., 1].astype(float)
    if dtype.kind == "S":
        return np.array(value.encode("latin-1"), dtype)
    if dtype.kind in "mM" and value != "NaT" and not isinstance(value, str):
        return np.array(value, np.int64).astype(dtype)
    return np.array(value).astype(float).astype(dtype) if dtype.kind in "fV" else np.array(value, dtype)


@pytest.mark.parametrize("name", ["every-type", "times", "strings", "tuples-and-weights", "zero-byte-fields"])
def test_json_has_every_value_of_every_type(name: str) -> None:
    golden = goldens()[name]
    n = len(golden.columns()[0])
    shown = hsq("show", GOLDEN / f"{name}.hsq", ":", "--json")
    assert shown.returncode == 0, shown.stderr
    records = json.loads(shown.stdout, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))["records"]
    assert [record["record"] for record in records] == list(range(n))
    for role in ("inputs", "outputs", "sample_weights"):
        given = getattr(golden, role)
        members = given.items() if isinstance(given, dict) else enumerate(given) if isinstance(given, tuple) else []
        if isinstance(given, np.ndarray):
            members = [(None, given)]
        for key, column in members:
            for number in range(n):
                value = records[number][role] if key is None else records[number][role][key]
                expected = column[number]
                found = from_json(value, column.dtype).reshape(np.shape(expected))
                if column.dtype.kind in "fcV":
                    kind = np.complex128 if column.dtype.kind == "c" else np.float64
                    np.testing.assert_array_equal(found.astype(kind), np.asarray(expected).astype(kind))
                else:
                    assert found.tobytes() == np.asarray(expected, column.dtype).tobytes(), key


def test_json_of_too_many_values_is_refused_and_not_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.hsq", np.zeros((11, 100_000), np.uint8), np.arange(11))
    shown = hsq("head", path, "-n", 11, "--json")
    assert shown.returncode == 2 and not shown.stdout
    assert "1,100,011 values are too many" in shown.stderr
    assert len(json.loads(hsq("head", path, "--json", "-n", 1).stdout)["records"][0]["inputs"]) == 100_000


def test_an_empty_file_has_nothing_to_show(tmp_path: Path) -> None:
    path = GOLDEN / "empty.hsq"
    assert hsq("head", path).stdout == "no records\n"
    assert json.loads(hsq("head", path, "--json").stdout) == {"records": []}
    assert hsq("show", path, "0").returncode == 2
    assert hsq("head", path, "--picture", tmp_path / "none.png").returncode == 0
    shown = json.loads(hsq("stats", path, "--json").stdout)
    assert shown["n_records"] == 0
    assert all(field["min"] is field["mean"] is field["std"] is field["share_nan"] is None for field in shown["fields"])
    assert shown["fields"][1]["counts"] == [] and "0 records" in hsq("stats", path).stdout


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_text_that_no_terminal_can_show_is_told_by_its_codes(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "odd.hsq"
    with hs.HyperSequenceWriter(path) as writer:
        texts = {"text": np.array(["a\ud800b", "größe", "標籤"]), "two": np.array([["\udcff", "ü"]] * 3)}
        writer.extend(texts, {"label": np.array(["\udfff", "ß", "ß"])})
        writer.user_meta()["größe"] = "😀"
    odd = tmp_path / "größe.hsq"
    odd.write_bytes(path.read_bytes())
    for arguments in (
        ["head", path],
        ["head", path, "--json"],
        ["show", path, 0, "--fields", "text"],
        ["stats", path],
        ["stats", path, "--json"],
        ["info", path, odd],
        ["info", path, "--json"],
        ["verify", odd],
    ):
        shown = hsq(*arguments, PYTHONIOENCODING=encoding)
        assert shown.returncode == 0 and not shown.stderr, shown.stderr
        if "--json" in arguments:
            json.loads(shown.stdout)
        elif arguments[0] in ("head", "show"):
            assert "a\\ud800b" in shown.stdout
        elif arguments[0] == "stats" and encoding == "ascii":
            bars = [line.index("3.3%") for line in shown.stdout.splitlines() if "33.3%" in line]
            assert len({*bars[:3]}) == 1  # columns stay columns


@pytest.mark.parametrize("ending", [".h5", ".parquet", ".tar", ".tfrecord"])
def test_text_that_is_no_unicode_is_refused_by_formats_that_need_it(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / "odd.hsq", {"text": np.array(["a\ud800b", "c"])})
    with pytest.raises(hs.RecordError, match=rf"b\{ending}: the field .*record 0 has half of a UTF-16 pair"):
        hs.convert(path, tmp_path / f"b{ending}")
    assert list(tmp_path.iterdir()) == [path]


# --- statistics ------------------------------------------------------------------------------------------------------

NUMBERS = [
    *"?bBhHiIqQefdFD",
    ml_dtypes.bfloat16,
    *(getattr(ml_dtypes, f"float8_{k}") for k in ("e4m3fn", "e5m2", "e3m4")),
]


def numbers(dtype: np.dtype, *shape: int) -> np.ndarray:
    if dtype.kind in "iu":
        ends = np.iinfo(dtype)
        return RANDOM.integers(ends.min, ends.max, shape, dtype, endpoint=True)
    if dtype.kind == "c":
        return (RANDOM.normal(3, 2, shape) + 1j * RANDOM.normal(-1, 5, shape)).astype(dtype)
    return (RANDOM.normal(1, 2, shape) * (RANDOM.random(shape) < 0.9)).astype(dtype)


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
@pytest.mark.parametrize("shape", [(), (7,), (9, 5, 3), (2, 8, 9), (1, 1)], ids=str)
def test_numbers_are_those_of_numpy(kind: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    dtype = np.dtype(kind)
    values = numbers(dtype, 203, *shape)
    found = stats_of(tmp_path, values, block_nbytes=4000)
    wide = values.astype(np.complex128 if dtype.kind == "c" else np.float64)
    assert found.n_values == values.size
    assert found.mean == pytest.approx(wide.mean(), rel=1e-12)
    assert found.std == pytest.approx(wide.std(), rel=1e-12)
    assert (found.n_nan, found.n_inf, found.n_zeros) == (0, 0, int((wide == 0).sum()))
    assert not found.constant
    if dtype.kind == "c":
        assert found.min is found.max is None
    elif dtype.kind in "iu":
        assert (found.min, found.max) == (int(values.min()), int(values.max()))
    else:
        assert (found.min, found.max) == (wide.min(), wide.max())
    axis = {(9, 5, 3): 2, (2, 8, 9): 0}.get(shape)
    assert found.channel_axis == axis
    if axis is not None:
        others = tuple(n for n in range(4) if n != axis + 1)
        assert found.channel_means == pytest.approx(wide.mean(axis=others), rel=1e-11)
        assert found.channel_stds == pytest.approx(wide.std(axis=others), rel=1e-11)


@pytest.mark.parametrize("kind", [*"efdFD", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2], ids=str)
@pytest.mark.parametrize("shape", [(5,), (4, 4, 3), (3, 5, 6)], ids=str)
def test_what_is_not_finite_is_counted_and_left_out(kind: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    values = numbers(np.dtype(kind), 300, *shape)
    values[RANDOM.random(values.shape) < 0.1] = np.nan
    values[RANDOM.random(values.shape) < 0.1] = -np.inf
    values[:20] = np.nan
    found = stats_of(tmp_path, values)
    wide = values.astype(np.complex128 if values.dtype.kind == "c" else np.float64)
    good = np.isfinite(wide)
    assert found.n_nan == np.isnan(wide).sum()
    assert found.n_inf == wide.size - good.sum() - found.n_nan
    assert found.mean == pytest.approx(wide[good].mean(), rel=1e-12)
    assert found.std == pytest.approx(wide[good].std(), rel=1e-12)
    if values.dtype.kind != "c":
        assert (found.min, found.max) == (wide[good].min(), wide[good].max())
    if found.channel_axis is not None:
        channels = np.moveaxis(wide, found.channel_axis + 1, 0).reshape(3, -1)
        expected = [channel[np.isfinite(channel)] for channel in channels]
        assert found.channel_means == pytest.approx([channel.mean() for channel in expected], rel=1e-11)
        assert found.channel_stds == pytest.approx([channel.std() for channel in expected], rel=1e-11)
    assert f"{found.n_nan:,} of {values.size:,} values are NaN" in found.notes()[0]


def test_nothing_but_nan(tmp_path: Path) -> None:
    found = stats_of(tmp_path, np.full((10, 4, 4, 3), np.nan, np.float32))
    assert (found.n_nan, found.min, found.mean, found.std, found.channel_means) == (480, None, None, None, None)
    assert not found.constant
    assert json.dumps(found.as_dict(), allow_nan=False)


@pytest.mark.parametrize("kind", [np.float32, np.complex64], ids=lambda k: k.__name__)
def test_a_channel_of_nothing_but_nan_has_no_mean(kind: Any, tmp_path: Path) -> None:
    values = RANDOM.normal(0, 1, (20, 4, 4, 3)).astype(kind)
    values[..., 2] = np.nan
    with hs.open(write(tmp_path / "a.hsq", values)) as seq:
        found = stats(seq)
    (field,) = found.fields
    assert field.channel_means is not None and field.channel_stds is not None
    assert field.channel_means[2] is None and field.channel_stds[2] is None
    np.testing.assert_allclose(field.channel_means[:2], values[..., :2].mean((0, 1, 2)), rtol=1e-4)
    assert found.as_dict()["fields"][0]["channels"]["std"][2] is None and "channel 2" in str(found)


@pytest.mark.parametrize("offset", [0.0, 1e6, -1e12, 1e15])
def test_no_digits_are_lost_far_from_zero(offset: float, tmp_path: Path) -> None:
    values = offset + RANDOM.normal(0, 1, 3 * CHUNK + 17)
    found = stats_of(tmp_path, values, block_nbytes=1 << 20, batch_size=100)
    fractions = [Fraction(value) for value in values[:: len(values) // 500]]
    centred = values - offset  # exact, as both are near
    assert found.std == pytest.approx(centred.std(), rel=1e-12)
    assert found.mean - offset == pytest.approx(centred.mean(), abs=abs(offset) * 2e-16 + 1e-12)
    few = stats_of(tmp_path, values[:: len(values) // 500])
    mean = sum(fractions) / len(fractions)
    variance = sum((fraction - mean) ** 2 for fraction in fractions) / len(fractions)
    assert few.std == pytest.approx(math.sqrt(variance), rel=1e-12)


def test_values_that_drift_away(tmp_path: Path) -> None:
    values = np.arange(5 * CHUNK, dtype=np.int64) * 1000 - 7
    found = stats_of(tmp_path, values, batch_size=1000)
    n = len(values)
    assert found.std == pytest.approx(1000 * math.sqrt((n * n - 1) / 12), rel=1e-13)
    assert found.mean == pytest.approx(1000 * (n - 1) / 2 - 7, rel=1e-14)
    assert (found.min, found.max, found.counts, found.more_than_counted) == (-7, 1000 * (n - 1) - 7, None, True)


def test_channels_of_large_images(tmp_path: Path) -> None:
    values = (RANDOM.random((3, 401, 300, 3)) * [10, 100, 250]).astype(np.uint8)
    found = stats_of(tmp_path, values, batch_size=1)
    assert found.channel_means == pytest.approx(values.mean(axis=(0, 1, 2)), rel=1e-12)
    assert found.channel_stds == pytest.approx(values.std(axis=(0, 1, 2)), rel=1e-12)
    first = stats_of(tmp_path, np.moveaxis(values, 3, 1).copy(), batch_size=1)
    assert first.channel_axis == 0
    assert first.channel_means == pytest.approx(found.channel_means, rel=1e-14)
    assert first.std == pytest.approx(found.std, rel=1e-14) == pytest.approx(values.std(), rel=1e-12)


@pytest.mark.parametrize("value", [0, 7, -(2**63), 2**63 - 1])
def test_whole_numbers_keep_all_their_digits(value: int, tmp_path: Path) -> None:
    found = stats_of(tmp_path, np.full((5, 3), value, np.int64))
    assert (found.min, found.max) == (value, value)
    assert found.constant and found.std == 0.0
    assert found.notes() == [f"inputs: every value is {value}"]


@pytest.mark.parametrize("value", [0.1, 1e-300, 1e300, 3 + 4j])
def test_constant_numbers_have_no_deviation(value: Any, tmp_path: Path) -> None:
    found = stats_of(tmp_path, np.full((1000, 30), value))
    assert found.constant and found.std == 0.0 and found.mean == value


@pytest.mark.parametrize(
    "labels",
    [
        RANDOM.integers(-3, 7, 5000),
        RANDOM.integers(0, 50, 5000).astype(np.uint8),
        RANDOM.random(5000) < 0.2,
        np.array(["cat", "dog", "Größe", ""])[RANDOM.integers(0, 4, 5000)],
        np.array([b"a", b"b\x00c", b"\xff"])[RANDOM.integers(0, 3, 5000)],
        RANDOM.integers(0, 3, (5000, 1)).astype(np.uint64) + np.uint64(2**63),
    ],
    ids=lambda labels: str(labels.dtype),
)
def test_labels_are_counted(labels: np.ndarray, tmp_path: Path) -> None:
    path = write(tmp_path / "labels.hsq", np.zeros((5000, 2), np.uint8), labels, block_nbytes=1000)
    with hs.open(path) as seq:
        whole, shuffled = stats(seq), stats(seq.shuffled(seed=1))
    values, n = np.unique(labels, return_counts=True)
    expected = dict(zip(values.tolist(), n.tolist(), strict=True))
    for found in (whole["outputs"], shuffled["outputs"]):
        assert list(found.counts.items()) == list(expected.items())
        assert not found.more_than_counted and not found.constant
        assert {type(value) for value in found.counts} == {type(values[0].item())}
    shown = json.loads(hsq("stats", path, "--fields", "outputs", "--json").stdout)
    (field,) = shown["fields"]
    assert [each["n_records"] for each in field["counts"]] == n.tolist()
    if labels.dtype.kind in "US":
        assert field["min"] is field["mean"] is field["n_zeros"] is None
        assert [each["value"] for each in field["counts"]] == [
            value if isinstance(value, str) else value.decode("latin-1") for value in expected
        ]


def test_more_than_fifty_labels_are_only_said_to_be_more(tmp_path: Path) -> None:
    for labels in (np.arange(51), np.arange(20_000) % 51, np.arange(20_000), np.array([f"{i:03}" for i in range(999)])):
        found = stats_of(tmp_path, labels, block_nbytes=100)
        assert found.counts is None and found.more_than_counted
        assert "over 50" in str(Stats(1, (found,)))
    found = stats_of(tmp_path, np.arange(20_000) % 50, block_nbytes=100)
    assert found.counts == dict.fromkeys(range(50), 400)
    assert not stats_of(tmp_path, np.zeros((5, 2), np.int64)).more_than_counted


def test_times(tmp_path: Path) -> None:
    days = np.array(["2024-02-29", "NaT", "1066-10-14", "NaT", "2000-01-01"], "M8[D]")
    found = stats_of(tmp_path, days)
    assert (found.min, found.max, found.n_nan) == (np.datetime64("1066-10-14"), np.datetime64("2024-02-29"), 2)
    assert found.mean is found.std is found.n_zeros is None
    assert found.as_dict()["min"] == "1066-10-14"
    assert "2 of 5 values are NaT" in found.notes()[0]
    lengths = stats_of(tmp_path, np.array([3, -4, 5], "m8[25s]"))
    assert (lengths.as_dict()["min"], lengths.as_dict()["max"]) == (-4, 5)
    assert stats_of(tmp_path, np.full((3, 2), "NaT", "M8[s]")).min is None


@pytest.mark.parametrize("name", goldens())
def test_statistics_of_every_golden_file(name: str) -> None:
    columns = goldens()[name].columns()
    with hs.open(GOLDEN / f"{name}.hsq") as seq:
        found = stats(seq)
    assert isinstance(found, Stats)
    assert found.n_records == len(columns[0])
    assert [field.n_values for field in found.fields] == [column.size for column in columns]
    assert str(found) and found._repr_html_().startswith("<p>")
    json.dumps(found.as_dict(), allow_nan=False)


def test_statistics_of_old_files(old: tuple[str, Path]) -> None:  # noqa: F811
    for name in ("images", "big-endian", "odd-addresses", "many-batches", "no-values"):
        with hs.open(old[1] / f"{name}.hsq") as seq:
            found = stats(seq)
        for field, column in zip(found.fields, CASES[name].columns, strict=True):
            assert field.n_values == column.size
            if column.dtype.kind in "iu" and column.size:
                assert (field.min, field.max) == (column.min(), column.max())
            elif column.dtype.kind == "f" and column.size:
                good = column[np.isfinite(column)]
                assert (field.min, field.max) == (good.min(), good.max())
                assert field.n_nan == np.isnan(column).sum()


def test_endless_records_of_no_bytes_take_no_time(tmp_path: Path) -> None:
    meta = GOOD | {"records": 1 << 10, "batch_size": 1 << 40, "no_outputs": 0}
    path = tmp_path / "endless.hsq"
    path.write_bytes(marked(meta | {"dtype": [["i0", "<f4", [1 << 40, 0, 3]]]}, b""))
    for expected, arguments in (
        ("1,125,899,906,842,624 records", ["info"]),
        ("no values", ["head"]),
        ("1,125,899,906,842,624 records", ["stats"]),
    ):
        shown = hsq(*arguments, path)
        assert shown.returncode == 0, shown.stderr
        assert expected in shown.stdout


def test_statistics_are_of_what_the_sequence_has(numbered: Path) -> None:
    with hs.open(numbered) as seq:
        whole = stats(seq)
        assert (whole["outputs"].min, whole["outputs"].max, whole["outputs"].mean) == (0, 102, 51.0)
        assert stats(seq.select([5, 6, 5]))["outputs"].counts == {5: 2, 6: 1}
        assert [field.name for field in stats(seq.fields("outputs")).fields] == ["outputs"]
        assert stats(seq.shuffled(seed=3))["inputs"].std == pytest.approx(whole["inputs"].std, rel=1e-13)
        with hs.open([numbered, numbered]) as twice:
            assert stats(twice)["outputs"].n_values == 206
        for wrong in ("label", "inputs.1"):
            with pytest.raises(hs.ArgumentError, match="0 fields are called"):
                whole[wrong]
    for function in (stats, picture):
        with pytest.raises(hs.ArgumentError, match="expected a sequence"):
            function(str(numbered))


def test_damaged_records_have_no_statistics(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.hsq", np.zeros((1000, 1000), np.uint8), np.arange(1000))
    data = bytearray(path.read_bytes())
    data[500_000] ^= 1
    path.write_bytes(data)
    with hs.open(path) as seq, pytest.raises(hs.ChecksumError):
        stats(seq)
    shown = hsq("stats", path)
    assert shown.returncode == 1
    assert shown.stderr.startswith("error:") and "[rule C1]" in shown.stderr and not shown.stdout


def test_statistics_are_shown_as_tables(tmp_path: Path) -> None:
    inputs = {
        "photo": RANDOM.integers(0, 255, (100, 8, 8, 3)).astype(np.uint8),
        "gap": np.where(np.arange(100) % 4, 1.5, np.nan),
        "[bold]": np.zeros((100, 2)),
    }
    path = write(tmp_path / "shown.hsq", inputs, {"label": np.arange(100) % 2})
    with hs.open(path) as seq:
        text = str(stats(seq))
    shown = hsq("stats", path)
    assert shown.returncode == 0, shown.stderr
    for expected in ("100 records", "photo, channel 2", "gap: 25 of 100 values are NaN (25.00%)", "50.0%", "[bold]"):
        assert expected in text
        assert expected in shown.stdout
    assert "[bold]: every value is 0" in text
    assert "#" * 30 in hsq("stats", path, PYTHONIOENCODING="ascii").stdout
    assert "█" * 30 in text


# --- pictures --------------------------------------------------------------------------------------------------------


def panels(tmp_path: Path, inputs: Any, outputs: Any = None, records: Any = None) -> list[Any]:
    with hs.open(write(tmp_path / "drawn.hsq", inputs, outputs, overwrite=True)) as seq:
        figure = picture(seq, records)
    figure.canvas.draw()
    return figure.axes


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28), (28, 28)),
        ((28, 28, 1), (28, 28)),
        ((64, 16, 1), (64, 16)),
        ((1, 28, 28), (28, 28)),
        ((20, 30, 3), (20, 30, 3)),
        ((20, 30, 4), (20, 30, 4)),
        ((3, 20, 30), (20, 30, 3)),
        ((20, 30, 2), (20, 30)),
        ((9, 20, 30), (20, 30)),
        ((9, 20, 30, 3), (20, 30, 3)),
        ((9, 3, 20, 30), (20, 30, 3)),
        ((3, 9, 20, 30), (20, 30, 3)),
        ((9, 20, 30, 1), (20, 30)),
        ((2, 2, 9, 20, 30), (20, 30)),
        ((1100, 40), (367, 40)),
        ((100,), 1),
        ((200, 5), 5),
        ((5, 200), 5),
        ((200, 1), 1),
        ((1, 200, 2), 2),
        ((7, 200, 5), 5),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    "kind", [np.uint8, np.float32, ml_dtypes.bfloat16, np.complex64, np.bool_], ids=lambda k: k.__name__
)
def test_every_shape_has_its_picture(kind: Any, shape: tuple[int, ...], expected: Any, tmp_path: Path) -> None:
    values = RANDOM.integers(0, 2 if kind is np.bool_ else 200, (2, *shape)).astype(kind)
    found = panels(tmp_path, values, np.array([4, 2]))
    assert [axes.get_title() for axes in found] == ["0: 4", "1: 2"]
    for axes in found:
        if isinstance(expected, tuple):
            (image,) = axes.images
            have = image.get_array().shape
            # Colours that are no shares of one have no opacity.
            assert have == expected or (have == (*expected[:2], 3) and expected[2:] == (4,))
        else:
            assert len(axes.lines) == expected and not axes.images


def test_a_picture_has_the_values(tmp_path: Path) -> None:
    grey = RANDOM.normal(0, 1, (5, 12, 10)).astype(np.float32)
    first, second = panels(tmp_path, grey, records=[3, -5])
    np.testing.assert_array_equal(first.images[0].get_array(), grey[3])
    np.testing.assert_array_equal(second.images[0].get_array(), grey[0])
    assert first.images[0].get_clim() == second.images[0].get_clim() == (grey[[3, 0]].min(), grey[[3, 0]].max())
    colours = RANDOM.integers(0, 256, (2, 3, 12, 10)).astype(np.uint8)
    np.testing.assert_array_equal(panels(tmp_path, colours)[1].images[0].get_array(), np.moveaxis(colours[1], 0, -1))
    volume = RANDOM.random((1, 9, 12, 10))
    np.testing.assert_array_equal(panels(tmp_path, volume)[0].images[0].get_array(), volume[0, 4])
    line = np.zeros((1, 100_000), np.float32)
    line[0, 77_777] = 5
    (axes,) = panels(tmp_path, line)
    assert len(axes.lines[0].get_ydata()) < 5000
    assert axes.lines[0].get_ydata().max() == 5  # no peak is lost
    (axes,) = panels(tmp_path, np.full((1, 9, 9), np.nan))
    assert np.ma.getmaskarray(axes.images[0].get_array()).all()


@pytest.mark.parametrize("n", [5003, 4999, 2500])
def test_long_lines_keep_every_peak(tmp_path: Path, n: int) -> None:
    lines = np.zeros((2, n), np.float32)
    lines[0, -1], lines[1, 0], lines[1, 1] = 100, np.nan, -100
    first, second = panels(tmp_path, lines)
    assert np.nanmax(first.lines[0].get_ydata()) == 100
    assert np.nanmin(second.lines[0].get_ydata()) == -100 and first.lines[0].get_xdata()[-1] >= n - 6


def test_names_that_are_shown_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "a.hsq"
    with hs.HyperSequenceWriter(path) as writer:
        writer.extend((np.arange(5), np.arange(5.0)), {"x": np.arange(5)}, {"x": np.arange(5.0)})
    with hs.open(path) as seq:
        found = stats(seq)
    names = [field.name for field in found.fields]
    assert names == ["inputs.0", "inputs.1", "outputs.x", "sample_weights.x"]
    assert [found[name].name for name in names] == names
    for name in names:
        assert [each["field"] for each in json.loads(hsq("stats", path, "--json", "--fields", name).stdout)["fields"]]
    with pytest.raises(hs.ArgumentError, match=r"there are: inputs\.0, inputs\.1, outputs\.x"):
        found["inputs[0]"]


def test_labels_are_titles_and_one_hot_vectors_their_class(tmp_path: Path) -> None:
    images = np.zeros((20, 9, 9), np.uint8)
    titles = [axes.get_title() for axes in panels(tmp_path, images, np.eye(10)[np.arange(20) % 10])]
    assert titles == [f"{i}: class {i % 10}" for i in range(16)]
    outputs = {"name": np.array(["$a_b$", "cat\n"] * 10), "box": np.arange(80).reshape(20, 4)}
    titles = [axes.get_title() for axes in panels(tmp_path, {"x": images}, outputs, records=slice(0, 2))]
    assert titles == ["0: $a_b$, [0, 1, 2, 3]", r"1: cat\n, [4, 5, 6, 7]"]
    several = panels(tmp_path, {"a": images, "b": np.zeros((20, 50), np.float32)}, np.arange(20))
    assert [axes.get_title() for axes in several[:3]] == ["a\n0: 0", "b\n", "1: 1"]
    assert len(several) == 8


def test_records_without_pictures_are_text(tmp_path: Path) -> None:
    inputs = {"word": np.array(["one", "two"]), "when": np.array(["2024-02-29", "NaT"], "M8[D]")}
    first, second = panels(tmp_path, inputs | {"none": np.zeros((2, 0, 3))}, np.arange(2.0))
    assert first.texts[0].get_text().splitlines()[:3] == ["outputs: 0.0", "word: one", "when: 2024-02-29"]
    assert second.get_title() == "1"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_pictures_of_golden_and_old_files(old: tuple[str, Path]) -> None:  # noqa: F811
    goldens = ("every-type", "zero-byte-fields", "only-zero-byte-fields", "times", "smallest", "uneven-columns")
    for path in [*(GOLDEN / f"{name}.hsq" for name in goldens), old[1] / "images.hsq", old[1] / "big-endian.hsq"]:
        with hs.open(path) as seq:
            figure = picture(seq, range(2)) if seq.n_records > 1 else picture(seq)
        figure.canvas.draw()
        assert figure.axes


def test_which_records_a_picture_has(numbered: Path) -> None:
    with hs.open(numbered) as seq:
        mask = np.arange(103) == 50
        for records, expected in ((7, ["7"]), (np.int64(-1), ["102"]), (range(3, 9, 3), ["3", "6"]), (mask, ["50"])):
            assert [axes.get_title().split(":")[0] for axes in picture(seq, records).axes] == expected
        assert [axes.get_title() for axes in picture(seq, []).axes] == ["no records"]
        shuffled = seq.shuffled(seed=1)
        title = picture(shuffled, 4).axes[0].get_title()
        assert title == f"4: {shuffled.records[4][1]}"
        with pytest.raises(hs.ArgumentError, match="up to 100 records, not 103"):
            picture(seq, slice(None))
        for wrong in (103, [0, -104]):
            with pytest.raises(hs.PositionError):
                picture(seq, wrong)


def test_pictures_are_saved(mixed: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    shown = hsq("head", mixed, "--picture", tmp_path / "few.png", "-n", 9)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == f"{tmp_path / 'few.png'}: 9 records\n" and not shown.stderr
    image = imread(tmp_path / "few.png")
    assert image.shape[0] > 300 and image[..., :3].std() > 0.05
    assert hsq("show", mixed, 1, "-1", "--picture", tmp_path / "two.svg").returncode == 0
    assert (tmp_path / "two.svg").read_text("utf-8").startswith("<?xml")
    for arguments, message in (
        (("head", mixed, "--picture", tmp_path / "x.hsq"), "x.hsq: Format 'hsq' is not supported"),
        (("show", mixed, ":", ":", ":", ":", "--picture", tmp_path / "x.png"), "up to 100 records, not 120"),
        (("head", mixed, "--json", "--picture", tmp_path / "x.png"), "not both"),
        (("head", mixed, "--picture", tmp_path / "no" / "x.png"), "no does not exist"),
        (("head", mixed, "--picture", tmp_path / "few"), "let it end in .png"),
        (("head", mixed, "--picture", tmp_path / "few.png"), "exists already"),
        (("head", mixed, "--overwrite"), "--overwrite is for a --picture"),
    ):
        shown = hsq(*arguments)
        assert shown.returncode != 0 and message in shown.stderr and "Traceback" not in shown.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.png", "mixed.hsq", "two.svg"]


def test_without_matplotlib(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with hs.open(numbered) as seq, pytest.raises(hs.MissingPackageError, match=re.escape("'hypersequence[plot]'")):
        picture(seq)


# --- the commands ----------------------------------------------------------------------------------------------------


def test_help_has_examples_and_mistakes_no_traceback(tmp_path: Path) -> None:
    for command in ("info", "head", "show", "stats"):
        shown = hsq(command, "--help")
        assert shown.returncode == 0
        assert f"hsq {command} train.hsq" in shown.stdout
        more = ["0"] if command == "show" else []
        wrong = hsq(command, tmp_path / "missing.hsq", *more)
        assert wrong.returncode == 2
        assert "missing.hsq" in wrong.stderr and "Traceback" not in wrong.stderr
        text = tmp_path / "text.hsq"
        text.write_text("hello")
        wrong = hsq(command, text, *more)
        assert wrong.returncode == 2
        assert "[rule H1]" in wrong.stderr and not wrong.stdout


def masked(text: str, folder: Path) -> str:
    """What is printed, without what is another in every run."""
    text = text.replace(str(folder), "/data")
    text = re.sub(r"[0-9a-f]{32}", "0" * 32, text)
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "2026-01-01 00:00:00 UTC", text)


def test_the_document_shows_what_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    document = (Path(__file__).parent.parent / "docs" / "looking.md").read_text("utf-8")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", document, re.MULTILINE | re.DOTALL):
        exec(block, names)
    commands = re.findall(r"^\$ hsq (.*?)\n(.*?)(?=^\$ |^```)", document, re.MULTILINE | re.DOTALL)
    assert len(commands) >= 4
    for command, expected in commands:
        shown = hsq(*shlex.split(command))
        assert shown.returncode == 0, shown.stderr
        assert masked(shown.stdout, tmp_path).split() == masked(expected, tmp_path).split(), command

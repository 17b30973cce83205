"""Data sets of Hugging Face's library: objects and saved folders, with all their kinds of features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import hypersequence as hs
from hypersequence.converting.registry import formats

datasets.disable_progress_bars()


def converted(source: Any, tmp_path: Path, **options: Any) -> Any:
    """What all records of a source are, by field."""
    target = tmp_path / "converted.hsq"
    hs.convert(source, target, overwrite=True, **options)
    with hs.open(target) as seq:
        inputs, *outputs = seq.records[:]
        return {**inputs, **(outputs[0] if outputs else {})}


def both(dataset: Any, tmp_path: Path) -> list[Any]:
    """A data set as an object, and saved."""
    folder = tmp_path / f"saved-{len(list(tmp_path.iterdir()))}"
    dataset.save_to_disk(folder)
    return [dataset, folder]


def many_features(n: int) -> tuple[datasets.Dataset, dict[str, Any]]:
    rng = np.random.default_rng(0)
    values = {
        "two": rng.random((n, 2, 3)).astype(np.float32),
        "three": rng.random((n, 2, 3, 4)),
        "four": rng.integers(0, 255, (n, 2, 1, 3, 2)).astype(np.uint8),
        "five": rng.integers(-9, 9, (n, 1, 2, 1, 2, 2)).astype(np.int16),
        "fixed": rng.random((n, 5)).astype(np.float32),
        "open": rng.integers(0, 99, (n, 4)),
        "nested": rng.random((n, 2, 2)),
        "double": rng.random(n),
        "half": rng.random(n).astype(np.float16),
        "flag": rng.integers(0, 2, n).astype(bool),
        "word": np.array([f"größe {i}" for i in range(n)]),
        "when": np.arange(n).astype("M8[us]"),
        "label": np.arange(n) % 3,
    }
    value, list_of = datasets.Value, datasets.List
    features = datasets.Features(
        {
            "two": datasets.Array2D((2, 3), "float32"),
            "three": datasets.Array3D((2, 3, 4), "float64"),
            "four": datasets.Array4D((2, 1, 3, 2), "uint8"),
            "five": datasets.Array5D((1, 2, 1, 2, 2), "int16"),
            "fixed": list_of(value("float32"), length=5),
            "open": list_of(value("int64")),
            "nested": list_of(list_of(value("float64"), length=2)),
            "double": value("float64"),
            "half": value("float16"),
            "flag": value("bool"),
            "word": value("string"),
            "when": value("timestamp[us]"),
            "label": datasets.ClassLabel(names=["cat", "dog", "cow"]),
        }
    )
    return datasets.Dataset.from_dict({name: list(each) for name, each in values.items()}, features), values


def test_all_features_come_bit_for_bit_with_roles_and_names_of_labels(tmp_path: Path) -> None:
    dataset, values = many_features(30)
    for source in both(dataset, tmp_path):
        found = converted(source, tmp_path)
        assert set(found) == set(values)
        for name, expected in values.items():
            assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape)
            assert found[name].tobytes() == expected.tobytes()
        with hs.open(tmp_path / "converted.hsq") as seq:
            assert list(seq.schema.outputs) == ["label"]
            assert seq.user_meta() == {"label names": {"label": ["cat", "dog", "cow"]}}


def test_labels_of_any_name_are_outputs(tmp_path: Path) -> None:
    features = datasets.Features({"x": datasets.Value("int64"), "animal": datasets.ClassLabel(names=["cat", "dog"])})
    dataset = datasets.Dataset.from_dict({"x": [1, 2], "animal": [1, 0]}, features)
    for source in both(dataset, tmp_path):
        hs.convert(source, tmp_path / "a.hsq", overwrite=True)
        with hs.open(tmp_path / "a.hsq") as seq:
            assert list(seq.schema.outputs) == ["animal"]
            hs.convert(tmp_path / "a.hsq", tmp_path / "a.parquet", overwrite=True)
        hs.convert(tmp_path / "a.parquet", tmp_path / "b.hsq", overwrite=True)
        with hs.open(tmp_path / "b.hsq") as seq:
            assert list(seq.schema.outputs) == ["animal"]
            assert seq.user_meta() == {"label names": {"animal": ["cat", "dog"]}}


def test_the_order_of_shuffled_and_selected_data_sets(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict({"x": range(1000), "text": list(map(str, range(1000)))})
    for changed in (dataset.shuffle(seed=3), dataset.select([5, 3, 999]), dataset.shuffle(seed=1).select(range(7, 90))):
        for source in both(changed, tmp_path):
            found = converted(source, tmp_path)
            assert found["x"].tolist() == changed["x"][:]
            assert found["text"].tolist() == changed["text"][:]
    assert converted(datasets.concatenate_datasets([dataset, dataset]), tmp_path)["x"].tolist() == [*range(1000)] * 2


def test_any_start_gives_the_same_records(tmp_path: Path) -> None:
    """As resuming asks for it."""
    dataset = datasets.Dataset.from_dict({"x": range(100)}).shuffle(seed=1)
    format = formats()["huggingface"]
    for source in both(dataset, tmp_path):
        with format.opens([source], format.parse({})) as reader:
            reader.choose(["x"])
            assert reader.n_records == 100
            for start in (0, 1, 50, 99, 100):
                assert [x for job in reader.jobs(start, ["x"], 30) for x in job()["x"]] == dataset["x"][start:]


def test_formats_change_no_values_and_choose_columns(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict({"x": [0.1, 0.2], "y": [1, 2]})
    for format in ("numpy", "pandas"):
        for source in both(dataset.with_format(format, columns=["x"]), tmp_path):
            found = converted(source, tmp_path)
            assert list(found) == ["x"]
            assert (found["x"].dtype, found["x"].tolist()) == (np.float64, [0.1, 0.2])
    with pytest.raises(hs.ArgumentError, match=r"has a transform.*write\(\)"):
        hs.convert(dataset.with_transform(lambda batch: batch), tmp_path / "a.hsq")


def test_splits_have_to_be_chosen(tmp_path: Path) -> None:
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_dict({"x": [1, 2]}), test=datasets.Dataset.from_dict({"x": [3]})
    )
    for source in both(splits, tmp_path):
        assert converted(source, tmp_path, split="test")["x"].tolist() == [3]
        with pytest.raises(hs.ArgumentError, match="has the splits train, test; say which with split="):
            hs.convert(source, tmp_path / "a.hsq")
        with pytest.raises(hs.ArgumentError, match="has the splits train, test; not 'dev'"):
            hs.convert(source, tmp_path / "a.hsq", split="dev")
    for source in both(splits["train"], tmp_path):
        with pytest.raises(hs.ArgumentError, match="split= chooses from a DatasetDict"):
            hs.convert(source, tmp_path / "a.hsq", split="train")


def test_streams_and_several_data_sets_are_refused_with_advice(tmp_path: Path) -> None:
    dataset = datasets.Dataset.from_dict({"x": [1, 2]})
    with pytest.raises(hs.ArgumentError, match=r"IterableDataset is a stream; write\(\) takes it"):
        hs.convert(dataset.to_iterable_dataset(), tmp_path / "a.hsq")
    with pytest.raises(hs.ArgumentError, match="concatenate_datasets"):
        hs.convert([dataset, dataset], tmp_path / "a.hsq")


def pictures(n: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, 6, 4, 3)).astype(np.uint8)


def test_images_are_what_datasets_decodes(tmp_path: Path) -> None:
    files = []
    for i, image in enumerate(pictures(6)):
        files.append(str(tmp_path / f"{i}.jpg"))
        Image.fromarray(image if i else image.transpose(1, 0, 2)).save(
            files[-1], exif=_turned() if i == 0 else Image.Exif()
        )
    dataset = datasets.Dataset.from_dict({"image": files, "label": range(6)}).cast_column("image", datasets.Image())
    for source in both(dataset, tmp_path):
        found = converted(source, tmp_path)["image"]
        assert (found.dtype, found.shape) == (np.uint8, (6, 6, 4, 3))
        assert found.tobytes() == b"".join(np.asarray(image).tobytes() for image in dataset["image"])
        assert converted(source, tmp_path, size="3x2")["image"].shape == (6, 3, 2, 3)
    datasets.load_from_disk(source).to_parquet(tmp_path / "a.parquet")  # which has the files' bytes
    assert converted(tmp_path / "a.parquet", tmp_path)["image"].shape == (6, 6, 4, 3)
    grey = dataset.cast_column("image", datasets.Image(mode="L"))
    for source in both(grey, tmp_path):
        found = converted(source, tmp_path)["image"]
        assert found.tobytes() == b"".join(np.asarray(image).tobytes() for image in grey["image"])


def _turned() -> Any:
    exif = Image.Exif()
    exif[Image.ExifTags.Base.Orientation] = 6
    return exif


def test_images_that_differ_or_are_damaged_are_reported_with_their_row(tmp_path: Path) -> None:
    images = [Image.fromarray(image) for image in pictures(4)]
    cases: list[tuple[Any, str]] = [
        (images[2].resize((4, 5)), r"row 2, column 'image': .*\(5, 4, 3\), the first one \(6, 4, 3\); size= resizes"),
        (images[2].convert("L"), r"row 2, column 'image': .*\(6, 4\).*mode= makes them all RGB"),
        (None, "row 2, column 'image': has no image"),
        ({"bytes": b"no image", "path": None}, "row 2, column 'image': is no image of these formats"),
        ({"bytes": None, "path": "nowhere.png"}, "row 2, column 'image': has no image; .* nowhere.png"),
    ]
    features = datasets.Features({"image": datasets.Image()})
    for odd, message in cases:
        dataset = datasets.Dataset.from_dict({"image": [*images[:2], odd, images[3]]}, features)
        with pytest.raises(hs.SourceError, match=message):
            hs.convert(dataset, tmp_path / "a.hsq")


def test_rows_that_are_large_in_the_source_come_a_few_at_a_time(tmp_path: Path) -> None:
    """However small they are when decoded, as images are that are resized."""
    dataset = datasets.Dataset.from_dict({"x": [b"x" * 100_000] * 400, "n": range(400)})
    format = formats()["huggingface"]
    for source in [*both(dataset.shuffle(seed=1), tmp_path), dataset]:
        with format.opens([source], format.parse({})) as reader:
            pieces = [job() for job in reader.rows(0, ["x"], 1000)]
            assert sum(len(batch) for rows in pieces for batch in rows.batches) == 400
            assert max(sum(len(batch) for batch in rows.batches) for rows in pieces) <= 168
            assert len(list(reader.rows(0, ["n"], 1000))) == 1


def test_files_that_are_no_images_are_refused_by_the_name_of_their_feature(tmp_path: Path) -> None:
    features = datasets.Features({"sound": datasets.Audio(), "y": datasets.Value("int64")})
    table = pa.table({"sound": [{"bytes": b"RIFF", "path": "a.wav"}], "y": [1]}, schema=features.arrow_schema)
    pq.write_table(table, tmp_path / "a.parquet")
    for source in (tmp_path / "a.parquet", *both(datasets.Dataset(table), tmp_path)):
        with pytest.raises(hs.SourceError, match=r"the column 'sound' is Audio, .* decode it with map"):
            hs.convert(source, tmp_path / "a.hsq")
        assert converted(source, tmp_path, inputs=["y"])["y"].tolist() == [1]


def test_features_without_one_shape_are_refused_with_their_row(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], Any, str]] = [
        ({"x": [[1, 2], [1]]}, None, "row 1, column 'x': a list has 1 values, where 2 are expected"),
        ({"x": [1, None]}, None, "row 1, column 'x': a value is missing"),
        ({"x": [{"a": 1}, {"a": 2}]}, None, "column 'x' is struct.*flatten it"),
        (
            {"x": [[[1, 2]], [[1, 2], [3, 4]]]},
            datasets.Features({"x": datasets.Array2D((None, 2), "int64")}),
            "row 1, column 'x': a list has 2 values, where 1 are expected",
        ),
    ]
    for columns, features, message in cases:
        for source in both(datasets.Dataset.from_dict(columns, features), tmp_path):
            with pytest.raises(hs.SourceError, match=message):
                hs.convert(source, tmp_path / "a.hsq")
            assert not (tmp_path / "a.hsq").exists()


def test_no_records(tmp_path: Path) -> None:
    features = datasets.Features({"x": datasets.Array2D((2, 3), "float32"), "word": datasets.Value("string")})
    dataset, folder = both(datasets.Dataset.from_dict({"x": [], "word": []}, features), tmp_path)
    assert converted(dataset, tmp_path)["x"].shape == (0, 2, 3)
    with pytest.raises(hs.SourceError, match="lists no files, as if nothing had been saved"):
        hs.convert(folder, tmp_path / "a.hsq")


def test_folders_that_are_damaged(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"x": range(100)}).save_to_disk(tmp_path / "saved")
    state = tmp_path / "saved" / "state.json"
    good = json.loads(state.read_text())
    cases: list[tuple[str, str]] = [
        ("{", "state.json: cannot be read"),
        ("[]", "state.json: is not what save_to_disk"),
        (json.dumps({}), "state.json: does not list the files"),
        (
            json.dumps(good | {"_data_files": [{"filename": "../x.arrow"}]}),
            "lists ../x.arrow, which is no file of its folder",
        ),
        (json.dumps(good | {"_data_files": []}), "lists no files"),
        (json.dumps(good | {"_data_files": [{"filename": "x.arrow"}]}), "x.arrow"),
        (json.dumps(good | {"_indices_data_files": [{"filename": "i.arrow"}]}), "old version, with indices"),
        (json.dumps(good | {"_format_columns": ["z"]}), "has 0 columns called 'z'"),
    ]
    for text, message in cases:
        state.write_text(text)
        with pytest.raises(hs.HyperSequenceError, match=message):
            hs.convert(tmp_path / "saved", tmp_path / "a.hsq")
    state.write_text(json.dumps(good))
    (stream,) = (tmp_path / "saved").glob("*.arrow")
    stream.write_bytes(stream.read_bytes()[:-200])
    with pytest.raises(hs.SourceError, match=f"{stream.name}, batch 0: cannot be read"):
        hs.convert(tmp_path / "saved", tmp_path / "a.hsq")


def test_exports_to_parquet_are_read_by_datasets(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend({"x": np.arange(12.0).reshape(4, 3), "word": np.array(list("abcd"))}, {"y": np.arange(4)})
    hs.convert(tmp_path / "a.hsq", tmp_path / "a.parquet")
    dataset = datasets.Dataset.from_parquet(str(tmp_path / "a.parquet"), cache_dir=str(tmp_path / "cache"))
    assert dataset["x"][:] == np.arange(12.0).reshape(4, 3).tolist()
    assert dataset["word"][:] == list("abcd")
    found = converted(dataset, tmp_path)
    assert found["x"].tolist() == np.arange(12.0).reshape(4, 3).tolist()


def test_classes_of_other_names_are_not_put_together(tmp_path: Path) -> None:
    """Their numbers would mean something else in each file."""
    paths = [tmp_path / f"{i}.parquet" for i in range(2)]
    for path, names in zip(paths, (["cat", "dog"], ["dog", "cat"]), strict=True):
        features = datasets.Features({"x": datasets.Value("int64"), "label": datasets.ClassLabel(names=names)})
        datasets.Dataset.from_dict({"x": [1, 2], "label": [0, 1]}, features).to_parquet(path)
    with pytest.raises(hs.SourceError, match=r"1\.parquet: its classes have other names, or another order"):
        hs.convert(paths, tmp_path / "a.hsq")
    hs.convert([paths[0], paths[0]], tmp_path / "a.hsq")
    with hs.open(tmp_path / "a.hsq") as seq:
        assert seq.user_meta() == {"label names": {"label": ["cat", "dog"]}} and seq.n_records == 4

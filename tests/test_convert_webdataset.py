"""WebDataset, against its own library: what members become, both directions, archives that are damaged or odd."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image

import hypersequence as hs


def written(path: Path, samples: Iterable[Mapping[str, Any]], **options: Any) -> Path:
    """A shard by WebDataset's own library."""
    with webdataset.TarWriter(str(path), **options) as writer:
        for number, sample in enumerate(samples):
            writer.write({"__key__": f"sample{number:05}", **sample})
    return path


def packed(path: Path, files: Iterable[tuple[str, bytes]]) -> Path:
    """An archive of these files."""
    with tarfile.open(path, "w") as archive:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def converted(source: Any, target: Path, **arguments: Any) -> dict[str, np.ndarray]:
    """All fields of what was converted, inputs and outputs together."""
    hs.convert(source, target, overwrite=True, **arguments)
    with hs.open(target) as seq:
        fields: dict[str, Any] = {}
        for role in seq.records[:]:
            fields |= role
        return {name: np.array(array) for name, array in fields.items()}


def image(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape or (6, 5, 3), dtype=np.uint8)


def numbered(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"npy": np.full((2, 3), i, np.float32), "cls": i} for i in range(start, start + n)]


def test_every_kind_of_member_becomes_a_field(tmp_path: Path) -> None:
    samples = [
        {
            "png": image(i),
            "mask.png": image(i, 4, 4),
            "ppm": image(i + 50),
            "jpg": np.full((16, 8, 3), i * 20, np.uint8),
            "npy": np.full((2, 3), i / 3),
            "cls": i,
            "count": -i,
            "txt": "ä€😀"[:i] + "x",
            "bin": bytes([i, 0, 255]),
            "json": {"box": [i, 2, 3, 4], "score": i / 7, "seen": i % 2 == 0, "who": {"name": "n" * i}},
            "meta.json": i * 1.5,
        }
        for i in range(4)
    ]
    path = written(tmp_path / "a.tar", samples)
    found = converted(path, tmp_path / "a.hsq")
    for name in ("png", "mask.png", "ppm", "npy"):
        expected = np.stack([np.asarray(sample[name]) for sample in samples])
        assert (found[name].dtype, found[name].shape) == (expected.dtype, expected.shape)
        assert found[name].tobytes() == expected.tobytes()
    assert np.abs(found["jpg"].astype(int) - np.stack([sample["jpg"] for sample in samples])).max() <= 1
    assert found["cls"].tolist() == [0, 1, 2, 3]
    assert found["count"].tolist() == [0, -1, -2, -3]
    assert found["txt"].tolist() == [sample["txt"] for sample in samples]
    assert found["txt"].dtype == np.dtype("U4")
    assert found["bin"].tolist() == [[i, 0, 255] for i in range(4)]
    assert found["json.box"].tolist() == [[i, 2, 3, 4] for i in range(4)]
    assert found["json.score"].tolist() == [i / 7 for i in range(4)]
    assert found["json.seen"].tolist() == [True, False, True, False]
    assert found["json.who.name"].tolist() == ["", "n", "nn", "nnn"]
    assert found["meta.json"].tolist() == [0, 1.5, 3, 4.5]


def test_classes_are_outputs(tmp_path: Path) -> None:
    hs.convert(written(tmp_path / "a.tar", numbered(4)), tmp_path / "a.hsq")
    with hs.open(tmp_path / "a.hsq") as seq:
        assert (list(seq.schema.inputs), list(seq.schema.outputs)) == (["npy"], ["cls"])
        assert seq.n_records == 4


def test_images_can_be_made_one_size_and_one_mode(tmp_path: Path) -> None:
    grey = [image(1, 9, 7), image(2, 12, 12, 3), image(3, 5, 8)]
    path = written(tmp_path / "a.tar", [{"png": pixels} for pixels in grey])
    assert converted(path, tmp_path / "a.hsq", size="4x6", mode="RGB")["png"].shape == (3, 4, 6, 3)
    assert converted(path, tmp_path / "a.hsq", size=4, crop=True, mode="L")["png"].shape == (3, 4, 4)
    with pytest.raises(
        hs.SourceError, match=r"a\.tar, sample sample00001, png: expected uint8 \(9, 7\), found uint8 \(12"
    ):
        hs.convert(path, tmp_path / "b.hsq")
    with pytest.raises(hs.ArgumentError, match="crop needs a size"):
        hs.convert(path, tmp_path / "b.hsq", crop=True)


def coded(picture: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def test_images_whose_values_would_change_are_refused_until_a_mode_is_said(tmp_path: Path) -> None:
    rgb = Image.fromarray(image(1))
    for picture, kind, message in (
        (rgb.convert("RGBA"), "png", "has transparency; mode='RGB'"),
        (rgb.convert("CMYK"), "tif", "is CMYK; mode='RGB'"),
    ):
        path = packed(tmp_path / "a.tar", [(f"0.{kind}", coded(picture, {"tif": "TIFF"}.get(kind, kind)))])
        with pytest.raises(hs.SourceError, match=rf"sample 0, {kind}: the image {message}"):
            hs.convert(path, tmp_path / "b.hsq")
        assert converted(path, tmp_path / "a.hsq", mode="RGB")[kind].shape == (1, 6, 5, 3)
    deep = coded(Image.fromarray(np.full((4, 4), 60_000, np.uint16)), "png")
    path = packed(tmp_path / "a.tar", [("0.png", deep)])
    with pytest.raises(hs.SourceError, match=r"sample 0, png: an image of 'I;16' has more than 8 bits"):
        hs.convert(path, tmp_path / "b.hsq", mode="L")
    path = packed(tmp_path / "a.tar", [("0.png", coded(rgb, "EPS"))])  # which Pillow would hand to another program
    with pytest.raises(hs.SourceError, match=r"sample 0, png: is no image of these formats"):
        hs.convert(path, tmp_path / "b.hsq")


def test_images_with_palettes_and_bits_keep_their_values(tmp_path: Path) -> None:
    palette = Image.fromarray(image(1)).quantize(16)
    bits = Image.fromarray(image(1)[..., 0] > 99)
    path = packed(tmp_path / "a.tar", [("0.a.png", coded(palette, "png")), ("0.b.png", coded(bits, "png"))])
    found = converted(path, tmp_path / "a.hsq")
    assert found["a.png"][0].tobytes() == np.asarray(palette.convert("RGB")).tobytes()
    assert found["b.png"][0].tobytes() == (255 * np.asarray(bits).astype(np.uint8)).tobytes()


def test_shards_come_in_the_order_given(tmp_path: Path) -> None:
    shards = [written(tmp_path / f"{k}.tar", numbered(3, 3 * k)) for k in range(3)]
    assert converted(shards, tmp_path / "a.hsq")["cls"].tolist() == list(range(9))
    assert converted(shards[::-1], tmp_path / "a.hsq")["cls"].tolist() == [6, 7, 8, 3, 4, 5, 0, 1, 2]


@pytest.mark.parametrize("name", ["a.tar.gz", "a.tgz", "a.tar"])
def test_gzip_is_seen(tmp_path: Path, name: str) -> None:
    plain = written(tmp_path / "plain.tar", numbered(5))
    (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    assert converted(tmp_path / name, tmp_path / "a.hsq")["cls"].tolist() == list(range(5))


def test_names_are_taken_apart_as_webdataset_does(tmp_path: Path) -> None:
    files = [
        ("__meta__", b"not a sample"),
        ("__notes__/a.cls", b"not a sample"),
        ("README", b"no ending"),
        ("train.v2/000.CLS", b"1\n"),
        ("train.v2/000.seg.cls", b"2"),
        ("train.v2/001.cls", b"3"),
        ("train.v2/001.seg.cls", b"4"),
    ]
    path = packed(tmp_path / "a.tar", files)
    found = converted(path, tmp_path / "a.hsq")
    assert {name: array.tolist() for name, array in found.items()} == {"cls": [1, 3], "seg.cls": [2, 4]}
    theirs = list(webdataset.WebDataset(str(path), shardshuffle=False).decode())
    assert [sample["cls"] for sample in theirs] == [1, 3]
    packed(path, [("train/._000.cls", b"what another system leaves behind"), *files])
    assert converted(path, tmp_path / "a.hsq")["cls"].tolist() == [1, 3]


def test_members_chooses_files(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", [{"cls": i, "pyd": {"a": 1}, "txt": "a"} for i in range(3)])
    with pytest.raises(hs.SourceError, match=r"a\.tar: \.pyd is never unpickled; choose others"):
        hs.convert(path, tmp_path / "a.hsq")
    assert converted(path, tmp_path / "a.hsq", inputs=["txt"], outputs=["cls"])["cls"].tolist() == [0, 1, 2]
    assert list(converted(path, tmp_path / "a.hsq", members="cls,txt")) == ["txt", "cls"]
    with pytest.raises(hs.SourceError, match="its first record has no 'jpg'; it has: cls"):
        hs.convert(path, tmp_path / "b.hsq", members="jpg,cls")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            {"npy": np.zeros(2), "txt": "a", "json": 1.5},
            r"a\.tar, sample sample00001: has no 'cls'; it has: json, npy, txt",
        ),
        (
            {"npy": np.zeros(2), "txt": "a", "json": 1.5, "cls": 1, "id": 2},
            "has id, the first record has not; members=",
        ),
        (
            {"npy": np.zeros(3), "txt": "a", "json": 1.5, "cls": 1},
            r"npy: expected float64 \(2,\), found float64 \(3,\)",
        ),
        ({"npy": np.zeros(2, "f4"), "txt": "a", "json": 1.5, "cls": 1}, "npy: expected float64 .*found float32"),
        ({"npy": np.zeros(2, "f4").tobytes(), "txt": "a", "json": 1.5, "cls": 1}, "npy: "),
        ({"npy": np.zeros(2), "txt": b"\xff", "json": 1.5, "cls": 1}, "txt: .*utf-8"),
        ({"npy": np.zeros(2), "txt": "a\0", "json": 1.5, "cls": 1}, "txt: text that ends in NUL"),
        ({"npy": np.zeros(2), "txt": "a", "json": None, "cls": 1}, "json: json should be a number.* has null"),
        ({"npy": np.zeros(2), "txt": "a", "json": [1, "a"], "cls": 1}, "has int, str"),
        ({"npy": np.zeros(2), "txt": "a", "json": [[1, 2], [3]], "cls": 1}, "json: .*inhomogeneous"),
        (
            {"npy": np.zeros(2), "txt": "a", "json": {"a": 1}, "cls": 1},
            "expected the fields of the first record, json; found json.a",
        ),
        ({"npy": np.zeros(2), "txt": "a", "json": b"{]", "cls": 1}, "json: "),
        ({"npy": np.zeros(2), "txt": "a", "json": 2**60 + 1, "cls": 1}, "json: expected float64, found int64"),
        ({"npy": np.zeros(2), "txt": "a", "json": [2**60 + 1, 0.5], "cls": 1}, "not exactly a float64"),
        ({"npy": np.zeros(2), "txt": "a", "json": 1.5, "cls": b"one"}, "cls: .*'one'"),
        ({"npy": np.zeros(2), "txt": "a", "json": 1.5, "cls": 2**63}, "cls: .*too large"),
    ],
)
def test_records_unlike_the_first_are_errors_with_shard_key_and_member(
    tmp_path: Path, second: dict[str, Any], message: str
) -> None:
    first = {"npy": np.ones(2), "txt": "a", "json": 0.5, "cls": 0}
    path = written(tmp_path / "a.tar", [first, second])
    with pytest.raises(hs.SourceError, match=message) as caught:
        hs.convert(path, tmp_path / "a.hsq")
    assert "a.tar, sample sample00001" in str(caught.value)


def test_numbers_without_a_fraction_among_others(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", [("0.json", b'{"a": 0.5, "b": [1, 0.5]}'), ("1.json", b'{"a": 2, "b": [3, 4]}')])
    found = converted(path, tmp_path / "a.hsq")
    assert (found["json.a"].dtype, found["json.a"].tolist()) == (np.float64, [0.5, 2.0])
    assert (found["json.b"].dtype, found["json.b"].tolist()) == (np.float64, [[1, 0.5], [3, 4]])


def test_objects_in_npy_are_never_unpickled(tmp_path: Path) -> None:
    stream = io.BytesIO()
    np.save(stream, np.array([{}, 1], object))
    path = packed(tmp_path / "a.tar", [("0.npy", stream.getvalue())])
    with pytest.raises(hs.SourceError, match=r"sample 0, npy: holds Python objects, which are never unpickled"):
        hs.convert(path, tmp_path / "a.hsq")


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">i2", "?", "<c16", "<M8[ns]", "<U3", "S2"])
def test_npy_of_any_kind(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.arange(24).reshape(4, 3, 2).astype(np.dtype(dtype))
    arrays = []
    for value in values:
        stream = io.BytesIO()
        np.save(stream, np.array(value, order=order))
        arrays.append(stream.getvalue())
    path = packed(tmp_path / "a.tar", [(f"{i}.npy", data) for i, data in enumerate(arrays)])
    found = converted(path, tmp_path / "a.hsq")["npy"]
    assert found.dtype == values.dtype.newbyteorder("<")
    assert found.tolist() == values.tolist()


def test_text_has_the_width_of_the_longest_or_what_was_said(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tar", [{"txt": "a" * (i % 7), "cls": i} for i in range(20)])
    assert converted(path, tmp_path / "a.hsq")["txt"].dtype == np.dtype("U6")
    assert converted(path, tmp_path / "a.hsq", text=9)["txt"].dtype == np.dtype("U9")
    with pytest.raises(hs.SourceError, match=r"sample00006, txt: expected U5, found U6; .*text="):
        hs.convert(path, tmp_path / "b.hsq", text=5)


def test_damage_is_seen_while_the_longest_text_is_looked_for(tmp_path: Path) -> None:
    """Or the mended archive would have a longer one, and nothing could be resumed."""
    path = written(tmp_path / "a.tar", [{"txt": "a" * (1 + i // 90), "cls": i} for i in range(100)])
    whole = path.read_bytes()
    path.write_bytes(whole[: headers(path)[150]])
    with pytest.raises(hs.SourceError, match="ends without an end mark"):
        hs.convert(path, tmp_path / "a.hsq")
    path.write_bytes(whole)
    found = converted(path, tmp_path / "a.hsq", resume=True)["txt"]
    assert (found.dtype, found[95]) == (np.dtype("U2"), "aa")


def test_the_width_of_text_can_be_said_of_archives_that_were_written_here(tmp_path: Path) -> None:
    for name, texts in (("a", ["x", "yy"]), ("b", ["wide"])):
        with hs.HyperSequenceWriter(tmp_path / f"{name}.hsq") as writer:
            writer.extend({"word": np.array(texts), "n": np.arange(len(texts))})
        hs.convert(tmp_path / f"{name}.hsq", tmp_path / f"{name}.tar")
    found = converted(tmp_path / "a.tar", tmp_path / "c.hsq", text=7)
    assert (found["word"].dtype, found["word"].tolist(), found["n"].tolist()) == (np.dtype("U7"), ["x", "yy"], [0, 1])
    both = [tmp_path / "a.tar", tmp_path / "b.tar"]
    with pytest.raises(hs.SourceError, match=r"b\.tar, sample 000000, word: expected U2, found U4; text= says"):
        hs.convert(both, tmp_path / "d.hsq")
    assert converted(both, tmp_path / "d.hsq", text=4)["word"].tolist() == ["x", "yy", "wide"]


def test_a_folder_of_archives_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for k, ending in ((2, "tar.gz"), (0, "tar"), (1, "tgz")):
        written(tmp_path / f"shards/{k}.{ending}", numbered(5, 5 * k))
    (tmp_path / "shards/.hidden.tar").touch()
    (tmp_path / "shards/readme.txt").touch()
    assert converted(tmp_path / "shards", tmp_path / "a.hsq")["cls"].tolist() == list(range(15))
    (tmp_path / "empty").mkdir()
    with pytest.raises(hs.SourceError, match=r"no file in this folder is called \*\.tar"):
        hs.convert(tmp_path / "empty", tmp_path / "b.hsq", from_="webdataset")
    with pytest.raises(hs.FileError, match="is a folder that this format did not make"):
        hs.convert(tmp_path / "a.hsq", tmp_path / "shards", to="webdataset", overwrite=True)


def test_archives_in_folders_within_a_folder_are_not_passed_over(tmp_path: Path) -> None:
    for number, name in enumerate(("shards", "shards/more")):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "a.tar", numbered(2, 2 * number))
    with pytest.raises(hs.SourceError, match=r"shards: has a folder with .*more/a\.tar.*/\*\*/\*\.tar' takes"):
        hs.convert(tmp_path / "shards", tmp_path / "a.hsq")
    assert hs.convert(tmp_path / "shards" / "**" / "*.tar", tmp_path / "a.hsq").n_records == 4


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_resuming_gives_the_same_records(tmp_path: Path, ending: str) -> None:
    paths = [written(tmp_path / f"{k}.{ending}", numbered(6, 6 * k)) for k in range(3)]
    whole = converted(paths, tmp_path / "whole.hsq")
    for done in (1, 5, 6, 7, 17, 18):
        with pytest.raises(RuntimeError), hs.HyperSequenceWriter(tmp_path / "a.hsq", 1, block_nbytes=1) as writer:
            for i in range(done):
                writer.append({"npy": whole["npy"][i]}, {"cls": whole["cls"][i]})
            raise RuntimeError("the power goes out")
        found = converted(paths, tmp_path / "a.hsq", resume=True)
        assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in whole.items()}


def headers(path: Path) -> list[int]:
    with tarfile.open(path) as archive:
        return [member.offset for member in archive]


def test_archives_that_are_cut_off_or_damaged_are_errors_and_what_came_before_is_kept(tmp_path: Path) -> None:
    large = np.zeros((100, 100, 3), np.uint8)
    path = written(tmp_path / "a.tar", [{"npy": large, "cls": i} for i in range(500)])
    whole, at = path.read_bytes(), headers(path)
    for data, message in (
        (whole[: at[950]], "ends without an end mark"),
        (whole[: at[950] + 100], "ends without an end mark"),
        (whole[: at[950] + 600], "cut off"),
        (whole[: at[950]] + b"x" * 512 + whole[at[950] + 512 :], "no header of a file stands here"),
        (whole + whole, "the archive ends, and more follows"),
    ):
        path.write_bytes(data)
        with pytest.raises(hs.SourceError, match=rf"a\.tar, .*{message}") as caught:
            hs.convert(path, tmp_path / "a.hsq", overwrite=True)
        assert "resume" in str(caught.value.__notes__)
        path.write_bytes(whole)
        with hs.HyperSequenceWriter.resume(tmp_path / "a.hsq", overwrite=True) as writer:
            assert writer.n_records > 200
            writer.abort()
        assert converted(path, tmp_path / "a.hsq", resume=True)["cls"].tolist() == list(range(500))


def test_a_cut_off_gzip_archive_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "plain.tar", [{"npy": image(i, 50), "cls": i} for i in range(300)])
    data = gzip.compress(path.read_bytes())
    for bad in (data[:-5000], data[:-6], data[:-8] + b"\0\0\0\0" + data[-4:]):
        (tmp_path / "a.tar.gz").write_bytes(bad)
        with pytest.raises(
            hs.SourceError, match=r"a\.tar\.gz, .*(damaged or cut off|cannot be read: Compressed file ended)"
        ):
            hs.convert(tmp_path / "a.tar.gz", tmp_path / "a.hsq", overwrite=True)


def test_what_is_no_archive_of_samples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    for data, message in (
        (b"", "damaged or cut off"),
        (b"some text" * 100, "damaged or cut off"),
        (bytes(10240), "single record"),
    ):
        path.write_bytes(data)
        with pytest.raises(hs.SourceError, match=message):
            hs.convert(path, tmp_path / "a.hsq")
    packed(path, [("0.cls", b"1"), ("0.cls", b"2")])
    with pytest.raises(hs.SourceError, match="sample 0: has 'cls' twice"):
        hs.convert(path, tmp_path / "a.hsq")
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("0.cls")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(hs.SourceError, match=r"0\.cls: is a link"):
        hs.convert(path, tmp_path / "a.hsq")
    packed(path, [("0.png", b"no image"), ("1.png", b"no image")])
    with pytest.raises(hs.SourceError, match="sample 0, png: is no image"):
        hs.convert(path, tmp_path / "a.hsq")


ARRAYS: dict[str, np.ndarray] = {
    **{
        f"n_{name}": np.arange(3).astype(name)
        for name in ("bool", "int8", "uint16", "uint64", "float16", "float64", "c8")
    },
    "float": np.array([0.1, np.nan, -0.0], np.float32),
    "image": np.arange(36, dtype=np.uint8).reshape(3, 2, 2, 3),
    "volume": np.arange(-12, 12, dtype=np.int16).reshape(3, 2, 4),
    "caption": np.array(["ä", "", "😀b"], "U5"),
    "words": np.array([["a", "bc"], ["", "d"], ["e", "f"]]),
    "octets": np.array([b"a", b"\xff\1", b""]),
    "time": np.array(["2020-01-01", "NaT", "1969-12-31"], "M8[D]"),
    "nothing": np.zeros((3, 0, 2), np.float32),
    "Odd name/é.x": np.arange(3.0),
}
LABEL = np.array([7, 0, 2**64 - 1], np.uint64)


def test_two_values_of_json_are_not_made_one_field(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", [("0.json", b'{"a.b": 1, "a": {"b": 2}}'), ("0.cls", b"3")])
    with pytest.raises(hs.SourceError, match=r"sample 0, json: two of its values would be a field 'json\.a\.b'"):
        hs.convert(path, tmp_path / "a.hsq")
    assert converted(path, tmp_path / "a.hsq", inputs=["cls"])["cls"].tolist() == [3]


def test_json_without_fields_in_the_first_record_is_refused_if_it_is_wanted(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.tar", [("0.json", b"{}"), ("0.cls", b"7"), ("1.json", b'{"a": 1}'), ("1.cls", b"8")])
    for chosen in ({}, {"inputs": ["json"]}):
        with pytest.raises(
            hs.SourceError, match=r"a\.tar, sample 0, json: gives no field in the first record, .*inputs="
        ):
            hs.convert(path, tmp_path / "b.hsq", **chosen)
    for chosen in ({"inputs": ["cls"]}, {"members": "cls"}):
        assert converted(path, tmp_path / "a.hsq", **chosen)["cls"].tolist() == [7, 8]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    with hs.HyperSequenceWriter(folder / "a.hsq") as writer:
        writer.extend(ARRAYS, {"label": LABEL})
        writer.user_meta()["made by"] = "a test"
    hs.convert(folder / "a.hsq", folder / "a.tar")
    return folder / "a.tar"


def test_webdataset_reads_what_was_written(exported: Path) -> None:
    samples = list(webdataset.WebDataset(str(exported), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["000000", "000001", "000002"]
    assert [sample["cls"] for sample in samples] == LABEL.tolist()
    assert [sample["caption.txt"] for sample in samples] == ARRAYS["caption"].tolist()
    for name, values in ARRAYS.items():
        if name == "caption":
            continue
        member = {"Odd name/é.x": "odd_name_é_x.npy"}.get(name, f"{name}.npy")
        found = np.stack([sample[member] for sample in samples])
        assert (found.dtype, found.shape) == (values.dtype, values.shape)
        assert found.tobytes() == values.tobytes()


def test_what_was_written_comes_back_bit_for_bit_with_roles_and_metadata(exported: Path, tmp_path: Path) -> None:
    hs.convert(exported, tmp_path / "back.hsq")
    with hs.open(tmp_path / "back.hsq") as seq:
        inputs, outputs = seq.records[:]
        assert seq.user_meta() == {"made by": "a test"}
        assert list(inputs) == list(ARRAYS)
        for name, values in {**ARRAYS, "label": LABEL}.items():
            found = {**inputs, **outputs}[name]
            assert (found.dtype, found.shape) == (values.dtype, values.shape)
            assert found.tobytes() == values.tobytes()


def test_images_can_be_written_as_png(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        for i in range(3):
            fields = {"rgb": image(i), "grey": image(i, 4, 3), "other": image(i, 4, 3, 2), "empty": image(i, 0, 3)}
            writer.append(fields, {"a": i, "b": i})
    hs.convert(tmp_path / "a.hsq", tmp_path / "a.tar", images="png")
    with tarfile.open(tmp_path / "a.tar") as archive:
        names = [member.name for member in archive][1:7]
        assert np.asarray(Image.open(archive.extractfile("000001.rgb.png"))).tobytes() == image(1).tobytes()
    assert names == [f"000000.{name}" for name in ("rgb.png", "grey.png", "other.npy", "empty.npy", "a.cls", "b.cls")]
    theirs = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode("rgb8"))
    assert theirs[2]["rgb.png"].tobytes() == image(2).tobytes()
    found = converted(tmp_path / "a.tar", tmp_path / "b.hsq")
    assert found["rgb"].tobytes() == np.stack([image(i) for i in range(3)]).tobytes()
    assert found["grey"].tobytes() == np.stack([image(i, 4, 3) for i in range(3)]).tobytes()
    assert converted(tmp_path / "a.tar", tmp_path / "b.hsq", size=3)["rgb"].shape == (3, 3, 3, 3)
    with pytest.raises(hs.ArgumentError, match="is none of: npy, png"):
        hs.convert(tmp_path / "a.hsq", tmp_path / "b.tar", images="gif")


def test_nothing_is_exported_and_comes_back_with_its_types(tmp_path: Path) -> None:
    schema = hs.Schema({"x": hs.Field("float32", (2,)), "t": hs.Field("U7")}, {"y": hs.Field("int8")})
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", schema=schema):
        pass
    hs.convert(tmp_path / "a.hsq", tmp_path / "a.tar")
    hs.convert(tmp_path / "a.tar", tmp_path / "b.hsq")
    with hs.open(tmp_path / "b.hsq") as seq:
        assert (seq.n_records, seq.schema) == (0, schema)
    assert list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False, empty_check=False)) == []


def test_types_that_npy_does_not_know_are_refused(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", schema=hs.Schema({"x": hs.Field("bfloat16")})):
        pass
    with pytest.raises(hs.ArgumentError, match="x: NumPy's files know no bfloat16"):
        hs.convert(tmp_path / "a.hsq", tmp_path / "a.tar")
    assert not (tmp_path / "a.tar").exists()


def test_names_that_would_be_one_are_refused(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.append({"X": 0.5, "x": 0.5})
    with pytest.raises(hs.ArgumentError, match="files of one name: X, x"):
        hs.convert(tmp_path / "a.hsq", tmp_path / "a.tar")


def test_a_description_that_makes_no_sense_is_an_error(exported: Path, tmp_path: Path) -> None:
    def described(description: Any) -> Path:
        data = description if isinstance(description, bytes) else json.dumps(description).encode()
        return packed(tmp_path / "a.tar", [("__hypersequence__", data), ("0.cls", b"1")])

    for description in (b"{", {"members": 1}, {"members": {"cls": {"field": "y"}}}, {}):
        with pytest.raises(hs.SourceError, match=r"its __hypersequence__ is damaged: .*delete it"):
            hs.convert(described(description), tmp_path / "a.hsq")
    with pytest.raises(hs.SourceError, match="is damaged"):
        hs.convert(described({"members": {"cls": {"field": "y", "type": "object", "shape": []}}}), tmp_path / "a.hsq")
    with pytest.raises(hs.SourceError, match=r"sample 0, y: expected int64 \(2,\), found int64"):
        hs.convert(described({"members": {"cls": {"field": "y", "type": "int64", "shape": [2]}}}), tmp_path / "a.hsq")


def test_shards_written_apart_become_one_file(exported: Path, tmp_path: Path) -> None:
    shutil.copy(exported, tmp_path / "b.tar")
    found = converted([exported, tmp_path / "b.tar"], tmp_path / "a.hsq")
    assert found["label"].tolist() == 2 * LABEL.tolist()

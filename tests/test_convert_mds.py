"""MosaicML's MDS: folders that its own library wrote (tests/foreign/make_mds.py), damage, what is refused."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from foreign.make_mds import ENCODINGS, HERE, N, record


def converted(source: Any, target: Path, **arguments: Any) -> dict[str, np.ndarray]:
    """All fields of what was converted."""
    hs.convert(source, target, **arguments)
    with hs.open(target) as seq:
        inputs = seq.records[:][0]
        return {name: np.array(array) for name, array in inputs.items()}


def expected(name: str) -> list[Any]:
    return [record(number)[name] for number in range(N)]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    return converted(HERE / "mds", tmp_path_factory.mktemp("mds") / "a.hsq")


@pytest.mark.parametrize("name", [name for name in ENCODINGS if name.startswith(("int", "uint", "float"))])
def test_numbers_keep_their_type_and_bits(everything: dict[str, np.ndarray], name: str) -> None:
    assert everything[name].dtype == name
    assert everything[name].tobytes() == np.array(expected(name), name).tobytes()


@pytest.mark.parametrize("name", ["array", "array_f4", "array_u2_fixed", "long_array", "pil", "pil_grey", "png"])
def test_arrays_and_images_come_as_they_were(everything: dict[str, np.ndarray], name: str) -> None:
    stacked = np.stack(expected(name))
    assert (everything[name].dtype, everything[name].shape) == (stacked.dtype, stacked.shape)
    assert everything[name].tobytes() == stacked.tobytes()


@pytest.mark.parametrize("name", ["list_png", "list_pil"])
def test_lists_of_images_become_one_array(everything: dict[str, np.ndarray], name: str) -> None:
    assert everything[name].tobytes() == np.stack(expected(name)).tobytes()


@pytest.mark.parametrize("name", ["jpeg", "jpeg_array"])
def test_jpeg_is_decoded(everything: dict[str, np.ndarray], name: str) -> None:
    assert everything[name].shape == np.stack(expected(name)).shape
    assert np.abs(everything[name].astype(int) - np.stack(expected(name))).max() <= 1


def test_text_bytes_and_json_become_arrays(everything: dict[str, np.ndarray]) -> None:
    assert everything["a_str"].tolist() == expected("a_str")
    assert everything["a_str"].dtype == np.dtype(f"U{max(map(len, expected('a_str')))}")
    assert everything["a_bytes"].dtype == np.uint8
    assert [row.tobytes() for row in everything["a_bytes"]] == expected("a_bytes")
    assert everything["an_int"].tolist() == expected("an_int")
    assert everything["str_int"].tolist() == expected("str_int")
    assert everything["str_float"].tolist() == expected("str_float")
    assert everything["str_decimal"].tolist() == [str(value) for value in expected("str_decimal")]
    assert everything["json.box"].tolist() == [value["box"] for value in expected("json")]
    assert everything["json.score"].tolist() == [value["score"] for value in expected("json")]
    assert everything["json.tags.good"].tolist() == [value["tags"]["good"] for value in expected("json")]
    assert everything["json.tags.name"].tolist() == [value["tags"]["name"] for value in expected("json")]


@pytest.mark.parametrize("compression", ["gz", "bz2", "zstd", "br"])
def test_compressed_shards_are_read(tmp_path: Path, compression: str) -> None:
    found = converted(HERE / f"mds_{compression}", tmp_path / "a.hsq")
    assert found["an_int"].tolist() == expected("an_int")
    assert found["a_str"].tolist() == expected("a_str")
    assert found["array_f4"].tobytes() == np.stack(expected("array_f4")).tobytes()


def test_a_compression_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(hs.SourceError, match=r"shard\.00000\.mds\.snappy: is compressed as snappy.*Decompress"):
        hs.convert(HERE / "mds_snappy", tmp_path / "a.hsq")


def test_shards_that_lie_there_decompressed_are_used(tmp_path: Path) -> None:
    import gzip

    shutil.copytree(HERE / "mds_gz", tmp_path / "mds")
    for packed in (tmp_path / "mds").glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    assert converted(tmp_path / "mds", tmp_path / "a.hsq")["an_int"].tolist() == expected("an_int")


def test_nothing_is_ever_unpickled(tmp_path: Path) -> None:
    with pytest.raises(hs.SourceError, match="'str_int' is pickled, and nothing is ever unpickled"):
        hs.convert(HERE / "mds_pickle", tmp_path / "a.hsq")
    assert converted(HERE / "mds_pickle", tmp_path / "a.hsq", inputs=["an_int"])["an_int"].tolist() == expected(
        "an_int"
    )


def test_several_folders_become_one_file(tmp_path: Path) -> None:
    found = converted([HERE / "mds_gz", HERE / "mds_br"], tmp_path / "a.hsq", inputs=["an_int"])
    assert found["an_int"].tolist() == 2 * expected("an_int")
    with pytest.raises(hs.SourceError, match="its columns are"):
        hs.convert([HERE / "mds_gz", HERE / "mds"], tmp_path / "b.hsq")


def test_text_may_be_given_its_width(tmp_path: Path) -> None:
    assert converted(HERE / "mds_gz", tmp_path / "a.hsq", text=30)["a_str"].dtype == np.dtype("U30")
    with pytest.raises(hs.SourceError, match=r"sample 2, a_str: expected U3, found U4.*text="):
        hs.convert(HERE / "mds_gz", tmp_path / "b.hsq", text=3)
    with pytest.raises(hs.ArgumentError, match="text=0: must be 1 or more"):
        hs.convert(HERE / "mds_gz", tmp_path / "b.hsq", text=0)


def test_bytes_may_be_images(tmp_path: Path) -> None:
    shutil.copytree(HERE / "mds", tmp_path / "mds")
    index = tmp_path / "mds/index.json"
    found = json.loads(index.read_bytes())
    for shard in found["shards"]:
        for name in ("png", "a_str"):
            shard["column_encodings"][shard["column_names"].index(name)] = "bytes"
        shard["raw_data"]["hashes"] = {"a_hash_of_tomorrow": "0"}
    index.write_text(json.dumps(found))
    images = converted(tmp_path / "mds", tmp_path / "a.hsq", inputs=["png"], images="png", size="3x2", crop=True)["png"]
    assert images.shape == (N, 3, 2, 3)
    with pytest.raises(hs.SourceError, match=r"shard\.00000\.mds, sample 1, a_str: expected uint8 \(0,\), found uint8"):
        hs.convert(tmp_path / "mds", tmp_path / "b.hsq", inputs=["a_str"])


@pytest.mark.parametrize("source", ["mds", "mds_zstd"])
def test_resuming_gives_the_same_records(tmp_path: Path, source: str) -> None:
    with hs.HyperSequenceWriter(tmp_path / "whole.hsq", 2) as writer:
        for number in range(N):
            values = record(number)
            writer.append(inputs={name: values[name] for name in ("array_f4", "an_int")})
    for done in (1, 7, 14, 22, N):  # in either shard, at their border, at the end
        with pytest.raises(RuntimeError), hs.HyperSequenceWriter(tmp_path / "a.hsq", 1, block_nbytes=1) as writer:
            for number in range(done):
                values = record(number)
                writer.append(inputs={name: values[name] for name in ("array_f4", "an_int")})
            raise RuntimeError("the power goes out")
        inputs = ["array_f4", "an_int"]
        hs.convert(HERE / source, tmp_path / "a.hsq", resume=True, overwrite=True, inputs=inputs)
        with hs.open(tmp_path / "a.hsq") as found, hs.open(tmp_path / "whole.hsq") as whole:
            assert found.n_records == N
            for name in inputs:
                assert found.records[:][0][name].tobytes() == whole.records[:][0][name].tobytes()


def damaged(tmp_path: Path, **changes: Any) -> Path:
    """A copy without hashes, with other values in the first shard's row of the index."""
    shutil.copytree(HERE / "mds", tmp_path / "mds")
    index = tmp_path / "mds/index.json"
    found = json.loads(index.read_bytes())
    for shard in found["shards"]:
        shard["raw_data"]["hashes"] = {}
    found["shards"][0] |= changes
    index.write_text(json.dumps(found))
    return tmp_path / "mds"


def change(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(data)


def test_text_of_a_number_that_no_float_holds_is_refused(tmp_path: Path) -> None:
    folder, data = tmp_path / "mds", struct.pack("<4I5s", 1, 12, 21, 5, b"1e999")
    row = {"column_encodings": ["str_float"], "column_names": ["x"], "column_sizes": [None], "samples": 1, "version": 2}
    raw = {"basename": "0.mds", "bytes": len(data), "hashes": {}}
    folder.mkdir()
    (folder / "0.mds").write_bytes(data)
    shard = {**row, "format": "mds", "raw_data": raw, "zip_data": None, "compression": None}
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [shard]}))
    with pytest.raises(hs.SourceError, match=r"0\.mds, sample 0, x: b'1e999' is too large for float64"):
        hs.convert(folder, tmp_path / "a.hsq")
    change(folder / "0.mds", 16, b"1e+99")
    assert converted(folder, tmp_path / "a.hsq")["x"].tolist() == [1e99]


def test_json_without_fields_in_the_first_record_is_refused_if_it_is_wanted(tmp_path: Path) -> None:
    folder, objects = tmp_path / "mds", [b"{}", b"{}", b'{"n":7}']
    bodies = [struct.pack("<qI", number, len(data)) + data for number, data in enumerate(objects)]
    bodies = [body[8:12] + body[:8] + body[12:] for body in bodies]  # the sizes come first
    offsets = [20 + sum(map(len, bodies[:n])) for n in range(4)]
    data = struct.pack("<5I", 3, *offsets) + b"".join(bodies)
    row = {"column_encodings": ["int", "json"], "column_names": ["a", "b"], "column_sizes": [8, None], "samples": 3}
    raw = {"basename": "0.mds", "bytes": len(data), "hashes": {}}
    folder.mkdir()
    (folder / "0.mds").write_bytes(data)
    shard = {**row, "version": 2, "format": "mds", "raw_data": raw, "zip_data": None, "compression": None}
    (folder / "index.json").write_text(json.dumps({"version": 2, "shards": [shard]}))
    with pytest.raises(hs.SourceError, match=r"0\.mds, sample 0, b: gives no field in the first record"):
        hs.convert(folder, tmp_path / "a.hsq")
    assert converted(folder, tmp_path / "b.hsq", inputs=["a"])["a"].tolist() == [0, 1, 2]


def test_a_flipped_bit_is_seen_by_the_hash(tmp_path: Path) -> None:
    shutil.copytree(HERE / "mds", tmp_path / "mds")
    change(tmp_path / "mds/shard.00001.mds", 2000, b"\xaa\xaa\xaa")
    with pytest.raises(hs.SourceError, match=r"shard\.00001\.mds: is damaged: its sha1 is"):
        hs.convert(tmp_path / "mds", tmp_path / "a.hsq", text=40)
    shutil.copytree(HERE / "mds_gz", tmp_path / "gz")
    change(tmp_path / "gz/shard.00000.mds.gz", 300, b"\xaa\xaa\xaa")
    with pytest.raises(hs.SourceError, match=r"shard\.00000\.mds\.gz: is damaged: its xxh3_64 is"):
        hs.convert(tmp_path / "gz", tmp_path / "a.hsq")


def test_what_came_before_damage_is_kept(tmp_path: Path) -> None:
    folder = damaged(tmp_path)
    path = folder / "shard.00001.mds"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(hs.SourceError, match=r"shard\.00001\.mds, sample \d+ at byte [\d,]+: is cut off") as caught:
        hs.convert(folder, tmp_path / "a.hsq", batch_size=1, text=40)
    assert "resume" in str(getattr(caught.value, "__notes__", ""))
    shutil.rmtree(folder)
    shutil.copytree(HERE / "mds", folder)
    assert hs.convert(folder, tmp_path / "a.hsq", text=40, resume=True).n_records == N


def test_broken_tables_and_sizes_are_errors(tmp_path: Path) -> None:
    folder = damaged(tmp_path)
    first = folder / "shard.00000.mds"
    n = struct.unpack("<I", first.read_bytes()[:4])[0]
    for at, data, message in (
        (0, struct.pack("<I", n + 1), f"has {n + 1} samples, and the index says {n}"),
        (8, struct.pack("<I", 1 << 31), "its table of samples is damaged"),
        (4, struct.pack("<I", 3), "its table of samples is damaged"),
    ):
        change(first, at, data)
        with pytest.raises(hs.SourceError, match=message):
            hs.convert(folder, tmp_path / "a.hsq")
        shutil.copy(HERE / "mds/shard.00000.mds", first)
    begin = struct.unpack("<I", first.read_bytes()[4:8])[0]
    change(first, begin, struct.pack("<I", 100_000))
    with pytest.raises(hs.SourceError, match=r"sample 0: has [\d,]+ bytes, and its values should take"):
        hs.convert(folder, tmp_path / "a.hsq")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "mds of version 3; mds of version 2"),
        ({"format": "csv"}, "csv of version 2"),
        ({"samples": "many"}, "is no index of MDS"),
        ({"column_sizes": [1]}, "is no index of MDS"),
        ({"raw_data": {"basename": "../shard.00000.mds", "bytes": 1, "hashes": {}}}, "outside the folder"),
        ({"raw_data": {"basename": "/shard.00000.mds", "bytes": 1, "hashes": {}}}, "outside the folder"),
        (
            {"raw_data": {"basename": "none.mds", "bytes": 1, "hashes": {}}},
            r"none\.mds: is in the index, and not there",
        ),
    ],
)
def test_a_broken_index_is_an_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(hs.SourceError, match=message):
        hs.convert(damaged(tmp_path, **changes), tmp_path / "a.hsq")


def test_encodings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    encodings = [{"a_str": "hologram"}.get(name, encoding) for name, encoding in sorted(ENCODINGS.items())]
    folder = damaged(tmp_path)
    index = folder / "index.json"
    found = json.loads(index.read_bytes())
    for shard in found["shards"]:
        shard["column_encodings"] = encodings
    index.write_text(json.dumps(found))
    with pytest.raises(hs.SourceError, match="'a_str' is encoded as 'hologram'"):
        hs.convert(folder, tmp_path / "a.hsq")


def test_no_samples_and_no_index(tmp_path: Path) -> None:
    (tmp_path / "mds").mkdir()
    (tmp_path / "mds/index.json").write_text('{"version": 2, "shards": []}')
    with pytest.raises(hs.SourceError, match="has not a single record"):
        hs.convert(tmp_path / "mds", tmp_path / "a.hsq")
    (tmp_path / "mds/index.json").write_text('{"version": 1, "shards": []}')
    with pytest.raises(hs.SourceError, match="is of version 1"):
        hs.convert(tmp_path / "mds", tmp_path / "a.hsq")
    (tmp_path / "mds/index.json").write_text("[")
    with pytest.raises(hs.SourceError, match="is no index of MDS"):
        hs.convert(tmp_path / "mds", tmp_path / "a.hsq", from_="mds")


def test_it_is_read_only(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.append(1)
    with pytest.raises(hs.ArgumentError, match="are read, not written"):
        hs.convert(tmp_path / "a.hsq", tmp_path / "mds", to="mds")

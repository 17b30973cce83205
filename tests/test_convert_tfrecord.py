"""TFRecord, against TensorFlow itself: features of every kind, both directions, damage, what is inferred."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

import hypersequence as hs
from hypersequence.converting import tfmessages

Feature = tf.train.Feature


def ints(*values: int) -> Any:
    return Feature(int64_list=tf.train.Int64List(value=values))


def floats(*values: float) -> Any:
    return Feature(float_list=tf.train.FloatList(value=values))


def octets(*values: bytes) -> Any:
    return Feature(bytes_list=tf.train.BytesList(value=values))


def written(path: Path, records: Iterable[Mapping[str, Any]], compression: str = "") -> Path:
    """A file by TensorFlow."""
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for features in records:
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return path


def converted(source: Any, target: Path, **arguments: Any) -> dict[str, np.ndarray]:
    """All fields of what was converted, inputs and outputs together."""
    hs.convert(source, target, overwrite=True, **arguments)
    with hs.open(target) as seq:
        fields: dict[str, Any] = {}
        for role in seq.records[:]:
            fields |= role
        return {name: np.array(array) for name, array in fields.items()}


def numbered(n: int, start: int = 0) -> list[dict[str, Any]]:
    return [{"x": floats(i, i / 3), "label": ints(i)} for i in range(start, start + n)]


def test_what_features_are_is_seen_from_the_first_record(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tfrecord",
        [
            {
                "one": ints(i - 2),
                "several": ints(i, -(2**63), 2**63 - 1),
                "float": floats(i / 3),
                "floats": floats(i / 7, float("nan"), -0.0),
                "name": octets(b"abcd%d" % i),
                "names": octets(b"ab", b"c" * (i % 3)),
                "octets": octets(bytes([0, i, 255])),
            }
            for i in range(5)
        ],
    )
    found = converted(path, tmp_path / "a.hsq", inputs=["one", "several", "float", "floats", "name", "names", "octets"])
    assert found["one"].tolist() == [-2, -1, 0, 1, 2]
    assert found["one"].dtype == np.int64
    assert found["several"].tolist() == [[i, -(2**63), 2**63 - 1] for i in range(5)]
    assert found["float"].tobytes() == (np.arange(5) / 3).astype(np.float32).tobytes()
    nan = np.float32("nan")
    assert found["floats"].tobytes() == np.array([[i / 7, nan, -0.0] for i in range(5)], np.float32).tobytes()
    assert found["name"].tolist() == [b"abcd%d" % i for i in range(5)]
    assert found["names"].tolist() == [[b"ab", b"c" * (i % 3)] for i in range(5)]
    assert found["octets"].tolist() == [[0, i, 255] for i in range(5)]
    assert found["octets"].dtype == np.uint8


def test_labels_are_found_by_their_names(tmp_path: Path) -> None:
    hs.convert(written(tmp_path / "a.tfrecord", numbered(4)), tmp_path / "a.hsq")
    with hs.open(tmp_path / "a.hsq") as seq:
        assert (list(seq.schema.inputs), list(seq.schema.outputs)) == (["x"], ["label"])


DTYPES = [
    *(
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
    ),
    *("complex64", "complex128", "bfloat16"),
]


@pytest.mark.parametrize("name", DTYPES)
def test_bytes_of_arrays_become_arrays(tmp_path: Path, name: str) -> None:
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    values = np.random.default_rng(0).integers(0, 2, (6, 2, 3)).astype(dtype)
    path = written(tmp_path / "a.tfrecord", ({"x": octets(value.tobytes())} for value in values))
    found = converted(path, tmp_path / "a.hsq", features=f"x:{name}[2,3]")["x"]
    assert (found.dtype, found.shape) == (dtype, (6, 2, 3))
    assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize("name", DTYPES)
def test_serialized_tensors_become_arrays(tmp_path: Path, name: str) -> None:
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    values = np.random.default_rng(0).integers(0, 2, (4, 3, 2)).astype(dtype)
    path = written(
        tmp_path / "a.tfrecord", ({"x": octets(tf.io.serialize_tensor(tf.constant(v)).numpy())} for v in values)
    )
    found = converted(path, tmp_path / "a.hsq", features="x:tensor")["x"]
    assert (found.dtype, found.shape) == (dtype, (4, 3, 2))
    assert found.tobytes() == values.tobytes()


def test_lists_take_the_shape_and_type_that_are_asked_for(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tfrecord",
        ({"a": ints(*range(i, i + 6)), "b": floats(i, i / 3), "c": octets(b"x", "é".encode())} for i in range(4)),
    )
    features = {"a": "uint8[2,3]", "b": "float64[2]", "c": "U5[2,1]"}
    found = converted(path, tmp_path / "a.hsq", features=features)
    assert found["a"].dtype == np.uint8
    assert found["a"].tolist() == [np.arange(i, i + 6).reshape(2, 3).tolist() for i in range(4)]
    assert found["b"].tolist() == [[i, float(np.float32(i / 3))] for i in range(4)]
    assert found["c"].tolist() == 4 * [[["x"], ["é"]]]
    assert list(converted(path, tmp_path / "b.hsq", features="c:S2[2],a")) == ["c", "a"]


@pytest.mark.parametrize(
    ("feature", "kind", "message"),
    [
        (ints(256), "uint8", r"expected uint8, found numbers that do not fit it: \[256\]"),
        (ints(-1), "uint64", "numbers that do not fit"),
        (ints(2), "bool", "numbers that do not fit"),
        (ints(1), "float32", "expected float32, found int64_list"),
        (floats(1), "int64", "expected int64, found float_list"),
        (floats(1), "float16", "expected float16, found float_list"),
        (ints(1, 2), "int64", "expected int64, found 2 values"),
        (ints(1), "int64[2]", r"expected int64 \(2,\), found 1 values"),
        (octets(b"abc"), "uint8[4]", r"expected 4 bytes for uint8\[4\], found 3"),
        (octets(b"abc", b"d"), "uint8[3]", "expected one value of bytes, found bytes_list, 2"),
        (octets(b"abc"), "S2", "expected at most 2 characters, found 3"),
        (octets(b"ab\0"), "S4", "ends in NUL"),
        (octets(b"\xff"), "U4", "utf-8"),
        (octets(b"\2"), "bool", "expected bytes of 0 and 1"),
        (ints(1), "S4", "expected S4, found int64_list"),
        (Feature(), "int64", "expected int64, found nothing"),
        (octets(b"abc"), "image", "is no image"),
        (octets(b"\xff\xff"), "tensor", "is no tensor"),
        (octets(tf.io.serialize_tensor(tf.constant(["a"])).numpy()), "tensor", "type number 7"),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_file_record_and_feature(
    tmp_path: Path, feature: Any, kind: str, message: str
) -> None:
    path = written(tmp_path / "a.tfrecord", [{"x": feature}])
    with pytest.raises(hs.SourceError, match=rf"a\.tfrecord, record 0 at byte 0, x: .*{message}"):
        hs.convert(path, tmp_path / "a.hsq", features=f"x:{kind}")
    assert not (tmp_path / "a.hsq").exists()


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("", "names no feature"),
        ("x:float31", "'float31' is no type"),
        ("x:object", "'object' is no type"),
        ("x:uint8[3", "is no type"),
        ("x:image[3,4]", "has a shape of its own"),
        ("x:int64,x:int64", "a feature stands twice"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(tmp_path: Path, features: str, message: str) -> None:
    path = written(tmp_path / "a.tfrecord", numbered(1))
    with pytest.raises(hs.ArgumentError, match=message):
        hs.convert(path, tmp_path / "a.hsq", features=features)


@pytest.mark.parametrize("name", ["png", "jpeg"])
def test_images_are_decoded(tmp_path: Path, name: str) -> None:
    images = (np.arange(5 * 8 * 6 * 3) // 3).astype(np.uint8).reshape(5, 8, 6, 3)  # smooth: decoders differ at edges
    coded = [(tf.io.encode_png if name == "png" else tf.io.encode_jpeg)(image).numpy() for image in images]
    path = written(tmp_path / "a.tfrecord", ({"i": octets(data)} for data in coded))
    found = converted(path, tmp_path / "a.hsq")["i"]
    expected = np.stack([tf.io.decode_image(data).numpy() for data in coded])
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= (0 if name == "png" else 4)
    assert converted(path, tmp_path / "b.hsq", features="i:image", size=4, mode="L")["i"].shape == (5, 4, 4)


def test_several_files_come_in_the_order_given(tmp_path: Path) -> None:
    shards = [
        written(tmp_path / f"train.tfrecord-{k:05}-of-00003", numbered(n, start))
        for k, (n, start) in enumerate([(3, 0), (0, 3), (4, 3)])
    ]
    assert converted(shards, tmp_path / "a.hsq")["label"].tolist() == list(range(7))
    assert converted(str(tmp_path / "train.*"), tmp_path / "a.hsq")["label"].tolist() == list(range(7))
    assert converted(shards[::-1], tmp_path / "a.hsq")["label"].tolist() == [3, 4, 5, 6, 0, 1, 2]


def test_a_folder_of_files_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    for k in (1, 0):
        written(tmp_path / f"shards/train-{k:05}-of-00002", numbered(5, 5 * k))
    (tmp_path / "shards/train.json").touch()
    whole = converted(sorted((tmp_path / "shards").glob("train-*")), tmp_path / "a.hsq")
    found = converted(tmp_path / "shards", tmp_path / "b.hsq")
    assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in whole.items()}


@pytest.mark.parametrize("name", ["a-00000-of-00001", "a.tfrecords", "a.TFRecord-00001-of-00002", "a.tfrecord.gz"])
def test_names_of_shards_are_recognised(tmp_path: Path, name: str) -> None:
    path = written(tmp_path / name, numbered(3), "GZIP" if name.endswith("gz") else "")
    assert converted(path, tmp_path / "a.hsq")["label"].tolist() == [0, 1, 2]


def test_gzip_is_seen_or_said(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tfrecord", numbered(9), "GZIP")
    assert converted(path, tmp_path / "a.hsq")["label"].tolist() == list(range(9))
    assert converted(path, tmp_path / "a.hsq", compression="gzip")["label"].tolist() == list(range(9))
    with pytest.raises(hs.SourceError, match="no record begins here"):
        converted(path, tmp_path / "a.hsq", compression="none")
    with pytest.raises(hs.ArgumentError, match="is none of: none, gzip"):
        converted(path, tmp_path / "a.hsq", compression="zlib")


def test_a_record_whose_length_begins_as_gzip_does(tmp_path: Path) -> None:
    wanted = 0x088B1F
    frame = len(tf.train.Example(features=tf.train.Features(feature={"x": octets(bytes(560_000))})).SerializeToString())
    size = 560_000 - (frame - wanted)
    path = written(tmp_path / "a.tfrecord", [{"x": octets(bytes(size))}])
    assert path.read_bytes()[:3] == b"\x1f\x8b\x08"
    assert converted(path, tmp_path / "a.hsq")["x"].shape == (1, size)


@pytest.mark.parametrize("compression", ["", "GZIP"])
def test_resuming_gives_the_same_records(tmp_path: Path, compression: str) -> None:
    paths = [written(tmp_path / f"{k}.tfrecord", numbered(10, 10 * k), compression) for k in range(3)]
    whole = converted(paths, tmp_path / "whole.hsq")
    for done in (1, 9, 10, 11, 29, 30):
        with pytest.raises(RuntimeError), hs.HyperSequenceWriter(tmp_path / "a.hsq", 1, block_nbytes=1) as writer:
            for i in range(done):
                writer.append({"x": whole["x"][i]}, {"label": whole["label"][i]})
            raise RuntimeError("the power goes out")
        found = converted(paths, tmp_path / "a.hsq", resume=True)
        assert {name: array.tobytes() for name, array in found.items()} == {n: a.tobytes() for n, a in whole.items()}


def change(path: Path, at: int, data: bytes = b"\xaa\xaa") -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        stream.write(data)


def frames(path: Path) -> list[int]:
    """Where each record begins."""
    data, found, at = path.read_bytes(), [], 0
    while at < len(data):
        found.append(at)
        at += 16 + struct.unpack("<Q", data[at : at + 8])[0]
    return found


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda path, at: change(path, at + 14), "is damaged: its checksum"),
        (lambda path, at: change(path, at, b"\x07"), "no record begins here"),
        (lambda path, at: path.write_bytes(path.read_bytes()[: at + 5]), "the file ends 7 bytes early"),
        (lambda path, at: path.write_bytes(path.read_bytes()[: at + 14]), r"the file ends [\d,]+ bytes early"),
    ],
)
def test_damage_is_an_error_at_its_place_and_what_came_before_is_kept(
    tmp_path: Path, harm: Callable[[Path, int], Any], message: str
) -> None:
    large = octets(bytes(50_000))
    path = written(tmp_path / "a.tfrecord", ({"label": ints(i), "x": large} for i in range(500)))
    good, at = path.read_bytes(), frames(path)[471]
    harm(path, at)
    with pytest.raises(hs.SourceError, match=rf"a\.tfrecord, record 471 at byte {at:,}: {message}") as caught:
        hs.convert(path, tmp_path / "a.hsq")
    assert "resume" in str(caught.value.__notes__)
    path.write_bytes(good)
    with hs.HyperSequenceWriter.resume(tmp_path / "a.hsq") as writer:
        assert writer.n_records > 300
        writer.abort()
    assert converted(path, tmp_path / "a.hsq", resume=True)["label"].tolist() == list(range(500))


def test_a_damaged_gzip_file_is_an_error(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tfrecord", numbered(5000), "GZIP")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(hs.SourceError, match=r"a\.tfrecord, record [\d,]+ at byte [\d,]+: cannot be read"):
        hs.convert(path, tmp_path / "a.hsq")


def test_records_unlike_the_first_are_errors_that_show_a_spec(tmp_path: Path) -> None:
    first = {"a": ints(1), "b": octets(b"abc")}
    for second, message in (
        ({"a": ints(1)}, "has no 'b'; it has: a"),
        ({"a": floats(1), "b": octets(b"abc")}, "a: expected int64, found float_list"),
        ({"a": ints(1), "b": octets(b"abcde")}, "b: expected at most 3 characters, found 5: .* as in features='b:S8'"),
        ({"a": ints(1, 2), "b": octets(b"abc")}, "a: expected int64, found 2 values; .* have to be padded"),
        ({**first, "c": ints(1)}, "has c, .*features='a:int64,b:S3'"),
    ):
        path = written(tmp_path / "a.tfrecord", [first, second])
        with pytest.raises(hs.SourceError, match=rf"a\.tfrecord, record 1 at byte \d+.*{message}"):
            hs.convert(path, tmp_path / "a.hsq")
    assert converted(path, tmp_path / "a.hsq", features="a:int64,b:S3")["a"].tolist() == [1, 1]
    assert converted(path, tmp_path / "a.hsq", inputs=["b"])["b"].tolist() == [b"abc", b"abc"]


def test_what_cannot_be_inferred_matters_only_if_it_is_wanted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tfrecord", [{"a": ints(1), "e": ints(), "b": octets(b"\0", b"\1")}])
    with pytest.raises(hs.SourceError, match="record 0 at byte 0, b: the first record has several values of bytes"):
        hs.convert(path, tmp_path / "a.hsq")
    with pytest.raises(hs.SourceError, match="record 0 at byte 0, e: the first record has no values"):
        hs.convert(path, tmp_path / "a.hsq", inputs=["e"])
    with pytest.raises(hs.SourceError, match="record 0 at byte 0, c: has no such feature; it has: a, b, e"):
        hs.convert(path, tmp_path / "a.hsq", features="c")
    assert converted(path, tmp_path / "a.hsq", inputs=["a"])["a"].tolist() == [1]


def test_what_is_no_example_is_refused(tmp_path: Path) -> None:
    steps = tf.train.FeatureLists(feature_list={"t": tf.train.FeatureList(feature=[ints(1)])})
    context = tf.train.Features(feature={"a": ints(1)})
    for data, message in (
        (b"", "is no tf.train.Example"),
        (b"just some text", "is no tf.train.Example"),
        (tf.train.SequenceExample(context=context, feature_lists=steps).SerializeToString(), "SequenceExample"),
    ):
        with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
            writer.write(data)
        with pytest.raises(hs.SourceError, match=message):
            hs.convert(tmp_path / "a.tfrecord", tmp_path / "a.hsq")
    (tmp_path / "a.tfrecord").write_text("no frames here at all")
    with pytest.raises(hs.SourceError, match=r"record 0 at byte 0: no record begins here"):
        hs.convert(tmp_path / "a.tfrecord", tmp_path / "a.hsq")


def test_lists_that_are_not_packed_are_read_too(tmp_path: Path) -> None:
    """Old writers put a tag before each number."""
    packed = tf.train.Example(features=tf.train.Features(feature={"f": floats(1.5), "i": ints(7)})).SerializeToString()
    one, seven = b"\x0a\x04" + struct.pack("<f", 1.5), b"\x0a\x01\x07"
    assert one in packed and seven in packed
    loose = packed.replace(b"\x12\x06" + one, b"\x12\x05\x0d" + one[2:]).replace(
        b"\x1a\x03" + seven, b"\x1a\x02\x08\x07"
    )
    loose = fixed_lengths(loose)
    assert tf.train.Example.FromString(loose) == tf.train.Example.FromString(packed)
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        writer.write(loose)
    found = converted(tmp_path / "a.tfrecord", tmp_path / "a.hsq")
    assert (found["f"].tolist(), found["i"].tolist()) == ([1.5], [7])


def test_floats_are_found_beside_fields_that_are_not_known(tmp_path: Path) -> None:
    """Of newer writers; protobuf puts them behind the values."""
    more, values = b"\x10\x01\x10\x01", struct.pack("<3fI", 1, -0.0, 2.5, 0x7FA00001)
    for n, expected in ((4, values), (0, b"")):
        floats = tfmessages.delimited(1, values[: 4 * n]) + more
        entry = tfmessages.delimited(1, b"x") + tfmessages.delimited(2, tfmessages.delimited(2, floats))
        with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
            writer.write(tfmessages.delimited(1, tfmessages.delimited(1, entry)))
        found = converted(tmp_path / "a.tfrecord", tmp_path / "a.hsq", features=f"x:float32[{n}]")
        assert found["x"].tobytes() == expected


def fixed_lengths(data: bytes) -> bytes:
    """An Example whose values were made a byte shorter, each, with the lengths of what is around them."""
    entries, at, body = [], 2, bytearray()
    while at < len(data):
        key_length = data[at + 3]
        value_at = at + 4 + key_length
        size = 2 + data[value_at + 3]
        feature = data[value_at + 2 : value_at + 2 + size]
        entry = data[at + 2 : value_at] + bytes([0x12, len(feature)]) + feature
        entries.append(bytes([0x0A, len(entry)]) + entry)
        at = value_at + 2 + size
    body += b"".join(entries)
    return bytes([0x0A, len(body)]) + bytes(body)


def test_no_records(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tfrecord", [])
    with pytest.raises(hs.SourceError, match="has no records; say in features="):
        hs.convert(path, tmp_path / "a.hsq")
    with pytest.raises(hs.SourceError, match="not a single record"):
        hs.convert(path, tmp_path / "a.hsq", features="x:image")
    assert converted(path, tmp_path / "a.hsq", features="x:float32[3],y:int64")["x"].shape == (0, 3)


FIELDS: dict[str, tuple[np.ndarray, str, Callable[[Any], Any]]] = {
    # name: values, the type that a spec has for them, how TensorFlow reads them
    "bool": (np.arange(4) % 2 == 0, "bool", lambda v: tf.io.FixedLenFeature([], tf.int64)),
    "int8": (np.arange(-2, 2, dtype=np.int8), "int8", lambda v: tf.io.FixedLenFeature([], tf.int64)),
    "tokens": (np.arange(12, dtype=np.int32).reshape(4, 3), "int32[3]", lambda v: tf.io.FixedLenFeature([3], tf.int64)),
    "int64": (np.array([-(2**63), 2**63 - 1, 0, 1]), "int64", lambda v: tf.io.FixedLenFeature([], tf.int64)),
    "f32": (
        np.array([0.1, np.nan, -0.0, np.inf], np.float32),
        "float32",
        lambda v: tf.io.FixedLenFeature([], tf.float32),
    ),
    "vector": (
        np.random.default_rng(0).random((4, 2, 3), np.float32),
        "float32[2,3]",
        lambda v: tf.io.FixedLenFeature([2, 3], tf.float32),
    ),
    "image": (np.arange(48, dtype=np.uint8).reshape(4, 2, 2, 3), "uint8[2,2,3]", lambda v: tf.uint8),
    "f64": (np.array([[0.1, np.nan], [-0.0, 1], [2, 3], [4, 5]]), "float64[2]", lambda v: tf.float64),
    "f16": (np.arange(4, dtype=np.float16) / 3, "float16", lambda v: tf.float16),
    "bf16": ((np.arange(4) / 3).astype(ml_dtypes.bfloat16), "bfloat16", lambda v: tf.bfloat16),
    "c64": (np.array([1 + 2j, 3, 4j, -1], np.complex64), "complex64", lambda v: tf.complex64),
    "volume": (np.arange(-16, 16, dtype=np.int16).reshape(4, 2, 4), "int16[2,4]", lambda v: tf.int16),
    "u64": (np.array([0, 2**64 - 1, 5, 6], np.uint64), "uint64", lambda v: tf.uint64),
    "flags": (np.array([[[True, False]]] * 4), "bool[1,2]", lambda v: tf.bool),
    "name": (np.array([b"a", b"", b"bcd", b"\xff"]), "S3", lambda v: tf.io.FixedLenFeature([], tf.string)),
    "names": (
        np.array([["ä", "bc"], ["", "d"], ["€€", "x"], ["y", "z"]]),
        "U2[2]",
        lambda v: tf.io.FixedLenFeature([2], tf.string),
    ),
    "time": (np.array(["2020-01-01", "NaT", "1969-12-31", "2100-02-03"], "M8[s]"), "datetime64[s]", lambda v: tf.int64),
    "nothing": (np.zeros((4, 0), np.float32), "float32[0]", lambda v: tf.io.VarLenFeature(tf.float32)),
}


@pytest.fixture(scope="module", params=["none", "gzip"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("exported")
    with hs.HyperSequenceWriter(folder / "a.hsq") as writer:
        writer.extend({name: values for name, (values, _, _) in FIELDS.items()})
    hs.convert(folder / "a.hsq", folder / "a.tfrecord", compression=request.param)
    return folder / "a.tfrecord", "GZIP" if request.param == "gzip" else ""


@pytest.mark.parametrize("name", FIELDS)
def test_tensorflow_reads_what_was_written(exported: tuple[Path, str], name: str) -> None:
    path, compression = exported
    values, _, how = FIELDS[name]
    told = how(values)
    raw = isinstance(told, tf.DType)
    found = []
    for record in tf.data.TFRecordDataset(str(path), compression):
        example = tf.io.parse_single_example(record, {name: tf.io.FixedLenFeature([], tf.string) if raw else told})[
            name
        ]
        if isinstance(told, tf.io.VarLenFeature):
            example = tf.sparse.to_dense(example)
        if raw and told in (
            tf.uint64,
            tf.bfloat16,
        ):  # decode_raw does not know the one, and is no longer sure of the other
            example = np.frombuffer(example.numpy(), told.as_numpy_dtype)
        elif raw:
            example = tf.io.decode_raw(example, told).numpy()
        found.append(np.asarray(example))
    if values.dtype.kind in "SU":
        encoded = np.char.encode(values, "utf-8") if values.dtype.kind == "U" else values
        assert [one.tolist() for one in found] == encoded.tolist()
        return
    assert len(found) == 4
    stored = np.int64 if values.dtype.kind in "bi" and not raw else values.dtype
    assert b"".join(one.tobytes() for one in found) == values.astype(stored).tobytes()


def test_what_was_written_comes_back_bit_for_bit(exported: tuple[Path, str], tmp_path: Path) -> None:
    features = {name: kind for name, (_, kind, _) in FIELDS.items()}
    found = converted(exported[0], tmp_path / "back.hsq", features=features, inputs=list(FIELDS))
    for name, (values, _, _) in FIELDS.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        assert found[name].tobytes() == values.tobytes(), name


def test_float32_keeps_every_bit(tmp_path: Path) -> None:
    """A signalling NaN would change on its way through a Python number."""
    values = np.array([0x7FA00001, 0xFFC12345, 0x00000001], np.uint32).view(np.float32)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq") as writer:
        writer.extend({"x": values})
    hs.convert(tmp_path / "a.hsq", tmp_path / "a.tfrecord")
    assert converted(tmp_path / "a.tfrecord", tmp_path / "b.hsq")["x"].tobytes() == values.tobytes()


def test_nothing_is_exported_as_an_empty_file(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", schema=hs.Schema({"x": hs.Field("float32", (2,))})):
        pass
    hs.convert(tmp_path / "a.hsq", tmp_path / "a.tfrecord")
    assert (tmp_path / "a.tfrecord").read_bytes() == b""
    assert converted(tmp_path / "a.tfrecord", tmp_path / "b.hsq", features="x:float32[2]")["x"].shape == (0, 2)

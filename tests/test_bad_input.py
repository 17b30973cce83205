"""Every bad file gives a clear error: never a crash, a hang, a huge allocation, or silently wrong data.

The structures of the format are written down here a second time, so that these tests disagree with the package if
either of them is wrong.
"""

from __future__ import annotations

import gc
import json
import os
import pickle
import random
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs

MODES = [pytest.param({"use_mmap": True}, id="mmap"), pytest.param({"use_mmap": False}, id="read")]
META = {"name": "small", "classes": ["cat", "dog"], "scale": 0.5}
PAGE = 4096
N_RECORDS, BATCH, N_BLOCKS = 10, 4, 3
LABELS = ("inputs['image']", "inputs['flag']", "outputs")
COLUMNS = 3

# --- the format, written down once more ------------------------------------------------------------------------------


class Layout:
    """Named members of a packed little-endian structure."""

    def __init__(self, members: str) -> None:
        self.places: dict[str, tuple[int, str]] = {}
        self.nbytes = 0
        for member in members.split():
            name, code = member.split(":")
            self.places[name] = (self.nbytes, "<" + code)
            self.nbytes += struct.calcsize("<" + code)

    def get(self, data: bytes | bytearray, name: str, start: int = 0) -> Any:
        offset, code = self.places[name]
        return struct.unpack_from(code, data, start + offset)[0]

    def put(self, data: bytearray, values: dict[str, Any], start: int = 0) -> None:
        for name, value in values.items():
            offset, code = self.places[name]
            struct.pack_into(code, data, start + offset, value)


HEADER = Layout(
    "magic:8s version:H minor:H nbytes:I required:Q optional:Q file_id:16s created_ns:q batch_size:Q block_records:Q "
    "stride:Q n_schema:I spare:I"
)
FRAME = Layout(
    "magic:8s file_id:16s number:Q offset:Q first_record:Q n_records:Q nbytes:Q frame_nbytes:I n_chunks:I flags:I "
    "spare:I"
)
CHUNK = Layout("column:I role:B encoding:B codec:B flags:B offset:Q stored:Q raw:Q run:Q n_runs:I first_run:I")
TRAILER = Layout(
    "n_records:Q n_blocks:Q index_offset:Q index_nbytes:Q footer_offset:Q footer_nbytes:Q reserved:4s footer_crc:I "
    "file_nbytes:Q file_id:16s digest:16s header_crc:I spare:16s crc:I magic:8s"
)
SECTION = Layout("tag:8s offset:Q nbytes:Q crc:I flags:I")


def crc(data: bytes | bytearray) -> bytes:
    return struct.pack("<I", zlib.crc32(data))


def footer_of(*sections: tuple[bytes, bytes], **changes: Any) -> tuple[bytes, int]:
    """A footer and its directory's CRC; ``changes`` go to the last section's row."""
    rows, at = bytearray(), 4 + len(sections) * SECTION.nbytes
    for tag, content in sections:
        rows += bytes(SECTION.nbytes)
        values = {"tag": tag, "offset": at, "nbytes": len(content), "crc": zlib.crc32(content)}
        SECTION.put(rows, values, len(rows) - SECTION.nbytes)
        at += len(content)
    SECTION.put(rows, changes, len(rows) - SECTION.nbytes)
    directory = struct.pack("<I", len(sections)) + rows
    return bytes(directory) + b"".join(content for _, content in sections), zlib.crc32(directory)


class Parts:
    """A file taken apart. Change what you like: ``build`` puts it together again with every checksum right."""

    def __init__(self, data: bytes) -> None:
        tail = data[-TRAILER.nbytes :]
        index_offset, footer_offset = (TRAILER.get(tail, name) for name in ("index_offset", "footer_offset"))
        self.head = bytearray(data[: HEADER.get(data, "nbytes")])
        self.text = bytes(self.head[HEADER.nbytes : HEADER.nbytes + HEADER.get(data, "n_schema")])
        self.blocks = bytearray(data[len(self.head) : index_offset])
        index, self.frames = data[index_offset:footer_offset], []
        while index:
            nbytes = FRAME.get(index, "frame_nbytes")
            self.frames.append(bytearray(index[:nbytes]))
            index = index[nbytes:]
        self.foot = data[footer_offset : -TRAILER.nbytes]
        self.tail = bytearray(tail)
        self.last_changes: dict[str, Any] = {}
        self.flips: list[int] = []
        self.cut_to: int | None = None
        self.tail_bytes = b""

    def header(self, **changes: Any) -> Parts:
        HEADER.put(self.head, changes)
        return self

    def schema(self, given: Any) -> Parts:
        """Another schema: bytes as they are, anything else as JSON. The header grows if it must."""
        self.text = given if isinstance(given, bytes) else json.dumps(given).encode()
        nbytes = -(-(HEADER.nbytes + len(self.text) + 4) // PAGE) * PAGE
        self.head = bytearray(self.head[: HEADER.nbytes] + self.text).ljust(nbytes, b"\0")
        return self.header(nbytes=nbytes, n_schema=len(self.text))

    def field(self, **changes: Any) -> Parts:
        """Another first input."""
        schema = json.loads(self.text)
        schema["inputs"]["fields"][0].update(changes)
        return self.schema(schema)

    def frame(self, block: int, **changes: Any) -> Parts:
        FRAME.put(self.frames[block], changes)
        return self

    def chunk(self, block: int, number: int, /, **changes: Any) -> Parts:
        CHUNK.put(self.frames[block], changes, FRAME.nbytes + number * CHUNK.nbytes)
        return self

    def chunk_of(self, block: int, column: int, name: str) -> int:
        return CHUNK.get(self.frames[block], name, FRAME.nbytes + column * CHUNK.nbytes)

    def footer(self, footer: bytes, footer_crc: int | None = None) -> Parts:
        self.foot = footer
        TRAILER.put(self.tail, {} if footer_crc is None else {"footer_crc": footer_crc})
        return self

    def meta(self, content: bytes) -> Parts:
        return self.footer(*footer_of((b"usermeta", content)))

    def trailer(self, **changes: Any) -> Parts:
        self.last_changes |= changes
        return self

    def flip(self, offset: int) -> Parts:
        """Flip the bits of a byte when all is done, so that no checksum knows of it."""
        self.flips.append(offset)
        return self

    def cut(self, nbytes: int) -> Parts:
        self.cut_to = nbytes
        return self

    def append(self, data: bytes) -> Parts:
        self.tail_bytes = data
        return self

    def block_at(self, block: int) -> int:
        return len(self.head) + block * HEADER.get(self.head, "stride")

    def payload_at(self, block: int, column: int) -> int:
        return self.block_at(block) + self.chunk_of(block, column, "offset")

    def index_at(self, block: int = 0) -> int:
        return len(self.head) + len(self.blocks) + sum(len(frame) for frame in self.frames[:block])

    def footer_at(self) -> int:
        return self.index_at(len(self.frames))

    def build(self) -> bytes:
        self.head[-4:] = crc(self.head[:-4])
        for frame in self.frames:
            claimed = FRAME.get(frame, "frame_nbytes") if len(frame) >= FRAME.nbytes else 0
            end = claimed if FRAME.nbytes + 4 <= claimed <= len(frame) else len(frame)
            frame[end - 4 : end] = crc(frame[: end - 4])
        index = b"".join(self.frames)
        file_nbytes = self.footer_at() + len(self.foot) + TRAILER.nbytes
        places = {"index_offset": self.index_at(), "footer_offset": self.footer_at(), "file_nbytes": file_nbytes}
        places |= {"index_nbytes": len(index), "footer_nbytes": len(self.foot)}
        TRAILER.put(self.tail, places | {"header_crc": zlib.crc32(self.head[:-4])} | self.last_changes)
        if "crc" not in self.last_changes:
            TRAILER.put(self.tail, {"crc": zlib.crc32(self.tail[: TRAILER.nbytes - 12])})
        data = self.head + self.blocks + index + self.foot + self.tail
        for offset in self.flips:
            data[offset] ^= 0xFF
        return bytes(data[: self.cut_to]) + self.tail_bytes


def write_small(path: Path, *, start: int = 0, file_id: bytes = bytes(range(16)), meta: Any = META) -> Path:
    """Ten records of three columns in three blocks, the last of them short."""
    with hs.HyperSequenceWriter(path, BATCH, block_nbytes=1, file_id=file_id, created_ns=1) as writer:
        writer.user_meta().update(meta)
        for i in range(start, start + N_RECORDS):
            image = np.arange(6, dtype=np.float32).reshape(2, 3) + i
            writer.append(inputs={"image": image, "flag": np.uint8(i)}, outputs=np.int64(i * i))
    return path


def arrays_of(batch: Any) -> list[np.ndarray]:
    inputs, *outputs = batch
    members = [*inputs.values()] if isinstance(inputs, dict) else [*inputs] if isinstance(inputs, tuple) else [inputs]
    return members + outputs


def read_all(path: Path, **options: Any) -> tuple[list[np.ndarray], dict[str, Any]]:
    """All that a person would look at: columns and metadata, with names, types and the repr on the way."""
    with hs.HyperSequenceFile(path, **options) as seq:
        assert repr(seq).startswith("<HyperSequenceFile")
        assert seq.no_inputs() + seq.no_outputs() == len(seq.columns)
        batches = [arrays_of(seq[i]) for i in range(len(seq))]
        columns = [np.concatenate(column) for column in zip(*batches, strict=True)]
        together = arrays_of(seq.records[:])
        assert same_columns(columns, together)
        some = [seq.n_records - 1, 0, seq.n_records // 2]
        assert same_columns(arrays_of(seq.records[some]), [column[some] for column in columns])
        return columns, seq.user_meta()


def same(one: np.ndarray, other: np.ndarray) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()


def same_columns(found: list[np.ndarray], expected: list[np.ndarray]) -> bool:
    return len(found) == len(expected) and all(map(same, found, expected))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_small(tmp_path_factory.mktemp("small") / "small.hsq").read_bytes()


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    numbers = np.arange(N_RECORDS)
    images = (np.arange(6).reshape(2, 3) + numbers[:, None, None]).astype(np.float32)
    return [images, numbers.astype(np.uint8), (numbers**2).astype(np.int64)]


@pytest.fixture
def bad(tmp_path: Path) -> Callable[[bytes], Path]:
    def write(data: bytes) -> Path:
        path = tmp_path / "bad.hsq"
        path.write_bytes(data)
        return path

    return write


def refusal(path: Path, **options: Any) -> hs.HyperSequenceError:
    """The error that reading everything ends with."""
    with pytest.raises(hs.HyperSequenceError) as caught:
        read_all(path, **options)
    return caught.value


def test_the_small_file_is_what_these_tests_take_it_for(
    small: bytes, original: list[np.ndarray], bad: Callable[[bytes], Path]
) -> None:
    parts = Parts(small)
    assert len(parts.frames) == N_BLOCKS
    assert [FRAME.get(frame, "n_records") for frame in parts.frames] == [4, 4, 2]
    assert parts.build() == small
    for use_mmap in (True, False):
        columns, meta = read_all(bad(small), use_mmap=use_mmap)
        assert same_columns(columns, original)
        assert meta == META


# --- every rule, with every checksum right --------------------------------------------------------------------------

BIG = 2**64 - 1
SINGLE = {"kind": "single", "fields": [{"type": "float32", "shape": []}]}
TWO = [{"type": "float32", "shape": []}] * 2


def roles(**given: Any) -> Callable[[Parts], Parts]:
    return lambda p: p.schema({"inputs": SINGLE} | given)


def named(*names: Any) -> Callable[[Parts], Parts]:
    fields = [{"name": name, "type": "float32", "shape": []} for name in names]
    return roles(inputs={"kind": "dict", "fields": fields})


def deep(levels: int) -> bytes:
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def shorter_frame(p: Parts) -> Parts:
    return p.frame(0, frame_nbytes=128)


def swap_places(block: int) -> Callable[[Parts], Parts]:
    """Two small columns of a block change places; each of them fits where the other was."""

    def change(p: Parts) -> Parts:
        one, two = (p.chunk_of(block, column, "offset") for column in (1, 2))
        return p.chunk(block, 1, offset=two).chunk(block, 2, offset=one)

    return change


def swap_frames(p: Parts) -> Parts:
    p.frames[0], p.frames[1] = p.frames[1], p.frames[0]
    return p


def drop_frame(p: Parts) -> Parts:
    del p.frames[1]
    return p


def repeat_frame(p: Parts) -> Parts:
    p.frames.append(p.frames[-1])
    return p


def block_nbytes(p: Parts, block: int) -> int:
    return FRAME.get(p.frames[block], "nbytes")


def no_index(p: Parts) -> Parts:
    p.frames = []
    return p


def short_index(p: Parts) -> Parts:
    p.frames = [p.frames[0][:64]]
    return p


def longer_blocks(p: Parts) -> Parts:
    p.blocks += bytes(64)
    return p


def index_at(block: int) -> Callable[[Parts], Parts]:
    """The index begins where that block ends, but for 64 bytes."""

    def change(p: Parts) -> Parts:
        at = p.block_at(block + 1) - 64
        return p.trailer(index_offset=at, index_nbytes=p.footer_at() - at)

    return change


def index_shifted(by: int) -> Callable[[Parts], Parts]:
    return lambda p: p.trailer(index_offset=p.index_at() + by, index_nbytes=p.footer_at() - p.index_at() - by)


def index_moved(p: Parts) -> Parts:
    return p.trailer(index_offset=p.index_at() + 64)


def gap_in_empty(p: Parts) -> Parts:
    p.frames = []
    return p.trailer(n_records=0, n_blocks=0)


def section(tag: bytes = b"usermeta", content: bytes = b"{}", **changes: Any) -> Callable[[Parts], Parts]:
    return lambda p: p.footer(*footer_of((tag, content), **changes))


def unlisted_bytes(p: Parts) -> Parts:
    footer, footer_crc = footer_of((b"usermeta", b"{}"))
    return p.footer(footer + b"hidden", footer_crc)


def broken_directory(n_sections: int) -> Callable[[Parts], Parts]:
    directory = struct.pack("<I", n_sections)
    return lambda p: p.footer(directory, zlib.crc32(directory))


Change = Callable[[Parts], Parts]
# Rule, what is wrong, how to make it so, and what the message of an UnsupportedError must name.
CASES: list[tuple[str, str, Change, str | None]] = [
    ("H1", "magic of another format", lambda p: p.header(magic=b"\x89PNG\r\n\x1a\n"), None),
    ("H1", "line ends translated", lambda p: p.header(magic=b"\x89HSQ\n\x1a\nX"), None),
    ("H2", "ends inside the first page", lambda p: p.cut(PAGE - 1), None),
    ("H2", "ends inside a later page", lambda p: p.header(nbytes=2 * PAGE).cut(2 * PAGE - 1), None),
    *(("H3", f"version {n}", lambda p, n=n: p.header(version=n), f"version {n}") for n in (0, 2, 4, 65535)),
    *(
        ("H4", f"header of {n} bytes", lambda p, n=n: p.header(nbytes=n), None)
        for n in (0, 64, PAGE - 1, PAGE + 1, (16 << 20) + PAGE, 2**32 - PAGE)
    ),
    *(("H5", f"flag {n}", lambda p, n=n: p.header(required=1 << n), str(n)) for n in (0, 31, 63)),
    ("H6", "byte of the schema", lambda p: p.flip(HEADER.nbytes + 3), None),
    ("H6", "byte of the padding", lambda p: p.flip(PAGE // 2), None),
    ("H6", "its CRC itself", lambda p: p.flip(PAGE - 1), None),
    *(("H7", f"batches of {n}", lambda p, n=n: p.header(batch_size=n), None) for n in (0, 3, 8, 2**63, BIG)),
    *(("H7", f"blocks of {n} records", lambda p, n=n: p.header(block_records=n), None) for n in (0, 6, 2**63, BIG - 3)),
    (
        "H7",
        "batches and blocks of 2**63",
        lambda p: p.header(batch_size=2**63, block_records=2**63, stride=2**64 - 64),
        None,
    ),
    *(
        ("H7", f"stride of {n}", lambda p, n=n: p.header(stride=n), None)
        for n in (0, 64, 128, 513, 2**63, 2**64 - 64, BIG)
    ),
    *(("H7", f"schema of {n} bytes", lambda p, n=n: p.header(n_schema=n), None) for n in (PAGE, 2**31, 2**32 - 1)),
    ("H7", "spare bits", lambda p: p.header(spare=1), None),
    ("H8", "empty", lambda p: p.schema(b""), None),
    ("H8", "cut", lambda p: p.schema(p.text[:-1]), None),
    ("H8", "more behind it", lambda p: p.schema(p.text + b"{}"), None),
    ("H8", "not UTF-8", lambda p: p.schema(p.text.replace(b"image", b"im\xffge")), None),
    ("H8", "a byte order mark", lambda p: p.schema(b"\xef\xbb\xbf" + p.text), None),
    ("H8", "a key twice", lambda p: p.schema(p.text[:-1] + b',"inputs":{}}'), None),
    ("H8", "a nested key twice", lambda p: p.schema(p.text.replace(b'"kind"', b'"kind":1,"kind"')), None),
    ("H8", "NaN", lambda p: p.schema(b'{"inputs":NaN}'), None),
    ("H8", "Infinity", lambda p: p.schema(b'{"inputs":-Infinity}'), None),
    ("H8", "a number beyond float64", lambda p: p.schema(b'{"inputs":1e999}'), None),
    ("H8", "a number of 5000 digits", lambda p: p.schema(b'{"inputs":' + b"9" * 5000 + b"}"), None),
    ("H8", "66 levels deep", lambda p: p.schema(deep(66)), None),
    ("H8", "100000 levels deep", lambda p: p.schema(deep(100_000)), None),
    ("H8", "a megabyte of opening brackets", lambda p: p.schema(b"[" * (1 << 20)), None),
    ("H9", "no object", lambda p: p.schema([]), None),
    ("H9", "64 levels deep", lambda p: p.schema(deep(64)), None),
    ("H9", "no inputs", lambda p: p.schema({"outputs": SINGLE}), None),
    ("H9", "inputs of null", roles(inputs=None), None),
    ("H9", "outputs of null", roles(outputs=None), None),
    ("H9", "outputs of text", roles(outputs="float32"), None),
    ("H9", "no kind", roles(inputs={"fields": SINGLE["fields"]}), None),
    ("H9", "an unknown kind", roles(inputs={"kind": "set", "fields": SINGLE["fields"]}), None),
    ("H9", "an unhashable kind", roles(inputs={"kind": [], "fields": SINGLE["fields"]}), None),
    ("H9", "no fields", roles(inputs={"kind": "tuple", "fields": []}), None),
    ("H9", "fields of text", roles(inputs={"kind": "tuple", "fields": "float32"}), None),
    ("H9", "a field of null", roles(inputs={"kind": "single", "fields": [None]}), None),
    ("H9", "single of two", roles(inputs={"kind": "single", "fields": TWO}), None),
    ("H9", "tuple of one", roles(inputs={"kind": "tuple", "fields": TWO[:1]}), None),
    ("H9", "more than 4096 fields", roles(inputs={"kind": "tuple", "fields": TWO * 2049}), None),
    ("H9", "dict without names", roles(inputs={"kind": "dict", "fields": TWO}), None),
    ("H9", "a name twice", named("image", "image"), None),
    ("H9", "an empty name", named(""), None),
    ("H9", "a name of 256 bytes", named("x" * 256), None),
    ("H9", "a name of a megabyte", named("x" * (1 << 20)), None),
    ("H9", "a name with a line end", named("a\nb"), None),
    ("H9", "a name with NUL", named("a\0b"), None),
    ("H9", "a name with an escape sequence", named("a\x1b[2Jb"), None),
    ("H9", "a name with DEL", named("a\x7fb"), None),
    ("H9", "a name with a control character of Latin-1", named("a\x85b"), None),
    ("H9", "a name with a line separator", named("a\u2028b"), None),
    ("H9", "a name of half a surrogate pair", named("\ud800"), None),
    *(("H9", f"the name {name!r}", named(name), None) for name in (None, 5, True, [], {})),
    *(
        ("H9", f"type {name!r}", lambda p, name=name: p.field(type=name), name)
        for name in (
            *("object", "|O", "O", "float128", "complex256", "S99999999999", "S2147483648", "U536870912", "S-1", "S01"),
            *("V8", "<f4", "f4,f4", "Float32", " float32", "float32 ", "int24", "datetime64", "datetime64[lightyears]"),
            *("datetime64[0s]", "timedelta64[ns", "S\u0663", "StringDType", "x" * 60),
        )
    ),
    *(("H9", f"type {name!r}", lambda p, name=name: p.field(type=name), None) for name in (None, 5, ["float32"], {})),
    *(
        ("H9", f"shape {shape!r}"[:50], lambda p, shape=shape: p.field(shape=shape), None)
        for shape in (
            *(None, 5, "23", [-1], [2.0], [True], ["2"], [[2]], [None]),
            *([2**62], [2**31, 2**31], [2**64], [2**62, 0], [10**300], [1] * 33, [1] * 100_000),
        )
    ),
    ("H8", "a shape of dimensions with 4000 digits", lambda p: p.field(shape=[10**4000, 10**4000]), None),
    ("T1", "last byte lost", lambda p: p.cut(-1), None),
    ("T1", "trailer lost", lambda p: p.cut(-TRAILER.nbytes), None),
    ("T1", "a byte appended", lambda p: p.append(b"\n"), None),
    ("T1", "another magic", lambda p: p.trailer(magic=b"HSQ4END\n"), None),
    ("T1", "nothing but a header", lambda p: p.cut(PAGE), None),
    ("T2", "a byte of the trailer", lambda p: p.flip(-100), None),
    ("T2", "its CRC itself", lambda p: p.trailer(crc=0x12345678), None),
    *(("T3", f"a file of {n} bytes", lambda p, n=n: p.trailer(file_nbytes=n), None) for n in (0, 6000, 2**63, BIG)),
    ("T3", "a trailer twice", lambda p: p.append(p.build()[-TRAILER.nbytes :]), None),
    ("T4", "another file id", lambda p: p.trailer(file_id=bytes(16)), None),
    ("T4", "another header", lambda p: p.trailer(header_crc=0), None),
    *(("T5", f"{n} records", lambda p, n=n: p.trailer(n_records=n), None) for n in (0, 8, 13, 2**63, BIG)),
    *(("T5", f"{n} blocks", lambda p, n=n: p.trailer(n_blocks=n), None) for n in (0, 2, 4, 2**63, BIG)),
    ("T5", "2**64-1 records in as many blocks", lambda p: p.trailer(n_records=BIG, n_blocks=2**62), None),
    ("T6", "a gap before the index", index_moved, None),
    *(
        ("T6", f"{name} of {n}", lambda p, name=name, n=n: p.trailer(**{name: n}), None)
        for name in ("index_offset", "index_nbytes", "footer_offset", "footer_nbytes")
        for n in (0, 1, 2**63, 2**64 - 64, BIG)
    ),
    (
        "T6",
        "offsets that meet after wrapping around",
        lambda p: p.trailer(index_offset=2**64 - 64, index_nbytes=p.footer_at() + 64),
        None,
    ),
    *(("T7", f"index inside block {n}", index_at(n), None) for n in (0, 1)),
    ("T7", "index inside the header", lambda p: index_shifted(64 - p.index_at())(p), None),
    ("T7", "index not aligned", index_shifted(1), None),
    ("T7", "blocks without an index", no_index, None),
    ("T7", "an index without blocks", lambda p: p.trailer(n_records=0, n_blocks=0), None),
    ("T7", "bytes between the header and the end of an empty file", gap_in_empty, None),
    (
        "T5",
        "as many records as 2**63-1",
        lambda p: p.trailer(n_records=2**63 - 1, n_blocks=2**61),
        None,
    ),
    ("F1", "no footer", lambda p: p.footer(b""), None),
    ("F1", "three bytes", lambda p: p.footer(bytes(3)), None),
    *(("F1", f"{n} sections", broken_directory(n), None) for n in (1, 256, 257, 2**31, 2**32 - 1)),
    ("F1", "a byte of the directory", lambda p: p.flip(p.footer_at() + 5), None),
    ("F1", "its CRC in the trailer", lambda p: p.trailer(footer_crc=7), None),
    *(("F2", f"section at {n}", section(offset=n), None) for n in (0, 4, 35, 37, 2**63, BIG)),
    *(("F2", f"section of {n} bytes", section(nbytes=n), None) for n in (0, 1, 3, 2**63, BIG)),
    ("F2", "a tag twice", lambda p: p.footer(*footer_of((b"usermeta", b"{}"), (b"usermeta", b"[]"))), None),
    (
        "F2",
        "sections overlap",
        lambda p: p.footer(*footer_of((b"one     ", b"{}"), (b"two     ", b"{}"), offset=68)),
        None,
    ),
    ("F2", "bytes of no section", unlisted_bytes, None),
    ("F3", "a byte of the metadata", lambda p: p.flip(p.footer_at() + 40), None),
    ("F3", "their CRC", section(crc=1), None),
    ("F3", "empty", section(content=b""), None),
    *(
        ("F3", content.decode("latin-1")[:30], lambda p, content=content: p.meta(content), None)
        for content in (
            b"[]",
            b"null",
            b'"text"',
            b'{"a":NaN}',
            b'{"a":-1e999}',
            b'{"a":1,"a":2}',
            b'{"a":"\xff"}',
            b"{'a':1}",
            deep(66),
        )
    ),
    ("F3", "100000 levels deep", lambda p: p.meta(deep(100_000)), None),
    *(("B1", f"magic of block {n}", lambda p, n=n: p.frame(n, magic=b"HSQBLOCk"), None) for n in range(N_BLOCKS)),
    ("B1", "an index too short for a frame", short_index, None),
    *(
        ("B2", f"frame of {n} bytes", lambda p, n=n: p.frame(0, frame_nbytes=n), None)
        for n in (0, 64, 255, 1024, 2**31, 2**32 - 64, 2**32 - 1)
    ),
    ("B2", "frame too short for its rows", shorter_frame, None),
    ("B2", "frame in the middle too long", lambda p: p.frame(1, frame_nbytes=512), None),
    *(("B3", f"a byte of frame {n}", lambda p, n=n: p.flip(p.index_at(n) + 50), None) for n in range(N_BLOCKS)),
    ("B3", "a stored checksum", lambda p: p.flip(p.index_at() + FRAME.nbytes + COLUMNS * CHUNK.nbytes), None),
    *(("B4", f"file id of frame {n}", lambda p, n=n: p.frame(n, file_id=bytes(16)), None) for n in range(N_BLOCKS)),
    ("B5", "frame flags", lambda p: p.frame(0, flags=0x40), "0x40"),
    ("B5", "frame spare", lambda p: p.frame(2, spare=1), "frame flags"),
    *(
        ("B5", f"{what} {n} in block {block}", lambda p, b=block, w=what, n=n: p.chunk(b, 1, **{w: n}), f"{what} {n}")
        for block, what, n in (
            (0, "role", 1),
            (1, "encoding", 7),
            (2, "codec", 255),
            (0, "codec", 1),
            (1, "flags", 128),
        )
    ),
    *(("B6", f"{n} chunks", lambda p, n=n: p.frame(0, n_chunks=n), None) for n in (0, 2, 4, 2**31, 2**32 - 1)),
    *(("B6", f"row for column {n}", lambda p, n=n: p.chunk(0, 0, column=n), None) for n in (1, 3, 2**32 - 1)),
    ("B6", "fewer columns than the schema has", roles(), None),
    *(
        ("B7", f"{name} of {n}", lambda p, name=name, n=n: p.frame(0, **{name: n}), None)
        for name, n in (
            *(("offset", 2**63), ("offset", BIG), ("nbytes", 2**63), ("nbytes", BIG), ("first_record", BIG)),
            *(("n_records", 0), ("n_records", 3), ("n_records", 2**63), ("n_records", BIG)),
        )
    ),
    *(
        ("B7", f"chunk {name} of {n}", lambda p, name=name, n=n: p.chunk(0, 0, **{name: n}), None)
        for name in ("stored", "raw")
        for n in (0, 95, 97, 2**63, BIG)
    ),
    ("B7", "records of another size than the schema's", lambda p: p.field(type="float16"), None),
    *(
        ("B8", f"chunk at {n}", lambda p, n=n: p.chunk(0, 0, offset=n), None)
        for n in (0, 64, 1, 2**31, 2**63, 2**64 - 64, BIG)
    ),
    ("B8", "a chunk on another", lambda p: p.chunk(0, 0, offset=p.chunk_of(0, 1, "offset")), None),
    (
        "B8",
        "a block shorter than its chunks",
        lambda p: p.frame(0, nbytes=block_nbytes(p, 0) - 100),
        None,
    ),
    ("B8", "a block of no bytes", lambda p: p.frame(0, nbytes=0), None),
    *(("B9", f"runs of {n} bytes", lambda p, n=n: p.chunk(0, 0, run=n), None) for n in (0, 1, 24, 25, 2**63, BIG)),
    *(("B9", f"{n} runs", lambda p, n=n: p.chunk(0, 0, n_runs=n), None) for n in (0, 2, 2**31, 2**32 - 1)),
    *(("B9", f"first run {n}", lambda p, n=n: p.chunk(0, 0, first_run=n), None) for n in (1, 2**31, 2**32 - 1)),
    ("B9", "more runs than the frame holds", lambda p: p.chunk(0, 2, run=8, n_runs=4), None),
    ("I1", "an entry missing", drop_frame, None),
    ("I1", "an entry too many", repeat_frame, None),
    ("I1", "a block in the middle of another length", lambda p: p.frame(1, nbytes=block_nbytes(p, 1) + 1), None),
    ("I2", "two entries swapped", swap_frames, None),
    *(
        ("I2", f"{name} of entry {block}", lambda p, b=block, name=name: p.frame(b, **{name: 64}), None)
        for name in ("number", "offset", "first_record")
        for block in range(N_BLOCKS)
    ),
    ("I2", "offset inside the header", lambda p: p.frame(0, offset=PAGE - 64), None),
    ("I2", "offset past the end", lambda p: p.frame(2, offset=2**62), None),
    ("I3", "columns of a middle block in other places", swap_places(1), None),
    ("I3", "columns of the last block in other places", swap_places(2), None),
    ("I3", "other runs in a middle block", lambda p: p.chunk(1, 0, run=96), None),
    ("I4", "a block longer than the stride", lambda p: p.frame(0, nbytes=HEADER.get(p.head, "stride") + 64), None),
    ("I4", "the last block ends elsewhere", lambda p: p.frame(2, nbytes=block_nbytes(p, 2) + 64), None),
    ("I4", "unused bytes before the index", longer_blocks, None),
    *(
        ("C1", f"block {block}, column {column}", lambda p, b=block, c=column: p.flip(p.payload_at(b, c)), None)
        for block in range(N_BLOCKS)
        for column in range(COLUMNS)
    ),
]


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize(("rule", "change", "names"), [pytest.param(r, c, n, id=f"{r}-{w}") for r, w, c, n in CASES])
def test_every_rule_is_enforced(
    rule: str, change: Change, names: str | None, options: Any, small: bytes, bad: Callable[[bytes], Path]
) -> None:
    path = bad(change(Parts(small)).build())
    error = refusal(path, **options)
    assert isinstance(error, hs.FormatError)
    assert isinstance(error, ValueError)
    assert error.rule == rule, str(error)
    assert error.path == str(path)
    assert str(error).startswith(f"{path}: ")
    assert str(error).endswith(f"[rule {rule}]")
    assert len(str(error)) < 1000 + len(str(path))
    assert str(error).isprintable(), "a file must not write control characters to a terminal"
    expected = hs.UnsupportedError if names is not None else hs.ChecksumError if rule == "C1" else hs.FormatError
    if names is not None:
        assert isinstance(error, hs.UnsupportedError), str(error)
        assert names in str(error)
    elif not isinstance(error, hs.UnsupportedError):  # a type that is not even text may be either
        assert type(error) is expected
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.rule) == (type(error), str(error), rule)


def test_every_rule_in_the_source_has_cases_here() -> None:
    package = Path(hs.__file__).parent
    texts = [
        path.read_text(encoding="utf-8") for part in ("layout", "source") for path in (package / part).glob("*.py")
    ]
    in_source = {rule for text in texts for rule in re.findall(r'"([A-Z]\d+)"', text)} - {
        "P5"
    }  # no bytes break that one
    assert {rule for rule, *_ in CASES} == in_source
    assert {rule[0] for rule in in_source} == set("HTFBIC")


def test_a_message_names_file_and_rule_once(small: bytes, bad: Callable[[bytes], Path]) -> None:
    """An error on the inside of a schema is not told twice."""
    path = bad(Parts(small).field(shape=[-1]).build())
    message = str(refusal(path))
    assert message.count(str(path)) == 1, message
    assert message.count("[rule") == 1, message


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("column", range(COLUMNS))
@pytest.mark.parametrize("limit", [2**63 - 1, BIG])
def test_a_checksum_run_of_absurd_length_does_no_harm(
    limit: int, options: Any, column: int, small: bytes, original: list[np.ndarray], bad: Callable[[bytes], Path]
) -> None:
    """One run may be longer than the block it covers, but then reading works all the same."""
    parts = Parts(small)
    longest = limit // (24, 1, 8)[column] * (24, 1, 8)[column]
    for block in range(N_BLOCKS):
        parts.chunk(block, column, run=longest)
    path = bad(parts.build())
    try:
        columns, _ = read_all(path, **options)
        with hs.HyperSequenceFile(path, **options) as seq:
            scattered = arrays_of(seq.records[[9, 0, 5]])
    except hs.FormatError as error:
        assert error.rule == "B9"
    else:
        assert same_columns(columns, original)
        assert same_columns(scattered, [full[[9, 0, 5]] for full in original])


@pytest.mark.parametrize("options", MODES)
def test_huge_but_true_numbers_are_no_obstacle(options: Any, tmp_path: Path) -> None:
    """A header may plan blocks and batches far larger than the one that was written."""
    path = tmp_path / "one.hsq"
    with hs.HyperSequenceWriter(path, 5, block_nbytes=1, file_id=bytes(16), created_ns=0) as writer:
        writer.extend(np.arange(5, dtype=np.uint8), np.arange(5, dtype=np.float64))
    parts = Parts(path.read_bytes()).header(batch_size=2**59, block_records=2**59, stride=2**63 - 64)
    path.write_bytes(parts.build())
    with hs.HyperSequenceFile(path, **options) as seq:
        assert (len(seq), seq.batch_size(), seq.n_records) == (1, 2**59, 5)
        assert repr(seq)
        for one in (seq, seq.rebatch(2), seq.shuffled(1), seq.shuffled(1, by="record"), seq.select([4, 0, 2])):
            found = np.concatenate([batch[0] for batch in one])
            assert sorted(found.tolist()) == ([0, 2, 4] if len(found) == 3 else [0, 1, 2, 3, 4])
        assert seq.records[[4, 1]][1].tolist() == [4.0, 1.0]
        assert hs.FetchingHyperSequence(seq)[0][0].tolist() == [0, 1, 2, 3, 4]


def test_unknown_things_that_may_be_skipped_are_skipped(
    small: bytes, original: list[np.ndarray], bad: Callable[[bytes], Path]
) -> None:
    """Optional flags, a minor version, and footer sections of later releases change nothing for this one."""
    parts = Parts(small).header(optional=BIG, minor=7)
    parts.footer(*footer_of((b"future  ", b"\xff\x00"), (b"usermeta", b'{"a":1}')))
    columns, meta = read_all(bad(parts.build()))
    assert same_columns(columns, original)
    assert meta == {"a": 1}


# --- damage of every kind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", MODES)
def test_every_byte_flipped_in_turn(options: Any, small: bytes, original: list[np.ndarray], tmp_path: Path) -> None:
    """Metadata and payload: an error. Frames in front of blocks, and padding: the original data."""
    parts = Parts(small)
    payload: set[int] = set()
    for block in range(N_BLOCKS):
        for column in range(COLUMNS):
            start = parts.payload_at(block, column)
            payload.update(range(start, start + parts.chunk_of(block, column, "stored")))
    unused = set(range(len(parts.head), parts.index_at())) - payload
    assert len(payload) == N_RECORDS * (24 + 1 + 8)
    path, numbers = tmp_path / "flipped.hsq", random.Random(7)
    used_header = HEADER.nbytes + HEADER.get(parts.head, "n_schema")
    wrong: list[str] = []
    for at in range(len(small)):
        if used_header + 8 < at < PAGE - 8 and at % 50:
            continue  # zeros under the same CRC
        data = bytearray(small)
        data[at] ^= 1 << numbers.randrange(8)
        path.write_bytes(data)
        try:
            columns, meta = read_all(path, **options)
        except hs.HyperSequenceError as error:
            rule = getattr(error, "rule", None)
            if at in unused or (at in payload) != (rule == "C1"):
                wrong.append(f"{at}: {error}")
        else:
            if at not in unused or not same_columns(columns, original) or meta != META:
                wrong.append(f"{at}: no error")
    assert not wrong


def test_every_possible_length(small: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.hsq"
    path.write_bytes(small)
    rules: set[str] = set()
    for nbytes in reversed(range(len(small))):
        os.truncate(path, nbytes)
        with pytest.raises(hs.FormatError) as caught:
            hs.HyperSequenceFile(path, use_mmap=bool(nbytes % 2))
        rules.add(caught.value.rule)
    assert rules == {"H1", "H2", "T1"}


def test_the_front_cut_off(small: bytes, bad: Callable[[bytes], Path]) -> None:
    parts = Parts(small)
    edges = [len(parts.head), *(parts.block_at(n) for n in range(N_BLOCKS)), parts.index_at(), parts.footer_at()]
    for n in {*range(1, len(small), 61), *edges, len(small) - TRAILER.nbytes, len(small) - 1}:
        assert refusal(bad(small[n:])).rule == "H1"


@pytest.mark.parametrize("n", [1, 7, 8, 63, 64, 128, 4095, 4096, 100_000])
@pytest.mark.parametrize("fill", [b"\0", b"\n", b"HSQ3END\n"])
def test_bytes_appended(n: int, fill: bytes, small: bytes, bad: Callable[[bytes], Path]) -> None:
    error = refusal(bad(small + (fill * n)[-n:]))
    assert error.rule in ("T1", "T2")


def test_bytes_lost_or_added_in_the_middle(small: bytes, bad: Callable[[bytes], Path]) -> None:
    for at in range(PAGE, len(small) - TRAILER.nbytes - 64, 64):
        assert refusal(bad(small[:at] + small[at + 64 :])).rule == "T3"
        assert refusal(bad(small[:at] + bytes(64) + small[at:])).rule == "T3"


@pytest.mark.parametrize("use_mmap", [True, False])
def test_pieces_of_two_files(use_mmap: bool, small: bytes, tmp_path: Path) -> None:
    other = write_small(tmp_path / "other.hsq", start=50, file_id=b"another file id!").read_bytes()
    assert len(other) == len(small)
    path, parts = tmp_path / "mixed.hsq", Parts(small)

    def rule_of(data: bytes) -> str:
        path.write_bytes(data)
        return refusal(path, use_mmap=use_mmap).rule

    assert rule_of(small + other) == "T3"
    assert rule_of(small + small) == "T3"
    for at in range(64, len(small) - TRAILER.nbytes + 1, 64):
        # Ids differ in the first 64 bytes; in the header page, schemas are the same and so only its CRC can tell.
        assert rule_of(small[:at] + other[at:]) == ("H6" if at < PAGE else "T4")
    first, second = parts.block_at(1), parts.block_at(2)
    assert rule_of(small[:first] + other[first:second] + small[second:]) == "C1"
    index, end = parts.index_at(), parts.footer_at()
    assert rule_of(small[:index] + other[index:end] + small[end:]) == "B4"


def test_two_files_of_one_id_and_header(small: bytes, original: list[np.ndarray], tmp_path: Path) -> None:
    """The same header twice, as two runs with a given id make it: checksums still tell the records apart."""
    other = write_small(tmp_path / "other.hsq", start=50).read_bytes()
    at = Parts(small).block_at(1)
    path = tmp_path / "mixed.hsq"
    path.write_bytes(small[:at] + other[at:])
    with hs.HyperSequenceFile(path) as seq:
        with pytest.raises(hs.ChecksumError, match="block 0"):
            seq[0]
        assert seq[1][1].tolist() == [i * i for i in range(54, 58)]


# --- no .hsq file at all --------------------------------------------------------------------------------------------

HTML = b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>nginx</body></html>\n"


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize(
    "data", [b"", HTML, HTML * 1000, b"\0" * 10_000, b"\x89HDF\r\n\x1a\n" + bytes(5000), b"PK\x03\x04"]
)
def test_other_files(data: bytes, options: Any, bad: Callable[[bytes], Path]) -> None:
    path = bad(data)
    error = refusal(path, **options)
    assert error.rule == "H1"
    assert "not an .hsq file" in str(error)
    with pytest.raises(hs.FormatError):
        hs.open([path], **options)
    with pytest.raises(hs.FormatError):
        hs.open(str(path.parent / "*.hsq"), **options)


def test_tiny_and_random_files(tmp_path: Path, small: bytes) -> None:
    numbers, path = random.Random(1), tmp_path / "random.hsq"
    for n in range(1, 201):
        for data in (numbers.randbytes(n), small[:8] + numbers.randbytes(n), small[-n:], bytes([n]) * n):
            path.write_bytes(data)
            assert refusal(path, use_mmap=bool(n % 2)).rule in ("H1", "H2")
    for _ in range(40):
        # Random, but for what an early look asks for.
        body = numbers.randbytes(numbers.randrange(PAGE, 4 * PAGE))
        path.write_bytes(small[: numbers.choice([8, 12, 64, HEADER.nbytes])] + body + small[-8:])
        assert isinstance(refusal(path), hs.FormatError)


def test_a_directory(tmp_path: Path) -> None:
    for call in (hs.HyperSequenceFile, hs.open):
        with pytest.raises(hs.FileError, match="is a directory") as caught:
            call(tmp_path)
        assert isinstance(caught.value, OSError)


def test_a_missing_file(tmp_path: Path) -> None:
    for call in (hs.HyperSequenceFile, hs.open):
        with pytest.raises(FileNotFoundError, match=r"missing\.hsq"):
            call(tmp_path / "missing.hsq")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        hs.open(str(tmp_path / "*.hsq"))


def test_what_an_interrupted_writer_leaves(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        hs.HyperSequenceWriter(tmp_path / "never.hsq", BATCH, block_nbytes=1) as writer,
    ):
        writer.extend(np.zeros((N_RECORDS, 3)))
        raise KeyboardInterrupt
    (part,) = tmp_path.iterdir()
    assert refusal(part).rule == "T1"


def test_a_file_still_being_written(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "later.hsq", BATCH, block_nbytes=1) as writer:
        writer.extend(np.zeros((BATCH, 3)))
        (part,) = tmp_path.iterdir()
        assert refusal(part).rule == "T1"


def test_one_bad_file_among_good_ones(small: bytes, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.hsq").write_bytes(small)
    (tmp_path / "b.hsq").write_bytes(small[:-1])
    with pytest.raises(hs.FormatError, match=r"b\.hsq") as caught:
        hs.open(str(tmp_path / "*.hsq"))
    assert caught.value.rule == "T1"


def test_refused_files_are_closed(small: bytes, bad: Callable[[bytes], Path]) -> None:
    def next_descriptor() -> int:
        fd = os.open(os.devnull, os.O_RDONLY)
        os.close(fd)
        return fd

    gc.collect()
    before = next_descriptor()
    held = []
    for _, _, change, _ in CASES[::5]:
        path = bad(change(Parts(small)).build())
        held.append(refusal(path))
        with pytest.raises(hs.HyperSequenceError), hs.open([path, path]) as seq:
            seq.records[:], seq.user_meta()
    assert next_descriptor() == before


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.hsq")
    assert outcomes(tmp_path / "pipe.hsq", timeout=5) in (["FileError"], ["H1"])


def test_a_device_is_refused() -> None:
    assert isinstance(refusal(Path(os.devnull)), hs.FormatError | hs.FileError)


# --- damaged records ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, np.ndarray]:
    """Forty records of 64 KiB: four in a checksum run, sixteen in a block."""
    path = tmp_path_factory.mktemp("runs") / "runs.hsq"
    records = np.random.default_rng(3).integers(0, 256, (40, 1 << 16), np.uint8)
    with hs.HyperSequenceWriter(path, 2, block_nbytes=(1 << 20) + (1 << 15)) as writer:
        writer.extend(records, np.arange(40))
    return path.read_bytes(), records


@pytest.mark.parametrize("options", MODES)
@pytest.mark.parametrize("verify", ["first", "always"])
@pytest.mark.parametrize(("record", "first", "last"), [(0, 0, 3), (21, 20, 23), (31, 28, 31), (39, 36, 39)])
def test_damage_is_named_exactly_and_disturbs_nothing_else(
    record: int,
    first: int,
    last: int,
    verify: Any,
    options: Any,
    runs: tuple[bytes, np.ndarray],
    bad: Callable[[bytes], Path],
) -> None:
    data, records = runs
    parts = Parts(data)
    at = parts.payload_at(record // 16, 0) + record % 16 * (1 << 16) + 12_345
    path = bad(parts.flip(at).build())
    readings: list[Callable[[Any], Any]] = [
        lambda seq: seq[record // 2],
        lambda seq: seq.records[record],
        lambda seq: seq.records[first : first + 1],
        lambda seq: seq.records[[5, last, 17]],
        lambda seq: seq.rebatch(40)[0],
        lambda seq: list(seq.shuffled(3, by="record")),
        lambda seq: seq.select([last])[0],
        lambda seq: seq.fields("inputs").records[record],
    ]
    for reading in readings:
        with hs.HyperSequenceFile(path, verify=verify, **options) as seq, pytest.raises(hs.ChecksumError) as caught:
            reading(seq)
        error = caught.value
        assert (error.rule, error.path, error.field) == ("C1", str(path), "inputs")
        assert (error.block, error.first_record, error.last_record) == (record // 16, first, last)
        assert error.offset <= at < error.offset + 4 * (1 << 16)
        message = str(error)
        assert all(
            text in message for text in (str(path), f"block {record // 16}", f"records {first} to {last}", "inputs")
        )
    with hs.HyperSequenceFile(path, verify=verify, **options) as seq:
        others = [i for i in range(40) if not first <= i <= last]
        for _ in range(2):
            assert same(seq.records[others][0], records[others])
            assert all(same(seq.records[i][0], records[i]) for i in others[::3])
            assert seq.fields("outputs").records[:][1].tolist() == list(range(40))
            with pytest.raises(hs.ChecksumError):
                seq.records[record]


@pytest.mark.parametrize("options", MODES)
def test_never_verified(options: Any, runs: tuple[bytes, np.ndarray], bad: Callable[[bytes], Path]) -> None:
    data, records = runs
    parts = Parts(data)
    path = bad(parts.flip(parts.payload_at(1, 0)).build())
    damaged = records.copy()
    damaged[16, 0] ^= 0xFF
    with hs.HyperSequenceFile(path, verify="never", **options) as seq:
        assert same(seq.records[:][0], damaged)
        assert same(np.concatenate([batch[0] for batch in seq]), damaged)


@pytest.mark.parametrize("column", range(COLUMNS))
@pytest.mark.parametrize("block", range(N_BLOCKS))
def test_every_column_of_every_block(block: int, column: int, small: bytes, bad: Callable[[bytes], Path]) -> None:
    parts = Parts(small)
    with hs.HyperSequenceFile(bad(parts.flip(parts.payload_at(block, column)).build())) as seq:
        for i in range(N_BLOCKS):
            if i != block:
                assert seq[i][1].tolist() == [n * n for n in range(4 * i, min(10, 4 * i + 4))]
        with pytest.raises(hs.ChecksumError) as caught:
            seq[block]
        assert caught.value.field == LABELS[column]
        assert LABELS[column] in str(caught.value)
        kept = [name for n, name in enumerate(("image", "flag", "outputs")) if n != column]
        assert len(seq.fields(*kept).records[:]) == (1 if column == 2 else 2)


@pytest.mark.parametrize("options", MODES)
def test_damage_after_the_first_look(
    options: Any, small: bytes, original: list[np.ndarray], bad: Callable[[bytes], Path]
) -> None:
    """``first`` looks once, ``always`` every time."""
    parts = Parts(small)
    at, n = parts.payload_at(1, 2), parts.payload_at(1, 2) - parts.block_at(1)
    assert n > 0
    path = bad(small)
    with (
        hs.HyperSequenceFile(path, verify="first", copy_buffer=True, **options) as once,
        hs.HyperSequenceFile(path, verify="always", copy_buffer=True, **options) as always,
    ):
        for seq in (once, always):
            assert same_columns(arrays_of(seq.records[:]), original)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([small[at] ^ 1]))
        assert once[1][1].tolist() == [16 ^ 1, 25, 36, 49]
        for reading in (
            lambda: always[1],
            lambda: always.records[4],
            lambda: always.records[[5, 0]],
            lambda: always[1],
        ):
            with pytest.raises(hs.ChecksumError):
                reading()
        assert always[0][1].tolist() == [0, 1, 4, 9]


def test_a_damaged_index_entry_concerns_its_own_block_only(small: bytes, bad: Callable[[bytes], Path]) -> None:
    """Entries between the first and the last are looked at when their block is."""
    parts = Parts(small)
    path = bad(parts.flip(parts.index_at(1) + 8).build())
    with hs.HyperSequenceFile(path) as seq:
        for _ in range(2):
            assert seq[0][1].tolist() == [0, 1, 4, 9]
            assert seq[2][1].tolist() == [64, 81]
            with pytest.raises(hs.FormatError) as caught:
                seq[1]
            assert caught.value.rule == "B3"


# --- files that change while they are open --------------------------------------------------------------------------

TRUNCATE = """
import os, sys
import hypersequence as hs

path, data = sys.argv[1], open(sys.argv[1], "rb").read()
readings = {
    "batch": lambda seq: seq[1],
    "record": lambda seq: seq.records[9],
    "slice": lambda seq: seq.records[:],
    "scattered": lambda seq: seq.records[[9, 0, 5]],
    "shuffled": lambda seq: list(seq.shuffled(1, by="record")),
    "rebatched": lambda seq: list(seq.rebatch(7)),
    "metadata": lambda seq: seq.user_meta(),
    "iterating": lambda seq: [batch for batch in seq],
}
for nbytes in (0, 1, 4095, 4096, 4700, len(data) - 129, len(data) - 1):
    for use_mmap in (True, False):
        for verify in ("first", "never"):
            for touched in (False, True):
                for name, reading in readings.items():
                    with open(path, "wb") as file:
                        file.write(data)
                    for seq in (
                        hs.HyperSequenceFile(path, use_mmap=use_mmap, verify=verify),
                        hs.open([path], use_mmap=use_mmap, verify=verify),
                    ):
                        if touched:
                            seq.records[:], list(seq)
                        os.truncate(path, nbytes)
                        try:
                            reading(seq)
                            print("no error", nbytes, use_mmap, verify, touched, name)
                        except hs.FileChangedError as error:
                            assert str(nbytes) in str(error) and path in str(error)
                        with open(path, "r+b") as file:
                            file.write(data)
                        if name == "metadata":
                            assert seq.user_meta()["name"] == "small"
                        assert len(seq.records[:]) == 2  # restored, and so readable again
                        seq.close()
print("done")
"""


def run_script(script: str, *arguments: Any, timeout: float = 60) -> str:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def test_truncated_while_open(small: bytes, tmp_path: Path) -> None:
    """In a process of its own, because what must not happen here is a bus error."""
    path = tmp_path / "shrinks.hsq"
    path.write_bytes(small)
    assert run_script(TRUNCATE, path).splitlines() == ["done"]


TRUNCATE_IN_A_PASS = """
import os, sys
import hypersequence as hs
path = sys.argv[1]
data = open(path, "rb").read()
for orders in (lambda seq: seq, lambda seq: seq.shuffled(1, by="batch"), lambda seq: seq.rebatch(3)):
    for touched in (False, True):
        seq = hs.open(path)
        if touched:
            list(seq)
        batches = iter(orders(seq))
        next(batches)
        os.truncate(path, 5000)
        try:
            next(batches)
            print("no error")
        except hs.FileChangedError:
            pass
        with open(path, "r+b") as file:
            file.write(data)
        batches = iter(orders(seq))
        kept = next(batches)
        seq.close()
        try:
            next(batches)
            print("no error")
        except hs.ClosedError:
            assert len(kept) == 2 and int(kept[1].sum()) >= 0
print("done")
"""


def test_truncated_or_closed_in_the_middle_of_a_pass(numbered: Path) -> None:
    assert run_script(TRUNCATE_IN_A_PASS, numbered).splitlines() == ["done"]


@pytest.mark.parametrize("options", MODES)
def test_replaced_while_open(options: Any, small: bytes, original: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "replaced.hsq"
    path.write_bytes(small)
    with hs.HyperSequenceFile(path, **options) as seq, hs.open([path, path], **options) as joined:
        first = seq[0]
        pickled = [pickle.dumps(one) for one in (seq, seq.shuffled(1), seq.rebatch(3), seq.records, joined)]
        alive = pickle.loads(pickled[0])
        write_small(path, start=50, file_id=b"another file id!", meta={"new": True})
        assert same_columns(arrays_of(seq.records[:]), original)
        assert same_columns([np.concatenate(c) for c in zip(*map(arrays_of, seq), strict=True)], original)
        assert same_columns(arrays_of(alive.records[:]), original)
        assert same(arrays_of(first)[0], original[0][:4])
        assert seq.user_meta() == META
        with hs.HyperSequenceFile(path, **options) as new:
            assert int(new[0][1][0]) == 2500
            assert new.user_meta() == {"new": True}
        for data in [*pickled, pickle.dumps(seq), pickle.dumps(seq[1:])]:
            with pytest.raises(hs.FileChangedError, match="was replaced"):
                pickle.loads(data)
        alive.close()
        path.unlink()
        assert same_columns(arrays_of(seq.records[:]), original)
        with pytest.raises(FileNotFoundError):
            pickle.loads(pickled[0])


@pytest.mark.parametrize("options", MODES)
def test_a_pickled_sequence_refuses_the_same_file_with_other_records(
    options: Any, small: bytes, tmp_path: Path
) -> None:
    """Same id, same length, same numbers of everything: the digest tells them apart."""
    path = tmp_path / "rewritten.hsq"
    path.write_bytes(small)
    with hs.HyperSequenceFile(path, **options) as seq:
        pickled = pickle.dumps(seq)
    write_small(path, start=50)
    assert path.stat().st_size == len(small)
    with pytest.raises(hs.FileChangedError):
        pickle.loads(pickled)
    path.write_bytes(small[:-1])
    with pytest.raises(hs.FormatError):
        pickle.loads(pickled)


@pytest.mark.parametrize("options", MODES)
def test_overwritten_in_place_while_open(options: Any, small: bytes, tmp_path: Path) -> None:
    """Not even another sound file of the same geometry is mistaken for the one that was opened."""
    path = tmp_path / "overwritten.hsq"
    path.write_bytes(small)
    other = write_small(tmp_path / "other.hsq", start=50, file_id=b"another file id!", meta=META | {"name": "other"})
    new = other.read_bytes()
    assert len(new) == len(small)
    with hs.HyperSequenceFile(path, **options) as seq:
        assert seq[0][1].tolist() == [0, 1, 4, 9]
        with path.open("r+b") as file:
            file.write(new)
        for reading in (lambda: seq[1], lambda: seq[2], lambda: seq.records[[9, 5]], seq.user_meta):
            with pytest.raises(hs.FormatError) as caught:
                reading()
            assert caught.value.rule in ("B4", "C1", "F3")


def test_grown_while_open(small: bytes, original: list[np.ndarray], tmp_path: Path) -> None:
    path = tmp_path / "grows.hsq"
    path.write_bytes(small)
    with hs.HyperSequenceFile(path) as seq:
        with path.open("ab") as file:
            file.write(b"more")
        assert same_columns(arrays_of(seq.records[:]), original)
    assert refusal(path).rule == "T1"


@pytest.mark.parametrize("options", MODES)
def test_use_after_close(options: Any, small: bytes, bad: Callable[[bytes], Path]) -> None:
    path = bad(small)
    seq = hs.HyperSequenceFile(path, **options)
    joined = hs.open([path, path], **options)
    shuffled, records = seq.shuffled(1, by="record"), seq.records
    seq[0], records[:], joined[0], shuffled[0]
    seq.close()
    joined.close()
    readings: list[Callable[[], Any]] = [
        *(lambda: seq[0], lambda: seq[-1], lambda: list(seq), lambda: seq[:1][0], lambda: seq.rebatch(5)[0]),
        *(lambda: records[3], lambda: records[2:9], lambda: records[[7, 1]], lambda: shuffled[1], lambda: joined[0]),
        *(lambda: seq.fields("outputs")[0], seq.user_meta, joined.user_meta, lambda: joined.records[[15, 2]]),
        *(lambda: seq.at_epoch(1)[0], lambda: seq.map(lambda batch: batch)[0], lambda: seq.split(0.5)[0][0]),
    ]
    for reading in readings:
        with pytest.raises(hs.ClosedError, match="was closed") as caught:
            reading()
        assert isinstance(caught.value, ValueError)
        assert path.name in str(caught.value)
    assert (len(seq), seq.n_records, seq.batch_size()) == (3, 10, 4)
    assert "closed" in repr(seq)
    seq.close()


def test_use_of_a_writer_after_close(tmp_path: Path) -> None:
    path = write_small(tmp_path / "done.hsq")
    writer = hs.HyperSequenceWriter(tmp_path / "closed.hsq", 2)
    writer.append(np.zeros(3), 1)
    writer.close()
    data = (tmp_path / "closed.hsq").read_bytes()
    for call in (lambda: writer.append(np.zeros(3), 1), lambda: writer.extend(np.zeros((2, 3)), np.zeros(2, np.int64))):
        with pytest.raises(hs.ClosedError):
            call()
    writer.close()
    assert (tmp_path / "closed.hsq").read_bytes() == data
    assert sorted(tmp_path.iterdir()) == sorted([path, tmp_path / "closed.hsq"])


@pytest.mark.parametrize("options", MODES)
def test_arrays_outlive_the_file(
    options: Any, small: bytes, original: list[np.ndarray], bad: Callable[[bytes], Path]
) -> None:
    path = bad(small)
    with hs.HyperSequenceFile(path, **options) as seq:
        batches, scattered = [seq[i] for i in range(3)], seq.records[[9, 3, 0]]
        rows = [seq.records[i] for i in range(10)]
    del seq
    gc.collect()
    path.unlink()
    found = [np.concatenate(c) for c in zip(*map(arrays_of, batches), strict=True)]
    assert same_columns(found, original)
    assert same_columns(arrays_of(scattered), [full[[9, 3, 0]] for full in original])
    assert [int(row[1]) for row in rows] == original[2].tolist()


# --- sizes that only exist on paper ---------------------------------------------------------------------------------

LIMITED = """
import json, os, resource, sys
import numpy as np
import hypersequence as hs

room, tasks = int(sys.argv[1]), sys.argv[2:]
if os.path.exists("/proc/self/statm"):  # elsewhere no limit of this kind is kept
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room, used + room))
found = []
for task in tasks:
    path, _, mode = task.partition("|")
    try:
        with hs.HyperSequenceFile(path, use_mmap=mode != "read") as seq:
            repr(seq), seq.dtypes(), seq.user_meta()
            for i in range(min(len(seq), 100)):
                seq[i], seq.records[i], seq.records[[0, i, seq.n_records - 1]], seq.rebatch(3)[i]
        found.append("fine")
    except hs.HyperSequenceError as error:
        found.append(getattr(error, "rule", type(error).__name__))
    except BaseException as error:
        found.append(f"{type(error).__name__}: {str(error)[:200]}")
print(json.dumps(found))
"""


def outcomes(*tasks: Any, room: int = 256 << 20, timeout: float = 60) -> list[str]:
    """What reading each file ends with, in a process that may take only so much memory more than it has."""
    return json.loads(run_script(LIMITED, room, *tasks, timeout=timeout))


def test_no_case_of_the_table_takes_much_memory(small: bytes, tmp_path: Path) -> None:
    tasks: list[str] = []
    for i, (_, _, change, _) in enumerate(CASES):
        (tmp_path / f"{i}.hsq").write_bytes(change(Parts(small)).build())
        tasks += [f"{tmp_path / f'{i}.hsq'}|{mode}" for mode in ("mmap", "read")]
    found = outcomes(*tasks)
    expected = [rule for rule, *_ in CASES for _ in range(2)]
    wrong = [
        f"{CASES[i // 2][:2]}: {have}"
        for i, (have, want) in enumerate(zip(found, expected, strict=True))
        if have != want
    ]
    assert not wrong


def empty_file(tmp_path: Path, shape: list[int], n_records: int, batch_size: int) -> Path:
    """A file of records that take no bytes, however many they are, or of none at all."""
    path = tmp_path / "empty.hsq"
    with hs.HyperSequenceWriter(path, 1, schema=hs.Schema(hs.Field("float32", (0,))), file_id=bytes(16)) as writer:
        if n_records:
            writer.append(np.zeros(0, np.float32))
    parts = Parts(path.read_bytes())
    parts.schema({"inputs": {"kind": "single", "fields": [{"type": "float32", "shape": shape}]}})
    parts.header(batch_size=batch_size, block_records=max(batch_size, n_records), stride=2**63 - 64)
    if n_records:
        parts.frame(0, n_records=n_records).trailer(n_records=n_records)
    path.write_bytes(parts.build())
    return path


@pytest.mark.parametrize("shape", [[1 << 38], [1 << 31], [1 << 28, 4, 4], [(1 << 29) - 1]])
def test_records_of_a_terabyte_none_of_which_exists(shape: list[int], tmp_path: Path) -> None:
    """A kilobyte of header may plan records that large. It can be looked at; there is nothing to read."""
    path = empty_file(tmp_path, shape, 0, 1)
    assert set(outcomes(f"{path}|mmap", f"{path}|read")) <= {"fine", "H9"}


@pytest.mark.parametrize("shape", [[0], [0, 3], [0, 1 << 35], [1 << 20, 0, 1 << 10]])
def test_endless_records_of_no_bytes(shape: list[int], tmp_path: Path) -> None:
    """Reading them must not count them one by one, nor overflow; a file may also be refused for them."""
    tasks: list[str] = []
    for n_records in (1 << 20, 1 << 40, 1 << 61, (1 << 63) - 1):
        path = empty_file(tmp_path, shape, n_records, n_records).rename(tmp_path / f"{n_records}.hsq")
        tasks += [f"{path}|mmap", f"{path}|read"]
    found = outcomes(*tasks, room=64 << 20)
    assert found[:2] == ["fine", "fine"] or {*found[:2]} == {"H9"}  # a million of them are nothing unusual
    assert {*found} <= {"fine", "H7", "H9", "T5"}


def test_a_sparse_file_with_endless_metadata(small: bytes, tmp_path: Path) -> None:
    """User metadata over the limit of 64 MiB are refused before they are read."""
    path, nbytes = tmp_path / "sparse.hsq", 4 << 30
    parts = Parts(small)
    footer, footer_crc = footer_of((b"usermeta", b""), nbytes=nbytes)
    at = parts.footer_at()
    parts.footer(footer, footer_crc).trailer(footer_nbytes=len(footer) + nbytes)
    file_nbytes = at + len(footer) + nbytes + TRAILER.nbytes
    data = parts.trailer(file_nbytes=file_nbytes).build()
    write_sparse(path, data[: -TRAILER.nbytes], file_nbytes, data[-TRAILER.nbytes :])
    assert outcomes(f"{path}|read")[0] in ("F2", "F3")


@pytest.mark.parametrize("last", [False, True])
def test_a_sparse_file_with_an_endless_index(last: bool, small: bytes, tmp_path: Path) -> None:
    """The length of an index entry is judged before so many bytes are read."""
    path, nbytes = tmp_path / "sparse.hsq", 4 << 30
    parts = Parts(small)
    if not last:
        parts.frame(0, frame_nbytes=2**32 - 64)
    shift = nbytes - (parts.footer_at() - parts.index_at())
    file_nbytes = parts.footer_at() + shift + len(parts.foot) + TRAILER.nbytes
    parts.trailer(footer_offset=parts.footer_at() + shift, index_nbytes=nbytes, file_nbytes=file_nbytes)
    data, at = parts.build(), parts.footer_at()
    write_sparse(path, data[:at], file_nbytes, data[at:])
    assert outcomes(f"{path}|read")[0] in ("I1", "B2")


def write_sparse(path: Path, front: bytes, nbytes: int, back: bytes) -> None:
    with path.open("wb") as file:
        file.write(front)
        file.seek(nbytes - len(back))
        file.write(back)
    assert path.stat().st_size == nbytes


# --- thousands of small lies ----------------------------------------------------------------------------------------

VALUES = [*range(9), 63, 64, 96, 128, 255, 256, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 64, BIG]
ODD = [None, True, -1, 0, 1.5, 2**62, 10**30, "", "x", "object", [], {}, [0], [2, 3], "float64", "single", "dict"]


def objects_in(value: Any) -> list[dict[str, Any]]:
    """All objects of some JSON, the outermost first."""
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    own = [value] if isinstance(value, dict) else []
    return own + [one for member in members for one in objects_in(member)]


def lie(parts: Parts, numbers: random.Random) -> str:
    """Change one thing, and say of which kind it was."""

    def value(layout: Layout, name: str, old: Any) -> Any:
        code = layout.places[name][1][1:]
        if code.endswith("s"):
            return numbers.randbytes(int(code[:-1]))
        bits = 8 * struct.calcsize("<" + code)
        near = [old + 1, old - 1, old * 2, old // 2, old + 64, old ^ 1 << numbers.randrange(bits)]
        new = numbers.choice([*VALUES, *near])
        return new % 2 ** (bits - 1) if code == "q" else new % 2**bits

    where = numbers.choice(["header", "frame", "chunk", "chunk", "trailer", "footer", "schema"])
    block, column = numbers.randrange(N_BLOCKS), numbers.randrange(COLUMNS)
    if where == "schema":
        schema = json.loads(parts.text)
        target = numbers.choice(objects_in(schema))
        target[numbers.choice([*target, "outputs", "extra"])] = numbers.choice(ODD)
        parts.schema(schema)
    elif where == "footer":
        content = json.dumps(META).encode()
        name = numbers.choice(list(SECTION.places))
        parts.footer(*footer_of((b"usermeta", content), **{name: value(SECTION, name, len(content))}))
    elif where == "trailer":
        name = numbers.choice(list(TRAILER.places))
        parts.trailer(**{name: value(TRAILER, name, TRAILER.get(parts.tail, name))})
    elif where == "header":
        name = numbers.choice(list(HEADER.places))
        parts.header(**{name: value(HEADER, name, HEADER.get(parts.head, name))})
    elif where == "frame":
        name = numbers.choice(list(FRAME.places))
        parts.frame(block, **{name: value(FRAME, name, FRAME.get(parts.frames[block], name))})
    else:
        name = numbers.choice(list(CHUNK.places))
        changed = value(CHUNK, name, parts.chunk_of(block, column, name))
        for one in range(N_BLOCKS) if numbers.random() < 0.5 else [block]:
            parts.chunk(one, column, **{name: changed})
    return where


@pytest.mark.parametrize("options", MODES)
def test_a_thousand_lies(options: Any, small: bytes, original: list[np.ndarray], tmp_path: Path) -> None:
    """One or two fields changed, every checksum right: an error of ours, or the original records."""
    numbers, path = random.Random(20), tmp_path / "lies.hsq"
    refused = 0
    for i in range(1000):
        parts = Parts(small)
        kinds = {lie(parts, numbers) for _ in range(numbers.choice([1, 1, 2]))}
        path.write_bytes(parts.build())
        try:
            columns, meta = read_all(path, **options)
        except hs.HyperSequenceError:
            refused += 1
            continue
        except Exception as error:
            raise AssertionError(f"lie {i} in {kinds}") from error
        if "schema" not in kinds:
            assert same_columns(columns, original), f"lie {i} in {kinds}"
        assert meta == META or "footer" in kinds
    assert refused > 500

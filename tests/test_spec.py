"""SPEC.md, the code and the golden files say the same.

What SPEC.md puts into tables is taken from there and held against the code; what it says in words is held by the
reference reader, which was written from it alone, and by small implementations below in plain Python integers.
"""

import ast
import gzip
import hashlib
import inspect
import json
import math
import re
import struct
from fractions import Fraction
from itertools import accumulate, islice
from pathlib import Path

import numpy as np
import pytest

import hypersequence as hs
from hypersequence import elements, legacy, schema, strictjson
from hypersequence.layout import block, block_geometry, checks, header, plan_geometry, run_records, tail
from hypersequence.order import (
    Evenly,
    Mixed,
    Natural,
    Sharded,
    Shuffled,
    Windowed,
    compose,
    parts_of,
    permute,
    split_counts,
    whole_weights,
)
from hypersequence.order.permute import Permutation, key_words
from hypersequence.sequence.mapping import Mapper
from make_golden import FOLDER, count, goldens, write
from reference_reader import read

ROOT = Path(__file__).parent.parent
SPEC = (ROOT / "SPEC.md").read_text(encoding="utf-8")
TYPE_NBYTES = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i64": 8}


def table(name):
    """The rows of a table of SPEC.md, each a dict by column title; backticks around a cell are taken off."""
    found = re.findall(rf"^\*\*Table: {re.escape(name)}\*\*\n\n((?:\|.*\n)+)", SPEC, re.MULTILINE)
    assert len(found) == 1, f"SPEC.md has {len(found)} tables called {name!r}"
    titles, rule, *rows = [[cell.strip() for cell in line.strip("|\n").split(" | ")] for line in found[0].splitlines()]
    assert set(rule) == {"---"} and len(rule) == len(titles)
    assert rows and all(len(row) == len(titles) for row in rows), f"ragged rows in {name!r}"
    return [dict(zip(titles, (_bare(cell) for cell in row), strict=True)) for row in rows]


def _bare(cell):
    return cell[1:-1] if len(cell) > 2 and cell[0] == cell[-1] == "`" and "`" not in cell[1:-1] else cell


def numbers(cell):
    return [int(n) for n in cell.split()]


def parts(cell):
    return [numbers(part) for part in cell.split("/")]


def rule_of(parse, *arguments):
    """The rule by which a function refuses its arguments."""
    with pytest.raises(hs.FormatError) as caught:
        parse(*arguments)
    return caught.value.rule


# --- byte tables -----------------------------------------------------------------------------------------------------


def take_apart(name, data, sizes):
    """The fields of a structure by the table of that name, which must cover all of ``data`` without gap or overlap.

    ``sizes`` gives the numbers that the table's expressions mention.
    """
    fields, end = {}, 0
    for row in table(name):
        offset, nbytes = (eval(row[key], {"__builtins__": {}}, dict(sizes)) for key in ("offset", "size"))
        assert offset == end, f"{name}: {row['name']} begins at {offset}, what stands before it ends at {end}"
        assert row["name"] not in fields
        end = offset + nbytes
        raw = data[offset:end]
        if row["type"] == "bytes":
            fields[row["name"]] = raw
        else:
            assert nbytes == TYPE_NBYTES[row["type"]], f"{name}: {row['name']} is a {row['type']} of {nbytes} bytes"
            fields[row["name"]] = int.from_bytes(raw, "little", signed=row["type"] == "i64")
        if printed := re.match(r"`((?:[0-9a-f]{2} )+[0-9a-f]{2})`", row["meaning"]):
            assert raw == bytes.fromhex(printed[1]), f"{name}: {row['name']} is printed with other bytes"
    assert end == len(data), f"{name}: the table has {end} bytes, the code writes {len(data)}"
    return fields


def test_header_table():
    given = hs.Schema({"größe": hs.Field("float32", (2, 3))}, "int64", hs.Field("bool"))
    data = header.encode_header(
        given, 0x0102030405060708, 0x1112131415161718, 0x2122232425262728, b"0123456789abcdef", -5
    )
    text = header._encode_schema(given)
    fields = take_apart("header", data, {"schema_nbytes": len(text), "header_nbytes": 4096})
    assert fields["crc"] == checks.crc32(data[:-4])
    assert fields == {
        "magic": header.MAGIC,
        "version": header.VERSION,
        "reserved_1": 0,
        "header_nbytes": 4096,
        "required_flags": 0,
        "optional_flags": 0,
        "file_id": b"0123456789abcdef",
        "created_ns": -5,
        "batch_size": 0x0102030405060708,
        "block_records": 0x1112131415161718,
        "stride": 0x2122232425262728,
        "schema_nbytes": len(text),
        "reserved_2": 0,
        "schema": text,
        "padding": bytes(4096 - 92 - len(text)),
        "crc": int.from_bytes(data[-4:], "little"),
    }


def test_header_flags_stand_where_the_table_says():
    by_name = {row["name"]: row for row in table("header")}
    good = header.encode_header(hs.Schema("int8"), 1, 1, 64, bytes(16), 0)

    def with_bytes(name, value):
        at = int(by_name[name]["offset"])
        data = good[:at] + value + good[at + len(value) : -4]
        return data + checks.crc32(data).to_bytes(4, "little")

    for name in ("reserved_1", "optional_flags"):
        assert header.parse_header(with_bytes(name, b"\x07"), "x").schema == hs.Schema("int8")
    for name, rule in (("required_flags", "H5"), ("reserved_2", "H7"), ("version", "H3")):
        assert rule_of(header.parse_header, with_bytes(name, b"\x04"), "x") == rule
    damaged = {"version": "H3", "header_nbytes": "H4", "required_flags": "H6", "reserved_2": "H6"}
    for name, rule in damaged.items():  # the CRC is left as it was
        at = int(by_name[name]["offset"])
        assert rule_of(header.parse_header, good[:at] + b"\x04" + good[at + 1 :], "x") == rule
    with pytest.raises(hs.UnsupportedError, match="bits 0, 1"):
        header.parse_header(with_bytes("required_flags", b"\x03"), "x")


def test_frame_and_chunk_tables():
    chunks = (
        block.Chunk(0x0102030405060700, 0x1112131415161718, 0x2122232425262728, b"abcdefghABCDEFGH"),
        block.Chunk(0x3132333435363700, 0x4142434445464748, 0x5152535455565758, b"01234567"),
    )
    length = block.frame_nbytes(2, 3)
    frame = block.Frame(0x61626364, 0x71727374, 0x01020304, 0x11121314, 0x21222324, length, chunks)
    data = block.encode_frame(frame, b"0123456789abcdef")
    fields = take_apart("frame", data, {"n_chunks": 2, "n_runs": 3, "frame_nbytes": length})
    rows = fields.pop("chunk_rows")
    assert fields.pop("crc") == checks.crc32(data[:-4])
    assert fields == {
        "magic": block.BLOCK_MAGIC,
        "file_id": b"0123456789abcdef",
        "number": 0x61626364,
        "offset": 0x71727374,
        "first_record": 0x01020304,
        "n_records": 0x11121314,
        "nbytes": 0x21222324,
        "frame_nbytes": length,
        "n_chunks": 2,
        "flags": 0,
        "reserved": 0,
        "checksums": b"abcdefghABCDEFGH01234567",
        "padding": bytes(length - 84 - 96 - 24),
    }
    assert length % 64 == 0 and length - 64 < 84 + 96 + 24
    kinds = {"role": block.ROLE_VALUES, "encoding": block.ENCODING_FIXED, "codec": block.CODEC_RAW, "flags": 0}
    for number, chunk in enumerate(chunks):
        assert take_apart("chunk row", rows[48 * number : 48 * number + 48], {}) == {
            "column": number,
            **kinds,
            "offset": chunk.offset,
            "stored_nbytes": chunk.nbytes,
            "raw_nbytes": chunk.nbytes,
            "run_nbytes": chunk.run_nbytes,
            "n_runs": len(chunk.checksums) // 8,
            "first_run": 2 * number,
        }


def test_footer_tables():
    data, crc = tail.encode_footer({"a": "ü"})
    fields = take_apart("footer", data, {"n_sections": 1, "footer_nbytes": len(data)})
    assert fields["n_sections"] == 1
    assert fields["contents"] == '{"a":"ü"}'.encode()
    assert crc == checks.crc32(data[:36])
    row = take_apart("section row", fields["section_rows"], {})
    expected = {"tag": b"usermeta", "offset": 36, "nbytes": 10, "crc": checks.crc32(fields["contents"]), "reserved": 0}
    assert row == expected
    assert f"`{row['tag'].decode()}` (`{row['tag'].hex(' ')}`)" in SPEC
    assert tail.encode_footer({}) == (bytes(4), checks.crc32(bytes(4)))


def test_trailer_table():
    values = [0x0101010101010101 * i for i in range(1, 7)]
    trailer = tail.Trailer(*values, 0x61626364, 0x7172737475767778, b"0" * 16, b"1" * 16, 0x41424344)
    data = tail.encode_trailer(trailer)
    assert len(data) == tail.TRAILER_NBYTES == 128
    fields = take_apart("trailer", data, {})
    assert fields.pop("end_magic") == data[-8:]
    assert fields.pop("crc") == checks.crc32(data[:116])
    assert (fields.pop("reserved_1"), fields.pop("reserved_2")) == (bytes(4), bytes(16))
    assert fields == {name: getattr(trailer, name) for name in tail.Trailer.__dataclass_fields__}


@pytest.mark.parametrize("name", ["reserved_1", "reserved_2"])
def test_readers_ignore_reserved_bytes_of_the_trailer(name, tmp_path):
    (row,) = (row for row in table("trailer") if row["name"] == name)
    at, data = int(row["offset"]) - 128, printed_file()
    body = data[-128:at] + b"\xff" * int(row["size"]) + data[at + int(row["size"]) : -12]
    path = tmp_path / "later.hsq"
    path.write_bytes(data[:-128] + body + checks.crc32(body).to_bytes(4, "little") + data[-8:])
    with hs.HyperSequenceFile(path) as sequence:
        assert sequence[0][0].tolist() == read(path)["columns"][0].tolist() == [7]


def test_a_crc_over_entries_with_their_own_crcs_would_depend_on_lengths_only():
    def entry(fill):
        return fill + checks.crc32(fill).to_bytes(4, "little")

    assert checks.crc32(entry(b"a" * 60) + entry(b"b" * 188)) == checks.crc32(entry(b"c" * 60) + entry(b"d" * 188))


def test_key_input_tables():
    data = b"hsq permutation 1" + struct.pack("<QQQIIQ", 1, 2, 10, 2, 5, 6)
    fields = take_apart("key input", data, {})
    assert fields == {"label": data[:17], "seed": 1, "epoch": 2, "n": 10, "purpose": 2, "counter": 5, "window": 6}
    assert len(data) == 57 and "SHA-256 of 49 bytes, or of 57 if `purpose` is 2" in SPEC
    purposes = {int(row["purpose"]): row["what the words are for"] for row in table("purposes")}
    for purpose, word in (
        (permute.PURPOSE_ALL, "records or of batches"),
        (permute.PURPOSE_BLOCKS, "blocks"),
        (permute.PURPOSE_WINDOW, "records of one window"),
        (permute.PURPOSE_MIX, "mix"),
    ):
        assert word in purposes.pop(purpose)
    assert not purposes
    data = b"hsq map 1" + struct.pack("<QQQQ", 7, 2, 3, 96)
    fields = take_apart("map input", data, {})
    assert fields == {"label": data[:9], "seed": 7, "number": 2, "epoch": 3, "first_record": 96}


# --- schema, types, limits -------------------------------------------------------------------------------------------


def test_schema_example_is_what_the_code_writes():
    (example,) = re.findall(r"```json\n(.*)\n```", SPEC)
    given = hs.Schema({"image": hs.Field("uint8", (28, 28))}, "int64")
    assert header._encode_schema(given).decode() == example
    kinds = next(row["value"] for row in table("role") if row["key"] == "kind")
    assert re.findall(r'`"(\w+)"`', kinds) == ["single", "tuple", "dict"]
    assert [row["key"] for row in table("field")] == ["name", "type", "shape"]


def test_element_types_are_the_closed_list():
    fixed = {row["name"]: row["size"] for row in table("element types")}
    parametric = {name: fixed.pop(name) for name in list(fixed) if "<" in name}
    assert {name: str(dtype.itemsize) for name, dtype in elements._BY_NAME.items()} == fixed
    assert list(parametric) == ["S<n>", "U<n>", "datetime64[<unit>]", "timedelta64[<unit>]"]
    (sentence,) = re.findall(r"`<unit>` is one of (.*?), which may", SPEC, re.DOTALL)
    units = re.findall(r"`(\w+)`", sentence)
    assert tuple(units) == elements._TIME_UNITS
    for kind in ("datetime64", "timedelta64"):
        assert all(elements.dtype_from_name(f"{kind}[{n}{unit}]") for unit in units for n in ("", 1, 999999999))
        assert not any(elements.dtype_from_name(f"{kind}{bad}") for bad in ("", "[]", "[0s]", "[1000000000s]", "[S]"))
    for name, ok in (
        ("S0", 1),
        ("U0", 1),
        ("S2147483647", 1),
        ("S2147483648", 0),
        ("U536870911", 1),
        ("U536870912", 0),
    ):
        assert (elements.dtype_from_name(name) is not None) == bool(ok), name
    assert not any(elements.dtype_from_name(bad) for bad in ("S", "S01", "S-1", "V4", "O", "<f4", "f4", "float32 "))
    every = goldens()["every-type"].inputs
    assert set(fixed) <= set(every) and {"S5", "U3"} <= set(every)
    assert {f"{kind}[{unit}]" for kind in ("datetime64", "timedelta64") for unit in units} <= set(every)


def test_limits_are_those_of_the_code():
    limits = {row["what"]: int(row["limit"].removesuffix(" bytes")) for row in table("limits")}
    assert limits == {
        "header": header.MAX_HEADER_NBYTES,
        "fields": schema.MAX_FIELDS,
        "dimensions of a field": schema.MAX_DIMENSIONS,
        "bytes of one record of a field": schema.MAX_RECORD_NBYTES,
        "bytes of a field name": schema.MAX_NAME_NBYTES,
        "bytes of one `S` or `U` value": np.iinfo(np.int32).max,
        "levels of JSON below the outermost value": strictjson.MAX_DEPTH,
        "values in one JSON text": strictjson.MAX_VALUES,
        "frame": block.MAX_FRAME_NBYTES,
        "checksum run": block.MAX_RUN_NBYTES,
        "footer sections": tail.MAX_SECTIONS,
        "user metadata": tail.MAX_META_NBYTES,
        "offsets, lengths, counts": checks.MAX_U63,
        "metadata of older layouts, unpacked": legacy._MAX_META_NBYTES,
        "search for the marker of 0.9, from the end": legacy._MARKER_SEARCH_NBYTES,
    }


@pytest.mark.parametrize("levels", [64, 65])
def test_json_depth_is_counted_as_the_spec_says(levels):
    data = b"[" * levels + b"0" + b"]" * levels  # the 0 lies that many levels below the outermost value
    if levels <= strictjson.MAX_DEPTH:
        assert checks.decode_json(data, "x", "F3", "user metadata") is not None
    else:
        with pytest.raises(hs.FormatError, match="F3"):
            checks.decode_json(data, "x", "F3", "user metadata")


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", '{"a":1,"a":1}', "\ufeff1"])
def test_json_that_the_spec_refuses(text):
    assert rule_of(checks.decode_json, text.encode(), "x", "F3", "user metadata") == "F3"
    assert checks.decode_json(b"[1e308,-1e308,1e-999]", "x", "F3", "user metadata") == [1e308, -1e308, 0]


def test_names_are_refused_for_the_characters_that_the_spec_lists():
    (sentence,) = re.findall(r"no character of the Unicode categories (.*?)\. It must", SPEC, re.DOTALL)
    printed = [int(code, 16) for code in re.findall(r"U\+([0-9A-F]{4})", sentence)]
    controls, more_controls, surrogates = (range(printed[i], printed[i + 1] + 1) for i in (0, 2, 4))
    listed = {*controls, *more_controls, *surrogates, *printed[6:]}
    assert len(printed) == 8 and {0, 0x7F, 0xDFFF, 0x2028, 0x2029} <= listed
    assert {code for code in range(0x11000) if schema.name_problem(chr(code))} == listed
    assert schema.name_problem("") and schema.name_problem("ä" * 128) and not schema.name_problem("ä" * 127 + "a")
    assert any("\u200c" in name for name in goldens()["names"].inputs)


def test_user_metadata_over_the_limit_are_refused():
    section = tail.Section(0, tail.MAX_META_NBYTES + 1, 0)
    with pytest.raises(hs.FormatError, match="over the limit") as caught:
        tail.parse_meta(b"", "x", section)
    assert caught.value.rule == "F3"


def test_assigned_numbers():
    used = {
        (row["where"], row["meaning"]): int(row["number"])
        for row in table("assigned numbers")
        if row["state"] == "used"
    }
    assert used == {
        ("chunk role", "values"): block.ROLE_VALUES,
        ("chunk encoding", "fixed-length values"): block.ENCODING_FIXED,
        ("chunk codec", "raw"): block.CODEC_RAW,
    }
    reserved = {(row["where"], row["number"]) for row in table("assigned numbers") if row["state"] == "reserved"}
    flags, chunks = ("required flag", "bit 0"), ("chunk role", "1")
    assert {
        flags,
        ("required flag", "bit 1"),
        chunks,
        ("chunk role", "2"),
        ("chunk codec", "1"),
        ("chunk codec", "2"),
    } == reserved
    assert header._KNOWN_REQUIRED_FLAGS == 0


# --- rejection rules -------------------------------------------------------------------------------------------------


def rules_in_code():
    """Rule -> kinds of error, from every call in the package that names a rule."""
    found = {}
    for path in sorted((ROOT / "src" / "hypersequence").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            named = {keyword.arg: keyword.value for keyword in node.keywords}
            given = [*node.args, named.get("rule")]
            rules = [a.value for a in given if isinstance(a, ast.Constant) and re.fullmatch(r"[A-Z]\d+", str(a.value))]
            if called in ("fail", "_fail", "_problem", "decode_json") or "rule" in named:
                kind = "UnsupportedError" if "unsupported" in named else "FormatError"
                for rule in rules:
                    found.setdefault(rule, set()).add(called if called == "ChecksumError" else kind)
    return found


def test_every_rule_of_the_code_is_in_the_spec_and_the_other_way_round():
    families = ("header", "trailer", "footer", "frame", "index", "content", "verification", "legacy")
    rows = [row for family in families for row in table(f"{family} rules")]
    assert len({row["rule"] for row in rows}) == len(rows)
    assert {row["rule"]: set(row["kind"].split(", ")) for row in rows} == rules_in_code()
    numbered = [row["rule"] for row in rows]
    wanted = {"H": 9, "T": 7, "F": 3, "B": 9, "I": 4, "C": 1, "P": 5, "L": 5}
    assert numbered == [f"{letter}{n}" for letter, last in wanted.items() for n in range(1, last + 1)]


def test_every_rule_that_the_text_mentions_exists():
    known = rules_in_code()
    assert set(re.findall(r"\b([HTFBICPL]\d)\b", SPEC)) == set(known)


# --- geometry --------------------------------------------------------------------------------------------------------


def align(n, unit=64):
    return (n + unit - 1) // unit * unit


def recommended(record_nbytes, n_records):
    """Frame length, chunk offsets and stride by the steps of section 5.1, for blocks of ``n_records``."""
    runs = {n: max(1, 262144 // n) for n in record_nbytes if n}
    n_runs = sum(-(-n_records // runs[n]) for n in record_nbytes if n)
    frame = end = align(80 + 48 * len(record_nbytes) + 8 * n_runs + 4)
    offsets = {}
    for nbytes, column in sorted((nbytes, column) for column, nbytes in enumerate(record_nbytes)):
        offsets[column] = align(end)
        end = offsets[column] + nbytes * n_records
    unit = 64
    for nbytes in sorted({n for n in record_nbytes if 1 <= n <= 65536}):
        joined = math.lcm(unit, nbytes)
        if 100 * align(end, joined) <= 103 * end:
            unit = joined
    return frame, [offsets[column] for column in range(len(record_nbytes))], align(end, unit)


def test_geometry_examples():
    for row in table("geometry examples"):
        sizes, batch_size = numbers(row["record_nbytes"]), int(row["batch_size"])
        block_records = batch_size * max(1, (8 << 20) // (batch_size * max(1, sum(sizes))))
        frame, offsets, stride = recommended(sizes, block_records)
        printed = tuple(int(row[key]) for key in ("block_records", "frame_nbytes", "stride"))
        assert (block_records, frame, stride, offsets) == (*printed, numbers(row["chunk offsets"]))
        found = plan_geometry(sizes, batch_size)
        assert (found.block_records, found.frame_nbytes, found.stride, list(found.offsets)) == (*printed, offsets)


@pytest.mark.parametrize("block_nbytes", [1, 700, 100_000, 3_000_000])
def test_geometry_steps_are_those_of_the_writer(block_nbytes):
    n_joined = 0
    for sizes in (
        [1],
        [0],
        [7, 0, 7],
        [24, 8],
        [96, 2],
        [1000, 999, 1001],
        [262144, 262145, 1],
        [65536, 65537],
        [3] * 40,
    ):
        for batch_size in (1, 5, 64):
            block_records = batch_size * max(1, block_nbytes // (batch_size * max(1, sum(sizes))))
            found = plan_geometry(sizes, batch_size, block_nbytes)
            assert found.block_records == block_records
            assert (found.frame_nbytes, list(found.offsets), found.stride) == recommended(sizes, block_records)
            compact = block_geometry(sizes, 3)
            assert (compact.frame_nbytes, list(compact.offsets)) == recommended(sizes, 3)[:2]
            n_joined += found.stride % 64 == 0 and all(found.stride % n == 0 for n in sizes if n)
    assert n_joined > 0
    assert [run_records(n) for n in (1, 1000, 131072, 131073, 262144, 262145, 10**9)] == [262144, 262, 2, 1, 1, 1, 1]


# --- the smallest file, the golden files, the reference reader -------------------------------------------------------


def printed_file():
    """The bytes of the hex dump, whose offsets must follow each other."""
    (dump,) = re.findall(r"```hexdump\n(.*?)\n```", SPEC, re.DOTALL)
    data = b""
    for line in dump.splitlines():
        match = re.fullmatch(r"([0-9a-f]{8})  (?:00 \* (\d+)|((?:[0-9a-f]{2} )*[0-9a-f]{2})) +(\S.*)", line)
        assert match, f"a line of the hex dump cannot be read: {line!r}"
        assert int(match[1], 16) == len(data), line
        data += bytes(int(match[2])) if match[2] else bytes.fromhex(match[3])
    return data


def test_hex_dump_is_what_the_writer_writes(tmp_path):
    path = tmp_path / "smallest.hsq"
    given = hs.Schema(hs.Field("uint8"))
    with hs.HyperSequenceWriter(path, batch_size=1, schema=given, file_id=bytes(16), created_ns=0) as writer:
        writer.append(7)
    assert path.read_bytes() == printed_file()
    assert (FOLDER / "smallest.hsq").read_bytes() == printed_file()


def test_golden_folder_has_every_file_and_no_other():
    assert {path.name for path in FOLDER.iterdir()} == {f"{name}.hsq" for name in goldens()}
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 400_000


@pytest.mark.parametrize("name", goldens())
def test_golden_file_comes_out_the_same(name, tmp_path):
    write(name, tmp_path / "new.hsq")
    assert (tmp_path / "new.hsq").read_bytes() == (FOLDER / f"{name}.hsq").read_bytes()


def assert_same(found, expected):
    """Equal in type, shape and every bit, NaN and NaT included."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


def columns_by_package(sequence, structure_of):
    """All records in the package's structure, flattened into columns and held against what was appended."""
    batch = sequence.records[:]
    given = [structure_of.inputs, structure_of.outputs, structure_of.sample_weights]
    while given[-1] is None:
        given.pop()
    assert len(batch) == len(given)
    columns = []
    for found, wanted in zip(batch, given, strict=True):
        if isinstance(wanted, dict):
            assert list(found) == list(wanted)
            columns += found.values()
        elif isinstance(wanted, tuple):
            assert isinstance(found, tuple) and len(found) == len(wanted)
            columns += found
        elif wanted is not None:
            columns.append(found)
        else:
            assert found is None
    return columns


@pytest.mark.parametrize("name", goldens())
def test_golden_file_reads_the_same_in_both_readers(name):
    golden, path = goldens()[name], FOLDER / f"{name}.hsq"
    reference = read(path)
    written = golden.columns()
    with hs.HyperSequenceFile(path) as sequence:
        columns = columns_by_package(sequence, golden)
        assert len(columns) == len(written) == len(reference["columns"])
        for ours, theirs, given in zip(columns, reference["columns"], written, strict=True):
            assert_same(ours, given)
            assert_same(theirs, given)
        assert reference["n_records"] == sequence.n_records == len(written[0])
        assert reference["batch_size"] == sequence.batch_size() == golden.batch_size
        assert reference["created_ns"] == sequence.created_ns == golden.created_ns
        assert reference["user_meta"] == sequence.user_meta() == golden.meta
        labels = [
            (role, field.get("name"), field["type"], tuple(field["shape"]))
            for role, entry in reference["schema"].items()
            for field in entry["fields"]
        ]
        assert labels == [(c.role, c.name, c.field.type_name, c.field.shape) for c in sequence.schema.columns]


def test_golden_files_show_the_features_that_they_are_named_for():
    def stored(name):
        with hs.HyperSequenceFile(FOLDER / f"{name}.hsq") as sequence:
            return sequence._source.stored

    several, full = stored("several-blocks"), stored("last-block-full")
    assert several.n_blocks > 2 and several.n_records % several.block_records
    assert full.n_blocks > 2 and full.n_records % full.block_records == 0
    short, compact = stored("one-short-block"), stored("one-short-block").column_offsets
    assert short.n_blocks == 1 and short.n_records < short.block_records
    sizes = [column.field.nbytes for column in short.schema.columns]
    assert list(compact) == recommended(sizes, short.n_records)[1]
    for name, n_missing in (("joined-columns", 56), ("joined-last-block-full", 0)):
        joined = stored(name)
        sizes = [column.field.nbytes for column in joined.schema.columns]
        ends = [o + joined.block_records * n for o, n in zip(joined.column_offsets, sizes, strict=True)]
        assert joined.n_blocks == 2 and align(max(ends)) < joined.stride and joined.stride % 96 == 0
        assert joined.n_blocks * joined.block_records - joined.n_records == n_missing
    uneven = stored("uneven-columns")
    assert uneven.n_blocks > 1 and [uneven.stride % n == 0 for n in (1000, 999, 1001)] == [False] * 3
    assert stored("empty").n_blocks == 0
    assert stored("many-columns").first_block > 4096
    assert [c.field.nbytes for c in stored("zero-byte-fields").schema.columns] == [0, 3, 0]
    assert stored("only-zero-byte-fields").schema.record_nbytes == 0


@pytest.mark.parametrize("n_records", [11, 12])
def test_chunks_of_several_runs_read_the_same_in_both_readers(n_records, tmp_path):
    """A file with more than one run a chunk is too large to be kept, so it is made here."""
    golden_columns = count(n_records, 100_003), count(n_records, 2, step=41), count(n_records, 131_072, step=43)
    path = tmp_path / "runs.hsq"
    with hs.HyperSequenceWriter(path, batch_size=5, block_nbytes=5 * 232_000) as writer:
        writer.extend(golden_columns)
    with hs.HyperSequenceFile(path) as sequence:
        assert sequence._source.stored.n_blocks == 3
        assert sequence._source.stored.run_records == (2, 131_072, 2)
        found = sequence.records[:][0]
    for ours, theirs, given in zip(found, read(path)["columns"], golden_columns, strict=True):
        assert_same(ours, given)
        assert_same(theirs, given)


@pytest.mark.parametrize("name", ["several-blocks", "user-metadata"])
def test_reference_reader_notices_every_changed_byte_that_is_not_padding(name, tmp_path):
    """What a reader written from SPEC.md alone lets pass is padding between parts, and nothing else."""
    data = (FOLDER / f"{name}.hsq").read_bytes()
    path, passed = tmp_path / "bent.hsq", []
    for at in [*range(300), *range(4090, len(data))]:
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :])
        try:
            read(path)
        except (ValueError, struct.error):
            continue
        passed.append(at)
    assert all(data[at] == 0 for at in passed)
    padding = padding_between_parts(name)
    assert set(passed) <= padding


def test_blocks_but_the_last_have_the_lengths_of_the_first(tmp_path):
    """A middle frame that claims 64 bytes more, with right CRCs, in both of its places."""
    data, path = bytearray((FOLDER / "several-blocks.hsq").read_bytes()), tmp_path / "bent.hsq"
    with hs.HyperSequenceFile(FOLDER / "several-blocks.hsq") as sequence:
        stored = sequence._source.stored
    (index_offset,) = struct.unpack_from("<Q", data, len(data) - 112)
    (length,) = struct.unpack_from("<I", data, stored.first_block + 64)
    for start in (stored.first_block + stored.stride, index_offset + length):
        frame = data[start : start + length]
        struct.pack_into("<Q", frame, 56, struct.unpack_from("<Q", frame, 56)[0] + 64)
        struct.pack_into("<I", frame, length - 4, checks.crc32(frame[:-4]))
        data[start : start + length] = frame
    path.write_bytes(data)
    with pytest.raises(ValueError, match="lengths differ"):
        read(path)
    with hs.HyperSequenceFile(path) as sequence:
        assert rule_of(lambda: sequence.records[stored.block_records]) == "I1"


def padding_between_parts(name):
    """Every offset of a golden file that lies in no structure and in no chunk."""
    with hs.HyperSequenceFile(FOLDER / f"{name}.hsq") as sequence:
        stored = sequence._source.stored
    free = set(range(stored.first_block, (FOLDER / f"{name}.hsq").stat().st_size))
    data = (FOLDER / f"{name}.hsq").read_bytes()
    (index_offset,) = struct.unpack_from("<Q", data, len(data) - 112)
    free -= set(range(index_offset, len(data)))
    for number in range(stored.n_blocks):
        start = stored.first_block + number * stored.stride
        (frame,) = struct.unpack_from("<I", data, start + 64)
        free -= set(range(start, start + frame))
        n_records = min(stored.block_records, stored.n_records - number * stored.block_records)
        for offset, column in zip(stored.column_offsets, stored.schema.columns, strict=True):
            free -= set(range(start + offset, start + offset + n_records * column.field.nbytes))
    return free


# --- older layouts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["0.9", "0.10"])
def test_older_layouts_are_as_the_spec_says(layout, tmp_path):
    images, words = count(6, 2, 3, dtype=np.float32), np.array(["ä", "bc", "", "d", "e", "fgh"], "<U3")
    labels, days, flags = np.arange(6, dtype=">i4"), np.arange(6).astype("<M8[D]"), np.arange(6) % 2 == 0
    meta = {"records": 2, "batch_size": 3, "no_inputs": 2, "no_outputs": 3, "usermeta": {"a": [1]}}
    types = (("<f4", [3, 2, 3]), ("<U3", [3]), (">i4", [3]), ("<M8[D]", [3]), ("|b1", [3]))
    text = json.dumps({**meta, "dtype": [["", name, shape] for name, shape in types]}).encode()
    columns = (images, words, labels, days, flags)
    data = b"".join(column[start : start + 3].tobytes() for start in (0, 3) for column in columns)
    packed = gzip.compress(text)
    tails = {"0.9": b"@@FSEQ@@" + text, "0.10": packed + len(packed).to_bytes(4, "big") + b"HSQ2"}
    path = tmp_path / "old.hsq"
    path.write_bytes(data + tails[layout])
    with hs.HyperSequenceFile(path) as sequence:
        assert (sequence.version, sequence.batch_size(), len(sequence)) == (layout, 3, 2)
        assert sequence.user_meta() == {"a": [1]}
        inputs, outputs = sequence.records[:]
    for found, given in zip((*inputs, *outputs), columns, strict=True):
        assert_same(found, given.astype(given.dtype.newbyteorder("<")))


# --- orders, once more in plain Python integers ----------------------------------------------------------------------

MASK = (1 << 64) - 1


def plain_key(seed, epoch, n, purpose=0, window=0):
    counter = 0
    while True:
        text = b"hsq permutation 1" + b"".join(
            value.to_bytes(size, "little")
            for value, size in ((seed, 8), (epoch, 8), (n, 8), (purpose, 4), (counter, 4))
        )
        digest = hashlib.sha256(text + window.to_bytes(8, "little") * (purpose == 2)).digest()
        yield from (int.from_bytes(digest[i : i + 8], "little") for i in range(0, 32, 8))
        counter += 1


def plain_mix(z):
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def plain_sort_key(start, i):
    return plain_mix((start + (i + 1) * 0x9E3779B97F4A7C15) & MASK)


def plain_permutation(n, seed, epoch, purpose=0, window=0):
    """A function from position to number."""
    if n <= 65536:
        start = next(plain_key(seed, epoch, n, purpose, window))
        return sorted(range(n), key=lambda i: (plain_sort_key(start, i), i)).__getitem__
    bits = (n - 1).bit_length()
    shift, mask = (bits + 1) // 2, (1 << bits) - 1
    words = [word & mask for word in islice(plain_key(seed, epoch, n, purpose, window), 16)]

    def at(position):
        x = position
        while True:
            for r in range(8):
                x = x * (words[2 * r] | 1) + words[2 * r + 1] & mask
                x ^= x >> shift
            if x < n:
                return x

    return at


def plain_position(number, n, seed, epoch, purpose=0):
    """The position at which a number comes."""
    if n <= 65536:
        at = plain_permutation(n, seed, epoch, purpose)
        return next(position for position in range(n) if at(position) == number)
    bits = (n - 1).bit_length()
    shift, modulus = (bits + 1) // 2, 1 << bits
    words = [word % modulus for word in islice(plain_key(seed, epoch, n, purpose), 16)]
    x = number
    while True:
        for r in range(7, -1, -1):
            x ^= x >> shift
            x = (x - words[2 * r + 1]) * pow(words[2 * r] | 1, -1, modulus) % modulus
        if x < n:
            return x


def by_package(n, seed, epoch, positions):
    return Permutation(n, seed, epoch).at(np.array(positions, np.int64)).tolist()


def test_key_vectors():
    for row in table("key vectors"):
        words = [int(word, 16) for word in row["words in hexadecimal"].split()]
        arguments = [int(row[key]) for key in ("seed", "epoch", "n", "purpose")]
        window = 0 if row["window"] == "none" else int(row["window"])
        assert (row["window"] == "none") == (int(row["purpose"]) != 2)
        assert list(islice(plain_key(*arguments, window), len(words))) == words
        assert key_words(*arguments, len(words), window) == words


def test_permutation_vectors():
    full, some = table("permutations in full"), table("permutations at positions")
    vectors = [(row, range(int(row["n"])), numbers(row["permutation"])) for row in full]
    vectors += [(row, numbers(row["positions"]), numbers(row["numbers"])) for row in some]
    assert {int(row["n"]) for row, *_ in vectors} >= {10, 65536, 65537, 100000, 2**32, 10**10, 2**62}
    for row, positions, expected in vectors:
        n, seed, epoch = (int(row[key]) for key in ("n", "seed", "epoch"))
        at = plain_permutation(n, seed, epoch)
        assert [at(position) for position in positions] == expected
        assert by_package(n, seed, epoch, positions) == expected
        assert [Permutation(n, seed, epoch).one(position) for position in positions] == expected
        assert [plain_position(number, n, seed, epoch) for number in expected] == list(positions)
        assert [Permutation(n, seed, epoch).position_of(number) for number in expected] == list(positions)
    for _, positions, expected in vectors[: len(full)]:
        assert sorted(expected) == list(positions)


@pytest.mark.parametrize("n", [1, 2, 3, 65535, 65536, 65537, 131072, 131073])
def test_permutation_is_one_and_both_implementations_agree(n):
    found = by_package(n, 2**63, 11, range(n))
    assert sorted(found) == list(range(n))
    at = plain_permutation(n, 2**63, 11)
    assert [at(position) for position in range(0, n, 97)] == found[::97]


@pytest.mark.parametrize("n", [2**32 - 1, 2**32, 2**32 + 1, 2**53 + 1, 2**62 - 1])
def test_permutation_where_words_change_their_width(n):
    positions = [0, 1, n // 3, n - 2, n - 1]
    at = plain_permutation(n, 1, 2**64 - 1)
    assert by_package(n, 1, 2**64 - 1, positions) == [at(position) for position in positions]


def numbered(tmp_path, n, batch_size, batches_per_block=None, first=0):
    """A file whose records are their own numbers, counted from ``first`` on."""
    path = tmp_path / f"{n}-{batch_size}-{first}.hsq"
    options = {} if batches_per_block is None else {"block_nbytes": 8 * batch_size * batches_per_block}
    with hs.HyperSequenceWriter(path, batch_size=batch_size, **options) as writer:
        writer.extend(np.arange(first, first + n))
    return hs.HyperSequenceFile(path)


def batches(sequence):
    return [batch[0].tolist() for batch in sequence]


def record_numbers(sequence):
    return [number for batch in batches(sequence) for number in batch]


def plain_shuffle(order, batch_size, by, seed, epoch):
    if by == "record":
        at = plain_permutation(len(order), seed, epoch)
        return [order[at(i)] for i in range(len(order))]
    cut = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    short = [cut.pop()] if len(order) % batch_size else []
    at = plain_permutation(len(cut), seed, epoch)
    return [number for j in range(len(cut)) for number in cut[at(j)]] + [number for batch in short for number in batch]


def test_shuffle_vectors(tmp_path):
    for row in table("shuffles of the natural order"):
        n, batch_size, seed, epoch = (int(row[key]) for key in ("n", "batch_size", "seed", "epoch"))
        with numbered(tmp_path, n, batch_size) as sequence:
            shuffled = sequence.shuffled(seed, by=row["by"]).at_epoch(epoch)
            assert batches(shuffled) == parts(row["batches"])
            assert record_numbers(shuffled) == plain_shuffle(range(n), batch_size, row["by"], seed, epoch)


def plain_windows(order, block_records, window_blocks, seed, epoch):
    """The windows of a window shuffle, step by step as SPEC.md has them."""
    blocks = [order[i : i + block_records] for i in range(0, len(order), block_records)]
    at = plain_permutation(len(blocks), seed, epoch, 1)
    placed = [blocks[at(j)] for j in range(len(blocks))]
    windows = []
    for w in range(-(-len(blocks) // window_blocks)):
        listed = [number for block in placed[w * window_blocks : (w + 1) * window_blocks] for number in block]
        at = plain_permutation(len(listed), seed, epoch, 2, w)
        windows.append([listed[at(i)] for i in range(len(listed))])
    return windows


def flat(lists):
    return [member for part in lists for member in part]


def plain_window_at(n, block_records, window_blocks, seed, epoch, position):
    """One position of a window shuffle of the natural order, without making the list."""
    m = -(-n // block_records)
    lacking = m * block_records - n
    p = plain_position(m - 1, m, seed, epoch, 1)

    def begin(w):
        return min(w * window_blocks * block_records - (lacking if w > p // window_blocks else 0), n)

    w = position // (window_blocks * block_records)
    w += position >= begin(w + 1)
    i = plain_permutation(begin(w + 1) - begin(w), seed, epoch, 2, w)(position - begin(w))
    at = plain_permutation(m, seed, epoch, 1)
    for place in range(w * window_blocks, m):
        held = block_records - (lacking if place == p else 0)
        if i < held:
            return at(place) * block_records + i
        i -= held
    raise AssertionError


def test_window_shuffle_vectors(tmp_path):
    for row in table("window shuffles of the natural order"):
        n, size, window, seed, epoch = (int(row[key]) for key in ("n", "block_size", "window_blocks", "seed", "epoch"))
        windows = parts(row["windows"])
        assert plain_windows(range(n), size, window, seed, epoch) == windows
        order = Windowed(n, size, window, seed, epoch)
        assert order.at(np.arange(n)).tolist() == flat(windows)
        with numbered(tmp_path, n, size, 1) as sequence:
            found = sequence.shuffled(seed, window=8 * size * window).at_epoch(epoch)
            assert record_numbers(found) == flat(windows)
    for row in table("window shuffles at positions"):
        arguments = [int(row[key]) for key in ("n", "block_size", "window_blocks", "seed", "epoch")]
        positions, expected = numbers(row["positions"]), numbers(row["numbers"])
        assert [plain_window_at(*arguments, position) for position in positions] == expected
        assert Windowed(*arguments).at(np.array(positions)).tolist() == expected


@pytest.mark.parametrize("n", [1, 2, 7, 8, 61, 64])
def test_window_shuffles_of_both_implementations_agree(n):
    for size in (1, 2, 3, 8, 64, 100):
        for window in (1, 2, 3, 7, 50):
            for seed, epoch in ((0, 0), (1, 7), (MASK, MASK)):
                windows = plain_windows(range(n), size, window, seed, epoch)
                order = Windowed(n, size, window, seed, epoch)
                assert order.at(np.arange(n)).tolist() == flat(windows)
                found = [plain_window_at(n, size, window, seed, epoch, position) for position in range(n)]
                assert found == flat(windows)


def plain_sizes(n, window, block_records, record_nbytes):
    blocks = (n + block_records - 1) // block_records
    whole = min(max(1, window // max(1, block_records * record_nbytes)), max(1, blocks))
    together = (whole + 4095) // 4096
    return block_records * together, whole // together


def test_sizes_of_a_window_shuffle(tmp_path):
    assert inspect.signature(hs.HyperSequence.shuffled).parameters["window"].default == 536870912
    for row in table("sizes of a window shuffle"):
        n, window, size, record = (int(row[key]) for key in ("n", "window", "block_records", "record_nbytes"))
        expected = int(row["block_size"]), int(row["window_blocks"])
        assert plain_sizes(n, window, size, record) == expected
        order = Windowed.of_nbytes(n, size, record, window, seed=0)
        assert (order.block, order.window) == expected
    n, size, record = 100, 4, 16
    path = tmp_path / "two fields.hsq"
    with hs.HyperSequenceWriter(path, batch_size=2, block_nbytes=size * record) as writer:
        writer.extend(np.arange(n), np.arange(n))
    with hs.HyperSequenceFile(path) as sequence:
        for window in (1, 64, 127, 128, 1000, 2**64 - 1):
            expected = flat(plain_windows(range(n), *plain_sizes(n, window, size, record), 3, 0))
            for fields in (sequence, sequence.fields("inputs")):  # what is read does not matter
                assert record_numbers(fields.shuffled(3, window=window)) == expected
        sizes = plain_sizes(n, 536870912, size, record)
        assert record_numbers(sequence.shuffled(3)) == flat(plain_windows(range(n), *sizes, 3, 0))


def test_records_without_bytes_have_windows_too(tmp_path):
    with hs.HyperSequenceWriter(tmp_path / "no bytes.hsq", batch_size=2) as writer:
        writer.extend(np.zeros((7, 0)))
    with hs.HyperSequenceFile(tmp_path / "no bytes.hsq") as sequence:
        block = sequence._source.block_records
        found = sequence.shuffled(3, window=1)
        assert found._order.at(np.arange(7)).tolist() == flat(plain_windows(range(7), block, 1, 3, 0))


def test_blocks_of_several_files_and_of_chosen_records(tmp_path):
    """Blocks count positions, and those of the first file hold for all."""
    with numbered(tmp_path, 30, 2, 2) as one, numbered(tmp_path, 40, 5, 1) as two:
        both = hs.concat([one, two])
        order = [*range(30), *range(40)]
        assert record_numbers(both.shuffled(3, window=96)) == flat(plain_windows(order, 4, 3, 3, 0))
        other = hs.concat([two, one])
        order = [*range(40), *range(30)]
        assert record_numbers(other.shuffled(3, window=96)) == flat(plain_windows(order, 5, 2, 3, 0))
        chosen = two.select(range(0, 40, 2)).shuffled(3, window=96, epoch=4)
        assert record_numbers(chosen) == flat(plain_windows(range(0, 40, 2), 5, 2, 3, 4))


def plain_shard(order, batch_size, world, rank, uneven, origin=0):
    """The batches of a rank, each a list of (number, whether it counts)."""
    n = len(order)
    t = (n - origin) % (world * batch_size)
    full = (n - origin) // (world * batch_size)
    batches = []
    for k in range(full + 1):
        begin = origin + (k * world + rank) * batch_size
        end = begin + batch_size
        if k == full:
            if t == 0 or uneven == "drop":
                break
            if uneven == "short":
                begin, end = n - t + rank * t // world, n - t + (rank + 1) * t // world
        batches.append([(order[p % n], p < n) for p in range(begin, end)])
    return batches


def package_shard(share):
    """The same by the package, from ``at`` and from ``span``."""
    positions = np.arange(share.n)
    spans = [share.span(i, min(i + share.batch, share.n)) for i in range(0, share.n, share.batch)]
    assert [int(p) for span in spans for p in span] == share.at(positions).tolist()
    counts = share.counts(0, share.n).tolist()
    found = list(zip(share.at(positions).tolist(), counts, strict=True))
    return [found[i : i + share.batch] for i in range(0, share.n, share.batch)]


def test_shard_vectors(tmp_path):
    rows = table("shards of the natural order")
    assert {row["uneven"] for row in rows} == {"pad", "drop", "short"}
    for row in rows:
        n, batch_size, world, rank, origin = (int(row[key]) for key in ("n", "batch_size", "world", "rank", "origin"))
        expected = parts(row["batches"])
        weights = parts(row["weights"]) if row["uneven"] == "pad" else [[1] * len(batch) for batch in expected]
        assert row["uneven"] == "pad" or row["weights"] == "none"
        pairs = [list(zip(*both, strict=True)) for both in zip(expected, weights, strict=True)]
        assert plain_shard(range(n), batch_size, world, rank, row["uneven"], origin) == pairs
        assert package_shard(Sharded(n, batch_size, rank, world, row["uneven"], origin)) == pairs
        if origin == 0:
            with numbered(tmp_path, n, batch_size) as sequence:
                shard = sequence.shard(rank, world, row["uneven"])
                assert batches(shard) == expected
                assert [batch[2].tolist() for batch in shard if len(batch) == 3] == (
                    weights if row["uneven"] == "pad" else []
                )
                assert all(batch[2].dtype == np.float32 for batch in shard if len(batch) == 3)


@pytest.mark.parametrize("uneven", ["pad", "drop", "short"])
def test_shards_of_both_implementations_agree(uneven):
    for n, batch_size, world in ((1, 1, 1), (7, 2, 1), (7, 2, 3), (40, 4, 5), (41, 4, 5), (59, 4, 5), (3, 5, 2)):
        for origin in {0, 1, n // 2, n}:
            if uneven == "short" and 0 < (n - origin) % (world * batch_size) < world:
                continue
            found = [plain_shard(range(n), batch_size, world, rank, uneven, origin) for rank in range(world)]
            assert len({len(batches) for batches in found}) == 1  # all ranks have the same number of batches
            for rank in range(world):
                assert package_shard(Sharded(n, batch_size, rank, world, uneven, origin)) == found[rank]


def plain_weights(written, lengths=()):
    """Weights in whole numbers, or None if they are refused; from strings, or from lengths."""
    exact = [Fraction(weight) for weight in written] or [Fraction(length) for length in lengths]
    if min(exact) <= 0:
        return None
    scale = math.lcm(*(weight.denominator for weight in exact))
    whole = [int(weight * scale) for weight in exact]
    whole = [weight // math.gcd(*whole) for weight in whole]
    if sum(whole) > 4096 and lengths:
        total = sum(lengths)
        return plain_weights([str(max(1, round(1000 * length / total))) for length in lengths])
    return whole if sum(whole) <= 4096 else None


def plain_mixed(lists, weights, seed, n, epoch):
    """An epoch of a mix; ``lists[k](e)`` is epoch ``e`` of order ``k``. Begins at the beginning, as slow as can be."""

    def endless(k):
        e = 0
        while True:
            yield from lists[k](e)
            e += 1

    period, found = sum(weights), []
    start = next(plain_key(seed, 0, period, 3))
    coming = [endless(k) for k in range(len(lists))]
    for first in range(0, (epoch + 1) * n, period):
        by_key = sorted(range(first, first + period), key=lambda q: (plain_sort_key(start, q), q))
        owner = dict(zip(by_key, flat([[k] * weight for k, weight in enumerate(weights)]), strict=True))
        found += [next(coming[owner[q]]) for q in range(first, first + period)]
    return found[epoch * n : (epoch + 1) * n]


def counted_through(lengths):
    """Natural orders over sources of these lengths."""
    ends = accumulate(lengths)
    return [
        lambda e, end=end, length=length: range(end - length, end) for end, length in zip(ends, lengths, strict=True)
    ]


def files_of(tmp_path, lengths):
    """Files of these lengths, whose records are counted through."""
    begins = accumulate(lengths, initial=0)
    return [numbered(tmp_path, length, 2, first=begin) for length, begin in zip(lengths, begins, strict=False)]


def test_mix_vectors(tmp_path):
    for row in table("mixes of natural orders"):
        lengths, weights, expected = (numbers(row[key]) for key in ("lengths", "weights", "numbers"))
        seed, n, epoch = (int(row[key]) for key in ("seed", "n", "epoch"))
        assert plain_mixed(counted_through(lengths), weights, seed, n, epoch) == expected
        mixed = Mixed(parts_of([Natural(length) for length in lengths], lengths), tuple(weights), n, seed)
        assert mixed.at_epoch(epoch).at(np.arange(n)).tolist() == expected
        sequences = files_of(tmp_path, lengths)
        assert record_numbers(hs.mix(sequences, weights, seed, n_records=n).at_epoch(epoch)) == expected
        for sequence in sequences:
            sequence.close()


def test_weights():
    for row in table("weights"):
        written = row["written"].split()
        expected = None if row["weights"] == "refused" else numbers(row["weights"])
        assert plain_weights(written) == expected
        for given in (written, [float(weight) for weight in written]):
            found = whole_weights(given)
            assert (found if found is None else list(found)) == expected


def test_weights_from_lengths(tmp_path):
    for row in table("weights from lengths"):
        lengths, expected = numbers(row["lengths"]), numbers(row["weights"])
        assert plain_weights([], lengths) == expected
        sequences = files_of(tmp_path, lengths)
        mixed = hs.mix(sequences, seed=0)
        assert (list(mixed._order.weights), mixed.n_records) == (expected, sum(lengths))
        for sequence in sequences:
            sequence.close()


@pytest.mark.parametrize("weights", [(1,), (1, 1), (3, 1), (1, 2, 4), (100, 1)])
def test_mixes_of_both_implementations_agree(weights):
    lengths = (5, 12, 3)[: len(weights)]
    begins = list(accumulate(lengths, initial=0))
    orders = [Shuffled(length, 6) for length in lengths]
    mixed = Mixed(parts_of(orders, lengths), weights, 31, 8)

    def shuffled(k, epoch):
        at = plain_permutation(lengths[k], 6, epoch)
        return [begins[k] + at(i) for i in range(lengths[k])]

    lists = [lambda epoch, k=k: shuffled(k, epoch) for k in range(len(weights))]
    for epoch in (0, 1, 9):
        expected = plain_mixed(lists, weights, 8, 31, epoch)
        assert mixed.at_epoch(epoch).at(np.arange(31)).tolist() == expected


def test_epochs_of_what_was_joined(tmp_path):
    """A concatenation hands its epoch on, a mix does not; what was held stays held, and other epochs are forgotten."""
    with numbered(tmp_path, 20, 4) as one, numbered(tmp_path, 12, 4) as two:
        moving, held = one.shuffled(5, "record", epoch=3), two.shuffled(6, "record", epoch=2)[:]
        firm = plain_shuffle(range(12), 4, "record", 6, 2)
        both = hs.concat([moving, held])
        mixed = hs.mix([moving, held], [2, 1], seed=7, n_records=50)
        lists = [lambda e: plain_shuffle(range(20), 4, "record", 5, e), lambda e: firm]
        for epoch in (0, 1, 3):
            assert record_numbers(both.at_epoch(epoch)) == [*lists[0](epoch), *firm]
            assert record_numbers(mixed.at_epoch(epoch)) == plain_mixed(lists, [2, 1], 7, 50, epoch)
            above = mixed.shuffled(9, "record").at_epoch(epoch)
            below = plain_mixed(lists, [2, 1], 7, 50, epoch)
            assert record_numbers(above) == plain_shuffle(below, 4, "record", 9, epoch)
        assert record_numbers(both) == [*lists[0](0), *firm]
        assert record_numbers(mixed[:].at_epoch(5)) == plain_mixed(lists, [2, 1], 7, 50, 0)  # held like any other


def test_an_epoch_of_a_mix_that_does_not_fit_63_bits_is_refused(tmp_path):
    with numbered(tmp_path, 10, 5) as sequence:
        mixed = hs.mix([sequence], seed=1)
        last = 2**63 // 10 - 1
        assert sorted(record_numbers(mixed.at_epoch(last))) == list(range(10))
        with pytest.raises(hs.ArgumentError, match="lower epoch"):
            mixed.at_epoch(last + 1)


def plain_split(total, shares):
    counts = [round(total * share) for share in shares]
    found, left = [], list(range(total))
    for p in counts:
        t = len(left)
        picked = [i for i in range(t) if (i + 1) * p // t > i * p // t]
        assert picked == [((j + 1) * t + p - 1) // p - 1 for j in range(p)]
        others = [i for i in range(t) if i not in set(picked)]
        assert others == [j * t // (t - p) for j in range(t - p)]
        found.append([left[i] for i in picked])
        left = [left[i] for i in others]
    return [*found, left]


def package_split(total, shares):
    counts = split_counts(total, tuple(shares))
    found, rest = [], Natural(total)
    for picked in counts[:-1]:
        found.append(compose(Evenly(picked, rest.n), rest))
        rest = compose(Evenly(picked, rest.n, rest=True), rest)
    return [order.at(np.arange(order.n)).tolist() for order in (*found, rest)]


def test_split_vectors(tmp_path):
    rows = [
        (int(row["total"]), [float(s) for s in row["shares"].split()], parts(row["parts"])) for row in table("splits")
    ]
    for total, shares, expected in rows:
        assert plain_split(total, shares) == expected
        assert package_split(total, shares) == expected
        with numbered(tmp_path, total, 1) as sequence:
            found = [record_numbers(part) for part in sequence.split(*shares)]
            assert found == [record_numbers(part) for part in sequence.split(*shares, by="record")] == expected
    for total in (2, 7, 97, 1000):
        for shares in ([0.5], [0.37], [0.3, 0.3], [0.125, 0.5, 0.25]):
            if split_counts(total, tuple(shares)) is not None:
                assert plain_split(total, shares) == package_split(total, shares)


def test_half_a_thing_goes_to_the_even_number():
    assert [len(part) for part in plain_split(5, [0.5])] == [2, 3] == split_counts(5, (0.5,))
    assert [len(part) for part in plain_split(7, [0.5])] == [4, 3] == split_counts(7, (0.5,))


@pytest.mark.parametrize("choose", ["split", "select", "slice", "take", "skip", "shuffle"])
def test_choosing_members_holds_the_epoch_of_shuffles_below(choose, tmp_path):
    with numbered(tmp_path, 40, 4) as sequence:
        below = sequence.shuffled(seed=5, by="record", epoch=2)
        order = plain_shuffle(range(40), 4, "record", 5, 2)
        if choose == "split":
            members, expected = below.split(0.5, by="record")[0], [order[i] for i in plain_split(40, [0.5])[0]]
        elif choose == "select":
            members, expected = below.select([7, 3, 5]), [order[7], order[3], order[5]]
        elif choose == "slice":
            members, expected = below[2:4], order[8:16]
        elif choose == "take":
            members, expected = below.take(3), order[:12]
        elif choose == "skip":
            members, expected = below.skip(3), order[12:]
        else:
            members, expected = below, plain_shuffle(order, 4, "batch", 9, 0)
            members.shuffle(9)
        for epoch in (2, 3):
            assert record_numbers(members.at_epoch(epoch)) == expected
            above = record_numbers(members.shuffled(6, by="record").at_epoch(epoch))
            assert above == plain_shuffle(expected, 4, "record", 6, epoch)


def test_records_that_drop_last_leaves_out_take_part_in_a_shuffle(tmp_path):
    with numbered(tmp_path, 10, 3) as sequence:
        found = record_numbers(sequence.rebatch(4, drop_last=True).shuffled(5, by="record", epoch=1))
    assert found == plain_shuffle(range(10), 4, "record", 5, 1)[:8]


def plain_philox(key, n_words):
    """Philox-4x64 with ten rounds, from the counter 1 on."""
    words, counter = [], 0
    while len(words) < n_words:
        counter += 1
        x = [counter >> 64 * i & MASK for i in range(4)]
        k = list(key)
        for _ in range(10):
            first, second = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
            x = [second >> 64 ^ x[1] ^ k[0], second & MASK, first >> 64 ^ x[3] ^ k[1], first & MASK]
            k = [k[0] + 0x9E3779B97F4A7C15 & MASK, k[1] + 0xBB67AE8584CAA73B & MASK]
        words += x
    return words[:n_words]


def test_map_vectors():
    for row in table("map vectors"):
        seed, number, epoch, first_record = (int(row[key]) for key in ("seed", "number", "epoch", "first_record"))
        text = b"hsq map 1" + b"".join(value.to_bytes(8, "little") for value in (seed, number, epoch, first_record))
        digest = hashlib.sha256(text).digest()
        key = [int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")]
        words = [int(word, 16) for word in row["first random words in hexadecimal"].split()]
        assert [f"{word:016x}" for word in key] == row["key words in hexadecimal"].split()
        assert plain_philox(key, len(words)) == words
        generator = Mapper(lambda batch, rng: batch, True, seed, number)._rng(epoch, first_record)
        assert generator.bit_generator.random_raw(len(words)).tolist() == words


def test_map_generator_is_keyed_by_number_epoch_and_first_record(tmp_path):
    def draw(batch, rng):
        return batch[0], (*(batch[1] if len(batch) > 1 else ()), rng.bit_generator.random_raw())

    with numbered(tmp_path, 10, 3) as sequence:
        plain = sequence.shuffled(5).map(lambda batch: batch, seed=7)
        for values, words in plain.map(draw, seed=7).map(draw, seed=7).at_epoch(1):
            generators = [Mapper(draw, True, 7, number)._rng(1, int(values[0])) for number in (1, 2)]
            assert list(words) == [generator.bit_generator.random_raw() for generator in generators]
            assert words[0] != words[1]

"""CSV: types found over the whole file, columns joined into arrays, and every fault with its line."""

from __future__ import annotations

import csv
import gzip
import io
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.csv
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hypersequence as hs
from hypersequence.converting import csvtext
from hypersequence.converting.registry import formats


def converted(source: Any, tmp_path: Path, **options: Any) -> Any:
    """What all records of a source are, by field."""
    target = tmp_path / "converted.hsq"
    hs.convert(source, target, overwrite=True, **options)
    with hs.open(target) as seq:
        inputs, *outputs = seq.records[:]
        return {**inputs, **(outputs[0] if outputs else {})}


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    return path


def write_rows(path: Path, rows: Any, **options: Any) -> Path:
    """With the standard library."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, **options).writerows(rows)
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows are many blocks."""
    monkeypatch.setattr(csvtext, "BLOCK_NBYTES", 256)


def test_columns_become_integers_numbers_or_text(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "n,x,word,label", "1,0.5,a,3", "-2,2,größe,4", "9223372036854775807,1e-3,,5")
    hs.convert(path, tmp_path / "a.hsq")
    with hs.open(tmp_path / "a.hsq") as seq:
        assert seq.schema == hs.Schema(
            {"n": hs.Field("int64"), "x": hs.Field("float64"), "word": hs.Field("U5")}, {"label": hs.Field("int64")}
        )
        (inputs, outputs) = seq.records[:]
    assert inputs["n"].tolist() == [1, -2, 2**63 - 1]
    assert inputs["x"].tolist() == [0.5, 2.0, 0.001]
    assert inputs["word"].tolist() == ["a", "größe", ""]
    assert outputs["label"].tolist() == [3, 4, 5]


@pytest.mark.usefixtures("small_blocks")
def test_types_are_those_of_the_whole_file_however_late_a_value_tells(tmp_path: Path) -> None:
    n = 500
    rows = [[str(i), str(i), str(i), "x" * (i % 3)] for i in range(n)]
    rows[490][1], rows[480][2], rows[470][3] = "0.25", "a word", "the longest of all"
    path = write_rows(tmp_path / "a.csv", [["n", "x", "text", "word"], *rows])
    for threads in (0, 2):
        found = converted(path, tmp_path, threads=threads)
        assert found["n"].tolist() == list(range(n))
        assert found["x"].tolist() == [*range(490), 0.25, *range(491, n)]
        assert found["text"].tolist() == [row[2] for row in rows]
        assert found["word"].tolist() == [row[3] for row in rows]
        assert [found[name].dtype.str for name in ("n", "x", "text", "word")] == ["<i8", "<f8", "<U6", "<U18"]


def test_every_float_comes_back_bit_for_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 64, 5000, np.uint64).view(np.float64)
    values = np.append(values[np.isfinite(values)], [0.0, -0.0, 5e-324, np.inf, -np.inf])
    path = write_rows(tmp_path / "a.csv", [["x"], *[[repr(float(value))] for value in values]])
    assert converted(path, tmp_path)["x"].tobytes() == values.tobytes()
    assert np.isnan(converted(write(tmp_path / "b.csv", "x", "nan", "1"), tmp_path)["x"]).tolist() == [True, False]


@pytest.mark.usefixtures("small_blocks")
def test_wide_tables_are_joined_into_arrays(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 20))
    header = ["label", *(f"pixel{i}" for i in range(20)), "a", "b"]
    rows = [[i % 10, *row, i / 2, i] for i, row in enumerate(pixels.tolist())]
    path = write_rows(tmp_path / "a.csv", [header, *rows])
    found = converted(path, tmp_path, join="pixels=pixel0:pixel19, pair=a:b", types={"pixels": "uint8"})
    assert list(found) == ["pixels", "pair", "label"]
    assert found["pixels"].dtype == np.uint8
    assert found["pixels"].tolist() == pixels.tolist()
    assert found["pair"].tolist() == [[i / 2, i] for i in range(50)]
    assert converted(path, tmp_path, join="label=label:label")["label"].shape == (50, 1)
    words = converted(path, tmp_path, join={"all": "label:b"}, types="all=text")["all"]
    assert words[7].tolist() == list(map(str, rows[7]))


def test_types_can_be_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "zip,flag,x,big,small", "00501,True,0.1,18446744073709551615,255", "1,false,2,0,0")
    found = converted(path, tmp_path, types="zip=text,flag=bool,x=float32,big=uint64,small=uint8")
    assert found["zip"].tolist() == ["00501", "1"]
    assert found["flag"].tolist() == [True, False]
    assert found["x"].tobytes() == np.array([0.1, 2], np.float32).tobytes()
    assert found["big"].tolist() == [2**64 - 1, 0]
    assert (found["small"].dtype, found["small"].tolist()) == (np.uint8, [255, 0])


@pytest.mark.usefixtures("small_blocks")
def test_quotes_newlines_in_them_and_blank_lines(tmp_path: Path) -> None:
    texts = ['with "quotes"', "two\nlines", "a,comma", "", "\r\n", 'size 5"', " spaces "] * 30
    rows = [[i, text, i] for i, text in enumerate(texts)]
    for terminator in ("\n", "\r\n"):
        path = write_rows(tmp_path / "a.csv", [["i", "text", "j"], *rows], lineterminator=terminator)
        path.write_bytes(path.read_bytes() + b"\n\n")
        found = converted(path, tmp_path)
        assert found["text"].tolist() == texts
        assert found["j"].tolist() == list(range(len(texts)))
    bare = write(tmp_path / "b.csv", "i,text", '1,5" nails', '2,6" nails', "", "3,none")
    assert converted(bare, tmp_path)["text"].tolist() == ['5" nails', '6" nails', "none"]


@pytest.mark.usefixtures("small_blocks")
def test_a_quote_within_a_field_opens_nothing(tmp_path: Path) -> None:
    """Who counts quotes takes all that stands in quotes behind it for what does not."""
    texts = ['a 5" pipe', *["plain"] * 3, *["first\nsecond\nthird", 'say ""5"', '6" and 7" pipes'] * 400]
    rows = [f'"{text}"' if "\n" in text else text for text in texts]
    path = write(tmp_path / "a.csv", "text", *rows)
    assert converted(path, tmp_path)["text"].tolist() == texts
    path = write(tmp_path / "b.csv", "n,text", *(f"{n},{row}" for n, row in enumerate(rows)))
    found = converted(path, tmp_path)
    assert (found["n"].tolist(), found["text"].tolist()) == (list(range(len(texts))), texts)
    path = write(tmp_path / "c.csv", '5" pipes,"two, halves"', "1,2", "3,4")
    assert converted(path, tmp_path)['5" pipes'].tolist() == [1, 3]


def test_one_quote_within_a_field_makes_no_endless_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvtext, "BLOCK_NBYTES", 1000)
    monkeypatch.setattr(csvtext, "_MAX_ROW_NBYTES", 4000)
    path = write(tmp_path / "a.csv", "n,text", *(f'{n},a 5" pipe' if n == 10 else f"{n},plain" for n in range(5000)))
    assert converted(path, tmp_path)["n"].tolist() == list(range(5000))


def _parsed(data: bytes, delimiter: str) -> list[list[str]]:
    """All rows, as the standard library has them."""
    return [row for row in csv.reader(io.StringIO(data.decode(), newline=""), delimiter=delimiter) if row]


def _parsed_by_arrow(data: bytes, delimiter: str, names: list[str]) -> list[list[str]]:
    table = pyarrow.csv.read_csv(
        pyarrow.BufferReader(data),
        pyarrow.csv.ReadOptions(column_names=names, use_threads=False),
        pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pyarrow.string()), strings_can_be_null=False),
    )
    return [list(row.values()) for row in table.to_pylist()]


_QUOTED = st.text('a ",;\n\r', max_size=6).map(lambda text: '"' + text.replace('"', '""') + '"')
_BARE = st.text('a "', min_size=1, max_size=6).filter(lambda text: text[0] != '"').map(lambda text: text + "x")
_FIELDS = _QUOTED | _BARE | st.tuples(_QUOTED, _BARE).map("".join)


@settings(max_examples=300, deadline=None)
@given(
    rows=st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(_FIELDS, min_size=n, max_size=n), min_size=1)),
    delimiter=st.sampled_from(",;\t"),
    newline=st.sampled_from(["\n", "\r\n"]),
    size=st.sampled_from([1, 2, 7, 40]),
    step=st.integers(1, 9),
)
def test_blocks_are_whole_rows_wherever_quotes_stand(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    delimiter: str,
    newline: str,
    size: int,
    step: int,
) -> None:
    path = tmp_path_factory.getbasetemp() / "blocks.csv"
    data = newline.join(map(delimiter.join, rows)).encode()
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csvtext, "BLOCK_NBYTES", size)
        patch.setattr(csvtext, "_STEP_NBYTES", step)
        found = list(csvtext.blocks(path, 0, 1, delimiter))
    assert b"".join(block.data for block in found) == data
    assert not any(block.is_open for block in found)
    assert [block.line for block in found] == [1 + data.count(b"\n", 0, block.offset) for block in found]
    expected = _parsed(data, delimiter)
    assert [row for block in found for row in _parsed(block.data, delimiter)] == expected
    if size == 1:  # then each row ends a block
        assert all(len(_parsed(block.data, delimiter)) == 1 for block in found)
    names = [f"c{number}" for number in range(len(rows[0]))]
    by_arrow = [row for block in found for row in _parsed_by_arrow(block.data, delimiter, names)]
    assert by_arrow == _parsed_by_arrow(data, delimiter, names) == expected
    end = csvtext._end_of_first(data, delimiter)
    assert _parsed(data[:end], delimiter) + _parsed(data[end:], delimiter) == expected
    assert len(_parsed(data[:end], delimiter)) == 1


def test_tabs_other_delimiters_and_no_header(tmp_path: Path) -> None:
    assert converted(write(tmp_path / "a.tsv", "x\tword", "1\ta,b"), tmp_path)["word"].tolist() == ["a,b"]
    assert converted(write(tmp_path / "b.csv", "x;y", "1;2,5"), tmp_path, delimiter=";")["y"].tolist() == ["2,5"]
    assert converted(write(tmp_path / "c.csv", "x\ty", "1\t2"), tmp_path, delimiter="tab")["y"].tolist() == [2]
    bare = write(tmp_path / "d.csv", "\ufeff1,2,3", "4,5,6")
    assert converted(bare, tmp_path, header="no", join="x=c1:c2")["x"].tolist() == [[2, 3], [5, 6]]
    assert converted(bare, tmp_path, header=False)["c0"].tolist() == [1, 4]
    marked = write(tmp_path / "e.csv", "\ufeffx, y ,", "1, 2 ,3")
    assert {name: each.tolist() for name, each in converted(marked, tmp_path).items()} == {
        "x": [1],
        "y": [2],
        "c2": [3],
    }


def test_a_file_without_rows(tmp_path: Path) -> None:
    for ending in ("", "\n", "\r\n"):
        (tmp_path / "a.csv").write_bytes(f"x,y{ending}".encode())
        assert hs.convert(tmp_path / "a.csv", tmp_path / "a.hsq", overwrite=True).n_records == 0


@pytest.mark.usefixtures("small_blocks")
def test_compressed_files_and_several_of_them(tmp_path: Path) -> None:
    rows = [[i, f"text {i}"] for i in range(300)]
    for number in range(3):
        path = write_rows(tmp_path / f"{number}.csv", [["x", "text"], *rows[100 * number : 100 * number + 100]])
        (tmp_path / f"{number}.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    for source in (tmp_path / "*.csv", tmp_path / "*.csv.gz"):
        found = converted(source, tmp_path)
        assert found["x"].tolist() == list(range(300))
        assert found["text"].tolist() == [text for _, text in rows]
    write(tmp_path / "2.csv", "x,word", "1,a")
    with pytest.raises(hs.SourceError, match=r"2\.csv: has other columns than .*0\.csv: text, word"):
        hs.convert(tmp_path / "*.csv", tmp_path / "a.hsq")
    damaged = (tmp_path / "0.csv.gz").read_bytes()
    (tmp_path / "0.csv.gz").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(hs.SourceError, match=r"0\.csv\.gz: cannot be read"):
        hs.convert(tmp_path / "0.csv.gz", tmp_path / "a.hsq")


@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_is_given_twice_is_read_twice(tmp_path: Path) -> None:
    paths = [
        write(tmp_path / f"{i}.csv", "x,word", *(f"{j},{i}" for j in range(100 * i, 100 * i + 100))) for i in (0, 1)
    ]
    expected = [*range(100), *range(100, 200), *range(100)]
    assert converted([paths[0], paths[1], paths[0]], tmp_path)["x"].tolist() == expected
    format = formats()["csv"]
    with format.opens([paths[0], paths[1], paths[0]], format.parse({})) as reader:
        reader.choose(["x"])
        for start in (0, 99, 150, 200, 250, 300):
            assert [x for job in reader.jobs(start, ["x"], 30) for x in job()["x"]] == expected[start:]


@pytest.mark.usefixtures("small_blocks")
def test_no_thread_is_started_where_none_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, started = write(tmp_path / "a.csv", "x,word", *(f"{i},w{i}" for i in range(300))), list[str]()
    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", lambda self: (started.append(self.name), start(self)))
    for threads, any_started in ((0, False), (1, True)):
        assert len(converted(path, tmp_path, threads=threads)["x"]) == 300
        assert any("convert" in name for name in started) == any_started


@pytest.mark.usefixtures("small_blocks")
def test_faults_are_reported_with_line_and_column(tmp_path: Path) -> None:
    good = [f"{i},{i / 4},w{i}" for i in range(200)]
    cases: list[tuple[dict[int, str], dict[str, Any], str]] = [
        ({150: "1,2"}, {}, "line 152: has 2 values, and there are 3 columns"),
        ({150: "1,2,3,4"}, {}, "line 152: has 4 values, and there are 3 columns"),
        ({150: ",2,3"}, {}, "line 152, column 'x': a number is missing"),
        ({150: "1,,3"}, {}, "line 152, column 'y': a number is missing"),
        ({150: " ,2,3"}, {}, "line 152, column 'x': a number is missing"),
        ({150: " ,2,3"}, {"missing": 0}, "line 152, column 'x': a number is missing"),
        ({20: '1,2,"a\nb\nc"', 150: "1,,3"}, {}, "line 154, column 'y': a number is missing"),
        ({20: "", 150: "1,,3"}, {}, "line 152, column 'y': a number is missing"),
        ({150: "1,1e999,a"}, {}, "line 152, column 'y': '1e999' is no float64"),
        ({150: "92233720368547758070,1,a"}, {}, "line 152, column 'x': '92233720368547758070' is no int64; types=x="),
        ({150: "256,1,a"}, {"types": "x=uint8"}, "line 152, column 'x': '256' is no uint8"),
        ({150: "-1,1,a"}, {"types": "x=uint64"}, "line 152, column 'x': '-1' is no uint64"),
        ({150: "1,word,a"}, {"types": "y=float32"}, "line 152, column 'y': 'word' is no float32"),
        ({150: "1,1e39,a"}, {"types": "y=float32"}, "line 152, column 'y': '1e39' is no float32"),
        ({199: '1,2,"never closed'}, {}, "line 201: a row begins that does not end; is a quote"),
    ]
    for changes, options, message in cases:
        lines = [changes.get(i, line) for i, line in enumerate(good)]
        path = write(tmp_path / "a.csv", "x,y,word", *lines)
        with pytest.raises(hs.SourceError, match=rf"a\.csv, {message}"):
            hs.convert(path, tmp_path / "a.hsq", **options)
        assert not (tmp_path / "a.hsq").exists()
        for part in tmp_path.glob("*.part"):
            part.unlink()


def test_other_faults(tmp_path: Path) -> None:
    cases: list[tuple[bytes, str]] = [
        (b"", "is empty"),
        (b"\nx,y\n", "begins with an empty line"),
        (b"x,y,x\n1,2,3\n", "line 1: two columns are called 'x'"),
        (b"x,\xff\n1,2\n", "line 1: is no row of CSV in UTF-8"),
        (b"x,y\n1,a\n2,\xe9\n", "line 3: is not UTF-8"),
        (b'x,"y\n1,2\n', "line 1: is no row of CSV"),
        (b"x,y\n1,a\n2,b\0\n", "row 1 after line 2, 'y': ends in NUL"),
    ]
    for data, message in cases:
        (tmp_path / "a.csv").write_bytes(data)
        with pytest.raises(hs.SourceError, match=message):
            hs.convert(tmp_path / "a.csv", tmp_path / "a.hsq")


def test_a_quote_that_swallows_the_file_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvtext, "BLOCK_NBYTES", 1000)
    monkeypatch.setattr(csvtext, "_MAX_ROW_NBYTES", 4000)
    path = write(tmp_path / "a.csv", "x,y", "1,2", '3,"4', *["5,6"] * 5000)
    with pytest.raises(hs.SourceError, match="line 3: a row begins that does not end; is a quote never closed"):
        hs.convert(path, tmp_path / "a.hsq")


def test_missing_values_get_what_was_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "n,x,word", "1,,a", ",0.5,", "3,2,c")
    found = converted(path, tmp_path, missing="nan")
    assert found["n"].dtype == np.float64
    np.testing.assert_array_equal(found["n"], [1, np.nan, 3])
    np.testing.assert_array_equal(found["x"], [np.nan, 0.5, 2])
    assert found["word"].tolist() == ["a", "", "c"]
    found = converted(path, tmp_path, missing=-1)
    assert (found["n"].dtype, found["n"].tolist(), found["x"].tolist()) == (np.int64, [1, -1, 3], [-1.0, 0.5, 2.0])
    with pytest.raises(hs.ArgumentError, match="missing=nan is no int64, which 'n' is"):
        hs.convert(path, tmp_path / "a.hsq", missing="nan", types="n=int64")


def test_a_missing_value_has_to_be_one_that_the_type_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "n,x", "1,0.5", ",")
    for missing, types in ((1.5, "n=int64"), (1e300, "n=float32"), (2**53 + 1, "n=float64"), (300, "n=uint8")):
        with pytest.raises(hs.ArgumentError, match=r"missing=.* is no .*, which 'n' is"):
            hs.convert(path, tmp_path / "a.hsq", missing=missing, types=types, inputs=["n"])
    assert converted(path, tmp_path, missing="inf", types="n=float32")["n"].tolist() == [1, np.inf]
    assert converted(path, tmp_path, missing=0.1, types="n=float32")["n"].tolist() == [1, np.float32(0.1)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("row", [3, 150])
def test_whole_numbers_are_not_rounded_unasked(tmp_path: Path, row: int) -> None:
    """Whether they stand before the first number with a fraction, or behind it."""
    n = [str(i) for i in range(200)]
    n[77], n[row] = "0.5", str(2**53 + 1)
    path = write_rows(tmp_path / "a.csv", [["n", "m"], *zip(n, range(200), strict=True)])
    message = rf"a\.csv, line {row + 2}, column 'n': '{2**53 + 1}' would be rounded, .* types=n=float64"
    for options in ({}, {"join": "n=n:m"}, {"missing": "nan"}):
        with pytest.raises(hs.SourceError, match=message):
            hs.convert(path, tmp_path / "a.hsq", overwrite=True, **options)
    assert converted(path, tmp_path, types="n=float64")["n"][row] == 2.0**53
    assert converted(path, tmp_path, types="n=text")["n"][row] == str(2**53 + 1)
    n[row] = str(2**53 + 2)  # which float64 has
    n[row + 1], n[row + 2] = "9007199254740993.5", "1e300"
    write_rows(path, [["n", "m"], *zip(n, range(200), strict=True)])
    assert converted(path, tmp_path)["n"].tolist() == list(map(float, n))


def test_columns_that_nobody_wants_may_be_what_they_like(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "x,gaps", "1,", "2,3")
    assert converted(path, tmp_path, inputs=["x"])["x"].tolist() == [1, 2]


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b,c", "1,2,3")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"join": "x=a:z"}, "no column is called 'z'; there are: a, b, c"),
        ({"join": "x=c:a"}, "'c' stands|'a' stands before 'c'"),
        ({"join": "x=a:b,y=b:c"}, "the column 'b' belongs to 'x' and to 'y'"),
        ({"join": "c=a:b"}, "a column has that name"),
        ({"join": "x"}, "is not FIRST:LAST"),
        ({"types": "a=object"}, "'object' is none of: int8"),
        ({"types": "z=int8"}, "no field is called 'z'; there are: a, b, c"),
        ({"delimiter": "::"}, "is not one character"),
        ({"header": "perhaps"}, "is neither yes nor no"),
        ({"missing": "none"}, "could not convert"),
        ({"columns": "a"}, "no option is called 'columns'"),
    ]
    for options, message in cases:
        with pytest.raises(hs.ArgumentError, match=message):
            hs.convert(path, tmp_path / "a.hsq", **options)
    hs.convert(path, tmp_path / "a.hsq")
    with pytest.raises(hs.ArgumentError, match="are read, not written"):
        hs.convert(tmp_path / "a.hsq", tmp_path / "b.csv", to="csv")


@pytest.mark.usefixtures("small_blocks")
def test_any_start_gives_the_same_records(tmp_path: Path) -> None:
    """As resuming asks for it."""
    paths = [write(tmp_path / f"{i}.csv", "x", *map(str, range(500 * i, 500 * i + 500))) for i in range(2)]
    (tmp_path / "0.csv.gz").write_bytes(gzip.compress(paths[0].read_bytes()))
    format = formats()["csv"]
    for sources, n in ((paths, 1000), ([tmp_path / "0.csv.gz"], 500)):
        with format.opens(sources, format.parse({})) as reader:
            reader.choose(["x"])
            assert reader.n_records == n
            for start in (0, 1, 77, 499, 500, 501, 999, 1000):
                found = [x for job in reader.jobs(min(start, n), ["x"], 100) for x in job()["x"]]
                assert found == list(range(min(start, n), n))


def test_conversion_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvtext, "BLOCK_NBYTES", 20_000)
    values = np.random.default_rng(0).random((1000, 100)).round(3)
    rows = [[*row, "word"] for row in values.tolist()]
    rows[900][-1] = "bad\0"
    header = [*(f"x{i}" for i in range(100)), "word"]
    path = write_rows(tmp_path / "a.csv", [header, *rows])
    with pytest.raises(hs.SourceError, match="'word': ends in NUL"):
        hs.convert(path, tmp_path / "a.hsq", join="x=x0:x99")
    rows[900][-1] = "good"
    write_rows(path, [header, *rows])
    with hs.HyperSequenceWriter.resume(tmp_path / "a.hsq") as writer:
        assert 0 < writer.n_records <= 900
        writer.abort()
    hs.convert(path, tmp_path / "a.hsq", join="x=x0:x99", resume=True)
    with hs.open(tmp_path / "a.hsq") as seq:
        assert seq.records[:][0]["x"].tobytes() == values.tobytes()


@pytest.mark.parametrize("data", [b"a,b\r1,2\r3,4\r", b"a,b\r1,2\n3,4\n5,6\n"])
def test_lines_that_end_in_cr_alone_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(hs.SourceError, match="end in CR alone"):
        hs.convert(tmp_path / "a.csv", tmp_path / "a.hsq")

"""``hsq convert``, ``formats``, ``upgrade``, ``merge``, ``split`` and ``sample``, as a person types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import hypersequence as hs
from conftest import labels
from test_cli import hsq
from test_legacy import GOOD, zipped


def digits(folder: Path, n: int = 100) -> tuple[Path, Path]:
    np.save(folder / "images.npy", np.arange(n * 12, dtype=np.uint8).reshape(n, 3, 4))
    np.save(folder / "digits.npy", np.arange(n) % 10)
    return folder / "images.npy", folder / "digits.npy"


def test_arrays_become_a_file_and_a_file_becomes_arrays(tmp_path: Path) -> None:
    images, numbers = digits(tmp_path)
    out, back = tmp_path / "all.hsq", tmp_path / "back.npz"
    done = hsq("convert", images, numbers, out, "--outputs", "digits", "--batch-size", 8)
    assert done.returncode == 0, done.stderr
    assert "100 records" in done.stdout
    with hs.open(out) as seq:
        assert seq.batch_size() == 8
        assert str(seq.schema) == (
            "Schema(inputs={'images': Field('uint8', (3, 4))}, outputs={'digits': Field('int64')})"
        )
    done = hsq("convert", out, back, "--json")
    assert json.loads(done.stdout) == {"path": str(back), "n_records": 100, "format": "npz"}
    with np.load(back) as found:
        assert (found["images"] == np.load(images)).all()
        assert (found["digits"] == np.load(numbers)).all()


def test_fields_are_chosen_by_name(tmp_path: Path) -> None:
    images, numbers = digits(tmp_path)
    out = tmp_path / "all.hsq"
    assert hsq("convert", images, numbers, out, "--inputs", "digits,images", "--no-named").returncode == 0
    assert hs.open(out).schema == hs.Schema((hs.Field("int64"), hs.Field("uint8", (3, 4))))
    done = hsq("convert", images, numbers, out, "--inputs", "pictures", "--overwrite")
    assert done.returncode == 2
    assert "no field is called 'pictures'; the source has: images, digits" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nothing.npy", "out.hsq"], "there is no such file"),
        (["images.npy", "out.txt"], "one side of a conversion is an .hsq file"),
        (["images.npy", "there.hsq"], "exists already"),
        (["images.npy", "out.hsq", "-O", "colour=red"], "no option is called 'colour'"),
        (["images.npy", "out.hsq", "-O", "colour"], "NAME=VALUE"),
        (["images.npy", "out.hsq", "--from", "magic"], "no format is called 'magic'"),
        (["images.npy"], "the target last"),
        (["there.hsq", "out.xyz"], "its name does not tell the format"),
        (["there.hsq", "out.csv"], "CSV and TSV files are read, not written"),
        (["there.hsq", "out.npy", "--inputs", "a"], "no field is called 'a'; the source has: inputs"),
        (["there.hsq", "out.npy", "--batch-size", "8"], "has no use for --batch-size"),
    ],
)
def test_mistakes_are_explained_and_leave_nothing(tmp_path: Path, arguments: list[str], expected: str) -> None:
    digits(tmp_path)
    with hs.HyperSequenceWriter(tmp_path / "there.hsq") as writer:
        writer.append(1)
    before = sorted(path.name for path in tmp_path.iterdir())
    done = hsq("convert", *[tmp_path / each if "." in each else each for each in arguments])
    assert done.returncode != 0
    assert expected in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_an_interrupted_conversion_goes_on(tmp_path: Path) -> None:
    images, _ = digits(tmp_path, 1000)
    out = tmp_path / "images.hsq"
    with (
        pytest.raises(RuntimeError),
        hs.HyperSequenceWriter(out, schema=hs.Schema({"images": ("u1", (3, 4))})) as writer,
    ):
        writer.extend({"images": np.load(images)[:700]})
        raise RuntimeError
    done = hsq("convert", images, out, "--resume")
    assert done.returncode == 0, done.stderr
    with hs.open(out) as seq:
        assert (seq.records[:][0]["images"] == np.load(images)).all()
    assert list(tmp_path.glob("*.part")) == []


def test_going_on_with_batches_of_another_size_is_refused(tmp_path: Path) -> None:
    images, _ = digits(tmp_path, 1000)
    out = tmp_path / "images.hsq"

    def begin(schema: hs.Schema | None) -> None:
        with pytest.raises(ZeroDivisionError), hs.HyperSequenceWriter(out, 8, schema=schema) as writer:
            writer.extend({"images": np.load(images)[:700]})
            raise ZeroDivisionError

    begin(hs.Schema({"images": ("u1", (3, 4))}))
    refused = hsq("convert", images, out, "--resume", "--batch-size", 64)
    assert refused.returncode == 2
    assert "an earlier try began with --batch-size 8, not 64" in refused.stderr and ".part" in refused.stderr
    assert hsq("convert", images, out, "--resume").returncode == 0  # as it was begun
    assert hs.open(out).batch_size() == 8
    out.unlink()
    begin(None)
    with pytest.raises(hs.ArgumentError, match="began with batch_size 8, not 16"):
        hs.write(out, [{"images": image} for image in np.load(images)], resume=True)
    hs.write(out, [{"images": image} for image in np.load(images)], resume=True, batch_size=8)
    assert hs.open(out).n_records == 1000


def test_what_is_no_source(tmp_path: Path, numbered: Path) -> None:
    out = tmp_path / "out.hsq"
    with pytest.raises(hs.ArgumentError, match=r"a ndarray is no source of NumPy's \.npy files"):
        hs.convert(np.arange(3), out, from_="npy")
    with hs.open(numbered) as seq, pytest.raises(hs.ArgumentError, match="is no source of CSV"):
        hs.convert(seq, out, from_="csv")
    with pytest.raises(hs.ArgumentError, match="inputs are a list of field names, not 5"):
        hs.convert(numbered, out, inputs=5)  # pyright: ignore[reportArgumentType]
    assert not out.exists()


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "photos").mkdir()
    first = tmp_path / "photos" / "0000.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (256, 256, 3)).astype(np.uint8)).save(first)
    for number in range(1, 600):
        os.link(first, first.with_name(f"{number:04}.png"))
    arguments = ["convert", str(tmp_path / "photos"), str(tmp_path / "photos.hsq"), "--threads", "1"]
    process = subprocess.Popen([sys.executable, "-m", "hypersequence", *arguments], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 60
    while not any(part.stat().st_size > 9_000_000 for part in tmp_path.glob("*.part")) and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.startswith("interrupted\n") and "Traceback" not in said
    (part,) = tmp_path.glob("*.part")
    assert f"records appended are in {part}" in said
    assert "the same command with --resume goes on with it" in said
    assert hsq(*arguments, "--resume").returncode == 0
    with hs.open(tmp_path / "photos.hsq") as seq:
        assert seq.n_records == 600
    again = hsq(*arguments, "--resume")
    assert again.returncode == 2
    assert "is there and complete, so there is nothing to go on with" in again.stderr
    with pytest.raises(hs.FileError, match="is there and complete"):
        hs.write(tmp_path / "photos.hsq", [1], resume=True)


def test_another_source_is_not_gone_on_with(tmp_path: Path) -> None:
    images, _ = digits(tmp_path, 1000)
    out = tmp_path / "images.hsq"
    with (
        pytest.raises(RuntimeError),
        hs.HyperSequenceWriter(out, schema=hs.Schema({"images": ("u1", (3, 4))})) as writer,
    ):
        writer.extend({"images": np.load(images)[300:700]})
        raise RuntimeError
    done = hsq("convert", images, out, "--resume")
    assert done.returncode == 1
    assert "record 399 of the source is not the one" in done.stderr
    assert not out.exists()
    (part,) = tmp_path.glob("*.part")
    assert hs.recover(part).n_records == 400


def test_formats_are_listed(tmp_path: Path) -> None:
    listed = hsq("formats")
    assert listed.returncode == 0
    for name, format in hs.formats().items():
        assert f" {name} " in listed.stdout and format.title in listed.stdout  # nothing is cut
    facts = {each["name"]: each for each in json.loads(hsq("formats", "--json").stdout)}
    assert facts["npz"]["read"] and facts["npz"]["written"]
    for name, each in facts.items():
        shown = hsq("formats", name)
        assert all(option["name"] in shown.stdout for option in each["options"])
    assert "no format is called" in hsq("formats", "magic").stderr


def test_a_file_of_today_is_not_upgraded(tmp_path: Path, numbered: Path) -> None:
    before = numbered.read_bytes()
    done = hsq("upgrade", numbered)
    assert (done.returncode, numbered.read_bytes()) == (0, before)
    assert "is of version 3 already" in done.stdout
    assert hsq("upgrade", numbered, tmp_path / "new.hsq").returncode == 0


def test_warnings_come_without_a_line_of_the_source(tmp_path: Path) -> None:
    old = tmp_path / "old.hsq"
    old.write_bytes(zipped(GOOD | {"usermeta": {"loss": float("nan")}}))
    done = hsq("upgrade", old)
    assert (done.returncode, done.stderr) == (
        0,
        f"warning: {old}: nan in the user metadata is not JSON and was kept as text\n",
    )


def test_files_are_merged(tmp_path: Path, numbered: Path) -> None:
    out = tmp_path / "both.hsq"
    assert hsq("merge", numbered, numbered, out).returncode == 0
    with hs.open(out) as seq:
        assert labels(seq) == [*range(103), *range(103)]
    again = hsq("merge", numbered, out, out, "--overwrite")  # as *.hsq has it, the second time
    assert again.returncode == 2 and "is one of the files to be merged" in again.stderr
    assert "exists already" in hsq("merge", numbered, out).stderr


def test_an_interrupted_merge_goes_on(tmp_path: Path, numbered: Path) -> None:
    second, out = tmp_path / "second.hsq", tmp_path / "both.hsq"
    with hs.HyperSequenceWriter(second, batch_size=hs.open(numbered).batch_size()) as writer:
        writer.extend(*hs.open(numbered).records[:])
    with pytest.raises(RuntimeError), hs.HyperSequenceWriter(out, schema=hs.open(numbered).schema) as writer:
        writer.extend(*hs.open(numbered).records[:])
        writer.extend(*hs.open(numbered).records[:7])
        raise RuntimeError
    done = hsq("merge", numbered, second, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out}: 206 records\n"
    with hs.open(out) as seq:
        assert labels(seq) == [*range(103), *range(103)]
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize("more", [[], ["--seed", "3"], ["--by", "batch"]], ids=" ".join)
def test_a_file_is_split(tmp_path: Path, numbered: Path, more: list[str]) -> None:
    parts = [tmp_path / name for name in ("a.hsq", "b.hsq", "c.hsq")]
    done = hsq("split", numbered, f"{parts[0]}=0.7", f"{parts[1]}=0.2", parts[2], *more)
    assert done.returncode == 0, done.stderr
    found = [labels(hs.open(part)) for part in parts]
    assert sorted(label for part in found for label in part) == list(range(103))
    if not more:
        assert [len(each) for each in found] == [72, 21, 10]
    assert (found[0] == sorted(found[0])) is ("--seed" not in more)
    wrong = hsq("split", numbered, parts[0], parts[1])
    assert wrong.returncode == 2
    assert "OUT=SHARE" in wrong.stderr


def test_a_split_that_cannot_be_finished_is_not_begun(tmp_path: Path, numbered: Path) -> None:
    twice = hsq("split", numbered, f"{tmp_path / 'a.hsq'}=0.5", tmp_path / "a.hsq", "--overwrite")
    assert twice.returncode == 2
    assert "file of its own" in twice.stderr
    (tmp_path / "b.hsq").touch()
    there = hsq("split", numbered, f"{tmp_path / 'a.hsq'}=0.5", tmp_path / "b.hsq")
    assert there.returncode == 2
    assert "exists already" in there.stderr
    assert hsq("split", numbered, f"{tmp_path / 'a.hsq'}=0.5", tmp_path / "c.hsq", "--by", "banana").returncode == 2
    for parts, why in (
        ((f"{tmp_path / 'a.hsq'}=0.5", tmp_path / "nowhere" / "b.hsq"), "nowhere does not exist"),
        ((f"{tmp_path / 'a.hsq'}=0.5", tmp_path), "is a folder"),
        ((f"{tmp_path / 'a.hsq'}=0.5", numbered), "is the file that is split"),
        ((f"{tmp_path / 'a.hsq'}=80", tmp_path / "c.hsq"), "=0.8 for 80%"),
    ):
        done = hsq("split", numbered, *parts, "--overwrite")
        assert done.returncode == 2
        assert why in " ".join(done.stderr.replace("│", " ").split())
    assert not (tmp_path / "a.hsq").exists()
    pattern = tmp_path / "num*.hsq"
    assert (
        "is the file that is split"
        in hsq("split", pattern, f"{numbered}=0.5", tmp_path / "c.hsq", "--overwrite").stderr
    )
    assert labels(hs.open(numbered)) == list(range(103))
    assert hsq("split", pattern, f"{tmp_path / 'b.hsq'}=0.5", tmp_path / "c.hsq", "--overwrite").returncode == 0


def test_names_with_an_equals_sign(tmp_path: Path, numbered: Path) -> None:
    parts = [tmp_path / "fold=1.hsq", tmp_path / "fold=2.hsq"]
    assert hsq("split", numbered, f"{parts[0]}=0.5", parts[1]).returncode == 0
    assert sorted(label for part in parts for label in labels(hs.open(part))) == list(range(103))


def test_a_folder_of_somebody_is_not_replaced(tmp_path: Path, numbered: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious.txt").write_text("mine")
    for kind in ("npz", "zarr", "hdf5"):
        done = hsq("convert", numbered, tmp_path / "data", "--to", kind, "--overwrite")
        assert done.returncode == 2
        assert "is a folder that this format did not make" in done.stderr
    assert (tmp_path / "data" / "precious.txt").read_text() == "mine"


def test_a_sample_is_drawn(tmp_path: Path, numbered: Path) -> None:
    drawn = []
    for seed in (0, 0, 1):
        assert hsq("sample", numbered, 40, tmp_path / "few.hsq", "--seed", seed, "--overwrite").returncode == 0
        drawn.append(labels(hs.open(tmp_path / "few.hsq")))
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sorted(set(drawn[0])) and len(drawn[0]) == 40
    assert "103 records, 200 are more" in hsq("sample", numbered, 200, tmp_path / "many.hsq").stderr

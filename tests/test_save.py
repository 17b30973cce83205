"""save(): any sequence as a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import hypersequence as hs
from conftest import labels


def test_what_was_chosen_stays_chosen(tmp_path: Path, numbered: Path) -> None:
    with hs.open(numbered) as seq:
        chosen = {
            "shuffled": seq.shuffled(3, by="record"),
            "selected": seq.select([5, 3, 99]),
            "taken": seq.take(2),
            "split": seq.split(0.3)[1],
            "joined": hs.concat([seq, seq]),
            "without a short one": seq.rebatch(10, drop_last=True),
        }
        for name, sequence in chosen.items():
            path = tmp_path / f"{name}.hsq"
            hs.save(sequence, path)
            with hs.open(path) as found:
                assert labels(found) == labels(sequence), name
                assert found.batch_size() == sequence.batch_size()
                assert hs.verify(path).ok


def test_fields_and_structure_are_kept(tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 4) as writer:
        for i in range(10):
            writer.append({"x": i, "y": np.full(3, i, np.float32)}, (i, f"t{i}"), float(i))
        writer.user_meta()["note"] = "kept"
    with hs.open(tmp_path / "a.hsq") as seq:
        for names in (["x"], ["y", "outputs.1"], ["inputs", "sample_weights"], ["inputs", "outputs", "sample_weights"]):
            hs.save(seq.fields(*names), tmp_path / "b.hsq", overwrite=True)
            with hs.open(tmp_path / "b.hsq") as found:
                assert [c.label.split("[")[0] for c in found.columns] == [
                    c.label.split("[")[0] for c in seq.fields(*names).columns
                ]
                assert found.user_meta() == {"note": "kept"}
                assert found.records[7][0]["x" if "y" not in names else "y"] is not None
        hs.save(seq, tmp_path / "c.hsq")
        with hs.open(tmp_path / "c.hsq") as found:
            assert found.schema == seq.schema


def test_what_map_makes_is_saved(tmp_path: Path, numbered: Path) -> None:
    with hs.open(numbered) as seq:
        halved = seq.map(lambda batch: (batch[0].astype(np.float64) / 2, batch[1]))
        hs.save(halved, tmp_path / "b.hsq")
    with hs.open(tmp_path / "b.hsq") as found:
        inputs, outputs = found.records[:]
        assert inputs.dtype == np.float64
        assert (inputs == outputs[:, None, None] / 2).all()


def test_a_file_replaces_itself(tmp_path: Path, numbered: Path) -> None:
    with hs.open(numbered) as seq:
        with pytest.raises(hs.FileError, match="exists already"):
            hs.save(seq.take(2), numbered)
        hs.save(seq.take(2), numbered, overwrite=True)
        assert labels(seq) == list(range(103))
    with hs.open(numbered) as seq:
        assert labels(seq) == list(range(16))


def test_damage_leaves_no_file(tmp_path: Path, numbered: Path) -> None:
    data = bytearray(numbered.read_bytes())
    data[len(data) // 2] ^= 1
    numbered.write_bytes(data)
    with hs.open(numbered) as seq, pytest.raises(hs.ChecksumError):
        hs.save(seq, tmp_path / "b.hsq")
    assert not (tmp_path / "b.hsq").exists()


def test_an_empty_sequence(tmp_path: Path) -> None:
    schema = hs.Schema({"x": hs.Field("float32", (3,))}, "int64")
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", schema=schema):
        pass
    with hs.open(tmp_path / "a.hsq") as seq:
        hs.save(seq, tmp_path / "b.hsq")
    assert hs.open(tmp_path / "b.hsq").schema == schema


# --- from one .hsq file to another, or to another format, with other fields ----------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Inputs with names, outputs and weights without."""
    with hs.HyperSequenceWriter(tmp_path / "mixed.hsq", 8) as writer:
        for i in range(50):
            writer.append({"x": np.full(3, i, np.float32), "y": i}, (i % 7, f"t{i:02}"), float(i))
        writer.user_meta()["note"] = "kept"
    return tmp_path / "mixed.hsq"


def test_a_file_is_converted_as_it_is_where_nothing_is_said(tmp_path: Path, mixed: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "same.hsq", 8) as writer:
        writer.extend({"x": np.arange(9)}, {"x": np.arange(9.0), "inputs": np.arange(9)})
    for path in (mixed, tmp_path / "same.hsq"):
        with hs.open(path) as seq:
            done = hs.convert(path, tmp_path / "b.hsq", overwrite=True)
            assert (done.n_records, done.format) == (seq.n_records, "hsq")
            with hs.open(tmp_path / "b.hsq") as found:
                assert (found.schema, found.batch_size(), found.user_meta()) == (
                    seq.schema,
                    seq.batch_size(),
                    seq.user_meta(),
                )
                np.testing.assert_equal(found.records[:], seq.records[:])


def test_batches_and_names_are_what_was_asked_for(tmp_path: Path, mixed: Path) -> None:
    hs.convert(mixed, tmp_path / "b.hsq", batch_size=5, threads=2)
    with hs.open(tmp_path / "b.hsq") as found:
        assert found.batch_size() == 5
    hs.convert(mixed, tmp_path / "c.hsq", named=False)
    with hs.open(tmp_path / "c.hsq") as found, hs.open(mixed) as seq:
        assert found.schema == hs.Schema(tuple(seq.schema.inputs.values()), seq.schema.outputs, "float64")
        assert found.batch_size() == 8
    hs.convert(mixed, tmp_path / "d.hsq", named=True)
    with hs.open(tmp_path / "d.hsq") as found:
        assert list(found.schema.outputs) == ["outputs_0", "outputs_1"]
    with hs.open(mixed) as seq:
        doubled = seq.map(lambda batch: (batch[0]["y"] * 2,))
        hs.convert(doubled, tmp_path / "e.hsq", batch_size=3)
        with hs.open(tmp_path / "e.hsq") as found:
            assert (found.batch_size(), found.records[:][0].tolist()) == (3, list(range(0, 100, 2)))
        for given in ({"inputs": ["y"]}, {"named": True}, {"resume": True}):
            with pytest.raises(hs.ArgumentError, match=rf"map\(\).* has no use for {next(iter(given))}"):
                hs.convert(doubled, tmp_path / "f.hsq", **given)


@pytest.mark.parametrize(
    ("asked", "roles"),
    [
        ({"inputs": ["y"]}, [["y"], [], []]),
        ({"outputs": ["x"]}, [["y", "outputs_0", "outputs_1", "sample_weights"], ["x"], []]),
        ({"inputs": ["x"], "outputs": ["outputs.1"]}, [["x"], ["outputs_1"], []]),
        ({"inputs": ["inputs"], "outputs": ["outputs"]}, [["x", "y"], ["outputs_0", "outputs_1"], []]),
        ({"inputs": ["outputs_1"], "sample_weights": ["sample_weights"]}, [["outputs_1"], [], ["sample_weights"]]),
    ],
)
def test_fields_of_an_hsq_file_are_chosen(
    tmp_path: Path, mixed: Path, asked: dict[str, list[str]], roles: list[list[str]]
) -> None:
    columns = {"x": 0, "y": 1, "outputs_0": 2, "outputs_1": 3, "sample_weights": 4}
    with hs.open(mixed) as seq:
        inputs, outputs, weights = seq.records[:]
        values = [*inputs.values(), *outputs, weights]
    hs.convert(mixed, tmp_path / "b.hsq", **asked)
    with hs.open(tmp_path / "b.hsq") as found:
        assert [[c.role for c in found.columns].count(role) for role in ("inputs", "outputs", "sample_weights")] == [
            len(names) for names in roles
        ]
        stored = found.records[:]
        wanted = [name for names in roles for name in names]
        for column, name in zip(found.columns, wanted, strict=True):
            role = stored[("inputs", "outputs", "sample_weights").index(column.role)]
            value = role[column.name or column.position] if column.name or column.of_several else role
            np.testing.assert_array_equal(value, values[columns[name]])
            # Names stay, and none is made up, but for those that have to stand beside one.
            siblings = roles[("inputs", "outputs", "sample_weights").index(column.role)]
            assert column.name == (name if {"x", "y"} & {*siblings} else None)
        assert found.user_meta() == {"note": "kept"}
    hs.convert(mixed, tmp_path / "b.npz", **asked)
    with np.load(tmp_path / "b.npz") as arrays:
        assert sorted(arrays) == sorted(wanted)
        np.testing.assert_array_equal(arrays[wanted[0]], values[columns[wanted[0]]])
    hs.convert(mixed, tmp_path / "b.h5", **asked)
    hs.convert(tmp_path / "b.h5", tmp_path / "c.hsq")
    with hs.open(tmp_path / "c.hsq") as back:  # HDF5 keeps roles
        assert [c.role for c in back.columns] == [c.role for c in found.columns]


def test_rewriting_goes_on_where_it_stopped(tmp_path: Path, mixed: Path) -> None:
    with pytest.raises(RuntimeError), hs.HyperSequenceWriter(tmp_path / "b.hsq", schema=hs.Schema({"y": "i8"})) as w:
        w.extend({"y": np.arange(20)})
        raise RuntimeError
    hs.convert(mixed, tmp_path / "b.hsq", inputs=["y"], resume=True)
    with hs.open(tmp_path / "b.hsq") as found:
        assert found.records[:][0]["y"].tolist() == list(range(50))
    assert list(tmp_path.glob("*.part")) == []


def test_what_another_format_has_no_use_for_is_refused(tmp_path: Path, mixed: Path) -> None:
    for given in ({"batch_size": 4}, {"named": False}, {"threads": 1}, {"resume": True}):
        with pytest.raises(hs.ArgumentError, match=rf"b\.npz: .* has no use for {next(iter(given))}; leave"):
            hs.convert(mixed, tmp_path / "b.npz", **given)
    for target in ("b.npz", "b.hsq"):
        with pytest.raises(hs.ArgumentError, match="no field is called 'z'; the source has: x, y, outputs_0"):
            hs.convert(mixed, tmp_path / target, inputs=["z"])
        with pytest.raises(hs.ArgumentError, match=r"outputs are a list of field names, not 'y': outputs=\['y'\]"):
            hs.convert(mixed, tmp_path / target, outputs="y")
    with pytest.raises(hs.ArgumentError, match="no option is called 'size'"):
        hs.convert(mixed, tmp_path / "b.hsq", size=3)
    assert [path.name for path in tmp_path.iterdir()] == ["mixed.hsq"]

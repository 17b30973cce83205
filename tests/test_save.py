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

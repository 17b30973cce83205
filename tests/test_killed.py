"""SIGKILL at random moments of everything that writes: a new file, one that goes on, recovering, replacing a file.

Each process takes up what the one before left. Whatever it was, the target is one whole version, and what one process
called safe the next one finds.
"""

from __future__ import annotations

import os
import signal
import struct
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import hypersequence as hs
from conftest import LONG
from test_recovery import parts_of
from tried import TRIED

N, BATCH, BLOCK_NBYTES, PIECE = 4_000, 16, 16_000, 50
#: What a process tells before it goes on: which version it writes, and how many records of it are safe.
_TOLD = struct.Struct("<qq")
NOTHING_WHOLE = 3
OPERATIONS = ("write", "resume", "recover", "recover to another file")


def records(version: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    numbers = version * N + np.arange(start, stop)
    return np.repeat(numbers.astype(np.float64)[:, None], 5, 1), numbers


def live(path: Path, operation: str, version: int, tell: int) -> None:
    """What a process does until it is killed; it writes at most one version."""
    if operation.startswith("recover"):
        (part,) = sound_parts(path)
        out = None if operation == "recover" else path.with_name("elsewhere.hsq")
        os.write(tell, _TOLD.pack(-1, 0))
        try:
            hs.recover(part, out, overwrite=True)
        except hs.FileError as error:  # in place, the first block alone was begun, and stays as it is
            if "has no whole block" not in str(error):
                raise
            os._exit(NOTHING_WHOLE)
        return
    if operation == "resume":
        writer = hs.HyperSequenceWriter.resume(path)
        version = int(writer.last_record()[1]) // N if writer.n_records else version
    else:
        writer = hs.HyperSequenceWriter(path, BATCH, block_nbytes=BLOCK_NBYTES)
    os.write(tell, _TOLD.pack(version, writer.n_records))
    for start in range(writer.n_records, N, PIECE):
        writer.extend(*records(version, start, min(start + PIECE, N)))
    writer.close()


def sound_parts(path: Path) -> list[Path]:
    """Those whose header came to be written."""
    return [part for part in parts_of(path) if part.stat().st_size > 4096]


@dataclass
class Told:
    """What processes told so far: the version that is in the part file, and how much of it is safe."""

    version: int = -1
    n_safe: int = 0


def committed(path: Path) -> tuple[int, int]:
    """Version and number of records of a file that must be sound to its last byte."""
    found = hs.verify(path)
    assert found.ok, str(found)
    with hs.open(path, verify="always") as seq:
        if not seq.n_records:
            return -1, 0
        inputs, outputs = seq.records[:]
    version = int(outputs[0]) // N
    expected = records(version, 0, len(outputs))
    assert (outputs == expected[1]).all()
    assert (inputs == expected[0]).all()
    return version, len(outputs)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_any_moment_of_anything(tmp_path: Path) -> None:
    choice, path, told = np.random.default_rng(LONG), tmp_path / "a.hsq", Told()
    kills, version = dict.fromkeys(OPERATIONS, 0), 0
    target: tuple[int, int] | None = None
    while min(kills.values()) < 12 * LONG:
        parts = sound_parts(path)
        assert len(parts) <= 1
        operation = str(choice.choice(OPERATIONS[1:])) if parts else "write"
        version += operation == "write"
        told = _one_life(path, operation, version, told, kills, choice)
        if path.exists():
            found = committed(path)
            if found != target:  # whole, or what recovering in place makes of a part
                assert found[0] > (target[0] if target else -1) or found[0] == told.version or not found[1]
                if found[0] == told.version:
                    assert found[1] >= told.n_safe
                    told = Told()
                target = found
        else:
            assert target is None
        if told.n_safe and not (target and target[0] == told.version):
            assert sound_parts(path)
        elsewhere = path.with_name("elsewhere.hsq")
        if elsewhere.exists():
            assert committed(elsewhere)[0] in (told.version, -1)
            elsewhere.unlink()
        for part in tmp_path.glob("elsewhere.hsq.*.part"):
            part.unlink()


def _one_life(
    path: Path, operation: str, version: int, told: Told, kills: dict[str, int], choice: np.random.Generator
) -> Told:
    """Start a process, kill it after a while unless it is done by then; what is known after it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            warnings.simplefilter("ignore")
            live(path, operation, version, writer)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    time.sleep(choice.exponential(0.006))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    data = os.read(reader, _TOLD.size)
    os.close(reader)
    kills[operation] += os.WIFSIGNALED(status)
    TRIED[f"processes killed (SIGKILL): {operation}"] += os.WIFSIGNALED(status)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, NOTHING_WHOLE), operation
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == NOTHING_WHOLE:
        assert not told.n_safe
    if len(data) < _TOLD.size:
        return told
    now, n_safe = _TOLD.unpack(data)
    if now < 0:  # it recovers
        return told
    if now == told.version:
        assert n_safe >= told.n_safe
    else:
        assert told.version < 0 or not told.n_safe or operation == "write"
    return Told(now, n_safe)

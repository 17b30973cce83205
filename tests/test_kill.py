"""A training process that is killed again and again sees the records that an undisturbed one sees."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

import hypersequence as hs

EPOCHS = 3


def chain(file: hs.HyperSequence, by: str) -> hs.HyperSequence:
    return file.shuffled(7, by=by, window=2500)


def train(path: Path, log: Path, by: str, seed: int) -> None:
    """Goes on where the log ends; a line is what was trained and where that leaves the loader."""
    choice = random.Random(seed)
    loader = hs.Loader(
        chain(hs.open(path), by).rebatch(choice.choice([3, 8, 20])), epochs=EPOCHS, threads=choice.choice([0, 1, 3])
    )
    lines = log.read_bytes().split(b"\n")
    log.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))  # the last one may be torn
    if lines[:-1]:
        loader.load_state_dict(json.loads(lines[-2])["state"])
    if loader.state_dict()["epoch"] >= EPOCHS:
        return
    with log.open("ab", buffering=0) as out:
        for _, y in loader:
            time.sleep(0.002)
            out.write(json.dumps({"seen": y.tolist(), "state": loader.state_dict()}).encode() + b"\n")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("by", ["window", "record", "batch"])
def test_killed_fifty_times(numbered: Path, tmp_path: Path, by: str) -> None:
    """SIGKILL at random moments, then the next process with other threads and another batch size."""
    with hs.open(numbered) as file:
        expected = [
            int(label) for epoch in range(EPOCHS) for _, y in chain(file, by).at_epoch(epoch) for label in y.tolist()
        ]
    context, choice, kills, rounds = multiprocessing.get_context("fork"), random.Random(1), 0, 0
    while kills < 50:
        log = tmp_path / f"log{rounds}"
        log.touch()
        finished = False
        while not finished:
            process = context.Process(target=train, args=(numbered, log, by, choice.getrandbits(32)))
            process.start()
            process.join(choice.uniform(0.005, 0.06))
            if process.exitcode is None:
                process.kill()
                process.join()
            assert process.exitcode in (0, -signal.SIGKILL)
            finished = process.exitcode == 0
            kills += not finished
        rounds += 1
        seen = [label for line in log.read_text().splitlines() for label in json.loads(line)["seen"]]
        assert seen == expected

"""A training that is killed twice in mid-epoch, and ends as if nobody had touched it.

The training runs in a process of its own and saves its model, its optimizer and its place in the data every ten
batches, in one file. This script kills it (SIGKILL: no warning, no cleaning up) at a moment that chance chooses, starts
it again, kills it again, and lets the third one end. Then it looks at two things: did the model see every record
exactly once in every epoch, and are its weights bit for bit those of a training that nobody killed? The data are the
1,797 small digits of scikit-learn; nothing is downloaded. Some 25 seconds on two CPU cores, most of it spent on
starting PyTorch four times.

    python -m pip install ".[torch]" scikit-learn     # in a clone
    python examples/resume_after_kill.py

In Keras, hs.keras.ResumeCallback does the saving and going on inside of fit().
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import hypersequence as hs


def pack(path: Path) -> None:
    """Write the digits, each with its own number, by which it can be told whether it was seen."""
    digits = load_digits()
    with hs.HyperSequenceWriter(path, batch_size=32) as writer:
        writer.extend(digits.data.astype(np.uint8), {"digit": digits.target, "number": np.arange(len(digits.target))})


def train(data: Path, checkpoint: Path, epochs: int, pause: float = 0) -> dict[str, Any]:
    """Train from the checkpoint on, if there is one; the end is in the checkpoint, and comes back."""
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in one order, so that weights can be compared to the last bit
    digits = hs.open(data)
    loader = digits.shuffled(seed=1).as_torch()
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters())
    # How often the model saw each record in each epoch. It is saved with the model, so it tells of this model alone:
    # what a killed process trained behind its last save is forgotten together with the counts.
    n_seen = torch.zeros(epochs, digits.n_records, dtype=torch.int64)
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["data"])
        n_seen = saved["n_seen"]
    place = loader.state_dict()
    print(f"training begins in epoch {place['epoch']} at record {place['position']}", flush=True)

    def save() -> dict[str, Any]:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"data": loader.state_dict(), "n_seen": n_seen}
        # Under another name first: a kill in mid-write leaves the old checkpoint whole.
        new = checkpoint.with_suffix(".new")
        torch.save(state, new)
        new.replace(checkpoint)
        return state

    n_batches = 0
    while (epoch := loader.state_dict()["epoch"]) < epochs:
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images / 16), labels["digit"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n_seen[epoch].index_add_(0, labels["number"], torch.ones_like(labels["number"]))
            n_batches += 1
            if n_batches % 10 == 0:
                save()
            if pause:
                print(f"batch {n_batches}", flush=True)
                time.sleep(pause)  # as a larger model would take
    return save()


def kill_in_between(command: list[str]) -> None:
    """Start a training, and kill it when it has trained some batches."""
    n_batches = random.randrange(15, 45)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        lines = [process.stdout.readline().strip() for _ in range(1 + n_batches)]
        process.kill()
    if not lines[-1]:
        if process.returncode > 0:
            raise SystemExit("the training failed before it could be killed; its own message is above")
        raise SystemExit("the training came to an end before it could be killed; it takes 2 epochs or more")
    print(f"{lines[0]}\nkilled after {lines[-1]}, with exit code {process.returncode}")


def run(folder: Path, epochs: int) -> None:
    """Kill, go on, kill, go on, compare."""
    data, checkpoint = folder / "digits.hsq", folder / "killed.pt"
    pack(data)
    checkpoint.unlink(missing_ok=True)
    command = [sys.executable, __file__, "--folder", str(folder), "--epochs", str(epochs), "--pause"]
    kill_in_between([*command, "0.02"])
    kill_in_between([*command, "0.02"])
    subprocess.run([*command, "0"], check=True)
    killed = torch.load(checkpoint)

    print("for comparison, without a kill: ", end="")
    (folder / "whole.pt").unlink(missing_ok=True)
    whole = train(data, folder / "whole.pt", epochs)
    if not bool((killed["n_seen"] == 1).all()):
        raise SystemExit("some records were not seen exactly once")
    n_epochs, n_records = killed["n_seen"].shape
    print(f"each of {n_records:,} records was seen exactly once in each of {n_epochs} epochs")
    if not all(torch.equal(killed["model"][name], value) for name, value in whole["model"].items()):
        raise SystemExit("the weights differ from those of a training that nobody killed")
    print("the weights are bit for bit those of the training that nobody killed")


def main() -> None:
    """What the command line says; the hidden argument is for the processes that train."""
    parser = argparse.ArgumentParser(description="A training that is killed and goes on, in PyTorch.")
    parser.add_argument(
        "--folder", type=Path, help="where to keep data and checkpoints; a temporary folder if left out"
    )
    parser.add_argument("--epochs", type=int, default=3, help="at least 2, so that there is something left to kill")
    parser.add_argument("--pause", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.pause is not None:
        folder = arguments.folder
        train(folder / "digits.hsq", folder / "killed.pt", arguments.epochs, arguments.pause)
        return
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments.folder or Path(temporary), arguments.epochs)


if __name__ == "__main__":
    main()

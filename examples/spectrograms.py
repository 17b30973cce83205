"""Spectrograms of real recordings: which exercise is this person doing?

The package seglearn brings along 140 recordings of ten people who did seven shoulder exercises with a smartwatch on the
wrist: acceleration and rotation, three axes each, 50 times a second. This script cuts them into windows of four
seconds, makes a spectrogram of every channel, writes each as a record with the exercise and the person, and trains a
small network in PyTorch on eight of the people. It is tested on the two others, which is harder, and worth more, than
testing on other windows of the same people. Guessing would be right once in seven. Nothing is downloaded. Some 20
seconds on two CPU cores.

    python -m pip install ".[torch]" seglearn scipy     # in a clone
    python examples/spectrograms.py
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.signal import spectrogram
from seglearn.datasets import load_watch
from torch import nn

import hypersequence as hs

RATE = 50  # samples a second
WINDOW = 4 * RATE
STEP = RATE  # a window begins every second, so that windows overlap
N_FREQUENCIES = 16  # of 33: up to 12 Hz, since arms do not move faster
TESTED = (9, 10)  # the people whom the network does not see


def spectrograms_of(recording: np.ndarray) -> np.ndarray:
    """A recording, samples x channels, as windows x channels x frequencies x times."""
    windows = np.lib.stride_tricks.sliding_window_view(recording, WINDOW, axis=0)[::STEP]
    # Without detrending, frequency 0 tells how the watch is turned, since it feels gravity.
    _, _, power = spectrogram(windows, fs=RATE, nperseg=64, noverlap=48, detrend=False)
    return np.log(power[:, :, :N_FREQUENCIES] + 1e-4).astype(np.float32)


def pack(path: Path) -> None:
    """Write a record for every window of every recording; only one recording is in memory as spectrograms."""
    watch = load_watch()
    with hs.HyperSequenceWriter(path, batch_size=32) as writer:
        for recording, exercise, person in zip(watch["X"], watch["y"], watch["subject"], strict=True):
            inputs = spectrograms_of(recording)
            writer.extend(inputs, {"exercise": np.full(len(inputs), exercise), "person": np.full(len(inputs), person)})
        # What a reader of the file needs to know goes with it.
        writer.user_meta().update(exercises=list(watch["y_labels"]), channels=list(watch["X_labels"]), rate=RATE)


def build_model(n_exercises: int) -> nn.Module:
    """Convolutions over frequency and time; the first layer brings the channels to one scale."""
    return nn.Sequential(
        nn.BatchNorm2d(6),
        nn.Conv2d(6, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((4, 1)),  # where in time does not matter
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32 * 4, n_exercises),
    )


def train(path: Path, epochs: int) -> None:
    """Train on some people, test on the others, and say what came of it."""
    windows = hs.open(path)
    exercises = windows.user_meta()["exercises"]
    # One small field alone is read quickly, and select() takes any mask that is made of it.
    _, labels = windows.fields("person").records[:]
    tested = np.isin(labels["person"], TESTED)
    training, test = windows.select(~tested), windows.select(tested)
    loader = training.shuffled(seed=1).as_torch()

    torch.set_num_threads(1)  # a network as small as this gains nothing from more, and loses much on a busy machine
    torch.manual_seed(0)
    model = build_model(len(exercises))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for epoch in range(epochs):
        total = 0.0
        for inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels["exercise"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(inputs)
        print(f"epoch {epoch + 1}: loss {total / training.n_records:.3f}")

    model.eval()
    right, found = np.zeros(len(exercises)), np.zeros(len(exercises))
    with torch.no_grad():
        for inputs, labels in test.as_torch():
            truth = labels["exercise"]
            np.add.at(found, truth.numpy(), 1)
            np.add.at(right, truth[model(inputs).argmax(1) == truth].numpy(), 1)
    print(f"windows:  {windows.n_records:,}, of which {test.n_records} are of people it had not seen")
    print(f"accuracy: {right.sum() / found.sum():.1%} of those (guessing: {1 / len(exercises):.1%})")
    print("by exercise: " + ", ".join(f"{e} {r:.0%}" for e, r in zip(exercises, right / found, strict=True)))


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Spectrograms of a smartwatch's recordings, in PyTorch.")
    parser.add_argument("--folder", type=Path, help="where to keep watch.hsq; a temporary folder if left out")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        path = (arguments.folder or Path(temporary)) / "watch.hsq"
        pack(path)
        train(path, arguments.epochs)


if __name__ == "__main__":
    main()

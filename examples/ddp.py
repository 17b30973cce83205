"""Two processes train one model together: DistributedDataParallel on CPUs.

Each process opens the same file. as_torch() asks torch.distributed who it is, and takes its part of every global batch;
there is no sampler, and no set_epoch(). The script itself checks that both processes together counted every record once
an epoch, and that both have the same parameters in the end. The data are the 1,797 small digits of scikit-learn, which
do not divide evenly, so that the last batch of an epoch is filled up and weighted. Nothing is downloaded. Some 20
seconds on two CPU cores.

    python -m pip install ".[torch]" scikit-learn     # in a clone
    python examples/ddp.py

On GPUs: "nccl" in place of "gloo", as_torch(device=f"cuda:{rank}"), and torchrun in place of spawn.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import hypersequence as hs

WORLD, GLOBAL_BATCH = 2, 64


def pack(path: Path) -> None:
    """Write the digits, each with its own number, by which it can be told whether it was seen."""
    digits = load_digits()
    with hs.HyperSequenceWriter(path, batch_size=32) as writer:
        writer.extend(digits.data.astype(np.uint8), {"digit": digits.target, "number": np.arange(len(digits.target))})


def train(rank: int, folder: str, meeting: str, epochs: int) -> None:
    """What each of the processes does."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=WORLD)
    digits = hs.open(Path(folder) / "digits.hsq")
    training, test = digits.split(0.8, by="record")
    # "pad" fills the last global batch up with records that have weight 0, so that both ranks have as many steps.
    loader = training.shuffled(seed=1).as_torch(global_batch=GLOBAL_BATCH, uneven="pad")

    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    n_seen = torch.zeros(epochs, digits.n_records)
    for epoch in range(epochs):
        for images, labels, weights in loader:
            losses = nn.functional.cross_entropy(model(images / 16), labels["digit"], reduction="none")
            # DDP takes the mean over the ranks, so each rank's part is a sum over its share of the global batch:
            # every record counts the same, wherever it lies.
            loss = (losses * weights).sum() / (GLOBAL_BATCH / WORLD)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            n_seen[epoch].index_add_(0, labels["number"], weights)

    right = torch.zeros(())
    with torch.no_grad():
        for images, labels, weights in test.as_torch(uneven="pad"):
            right += ((model(images / 16).argmax(1) == labels["digit"]) * weights).sum()
    for total in (n_seen, right):
        dist.all_reduce(total)
    check(rank, n_seen, training, model)
    if rank == 0:
        print(f"accuracy: {right / test.n_records:.1%} of {test.n_records} digits it had not seen")
    # gloo's threads outlive the group, and may still hold tensors of the last exchange: freed while Python ends, those
    # abort the process. A barrier has none, and by then the threads are through with what came before.
    dist.barrier()
    dist.destroy_process_group()


def check(rank: int, n_seen: torch.Tensor, training: hs.HyperSequence, model: nn.Module) -> None:
    """Was every record counted once an epoch by all ranks together, and have they the same parameters?"""
    _, labels = training.fields("number").records[:]
    expected = torch.zeros_like(n_seen)
    expected[:, torch.from_numpy(np.asarray(labels["number"]))] = 1  # and those of the test never
    if not torch.equal(n_seen, expected):
        raise SystemExit("some records were not counted exactly once")
    mine = nn.utils.parameters_to_vector(model.parameters()).detach()
    everybodys = [torch.empty_like(mine) for _ in range(WORLD)]
    dist.all_gather(everybodys, mine)
    if not all(torch.equal(mine, other) for other in everybodys):
        raise SystemExit("the parameters of the ranks differ")
    if rank == 0:
        print(f"each of {training.n_records:,} records counted exactly once in each of {len(n_seen)} epochs")
        print(f"all {len(mine):,} parameters are the same on both ranks")


def main() -> None:
    """What the command line says."""
    parser = argparse.ArgumentParser(description="Two processes train together, in PyTorch.")
    parser.add_argument("--folder", type=Path, help="where to keep digits.hsq; a temporary folder if left out")
    parser.add_argument("--epochs", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        pack(folder / "digits.hsq")
        meeting = Path(temporary).absolute() / "meeting"  # where the processes find each other
        mp.spawn(train, args=(str(folder), str(meeting), arguments.epochs), nprocs=WORLD)


if __name__ == "__main__":
    main()

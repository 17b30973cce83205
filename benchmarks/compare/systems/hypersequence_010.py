"""HyperSequence 0.10.0, the release before the format was made anew: whole batches of a file in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Records, Workload


def write(workload: Workload, records: Records, folder: Path) -> None:
    """Record by record, the only way; a last batch that is not full is left out."""
    import hypersequence as hs

    with hs.HyperSequenceWriter(folder / "data.hsq", workload.batch) as writer:
        for x, y in records:
            writer.append(inputs=x, outputs=y)
    records.n_handed -= records.n_handed % workload.batch


def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
    """Views of the mapped file, the default.

    Batches are asked for by number and shuffled before an epoch, as its wrapper for Keras does (``shuffle_on_epoch``).
    """
    import hypersequence as hs

    feed: Any = hs.HyperSequenceFile(folder / "data.hsq")  # pyright: ignore[reportAttributeAccessIssue]
    if order == "shuffled":
        feed = hs.HyperSequenceView(feed)  # pyright: ignore[reportAttributeAccessIssue]

    def epoch(number: int) -> Iterator[tuple[Any, Any]]:
        if order == "shuffled":
            feed.shuffle()
        for batch in range(len(feed)):
            yield feed[batch]

    return epoch


CONTENDERS = [
    Contender(
        "HyperSequence 0.10.0",
        "hypersequence-0.10",
        "hypersequence-0.10",
        write,
        open_,
        Shuffle("HyperSequenceView.shuffle: whole batches", False),
    ),
]

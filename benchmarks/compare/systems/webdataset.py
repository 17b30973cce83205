"""WebDataset: tar shards, read from front to back, shuffled in a buffer."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..contenders import Contender, Epochs, Order, Shuffle
from ..workloads import Records, Workload

#: Shards are equal, as many for either worker, with 63 MB of arrays (one of the usual size would hold all there are);
#: with less of small records, each of which takes a kilobyte or more of a shard.
SHARDS, SHARD_RECORDS = 8, 10_000
#: Records in a shuffle buffer, and shards among which the next is drawn, as in its examples.
BUFFER, SHARD_BUFFER = 1000, 100


def keys(workload: Workload) -> tuple[str, str]:
    """Names of a record's entries, which say how they are encoded; labels are text, as in its examples."""
    return "x.npy", "y.npy" if workload.y[0] else "y.cls"


def writer(tensors: bool) -> Callable[[Workload, Records, Path], None]:
    """An entry for each array, which any program can read, or one of both in WebDataset's format for ``tensors``."""

    def write(workload: Workload, records: Records, folder: Path) -> None:
        import webdataset as wds

        x_key, y_key = keys(workload)
        # mtime: a time with fractions of a second costs each entry a second header, which halves the speed
        per_shard = min(-(-workload.n_records // SHARDS), SHARD_RECORDS)
        kept: dict[str, Any] = {"maxcount": per_shard, "mtime": 0, "verbose": 0}
        with wds.ShardWriter(str(folder / "train-%06d.tar"), **kept) as sink:
            for number, (x, y) in enumerate(records):
                # it cannot read arrays without axes
                entries = {"ten": [x, y.reshape(y.shape or 1)]} if tensors else {x_key: x, y_key: y}
                sink.write({"__key__": f"{number:09d}", **entries})

    return write


def pair(sample: dict[str, Any]) -> Any:
    """The arrays of a record, of which they are one entry."""
    x, y = sample["ten"]
    return x, y if y.shape != (1,) else y[0]


def loader(workers: int, tensors: bool = False, mixed: bool = False) -> Callable[[Workload, Path, Order], Epochs]:
    """Batches are made in the workers; if ``mixed``, taken apart again, shuffled and put together in this process."""

    def open_(workload: Workload, folder: Path, order: Order) -> Epochs:
        import webdataset as wds
        from torch.utils.data import default_collate

        warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is copied into a batch
        shards = sorted(map(str, folder.glob("*.tar")))
        if order == "shuffled":
            # detshuffle: else the order of shards is the same in every epoch
            how: dict[str, Any] = {"shardshuffle": SHARD_BUFFER, "detshuffle": True, "seed": 1}
            data = wds.WebDataset(shards, empty_check=False, **how).shuffle(BUFFER)
        else:
            data = wds.WebDataset(shards, empty_check=False, shardshuffle=False)
        data = data.decode()
        data = data.map(pair) if tensors else data.to_tuple(*keys(workload))
        # default_collate: tensors are stacked in shared memory at once, NumPy arrays would be copied there afterwards
        data = data.batched(workload.batch, collation_fn=default_collate, partial=False)
        kept: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
        feed = wds.WebLoader(data, batch_size=None, **kept)
        if mixed and order == "shuffled":
            feed = feed.unbatched().shuffle(BUFFER).batched(workload.batch, collation_fn=default_collate, partial=False)
        return lambda number: feed

    return open_


_SHUFFLE = Shuffle(f"shardshuffle={SHARD_BUFFER} and shuffle({BUFFER})", False)
_MIXED = Shuffle(f"shardshuffle={SHARD_BUFFER}, shuffle({BUFFER}) in workers and again of all", False)
CONTENDERS = [
    Contender("WebDataset, 0 workers", "peers", "webdataset", writer(False), loader(0), _SHUFFLE),
    Contender("WebDataset, 2 workers", "peers", "webdataset", writer(False), loader(2), _SHUFFLE),
    Contender("WebDataset, 2 workers, mixed", "peers", "webdataset", writer(False), loader(2, mixed=True), _MIXED),
    Contender("WebDataset, tenbin, 0 workers", "peers", "webdataset-ten", writer(True), loader(0, True), _SHUFFLE),
    Contender("WebDataset, tenbin, 2 workers", "peers", "webdataset-ten", writer(True), loader(2, True), _SHUFFLE),
]

"""A map-style data set, for people who keep their ``DataLoader``."""

# Adapters read sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import operator
import pickle
from collections.abc import Sequence
from copy import copy
from typing import Any, Literal

import torch
from torch.utils.data import Dataset, default_collate

from ...errors import ArgumentError, PositionError
from ...schema import Batch
from ...sequence import HyperSequence
from ...sequence.arguments import one_of
from ..arrays import each_array
from .tensors import check_types, tensor_of


class TorchDataset(Dataset[Any]):
    """A sequence as a map-style data set, in the sequence's own order.

    Args:
        sequence: What is read.
        unit: ``"record"``: ``dataset[i]`` is one record, for a ``DataLoader`` that shuffles and makes batches. It asks
            for the records of a batch all at once, and gets them in one gather; with ``collate_fn=dataset.collate``
            they stay together instead of being taken apart and stacked again. ``"batch"``: ``dataset[i]`` is batch
            ``i`` of the sequence, ``map`` applied, for ``DataLoader(dataset, batch_size=None)``.

    Tensors own their memory, and may be written to. Workers may be forked or spawned: each opens the file again and
    keeps nothing that grows. Threads in :meth:`hypersequence.HyperSequence.as_torch` are faster than workers wherever
    ``map`` is not slow pure Python.

    Raises:
        ArgumentError: A field has no counterpart in PyTorch; or single records of a sequence that has more than these.
    """

    def __init__(self, sequence: HyperSequence, unit: Literal["record", "batch"] = "record") -> None:
        self._unit = one_of(unit, "unit", "record", "batch")
        check_types(sequence)
        if unit == "record" and sequence.has_map:
            raise ArgumentError("map(fn) changes whole batches: use as_torch_dataset(unit='batch'), or map in your own")
        if unit == "record" and not sequence._delivery.plain:
            raise ArgumentError(
                "a padded shard marks its repeated records by weights of a batch, which single records have none of: "
                "use as_torch_dataset(unit='batch'), or shard(..., uneven='drop')"
            )
        self._opened: HyperSequence | None = sequence._with()  # seq.shuffle() changes the other one
        self._pickled = b""

    @property
    def sequence(self) -> HyperSequence:
        """What is read."""
        opened = self._opened
        if opened is None:
            self._opened = opened = pickle.loads(self._pickled)
        return opened

    def __len__(self) -> int:
        """Number of records, or of batches."""
        return self.sequence.n_records if self._unit == "record" else len(self.sequence)

    def __getitem__(self, index: int) -> Any:
        """One record, or one batch, as tensors.

        Raises:
            PositionError: There is none of that number.
        """
        index = operator.index(index)
        return each_array(self.sequence.records[index] if self._unit == "record" else self._batch(index), tensor_of)

    def _batch(self, index: int) -> Batch:
        """A batch in memory of its own: what ``map`` makes of it may be a tensor over that memory."""
        sequence = self.sequence
        n = len(sequence)
        if not -n <= index < n:
            raise PositionError(f"batch {index} of a sequence of {n} batches")
        start = index % n * sequence.batch_size()
        return sequence._delivery.owned(start, min(start + sequence.batch_size(), sequence.n_records))

    def __getitems__(self, indices: Sequence[int]) -> Sequence[Any]:
        """Several records, read in one gather, or several batches."""
        if self._unit == "batch":
            return [self[index] for index in indices]
        return _Together(len(indices), each_array(self.sequence.records[list(indices)], tensor_of))

    @staticmethod
    def collate(samples: Sequence[Any]) -> Any:
        """For ``DataLoader(collate_fn=...)``: records that came together stay so; any others are stacked."""
        return samples.batch if isinstance(samples, _Together) else default_collate(list(samples))

    def __copy__(self) -> TorchDataset:
        return TorchDataset(self.sequence, self._unit)

    def __deepcopy__(self, memo: dict[int, Any]) -> TorchDataset:
        return copy(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"_unit": self._unit, "_opened": None, "_pickled": self._pickled or pickle.dumps(self._opened)}

    # In a spawned worker, the file is opened when the first record is asked for and not by unpickling: an error there
    # would end the worker before it can tell anybody; this one arrives in the training process.

    def __repr__(self) -> str:
        return f"<TorchDataset of {'single records' if self._unit == 'record' else 'batches'} of {self.sequence!r}>"


class _Together(Sequence[Any]):
    """Records that were read together: a sequence of samples, as ``DataLoader`` expects."""

    def __init__(self, n: int, batch: Any) -> None:
        self._n, self.batch = n, batch

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self._n))]
        if not -self._n <= index < self._n:
            raise IndexError(index)
        return _row(self.batch, index)


def _row(part: Any, index: int) -> Any:
    if isinstance(part, torch.Tensor):
        return part[index]
    if isinstance(part, dict):
        return {name: _row(member, index) for name, member in part.items()}
    return None if part is None else tuple([_row(member, index) for member in part])

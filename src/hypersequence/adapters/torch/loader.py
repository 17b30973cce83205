"""An iterable of tensors that is as good a citizen as a ``DataLoader``."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import torch

from ...errors import ArgumentError
from ...order import Uneven
from ...schema import Array, Batch
from ...sequence import HyperSequence
from ..arrays import apart, each_array
from ..loader import FrameworkLoader, Share, Way
from .tensors import check_types, tensor_of, tensors_of


class TorchLoader(FrameworkLoader):
    """Batches of a sequence as tensors, made ahead of time by a :class:`hypersequence.Loader`.

    ``for images, labels in loader`` gives the batches that ``seq[0]``, ``seq[1]``, ... would. Every iteration is a
    pass; epochs follow each other as in :class:`hypersequence.Loader`, with no need of ``set_epoch``.

    Args:
        sequence: What to load. Shuffle, rebatch and map it first.
        device: Where tensors are to be. A CUDA device gets them by copies from pinned memory, on a stream of their own,
            while the batch before is used. ``None`` (default) leaves them in the memory of the CPU.
        pin_memory: Copy each batch into pinned memory, for those who take it to the device themselves
            (``tensor.to(device, non_blocking=True)``). ``device=`` needs no such copy.
        rank: This process among ``world``. ``None`` (default) for both takes them from ``torch.distributed``, if that
            is initialised when a pass begins; otherwise there is one process. A sequence that is a ``shard`` stays so.
        world: Number of processes.
        global_batch: Records of all ranks' batches together, the same training whatever the world; ``None`` (default)
            where each rank's batches have the sequence's own size.
        uneven: What becomes of a last global batch that is not full, as in :meth:`hypersequence.HyperSequence.shard`.
            ``None`` (default) leaves it out where there are several ranks, and makes it a short one where there is one.
            ``"pad"`` counts every record once, by weights as a third part of each batch: for an evaluation.
        threads: As in :class:`hypersequence.Loader`.
        prefetch: As in :class:`hypersequence.Loader`.
        evict: As in :class:`hypersequence.Loader`.
        on_corrupt: As in :class:`hypersequence.Loader`.

    Tensors own their memory: nobody else writes to it while one of them refers to it, and you may write to it.
    An iterator is for one thread at a time.

    Raises:
        ArgumentError: A field has no counterpart in PyTorch; the device is not there; rank and world do not fit.

    Example::

        loader = seq.shuffled(seed=1).rebatch(64).as_torch()
        for epoch in range(9):
            for images, labels in loader:
                ...
    """

    def __init__(
        self,
        sequence: HyperSequence,
        *,
        device: torch.device | str | int | None = None,
        pin_memory: bool = False,
        rank: int | None = None,
        world: int | None = None,
        global_batch: int | None = None,
        uneven: Uneven | None = None,
        threads: int | None = None,
        prefetch: int | None = None,
        evict: bool | None = None,
        on_corrupt: Literal["error", "skip_block"] = "error",
    ) -> None:
        check_types(sequence)
        self._device = _device(device)
        self._pin_memory = bool(pin_memory)
        if pin_memory and not torch.cuda.is_available():
            raise ArgumentError("pin_memory=True needs CUDA, which PyTorch does not find here; leave it out")
        super().__init__(
            sequence,
            Share(rank, world, global_batch, uneven),
            buffers=_pinned if self._device is not None and self._device.type == "cuda" else "own",
            threads=threads,
            prefetch=prefetch,
            evict=evict,
            on_corrupt=on_corrupt,
        )

    #: There is none; trainers that find a ``sampler`` look for this too.
    batch_sampler = None

    @property
    def sampler(self) -> TorchLoader:
        """The loader itself: trainers such as Lightning's call ``loader.sampler.set_epoch(epoch)``."""
        return self

    def _rank_and_world(self) -> tuple[int, int]:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _way(self, world: int) -> Way:
        device, size = self._device, self.batch_size
        if device is not None and device.type == "cuda":
            copies = _Copies(device, size)
            return Way(copies.set_out, copies.arrive)
        move: Callable[[torch.Tensor], torch.Tensor] | None = None
        if device is not None and device.type != "cpu":
            # Only CUDA keeps memory as it is until an asynchronous copy has read it, and ours is used again at once.
            move = lambda tensor: tensor.to(device)  # noqa: E731
        elif self._pin_memory:
            move = _pin
        return Way(lambda n_batches, together: _batches(n_batches, together, size, move))


def _batches(
    n_batches: int, together: Batch, size: int, move: Callable[[torch.Tensor], torch.Tensor] | None
) -> list[Any]:
    """Batches that lie together, as tensors of their own; what moves them moves them together."""

    def tensor(array: Any) -> torch.Tensor:
        return tensor_of(array) if move is None else move(tensor_of(array))

    if n_batches == 1:
        return [each_array(together, tensor)]
    return apart(
        together, n_batches, lambda array: tensors_of(array, size) if move is None else tensor(array).split(size)
    )


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in pinned memory, unless it is there already, or on a GPU, where map() may have put it."""
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


def _device(device: torch.device | str | int | None) -> torch.device | None:
    if device is None:
        return None
    try:
        found = torch.device(device)
        if found.type != "cuda":
            torch.empty(0, device=found)
        # CUDA is not to be started here: it does not survive a fork, and a rank may not have its device yet.
        elif not torch.cuda.is_available() or (found.index or 0) >= torch.cuda.device_count():
            raise RuntimeError(f"there are {torch.cuda.device_count()} CUDA devices")
    except Exception as error:  # of many types, AssertionError among them
        raise ArgumentError(f"device={device!r}: PyTorch cannot put tensors there: {error}") from error
    return found


def _pinned(nbytes: int) -> Array:
    """Memory that a GPU can read by itself; the loader uses it as a ring."""
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True).numpy()


@cache
def _stream(index: int) -> torch.cuda.Stream:
    """One for all passes: PyTorch keeps the memory that was used on a stream for that stream."""
    return torch.cuda.Stream(index)


class _Copies:
    """Copies to a GPU that run while it computes.

    What sets out while the batches before it are used has arrived when it is handed over. So its place in the ring,
    which is used again two steps later, is free by then. Nothing else guards that place: PyTorch does not know that
    this memory is one of its own.
    """

    def __init__(self, device: torch.device, size: int) -> None:
        index = torch.cuda.current_device() if device.index is None else device.index
        self._device, self._size = torch.device("cuda", index), size
        self._stream = _stream(index)

    def set_out(self, n_batches: int, together: Batch) -> tuple[list[Any], Any]:
        """Begin to copy. What ``map`` or the weights of a shard made lies outside the ring, and is pinned first."""
        with torch.cuda.stream(self._stream):
            moved = _batches(
                n_batches, together, self._size, lambda tensor: _pin(tensor).to(self._device, non_blocking=True)
            )
            event = torch.cuda.Event(blocking=True)  # waiting for it leaves the core to the loader's threads
            event.record(self._stream)
            return moved, event

    def arrive(self, moving: tuple[list[Any], Any]) -> list[Any]:
        """The batches, once they are there; the stream that computes uses memory that was taken for the other one."""
        batches, event = moving
        event.synchronize()
        computing = torch.cuda.current_stream(self._device)
        for batch in batches:
            each_array(batch, lambda tensor: tensor.record_stream(computing))
        return batches

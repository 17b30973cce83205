"""Batches as JAX arrays, in order, pass after pass."""

# Adapters read sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from ...errors import ArgumentError
from ...order import Uneven
from ...schema import Batch
from ...sequence import HyperSequence
from ..arrays import apart, each_array, refuse_types
from ..loader import FrameworkLoader, Share, Way
from .placing import NARROW, Put, jax, rank_of_rows, would_be_cut


class JaxLoader(FrameworkLoader):
    """Batches of a sequence as JAX arrays, made ahead of time by a :class:`hypersequence.Loader`.

    Every iteration is a pass; epochs follow each other as in :class:`hypersequence.Loader`. The next batch is on its
    way to the device while one is used. On a CPU, arrays stay where the batch was made, or in the file's mapping, if
    they begin at a multiple of 64 bytes; nobody writes to that memory for as long as an array refers to it.

    Args:
        sequence: What to load. Shuffle, rebatch and map it first.
        device: Where arrays are to be; ``None`` (default) for JAX's default device.
        sharding: How a global batch is laid out, usually ``NamedSharding(mesh, PartitionSpec("data"))``; it is applied
            to every array. Arrays are then global: the batches of all processes, in the order of the sequence. Which
            part of the data a process reads follows from the sharding.
        narrow: Whether 64-bit elements come as 32-bit ones. Without (default), they are an error unless
            ``jax_enable_x64`` is on, since JAX would cut them down in silence. An integer too large is an error.
        rank: This process among ``world``; ``None`` (default) for both asks JAX or the sharding when a pass begins. A
            sequence that is a ``shard`` stays so.
        world: Number of processes.
        global_batch: Records of all processes' batches together; ``None`` (default) where each process's batches have
            the sequence's own size.
        uneven: What becomes of a last global batch that is not full, as in :meth:`hypersequence.HyperSequence.shard`;
            ``None`` (default) leaves it out where there are several processes, and makes it short where there is one.
        threads: As in :class:`hypersequence.Loader`.
        prefetch: As in :class:`hypersequence.Loader`.
        evict: As in :class:`hypersequence.Loader`.
        on_corrupt: As in :class:`hypersequence.Loader`.

    An iterator is for one thread at a time.

    Raises:
        ArgumentError: A field has no counterpart in JAX, or has 64 bits; a sharding that does not fit the batches.

    Example::

        for images, labels in seq.shuffled(seed=1).rebatch(64).as_jax(narrow=True):
            ...
    """

    def __init__(
        self,
        sequence: HyperSequence,
        *,
        device: jax.Device | None = None,  # pyright: ignore[reportInvalidTypeForm]
        sharding: jax.sharding.Sharding | None = None,
        narrow: bool = False,
        rank: int | None = None,
        world: int | None = None,
        global_batch: int | None = None,
        uneven: Uneven | None = None,
        threads: int | None = None,
        prefetch: int | None = None,
        evict: bool | None = None,
        on_corrupt: Literal["error", "skip_block"] = "error",
    ) -> None:
        _check_place(device, sharding)
        if sharding is not None and not (device is rank is world is None):
            raise ArgumentError(
                "as_jax: a sharding says which devices and which part of the data; leave out device, rank and world"
            )
        if sharding is not None and uneven == "short":
            raise ArgumentError(
                "uneven='short' gives ranks batches of different sizes, which no global array is made of"
            )
        self._device, self._sharding, self._narrow = device, sharding, bool(narrow)
        refuse_types(sequence, "JAX", self._reason)
        #: Which part of a global batch this process holds, of how many.
        self._part = None if sharding is None else rank_of_rows(sharding, sequence.columns[0].field.shape)
        dealt = sequence._share
        if self._part is not None and dealt is not None and (dealt.rank, dealt.world) != self._part:
            raise ArgumentError(
                f"the sequence is rank {dealt.rank} of {dealt.world}, but the sharding makes this process rank "
                f"{self._part[0]} of {self._part[1]}: leave shard() out, as_jax(sharding=...) does it"
            )
        super().__init__(
            sequence,
            Share(rank, world, global_batch, uneven),
            buffers="view",  # JAX never writes to what it was given; where an array is donated, it copies
            threads=threads,
            prefetch=prefetch,
            evict=evict,
            on_corrupt=on_corrupt,
        )
        if sharding is not None:
            self._check_layout(sharding)

    def _reason(self, dtype: np.dtype[Any]) -> str | None:
        if dtype.kind in "mMSU":
            return ""
        if self._narrow or not would_be_cut(dtype):
            return None
        return (
            f"it would make {NARROW[dtype]} of them in silence. Call jax.config.update('jax_enable_x64', True), say "
            "as_jax(narrow=True), "
        )

    def _rank_and_world(self) -> tuple[int, int]:
        return (jax.process_index(), jax.process_count()) if self._part is None else self._part

    def _check_layout(self, sharding: jax.sharding.Sharding) -> None:
        """Refuse a layout that does not fit the batches now, rather than in the middle of an epoch."""
        sequence = self.sequence
        if sequence.has_map:
            return
        _, world = self._rank_and_world()
        whole, rest = divmod(sequence.n_records, sequence.batch_size())
        for size in ([sequence.batch_size()] if whole else []) + ([rest] if rest else []):
            for column in sequence.columns:
                shape = (size * world, *column.field.shape)
                try:
                    sharding.shard_shape(shape)
                except (ValueError, IndexError) as error:
                    which = "the last batch" if size == rest else "batches"
                    raise ArgumentError(
                        f"the sharding does not fit {which} of {column.label}, of shape {shape}: {error} Lay out the "
                        "first axis only, over a number of devices that divides the batch: rebatch(n, drop_last=True)"
                    ) from error

    def _way(self, world: int) -> Way:
        put = Put(self._device, self._sharding, self._narrow, world)
        if self._sharding is not None:
            on_cpu = all(device.platform == "cpu" for device in self._sharding.device_set)
        else:
            on_cpu = (self._device.platform if self._device is not None else jax.default_backend()) == "cpu"
        size = self.batch_size

        def set_out(n_batches: int, together: Batch) -> list[Any]:
            if n_batches == 1:
                return [each_array(together, put)]
            return apart(
                together, n_batches, lambda array: [put(array[i : i + size]) for i in range(0, len(array), size)]
            )

        # On a CPU nothing travels.
        return Way(set_out, None if on_cpu else lambda batches: batches)


def _check_place(device: Any, sharding: Any) -> None:
    if device is not None and not isinstance(device, jax.Device):
        raise ArgumentError(f"device={device!r}: expected one of jax.devices(), or sharding= for several of them")
    if sharding is not None and not isinstance(sharding, jax.sharding.Sharding):
        raise ArgumentError(
            f"sharding={sharding!r}: expected a jax.sharding.Sharding, such as NamedSharding(mesh, spec)"
        )

"""HyperSequence: an indexable sequence of batches, and the operations that give another one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any, Self, cast

import numpy as np

from ..errors import ArgumentError, PositionError
from ..order import (
    Evenly,
    Fixed,
    InChunks,
    Natural,
    Order,
    Sharded,
    Shuffled,
    Sliced,
    Uneven,
    Windowed,
    compose,
    split_counts,
)
from ..schema import Batch, Column, Schema
from ..source import Source
from .arguments import ShuffleUnit, Unit, one_of, seed_of, share_of, whole_number
from .delivery import delivery_of
from .display import describe, describe_html
from .frameworks import Frameworks
from .mapping import Mapper, as_mapper
from .picking import chosen_order
from .records import Records

#: What a window shuffle mixes by default.
DEFAULT_WINDOW_NBYTES = 512 << 20


class HyperSequence(Frameworks):
    """A sequence of batches.

    ``len(seq)`` is the number of batches; ``seq[i]`` is batch ``i``: ``(inputs, outputs)``, with sample weights
    ``(inputs, outputs, sample_weights)``, and for unlabelled data ``(inputs,)``. Each of them is an array if it is one
    field, a tuple if there are several, a dict if they were named; the leading axis is the batch.

    Every operation returns another sequence and touches integers only; nothing is read before a batch is asked for.
    ``seq[a:b]`` is a sequence of these batches; a shuffle made before is held at its epoch.

    A batch whose records lie together in one block is a *view*: read-only, valid for as long as somebody holds it, even
    after ``close()``. Any other batch is *owned*: gathered into memory of its own, writable.

    Thread-safe for reading; only :meth:`shuffle` changes a sequence. Picklable (files are opened again by their path)
    and safe to use after ``fork``.

    Sequences come from :func:`hypersequence.open` and :class:`HyperSequenceFile`, not from this constructor.
    """

    def __init__(self, source: Source, order: Order | None = None, batch_size: int | None = None) -> None:
        self._source = source
        self._whole: Order = Natural(source.n_records) if order is None else order  # of all ranks
        self._share: Sharded | None = None
        self._batch_size = source.batch_size if batch_size is None else batch_size
        self._drop_last = False
        self._chosen = tuple(range(len(source.schema.columns)))
        self._mappers: tuple[Mapper, ...] = ()
        self._epoch = 0
        self._unshuffled: Order | None = None  # what shuffle() began with
        self._settle()

    def _settle(self) -> None:
        """Compute once what every batch needs."""
        self._delivery = delivery = delivery_of(self)
        self._order = delivery.order  # of this rank
        self._n_batches, self._n_records = delivery.n_batches, delivery.n_records

    def _with(self, **changes: Any) -> HyperSequence:
        other = HyperSequence.__new__(HyperSequence)
        other.__dict__.update(self.__dict__)
        other._unshuffled = None
        for name, value in changes.items():
            setattr(other, f"_{name}", value)
        other._settle()
        return other

    # --- reading -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of batches, a short last one included unless ``rebatch(drop_last=True)``."""
        return self._n_batches

    def __getitem__(self, index: Any) -> Any:
        """Batch ``index``, counted from the end if negative; or, for a slice, a sequence of batches.

        Raises:
            PositionError: There is no such batch.
            ChecksumError: The stored records are damaged.
        """
        if type(index) is not int:
            if isinstance(index, slice):
                return self._batches(cast("slice[Any, Any, Any]", index))
            index = operator.index(index)
        if index < 0:
            index += self._n_batches
        if not 0 <= index < self._n_batches:
            raise PositionError(f"batch {index} of a sequence of {self._n_batches} batches")
        start = index * self._batch_size
        stop = start + self._batch_size
        return self._delivery.batch(start, stop if stop <= self._n_records else self._n_records)

    def __iter__(self) -> Iterator[Batch]:
        """Every batch in turn."""
        return self._delivery.batches()

    @property
    def records(self) -> Records:
        """The single records behind the batches: ``seq.records[i]``, ``len(seq.records)``, slices, index arrays.

        They come in the order of this sequence, as they are stored: ``map`` works on batches only.
        """
        return Records(self)

    # --- what it is ----------------------------------------------------------------------------------------------

    @property
    def n_records(self) -> int:
        """Number of records that the batches hold together; of a shard, with those that pad it."""
        return self._n_records

    @property
    def schema(self) -> Schema:
        """Fields, types and shapes of the stored records, whatever ``fields`` and ``map`` make of them."""
        return self._source.schema

    @property
    def columns(self) -> tuple[Column, ...]:
        """The fields that are read, in file order: all of the schema's, or what ``fields`` left."""
        return tuple(self._source.schema.columns[number] for number in self._chosen)

    @property
    def has_map(self) -> bool:
        """Whether ``map`` changes the batches on delivery."""
        return bool(self._mappers)

    @property
    def epoch(self) -> int:
        """The epoch whose order this is; see :meth:`at_epoch`."""
        return self._epoch

    def batch_size(self) -> int:
        """Records of a batch; the last one may have fewer."""
        return self._batch_size

    def dtypes(self) -> tuple[tuple[np.dtype[Any], ...], tuple[np.dtype[Any], ...]]:
        """Dtypes of one record's inputs and outputs; ``dtype.shape`` is the record's shape, ``dtype.base`` the type.

        >>> (image,), (label,) = example.dtypes()
        >>> image.shape, image.base, label.shape
        ((4, 4), dtype('float32'), ())
        """
        inputs = tuple(c.field.record_dtype for c in self.columns if c.role == "inputs")
        return inputs, tuple(c.field.record_dtype for c in self.columns if c.role == "outputs")

    def no_inputs(self) -> int:
        """Number of input fields."""
        return sum(column.role == "inputs" for column in self.columns)

    def no_outputs(self) -> int:
        """Number of output fields."""
        return sum(column.role == "outputs" for column in self.columns)

    def user_meta(self) -> dict[str, Any]:
        """The metadata that the writer stored; of several files, the first one's."""
        return deepcopy(self._source.user_meta())

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return describe_html(self)

    # --- operations ----------------------------------------------------------------------------------------------

    def split(self, *shares: float, by: Unit = "batch") -> tuple[HyperSequence, ...]:
        """Parts that are disjoint, complete, and each spread evenly over the sequence.

        Args:
            *shares: One or more numbers between 0 and 1 whose sum is below 1: the share of each part but the last,
                which gets the rest. ``split(0.8)`` gives two parts, ``split(0.7, 0.2)`` three.
            by: ``"batch"`` (default) deals out whole batches of this sequence, so that parts stay contiguous on disk
                and zero-copy; ``"record"`` deals out records, for exact shares.

        Returns:
            One sequence more than there are shares; ``drop_last`` holds for each of them. A shuffle made before is held
            at its epoch, so that no record ever moves from one part to another; shuffle the parts for an order that
            changes.

        Raises:
            ArgumentError: Impossible shares, or a part would be empty.

        >>> train, validation = example.split(0.8)
        >>> len(train), len(validation)
        (6, 1)
        """
        whole = self._visible()
        total = self._n_batches if one_of(by, "by", "batch", "record") == "batch" else self._n_records
        if not shares or any(not 0 < share < 1 for share in shares) or sum(shares) >= 1:
            raise ArgumentError(f"split{shares}: shares lie between 0 and 1 and sum up to less than 1")
        counts = split_counts(total, shares)
        if counts is None:
            units = "batches" if by == "batch" else "records"
            hint = "; split(..., by='record') deals out single records" if by == "batch" and total else ""
            raise ArgumentError(f"split{shares}: a part of {total} {units} would be empty{hint}")
        parts: list[Order] = []
        rest: Order = Natural(total)
        for count in counts[:-1]:
            parts.append(compose(Evenly(count, rest.n), rest))
            rest = compose(Evenly(count, rest.n, rest=True), rest)
        parts.append(rest)
        if by == "batch":
            parts = [InChunks(part, self._batch_size, self._n_records) for part in parts]
        return tuple(self._with(whole=compose(part, whole)) for part in parts)

    def rebatch(self, n: int, drop_last: bool = False) -> HyperSequence:
        """The same records in the same order, in batches of another size.

        Args:
            n: Records a batch, at least 1; any number. Batches that come to lie inside one block stay views.
            drop_last: Leave out a last batch of fewer than ``n`` records. Which records that concerns is decided after
                any later shuffle, epoch by epoch.

        >>> [len(y) for x, y in example.rebatch(40)]
        [40, 40, 20]
        """
        self._unshared("rebatch")
        n = whole_number(n, "rebatch", 1, most=1 << 48)
        return self._with(batch_size=n, drop_last=bool(drop_last))

    def shuffled(
        self,
        seed: int | None = None,
        by: ShuffleUnit = "window",
        *,
        window: int = DEFAULT_WINDOW_NBYTES,
        epoch: int | None = None,
    ) -> HyperSequence:
        """The same records in a random order, a pure function of ``(seed, epoch)`` (SPEC.md says which).

        Args:
            seed: 0 to 2**64-1; ``None`` draws a fresh one, which the repr shows.
            by: ``"window"`` (default) takes blocks of the file in random order, a window full at a time, and permutes
                all records within each window: random where it matters, and read from disk in large pieces. Data that
                fit the window are shuffled all together. ``"record"`` permutes all records at once, for data in memory
                or in the page cache; others are read again and again, or record by record. ``"batch"`` permutes the
                whole batches of this sequence, zero-copy, a short one staying last.
                :func:`hypersequence.shuffle_quality` tells how well an order mixes.
            window: Bytes of records that are mixed together, for ``by="window"``. Counted with all fields, so that
                ``fields()`` does not change the order, and rounded down to whole blocks, of which it has at least one.
                The default, 512 MiB, is half a second of a fast disk. The page cache holds up to two of them.
            epoch: The epoch to begin with; ``None`` for the sequence's own, which is 0 at first. :meth:`at_epoch` gives
                the others, ``as_keras`` and :class:`hypersequence.Loader` walk through them.

        >>> example.shuffled(seed=1)[0][1].tolist() == example.shuffled(seed=1)[0][1].tolist()
        True
        """
        epoch = self._epoch if epoch is None else whole_number(epoch, "epoch", 0)
        unit = one_of(by, "by", "window", "record", "batch")
        window = whole_number(window, "window", 1)
        order = self._shuffle_order(self._unshared("shuffled").at_epoch(epoch), seed_of(seed), unit, epoch, window)
        return self._with(whole=order, epoch=epoch)

    def _shuffle_order(self, order: Order, seed: int, by: ShuffleUnit, epoch: int, window: int) -> Order:
        n = order.n
        if by == "record":
            return compose(Shuffled(n, seed, epoch), order)
        if by == "window":
            source = self._source
            sizes = source.block_records, source.schema.record_nbytes, window
            return compose(Windowed.of_nbytes(n, *sizes, seed, epoch), order)
        n_chunks = -(-n // self._batch_size)
        chunks = Shuffled(n_chunks, seed, epoch, last_stays=n % self._batch_size != 0)
        return compose(InChunks(chunks, self._batch_size, n), order)

    def shuffle(self, seed: int | None = None) -> None:
        """Put this sequence's batches into a new random order, in place, as hypersequence 0.10 did.

        Sequences made from it before are not affected. :meth:`shuffled` is usually what you want.

        Args:
            seed: 0 to 2**64-1; ``None`` draws a fresh one.
        """
        begin = self._unshuffled if self._unshuffled is not None else self._unshared("shuffle")
        self._whole = Fixed(self._shuffle_order(begin, seed_of(seed), "batch", 0, 1))
        self._unshuffled = begin
        self._settle()

    def at_epoch(self, epoch: int) -> HyperSequence:
        """The same sequence in another epoch: its shuffles give another order, ``map`` another random stream.

        Args:
            epoch: From 0 on. Any epoch can be asked for directly.
        """
        epoch = whole_number(epoch, "at_epoch", 0)
        return self._with(whole=self._whole.at_epoch(epoch), epoch=epoch)

    def shard(self, rank: int, world: int, uneven: Uneven = "pad") -> HyperSequence:
        """One rank's part of every global batch; all ranks have the same number of batches.

        A global batch is ``world * batch_size`` consecutive records of this sequence, and each rank gets a contiguous
        ``batch_size`` of them. So the global batches have the same records, whatever the world, as long as
        ``world * batch_size`` is the same. This comes last in a chain: what changes records or batches is refused on a
        shard, ``fields``, ``map`` and ``at_epoch`` are not.

        Args:
            rank: 0 to ``world - 1``.
            world: Number of ranks.
            uneven: What becomes of a last global batch that is not full. ``"pad"`` (default) fills it with records
                from the beginning, so that all batches have one shape; every batch then has sample weights, which are
                0 for the repeated records (and else 1, or the stored ones), so that an evaluation over all ranks counts
                each record once. ``"drop"`` leaves it out. ``"short"`` deals out what there is, as evenly as possible.
                After ``rebatch(drop_last=True)`` it is always ``"drop"``.

        Raises:
            ArgumentError: ``"short"`` would leave a rank without a batch; or this is a shard already.

        >>> [y.tolist() for x, y, weight in example.rebatch(8).shard(rank=1, world=4)][-1]
        [4, 5, 6, 7, 8, 9, 10, 11]
        """
        asked = one_of(uneven, "uneven", "pad", "drop", "short")
        kind = "drop" if self._drop_last else asked
        share = share_of(self._unshared("shard").n, self._batch_size, rank, world, kind)
        return self._with(share=share, drop_last=False)

    def _unshared(self, what: str) -> Order:
        """The order of all records, for operations that a shard refuses."""
        if self._share is not None:
            what = what if "(" in what else f"{what}()"
            raise ArgumentError(f"{what} on a shard: shard() comes last; put {what} before it in the chain")
        return self._whole

    def select(self, positions: Any) -> HyperSequence:
        """The records at these positions of this sequence, in this order. A shuffle made before is held at its epoch.

        Args:
            positions: A slice, a range, a boolean mask over all records, or any sequence of integers (negative ones
                count from the end; repeats are allowed). What scikit-learn's splitters give fits.

        Raises:
            PositionError: A position outside the sequence.

        >>> example.select([3, 1, 2])[0][1].tolist()
        [3, 1, 2]
        """
        return self._with(whole=compose(chosen_order(positions, self._n_records), self._visible()))

    def fields(self, *names: str) -> HyperSequence:
        """Only these fields; others are not read.

        Args:
            *names: Field names (``"image"``), roles (``"inputs"``, ``"outputs"``, ``"sample_weights"``), or both
                (``"outputs.label"``; ``"inputs.0"`` for unnamed fields).

        Returns:
            A sequence whose batches lack the other fields. Where a whole role goes and a later one stays, ``None``
            stands in its place: ``fields("outputs")`` gives ``(None, outputs)``.

        Raises:
            ArgumentError: No field is called so.
        """
        wanted = set(self._source.schema.choose(names))
        left = tuple(number for number in self._chosen if number in wanted)
        if not left:
            raise ArgumentError(f"fields{names}: none of them is left after an earlier fields()")
        return self._with(chosen=left)

    def take(self, n: int) -> HyperSequence:
        """The first ``n`` batches, or all if there are fewer. A shuffle made before is held at its epoch."""
        return self._batches(slice(0, whole_number(n, "take", 0)))

    def skip(self, n: int) -> HyperSequence:
        """All batches but the first ``n``. A shuffle made before is held at its epoch."""
        return self._batches(slice(whole_number(n, "skip", 0), None))

    def map(self, fn: Callable[..., Batch], *, seed: int = 0) -> HyperSequence:
        """Apply a function to every batch when it is delivered, wherever in the chain this stands.

        Args:
            fn: ``fn(batch)`` or ``fn(batch, rng)``, where batch is the tuple that ``seq[i]`` gives and the result is
                such a tuple again. ``rng`` is a ``numpy.random.Generator`` of its own for every batch, keyed by
                seed, epoch and the batch's first record, so that augmentation can be repeated and resumed exactly.
                Views are read-only: make new arrays.
            seed: 0 to 2**64-1, for ``rng``; several functions on one sequence have streams of their own anyway.

        Raises:
            ArgumentError: ``fn`` takes neither one nor two positional arguments.

        >>> doubled = example.map(lambda batch: (batch[0] * 2, batch[1]))
        >>> bool((doubled[0][0] == example[0][0] * 2).all())
        True
        """
        return self._with(mappers=(*self._mappers, as_mapper(fn, seed_of(seed), len(self._mappers))))

    def _visible(self) -> Order:
        """The order of the records that the batches hold, its shuffles held at this epoch."""
        order = self._unshared("split(), select(), take(), skip() or a slice")
        if self._n_records < order.n:
            order = compose(Sliced(self._n_records, 0), order)
        return order if isinstance(order, Natural | Fixed) else Fixed(order)

    def _batches(self, chosen: slice) -> HyperSequence:
        start, stop, step = chosen.indices(self._n_batches)
        if step < 0:
            raise ArgumentError("a slice of batches cannot go backwards; select() takes records in any order")
        return self._choose_batches(Sliced(len(range(start, stop, step)), start, step))

    def _choose_batches(self, chunks: Order) -> HyperSequence:
        """Batches by number; a short one stays last, whatever ``chunks`` says of it."""
        order = InChunks(chunks, self._batch_size, self._n_records)
        return self._with(whole=compose(order, self._visible()))

    # --- files ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the files underneath, for all sequences made from them. Arrays that were read stay valid."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_delivery"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._settle()


def rebatch(hyperseq: HyperSequence, new_batch_size: int) -> HyperSequence:
    """``hyperseq.rebatch(new_batch_size)``, as a function (hypersequence 0.10 had both).

    >>> len(rebatch(example, 50))
    2
    """
    return hyperseq.rebatch(new_batch_size)

"""TensorFlow: a sequence as a ``tf.data.Dataset``."""

# Adapters read sequences and loaders from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import atexit
import itertools
import mmap
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, Literal

import ml_dtypes
import numpy as np

from ..errors import ArgumentError, MissingPackageError
from ..loader import Loader
from ..schema import Batch
from ..sequence import HyperSequence
from ..source.buffers import lease
from .arrays import refuse_types

try:
    import tensorflow as tf
except ImportError as error:
    raise MissingPackageError(
        f"as_tf_dataset needs TensorFlow ({error}): pip install 'hypersequence[tensorflow]'"
    ) from error


def tf_dataset(
    sequence: HyperSequence,
    *,
    threads: int | None = None,
    prefetch: int | None = None,
    evict: bool | None = None,
    on_corrupt: Literal["error", "skip_block"] = "error",
) -> tf.data.Dataset[Any]:
    """A ``tf.data.Dataset`` of the batches of a sequence, made ahead of time by a :class:`hypersequence.Loader`.

    Every iteration of the dataset that begins is the next epoch, from the sequence's own on; ``repeat()`` goes through
    them one after the other. The batches come in order; a shuffle belongs into the sequence.

    Args:
        sequence: What to load. Shuffle, rebatch, shard and map it first.
        threads: As in :class:`hypersequence.Loader`.
        prefetch: As in :class:`hypersequence.Loader`.
        evict: As in :class:`hypersequence.Loader`.
        on_corrupt: As in :class:`hypersequence.Loader`.

    Returns:
        A dataset of known cardinality and exact ``element_spec``: the first axis has a length where all batches have
        the same. Where there is a ``map`` or a padded shard, the first and the last batch are made to know it. Tensors
        are handed over without a copy where a batch begins at a multiple of 64 bytes; small ones that a ``map`` or a
        padded shard made are copied, several together.

    Raises:
        ArgumentError: A field has no counterpart in TensorFlow.
    """
    refuse_types(sequence, "TensorFlow", _reason)
    loader = Loader(
        sequence,
        threads=threads,
        prefetch=prefetch,
        buffers=buffers_for(sequence),
        evict=evict,
        on_corrupt=on_corrupt,
    )
    epochs = itertools.count(sequence.epoch)

    def begin() -> Iterator[list[np.ndarray]]:
        epoch = next(epochs)
        return pieces(loader._walk(epoch, 0, epoch + 1, together=True), sequence.batch_size())

    dataset = dataset_of(begin, spec_of(loader._read_from))
    return dataset.apply(tf.data.experimental.assert_cardinality(len(sequence)))


#: Handing over takes TensorFlow some 0.3 ms; so does copying this much.
_LARGE_NBYTES = 2 << 20
#: Batches that take longer than this to come are not waited for, so as to copy them together.
_SLOW_S = 1e-3
_MAX_STACKED = 16


def buffers_for(sequence: HyperSequence) -> Literal["own", "view"]:
    """Where batches are best made: small ones are handed over several at a time, and have to lie together for that."""
    record_nbytes = sum(column.field.nbytes for column in sequence.columns)
    return "view" if sequence.batch_size() * record_nbytes > _LARGE_NBYTES else "own"


def pieces(batches: Any, batch_size: int) -> Iterator[list[np.ndarray]]:
    """What is handed over at a time: for each array of a batch, several batches of equal size along a new first axis.

    Args:
        batches: A pass of a loader: how many batches, and these as if they were one.
        batch_size: Records of a batch; the last one may have fewer.
    """
    single = _Single()
    with closing(batches):
        try:
            asked = time.perf_counter()
            for n_batches, together in batches:
                is_quick = time.perf_counter() - asked < _SLOW_S
                arrays = [_as_tensorflow_reads(array) for array in tf.nest.flatten(together)]
                if n_batches == 1:
                    yield from single.add(arrays, is_quick)
                else:
                    yield from single.flush()
                    yield from _whole_and_rest(arrays, batch_size)
                asked = time.perf_counter()
        except Exception:
            yield from single.flush()  # what came before the error
            raise
        yield from single.flush()


def _whole_and_rest(arrays: list[np.ndarray], batch_size: int) -> Iterator[list[np.ndarray]]:
    """Batches that lie one behind the other: those that are full, and the last one if it is not."""
    n_whole = len(arrays[0]) // batch_size
    if n_whole:
        yield [array[: n_whole * batch_size].reshape(n_whole, batch_size, *array.shape[1:]) for array in arrays]
    if len(arrays[0]) % batch_size:
        yield [array[np.newaxis, n_whole * batch_size :] for array in arrays]


class _Single:
    """Batches that come one by one, as ``map`` makes them: small ones are copied together, which takes less time.

    Only those that come quickly: others would wait for each other, and win nothing.
    """

    def __init__(self) -> None:
        self._waiting: list[list[np.ndarray]] = []
        self._limit = 1  # the first of a pass is waited for by itself

    def add(self, arrays: list[np.ndarray], is_quick: bool) -> Iterator[list[np.ndarray]]:
        """A batch more; what is due to be handed over."""
        if not is_quick:
            self._limit = 1
        if self._waiting and not _are_alike(arrays, self._waiting[0]):
            yield from self.flush()
        self._waiting.append(arrays)
        nbytes = (len(self._waiting) + 1) * sum(array.nbytes for array in arrays)
        if len(self._waiting) >= self._limit or nbytes > _LARGE_NBYTES:
            yield from self.flush()
            self._limit = min(2 * self._limit, _MAX_STACKED)

    def flush(self) -> Iterator[list[np.ndarray]]:
        """All that are waiting."""
        batches, self._waiting = self._waiting, []
        if len(batches) == 1:
            yield [array[np.newaxis] for array in batches[0]]
        elif batches:
            yield [_stacked(parts) for parts in zip(*batches, strict=True)]


def _stacked(parts: tuple[np.ndarray, ...]) -> np.ndarray:
    """Arrays along a new first axis, in memory that TensorFlow takes as it is."""
    first = parts[0]
    return np.stack(parts, out=None if first.dtype.hasobject else lease((len(parts), *first.shape), first.dtype))


def _are_alike(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return [(array.shape, array.dtype) for array in one] == [(array.shape, array.dtype) for array in other]


def dataset_of(begin: Callable[[], Iterator[list[np.ndarray]]], spec: Any) -> tf.data.Dataset[Any]:
    """A dataset of which every iteration is a pass.

    TensorFlow calls Python once for a piece and takes it apart by itself, which costs a tenth of calling Python for
    each batch. A pass that is left early is closed soon after TensorFlow drops the iterator: when it next comes by
    Python. ``Dataset.from_generator`` does that too, but its operation slows down the whole process;
    docs/decisions.md has the figures.

    Args:
        begin: Begins a pass, a generator of pieces.
        spec: Structure of ``tf.TensorSpec``: what a batch looks like.
    """
    leaves = tf.nest.flatten(spec)
    passes = _Passes(begin, [np.zeros((0, *_known(leaf)), leaf.dtype.as_numpy_dtype) for leaf in leaves])
    types = [leaf.dtype for leaf in leaves]
    shapes = [(None, *leaf.shape) for leaf in leaves]

    as_it_is = tf.autograph.experimental.do_not_convert

    @as_it_is
    def pieces_of_a_pass(number: tf.Tensor) -> tf.data.Dataset[Any]:
        token = tf.numpy_function(passes.start, [number], tf.int64)

        @as_it_is
        def piece(_: tf.Tensor) -> tuple[tf.Tensor, ...]:
            arrays = tf.numpy_function(passes.proceed, [token], types)
            arrays = tf.nest.flatten(arrays)  # in tf.data's debug mode, one array comes by itself
            return tuple(tf.ensure_shape(array, shape) for array, shape in zip(arrays, shapes, strict=True))

        return tf.data.Dataset.counter().map(piece).take_while(as_it_is(lambda *piece: tf.shape(piece[0])[0] > 0))

    @as_it_is
    def batches(*piece: tf.Tensor) -> tf.data.Dataset[Any]:
        return tf.data.Dataset.from_tensor_slices(tf.nest.pack_sequence_as(spec, piece))

    return tf.data.Dataset.range(1).flat_map(pieces_of_a_pass).prefetch(1).flat_map(batches)


class _Passes:
    """Passes that TensorFlow goes through, each closed when it is over or TensorFlow has no more use for it.

    A pass is known by its token: an array whose memory becomes a tensor of the iterator that goes through the pass.
    TensorFlow keeps the array for as long as it keeps the tensor, and when the array goes, so does the pass.

    Args:
        begin: Begins a pass.
        nothing: What is given when a pass is over: arrays of no batches.
    """

    def __init__(self, begin: Callable[[], Iterator[list[np.ndarray]]], nothing: list[np.ndarray]) -> None:
        self._begin, self._nothing = begin, nothing
        self._numbers = itertools.count()
        self._under_way: dict[int, Any] = {}
        self._new: dict[int, np.ndarray] = {}
        self._calling: set[int] = set()  # threads of TensorFlow
        self._called = 0.0
        self._program_ends = False
        _passes.add(self)

    def start(self, _: np.int64) -> np.ndarray:
        """Begin a pass; its token."""
        number = next(self._numbers)
        token = np.frombuffer(mmap.mmap(-1, 8), np.int64)  # TensorFlow copies what begins at no multiple of 64 bytes
        token[0] = number
        self._under_way[number], self._new[number] = self._begin(), token
        return token

    def proceed(self, token: np.ndarray) -> list[np.ndarray]:
        """The next piece of the pass with this token, or nothing."""
        thread = threading.get_ident()
        self._calling.add(thread)
        try:
            return self._proceed(token)
        finally:
            self._calling.discard(thread)
            self._called = time.monotonic()

    def _proceed(self, token: np.ndarray) -> list[np.ndarray]:
        number = int(token[0])
        ours = self._new.pop(number, None)
        # Had TensorFlow copied the token, its life would tell nothing, and the pass would stay until it is over.
        if ours is not None and np.shares_memory(ours, token):
            weakref.finalize(ours, self._end, number).atexit = False
        piece = None if self._program_ends else next(self._under_way[number], None)
        if piece is not None:
            return piece
        del self._under_way[number]
        return self._nothing

    def _end(self, number: int) -> None:
        if a_pass := self._under_way.pop(number, None):
            a_pass.close()

    def end_all(self) -> bool:
        """Give no pass another piece, since the program ends; whether there was one."""
        self._program_ends, self._called = True, time.monotonic()
        return bool(self._under_way)

    def is_called(self) -> bool:
        """Whether TensorFlow is in here, or was a moment ago."""
        return bool(self._calling) or time.monotonic() - self._called < _LEFT_S


#: A thread of TensorFlow that has not come by for so long does not do it any more; those that wait for the
#: interpreter's lock get it after 5 ms.
_LEFT_S = 0.1
_passes: weakref.WeakSet[_Passes] = weakref.WeakSet()


@atexit.register
def _leave_python() -> None:
    """Have no thread of TensorFlow in Python when the interpreter is taken apart.

    One that wants the interpreter's lock then never gets on, and when the iterator that it works for is dropped
    TensorFlow waits for it for ever.
    """
    ending = [passes for passes in list(_passes) if passes.end_all()]
    while any(passes.is_called() for passes in ending):
        time.sleep(_LEFT_S / 10)  # lets in who waits for the lock


if hasattr(os, "register_at_fork"):  # TensorFlow's threads are in the other process
    os.register_at_fork(after_in_child=_passes.clear)


def _known(leaf: tf.TensorSpec) -> list[int]:
    """A shape with 0 for what is not known."""
    return [length or 0 for length in leaf.shape]


def spec_of(sequence: HyperSequence) -> Any:
    """What a batch of this sequence looks like, as TensorFlow says it; its size too, if all have one."""
    delivery = sequence._delivery
    n = min(sequence.batch_size(), sequence.n_records) or sequence.batch_size()
    first_axis = n if sequence.n_records % n == 0 else None
    if delivery.plain or not len(sequence):
        specs: list[Any] = [
            tf.TensorSpec((first_axis, *field.shape), tf.as_dtype(field.dtype)) for field in delivery.fields
        ]
        return _without_none(delivery.build(specs))
    examples = [_without_none(sequence[0]), _without_none(sequence[-1])]
    try:
        return tf.nest.map_structure(_spec_of_both, *examples)
    except ArgumentError:
        raise
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"map: the first and the last batch have no common structure: {error}") from error


def _spec_of_both(first: Any, last: Any) -> tf.TensorSpec:
    first, last = np.asarray(first), np.asarray(last)
    if _reason(first.dtype) is not None:
        raise ArgumentError(
            f"map gives elements of type {first.dtype}, which TensorFlow does not take; convert them there"
        )
    if first.ndim != last.ndim or first.dtype != last.dtype:
        raise ValueError(f"{first.dtype} of {first.ndim} axes, and {last.dtype} of {last.ndim}")
    shape = [a if a == b else None for a, b in zip(first.shape, last.shape, strict=True)]
    return tf.TensorSpec(shape, tf.as_dtype(first.dtype))


def _without_none(batch: Batch) -> Batch:
    if any(part is None for part in batch):
        raise ArgumentError(
            "TensorFlow has no None in a batch: map(lambda batch: (batch[1],)) gives the outputs alone; a shard of "
            "records without outputs is dealt out with uneven='short' or 'drop'"
        )
    return batch


def _reason(dtype: np.dtype[Any]) -> str | None:
    if dtype == ml_dtypes.float8_e5m2:
        return "as of version 2.21, its own optimiser of data sets fails with them; "
    try:
        tf.as_dtype(dtype)
    except TypeError:
        return ""
    return "" if dtype.kind in "mMO" else None


def _as_tensorflow_reads(array: Any) -> np.ndarray[Any, Any]:
    """The array as ``numpy_function`` takes it, which knows ASCII only, and no byte order but the machine's."""
    array = np.asarray(array)
    if array.dtype.kind == "U":
        return np.char.encode(array, "utf-8")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))

"""Keras 3: a sequence as a ``PyDataset`` whose order holds inside ``fit``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from types import FrameType
from typing import Any, Literal

import numpy as np

from ...errors import ArgumentError, MissingPackageError
from ...loader import Loader, LoaderStats
from ...loader.api import LoaderIterator
from ...schema import Batch
from ...sequence import HyperSequence
from ..arrays import each_array

try:
    import keras

    # Keras takes an object that is one of its own data adapters as it is. Any other PyDataset has its batch numbers
    # permuted by fit(shuffle=True), the default, with the global random state: no order of ours would survive that.
    # These two modules are private to Keras; docs/decisions.md says what was tried instead.
    from keras.src.trainers.data_adapters import data_adapter_utils
    from keras.src.trainers.data_adapters.data_adapter import DataAdapter
except ImportError as error:
    raise MissingPackageError(
        f"as_keras needs Keras 3.9 or later and one of its backends ({error}): pip install 'hypersequence[keras]' "
        "and tensorflow, jax or torch; KERAS_BACKEND chooses between them"
    ) from error


#: An epoch that no training reaches.
_NEVER = 1 << 62


class KerasSequence(keras.utils.PyDataset, DataAdapter):
    """A sequence for ``fit``, ``evaluate``, ``predict`` and ``validation_data``, on any Keras backend.

    Batches are made ahead of time by a :class:`hypersequence.Loader`; contiguous ones are read-only views of the file.

    Args:
        hyperseq: The sequence to feed; needs inputs, and outputs for training. A shard that is padded gives sample
            weights, so that an evaluation over all ranks counts each record once.
        shuffle_on_epoch: Shuffle as ``hyperseq.shuffled(seed)`` does: epoch ``e`` of training has the order of
            ``hyperseq.shuffled(seed).at_epoch(e)``, whatever ``fit(shuffle=...)`` says.
        seed: For that shuffle; ``None`` draws one, which the repr shows.
        class_weight: Weights of losses by class, as in ``fit(class_weight=...)``, which cannot be used with this
            object: classes come from integer or one-hot outputs, a class that is missing weighs 1.
        threads: As in :class:`hypersequence.Loader`.
        prefetch: As in :class:`hypersequence.Loader`.
        evict: As in :class:`hypersequence.Loader`.
        on_corrupt: As in :class:`hypersequence.Loader`.
        **options: What ``keras.utils.PyDataset`` takes (``workers``, ``use_multiprocessing``, ``max_queue_size``).
            Batches are made in order by the loader, so they change nothing.

    ``ds[3]`` is batch 3 of the current epoch's order. The epoch advances when Keras has finished one; a pass that was
    abandoned does not count. With ``steps_per_epoch``, the batches go on into the next epoch's order where one ends.
    ``fit(initial_epoch=e)`` begins with the order of epoch ``e``. Evaluate on an object of its own (another
    ``as_keras()``): a pass is a pass, whoever makes it. :class:`ResumeCallback` goes on after an interruption.
    """

    def __init__(
        self,
        hyperseq: HyperSequence,
        shuffle_on_epoch: bool = False,
        seed: int | None = None,
        *,
        class_weight: Mapping[int, float] | None = None,
        threads: int | None = None,
        prefetch: int | None = None,
        evict: bool | None = None,
        on_corrupt: Literal["error", "skip_block"] = "error",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _check_types(hyperseq)
        if seed is not None and not shuffle_on_epoch:
            raise ArgumentError("as_keras(seed=...) means nothing without shuffle_on_epoch=True")
        if class_weight is not None and (hyperseq.no_outputs() != 1 or hyperseq.schema.sample_weights is not None):
            raise ArgumentError("class_weight needs exactly one output and no sample weights")
        hyperseq = hyperseq.shuffled(seed, epoch=hyperseq.epoch) if shuffle_on_epoch else hyperseq
        self._loader = Loader(
            hyperseq,
            threads=threads,
            prefetch=prefetch,
            buffers=_buffers(hyperseq),
            evict=evict,
            on_corrupt=on_corrupt,
        )
        self._sequence = self._loader.sequence
        self._class_weight = dict(class_weight) if class_weight is not None else None
        self._place = (hyperseq.epoch, 0)  # where the next pass begins: epoch, position in records of all ranks
        self._loaded = False  # whether that place was loaded: then a new fit begins there, not with a whole epoch
        self._steps: int | None = None  # steps_per_epoch of the fit that is running
        self._steps_before = 0  # of the Keras epoch that is resumed, what was trained before
        self._due = 0  # batches that the pass under way has when it is finished
        self._n_trained = 0  # batches of the pass under way that are known to be trained
        self._rehearsing = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__getitem__" in vars(cls):
            raise TypeError(
                f"{cls.__name__}.__getitem__ would not be asked for the batches that Keras trains on; change batches "
                "with hyperseq.map(fn) before as_keras()"
            )

    # --- for people ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of batches of an epoch."""
        return len(self._sequence)

    def __getitem__(self, index: int) -> Batch:
        """Batch ``index`` of the current epoch's order."""
        return self._weighted(self._at(self.epoch)[index])

    @property
    def epoch(self) -> int:
        """The epoch that the next pass delivers."""
        return self._place[0]

    @property
    def stats(self) -> LoaderStats:
        """What the newest pass did, and what held it back."""
        return self._loader.stats

    def state_dict(self) -> dict[str, Any]:
        """Where training stands, as :meth:`hypersequence.Loader.state_dict`.

        Batches count when they are trained, not when they are drawn; within an epoch that is known to
        :class:`ResumeCallback` only, without it an epoch counts when it is finished.
        """
        return self._loader._state_at(*self._loader._advanced(*self._place, self._n_trained))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the next ``fit`` begin where a state was taken; ``ResumeCallback`` does that by itself.

        Raises:
            ArgumentError: The state belongs to other data or another order.
        """
        self._resume(state, 0)

    def _resume(self, state: dict[str, Any], steps_before: int) -> None:
        self._place = self._loader._place_in(state)
        self._loaded, self._steps_before, self._n_trained = True, steps_before, 0

    def __repr__(self) -> str:
        return f"<KerasSequence, epoch {self.epoch}, of {self._at(self.epoch)!r}>"

    # --- for Keras: passes -----------------------------------------------------------------------------------------

    def _at(self, epoch: int) -> HyperSequence:
        return self._sequence if epoch == self._sequence.epoch else self._sequence.at_epoch(epoch)

    def _batches(self) -> Iterator[Batch]:
        """One pass."""
        with closing(self._walk()) as batches:
            for batch in batches:
                yield self._weighted(batch)

    def _walk(self, together: bool = False) -> LoaderIterator:
        """The batches of the current epoch, and of those after it if Keras counts steps."""
        epoch, position = self._place
        endless = self._steps is not None and len(self) > 0
        return self._loader._walk(epoch, position, _NEVER if endless else epoch + 1, together)

    def _weighted(self, batch: Batch) -> Batch:
        if self._class_weight is None:
            return batch
        inputs, outputs, given = (*batch, None)[:3]
        classes = np.asarray(next(iter(outputs.values())) if isinstance(outputs, dict) else outputs)  # pyright: ignore
        if classes.ndim > 1:
            classes = classes.argmax(-1) if classes.shape[-1] != 1 else classes[..., 0]
        names, places = np.unique(np.round(classes).astype(np.int64), return_inverse=True)
        weights = np.array([self._class_weight.get(int(name), 1.0) for name in names], np.float32)
        weights = weights[places.reshape(classes.shape)]
        return inputs, outputs, weights if given is None else weights * given.reshape(-1, *[1] * (weights.ndim - 1))

    # --- for Keras: the protocol of its data adapters --------------------------------------------------------------

    @property
    def num_batches(self) -> int | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Batches of an epoch; ``None`` (endless) for a Keras loop that counts steps itself.

        Keras ends an epoch early, with a warning, where the steps pass the end of data of known length. Only the loop
        that asks knows whether it counts steps, and it does not say: so its frame is read. Were Keras to change, it
        would get the length, as every other PyDataset gives it.

        A loop asks whenever it sets up or starts over: passes up to then were rehearsals (to find out shapes).
        """
        caller = sys._getframe(1)
        loop = caller.f_locals.get("self")
        if not hasattr(loop, "steps_per_epoch"):
            return len(self)
        for name in ("class_weight", "y", "sample_weight"):
            if caller.f_locals.get(name) is not None:
                hint = "as_keras(class_weight=...)" if name == "class_weight" else "the outputs and weights of the file"
                raise ArgumentError(f"fit({name}=...) cannot be combined with a KerasSequence; use {hint}")
        if not len(self):
            raise ArgumentError("this sequence has no batches")
        self._rehearsing = True
        self._steps = getattr(loop, "steps_per_epoch", None)
        self._n_trained = 0
        if not self._loaded:
            self._place, self._steps_before = (self._place[0], 0), 0
            initial_epoch = _initial_epoch(caller)
            if initial_epoch:
                steps = initial_epoch * (self._steps or len(self))
                self._place = self._loader._advanced(self._sequence.epoch, 0, steps)
        return None if self._steps else len(self)

    @property
    def batch_size(self) -> int:
        """Records of a batch."""
        return self._sequence.batch_size()

    @property
    def has_partial_batch(self) -> bool:
        """Whether the last batch is short."""
        return self.partial_batch_size is not None

    @property
    def partial_batch_size(self) -> int | None:
        """Records of a short last batch, or ``None``."""
        return self._sequence.n_records % self._sequence.batch_size() or None

    def on_epoch_begin(self) -> None:
        """Keras begins to draw an epoch's batches.

        Of an epoch that is resumed, fewer are left than Keras counts on; it would end it with a warning. So the loop
        that calls is told, and told again when the next epoch begins.
        """
        self._rehearsing = False
        loop = sys._getframe(1).f_locals.get("self")
        if not self._steps:
            self._due = self._loader._n_left(*self._place)
            if getattr(loop, "_num_batches", None) is not None:
                loop._num_batches = self._due  # pyright: ignore[reportOptionalMemberAccess]
            return
        steps = max(1, self._steps - self._steps_before)
        together = getattr(loop, "steps_per_execution", 1)  # an epoch's last execution draws as many as the others
        self._due = -(-steps // together) * together
        if hasattr(loop, "steps_per_epoch"):
            loop.steps_per_epoch = steps  # pyright: ignore[reportOptionalMemberAccess]

    def _trained(self, n_batches: int) -> None:
        """So many batches of the pass under way are trained; Keras counts on where an execution had fewer."""
        self._n_trained = min(n_batches, self._due)

    def on_epoch_end(self) -> None:
        """An epoch is over: the next pass has the next order. Keras also calls this when it starts over."""
        if not self._rehearsing:
            self._place = self._loader._advanced(*self._place, self._due)
            self._loaded, self._steps_before, self._n_trained = False, 0, 0
        self._rehearsing = False

    def get_numpy_iterator(self) -> Any:
        """One pass as NumPy arrays."""
        return self._batches()

    def get_jax_iterator(self) -> Any:
        """One pass for the JAX backend, which takes NumPy arrays."""
        return self._batches()

    def get_torch_dataloader(self) -> Any:
        """One pass as torch tensors."""
        from ..torch.tensors import tensor_of

        def convert(array: Any) -> Any:
            # Keras knows which of NumPy's unsigned types PyTorch can hardly compute with, and what else map() may give.
            ours = isinstance(array, np.ndarray | np.generic) and array.dtype.kind != "u"
            return keras.ops.convert_to_tensor(tensor_of(array) if ours else array)

        return _Passes(lambda: (each_array(batch, convert) for batch in self._batches()))

    def get_tf_dataset(self) -> Any:
        """A ``tf.data.Dataset`` of which every iteration is a pass."""
        from ..tensorflow import dataset_of, pieces, spec_of

        together = self._class_weight is None  # otherwise each batch gets weights of its own
        if together and self._sequence._delivery.plain:
            spec = spec_of(self._loader._read_from)
        else:  # a map may give what Keras takes and spec_of() does not
            n_examples = min(len(self), data_adapter_utils.NUM_BATCHES_FOR_TENSOR_SPEC)
            spec = data_adapter_utils.get_tensor_spec([self[index] for index in range(n_examples)])
        return dataset_of(
            lambda: pieces(
                self._walk(True) if together else ((1, batch) for batch in self._batches()), self.batch_size
            ),
            spec,
        )


class _Passes:
    """Every iteration is a new pass."""

    def __init__(self, begin: Callable[[], Iterator[Any]]) -> None:
        self._begin = begin

    def __iter__(self) -> Iterator[Any]:
        return self._begin()


def _buffers(sequence: HyperSequence) -> Literal["own", "view"]:
    """Where batches are best made for the backend."""
    match keras.backend.backend():
        case "torch":
            return "own"  # it has no read-only tensors
        case "tensorflow":
            from ..tensorflow import buffers_for

            return buffers_for(sequence)
        case _:
            return "view"  # nobody writes into a file, and what a backend keeps an alias of does not change


def _initial_epoch(frame: FrameType | None) -> int:
    """``initial_epoch`` of the ``fit`` that is being set up: Keras tells its data nothing of it."""
    while frame is not None:
        if frame.f_code.co_name == "fit" and "initial_epoch" in frame.f_locals:
            return int(frame.f_locals["initial_epoch"] or 0)
        frame = frame.f_back
    return 0


def _check_types(hyperseq: HyperSequence) -> None:
    """Refuse what no backend takes; ``map`` may turn anything into something else."""
    if not hyperseq.no_inputs():
        raise ArgumentError("Keras needs inputs; this sequence has none left after fields()")
    if hyperseq.has_map:
        return
    refused = "mM" if keras.backend.backend() == "tensorflow" else "mMSU"
    for column in hyperseq.columns:
        if column.field.dtype.kind in refused:
            raise ArgumentError(
                f"{column.label} has elements of type {column.field.type_name}, which Keras on "
                f"{keras.backend.backend()} does not take; leave it out with fields(...), or convert it with map(...)"
            )

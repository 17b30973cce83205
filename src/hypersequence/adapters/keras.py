"""Keras 3: a sequence as a ``PyDataset`` whose order holds inside ``fit``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..errors import ArgumentError, MissingPackageError
from ..schema import Batch
from ..sequence import HyperSequence

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


class KerasSequence(keras.utils.PyDataset, DataAdapter):
    """A sequence for ``fit``, ``evaluate``, ``predict`` and ``validation_data``, on any Keras backend.

    Args:
        hyperseq: The sequence to feed; needs inputs, and outputs for training.
        shuffle_on_epoch: Shuffle as ``hyperseq.shuffled(seed)`` does: epoch ``e`` of training has the order of
            ``hyperseq.shuffled(seed).at_epoch(e)``, whatever ``fit(shuffle=...)`` says.
        seed: For that shuffle; ``None`` draws one, which the repr shows.
        class_weight: Weights of losses by class, as in ``fit(class_weight=...)``, which cannot be used with this
            object: classes come from integer or one-hot outputs, a class that is missing weighs 1.
        **options: What ``keras.utils.PyDataset`` takes (``workers``, ``use_multiprocessing``, ``max_queue_size``).
            Batches are made in order by one reader, so they change nothing.

    ``ds[3]`` is batch 3 of the current epoch's order. The epoch advances when Keras has finished one; a pass that was
    abandoned does not count. With ``steps_per_epoch``, the batches go on into the next epoch's order where one ends.
    Evaluate on an object of its own (another ``as_keras()``): a pass is a pass, whoever makes it. ``initial_epoch`` of
    ``fit`` is Keras's count alone; begin with ``hyperseq.at_epoch(e)`` to begin with that epoch's order.
    """

    def __init__(
        self,
        hyperseq: HyperSequence,
        shuffle_on_epoch: bool = False,
        seed: int | None = None,
        *,
        class_weight: Mapping[int, float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        _check_types(hyperseq)
        if seed is not None and not shuffle_on_epoch:
            raise ArgumentError("as_keras(seed=...) means nothing without shuffle_on_epoch=True")
        if class_weight is not None and (hyperseq.no_outputs() != 1 or hyperseq.schema.sample_weights is not None):
            raise ArgumentError("class_weight needs exactly one output and no sample weights")
        self._sequence = hyperseq.shuffled(seed, epoch=hyperseq.epoch) if shuffle_on_epoch else hyperseq
        self._class_weight = dict(class_weight) if class_weight is not None else None
        self._first_epoch = hyperseq.epoch
        self._position = 0  # batches that Keras has finished with, counted in whole calls of on_epoch_end
        self._steps: int | None = None  # steps_per_epoch of the fit that is running
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
        return self._first_epoch + self._position // max(1, len(self))

    def __repr__(self) -> str:
        return f"<KerasSequence, epoch {self.epoch}, of {self._at(self.epoch)!r}>"

    # --- for Keras: passes -----------------------------------------------------------------------------------------

    def _at(self, epoch: int) -> HyperSequence:
        return self._sequence if epoch == self._sequence.epoch else self._sequence.at_epoch(epoch)

    def _batches(self) -> Iterator[Batch]:
        """One pass: the batches of the current epoch, and of those after it if Keras counts steps."""
        endless, epoch = self._steps is not None, self.epoch
        while True:
            sequence = self._at(epoch)
            for index in range(len(sequence)):
                yield self._weighted(sequence[index])
            if not endless or not len(sequence):
                return
            epoch += 1

    def _weighted(self, batch: Batch) -> Batch:
        if self._class_weight is None:
            return batch
        inputs, outputs = batch
        classes = np.asarray(next(iter(outputs.values())) if isinstance(outputs, dict) else outputs)  # pyright: ignore
        if classes.ndim > 1:
            classes = classes.argmax(-1) if classes.shape[-1] != 1 else classes[..., 0]
        names, places = np.unique(np.round(classes).astype(np.int64), return_inverse=True)
        weights = np.array([self._class_weight.get(int(name), 1.0) for name in names], np.float32)
        return inputs, outputs, weights[places.reshape(classes.shape)]

    # --- for Keras: the protocol of its data adapters --------------------------------------------------------------

    @property
    def num_batches(self) -> int | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Batches of an epoch; ``None`` (endless) for a Keras loop that counts steps itself.

        Keras ends an epoch early, with a warning, where the steps pass the end of data of known length. Only the loop
        that asks knows whether it counts steps, and it does not say: so its frame is read. Were Keras to change, it
        would get the length, as every other PyDataset gives it.

        A loop asks whenever it sets up or starts over: passes up to then were rehearsals (to find out shapes).
        """
        caller = sys._getframe(1).f_locals
        loop = caller.get("self")
        if not hasattr(loop, "steps_per_epoch"):
            return len(self)
        for name in ("class_weight", "y", "sample_weight"):
            if caller.get(name) is not None:
                hint = "as_keras(class_weight=...)" if name == "class_weight" else "the outputs and weights of the file"
                raise ArgumentError(f"fit({name}=...) cannot be combined with a KerasSequence; use {hint}")
        if not len(self):
            raise ArgumentError("this sequence has no batches to train on")
        self._rehearsing = True
        self._steps = getattr(loop, "steps_per_epoch", None)
        self._position -= self._position % len(self)
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
        """Keras begins to draw an epoch's batches."""
        self._rehearsing = False

    def on_epoch_end(self) -> None:
        """An epoch is over: the next pass has the next order. Keras also calls this when it starts over."""
        if not self._rehearsing:
            self._position += self._steps or len(self)
        self._rehearsing = False

    def get_numpy_iterator(self) -> Any:
        """One pass as NumPy arrays."""
        return self._batches()

    def get_jax_iterator(self) -> Any:
        """One pass for the JAX backend, which takes NumPy arrays."""
        return self._batches()

    def get_torch_dataloader(self) -> Any:
        """One pass as torch tensors."""
        return data_adapter_utils.get_torch_dataloader(_Passes(self))

    def get_tf_dataset(self) -> Any:
        """A ``tf.data.Dataset`` of which every iteration is a pass."""
        import tensorflow as tf

        examples = [self[index] for index in range(min(len(self), data_adapter_utils.NUM_BATCHES_FOR_TENSOR_SPEC))]
        signature = data_adapter_utils.get_tensor_spec(examples)
        return tf.data.Dataset.from_generator(self._batches, output_signature=signature).prefetch(tf.data.AUTOTUNE)


class _Passes:
    """Every iteration is a new pass."""

    def __init__(self, dataset: KerasSequence) -> None:
        self._dataset = dataset

    def __iter__(self) -> Iterator[Batch]:
        return self._dataset._batches()


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

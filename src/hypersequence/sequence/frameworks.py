"""The steps from a sequence to the frameworks that train on it."""

# A sequence and these steps are one thing in two files; adapters know sequences, and this is the one place from which a
# sequence knows an adapter: it is imported when somebody asks for it, and its framework with it.

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

if TYPE_CHECKING:
    import tensorflow as tf

    from ..adapters.jax import JaxLoader
    from ..adapters.keras import KerasSequence
    from ..adapters.torch import TorchDataset, TorchLoader
    from .core import HyperSequence

    TfDataset: TypeAlias = tf.data.Dataset[Any]
else:  # so that typing.get_type_hints needs no framework
    JaxLoader = KerasSequence = TorchDataset = TorchLoader = TfDataset = Any


class Frameworks:
    """The ``as_...`` methods of :class:`HyperSequence`."""

    def as_keras(self, shuffle_on_epoch: bool = False, seed: int | None = None, **options: Any) -> KerasSequence:
        """A ``keras.utils.PyDataset`` for ``fit``, ``evaluate`` and ``predict``; needs Keras 3.

        Args:
            shuffle_on_epoch: Shuffle as ``shuffled(seed)`` does, in another order every epoch.
            seed: For that shuffle; ``None`` draws one, which the repr shows.
            **options: See :class:`hypersequence.keras.KerasSequence`.

        Raises:
            MissingPackageError: Keras is not installed.
        """
        from ..adapters.keras import KerasSequence

        return KerasSequence(cast("HyperSequence", self), shuffle_on_epoch, seed, **options)

    def as_torch(self, **options: Any) -> TorchLoader:
        """An iterable of batches as PyTorch tensors, with ``len``, ``state_dict`` and a rank's share of the data.

        Args:
            **options: ``device``, ``pin_memory``, ``rank``, ``world``, ``global_batch``, ``uneven``, ``threads`` and
                others: see :class:`hypersequence.torch.TorchLoader`.

        Raises:
            MissingPackageError: PyTorch is not installed.
        """
        from ..adapters.torch import TorchLoader

        return TorchLoader(cast("HyperSequence", self), **options)

    def as_torch_dataset(self, unit: Literal["record", "batch"] = "record") -> TorchDataset:
        """A map-style data set for a ``torch.utils.data.DataLoader``; :meth:`as_torch` is faster.

        Args:
            unit: What ``dataset[i]`` is; see :class:`hypersequence.torch.TorchDataset`.

        Raises:
            MissingPackageError: PyTorch is not installed.
        """
        from ..adapters.torch import TorchDataset

        return TorchDataset(cast("HyperSequence", self), unit)

    def as_jax(self, **options: Any) -> JaxLoader:
        """An iterable of batches as JAX arrays, on a device or laid out over several.

        Args:
            **options: ``device``, ``sharding``, ``narrow``, ``global_batch``, ``uneven``, ``threads`` and others: see
                :class:`hypersequence.jax.JaxLoader`.

        Raises:
            MissingPackageError: JAX is not installed.
        """
        from ..adapters.jax import JaxLoader

        return JaxLoader(cast("HyperSequence", self), **options)

    def as_tf_dataset(self, **options: Any) -> TfDataset:
        """A ``tf.data.Dataset`` of batches, of which every iteration is the next epoch.

        Args:
            **options: ``threads``, ``prefetch``, ``evict`` and ``on_corrupt``: see
                :func:`hypersequence.tensorflow.tf_dataset`.

        Raises:
            MissingPackageError: TensorFlow is not installed.
        """
        from ..adapters.tensorflow import tf_dataset

        return tf_dataset(cast("HyperSequence", self), **options)

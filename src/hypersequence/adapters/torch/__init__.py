"""PyTorch: a sequence as an iterable of tensors, or as a data set for a ``DataLoader``."""

from ...errors import MissingPackageError

try:
    import torch  # noqa: F401
except ImportError as error:
    raise MissingPackageError(
        f"as_torch and as_torch_dataset need PyTorch ({error}): pip install 'hypersequence[torch]'"
    ) from error

from .dataset import TorchDataset
from .loader import TorchLoader

__all__ = ["TorchDataset", "TorchLoader"]

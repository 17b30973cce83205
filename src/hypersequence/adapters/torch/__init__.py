"""PyTorch: a sequence as an iterable of tensors, or as a data set for a ``DataLoader``."""

from .dataset import TorchDataset
from .loader import TorchLoader

__all__ = ["TorchDataset", "TorchLoader"]

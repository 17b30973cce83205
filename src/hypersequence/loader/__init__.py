"""The loader: batches in order, made ahead of time by threads, from a position that can be saved and restored."""

from .api import Loader
from .stats import LoaderStats

__all__ = ["Loader", "LoaderStats"]

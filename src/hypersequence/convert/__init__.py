"""Other data in and out of ``.hsq`` files."""

from .upgrade import upgrade

__all__ = ["upgrade"]

"""Keras 3: sequences as training data whose order holds inside ``fit``, and resuming."""

from .feed import KerasSequence
from .resume import ResumeCallback

__all__ = ["KerasSequence", "ResumeCallback"]

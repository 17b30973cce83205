"""What can be said of sequences and files, for people: how well an order mixes, whether a file is what was written."""

from .integrity import Verification, verify
from .quality import ShuffleQuality, shuffle_quality
from .repair import repair

__all__ = ["ShuffleQuality", "Verification", "repair", "shuffle_quality", "verify"]

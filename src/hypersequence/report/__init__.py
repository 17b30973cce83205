"""What a sequence is like, in figures for people: how well its order mixes."""

from .quality import ShuffleQuality, shuffle_quality

__all__ = ["ShuffleQuality", "shuffle_quality"]

"""What can be said of sequences and files: what is in them, how well an order mixes, whether all is well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .description import Description, describe
    from .drawing import picture
    from .feeding import Bench, bench
    from .integrity import Verification, verify
    from .mending import repair
    from .quality import ShuffleQuality, shuffle_quality
    from .statistics import FieldStats, Stats, stats

__all__ = [
    "Bench",
    "Description",
    "FieldStats",
    "ShuffleQuality",
    "Stats",
    "Verification",
    "bench",
    "describe",
    "picture",
    "repair",
    "shuffle_quality",
    "stats",
    "verify",
]

# What a description needs is a tenth of what the others do. No module is called as what it has: once imported, it would
# be found under that name.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **{name: f"description:{name}" for name in ("Description", "describe")},
        **{name: f"feeding:{name}" for name in ("Bench", "bench")},
        **{name: f"integrity:{name}" for name in ("Verification", "verify")},
        **{name: f"quality:{name}" for name in ("ShuffleQuality", "shuffle_quality")},
        **{name: f"statistics:{name}" for name in ("FieldStats", "Stats", "stats")},
        "picture": "drawing:picture",
        "repair": "mending:repair",
    },
)

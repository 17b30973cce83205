"""HyperSequence: a data format and library that feed machine-learning training at the speed of memory and disk.

Write records once::

    with hs.HyperSequenceWriter("train.hsq", batch_size=32) as writer:
        for image, label in records:
            writer.append(inputs=image, outputs=label)

then train for many epochs::

    with hs.HyperSequenceFile("train.hsq") as seq:
        train, validation = seq.split(0.8)
        model.fit(train.as_keras(shuffle_on_epoch=True), validation_data=validation.as_keras(), epochs=16)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .lazy import lazy_names

if TYPE_CHECKING:
    from .adapters import jax as jax
    from .adapters import keras as keras
    from .adapters import tensorflow as tensorflow
    from .adapters import torch as torch
    from .adapters.keras import KerasSequence as KerasSequence
    from .converting import Converted, convert, save, upgrade, write
    from .converting.api import formats
    from .errors import (
        ArgumentError,
        ChecksumError,
        ClosedError,
        FileChangedError,
        FileError,
        FormatError,
        HyperSequenceError,
        MissingPackageError,
        NothingToResumeError,
        PositionError,
        RecordError,
        SourceError,
        UnsupportedError,
    )
    from .loader import Loader, LoaderStats
    from .report import (
        Bench,
        Description,
        ShuffleQuality,
        Stats,
        Verification,
        bench,
        describe,
        picture,
        repair,
        shuffle_quality,
        stats,
        verify,
    )
    from .schema import Field, Schema
    from .sequence import (
        FetchingHyperSequence,
        HyperSequence,
        HyperSequenceFile,
        HyperSequenceView,
        Records,
        concat,
        mix,
        rebatch,
    )
    from .sequence import open_files as open
    from .writer import HyperSequenceWriter, Recovered, recover

    __version__: str

__all__ = [
    "ArgumentError",
    "Bench",
    "ChecksumError",
    "ClosedError",
    "Converted",
    "Description",
    "FetchingHyperSequence",
    "Field",
    "FileChangedError",
    "FileError",
    "FormatError",
    "HyperSequence",
    "HyperSequenceError",
    "HyperSequenceFile",
    "HyperSequenceView",
    "HyperSequenceWriter",
    "Loader",
    "LoaderStats",
    "MissingPackageError",
    "NothingToResumeError",
    "PositionError",
    "RecordError",
    "Records",
    "Recovered",
    "Schema",
    "ShuffleQuality",
    "SourceError",
    "Stats",
    "UnsupportedError",
    "Verification",
    "bench",
    "concat",
    "convert",
    "describe",
    "formats",
    "mix",
    "open",
    "picture",
    "rebatch",
    "recover",
    "repair",
    "save",
    "shuffle_quality",
    "stats",
    "upgrade",
    "verify",
    "write",
]

# Modules are imported when somebody asks for one of their names: frameworks are heavy and optional, and importing all
# of ours takes as long as `hsq info` may take.
_FRAMEWORKS = {
    "KerasSequence": "adapters.keras:KerasSequence",
    **{name: f"adapters.{name}" for name in ("jax", "keras", "tensorflow", "torch")},
}
_HOMES = {
    "open": "sequence:open_files",
    "formats": "converting.api:formats",
    **{name: f"converting:{name}" for name in ("Converted", "convert", "save", "upgrade", "write")},
    **{name: f"loader:{name}" for name in ("Loader", "LoaderStats")},
    **{name: f"schema:{name}" for name in ("Field", "Schema")},
    **{name: f"writer:{name}" for name in ("HyperSequenceWriter", "Recovered", "recover")},
    **{name: f"report:{name}" for name in ("Bench", "Description", "ShuffleQuality", "Stats", "Verification", "bench")},
    **{name: f"report:{name}" for name in ("describe", "picture", "repair", "shuffle_quality", "stats", "verify")},
    **{
        name: f"sequence:{name}"
        for name in ("HyperSequence", "HyperSequenceFile", "HyperSequenceView", "FetchingHyperSequence")
    },
    **{name: f"sequence:{name}" for name in ("Records", "concat", "mix", "rebatch")},
    **{name: f"errors:{name}" for name in __all__ if name.endswith("Error")},
}
# What needs a framework stands neither in __all__ nor in dir(): import * and help() must work without any.
_lookup, __dir__ = lazy_names(__name__, _HOMES | _FRAMEWORKS, unlisted=_FRAMEWORKS)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("hypersequence")
        except PackageNotFoundError:  # a checkout that was not installed
            return "0+unknown"
    return _lookup(name)

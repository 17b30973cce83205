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

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from .convert import Converted, convert, formats, save, upgrade
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
from .report import ShuffleQuality, Verification, repair, shuffle_quality, verify
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

if TYPE_CHECKING:
    from .adapters.keras import KerasSequence

__all__ = [
    "ArgumentError",
    "ChecksumError",
    "ClosedError",
    "Converted",
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
    "KerasSequence",
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
    "UnsupportedError",
    "Verification",
    "concat",
    "convert",
    "formats",
    "mix",
    "open",
    "rebatch",
    "recover",
    "repair",
    "save",
    "shuffle_quality",
    "upgrade",
    "verify",
]

try:
    __version__ = version("hypersequence")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    # Frameworks are heavy and optional: each is imported when somebody asks for its adapter.
    if name in ("jax", "keras", "tensorflow", "torch"):
        return import_module(f"{__name__}.adapters.{name}")
    if name == "KerasSequence":
        return import_module(f"{__name__}.adapters.keras").KerasSequence
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

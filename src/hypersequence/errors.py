"""Every error that HyperSequence raises on purpose.

Each derives from :class:`HyperSequenceError` and from the built-in that a person would catch anyway::

    HyperSequenceError
    ├── FormatError (ValueError)            the bytes of a file break a rule of SPEC.md
    │   ├── UnsupportedError                ... valid, but of a version or feature this release does not know
    │   └── ChecksumError                   ... stored data changed after they were written
    ├── RecordError (TypeError, ValueError) a record does not fit the schema, or no schema can hold it
    ├── SourceError (ValueError)            data of another format that cannot be converted
    ├── ArgumentError (ValueError)          an argument makes no sense
    ├── PositionError (IndexError)          a batch or record number outside the sequence
    ├── ClosedError (ValueError)            use after close()
    ├── FileError (OSError)                 the file system refused, or the target exists
    │   ├── FileChangedError                a file was replaced or truncated underneath its reader
    │   └── NothingToResumeError            (FileNotFoundError) no interrupted writer left anything
    └── MissingPackageError (ImportError)   an optional package is not installed

A message says which file and where, what was expected, what was found, and what to do now.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ArgumentError",
    "ChecksumError",
    "ClosedError",
    "FileChangedError",
    "FileError",
    "FormatError",
    "HyperSequenceError",
    "MissingPackageError",
    "NothingToResumeError",
    "PositionError",
    "RecordError",
    "SourceError",
    "UnsupportedError",
]


def _rebuild(cls: type[HyperSequenceError], message: str, facts: dict[str, Any]) -> HyperSequenceError:
    return cls(message, **facts)


class HyperSequenceError(Exception):
    """Base of every error of this package.

    Args:
        message: The whole text a person reads.
        **facts: What a program may want to know (``path``, ``rule``, ``block`` ...); each becomes an attribute.

    Instances are picklable, so they survive the way back from a worker process.

    >>> import pickle
    >>> error = pickle.loads(pickle.dumps(FormatError("a.hsq: too short", path="a.hsq", rule="T1")))
    >>> error.rule, isinstance(error, ValueError)
    ('T1', True)
    """

    facts: dict[str, Any]

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.facts = facts

    def __getattr__(self, name: str) -> Any:
        facts = self.__dict__.get("facts", {})
        if name in facts:
            return facts[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> Any:
        return _rebuild, (type(self), str(self.args[0]), self.facts)


class FormatError(HyperSequenceError, ValueError):
    """The bytes of a file break a rule of the format; ``rule`` is its number in SPEC.md."""


class UnsupportedError(FormatError):
    """The file is sound, but uses a version, flag, type or codec that this release does not know."""


class ChecksumError(FormatError):
    """Stored data do not match their checksum; ``block``, ``first_record``, ``last_record`` and ``field`` say where."""


class RecordError(HyperSequenceError, TypeError, ValueError):
    """A record does not fit the schema, or its type cannot be stored at all."""


class SourceError(HyperSequenceError, ValueError):
    """Data of another format cannot be converted; the message says where in the source, and what to do."""


class ArgumentError(HyperSequenceError, ValueError):
    """An argument has a value that makes no sense here."""


class PositionError(HyperSequenceError, IndexError):
    """A batch or record number lies outside the sequence."""


class ClosedError(HyperSequenceError, ValueError):
    """A file or writer was used after ``close()``."""


class FileError(HyperSequenceError, OSError):
    """The file system refused, or an existing target was in the way."""


class FileChangedError(FileError):
    """A file was truncated, or replaced by another one, since it was opened."""


class NothingToResumeError(FileError, FileNotFoundError):
    """No part file of the target is there, so that a writer has to begin."""


class MissingPackageError(HyperSequenceError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""

"""Files of hypersequence 0.9 and 0.10, rewritten as version 3."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any, cast

from ..sequence import HyperSequenceFile
from .copying import copy


def upgrade(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Rewrite a file as version 3: the same records in the same order, batch size and user metadata, with checksums.

    Numbers in the metadata that JSON does not have (NaN, infinity), which old writers let through, become text, with a
    warning.

    Args:
        old: A file of any version that :class:`hypersequence.HyperSequenceFile` opens.
        new: The file to write; may be ``old`` itself, which is then replaced when the new one is complete.
        overwrite: Replace another file that is called ``new``. ``False`` (default) refuses.
        progress: Show a progress bar on a terminal. ``False`` (default) is silent.

    Raises:
        FormatError: ``old`` is no such file, or damaged.
        FileError: ``new`` exists or cannot be written.

    Thread-safe: it only reads ``old``.

    >>> upgrade(example_path, folder / "new.hsq")
    >>> HyperSequenceFile(folder / "new.hsq").n_records
    100
    """
    target = Path(new)
    overwrite = overwrite or (target.exists() and target.samefile(old))
    with HyperSequenceFile(old) as source:
        meta = _without_nan(source.user_meta(), str(old))
        copy(source, target, meta, source.batch_size(), overwrite=overwrite, progress=progress)


def _without_nan(value: Any, path: str) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(member, path) for key, member in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [_without_nan(member, path) for member in cast("list[Any]", value)]
    if isinstance(value, float) and not math.isfinite(value):
        warnings.warn(f"{path}: {value} in the user metadata is not JSON and was kept as text", stacklevel=2)
        return str(value)
    return value

"""Files of hypersequence 0.9 and 0.10, rewritten as version 3."""

from __future__ import annotations

import os

from ..sequence import HyperSequenceFile
from ..writer import HyperSequenceWriter

_CHUNK_NBYTES = 32 << 20


def upgrade(
    old: str | os.PathLike[str],
    new: str | os.PathLike[str],
    *,
    overwrite: bool = True,
    progress: bool = False,
) -> None:
    """Rewrite a file as version 3: the same records in the same order, batch size and user metadata, with checksums.

    Args:
        old: A file of any version that :class:`hypersequence.HyperSequenceFile` opens.
        new: The file to write; may be ``old`` itself, which is then replaced when the new one is complete.
        overwrite: ``False`` refuses if ``new`` exists.
        progress: Show a progress line on a terminal.

    Raises:
        FormatError: ``old`` is no such file, or damaged.
        FileError: ``new`` cannot be written.
    """
    with (
        HyperSequenceFile(old) as source,
        HyperSequenceWriter(
            new, source.batch_size(), schema=source.schema, overwrite=overwrite, progress=progress
        ) as writer,
    ):
        writer.user_meta().update(source.user_meta())
        step = max(1, _CHUNK_NBYTES // max(1, source.schema.record_nbytes))
        for start in range(0, source.n_records, step):
            writer.extend(*source.records[start : start + step])

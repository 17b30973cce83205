"""What a data set of HDF5 refers to: other data sets, and files beside it. HDF5 reads what is not there as zeros."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..errors import SourceError
from .arrays import explained
from .base import require

#: How deep data sets may be put together from others that are put together; HDF5 would go on until it crashes.
_DEEPEST = 32


def refuse_incomplete(data: Any, path: Path, where: str) -> None:
    """See whether everything is there that a data set refers to.

    Args:
        data: The data set.
        path: The file that it is in.
        where: What messages call it.

    Raises:
        SourceError: A file, or a data set in it, is missing, is cut off, or refers to itself.

    Parts whose names are a pattern (``%b``) are not looked for: HDF5 takes as many of them as there are.
    """
    _Looking(where).look(data, path, ())


class _Looking:
    """Looks at a data set, at the parts that it is put together from, and at theirs.

    Args:
        where: What messages call the first one.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._complete: set[tuple[Path, str]] = set()

    def look(self, data: Any, path: Path, above: tuple[tuple[Path, str], ...]) -> None:
        """Look at one of them.

        Args:
            data: The data set.
            path: Its file.
            above: The parts on the way to it.
        """
        self._look_outside(data)
        parts = data.virtual_sources() if data.is_virtual else ()
        for file_name, name in dict.fromkeys((part.file_name, part.dset_name) for part in parts):
            if "%" not in file_name and "%" not in name:
                self._look_at_part(path if file_name == "." else path.parent / file_name, name, above)

    def _look_at_part(self, path: Path, name: str, above: tuple[tuple[Path, str], ...]) -> None:
        if not path.exists():
            raise SourceError(f"{self._where}: is put together from other files, of which {path} is missing")
        part = (path.resolve(), name)
        if part in above or len(above) == _DEEPEST:
            raise SourceError(
                f"{self._where}: is put together from data sets that are put together from others, more than "
                f"{_DEEPEST} deep or without an end: {path}, {name}"
            )
        if part in self._complete:
            return
        h5py = require("h5py")
        with explained(f"{self._where}, of which a part is in {path}"), h5py.File(path, "r") as file:
            data = file.get(name)
            if not isinstance(data, h5py.Dataset):
                raise SourceError(
                    f"{self._where}: is put together from other data sets, of which {path} should have {name!r}, and "
                    "has not"
                )
            self.look(data, path, (*above, part))
        self._complete.add(part)

    def _look_outside(self, data: Any) -> None:
        """Look at the files of its own that have its values and nothing else."""
        left = (data.size or 0) * data.id.get_type().get_size()
        # HDF5 looks for them from where the program runs, unless HDF5_EXTFILE_PREFIX says where they are.
        folder = os.fsdecode(data.id.get_access_plist().get_efile_prefix())
        for name, offset, nbytes in data.external or ():
            here = min(left, nbytes)  # the last one may be of any size
            left -= here
            path = Path(folder, name)
            held = path.stat().st_size if path.is_file() else None
            if here and (held is None or held < offset + here):
                found = "is not there" if held is None else f"has {held:,}, as if it were cut off"
                raise SourceError(
                    f"{self._where}: its values are in the file {path}, which should have {offset + here:,} bytes and "
                    f"{found}"
                )

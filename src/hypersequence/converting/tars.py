"""Tar archives as streams of files: in order, whole, and without keeping a list of them."""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

from ..errors import SourceError
from .arrays import explained


class _Watched:
    """A stream that keeps what was read last: tarfile takes a damaged header for the end of the archive."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b""
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        self.last = self._stream.read(size)
        return self.last


def members(path: Path, *, notes: bool = False) -> Generator[tuple[str, Callable[[], bytes]], None, None]:
    """The name of each file in an archive, and a function that reads it, to be called before the next one comes.

    Args:
        path: The archive, perhaps in gzip.
        notes: Whether files come that WebDataset has for other things than records: with names such as ``__this__``.

    Raises:
        SourceError: It is no archive, is damaged or cut off; or something in it is no file.
    """
    name = "its beginning"
    try:
        with _opened(path) as stream:
            watched = _Watched(stream)
            with tarfile.open(fileobj=cast("IO[bytes]", watched), mode="r:") as archive:
                while (member := archive.next()) is not None:
                    _forget(archive)
                    name = member.name
                    if member.isdir() or (_is_note(name) and not notes):
                        continue
                    if not member.isreg() or member.issparse():
                        raise SourceError(f"{path}, {name}: is a link or a device, and no file")
                    yield name, partial(_read, stream, member, path)
            _check_end(stream, watched.last, f"{path}, after {name}")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise SourceError(f"{path}, after {name}: the archive is damaged or cut off: {error}") from error


def _is_note(name: str) -> bool:
    top = name.partition("/")[0]
    return top.startswith("__") and top.endswith("__")


def _forget(archive: tarfile.TarFile) -> None:
    """Have an archive forget its members, of which it would fill the memory."""
    cast("Any", archive).members.clear()


def _read(stream: IO[bytes], member: tarfile.TarInfo, path: Path) -> bytes:
    with explained(f"{path}, {member.name}"):
        stream.seek(member.offset_data)
        data = stream.read(member.size)
    if len(data) < member.size:
        raise SourceError(
            f"{path}, {member.name}: expected {member.size:,} bytes, found {len(data):,}; the archive is cut off"
        )
    return data


def _check_end(stream: IO[bytes], last: bytes, where: str) -> None:
    """Whether an archive ends as one does, in zeros."""
    if len(last) < tarfile.BLOCKSIZE:
        raise SourceError(f"{where}: the archive ends without an end mark; it is cut off")
    if last.strip(b"\0"):
        raise SourceError(f"{where}: no header of a file stands here; the archive is damaged")
    while rest := stream.read(1 << 20):
        if rest.strip(b"\0"):
            raise SourceError(f"{where}: the archive ends, and more follows; give archives as files of their own")


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path, "rb")) if is_gzip else path.open("rb")


def add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Write a file into an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
    _forget(archive)

"""What is left of a file whose writer was interrupted, or whose end was lost: its whole blocks."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..errors import ChecksumError, FileChangedError, FileError, FormatError
from ..layout import (
    HEADER_PAGE_NBYTES,
    MAX_META_NBYTES,
    SECTION_META,
    TAIL_READ_NBYTES,
    TRAILER_NBYTES,
    UNREADABLE,
    BlockWalk,
    Frame,
    Header,
    RunCheck,
    align,
    find_meta,
    guarded,
    header_nbytes,
    open_parts,
    parse_frame,
    parse_header,
    parse_trailer,
    read_meta,
)
from ..schema import Array
from .blocks import Ending

#: A block of so many bytes is kept in memory while its records are taken out.
_HELD_NBYTES = 64 << 20
_ROWS_NBYTES = 8 << 20
_AHEAD_NBYTES = 2 << 20
#: More broken blocks than this are not told one by one.
_MAX_BROKEN = 10_000


class _Bytes:
    """Reads a file in pieces into the same memory again and again."""

    def __init__(self, path: Path) -> None:
        if path.exists() and not path.is_file():  # opening a pipe would wait for somebody to write into it
            what = "a directory" if path.is_dir() else "no regular file"
            raise FileError(f"{path} is {what}; give one part file", path=str(path))
        self._file = path.open("rb", buffering=0)
        self.nbytes = self._file.seek(0, 2)
        self._memory = bytearray()
        self._held = (0, 0)

    def __call__(self, offset: int, nbytes: int) -> memoryview:
        """Bytes that stay what they are until the next call; fewer only where the file ends."""
        start = self._held[0]
        if not self.holds(offset, nbytes):
            start = offset
            self._held = (0, 0)
            self._read(offset, nbytes)
            nbytes = min(nbytes, self._n_read)
        return memoryview(self._memory)[offset - start : offset - start + nbytes].toreadonly()

    def hold(self, offset: int, nbytes: int) -> None:
        """Have these bytes in memory for the calls that come, if the disk gives all of them."""
        self._held = (0, 0)
        with suppress(OSError):  # whoever wants some of them is told
            self._read(offset, nbytes)
            self._held = (offset, offset + self._n_read)

    def will_need(self, offset: int, nbytes: int) -> None:
        """Have the system read ahead while these bytes are not needed yet, where it takes such a hint."""
        if not hasattr(os, "posix_fadvise"):
            return
        with suppress(OSError):
            for start in range(offset, offset + nbytes, _AHEAD_NBYTES):  # one call reads no more than that
                os.posix_fadvise(self._file.fileno(), start, _AHEAD_NBYTES, os.POSIX_FADV_WILLNEED)

    def next_data(self, offset: int) -> int:
        """Where the next bytes are that are no hole of a sparse file, as far as the system tells."""
        if not hasattr(os, "SEEK_DATA"):
            return offset
        try:
            return os.lseek(self._file.fileno(), min(offset, self.nbytes), os.SEEK_DATA)
        except OSError as error:
            return max(offset, self.nbytes) if error.errno == errno.ENXIO else offset

    def _read(self, offset: int, nbytes: int) -> None:
        if len(self._memory) < nbytes:
            self._memory = bytearray(nbytes)  # a new one: there may be views of the old one
        self._file.seek(offset)
        self._n_read = 0
        while self._n_read < nbytes:
            got = self._file.readinto(memoryview(self._memory)[self._n_read : nbytes])
            if not got:
                break
            self._n_read += got

    def holds(self, offset: int, nbytes: int) -> bool:
        """Whether the next calls leave these bytes where they are."""
        start, end = self._held
        return start <= offset <= offset + nbytes <= end

    def close(self) -> None:
        self._file.close()


@contextmanager
def all_readable(path: Path) -> Generator[None]:
    """Refuse to change a file of which the disk does not give all: another try, or another program, may get more.

    Raises:
        FileError: Something in the body met such a place.
    """
    try:
        yield
    except FormatError as error:
        if error.rule != UNREADABLE:
            raise
        raise FileError(
            f"{error}. Nothing was changed: try again, or have every block that can be read written to another file: "
            f"`hsq recover {path} -o OUT`",
            path=str(path),
        ) from None


@dataclass(slots=True)
class Found:
    """What a look at all blocks found.

    ``heads`` are the frames of the whole blocks that stand in a row from block 0 on; ``behind`` are the numbers of
    whole blocks behind the first that is not. ``broken`` says what is wrong with those before the last whole one, and
    with the one right behind it if there was any; ``unreadable`` is the first of them of which the disk does not give
    all. ``torn`` is the number of a block whose frame has to be put in its place again.
    """

    heads: list[bytes] = field(default_factory=list[bytes])
    behind: list[int] = field(default_factory=list[int])
    broken: list[FormatError] = field(default_factory=list[FormatError])
    unreadable: FormatError | None = None
    n_records: int = 0
    torn: int | None = None


class Remains:
    """A file without an end. Everything is checked before it is believed.

    Args:
        path: The file.

    Raises:
        FormatError: It has no sound header, so that nothing is known of it.
        FileError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bytes = _Bytes(path)
        self._read = guarded(self._bytes, str(path))
        try:
            self.header = self._parse_header()
        except BaseException:
            self._bytes.close()
            raise
        self.nbytes = self._bytes.nbytes
        self.walk = BlockWalk(self._bytes, self.nbytes, self.header, str(path))

    def _parse_header(self) -> Header:
        page = bytes(self._read(0, HEADER_PAGE_NBYTES))
        self.header_data = bytes(self._read(0, header_nbytes(page, str(self.path))))
        return parse_header(self.header_data, str(self.path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._bytes.close()

    # --- looking -----------------------------------------------------------------------------------------------------

    def look(self, step: Callable[[int], object]) -> Found:
        """Check every block there could be; ``step`` is told how many bytes that were."""
        found = Found()
        for number, whole in self.blocks(step):
            if isinstance(whole, FormatError):
                found.broken.append(whole)
                if whole.rule == UNREADABLE:
                    found.unreadable = found.unreadable or whole
                continue
            frame, head, torn = whole
            if found.broken:
                found.behind.append(number)
            else:
                found.heads.append(head)
                found.n_records += frame.n_records
                found.torn = number if torn else None
        return found

    def blocks(
        self, step: Callable[[int], object], *, hold: bool = False
    ) -> Iterator[tuple[int, tuple[Frame, bytes, bool] | FormatError]]:
        """Every block there could be, with its frame, or what is wrong with it.

        Of blocks that are not whole, those behind the last whole one are left out, since nobody knows how many there
        should be; but for one right behind it that was begun, and for those that the disk does not give.

        Args:
            step: Told how many bytes were checked.
            hold: Have a block in memory while it is handed over, for :meth:`rows`.
        """
        first: Frame | None = None
        broken: list[tuple[int, FormatError]] = []
        end, number = self.header.nbytes, 0
        while number < self.walk.n_places:
            place, following = self.walk.place(number), number + 1
            if hold and self.header.stride <= _HELD_NBYTES:
                self._bytes.hold(place, min(self.header.stride, self.nbytes - place))
                self._bytes.will_need(place + self.header.stride, self.header.stride)
            try:
                frame, head, torn = self._whole(number, first)
            except FormatError as error:
                if len(broken) < _MAX_BROKEN:
                    broken.append((number, error.with_traceback(None)))  # whose frames would keep what they had read
                following = self._behind_hole(following)
            else:
                first, end = first or frame, frame.offset + frame.nbytes
                yield from broken
                broken.clear()
                yield number, (frame, head, torn)
                if frame.n_records < self.header.block_records:
                    return  # no block comes behind a short one
            step(min((following - number) * self.header.stride, self.nbytes - place))
            number = following
        # Something else may stand there: the index, or what an earlier file left.
        for at, (number, error) in enumerate(broken):
            if error.rule == UNREADABLE or (at == 0 and self.walk.is_begun(number, end)):
                yield number, error

    def _behind_hole(self, number: int) -> int:
        """A block, or the first behind the hole of a sparse file in which it would begin: of those may be billions."""
        data = self._bytes.next_data(self.walk.place(number))
        n_passed = -(-(data - self.header.nbytes) // self.header.stride)
        return max(number, n_passed - 1)  # the copy of a frame stands where the next block begins

    def _whole(self, number: int, first: Frame | None) -> tuple[Frame, bytes, bool]:
        """The frame of a block all of whose runs are sound, its bytes, and whether only its copy is."""
        try:
            frame, head = self.walk.frame(number, first)
            torn = False
        except FormatError as error:
            try:
                # A writer that makes a short block longer keeps its old frame where the next one will begin.
                frame, head = self.walk.frame(number, first, at=self.walk.place(number + 1))
            except FormatError:
                raise error from None
            torn = True
        for run in self.walk.runs(frame):
            if (problem := self.walk.problem(frame, run)) is not None:
                raise problem
        return frame, head, torn

    def frame(self, head: bytes) -> Frame:
        """A frame of this file from its bytes."""
        sizes = [column.field.nbytes for column in self.header.schema.columns]
        return parse_frame(head, str(self.path), self.header.file_id, sizes)

    def ending(self, heads: list[bytes]) -> Ending:
        """What stands behind the blocks with these frames, the first of the file."""
        ending = Ending(self.header)
        for head in heads:
            ending.add(self.frame(head), head)
        return ending

    # --- taking ------------------------------------------------------------------------------------------------------

    def rows(self, frame: Frame) -> Iterator[list[Array]]:
        """The records of a block, some at a time: an array for each column, only there until the next are asked for.

        Raises:
            ChecksumError: What is read now is not what was checked: the disk gives something else each time.
            FileChangedError: Somebody cut the file meanwhile.
        """
        columns = self.header.schema.columns
        held = self._bytes.holds(frame.offset, frame.nbytes)
        record_nbytes = self.header.schema.record_nbytes
        step = max(1, _ROWS_NBYTES // record_nbytes if record_nbytes else frame.n_records)
        checks = [RunCheck(chunk) for chunk in frame.chunks]
        for start in range(0, frame.n_records, step):
            n_rows = min(step, frame.n_records - start)
            arrays: list[Array] = []
            for column, chunk, check in zip(columns, frame.chunks, checks, strict=True):
                shape, dtype, nbytes = (n_rows, *column.field.shape), column.field.dtype, column.field.nbytes
                if not nbytes:
                    arrays.append(np.ndarray(shape, dtype))
                    continue
                data = self._read(frame.offset + chunk.offset + start * nbytes, n_rows * nbytes)
                if len(data) < n_rows * nbytes:
                    text = f"shrank while block {frame.number} was being taken out of it"
                    raise FileChangedError(f"{self.path}: {text}; who does that?", path=str(self.path))
                if not held and not check.goes_on(data):
                    text = f"block {frame.number} is another one each time that it is read"
                    raise ChecksumError(f"{self.path}: {text} [rule C1]", rule="C1", block=frame.number)
                array = np.ndarray(shape, dtype, data)
                arrays.append(array if held else array.copy())  # the next column would be read over it
            yield arrays

    def user_meta(self, heads: list[bytes], n_missing: int = 0) -> dict[str, Any]:
        """The user metadata that stand behind the index; empty if they were not written, or are not whole.

        Args:
            heads: The frames of the blocks that were found, the last of which must be the last of the file.
            n_missing: Blocks that were not found before it, whose entries are as long as that of the first.

        Raises:
            FormatError: The disk does not give what stands there.
        """
        stored = self._stored_meta()
        if stored is not None:
            return stored
        if heads:
            last = self.frame(heads[-1])
            offset = align(last.offset + last.nbytes) + sum(map(len, heads)) + n_missing * len(heads[0])
        else:
            offset = self.header.nbytes
        nbytes = max(0, min(self.nbytes - offset, MAX_META_NBYTES + TAIL_READ_NBYTES))
        return find_meta(bytes(self._read(offset, nbytes)), str(self.path))

    def _stored_meta(self) -> dict[str, Any] | None:
        """The user metadata by way of trailer and footer, if those and the index's ends are sound."""
        try:
            parts = open_parts(self._read_bytes, self.nbytes, str(self.path))
            return read_meta(str(self.path), parts.sections.get(SECTION_META), self._read_bytes)
        except FormatError:  # whoever guesses where they stand is told of bad sectors
            return None

    def _read_bytes(self, offset: int, nbytes: int) -> bytes:
        return bytes(self._read(offset, nbytes))

    def dirty_gaps(self, head: bytes) -> list[tuple[int, int]]:
        """Where the last block has something else than zeros between its records: offsets, and how many bytes.

        A writer that was making it longer had written more records into it, which its frame does not know.

        Raises:
            FormatError: The disk does not give what stands there.
        """
        frame, dirty = self.frame(head), list[tuple[int, int]]()
        for start, end in self.walk.gaps(frame, frame.offset + frame.nbytes):
            for at in range(start, end, _AHEAD_NBYTES):
                piece = np.frombuffer(self._read(at, min(_AHEAD_NBYTES, end - at)), np.uint8)
                if piece.any():
                    dirty.append((at, len(piece)))
        return dirty

    def has_end(self) -> bool:
        """Whether the file ends with a trailer that is its own; what stands before it may be damaged all the same.

        Raises:
            FormatError: The disk does not give it.
        """
        nbytes = min(TRAILER_NBYTES, self.nbytes)
        data = bytes(self._read(self.nbytes - nbytes, nbytes))
        try:
            parse_trailer(data, str(self.path), self.nbytes, self.header)
        except FormatError:
            return False
        return True

    def is_complete(self, found: Found) -> bool:
        """Whether nothing is missing: all blocks are whole, and so is everything that stands behind them.

        Raises:
            FormatError: The disk does not give what stands there.
        """
        path, read = str(self.path), self._read_bytes
        try:
            parts = open_parts(read, self.nbytes, path)
            read_meta(path, parts.sections.get(SECTION_META), read)
        except FormatError as error:
            if error.rule == UNREADABLE:
                raise
            return False
        trailer, known = parts.trailer, self.ending(found.heads).known
        index = read(trailer.index_offset, trailer.index_nbytes)
        return (
            not found.broken
            and found.torn is None
            and index == b"".join(found.heads)
            and (trailer.n_blocks, trailer.n_records) == (known.n_blocks, known.n_records)
            and trailer.digest == known.digest.finish(known.n_records)
        )

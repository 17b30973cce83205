"""What is left of a file whose writer was interrupted, or whose end was lost: its whole blocks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
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
    Trailer,
    align,
    claimed_number,
    find_meta,
    guarded,
    header_nbytes,
    open_parts,
    parse_footer,
    parse_frame,
    parse_header,
    parse_trailer,
    read_meta,
)
from ..schema import Array
from .blocks import Ending
from .partbytes import PartBytes
from .scan import Scan, Whole

_ROWS_NBYTES = 8 << 20
_PIECE_NBYTES = 2 << 20


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
    whole blocks behind the first that is not. ``broken`` says what is wrong with the others, ``n_broken`` of them, of
    which some in a row may be told as one; ``unreadable`` is the first of them of which the disk does not give
    all. ``torn`` are the numbers of blocks whose frames have to be put in their places again.
    """

    heads: list[bytes] = field(default_factory=list[bytes])
    behind: list[int] = field(default_factory=list[int])
    broken: list[FormatError] = field(default_factory=list[FormatError])
    n_broken: int = 0
    unreadable: FormatError | None = None
    n_records: int = 0
    torn: list[int] = field(default_factory=list[int])


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
        self._bytes = PartBytes(path)
        self._read = guarded(self._bytes, str(path))
        self.nbytes = self._bytes.nbytes
        try:
            self.header = self._parse_header()
            self.trailer = self._parse_trailer()
        except BaseException:
            self._bytes.close()
            raise
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
                found.n_broken += whole.facts.get("last_block", number) - number + 1
                if whole.rule == UNREADABLE:
                    found.unreadable = found.unreadable or whole
                continue
            frame, head, torn = whole
            if found.broken:
                found.behind.append(number)
            else:
                found.heads.append(head)
                found.n_records += frame.n_records
                found.torn += [number] if torn else []
        return found

    def blocks(self, step: Callable[[int], object], *, hold: bool = False) -> Iterator[tuple[int, Whole | FormatError]]:
        """Every block there could be: see :meth:`Scan.blocks`."""
        return Scan(self._bytes, self.walk, self.header, self.trailer, str(self.path)).blocks(step, hold=hold)

    def frame(self, head: bytes) -> Frame:
        """A frame of this file from its bytes."""
        sizes = [column.field.nbytes for column in self.header.schema.columns]
        return parse_frame(head, str(self.path), self.header.file_id, sizes, claimed_number(head))

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
            FormatError: They are there by what the end of the file says, and damaged; or the disk does not give them.
        """
        if self.trailer is not None:
            return self._stored_meta(self.trailer)
        if heads:
            last = self.frame(heads[-1])
            offset = align(last.offset + last.nbytes) + sum(map(len, heads)) + n_missing * len(heads[0])
        elif n_missing:
            return {}  # nobody knows where they stand
        else:
            offset = self.header.nbytes
        nbytes = max(0, min(self.nbytes - offset, MAX_META_NBYTES + TAIL_READ_NBYTES))
        return find_meta(bytes(self._read(offset, nbytes)), str(self.path))

    def _stored_meta(self, trailer: Trailer) -> dict[str, Any]:
        path, nbytes = str(self.path), min(trailer.footer_nbytes, TAIL_READ_NBYTES)
        sections = parse_footer(self._read_bytes(trailer.footer_offset, nbytes), path, trailer)
        return read_meta(path, sections.get(SECTION_META), self._read_bytes)

    def _read_bytes(self, offset: int, nbytes: int) -> bytes:
        return bytes(self._read(offset, nbytes))

    def dirty_gaps(self, heads: list[bytes]) -> Iterator[tuple[int, int]]:
        """Where blocks have something else than zeros beside their records: offsets, and how many bytes.

        A writer that was making the last one longer had written more records into it, which its frame does not know.

        Args:
            heads: The frames of the blocks, the first of the file.

        Raises:
            FormatError: The disk does not give what stands there.
        """
        for head in heads:
            frame = self.frame(head)
            is_last = frame.number == len(heads) - 1
            end = align(frame.offset + frame.nbytes) if is_last else self.walk.place(frame.number + 1)
            end = min(end, self.nbytes)
            for start, stop in self.walk.gaps(frame, end):
                at = self._bytes.next_data(start)
                while at < stop:
                    piece = np.frombuffer(self._read(at, min(_PIECE_NBYTES, stop - at)), np.uint8)
                    if piece.any():
                        yield at, len(piece)
                    at = self._bytes.next_data(at + len(piece))

    def goes_on_for_long(self, heads: list[bytes]) -> bool:
        """Whether nobody knows what the end of the file is, and it is more than a block that was being written.

        A writer that was killed leaves that one, and a copy of its frame; a file with a byte too many, or too few, all
        that comes behind it.

        Args:
            heads: The frames of the whole blocks, the first of the file.

        Raises:
            FormatError: The disk does not give what stands there.
        """
        if not heads or self.trailer is not None:
            return False
        last, first = self.frame(heads[-1]), self.frame(heads[0])
        end = last.offset + last.nbytes
        if self.walk.has_index(len(heads), align(end), first.frame_nbytes):
            return False
        at = self._bytes.next_data(end + 2 * self.header.stride)
        while at < self.nbytes:
            piece = bytes(self._read(at, _PIECE_NBYTES))
            if piece.strip(b"\0"):
                return True
            at = self._bytes.next_data(at + len(piece))
        return False

    def has_end(self) -> bool:
        """Whether the file ends with a trailer that is its own; what stands before it may be damaged all the same.

        Raises:
            FormatError: The disk does not give it.
        """
        nbytes = min(TRAILER_NBYTES, self.nbytes)
        self._read(self.nbytes - nbytes, nbytes)
        return self.trailer is not None

    def _parse_trailer(self) -> Trailer | None:
        """The trailer, if it is sound."""
        nbytes = min(TRAILER_NBYTES, self.nbytes)
        try:
            data = self._read_bytes(self.nbytes - nbytes, nbytes)
            return parse_trailer(data, str(self.path), self.nbytes, self.header)
        except FormatError:
            return None

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
        return (
            not found.broken
            and (trailer.n_blocks, trailer.n_records) == (known.n_blocks, known.n_records)
            and trailer.digest == known.digest.finish(known.n_records)
            and self._has_index(trailer.index_offset, found.heads)
        )

    def _has_index(self, offset: int, heads: list[bytes]) -> bool:
        """Whether these frames stand there, one behind the other."""
        for head in heads:
            if self._read(offset, len(head)) != head:
                return False
            offset += len(head)
        return True

"""Blocks as they describe themselves: for files whose end is missing, and for looking at every byte of whole ones."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import xxhash

from ..errors import ChecksumError, FileError, FormatError, HyperSequenceError
from .block import (
    FRAME_HEAD_NBYTES,
    MAX_FRAME_NBYTES,
    Chunk,
    Frame,
    begins_footer,
    begins_index,
    check_place,
    check_same_places,
    claimed_nbytes,
    claimed_number,
    frame_content_nbytes,
    parse_frame,
)
from .checks import align, fail
from .header import Header

_FRAME_READ_NBYTES = 16 << 10
#: So much of a place is looked at for traces of a block.
_LOOK_NBYTES = 64 << 20
#: The rule of what the disk does not give.
UNREADABLE = "P5"
#: What systems say of sectors that are lost: the last three with checksums or block devices of their own.
_BAD_SECTOR = {
    errno.EIO,
    errno.EBADMSG,
    *(getattr(errno, name, errno.EIO) for name in ("ENODATA", "EUCLEAN", "EREMOTEIO")),
}
#: Records may be larger than memory, so a run is hashed in pieces.
_PIECE_NBYTES = 1 << 20

#: Gives bytes of a file, fewer only where it ends; they need not outlive the next call.
ReadPiece = Callable[[int, int], "bytes | memoryview"]


def guarded(read: ReadPiece, path: str) -> ReadPiece:
    """The same reads, but bad sectors are an error of rule P5, as of any other damage.

    Raises:
        FileError: Something else is wrong: the disk is gone, the network does not answer.
    """

    def guarded_read(offset: int, nbytes: int) -> bytes | memoryview:
        try:
            return read(offset, nbytes)
        except HyperSequenceError:
            raise
        except OSError as error:
            if error.errno not in _BAD_SECTOR:
                raise FileError(f"{path}: cannot be read at offset {offset}: {error}", path=path) from error
            raise FormatError(
                f"{path}: the disk does not give the {nbytes} bytes at offset {offset}: {error}; restore the file from "
                "a good copy (`hsq verify` has --repair-from) [rule P5]",
                path=path,
                rule="P5",  # which is UNREADABLE
                offset=offset,
            ) from error

    return guarded_read


@dataclass(frozen=True, slots=True)
class Run:
    """A checksum run: where it lies in the file, whose records it holds, and what its XXH3-64 should be."""

    column: int
    offset: int
    nbytes: int
    first_record: int
    n_records: int
    checksum: int


class BlockWalk:
    """The blocks of a file by their own frames, as SPEC.md has it for files whose end is missing.

    Args:
        read: Gives bytes of the file.
        file_nbytes: The file's length.
        header: Its header.
        path: For messages.
    """

    def __init__(self, read: ReadPiece, file_nbytes: int, header: Header, path: str) -> None:
        self._read, self._path = guarded(read, path), path
        self._file_nbytes, self._header = file_nbytes, header
        self._record_nbytes = [column.field.nbytes for column in header.schema.columns]
        self._labels = [column.label for column in header.schema.columns]

    @property
    def n_places(self) -> int:
        """How many blocks could begin before the file ends."""
        return max(0, -(-(self._file_nbytes - self._header.nbytes) // self._header.stride))

    def place(self, number: int) -> int:
        """The offset at which block ``number`` begins."""
        return self._header.nbytes + number * self._header.stride

    def is_begun(self, number: int, end: int, index_nbytes: int) -> bool:
        """Whether a block seems to have been written at its place, whole or not; also where the disk does not tell.

        Args:
            number: The block.
            end: Where the last whole block before it ends.
            index_nbytes: Length of the frame of block 0, which an index begins with; 0 if that is not known.
        """
        start, stride = self.place(number), self._header.stride
        try:
            if claimed_number(self._read(start, FRAME_HEAD_NBYTES)) == number:
                return True
            if number and self.has_index(number, align(end), index_nbytes):
                return False
            if number == 0 and begins_footer(bytes(self._read(start, 32)), self._file_nbytes - start):
                return False  # of a file of no records
            # A frame may be lost, or never have come to the disk, where its records did.
            stop = min(start + stride, self._file_nbytes, start + _LOOK_NBYTES)
            for at in range(start + self._copy_nbytes(number), stop, _PIECE_NBYTES):
                if bytes(self._read(at, min(_PIECE_NBYTES, stop - at))).strip(b"\0"):
                    return True
        except FormatError:
            return True
        return False

    def has_index(self, n_blocks: int, offset: int, entry_nbytes: int) -> bool:
        """Whether an index of so many blocks seems to stand there, cut off or not.

        Its first entry is the frame of block 0; what comes next tells it from that block itself in a wrong place.

        Args:
            n_blocks: Blocks, one at least.
            offset: Where the index would begin.
            entry_nbytes: Length of the frame of block 0.

        Raises:
            FormatError: The disk does not give what stands there.
        """
        if not begins_index(bytes(self._read(offset, FRAME_HEAD_NBYTES)), self._header.file_id):
            return False
        offset += entry_nbytes
        following = bytes(self._read(offset, FRAME_HEAD_NBYTES))
        if n_blocks > 1:
            return len(following) < FRAME_HEAD_NBYTES or claimed_number(following) == 1
        return begins_footer(following[:32], max(0, self._file_nbytes - offset))

    def _copy_nbytes(self, number: int) -> int:
        """How long the frame is at a block's place that is the old one of the block before, if there is one.

        A writer that makes a short block longer keeps it there; killed, it may not have come to cut it off.
        """
        try:
            return self.frame(number - 1, at=self.place(number))[0].frame_nbytes if number else 0
        except FormatError:
            return 0

    def frame(self, number: int, first: Frame | None = None, at: int | None = None) -> tuple[Frame, bytes]:
        """The frame of a block that could be the last, and its bytes.

        Args:
            number: The block.
            first: The frame of block 0, or of another whole block, beside which columns must lie in the same places.
            at: Where the frame stands, if that is not the block's own place.

        Raises:
            FormatError: A rule of frames is broken, or the block lies partly behind the end of the file.
        """
        header, path, place = self._header, self._path, self.place(number)
        at = place if at is None else at
        try:
            data = self._frame_bytes(at, self._longest_frame(number, first))
        except FormatError as error:
            raise placed(error, path, f"block {number}", block=number, offset=error.offset) from None
        frame = parse_frame(data, path, header.file_id, self._record_nbytes, number)
        n_records = min(max(1, frame.n_records), header.block_records)
        check_place(frame, path, (number, place, number * header.block_records, n_records))
        if first is not None:
            check_same_places(frame, path, first)
            if n_records == first.n_records and (frame.frame_nbytes, frame.nbytes) != (
                first.frame_nbytes,
                first.nbytes,
            ):
                fail(path, "I1", f"block {number} and its frame are not as long as those of other full blocks")
        if place + frame.nbytes > self._file_nbytes:
            fail(path, "I4", f"block {number} ends at {place + frame.nbytes}, behind the end of the file")
        if n_records == header.block_records and frame.nbytes > header.stride:
            fail(path, "I4", f"block {number} of {frame.nbytes} bytes is longer than the stride of {header.stride}")
        return frame, data[: frame.frame_nbytes]

    def _longest_frame(self, number: int, first: Frame | None) -> int:
        """How long a frame can be. No more than that is read at each place, however much is claimed there."""
        if first is not None:
            return first.frame_nbytes
        return min(MAX_FRAME_NBYTES, self._header.stride) if number else MAX_FRAME_NBYTES

    def _frame_bytes(self, at: int, longest: int) -> bytes:
        """Those of a frame, as long as it says that it is, and perhaps some behind it."""
        at = min(at, self._file_nbytes)
        left = self._file_nbytes - at
        try:
            data = bytes(self._read(at, min(_FRAME_READ_NBYTES, self._header.stride, left)))
        except FormatError:  # perhaps of what stands behind it
            data = bytes(self._read(at, min(FRAME_HEAD_NBYTES, left)))
        if len(data) < (claimed := min(claimed_nbytes(data), longest, left)):
            data = bytes(self._read(at, claimed))
        return data

    def runs(self, frame: Frame) -> Iterator[Run]:
        """The checksum runs of a block, in the order of the file."""
        for column in sorted(range(len(frame.chunks)), key=lambda column: frame.chunks[column].offset):
            chunk, record_nbytes = frame.chunks[column], self._record_nbytes[column]
            for number in range(len(chunk.checksums) // 8):
                start = number * chunk.run_nbytes
                nbytes = min(chunk.run_nbytes, chunk.nbytes - start)
                yield Run(
                    column,
                    frame.offset + chunk.offset + start,
                    nbytes,
                    frame.first_record + start // record_nbytes,
                    nbytes // record_nbytes,
                    int.from_bytes(chunk.checksums[8 * number : 8 * number + 8], "little"),
                )

    def gaps(self, frame: Frame, end: int) -> Iterator[tuple[int, int]]:
        """Bytes that nothing is stored in, from the beginning of a block to ``end``: offsets, and ends."""
        n_runs = sum(len(chunk.checksums) // 8 for chunk in frame.chunks)
        at = frame.offset + frame_content_nbytes(len(frame.chunks), n_runs)
        yield at, frame.offset + frame.frame_nbytes - 4  # its CRC
        at = frame.offset + frame.frame_nbytes
        for chunk in sorted(frame.chunks, key=lambda chunk: chunk.offset):
            if chunk.nbytes:
                yield at, frame.offset + chunk.offset
                at = frame.offset + chunk.offset + chunk.nbytes
        yield at, end

    def problem(self, frame: Frame, run: Run) -> FormatError | None:
        """What is wrong with the records of a run, if anything is."""
        label = self._labels[run.column]
        try:
            found = self._checksum(run)
        except FormatError as error:
            where, facts = _place(frame.number, run, label)
            return placed(error, self._path, where, **facts)
        if found == run.checksum:
            return None
        return checksum_error(self._path, frame.number, run, label, found)

    def _checksum(self, run: Run) -> int:
        if run.nbytes <= _PIECE_NBYTES:
            # In one call, although it holds the interpreter's lock: for the 30 µs that it takes, other threads read.
            # Giving the lock away and waiting to get it back takes as long.
            return xxhash.xxh3_64_intdigest(self._read(run.offset, run.nbytes))
        hasher = xxhash.xxh3_64()
        for start in range(0, run.nbytes, _PIECE_NBYTES):
            hasher.update(self._read(run.offset + start, min(_PIECE_NBYTES, run.nbytes - start)))
        return hasher.intdigest()


class RunCheck:
    """Holds bytes of a chunk that are read from its beginning to its end against its checksums.

    Args:
        chunk: Which.
    """

    def __init__(self, chunk: Chunk) -> None:
        self._chunk, self._at, self._hasher = chunk, 0, xxhash.xxh3_64()

    def goes_on(self, data: bytes | memoryview) -> bool:
        """Whether the next bytes are what was written, as far as whole runs tell."""
        chunk, rest = self._chunk, memoryview(data)
        while len(rest):
            number = self._at // chunk.run_nbytes
            end = min(chunk.run_nbytes * (number + 1), chunk.nbytes)
            taken = rest[: end - self._at]
            self._hasher.update(taken)
            self._at, rest = self._at + len(taken), rest[len(taken) :]
            if self._at == end:
                if self._hasher.intdigest() != int.from_bytes(chunk.checksums[8 * number : 8 * number + 8], "little"):
                    return False
                self._hasher.reset()
        return True


def placed(error: FormatError, path: str, where: str, **facts: Any) -> FormatError:
    """The same error, with the place where it was met."""
    why = str(error).removeprefix(f"{path}: ")
    return FormatError(f"{path}: {where}: {why}", path=path, rule=error.rule, **facts)


def checksum_error(path: str, block: int, run: Run, label: str, found: int) -> ChecksumError:
    """The error of rule C1."""
    where, facts = _place(block, run, label)
    return ChecksumError(
        f"{path}: {where}: the {run.nbytes} bytes at offset {run.offset} changed after they were written (XXH3 is "
        f"{found:016x} instead of {run.checksum:016x}); restore the file from a good copy (`hsq verify` has "
        "--repair-from) [rule C1]",
        path=path,
        rule="C1",
        **facts,
    )


def _place(block: int, run: Run, label: str) -> tuple[str, dict[str, Any]]:
    """Where a run stands, in words and as facts."""
    facts = {
        "block": block,
        "first_record": run.first_record,
        "last_record": run.first_record + run.n_records - 1,
        "field": label,
        "offset": run.offset,
    }
    return f"block {block}, records {facts['first_record']} to {facts['last_record']}, field {label}", facts

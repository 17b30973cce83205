"""Whether a file is what was written: every byte of it is looked at."""

from __future__ import annotations

import html
import os
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from ..errors import ArgumentError, FormatError, UnsupportedError
from ..layout import (
    MAGIC,
    SECTION_META,
    UNREADABLE,
    BlockWalk,
    ContentDigest,
    Frame,
    Parts,
    guarded,
    header_padding,
    open_parts,
    placed,
    read_meta,
)
from ..legacy import describe_legacy_file, looks_legacy
from ..loader.threads import Task, Threads
from ..progress import ByteProgress
from ..source.handle import FileHandle
from ..stored import Read

#: A file of which more than this is wrong is not looked at to its end.
MAX_PROBLEMS = 1000
_BLOCKS_AHEAD = 4
#: So many blocks are looked at before one that takes long; then everybody waits for that.
_MOST_WAITING = 64
_PIECE_NBYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at every byte of a file found.

    Args:
        path: The file.
        n_records: Its records; 0 if that is not known.
        n_blocks: Its blocks; 0 if that is not known.
        n_bytes: Its length.
        has_checksums: Whether its records could be checked. Files of hypersequence 0.10 and before have no checksums.
        problems: What is wrong, in the order of the file. Each is the error that a reader would raise, and has its
            facts as attributes: ``rule``; and where they are known ``block``, ``first_record``, ``last_record``,
            ``field`` and ``offset``. Where the metadata are damaged there is one, and records were not looked at;
            after 1,000 nobody looks for more.
    """

    path: str
    n_records: int
    n_blocks: int
    n_bytes: int
    has_checksums: bool
    problems: tuple[FormatError, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        blocks = "1 block" if self.n_blocks == 1 else f"{self.n_blocks:,} blocks"
        what = f"{self.n_records:,} records in {blocks}, " if self.ok or self.n_blocks else ""
        about = f"{self.path}: {what}{self.n_bytes:,} bytes: "
        if self.ok:
            return about + ("all as written" if self.has_checksums else "readable, but without checksums to compare")
        n = len(self.problems)
        return "\n".join([f"{about}{n} {'problem' if n == 1 else 'problems'}", *map(str, self.problems)])

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def verify(path: str | os.PathLike[str], *, threads: int | None = None, progress: bool = False) -> Verification:
    """Look at every byte of a file: structure, every checksum, that the rest is zero, and that nothing is left over.

    Args:
        path: The file, of any version.
        threads: Threads that read and check beside the calling one; ``None`` for one, or two where there are four
            processors and more.
        progress: Show a progress bar on a terminal.

    Returns:
        What is wrong, if anything is; ``.ok`` says whether it is.

    Raises:
        ArgumentError: ``threads`` is no whole number from 0 on.
        FileError: The file cannot be read, or shrank meanwhile. What is wrong with its content is not raised.
        OSError: There is no such file, or it must not be opened.
        UnsupportedError: It is of a version, or needs features, that this release does not know.

    Thread-safe: it only reads.

    >>> found = verify(example_path)
    >>> found.ok, found.n_records
    (True, 100)
    """
    if threads is not None and threads < 0:
        raise ArgumentError(f"threads is 0 or more, not {threads}")
    handle = FileHandle(str(Path(path).absolute()))
    read, old = _guarded(handle), False
    try:
        try:
            old = read(0, len(MAGIC)) != MAGIC and looks_legacy(read, handle.nbytes)
            if old:
                found = describe_legacy_file(read, handle.nbytes, handle.path)
                return Verification(handle.path, found.n_records, found.n_blocks, handle.nbytes, False, ())
            parts = open_parts(read, handle.nbytes, handle.path)
        except UnsupportedError:
            raise
        except FormatError as error:
            return Verification(handle.path, 0, 0, handle.nbytes, not old, (_without_traceback(error),))
        n_threads = (2 if (os.cpu_count() or 1) >= 4 else 1) if threads is None else threads
        with ByteProgress(f"verifying {Path(handle.path).name}", handle.nbytes, progress) as bar:
            problems = islice(_Look(handle, parts, bar).problems(n_threads), MAX_PROBLEMS)
            problems = tuple(map(_without_traceback, problems))
        trailer = parts.trailer
        return Verification(handle.path, trailer.n_records, trailer.n_blocks, handle.nbytes, True, problems)
    finally:
        handle.close()


def _without_traceback(error: FormatError) -> FormatError:
    """The same; its traceback would keep the file open, and what was read of it."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _guarded(handle: FileHandle) -> Read:
    read = guarded(handle.read, handle.path)
    return lambda offset, nbytes: bytes(read(offset, nbytes))


class _Look:
    """A file whose metadata are sound enough to find everything."""

    def __init__(self, handle: FileHandle, parts: Parts, bar: ByteProgress) -> None:
        self._handle, self._parts, self._bar = handle, parts, bar
        self._all_known = True
        self._own = threading.local()
        self._has_bad_sectors = False
        self._read = guarded(self._piece, handle.path)
        self._read_meta = _guarded(handle)
        self._walk = BlockWalk(self._piece, handle.nbytes, parts.header, handle.path)
        self._digest = ContentDigest(parts.header.schema_json)

    def _piece(self, offset: int, nbytes: int) -> memoryview:
        """Some bytes, in memory that is this thread's own and used again.

        Not in a mapping, although that would spare a copy: touching a page that the disk does not give would end the
        process.
        """
        own, handle = self._own, self._handle
        if not hasattr(own, "memory"):
            own.memory, own.start, own.end = memoryview(bytearray(_PIECE_NBYTES)), 0, 0
        memory: memoryview = own.memory if nbytes <= _PIECE_NBYTES else memoryview(bytearray(nbytes))
        if own.start <= offset and offset + nbytes <= own.end:
            return memory[offset - own.start : offset - own.start + nbytes]
        own.start = own.end = 0
        # What comes next is read in the same call: a call for each checksum's 256 KiB takes a tenth longer.
        more = min(_PIECE_NBYTES, handle.nbytes - offset)
        if nbytes < more and not self._has_bad_sectors:
            try:
                handle.read_into(memory[:more], offset)
                own.start, own.end = offset, offset + more
                return memory[:nbytes]
            except OSError:  # of a sector that nobody has asked for yet; a disk takes seconds for each such try
                self._has_bad_sectors = True
        handle.read_into(memory[:nbytes], offset)
        return memory[:nbytes]

    def problems(self, n_threads: int) -> Iterator[FormatError]:
        """What is wrong, in the order of the file."""
        header = self._parts.header
        padding = header_padding(self._read_meta(0, header.nbytes))
        if any(padding):
            yield self._problem("P1", f"{len(padding)} bytes of padding in the header are not all 0", offset=88)
        threads = Threads(n_threads, "hsq verify")
        looks: deque[tuple[Task | None, list[FormatError]]] = deque()
        try:
            for number in range(self._parts.trailer.n_blocks):
                looks.append(self._begin(number))
                task = looks[-1][0]
                if task is not None and n_threads:
                    threads.give(task)
                left = [each for each, _ in looks if each is not None and not each.begun]
                if len(left) > _BLOCKS_AHEAD * n_threads:
                    left[-1].run()  # the threads come to the earlier ones
                while looks and (looks[0][0] is None or looks[0][0].done or len(looks) > _MOST_WAITING):
                    yield from _taken(*looks.popleft())
            while looks:
                yield from _taken(*looks.popleft())
        finally:
            for task, _ in looks:
                if task is not None:
                    task.cancel()
            threads.close()
        yield from self._end()

    def _begin(self, number: int) -> tuple[Task | None, list[FormatError]]:
        """What is to be done with a block, by some thread."""
        parts = self._parts
        try:
            frame, head = parts.index.entry(self._read_meta, number, parts.first if number else None)
        except FormatError as error:
            self._all_known = False
            if error.rule != UNREADABLE:
                return None, [error]
            where = f"index entry of block {number}"
            return None, [placed(error, self._handle.path, where, block=number, offset=error.offset)]
        self._digest.add(frame)
        self._handle.ensure_whole()
        found: list[FormatError] = []
        return Task(partial(self._look_at, frame, head, found)), found

    def _look_at(self, frame: Frame, head: bytes, found: list[FormatError]) -> None:
        """Everything of a block; in any thread."""
        last = frame.number == self._parts.trailer.n_blocks - 1
        end = self._parts.trailer.index_offset if last else self._walk.place(frame.number + 1)
        gaps = (self._gap_problems(frame, *gap) for gap in self._walk.gaps(frame, end))
        for look in (self._frame_problems(frame, head), self._run_problems(frame), *gaps):
            try:
                found += islice(look, MAX_PROBLEMS)
            except FormatError as error:  # the disk does not give it
                where, offset = f"block {frame.number}", error.offset
                found.append(placed(error, self._handle.path, where, block=frame.number, offset=offset))
        self._bar.advance(end - frame.offset)

    def _frame_problems(self, frame: Frame, head: bytes) -> Iterator[FormatError]:
        if self._read(frame.offset, len(head)) != head:
            text = f"block {frame.number}: its own frame at offset {frame.offset} is not the one of the index"
            yield self._problem("P2", text, block=frame.number, offset=frame.offset)

    def _run_problems(self, frame: Frame) -> Iterator[FormatError]:
        for run in self._walk.runs(frame):
            if (problem := self._walk.problem(frame, run)) is not None:
                yield problem

    def _gap_problems(self, frame: Frame, start: int, stop: int) -> Iterator[FormatError]:
        if any(np.frombuffer(piece, np.uint8).any() for piece in self._pieces(start, stop)):
            text = f"block {frame.number}: the {stop - start} bytes of padding at offset {start} are not all 0"
            yield self._problem("P1", text, block=frame.number, offset=start)

    def _end(self) -> Iterator[FormatError]:
        """What stands behind the blocks, as far as it was not looked at to find them."""
        parts, path = self._parts, self._handle.path
        if self._all_known and self._digest.finish(parts.trailer.n_records) != parts.trailer.digest:
            yield self._problem("P3", "the content digest is not that of the checksums in the index")
        for tag, section in parts.sections.items():
            try:
                crc = 0
                for piece in self._pieces(section.offset, section.offset + section.nbytes):
                    crc = zlib.crc32(piece, crc)
                if crc != section.crc:
                    text = f"the footer section {tag!r} at offset {section.offset} is damaged (CRC-32 differs)"
                    yield self._problem("P4", text, offset=section.offset)
                elif tag == SECTION_META:
                    read_meta(path, section, self._read_meta)
            except FormatError as error:
                yield error

    def _pieces(self, start: int, stop: int) -> Iterator[bytes | memoryview]:
        """The bytes from one offset to another, some at a time."""
        for at in range(start, stop, _PIECE_NBYTES):
            yield self._read(at, min(_PIECE_NBYTES, stop - at))

    def _problem(self, rule: str, text: str, **facts: int) -> FormatError:
        path = self._handle.path
        return FormatError(f"{path}: {text} [rule {rule}]", path=path, rule=rule, **facts)


def _taken(task: Task | None, found: list[FormatError]) -> list[FormatError]:
    if task is not None:
        task.wait()
    return found

"""Which blocks of a file are whole, and what is wrong with the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from ..errors import FormatError
from ..layout import UNREADABLE, BlockWalk, Frame, Header, Trailer, placed
from .partbytes import PartBytes

#: A block of so many bytes is kept in memory while its records are taken out.
_HELD_NBYTES = 64 << 20
#: More broken blocks than this in a row are not told one by one.
_MAX_BROKEN = 10_000

#: The frame of a block all of whose runs are sound, its bytes, and whether only its copy is there.
Whole: TypeAlias = tuple[Frame, bytes, bool]


class _Broken(NamedTuple):
    """Blocks in a row that are not whole, and what is wrong with the first of them."""

    first: int
    last: int
    error: FormatError


class Scan:
    """A look at all blocks of a file in turn.

    Args:
        bytes_: Its bytes.
        walk: Its blocks.
        header: Its header.
        trailer: Its trailer, if that is sound.
        path: For messages.
    """

    def __init__(self, bytes_: PartBytes, walk: BlockWalk, header: Header, trailer: Trailer | None, path: str) -> None:
        self._bytes, self._walk, self._header, self._trailer, self._path = bytes_, walk, header, trailer, path

    def blocks(self, step: Callable[[int], object], *, hold: bool = False) -> Iterator[tuple[int, Whole | FormatError]]:
        """Every block there could be, with its frame, or what is wrong with it; of some in a row, with all of them.

        How many blocks there should be tells a trailer, if it is sound. Without one, of blocks that are not whole those
        behind the last whole one are left out; but for one right behind it that was begun, and for those that the
        disk does not give.

        Args:
            step: Told how many bytes were checked.
            hold: Have a block in memory while it is handed over, for :meth:`Remains.rows`.
        """
        trailer = self._trailer
        n_places = self._walk.n_places if trailer is None else trailer.n_blocks
        first = short = None
        broken: list[_Broken] = []
        end, number = self._header.nbytes, 0
        while number < n_places:
            place, following = self._walk.place(number), number + 1
            if hold and self._header.stride <= _HELD_NBYTES:
                self._bytes.hold(place, min(self._header.stride, self._bytes.nbytes - place))
                self._bytes.will_need(place + self._header.stride, self._header.stride)
            try:
                frame, head, torn = self._whole(number, first)
            except FormatError as error:
                _note(broken, _Broken(number, number, error.with_traceback(None)))  # it would keep what was read
                following = min(self._behind_hole(following), n_places)
                if following > number + 1:
                    _note(broken, _Broken(number + 1, following - 1, self._nothing_at(number + 1)))
            else:
                if short is not None:  # which no block can come behind
                    yield short.number, self._older(short, self._header.block_records)
                    short = None
                first, end = first or frame, frame.offset + frame.nbytes
                yield from map(self._told, broken)
                broken.clear()
                yield number, (frame, head, torn)
                if trailer is not None:
                    n_records = min(self._header.block_records, trailer.n_records - frame.first_record)
                    if frame.n_records < n_records:
                        yield number, self._older(frame, n_records)
                elif frame.n_records < self._header.block_records:
                    short = frame
            step(min((following - number) * self._header.stride, self._bytes.nbytes - place))
            number = following
        if trailer is not None:
            yield from map(self._told, broken)
        elif short is None:
            yield from self._begun(broken, end, 0 if first is None else first.frame_nbytes)

    def _begun(self, broken: list[_Broken], end: int, index_nbytes: int) -> Iterator[tuple[int, FormatError]]:
        """Those behind the last whole block that somebody began, or that the disk does not give.

        Something else may stand there: the index, or what an earlier file left.
        """
        for at, each in enumerate(broken):
            if each.error.rule == UNREADABLE or (at == 0 and self._walk.is_begun(each.first, end, index_nbytes)):
                yield self._told(each._replace(last=each.first))

    def _told(self, broken: _Broken) -> tuple[int, FormatError]:
        """The number of the first block, and an error that says which they are."""
        number, last, error = broken
        if number != last:
            return number, placed(error, self._path, f"blocks {number} to {last}", block=number, last_block=last)
        return number, type(error)(str(error), **{"block": number, **error.facts})

    def _older(self, frame: Frame, n_records: int) -> FormatError:
        """What is wrong with a whole block that should have more records."""
        text = f"block {frame.number} is an older one, of {frame.n_records} records instead of {n_records}"
        return FormatError(
            f"{self._path}: {text} [rule I2]",
            path=self._path,
            rule="I2",
            block=frame.number,
            first_record=frame.first_record + frame.n_records,
            last_record=frame.first_record + n_records - 1,
        )

    def _nothing_at(self, number: int) -> FormatError:
        text = f"block {number}: no frame where it should be, nothing is there [rule B1]"
        return FormatError(f"{self._path}: {text}", path=self._path, rule="B1")

    def _behind_hole(self, number: int) -> int:
        """A block, or the first behind the hole of a sparse file in which it would begin: of those may be billions."""
        data = self._bytes.next_data(self._walk.place(number))
        n_passed = -(-(data - self._header.nbytes) // self._header.stride)
        return max(number, n_passed - 1)  # the copy of a frame stands where the next block begins

    def _whole(self, number: int, first: Frame | None) -> Whole:
        """The frame of a block all of whose runs are sound, its bytes, and whether only its copy is."""
        try:
            frame, head = self._walk.frame(number, first)
            torn = False
        except FormatError as error:
            try:
                # A writer that makes a short block longer keeps its old frame where the next one will begin.
                frame, head = self._walk.frame(number, first, at=self._walk.place(number + 1))
            except FormatError:
                raise error from None
            torn = True
        for run in self._walk.runs(frame):
            if (problem := self._walk.problem(frame, run)) is not None:
                raise problem
        return frame, head, torn


def _note(broken: list[_Broken], more: _Broken) -> None:
    """Add blocks to those in a row that are not whole; those of which nothing is there are one, however many."""
    nothing_there = bool(broken) and broken[-1].error.rule == more.error.rule == "B1"
    if nothing_there or len(broken) >= _MAX_BROKEN:
        broken[-1] = broken[-1]._replace(last=more.last)
    else:
        broken.append(more)

"""Stretches of an order: positions, and what is read for them at a time."""

# The loader reads sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ..errors import HyperSequenceError
from ..order import merged
from ..schema import Array
from ..sequence import HyperSequence
from ..source import Source
from ..source.readahead import STEP_NBYTES
from .legs import Leg
from .memory import allowed_nbytes
from .sweep import JUMP_NBYTES, Sweep, Sweeps

_MAX_SPARSENESS = 8
#: Records that are worth reading one by one, and a question for each where it lies.
_LARGE_RECORD_NBYTES = 1 << 10
#: Pieces that the disk reads one by one as fast as in a row, and the share of a record that they are to be.
_ALONE_NBYTES = STEP_NBYTES
_ALONE_SHARE = 7 / 8


class Found(NamedTuple):
    """Where the records of some positions lie.

    Args:
        end: Up to which position they are read.
        reach: Up to which position they lie in the runs.
        runs: Runs of records.
        scattered: Whether to leave them to whoever gathers from them, since they are more than is needed by far.
        sweep: What picks the records out of the runs, if those are more than can be in memory together.
    """

    end: int
    reach: int
    runs: Array
    scattered: bool
    sweep: Sweep | None


class Stretch:
    """Positions of an epoch and the runs of records that they need.

    Args:
        epoch: Of which.
        start: First position.
        found: Where the records lie.
        record_nbytes: Bytes of a record.
        steps: Read them, and give how many bytes came; ``None`` if that is left alone.
    """

    def __init__(self, epoch: int, start: int, found: Found, record_nbytes: int, steps: Iterator[int] | None) -> None:
        self.epoch, self.start = epoch, start
        self.end, _, self.runs, self.scattered, self.sweep = found
        self.nbytes = n_records_of(found.runs) * record_nbytes
        self.n_done = 0
        #: Whether it needed no reading.
        self.was_there = self.finished = steps is None
        self._begun = self.finished
        self._steps: Iterator[int] = steps or iter(())

    def goes_on(self, runs: Array) -> bool:
        """Whether runs begin where these end."""
        return bool(len(self.runs) and len(runs) and self.runs[-1, 1] == runs[0, 0])

    def begin(self) -> None:
        """Set the disk to work."""
        if not self._begun:
            self._begun = True
            self.step()

    def step(self) -> None:
        """The next step; an error ends the stretch, and the batch that needs the records meets it again."""
        try:
            self.n_done += next(self._steps)
        except StopIteration:
            self.finished = True
        except (HyperSequenceError, OSError, MemoryError):
            self.finished = True


def find(leg: Leg, start: int, stop: int, alone: bool, sweeps: Sweeps) -> Found:
    """Where the records of these positions lie.

    With ``alone``, those of the records alone, so that who waits for one does not wait for a whole window.

    Of more than can be in memory together, the records are picked out in one pass over it, as many as there is room
    for, or are read one by one, several at a time, which a page fault after the other would not come near. Runs that
    are more than the positions need by far are left to whoever gathers from them, if records are small.
    """
    end, runs = leg.delivery.whole.stretch(start, stop)
    record_nbytes = leg.delivery.source.schema.record_nbytes
    n_records = n_records_of(runs)
    nbytes, most = n_records * record_nbytes, reasonable_nbytes()
    # How much room there is takes half a millisecond to find out, so that is asked of what is large only.
    too_much = nbytes > most or (nbytes > most / 8 and nbytes > sweeps.room_nbytes)
    if too_much and leg.world == 1 and (stop_of_sweep := sweeps.stop(leg, start)) > start:
        reach, all_runs = leg.delivery.whole.stretch(start, stop_of_sweep)
        sweep = sweeps.of(leg, start, min(reach, stop_of_sweep), n_records_of(all_runs))
        if sweep is not None:
            return Found(sweep.stop, reach, all_runs, False, sweep)
    scattered = too_much or n_records > _MAX_SPARSENESS * (end - start)
    if too_much and leg.world > 1 and record_nbytes < JUMP_NBYTES:
        _warn_of_jumps(leg)
    if (record_nbytes >= _LARGE_RECORD_NBYTES) if scattered else (alone and leg.world == 1):
        numbers = np.asarray(leg.delivery.order.span(leg.own(start), leg.own(stop)), np.int64)
        return Found(stop, stop, merged(np.stack((numbers, numbers + 1), axis=1)), False, None)
    return Found(end, end, runs, scattered, None)


def _warn_of_jumps(leg: Leg) -> None:
    """Tell whoever would wait for hours and not know why; Python shows the same warning once."""
    source = leg.delivery.source
    warnings.warn(
        f"{source.files()[0].path}: its records, of {source.schema.record_nbytes:,} bytes, are wanted in an order over "
        "more data than can be read into memory at once, and of a sequence that is sharded each comes by itself, which "
        "takes a disk long: shuffle in windows that fit, as shuffled(seed) does, or give the ranks more memory",
        RuntimeWarning,
        stacklevel=2,
    )


def n_swept(sequence: HyperSequence) -> int | None:
    """For how many records at a time everything is passed over, when an epoch begins; ``None`` if it is not."""
    leg = Leg(sequence, 0, 0)
    found = find(leg, 0, min(leg.step, leg.total), False, Sweeps())
    return None if found.sweep is None else found.end


def n_records_of(runs: Array) -> int:
    """Records of runs together."""
    return int((runs[:, 1] - runs[:, 0]).sum())


def come_alone(source: Source, chosen: Iterable[int]) -> bool:
    """Whether records come one by one, in the order of the batches, unless they are evicted or several ranks read them.

    Who waits for one of several megabytes is not to wait for others of a window; but smaller pieces, and without large
    pages all, come quicker in long runs.
    """
    sizes = [source.schema.columns[number].field.nbytes for number in chosen]
    large = sum(nbytes for nbytes in sizes if nbytes >= _ALONE_NBYTES)
    return 0 < _ALONE_SHARE * sum(sizes) <= large and all(file.has_large_pages for file in source.files())


def step_records(source: Source) -> int:
    """Records that are read ahead at a time: whole blocks."""
    block_nbytes = max(1, source.schema.record_nbytes) * source.block_records
    return source.block_records * max(1, STEP_NBYTES // block_nbytes)


def reasonable_nbytes() -> int:
    """Five eighths of the memory: more cannot be read at once.

    A window of 512 MiB, and a block more, in a container of 1 GiB is less than that.
    """
    return allowed_nbytes() * 5 // 8

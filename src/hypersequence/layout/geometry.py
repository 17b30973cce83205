"""Where records lie inside blocks: one geometry for all full blocks of a file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .block import CHECKSUM_RUN_NBYTES, frame_nbytes
from .checks import align

DEFAULT_BLOCK_NBYTES = 8 << 20
JOIN_LIMIT_NBYTES = 64 << 10
MAX_PADDING_PERCENT = 3


@dataclass(frozen=True, slots=True)
class Geometry:
    """The plan of a block; offsets count from the start of the block."""

    block_records: int
    stride: int
    frame_nbytes: int
    offsets: tuple[int, ...]


def run_records(record_nbytes: int) -> int:
    """Records a checksum run holds: as many whole ones as fit 256 KiB, at least one.

    Whole records, so that reading one record checks exactly one run.
    """
    return max(1, CHECKSUM_RUN_NBYTES // record_nbytes) if record_nbytes else 1


def plan_geometry(record_nbytes: Sequence[int], batch_size: int, block_nbytes: int = DEFAULT_BLOCK_NBYTES) -> Geometry:
    """The geometry of full blocks.

    Args:
        record_nbytes: Bytes of one record, a number a column.
        batch_size: Records of a native batch; a block holds a whole number of batches.
        block_nbytes: Size that blocks should come near to without passing it (one batch is always allowed).
    """
    per_record = max(1, sum(record_nbytes))
    block_records = batch_size * max(1, block_nbytes // (batch_size * per_record))
    return block_geometry(record_nbytes, block_records)


def block_geometry(record_nbytes: Sequence[int], n_records: int) -> Geometry:
    """The geometry of blocks of so many records.

    That of a file's only block, which wastes nothing on records that are not there, and that of all full ones.
    """
    n_runs = sum(-(-n_records // run_records(nbytes)) for nbytes in record_nbytes if nbytes)
    frame = frame_nbytes(len(record_nbytes), n_runs)
    # Small columns first: when the last block is short, only the columns before the largest leave a gap.
    offsets = [0] * len(record_nbytes)
    end = frame
    for column in sorted(range(len(record_nbytes)), key=lambda c: (record_nbytes[c], c)):
        offsets[column] = align(end)
        end = offsets[column] + n_records * record_nbytes[column]
    return Geometry(n_records, _stride(record_nbytes, end), frame, tuple(offsets))


def _stride(record_nbytes: Sequence[int], end: int) -> int:
    """A block stride that the records of small columns divide, as far as that costs little padding.

    Then a column is one contiguous array over the whole file, and a batch of it one ``np.take``.
    """
    unit = 64
    for nbytes in sorted(set(record_nbytes)):
        if 0 < nbytes <= JOIN_LIMIT_NBYTES:
            joined = math.lcm(unit, nbytes)
            if align(end, joined) * 100 <= end * (100 + MAX_PADDING_PERCENT):
                unit = joined
    return align(end, unit)

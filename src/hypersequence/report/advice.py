"""From measured figures to a sentence or two: what the bottleneck is, and which settings to use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..sequence.display import readable_nbytes

#: As good as the limit, for somebody who measures for a second.
_NEAR = 0.8
#: Rates that are no closer than this are different.
_SAME = 0.95
#: Rates that are further apart than this differ by more than noise.
_CLEARLY = 1.25
#: Below this, what every batch costs shows.
_SMALL_BATCH_NBYTES = 128 << 10
_LONG_S = 2.0
#: Somebody who uses less of a processor than this waits for something else.
_BUSY = 0.6
#: Threads that together use more than this share of the time that they have are at work all the time.
_SATURATED = 0.8
#: The processor's cache, and what opening a file costs, show in figures of less than this.
SMALL_NBYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class BenchRow:
    """One order with one number of threads, from memory or from disk: medians over the rounds.

    Attributes:
        place: ``"memory"`` (the page cache) or ``"disk"`` (nothing in the page cache).
        order: ``"in order"``, or what the shuffle is ``by=``: ``"batch"``, ``"window"``, ``"record"``.
        threads: Of the loader.
        nbytes_per_s: Bytes of records handed over in a second.
        records_per_s: Records handed over in a second.
        first_s: Seconds to the first batch, from disk with opening and, for ``"window"``, a whole window.
        limit: What it stands beside: ``"one copy"``, ``"np.take"``, ``"disk"``.
        limit_nbytes_per_s: Bytes a second of that.
        ratio: The median of rate / limit of the same round. Threads may bring it above 1, since the limits of memory
            are those of one thread.
        busy: Processor seconds a second that the process used; 1 is one processor all the time.
    """

    place: str
    order: str
    threads: int
    nbytes_per_s: float
    records_per_s: float
    first_s: float
    limit: str
    limit_nbytes_per_s: float
    ratio: float
    busy: float


def readable_rate(nbytes_per_s: float) -> str:
    """Bytes a second for people, in the units of those who sell disks.

    >>> readable_rate(12.14e9), readable_rate(35.2e6)
    ('12.1 GB/s', '35.2 MB/s')
    """
    return f"{nbytes_per_s / 1e9:.3g} GB/s" if nbytes_per_s >= 1e9 else f"{nbytes_per_s / 1e6:.3g} MB/s"


def readable_seconds(seconds: float) -> str:
    """A time for people.

    >>> readable_seconds(3.21), readable_seconds(0.0123), readable_seconds(85e-6)
    ('3.2 s', '12 ms', '85 µs')
    """
    for limit, factor, digits, unit in ((0.9995, 1, 1, "s"), (0.9995e-3, 1e3, 0, "ms"), (0, 1e6, 0, "µs")):
        if seconds >= limit:
            return f"{seconds * factor:.{digits}f} {unit}"
    return "0 s"


def readable_count(count: float) -> str:
    """A measured number of records for people: three digits of it are true.

    >>> readable_count(1_632_858.2), readable_count(42.4), readable_count(0.421)
    ('1,630,000', '42', '0.42')
    """
    if count < 10:
        return f"{count:.2g}"
    digits = 3 - len(str(int(count)))
    return f"{round(count, min(digits, 0)):,.0f}"


def advise(
    rows: Sequence[BenchRow],
    *,
    n_records: int,
    record_nbytes: int,
    batch_size: int,
    block_nbytes: int,
    default_threads: int,
    n_processors: int,
    window_nbytes: int,
    fits: bool,
) -> str:
    """What the bottleneck is, and which settings to use, in one sentence for memory and one for the disk.

    Args:
        rows: What was measured; for each place at least the order ``"window"``.
        n_records: How many records there are.
        record_nbytes: Bytes of a record.
        batch_size: Records of a batch.
        block_nbytes: Bytes of a block of the file.
        default_threads: What a loader takes if nothing is said.
        n_processors: How many processors there are.
        window_nbytes: Bytes of the windows that were read from disk.
        fits: Whether the data fit into the memory that is free.

    >>> row = BenchRow("disk", "window", 1, 1.16e9, 1930.0, 0.4, "disk", 1.2e9, 0.97, 0.5)
    >>> print(advise([row], n_records=100_000, record_nbytes=602_120, batch_size=32, block_nbytes=6 << 20,
    ...              default_threads=1, n_processors=2, window_nbytes=512 << 20, fits=True))
    From disk: the disk gives 1.2 GB/s and the default shuffle takes 97% of it, 1,930 records/s, with threads=1 (the default): more threads will not help; a faster disk or smaller records (a narrower type) will.
    """  # noqa: E501
    found: list[str] = []
    hot = [row for row in rows if row.place == "memory"]
    cold = [row for row in rows if row.place == "disk"]
    if hot:
        found.append(_from_memory(hot, n_records, record_nbytes, batch_size, default_threads, n_processors))
    if cold and n_records * record_nbytes < SMALL_NBYTES:
        slowest = max(n_records / row.records_per_s for row in _of(cold, "window"))
        found.append(f"From disk: all of it comes in {readable_seconds(slowest)}, once.")
    elif cold:
        batch_nbytes = batch_size * record_nbytes
        found.append(_from_disk(cold, batch_nbytes, block_nbytes, default_threads, n_processors, window_nbytes, fits))
    return " ".join(found)


def recommended(rows: Sequence[BenchRow], default_threads: int) -> BenchRow:
    """Of one order's rows the one with the number of threads to use.

    Threads at work behind a training step are worth more than a rate says, and nobody else reads ahead. So none at all
    is for data in memory only, where asking a thread costs much more than it brings. Of numbers that are as fast as the
    fastest, the default comes first, and then the lowest.
    """
    threaded = [row for row in rows if row.threads]
    if not threaded:
        return rows[0]
    fastest = max(row.nbytes_per_s for row in threaded)
    good = [row for row in threaded if row.nbytes_per_s >= _SAME * fastest]
    best = min(good, key=lambda row: (row.threads != default_threads, row.threads))
    alone = [row for row in rows if not row.threads and row.place == "memory"]
    return alone[0] if alone and alone[0].nbytes_per_s > _CLEARLY * best.nbytes_per_s else best


def _from_memory(
    rows: list[BenchRow], n_records: int, record_nbytes: int, batch_size: int, default_threads: int, n_processors: int
) -> str:
    window = _of(rows, "window")
    row = recommended(window, default_threads)
    if row.threads:
        use = f"a model that uses fewer than {readable_count(row.records_per_s)} records/s need not wait"
    else:
        use = f"a batch costs each step of the training {readable_seconds(batch_size / row.records_per_s)}"
        use += ", and with threads it takes longer" if len(window) > 1 else ""
    share = f"{row.ratio:.0%} of one thread's {row.limit}"
    text = (
        f"From memory, where later epochs find the data, the default shuffle gives {readable_rate(row.nbytes_per_s)} "
        f"with {_threads(row, default_threads)}, {f'near the limit ({share})' if row.ratio >= _NEAR else share}: {use}"
    )
    batch_nbytes = record_nbytes * batch_size
    larger = 1 << (2 * _SMALL_BATCH_NBYTES // record_nbytes - 1).bit_length()
    if row.ratio < _NEAR and batch_nbytes < _SMALL_BATCH_NBYTES and 8 * larger <= n_records:
        text += f"; batches of {readable_nbytes(batch_nbytes)} are small, larger ones (rebatch({larger})) cost less"
    elif row.ratio < _NEAR:
        text += "; the processor sets the pace, not the memory"
        text += _more_threads(window, row, n_processors)
    in_batches = max((each.nbytes_per_s for each in _of(rows, "batch")), default=0.0)
    if in_batches > 1.5 * row.nbytes_per_s:
        text += (
            f"; by='batch' gives {readable_rate(in_batches)}, for records that were in random order when they were "
            "written"
        )
    return text + "."


def _from_disk(
    rows: list[BenchRow],
    batch_nbytes: int,
    block_nbytes: int,
    default_threads: int,
    n_processors: int,
    window_nbytes: int,
    fits: bool,
) -> str:
    window = _of(rows, "window")
    row = recommended(window, default_threads)
    disk, share = readable_rate(row.limit_nbytes_per_s), min(row.ratio, 1.0)
    begin = "From disk" if fits else "From disk, where every epoch begins, since the data do not fit into free memory"
    rate = f"{share:.0%} of it, {readable_count(row.records_per_s)} records/s, with {_threads(row, default_threads)}"
    in_order = max((each.ratio for each in _of(rows, "in order")), default=0.0)
    if share >= _NEAR:
        text = (
            f"{begin}: the disk gives {disk} and the default shuffle takes {rate}: more threads will not help; a "
            "faster disk or smaller records (a narrower type) will"
        )
    elif in_order >= max(_NEAR, _CLEARLY * share) and row.busy < _SATURATED * min(n_processors, row.threads + 1):
        text = (
            f"{begin}: the disk gives {disk} in a row, but the default shuffle, which jumps from block to block, takes "
            f"{rate}, in windows of {readable_nbytes(window_nbytes)}: larger ones (window=) jump less, and so do "
            f"larger blocks, which have {readable_nbytes(block_nbytes)} here (block_nbytes= when writing)"
        )
    elif row.busy < _BUSY:
        text = (
            f"{begin}: the disk could give {disk}, but the default shuffle takes {rate}, with {row.busy:.0%} of a "
            "processor: neither sets the pace; the page cache, which all of it goes through, other programs, or the "
            "way to the disk, such as a network, may"
        )
    else:
        text = (
            f"{begin}: the disk could give {disk}, but the default shuffle takes {rate}: the processor sets the pace, "
            f"which checks and copies{_what_helps(window, row, batch_nbytes, n_processors)}"
        )
    by_record = max((each.nbytes_per_s for each in _of(rows, "record")), default=row.nbytes_per_s)
    if by_record < 0.5 * row.nbytes_per_s:
        text += f"; by='record' gets {by_record / row.limit_nbytes_per_s:.0%} of the disk's rate, so keep to windows"
    if row.first_s > _LONG_S:
        text += f"; the first batch comes after some {readable_seconds(row.first_s)}, sooner with a smaller window="
    return text + "."


def _what_helps(window: list[BenchRow], row: BenchRow, batch_nbytes: int, n_processors: int) -> str:
    if more := _more_threads(window, row, n_processors):
        return more
    if batch_nbytes < _SMALL_BATCH_NBYTES:
        return f", and batches of {readable_nbytes(batch_nbytes)} are small: larger ones cost less"
    tried = "" if row.threads == max(each.threads for each in window) else "more threads will not help, "
    return f"; {tried}smaller records (a narrower type) will"


def _more_threads(window: list[BenchRow], row: BenchRow, n_processors: int) -> str:
    """A hint, where the largest number of threads that was tried is clearly the fastest, and processors are left."""
    most = max(window, key=lambda each: each.threads)
    fewer = [each.nbytes_per_s for each in window if each.threads < most.threads]
    if row is most and fewer and row.nbytes_per_s > 1.1 * max(fewer) and row.threads + 1 < n_processors:
        return f"; more threads than {row.threads} may help"
    return ""


def _of(rows: list[BenchRow], order: str) -> list[BenchRow]:
    return [row for row in rows if row.order == order]


def _threads(row: BenchRow, default_threads: int) -> str:
    return f"threads={row.threads}" + (" (the default)" if row.threads == default_threads else "")

"""Numbers about the values of every field: ranges, means, deviations, labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import ArgumentError
from ..progress import ByteProgress
from ..schema import Column
from ..sequence import HyperSequence
from ..sequence.inside import read_columns, source_of
from ..terminal import safe
from .readable import number_text, plain, scalar_text, short_names
from .summary import MOST_VALUES, Counts, Summary, channel_axis, is_label
from .tables import TextTable, as_html, as_text

_PIECE_NBYTES = 8 << 20
_SMALL_BLOCK_NBYTES = 1 << 20
_BAR = 30
_LONGEST_LABEL = 60


@dataclass(frozen=True, slots=True)
class FieldStats:
    """What the values of one field are like. Numbers are of the finite values, all records and elements together.

    Attributes:
        name: The field's name, or its role.
        column: The field: its role, type and shape.
        n_values: Elements, those of all records together.
        min: The smallest; ``None`` for text, bytes and complex numbers, or if there is none.
        max: The largest.
        mean: The mean; ``None`` for text and times as well.
        std: The standard deviation, divided by the number of values (``ddof=0``), as ``np.std`` has it.
        n_nan: Values that are NaN, or no time (NaT).
        n_inf: Values that are infinite.
        n_zeros: Values that are 0, or ``False``; ``None`` for text and times.
        channel_axis: Which axis of a record has its channels, if a record looks like an image: the last axis of 2 to 4,
            or the first of three.
        channel_means: The mean of each channel; ``None`` of one without a finite value.
        channel_stds: The standard deviation of each channel.
        counts: How many records have which value, in rising order, if a record has one whole number, text or truth
            value, and at most 50 different ones are there; else ``None``.
        more_than_counted: Whether there are more different ones than that.
    """

    name: str
    column: Column
    n_values: int
    min: Any
    max: Any
    mean: Any
    std: float | None
    n_nan: int
    n_inf: int
    n_zeros: int | None
    channel_axis: int | None
    channel_means: tuple[Any, ...] | None
    channel_stds: tuple[float | None, ...] | None
    counts: Counts | None
    more_than_counted: bool

    @property
    def constant(self) -> bool:
        """Whether all values are the same one, so that nothing can be learned from them."""
        if self.counts is not None:
            return len(self.counts) == 1
        if self.n_nan or self.n_inf:
            return False
        return self.std == 0 if isinstance(self.mean, complex) else self.min is not None and bool(self.min == self.max)

    def share(self, count: int | None) -> float | None:
        """A count as a share of all values; ``None`` if there are none."""
        return None if count is None or not self.n_values else count / self.n_values

    def notes(self) -> list[str]:
        """What a person should look at before training."""
        found: list[str] = []
        if self.constant and self.n_values > 1:
            only = next(iter(self.counts)) if self.counts else self.mean if self.min is None else self.min
            found.append(f"every value is {number_text(only) or 'empty'}")
        what = "NaT" if self.column.field.dtype.kind in "mM" else "NaN"
        for count, kind in ((self.n_nan, what), (self.n_inf, "infinite")):
            if count:
                found.append(f"{count:,} of {self.n_values:,} values are {kind} ({count / self.n_values:.2%})")
        return [f"{safe(self.name)}: {note}" for note in found]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON has it."""
        column, channels, counts = self.column, None, None
        if self.channel_axis is not None:
            channels = {"axis": self.channel_axis, "mean": plain(self.channel_means), "std": plain(self.channel_stds)}
        if self.counts is not None:
            counts = [{"value": plain(value), "n_records": n} for value, n in self.counts.items()]
        return {
            "field": self.name,
            "role": column.role,
            "type": column.field.type_name,
            "shape": list(column.field.shape),
            "n_values": self.n_values,
            **{name: plain(getattr(self, name)) for name in ("min", "max", "mean", "std")},
            **{name: getattr(self, name) for name in ("n_nan", "n_inf", "n_zeros")},
            "share_nan": self.share(self.n_nan),
            "share_inf": self.share(self.n_inf),
            "share_zeros": self.share(self.n_zeros),
            "constant": self.constant,
            "channels": channels,
            "counts": counts,
            "more_than_counted": self.more_than_counted,
        }


@dataclass(frozen=True, slots=True)
class Stats:
    """What the values of a sequence's records are like; what :func:`stats` gives.

    ``print`` shows it as tables, a notebook as well; ``stats["image"]`` is one field. Immutable.

    Attributes:
        n_records: Records that were looked at.
        fields: One :class:`FieldStats` a field, in the order of the file.
    """

    n_records: int
    fields: tuple[FieldStats, ...]

    def __getitem__(self, name: str) -> FieldStats:
        """One field, by a name that :meth:`HyperSequence.fields` takes.

        Raises:
            ArgumentError: Not exactly one field is called so.
        """
        found = [field for field in self.fields if field.column.matches(name)]
        if len(found) != 1:
            names = ", ".join(field.name for field in self.fields[:20])
            raise ArgumentError(f"stats: {len(found)} fields are called {name!r}; there are: {names}")
        return found[0]

    def notes(self) -> list[str]:
        """What a person should look at before training."""
        return [note for field in self.fields for note in field.notes()]

    def lines(self) -> list[str]:
        """What stands above the tables."""
        return [f"{self.n_records:,} records", *(f"  {note}" for note in self.notes())]

    def tables(self, bar: str = "█") -> list[TextTable]:
        """All fields, then channels and labels of those that have them; ``bar`` draws how many records a label has."""
        header = ("field", "type", "shape", "min", "max", "mean", "std", "zeros", "different")
        rows = tuple(_row(field) for field in self.fields)
        tables = [TextTable("", header, rows, frozenset(range(3)))]
        channels = [row for field in self.fields for row in _channel_rows(field)]
        if channels:
            tables.append(TextTable("", ("channel", "mean", "std"), tuple(channels), frozenset({0})))
        return tables + [_labels(field, bar) for field in self.fields if field.counts]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON has it; what it does not know, such as NaN, as text."""
        return {"n_records": self.n_records, "fields": [field.as_dict() for field in self.fields]}

    def __str__(self) -> str:
        return as_text(self.lines(), self.tables())

    def _repr_html_(self) -> str:
        return as_html(self.lines(), self.tables())


def _row(field: FieldStats) -> tuple[str, ...]:
    stored, zeros = field.column.field, field.share(field.n_zeros)
    shape = str(stored.shape) if stored.shape else "scalar"
    values = (number_text(value) for value in (field.min, field.max, field.mean, field.std))
    different = (
        f"over {MOST_VALUES}" if field.more_than_counted else "" if field.counts is None else str(len(field.counts))
    )
    return safe(field.name), stored.type_name, shape, *values, "" if zeros is None else f"{zeros:.1%}", different


def _channel_rows(field: FieldStats) -> Iterator[tuple[str, ...]]:
    pairs = zip(field.channel_means or (), field.channel_stds or (), strict=True)
    for number, (mean, std) in enumerate(pairs):
        yield f"{safe(field.name)}, channel {number}", number_text(mean), number_text(std)


def _labels(field: FieldStats, bar: str) -> TextTable:
    counts = field.counts or {}
    total, most = sum(counts.values()), max(counts.values())
    rows = tuple(
        (safe(scalar_text(value), _LONGEST_LABEL), f"{n:,}", f"{n / total:.1%}", bar * max(1, round(n * _BAR / most)))
        for value, n in counts.items()
    )
    header = (safe(field.name), "records", "share", "")
    return TextTable(f"{len(counts)} different values", header, rows, frozenset({0, 3}))


def stats(sequence: HyperSequence, *, progress: bool = False) -> Stats:
    """Smallest, largest, mean and standard deviation of every field, NaN and zeros, and how often each label comes.

    All records are read once, in pieces, and their checksums checked; sums are made in ``float64`` and merged so that
    they lose no digits (values whose sum is beyond ``float64``, some 1e308, have no finite mean). For normalisation,
    image-like fields have a mean and a deviation a channel. Memory does not grow with the data.

    Args:
        sequence: Any sequence; its stored records, whatever ``map`` makes of them. The order changes nothing, but a
            shuffled one is read more slowly.
        progress: Show a progress bar on a terminal. ``False`` (default) is silent.

    Returns:
        A :class:`Stats`; ``print`` it.

    Raises:
        ArgumentError: This is no sequence.
        ChecksumError: A record is damaged.
        HyperSequenceError: As reading raises.

    Thread-safe: it only reads.

    >>> found = stats(example)
    >>> label = found["outputs"]
    >>> label.min, label.max, label.mean, round(label.std, 3)
    (0, 99, 49.5, 28.866)
    """
    if not isinstance(sequence, HyperSequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"stats: expected a sequence, not {type(sequence).__name__}")
    columns = sequence.columns
    summaries = [Summary(column.field) for column in columns]
    nbytes = sum(column.field.nbytes for column in columns)
    with ByteProgress("looking at records", sequence.n_records * nbytes, progress) as bar:
        for start, stop in _pieces(sequence, nbytes):
            for summary, array in zip(summaries, read_columns(sequence, start, stop), strict=True):
                summary.add(array)
            bar.advance((stop - start) * nbytes)
    for column, summary in zip(columns, summaries, strict=True):
        if not column.field.nbytes:
            summary.add_nothing(sequence.n_records)
    names = short_names(columns)
    return Stats(sequence.n_records, tuple(_stats_of(*each) for each in zip(names, columns, summaries, strict=True)))


def _pieces(sequence: HyperSequence, nbytes: int) -> Iterator[tuple[int, int]]:
    """Positions of some megabytes of records at a time, of one block if blocks are not small: those are views."""
    if not nbytes:
        return
    block = source_of(sequence).block_records
    most = max(1, _PIECE_NBYTES // nbytes)
    if block <= most and block * nbytes >= _SMALL_BLOCK_NBYTES:
        most = block
    whole = block if block > most else most
    for first in range(0, sequence.n_records, whole):
        end = min(first + whole, sequence.n_records)
        for start in range(first, end, most):
            yield start, min(start + most, end)


def _stats_of(name: str, column: Column, summary: Summary) -> FieldStats:
    kind, axis = column.field.dtype.kind, channel_axis(column.field)
    moments = summary.overall() if kind not in "SUmM" else None
    mean, std = moments or (None, None)
    low, high = summary.low, summary.high
    channels = summary.channels() if axis is not None and moments else None
    counts = summary.counts
    return FieldStats(
        name=name,
        column=column,
        n_values=summary.n_values,
        min=bool(low) if kind == "b" and low is not None else low,
        max=bool(high) if kind == "b" and high is not None else high,
        mean=mean,
        std=std,
        n_nan=summary.n_nan,
        n_inf=summary.n_infinite,
        n_zeros=None if kind in "SUmM" else summary.n_zeros,
        channel_axis=axis if channels else None,
        channel_means=tuple(channels[0]) if channels else None,
        channel_stds=tuple(channels[1]) if channels else None,
        counts=None if counts is None else {value: counts[value] for value in sorted(counts)},
        more_than_counted=counts is None and is_label(column.field),
    )

"""What is counted of a field's values, piece by piece."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

from ..schema import Array, Field
from .moments import CHUNK, Moments

#: So many different values are counted; of fields with more it is only said that there are more.
MOST_VALUES = 50
_MOST_CHANNELS = 4
_GLANCE = 1024
#: Values of a label, and how many records have each.
Counts: TypeAlias = "dict[Any, int]"


def channel_axis(field: Field) -> int | None:
    """The axis of a record that is its channels, if it looks like an image or a volume of 2 to 4 of them."""
    shape = field.shape
    if len(shape) < 3 or field.dtype.kind not in "biufcV" or not field.nbytes:
        return None
    if 2 <= shape[-1] <= _MOST_CHANNELS:
        return len(shape) - 1
    return 0 if len(shape) == 3 and 2 <= shape[0] <= _MOST_CHANNELS else None


def is_label(field: Field) -> bool:
    """Whether a record has a single value of this field, of a type whose values can be counted."""
    return math.prod(field.shape) == 1 and field.dtype.kind in "biuSU"


class Summary:
    """What is known of the values of a field that were seen.

    Args:
        field: The field.
    """

    def __init__(self, field: Field) -> None:
        self._field = field
        self._axis = channel_axis(field)
        n_channels = 1 if self._axis is None else field.shape[self._axis]
        first = self._axis == 0
        self._parts = 2 if field.dtype.kind == "c" else 1  # a complex number is two streams
        streams = self._parts * (1 if first else n_channels)
        #: Channels that come first are streams of their own; those that come last lie side by side.
        self._moments = [Moments(streams) for _ in range(n_channels if first else 1)]
        self.n_values = self.n_zeros = self.n_nan = self.n_infinite = 0
        self.low: Any = None
        self.high: Any = None
        #: ``None`` where values are not counted, or where there are too many.
        self.counts: Counts | None = {} if is_label(field) else None

    def add_nothing(self, n_records: int) -> None:
        """Count records that have no bytes; a file may have more of them than anybody can look at."""
        field = self._field
        self.n_values = math.prod([n_records, *field.shape])
        if self.counts is not None and n_records:
            self.counts[b"" if field.dtype.kind == "S" else ""] = n_records

    def add(self, array: Array) -> None:
        """Look at the values of some records."""
        if not self._field.nbytes or not array.size:
            return
        self.n_values += array.size
        if self.counts is not None:
            self._count(array.reshape(-1))
        if self._field.dtype.kind in "SU":
            return
        with np.errstate(all="ignore"):
            for moments, values in self._streams(array):
                step = CHUNK // len(moments.n) * len(moments.n) // self._parts
                for start in range(0, len(values), step):
                    self._look_at(values[start : start + step], moments)

    def _streams(self, array: Array) -> Iterator[tuple[Moments, Array]]:
        if self._axis != 0:
            yield self._moments[0], array.reshape(-1)
            return
        channels = array.reshape(len(array), len(self._moments), -1)
        for number, moments in enumerate(self._moments):
            yield moments, channels[:, number].reshape(-1)

    def _look_at(self, values: Array, moments: Moments) -> None:
        kind = values.dtype.kind
        if kind in "mM":
            good = values[~np.isnat(values)]
            self.n_nan += len(values) - len(good)
            if len(good):
                self._widen(good.min(), good.max())
            return
        if kind == "V" or values.dtype == np.float16:
            values = values.astype(np.float32)  # exact, and what NumPy is quick with
        elif kind == "b":
            values = values.view(np.uint8)
        real = values.view(values.real.dtype) if kind == "c" else values
        low, high, kept = real.min(), real.max(), None
        if kind not in "biu" and not (np.isfinite(low) and np.isfinite(high)):  # NaN is both of them, if there is one
            kept = self._leave_out(values)
            good = real[kept]
            low, high = (good.min(), good.max()) if len(good) else (np.float64(1), np.float64(0))
        if low <= 0 <= high:
            n_others = np.count_nonzero(values if kind in "biu" else values != 0)  # NaN is among them
            self.n_zeros += len(values) - int(n_others)
        if kind != "c" and low <= high:
            self._widen(low.item(), high.item())
        moments.add(real, kept)

    def _leave_out(self, values: Array) -> Array:
        """Count what is not finite, and say which numbers are."""
        finite = np.isfinite(values)
        n_nan = int(np.isnan(values).sum())
        self.n_nan += n_nan
        self.n_infinite += int(len(values) - finite.sum()) - n_nan
        return np.repeat(finite, self._parts)

    def _widen(self, low: Any, high: Any) -> None:
        self.low = low if self.low is None or low < self.low else self.low
        self.high = high if self.high is None or high > self.high else self.high

    def _count(self, values: Array) -> None:
        assert self.counts is not None
        if len(values) > 4 * _GLANCE and len(np.unique(values[:_GLANCE])) > MOST_VALUES:
            self.counts = None
            return
        found, n = np.unique(values, return_counts=True)
        for value, count in zip(found[: MOST_VALUES + 1].tolist(), n.tolist(), strict=False):
            self.counts[value] = self.counts.get(value, 0) + count
        if len(self.counts) > MOST_VALUES:
            self.counts = None

    def channels(self) -> tuple[list[Any], list[float | None]] | None:
        """Mean and standard deviation of each channel, if there are several; ``None`` where none is finite."""
        if self._axis is None:
            return None
        found = [self._told(moments) for moments in self._moments]
        return [mean for means, _ in found for mean in means], [std for _, stds in found for std in stds]

    def overall(self) -> tuple[Any, float | None] | None:
        """Mean and standard deviation of all finite values, if there are any."""
        total = Moments(self._parts)
        for moments in self._moments:
            total.merge(moments)
        means, deviations = self._told(total)
        return (means[0], deviations[0]) if total.n[0] else None

    def _told(self, moments: Moments) -> tuple[list[Any], list[float | None]]:
        """Means and deviations; of complex numbers, which are two streams each, together."""
        means, deviations, seen = moments.means, moments.deviations, moments.n[:: self._parts]
        if self._parts == 2:
            means = list(map(complex, means[::2], means[1::2]))
            deviations = list(map(math.hypot, deviations[::2], deviations[1::2]))
        return _where_seen(means, seen), _where_seen(deviations, seen)


def _where_seen(values: list[Any], seen: list[float]) -> list[Any]:
    return [value if n else None for value, n in zip(values, seen, strict=True)]

"""Records as a picture: images as images, series as lines, labels as titles."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, SupportsIndex, cast

import numpy as np

from ..errors import ArgumentError, MissingPackageError
from ..schema import Array, Field
from ..sequence import HyperSequence
from ..sequence.inside import read_columns
from ..sequence.picking import chosen_order
from ..terminal import safe
from .readable import scalar_text, short_names, value_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # for typing.get_type_hints

#: So many records are drawn if nobody says which, and so many if each has several panels; and at most.
_USUAL_RECORDS, _FEW_RECORDS, _MOST_RECORDS = 16, 4, 100
_MOST_PANELS = 8
_COLUMNS = 8
_CHANNELS = (1, 3, 4)
#: A series has up to so many lines, and is so many times as long as wide; other tables of numbers are images.
_MOST_LINES, _LONGER = 16, 2
_SHORT_VECTOR = 8
_MOST_PIXELS, _MOST_POINTS = 512, 2048
_PANEL_INCHES, _TITLE_INCHES = 1.6, 0.25
_LONGEST_TITLE = 28
_LINE, _QUIET = "#1f5fa8", "#6b6b6b"


def picture(sequence: HyperSequence, records: Any = None) -> Figure:
    """A picture of some records.

    Fields of shape ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)``, ``(H, W, 4)`` and ``(3, H, W)`` are images, vectors and
    ``(T, C)`` series (up to 16 lines, at least twice as long as wide) are lines, volumes and films show their middle
    slice, complex numbers their magnitude. Single values, short vectors and the class of one-hot vectors are titles,
    outputs first; if that is all there is, they are text. Grey images of a field share one scale, from the smallest
    value shown to the largest.

    Args:
        sequence: Where the records are; they are shown as stored, whatever ``map`` makes of them.
        records: Which: a position in the sequence, or several, as ``select`` takes them: a slice, a list, a mask.
            ``None`` (default) for the first 16, or 4 if records have several fields to be drawn. At most 100.

    Returns:
        A matplotlib figure, which a notebook shows and ``figure.savefig("records.png")`` saves. It belongs to no
        window, and matplotlib's own state is not touched.

    Raises:
        ArgumentError: This is no sequence, or there are too many records.
        PositionError: There is no such record.
        MissingPackageError: Matplotlib is not installed.
        HyperSequenceError: As reading raises.

    Thread-safe: it only reads.

    >>> figure = picture(example, [3, 1, 2])
    >>> [axes.get_title() for axes in figure.axes]
    ['3: 3', '1: 1', '2: 2']
    """
    if not isinstance(sequence, HyperSequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"picture: expected a sequence, not {type(sequence).__name__}")
    fields = [column.field for column in sequence.columns]
    positions = _positions(records, sequence.n_records)
    rows = [
        [_shown(array[0], field) for array, field in zip(values, fields, strict=True)]
        for values in (read_columns(sequence, position, position + 1) for position in positions)
    ]
    drawn = [number for number in range(len(fields)) if any(_is_drawn(row[number]) for row in rows)][:_MOST_PANELS]
    if records is None and len(drawn) > 1:
        positions, rows = positions[:_FEW_RECORDS], rows[:_FEW_RECORDS]
    names = [safe(name, _LONGEST_TITLE) for name in short_names(sequence.columns)]
    rest = [number for number in range(len(fields)) if number not in drawn]
    rest.sort(key=lambda number: sequence.columns[number].role != "outputs")
    return _figure(positions, rows, drawn, rest, names)


def _positions(records: Any, n: int) -> list[int]:
    """The positions that were asked for, counted from the beginning."""
    if records is None:
        return list(range(min(_USUAL_RECORDS, n)))
    if isinstance(records, SupportsIndex) and np.ndim(cast("Any", records)) == 0:
        records = [operator.index(records)]
    order = chosen_order(records, n)
    if order.n > _MOST_RECORDS:
        raise ArgumentError(f"a picture has up to {_MOST_RECORDS} records, not {order.n:,}; choose fewer")
    return [int(position) for position in order.span(0, order.n)]


# --- what is shown of a value ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Shown:
    """What is shown of a record's value of a field, so that the value itself, which may be large, need not be kept.

    ``numbers`` are ``None`` for a title, ``(H, W)`` or ``(H, W, channels)`` of an image, and ``(T, lines)`` of lines.
    """

    text: str
    numbers: Array | None = None
    is_image: bool = False
    is_class: bool = False


def _shown(value: Any, field: Field) -> _Shown:
    array = np.asarray(value)
    long_axes = [n for n in array.shape if n != 1]
    if field.dtype.kind not in "biufcV" or not array.size or not long_axes:
        return _Shown(_title(array))
    if len(long_axes) == 1 and array.size <= _SHORT_VECTOR and not _is_one_hot(array):
        return _Shown(_title(array))
    numbers, is_image = _reduced(array)
    if is_image:
        height, width = cast("tuple[int, int]", numbers.shape[:2])
        numbers = numbers[:: math.ceil(height / _MOST_PIXELS), :: math.ceil(width / _MOST_PIXELS)]
    numbers = np.array(_real(numbers))
    if not is_image and _is_one_hot(array):
        return _Shown(f"class {int(array.argmax())}", numbers, is_class=True)
    return _Shown("", numbers, is_image)


def _is_drawn(shown: _Shown) -> bool:
    """Whether a field has a panel: all one-hot vectors together are titles, one of them among others is a line."""
    return shown.numbers is not None and not shown.is_class


def _title(array: Array) -> str:
    if array.size == 1:
        return scalar_text(array.reshape(-1)[0])
    return " ".join(value_text(array).split())


def _is_one_hot(array: Array) -> bool:
    if array.ndim != 1 or array.dtype.kind == "c" or array.size < 2:
        return False
    return int((array == 1).sum()) == 1 and int((array == 0).sum()) == array.size - 1


def _reduced(value: Array) -> tuple[Array, bool]:
    """The image in a value, or its lines; and whether it is an image."""
    shape = value.shape
    if value.ndim == 1:
        return value[:, None], False
    if value.ndim == 2:
        short, long = sorted(shape)
        if short > _MOST_LINES or long < _LONGER * short:
            return value, True
        return (value if shape[0] == long else value.T), False
    if value.ndim == 3:
        if shape[-1] == 1 and 1 not in shape[:2]:  # an image of one channel, even if it is as long as a series
            return value[..., 0], True
        if 1 in shape:
            return _reduced(np.squeeze(value, shape.index(1)))
        if shape[-1] in _CHANNELS:
            return value, True
        if shape[0] in _CHANNELS:
            return np.moveaxis(value, 0, -1), True
        if shape[-1] == 2:
            return value[..., 0], True
    if value.ndim == 4 and shape[0] in _CHANNELS and shape[-1] not in _CHANNELS:
        return _reduced(value[:, shape[1] // 2])  # a volume whose channels come first
    return _reduced(value[shape[0] // 2])


def _real(value: Array) -> Array:
    """Numbers that matplotlib can draw."""
    if value.dtype.kind == "c":
        return np.abs(value)
    return value.astype(np.float32) if value.dtype.kind == "V" or value.dtype == np.float16 else value


# --- drawing --------------------------------------------------------------------------------------------------------


def _figure(
    positions: list[int], rows: list[list[_Shown]], drawn: list[int], texts: list[int], names: list[str]
) -> Figure:
    """Panels for the fields that are drawn, the other ones as titles, or as text."""
    n_fields = max(1, len(drawn))
    n_wide = n_fields if n_fields > 1 else min(_COLUMNS, max(1, math.ceil(math.sqrt(len(rows)))))
    panels = _Panels(n_wide, max(1, math.ceil(len(rows) * n_fields / n_wide)))
    scales = {number: _scale([row[number].numbers for row in rows]) for number in drawn}
    for position, row in zip(positions, rows, strict=True):
        title = str(position)
        if drawn and texts:
            title += f": {', '.join(row[number].text for number in texts)}"
        for number in drawn:
            heading = f"{names[number]}\n" if n_fields > 1 and position == positions[0] else ""
            axes = panels.add(heading + _cut(title if number == drawn[0] else ""))
            _draw(axes, row[number], scales[number])
        if not drawn:
            lines = [_cut(f"{names[number]}: {row[number].text}") for number in texts[:10]]
            axes = panels.add(title)
            axes.text(0, 1, "\n".join(lines), va="top", fontsize=7, parse_math=False)
            axes.set_axis_off()
    if not rows:
        axes = panels.add("no records")
        axes.set_axis_off()
    return panels.figure


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TITLE else f"{text[: _LONGEST_TITLE - 3]}..."


class _Panels:
    """A figure that is filled panel by panel.

    Args:
        n_wide: Panels a row.
        n_high: Rows.

    Raises:
        MissingPackageError: Matplotlib is not installed.
    """

    def __init__(self, n_wide: int, n_high: int) -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
        except ImportError as error:
            message = f"a picture needs matplotlib ({error}): pip install 'hypersequence[plot]'"
            raise MissingPackageError(message) from error
        size = max(2.5, n_wide * _PANEL_INCHES), max(1.5, n_high * (_PANEL_INCHES + _TITLE_INCHES))
        self.figure: Any = Figure(figsize=size, dpi=110, layout="constrained", facecolor="white")
        FigureCanvasAgg(self.figure)  # draws without a window, and without pyplot's own list of figures
        self._grid, self._used = (n_high, n_wide), 0

    def add(self, title: str) -> Any:
        """The axes of the next panel."""
        self._used += 1
        axes = self.figure.add_subplot(*self._grid, self._used)
        axes.set_title(title, fontsize=8, color="black", parse_math=False)
        return axes


def _scale(values: Sequence[Array | None]) -> tuple[float, float]:
    """The smallest and the largest finite value of all."""
    low, high = math.inf, -math.inf
    for numbers in values:
        good = numbers[np.isfinite(numbers)] if numbers is not None else np.empty(0)
        if good.size:
            low, high = min(low, float(good.min())), max(high, float(good.max()))
    return (low, high) if low <= high else (0.0, 1.0)


def _draw(axes: Any, shown: _Shown, scale: tuple[float, float]) -> None:
    """One value in its panel."""
    numbers = shown.numbers
    assert numbers is not None
    if not shown.is_image:
        _draw_lines(axes, numbers)
        return
    options: dict[str, Any] = {"cmap": "gray", "vmin": scale[0], "vmax": scale[1]} if numbers.ndim == 2 else {}
    long, short = max(numbers.shape[:2]), min(numbers.shape[:2])
    options["aspect"] = "auto" if long > 4 * short else "equal"
    axes.imshow(_coloured(numbers, scale), interpolation="nearest", **options)
    axes.set_axis_off()


def _coloured(image: Array, scale: tuple[float, float]) -> Array:
    """An image as matplotlib takes it: grey as it is; of colours, bytes as they are and other numbers from 0 to 1."""
    if image.ndim == 2:
        return image.astype(np.float64)  # in which it cannot overflow
    if image.dtype == np.uint8:
        return image
    low, high = scale
    numbers = image.astype(np.float64)
    if low < 0 or high > 1:  # then a fourth channel is no opacity either
        numbers = (numbers[..., :3] - low) / max(high - low, 1e-300)
    return np.nan_to_num(np.clip(numbers, 0, 1))


def _draw_lines(axes: Any, lines: Array) -> None:
    """A line a column; of long ones the smallest and the largest value of each stretch, so that no peak is lost."""
    step = math.ceil(2 * len(lines) / _MOST_POINTS)
    places: Any = np.arange(len(lines))
    if step > 2:
        starts = places[::step]
        ends = [each.reduceat(lines, starts, axis=0) for each in (np.fmin, np.fmax)]  # NaN only where all are
        lines = np.stack(ends, axis=1).reshape(-1, lines.shape[1])
        places = np.repeat(starts, 2)
    axes.plot(places, lines, linewidth=0.8, **({"color": _LINE} if lines.shape[1] == 1 else {}))
    axes.tick_params(labelsize=6, length=2, colors=_QUIET)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_QUIET)

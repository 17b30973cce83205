"""How well an order mixes, in a few numbers that a person can read."""

from __future__ import annotations

import html
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ArgumentError
from ..order import Order
from ..order.base import Positions
from ..sequence import HyperSequence
from ..sequence.inside import order_of, source_of, whole_order_of
from .chance import expected_distance, expected_distinct, expected_neighbours, rank_correlation
from .labels import groups_of_labels, groups_of_places
from .sample import SAMPLE, Batches, Budget, Disk, members, scattered, some, window_records

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:
    Figure = Any  # for typing.get_type_hints

#: Batches of which it is looked up whether the next epoch has others.
_BATCHES_OF_NEXT = 8
#: Points of each scatter of the plot, and how much of the epoch's beginning the second one shows.
_POINTS, _FEW_POINTS = 4096, 128
_FIRST_BATCHES, _FIRST_WINDOWS = 32, 4


@dataclass(frozen=True)
class Scatter:
    """Points of a plot: record numbers against positions."""

    positions: Positions
    places: Positions


@dataclass(frozen=True)
class ShuffleQuality:
    """How well an order mixes; what :func:`shuffle_quality` gives.

    Each number stands beside the one that a full shuffle of the same records is expected to give. ``print`` shows them
    as a table, a notebook as well, and :meth:`plot` as a picture. Immutable.

    Attributes:
        n_records: Records of the sequence.
        n_batches: Batches of the sequence.
        batch_size: Records a batch.
        blocks_per_batch: Blocks of the file that feed a batch, on average. In file order 1 to 2, if a block is larger
            than a batch.
        blocks_per_batch_full: The same for a full shuffle: the sum over blocks of the chance that at least one of its
            records is drawn.
        label_distance: How far the labels of a batch are from those of all records, on average: the share of its
            records that would need another label (total variation distance). 0 if every batch has exactly the shares
            of the whole; 0.9 if every batch has one of ten equal classes, as file order has if the file is sorted.
        label_distance_full: The same for a full shuffle, from the mean deviation of hypergeometric counts. Above 0,
            since chance makes batches unequal, small ones more.
        neighbours: The share of records that are followed by a neighbour in the file: 1 in file order, and
            ``1 - 1/batch`` if whole batches are shuffled. Neighbours lie side by side, or, where a sequence has only
            some of the records, at most as far apart as its records are on average.
        neighbours_full: The same for a full shuffle: ``2/n``.
        rank_correlation: Spearman's correlation of position and record number: 1 in file order, 0 if the epoch does
            not run through the file in any direction. Single shuffles stray from 0, by about
            ``1/sqrt(pieces that are moved as one)``.
        epoch_change: The share of positions that have another record in the next epoch: 0 for file order, or where the
            shuffle is held at one epoch; ``1 - 1/n`` for a full shuffle.
        label: The field whose values were used; ``None`` for ten parts of the file.
        verdict: The same in words.
    """

    n_records: int
    n_batches: int
    batch_size: int
    blocks_per_batch: float
    blocks_per_batch_full: float
    label_distance: float
    label_distance_full: float
    neighbours: float
    neighbours_full: float
    rank_correlation: float
    epoch_change: float
    label: str | None
    verdict: str
    _n_places: int = field(repr=False, compare=False)
    _counts: Any = field(repr=False, compare=False)
    _epoch: Scatter = field(repr=False, compare=False)
    _beginning: Scatter = field(repr=False, compare=False)

    @property
    def block_mixing(self) -> float:
        """Blocks that feed a batch, as a share of those that feed one of a full shuffle; 1 at most."""
        return min(1.0, self.blocks_per_batch / self.blocks_per_batch_full) if self.blocks_per_batch_full else 1.0

    def _rows(self) -> list[tuple[str, str, str]]:
        labels = "ten parts of the file" if self.label is None else self.label
        return [
            ("", "this order", "full shuffle"),
            ("blocks that feed a batch", f"{self.blocks_per_batch:.1f}", f"{self.blocks_per_batch_full:.1f}"),
            (f"label distance ({labels})", f"{self.label_distance:.3f}", f"{self.label_distance_full:.3f}"),
            ("followed by a neighbour", f"{self.neighbours:.3f}", f"{self.neighbours_full:.3f}"),
            ("rank correlation with the file", f"{round(self.rank_correlation, 2) + 0.0:.2f}", "0.00"),
            ("changed by the next epoch", f"{self.epoch_change:.2f}", f"{1 - 1 / max(1, self.n_records):.2f}"),
        ]

    def _title(self) -> str:
        return f"{self.n_records:,} records in batches of {self.batch_size:,}"

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(len(name) for name, _, _ in rows)
        lines = [f"  {name:<{width}}  {here:>10}  {full:>12}" for name, here, full in rows]
        return "\n".join([f"<{type(self).__name__} of {self._title()}", *lines, f"  {self.verdict}", ">"])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(name)}</th><td>{here}</td><td>{full}</td></tr>"
            for name, here, full in self._rows()
        )
        return (
            f"<table><caption>{type(self).__name__} of {self._title()}</caption>{rows}"
            f"<tr><td colspan='3' style='text-align:left'>{html.escape(self.verdict)}</td></tr></table>"
        )

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """A picture: where in the file the records of the epoch and of its beginning lie, and blocks batch by batch.

        Args:
            path: A file to save it in, by its ending PNG, SVG or PDF; ``None`` (default) saves nothing.

        Returns:
            The matplotlib figure. It belongs to no window, and matplotlib's own state is not touched.

        Raises:
            MissingPackageError: Matplotlib is not installed.
        """
        from .figure import draw

        return draw(self, path)


def shuffle_quality(seq: HyperSequence, label: str | None = None) -> ShuffleQuality:
    """How well the order of a sequence mixes, in five numbers beside those of a full shuffle.

    For choosing the ``window`` of :meth:`HyperSequence.shuffled`: take the smallest one whose numbers you like. The
    numbers are those of the sequence's epoch and batch size; of a shard, those of its rank.

    Args:
        seq: Any sequence. Functions of ``map`` change nothing here.
        label: The name of a field, as :meth:`HyperSequence.fields` takes it, with a number or text a record, or a
            one-hot vector: the label whose shares a batch should have. More than ten values are taken together in ten
            groups of neighbouring values. ``None`` (default) reads nothing, and takes ten parts of the file for ten
            classes: the worst case, a file that is sorted by its labels.

    Returns:
        A :class:`ShuffleQuality`; ``print`` it, or look at its ``plot()``. The numbers are exact up to 65,536 records
        and 200 batches, and beyond that from a sample of so many (of larger batches: 65,536 records of 16 batches, and
        the blocks of those), the same one every time. So time and memory do not grow with the data: a second at most,
        unless a label has to be read from a slow disk or shuffles are nested.

    Raises:
        ArgumentError: This is no sequence, or the label is no single field with a number, a text or a vector.
        HyperSequenceError: Reading the label failed.

    Thread-safe: it only reads.

    >>> quality = shuffle_quality(example.shuffled(seed=1, by="batch"))
    >>> round(quality.neighbours, 2), round(quality.neighbours_full, 2)
    (0.95, 0.02)
    >>> quality.verdict
    'records come in runs, as they lie in the file; a shuffle by window or by record breaks them up'
    >>> shuffle_quality(example.shuffled(seed=1, by="record")).verdict
    'as good as a full shuffle'
    """
    if not isinstance(seq, HyperSequence):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ArgumentError(f"shuffle_quality: expected a sequence, not {type(seq).__name__}")
    order, whole, disk = order_of(seq), whole_order_of(seq), Disk(source_of(seq))
    batches = Batches(order, seq.batch_size())
    everything = members(whole)
    everywhere, places = disk.places(everything), disk.places(batches.numbers)
    size = min(batches.numbers.shape[1], len(everything))
    counts = _distinct(disk.blocks(batches.numbers))
    if label is None:
        overall, groups = groups_of_places(everywhere, places)
    else:
        overall, groups = groups_of_labels(seq, label, everything, batches.numbers)
    n_groups = int(overall.max(initial=0)) + 1
    shares = np.bincount(overall, minlength=n_groups) / max(1, len(overall))
    epoch = _over_the_epoch(order, batches, disk)
    reach = max(1, -(-int(np.ptp(everywhere) + 1) // whole.n)) if len(everywhere) else 1
    found: dict[str, Any] = {
        "n_records": seq.n_records,
        "n_batches": len(seq),
        "batch_size": seq.batch_size(),
        "blocks_per_batch": float(counts.mean()) if len(counts) else 0.0,
        "blocks_per_batch_full": expected_distinct(disk.blocks(everything), size) if size else 0.0,
        "label_distance": _distance(groups, shares),
        "label_distance_full": expected_distance(shares, whole.n, size),
        "neighbours": _neighbours(batches, places, disk, reach),
        "neighbours_full": expected_neighbours(everywhere, reach),
        "rank_correlation": rank_correlation(epoch.positions, epoch.places),
        "epoch_change": _change(seq, batches),
        "label": label,
    }
    return ShuffleQuality(
        **found,
        verdict=_verdict(order, found, disk.n_blocks),
        _n_places=disk.n_places,
        _counts=counts,
        _epoch=_thinned(epoch),
        _beginning=_thinned(_beginning(order, seq.batch_size(), disk)),
    )


def _distinct(rows: Any) -> Any:
    """How many different values each row has."""
    rising = np.sort(rows, axis=1)
    return (rising[:, 1:] != rising[:, :-1]).sum(axis=1) + min(1, rows.shape[1])


def _distance(groups: Positions, shares: Any) -> float:
    """The mean total variation distance between rows of groups and their shares in everything."""
    n_rows, size = len(groups), groups.shape[1]
    if not groups.size:
        return 0.0
    n_groups = max(len(shares), int(groups.max()) + 1)  # a rare one may be in a batch and not in the sample
    first_of_row = np.arange(0, n_rows * n_groups, n_groups)
    counts = np.bincount((groups + first_of_row[:, None]).reshape(-1), minlength=n_rows * n_groups)
    off = counts.reshape(n_rows, n_groups) / size - np.append(shares, np.zeros(n_groups - len(shares)))
    return float(np.abs(off).sum(axis=1).mean()) / 2


def _neighbours(batches: Batches, places: Positions, disk: Disk, reach: int) -> float:
    """The share of records that are followed by one at most ``reach`` away."""
    steps = np.diff(places, axis=1).reshape(-1)
    over = (disk.places(batches.after) - places[:, -1])[batches.followed] if places.size else steps
    n_steps = len(steps) + len(over)
    near = int((np.abs(steps) <= reach).sum()) + int((np.abs(over) <= reach).sum())
    return near / n_steps if n_steps else 0.0


def _over_the_epoch(order: Order, batches: Batches, disk: Disk) -> Scatter:
    """Records at random positions, or, where that would take too long, those of the batches."""
    positions = np.sort(some(order.n, SAMPLE))
    numbers = scattered(order, positions)
    if numbers is None:
        positions, numbers = batches.positions.reshape(-1), batches.numbers.reshape(-1)
    return Scatter(positions, disk.places(numbers))


def _beginning(order: Order, batch_size: int, disk: Disk) -> Scatter:
    """Records of the first batches, of the first windows if those are larger, of a few if that would take too long."""
    n_first = _FIRST_BATCHES * batch_size
    n_windows = _FIRST_WINDOWS * (window_records(order) or 0)
    for length, most in (max(n_first, n_windows), _POINTS), (n_first, _POINTS), (n_first, _FEW_POINTS):
        stop = min(order.n, length)
        n_points = min(stop, most)
        positions = np.arange(n_points) * (stop - 1) // max(1, n_points - 1)
        numbers = scattered(order, positions, Budget(unlimited=most == _FEW_POINTS))
        if numbers is not None:
            return Scatter(positions, disk.places(numbers))
    raise AssertionError


def _thinned(points: Scatter) -> Scatter:
    kept = np.sort(some(len(points.positions), _POINTS))
    return Scatter(points.positions[kept], points.places[kept])


def _change(seq: HyperSequence, batches: Batches) -> float:
    """The share of positions with another record in the next epoch, or, if this is not the first, in the one before."""
    few = some(len(batches.positions), _BATCHES_OF_NEXT)
    if not len(few):
        return 0.0
    other = order_of(seq.at_epoch(seq.epoch - 1 if seq.epoch else 1))
    return float((other.at(batches.positions[few]) != batches.numbers[few]).mean())


def _verdict(order: Order, found: dict[str, Any], n_blocks: int) -> str:
    """The numbers in words: what is furthest from a full shuffle, and what would help."""
    if not found["n_records"]:
        return "there are no records to mix"
    if found["n_batches"] == 1:
        return "all records are in one batch: no order mixes them more"
    here, full = found["blocks_per_batch"], found["blocks_per_batch_full"]
    far, far_full = found["label_distance"], found["label_distance_full"]
    correlation, windows = found["rank_correlation"], window_records(order) is not None
    labels_fit = far <= 1.1 * far_full + 0.01
    but_labels = found["label"] is not None and labels_fit and found["batch_size"] > 1
    larger = "; a larger window mixes more" if windows else ""
    if found["neighbours"] >= 0.5 + found["neighbours_full"]:
        text = "records come in runs, as they lie in the file"
        larger = "; a shuffle by window or by record breaks them up"
        if correlation > 0.99:
            text, larger = "file order: records come as they were written", "; shuffled() mixes them"
    elif abs(correlation) > max(0.3, 3 / np.sqrt(n_blocks if windows else found["n_records"])):
        # More than chance makes of so many pieces; a few blocks in random order may well look as if they rose.
        text = f"the epoch runs through the file (rank correlation {correlation:.2f})"
        but_labels, larger = False, "; a shuffle of the whole mixes more"
    elif here < 0.95 * full:
        text = f"batches see {_few(here)} of the {_few(full)} blocks that a full shuffle would draw from"
    elif not labels_fit:
        text = f"batches draw from many blocks, but their labels are {far:.3f} off; in a full shuffle {far_full:.3f}"
    elif found["batch_size"] == 1:
        text, larger = "batches of one record tell little; look at rebatch(32) of this", ""
    else:
        text, but_labels, larger = "as good as a full shuffle", False, ""
    text += ", but their labels are as mixed as in a full shuffle" if but_labels else larger
    return text if found["epoch_change"] or text.startswith("file order") else f"{text}; every epoch repeats this order"


def _few(count: float) -> str:
    return f"{count:,.0f}" if count >= 10 else f"{count:.1f}".removesuffix(".0")

"""Several sequences as one: one after the other, or mixed."""

# A sequence and its makers are one thing in several files.
# pyright: reportPrivateUsage=false

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import ArgumentError
from ..order import Concatenated, Mixed, Natural, Order, Sliced, compose, parts_of, whole_weights
from ..source import JoinedSource
from .arguments import seed_of, whole_number
from .core import HyperSequence


def concat(sequences: Iterable[HyperSequence]) -> HyperSequence:
    """Sequences of one schema, one after the other, as one.

    Args:
        sequences: At least one; they may be parts of the same file. Shuffles that they have stay, and follow the epoch
            of the whole.

    Returns:
        A sequence with the batch size of the first. Batches run over the seams.

    Raises:
        ArgumentError: Different schemas or fields, a shard, or a function over batches (use ``map`` afterwards).

    Thread-safe: it only reads.

    >>> a, b = example.split(0.5)
    >>> len(concat([b, a]).records)
    100
    """
    given = _checked(sequences, "concat")
    orders = [_order_of(sequence) for sequence in given]
    sizes = [sequence._source.n_records for sequence in given]
    if all(isinstance(order, Natural) and order.n == size for order, size in zip(orders, sizes, strict=True)):
        return _joined(given, Natural(sum(sizes)))
    return _joined(given, Concatenated(parts_of(orders, sizes)))


def mix(
    sequences: Iterable[HyperSequence],
    weights: Sequence[float] | None = None,
    seed: int | None = None,
    *,
    n_records: int | None = None,
) -> HyperSequence:
    """Sequences of one schema, mixed record by record in exact proportions.

    Every period of as many records as the weights add up to has exactly its share of each sequence, at random
    places. A sequence that comes to its end begins again with its own next epoch; none begins anew with the mix's.

    Args:
        sequences: At least one, none of them empty. Shuffle them first if their own order should be random.
        weights: How much of each: positive numbers, such as ``[3, 1]`` or ``[0.75, 0.25]``; ``None`` for their numbers
            of records. In lowest whole numbers they add up to at most 4,096; numbers of records
            that do not are rounded to thousandths.
        seed: For the places, 0 to 2**64-1; ``None`` draws a fresh one, which the repr shows.
        n_records: Length of an epoch; by default the sum of the sequences' records.

    Returns:
        A sequence with the batch size of the first.

    Raises:
        ArgumentError: As :func:`concat`, or impossible weights.

    Thread-safe: it only reads.

    >>> a, b = example.split(0.5)
    >>> mixed = mix([a, b], weights=[3, 1], seed=0)
    >>> len(mixed.records)
    100
    """
    given = _checked(sequences, "mix")
    orders = [_order_of(sequence) for sequence in given]
    if any(not order.n for order in orders):
        raise ArgumentError("mix: a sequence without records cannot be mixed in")
    total = sum(order.n for order in orders)
    chosen = [order.n for order in orders] if weights is None else list(weights)
    whole = whole_weights(chosen) if len(chosen) == len(given) else None
    if whole is None and weights is None:  # lengths with no small ratio: in thousandths, but never nothing
        whole = whole_weights([max(1, round(1000 * order.n / total)) for order in orders])
    if whole is None:
        raise ArgumentError(
            f"mix(weights={chosen}): expected {len(given)} positive numbers that are to each other as whole numbers "
            "with a sum of at most 4,096"
        )
    length = total if n_records is None else whole_number(n_records, "n_records", 1)
    parts = parts_of(orders, [sequence._source.n_records for sequence in given])
    return _joined(given, Mixed(parts, whole, length, seed_of(seed)))


def _checked(sequences: Iterable[HyperSequence], what: str) -> list[HyperSequence]:
    given = list(sequences)
    if not given or not all(isinstance(sequence, HyperSequence) for sequence in given):  # pyright: ignore
        raise ArgumentError(f"{what}: expected sequences, at least one")
    for sequence in given:
        sequence._unshared(what)
        if sequence.has_map:
            raise ArgumentError(f"{what}: a sequence has a map; use map() on what {what}() gives")
        if sequence._chosen != given[0]._chosen:
            raise ArgumentError(f"{what}: the sequences read different fields; use fields() on what {what}() gives")
    return given


def _order_of(sequence: HyperSequence) -> Order:
    """What the batches hold, its shuffles still following the epoch."""
    order = sequence._whole.at_epoch(0)
    return compose(Sliced(sequence._n_records, 0), order) if sequence._n_records < order.n else order


def _joined(given: list[HyperSequence], order: Order) -> HyperSequence:
    joined = HyperSequence(JoinedSource([sequence._source for sequence in given]), order, given[0]._batch_size)
    return joined._with(chosen=given[0]._chosen)

"""How a sequence looks at a prompt and in a notebook."""

# A sequence and its looks are one thing in two files.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import html
from pathlib import Path
from typing import TYPE_CHECKING

from ..order import Composed, Concatenated, Fixed, InChunks, Mixed, Order, Shuffled, Windowed

if TYPE_CHECKING:
    from .core import HyperSequence


def readable_nbytes(nbytes: int) -> str:
    """A size for people.

    >>> readable_nbytes(792), readable_nbytes(8 << 20)
    ('792 B', '8.0 MiB')
    """
    size = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def _facts(sequence: HyperSequence) -> list[tuple[str, str]]:
    paths = [file.path for file in sequence._source.files()]
    names = Path(paths[0]).name if len(paths) == 1 else f"{Path(paths[0]).name} and {len(paths) - 1} more"
    closed = " (closed)" if any(file.closed for file in sequence._source.files()) else ""
    columns = sequence.columns
    nbytes = sequence.n_records * sum(column.field.nbytes for column in columns)
    facts = [
        ("file", names + closed),
        ("records", f"{sequence.n_records:,} ({readable_nbytes(nbytes)})"),
        (
            "batches",
            f"{len(sequence):,} of {sequence.batch_size()}"
            + (", last one dropped if short" if sequence._drop_last else ""),
        ),
    ]
    facts += [(column.label, str(column.field)) for column in columns]
    shuffles = shuffle_text(sequence)
    facts += [("order", shuffles)] if shuffles else []
    share = sequence._share
    if share is not None:
        facts.append(("shard", f"rank {share.rank} of {share.world}, uneven={share.uneven!r}"))
    return facts


def shuffle_text(sequence: HyperSequence) -> str:
    """The outermost shuffle of a sequence in words, or nothing."""
    return _shuffle_in(sequence._whole, "records", held=False)


def _shuffle_in(order: Order, unit: str, held: bool) -> str:
    if isinstance(order, Shuffled | Windowed | Mixed):
        when = f"seed {order.seed}, {'held at ' if held else ''}epoch {order.epoch}"
        if isinstance(order, Mixed):
            return f"mix of {len(order.parts)} by weights {', '.join(map(str, order.weights))}, {when}"
        if isinstance(order, Windowed) and order.window * order.block < order.n:
            unit = f"{unit} in windows of {order.window * order.block:,}"
        return f"{unit} shuffled, {when}"
    if isinstance(order, Fixed):
        return _shuffle_in(order.order, unit, held=True)
    if isinstance(order, InChunks):
        return _shuffle_in(order.chunks, f"batches of {order.size}", held)
    if isinstance(order, Composed):
        return _shuffle_in(order.outer, unit, held) or _shuffle_in(order.inner, unit, held)
    if isinstance(order, Concatenated):
        inside = [text for part in order.parts if (text := _shuffle_in(part.order, unit, held))]
        return f"{len(order.parts)} in a row" + (f", {inside[0]}" if inside else "")
    return ""


def describe(sequence: HyperSequence) -> str:
    """The repr: one line a fact."""
    facts = _facts(sequence)
    width = max(len(name) for name, _ in facts)
    lines = [f"  {name:<{width}}  {text}" for name, text in facts]
    return "\n".join([f"<{type(sequence).__name__}", *lines, ">"])


def describe_html(sequence: HyperSequence) -> str:
    """The same as an HTML table."""
    rows = "".join(
        f"<tr style='text-align:left'><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>"
        for name, text in _facts(sequence)
    )
    return f"<table><caption>{type(sequence).__name__}</caption>{rows}</table>"

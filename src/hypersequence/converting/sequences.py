"""A sequence as a source of records, as those of other formats are."""

from __future__ import annotations

from collections.abc import Sequence

from ..schema import Column
from ..sequence import HyperSequence
from ..sequence.inside import read_columns
from .base import Piece, SlicingReader
from .exporting import description_of, names_of


class SequenceReader(SlicingReader):
    """The stored records of a sequence, in its order.

    Fields are called as they are in other formats: by their own names, or, where they have none, by their role.

    Args:
        sequence: Any one without ``map``. It is not closed.
    """

    def __init__(self, sequence: HyperSequence) -> None:
        names = names_of(sequence.columns)
        self._sequence = sequence
        self._columns = {names[column.number]: column for column in sequence.columns}
        self.fields = {name: column.field for name, column in self._columns.items()}
        self.n_records = sequence.n_records
        self.described = description_of(sequence)
        self.meta = sequence.user_meta()

    def meant_by(self, asked: str) -> list[str]:
        """The fields that somebody means: one by its name here, or all that ``fields(asked)`` has."""
        if asked in self._columns:
            return [asked]
        return [name for name, column in self._columns.items() if column.matches(asked)] or [asked]

    def column(self, name: str) -> Column:
        """Where the sequence has a field."""
        return self._columns[name]

    def piece(self, start: int, stop: int, wanted: Sequence[str]) -> Piece:
        """The records from ``start`` to before ``stop``."""
        arrays = read_columns(self._sequence, start, stop, [self._columns[name] for name in wanted])
        return dict(zip(wanted, arrays, strict=True))

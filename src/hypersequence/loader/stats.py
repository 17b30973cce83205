"""What a loader did, and what holds it back."""

from __future__ import annotations

from dataclasses import dataclass

from ..sequence.display import readable_nbytes


@dataclass(slots=True)
class LoaderStats:
    """Counts and times of one pass, in seconds; ``str()`` says in a line what holds the training back.

    Attributes:
        batches: Batches handed over.
        records: Their records.
        record_nbytes: Bytes of a record as stored, of the fields that are read.
        first_s: What the first batch took, with everything that is done once.
        elapsed_s: From the first batch to the last.
        waited_s: Of this, what the consumer waited inside ``next()``.
        disk_s: Of the waiting, that of the first batch too, what was for reading ahead: the disk.
        read_s: Work of reading ahead, in whatever thread.
        gather_s: Work of gathering batches, in whatever thread.
        map_s: Work of functions over batches, in whatever thread.
        queue_fill: Mean share of the batches in flight that were ready when the consumer came, from 0 to 1.
    """

    batches: int = 0
    records: int = 0
    record_nbytes: int = 0
    first_s: float = 0.0
    elapsed_s: float = 0.0
    waited_s: float = 0.0
    disk_s: float = 0.0
    read_s: float = 0.0
    gather_s: float = 0.0
    map_s: float = 0.0
    queue_fill: float = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the records handed over."""
        return self.records * self.record_nbytes

    @property
    def limit(self) -> str:
        """What holds training back: ``"disk"``, ``"gather"``, ``"map"``; if it waits less than 5%, ``"consumer"``."""
        if self.waited_s < 0.05 * self.elapsed_s or not self.batches:
            return "consumer"
        if self.disk_s > 0.5 * (self.first_s + self.waited_s):
            return "disk"
        return "map" if self.map_s > self.gather_s else "gather"

    def __str__(self) -> str:
        if not self.batches:
            return "no batches yet"
        share = self.waited_s / self.elapsed_s if self.elapsed_s else 0.0
        advice = {
            "consumer": "training sets the pace",
            "disk": "the disk sets the pace: a faster disk, smaller records or more memory would help",
            "gather": "gathering sets the pace: more threads, or shuffled(by='batch'), would help",
            "map": "the function given to map() sets the pace: more threads would help if it lets them run",
        }[self.limit]
        rate = self.nbytes / self.elapsed_s if self.elapsed_s else 0.0
        return (
            f"{self.batches:,} batches, {self.records:,} records, {readable_nbytes(self.nbytes)} in "
            f"{self.elapsed_s:.1f} s ({readable_nbytes(round(rate))}/s); waited {share:.1%}: {advice}"
        )

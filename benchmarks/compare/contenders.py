"""What a contender is: a system used in one of the ways that its documentation recommends."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .workloads import Records, Workload

Order = Literal["sequential", "shuffled"]
#: Gives the batches of an epoch, ``(x, y)`` each, of any kind that ``np.asarray`` takes without copying.
Epochs = Callable[[int], Iterable[tuple[Any, Any]]]


@dataclass(frozen=True)
class Shuffle:
    """How a contender shuffles.

    Args:
        how: The call or setting, in a few words.
        by_record: Whether its maker promises an order in which any record may follow any other, over all records;
            ``check`` measures what comes of it.
        within: Only of data of so many bytes at most.
    """

    how: str
    by_record: bool
    within: int | None = None

    def promises(self, workload: Workload) -> bool:
        """Whether any record of a workload may follow any other."""
        return self.by_record and (self.within is None or workload.record_nbytes * workload.n_records <= self.within)


@dataclass(frozen=True)
class Contender:
    """A system in one way of using it.

    Args:
        name: As tables show it; systems that are used in several ways say which.
        environment: In which it runs, a key of ``environments.ENVIRONMENTS``.
        files: Name of the files that it reads; contenders with the same name share what the first of them wrote.
        write: Writes records into an empty folder, as the documentation recommends for data that will be trained on,
            and closes what it wrote; the worker syncs it.
        open: Opens what was written, for an order, and returns what gives the batches of an epoch. Batches hold
            ``workload.batch`` records; the last may be smaller or left out. Called once in a process; what is expensive
            and recommended to be kept (worker processes, handles) is made here.
            ``None`` for those who are only there to train Keras's models.
        shuffle: How ``"shuffled"`` is done; ``None`` if it can only go in order.
        device_ready: Whether batches lie in memory that is used again and could be a device's staging memory, so that
            no copy is owed.
        kind: ``"loader"``, what a system has for feeding training, or for reading many records at once; ``"loop"``, a
            person's own loop over what it stores, which assembles batches itself; ``"limit"``, the machine.
        workloads: For which this makes sense; all if empty.
        note: What a reader should know.
        keras: Gives what Keras's ``fit`` is given, with batches in shuffled order and labels below ten.
        backend: Keras's backend, for those that ``keras`` is for.
        only_trains: Whether it is only there to be trained on, as a limit for others.
        in_memory: Whether opening it brings everything into memory, so that disk and little memory say nothing of it.
    """

    name: str
    environment: str
    files: str
    write: Callable[[Workload, Records, Path], None]
    open: Callable[[Workload, Path, Order], Epochs] | None
    shuffle: Shuffle | None = None
    _: KW_ONLY
    device_ready: bool = False
    kind: Literal["loader", "loop", "limit"] = "loader"
    workloads: tuple[str, ...] = field(default=())
    note: str = ""
    keras: Callable[[Workload, Path], dict[str, Any]] | None = None
    backend: Literal["tensorflow", "jax"] | None = None
    only_trains: bool = False
    in_memory: bool = False

    @property
    def is_limit(self) -> bool:
        """Whether this is the machine, not a system."""
        return self.kind == "limit"

    def orders(self) -> tuple[Order, ...]:
        """In which orders it can go."""
        return ("sequential",) if self.shuffle is None else ("sequential", "shuffled")

"""Loader: what a training loop iterates over."""

# The loader reads sequences from inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, Literal

from ..errors import ArgumentError
from ..schema import Array, Batch
from ..sequence import HyperSequence
from ..sequence.arguments import one_of, whole_number
from ..source.salvage import SalvagingSource
from .legs import Leg
from .run import Run, Settings
from .state import Cursor, Identity
from .stats import LoaderStats
from .threads import SPARE, default_threads

Buffers = Literal["own", "reuse", "view"] | Callable[[int], Array]
#: An epoch that no training reaches, and that fits into 64 bits with room to spare.
MAX_EPOCH = 1 << 62


class Loader:
    """Batches of a sequence in order, made ahead of time, from a position that can be saved and restored.

    ``for batch in loader`` gives the batches that ``seq[0]``, ``seq[1]``, ... would, as writable arrays; the order is
    the sequence's, epoch by epoch. An iteration is a *pass*: it begins where the loader stands and ends at the next
    multiple of ``epochs``, so that ``for epoch in range(9): for batch in loader:`` walks through epochs 0 to 8.

    Args:
        seq: What to load. Shuffle, rebatch, shard and map it first.
        threads: Threads that make batches; two more read ahead. The consumer makes what no thread has begun, so that
            it never waits for work that it could do itself. ``0`` for none at all. ``None`` (default) for as many as
            there are processors but one, at least 1 and at most 4: NumPy, reading and checking let other threads run,
            and more of them than that only wait for memory. A ``map`` that holds the interpreter gains nothing by more.
        prefetch: Batches in flight at most, besides the one in use. ``None`` (default) for as many as fit 16 MiB, but
            at least 2. Small batches are made several at a time, a quarter of these at most.
        epochs: Epochs of a pass.
        buffers: Where batches are. ``"own"`` (default): each in memory of its own (or shared with neighbours made in
            the same go, up to 4 MiB), writable, taken back when the last reference dies, so that nothing changes under
            whoever keeps a batch. ``"view"``: read-only views of the file where a batch is contiguous, else as
            ``"own"``. ``"reuse"``: a ring; a batch stays as it is until the second batch after it is asked for: for
            consumers that have finished with it then, which JAX and Keras have not. Or a function that
            gives the ring's memory: for a number of bytes a ``uint8`` array, such as pinned memory for a GPU.
        evict: Drop what was used from the system's page cache behind the reader. ``None`` (default): of data that do
            not fit the memory that is free (a container's limit counts), all but a part that stays; the system would
            drop what was read ahead instead. Nothing of a sharded sequence, whose ranks use a window at different
            moments. ``True``: everything that was used, which leaves the memory to others. ``False``: nothing. An
            order over all records of data that are read in one go has no behind. One of small records of data that do
            not fit takes half of the free memory for itself, whatever is said here.
        on_corrupt: ``"error"`` (default) raises :class:`hypersequence.ChecksumError` at the batch that needs a damaged
            block. ``"skip_block"`` checks blocks as a whole and puts the records of the next sound block in place of a
            damaged one's, the same on every rank, with a warning; :attr:`skipped_blocks` counts them. More than 1% of a
            file's blocks (but at least one) is an error all the same.

    A loader may be iterated several times, also at once and nested; every iterator has a position of its own, and the
    loader's is that of the newest. It can be used in a forked process, and pickled for a spawned one. An iterator is
    for one thread at a time. Threads end with their iterator: when it is exhausted, dropped or closed.

    >>> import hypersequence as hs
    >>> loader = hs.Loader(example.shuffled(seed=1).rebatch(40))
    >>> [len(labels) for images, labels in loader]
    [40, 40, 20]
    >>> loader.state_dict()["epoch"]
    1
    """

    def __init__(
        self,
        seq: HyperSequence,
        *,
        threads: int | None = None,
        prefetch: int | None = None,
        epochs: int = 1,
        buffers: Buffers = "own",
        evict: bool | None = None,
        on_corrupt: Literal["error", "skip_block"] = "error",
    ) -> None:
        if not isinstance(seq, HyperSequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError(
                f"Loader: expected a sequence, such as hypersequence.open() gives, not {type(seq).__name__}"
            )
        if not callable(buffers):
            one_of(buffers, "buffers", "own", "reuse", "view")
        one_of(on_corrupt, "on_corrupt", "error", "skip_block")
        self._sequence = seq = seq._with()  # seq.shuffle() would change the order of a pass under way
        self._epochs = whole_number(epochs, "epochs", 1, most=1 << 31)
        self._settings = Settings(
            threads=default_threads(SPARE) if threads is None else whole_number(threads, "threads", 0, most=1024),
            prefetch=None if prefetch is None else whole_number(prefetch, "prefetch", 1, most=1 << 31),
            buffers=buffers,
            evict=one_of(evict, "evict", None, True, False),
        )
        self._salvage = SalvagingSource(seq._source) if on_corrupt == "skip_block" else None
        self._read_from = seq if self._salvage is None else seq._with(source=self._salvage)
        self._identity: Identity | None = None
        self._cursor = Cursor(seq.epoch)
        self._resuming = False
        self._stats = LoaderStats()

    def __len__(self) -> int:
        """Batches of a whole pass of one epoch, times ``epochs``."""
        return len(self._sequence) * self._epochs

    def __iter__(self) -> LoaderIterator:
        """A new pass.

        It begins at the loaded position the first time after :meth:`load_state_dict`; otherwise at the beginning of
        the first epoch that is not finished, so that an epoch left by ``break`` is begun again.
        """
        epoch, position = self._begin()
        return self._walk(epoch, position, (epoch // self._epochs + 1) * self._epochs)

    def _begin(self) -> tuple[int, int]:
        """Where the pass begins that somebody begins now."""
        epoch, position = self._cursor.place()
        position = position if self._resuming else 0
        self._resuming = False
        return epoch, position

    def _walk(self, epoch: int, position: int, end_epoch: int, together: bool = False) -> LoaderIterator:
        """A pass from any place, for adapters that count epochs themselves.

        Args:
            epoch: Where it begins.
            position: In this epoch, in records of all ranks together.
            end_epoch: The epoch before which it ends.
            together: Give ``(n, batch)``, where batch is the next ``n`` batches that lie one behind the other in
                memory, for a framework in which every hand-over is dear.
        """
        self._cursor, self._stats = Cursor(epoch, position), LoaderStats()
        return LoaderIterator(self._read_from, self._settings, self._cursor, end_epoch, self._stats, together)

    def _n_left(self, epoch: int, position: int) -> int:
        """Batches from a place to the end of its epoch."""
        return Leg(self._sequence, epoch, position).n_batches

    def _advanced(self, epoch: int, position: int, n_batches: int) -> tuple[int, int]:
        """The place so many batches further on: epoch and position."""
        while True:
            leg = Leg(self._sequence, epoch, position)
            if n_batches < leg.n_batches:
                return epoch, leg.position(n_batches)
            if not len(self._sequence):
                return epoch, 0
            n_batches -= leg.n_batches
            epoch, position = epoch + 1, 0

    @property
    def sequence(self) -> HyperSequence:
        """What is loaded."""
        return self._sequence

    @property
    def stats(self) -> LoaderStats:
        """What the newest pass did, and what held it back; ``print(loader.stats)`` says it in a line."""
        return self._stats

    @property
    def skipped_blocks(self) -> int:
        """Damaged blocks that others stand in for, as far as they were met."""
        return 0 if self._salvage is None else self._salvage.n_damaged

    def set_epoch(self, epoch: int) -> None:
        """Have the next pass begin at the beginning of this epoch, from 0 on. A pass that is under way goes on.

        After :meth:`load_state_dict` of a state in this very epoch, the loaded position stays: a training script that
        resumes does both.
        """
        epoch = whole_number(epoch, "set_epoch", 0, most=MAX_EPOCH)
        if not (self._resuming and epoch == self._cursor.place()[0]):
            self._cursor = Cursor(epoch)
            self._resuming = False

    def state_dict(self) -> dict[str, Any]:
        """Where the newest pass stands: after the last batch that it handed over.

        Returns:
            A dict for JSON of less than 300 bytes: the epoch, the position in records of all ranks together, the seed,
            and fingerprints of data and order. It holds for any number of threads, any prefetch, batch size and world.
        """
        return self._state_at(*self._cursor.place())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Have the next pass begin where a state was taken.

        Args:
            state: What :meth:`state_dict` gave, here or elsewhere.

        Raises:
            ArgumentError: The state belongs to other data or another order; the message says what differs.
        """
        self._cursor = Cursor(*self._place_in(state))
        self._resuming = True

    def _state_at(self, epoch: int, position: int) -> dict[str, Any]:
        """The state of a place, for adapters that count batches themselves."""
        return self._whose().state(epoch, position)

    def _place_in(self, state: dict[str, Any]) -> tuple[int, int]:
        """Epoch and position in a state; refuses as :meth:`load_state_dict` does."""
        return self._whose().place_in(state)

    def _whose(self) -> Identity:
        if self._identity is None:
            self._identity = Identity(self._sequence)
        return self._identity

    def __repr__(self) -> str:
        epoch, position = self._cursor.place()
        return (
            f"<Loader, {self._settings.threads} threads, epoch {epoch}, position {position:,}, of {self._sequence!r}>"
        )


class LoaderIterator(Iterator[Batch]):
    """One pass. Threads end when it is exhausted, closed or no longer referred to."""

    # At the very end of a program modules are gone, and threads with them.
    _getpid, _is_finalizing = staticmethod(os.getpid), staticmethod(sys.is_finalizing)

    def __init__(
        self,
        sequence: HyperSequence,
        settings: Settings,
        cursor: Cursor,
        end_epoch: int,
        stats: LoaderStats,
        together: bool = False,
    ) -> None:
        self._made_of = (sequence, settings, cursor, end_epoch, stats)
        self._draw: Callable[[Run], Any] = Run.next_together if together else Run.next
        self._ended = False
        self._run = self._begin()

    def _begin(self) -> Run:
        self._pid = self._getpid()
        return Run(*self._made_of)

    def __iter__(self) -> LoaderIterator:
        return self

    def __next__(self) -> Batch:
        run = self._run
        if self._ended:
            raise StopIteration
        if run is None or self._getpid() != self._pid:
            # After an interruption, or a fork that left the threads in the other process: behind what was handed over.
            if run is not None:
                _left_behind.append(run)
            run = self._run = self._begin()
        try:
            batch = self._draw(run)
        except StopIteration as error:  # would look like the end
            self.close()
            raise RuntimeError("a function given to map() raised StopIteration") from error
        except Exception:
            self.close()
            raise
        except BaseException:  # Ctrl-C may come in the middle of anything: what is under way is not to be trusted
            self._run = None
            run.close()
            raise
        if batch is None:
            self.close()
            raise StopIteration
        return batch

    def close(self) -> None:
        """End the pass; threads finish the piece they are at, and stop. Batches stay valid."""
        self._ended = True
        run, self._run = self._run, None
        if run is not None and self._getpid() == self._pid and not self._is_finalizing():
            run.close()

    def __del__(self) -> None:
        if getattr(self, "_run", None) is not None:
            self.close()


#: Runs of a parent process. They are kept: they hold locks of threads that are not here.
_left_behind: list[Run] = []

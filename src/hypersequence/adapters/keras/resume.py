"""Keras 3: going on at the very next batch after an interruption."""

# Keras says that a callback may have no model; while fit() calls it, it has one.
# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import keras

from ...errors import ArgumentError
from .feed import KerasSequence

_STATE = "state.json"


class ResumeCallback(keras.callbacks.Callback):
    """Saves a training with its position in the data, and goes on there when the same script is started again.

    Saved are the model's weights, the optimizer's variables and the position, together: after a crash at any moment,
    the folder has either the old save or the new one. ``fit`` then begins with the epoch and the batch that come next.
    State of other callbacks (such as ``EarlyStopping``) and of metrics is not saved; an epoch that is resumed reports
    metrics of its remaining batches.

    Args:
        folder: Where to save; made if it is missing. Remove it to train from the beginning. Of a training that is
            finished it has the end, so that ``fit`` with the same number of epochs has nothing left to do.
        dataset: The object that is given to ``fit``.
        every: Batches from one save to the next; ``None`` (default) saves at the end of every epoch only, which is
            saved in any case.

    Raises:
        ArgumentError: On ``fit``: the model is not built yet, or the save belongs to other data or another order.

    Example::

        train = seq.as_keras(shuffle_on_epoch=True, seed=1)
        model.fit(train, epochs=16, callbacks=[hs.keras.ResumeCallback("run1", train, every=500)])
    """

    def __init__(self, folder: str | os.PathLike[str], dataset: KerasSequence, every: int | None = None) -> None:
        super().__init__()
        if not isinstance(dataset, KerasSequence):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ArgumentError("ResumeCallback: dataset is what as_keras() gave, the same object that fit() gets")
        if every is not None and every < 1:
            raise ArgumentError(f"ResumeCallback: every is a number of batches from 1 on, not {every}")
        self._folder = Path(folder)
        self._dataset = dataset
        self._every = every
        self._epoch = 0
        self._steps_before = 0  # of this Keras epoch, trained before the interruption
        self._last_saved = 0

    def on_train_begin(self, logs: Any = None) -> None:
        """Go on where the newest save stands, if there is one."""
        path = self._folder / _STATE
        if not path.exists():
            return
        saved = json.loads(path.read_text())
        if not self.model.built:
            raise ArgumentError("ResumeCallback: build the model before fit(): give it an Input, or call it on a batch")
        optimizer = self.model.optimizer
        if optimizer is not None and not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        self._dataset._resume(saved["data"], saved["steps"])
        self.model.load_weights(self._folder / saved["weights"])
        # Keras's own way to begin with a later epoch, as its BackupAndRestore does.
        self.model._initial_epoch = saved["epoch"]
        self._epoch, self._steps_before = saved["epoch"], saved["steps"]

    def on_train_end(self, logs: Any = None) -> None:
        """Have the next ``fit`` of this model begin where it says."""
        self.model._initial_epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Count from here."""
        self.model._initial_epoch = 0  # Keras has read it, and would read it again in every later fit
        if epoch != self._epoch:
            self._steps_before = 0
        self._epoch, self._last_saved = epoch, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Count a batch as trained, and save if it is time."""
        self._dataset._trained(batch + 1)
        if self._every is not None and batch + 1 - self._last_saved >= self._every:
            self._last_saved = batch + 1
            if self._dataset._n_trained >= self._dataset._due:  # all of the epoch, though Keras has not counted it yet
                self._save(self._epoch + 1, 0)
            else:
                self._save(self._epoch, self._steps_before + self._dataset._n_trained)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Save; an epoch that was left early (``stop_training``) is saved as it stands."""
        if self._dataset._n_trained:
            self._save(epoch, self._steps_before + self._dataset._n_trained)
        else:
            self._save(epoch + 1, 0)

    def _save(self, epoch: int, steps: int) -> None:
        """Weights under a new name, then the state that names them in place of the old one."""
        self._folder.mkdir(parents=True, exist_ok=True)
        name = f"{time.time_ns():x}.weights.h5"
        self.model.save_weights(self._folder / name)
        state = {"epoch": epoch, "steps": steps, "weights": name, "data": self._dataset.state_dict()}
        new = self._folder / f"{_STATE}.new"
        with new.open("w") as file:
            json.dump(state, file)
            file.flush()
            os.fsync(file.fileno())
        _sync(self._folder / name)
        new.replace(self._folder / _STATE)
        for old in self._folder.glob("*.weights.h5"):
            if old.name != name:
                old.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

"""A contender at work in its own environment: takes orders as lines of JSON and answers with lines of JSON.

Started as ``python -m benchmarks.compare.worker CONTENDER``.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from . import disk
from .contenders import Contender
from .passes import Feed
from .systems import contenders
from .training import fit_keras
from .usage import Peak
from .workloads import Records, Workload, workload


class Worker:
    """What a contender is told to do.

    Args:
        contender: Who.
    """

    def __init__(self, contender: Contender) -> None:
        self._contender = contender
        self._feed: Feed | None = None

    def write(self, name: str, share: float, folder: str, seconds: float) -> dict[str, Any]:
        """Write a workload into a new folder, and see it to the disk."""
        given = workload(name, share)
        where = Path(folder)
        where.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=where.parent) as warm_up:  # imports, and what is compiled at first use
            a_batch = replace(given, n_records=given.batch)
            self._contender.write(a_batch, Records(a_batch), Path(warm_up))
        records = Records(given, seconds)
        disk.make_room(where.parent, given.n_records * given.record_nbytes * 5 // 4)
        records.start()
        begun = time.perf_counter()
        self._contender.write(given, records, where)
        files = [path for path in where.rglob("*") if path.is_file()]
        for path in files:
            _sync(path)
        for directory in {path.parent for path in files}:
            _sync(directory)
        took = time.perf_counter() - begun
        nbytes = sum(path.stat().st_blocks * 512 for path in files)
        return {"seconds": took, "records": records.n_handed, "disk_nbytes": nbytes, "files": len(files)}

    def open(self, name: str, share: float, folder: str, order: Any) -> dict[str, Any]:
        """Open what was written."""
        given: Workload = workload(name, share)
        begun = time.perf_counter()
        assert self._contender.open is not None
        epochs = self._contender.open(given, Path(folder), order)
        self._feed = Feed(self._contender, given, epochs)
        return {"seconds": time.perf_counter() - begun}

    def run(self, seconds: float, mode: Any) -> dict[str, Any]:
        """A pass of some seconds."""
        return self._opened().run(seconds, mode)

    def epoch(self, seconds: float) -> dict[str, Any]:
        """A whole epoch, or as far as it comes in so many seconds."""
        return self._opened().run_epoch(seconds)

    def train(self, seconds: float) -> dict[str, Any]:
        """A small PyTorch model for some seconds."""
        return self._opened().train(seconds)

    def fit(self, name: str, share: float, folder: str, seconds: float) -> dict[str, Any]:
        """A small Keras model for some seconds."""
        assert self._contender.keras is not None and self._contender.backend is not None
        os.environ["KERAS_BACKEND"] = self._contender.backend  # before Keras is imported
        given = workload(name, share)
        return fit_keras(self._contender.keras(given, Path(folder)), given, seconds)

    def memory(self, seconds: float) -> dict[str, Any]:
        """A pass during which somebody looks at the memory of all processes."""
        with Peak(os.getpid()) as peak:
            self._opened().run(seconds, "consumed")
        return dict(peak.peak)

    def check(self, n_written: int, seconds: float) -> dict[str, Any]:
        """What comes of an epoch."""
        return self._opened().check(n_written, seconds)

    def _opened(self) -> Feed:
        assert self._feed is not None, "open() first"
        return self._feed


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def serve(does: Callable[[str, dict[str, Any]], dict[str, Any]]) -> None:
    """Answer orders until there are no more; what libraries print goes to the standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        told = json.loads(line)
        try:
            answer = does(told.pop("do"), told)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    os._exit(0)  # some libraries' threads and processes would keep us; files are all written and synced


def main() -> None:
    worker = Worker(contenders()[sys.argv[1]])
    serve(lambda what, arguments: getattr(worker, what)(**arguments))


if __name__ == "__main__":
    main()

"""The comparison with other systems: its records, its workers and its page, with what is installed here."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.compare import report
from benchmarks.compare.figures import Figures
from benchmarks.compare.results import Results
from benchmarks.compare.run import Comparison, Form
from benchmarks.compare.systems import contenders
from benchmarks.compare.workers import RemoteWorker, WorkerError
from benchmarks.compare.workloads import Records, names, workload

HERE = [
    "one copy",
    "np.take into aligned buffers",
    "one batch over and over",
    "HyperSequence, Loader into buffers",
    "HyperSequence, Loader",
    "HyperSequence, Loader, whole batches",
    "DataLoader over np.memmap, by batch, 0 workers",
]


@pytest.mark.parametrize("name", names())
def test_records_know_their_numbers(name: str) -> None:
    given = workload(name, 0.001)
    x, y = given.make(3, 3 + given.batch)
    assert (x.shape[1:], str(x.dtype)) == given.x
    assert (y.shape[1:], str(y.dtype)) == given.y
    assert given.numbers(y).tolist() == list(range(3, 3 + given.batch))
    again = given.make(5, 6)
    assert np.array_equal(again[0][0], x[2])
    assert np.array_equal(again[1][0], y[2])
    assert len(np.unique(x[0])) > min(10, x[0].size // 4)


def test_records_stop_when_time_is_over() -> None:
    records = Records(workload("features", 0.001), seconds=0)
    records.start()
    assert list(records) == []
    assert records.n_handed == 0


def test_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything from files to the page, in this environment; a second run has nothing left to do."""
    monkeypatch.setattr("benchmarks.compare.run.python_of", lambda name, folder: Path(sys.executable))
    form = Form(("digits",), share=0.005, rounds=2, seconds=0.05, writes=1, cold=1)
    path = tmp_path / "rows.jsonl"
    Comparison(form, HERE, tmp_path, Results(path)).run()
    n_lines = len(path.read_text().splitlines())
    results = Results(path)
    Comparison(form, HERE, tmp_path, results).run()
    assert len(path.read_text().splitlines()) == n_lines
    figures = Figures(results)
    assert figures.failures() == []
    hot = {each.contender: each for each in figures.hot("digits", "shuffled")}
    assert hot.keys() == set(HERE) - {"one copy", "one batch over and over"}
    assert all(each.exact and each.gb > 0 and each.pss for each in hot.values())
    assert {name for name, each in hot.items() if not each.by_record} == {"HyperSequence, Loader, whole batches"}
    assert hot["np.take into aligned buffers"].to_limit == 1
    assert figures.hot("digits", "sequential")[0].check["neighbours"] == 1
    assert {each[0] for each in figures.writing("digits")} == {"hypersequence", "memmap"}
    assert len(figures.cold("digits", "shuffled")) == len(HERE) - 2
    assert len(figures.training("train", "digits")) == len(HERE) - 1
    report.print_tables(results)
    assert "HyperSequence, Loader into buffers" in capsys.readouterr().out
    report.render(results, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "$" not in page
    assert "784 B uint8 images" in page
    assert (tmp_path / "compare-shuffled.png").stat().st_size > 10_000


def test_who_fails_says_why(tmp_path: Path) -> None:
    with (
        RemoteWorker("one copy", Path(sys.executable), tmp_path / "log") as worker,
        pytest.raises(WorkerError, match=r"FileNotFoundError.*x\.bin"),
    ):
        worker.ask("open", name="digits", share=0.001, folder=str(tmp_path / "none"), order="sequential")
    with (
        RemoteWorker("nobody", Path(sys.executable), tmp_path / "log") as worker,
        pytest.raises(WorkerError, match="KeyError: 'nobody'"),
    ):
        worker.ask("open", name="digits", share=0.001, folder=str(tmp_path), order="sequential")


def test_changed_values_are_seen(tmp_path: Path) -> None:
    """Who gives other values than were written, or other dtypes, does not pass for equal."""
    name = "DataLoader over np.memmap, by batch, 0 workers"
    told = {"name": "pairs", "share": 0.001}
    with RemoteWorker(name, Path(sys.executable), tmp_path / "log") as worker:
        wrote = worker.ask("write", folder=str(tmp_path / "files"), seconds=9, **told)
        x = np.memmap(tmp_path / "files" / "x.bin", np.float64, "r+")
        x[: len(x) // 2] = x[: len(x) // 2].astype(np.float32)
        x.flush()
        worker.ask("open", folder=str(tmp_path / "files"), order="sequential", **told)
        seen = worker.ask("check", n_written=wrote["records"], seconds=9)
    assert seen["wrong"] > 0
    assert seen["neighbours"] == 1


def test_every_contender_has_an_environment() -> None:
    from benchmarks.compare.environments import ENVIRONMENTS

    for each in contenders().values():
        assert each.environment in ENVIRONMENTS, each.name
        assert set(each.workloads) <= set(names()), each.name

"""The comparison with other systems: its records, its workers and its page, with what is installed here."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.compare import report
from benchmarks.compare.__main__ import main
from benchmarks.compare.chosen import quickest_ways, worth_more_rounds
from benchmarks.compare.figures import LIMIT, REFERENCE, Figures
from benchmarks.compare.forms import Form
from benchmarks.compare.goals import GOALS, Outcome
from benchmarks.compare.losses import losses
from benchmarks.compare.results import Results
from benchmarks.compare.run import Comparison
from benchmarks.compare.systems import contenders
from benchmarks.compare.workers import RemoteWorker, WorkerError
from benchmarks.compare.workloads import Records, names, workload

HERE = [
    "one copy",
    "np.take into aligned buffers",
    "arrays in memory, x[numbers]",
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
    form = Form(("digits",), share=0.005, rounds=2, seconds=0.05, writes=1, cold=1, spare_nbytes=1 << 20)
    path = tmp_path / "rows.jsonl"
    Comparison(form, HERE, tmp_path, Results(path)).run()
    n_lines = len(path.read_text().splitlines())
    results = Results(path)
    Comparison(form, HERE, tmp_path, results).run()
    assert len(path.read_text().splitlines()) == n_lines
    figures = Figures(results)
    assert figures.failures() == []
    hot = {each.contender: each for each in figures.hot("digits", "shuffled")}
    assert hot.keys() == set(HERE) - {"one batch over and over"}
    assert all(each.exact and each.gb > 0 and each.pss for each in hot.values())
    assert {name for name, each in hot.items() if not each.by_record} == {
        "one copy",
        "HyperSequence, Loader, whole batches",
    }
    # It makes orders, which do not count where others are compared with it.
    assert 0.5 <= hot["np.take into aligned buffers"].to_limit <= 1
    assert figures.hot("digits", "sequential")[0].check["neighbours"] == 1
    assert {each.files for each in figures.writing("digits")} == {"hypersequence", "memmap"}
    assert len(figures.cold("digits", "shuffled")) == len(HERE) - 2  # in memory, and there to train on
    trained = {each.contender: each for each in figures.training("train", "digits")}
    assert trained.keys() == set(HERE) - {"one copy"}
    assert trained["arrays in memory, x[numbers]"].lost == 0
    report.print_tables(results)
    assert "HyperSequence, Loader into buffers" in capsys.readouterr().out
    report.render(results, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "$" not in page
    assert "784 B uint8 images" in page
    from_disk = page.partition("**Shuffled, files on disk.**")[2].partition("**Sequential")[0]
    (line,) = [line for line in from_disk.splitlines() if line.startswith("| HyperSequence, Loader into buffers |")]
    assert line.endswith("| records |")
    assert (tmp_path / "compare-shuffled.png").stat().st_size > 10_000
    assert (tmp_path / "compare-disk.png").stat().st_size > 10_000
    results.forget(["digits"])
    assert Figures(Results(path)).workloads() == []
    assert Results(path).find(stage="environment", contender="peers") is not None


def test_one_order_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("benchmarks.compare.run.python_of", lambda name, folder: Path(sys.executable))
    form = Form(("features",), share=0.005, rounds=1, seconds=0.05, writes=1, cold=0, orders=("shuffled",))
    results = Results(tmp_path / "rows.jsonl")
    Comparison(form, ["one copy", REFERENCE], tmp_path, results).run()
    assert {row["order"] for row in results.rows if row["stage"] == "hot"} == {"shuffled"}
    report.print_tables(results)
    told = capsys.readouterr().out
    assert "shuffled, files in memory" in told
    assert "sequential" not in told


def test_files_that_are_not_whole_say_nothing_of_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow writer had no time for would have left a file that fits."""
    monkeypatch.setattr("benchmarks.compare.run.python_of", lambda name, folder: Path(sys.executable))
    results = Results(tmp_path / "rows.jsonl")
    results.add(stage="write", workload="large-pairs", contender="memmap", round=0, records=100, seconds=9)
    form = Form(("large-pairs",), share=0.001, rounds=1, seconds=0.05, writes=1, cold=1, spare_nbytes=1 << 20)
    Comparison(form, ["one copy"], tmp_path, results).run()
    assert {row["stage"] for row in results.rows} == {"environment", "machine", "write", "write directly", "failed"}
    (failed,) = Figures(results).failures()
    assert failed["contender"] == "one copy"
    assert failed["error"] == "only 100 of 2,048 records were written in time"


def test_ctrl_c_keeps_what_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says how to go on, and who goes on measures the rest only."""
    path = tmp_path / "rows.jsonl"
    told = ["--workload", "features", "--order", "shuffled", "--contender"]
    told += [REFERENCE, "--share", "0.005", "--rounds", "1", "--results", str(path), "--where", str(tmp_path)]
    monkeypatch.setattr("benchmarks.compare.run.python_of", lambda name, folder: Path(sys.executable))
    monkeypatch.setattr(sys, "argv", ["compare", *told])
    for again in (["--again"], []):
        with monkeypatch.context() as patched, pytest.raises(SystemExit) as stopped:
            patched.setattr(sys, "argv", ["compare", *told, *again])
            patched.setattr(Comparison, "_hot", lambda *_: signal.raise_signal(signal.SIGINT))
            main()
        assert stopped.value.code == 130
        kept = path.read_text()
        what_then = "the same command goes on" + (", without --again" if again else "")
        error = capsys.readouterr().err
        assert error.endswith(f"stopped with {len(kept.splitlines())} rows in {path}; {what_then}\n")
    main()
    assert path.read_text().startswith(kept)
    added = [row["stage"] for row in Results(path).rows][len(kept.splitlines()) :]
    assert {"hot", "memory"} <= set(added)
    assert {"write", "check", "failed"}.isdisjoint(added)


def test_who_has_more_rounds_from_disk() -> None:
    """By the share of the disk's rate at that time; a limit holds nobody back, and each system has its quickest.

    Where records are shuffled more slowly than anything else, the quickest of those that do has more rounds too.
    """
    rates = {
        "one copy": (4.0, 1.0),
        "np.take into aligned buffers": (0.01, 1.0),
        REFERENCE: (1.0, 1.0),
        f"{REFERENCE}, by record": (0.9, 1.0),
        "HyperSequence, plain sequence": (0.8, 1.0),
        "HyperSequence, as_torch": (0.7, 1.0),
        "LMDB, by hand into aligned buffers": (0.2, 0.5),
        "LMDB, DataLoader by record, 0 workers": (0.2, 0.6),
        "TFRecord, tf.data": (0.2, 1.0),
    }
    rows = {
        who: {"records": rate, "seconds": 1, "disk_nbytes": of_disk, "disk_seconds": 1}
        for who, (rate, of_disk) in rates.items()
    }
    limits = {"one copy", "np.take into aligned buffers"}
    quick = {
        REFERENCE,
        f"{REFERENCE}, by record",
        "HyperSequence, plain sequence",
        "LMDB, by hand into aligned buffers",
    }
    of_records = {"LMDB, DataLoader by record, 0 workers", "TFRecord, tf.data"}
    assert worth_more_rounds(rows, limits) == limits | quick
    assert worth_more_rounds(rows, limits, of_records) == limits | quick | of_records
    assert worth_more_rounds({}, set()) == set()


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


# --- rows that were made up ------------------------------------------------------------------------------------------


def rows(path: Path, *given: dict[str, Any]) -> Figures:
    results = Results(path)
    for row in given:
        results.add(**{"workload": "pairs", "order": "shuffled", **row})
    return Figures(results)


def passes(
    contender: str, kind: str, gb: list[float], group: str = "g", by_record: bool = True
) -> list[dict[str, Any]]:
    """A contender's check, and its rounds at so many GB/s."""
    nbytes = workload("pairs").record_nbytes
    check = {"neighbours": 0.0, "reach": 0.99, "wrong": 0, "dtypes": [], "kind": kind, "by_record": by_record}
    common = {"contender": contender, "group": group, "stage": "hot", "mode": "consumed", "seconds": 1.0}
    used = {"first_s": 0.1, "cpu_s": 1.0, "cpu_records": 1e9 / nbytes}
    return [
        {"stage": "check", "contender": contender, **check},
        *({**common, **used, "round": n, "records": rate * 1e9 / nbytes} for n, rate in enumerate(gb)),
    ]


def test_others_are_compared_in_the_same_rounds(tmp_path: Path) -> None:
    """Who was measured in a quick hour is not ahead of who was nearer to ours in a slow one."""
    figures = rows(
        tmp_path / "rows",
        *passes(REFERENCE, "loader", [10, 10], "quick"),
        *passes("Quick, loader", "loader", [4, 4], "quick"),
        *passes(REFERENCE, "loader", [4, 4], "slow")[1:],
        *passes("Slow, loader", "loader", [2, 2], "slow"),
        *passes("Slow, by hand", "loop", [3, 3], "slow"),
        *passes("Slow, not records", "loader", [3.9, 3.9], "slow", by_record=False),
    )
    best = figures.best("pairs", "shuffled", lambda each: each.is_loader)
    assert best is not None and (best.contender, best.to_ours) == ("Slow, loader", 0.5)
    goals = {goal.title: goal.outcome(figures, "pairs") for goal in GOALS}
    assert goals["... times the best loader of others: 2"] == Outcome(2.0, True, "Slow, loader")
    by_hand = goals["... times the best loop by hand: 1"]
    assert by_hand.reached and by_hand.against == "Slow, by hand"
    assert losses(figures) == "Nowhere in this run."
    assert quickest_ways(figures)[-2:] == ["Slow, loader", "Slow, by hand"]


def test_losses_are_told(tmp_path: Path) -> None:
    figures = rows(
        tmp_path / "rows",
        *passes(REFERENCE, "loader", [4, 4, 8]),
        *passes(LIMIT["shuffled"], "limit", [8, 8, 8]),
        *passes("Other, loader", "loader", [6, 6, 6]),
        *passes("Third, whole", "loader", [9, 9, 9], by_record=False),
        *(
            {
                "stage": "write",
                "contender": who,
                "round": 0,
                "records": 10_000_000,
                "seconds": took,
                "disk_nbytes": 1,
                "order": None,
            }
            for who, took in (("memmap", 1), ("hypersequence", 2), ("other", 1.5))
        ),
        *(
            {
                "stage": "cold",
                "order": order,
                "contender": who,
                "round": number,
                "records": n,
                "seconds": 1,
                "disk_nbytes": 1e6,
                "disk_seconds": 1,
                **({"copied_seconds": 2} if number else {}),
                "first_s": 0.1,
                "cpu_s": 1,
                "cpu_records": n,
            }
            for order, who, n in (
                ("shuffled", REFERENCE, 400),
                ("shuffled", "HyperSequence, plain sequence", 450),
                ("shuffled", "Other, loader", 500),
                ("sequential", REFERENCE, 400),
                ("sequential", "HyperSequence, plain sequence", 450),
                ("sequential", "Other, loader", 500),
            )
            for number in range(2)
        ),
    )
    goals = {goal.title: goal.outcome(figures, "pairs") for goal in GOALS}
    assert goals["shuffled from memory, of the limit: 0.85"] == Outcome(0.5, False)
    assert not goals["... times the best loader of others: 2"].reached
    assert goals["... times the best of others: 1"] == Outcome(0.8, False, "Other, loader")
    assert goals["writing, of plain files: 0.85"] == Outcome(0.5, False)
    ours, _, other = sorted(figures.cold("pairs", "shuffled"), key=lambda each: each.gb)
    assert ours.to_copied == pytest.approx(2 * ours.ratio) and other.to_copied == pytest.approx(2.5 * ours.ratio)
    assert goals["Keras on JAX, of arrays in memory: 0.97"].value is None
    told = losses(figures)
    assert "from memory: Other, loader, 1.50 times ours." in told
    assert "Third, whole, which shuffles no records, 2.25 times ours." in told
    beside = "Other, loader, 0.560 of the disk (1.12 with one copy); ours 0.448 of the disk (0.896 with one copy)"
    assert f"shuffled, from disk: {beside}." in told
    assert f"sequential, from disk: {beside}; our plain sequence 0.504." in told
    assert "writing: other" in told and "writing: memmap" in told


def test_the_limit_has_no_orders_to_make(tmp_path: Path) -> None:
    """Of a second over two epochs a quarter went to an order; what is compared with did without."""
    batch, nbytes = workload("pairs").batch, workload("pairs").record_nbytes
    [check, *rounds] = passes(LIMIT["shuffled"], "limit", [4.0])
    n_records = rounds[0]["records"] / 1.5 // batch * batch
    first_s = 0.25 + batch * nbytes / 4e9
    written = {
        "stage": "write",
        "contender": "memmap",
        "round": 0,
        "records": n_records,
        "seconds": 1,
        "disk_nbytes": 1,
    }
    [check_ours, *ours] = passes(REFERENCE, "loader", [4.0])
    figures = rows(
        tmp_path / "rows", check, check_ours, *ours, {**rounds[0], "first_s": first_s}, {**written, "order": None}
    )
    assert figures.ours("pairs", "shuffled").to_limit == pytest.approx(0.75)


def test_a_line_that_was_cut_off_harms_no_other(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    Results(path).add(stage="a", workload="x")
    with path.open("a") as file:
        file.write('{"stage": "cut')
    results = Results(path, commit="abc")
    results.add(stage="b", workload="y")
    again = Results(path)
    assert [(row["stage"], row.get("commit")) for row in again.rows] == [("a", None), ("b", "abc")]


@pytest.mark.parametrize(
    "text", ["no row\n", '{"stage": "a"}\n[1]\n', '{"name": 1}\n', "a page", '{"stage": "a"}\na page']
)
def test_a_file_of_something_else_is_refused_and_stays(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rows"
    path.write_text(text)
    for arguments in (["--render"], ["--workload", "features"]):
        monkeypatch.setattr(
            sys, "argv", ["compare", *arguments, "--results", str(path), "--where", str(tmp_path / "where")]
        )
        with pytest.raises(SystemExit):
            main()
        error = capsys.readouterr().err
        assert f"{path}, " in error and "no row of results, and nothing was changed" in error
        assert path.read_text() == text


def test_who_failed_and_then_did_not_is_no_failure(tmp_path: Path) -> None:
    figures = rows(
        tmp_path / "rows",
        {"stage": "failed", "at": "write", "contender": "one", "error": "no room", "order": None},
        {"stage": "failed", "at": "write", "contender": "other", "error": "no room", "order": None},
        {"stage": "write", "contender": "one", "order": None},
    )
    assert [row["contender"] for row in figures.failures()] == ["other"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows")
def test_a_worker_that_ends_tells_why(tmp_path: Path) -> None:
    """What others said in the same file before is not its reason."""
    log = tmp_path / "log.txt"
    log.write_text("somebody else's warning\n")
    with RemoteWorker("nobody", Path(sys.executable), log) as unknown, pytest.raises(WorkerError) as raised:
        unknown.ask("open", within=60)
    assert str(raised.value).endswith("KeyError: 'nobody'")
    with RemoteWorker(REFERENCE, Path(sys.executable), log) as killed:
        os.kill(killed.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match=r"SIGKILL, as where no memory is left$"):
            killed.ask("open", within=60)


@pytest.mark.parametrize("arguments", [["--share", "0"], ["--rounds", "-1"]], ids=" ".join)
def test_nothing_is_not_measured(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["compare", *arguments])
    with pytest.raises(SystemExit):
        main()
    assert f"{arguments[1]} is not above 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--cold", "-1"], "--cold: -1 is less than 0"), (["--contender", "one copy, two threads"], "--order sequential")],
    ids=["rounds from disk", "order"],
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    where = tmp_path / "where"
    monkeypatch.setattr(sys, "argv", ["compare", "--where", str(where), *arguments])
    with pytest.raises(SystemExit):
        main()
    assert told in capsys.readouterr().err
    assert not where.exists()

"""bench: figures have their structure, sentences follow from figures, and what cannot be measured is said.

No test asserts how fast anything is.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hypersequence as hs
from hypersequence.report.advice import BenchRow, advise, recommended
from hypersequence.report.feeding import Bench, bench
from hypersequence.report.limits import (
    DiskLimit,
    MemoryLimit,
    _cached_share,
    can_forget,
    parts_of,
)
from test_cli import hsq
from test_joined import write_legacy

ORDERS = ["in order", "batch", "window", "record"]
QUICK: dict[str, Any] = {"seconds": 0.02, "rounds": 2, "threads": [0, 1]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """1,000 records of 1,032 bytes, 1 MiB in several blocks."""
    return write(tmp_path / "train.hsq")


def write(path: Path, n: int = 1000) -> Path:
    with hs.HyperSequenceWriter(path, batch_size=16, block_nbytes=1 << 17) as writer:
        writer.extend(np.random.default_rng(0).random((n, 256), np.float32), np.arange(n))
    return path


def places_of(path: Path) -> list[str]:
    """Where a file can be measured from: not from disk if that is memory, or the system is none that drops files."""
    if sys.platform != "linux":
        return ["memory"]
    return ["memory", "disk"] if can_forget([str(path)]) else ["memory"]


def check(found: Bench, places: list[str], threads: list[int]) -> None:
    """Every row is there, and says something that can be true."""
    assert [(row.place, row.order, row.threads) for row in found.rows] == [
        (place, order, n) for place in places for order in ORDERS for n in threads
    ]
    for row in found.rows:
        figures = row.nbytes_per_s, row.records_per_s, row.first_s, row.limit_nbytes_per_s, row.ratio
        assert all(math.isfinite(figure) and figure > 0 for figure in figures), row
        assert row.busy >= 0
        assert row.nbytes_per_s == pytest.approx(row.records_per_s * found.record_nbytes)
        if row.place == "memory":
            assert row.limit == ("one copy" if row.order in ("in order", "batch") else "np.take")
        else:
            assert row.limit == "disk"
    assert [table.title.split(":")[0].split(" (")[0] for table in found.tables()] == [f"From {p}" for p in places]
    assert found.verdict in str(found)
    assert all(note in str(found) for note in found.notes)


# --- the whole of it -------------------------------------------------------------------------------------------------


def test_every_order_is_measured_from_memory_and_from_disk(path: Path) -> None:
    found = bench(path, **QUICK)
    places = places_of(path)
    check(found, places, [0, 1])
    assert found.paths == (str(path),)
    assert (found.n_records, found.record_nbytes, found.batch_size) == (1000, 1032, 16)
    assert found.verdict.startswith("From memory")
    assert ("From disk: all of it comes in" in found.verdict) == ("disk" in places)
    assert any("1007.8 KiB is little" in note for note in found.notes)
    assert ("first batch" in str(found)) == ("disk" in places)
    assert found._repr_html_().startswith("<pre>")
    with hs.open(path) as seq:
        assert [int(y[0]) for _, y in seq] == list(range(0, 1000, 16))


def test_several_files_are_measured_as_one(path: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "train2.hsq", 300)
    for paths in ([path, other], str(tmp_path / "*.hsq")):
        found = bench(paths, cold=False, batch_size=50, seconds=0.01, rounds=1, threads=[2, 0, 2])
        check(found, ["memory"], [0, 2])
        assert found.paths == (str(path), str(other))
        assert (found.n_records, found.batch_size) == (1300, 50)
        assert "and 1 more: 1,300 records" in str(found)


def test_files_of_old_versions_are_measured(tmp_path: Path) -> None:
    columns = [np.random.default_rng(1).random((40, 3), np.float32), np.arange(40)]
    old = write_legacy(tmp_path / "old.hsq", columns, 8)
    found = bench(old, seconds=0.01, rounds=1, threads=[0, 1])
    check(found, places_of(old), [0, 1])
    assert (found.n_records, found.record_nbytes, found.batch_size) == (40, 20, 8)


@pytest.mark.parametrize("n", [1, 7])
def test_the_smallest_files_are_measured(n: int, tmp_path: Path) -> None:
    tiny = write(tmp_path / "tiny.hsq", n)
    found = bench(tiny, seconds=0.01, rounds=1, threads=[0, 2], batch_size=100)
    assert found.batch_size == n  # a batch has no more records than there are
    check(found, places_of(tiny), [0, 2])


def test_nothing_to_measure_is_an_error(path: Path, tmp_path: Path) -> None:
    with hs.HyperSequenceWriter(tmp_path / "empty.hsq", schema=hs.Schema(hs.Field("float32"))):
        pass
    with hs.HyperSequenceWriter(tmp_path / "void.hsq") as writer:
        writer.append(np.zeros((0, 3)))
    with pytest.raises(hs.ArgumentError, match=r"empty\.hsq: there are no records, so there is nothing to measure"):
        bench(tmp_path / "empty.hsq")
    with pytest.raises(hs.ArgumentError, match=r"void\.hsq: records have no bytes"):
        bench(tmp_path / "void.hsq")
    with pytest.raises(FileNotFoundError):
        bench(tmp_path / "missing.hsq")
    for wrong in ({"seconds": 0}, {"rounds": 0}, {"threads": []}, {"threads": [-1]}, {"batch_size": 0}):
        with pytest.raises(hs.ArgumentError):
            bench(path, **wrong)


def test_a_file_that_stays_in_memory_is_not_called_cold(path: Path) -> None:
    with hs.open(path) as seq:
        assert sum(len(y) for _, y in seq if y.sum() >= 0) == 1000  # touched, so that its pages stay mapped
        assert sum(float(x.sum()) for x, _ in seq) > 0
        found = bench(path, **QUICK)
    check(found, ["memory"], [0, 1])
    assert any(note.startswith("From disk nothing was measured") for note in found.notes)
    assert "From disk" not in found.verdict


def test_damage_is_an_error_and_not_measured(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(hs.ChecksumError):
        bench(path, **QUICK)


# --- data larger than memory -----------------------------------------------------------------------------------------


def forge(monkeypatch: pytest.MonkeyPatch, name: str, nbytes: int) -> None:
    """Have a machine with less memory."""
    monkeypatch.setattr(sys.modules["hypersequence.report.feeding"], name, lambda: nbytes)


def test_of_large_data_a_part_is_measured_from_memory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["hypersequence.report.feeding"], "_HOT_NBYTES", 100_000)
    found = bench(path, cold=False, **QUICK)
    check(found, ["memory"], [0, 1])
    assert "From memory, the first 112.9 KiB were measured." in found.notes
    assert found.n_records == 1000


def test_what_does_not_fit_into_memory_is_measured_from_disk_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forge(monkeypatch, "available_nbytes", 100_000)
    forge(monkeypatch, "reasonable_nbytes", 100_000)
    if "disk" not in places_of(path):
        with pytest.raises(hs.ArgumentError, match=r"nothing could be measured\. "):
            bench(path, **QUICK)
        return
    found = bench(path, **QUICK)
    check(found, ["disk"], [0, 1])
    assert found.available_nbytes == 100_000
    assert any("do not fit into the memory that is free (97.7 KiB)" in note for note in found.notes)
    assert any("From disk, the first 32.2 KiB" in note for note in found.notes)


def test_what_a_shuffle_of_all_records_would_come_to_is_reckoned(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it would pass over everything for a part of the records."""
    for name in ("stretches.allowed_nbytes", "sweep.available_nbytes"):
        module, function = name.split(".")
        monkeypatch.setattr(sys.modules[f"hypersequence.loader.{module}"], function, lambda: 1_000_000)
    found = bench(path, **QUICK)
    if "disk" not in places_of(path):
        return
    assert [row.order for row in found.rows if row.place == "disk" and row.order == "record"] == []
    assert [row.order for row in found.rows if row.place == "memory" and row.order == "record"] != []
    [note] = [note for note in found.notes if "shuffle by record" in note]
    assert note in str(found)
    assert ["by record" in str(table) for table in found.tables()] == [True, False]
    assert "reads all 1007.8 KiB, so that 22% of the disk's rate are the most it comes to" in note


def test_nothing_is_left_to_measure_where_it_does_not_fit_and_may_not_be_cold(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(monkeypatch, "available_nbytes", 100_000)
    with pytest.raises(hs.ArgumentError, match=r"nothing could be measured\. The records .* do not fit"):
        bench(path, cold=False, **QUICK)


# --- what the machine can do -----------------------------------------------------------------------------------------


def test_parts_hold_the_records_that_they_are_to_hold(path: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "train2.hsq", 300)
    with hs.open([path, other]) as seq:
        for n_records in (1, 16, 500, 1000, 1001, 1300):
            parts = parts_of(seq._source, n_records)
            assert sum(nbytes for _, _, nbytes in parts) >= n_records * 1032
            assert [p for p, _, _ in parts][-1] == str(path if n_records <= 1000 else other)
            for name, offset, nbytes in parts:
                assert offset > 0
                assert offset + nbytes <= Path(name).stat().st_size


def test_limits_are_measured_on_the_files_own_pages(path: Path) -> None:
    with hs.open(path) as seq:
        for batch_size in (1, 16, 5000):
            limit = MemoryLimit(seq._source, 1000, batch_size)
            assert limit.copy(0.001) > 0
            assert limit.gather(0.001) > 0
            assert limit._buffer.nbytes == min(batch_size, 1000) * 1032
            assert limit._buffer.ctypes.data % 64 == 0 or batch_size == 1
        assert limit._items.tobytes() == path.read_bytes()[4096 : 4096 + 1000 * 1032]
        disk = DiskLimit(parts_of(seq._source, 1000))
        assert disk.rate() > 0


def test_files_in_the_page_cache_are_known_to_be(path: Path) -> None:
    if "disk" in places_of(path):
        assert _cached_share(str(path)) < 0.1
    path.read_bytes()
    assert sys.platform != "linux" or _cached_share(str(path)) == 1


def test_a_disk_that_is_memory_is_no_disk() -> None:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        path = write(Path(folder) / "train.hsq")
        found = bench(path, **QUICK)
        check(found, ["memory"] if memory.is_dir() else places_of(path), [0, 1])


# --- from figures to sentences ---------------------------------------------------------------------------------------


def row(order: str, threads: int, rate: float, ratio: float, *, place: str = "disk", **more: Any) -> BenchRow:
    limit = "disk" if place == "disk" else "np.take"
    facts = {"first_s": 0.1, "busy": 1.0, **more}
    return BenchRow(
        place, order, threads, rate, rate / 1000, limit=limit, limit_nbytes_per_s=rate / ratio, ratio=ratio, **facts
    )


FACTS: dict[str, Any] = {
    "n_records": 10**6,
    "record_nbytes": 1000,
    "batch_size": 256,
    "block_nbytes": 4 << 20,
    "default_threads": 1,
    "n_processors": 4,
    "window_nbytes": 16 << 20,
    "fits": True,
}

SENTENCES: dict[str, tuple[list[BenchRow], dict[str, Any], list[str], list[str]]] = {
    "memory, near its limit": (
        [row("window", 0, 8e9, 0.8, place="memory"), row("window", 1, 9.3e9, 0.93, place="memory")],
        {},
        [
            "From memory",
            "9.3 GB/s with threads=1 (the default)",
            "near the limit (93% of one thread's np.take)",
            "fewer than 9,300,000 records/s need not wait",
        ],
        ["From disk", "small", "by='batch'"],
    ),
    "memory, small batches": (
        [row("window", 1, 1.2e9, 0.3, place="memory")],
        {"batch_size": 16},
        [
            "1.2 GB/s",
            "30% of one thread's np.take",
            "batches of 15.6 KiB are small, larger ones (rebatch(512)) cost less",
        ],
        ["near the limit"],
    ),
    "memory, hand-overs too dear": (
        [row("window", 0, 2e9, 0.9, place="memory"), row("window", 1, 1e9, 0.45, place="memory")],
        {},
        ["2 GB/s with threads=0", "a batch costs each step of the training 128 µs, and with threads it takes longer"],
        ["need not wait"],
    ),
    "memory, and the processor sets the pace": (
        [row("window", 1, 5e9, 0.5, place="memory")],
        {},
        ["50% of one thread's np.take", "the processor sets the pace, not the memory"],
        ["near the limit", "small"],
    ),
    "memory, whole batches much faster": (
        [row("window", 1, 2e9, 0.9, place="memory"), row("batch", 1, 11e9, 0.9, place="memory")],
        {},
        ["by='batch' gives 11 GB/s, for records that were in random order when they were written"],
        [],
    ),
    "the disk sets the pace": (
        [row("window", 0, 1.1e9, 0.9), row("window", 1, 1.16e9, 0.97), row("in order", 1, 1.18e9, 0.98)],
        {},
        [
            "From disk: the disk gives 1.2 GB/s and the default shuffle takes 97% of it, 1,160,000 records/s",
            "threads=1 (the default): more threads will not help; a faster disk or smaller records",
        ],
        ["every epoch", "first batch", "by='record'"],
    ),
    "more than the disk's limit is all of it": ([row("window", 1, 1.5e9, 1.3)], {}, ["takes 100% of it"], ["130%"]),
    "the disk is slow at jumping": (
        [row("window", 1, 40e6, 0.3), row("in order", 1, 130e6, 0.95), row("record", 1, 2e6, 0.01)],
        {"fits": False, "block_nbytes": 64 << 10},
        [
            "where every epoch begins, since the data do not fit into free memory",
            "133 MB/s in a row",
            "takes 30% of it",
            "jumps from block to block",
            "in windows of 16.0 MiB: larger ones (window=) jump less",
            "so do larger blocks, which have 64.0 KiB here",
            "by='record' gets 2% of the disk's rate, so keep to windows",
        ],
        ["more threads"],
    ),
    "jumping costs nothing where the processors have no rest": (
        [row("window", 1, 0.6e9, 0.6, busy=1.9), row("in order", 1, 0.85e9, 0.85, busy=1.9)],
        {},
        ["the processor sets the pace", "smaller records (a narrower type) will"],
        ["jump", "more threads"],
    ),
    "memory, few records": (
        [row("window", 1, 1e8, 0.1, place="memory")],
        {"n_records": 5000, "record_nbytes": 8, "batch_size": 16},
        ["the processor sets the pace"],
        ["rebatch"],
    ),
    "memory, and more threads may help": (
        [row("window", n, rate, rate / 15e9, place="memory") for n, rate in enumerate((2e9, 3e9, 6e9))],
        {"n_processors": 8, "default_threads": 4},
        ["with threads=2, 40%", "more threads than 2 may help"],
        [],
    ),
    "memory, records of many seconds": (
        [BenchRow("memory", "window", 1, 4.2e9, 0.42, 0.1, "np.take", 5e9, 0.9, 1.0)],
        {"record_nbytes": 10**10, "n_records": 3},
        ["fewer than 0.42 records/s"],
        [],
    ),
    "a little below in order is no jumping": (
        [row("window", 1, 0.78e9, 0.78), row("in order", 1, 0.82e9, 0.82)],
        {},
        ["the disk could give 1 GB/s", "the processor sets the pace"],
        ["jumps"],
    ),
    "the processor sets the pace, and more threads may help": (
        [row("window", 0, 1e9, 0.2), row("window", 1, 1.5e9, 0.3), row("window", 2, 2e9, 0.4)],
        {},
        [
            "the disk could give 5 GB/s",
            "takes 40% of it",
            "with threads=2:",
            "the processor sets the pace",
            "more threads than 2 may help",
        ],
        ["will not help"],
    ),
    "the processor sets the pace, and small batches": (
        [row("window", 1, 1e9, 0.3)],
        {"batch_size": 8},
        ["the processor sets the pace", "batches of 7.8 KiB are small: larger ones cost less"],
        [],
    ),
    "the processor sets the pace, whatever is done": (
        [row("window", 1, 1e9, 0.3), row("window", 2, 1e9, 0.3)],
        {},
        ["more threads will not help, smaller records (a narrower type) will"],
        ["may help"],
    ),
    "neither disk nor processor": (
        [row("window", 1, 1e8, 0.1, busy=0.2)],
        {},
        ["with 20% of a processor: neither sets the pace", "such as a network"],
        ["the processor sets the pace"],
    ),
    "the first batch is late": (
        [row("window", 1, 1e8, 0.95, first_s=5.2)],
        {},
        ["the first batch comes after some 5.2 s, sooner with a smaller window="],
        [],
    ),
    "small data": (
        [row("window", 0, 1e6, 0.1), row("window", 1, 1e5, 0.1)],
        {"n_records": 1000},
        ["From disk: all of it comes in 10.0 s, once."],
        ["sets the pace"],
    ),
}


@pytest.mark.parametrize("name", list(SENTENCES))
def test_the_sentence_follows_from_the_figures(name: str) -> None:
    rows, facts, expected, unexpected = SENTENCES[name]
    text = advise(rows, **FACTS | facts)
    for part in expected:
        assert part in text
    for part in unexpected:
        assert part not in text
    assert text.endswith(".")
    assert text.count(". ") == 0, "one sentence for one place"


def test_memory_and_disk_have_a_sentence_each() -> None:
    text = advise([row("window", 1, 9e9, 0.9, place="memory"), row("window", 1, 1e9, 0.9)], **FACTS)
    assert text.startswith("From memory")
    assert ". From disk: the disk gives 1.11 GB/s" in text


def test_the_default_threads_are_recommended_unless_others_are_faster() -> None:
    def rates(place: str, *each: float) -> list[BenchRow]:
        return [row("window", n, rate, 0.5, place=place) for n, rate in enumerate(each)]

    for place, figures, expected in (
        ("memory", (5.0, 5.0, 5.1), 1),  # the same, but for noise
        ("memory", (5.0, 3.0, 5.0), 2),
        ("memory", (6.0, 5.0, 5.0), 1),  # threads work behind the training
        ("memory", (9.0, 5.0, 4.0), 0),
        ("disk", (9.0, 5.0, 4.0), 1),  # without threads nobody reads ahead
        ("disk", (9.0,), 0),
        ("memory", (9.0, 9.0, 9.0, 9.0), 1),
    ):
        assert recommended(rates(place, *figures), 1).threads == expected, (place, figures)
    assert recommended(rates("memory", 9.0, 9.0, 9.0, 9.0), 3).threads == 3


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_tables_and_a_verdict(path: Path) -> None:
    shown = hsq("bench", path, "--seconds", 0.02, "--rounds", 1, "--threads", "0,1")
    assert shown.returncode == 0, shown.stderr
    for expected in ("1,000 records of 1.0 KiB", "threads=0", "by window", "np.take", "From memory, where later"):
        assert expected in shown.stdout
    assert shown.stderr == ""


def test_the_command_prints_json_and_nothing_else(path: Path) -> None:
    shown = hsq(
        "bench", path, "--seconds", 0.02, "--rounds", 1, "--threads", 0, "--no-cold", "--json", "--batch-size", 8
    )
    assert shown.returncode == 0, shown.stderr
    found = json.loads(shown.stdout)
    assert found["batch_size"] == 8
    assert [(each["place"], each["order"]) for each in found["rows"]] == [("memory", order) for order in ORDERS]
    assert found["verdict"].startswith("From memory")


def test_mistakes_are_explained(path: Path, tmp_path: Path) -> None:
    for arguments, code, expected in (
        ((path, "--threads", "one"), 2, "give numbers, separated by commas"),
        ((path, "--seconds", 0), 2, "seconds: expected more than 0"),
        ((tmp_path / "missing.hsq",), 2, "no such file"),
    ):
        shown = hsq("bench", *arguments)
        assert shown.returncode == code
        assert expected in shown.stderr
        assert "Traceback" not in shown.stderr

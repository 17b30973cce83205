"""How records are found: every path of the gather, and how much is checked for it."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import hypersequence as hs
from hypersequence.source import FileSource
from hypersequence.source.verify import RunChecker


@pytest.mark.parametrize("use_mmap", [True, False], ids=["mmap", "pread"])
@pytest.mark.parametrize(
    "sizes",
    [(1,), (64, 8), (784, 8), (999, 1000, 1001), (65_536, 3), (65_537, 4), (200_000, 65_535, 8)],
    ids=str,
)
def test_records_of_all_sizes_are_gathered_right(tmp_path: Path, sizes: tuple[int, ...], use_mmap: bool) -> None:
    """Small records whose bytes divide the stride, small ones that do not, large ones: each goes its own way."""
    n = 300 if max(sizes) < 10_000 else 50
    rng = np.random.default_rng(0)
    fields = tuple(rng.integers(0, 256, (n, size), np.uint8) for size in sizes)
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 3, block_nbytes=9 * sum(sizes)) as writer:
        writer.extend(fields)
    with hs.HyperSequenceFile(tmp_path / "a.hsq", use_mmap=use_mmap) as seq:
        assert seq._source.files()[0].stored.n_blocks > 4
        order = rng.permutation(n)
        for size in (1, 7, n):
            at = 0
            for (inputs,) in seq.select(order).rebatch(size):
                found = inputs if isinstance(inputs, tuple) else (inputs,)
                for array, field in zip(found, fields, strict=True):
                    assert np.array_equal(array, field[order[at : at + size]])
                at += size
        across = seq.rebatch(n)[0][0]
        for array, field in zip(across if isinstance(across, tuple) else (across,), fields, strict=True):
            assert np.array_equal(array, field)


def test_record_numbers_may_have_any_shape(numbered: Path) -> None:
    """Several records as one sample will need that; the gather is ready for it."""
    with hs.HyperSequenceFile(numbered) as seq:
        windows = np.arange(90)[:, None] + np.arange(4)
        images, labels = seq._source.read(windows, (0, 1))
        assert np.array_equal(labels, windows)
        assert images.shape == (90, 4, 3, 5)
        assert np.array_equal(images[:, :, 0, 0], windows)


def test_read_ahead_asks_once_for_what_lies_together(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[range] = []
    monkeypatch.setattr(FileSource, "prefetch", lambda source, numbers, chosen: asked.append(numbers))
    with hs.HyperSequenceFile(numbered) as seq:
        for batch in hs.FetchingHyperSequence(seq, max_prefetch=3):
            assert len(batch) == 2
        assert asked == [range(i * 8, min(i * 8 + 8, 103)) for i in range(1, 13)]
        asked.clear()
        list(hs.FetchingHyperSequence(seq.shuffled(1, by="record")))
        assert asked == []


class Counter:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n = 0
        original = RunChecker._check

        def counting(checker: RunChecker, column: int, run: int) -> None:
            self.n += 1
            original(checker, column, run)

        monkeypatch.setattr(RunChecker, "_check", counting)


def test_a_random_record_costs_one_checksum_run_a_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with hs.HyperSequenceWriter(tmp_path / "a.hsq", 16) as writer:
        writer.extend(np.zeros((300_000, 128)))
    checks = Counter(monkeypatch)
    with hs.HyperSequenceFile(tmp_path / "a.hsq") as seq:
        picked = np.random.default_rng(0).integers(0, 300_000, 256)
        seq.records[picked]
        assert checks.n == len(np.unique(picked // 256)) <= 256  # 256 records of 1 KiB are one run
        seq.records[picked]
        assert checks.n == len(np.unique(picked // 256))


def test_every_run_is_checked_once_always_or_never(numbered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = Counter(monkeypatch)
    expected = {"first": (1, 1), "always": (2, 4), "never": (0, 0)}
    with hs.HyperSequenceFile(numbered) as seq:
        n_runs = 2 * seq._source.files()[0].stored.n_blocks  # small blocks: one run a field
        list(seq.rebatch(1))
        assert checks.n == n_runs
        assert seq._source.files()[0]._checker.unchecked == set()
    for verify, (once, twice) in expected.items():
        checks.n = 0
        with hs.HyperSequenceFile(numbered, verify=verify) as seq:
            list(seq)
            first = checks.n
            list(seq)
            assert (first > 0, checks.n > first) == (once > 0, twice > once)
    with pytest.raises(hs.ArgumentError, match="verify"):
        hs.HyperSequenceFile(numbered, verify="sometimes")


def test_a_handle_notices_new_damage_only_if_asked_to(numbered: Path) -> None:
    first, always = (hs.HyperSequenceFile(numbered, verify=verify) for verify in ("first", "always"))
    first[0], always[0]
    content = bytearray(numbered.read_bytes())
    at = content.index(np.full(15, 3, np.float32).tobytes())
    content[at] ^= 1
    with numbered.open("r+b") as file:
        file.write(content)  # in place, under both mappings
    first[0]
    with pytest.raises(hs.ChecksumError, match=r"numbered\.hsq: block 0, records 0 to .* field inputs"):
        always[0]
    first.close()
    always.close()


WITHOUT_FRAMEWORKS = """
import sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("jax", "keras", "matplotlib", "tensorflow", "torch"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
"""


def test_star_import_help_and_type_hints_work_without_any_framework() -> None:
    script = WITHOUT_FRAMEWORKS + textwrap.dedent("""
        import inspect, pydoc, typing
        from hypersequence import *
        import hypersequence as hs
        assert Loader is hs.Loader and "KerasSequence" not in globals()
        assert set(dir(hs)) == {*hs.__all__} | {name for name in dir(hs) if name.startswith("__")}, dir(hs)
        assert "shuffle_quality(" in pydoc.plain(pydoc.render_doc(hs))
        for name in hs.__all__:
            public = getattr(hs, name)
            members = [inspect.getattr_static(public, each) for each in dir(public)] if inspect.isclass(public) else []
            for each in [public, *(getattr(member, "__func__", getattr(member, "fget", member)) for member in members)]:
                if inspect.isclass(each) or inspect.isfunction(each):
                    typing.get_type_hints(each)
        for name in ("KerasSequence", "keras", "torch", "jax", "tensorflow"):
            try:
                getattr(hs, name)
            except hs.MissingPackageError as error:
                assert "pip install" in str(error)
            else:
                raise AssertionError(name)
    """)
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr


def test_nobody_can_take_a_format_away_from_others() -> None:
    hs.formats().clear()
    assert "npz" in hs.formats()


def test_the_public_surface_is_sorted_and_documented() -> None:
    assert list(hs.__all__) == sorted(hs.__all__)
    for name in hs.__all__:
        public = getattr(hs, name)
        assert public.__doc__, name
        if inspect.isclass(public):
            for member, value in vars(public).items():
                if not member.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                    assert inspect.getdoc(getattr(public, member)), f"{name}.{member}"

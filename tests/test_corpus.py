"""Every input that fuzzing found worth keeping, once more; and a few minutes' worth of new ones, seconds in fact."""

from __future__ import annotations

import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import LONG
from fuzz_targets import change_a_number, change_old_metadata, mend, seeds, use

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_an_input_of_the_corpus(path: Path, tmp_path: Path) -> None:
    assert 0 <= use(path.read_bytes(), tmp_path) <= 7
    assert list(tmp_path.iterdir()) == []


def test_seeds_can_be_read_and_mending_leaves_them_alone(tmp_path: Path) -> None:
    """Or fuzzing would stop at the first check."""
    folder, seed_folder = tmp_path / "use", tmp_path / "seeds"
    folder.mkdir()
    seed_folder.mkdir()
    n_worked = [use(data, folder) for data in seeds(seed_folder)]
    assert sum(n >= 4 for n in n_worked) >= len(n_worked) - 1
    golden = [path.read_bytes() for path in sorted((Path(__file__).parent / "golden").glob("*.hsq"))]
    assert all(mend(data, random.Random(0)) == data for data in golden)


@pytest.mark.parametrize("seed", range(4 * LONG))
def test_changed_inputs(tmp_path: Path, seed: int) -> None:
    """The mutations of the fuzzer without its feedback."""
    choice, n_worked, folder, seed_folder = random.Random(seed), 0, tmp_path / "use", tmp_path / "seeds"
    folder.mkdir()
    seed_folder.mkdir()
    inputs = seeds(seed_folder)

    def flip(data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(choice.choice([1, 1, 2, 5])):
            changed[choice.randrange(len(changed))] = choice.getrandbits(8)
        return bytes(changed)

    for _ in range(250):
        data = choice.choice(inputs)
        if data[-4:] == b"HSQ2":
            data = change_old_metadata(data, choice, flip)
        else:
            data = change_a_number(data, choice) if choice.random() < 0.6 else flip(data)
            data = mend(data, choice) if choice.random() < 0.85 else data
        n_worked += use(data, folder) > 0
    assert n_worked > 50


def test_in_little_memory(tmp_path: Path) -> None:
    """No input makes the reader ask for memory out of proportion: 1 GiB of address space does for all of them."""
    script = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from fuzz_targets import use
now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), now + (1 << 30)))
for path in sorted((Path(sys.argv[1]) / "corpus").iterdir()):
    use(path.read_bytes(), Path(sys.argv[2]))
print("done")
"""
    if not Path("/proc/self/statm").exists() or not hasattr(resource, "RLIMIT_AS"):
        pytest.skip("no limit on address space here")
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout == "done\n", done.stderr

"""Fuzzing of everything that reads a file: ``python fuzz/read.py FOLDER [libFuzzer's options]``.

Needs atheris, which is not among the packages of the tests. FOLDER keeps what was found to be of interest; inputs that
crash, hang or eat memory stay beside it. Four hours on one processor::

    python fuzz/read.py /tmp/corpus -max_total_time=14400 -timeout=10 -rss_limit_mb=1500 -max_len=40000

Copy every input that found something to tests/corpus, so that the tests run it from then on.
"""

from __future__ import annotations

import random
import resource
import sys
import tempfile
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

with atheris.instrument_imports(include=["hypersequence"]):
    import hypersequence.report
    import hypersequence.sequence
    import hypersequence.writer  # noqa: F401

from fuzz_targets import change_a_number, change_old_metadata, mend, seeds, use

ADDRESS_SPACE_NBYTES = 6 << 30
_folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))


def run(data: bytes) -> None:
    """One input; whatever escapes is a finding."""
    use(data, _folder)


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """Bytes changed at random, or members of structures; mostly with the checksums put right again."""
    choice = random.Random(seed)
    data = bytes(data)
    if data[-4:] == b"HSQ2" and choice.random() < 0.7:
        return change_old_metadata(data, choice, lambda meta: atheris.Mutate(meta, 4096))[:max_size]
    if choice.random() < 0.5:
        for _ in range(choice.choice([1, 1, 1, 2, 3])):
            data = change_a_number(data, choice)
    else:
        data = bytes(atheris.Mutate(data, max_size))
    return mend(data, choice)[:max_size] if choice.random() < 0.85 else data


def main() -> None:
    """Fill the folder if it is empty, and go on until somebody ends it."""
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        for number, data in enumerate(seeds(Path(tempfile.mkdtemp()))):
            (corpus / f"seed{number}").write_bytes(data)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_NBYTES, ADDRESS_SPACE_NBYTES))
    atheris.Setup(sys.argv, run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

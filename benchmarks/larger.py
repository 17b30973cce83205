"""The loader on data larger than memory: epochs in a control group with a limit. `python -m benchmarks.larger`.

Needs 2 GiB of free disk (BENCH_DIR), and the right to make control groups (root).
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

from .cold import write
from .compare.disk import forget, read_directly, remember
from .compare.limited import NoLimit, memory_limit
from .measure import RECORDS, folder, row

TOTAL_NBYTES, MEMORY_NBYTES = 2 << 30, 5 << 28
ROUNDS, EPOCHS = 3, 3
#: Orders, and what ``evict`` says of what was used.
WAYS = [
    *(("window", evict) for evict in (None, False, True)),
    *(("in order", evict) for evict in (None, False)),
    ("record", None),
]
WORKER = """
import json, os, sys, time
group, path, order, evict, size, n_epochs = json.loads(sys.argv[1])
open(os.path.join(group, "cgroup.procs"), "w").write(str(os.getpid()))
import hypersequence as hs
with hs.open(path) as seq:
    nbytes, found = os.path.getsize(path), []
    seq = seq.rebatch(size)
    loader = hs.Loader(seq if order == "in order" else seq.shuffled(1, by=order), buffers="reuse", evict=evict)
    for epoch in range(n_epochs):
        begun, used = time.perf_counter(), time.process_time()
        n_records = sum(len(labels) for _, labels in loader)
        assert n_records == seq.n_records
        seconds = time.perf_counter() - begun
        found.append((nbytes / seconds / 1e9, (time.process_time() - used) / (nbytes / 1e9)))
print(json.dumps(found))
"""


def main() -> None:
    print(
        f"{TOTAL_NBYTES >> 20} MiB in {MEMORY_NBYTES >> 20} MiB of memory; GB/s of the first epoch beside the disk "
        "(O_DIRECT), and of later ones; processor seconds a GB of later ones\n"
    )
    with folder() as where:
        row("record", "order", "evict", "disk", "first epoch", "beside the disk", "later epochs", "CPU s/GB")
        for name in ("1 KiB", "16 KiB", "600 KiB"):
            shape, size = RECORDS[name]
            files = where / name
            files.mkdir()
            path = write(files / "data.hsq", shape, TOTAL_NBYTES)
            epochs(name, path, size, WAYS)
            path.unlink()


def epochs(name: str, path: Path, size: int, ways: list[tuple[str, bool | None]]) -> None:
    found: dict[tuple[str, bool | None], list[tuple[float, list[tuple[float, float]]]]] = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way in random.sample(ways, len(ways)):
            nbytes, seconds = read_directly(path.parent)
            remember(path.parent)
            forget(path.parent)
            with memory_limit(MEMORY_NBYTES) as group:
                told = json.dumps([str(group), str(path), *way, size, EPOCHS])
                done = subprocess.run([sys.executable, "-c", WORKER, told], check=True, capture_output=True, text=True)
            found[way].append((nbytes / seconds / 1e9, json.loads(done.stdout)))
    for (order, evict), rounds in found.items():
        later = [epoch for _, rows in rounds for epoch in rows[1:]]
        row(
            name,
            order,
            str(evict),
            f"{statistics.median(disk for disk, _ in rounds):.2f}",
            f"{statistics.median(rows[0][0] for _, rows in rounds):.2f}",
            f"{statistics.median(rows[0][0] / disk for disk, rows in rounds):.2f}",
            f"{statistics.median(rate for rate, _ in later):.2f}",
            f"{statistics.median(cpu for _, cpu in later):.2f}",
        )


if __name__ == "__main__":
    if not hasattr(os, "O_DIRECT"):
        sys.exit("needs a system with O_DIRECT, such as Linux")
    try:
        main()
    except NoLimit as error:
        sys.exit(str(error))

"""Side by side with every system that feeds training from disk: ``python -m benchmarks.compare``.

Makes the environments that it needs (minutes, once), then measures one workload in a short form, shuffled and from
memory, in five minutes, and prints tables. ``--full`` takes hours and goes on where it was interrupted; ``--render``
writes the documentation's page from its results::

    python -m benchmarks.compare
    python -m benchmarks.compare --full
    python -m benchmarks.compare --render
    python -m benchmarks.compare --workload pairs --contender "HyperSequence, Loader" --contender "FFCV, os_cache=True"
    python -m benchmarks.compare --list
"""

from __future__ import annotations

import argparse
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from . import report
from .chosen import quickest_ways
from .environments import ENVIRONMENTS
from .figures import Figures
from .forms import FULL, ORDERS, QUICK, Form
from .results import Results
from .run import Comparison
from .systems import contenders
from .workers import ROOT
from .workloads import names

_KEPT = Path(__file__).parent / "results.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="all workloads, all contenders, all repetitions: hours")
    parser.add_argument(
        "--render", action="store_true", help="only write docs/benchmarks.md from the full form's results"
    )
    parser.add_argument("--list", action="store_true", help="only list workloads and contenders")
    parser.add_argument("--workload", action="append", choices=names(), help="only this one (may be repeated)")
    parser.add_argument("--order", action="append", choices=ORDERS, help="only this one (may be repeated)")
    parser.add_argument("--contender", action="append", default=[], help="only this one (may be repeated)")
    parser.add_argument(
        "--again", action="store_true", help="measure the workloads anew: what is known of them goes first"
    )
    parser.add_argument("--share", type=_positive(float), help="share of the records, 1 for half a gigabyte")
    parser.add_argument("--rounds", type=_positive(int), help="repetitions of each figure")
    parser.add_argument("--cold", type=int, help="repetitions with files out of the page cache")
    parser.add_argument(
        "--where",
        type=Path,
        default=Path(os.environ.get("BENCH_DIR", ROOT / ".benchmarks")) / "compare",
        help="folder for files and environments, on the disk that is measured: $BENCH_DIR or .benchmarks, and compare",
    )
    parser.add_argument(
        "--results", type=Path, help="file of rows to go on with; the full form's is the one that is kept"
    )
    given = parser.parse_args()
    if given.list:
        report.list_contenders()
        return
    if given.render:
        kept = _read(given.results or _KEPT, parser)
        if not any(row["stage"] == "machine" for row in kept.rows):
            parser.error(f"{given.results or _KEPT} holds no results; --full makes them, --results names others")
        report.render(kept, ROOT / "docs")
        return
    if given.full and given.results is None and any((given.share, given.rounds, given.cold)):
        parser.error("the results that are kept are those of the whole form; --results names another file for others")
    if given.cold is not None and given.cold < 0:
        parser.error(f"argument --cold: {given.cold} is less than 0")
    form = FULL if given.full else QUICK
    changes = {"share": given.share, "rounds": given.rounds, "cold": given.cold}
    changes |= {"workloads": given.workload, "orders": given.order}
    form = Form(**{**form.__dict__, **{name: value for name, value in changes.items() if value is not None}})
    unknown = set(given.contender) - set(contenders())
    if unknown:
        parser.error(f"no contender {', '.join(sorted(unknown))}; --list shows them ({len(ENVIRONMENTS)} environments)")
    idle = [name for name in given.contender if set(contenders()[name].orders()).isdisjoint(form.orders)]
    if idle:
        parser.error(f"{', '.join(idle)}: reads in order only, which is not measured here; --order sequential does")
    given.where.mkdir(parents=True, exist_ok=True)
    path = given.results or (_KEPT if given.full else given.where / "quick.jsonl")
    if not given.full and given.results is None:
        path.unlink(missing_ok=True)
    results = _read(path, parser, commit=_commit())
    if given.again:
        results.forget(form.workloads)
    chosen = given.contender
    if not given.full and not chosen:  # each system in the quickest of its ways, as the whole form found it
        chosen = quickest_ways(Figures(Results(_KEPT)))
    try:
        Comparison(form, chosen, given.where, results).run()
    except KeyboardInterrupt:
        goes_on = "the same command goes on" + (", without --again" if given.again else "")
        what_then = goes_on if given.full or given.results else "the next run begins anew"
        parser.exit(130, f"stopped with {len(results.rows)} rows in {path}; {what_then}\n")
    report.print_tables(results)


def _read(path: Path, parser: argparse.ArgumentParser, **stamp: str) -> Results:
    """What is there already; a file of something else is an error."""
    try:
        return Results(path, **stamp)
    except ValueError as error:
        parser.error(str(error))


def _positive(number: type[int] | type[float]) -> Callable[[str], float]:
    """What argparse asks for a number above 0."""

    def positive(text: str) -> float:
        value = number(text)
        if not value > 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return positive


def _commit() -> str:
    """What is measured: the commit, and a mark if what is measured was changed since."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "benchmarks", f":!{_KEPT.relative_to(ROOT)}")
    return (git("rev-parse", "--short", "HEAD") or "no commit") + (" with changes" if changed else "")


if __name__ == "__main__":
    main()

"""The comparison: every contender written, checked, and measured in interleaved rounds."""

from __future__ import annotations

import os
import platform
import random
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from . import disk
from .chosen import worth_more_rounds
from .contenders import Contender, Order
from .environments import ENVIRONMENTS, EnvironmentFailed, python_of, versions
from .figures import COPY, LIMIT, OURS, REFERENCE, by_record, system
from .forms import Form
from .limited import NoLimit, memory_limit
from .results import Results
from .systems import contenders
from .training import TRAINED
from .workers import RemoteWorker, WorkerError
from .workloads import workload


class Comparison:
    """One run.

    Args:
        form: How much of everything.
        chosen: Names of contenders, all if empty.
        where: Folder for files and environments, on the disk that is measured.
        results: What is there already, and where rows go.
    """

    def __init__(self, form: Form, chosen: list[str], where: Path, results: Results) -> None:
        self._form, self._where, self._results = form, where, results
        self._log = where / "log.txt"
        self._contenders = {name: each for name, each in contenders().items() if not chosen or name in chosen}
        self._pythons: dict[str, Path] = {}
        self._installed: dict[str, dict[str, str]] = {}

    def run(self) -> None:
        """Everything that is not there yet."""
        self._prepare()
        for name in self._form.workloads:
            taking_part = [
                each
                for each in self._contenders.values()
                if each.environment in self._pythons and (not each.workloads or name in each.workloads)
            ]
            self._write(name, taking_part)
            taking_part = [each for each in taking_part if self._n_written(name, each)]
            if workload(name).memory_nbytes is not None:
                able = [each for each in taking_part if not each.only_trains and self._is_whole(name, each)]
                self._check(name, "shuffled", [each for each in able if each.shuffle is not None])
                self._larger_than_memory(name, able)
            for order in self._form.orders if workload(name).memory_nbytes is None else ():
                able = [each for each in taking_part if order in each.orders() and not each.only_trains]
                self._check(name, order, able)
                self._hot(name, order, able)
                self._memory(name, order, able)
                self._cold(name, order, [each for each in able if not each.in_memory])
            if name in TRAINED:
                able = [each for each in taking_part if each.backend is None and each.shuffle is not None]
                self._train(name, [each for each in able if each.name != COPY])
                for backend in ("tensorflow", "jax"):
                    self._fit(name, backend, [each for each in taking_part if each.backend == backend])
            shutil.rmtree(self._where / "files" / name, ignore_errors=True)

    def _prepare(self) -> None:
        """Environments, and what the machine is."""
        for name in sorted({each.environment for each in self._contenders.values()}):
            try:
                self._pythons[name] = python_of(name, self._where / "environments")
            except EnvironmentFailed as error:
                self._failed("environment", str(error), contender=name)
            else:
                self._installed[name] = installed = versions(self._pythons[name])
                known = self._results.find(stage="environment", contender=name)
                if known is None or known["versions"] != installed:
                    self._results.add(stage="environment", contender=name, versions=installed)
        machine = _machine()
        which = f"{machine['date']}, {machine['system']}"
        if not self._results.has(stage="machine", round=which):  # a run goes on for days, perhaps elsewhere
            self._results.add(stage="machine", round=which, form=self._form.__dict__, **machine)

    # --- stages ------------------------------------------------------------------------------------------------------

    def _write(self, name: str, taking_part: list[Contender]) -> None:
        """Every system's files, in rounds; those of the last round stay. Who takes long has one."""
        writers = {each.files: each for each in reversed(taking_part)}
        for number in range(self._form.writes):
            for files in random.sample(list(writers), len(writers)):
                key = {"stage": "write", "workload": name, "contender": files, "round": number}
                if not self._results.has(**key) and not (number and self._writes_slowly(name, files)):
                    shutil.rmtree(self._where / "files" / name / files, ignore_errors=True)
                    with self._trying(**key):
                        self._results.add(**key, **self._written(name, writers[files]))
        nbytes = workload(name, self._form.share).record_nbytes * workload(name, self._form.share).n_records
        for number in range(self._form.writes):
            key = {"stage": "write directly", "workload": name, "contender": "disk", "round": number}
            if not self._results.has(**key):
                path = self._where / "direct"
                self._results.add(**key, seconds=disk.write_directly(path, nbytes), nbytes=nbytes)
                path.unlink()

    def _writes_slowly(self, name: str, files: str) -> bool:
        """Whether more rounds would take longer than they are worth."""
        first = self._results.find(stage="write", workload=name, contender=files, round=0)
        return first is None or first["seconds"] > self._form.write_seconds / 3

    def _check(self, name: str, order: Order, able: list[Contender]) -> None:
        """What comes of an epoch of each."""
        for each in able:
            key = {"stage": "check", "workload": name, "order": order, "contender": each.name}
            if not self._results.has(**key):
                with self._trying(**key), self._opened(each, name, order) as worker:
                    answer = worker.ask("check", n_written=self._n_written(name, each), seconds=3)
                    how = each.shuffle if order == "shuffled" else None
                    promised = how is not None and how.promises(workload(name, self._form.share))
                    said = {"how": how.how, "by_record": promised} if how else {}
                    self._results.add(
                        **key, **answer, **said, note=each.note, device_ready=each.device_ready, kind=each.kind
                    )

    def _hot(self, name: str, order: Order, able: list[Contender]) -> None:
        """Passes over files in memory: a system's contenders, the limit and ours in turn and in changing order.

        A system at a time, since all of them together need more memory than there is. Everybody has a first pass; the
        limits, ours and the two quickest of the system have the others.
        """
        references = [each for each in able if each.name in (LIMIT[order], COPY, REFERENCE)]
        groups: dict[str, list[Contender]] = {}
        for each in able:
            groups.setdefault(_group(each), []).append(each)
        for group, members in groups.items():
            key: dict[str, Any] = {"stage": "hot", "workload": name, "order": order, "group": group}
            done = {**key, "stage": "hot done", "contender": group}
            if not self._results.has(**done):
                everybody = [*references, *(each for each in members if each not in references)]
                self._hot_group(name, order, everybody, key)
                self._results.add(**done)

    def _hot_group(self, name: str, order: Order, able: list[Contender], key: dict[str, Any]) -> None:
        form = self._form
        rounds = [("consumed", number) for number in range(1, form.rounds)]
        rounds += [("handed", number) for number in range(max(1, form.rounds // 2))]
        with ExitStack() as stack:
            working: dict[str, RemoteWorker] = {}
            for each in able:
                with self._trying(working, **key, contender=each.name):
                    disk.remember(self._folder(name, each))
                    working[each.name] = stack.enter_context(self._opened(each, name, order))
                    working[each.name].ask("run", within=120, seconds=form.seconds / 4, mode="consumed")
            self._round(working, **key, mode="consumed", round=0)
            for who in set(working) - self._quickest(list(working), 2, **key):
                working.pop(who).close()
            for mode, number in rounds:
                self._round(working, **key, mode=mode, round=number)

    def _memory(self, name: str, order: Order, able: list[Contender]) -> None:
        """Of those that had all rounds: one at a time, as who shares a mapping with others has a part of it only."""
        for each in able:
            key: dict[str, Any] = {"stage": "memory", "workload": name, "order": order, "contender": each.name}
            last = {"group": _group(each), "mode": "consumed", "round": self._form.rounds - 1}
            if self._results.has(**key) or not self._results.has(**{**key, **last, "stage": "hot"}):
                continue
            with self._trying(**key), self._opened(each, name, order) as worker:
                worker.ask("run", within=120, seconds=self._form.seconds / 4, mode="consumed")
                self._results.add(**key, **worker.ask("memory", within=120, seconds=self._form.seconds))

    def _round(self, working: dict[str, RemoteWorker], **key: Any) -> None:
        """A pass of everybody, in random order."""
        for who in random.sample(list(working), len(working)):
            if not self._results.has(**key, contender=who):
                with self._trying(working, **key, contender=who):
                    answer = working[who].ask("run", within=120, seconds=self._form.seconds, mode=key["mode"])
                    self._results.add(**key, contender=who, **answer)

    def _quickest(self, among: list[str], number: int, **key: Any) -> set[str]:
        """So many of each system by their first pass, and whoever is a limit or ours."""
        rates: dict[str, dict[str, float]] = {}
        found: set[str] = set()
        for who in among:
            row = self._results.find(**key, mode="consumed", contender=who, round=0)
            if self._contenders[who].is_limit or system(who) == OURS:
                found.add(who)
            elif row is not None:
                rates.setdefault(system(who), {})[who] = row["records"] / row["seconds"]
        for of_system in rates.values():
            found.update(sorted(of_system, key=lambda who: -of_system[who])[:number])
        return found

    def _for_training(self, name: str, able: list[Contender]) -> list[Contender]:
        """The quickest of each system from memory, and all of ours."""
        chosen: set[str] = set()
        for each in able:
            key = {"stage": "hot", "workload": name, "order": "shuffled", "group": _group(each)}
            of_group = [other.name for other in able if _group(other) == _group(each)]
            chosen |= self._quickest(of_group, 1, **key)
        return [each for each in able if each.name in chosen]

    def _train(self, name: str, able: list[Contender]) -> None:
        """A small PyTorch model on each, in turn and in changing order, where the environment has PyTorch."""
        floor = [each for each in able if each.only_trains]
        able = [*floor, *self._for_training(name, [each for each in able if not each.only_trains])]
        able = [each for each in able if "torch" in self._installed[each.environment]]
        key: dict[str, Any] = {"stage": "train", "workload": name, "order": "shuffled"}
        if not any(self._any_missing(able, **key, round=number) for number in range(self._form.rounds)):
            return
        with ExitStack() as stack:
            working: dict[str, RemoteWorker] = {}
            for each in able:
                with self._trying(working, **key, contender=each.name):
                    working[each.name] = stack.enter_context(self._opened(each, name, "shuffled"))
                    working[each.name].ask("train", within=120, seconds=self._form.seconds / 4)
            for number in range(self._form.rounds):
                for who in random.sample(list(working), len(working)):
                    if not self._results.has(**key, contender=who, round=number):
                        with self._trying(working, **key, contender=who, round=number):
                            answer = working[who].ask("train", within=120, seconds=self._form.seconds)
                            self._results.add(**key, contender=who, round=number, **answer)

    def _fit(self, name: str, backend: str, able: list[Contender]) -> None:
        """A small Keras model on each, in a new process each time."""
        key: dict[str, Any] = {"stage": f"fit {backend}", "workload": name, "order": "shuffled"}
        for number in range(self._form.rounds):
            for each in random.sample(able, len(able)):
                if self._results.has(**key, contender=each.name, round=number):
                    continue
                told = {"name": name, "share": self._form.share, "folder": str(self._folder(name, each))}
                with self._trying(**key, contender=each.name, round=number), self._worker(each) as worker:
                    answer = worker.ask("fit", within=300, seconds=2 * self._form.seconds, **told)
                    self._results.add(**key, contender=each.name, round=number, **answer)

    def _cold(self, name: str, order: Order, able: list[Contender], limit: int | None = None) -> None:
        """Epochs of files that are not in memory, each in a new process, and the disk itself over the same files.

        Everybody has a first round: who is quick from memory need not be from disk. The quickest of each system goes
        on; of ours the default, into buffers too, by record and whole batches.
        """
        key: dict[str, Any] = {"stage": "cold", "workload": name, "order": order}
        spare = disk.SpareMemory(self._form.spare_nbytes)
        for number in range(self._form.cold):
            goes_on = self._good_from_disk(able, **key) if number else {each.name for each in able}
            taking_part = [each for each in able if each.name in goes_on]
            for each in _in_turn(taking_part):
                if self._results.has(**key, contender=each.name, round=number):
                    continue
                group = nullcontext() if limit is None else memory_limit(limit)
                with self._trying(**key, contender=each.name, round=number):
                    spare.take()
                    folder = self._folder(name, each)
                    with group as cgroup, self._worker(each, cgroup) as worker:
                        opened = self._open(worker, each, name, order)
                        disk.forget(folder)
                        # Immediately before: rented disks have a faster rate for who did not use them for a while. And
                        # once without being counted: they have what was read just now nearer at hand, as in the epoch.
                        disk.read_directly(folder)
                        nbytes, seconds = disk.read_directly(folder)
                        _, copied = disk.read_directly(folder, copied=True)
                        disk.remember(folder)  # so that there is memory for the files as well
                        disk.forget(folder)
                        spare.give()
                        answer = worker.ask("epoch", within=300, seconds=self._form.cold_seconds)
                    beside = {"disk_nbytes": nbytes, "disk_seconds": seconds, "copied_seconds": copied}
                    self._results.add(**key, contender=each.name, round=number, **answer, **beside, open_s=opened)

    def _good_from_disk(self, among: list[Contender], **key: Any) -> set[str]:
        """Who has more than one round."""
        rows = {each.name: self._results.find(**key, contender=each.name, round=0) for each in among}
        limits = {each.name for each in among if each.is_limit}
        of_records: set[str] = set()
        if workload(key["workload"]).memory_nbytes is not None:
            checks = {each.name: self._results.find(**{**key, "stage": "check"}, contender=each.name) for each in among}
            of_records = {name for name, check in checks.items() if check is not None and by_record(check)}
        return worth_more_rounds({name: row for name, row in rows.items() if row is not None}, limits, of_records)

    def _larger_than_memory(self, name: str, able: list[Contender]) -> None:
        """Epochs in less memory than there are data, the quickest order and the shuffled one."""
        limit = workload(name).memory_nbytes
        assert limit is not None
        try:
            for order in self._form.orders:
                who = [each for each in able if order in each.orders() and not each.in_memory]
                self._cold(name, order, who, limit)
        except NoLimit as error:
            self._failed("cold", str(error), workload=name)

    # --- workers -----------------------------------------------------------------------------------------------------

    def _worker(self, contender: Contender, cgroup: Path | None = None) -> RemoteWorker:
        return RemoteWorker(contender.name, self._pythons[contender.environment], self._log, cgroup)

    @contextmanager
    def _opened(self, contender: Contender, name: str, order: Order) -> Iterator[RemoteWorker]:
        self._folder(name, contender)  # before somebody waits for it
        with self._worker(contender) as worker:
            self._open(worker, contender, name, order)
            yield worker

    def _open(self, worker: RemoteWorker, contender: Contender, name: str, order: Order) -> float:
        """Open a contender's files; how many seconds that took, imports included."""
        folder = str(self._folder(name, contender))
        told = {"name": name, "share": self._form.share, "folder": folder, "order": order}
        return worker.ask("open", within=300, **told)["seconds"]

    def _written(self, name: str, contender: Contender) -> dict[str, Any]:
        """Write a contender's files; they appear under their name when they are whole."""
        folder = self._where / "files" / name / contender.files
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        limited = workload(name).memory_nbytes is not None
        seconds = self._form.limited_write_seconds if limited else self._form.write_seconds
        with self._worker(contender) as worker:
            told = {"name": name, "share": self._form.share, "folder": str(part), "seconds": seconds}
            answer = worker.ask("write", within=300 + seconds, **told)
        part.rename(folder)
        return answer

    def _folder(self, name: str, contender: Contender) -> Path:
        """Where its files are, which are written once more if this run goes on with one whose files are gone."""
        folder = self._where / "files" / name / contender.files
        if not folder.exists():
            self._written(name, contender)
        return folder

    def _n_written(self, name: str, contender: Contender) -> int:
        row = self._results.find(stage="write", workload=name, contender=contender.files, round=0)
        return 0 if row is None else row["records"]

    def _is_whole(self, name: str, each: Contender) -> bool:
        """Whether its files hold all records, or are smaller than the data, and perhaps than the memory."""
        n_records = workload(name, self._form.share).n_records
        n_written = self._n_written(name, each)
        if n_written < n_records:
            self._failed(
                "cold",
                f"only {n_written:,} of {n_records:,} records were written in time",
                workload=name,
                contender=each.name,
            )
        return n_written == n_records

    def _any_missing(self, able: list[Contender], **key: Any) -> bool:
        return any(not self._results.has(**key, contender=each.name) for each in able)

    @contextmanager
    def _trying(self, working: dict[str, RemoteWorker] | None = None, **key: Any) -> Iterator[None]:
        """What fails is a result too; who failed is asked no more."""
        print(" ".join(f"{value}" for value in key.values()), file=sys.stderr, flush=True)
        try:
            yield
        except WorkerError as error:
            if working is not None:
                working.pop(key["contender"], None)
            self._failed(error=str(error), **key)

    def _failed(self, stage: str, error: str, **key: Any) -> None:
        print(f"  failed: {error}", file=sys.stderr, flush=True)
        self._results.add(stage="failed", at=stage, error=error, **key)


def _group(contender: Contender) -> str:
    """With whom a contender takes turns. Our release of 2022 is what is nearest to us, and so in our rounds."""
    return "limits" if contender.is_limit else system(contender.name).removesuffix(" 0.10.0")


def _machine() -> dict[str, Any]:
    """What is measured on."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "n_processors": len(os.sched_getaffinity(0)),
        "memory_nbytes": memory,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "environments": sorted(ENVIRONMENTS),
    }


def _in_turn(contenders: list[Contender]) -> list[Contender]:
    """In changing order, those of the same files together: a rented disk would fetch them from afar for each again."""
    turns = {each.files: random.random() for each in contenders}
    return sorted(contenders, key=lambda each: (turns[each.files], random.random()))

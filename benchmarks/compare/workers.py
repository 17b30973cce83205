"""Workers as the one who runs the comparison sees them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from .usage import family

ROOT = Path(__file__).parents[2]


class WorkerError(Exception):
    """A contender that failed, with what it said."""


class RemoteWorker:
    """A contender in a process of its own.

    Args:
        contender: Its name.
        python: The interpreter of its environment.
        log: Where its standard error goes.
        cgroup: Folder of a control group to which it belongs, if any.
    """

    def __init__(self, contender: str, python: Path, log: Path, cgroup: Path | None = None) -> None:
        self.contender = contender
        self._log = log
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "JAX_PLATFORMS": "cpu",
            "TMPDIR": str(log.parent),
        }
        with log.open("ab") as errors:
            self._said_before = errors.tell()
            self._process = subprocess.Popen(
                [python, "-m", "benchmarks.compare.worker", contender],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=log.parent,  # not here: a folder called src or hypersequence would be found first
                env=environment,
                start_new_session=True,
            )
        self.pid = self._process.pid
        if cgroup is not None:
            (cgroup / "cgroup.procs").write_text(str(self.pid))

    def ask(self, what: str, within: float = 600, **arguments: Any) -> dict[str, Any]:
        """Have it do something.

        Raises:
            WorkerError: It failed, or did not answer in time; it is ended then.
        """
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        end = time.monotonic() + within
        try:
            process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
            process.stdin.flush()
            line = b""
            while not line.endswith(b"\n"):
                if not select.select([process.stdout], [], [], max(0, end - time.monotonic()))[0]:
                    raise WorkerError(f"no answer to {what} within {within:.0f} s")
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    raise WorkerError(f"ended at {what}: {self._last_words()}")
                line += piece
        except BrokenPipeError as error:
            raise WorkerError(f"ended before {what}: {self._last_words()}") from error
        except WorkerError:
            self.close()
            raise
        answer = json.loads(line)
        if "error" in answer:
            with self._log.open("a") as log:
                log.write(answer["traceback"])
            self.close()
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        """Which signal ended it, or what it said last."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        code = self._process.poll()
        if code is not None and code < 0:
            killed = -code == signal.SIGKILL
            return f"{signal.Signals(-code).name}{', as where no memory is left' if killed else ''}"
        with self._log.open("rb") as log:
            log.seek(self._said_before)
            said = log.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(said) if line.strip()), f"with code {code}")

    def close(self) -> None:
        """End it and whatever it started."""
        pids = family(self.pid)
        for pid in reversed(pids):
            if b"resource_tracker" not in _command(pid):  # it cleans up behind the others, and ends by itself
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()
        for pid in pids:  # PyTorch's workers leave behind what they had not handed over
            for path in Path("/dev/shm").glob(f"torch_{pid}_*"):
                path.unlink(missing_ok=True)

    def __enter__(self) -> RemoteWorker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""

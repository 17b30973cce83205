"""Virtual environments, one for each group of systems that can live together, made when they are needed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from .workers import ROOT


@dataclass(frozen=True)
class Environment:
    """What is installed.

    Args:
        steps: Arguments of ``pip install``, one call after another.
        ours: Whether HyperSequence is installed as well, from this checkout.
        system: What must be on the machine before, which this suite does not install.
    """

    steps: tuple[tuple[str, ...], ...]
    ours: bool = False
    system: str = ""


_TORCH = ("torch==2.13.0",)  # the newest with a build without CUDA that plain ``pip install`` finds
ENVIRONMENTS: dict[str, Environment] = {
    "peers": Environment(
        (
            _TORCH,
            ("numpy==2.4.6", "tensordict==0.15.3", "h5py==3.16.0", "zarr==3.1.6", "webdataset==1.0.2"),
            ("datasets==5.2.0", "pylance==14.0.2", "lancedb==0.40.0", "lmdb==3.0.0", "pyarrow==26.0.1"),
        ),
        ours=True,
    ),
    "ffcv": Environment(
        (
            (*_TORCH, "numpy==1.26.4"),
            ("--no-deps", "ffcv==1.0.2"),  # what it declares and does not import would bring a torchvision with CUDA
            ("numba==0.68.1", "opencv-python-headless==4.11.0.86", "pillow==13.0.0", "tqdm==4.70.1"),
        ),
        system="a C++ compiler, pkg-config, libopencv-dev and libturbojpeg0-dev",
    ),
    "hypersequence-0.10": Environment((("hypersequence==0.10.0", "numpy==2.4.6"),)),
    "litdata": Environment(
        (
            (*_TORCH, "numpy==2.4.6"),
            ("lightning-utilities==0.15.3", "filelock", "boto3", "requests", "tifffile", "obstore==0.12.1"),
            ("--no-deps", "litdata==0.2.76"),  # by itself it would replace this build of torch
        )
    ),
    "streaming": Environment(
        (
            (*_TORCH, "numpy==2.1.3"),
            ("transformers==4.57.6", "xxhash==3.8.2", "catalogue==2.0.10"),
            ("brotli==1.2.1", "python-snappy==0.7.3", "zstd==1.5.7.2", "pillow==13.0.0", "tqdm==4.70.1"),
            ("--no-deps", "mosaicml-streaming==0.13.0"),  # what it declares would bring a torchvision with CUDA
        )
    ),
    "tensorflow": Environment((("tensorflow-cpu==2.21.0", "keras==3.15.1"),)),
    "grain": Environment((("grain==0.2.18", "array_record==0.8.6", "numpy==2.4.6"),)),
    "keras": Environment((("tensorflow-cpu==2.21.0", "keras==3.15.1"),), ours=True),
    "keras-jax": Environment((("jax[cpu]==0.10.2", "keras==3.15.1"),), ours=True),
}


class EnvironmentFailed(Exception):
    """An environment that cannot be made here, and why."""


def python_of(name: str, folder: Path) -> Path:
    """The interpreter of an environment, which is made if it is not there yet or is made of something else by now.

    Raises:
        EnvironmentFailed: It cannot be made.
    """
    wanted = ENVIRONMENTS[name]
    where = folder / name
    python = where / "bin" / "python"
    made = where / "made-of"
    mark = hashlib.sha256(repr((wanted, sys.version_info[:2])).encode()).hexdigest()
    if made.exists() and made.read_text() == mark:
        return python
    print(f"making the environment {name} (minutes)", file=sys.stderr, flush=True)
    steps = [*wanted.steps, *([("-e", str(ROOT))] if wanted.ours else [])]
    commands = [[sys.executable, "-m", "venv", "--clear", str(where)]]
    commands += [[str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *step] for step in steps]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            last = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()][-3:]
            needs = f" (needs {wanted.system})" if wanted.system else ""
            raise EnvironmentFailed(f"{' '.join(command[1:])}{needs}: {' | '.join(last)}")
    made.write_text(mark)
    return python


def versions(python: Path) -> dict[str, str]:
    """What is installed in an environment."""
    done = subprocess.run([python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True)
    return {each["name"]: each["version"] for each in json.loads(done.stdout)}

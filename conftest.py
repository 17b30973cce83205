"""What the examples in docstrings and documents find ready: a small data set, a folder, the usual names."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

import hypersequence as hs


def _enter(namespace: dict[str, Any]) -> None:
    """The blocks of a document share a folder that is new and goes with them."""
    folder = tempfile.mkdtemp()
    namespace.update(_before=Path.cwd(), _folder=folder)
    os.chdir(folder)


def _leave(namespace: dict[str, Any]) -> None:
    os.chdir(namespace["_before"])
    shutil.rmtree(namespace["_folder"])


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()], patterns=["*.md"], setup=_enter, teardown=_leave
).pytest()


def write_example(path: Path) -> Path:
    """100 records: a 4 x 4 image full of the record's number, and that number as label."""
    with hs.HyperSequenceWriter(path, batch_size=16) as writer:
        for i in range(100):
            writer.append(inputs=np.full((4, 4), i, np.float32), outputs=i)
    return path


@pytest.fixture(autouse=True)
def _names(doctest_namespace: dict[str, Any], tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    path = write_example(tmp_path / "example.hsq")
    with hs.HyperSequenceFile(path) as example:
        doctest_namespace.update(example=example, example_path=path, folder=tmp_path, np=np)
        doctest_namespace["HyperSequenceFile"] = hs.HyperSequenceFile
        yield

"""What the examples in docstrings and documents find ready: a small data set, a folder, the usual names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

import hypersequence as hs

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["*.md"],
    fixtures=["tmp_path", "monkeypatch"],
    setup=lambda namespace: namespace.update(_readme_names()),
).pytest()


def _readme_names() -> dict[str, Any]:
    return {"np": np, "hs": hs}


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

"""What the documents say that can be checked by a program. Their code blocks run as tests of their own."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import hypersequence as hs

ROOT = Path(__file__).parents[1]
PAGES = sorted(path for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchor(title: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(page.read_text("utf-8")):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, section = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if section:
            titles = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
            assert section in map(anchor, titles), link


def test_the_page_of_commands_is_what_the_help_says() -> None:
    spec = importlib.util.spec_from_file_location("make_commands", ROOT / "docs" / "make_commands.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text("utf-8") == module.page(), "python docs/make_commands.py"


def test_every_format_has_a_page() -> None:
    text = (ROOT / "docs" / "converting.md").read_text("utf-8")
    pages = {page.stem for page in (ROOT / "docs" / "convert").glob("*.md")}
    shared = {"npy": "numpy", "npz": "numpy", "parquet": "arrow", "zarrzip": "zarr"}
    for name in hs.formats():
        assert shared.get(name, name) in pages
        assert f"convert/{shared.get(name, name)}.md" in text

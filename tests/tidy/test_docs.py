"""The documents say what the code does: the reference is generated, invariants name their tests, links lead on."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


@pytest.fixture(scope="module")
def reference() -> dict[str, str]:
    made: dict[str, str] = runpy.run_path(str(ROOT / "tools" / "make_reference.py"))["pages"]()
    return made


@pytest.mark.parametrize("page", ["settings.md", "cli.md", "api.md", "errors.md", "checks.md"])
def test_the_reference_is_what_the_code_says(reference: dict[str, str], page: str) -> None:
    written = ROOT / "docs" / "reference" / page
    up_to_date = written.is_file() and written.read_text("utf-8") == reference[page]
    assert up_to_date, "run .venv/bin/python tools/make_reference.py"


def test_every_invariant_names_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text("utf-8")
    sources = {file: file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py")}
    named = set(re.findall(r"::(test_\w+)", text))
    assert named
    assert {one for one in named if not any(f"def {one}(" in source for source in sources.values())} == set()
    files = set(re.findall(r"`(tests/[\w/]+\.py)", text))
    assert {one for one in files if not (ROOT / one).is_file()} == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    assert [t for t in targets if not (document.parent / t).exists()] == []

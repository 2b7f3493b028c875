"""Every built-in driver has a page, and all pages have one form."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tenure.drivers import registry
from tenure.testing.verify.pages import section

FOLDER = Path(__file__).parents[2] / "docs" / "drivers"
PAGES = sorted(FOLDER.glob("*.md"))
HEADINGS = (
    "Summary",
    "Entry point",
    "Characteristics",
    "Considerations",
    "Supported versions",
    "Strategies",
    "Quick start",
)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_its_sections(page: Path) -> None:
    """Each page begins with these sections, in this order, and none of them is empty."""
    found = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert tuple(found[: len(HEADINGS)]) == HEADINGS
    for heading in HEADINGS:
        assert section(page, heading).strip(), heading


@pytest.mark.parametrize("entry", registry.BUILT_IN.values(), ids=lambda entry: entry.scheme)
def test_every_scheme_has_a_page(entry: registry.Entry) -> None:
    """Each scheme is an entry point of a page, with the extra that brings its client library."""
    pages = [
        page
        for page in PAGES
        if re.search(rf"`{re.escape(entry.scheme)}(://|\+|`)", section(page, "Entry point"))
    ]
    assert len(pages) == 1, f"pages with {entry.scheme}:// under Entry point: {pages}"
    text = section(pages[0], "Entry point")
    assert f"{entry.module}:{entry.attribute}" in text
    assert not entry.extra or re.search(rf"`(tenure\[)?{entry.extra}(\])?`", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_quick_start_can_be_run(page: Path) -> None:
    """The quick start has a program in it; `test_docs` runs it."""
    assert "```python\n" in section(page, "Quick start")

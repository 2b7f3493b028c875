"""Pages of the documentation: their sections and blocks, with live servers behind the examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

_BLOCK = re.compile(r"^( *)```(\S*)[^\n]*\n(.*?)^\1```[ \t]*$", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"\b([a-z0-9+]+)://(?:[^\s/@'\"]*@)?[\w.,:-]*\.example\b(?::\d+)?(?:/\w*)?")


class Block(NamedTuple):
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    source = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(source):
        indent, language, text = match.groups()
        line = source.count("\n", 0, match.start()) + 2
        text = "".join(each.removeprefix(indent) for each in text.splitlines(keepends=True))
        found.append(Block(page, line, language, text))
    return found


def section(page: Path, heading: str) -> str:
    """What stands under a heading of the second level; empty if there is no such heading."""
    text = "\n" + page.read_text(encoding="utf-8")
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def quick_start(page: Path) -> Block | None:
    """The first program under "Quick start"; None if there is none."""
    text = section(page, "Quick start")
    return next(
        (block for block in blocks(page) if block.language == "python" and block.text in text), None
    )


def live(text: str, url_of: Callable[[str], str]) -> str:
    """The text with a live URL, by its scheme, for every one whose host ends in `.example`."""
    return _EXAMPLE.sub(lambda match: url_of(match[1]), text)


def live_for(text: str, schemes: Collection[str], url: str) -> str:
    """The same for a page of one driver, where every quoted URL of its schemes is meant."""
    text = live(text, lambda scheme: url)
    names = "|".join(map(re.escape, schemes))
    return re.sub(rf"([\"'])(?:{names})(?:\+\w+)*://[^\"'\s]*\1", lambda _: repr(url), text)

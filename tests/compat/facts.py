"""What is publicly known of Tooz 9.1, read from tooz-9.1.txt."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple


class Fact(NamedTuple):
    """One line: what kind of thing, its name below `tooz`, and what is known of it."""

    kind: str
    name: str
    detail: str


def facts(kind: str) -> Iterator[Fact]:
    """All facts of a kind."""
    for line in Path(__file__).with_name("tooz-9.1.txt").read_text().splitlines():
        first, _, rest = line.partition(" ")
        name, _, detail = rest.partition(": ")
        if first == kind:
            yield Fact(first, name.rstrip(":"), detail)

"""Versions and what a manifest says about them: `redis >=7.0,<8`.

A subset of PEP 440: release numbers, and the operators >=, >, <=, <, == (with `.*`) and !=.
It is ours because every `connect` may compare a version, and Tenure depends on nothing.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from ..errors import InvalidArgument

SERIES = 2
"""How many numbers of a version make a series, where the manifest does not say: 7.2 of 7.2.1."""
SERIES_MAX = 4
"""More numbers than this no release has."""

_CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?", re.ASCII)
_LEADING = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9+_-]*", re.ASCII)


class Support(NamedTuple):
    """A thing and the versions of it: `name`, and clauses that all must hold."""

    name: str
    clauses: tuple[tuple[str, tuple[int, ...], bool], ...]
    text: str

    def admits(self, name: str, version: str) -> bool:
        """Whether that version of that thing is meant."""
        return name == self.name and all(
            _holds(release(version), *clause) for clause in self.clauses
        )


def support(text: str) -> Support:
    """Read `redis >=7.0,<8`; `InvalidArgument` says what is wrong with it."""
    name, _, rest = text.partition(" ")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(f"{text!r} does not begin with a name, as in 'redis >=7.0,<8'")
    clauses = []
    for part in filter(None, map(str.strip, rest.split(","))):
        match = _CLAUSE.fullmatch(part)
        if match is None or (match[3] and match[1] not in ("==", "!=")):
            raise InvalidArgument(
                f"{part!r} in {text!r} is no version specifier, such as >=7.0 or ==7.*"
            )
        clauses.append((match[1], release(match[2]), bool(match[3])))
    return Support(name, tuple(clauses), text)


def release(version: str) -> tuple[int, ...]:
    """The numbers that a version begins with: (7, 0, 15) of `7.0.15-debian`."""
    match = _LEADING.match(version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _holds(found: tuple[int, ...], operator: str, wanted: tuple[int, ...], prefix: bool) -> bool:
    if prefix:
        same = found[: len(wanted)] == wanted
        return same if operator == "==" else not same
    length = max(len(found), len(wanted))
    a, b = (each + (0,) * (length - len(each)) for each in (found, wanted))
    return {
        ">=": a >= b,
        "<=": a <= b,
        "==": a == b,
        "!=": a != b,
        ">": a > b,
        "<": a < b,
    }[operator]

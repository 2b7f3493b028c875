"""The names of rosters, records and mutexes: what kind of thing, and what it is called.

A lock's is the name that the caller gave it, so that an operator finds it in the
backend. Everything else begins with `@`, its kind and a slash; a lock whose own name
begins with `@` gets one more.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal[
    "barrier",
    "candidate",
    "claims",
    "election",
    "estate",
    "group",
    "latch",
    "leader",
    "member",
    "semaphore",
]


class Named(NamedTuple):
    """A kind, which is `lock` for locks, and a name."""

    kind: str
    name: str


def of_lock(name: str) -> str:
    """The roster or mutex of a lock."""
    return "@" + name if name.startswith("@") else name


def of(kind: Kind, *names: str) -> str:
    """The roster, record or mutex of something else; several names never run together."""
    *outer, last = names
    return "".join([f"@{kind}/", *(f"{len(name)}:{name}/" for name in outer), last])


def prefix(kind: Kind) -> str:
    """What the names of all things of a kind begin with."""
    return f"@{kind}/"


def read(roster: str) -> Named:
    """What a roster, record or mutex is called; of several names, as they were put together."""
    if not roster.startswith("@"):
        return Named("lock", roster)
    if roster.startswith("@@"):
        return Named("lock", roster[1:])
    kind, _, name = roster[1:].partition("/")
    return Named(kind, name)


def split(name: str) -> tuple[str, str]:
    """The two names that were put together to one; the first is empty if they cannot be told."""
    size, colon, rest = name.partition(":")
    if not (colon and size.isdecimal() and rest[int(size) : int(size) + 1] == "/"):
        return "", name
    return rest[: int(size)], rest[int(size) + 1 :]

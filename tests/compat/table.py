"""The page of what works on which driver, made of the cases that the suite runs on all of them.

    PYTHONPATH=tests python -m compat.table >docs/compat-tooz.md

A cell says what the suite's test of that call on that driver expects, so a cell that is wrong
is a test that fails.
"""

from __future__ import annotations

from collections.abc import Iterator

from tenure.testing.backends import BACKENDS, Backend

from . import cases_groups, cases_leaders, cases_locks
from .facts import facts
from .suite import CASES, Case

MODULES = (cases_groups, cases_leaders, cases_locks)  # imported for the cases that they register
WORKS, NEW, REFUSED = "✓", "**✓**", "refused"
EVERYWHERE = {"start, stop", "get_coordinator(characteristics)", "lock(…), with lock"}
TOOZ = {
    **{name: name for name in ("file", "ipc", "redis", "memcached", "postgresql", "mysql")},
    "zookeeper": "zookeeper",
    "etcd-gateway": "etcd3",
    "redis, redlock": "redis",
    "postgresql-row": "postgresql",
}
"""The driver of Tooz 9.1 for the same backend; the others have none."""

HEAD = """\
# Tooz's calls on Tenure's drivers

What of the API of Tooz works with `tenure.compat.tooz`, on each driver.
[From Tooz](guides/from-tooz.md) tells how to change over.

| | |
|---|---|
| ✓ | works, as with the driver that Tooz 9.1 has for that backend |
| **✓** | works, where that driver raises `NotImplemented`, or where Tooz 9.1 has none |
| refused | raises `tooz.NotImplemented` |

Each cell is a test of `tests/compat`, against a real server, alone and beside a client that uses
`tenure` itself on the same store. This page is made of those tests; a test fails when it is not
up to date.
"""


def implemented() -> dict[str, set[str]]:
    """The calls that each driver of Tooz's implements."""
    return {fact.name: set(fact.detail.split()) for fact in facts("implements")}


def rows() -> Iterator[list[str]]:
    """The call, and a cell for each backend."""
    theirs = implemented()
    for case in CASES:
        for row in case.rows:
            cells = [_cell(case, row, backend, theirs) for backend in BACKENDS]
            yield [f"`{row}`" if " " not in row else row, *cells]


def _cell(case: Case, call: str, backend: type[Backend], theirs: dict[str, set[str]]) -> str:
    if not case.applies(backend):
        return REFUSED
    tooz = TOOZ.get(backend.name)
    had = tooz is not None and (call in EVERYWHERE or call in theirs[tooz])
    return WORKS if had else NEW


def render() -> str:
    """The page."""
    head = ["", *(backend.name for backend in BACKENDS)]
    lines = [head, ["---"] * len(head), *rows()]
    return HEAD + "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(render(), end="")

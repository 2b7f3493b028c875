"""Judges of histories: whether what several clients were told can have been true.

A history is a list of `Operation`, each with the moments of its call and its return on one
clock. Each judge is a pure function that returns None, or a `Violation` with the few
operations that cannot be put in order, for a person to read.

    violation = linearizable(history, REGISTER)

`linearizable` is in `_linearize`, with the two models that it knows; the judges of weaker
promises are here.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ._linearize import LOCK, REGISTER, Model, TooBig, linearizable
from ._operations import Operation, Outcome, Violation, told

__all__ = [
    "LOCK",
    "REGISTER",
    "Model",
    "Operation",
    "Outcome",
    "TooBig",
    "Transaction",
    "Violation",
    "causal",
    "linearizable",
    "sequential",
    "serializable",
    "told",
]


def sequential(history: Iterable[Operation]) -> Violation | None:
    """Nobody reads backwards: what one process reads of a key never becomes less.

    The values that are read are numbers, or None for nothing, which is less than all.
    """
    seen: dict[tuple[str, str], Operation] = {}
    for read in _ok(history, "read"):
        before = seen.get((read.process, read.key))
        if before is not None and _less(read.result, before.result):
            text = f"{read.process} read {before.result!r}, and then {read.result!r}"
            return Violation(text, (before, read))
        seen[read.process, read.key] = read
    return None


class _Known(NamedTuple):
    """That a key is at least at a value, and the operations by which that was learned."""

    value: object
    path: tuple[Operation, ...]


def causal(history: Iterable[Operation]) -> Violation | None:
    """Who sees an effect sees its causes.

    Each key is written by one process, with rising numbers (`write`, `value`). Whatever a
    process has read or written before it writes is a cause of that write; whoever reads it
    must not read less than its causes afterwards.
    """
    causes: dict[tuple[str, object], dict[str, _Known]] = {}
    known: dict[str, dict[str, _Known]] = defaultdict(dict)
    for each in sorted(history, key=lambda each: each.called if _writes(each) else each.returned):
        mine = known[each.process]
        if _writes(each):
            if each.outcome != "failed":
                _learn(mine, each.key, _Known(each.value, (each,)))
                causes[each.key, each.value] = dict(mine)
        elif each.kind == "read" and each.outcome == "ok":
            cause = mine.get(each.key)
            if cause is not None and _less(each.result, cause.value):
                text = (
                    f"{each.process} read {each.key} as {each.result!r} when it had seen what"
                    f" came after {cause.value!r}"
                )
                return Violation(text, tuple(dict.fromkeys((*cause.path, each))))
            for key, one in causes.get((each.key, each.result), {}).items():
                _learn(mine, key, _Known(one.value, (*one.path, each)))
            if each.result is not None:  # also what was written by nobody that is known
                _learn(mine, each.key, _Known(each.result, (each,)))
    return None


def _learn(known: dict[str, _Known], key: str, new: _Known) -> None:
    if key not in known or _less(known[key].value, new.value):
        known[key] = new


def _writes(each: Operation) -> bool:
    return each.kind == "write"


def _less(one: object, other: object) -> bool:
    """Whether a value is less than another; None, for nothing there, is less than all."""
    if one is None or other is None:
        return one is None and other is not None
    assert isinstance(one, int)
    assert isinstance(other, int)
    return one < other


def _ok(history: Iterable[Operation], kind: str) -> list[Operation]:
    """Those of the kind that were done, in the order of their returns."""
    done = [each for each in history if each.kind == kind and each.outcome == "ok"]
    return sorted(done, key=lambda each: (each.returned, each.called))


# -- several keys at once -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one operation on several keys has read and written.

    Every value that is written is new to the world, and every key that is written was read
    as well, so that it is known which value each one replaces. None is what a key is before
    anybody writes it.
    """

    name: str
    reads: Mapping[str, Hashable] = field(default_factory=dict)
    writes: Mapping[str, Hashable] = field(default_factory=dict)
    outcome: Outcome = "ok"

    def __post_init__(self) -> None:
        for key in self.writes:
            if key not in self.reads:
                raise ValueError(f"{self.name} writes {key} without reading it")

    def __str__(self) -> str:
        parts = [f"read {key}={value!r}" for key, value in self.reads.items()]
        parts += [f"wrote {key}={value!r}" for key, value in self.writes.items()]
        return f"{self.name}: {', '.join(parts)}"


class Edge(NamedTuple):
    """That one transaction has to come before another, and why."""

    before: Transaction
    after: Transaction
    why: str


def serializable(history: Sequence[Transaction]) -> str | None:
    """Whether the transactions can have run one after another, in whatever order.

    Returns None, or the shortest cycle of which each must come before the next, in words.
    One of unknown outcome counts if somebody has read or replaced what it wrote.
    """
    writers = {
        (key, value): each
        for each in history
        if each.outcome != "failed"
        for key, value in each.writes.items()
    }
    done = _effective(history, writers)
    edges: dict[str, list[Edge]] = defaultdict(list)
    replacing: dict[tuple[str, Hashable], list[Transaction]] = defaultdict(list)
    for each in done:
        for key in each.writes:
            replacing[key, each.reads[key]].append(each)
    for each in done:
        for key, value in each.reads.items():
            writer = writers.get((key, value))
            if value is not None and writer is None:
                return f"{each} - but nobody has written {key}={value!r}"
            if writer is not None and writer is not each:
                why = f"{each.name} read {key}={value!r} of {writer.name}"
                edges[writer.name].append(Edge(writer, each, why))
            for later in replacing[key, value]:
                if later is not each:
                    why = f"{each.name} read {key}={value!r}, which {later.name} replaced"
                    edges[each.name].append(Edge(each, later, why))
    cycle = _shortest_cycle(edges)
    if cycle is None:
        return None
    who = "; ".join(str(edge.before) for edge in cycle)
    return f"{who} - but {'; '.join(edge.why for edge in cycle)}"


def _effective(
    history: Sequence[Transaction], writers: Mapping[tuple[str, Hashable], Transaction]
) -> list[Transaction]:
    """Those that were carried out: those of unknown outcome only if their writes were seen."""
    found = {each.name: each for each in history if each.outcome == "ok"}
    fresh = deque(found.values())
    while fresh:
        for read in fresh.popleft().reads.items():
            writer = writers.get(read)
            if writer is not None and writer.name not in found:
                found[writer.name] = writer
                fresh.append(writer)
    return list(found.values())


def _shortest_cycle(edges: Mapping[str, Sequence[Edge]]) -> list[Edge] | None:
    best: list[Edge] | None = None
    for start in edges:
        came: dict[str, Edge] = {}
        queue = deque([start])
        while queue and start not in came:
            for edge in edges.get(queue.popleft(), ()):
                if edge.after.name not in came:
                    came[edge.after.name] = edge
                    queue.append(edge.after.name)
        if start in came:
            cycle = [came[start]]
            while cycle[-1].before.name != start:
                cycle.append(came[cycle[-1].before.name])
            if best is None or len(cycle) < len(best):
                best = cycle[::-1]
    return best

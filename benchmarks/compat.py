"""Tooz's API as Tenure has it, against Tooz: the same program, with another import.

On each driver, three clients take turns in every round: Tooz, Tenure behind Tooz's API, and
Tenure's own API for reference. They acquire and release a free lock, join and leave a group of
a few, and read its members with their capabilities.
"""

from __future__ import annotations

import contextlib
import statistics
from typing import Any

from .contestants import AS_TOOZ, ENTRIES, Entry
from .ground import ClientMissing, Worker, WorkerFailed, backend
from .grouping import Grouping, ToozGrouping
from .peers import Tooz
from .plan import Plan, Row, say
from .raw import load

MEASURES = ("lock", "turn", "census")
FILL = 10
GROUP = "others"


class AsTooz(Tooz):
    """The contestant Tooz, with the import changed."""

    module = "tenure.compat.tooz"

    def _connect(self, member: bytes) -> Any:
        ttl = {"ttl": self.options["ttl"]} if "ttl" in self.options else {}
        return load(f"{self.module}.coordination").get_coordinator(self.url, member, **ttl)

    def grouping(self) -> Grouping:
        return AsToozGrouping(self._connect)


class AsToozGrouping(ToozGrouping):
    """The groups of that contestant."""

    module = AsTooz.module


def compat(plan: Plan) -> dict[str, Any]:
    """Locks and groups of all three, on every driver that Tooz has one for."""
    drivers = [each for each in plan.drivers if _tooz(each) is not None or not plan.peers]
    return {driver: _driver(plan, driver) for driver in drivers}


def _tooz(driver: str) -> Entry | None:
    return next((entry for entry in ENTRIES[driver] if entry.name == "tooz"), None)


def _entries(plan: Plan, driver: str) -> list[Entry]:
    own = next(entry for entry in ENTRIES[driver] if entry.kind == "tenure")
    tooz = _tooz(driver)
    return [AS_TOOZ, own, *([tooz] if tooz is not None and plan.peers else [])]


def _driver(plan: Plan, driver: str) -> dict[str, Any]:
    with backend(driver) as (url, what), contextlib.ExitStack() as stack:
        workers: list[Worker] = []
        missing: list[str] = []
        for entry in _entries(plan, driver):
            try:
                workers.append(stack.enter_context(Worker(driver, entry, url)))
            except ClientMissing:
                missing.append(entry.name)
            except WorkerFailed as error:
                missing.append(str(error))
        times: dict[str, dict[str, list[float]]] = {}
        entries = {worker.entry.name: worker.entry for worker in workers}
        for measure in MEASURES:
            able = [worker for worker in workers if _prepared(worker, measure)]
            counts = {worker.entry.name: _count(plan, worker, measure) for worker in able}
            found = times[measure] = {name: [] for name in counts}
            for _ in range(plan.rounds if measure == "lock" else plan.group_rounds):
                plan.random.shuffle(able)
                for worker in able:
                    name = worker.entry.name
                    found[name].append(_ask(worker, measure, counts[name]))
    rows = [_row(entry, times) for entry in entries.values()]
    for row in rows:
        told = ", ".join(f"{each} {_told(row[each])}" for each in MEASURES)
        say(f"  {driver:11} {row['name']:20} {told}")
    return {"backend": what, "rows": rows, "missing": missing}


def _prepared(worker: Worker, measure: str) -> bool:
    """Whether it can take part; with a group that has some members, where there are groups."""
    if measure == "turn":
        try:
            worker.ask("fill", group=GROUP, count=FILL)
        except WorkerFailed:
            return False  # Tooz's driver has no groups
    if measure == "census":
        try:
            worker.ask("census", group=GROUP, count=1)
        except WorkerFailed:
            return False
    return True


def _ask(worker: Worker, measure: str, count: int) -> float:
    """Do it so often; how many microseconds one took."""
    if measure == "lock":
        reply = worker.ask("cycles", name="cycle", count=count)
    else:
        reply = worker.ask("turns" if measure == "turn" else "census", group=GROUP, count=count)
    return float(reply["ns"]) / 1000


def _count(plan: Plan, worker: Worker, measure: str) -> int:
    """How many fill a round; also the warm-up."""
    _ask(worker, measure, 5)
    return max(3, min(20_000, int(plan.round_seconds * 1e6 / _ask(worker, measure, 5))))


def _row(entry: Entry, times: dict[str, dict[str, list[float]]]) -> Row:
    row: Row = {"name": entry.name, "kind": entry.kind}
    for measure, found in times.items():
        mine, theirs = found.get(entry.name), found.get("tooz")
        ratio = None
        if mine and theirs:
            # Round by round, so that what slows a whole round down falls out.
            ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        row[measure] = {"us": statistics.median(mine), "ratio": ratio} if mine else None
    return row


def _told(found: dict[str, float | None] | None) -> str:
    if found is None:
        return "-"
    ratio = "" if found["ratio"] is None else f" ({found['ratio']:.2f})"
    return f"{found['us']:.1f} us{ratio}"

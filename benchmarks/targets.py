"""What Tenure promises itself, and whether a run kept it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RAW_RATIO = 1.25
LOCAL = ("memory", "file", "ipc")
"""Drivers without a network, whose raw calls cost next to nothing."""
HANDOVER_MS = {"memory": 2.0, "file": 2.0, "redis": 2.0, "postgresql": 2.0, "etcd": 2.0}
OTHERS_HANDOVER_MS = 5.0
POLLED_HANDOVER_MS = 50.0
POLLED = ("memcached", "postgresql-row", "redlock", "sql", "sqlite")
"""Drivers whose backends wake nobody."""
IDLE_SHARE = 0.02
QUEUE_RATIO = 2.0
IMPORT_MS = 50.0
AS_TOOZ_RATIO = 0.5
COMPAT = {"lock": "acquire and release", "turn": "join and leave", "census": "members"}


@dataclass(frozen=True)
class Target:
    """One promise."""

    what: str
    limit: str
    shown: str
    met: bool


def judge(results: dict[str, Any]) -> Iterator[Target]:
    """The targets of every scenario that was run."""
    for driver, found in results.get("uncontended", {}).items():
        yield from _uncontended(driver, found["rows"])
    for driver, found in results.get("handover", {}).items():
        for row in _ours(found["rows"]):
            what = f"{driver}: hand-over, {row['name']}"
            others = POLLED_HANDOVER_MS if driver.startswith(POLLED) else OTHERS_HANDOVER_MS
            yield _at_most(what, row["ms"], HANDOVER_MS.get(driver, others), " ms, median")
            what = f"{driver}: idle waiter, {row['name']}"
            yield _at_most(what, row["idle_cpu"] * 100, IDLE_SHARE * 100, " % of a processor")
    for driver, found in results.get("queues", {}).items():
        for row in found["rows"]:
            if "failed" not in row:
                what = f"{driver}: {row['many']} waiters against {row['few']}, {row['name']}"
                yield _at_most(what, row["ratio"], QUEUE_RATIO, " times per hand-over")
    for driver, found in results.get("compat", {}).items():
        yield from _compat(driver, found["rows"])
    for row in results.get("imports", {}).get("rows", ()):
        if row["name"] != "tenure":
            continue  # most of what tenure.aio costs is asyncio
        yield _at_most(f"import {row['name']}", row["ms"], IMPORT_MS, " ms")


def _uncontended(driver: str, rows: list[dict[str, Any]]) -> Iterator[Target]:
    for ours in _ours(rows):
        what = f"{driver}: acquire and release, {ours['name']}"
        if driver not in LOCAL and ours["ratio"] is not None:
            yield _at_most(what, ours["ratio"], RAW_RATIO, " times the raw client")
        peers = {
            row["name"]: row["us"]
            for row in rows
            if row["kind"] == "peer" and row["flavour"] == ours["flavour"]
        }
        if "fasteners" in peers:
            ratio = ours["us"] / peers["fasteners"]
            yield _at_most(what, ratio, 0.5, " times fasteners")
        if peers:
            best = min(peers, key=lambda name: peers[name])
            yield _at_most(what, ours["us"] / peers[best], 1.0, f" times the best peer, {best}")


def _compat(driver: str, rows: list[dict[str, Any]]) -> Iterator[Target]:
    for row in rows:
        if row["name"] != "Tenure as Tooz":
            continue
        for measure, what in COMPAT.items():
            ratio = (row[measure] or {}).get("ratio")
            if ratio is not None and (measure != "lock" or driver not in LOCAL):
                limit = AS_TOOZ_RATIO if measure == "lock" else 1.0
                yield _at_most(f"{driver}: Tooz's API, {what}", ratio, limit, " times tooz")


def _ours(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("kind") == "tenure" and "failed" not in row]


def _at_most(what: str, measured: float, limit: float, unit: str) -> Target:
    return Target(what, f"{limit:g}{unit}", f"{measured:.3g}", measured <= limit)

"""Hand-over, contention, long queues, a killed holder, and many names at a time."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from typing import Any

from .contestants import Entry
from .ground import ClientMissing, Worker, WorkerFailed, backend
from .plan import Plan, Row, say
from .worker import percentile

KILLED_TTL = 5


def handover(plan: Plan) -> dict[str, Any]:
    """A holds, B waits in another process, A releases: how long until B has it."""
    found: dict[str, Any] = {}
    for driver in plan.drivers:
        if driver == "memory":
            continue  # it has no other process
        rows: list[Row] = []
        with backend(driver) as (url, what):
            for entry in plan.entries(driver, waiting=True):
                with skipping(driver, entry, rows):
                    rows.append(_handover(plan, driver, entry, url))
        found[driver] = {"backend": what, "rows": rows}
    return found


def _handover(plan: Plan, driver: str, entry: Entry, url: str) -> Row:
    with Worker(driver, entry, url) as holder, Worker(driver, entry, url) as waiter:
        times = []
        for _ in range(plan.handovers):
            holder.ask("acquire", name="hand")
            waiter.send("acquire", name="hand")
            # Long enough to be waiting, and spread over the phases of whoever polls.
            time.sleep(plan.random.uniform(0.05, 0.2))
            released = holder.ask("release", name="hand")["at"]
            times.append((waiter.answer()["at"] - released) / 1e6)
            waiter.ask("release", name="hand")
        idle = _idle(plan, holder, waiter)
    times.sort()
    row = {
        "name": entry.name,
        "kind": entry.kind,
        "ms": statistics.median(times),
        "p90_ms": times[int(len(times) * 0.9)],
        "worst_ms": times[-1],
        "idle_cpu": idle,
    }
    say(f"  {driver:11} {entry.name:30} {row['ms']:9.3f} ms, idle {idle:.2%} of a processor")
    return row


def _idle(plan: Plan, holder: Worker, waiter: Worker) -> float:
    """The share of a processor that a waiter uses while it waits."""
    holder.ask("acquire", name="hand")
    waiter.send("acquire", name="hand")
    time.sleep(0.2)
    spent, began = waiter.cpu_seconds(), time.perf_counter()
    time.sleep(plan.idle_seconds)
    share = (waiter.cpu_seconds() - spent) / (time.perf_counter() - began)
    holder.ask("release", name="hand")
    waiter.answer()
    waiter.ask("release", name="hand")
    return share


def contention(plan: Plan) -> dict[str, Any]:
    """Turns per second of threads that share a connection, and of processes."""
    found: dict[str, Any] = {}
    for driver in plan.drivers:
        rows: list[Row] = []
        with backend(driver) as (url, what):
            for entry in plan.entries(driver, waiting=True):
                if entry.flavour == "asyncio" or entry.kind in ("raw", "reference"):
                    continue
                with skipping(driver, entry, rows):
                    with Worker(driver, entry, url) as worker:
                        rows += [_storm(plan, driver, [worker], n) for n in plan.contenders]
                    if driver != "memory":
                        with contextlib.ExitStack() as stack:
                            crew = [
                                stack.enter_context(Worker(driver, entry, url))
                                for _ in range(plan.processes)
                            ]
                            rows.append(_storm(plan, driver, crew, 1))
        found[driver] = {"backend": what, "rows": rows}
    return found


def _storm(plan: Plan, driver: str, workers: list[Worker], threads: int) -> Row:
    name = f"storm-{len(workers)}-{threads}"
    for worker in workers:
        worker.send("storm", name=name, threads=threads, seconds=plan.storm_seconds)
    replies = [worker.answer() for worker in workers]
    turns = [each for reply in replies for each in reply["turns"]]
    waits = sorted(each for reply in replies for each in reply["waits"])
    entry = workers[0].entry
    row = {
        "name": entry.name,
        "kind": entry.kind,
        "contenders": f"{threads} threads" if len(workers) == 1 else f"{len(workers)} processes",
        "per_second": sum(turns) / max(reply["seconds"] for reply in replies),
        "p50_ms": percentile(waits, 0.5) / 1e6,
        "p99_ms": percentile(waits, 0.99) / 1e6,
        "fewest": min(turns),
        "most": max(turns),
        "failures": [each for reply in replies for each in reply["failures"]][:3],
    }
    say(
        f"  {driver:11} {entry.name:20} {row['contenders']:13} {row['per_second']:9.0f} /s, "
        f"p99 {row['p99_ms']:.2f} ms, turns {row['fewest']} to {row['most']}"
    )
    return row


def queues(plan: Plan) -> dict[str, Any]:
    """What each hand-over costs with a short queue and with a long one."""
    found: dict[str, Any] = {}
    for driver in plan.drivers:
        rows: list[Row] = []
        entry = _tenure(plan, driver)
        with backend(driver) as (url, what):
            for kind, (few, many) in plan.crowds.items():
                with skipping(driver, entry, rows), Worker(driver, entry, url) as worker:
                    own = kind != "one coordinator"
                    costs: dict[int, list[float]] = {few: [], many: []}
                    for _ in range(plan.chains):
                        for waiters, times in costs.items():
                            for _ in range(plan.short_chains if waiters == few else 1):
                                reply = worker.ask(
                                    "chain", name="chain", waiters=waiters, own=own, url=url
                                )
                                times.append(reply["ns"] / 1000)
                    short, long = (statistics.median(times) for times in costs.values())
                    row = {"name": kind, "few": few, "many": many, "few_us": short}
                    rows.append(row | {"many_us": long, "ratio": long / short})
                    say(f"  {driver:11} {kind:16} {few}: {short:.0f} us, {many}: {long:.0f} us")
        found[driver] = {"backend": what, "rows": rows}
    return found


def killed(plan: Plan) -> dict[str, Any]:
    """How long after `kill -9` of the holder the next one has the lock."""
    found: dict[str, Any] = {}
    options = {"ttl": KILLED_TTL}
    for driver in plan.drivers:
        if driver == "memory":
            continue
        entry = _tenure(plan, driver)
        times = []
        rows: list[Row] = []
        with (
            backend(driver) as (url, what),
            skipping(driver, entry, rows),
            Worker(driver, entry, url, options) as waiter,
        ):
            for _ in range(plan.kills):
                holder = Worker(driver, entry, url, options)
                holder.ask("acquire", name="kill")
                waiter.send("acquire", name="kill")
                time.sleep(plan.random.uniform(0.1, 1.0))
                at = time.monotonic_ns()
                holder.kill()
                times.append((waiter.answer()["at"] - at) / 1e9)
                waiter.ask("release", name="kill")
            rows.append({"name": entry.name, "s": statistics.median(times), "worst_s": max(times)})
            say(f"  {driver:11} {statistics.median(times):.2f} s, worst {max(times):.2f} s")
        found[driver] = {"backend": what, "rows": rows, "ttl": KILLED_TTL}
    return found


def names(plan: Plan) -> dict[str, Any]:
    """Many names held at a time by one coordinator."""
    found: dict[str, Any] = {}
    for driver in plan.drivers:
        entry = _tenure(plan, driver)
        rows: list[Row] = []
        with backend(driver) as (url, what), skipping(driver, entry, rows):
            with Worker(driver, entry, url) as worker:
                reply = worker.ask("many", count=plan.names)
                rows.append({"name": entry.name, "asked": plan.names} | reply)
            say(
                f"  {driver:11} {reply['taken']} names, {reply['acquire_ns'] / 1000:.0f} us and "
                f"{reply['bytes']:.0f} bytes each {reply['failure']}"
            )
        found[driver] = {"backend": what, "rows": rows}
    return found


def _tenure(plan: Plan, driver: str) -> Entry:
    return next(e for e in plan.entries(driver) if e.kind == "tenure" and e.flavour == "sync")


@contextlib.contextmanager
def skipping(driver: str, entry: Entry, rows: list[Row]) -> Iterator[None]:
    """Go on with the next contestant when one fails; the table shows that it did."""
    try:
        yield
    except ClientMissing:
        pass
    except WorkerFailed as error:
        say(f"  {driver:11} {error}")
        rows.append({"name": entry.name, "kind": entry.kind, "failed": str(error)})

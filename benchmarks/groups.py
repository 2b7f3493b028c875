"""Groups, those who watch them, elections, and hash rings."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

from .contended import KILLED_TTL, skipping
from .contestants import Entry
from .ground import Worker, backend
from .plan import Plan, Row, say
from .raw import load

FILL_AT_A_TIME = 500
"""Members, so that a worker answers in time."""
RING_KEYS = 2000
GROUP_PEERS = ("tooz", "kazoo Lock")


def _entries(plan: Plan, driver: str) -> list[Entry]:
    """Tenure, and of the peers those that have groups."""
    return [
        entry
        for entry in plan.entries(driver)
        if entry.flavour == "sync" and (entry.kind == "tenure" or entry.name in GROUP_PEERS)
    ]


@contextlib.contextmanager
def _pair(
    driver: str, entry: Entry, url: str, options: dict[str, Any] | None = None
) -> Iterator[tuple[Worker, Worker]]:
    """Two processes; of the memory driver, one in both parts."""
    with Worker(driver, entry, url, options) as first, contextlib.ExitStack() as stack:
        if driver == "memory":
            yield first, first
        else:
            yield first, stack.enter_context(Worker(driver, entry, url, options))


def _each(plan: Plan, measure: Callable[[str, Entry, str, list[Row]], None]) -> dict[str, Any]:
    """Every driver's contestants in turn; who fails is left out from there on."""
    found: dict[str, Any] = {}
    for driver in plan.drivers:
        rows: list[Row] = []
        with backend(driver) as (url, what):
            for entry in _entries(plan, driver):
                with skipping(driver, entry, rows):
                    measure(driver, entry, url, rows)
        found[driver] = {"backend": what, "rows": rows}
    return found


def _median_us(plan: Plan, worker: Worker, do: str, group: str) -> float:
    """The median of the rounds, of as many repetitions as fill one."""
    once = worker.ask(do, group=group, count=1)["ns"]
    count = max(1, min(1000, int(plan.round_seconds * 1e9 / once)))
    rounds = range(plan.group_rounds)
    times = [float(worker.ask(do, group=group, count=count)["ns"]) for _ in rounds]
    return statistics.median(times) / 1000


def groups(plan: Plan) -> dict[str, Any]:
    """One member joins and leaves, and reads all the others, in groups of many sizes."""

    def measure(driver: str, entry: Entry, url: str, rows: list[Row]) -> None:
        with _pair(driver, entry, url) as (crowd, one):
            present = 0
            for size in plan.group_sizes:
                began = time.perf_counter()
                while present < size:
                    some = min(FILL_AT_A_TIME, size - present)
                    crowd.ask("fill", group="size", count=some)
                    present += some
                filled = time.perf_counter() - began
                row = {
                    "name": entry.name,
                    "kind": entry.kind,
                    "members": one.ask("census", group="size", count=1)["members"],
                    "turn_us": _median_us(plan, one, "turns", "size"),
                    "census_us": _median_us(plan, one, "census", "size"),
                    "fill_s": filled,
                }
                rows.append(row)
                say(
                    f"  {driver:11} {entry.name:10} {row['members']:6} members: join and leave "
                    f"{row['turn_us']:.0f} us, all read in {row['census_us']:.0f} us"
                )

    return _each(plan, measure)


def idle(plan: Plan) -> dict[str, Any]:
    """What a member's coming and going costs where there are many other groups."""

    def measure(driver: str, entry: Entry, url: str, rows: list[Row]) -> None:
        with _pair(driver, entry, url) as (crowd, one):
            alone = _median_us(plan, one, "turns", "busy")
            present = 0
            while present < plan.idle_groups:
                some = min(FILL_AT_A_TIME, plan.idle_groups - present)
                crowd.ask("fill", group=f"idle-{present}", count=1, groups=some)
                present += some
            among = _median_us(plan, one, "turns", "busy")
        row = {"name": entry.name, "kind": entry.kind, "groups": present}
        rows.append(row | {"alone_us": alone, "among_us": among, "ratio": among / alone})
        say(
            f"  {driver:11} {entry.name:10} join and leave {alone:.0f} us, "
            f"with {present} other groups {among:.0f} us"
        )

    return _each(plan, measure)


def watching(plan: Plan) -> dict[str, Any]:
    """From a change until the first, the middle and the last of many watchers is told."""

    def measure(driver: str, entry: Entry, url: str, rows: list[Row]) -> None:
        # A watcher of tooz's always has a client of its own.
        for own in (False, True) if entry.kind == "tenure" else (True,):
            row = {"name": entry.name, "kind": entry.kind, "watchers": plan.audience, "own": own}
            with skipping(driver, entry, rows), _pair(driver, entry, url) as (audience, changer):
                group = f"watched-{own}"
                changer.ask("fill", group=group, count=1)
                audience.ask("audience", group=group, watchers=plan.audience, own=own)
                times: list[list[float]] = []
                for turn in range(2 * plan.changes):
                    audience.ask("arm")
                    # Spread over the phases of whoever polls.
                    time.sleep(plan.random.uniform(0.0, 0.1))
                    began = changer.ask("leave" if turn % 2 else "join", group=group)["at"]
                    times.append([(at - began) / 1e6 for at in audience.ask("told")["at"]])
                row["first_ms"] = statistics.median(each[0] for each in times)
                row["ms"] = statistics.median(statistics.median(each) for each in times)
                row["last_ms"] = statistics.median(each[-1] for each in times)
                rows.append(row)
                say(
                    f"  {driver:11} {entry.name:10} {'own' if own else 'shared'} coordinators: "
                    f"half told in {row['ms']:.1f} ms, all in {row['last_ms']:.1f} ms"
                )

    return _each(plan, measure)


def elections(plan: Plan) -> dict[str, Any]:
    """How long nobody leads: after a resignation, and after `kill -9` of the leader."""
    options = {"ttl": KILLED_TTL}

    def measure(driver: str, entry: Entry, url: str, rows: list[Row]) -> None:
        if driver == "memory":
            return  # it has no other process
        resigned, killed = [], []
        with Worker(driver, entry, url, options) as waiter:
            with Worker(driver, entry, url, options) as leader:
                for _ in range(plan.handovers):
                    leader.ask("lead", name="job")
                    waiter.send("lead", name="job")
                    time.sleep(plan.random.uniform(0.05, 0.2))
                    began = leader.ask("resign", name="job")["at"]
                    resigned.append((waiter.answer()["at"] - began) / 1e6)
                    waiter.ask("resign", name="job")
            for _ in range(plan.kills):
                leader = Worker(driver, entry, url, options)
                leader.ask("lead", name="job")
                waiter.send("lead", name="job")
                time.sleep(plan.random.uniform(0.1, 1.0))
                at = time.monotonic_ns()
                leader.kill()
                killed.append((waiter.answer()["at"] - at) / 1e9)
                waiter.ask("resign", name="job")
        row = {
            "name": entry.name,
            "kind": entry.kind,
            "resigned_ms": statistics.median(resigned),
            "killed_s": statistics.median(killed),
            "worst_s": max(killed),
        }
        rows.append(row)
        say(
            f"  {driver:11} {entry.name:10} after a resignation {row['resigned_ms']:.1f} ms, "
            f"after a kill {row['killed_s']:.2f} s"
        )

    return _each(plan, measure)


def rings(plan: Plan) -> dict[str, Any]:
    """How fast a hash ring is made, and says who owns a key."""
    from tenure import HashRing

    kinds: dict[str, Callable[[list[str]], Callable[[bytes], object]]] = {
        "Tenure": lambda nodes: HashRing(nodes).owner
    }
    missing = []
    if plan.peers:
        try:
            tooz = load("tooz.hashring").HashRing
            kinds["tooz"] = lambda nodes: tooz(nodes).__getitem__
        except ImportError:
            missing.append("tooz")
    keys = [b"key-%d" % number for number in range(RING_KEYS)]
    rows: list[Row] = []
    for count in plan.ring_nodes:
        nodes = [f"node-{number}" for number in range(count)]
        for name, make in kinds.items():
            began = time.perf_counter()
            owner = make(nodes)
            made = time.perf_counter() - began
            times = []
            for _ in range(plan.group_rounds):
                began = time.perf_counter()
                for key in keys:
                    owner(key)
                times.append((time.perf_counter() - began) / RING_KEYS)
            row = {"name": name, "kind": "tenure" if name == "Tenure" else "peer", "nodes": count}
            rows.append(row | {"made_ms": made * 1e3, "per_second": 1 / statistics.median(times)})
            say(f"  {name:10} {count} nodes: {rows[-1]['per_second']:,.0f} lookups per second")
    return {"rows": rows, "missing": missing}

"""Acquire and release of a free lock, and the cost of the import."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from typing import Any

from .contestants import Entry
from .ground import ROOT, ClientMissing, Worker, WorkerFailed, backend
from .plan import Plan, Row, say


def uncontended(plan: Plan) -> dict[str, Any]:
    """The rounds of all contestants interleaved, with a fresh order in each."""
    return {driver: _driver(plan, driver) for driver in plan.drivers}


def _driver(plan: Plan, driver: str) -> dict[str, Any]:
    with backend(driver) as (url, what), contextlib.ExitStack() as stack:
        workers: list[Worker] = []
        missing: list[str] = []
        for entry in plan.entries(driver):
            try:
                workers.append(stack.enter_context(Worker(driver, entry, url)))
            except ClientMissing:
                missing.append(entry.name)
            except WorkerFailed as error:
                missing.append(str(error))
        counts = {worker.entry.name: _calibrate(plan, worker) for worker in workers}
        wall: dict[str, list[float]] = {name: [] for name in counts}
        cpu: dict[str, list[float]] = {name: [] for name in counts}
        for _ in range(plan.rounds):
            plan.random.shuffle(workers)
            for worker in workers:
                name = worker.entry.name
                reply = worker.ask("cycles", name="cycle", count=counts[name])
                wall[name].append(reply["ns"] / 1000)
                cpu[name].append(reply["cpu_ns"] / 1000)
        entries = {worker.entry.name: worker.entry for worker in workers}
    rows = [_row(entries[name], wall, cpu, entries) for name in counts]
    for row in rows:
        say(f"  {driver:11} {row['name']:30} {row['us']:9.1f} us  {row['ratio'] or 0:6.2f} x")
    return {"backend": what, "rows": rows, "missing": missing}


def _calibrate(plan: Plan, worker: Worker) -> int:
    """How many cycles fill a round; also the warm-up."""
    worker.ask("cycles", name="cycle", count=10)
    ns = worker.ask("cycles", name="cycle", count=10)["ns"]
    return max(3, min(20_000, int(plan.round_seconds * 1e9 / ns)))


def _row(
    entry: Entry,
    wall: dict[str, list[float]],
    cpu: dict[str, list[float]],
    entries: dict[str, Entry],
) -> Row:
    raw = next(
        (e.name for e in entries.values() if e.kind == "raw" and e.flavour == entry.flavour), None
    )
    ratio = None
    if raw is not None:
        # Round by round, so that what slows a whole round down falls out.
        pairs = zip(wall[entry.name], wall[raw], strict=True)
        ratio = statistics.median(mine / base for mine, base in pairs)
    spread = statistics.quantiles(wall[entry.name], n=4) if len(wall[entry.name]) > 1 else [0.0] * 3
    return {
        "name": entry.name,
        "kind": entry.kind,
        "flavour": entry.flavour,
        "us": statistics.median(wall[entry.name]),
        "spread": (spread[2] - spread[0]) / statistics.median(wall[entry.name]),
        "cpu_us": statistics.median(cpu[entry.name]),
        "ratio": ratio,
    }


def imports(plan: Plan) -> dict[str, Any]:
    """What each import computes beyond an interpreter that imports nothing."""
    codes = {"tenure": "import tenure", "tenure.aio": "import tenure.aio"}
    codes["asyncio"] = "import asyncio"  # for reference: tenure.aio needs it
    times: dict[str, list[float]] = {name: [] for name in ("", *codes)}
    for code in codes.values():
        _run(code)  # which leaves the compiled modules behind, as an installation does
    for _ in range(plan.import_runs):
        for name in times:
            times[name].append(_run(codes.get(name, "pass")))
    base = statistics.median(times[""])
    rows = [
        {"name": name, "ms": (statistics.median(times[name]) - base) * 1000, "foreign": _foreign(c)}
        for name, c in codes.items()
    ]
    for row in rows:
        say(
            f"  import {row['name']:12} {row['ms']:.1f} ms, third-party: {row['foreign'] or 'none'}"
        )
    return {"base_ms": base * 1000, "rows": rows}


def _environment() -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(ROOT / "src")}


def _run(code: str) -> float:
    """The processor time of an interpreter that runs the code, from its start to its end."""
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", code], _environment())
    _, status, usage = os.wait4(process, 0)
    if status:
        raise RuntimeError(f"{code!r} failed")
    return usage.ru_utime + usage.ru_stime


def _foreign(code: str) -> list[str]:
    """The modules outside of the standard library and of Tenure that are loaded by then."""
    script = (
        "import sys, json; before = set(sys.modules)\n" + code + "\n"
        "names = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(json.dumps(sorted(names - set(sys.stdlib_module_names) - {'tenure'})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=_environment(), check=True, capture_output=True
    )
    found: list[str] = json.loads(done.stdout)
    return found

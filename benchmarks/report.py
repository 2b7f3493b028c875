"""The results as JSON, and as tables between two markers of the README."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import json
import operator
import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from . import targets
from .contestants import DRIVERS
from .plan import Row

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
LIBRARIES = (
    "redis", "hiredis", "psycopg", "grpcio", "tooz", "fasteners", "filelock", "portalocker",
    "python-redis-lock", "pottery", "sherlock", "pals", "etcd3gw", "etcd3", "kazoo", "pymemcache",
    "PyMySQL", "aiomysql", "SQLAlchemy", "py-consul", "httpx2", "httpx", "sysv_ipc",
)  # fmt: skip


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    libraries = {}
    for name in LIBRARIES:
        try:
            libraries[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": libraries,
        "load": os.getloadavg()[0],
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d"),
    }


def write(folder: Path, results: dict[str, Any]) -> None:
    """Merge into results.json, and lay the tables anew in README.md."""
    store = folder / "results.json"
    merged: dict[str, Any] = json.loads(store.read_text()) if store.exists() else {}
    for scenario, found in results.items():
        merged[scenario] = _beside(merged.get(scenario), found)
    store.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")
    page = folder / "README.md"
    text = page.read_text() if page.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{tables(merged)}\n{END}{after}")


def _beside(old: dict[str, Any] | None, new: dict[str, Any]) -> dict[str, Any]:
    """The new results, and of drivers that were not measured this time the old ones."""
    if not all(driver in DRIVERS for driver in new["results"]):
        return new
    for each in new["results"].values():
        each["date"] = new["machine"]["date"]
    kept = old["results"] if old is not None and old["quick"] == new["quick"] else {}
    found = kept | new["results"]
    return new | {"results": {driver: found[driver] for driver in DRIVERS if driver in found}}


def tables(results: dict[str, Any]) -> str:
    """All tables, in Markdown."""
    parts = [f"### Targets\n\n{_targets(results)}"] if results else []
    for scenario, (title, lay) in _TABLES.items():
        if scenario in results:
            found = results[scenario]
            parts.append(f"### {title}\n\n{_origin(found)}\n\n{lay(found['results'])}")
    return "\n".join(parts)


def _origin(found: dict[str, Any]) -> str:
    where = found["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in where["libraries"].items())
    text = (
        f"{where['date']}, {where['cores']} cores of {where['cpu']}, Linux {where['kernel']}, "
        f"Python {where['python']}; {libraries or 'no client libraries'}."
    )
    if found["pinned"]:
        text += " Everything on one processor."
    if found["quick"]:
        text += " **A quick run, to try the harness: these are no measurements.**"
    elif where["load"] > 0.5:
        text += f" **The machine was not idle (load {where['load']:.1f}): do not rely on this.**"
    return text


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _by_driver(
    results: dict[str, Any], head: Sequence[str], cells: Any, sort: tuple[str, ...] = ()
) -> str:
    parts = []
    for driver, found in results.items():
        rows: list[Row] = found["rows"]
        good = [row for row in rows if "failed" not in row]
        for key in reversed(sort):
            good.sort(key=operator.itemgetter(key), reverse=key == "flavour")
        when = f", {found['date']}" if "date" in found else ""
        text = f"**{driver}** ({found['backend']}{when})\n\n"
        text += _table(head, [cells(row) for row in good])
        notes = [row["failed"] for row in rows if "failed" in row]
        notes += [f"{name} (not run)" for name in found.get("missing", ())]
        if notes:
            text += "\nLeft out: " + "; ".join(notes) + "\n"
        parts.append(text)
    return "\n".join(parts)


def _name(row: Row) -> str:
    return f"**{row['name']}**" if row.get("kind") == "tenure" else str(row["name"])


def _uncontended(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        times = [f"{row['us']:.1f}", f"{row['cpu_us']:.1f}", f"{row['spread']:.0%}"]
        return [_name(row), *times, ratio]

    head = ("", "µs", "of these computing in the client", "quartile spread", "times the raw client")
    return _by_driver(results, head, cells, ("flavour", "us"))


def _handover(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        times = [f"{row[key]:.3g}" for key in ("ms", "p90_ms", "worst_ms")]
        return [_name(row), *times, f"{row['idle_cpu']:.2%}"]

    head = ("", "median ms", "90 % ms", "worst ms", "processor used by an idle waiter")
    return _by_driver(results, head, cells, ("ms",))


def _contention(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        failed = f" ({row['failures'][0]})" if row["failures"] else ""
        return [
            _name(row) + failed,
            row["contenders"],
            f"{row['per_second']:.0f}",
            f"{row['p50_ms']:.3g}",
            f"{row['p99_ms']:.3g}",
            f"{row['fewest']}-{row['most']}",
        ]

    head = ("", "contenders", "turns per second", "median wait ms", "99 % ms", "turns of each")
    return _by_driver(results, head, cells)


def _queues(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        few, many = (f"{row[f'{k}_us']:.0f} ({row[k]} waiters)" for k in ("few", "many"))
        return [row["name"], few, many, f"{row['ratio']:.2f}"]

    return _by_driver(results, ("coordinators", "µs, short queue", "µs, long", "ratio"), cells)


def _killed(results: dict[str, Any]) -> str:
    rows = [
        [driver, f"{row['s']:.2f}", f"{row['worst_s']:.2f}"]
        for driver, found in results.items()
        for row in found["rows"]
        if "failed" not in row
    ]
    return _table(("driver, TTL of 5 s", "median s", "worst s"), rows)


def _names(results: dict[str, Any]) -> str:
    rows = []
    for driver, found in results.items():
        for row in found["rows"]:
            if "failed" in row:
                rows.append([driver, row["failed"], "", "", ""])
                continue
            taken = f"{row['taken']:,}"
            if row["failure"]:
                taken += f" of {row['asked']:,}: {row['failure']}"
            times = [f"{row[key] / 1000:.1f}" for key in ("acquire_ns", "release_ns")]
            rows.append([driver, taken, *times, f"{row['bytes']:,.0f}"])
    return _table(("driver", "held", "µs to acquire", "µs to release", "bytes each"), rows)


def _groups(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        return [
            _name(row),
            f"{row['members']:,}",
            f"{row['turn_us']:,.0f}",
            f"{row['census_us']:,.0f}",
            f"{row['census_us'] / max(1, row['members']):.2f}",
        ]

    head = ("", "members", "µs to join and leave", "µs to read all", "µs each")
    return _by_driver(results, head, cells)


def _idle(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        among = f"{row['among_us']:,.0f} ({row['groups']:,} groups)"
        return [_name(row), f"{row['alone_us']:,.0f}", among, f"{row['ratio']:.2f}"]

    head = ("", "µs to join and leave", "µs among others", "ratio")
    return _by_driver(results, head, cells)


def _watching(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        of = "each its own" if row["own"] else "one"
        times = [f"{row[key]:.3g}" for key in ("first_ms", "ms", "last_ms")]
        return [_name(row), f"{row['watchers']}", of, *times]

    head = ("", "watchers", "clients", "first told, ms", "half of them, ms", "all, ms")
    return _by_driver(results, head, cells)


def _elections(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        killed = [f"{row[key]:.2f}" for key in ("killed_s", "worst_s")]
        return [_name(row), f"{row['resigned_ms']:.3g}", *killed]

    head = ("TTL of 5 s", "ms after a resignation", "s after kill -9", "worst s")
    found = {driver: each for driver, each in results.items() if each["rows"]}
    return _by_driver(found, head, cells)


def _rings(results: dict[str, Any]) -> str:
    rows = [
        [_name(row), f"{row['nodes']:,}", f"{row['made_ms']:.3g}", f"{row['per_second']:,.0f}"]
        for row in results["rows"]
    ]
    text = _table(("", "nodes", "ms to make it", "lookups per second"), rows)
    left_out = ", ".join(results["missing"])
    return f"{text}\nLeft out: {left_out} (not installed)\n" if left_out else text


def _compat(results: dict[str, Any]) -> str:
    def cells(row: Row) -> list[str]:
        found = [_name(row)]
        for measure in ("lock", "turn", "census"):
            one = row[measure]
            ratio = "" if one is None or one["ratio"] is None else f" ({one['ratio']:.2f})"
            found.append("none" if one is None else f"{one['us']:,.1f}{ratio}")
        return found

    head = ("", "µs to lock and unlock", "µs to join and leave", "µs to read the members")
    return "In brackets, how many times as long as Tooz.\n\n" + _by_driver(results, head, cells)


def _targets(results: dict[str, Any]) -> str:
    rows = [
        [target.what, target.limit, target.shown, "yes" if target.met else "**no**"]
        for target in targets.judge({name: found["results"] for name, found in results.items()})
    ]
    return _table(("what", "target", "measured", "met"), rows)


def _imports(results: dict[str, Any]) -> str:
    rows = [
        [f"`import {row['name']}`", f"{row['ms']:.1f}", ", ".join(row["foreign"]) or "none"]
        for row in results["rows"]
    ]
    return _table(("", "ms of computing beyond an empty interpreter", "third-party modules"), rows)


_TABLES = {
    "uncontended": ("Acquire and release, uncontended", _uncontended),
    "handover": ("Hand-over between two processes", _handover),
    "contention": ("Contention", _contention),
    "queues": ("The cost of each hand-over in a long queue", _queues),
    "killed": ("Take-over after kill -9 of the holder", _killed),
    "names": ("Many names at a time", _names),
    "groups": ("Joining, leaving and reading a group", _groups),
    "idle": ("A change among many groups", _idle),
    "watching": ("From a change to those who watch", _watching),
    "elections": ("From one leader to the next", _elections),
    "rings": ("Hash rings", _rings),
    "compat": ("Tooz's API: the same program with another import", _compat),
    "imports": ("Import", _imports),
}

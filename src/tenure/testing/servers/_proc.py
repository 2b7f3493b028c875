"""What Linux tells about processes under /proc, and pausing them for certain."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

_POLL = 0.01


def until(condition: Callable[[], bool], limit: float) -> bool:
    """Ask again and again until the condition holds; False once the time is up."""
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True


def _stat(path: Path) -> list[str]:
    """The fields after the command's name: state, parent, ...; empty if it is gone."""
    try:
        return path.read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return []


def state(pid: int) -> str:
    """The letter of the process's state, such as R, S, T or Z; empty if it is gone."""
    fields = _stat(Path(f"/proc/{pid}/stat"))
    return fields[0] if fields else ""


def gone(pid: int) -> bool:
    """Whether nothing of the process runs any more."""
    return state(pid) in {"", "Z", "X"}


def stopped(pid: int) -> bool:
    """Whether every thread of the process is stopped (or has ended)."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return True
    letters = {"".join(_stat(Path(f"/proc/{pid}/task/{thread}/stat"))[:1]) for thread in threads}
    return letters <= {"T", "Z", "X", ""}


def descendants(root: int) -> list[int]:
    """Every process below this one, parents before their children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(Path(f"/proc/{name}/stat"))
            if len(fields) > 1:
                children.setdefault(int(fields[1]), []).append(int(name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found[1:]


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that has ended meanwhile does not matter."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def freeze(root: int, limit: float) -> list[int]:
    """Stop a process and everything below it; return their ids once all have stopped.

    A server that works with a process per client goes on serving when only its first
    process is stopped, so the children are stopped as well, after their parents, until
    no new one turns up.
    """
    frozen: list[int] = []
    fresh = [root]
    while fresh:
        for pid in fresh:
            send(pid, signal.SIGSTOP)
        for pid in fresh:
            if not until(lambda pid=pid: stopped(pid), limit):  # type: ignore[misc]
                raise TimeoutError(f"process {pid} did not stop within {limit:g} s")
        frozen += fresh
        fresh = [pid for pid in descendants(root) if pid not in frozen]
    return frozen


def thaw(root: int) -> None:
    """Let a process and everything below it go on, children first."""
    for pid in [*reversed(descendants(root)), root]:
        send(pid, signal.SIGCONT)


def listens(pid: int, port: int) -> bool:
    """Whether this very process listens on the port, not a stranger who came first."""
    wanted = f":{port:04X}"
    inodes = set()
    try:
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[1].endswith(wanted) and fields[3] == "0A":
                inodes.add(f"socket:[{fields[9]}]")
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{name}") in inodes:
                    return True
    except OSError:
        return False
    return False

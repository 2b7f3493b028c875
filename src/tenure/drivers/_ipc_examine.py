"""What about this machine would break the ipc driver's locks."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator

from .._model import Finding
from ..wires import sysv
from ._file_examine import room
from ._ipc_sets import COUNT, OPERATIONS_MAX, leftovers

LOGIND = "/etc/systemd/logind.conf"
SYSTEMD = "/run/systemd/system"
FIRST_SPACE = 0xEFFFFFFF
"""The number of the IPC namespace that the machine was started with."""

USER_LEAST = 1000
"""Users below that are services, whose semaphores systemd leaves alone."""

_NEARLY = 0.9
_SYSCTL = "/proc/sys/kernel/sem"


def examine(folder: str, user: int) -> list[Finding]:
    """The findings about the kernel's limits, the memory, and who cleans up; never raises."""
    return [*_limits(), *_leftovers(user), *room(folder), *_logins(user), *_space()]


def _limits() -> Iterator[Finding]:
    limits = sysv.limits()
    if limits is None:
        text = "The kernel's limits for semaphores cannot be read."
        yield Finding("note", _SYSCTL, text, "Compare `ipcs -ls` with `ipcs -us`.")
        return
    per_set, in_all, operations, sets = limits
    for have, need, number, what in (
        (per_set, COUNT, "first", "semaphores in a set"),
        (operations, OPERATIONS_MAX, "third", "operations in a call"),
    ):
        if have < need:
            text = f"A lock needs {need} {what}: every acquire is refused (StorageError)."
            advice = f"Raise the {number} number of `sysctl kernel.sem` to {need} or more."
            yield Finding("error", f"{_SYSCTL}: {have} {what}", text, advice)
    found = sysv.listed()
    for used, need, most, number, what in (
        (len(found), 1, sets, "fourth", "sets"),
        (sum(each.size for each in found), COUNT, in_all, "second", "semaphores"),
    ):
        if used + need > most * _NEARLY:
            subject = f"{used} of {most} {what} in use"
            text = "A name that is locked needs a set; without one, acquire raises StorageError."
            advice = f"See `ipcs -s` for whose they are, or raise the {number} number of "
            yield Finding("warning", subject, text, advice + "`sysctl kernel.sem`.")


def _leftovers(user: int) -> Iterator[Finding]:
    left = len(leftovers(user))
    if left:
        text = "Processes that were killed left them; whoever connects removes them bit by bit."
        yield Finding("note", f"{left} sets of semaphores that nobody uses", text, "")


def _logins(user: int) -> Iterator[Finding]:
    if user < USER_LEAST or not os.path.isdir(SYSTEMD) or not _removes_ipc():
        return
    text = (
        f"When the last login of user {user} ends, systemd removes that user's semaphores and "
        "files in /dev/shm, under whoever holds a lock. Leases are then lost."
    )
    advice = f"Set RemoveIPC=no in {LOGIND}, or run as a system user, or use file://."
    yield Finding("warning", "RemoveIPC=yes", text, advice)


def _removes_ipc() -> bool:
    removes = True  # as systemd has it, if nobody says otherwise
    for path in (LOGIND, *sorted(glob.glob(f"{LOGIND}.d/*.conf"))):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                told = re.findall(r"^\s*RemoveIPC\s*=\s*(\w+)", file.read(), re.MULTILINE)
        except OSError:
            continue
        if told:
            removes = told[-1].lower() in ("yes", "true", "on", "1")
    return removes


def _space() -> Iterator[Finding]:
    try:
        space = os.stat("/proc/self/ns/ipc").st_ino
    except OSError:
        return
    if space != FIRST_SPACE:
        text = "This process is in an IPC namespace of its own, as containers have: it excludes "
        advice = "For several containers, let them share one (`docker run --ipc`), or use file://."
        yield Finding("note", "IPC namespace", text + "the processes in there only.", advice)

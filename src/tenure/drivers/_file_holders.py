"""Who holds the locks of a folder, for an operator to read.

Nothing is touched: a probe that locked a file could turn others away.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from .._model import Holder, Taken
from ._file_names import LOCK_SUFFIX, lock_name

RECORD_BYTES_MAX = 512
WAITING_BYTES = 15
"""Behind the record stands a time in milliseconds: until then, somebody waits."""

WAITING_MS_MAX = 1000
"""A mark that lies farther ahead was made by another clock."""

_RECORD = re.compile(rb"(\d+) (\d+) ([^\n]*)\n")


def waited_for(found: bytes, now: float) -> bool:
    """Say whether somebody waits for a lock whose file begins with these bytes."""
    mark = found[RECORD_BYTES_MAX:]
    return mark.isdigit() and 0 < int(mark) - now * 1000 < WAITING_MS_MAX


def holder(path: str) -> Holder | None:
    """Who holds the lock, as its file says; None if nobody does."""
    try:
        with open(path, "rb") as file:
            found = file.read(RECORD_BYTES_MAX)
            inode = os.fstat(file.fileno()).st_ino
    except OSError:
        return None
    locks = _locks()
    # Where there is no table of locks, the record is all there is.
    return _recorded(found) if locks is None or inode in locks else None


def taken(folder: str, now: float) -> Sequence[Taken]:
    """All locks of a folder that are held, by name; none where the system has no table of them."""
    locks = _locks()
    if not locks:
        return ()
    held = []
    try:
        with os.scandir(folder) as entries:
            files = [entry for entry in entries if entry.name.endswith(LOCK_SUFFIX)]
            held = [(entry.name, entry.path, locks.get(entry.inode())) for entry in files]
    except OSError:
        return ()
    found = [_taken(name, path, modes, now) for name, path, modes in held if modes is not None]
    known = (each for each in found if each is not None)
    return tuple(sorted(known, key=lambda each: each.name or ""))


def _taken(name: str, path: str, modes: list[str], now: float) -> Taken | None:
    try:
        with open(path, "rb") as file:
            found = file.read(RECORD_BYTES_MAX + WAITING_BYTES)
    except OSError:
        return None
    # Of several readers the record names the one that came last.
    holders = (_recorded(found), *[Holder("unknown")] * (len(modes) - 1))
    told = found[:RECORD_BYTES_MAX].split(b"\n")
    line = told[1] if len(told) > 2 else b""
    waiters = None if waited_for(found, now) else 0
    return Taken(lock_name(name, line), holders, waiters, "READ" in modes)


def _recorded(found: bytes) -> Holder:
    record = _RECORD.match(found[:RECORD_BYTES_MAX])
    if record is None:
        return Holder("unknown")
    return Holder(record[3].decode(errors="replace"), int(record[1]), float(record[2]))


def _locks() -> dict[int, list[str]] | None:
    """By inode, the modes of the `flock` locks that this machine knows; None without a table."""
    locks: dict[int, list[str]] = {}
    try:
        with open("/proc/locks", encoding="ascii") as table:
            for line in table:
                words = line.split()
                # "1: FLOCK ADVISORY WRITE 4711 fe:00:1234 0 EOF"; "->" marks one that waits
                if len(words) > 5 and words[1] == "FLOCK":
                    locks.setdefault(int(words[5].rpartition(":")[2]), []).append(words[3])
    except OSError:
        return None
    return locks

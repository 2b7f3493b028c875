"""What a coordinator holds, written down where others can read it.

In the session's own file, behind its first line: whoever finds the file knows whether its
process lives, and it goes with the session. The file is mapped, so that a record costs no call
into the kernel. Nothing depends on a record: it is for people to read.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from ._file_names import lock_file, told_name

RECORD_BYTES = 512
RECORDS_FIRST = 64
RECORDS_MAX = 1 << 16

_RECORD = re.compile(rb"\+(\d) (\d+) (\d+) ([0-9a-f]{16}) (.*)\n")


class Holding(NamedTuple):
    """A lock that somebody holds, as its record says."""

    name: str
    mark: bytes
    owner: str
    token: int
    since: float
    shared: bool


class Holdings:
    """The records of one session of ours."""

    def __init__(self, file: int) -> None:
        os.ftruncate(file, RECORD_BYTES * (RECORDS_FIRST + 1))
        self._map = mmap.mmap(file, 0)
        self._free = list(range(RECORDS_FIRST, 0, -1))
        self._size = RECORDS_FIRST

    def add(self, tail: bytes, token: int, wall: float, shared: bool) -> int:
        """Write a record with the `tail` of a name; return its place, or -1 if there is none."""
        if not self._free and not self._grow():
            return -1
        try:
            place = self._free.pop()
        except IndexError:
            return -1
        record = b"-%d %d %d %b" % (shared, token, wall, tail)
        start = place * RECORD_BYTES
        try:
            self._map[start : start + len(record)] = record
            self._map[start] = ord("+")  # whoever reads it before sees none
        except ValueError:
            return -1  # the session ends, and with it its records
        return place

    def clear(self, place: int) -> None:
        """The lock is not held any more."""
        if place > 0:
            with contextlib.suppress(ValueError):  # closed, and forgotten
                self._map[place * RECORD_BYTES] = ord("-")
            self._free.append(place)

    def _grow(self) -> bool:
        size = self._size * 2
        if size > RECORDS_MAX:
            return False
        try:
            self._map.resize(RECORD_BYTES * (size + 1))
        except (OSError, ValueError):
            return False
        self._free += range(size, self._size, -1)
        self._size = size
        return True

    def close(self) -> None:
        """Give the memory back."""
        self._map.close()


def tail(name: str) -> bytes:
    """What a record says of a name."""
    return mark(name) + b" " + lock_file("", name)[1]


def mark(name: str) -> bytes:
    """What tells a name that is shortened from others."""
    return hashlib.sha256(name.encode()).hexdigest()[:16].encode()


def read(path: str) -> Iterator[Holding]:
    """The holdings in a session's file; none if it cannot be read."""
    try:
        with open(path, "rb") as file:
            found = file.read()
    except OSError:
        return
    _, _, owner = found[:RECORD_BYTES].partition(b"\n")[0].partition(b" ")
    for start in range(RECORD_BYTES, len(found), RECORD_BYTES):
        record = _RECORD.match(found, start, start + RECORD_BYTES)
        if record is not None:
            shared, token, since, told, line = record.groups()
            yield Holding(
                told_name(line),
                told,
                owner.decode(errors="replace"),
                int(token),
                float(since),
                shared == b"1",
            )

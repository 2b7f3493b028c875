"""Where the etcd driver keeps what: names of keys, slots, and the values in them.

A claim's key is named after its session and a slot, not after its id, and a slot is
used again and again. For etcd keeps the name of every key that ever was, until its
history is compacted, and goes through all of them when it reads a range.

Within a roster the keys of shared claims begin with `~`, which sorts behind every
hexadecimal digit, so the claims that stand in their way are a range, too. Records begin
with `!`, which sorts before everything that a name of a roster begins with.
"""

from __future__ import annotations

import itertools
import json
from typing import NamedTuple
from urllib.parse import quote, unquote

from .._model import Claim
from .._runtime.base import Runtime
from ..wires._etcd_api import Entry

_KNOWN_RANGES = 1024
_SHARED = b"~"


class Standing(NamedTuple):
    """What a look at the roster has shown of a claim's place: at which revision, and what.

    `before` and `before_key` are the claim directly before it, if there is one.
    """

    revision: int
    rank: int
    before: str | None
    before_key: bytes


NOWHERE = Standing(0, 0, None, b"")


class Place:
    """What the driver knows of a claim of its own.

    `sure`: every request about it was answered, so that none can be on its way still.
    `token` is 0 until it is known, and `mine` is the claim as it was seen last. `first`:
    a watch has shown since that it is the head of the roster.
    """

    __slots__ = (
        "first", "key", "mine", "roster", "session", "shared", "slot", "standing", "sure", "token",
    )  # fmt: skip

    def __init__(self, session: str, roster: str, slot: int, key: bytes, shared: bool) -> None:
        self.session = session
        self.roster = roster
        self.slot = slot
        self.key = key
        self.shared = shared
        self.sure = True
        self.token = 0
        self.mine: Claim | None = None
        self.standing = NOWHERE
        self.first = False

    def forget(self) -> None:
        """What is known of where it stands may not be so any more."""
        self.standing = NOWHERE
        self.first = False


class Keys:
    """The names of keys in one namespace."""

    def __init__(self, namespace: str) -> None:
        self.root = f"/tenure/{quote(namespace, safe='')}/"
        self._ranges: dict[str, tuple[bytes, bytes]] = {}

    def of_session(self, session: str) -> bytes:
        """The key of a session: in a roster without a name, which nobody else can have."""
        return f"{self.root}/{session}".encode()

    def of_roster(self, roster: str) -> tuple[bytes, bytes]:
        """The range of a roster's keys: its first, and the first beyond it."""
        found = self._ranges.get(roster)
        if found is None:
            if len(self._ranges) >= _KNOWN_RANGES:
                self._ranges.clear()
            start = f"{self.root}{quote(roster, safe='')}/"
            found = self._ranges[roster] = (start.encode(), after(start))
        return found

    def rivals_of(self, roster: str, shared: bool) -> tuple[bytes, bytes]:
        """The range of the claims that stand in the way of one behind them."""
        start, end = self.of_roster(roster)
        return (start, start + _SHARED) if shared else (start, end)

    def beginning_with(self, prefix: str) -> tuple[bytes, bytes]:
        """The range of the keys of all rosters whose names begin so."""
        start = self.root + quote(prefix, safe="")
        # No quoted name begins with a character that sorts before the percent sign.
        return (start if prefix else start + "%").encode(), after(start)

    def of_record(self, name: str) -> bytes:
        """The key of a record."""
        return self.records(name)[0]

    def records(self, prefix: str) -> tuple[bytes, bytes]:
        """The range of the keys of all records whose names begin so."""
        start = f"{self.root}!/{quote(prefix, safe='')}"
        return start.encode(), after(start)

    def record_of(self, key: bytes) -> str:
        """The name of the record that a key belongs to."""
        return unquote(key[len(self.root) + 2 :].decode("ascii", "replace"))

    def roster_of(self, key: bytes) -> str:
        """The name of the roster that a key belongs to; empty for a session's key."""
        return unquote(key[len(self.root) :].partition(b"/")[0].decode("ascii", "replace"))


class Places:
    """The driver's own claims, and the slots that they take."""

    def __init__(self, runtime: Runtime, keys: Keys) -> None:
        self._keys = keys
        self._places: dict[str, Place] = {}
        self._slots: dict[tuple[str, str], set[int]] = {}
        self._lock = runtime.lock()
        self.get = self._places.get

    def take(self, session: str, roster: str, id: str, shared: bool) -> Place:
        """The place of a claim, with a slot that no other claim of the session has."""
        with self._lock:
            place = self._places.get(id)
            if place is None:
                used = self._slots.setdefault((session, roster), set())
                slot = 0 if not used else next(n for n in itertools.count() if n not in used)
                used.add(slot)
                start = self._keys.of_roster(roster)[0]
                key = start + (_SHARED if shared else b"") + f"{session}.{slot}".encode()
                place = self._places[id] = Place(session, roster, slot, key, shared)
            return place

    def drop(self, id: str) -> None:
        """Forget a claim that is gone; its slot is free if nothing can be on its way still."""
        with self._lock:
            place = self._places.pop(id, None)
            if place is None or not place.sure:
                return
            used = self._slots.get((place.session, place.roster))
            if used is not None:
                used.discard(place.slot)
                if not used:
                    del self._slots[place.session, place.roster]

    def end(self, session: str) -> None:
        """Forget all claims of a session that has ended."""
        with self._lock:
            for id in [id for id, place in self._places.items() if place.session == session]:
                del self._places[id]
            for key in [key for key in self._slots if key[0] == session]:
                del self._slots[key]


def after(prefix: str) -> bytes:
    """The end of the range of all keys that begin with the prefix (which ends in ASCII)."""
    return (prefix[:-1] + chr(ord(prefix[-1]) + 1)).encode()


def value(id: str, owner: str, body: str, since: object) -> bytes:
    """What a claim's key holds; `since` is for people to read."""
    record = {"id": id, "owner": owner, "body": body, "since": since}
    return json.dumps(record, separators=(",", ":")).encode()


def record(value: bytes) -> dict[str, object]:
    """What a claim's key holds; nothing, if somebody else wrote it."""
    try:
        found = json.loads(value)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_shared(key: bytes) -> bool:
    """Whether it is the key of a shared claim."""
    return key.rpartition(b"/")[2].startswith(_SHARED)


def claim(roster: str, entry: Entry) -> Claim:
    """A claim as it is stored. What somebody else put there goes by its key."""
    found = record(entry.value)
    id = found.get("id") or entry.key.rpartition(b"/")[2].decode("ascii", "replace")
    owner, body = str(found.get("owner", "")), str(found.get("body", ""))
    shared = is_shared(entry.key)
    return Claim(roster, str(id), f"{entry.lease:x}", entry.created, owner, body, shared)

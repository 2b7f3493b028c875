"""Where a name's semaphores are, and how long their set lives.

A key has only 31 bits, so two names may have the same. A set has therefore room for three names,
and each place in it is stamped with 75 bits more of its name's hash. A new set is all zero, and
zero means free everywhere: nothing is ever set, which would wipe what the kernel takes back when
a process dies, and there is no moment in which a set exists and is not ready.

Who uses a set has pinned it: it adds one to a semaphore, which the kernel takes back. The last
user removes the set, by a batch that is done only if there is no other pin, and that dooms
the set for those who come in that moment. What dead processes left is removed by others.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Sequence

from .._runtime.base import Runtime
from ..errors import StorageError, Unavailable
from ..wires import sysv
from ..wires.sysv import NOWAIT, UNDO, Batch, Call, SetGone
from ._ipc_holdings import tail

IDLE_MAX = 16
"""Sets that nobody here uses and that are kept for the next time."""

PLACES = 3
TRIES = 100
SWEEP_BYTES = 1 << 16
"""How much of the kernel's table a client looks through when it connects."""

_PINS, _DOOM, _MAGIC = range(3)
_WRITER, _READERS, _QUEUE, _DRAW, _STAMP = range(5)
_STAMPS = 5
_FIRST = 3
_SIZE = _STAMP + _STAMPS
COUNT = _FIRST + PLACES * _SIZE
OPERATIONS_MAX = 2 + 3 * _STAMPS
"""In the longest batch."""

_MARK = 21314
_NOW_UNDO = NOWAIT | UNDO

_PIN = (_DOOM, 0, NOWAIT), (_PINS, 1, _NOW_UNDO)
_LAST = Batch((_PINS, -1, _NOW_UNDO), (_PINS, 0, NOWAIT), (_DOOM, 0, NOWAIT), (_DOOM, 1, _NOW_UNDO))
_NOT_LAST = Batch((_PINS, -1, _NOW_UNDO), (_PINS, -1, NOWAIT), (_PINS, 1, NOWAIT))
_UNPIN = Batch((_PINS, -1, _NOW_UNDO))
_LEFTOVER = Batch((_PINS, 0, NOWAIT), (_DOOM, 0, NOWAIT), (_DOOM, 1, _NOW_UNDO))


class Verbs:
    """The batches of one place in a set."""

    def __init__(self, place: int) -> None:
        first = _FIRST + place * _SIZE
        writer, readers, queue, draw = range(first, first + 4)
        self.writer = writer
        self.readers = readers
        self.stamps = range(first + _STAMP, first + _STAMP + _STAMPS)
        self.waited_on = writer, readers, queue
        self.lock_now = Batch((writer, 0, NOWAIT), (readers, 0, NOWAIT), (writer, 1, _NOW_UNDO))
        self.queue = Batch((queue, 1, _NOW_UNDO))
        self.unqueue = Batch((queue, -1, _NOW_UNDO))
        self.lock = Batch((writer, 0, 0), (readers, 0, 0), (writer, 1, UNDO), (queue, -1, UNDO))
        self.lock_queued_now = Batch(
            *((writer, 0, NOWAIT), (readers, 0, NOWAIT)),
            *((writer, 1, _NOW_UNDO), (queue, -1, _NOW_UNDO)),
        )
        self.unlock = Batch((writer, -1, _NOW_UNDO))
        self.share_now = Batch((writer, 0, NOWAIT), (queue, 0, NOWAIT), (readers, 1, _NOW_UNDO))
        self.share = Batch((writer, 0, 0), (queue, 0, 0), (readers, 1, UNDO))
        self.share_late = Batch((writer, 0, 0), (readers, 1, UNDO))
        self.unshare = Batch((readers, -1, _NOW_UNDO))
        self.draw = Batch((draw, 0, NOWAIT), (draw, 1, _NOW_UNDO))
        self.drawn = Batch((draw, -1, _NOW_UNDO))


_VERBS = tuple(map(Verbs, range(PLACES)))


class Place:
    """A name's place in a set that is pinned."""

    __slots__ = ("name", "set", "tail", "users", "verbs")

    def __init__(self, name: str, set: int, verbs: Verbs) -> None:
        self.name = name
        self.set = set
        self.verbs = verbs
        self.tail = tail(name)
        self.users = 0

    def held(self, shared: bool) -> bool:
        """Say whether somebody has the lock; `SetGone` if the set was removed."""
        number = self.verbs.readers if shared else self.verbs.writer
        return sysv.ask(self.set, number, sysv.GET_VALUE) > 0

    def waiters(self) -> int:
        """How many wait for the lock."""
        numbers = self.verbs.waited_on
        return sum(sysv.ask(self.set, each, sysv.GET_WAITING_FOR_ZERO) for each in numbers)


class Sets:
    """The sets that one driver has pinned. No method waits."""

    def __init__(self, folder: str, user: int, runtime: Runtime) -> None:
        self._folder = folder
        self._user = user
        self._lock = runtime.lock()
        self._used: dict[str, Place] = {}
        self._idle: dict[str, Place] = {}
        """Those that nobody uses now; the one that was left first comes first."""
        self._closed = False

    def enter(self, name: str) -> Place:
        """The name's place, pinned until `leave`."""
        with self._lock:
            place = self._used.get(name) or self._idle.pop(name, None)
            if place is None:
                place = self._open(name)
            self._used[name] = place
            place.users += 1
            return place

    def leave(self, place: Place) -> None:
        """The place is not used any more; the set goes sooner or later."""
        with self._lock:
            place.users -= 1
            if place.users or self._used.get(place.name) is not place:
                return
            del self._used[place.name]
            self._idle[place.name] = place
            self._shrink(0 if self._closed else IDLE_MAX)

    def gone(self, place: Place) -> None:
        """Somebody removed the set under us: the next `enter` makes another."""
        with self._lock:
            if self._used.get(place.name) is place:
                del self._used[place.name]

    def close(self) -> None:
        """Unpin all that is idle, now and from now on."""
        with self._lock:
            self._closed = True
            self._shrink(0)

    def abandon(self) -> None:
        """In the child of a fork, which has pinned nothing."""
        # No lock: a thread that does not exist here may have held it.
        self._used = {}
        self._idle = {}

    def look(self, name: str) -> Place | None:
        """The name's place without pinning it, or making it, for an operator to read."""
        key, stamps = self._hashes(name)
        try:
            set = sysv.set_of(key, COUNT, make=False)
            for verbs in _VERBS:
                if _stamped(set, verbs) == stamps:
                    return Place(name, set, verbs)
        except SetGone:
            pass
        return None

    def sweep(self, bytes_max: int = -1) -> None:
        """Remove the sets that dead processes have left."""
        call = Call()
        for set in leftovers(self._user, bytes_max):
            try:
                if call.do(set, _LEFTOVER):
                    sysv.remove(set)
            except SetGone:
                pass  # somebody else did

    def _shrink(self, most: int) -> None:
        while len(self._idle) > most:
            _unpin(self._idle.pop(next(iter(self._idle))).set)

    def _hashes(self, name: str) -> tuple[int, tuple[int, ...]]:
        digest = hashlib.sha256(f"{self._folder}\0{name}".encode()).digest()
        stamps = (_mark(self._folder), *(_stamp(digest[at : at + 2]) for at in range(4, 12, 2)))
        return int.from_bytes(digest[:4], "big") % 0x7FFFFFFF + 1, stamps

    def _open(self, name: str) -> Place:
        key, stamps = self._hashes(name)
        call = Call()
        swept = False
        for _ in range(TRIES):
            try:
                set = sysv.set_of(key, COUNT, make=True)
                verbs = _pinned(call, set, key, stamps)
                if verbs is not None:
                    if sysv.set_of(key, COUNT, make=False) == set:
                        return Place(name, set, verbs)
                    # We slept so long that another set has got the number by now.
                    _unpin(set)
            except SetGone:
                continue
            except sysv.NoRoom:
                if swept:
                    raise
                swept = True
                self._shrink(0)
                self.sweep()
                continue
            os.sched_yield()
        raise Unavailable(f"semaphore key {key:#010x}: a stopped process is removing its set")


def leftovers(user: int, bytes_max: int = -1) -> Sequence[int]:
    """The sets of Tenure's that belong to a user and that nobody uses."""
    found = []
    for each in sysv.listed(bytes_max):
        if each.size == COUNT and each.user == user:
            try:
                if sysv.ask(each.id, _MAGIC, sysv.GET_VALUE) == _MARK and not sysv.ask(
                    each.id, _PINS, sysv.GET_VALUE
                ):
                    found.append(each.id)
            except SetGone:
                pass
    return found


def stamped(folder: str) -> Iterator[tuple[int, Verbs]]:
    """The sets, and the places in them, of a folder's names; for tests that find leftovers."""
    mark = _mark(folder)
    for each in sysv.listed():
        if each.size == COUNT and each.user == os.geteuid():
            for verbs in _VERBS:
                with contextlib.suppress(SetGone):
                    if sysv.ask(each.id, verbs.stamps[0], sysv.GET_VALUE) == mark:
                        yield each.id, verbs


def in_use(folder: str) -> int:
    """How many locks and waiting writers there are in a folder."""
    count = 0
    for set, verbs in stamped(folder):
        with contextlib.suppress(SetGone):
            count += sum(sysv.ask(set, at, sysv.GET_VALUE) for at in verbs.waited_on)
    return count


def _mark(folder: str) -> int:
    return _stamp(hashlib.sha256(folder.encode()).digest()[:2])


def _stamp(part: bytes) -> int:
    return int.from_bytes(part, "big") % sysv.VALUE_MAX + 1


def _pinned(call: Call, set: int, key: int, stamps: tuple[int, ...]) -> Verbs | None:
    """Pin the set and find the name's place, or take a free one; None: look again."""
    try:
        sysv.ask(set, COUNT, sysv.GET_VALUE)
    except SetGone:
        pass  # it has no more semaphores than ours do
    else:
        raise StorageError(
            f"semaphore key {key:#010x}: another program has a set of that key; "
            "use another name in the URL"
        )
    for verbs in _VERBS:
        pairs = list(zip(verbs.stamps, stamps, strict=True))
        # Only if it is neither less nor more: take it away, find zero, put it back.
        same = [
            step
            for at, stamp in pairs
            for step in ((at, -stamp, NOWAIT), (at, 0, NOWAIT), (at, stamp, NOWAIT))
        ]
        if call.do(set, Batch(*_PIN, *same)):
            return verbs
        fresh = [step for at, stamp in pairs for step in ((at, 0, NOWAIT), (at, stamp, NOWAIT))]
        if verbs is _VERBS[0]:
            fresh += (_MAGIC, 0, NOWAIT), (_MAGIC, _MARK, NOWAIT)
        if call.do(set, Batch(*_PIN, *fresh)):
            return verbs
        there = _stamped(set, verbs)
        if there == stamps or not all(there):
            return None  # somebody was faster, or is removing the set
    raise StorageError(
        f"semaphore key {key:#010x}: {PLACES} other names in use have the same; "
        "use another name for the lock"
    )


def _stamped(set: int, verbs: Verbs) -> tuple[int, ...]:
    return tuple(sysv.ask(set, at, sysv.GET_VALUE) for at in verbs.stamps)


def _unpin(set: int) -> None:
    """Give the pin back; whoever gives the last one removes the set."""
    call = Call()
    try:
        for _ in range(TRIES):
            if call.do(set, _LAST):
                sysv.remove(set)
                return
            if call.do(set, _NOT_LAST):
                return
        call.do(set, _UNPIN)  # a stopped process is between its two steps: let others sweep
    except SetGone:
        pass

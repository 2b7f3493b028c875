"""One acquire on semaphores, and what it has changed there, so that it can be undone.

Each batch is done with a note of what it leads to, taken before. Whatever interrupts us, and
be it between the kernel's return and the next line, `settle` finds out whether it was done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from .._runtime.base import Runtime
from ..errors import SessionLost, Unavailable
from ..wires.sysv import Batch, Call, SetGone
from ._ipc_sets import Place, Sets

SLICE_SECONDS = 0.05
"""How long one wait in the kernel takes at most. After it, one looks whether one still wants."""

DRAWS_MAX = 2000


class _State(NamedTuple):
    """What of ours is in the set."""

    locked: bool = False
    queued: bool = False
    drawing: bool = False


_NOTHING = _State()
_QUEUED = _State(queued=True)
_LOCKED = _State(locked=True)
_DRAWING = _State(locked=True, drawing=True)


class Attempt:
    """Takes a lock, holds it, and frees it."""

    __slots__ = (
        *("_after", "_call", "_clock", "_runtime", "_sets", "_state", "lives", "place"),
        *("record", "session", "shared", "stopped", "token"),
    )

    def __init__(
        self,
        sets: Sets,
        call: Call,
        clock: Callable[[], int],
        runtime: Runtime,
        place: Place,
        session: str,
        shared: bool,
        lives: Callable[[str], bool],
    ) -> None:
        self._sets = sets
        self._call = call
        self._clock = clock
        self._runtime = runtime
        self._state = _NOTHING
        self._after: _State | None = None
        self.place = place
        self.session = session
        self.shared = shared
        self.lives = lives
        self.token = 0
        self.record = -1
        self.stopped = False

    def now(self) -> bool:
        """Take the lock if it is free, and draw a token."""
        while True:
            try:
                return self._do(self._at_once(), _LOCKED) and self._draw()
            except SetGone:
                self._again()

    def _at_once(self) -> Batch:
        verbs = self.place.verbs
        if self.shared:
            return verbs.share_now
        # Whose time is over while it waits leaves the queue as it gets the lock, or readers
        # would be kept out for ever.
        return verbs.lock_queued_now if self._state.queued else verbs.lock_now

    def wait(self, until: float) -> bool:
        """Take the lock when it is free; False if the time came first. Blocks."""
        late = False
        while True:
            if not self.lives(self.session):
                raise SessionLost("the session was ended while it waited")
            left = until - self._runtime.now()
            if left <= 0:
                return self.now()
            if self.stopped:
                return False
            try:
                if self._wait(min(left, SLICE_SECONDS), late):
                    return self._draw()
                late = True
            except SetGone:
                self._again()

    def _wait(self, seconds: float, late: bool) -> bool:
        verbs = self.place.verbs
        if self.shared:
            # Readers stand back for writers that wait, but not for ever.
            return self._do(verbs.share_late if late else verbs.share, _LOCKED, seconds)
        if not self._state.queued and not self._do(verbs.queue, _QUEUED):
            return False
        return self._do(verbs.lock, _LOCKED, seconds)

    def _draw(self) -> bool:
        """The clock's microseconds; the next who draws does so later, and gets more."""
        if not self.shared:
            self.token = self._clock()
            return True
        verbs = self.place.verbs
        for _ in range(DRAWS_MAX):
            # Readers draw at the same time, so another semaphore puts them in order.
            if self._do(verbs.draw, _DRAWING):
                self.token = self._clock()
                self._pass(self.token)
                return self._do(verbs.drawn, _LOCKED)
            os.sched_yield()
        raise Unavailable(f"{self.place.name}: a stopped process is drawing its token")

    def _pass(self, token: int) -> None:
        while self._clock() <= token:
            pass

    def _do(self, batch: Batch, after: _State, seconds: float | None = None) -> bool:
        self._call.results.clear()
        self._after = after
        done = self._call.do(self.place.set, batch, seconds)
        self._settle()
        return done

    def _settle(self) -> None:
        if self._after is not None and self._call.done():
            self._state = self._after
        self._after = None

    def in_place(self) -> bool:
        """Say whether the lock is still taken there, as far as the kernel tells."""
        try:
            return self.place.held(self.shared)
        except SetGone:
            return False

    def _again(self) -> None:
        """The set was removed, and all that we had there: go on with another."""
        self._state = _NOTHING
        self._after = None
        old = self.place
        self._sets.gone(old)
        self.place = self._sets.enter(old.name)
        self._sets.leave(old)

    def stop(self) -> None:
        """Let a wait that is under way on another thread end soon."""
        self.stopped = True

    def drop(self) -> Call:
        """Undo what was done, the lock included; the next call may have the way in."""
        self._settle()
        verbs = self.place.verbs
        try:
            if self._state.drawing:
                self._do(verbs.drawn, _LOCKED)
            if self._state.queued:
                self._do(verbs.unqueue, _NOTHING)
            if self._state.locked:
                self._pass(self.token)
                self._do(verbs.unshare if self.shared else verbs.unlock, _NOTHING)
        except SetGone:
            self._sets.gone(self.place)
        finally:
            self._sets.leave(self.place)
        return self._call

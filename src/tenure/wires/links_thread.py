"""What connections of `wires.links` need to be shared by threads.

A gate lets one statement through at a time. Whoever ends a connection while somebody is in a call
cannot close it, only shut it down under that one, who then closes it. So whoever lets go of the
gate looks, afterwards, whether the connection has ended in the meantime. A statement whose reply
may take long can be under way with nobody in a call: then it is whoever takes it up first, to
wait for the reply or to end the connection, that closes it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from abc import abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from .._runtime.base import Job, Runtime
from .hangup import Hangup
from .links import Link, NotSent


class SharedLink(Link):
    """The blocking flavour of a connection; any number of threads may share it."""

    def _share(self, descriptor: int, hangup: Hangup) -> None:
        """Begin to be shared; `descriptor` is that of its socket."""
        self._gate = threading.Lock()  # held while a statement is under way
        self._guard = threading.Lock()  # held while the descriptor is used from outside
        self._since: float | None = None
        self._finished = False
        self._attended = False  # somebody is in a call, or closes it: it is theirs to leave
        self._listening = False  # somebody may be waiting outside the gate
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)
        # One of our own for the same socket, to be looked at and shut down from outside: a client
        # library closes its own at any time, and the number may then be another connection's.
        self._eye = os.dup(descriptor)
        self._hangup = hangup
        hangup.add(self._eye, self)

    @abstractmethod
    def _close(self, idle: bool) -> None:
        """Close the connection; `idle` says that no statement is under way on it."""

    def end(self, reason: str) -> None:
        if not self._fail(reason):
            return
        # Told first: the holder of a lock knows before the server frees it.
        self._ended(self, reason)
        if self._listening:
            self._shut_down()
        self._unpark()
        if self._take_up():
            self._leave()
        elif self._gate.acquire(blocking=False):
            self._leave(idle=True)
        else:
            # Whoever is in a call wakes up, finds the reason, and closes the connection.
            self._shut_down()

    def _drop_eye(self) -> None:
        """In a forked child: look at it no more."""
        if not self._finished:
            self._finished = True
            os.close(self._eye)

    def overdue(self, now: float) -> bool:
        """Whether the server has owed an answer for too long."""
        since = self._since
        return since is not None and now - since > self._patience * 0.75

    def hung_up(self) -> bool:
        """Whether the server has closed the connection."""
        with self._guard:
            if self._finished:
                return False
            poll = select.poll()
            poll.register(self._eye, select.POLLRDHUP)
            return bool(poll.poll(0))

    @property
    def busy(self) -> bool:
        return self._gate.locked()

    def _park(self) -> None:
        with self._guard:
            if self.reason is None:
                self.parked = True
                return
        if self._take_up():
            self._leave()

    def _unpark(self) -> bool:
        with self._guard:
            parked, self.parked = self.parked, False
            return parked

    def _take_up(self) -> bool:
        """Attend to the statement that is under way, if there is one and nobody else does."""
        with self._guard:
            if not self.asking or self._attended:
                return False
            self._attended = True
            return True

    def _put_down(self) -> None:
        """Leave the statement under way; if the connection has ended meanwhile, raise so."""
        with self._guard:
            if self.reason is None:
                self._attended = False
                return
        self._leave()
        raise self._unknown()

    def _queue_up(self) -> None:
        if not self._gate.acquire(timeout=self._patience):
            raise NotSent(f"{self.service}: the statement before this one is still under way")

    def _enter(self) -> None:
        self._queue_up()
        if self.reason is not None:
            self._leave()
            raise self._gone()

    def _leave(self, idle: bool = False) -> None:
        self.asking = self._attended = False
        self._since = None
        if self.reason is not None:
            with self._guard:
                if not self._finished:
                    self._finished = True
                    self._hangup.remove(self._eye)
                    self._close(idle)
                    os.close(self._eye)
        self._release()

    def _release(self) -> None:
        self._gate.release()
        # It may have ended after that was looked at, by somebody who found the gate taken.
        if self.reason is not None and not self._finished and self._gate.acquire(blocking=False):
            self._leave()

    def _fail(self, reason: str) -> bool:
        """Have it ended for that reason; say whether it had not ended before."""
        with self._guard:
            if self.reason is not None:
                return False
            self.reason = reason
            return True

    def _interrupted(self) -> None:
        if self._fail("a call was interrupted"):
            self._ended(self, "a call was interrupted")

    def _shut_down(self) -> None:
        """Cut the connection without closing its descriptor, so that whoever waits on it wakes."""
        with self._guard:
            if self._finished:
                return
            view = socket.socket(fileno=self._eye)
            try:
                with contextlib.suppress(OSError):
                    view.shutdown(socket.SHUT_RDWR)
            finally:
                view.detach()


L = TypeVar("L", bound=SharedLink)


class SharedLinks(Generic[L]):
    """The connections of one wire, and the job that watches them."""

    def __init__(self, runtime: Runtime, patience: float, name: str) -> None:
        self._runtime = runtime
        self._patience = patience
        self._name = name
        self._hangup: Hangup | None = None
        self._job: Job | None = None
        self._links: list[L] = []
        self._lock = threading.Lock()

    def _add(self, make: Callable[[Hangup], L]) -> L:
        """Make a link and keep it, to be watched and to be closed in the end."""
        # Of several threads that connect at once, none may forget what another has added.
        with self._lock:
            hangup = self._hangup
            if hangup is None:
                hangup = self._hangup = Hangup(min(1.0, self._patience / 4), "no reply in time")
                self._job = self._runtime.spawn(hangup.run, f"{self._name}-hangup")
            link = make(hangup)
            self._links = [*(each for each in self._links if each.reason is None), link]
        return link

    async def close(self) -> None:
        """End all connections, and the job."""
        for link in self._links:
            link.end("closed")
        if self._hangup is not None and self._job is not None:
            self._hangup.stop()
            await self._job.join(self._runtime.now() + self._patience)

    def abandon(self) -> None:
        """In a forked child: let go of all of them, without a word to the server."""
        if self._hangup is not None:
            self._hangup.abandon()
        for link in self._links:
            link.abandon()

"""Statements over connections of a blocking DBAPI module, for both flavours.

One connection, a `Line`, has one statement under way at a time. With the synchronous API it is
used on the caller's thread; with asyncio it has a thread of its own, so that one whose
server is silent keeps nobody waiting but its caller. Nothing here knows a dialect: a `Maker`
connects, and says what an error means.

A statement is a transaction by itself, so nothing is ever left open. A connection that may
still bring a late reply is dropped, never used again.
"""

from __future__ import annotations

import contextlib
import os
import queue
import select
import socket
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, Protocol, TypeVar

from ..errors import OutcomeUnknown, TenureError, Unavailable
from .hangup import Hangup

T = TypeVar("T")
Row = Sequence[Any]

CUT_SHARE = 0.75
"""Of the patience: when a statement that is still under way is cut off."""


class MissingTable(Exception):
    """The statement names a table that is not there. Never leaves a driver."""


class Duplicate(Exception):
    """The row that was to be inserted is there already. Never leaves a driver."""


class Maker(Protocol):
    """Makes connections of one kind, and knows their errors."""

    label: str
    """What errors begin with."""
    errors: tuple[type[BaseException], ...]
    """What the DBAPI module raises."""
    local: bool
    """Whether there is no server, so that connecting is quick, and every statement answered."""

    def connect(self, seconds: float) -> Any:
        """A connection in autocommit mode. Raises `TenureError`."""
        ...

    def descriptor(self, connection: Any) -> int | None:
        """The socket's descriptor, if there is one."""
        ...

    def ended(self, error: BaseException, connection: Any) -> bool:
        """Whether the connection is of no use after this error."""
        ...

    def translated(self, error: BaseException) -> Exception:
        """What an error means that leaves the connection as it was."""
        ...


class Limit:
    """How long a call may take. More while the driver is opened: no lease depends on that."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Line:
    """One connection, made when it is first needed, and made anew when it was lost."""

    def __init__(self, maker: Maker, limit: Limit, hangup: Callable[[], Hangup] | None) -> None:
        self._maker = maker
        self._limit = limit
        self._make_hangup = hangup
        self._hangup: Hangup | None = None
        self._connection: Any = None
        self._cursor: Any = None
        self._eye = -1
        self._poll: select.poll | None = None
        self._guard = threading.Lock()  # held while the descriptor is used from outside
        self._since: float | None = None
        self.reason: str | None = None
        """Why the connection was ended from outside; None while it was not."""
        self.discarded = False
        """Whether nobody waits for what it is doing any more."""

    def run(self, statement: str, values: Sequence[Any], rows: bool) -> Any:
        """Carry one statement out; return its rows, or how many it has changed."""
        if self._connection is None or not self._usable():
            self._connect()
        self._since = monotonic()
        try:
            self._cursor.execute(statement, values)
            return self._cursor.fetchall() if rows else self._cursor.rowcount
        except self._maker.errors as error:
            raise self._failure(error) from error
        except BaseException:
            # An interrupt: whether the reply has been read is not known.
            self.drop()
            raise
        finally:
            self._since = None

    def _usable(self) -> bool:
        """Whether nothing has happened to the connection while it was idle."""
        poll = self._poll
        if self.reason is None and (poll is None or not poll.poll(0)):
            return True
        # The server has closed it, or has said something that nobody asked for.
        self.drop()
        return False

    def _connect(self) -> None:
        maker = self._maker
        connection = maker.connect(self._limit.seconds)
        if self.discarded:
            connection.close()
            raise Unavailable(f"{maker.label}: no connection in time")
        self._cursor = connection.cursor()
        self._connection = connection
        self.reason = None
        descriptor = maker.descriptor(connection)
        if descriptor is not None:
            # A descriptor of our own: the client closes its own at any time, and the number
            # may then be another connection's.
            eye = os.dup(descriptor)
            self._poll = select.poll()
            self._poll.register(eye, select.POLLIN | select.POLLHUP | select.POLLERR)
            with self._guard:
                self._eye = eye
            if self._make_hangup is not None:
                self._hangup = self._make_hangup()
                self._hangup.add(eye, self)

    def _failure(self, error: BaseException) -> Exception:
        maker, reason = self._maker, self.reason
        if maker.local:
            return maker.translated(error)
        if reason is None and not maker.ended(error, self._connection):
            return maker.translated(error)
        self.drop()
        return OutcomeUnknown(f"{maker.label}: {reason or told(error)}")

    def drop(self) -> None:
        """Close the connection; by whoever is using it."""
        connection, self._connection, self._cursor = self._connection, None, None
        with self._guard:
            eye, self._eye, self._poll = self._eye, -1, None
        if eye >= 0:
            if self._hangup is not None:
                self._hangup.remove(eye)
            os.close(eye)
        if connection is not None:
            with contextlib.suppress(*self._maker.errors, OSError):
                connection.close()

    @property
    def asking(self) -> bool:
        """Whether a statement is under way, and may have been sent."""
        return self._since is not None

    # -- from other threads ------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Whether a statement is under way for too long."""
        since = self._since
        return since is not None and now - since > self._limit.seconds * CUT_SHARE

    def hung_up(self) -> bool:
        """Whether the other side has closed the connection."""
        with self._guard:
            if self._eye < 0:
                return False
            poll = select.poll()
            poll.register(self._eye, select.POLLRDHUP)
            return bool(poll.poll(0))

    def end(self, reason: str) -> None:
        """Cut the connection: a statement under way fails, the next one makes another."""
        with self._guard:
            if self._eye >= 0:
                self.reason = reason
                # Not closed: whoever waits on it wakes, and closes it.
                view = socket.socket(fileno=self._eye)
                try:
                    with contextlib.suppress(OSError):
                        view.shutdown(socket.SHUT_RDWR)
                finally:
                    view.detach()

    def abandon(self) -> None:
        """In a forked child: let the connection lead to nowhere, and forget it."""
        # The guard may have been held by a thread that does not exist here.
        connection, self._connection = self._connection, None
        if self._eye >= 0:
            descriptor = self._maker.descriptor(connection) if connection is not None else None
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            for each in (self._eye, descriptor):
                if each is not None:
                    os.dup2(nowhere, each, inheritable=False)
            os.close(nowhere)
            os.close(self._eye)
            self._eye = -1
        self._poll = None


def told(error: BaseException) -> str:
    """What an error says, on one line."""
    text = str(error.args[1]) if _numbered(error) else str(error)
    lines = (line.strip() for line in text.splitlines())
    return "; ".join(filter(None, lines)) or "the server closed the connection"


def _numbered(error: BaseException) -> bool:
    return len(error.args) == 2 and isinstance(error.args[0], int)


def hurried(call: Callable[[], Any], seconds: float, late: str) -> Any:
    """The connection that `call` returns, if it does in time; else it is closed when it comes."""
    box: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    guard = threading.Lock()
    gone: list[bool] = []

    def work() -> None:
        found, failure = None, None
        try:
            found = call()
        except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
            failure = error
        with guard:
            if not gone:
                box.put((found, failure))
                return
        if found is not None:
            found.close()

    threading.Thread(target=work, name="tenure-sql-connect", daemon=True).start()
    try:
        found, failure = box.get(timeout=seconds)
    except queue.Empty:
        with guard:
            gone.append(True)
        if box.empty():
            raise Unavailable(late) from None
        found, failure = box.get()
    if failure is not None:
        raise failure
    return found


def not_free(label: str) -> TenureError:
    """The error of who found every connection in use for too long."""
    return Unavailable(f"{label}: every connection is in use; see the option pool_size")

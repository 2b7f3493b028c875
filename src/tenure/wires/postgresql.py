"""Connections to PostgreSQL: the libpq calls behind the driver, blocking and asyncio.

Both flavours work on `psycopg.pq`, the thin binding of libpq: half of what a cursor
costs goes into converting values that are not needed here. A `Link` is one connection;
it carries one statement at a time, and a statement that was sent is never given up
halfway: either its reply is read, or the connection ends.

- `ThreadLink.call` blocks inside libpq, which knows no time limit. A background job
  (`hangup.Hangup`) shuts the socket down under a call that takes too long.
- `LoopLink` keeps a reader on the loop for as long as the connection lives, so that
  the end of an idle connection is seen at once there too.

`ask`, `ready` and `take` are the same round trip in three steps, for a statement that
may wait for hours; `withdraw` calls it off.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from .._runtime.base import Job, Runtime
from ..errors import OutcomeUnknown, TenureError, Unavailable
from . import libpq
from .hangup import Hangup
from .libpq import NotSent, Row, Withdrawn

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

Ended = Callable[["Link", str], None]

_TUPLES_OK = pq.ExecStatus.TUPLES_OK
_COMMAND_OK = pq.ExecStatus.COMMAND_OK


# -- one connection -----------------------------------------------------------


class Link(ABC):
    """One connection. `reason` says why it ended, and is None while it lives."""

    def __init__(self, pgconn: PGconn, patience: float, ended: Ended) -> None:
        self.reason: str | None = None
        self.asking = False
        self.parked = False  # with a ping that has not been answered yet
        self._pgconn = pgconn
        self._patience = patience
        self._ended = ended
        self._socket = pgconn.socket

    @property
    def server_version(self) -> int:
        return self._pgconn.server_version

    @property
    def backend_pid(self) -> int:
        """The server process, as the greeting named it."""
        return self._pgconn.backend_pid

    def literal(self, text: str) -> str:
        """The text as an SQL string constant."""
        return bytes(pq.Escaping(self._pgconn).escape_literal(text.encode())).decode()

    @property
    @abstractmethod
    def busy(self) -> bool:
        """Whether a statement is under way, behind which the next one would queue up."""

    @abstractmethod
    async def call(self, statement: bytes, values: tuple[bytes, ...], undo: bytes) -> bytes | None:
        """Run a prepared statement; return its only value.

        A cancelled call still reads its reply, and then runs `undo` with the same
        values if there is something to undo.
        """

    @abstractmethod
    async def script(self, sql: str) -> Row:
        """Run SQL text in one round trip; return the first row of its last statement."""

    @abstractmethod
    async def ask(self, statement: bytes, values: tuple[bytes, ...]) -> None:
        """Send a prepared statement whose reply may take long."""

    @abstractmethod
    async def ready(self, seconds: float) -> bool:
        """Wait at most so long for the reply; say whether it is there."""

    @abstractmethod
    async def take(self) -> bytes | None:
        """The value of the reply that is there."""

    @abstractmethod
    async def cancel(self) -> None:
        """Ask the server to give the running statement up."""

    @abstractmethod
    def end(self, reason: str) -> None:
        """End the connection, whatever is under way on it. Idempotent."""

    async def ping(self) -> None:
        """See that the server answers.

        A ping has no outcome that could be unknown, so one that is not answered in time
        does not end the connection: it stays under way, and the next one waits for it.
        """
        until = monotonic() + self._patience
        while True:
            late = self._unpark()
            if not late:
                await self.ask(b"ping", ())
            answered = False
            try:
                answered = await self.ready(max(0.0, until - monotonic()))
            finally:
                if not answered:
                    self._park()
            if not answered:
                raise OutcomeUnknown("postgresql: the server has not answered a ping yet")
            await self.take()
            if not late:
                return

    @abstractmethod
    def _park(self) -> None:
        """Leave the ping under way, unless the connection has ended."""

    @abstractmethod
    def _unpark(self) -> bool:
        """Go on with the ping that was left under way, if there is one."""

    async def withdraw(self) -> bytes | None:
        """Call off what was asked; return the value if the reply was faster.

        Afterwards the connection is idle, or it has ended.
        """
        try:
            if self.reason is None:
                await self.cancel()
            if await self.ready(self._patience):
                return await self.take()
            self._give_up("the server does not answer a cancel request")
        except Withdrawn:
            return None
        except TenureError as error:
            self._give_up(f"a statement could not be called off ({error})")
        return None

    def _give_up(self, reason: str) -> None:
        """End the connection, of which this caller holds the gate if it still asks."""
        self.end(reason)
        if self.asking:
            self._leave()

    @abstractmethod
    def _leave(self) -> None:
        """Let the next statement in, or close the connection if it has ended."""

    def abandon(self) -> None:
        """In a forked child: let go of the connection without a word to the server."""
        # libpq says farewell on the descriptor when it frees the connection, so that
        # leads to nowhere first. The parent's own descriptor is another one.
        if self.reason is None:
            self.reason = "the process was forked"
            nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            os.dup2(nowhere, self._socket, inheritable=False)
            os.close(nowhere)

    def _gone(self) -> Unavailable:
        return Unavailable(f"postgresql: the connection has ended: {self.reason}")

    def _unknown(self) -> OutcomeUnknown:
        return OutcomeUnknown(f"postgresql: no reply, the connection has ended: {self.reason}")


class ThreadLink(Link):
    """The blocking flavour; any number of threads may share it."""

    def __init__(self, pgconn: PGconn, patience: float, ended: Ended, hangup: Hangup) -> None:
        super().__init__(pgconn, patience, ended)
        pgconn.nonblocking = 0
        self._exec_prepared = pgconn.exec_prepared
        self._gate = threading.Lock()  # held while a statement is under way
        self._guard = threading.Lock()  # held while the descriptor is used from outside
        self._since: float | None = None
        self._finished = False
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        # A descriptor of our own for the same socket: libpq closes its own inside of any
        # call that fails, and the number may then be another connection's.
        self._eye = os.dup(self._socket)
        self._hangup = hangup
        hangup.add(self._eye, self)

    async def call(
        self,
        statement: bytes,
        values: tuple[bytes, ...],
        undo: bytes = b"",
    ) -> bytes | None:
        # Every line here runs with cold caches, right after the server did, and costs five
        # times what it does in a loop: no helper, no keyword, no status that tells nothing.
        if not self._gate.acquire(False):
            self._queue_up()
        try:
            if self.reason is not None:
                raise self._gone()
            self._since = monotonic()
            result = self._exec_prepared(statement, values)
            self._since = None
            value = result.get_value(0, 0)
            if (value is None and result.status != _TUPLES_OK) or self.reason is not None:
                raise self._failure(result)
            return value
        except TenureError:
            raise
        except psycopg.Error as error:
            raise self._broken(error) from error
        except BaseException:
            self._interrupted()
            raise
        finally:
            if self.reason is None:
                self._gate.release()
            else:
                self._leave()

    async def script(self, sql: str) -> Row:
        self._enter()
        try:
            self._since = monotonic()
            result = self._pgconn.exec_(sql.encode())
            self._since = None
            if result.status in (_TUPLES_OK, _COMMAND_OK) and self.reason is None:
                return libpq.row(result)
            raise self._failure(result)
        except TenureError:
            raise
        except psycopg.Error as error:
            raise self._broken(error) from error
        except BaseException:
            self._interrupted()
            raise
        finally:
            self._leave()

    async def ask(self, statement: bytes, values: tuple[bytes, ...]) -> None:
        self._enter()
        self.asking = True
        try:
            self._since = monotonic()
            self._pgconn.send_query_prepared(statement, values)
            self._since = None
        except psycopg.Error as error:
            failure = self._broken(error)
            self._leave()
            raise failure from error

    async def ready(self, seconds: float) -> bool:
        until = monotonic() + seconds
        try:
            while self._pgconn.is_busy():
                left = max(0.0, until - monotonic())
                came = self._poll.poll(left * 1000)
                if self.reason is not None:
                    self._leave()
                    raise self._unknown()
                if not came:
                    return False
                self._pgconn.consume_input()
        except psycopg.Error as error:
            failure = self._broken(error)
            self._leave()
            raise failure from error
        return True

    async def take(self) -> bytes | None:
        try:
            self._since = monotonic()
            result = self._pgconn.get_result()
            while self._pgconn.get_result() is not None:
                pass
            self._since = None
            if result is not None and result.status == _TUPLES_OK and self.reason is None:
                return result.get_value(0, 0)
            raise self._failure(result)
        except psycopg.Error as error:
            raise self._broken(error) from error
        finally:
            self._leave()

    async def cancel(self) -> None:
        await libpq.cancel(self._pgconn, self._patience, libpq.wait_thread)

    def end(self, reason: str) -> None:
        if not self._fail(reason):
            return
        # Told first: the holder of a lock knows before the server frees it.
        self._ended(self, reason)
        if self._unpark() or self._gate.acquire(blocking=False):
            self._leave()
            return
        # Whoever is in a call wakes up, finds the reason, and closes the connection.
        with self._guard:
            if not self._finished:
                _shut_down(self._eye)

    def abandon(self) -> None:
        if not self._finished:
            self._finished = True
            os.close(self._eye)
        super().abandon()

    def overdue(self, now: float) -> bool:
        since = self._since
        return since is not None and now - since > self._patience * 0.75

    def hung_up(self) -> bool:
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
        if self.asking:
            self._leave()

    def _unpark(self) -> bool:
        with self._guard:
            parked, self.parked = self.parked, False
            return parked

    def _queue_up(self) -> None:
        if not self._gate.acquire(timeout=self._patience):
            raise NotSent("postgresql: the statement before this one is still under way")

    def _enter(self) -> None:
        self._queue_up()
        if self.reason is not None:
            self._gate.release()
            raise self._gone()

    def _leave(self) -> None:
        self.asking = False
        self._since = None
        if self.reason is not None:
            with self._guard:
                if not self._finished:
                    self._finished = True
                    self._hangup.remove(self._eye)
                    os.close(self._eye)
                    self._pgconn.finish()
        self._gate.release()

    def _fail(self, reason: str) -> bool:
        with self._guard:
            if self.reason is not None:
                return False
            self.reason = reason
            return True

    def _interrupted(self) -> None:
        if self._fail("a call was interrupted"):
            self._ended(self, "a call was interrupted")

    def _failure(self, result: PGresult | None) -> TenureError:
        if self.reason is None and result is not None and self._pgconn.status == pq.ConnStatus.OK:
            return libpq.refusal(result)
        if self._fail(libpq.message(result)):
            self._ended(self, self.reason or "")
        return self._unknown()

    def _broken(self, error: psycopg.Error) -> TenureError:
        if self._fail(str(error).strip()):
            self._ended(self, self.reason or "")
        return self._unknown()


class ThreadWire:
    """Makes blocking connections, and runs the job that watches them."""

    def __init__(self, runtime: Runtime, patience: float) -> None:
        self._runtime = runtime
        self._patience = patience
        self._hangup: Hangup | None = None
        self._job: Job | None = None
        self._links: list[Link] = []

    async def connect(self, parameters: Mapping[str, str], seconds: float, ended: Ended) -> Link:
        pgconn = await libpq.connect(parameters, seconds, libpq.wait_thread)
        hangup = self._hangup
        if hangup is None:
            hangup = self._hangup = Hangup(min(1.0, self._patience / 4), "no reply in time")
            self._job = self._runtime.spawn(hangup.run, "postgresql-hangup")
        link = ThreadLink(pgconn, self._patience, ended, hangup)
        self._links = [each for each in self._links if each.reason is None]
        self._links.append(link)
        return link

    async def close(self) -> None:
        for link in self._links:
            link.end("closed")
        if self._hangup is not None and self._job is not None:
            self._hangup.stop()
            await self._job.join(self._runtime.now() + self._patience)

    def abandon(self) -> None:
        if self._hangup is not None:
            self._hangup.abandon()
        for link in self._links:
            link.abandon()


def _shut_down(descriptor: int) -> None:
    """Cut a connection without closing its descriptor, so that whoever waits on it wakes."""
    view = socket.socket(fileno=descriptor)
    try:
        with contextlib.suppress(OSError):
            view.shutdown(socket.SHUT_RDWR)
    finally:
        view.detach()

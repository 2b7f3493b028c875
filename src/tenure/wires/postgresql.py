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

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from .._runtime.base import Job, Runtime
from ..errors import OutcomeUnknown, TenureError, Unavailable
from . import libpq
from .hangup import Hangup
from .libpq import Row, Withdrawn

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

    @abstractmethod
    async def call(self, statement: bytes, *values: bytes, undo: bytes = b"") -> bytes | None:
        """Run a prepared statement; return its only value.

        A cancelled call still reads its reply, and then runs `undo` with the same
        values if there is something to undo.
        """

    @abstractmethod
    async def script(self, sql: str) -> Row:
        """Run SQL text in one round trip; return the first row of its last statement."""

    @abstractmethod
    async def ask(self, statement: bytes, *values: bytes) -> None:
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
        self._gate = threading.Lock()  # held while a statement is under way
        self._guard = threading.Lock()  # held while the descriptor is used from outside
        self._since: float | None = None
        self._finished = False
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._hangup = hangup
        hangup.add(self._socket, self)

    async def call(
        self,
        statement: bytes,
        *values: bytes,
        undo: bytes = b"",  # noqa: ARG002 - nothing cancels a call that blocks
    ) -> bytes | None:
        self._enter()
        try:
            self._since = time.monotonic()
            result = self._pgconn.exec_prepared(statement, values)
            self._since = None
            if result.status == _TUPLES_OK and self.reason is None:
                return result.get_value(0, 0)
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

    async def script(self, sql: str) -> Row:
        self._enter()
        try:
            self._since = time.monotonic()
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

    async def ask(self, statement: bytes, *values: bytes) -> None:
        self._enter()
        self.asking = True
        try:
            self._since = time.monotonic()
            self._pgconn.send_query_prepared(statement, values)
            self._since = None
        except psycopg.Error as error:
            failure = self._broken(error)
            self._leave()
            raise failure from error

    async def ready(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        try:
            while self._pgconn.is_busy():
                left = max(0.0, until - time.monotonic())
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
            self._since = time.monotonic()
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
        if self._gate.acquire(blocking=False):
            self._leave()
            return
        # Whoever is in a call wakes up, finds the reason, and closes the connection.
        with self._guard:
            if not self._finished:
                _shut_down(self._socket)

    def overdue(self, now: float) -> bool:
        since = self._since
        return since is not None and now - since > self._patience * 0.75

    def hung_up(self) -> bool:
        with self._guard:
            if self._finished:
                return False
            poll = select.poll()
            poll.register(self._socket, select.POLLRDHUP)
            return bool(poll.poll(0))

    def _enter(self) -> None:
        if not self._gate.acquire(timeout=self._patience):
            raise Unavailable("postgresql: the statement before this one is still under way")
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
                    self._hangup.remove(self._socket)
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


class LoopLink(Link):
    """The asyncio flavour; any number of tasks of one loop may share it."""

    def __init__(self, pgconn: PGconn, patience: float, ended: Ended) -> None:
        super().__init__(pgconn, patience, ended)
        pgconn.nonblocking = 1
        self._loop = asyncio.get_running_loop()
        self._gate = asyncio.Lock()
        self._pending = False  # a reply is still to come
        self._waiter: asyncio.Future[None] | None = None
        self._result: PGresult | None = None
        self._loop.add_reader(self._socket, self._readable)

    async def call(self, statement: bytes, *values: bytes, undo: bytes = b"") -> bytes | None:
        await self._enter()
        try:
            self._send(statement, values)
            cancelled = await self._reply()
            if cancelled is None:
                return self._value()
            if self._result is None or self._result.status != _TUPLES_OK:
                # What the failed statement left behind is not known, and nobody is there
                # to find out: the connection takes it along.
                self.end("a call was cancelled and failed")
            elif undo and self._value() is not None:
                await self._undo(undo, values)
            raise cancelled
        finally:
            self._leave()

    async def script(self, sql: str) -> Row:
        await self._enter()
        try:
            try:
                self._pgconn.send_query(sql.encode())
            except psycopg.Error as error:
                raise self._broken(error) from error
            self._flush()
            cancelled = await self._reply()
            if cancelled is not None:
                raise cancelled
            result = self._result
            if result is not None and result.status in (_TUPLES_OK, _COMMAND_OK):
                return libpq.row(result)
            raise self._failure()
        finally:
            self._leave()

    async def ask(self, statement: bytes, *values: bytes) -> None:
        await self._enter()
        self.asking = True
        try:
            self._send(statement, values)
        except TenureError:
            self._leave()
            raise

    async def ready(self, seconds: float) -> bool:
        if self._pending and self.reason is None and seconds > 0:
            waiter = self._waiter = self._loop.create_future()
            timer = self._loop.call_later(seconds, libpq.resolve, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
        if self.reason is not None:
            self._leave()
            raise self._unknown()
        return not self._pending

    async def take(self) -> bytes | None:
        try:
            return self._value()
        finally:
            self._leave()

    async def cancel(self) -> None:
        await libpq.cancel(self._pgconn, self._patience, libpq.wait_loop)

    def end(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            # Told first: the holder of a lock knows before the server frees it.
            self._ended(self, reason)
            self._loop.remove_reader(self._socket)
            self._pgconn.finish()
            self._wake()

    async def _enter(self) -> None:
        if self._gate.locked():
            try:
                async with asyncio.timeout(self._patience):
                    await self._gate.acquire()
            except TimeoutError as error:
                raise Unavailable(
                    "postgresql: the statement before this one is still under way"
                ) from error
        else:
            await self._gate.acquire()
        if self.reason is not None:
            self._gate.release()
            raise self._gone()

    def _leave(self) -> None:
        self.asking = False
        self._result = None
        self._gate.release()

    def _send(self, statement: bytes, values: tuple[bytes, ...]) -> None:
        if self.reason is not None:
            raise self._gone()
        try:
            self._pgconn.send_query_prepared(statement, values)
        except psycopg.Error as error:
            raise self._broken(error) from error
        self._flush()

    def _flush(self) -> None:
        self._pending = True
        self._result = None
        try:
            stuck = self._pgconn.flush()
        except psycopg.Error as error:
            raise self._broken(error) from error
        if stuck:
            # Not even a few hundred bytes fit: the server has stopped reading long ago.
            self.end("the server does not read")
            raise self._unknown()

    async def _undo(self, statement: bytes, values: tuple[bytes, ...]) -> None:
        try:
            self._send(statement, values)
            await self._reply()
            self._value()
        except TenureError as error:
            self.end(f"a cancelled call could not be undone ({error})")

    async def _reply(self) -> asyncio.CancelledError | None:
        """Wait for the reply, even through a cancellation, which is then returned."""
        cancelled: asyncio.CancelledError | None = None
        timer = self._loop.call_later(self._patience, self.end, "no reply in time")
        try:
            while self._pending and self.reason is None:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                except asyncio.CancelledError as error:
                    cancelled = error
        finally:
            timer.cancel()
        if self.reason is not None and cancelled is None:
            raise self._unknown()
        return cancelled

    def _readable(self) -> None:
        pgconn = self._pgconn
        try:
            pgconn.consume_input()
            while self._pending and not pgconn.is_busy():
                result = pgconn.get_result()
                if result is None:
                    self._pending = False
                    self._wake()
                elif self._result is None or self._result.status in (_TUPLES_OK, _COMMAND_OK):
                    self._result = result
            if not self._pending:
                pgconn.is_busy()  # takes in what the server said of its own accord
        except psycopg.Error as error:
            self._broken(error)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _value(self) -> bytes | None:
        result = self._result
        if result is not None and result.status == _TUPLES_OK:
            return result.get_value(0, 0)
        raise self._failure()

    def _failure(self) -> TenureError:
        result = self._result
        if self.reason is None and result is not None and self._pgconn.status == pq.ConnStatus.OK:
            return libpq.refusal(result)
        self.end(libpq.message(result))
        return self._unknown()

    def _broken(self, error: psycopg.Error) -> TenureError:
        self.end(str(error).strip() or "the server closed the connection")
        return self._unknown()


# -- making connections -------------------------------------------------------


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


class LoopWire:
    """Makes connections for the running loop, which watches them itself."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._links: list[Link] = []

    async def connect(self, parameters: Mapping[str, str], seconds: float, ended: Ended) -> Link:
        parameters = await libpq.resolved(parameters, seconds)
        pgconn = await libpq.connect(parameters, seconds, libpq.wait_loop)
        link = LoopLink(pgconn, self._patience, ended)
        self._links = [each for each in self._links if each.reason is None]
        self._links.append(link)
        return link

    async def close(self) -> None:
        for link in self._links:
            link.end("closed")

    def abandon(self) -> None:
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

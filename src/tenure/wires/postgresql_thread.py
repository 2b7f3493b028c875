"""The blocking flavour of the connections to PostgreSQL; see `wires.postgresql`."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from .._runtime.base import Job, Runtime
from ..errors import TenureError
from . import libpq
from .hangup import Hangup
from .libpq import Heard
from .links import Ended, NotSent, Row
from .postgresql import Link

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

_TUPLES_OK = pq.ExecStatus.TUPLES_OK
_COMMAND_OK = pq.ExecStatus.COMMAND_OK


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
        self._listening = False  # somebody may be waiting for notifications, outside the gate
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
                self._release()
            else:
                self._leave()

    async def rows(self, sql: str) -> list[Row]:
        self._enter()
        try:
            self._since = monotonic()
            result = self._pgconn.exec_(sql.encode())
            self._since = None
            if result.status in (_TUPLES_OK, _COMMAND_OK) and self.reason is None:
                return libpq.rows(result)
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

    async def hear(self, seconds: float) -> list[Heard]:
        heard = self._take_heard()
        if heard or not seconds:
            return heard
        # Without the gate, so that others can subscribe meanwhile; `end` wakes it by
        # shutting the socket down.
        poll = select.poll()
        with self._guard:
            if self.reason is not None:
                raise self._gone()
            self._listening = True
            poll.register(self._eye, select.POLLIN)
        poll.poll(seconds * 1000)
        return self._take_heard()

    def _take_heard(self) -> list[Heard]:
        self._enter()
        try:
            self._pgconn.consume_input()
            return libpq.notified(self._pgconn)
        except psycopg.Error as error:
            raise self._broken(error) from error
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
        if self._listening:
            with self._guard:
                if not self._finished:
                    _shut_down(self._eye)
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
        self._release()

    def _release(self) -> None:
        self._gate.release()
        # It may have ended after that was looked at, by somebody who found the gate taken.
        if self.reason is not None and not self._finished and self._gate.acquire(blocking=False):
            self._leave()

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
        self._lock = threading.Lock()

    async def connect(self, parameters: Mapping[str, str], seconds: float, ended: Ended) -> Link:
        pgconn = await libpq.connect(parameters, seconds, libpq.wait_thread)
        # Of several threads that connect at once, none may forget what another has added.
        with self._lock:
            hangup = self._hangup
            if hangup is None:
                hangup = self._hangup = Hangup(min(1.0, self._patience / 4), "no reply in time")
                self._job = self._runtime.spawn(hangup.run, "postgresql-hangup")
            link = ThreadLink(pgconn, self._patience, ended, hangup)
            self._links = [*(each for each in self._links if each.reason is None), link]
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

"""The blocking flavour of the connections to PostgreSQL; see `wires.postgresql`."""

from __future__ import annotations

import select
from collections.abc import Mapping
from time import monotonic
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from .._runtime.base import Runtime
from ..errors import TenureError
from . import libpq
from .hangup import Hangup
from .libpq import Heard
from .links import Ended, Row
from .links_thread import SharedLink, SharedLinks
from .postgresql import Link

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

_TUPLES_OK = pq.ExecStatus.TUPLES_OK
_COMMAND_OK = pq.ExecStatus.COMMAND_OK


class ThreadLink(SharedLink, Link):
    """The blocking flavour; any number of threads may share it."""

    def __init__(self, pgconn: PGconn, patience: float, ended: Ended, hangup: Hangup) -> None:
        super().__init__(pgconn, patience, ended)
        pgconn.nonblocking = 0
        self._exec_prepared = pgconn.exec_prepared
        self._share(self._socket, hangup)

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
        self.asking = self._attended = True
        try:
            self._since = monotonic()
            self._pgconn.send_query_prepared(statement, values)
            self._since = None
        except psycopg.Error as error:
            failure = self._broken(error)
            self._leave()
            raise failure from error
        self._put_down()

    async def ready(self, seconds: float) -> bool:
        until = monotonic() + seconds
        if not self._take_up():
            raise self._unknown()
        try:
            while self._pgconn.is_busy():
                left = max(0.0, until - monotonic())
                came = self._poll.poll(left * 1000)
                if not came or self.reason is not None:
                    break
                self._pgconn.consume_input()
            ready = not self._pgconn.is_busy()
        except psycopg.Error as error:
            failure = self._broken(error)
            self._leave()
            raise failure from error
        except BaseException:
            self._put_down()
            raise
        self._put_down()
        return ready

    async def take(self) -> bytes | None:
        if not self._take_up():
            raise self._unknown()
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

    def abandon(self) -> None:
        self._drop_eye()
        super().abandon()

    def _close(self, idle: bool) -> None:
        self._pgconn.finish()

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


class ThreadWire(SharedLinks[ThreadLink]):
    """Makes blocking connections, and runs the job that watches them."""

    def __init__(self, runtime: Runtime, patience: float) -> None:
        super().__init__(runtime, patience, "postgresql")

    async def connect(self, parameters: Mapping[str, str], seconds: float, ended: Ended) -> Link:
        pgconn = await libpq.connect(parameters, seconds, libpq.wait_thread)
        return self._add(lambda hangup: ThreadLink(pgconn, self._patience, ended, hangup))

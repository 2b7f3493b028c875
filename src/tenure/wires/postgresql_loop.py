"""The asyncio flavour of the connections to PostgreSQL; see `wires.postgresql`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from ..errors import TenureError
from . import libpq
from .libpq import Heard
from .links import Ended, NotSent, Row
from .postgresql import Link

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

_TUPLES_OK = pq.ExecStatus.TUPLES_OK
_COMMAND_OK = pq.ExecStatus.COMMAND_OK


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
        self._hearing = False
        self._heard: list[Heard] = []
        self._listener: asyncio.Future[None] | None = None
        self._loop.add_reader(self._socket, self._readable)

    async def call(self, statement: bytes, values: tuple[bytes, ...], undo: bytes) -> bytes | None:
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

    async def rows(self, sql: str) -> list[Row]:
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
                return libpq.rows(result)
            raise self._failure()
        finally:
            self._leave()

    async def hear(self, seconds: float) -> list[Heard]:
        if not self._hearing:
            self._hearing = True
            self._heard += libpq.notified(self._pgconn) if self.reason is None else ()
        if not self._heard and self.reason is None and seconds:
            listener = self._listener = self._loop.create_future()
            timer = self._loop.call_later(seconds, libpq.resolve, listener)
            try:
                await listener
            finally:
                timer.cancel()
        if self.reason is not None:
            raise self._gone()
        heard, self._heard = self._heard, []
        return heard

    async def ask(self, statement: bytes, values: tuple[bytes, ...]) -> None:
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
            self._loop.remove_writer(self._socket)
            self._pgconn.finish()
            self._wake()
            if self._listener is not None:
                libpq.resolve(self._listener)
            if self._unpark():
                self._leave()

    @property
    def busy(self) -> bool:
        return self._gate.locked()

    def _park(self) -> None:
        if self.reason is None:
            self.parked = True
        elif self.asking:
            self._leave()

    def _unpark(self) -> bool:
        parked, self.parked = self.parked, False
        return parked

    async def _enter(self) -> None:
        if self._gate.locked():
            try:
                async with asyncio.timeout(self._patience):
                    await self._gate.acquire()
            except TimeoutError as error:
                raise NotSent(
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
            self._loop.add_writer(self._socket, self._writable)

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
        timer = self._loop.call_later(self._patience, self._late)
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

    def _late(self) -> None:
        # A loop that was held up finds the reply and the end of the time at once.
        if self._pending:
            self.end("no reply in time")

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
            if self._hearing and (heard := libpq.notified(pgconn)):
                self._heard += heard
                if self._listener is not None:
                    libpq.resolve(self._listener)
        except psycopg.Error as error:
            self._broken(error)

    def _writable(self) -> None:
        """Send the rest of a statement that did not fit into the socket at once."""
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
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

"""The asyncio flavour of the connections to MySQL and MariaDB; see `wires.mysql`."""

from __future__ import annotations

import asyncio
import ssl
import threading

from ..errors import TenureError
from ._mysql_connect import Greeted, Target, greet
from ._mysql_errors import ending, refusal
from ._mysql_packets import Malformed, Replies, Reply, query
from .links import Ended, NotSent
from .mysql import Link

_CHUNK = 65536
_LATER = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class LoopLink(Link):
    """The asyncio flavour; any number of tasks of one loop may share it."""

    def __init__(self, greeted: Greeted, patience: float, ended: Ended) -> None:
        super().__init__(greeted, patience, ended)
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._gate = asyncio.Lock()
        self._replies = Replies()
        self._reply: Reply | None = None
        self._pending = False  # a reply is still to come
        self._unsent = memoryview(b"")
        self._waiter: asyncio.Future[None] | None = None
        self._loop.add_reader(self._socket_number, self._readable)

    async def call(self, statement: bytes, values: tuple[bytes, ...], undo: bytes) -> bytes | None:
        await self._enter()
        try:
            self._send(statement.replace(b"?", values[0]))
            cancelled = await self._replied()
            if cancelled is None:
                return self._value()
            if self._reply is None or self._reply.trouble is not None:
                # What the failed statement left behind is not known, and nobody is there
                # to find out: the connection takes it along.
                self.end("a call was cancelled and failed")
            elif undo and self._value() is not None:
                await self._undo(undo.replace(b"?", values[0]))
            raise cancelled
        finally:
            self._leave()

    async def run(self, statement: bytes) -> Reply:
        await self._enter()
        try:
            self._check_size(len(statement))
            self._send(statement)
            cancelled = await self._replied()
            if cancelled is not None:
                raise cancelled
            return self._taken()
        finally:
            self._leave()

    async def ask(self, statement: bytes, values: tuple[bytes, ...]) -> None:
        await self._enter()
        self.asking = True
        try:
            self._send(statement.replace(b"?", values[0]) if values else statement)
        except TenureError:
            self._leave()
            raise

    async def ready(self, seconds: float) -> bool:
        if self._pending and self.reason is None and seconds > 0:
            waiter = self._waiter = self._loop.create_future()
            timer = self._loop.call_later(seconds, _resolve, waiter)
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

    def end(self, reason: str) -> None:
        if self.reason is None:
            self.reason = reason
            # Told first: the holder of a lock knows before the server frees it.
            self._ended(self, reason)
            self._loop.remove_reader(self._socket_number)
            self._loop.remove_writer(self._socket_number)
            self._hang_up(idle=not (self._pending or self._gate.locked()))
            self._wake()
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
                raise NotSent("mysql: the statement before this one is still under way") from error
        else:
            await self._gate.acquire()
        if self.reason is not None:
            self._gate.release()
            raise self._gone()

    def _leave(self) -> None:
        self.asking = False
        self._reply = None
        self._gate.release()

    # -- sending and receiving -------------------------------------------------

    def _send(self, statement: bytes) -> None:
        if self.reason is not None:
            raise self._gone()
        self._pending = True
        self._reply = None
        data = query(statement)
        try:
            sent = self._socket.send(data)
        except _LATER:
            sent = 0
        except OSError as error:
            raise self._broken(str(error)) from error
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._loop.add_writer(self._socket_number, self._writable)

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except _LATER:
            return
        except OSError as error:
            self.end(str(error))
            return
        if not self._unsent:
            self._loop.remove_writer(self._socket_number)

    def _readable(self) -> None:
        # A TLS connection may hold more than it was asked for, and no event would tell.
        more = True
        while more and self.reason is None:
            try:
                data = self._socket.recv(_CHUNK)
            except _LATER:
                return
            except (OSError, ValueError) as error:
                self.end(str(error) or "the connection broke")
                return
            if not data:
                self.end("the server closed the connection")
                return
            more = isinstance(self._socket, ssl.SSLSocket)
            self._take_in(data)

    def _take_in(self, data: bytes) -> None:
        try:
            reply = self._replies.feed(data)
        except Malformed as error:
            self.end(f"the server does not keep to the protocol: {error}")
            return
        if reply is None:
            return
        over = None if reply.trouble is None else ending(reply.trouble)
        if over is not None or not self._pending:
            self.end(over or "the server said something that nobody had asked for")
            return
        self._reply, self._pending = reply, False
        self._wake()

    async def _replied(self) -> asyncio.CancelledError | None:
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

    async def _undo(self, statement: bytes) -> None:
        try:
            self._send(statement)
            await self._replied()
            self._value()
        except TenureError as error:
            self.end(f"a cancelled call could not be undone ({error})")

    def _value(self) -> bytes | None:
        rows = self._taken().rows
        return rows[0][0] if rows else None

    def _taken(self) -> Reply:
        reply = self._reply
        if reply is None or self.reason is not None:
            raise self._unknown()
        if reply.trouble is not None:
            raise refusal(reply.trouble.code, reply.trouble.text)
        return reply

    def _wake(self) -> None:
        if self._waiter is not None:
            _resolve(self._waiter)

    def _broken(self, reason: str) -> TenureError:
        self.end(reason)
        return self._unknown()


class LoopWire:
    """Makes connections for the running loop, which watches them itself."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._links: list[Link] = []

    async def connect(self, target: Target, seconds: float, ended: Ended) -> Link:
        # PyMySQL blocks, so it logs in on a thread. Who is cancelled leaves that behind.
        greeting = _Greeting(target, seconds)
        try:
            greeted = await asyncio.to_thread(greeting.run)
        except asyncio.CancelledError:
            greeting.give_up()
            raise
        link = LoopLink(greeted, self._patience, ended)
        self._links = [each for each in self._links if each.reason is None]
        self._links.append(link)
        return link

    async def close(self) -> None:
        for link in self._links:
            link.end("closed")

    def abandon(self) -> None:
        for link in self._links:
            link.abandon()


class _Greeting:
    """A login on a thread, which closes the connection itself if nobody waits for it any more."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._target = target
        self._seconds = seconds
        self._lock = threading.Lock()
        self._given_up = False
        self._greeted: Greeted | None = None

    def run(self) -> Greeted:
        greeted = greet(self._target, self._seconds)
        with self._lock:
            self._greeted = greeted
            if self._given_up:
                greeted.socket.close()
        return greeted

    def give_up(self) -> None:
        """The connection is not wanted, whenever it comes."""
        with self._lock:
            self._given_up = True
            if self._greeted is not None:
                self._greeted.socket.close()


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)

"""The blocking flavour of the connections to MySQL and MariaDB; see `wires.mysql`."""

from __future__ import annotations

import os
import select
import socket
import ssl
import threading
from time import monotonic

from .._runtime.base import Job, Runtime
from ..errors import TenureError
from . import mysql
from ._mysql_connect import Greeted, Target, greet
from ._mysql_errors import ending, refusal
from ._mysql_packets import Malformed, Replies, Reply, query
from .hangup import Hangup
from .links import Ended, NotSent
from .mysql import Link

_CHUNK = 65536


class ThreadLink(Link):
    """The blocking flavour; any number of threads may share it."""

    def __init__(self, greeted: Greeted, patience: float, ended: Ended, hangup: Hangup) -> None:
        super().__init__(greeted, patience, ended)
        self._socket.settimeout(None)
        self._send = self._socket.sendall
        self._receive = self._socket.recv
        self._tls = self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        self._replies = Replies()
        self._reply: Reply | None = None
        self._gate = threading.Lock()  # held while a statement is under way
        self._guard = threading.Lock()  # held while the descriptor is used from outside
        self._since: float | None = None
        self._finished = False
        self._poll = select.poll()
        self._poll.register(self._socket_number, select.POLLIN)
        # A descriptor of our own for the same socket, to be looked at and cut from outside.
        self._eye = socket.socket(fileno=os.dup(self._socket_number))
        self._hangup = hangup
        hangup.add(self._eye.fileno(), self)

    async def call(
        self, statement: bytes, values: tuple[bytes, ...], undo: bytes = b""
    ) -> bytes | None:
        rows = (await self.run(statement.replace(b"?", values[0]))).rows
        return rows[0][0] if rows else None

    async def run(self, statement: bytes) -> Reply:
        if not self._gate.acquire(False):
            self._queue_up()
        try:
            if self.reason is not None:
                raise self._gone()
            self._check_size(len(statement))
            self._since = monotonic()
            self._send(query(statement))
            feed, receive = self._replies.feed, self._receive
            reply: Reply | None = None
            while reply is None:
                data = receive(_CHUNK)
                if not data:
                    raise self._broken("the server closed the connection")
                reply = feed(data)
            self._since = None
            if reply.trouble is not None or self.reason is not None:
                raise self._failure(reply)
            return reply
        except TenureError:
            raise
        except (OSError, ValueError) as error:  # a closed TLS connection is a ValueError
            raise self._broken(str(error)) from error
        except Malformed as error:
            raise self._broken(_malformed(error)) from error
        except BaseException:
            self._interrupted()
            raise
        finally:
            if self.reason is None:
                self._since = None
                self._release()
            else:
                self._leave()

    async def ask(self, statement: bytes, values: tuple[bytes, ...]) -> None:
        self._enter()
        self.asking = True
        self._reply = None
        try:
            self._since = monotonic()
            self._send(query(statement.replace(b"?", values[0]) if values else statement))
            self._since = None
        except (OSError, ValueError) as error:
            failure = self._broken(str(error))
            self._leave()
            raise failure from error

    async def ready(self, seconds: float) -> bool:
        until = monotonic() + seconds
        try:
            while self._reply is None:
                if self._tls is None or not self._tls.pending():
                    came = self._poll.poll(max(0.0, until - monotonic()) * 1000)
                    if self.reason is not None:
                        raise self._unknown()
                    if not came:
                        return False
                self._since = monotonic()
                data = self._receive(_CHUNK)
                self._since = None
                if not data:
                    raise self._broken("the server closed the connection")
                self._reply = self._replies.feed(data)
        except TenureError:
            self._leave()
            raise
        except (OSError, ValueError) as error:
            failure = self._broken(str(error))
            self._leave()
            raise failure from error
        except Malformed as error:
            failure = self._broken(_malformed(error))
            self._leave()
            raise failure from error
        return True

    async def take(self) -> bytes | None:
        reply, self._reply = self._reply, None
        try:
            if reply is None or reply.trouble is not None or self.reason is not None:
                raise self._failure(reply)
            return reply.rows[0][0] if reply.rows else None
        finally:
            self._leave()

    def end(self, reason: str) -> None:
        if not self._fail(reason):
            return
        # Told first: the holder of a lock knows before the server frees it.
        self._ended(self, reason)
        if self._unpark():
            self._leave()
            return
        if self._gate.acquire(blocking=False):
            self._leave(idle=True)
            return
        # Whoever is in a call wakes up, finds the reason, and closes the connection.
        with self._guard:
            if not self._finished:
                mysql.cut(self._eye)

    def abandon(self) -> None:
        if not self._finished:
            self._finished = True
            self._eye.close()
        super().abandon()

    def overdue(self, now: float) -> bool:
        since = self._since
        return since is not None and now - since > self._patience * 0.75

    def hung_up(self) -> bool:
        with self._guard:
            if self._finished:
                return False
            poll = select.poll()
            poll.register(self._eye.fileno(), select.POLLRDHUP)
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
            raise NotSent("mysql: the statement before this one is still under way")

    def _enter(self) -> None:
        self._queue_up()
        if self.reason is not None:
            self._gate.release()
            raise self._gone()

    def _leave(self, idle: bool = False) -> None:
        self.asking = False
        self._since = None
        if self.reason is not None:
            with self._guard:
                if not self._finished:
                    self._finished = True
                    self._hangup.remove(self._eye.fileno())
                    self._hang_up(idle)
                    self._eye.close()
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

    def _failure(self, reply: Reply | None) -> TenureError:
        if self.reason is None and reply is not None and reply.trouble is not None:
            over = ending(reply.trouble)
            if over is None:
                return refusal(reply.trouble.code, reply.trouble.text)
            return self._broken(over)
        return self._unknown()

    def _broken(self, reason: str) -> TenureError:
        if self._fail(reason):
            self._ended(self, reason)
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

    async def connect(self, target: Target, seconds: float, ended: Ended) -> Link:
        greeted = greet(target, seconds)
        # Of several threads that connect at once, none may forget what another has added.
        with self._lock:
            hangup = self._hangup
            if hangup is None:
                hangup = self._hangup = Hangup(min(1.0, self._patience / 4), "no reply in time")
                self._job = self._runtime.spawn(hangup.run, "mysql-hangup")
            link = ThreadLink(greeted, self._patience, ended, hangup)
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


def _malformed(error: Malformed) -> str:
    return f"the server does not keep to the protocol: {error}"

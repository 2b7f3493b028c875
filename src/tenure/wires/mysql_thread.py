"""The blocking flavour of the connections to MySQL and MariaDB; see `wires.mysql`."""

from __future__ import annotations

import ssl
from time import monotonic

from .._runtime.base import Runtime
from ..errors import TenureError
from ._mysql_connect import Greeted, Target, greet
from ._mysql_errors import ending, refusal
from ._mysql_packets import Malformed, Replies, Reply, query
from .hangup import Hangup
from .links import Ended
from .links_thread import SharedLink, SharedLinks
from .mysql import Link

_CHUNK = 65536


class ThreadLink(SharedLink, Link):
    """The blocking flavour; any number of threads may share it."""

    def __init__(self, greeted: Greeted, patience: float, ended: Ended, hangup: Hangup) -> None:
        super().__init__(greeted, patience, ended)
        self._socket.settimeout(None)
        self._send = self._socket.sendall
        self._receive = self._socket.recv
        self._tls = self._socket if isinstance(self._socket, ssl.SSLSocket) else None
        self._replies = Replies()
        self._reply: Reply | None = None
        self._share(self._socket_number, hangup)

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
        self.asking = self._attended = True
        self._reply = None
        try:
            self._since = monotonic()
            self._send(query(statement.replace(b"?", values[0]) if values else statement))
            self._since = None
        except (OSError, ValueError) as error:
            failure = self._broken(str(error))
            self._leave()
            raise failure from error
        self._put_down()

    async def ready(self, seconds: float) -> bool:
        until = monotonic() + seconds
        if not self._take_up():
            raise self._unknown()
        try:
            while self._reply is None:
                if self._tls is None or not self._tls.pending():
                    came = self._poll.poll(max(0.0, until - monotonic()) * 1000)
                    if self.reason is not None:
                        raise self._unknown()
                    if not came:
                        break
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
        except BaseException:
            self._put_down()
            raise
        ready = self._reply is not None
        self._put_down()
        return ready

    async def take(self) -> bytes | None:
        if not self._take_up():
            raise self._unknown()
        reply, self._reply = self._reply, None
        try:
            if reply is None or reply.trouble is not None or self.reason is not None:
                raise self._failure(reply)
            return reply.rows[0][0] if reply.rows else None
        finally:
            self._leave()

    def abandon(self) -> None:
        self._drop_eye()
        super().abandon()

    def _close(self, idle: bool) -> None:
        self._hang_up(idle)

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


class ThreadWire(SharedLinks[ThreadLink]):
    """Makes blocking connections, and runs the job that watches them."""

    def __init__(self, runtime: Runtime, patience: float) -> None:
        super().__init__(runtime, patience, "mysql")

    async def connect(self, target: Target, seconds: float, ended: Ended) -> Link:
        greeted = greet(target, seconds)
        return self._add(lambda hangup: ThreadLink(greeted, self._patience, ended, hangup))


def _malformed(error: Malformed) -> str:
    return f"the server does not keep to the protocol: {error}"

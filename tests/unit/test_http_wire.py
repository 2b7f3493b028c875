"""The HTTP wire: replies taken apart, servers that fail, waits that end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Host
from tenure.errors import (
    AuthenticationFailed,
    InvalidURL,
    OutcomeUnknown,
    ProtocolError,
    Unavailable,
)
from tenure.testing.servers import EtcdServer, free_port
from tenure.wires._http import Reader
from tenure.wires.http import Settings, Tls, Wire, wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
SECRET = "s3cret-word"


# -- the reader ------------------------------------------------------------------

REPLIES = [
    (OK, b"ok", True),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", True),
    (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
    (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok", True),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
    (
        CHUNKED + b"5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nX-End: 1\r\n\r\n",
        b"hello world",
        True,
    ),
]


@pytest.mark.parametrize("raw, body, lasts", REPLIES)
def test_a_reply_however_it_arrives(raw: bytes, body: bytes, lasts: bool) -> None:
    """In one piece or byte by byte, it is the same reply, and complete only at its end."""
    for size in (len(raw), 1, 3):
        reader = Reader()
        for at in range(0, len(raw), size):
            assert not reader.done
            reader.feed(raw[at : at + size])
        assert reader.done
        assert reader.lasts == lasts
        assert reader.whole().body == body


def test_a_body_without_a_length_ends_with_the_connection() -> None:
    """And only there; an end before that is none."""
    reader = Reader()
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\npart")
    assert not reader.done
    reader.feed(b" and part")
    assert reader.end()
    assert reader.whole().body == b"part and part"
    reader.reset()
    reader.feed(OK[:-1])
    assert not reader.end()


@pytest.mark.parametrize(
    "raw",
    [
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
        OK + b"HTTP/1.1 200 OK\r\n\r\n",
        b"x" * 70_000,
    ],
)
def test_what_is_not_http_is_refused(raw: bytes) -> None:
    """It raises; it is never taken for a reply."""
    with pytest.raises(ValueError, match=r"\w"):
        Reader().feed(raw)


# -- the wires -------------------------------------------------------------------

Handler = Callable[[socket.socket], None]


class Server:
    """A server on loopback that does with each connection what it is told."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.connections: list[socket.socket] = []
        self.requests: list[bytes] = []
        self._threads: list[threading.Thread] = []
        self._main = threading.Thread(target=self._accept)
        self._main.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self.connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            self._handler(connection)

    def request(self, connection: socket.socket) -> bytes:
        """The next request of a connection; an ended one raises `ConnectionError`."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                raise ConnectionResetError
            data += more
        self.requests.append(data)
        return data

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._main.join(10)  # now there are no more connections to come
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for connection in self.connections:
            connection.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[Server, socket.socket], None]], Server]]:
    """Starts servers that are closed when the test is over."""
    servers: list[Server] = []

    def start(handler: Callable[[Server, socket.socket], None]) -> Server:
        server = Server(lambda connection: handler(server, connection))
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


Serve = Callable[[Callable[[Server, socket.socket], None]], Server]


def always(server: Server, connection: socket.socket) -> None:
    """Answer every request."""
    while True:
        server.request(connection)
        connection.sendall(OK)


def silent(server: Server, connection: socket.socket) -> None:
    """Take requests, and answer none."""
    while True:
        server.request(connection)


Body = Callable[[Runtime], Awaitable[None]]
Play = Callable[[Body], None]


@pytest.fixture(params=["thread", "asyncio"])
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a test's body in one flavour and in the other."""

    def run(body: Body) -> None:
        async def on_loop() -> None:
            await body(AsyncioRuntime())

        if request.param == "asyncio":
            asyncio.run(on_loop())
        else:
            thread = body(ThreadRuntime())
            assert asyncio.iscoroutine(thread)
            drive(thread)

    return run


@contextlib.asynccontextmanager
async def opened(runtime: Runtime, *ports: int, patience: float = 10.0, **more: Any) -> Any:
    """An open wire to servers on loopback."""
    hosts = tuple(Host("127.0.0.1", port) for port in ports)
    http: Wire[Any] = wire(Settings(hosts, "test", patience=patience, **more), runtime.flavour)
    await http.open(runtime)
    try:
        yield http
    finally:
        await http.close()


def test_one_connection_serves_many_requests(serve: Serve, play: Play) -> None:
    """It is kept, with the headers sent that were asked for."""
    server = serve(always)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port, headers={"X-Token": "t"}) as http:
            for _ in range(3):
                assert (await http.request("PUT", "/path", b"body")).body == b"ok"
            http.authorize({"X-Token": "u"})
            await http.request("GET", "/path")

    play(body)
    assert len(server.connections) == 1
    assert b"X-Token: t\r\nContent-Length: 4\r\n\r\n" in server.requests[0]
    assert b"X-Token: u\r\n\r\n" in server.requests[3]


def test_a_server_that_is_down_gives_way(serve: Serve, play: Play) -> None:
    """The next one is asked, and asked first from then on."""
    server = serve(always)

    async def body(runtime: Runtime) -> None:
        down = free_port()
        async with opened(runtime, down, server.port) as http:
            assert (await http.request("GET", "/")).status == 200
            assert http._turn % 2 == 1
        with pytest.raises(Unavailable, match="nor can any") as caught:
            async with opened(runtime, down, down):
                pass
        assert not isinstance(caught.value, OutcomeUnknown)

    play(body)


def test_an_idle_connection_that_ended_is_replaced(serve: Serve, play: Play) -> None:
    """Nothing was lost with it, so nobody hears of it."""
    ended = threading.Event()

    def once(server: Server, connection: socket.socket) -> None:
        server.request(connection)
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)
        ended.set()

    server = serve(once)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port) as http:
            for _ in range(3):
                ended.clear()
                assert (await http.request("POST", "/", b"")).status == 200
                assert ended.wait(10)
                give_up = time.monotonic() + 10
                age(http)
                while http._free and http._free[0].usable():
                    assert time.monotonic() < give_up
                    await runtime.sleep(runtime.now() + 0.01)
                    age(http)
                age(http)

    play(body)
    assert len(server.requests) == 3


def age(http: Any) -> None:
    """Let the idle connections have been idle for long, so that they are looked at."""
    for link in http._free:
        if hasattr(link, "_used"):
            link._used = 0.0


@pytest.mark.parametrize("what", ["silent", "end", "half"])
def test_a_reply_that_stays_out(serve: Serve, play: Play, what: str) -> None:
    """The outcome is unknown, within the patience; the request is not sent a second time."""

    def handler(server: Server, connection: socket.socket) -> None:
        server.request(connection)
        if what == "half":
            connection.sendall(OK[:-1])
        if what != "end":
            silent(server, connection)

    server = serve(handler)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port, patience=1.0) as http:
            began = runtime.now()
            with pytest.raises(OutcomeUnknown):
                await http.request("POST", "/", b"")
            assert runtime.now() - began < 5.0
            assert http._free == []
            assert not http._links

    play(body)
    assert len(server.requests) == 1


def test_what_answers_is_no_http_server(serve: Serve, play: Play) -> None:
    """That is said, and the connection is not used again."""

    def handler(server: Server, connection: socket.socket) -> None:
        server.request(connection)
        connection.sendall(b"-ERR unknown command\r\n\r\n")
        silent(server, connection)

    server = serve(handler)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port) as http:
            with pytest.raises(ProtocolError, match="not HTTP"):
                await http.request("GET", "/")
            assert http._free == []

    play(body)


def streaming(server: Server, connection: socket.socket) -> None:
    """Answer with lines, and with more of them when told."""
    server.request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
    for text in (b"tw", b"o\nthree\n"):
        connection.sendall(b"%x\r\n%b\r\n" % (len(text), text))
    silent(server, connection)


def test_lines_of_a_stream(serve: Serve, play: Play) -> None:
    """They come one by one, however they were cut; when there are none, the wait is bounded."""
    server = serve(streaming)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port) as http:
            channel = http.channel()
            assert (await channel.begin("POST", "/", b"{}")).status == 200
            assert [await channel.line(10.0) for _ in range(3)] == [b"one", b"two", b"three"]
            assert await channel.line(0.05) is None
            server.connections[-1].shutdown(socket.SHUT_RDWR)
            with pytest.raises(OutcomeUnknown):
                await channel.line(10.0)
            channel.close()

    play(body)


def test_a_stream_is_stopped_from_elsewhere(serve: Serve, play: Play) -> None:
    """Whoever waits for its next line is told at once."""
    server = serve(streaming)

    async def body(runtime: Runtime) -> None:
        ended = runtime.signal()
        async with opened(runtime, server.port) as http:
            channel = http.channel()
            await channel.begin("POST", "/", b"{}")
            for _ in range(3):
                await channel.line(10.0)

            async def wait() -> None:
                with pytest.raises(Unavailable):
                    await channel.line(60.0)
                ended.set()

            runtime.spawn(wait, "reader")
            give_up = runtime.now() + 10
            while not channel._busy:
                assert runtime.now() < give_up
                await runtime.sleep(runtime.now() + 0.01)
            channel.close()
            assert await ended.wait(runtime.now() + 10)
            with pytest.raises(Unavailable):
                await channel.request("GET", "/")

    play(body)


def test_a_long_poll_may_take_longer_than_other_calls(serve: Serve, play: Play) -> None:
    """Its own patience counts, and its connection is kept for the next one."""
    go = threading.Event()

    def late(server: Server, connection: socket.socket) -> None:
        while True:
            server.request(connection)
            go.wait(10)
            connection.sendall(OK)

    server = serve(late)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port, patience=0.5) as http:
            channel = http.channel()
            go.clear()
            runtime.call_at(runtime.now() + 0.8, go.set)
            assert (await channel.request("GET", "/", patience=20.0)).status == 200
            assert (await channel.request("GET", "/", patience=20.0)).status == 200
            channel.close()

    play(body)
    assert len(server.connections) == 2


def test_connections_are_bounded(serve: Serve, play: Play) -> None:
    """Beyond the bound calls wait for one that comes free; in vain, they say so."""
    server = serve(always)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port, patience=1.0, connections=2) as http:
            until = time.monotonic() + 10
            taken = [await http._take(until), await http._take(until)]
            with pytest.raises(Unavailable, match="all 2 connections are busy"):
                await http.request("GET", "/")
            http._free.append(taken.pop())
            http._returned()
            assert (await http.request("GET", "/")).status == 200
            http._retire(taken.pop())
            assert len(http._slots) == 1

    play(body)


def test_a_cancelled_request_leaves_no_connection(serve: Serve) -> None:
    """Its reply would be taken for the next one's."""
    server = serve(silent)

    async def main() -> None:
        runtime = AsyncioRuntime()
        async with opened(runtime, server.port) as http:
            task = asyncio.ensure_future(http.request("GET", "/"))
            give_up = time.monotonic() + 10
            while not server.requests:
                assert time.monotonic() < give_up
                await runtime.sleep(runtime.now() + 0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not http._links
            assert len(http._slots) == http.settings.connections

    asyncio.run(main())


def test_secrets_are_not_shown(serve: Serve, play: Play) -> None:
    """Neither in a repr nor in an error; a header that cannot be sent is named, not shown."""
    server = serve(always)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port, headers={"X-Token": SECRET}) as http:
            assert SECRET not in repr(http) + repr(http.settings)
            with pytest.raises(InvalidURL, match="X-Token") as caught:
                http.authorize({"X-Token": f"{SECRET}\r\nX-Evil: 1"})
            assert SECRET not in str(caught.value)
        server.close()
        with pytest.raises(Unavailable) as refused:
            async with opened(runtime, server.port, headers={"X-Token": SECRET}):
                pass
        assert SECRET not in str(refused.value)

    play(body)


def test_tls_is_verified(play: Play) -> None:
    """A server whose authority is unknown is refused; `ca` names it, `verify` waives it."""
    with EtcdServer(tls=True) as server:

        async def body(runtime: Runtime) -> None:
            with pytest.raises(AuthenticationFailed, match="certificate"):
                async with opened(runtime, server.port, tls=Tls()):
                    pass
            for tls in (Tls(ca=str(server.ca)), Tls(verify=False)):
                async with opened(runtime, server.port, tls=tls) as http:
                    assert (await http.request("GET", "/version")).status == 200
            with pytest.raises(InvalidURL, match="TLS files"):
                async with opened(runtime, server.port, tls=Tls(ca="/nowhere")):
                    pass

        play(body)


def test_a_forked_child_says_nothing(serve: Serve, play: Play) -> None:
    """It closes its copies; the parent's connection goes on."""
    server = serve(always)

    async def body(runtime: Runtime) -> None:
        async with opened(runtime, server.port) as http:
            await http.request("GET", "/")
            child = os.fork()
            if child == 0:
                http.abandon()
                os._exit(0 if http._closed and not http._links else 1)
            assert os.waitpid(child, 0)[1] == 0  # noqa: ASYNC222
            assert (await http.request("GET", "/")).status == 200

    play(body)
    assert len(server.connections) == 1

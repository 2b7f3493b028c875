"""The proxy's faults, against a server that echoes and a server that does not answer."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tenure.testing.proxy import Direction, Proxy

LIMIT = 10.0


class Echo:
    """A server that sends everything back, and remembers what it has got."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.got = bytearray()
        self.ends: list[str] = []
        self.links: list[socket.socket] = []
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self.listener.accept()
            except OSError:
                return
            self.links.append(link)
            self.threads.append(threading.Thread(target=self._serve, args=(link,), daemon=True))
            self.threads[-1].start()

    def _serve(self, link: socket.socket) -> None:
        with link:
            while True:
                try:
                    data = link.recv(65536)
                    if data:
                        self.got += data
                        link.sendall(data)
                        continue
                    self.ends.append("fin")
                except OSError:
                    self.ends.append("rst")
                return

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for link in self.links:
            try:
                link.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        for thread in self.threads:
            thread.join(LIMIT)
            assert not thread.is_alive()


@pytest.fixture
def echo() -> Iterator[Echo]:
    """Run an echo server for one test."""
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    """Run a proxy in front of the echo server."""
    with Proxy("127.0.0.1", echo.port) as running:
        yield running


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), LIMIT)


def exactly(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        assert more, f"the connection ended after {data!r}"
        data += more
    return data


def silent(link: socket.socket, seconds: float = 0.05) -> bool:
    """Say whether nothing comes for so long."""
    link.settimeout(seconds)
    try:
        link.recv(1)
    except TimeoutError:
        return True
    finally:
        link.settimeout(LIMIT)
    return False


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.002)


def test_forwards_both_ways(proxy: Proxy) -> None:
    """Bytes arrive unchanged and are counted in both directions."""
    payload = os.urandom(3_000_000)
    with connect(proxy) as link:
        sender = threading.Thread(target=link.sendall, args=(payload,))
        sender.start()
        assert exactly(link, len(payload)) == payload
        sender.join()
        assert proxy.connections == proxy.accepted == 1
    assert proxy.bytes_to_server == proxy.bytes_to_client == len(payload)
    assert proxy.swallowed == 0
    until(lambda: proxy.connections == 0)


def test_passes_on_a_half_close(proxy: Proxy, echo: Echo) -> None:
    """When the client has finished sending, the server learns it and can still answer."""
    with connect(proxy) as link:
        link.sendall(b"last words")
        link.shutdown(socket.SHUT_WR)
        assert exactly(link, 10) == b"last words"
        assert link.recv(1) == b""
    until(lambda: echo.ends == ["fin"])


def test_passes_on_a_reset(proxy: Proxy, echo: Echo) -> None:
    """A client that vanishes with a reset is a reset for the server."""
    link = connect(proxy)
    link.sendall(b"x")
    exactly(link, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    link.close()
    until(lambda: echo.ends == ["rst"])
    until(lambda: proxy.connections == 0)


def test_cut_resets_and_refuses_until_healed(proxy: Proxy, echo: Echo) -> None:
    """A cut is a reset now and a refusal later, on both sides; healing restores the port."""
    with connect(proxy) as link:
        link.sendall(b"a")
        exactly(link, 1)
        proxy.cut()
        assert proxy.connections == 0
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    until(lambda: echo.ends == ["rst"])
    for _ in range(3):
        with pytest.raises(ConnectionRefusedError):
            connect(proxy)
    proxy.heal()
    with connect(proxy) as link:
        link.sendall(b"b")
        assert exactly(link, 1) == b"b"


def test_reset_leaves_the_door_open(proxy: Proxy) -> None:
    """A reset ends what is there, and the next connection works."""
    with connect(proxy) as link:
        link.sendall(b"a")
        exactly(link, 1)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    with connect(proxy) as link:
        link.sendall(b"b")
        assert exactly(link, 1) == b"b"


@pytest.mark.parametrize("direction", ["both", "to_server"])
def test_black_hole_holds_requests(proxy: Proxy, echo: Echo, direction: Direction) -> None:
    """A request into the hole does not arrive, and does after healing, in order."""
    with connect(proxy) as link:
        link.sendall(b"1")
        exactly(link, 1)
        proxy.black_hole(direction)
        link.sendall(b"23")
        proxy.wait_swallowed(1)
        assert silent(link)
        assert echo.got == b"1"
        proxy.heal()
        link.sendall(b"4")
        assert exactly(link, 3) == b"234"


def test_black_hole_holds_replies(proxy: Proxy, echo: Echo) -> None:
    """The request is carried out although its reply does not come."""
    with connect(proxy) as link:
        proxy.black_hole("to_client")
        link.sendall(b"do")
        until(lambda: echo.got == b"do")
        proxy.wait_swallowed(1)
        assert silent(link)
        proxy.heal()
        assert exactly(link, 2) == b"do"
    assert proxy.swallowed == 2


def test_lost_reply(proxy: Proxy, echo: Echo) -> None:
    """A hole and then a reset make the classic case: carried out, and nobody was told."""
    with connect(proxy) as link:
        proxy.black_hole("to_client")
        link.sendall(b"do")
        proxy.wait_swallowed(1)
        proxy.reset()
        with pytest.raises(ConnectionResetError):
            link.recv(1)
    assert echo.got == b"do"


def test_dropped_bytes_end_the_connection(proxy: Proxy, echo: Echo) -> None:
    """What was dropped stays lost, so healing resets the connection that lost it only."""
    with connect(proxy) as loser, connect(proxy) as other:
        for link in (loser, other):
            link.sendall(b"a")
            exactly(link, 1)
        proxy.black_hole("to_server", drop=True)
        loser.sendall(b"lost")
        proxy.wait_swallowed(3)
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            loser.recv(1)
        other.sendall(b"b")
        assert exactly(other, 1) == b"b"
    assert b"lost" not in echo.got


def test_black_hole_hides_the_end(proxy: Proxy, echo: Echo) -> None:
    """The server does not learn that a client has gone before the network is back."""
    with connect(proxy) as link:
        link.sendall(b"a")
        exactly(link, 1)
        proxy.black_hole()
        link.sendall(b"b")
        proxy.wait_swallowed()
    with connect(proxy) as probe:  # once this one is noticed, so is the other's end
        until(lambda: proxy.connections == 2)
        assert silent(probe)
    assert echo.ends == []
    proxy.heal()
    until(lambda: echo.ends == ["fin", "fin"])
    assert echo.got == b"ab"


def test_black_hole_accepts_in_silence(proxy: Proxy) -> None:
    """Whoever connects into a hole is accepted, hears nothing, and is served later."""
    proxy.black_hole()
    with connect(proxy) as link:
        link.sendall(b"a")
        assert silent(link)
        proxy.heal()
        assert exactly(link, 1) == b"a"


@pytest.mark.parametrize("direction", ["both", "to_server", "to_client"])
def test_delay_makes_bytes_wait(proxy: Proxy, direction: Direction) -> None:
    """A delay is kept in each direction that it is for, and healing ends it at once."""
    times = 2 if direction == "both" else 1
    with connect(proxy) as link:
        proxy.delay(0.05, direction)
        begin = time.monotonic()
        link.sendall(b"abc")
        assert exactly(link, 3) == b"abc"
        assert time.monotonic() - begin >= 0.05 * times
        proxy.delay(3600)
        link.sendall(b"def")
        assert silent(link)
        proxy.heal()
        assert exactly(link, 3) == b"def"


def test_garbage_answers_instead_of_the_server(proxy: Proxy, echo: Echo) -> None:
    """The client gets the garbage, the server gets nothing."""
    with connect(proxy) as link:
        proxy.garbage(b"\0\xff?")
        link.sendall(b"question")
        assert exactly(link, 3) == b"\0\xff?"
        proxy.heal()
        link.sendall(b"again")
        assert exactly(link, 5) == b"again"
    assert echo.got == b"again"
    assert proxy.swallowed == 8


def test_server_that_is_down(echo: Echo) -> None:
    """Without a server behind it, a connection is reset."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Proxy("127.0.0.1", port) as proxy:
        with pytest.raises(ConnectionResetError), connect(proxy) as link:
            link.recv(1)
        proxy.target = ("127.0.0.1", echo.port)
        with connect(proxy) as link:
            link.sendall(b"a")
            assert exactly(link, 1) == b"a"


def test_reset_bites_after_a_fork(proxy: Proxy) -> None:
    """A forked child does not keep the connections open that the parent resets."""
    with connect(proxy) as link:
        link.sendall(b"a")
        exactly(link, 1)
        ready, write_ready = os.pipe()
        wait, release = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(release)
            os.write(write_ready, b"!")
            os.read(wait, 1)
            os._exit(0)
        try:
            os.read(ready, 1)
            proxy.reset()
            with pytest.raises(ConnectionResetError):
                link.recv(1)
        finally:
            for descriptor in (release, wait, ready, write_ready):
                os.close(descriptor)
            os.waitpid(child, 0)


def test_reports_misuse(proxy: Proxy) -> None:
    """A wrong direction and a proxy that is not running are said so."""
    with pytest.raises(ValueError, match="to_server"):
        proxy.black_hole("sideways")  # type: ignore[arg-type]
    with pytest.raises(TimeoutError, match="swallowed 0 bytes"):
        proxy.wait_swallowed(timeout=0.01)
    proxy.close()
    with pytest.raises(RuntimeError, match="not running"):
        proxy.cut()


def test_many_connections(proxy: Proxy) -> None:
    """Two hundred connections are served and all of them cut."""
    links = [connect(proxy) for _ in range(200)]
    try:
        for number, link in enumerate(links):
            link.sendall(number.to_bytes(2, "big"))
        for number, link in enumerate(links):
            assert exactly(link, 2) == number.to_bytes(2, "big")
        assert proxy.connections == 200
        proxy.cut()
        for link in links:
            with pytest.raises(ConnectionResetError):
                link.recv(1)
    finally:
        for link in links:
            link.close()

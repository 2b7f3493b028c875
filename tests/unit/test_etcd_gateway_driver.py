"""etcd over its HTTP gateway: what is particular to that wire, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tenure._model import Interest
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.etcd_gateway import EtcdGatewayDriver
from tenure.drivers.registry import find
from tenure.errors import (
    AuthenticationFailed,
    InvalidURL,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    TenureError,
    Unavailable,
)
from tenure.testing.proxy import Proxy
from tenure.testing.servers import EtcdGatewayServer, EtcdServer, free_port
from tenure.wires import _etcd_api as api
from tenure.wires import _etcd_json as messages

PASSWORD = "s3cret-word"


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    """One server for the tests that leave it as it was."""
    with EtcdGatewayServer() as server:
        yield server


class World:
    """The drivers of one test, in one flavour."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.namespace = runtime.unique()
        self.drivers: list[Any] = []

    async def driver(self, url: str, ttl: float = 9.0) -> tuple[Any, str]:
        """An open driver, and a session of it."""
        parsed = Url.parse(url)
        driver = find(parsed)(parsed, self.runtime, self.namespace, ttl)
        await driver.open()
        self.drivers.append(driver)
        return driver, await driver.start("owner", lambda reason: None)

    async def watch(self, driver: Any, roster: str) -> Any:
        """Watch a roster, from when the watch stands."""
        signal = self.runtime.signal()
        interest = Interest("", roster, self.runtime.unique(), None, watch=True)
        await driver.listen(interest, signal.set)
        assert await signal.wait(self.runtime.now() + 20), "woken once, when the watch stands"
        signal.clear()
        return signal

    async def woken(self, signal: Any) -> bool:
        """Whether it is set within a generous time."""
        result: bool = await signal.wait(self.runtime.now() + 20)
        return result

    async def close(self) -> None:
        for driver in self.drivers:
            await driver.close()


Play = Callable[[Callable[[World], Awaitable[None]]], None]


@pytest.fixture(params=["thread", "asyncio"])
def play(request: pytest.FixtureRequest) -> Play:
    """Runs a test's body in one flavour and in the other."""

    async def whole(runtime: Runtime, body: Callable[[World], Awaitable[None]]) -> None:
        world = World(runtime)
        try:
            await body(world)
        finally:
            await world.close()

    async def on_loop(body: Callable[[World], Awaitable[None]]) -> None:
        await whole(AsyncioRuntime(), body)

    def run(body: Callable[[World], Awaitable[None]]) -> None:
        if request.param == "thread":
            drive(whole(ThreadRuntime(), body))
        else:
            asyncio.run(on_loop(body))

    return run


def test_clients_over_http_and_grpc_exclude_each_other(server: EtcdServer, play: Play) -> None:
    """They see the same claims, in one order, and wake each other."""

    async def body(world: World) -> None:
        http, one = await world.driver(server.url)
        grpc, two = await world.driver(server.url.replace("etcd3+http", "etcd"))
        first = await http.claim(one, "name", "a", "", 1)
        assert (await grpc.claim(two, "name", "try", "", 1)).mine is None
        second = await grpc.claim(two, "name", "b", "", None)
        assert second.mine.token > first.mine.token
        signal = await world.watch(http, "group")
        await grpc.claim(two, "group", "c", "here", None)
        assert await world.woken(signal)
        assert await http.census("group") == await grpc.census("group")

    play(body)


def test_a_password_and_a_token_that_expires(play: Play) -> None:
    """A refused token is replaced without anybody noticing, for calls and for watches."""
    settings = {"auth-token-ttl": "1"}
    with EtcdGatewayServer(password=PASSWORD, settings=settings) as secured:

        async def body(world: World) -> None:
            driver, session = await world.driver(secured.url)
            wire = driver._connected()
            wire.http.authorize({**_leader(wire), "Authorization": "lost.1"})
            await driver.claim(session, "name", "id", "", 1)
            wire.http.authorize({**_leader(wire), "Authorization": "lost.1"})
            signal = await world.watch(driver, "group")
            await driver.claim(session, "group", "c", "here", None)
            assert await world.woken(signal)
            wrong = secured.url.replace(PASSWORD, "wr0ng-word")
            with pytest.raises(AuthenticationFailed) as caught:
                await world.driver(wrong)
            chain: BaseException | None = caught.value
            while chain is not None:
                assert "wr0ng-word" not in str(chain)
                chain = chain.__cause__ or chain.__context__
            assert PASSWORD not in repr(wire)

        play(body)


def _leader(wire: Any) -> dict[str, str]:
    """The headers that go with every request."""
    return dict(wire.http.settings.headers)


def test_credentials_may_come_before_their_need(server: EtcdServer, play: Play) -> None:
    """As with etcd's own client, a server without authentication ignores them."""

    async def body(world: World) -> None:
        driver, session = await world.driver(server.url.replace("://", f"://root:{PASSWORD}@"))
        assert (await driver.claim(session, "name", "id", "", 1)).mine is not None

    play(body)


def test_over_tls(play: Play) -> None:
    """The server is verified, calls and watches are carried."""
    with EtcdGatewayServer(mutual_tls=True) as secured:

        async def body(world: World) -> None:
            driver, session = await world.driver(secured.url)
            signal = await world.watch(driver, "group")
            await driver.claim(session, "group", "c", "here" * 10_000, None)
            assert await world.woken(signal)
            with pytest.raises(AuthenticationFailed, match="certificate"):
                await world.driver(f"etcd3+https://{secured.host}:{secured.port}")

        play(body)


def test_a_server_that_is_down_gives_way(server: EtcdServer, play: Play) -> None:
    """Calls and watches go to the next one of the URL."""

    async def body(world: World) -> None:
        down = f"127.0.0.1:{free_port()}"
        url = server.url.replace("://", f"://{down},")
        driver, session = await world.driver(url)
        signal = await world.watch(driver, "group")
        await driver.claim(session, "group", "c", "here", None)
        assert await world.woken(signal)
        with pytest.raises(Unavailable):
            await world.driver(f"etcd3+http://{down}")

    play(body)


def test_a_gateway_that_is_switched_off(play: Play) -> None:
    """The error says that there is none, at open."""
    with EtcdServer(settings={"enable-grpc-gateway": "false"}) as bare:

        async def body(world: World) -> None:
            with pytest.raises(TenureError, match=r"HTTP status 404|no gateway"):
                await world.driver(bare.url.replace("etcd", "etcd3+http", 1))

        play(body)


def test_of_many_watches_none_is_lost(server: EtcdServer, play: Play) -> None:
    """However many are asked for at once, each begins, and each is told what comes."""

    async def body(world: World) -> None:
        driver, session = await world.driver(server.url)
        for round in range(4):
            watcher, _ = await world.driver(server.url)
            signals = {}
            for number in range(40):
                roster = f"group {round} {number} {'x' * 5 * number}"
                signals[roster] = signal = world.runtime.signal()
                interest = Interest("", roster, world.runtime.unique(), None, watch=True)
                await watcher.listen(interest, signal.set)
            begun = [await world.woken(signal) for signal in signals.values()]
            assert all(begun), f"{begun.count(False)} of {len(begun)} watches did not begin"
            for roster, signal in signals.items():
                signal.clear()
                await driver.claim(session, roster, roster, "here", None)
                assert await world.woken(signal)

    play(body)


def test_a_request_for_watches_is_read_at_once() -> None:
    """Only what the gateway reads before it answers is sure to be read."""
    watches = [api.Watch(id, b"key" * id, b"", False) for id in range(1, 100)]
    bodies = list(messages.watch_bodies(watches))
    assert set[int]().union(*(ids for ids, _ in bodies)) == set(range(1, 100))
    assert sum(len(ids) for ids, _ in bodies) == 99
    assert all(len(body) <= 512 or len(ids) == 1 for ids, body in bodies)
    assert len(bodies[0][0]) > 2
    assert not list(messages.watch_bodies([]))


def test_a_stream_that_breaks_is_begun_again(server: EtcdServer, play: Play) -> None:
    """Whoever watched is woken, since something may have been missed, and hears what follows."""

    async def body(world: World) -> None:
        with Proxy(server.host, server.port) as proxy:
            watcher, _ = await world.driver(server.url_at(proxy.port))
            driver, session = await world.driver(server.url)
            signal = await world.watch(watcher, "group")
            proxy.reset()
            assert await world.woken(signal)
            signal.clear()
            await driver.claim(session, "group", "c", "here", None)
            assert await world.woken(signal)

    play(body)


def test_a_reply_that_never_comes(server: EtcdServer, play: Play) -> None:
    """The outcome is unknown; the same claim asked for again is one claim."""

    async def body(world: World) -> None:
        with Proxy(server.host, server.port) as proxy:
            driver, session = await world.driver(server.url_at(proxy.port), ttl=3.0)
            proxy.black_hole("to_client")
            with pytest.raises(OutcomeUnknown):
                await driver.claim(session, "lost", "id", "", 1)
            proxy.heal()
            assert (await driver.claim(session, "lost", "id", "", 1)).mine is not None
            assert len(await driver.census("lost")) == 1

    play(body)


def test_a_lease_that_was_revoked(server: EtcdServer, play: Play) -> None:
    """It is a lost session, for a renewal and for a claim."""

    async def body(world: World) -> None:
        driver, session = await world.driver(server.url)
        server.call("lease/revoke", {"ID": str(int(session, 16))})
        with pytest.raises(SessionLost):
            await driver.renew(session)
        with pytest.raises(SessionLost):
            await driver.claim(session, "name", "id", "", 1)
        assert await driver.last_seen(session) is None
        await driver.end(session)

    play(body)


@pytest.mark.parametrize(
    "url, says",
    [
        ("etcd3+http://h?ca=/x", "etcd3[+]https"),
        ("etcd3+https://h?cert=/x", "together"),
        ("etcd3+http://h/path", "no path"),
        ("etcd3+http://user@h", "password"),
        ("etcd3+http://h?timeout=3", "unknown option"),
    ],
)
def test_urls_that_cannot_work(url: str, says: str) -> None:
    """What is wrong is named before anything is connected."""
    with pytest.raises(InvalidURL, match=says):
        EtcdGatewayDriver(Url.parse(url), ThreadRuntime(), "n", 9)


@pytest.mark.parametrize(
    "status, body, kind",
    [
        (400, b'{"error":"etcdserver: invalid auth token","code":16}', AuthenticationFailed),
        (404, b'{"message":"etcdserver: requested lease not found","code":5}', SessionLost),
        (503, b'{"message":"etcdserver: no leader","code":14}', Unavailable),
        (503, b'{"message":"etcdserver: request timed out","code":14}', OutcomeUnknown),
        (429, b'{"message":"etcdserver: mvcc: database space exceeded","code":8}', StorageError),
        (200, b'{"error":{"grpc_code":5,"message":"requested lease not found"}}\n', SessionLost),
        (502, b"<html>Bad Gateway</html>", OutcomeUnknown),
        (404, b"404 page not found", ProtocolError),
        (400, b'{"message":"duplicate key given in txn request","code":3}', ProtocolError),
    ],
)
def test_refusals(status: int, body: bytes, kind: type[Exception]) -> None:
    """The same errors as over gRPC, from the number and the text in a reply."""
    error, _ = messages.refused(status, body, "etcd at h:1")
    assert type(error) is kind
    assert "etcd at h:1" in str(error)


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b'{"result":{"watch_id":"x"}}'])
def test_what_is_no_message_of_etcds(line: bytes) -> None:
    """It raises `ProtocolError`, and is taken for nothing."""
    with pytest.raises(ProtocolError):
        messages.news(line, "etcd")


def test_messages_are_etcds_own() -> None:
    """Bytes in base64, 64-bit numbers as text, the names of rpc.proto."""
    request = messages.txn_request(
        [api.Created(b"a", b"b", 7), api.Unchanged(b"k", 1 << 62)],
        [api.Put(b"k", b"\xff\0", 5), api.Get(b"a", b"b", 2, "newest", 9, True)],
        [api.Delete(b"k")],
    )
    assert request == {
        "compare": [
            {
                "key": "YQ==",
                "range_end": "Yg==",
                "result": "LESS",
                "target": "CREATE",
                "create_revision": "8",
            },
            {
                "key": "aw==",
                "result": "EQUAL",
                "target": "MOD",
                "mod_revision": "4611686018427387904",
            },
        ],
        "success": [
            {"request_put": {"key": "aw==", "value": "/wA=", "lease": "5"}},
            {
                "request_range": {
                    "key": "YQ==",
                    "range_end": "Yg==",
                    "limit": "2",
                    "sort_order": "DESCEND",
                    "sort_target": "CREATE",
                    "keys_only": True,
                    "max_create_revision": "9",
                }
            },
        ],
        "failure": [{"request_delete_range": {"key": "aw=="}}],
    }

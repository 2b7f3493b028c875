"""The etcd driver on a real server: fences, watches, tokens that expire, forks."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from tenure._model import Interest, Roll
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers._etcd_url import settings
from tenure.drivers.etcd import EtcdDriver
from tenure.errors import (
    AuthenticationFailed,
    InvalidURL,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    Unavailable,
)
from tenure.testing.servers import EtcdServer, free_port
from tenure.wires import _etcd_api as api
from tenure.wires import _etcd_proto as proto

PASSWORD = "s3cret-word"


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    """One server for the tests that leave it as it was."""
    with EtcdServer() as server:
        yield server


class Client:
    """A driver with a session."""

    def __init__(self, runtime: Runtime, url: str, namespace: str, ttl: float) -> None:
        self.runtime = runtime
        self.driver = EtcdDriver(Url.parse(url), runtime, namespace, ttl)
        self.session = ""

    async def start(self) -> Client:
        await self.driver.open()
        self.session = await self.driver.start("owner", lambda _: None)
        return self

    async def claim(self, roster: str, id: str, width: int | None = None, body: str = "") -> Roll:
        return await self.driver.claim(self.session, roster, id, body, width)

    async def read(self, roster: str, id: str) -> Roll:
        return await self.driver.read(self.session, roster, id)

    async def withdraw(self, roster: str, id: str) -> None:
        await self.driver.withdraw(self.session, roster, id)

    async def listen(self, roster: str, id: str, before: str | None) -> tuple[Interest, Any]:
        signal = self.runtime.signal()
        interest = Interest(self.session, roster, id, before)
        await self.driver.listen(interest, signal.set)
        return interest, signal

    async def close(self) -> None:
        if self.session:
            await self.driver.end(self.session)
        await self.driver.close()


class World:
    """The clients of one test, in one flavour."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.namespace = runtime.unique()
        self.clients: list[Client] = []

    async def client(self, url: str, ttl: float = 9.0) -> Client:
        client = Client(self.runtime, url, self.namespace, ttl)
        self.clients.append(client)
        return await client.start()

    async def woken(self, signal: Any, seconds: float = 5.0) -> bool:
        result: bool = await signal.wait(self.runtime.now() + seconds)
        return result

    async def until(
        self, ask: Callable[[], Awaitable[bool]], seconds: float = 10.0, every: float = 0.02
    ) -> None:
        give_up = self.runtime.now() + seconds
        while not await ask():
            assert self.runtime.now() < give_up, "waited in vain"
            await self.runtime.sleep(self.runtime.now() + every)

    async def close(self) -> None:
        for client in self.clients:
            await client.close()


Body = Callable[[World], Awaitable[None]]


@pytest.fixture(params=["thread", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Body], None]:
    """Run a test's body in one flavour, and close its clients."""

    async def whole(body: Body, runtime: Runtime) -> None:
        world = World(runtime)
        try:
            await body(world)
        finally:
            await world.close()

    def run(body: Body) -> None:
        if request.param == "thread":
            drive(whole(body, ThreadRuntime()))
            return

        async def on_a_loop() -> None:
            await asyncio.wait_for(whole(body, AsyncioRuntime()), 60)

        asyncio.run(on_a_loop())

    return run


# -- the roster ------------------------------------------------------------


def test_claims_come_in_order(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """Rank, predecessor and token follow the order of claims, in `claim` and in `read`."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        b = await world.client(server.url)
        first = await a.claim("r", "one", body="hello")
        second = await b.claim("r", "two")
        third = await a.claim("r", "three")
        assert first.mine is not None
        assert (first.rank, first.before, first.mine.owner) == (0, None, "owner")
        assert (second.rank, second.before) == (1, "one")
        assert (third.rank, third.before) == (2, "two")
        assert third.claims[0] == first.mine
        assert third.mine is not None
        assert third.mine.token > first.mine.token
        assert await a.read("r", "three") == third
        assert (await b.read("r", "three")).mine == third.mine
        assert await a.claim("r", "three") == third
        await b.withdraw("r", "two")
        await b.withdraw("r", "two")
        assert (await a.read("r", "three")).before == "one"
        assert (await a.read("r", "two")).mine is None

    run(body)


def test_a_conditional_claim_counts(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """With a width, so many get in and the next one writes nothing."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        for width, roster in ((1, "x"), (3, "y")):
            for each in range(width):
                roll = await a.claim(roster, f"{roster}{each}", width)
                assert roll.mine is not None
                assert roll.rank == each
            refused = await a.claim(roster, f"{roster}-late", width)
            assert (refused.mine, refused.rank) == (None, width)
            assert refused.claims[0].id == f"{roster}0"
            assert (await a.claim(roster, f"{roster}0", width)).mine is not None
            assert (await a.read(roster, f"{roster}-late")).mine is None

    run(body)


def test_names_stay_apart(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """No name reaches into another's roster, whatever characters are in it."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        names = ["a", "ab", "a/b", "a%2Fb", "/", "ü", "a0", "a\x7f"]
        for name in names:
            assert (await a.claim(name, f"id{name}", 1)).mine is not None, name
        assert list(await a.driver.rosters("")) == sorted(names)
        assert list(await a.driver.rosters("a/")) == ["a/b"]

    run(body)


def test_amend_compares(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A body is replaced if it is the one given; the token stays, a repetition is no error."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        mine = (await a.claim("r", "one", body="old")).mine
        assert mine is not None
        changed = await a.driver.amend(mine, "new")
        assert (changed.body, changed.token) == ("new", mine.token)
        assert await a.driver.amend(mine, "new") == changed
        with pytest.raises(SessionLost):
            await a.driver.amend(mine, "other")
        assert (await a.read("r", "one")).mine == changed

    run(body)


def test_a_dead_session_is_refused(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """Where the lease is gone, claim, conditional claim and renewal say so."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        b = await world.client(server.url)
        await b.claim("taken", "theirs")
        await b.driver.end(a.session)
        for roster, width in (("free", None), ("free", 1), ("taken", 1), ("taken", None)):
            with pytest.raises(SessionLost):
                await a.claim(roster, "mine", width)
        with pytest.raises(SessionLost):
            await a.driver.renew(a.session)
        assert (await b.read("free", "mine")).claims == ()

    run(body)


def test_a_late_claim_comes_to_nothing(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A claim that arrives after its withdrawal enters nothing, and the session goes on."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        wire = a.driver._connected()
        txn = wire.txn
        held: list[Any] = []

        async def keep(*request: Sequence[Any]) -> api.Outcome:
            held.append(request)
            raise OutcomeUnknown("no answer")

        wire.txn = keep  # type: ignore[method-assign, assignment]
        for width in (None, 1):
            with pytest.raises(OutcomeUnknown):
                await a.claim("r", "late", width)
        wire.txn = txn  # type: ignore[method-assign]
        other = await a.claim("s", "in-time")
        await a.withdraw("r", "late")
        for request in held:
            assert not (await txn(*request)).succeeded
        assert (await a.read("r", "late")).claims == ()
        assert (await a.read("s", "in-time")).mine == other.mine
        assert (await a.claim("r", "next", 1)).mine is not None

    run(body)


def test_a_lost_grant_is_asked_for_again(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """When the answer to the grant of a lease is lost, the next start takes that same lease."""

    async def body(world: World) -> None:
        client = Client(world.runtime, server.url, world.namespace, 9.0)
        world.clients.append(client)
        await client.driver.open()
        wire = client.driver._connected()
        grant = wire.lease_grant
        granted: list[int] = []

        async def lose(lease: int, ttl: int) -> bool:
            await grant(lease, ttl)
            granted.append(lease)
            raise OutcomeUnknown("no answer")

        wire.lease_grant = lose  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await client.driver.start("owner", lambda _: None)
        wire.lease_grant = grant  # type: ignore[method-assign]
        client.session = await client.driver.start("owner", lambda _: None)
        assert granted == [int(client.session, 16)]
        assert (await client.claim("r", "one")).mine is not None

    run(body)


def test_keys_are_used_again(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A thousand claims leave no thousand names in etcd, which goes through all it ever had."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        keys = set()
        tokens = []
        for number in range(50):
            id, width = f"id{number}", 1 if number % 2 else None
            roll = await a.claim("r", id, width)
            assert roll.mine is not None
            tokens.append(roll.mine.token)
            place = a.driver._places.get(id)
            assert place is not None
            keys.add(place.key)
            await a.withdraw("r", id)
        assert len(keys) == 1
        assert tokens == sorted(set(tokens))
        assert not a.driver._places._slots

    run(body)


def test_a_lost_withdrawal_spoils_its_key(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A withdrawal that arrives late removes its own claim only, not the next one's."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        await a.claim("r", "one")
        wire = a.driver._connected()
        delete = wire.delete
        held: list[bytes] = []

        async def keep(key: bytes) -> None:
            held.append(key)
            raise OutcomeUnknown("no answer")

        wire.delete = keep  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown):
            await a.withdraw("r", "one")
        wire.delete = delete  # type: ignore[method-assign]
        await a.withdraw("r", "one")
        next_one = await a.claim("r", "two")
        await delete(held[0])
        assert (await a.read("r", "two")).mine == next_one.mine

    run(body)


# -- wake-ups --------------------------------------------------------------


def test_the_predecessor_wakes(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """A waiter is woken when the claim before it goes, not for others, nor after unlisten."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        b = await world.client(server.url)
        for id in ("one", "two", "three"):
            await a.claim("r", id)
        await b.claim("r", "four")
        _, of_three = await b.listen("r", "four", "three")
        gone, of_two = await b.listen("r", "four", "two")
        _, of_all = await b.listen("r", "four", None)
        b.driver.unlisten(gone)
        await a.withdraw("r", "two")
        assert await world.woken(of_all)
        await a.withdraw("r", "three")
        assert await world.woken(of_three)
        assert not of_two.is_set()

    run(body)


def test_a_change_before_the_watch_is_seen(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """What happened between the read and the watch wakes, also if it was compacted away."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        b = await world.client(server.url)
        for compact in (False, True):
            await a.claim("r", "one")
            roll = await b.claim("r", "two")
            assert roll.mine is not None
            await a.withdraw("r", "one")
            if compact:
                await a.claim("s", "more")
                last = (await a.read("s", "more")).mine
                assert last is not None
                request = {"revision": str(last.token)}
                await world.runtime.blocking(partial(server.call, "kv/compaction", request))
            _, signal = await b.listen("r", "two", "one")
            assert await world.woken(signal)
            await b.withdraw("r", "two")

    run(body)


def test_watches_outlive_a_restart(run: Callable[[Body], None]) -> None:
    """After a restart of the server claims still stand, and a waiter is woken by a release."""
    with EtcdServer() as server:

        async def body(world: World) -> None:
            a = await world.client(server.url, ttl=20)
            b = await world.client(server.url, ttl=20)
            first = await a.claim("r", "one")
            await b.claim("r", "two")
            _, signal = await b.listen("r", "two", "one")
            await world.runtime.blocking(lambda: server.restart(graceful=False))
            assert await world.woken(signal, 20), "woken once, to look for itself"
            signal.clear()

            async def read() -> bool:
                try:
                    return (await b.read("r", "two")).claims[0] == first.mine
                except Unavailable:
                    return False

            await world.until(read)
            await a.driver.renew(a.session)
            await a.withdraw("r", "one")
            assert await world.woken(signal)

        run(body)


# -- authentication, endpoints, TLS ----------------------------------------


def test_an_expired_token_is_renewed(run: Callable[[Body], None]) -> None:
    """Tokens that expire, or die with a restart, break neither calls nor watches."""
    with EtcdServer(user="app", password=PASSWORD, settings={"auth-token-ttl": "1"}) as server:

        async def body(world: World) -> None:
            a = await world.client(server.url, ttl=20)
            b = await world.client(server.url, ttl=20)
            await a.claim("r", "one")
            await b.claim("r", "two")
            expired = b.driver._connected()._metadata  # type: ignore[attr-defined]

            async def refused() -> bool:
                probe = Client(world.runtime, server.url, world.namespace, 20)
                await probe.driver.open()
                wire: Any = probe.driver._connected()
                wire._metadata = expired
                wire._settings = wire._settings._replace(credentials=None)
                try:
                    await wire.get(api.Get(b"/tenure/"))
                except AuthenticationFailed:
                    return True
                finally:
                    await probe.driver.close()
                return False

            # Each use prolongs a token's life, so ask less often than its time.
            await world.until(refused, 30, every=2.2)
            _, signal = await b.listen("r", "two", "one")
            await a.driver.renew(a.session)
            await a.withdraw("r", "one")
            assert await world.woken(signal, 10)
            await world.runtime.blocking(lambda: server.restart(graceful=False))

            async def read() -> bool:
                try:
                    return (await b.read("r", "two")).rank == 0
                except Unavailable:
                    return False

            await world.until(read)

        run(body)


def test_wrong_credentials_are_refused(run: Callable[[Body], None]) -> None:
    """A wrong password, a missing one and a missing right fail at once, and quote no secret."""
    with EtcdServer(password=PASSWORD) as server:

        async def body(world: World) -> None:
            for userinfo in ("root:wrong-word@", "nobody:wrong-word@", ""):
                url = f"etcd://{userinfo}{server.host}:{server.port}"
                with pytest.raises(AuthenticationFailed) as caught:
                    await world.client(url)
                assert "wrong-word" not in str(caught.value)
                assert "wrong-word" not in repr(settings(Url.parse(url), 1.0))

        run(body)


def test_a_live_endpoint_is_found(server: EtcdServer, run: Callable[[Body], None]) -> None:
    """Where the first endpoint is down, the next one serves; where all are, it is `Unavailable`."""

    async def body(world: World) -> None:
        dead, dead_too = free_port(), free_port()
        a = await world.client(f"etcd://127.0.0.1:{dead},127.0.0.1:{server.port}")
        assert (await a.claim("r", "one")).mine is not None
        with pytest.raises(Unavailable) as caught:
            await world.client(f"etcd://127.0.0.1:{dead},127.0.0.1:{dead_too}")
        assert not isinstance(caught.value, OutcomeUnknown)

    run(body)


def test_a_paused_server_is_an_unknown_outcome(run: Callable[[Body], None]) -> None:
    """No answer within the patience is `OutcomeUnknown`; afterwards the driver works again."""
    with EtcdServer() as server:

        async def body(world: World) -> None:
            a = await world.client(server.url, ttl=2.0)
            await world.runtime.blocking(server.pause)
            began = world.runtime.now()
            with pytest.raises(OutcomeUnknown):
                await a.claim("r", "one")
            assert world.runtime.now() - began < 2 * a.driver.patience + 0.5
            await world.runtime.blocking(server.resume)
            a.session = await a.driver.start("owner", lambda _: None)
            assert (await a.claim("r", "two")).mine is not None

        run(body)


def test_tls(run: Callable[[Body], None]) -> None:
    """Certificates are checked both ways; without the authority the reason is plain."""
    with EtcdServer(mutual_tls=True) as server:

        async def body(world: World) -> None:
            a = await world.client(server.url)
            assert (await a.claim("r", "one")).mine is not None
            with pytest.raises(AuthenticationFailed, match="'ca'"):
                await world.client(f"etcds://{server.host}:{server.port}")

        run(body)


@pytest.mark.parametrize(
    "url, says",
    [
        ("etcd://h?ca=/x", "etcds"),
        ("etcds://h?cert=/x", "together"),
        ("etcd://h/path", "path"),
        ("etcd://user@h", "together"),
        ("etcd://h?colour=red", "colour"),
    ],
)
def test_a_wrong_url_is_refused(url: str, says: str) -> None:
    """An option that cannot work is refused before anything is connected."""
    with pytest.raises(InvalidURL, match=says):
        EtcdDriver(Url.parse(url), ThreadRuntime(), "n", 9)


def test_a_missing_certificate_is_named() -> None:
    """A file that cannot be read is an `InvalidURL` that names the option."""
    driver = EtcdDriver(Url.parse("etcds://h?ca=/nowhere/ca"), ThreadRuntime(), "n", 9)
    with pytest.raises(InvalidURL, match="'ca'"):
        drive(driver.open())


@pytest.mark.parametrize(
    "code, text, kind",
    [
        (14, "failed to connect to all addresses; last error: x", Unavailable),
        (14, "etcdserver: no leader", Unavailable),
        (8, "etcdserver: too many requests", Unavailable),
        (14, "Socket closed", OutcomeUnknown),
        (14, "etcdserver: request timed out", OutcomeUnknown),
        (4, "Deadline Exceeded", OutcomeUnknown),
        (1, "Channel closed!", OutcomeUnknown),
        (16, "etcdserver: invalid auth token", AuthenticationFailed),
        (3, "etcdserver: user name is empty", AuthenticationFailed),
        (3, "etcdserver: revision of auth store is old", AuthenticationFailed),
        (7, "etcdserver: permission denied", AuthenticationFailed),
        (8, "etcdserver: mvcc: database space exceeded", StorageError),
        (5, "etcdserver: requested lease not found", SessionLost),
        (3, "etcdserver: duplicate key given in txn request", ProtocolError),
    ],
)
def test_refusals(code: int, text: str, kind: type[Exception]) -> None:
    """Each status becomes the error that tells whether the request may have been carried out."""
    assert type(api.refusal(code, text, "here")) is kind


# -- the codec -------------------------------------------------------------


def test_a_broken_reply_is_a_protocol_error() -> None:
    """Every reply that was cut short, or holds nonsense, is refused or read; nothing else."""
    reply = bytes.fromhex("0a041803200510011a0612040a021803")
    assert proto.txn_reply(reply).succeeded
    for end in range(len(reply)):
        with suppress(ProtocolError):
            proto.txn_reply(reply[:end])
    for nonsense in (b"\x0b", b"\xff" * 12, b"\x0a\xff\xff\xff\xff\x0f", b"\x0d\x01"):
        with pytest.raises(ProtocolError):
            proto.txn_reply(nonsense)


def test_large_numbers_survive() -> None:
    """Lease numbers use all 63 bits, and a negative TTL is read as one."""
    lease = (1 << 63) - 1
    request = proto.lease_grant_request(lease, 30)
    assert proto.lease_keepalive_reply(request[:2] + b"\x18" + request[3:]) == lease
    assert proto.lease_keepalive_reply(b"\x18" + b"\xff" * 9 + b"\x01") == -1


# -- fork ------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("ending", ["_exit", "process"])
def test_a_forked_child_leaves_the_parent_alone(server: EtcdServer, ending: str) -> None:
    """A child abandons the driver, connects anew and ends; the parent's claim and watch live on."""
    runtime = ThreadRuntime()
    namespace = runtime.unique()
    parent = drive(Client(runtime, server.url, namespace, 9).start())
    drive(parent.claim("r", "one"))
    drive(parent.claim("r", "two"))
    _, signal = drive(parent.listen("r", "two", "one"))

    def child() -> None:
        parent.driver.abandon()
        own = drive(Client(runtime, server.url, namespace, 9).start())
        taken = drive(own.claim("r", "three", 1))
        assert taken.mine is None
        drive(own.close())

    if ending == "process":
        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        process.join(30)
        assert process.exitcode == 0
        process.close()
    else:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                child()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    drive(parent.driver.renew(parent.session))
    drive(parent.withdraw("r", "one"))
    assert drive(signal.wait(runtime.now() + 5))
    assert drive(parent.read("r", "two")).rank == 0
    drive(parent.close())

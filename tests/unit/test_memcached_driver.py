"""The memcached driver on a real server: what is lost is known as lost, and never granted twice."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from tenure._model import Roll
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers._memcached_index import Index
from tenure.drivers._memcached_items import Key, Keys, check_size, pack, unpack
from tenure.drivers._memcached_sessions import lifetime
from tenure.drivers.memcached import MemcachedDriver
from tenure.errors import (
    AuthenticationFailed,
    BackendError,
    InvalidArgument,
    InvalidURL,
    OutcomeUnknown,
    ProtocolError,
    SessionLost,
    StorageError,
    Unavailable,
    Unsupported,
)
from tenure.testing.proxy import Proxy
from tenure.testing.servers import MemcachedServer
from tenure.wires._memcached import Parser, Reply, translate

TTL = 1.0
OPTIONS = {"ttl_max": "1"}
EMBARGO_SECONDS_MAX = 20.0
"""More than an embargo takes on a busy machine."""

Body = Callable[["Bench"], Awaitable[None]]


@pytest.fixture(scope="module")
def server() -> Iterator[MemcachedServer]:
    """One server for the tests that lose nothing, old enough for its statistics to count."""
    with MemcachedServer(options=OPTIONS) as server:
        settle(server)
        yield server


@pytest.fixture
def own() -> Iterator[MemcachedServer]:
    """A server to break."""
    with MemcachedServer(options=OPTIONS) as server:
        settle(server)
        yield server


@pytest.fixture(params=["thread", "asyncio"])
def flavour(request: pytest.FixtureRequest) -> str:
    """Both wires."""
    return str(request.param)


def settle(server: MemcachedServer) -> None:
    """Wait until the server is old enough to prove that nothing was lost."""
    give_up = time.monotonic() + 30
    while int(server.stats()["uptime"]) < 6:
        assert time.monotonic() < give_up, "the server's clock stands still"
        time.sleep(0.05)


class Bench:
    """Drivers of one namespace, closed at the end."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.namespace = runtime.unique()
        self.drivers: list[MemcachedDriver] = []

    async def open(self, url: str, *, ttl: float = TTL, namespace: str = "") -> MemcachedDriver:
        """Another client."""
        driver = MemcachedDriver(Url.parse(url), self.runtime, namespace or self.namespace, ttl)
        self.drivers.append(driver)
        await driver.open()
        return driver

    def key(self, kind: str, name: str) -> bytes:
        """The key of an item."""
        return Keys(self.namespace).of(kind, name).key

    def shard(self, server: MemcachedServer, driver: MemcachedDriver, name: str) -> bytes:
        """The key of the shard that lists a name."""
        return self.key("i", str(driver._index.number(name)))

    def lose(self, server: MemcachedServer, key: bytes) -> None:
        """Have the server drop an item, which to its clients looks like an eviction."""
        assert server.request(b"md " + key) == [b"HD"], f"{key!r} was not there"

    async def granted(self, driver: MemcachedDriver, session: str, id: str, name: str) -> Roll:
        """Wait, renewing the session, until the claim is first; the roll."""
        give_up = self.runtime.now() + EMBARGO_SECONDS_MAX
        while True:
            await driver.renew(session)
            roll = await driver.read(session, name, id)
            if roll.mine is not None and roll.rank < 1:
                return roll
            assert self.runtime.now() < give_up, f"never granted: {roll}"
            await self.runtime.sleep(self.runtime.now() + 0.02)


@contextlib.asynccontextmanager
async def bench(runtime: Runtime) -> AsyncIterator[Bench]:
    each = Bench(runtime)
    try:
        yield each
    finally:
        for driver in each.drivers:
            await driver.close()


def run(flavour: str, body: Body) -> None:
    """Run a test's body on the runtime of that flavour."""

    async def whole() -> None:
        runtime: Runtime = AsyncioRuntime() if flavour == "asyncio" else ThreadRuntime()
        async with bench(runtime) as each:
            await body(each)

    if flavour == "asyncio":
        asyncio.run(whole())
    else:
        drive(whole())


def ignore(reason: str) -> None:
    """A driver's `lost`."""


async def held(each: Bench, server: MemcachedServer, name: str) -> tuple[Any, str, int]:
    """A client that holds a lock: its driver, session and token."""
    driver = await each.open(server.url)
    session = await driver.start("holder", ignore)
    await driver.claim(session, name, f"{session}.1", "", None)
    roll = await each.granted(driver, session, f"{session}.1", name)
    assert roll.mine is not None
    return driver, session, roll.mine.token


async def taken_over(each: Bench, server: MemcachedServer, name: str, old: int) -> None:
    """Another client is not granted the lock at once, and then is, with a greater token."""
    driver = await each.open(server.url)
    session = await driver.start("next", ignore)
    began = each.runtime.now()
    roll = await driver.claim(session, name, f"{session}.1", "", 1)
    assert roll.mine is None, "granted while the holder may still believe in its lease"
    roll = await driver.claim(session, name, f"{session}.2", "", None)
    assert roll.rank > 0
    roll = await each.granted(driver, session, f"{session}.2", name)
    assert each.runtime.now() - began >= TTL * 0.9
    assert roll.mine is not None
    assert roll.mine.token > old


# -- what is lost --------------------------------------------------------------------


def test_a_lost_roster_is_no_free_lock(server: MemcachedServer, flavour: str) -> None:
    """When a roster is evicted, its holder hears of it, and nobody else is granted for a TTL."""

    async def body(each: Bench) -> None:
        a, session, token = await held(each, server, "name")
        each.lose(server, each.key("r", "name"))
        await taken_over(each, server, "name", token)
        with pytest.raises(SessionLost, match=r"roster 'name' was lost"):
            await a.renew(session)

    run(flavour, body)


def test_a_lost_session_is_no_dead_session(server: MemcachedServer, flavour: str) -> None:
    """When a session is evicted, its owner hears of it, and its claims stand for a TTL."""

    async def body(each: Bench) -> None:
        a, session, token = await held(each, server, "name")
        each.lose(server, each.key("s", session))
        await taken_over(each, server, "name", token)
        with pytest.raises(SessionLost):
            await a.renew(session)

    run(flavour, body)


def test_a_lost_index_is_made_again(server: MemcachedServer, flavour: str) -> None:
    """When a shard of the index is evicted, the next renewal lists what is held again: so a
    roster that is lost after that is known as lost."""

    async def body(each: Bench) -> None:
        a, session, token = await held(each, server, "name")
        each.lose(server, each.shard(server, a, "name"))
        await a.renew(session)
        # The server has never evicted anything, so the embargo of the new shard does not count:
        # that the name is listed is all that tells.
        each.lose(server, each.key("r", "name"))
        await taken_over(each, server, "name", token)
        with pytest.raises(SessionLost):
            await a.renew(session)

    run(flavour, body)


def test_an_unlisted_roster_is_listed_by_who_claims(server: MemcachedServer, flavour: str) -> None:
    """Who enters an old roster whose place in the index was lost lists it before it is granted."""

    async def body(each: Bench) -> None:
        a, session, _ = await held(each, server, "name")
        await a.withdraw(session, "name", f"{session}.1")
        each.lose(server, each.shard(server, a, "name"))
        roll = await a.claim(session, "name", f"{session}.2", "", 1)
        assert roll.mine is not None
        each.lose(server, each.key("r", "name"))
        await taken_over(each, server, "name", roll.mine.token)

    run(flavour, body)


def test_all_is_lost_in_a_flush(own: MemcachedServer, flavour: str) -> None:
    """After flush_all every lease is lost, and none is granted anew for a TTL."""

    async def body(each: Bench) -> None:
        a, session, token = await held(each, own, "name")
        assert own.request(b"flush_all") == [b"OK"]
        await taken_over(each, own, "name", token)
        with pytest.raises(SessionLost):
            await a.renew(session)
        findings = {each.subject: each for each in await a.examine()}
        assert findings["cmd_flush = 1"].severity == "warning"

    run(flavour, body)


def test_all_is_lost_in_a_restart(own: MemcachedServer, flavour: str) -> None:
    """After a restart the same; and what was read before is never compared with what is there."""

    async def body(each: Bench) -> None:
        a, session, token = await held(each, own, "name")
        old = await a.record("record", "one", None)
        own.restart(graceful=False)
        b = await each.open(own.url)
        # Numbers begin anew: sooner or later the same one is given out again.
        for number in range(4 * old.cas):
            new = await b.record(f"other {number}", "x", None)
            if new.cas >= old.cas - 2:
                break
        while (new := await b.record("record", "two", None)) is not None and new.cas < old.cas:
            await b.record("record", None, new)
        if new is None:
            new = (await b.recall("record") or pytest.fail("no record")).version
        stale = old._replace(cas=new.cas)
        with contextlib.suppress(BackendError):  # the connection from before
            assert await a.record("record", "stale", stale) is None
        assert await a.record("record", "stale", stale) is None
        found = await b.recall("record")
        assert found is not None
        assert found.text == "two"
        await taken_over(each, own, "name", token)
        with pytest.raises(SessionLost):
            await a.renew(session)

    run(flavour, body)


def test_real_evictions_lose_the_lease(flavour: str) -> None:
    """A server that runs out of memory drops the items; the holder is told at its renewal."""

    async def body(each: Bench) -> None:
        with MemcachedServer(settings={"m": "2"}, options=OPTIONS) as server:
            a, session, token = await held(each, server, "name")
            # Items of the same size push ours out, since nobody asks for it meanwhile. ("me"
            # looks at an item without counting as a use of it.)
            key = each.key("r", "name")
            size = len(pack(Key(key), (await a.load("roster", "name"))[0]))
            head = b"junk".ljust(len(key) - 6, b"-")
            for batch in range(500):
                keys = [b"%b%06d" % (head, batch * 200 + number) for number in range(200)]
                stored = [b"ms %b %d T600 q\r\n%b" % (each, size, b"x" * size) for each in keys]
                # Used twice, they are worth more to the server than ours is.
                server.request(*stored, *(b"mg " + each for each in keys * 2))
                if server.request(b"me " + key) == [b"EN"]:
                    break
            else:
                raise AssertionError("nothing of ours was evicted")
            assert int(server.stats()["evictions"]) > 0
            with pytest.raises(SessionLost):
                await a.renew(session)
            await taken_over(each, server, "name", token)
            subjects = [each.subject.partition(" ")[0] for each in await a.examine()]
            assert subjects[0] == "evictions"
            assert "limit_maxbytes" in subjects

    run(flavour, body)


def test_a_restarted_server_grants_nothing_yet(flavour: str) -> None:
    """A server that was just started may have forgotten leases: the first grant waits."""

    async def body(each: Bench) -> None:
        with MemcachedServer(options=OPTIONS) as server:
            a = await each.open(server.url)
            assert any(each.subject.startswith("uptime") for each in await a.examine())
            await taken_over(each, server, "name", 0)

    run(flavour, body)


# -- sessions --------------------------------------------------------------------------


def test_who_comes_late_sees_a_death(server: MemcachedServer, flavour: str) -> None:
    """Somebody who never saw the holder alive need not wait for a TTL of its own."""

    async def body(each: Bench) -> None:
        _, session, token = await held(each, server, "name")
        left = lifetime(session)
        key = each.key("s", session)
        give_up = each.runtime.now() + 20
        while int(server.request(b"mg %b t" % key)[0][4:]) > left - TTL - 2:
            assert each.runtime.now() < give_up
            await each.runtime.sleep(each.runtime.now() + 0.05)
        b = await each.open(server.url)
        later = await b.start("late", ignore)
        roll = await b.claim(later, "name", f"{later}.1", "", 1)
        assert roll.mine is not None
        assert roll.mine.token > token
        assert await b.last_seen(session) is None

    run(flavour, body)


def test_a_renewal_without_an_answer_is_found_out(server: MemcachedServer, flavour: str) -> None:
    """When the reply to a renewal is lost, the next one succeeds; so it does when it never came."""

    async def body(each: Bench) -> None:
        with Proxy(server.host, server.port) as proxy:
            a = await each.open(server.url_at(proxy.port))
            session = await a.start("a", ignore)
            proxy.black_hole("to_client", drop=True)
            with pytest.raises(OutcomeUnknown):
                await a.renew(session)
            assert proxy.swallowed > 0
            proxy.heal()
            await a.renew(session)
            proxy.cut()
            with pytest.raises(Unavailable):
                await a.renew(session)
            proxy.heal()
            await a.renew(session)
            await a.end(session)
            with pytest.raises(SessionLost):
                await a.renew(session)

    run(flavour, body)


def test_a_claim_whose_reply_was_lost_is_verified(server: MemcachedServer, flavour: str) -> None:
    """A claim that is found again after a lost reply is watched over like any other."""

    async def body(each: Bench) -> None:
        with Proxy(server.host, server.port) as proxy:
            a = await each.open(server.url_at(proxy.port))
            session = await a.start("a", ignore)
            await a.claim(session, "name", "first", "", 1)
            await a.withdraw(session, "name", "first")
            proxy.black_hole("to_client", drop=True)
            with pytest.raises(OutcomeUnknown):
                await a.claim(session, "name", "second", "", 1)
            assert proxy.swallowed > 0
            proxy.heal()
            await a.renew(session)
            roll = await a.claim(session, "name", "second", "", 1)
            assert roll.mine is not None
            assert roll.rank == 0
            await a.renew(session)
            each.lose(server, each.key("r", "name"))
            with pytest.raises(SessionLost):
                await a.renew(session)

    run(flavour, body)


def test_no_session_is_kept_until_a_date(server: MemcachedServer, flavour: str) -> None:
    """The longest TTL is no time in the past for a server that takes 30 days for a date."""

    async def body(each: Bench) -> None:
        day = 86_400.0
        url = server.url.replace("ttl_max=1", "ttl_max=86400")
        a = await each.open(url, ttl=day)
        session = await a.start("a", ignore)
        await a.renew(session)
        left = int(server.request(b"mg %b t" % each.key("s", session))[0][4:])
        assert day < left <= 30 * day
        assert await a.last_seen(session) is not None

    run(flavour, body)


# -- names and sizes -------------------------------------------------------------------

HOSTILE = (
    *("with blank", "new\r\nline", "tab\t", "null\0", "ünïcödé", "%20", "a:b", "#" * 70, "x" * 300),
    *("€" * 255, "/", "..", "ms a 2\r\nhi", "\x7f"),
)


def test_any_name_will_do(server: MemcachedServer, flavour: str) -> None:
    """Names with blanks, line ends or letters beyond ASCII, and long ones, are kept apart."""

    async def body(each: Bench) -> None:
        a = await each.open(server.url, namespace="a b\r\n" + "ä" * 200 + each.namespace)
        session = await a.start("a", ignore)
        for name in HOSTILE:
            roll = await a.claim(session, name, f"id of {name}", "", 1)
            assert roll.mine is not None, name
            await a.record(name, f"text of {name}", None)
        assert await a.rosters("") == sorted(HOSTILE)
        assert await a.recorded("") == sorted(HOSTILE)
        for name in HOSTILE:
            assert [claim.id for claim in await a.census(name)] == [f"id of {name}"]
            found = await a.recall(name)
            assert found is not None
            assert found.text == f"text of {name}"
            await a.record(name, None, found.version)
        assert await a.recorded("") == []

    run(flavour, body)


def test_a_hashed_name_is_compared() -> None:
    """The value under a hashed key says whose it is, and another's is not taken for it."""
    keys = Keys("default")
    one, two = keys.of("r", "x" * 300), keys.of("r", "y" * 300)
    assert len(one.key) <= 250
    assert one.key != two.key
    assert one.told == b"x" * 300
    assert unpack(one, pack(one, {"a": 1}, 7)) == ({"a": 1}, 7)
    for wrong in (pack(two, {}), pack(keys.of("r", "x"), {}), b"junk", b"z123", b"\nno json"):
        with pytest.raises(ProtocolError, match="not written by Tenure"):
            unpack(one, wrong)


def test_ten_thousand_fit_in_one_item() -> None:
    """The roster of a group of 10,000 is compressed to less than the server's usual limit."""
    runtime = ThreadRuntime()
    claims = [
        [
            f"{runtime.unique()}-15000.1",
            f"{runtime.unique()}-15000",
            1_763_000_000_000_000 + number,
            f"host-{number % 50}:{number}:{runtime.unique()[:6]}",
            '{"member":"host-1"}',
            False,
        ]
        for number in range(10_000)
    ]
    key = Keys("default").of("r", "@group/workers")
    document = {"token": 1, "claims": claims}
    value = pack(key, document)
    check_size(key.key, value, 1 << 20)
    assert unpack(key, value) == (document, 0)


def test_what_grows_too_large_is_refused_and_kept(flavour: str) -> None:
    """A roster that would exceed the server's limit stays as it is; the error names the limit."""

    async def body(each: Bench) -> None:
        with MemcachedServer(settings={"I": "512k"}, options=OPTIONS) as server:
            a = await each.open(server.url)
            session = await a.start("a", ignore)
            for number in range(4):
                await a.claim(session, "name", f"small {number}", "x", None)
            with pytest.raises(StorageError, match=r"at most 524288.*-I 8m"):
                await a.claim(session, "name", "large", secrets.token_hex(700_000), None)
            await a.withdraw(session, "name", "large")
            assert len(await a.census("name")) == 4
            await a.renew(session)
            assert server.stats()["store_too_large"] == "0"
            assert any(each.subject == "item_size_max = 524288" for each in await a.examine())

    run(flavour, body)


def test_a_full_server_that_evicts_nothing_refuses(flavour: str) -> None:
    """With -M a full server answers with a typed error, and the doctor approves of -M."""

    async def body(each: Bench) -> None:
        settings = {"M": "", "m": "2"}
        with MemcachedServer(settings=settings, options=OPTIONS) as server:
            a = await each.open(server.url)
            session = await a.start("a", ignore)

            async def fill() -> None:
                for number in range(500):
                    await a.record(f"r{number}", "x" * 20_000, None)

            with pytest.raises(StorageError):
                await fill()
            assert any(each.subject == "evictions = off" for each in await a.examine())
            with contextlib.suppress(SessionLost, BackendError):
                await a.end(session)

    run(flavour, body)


def test_what_others_wrote_is_no_roster(server: MemcachedServer, flavour: str) -> None:
    """An item under our key that Tenure did not write is an error that says so."""

    async def body(each: Bench) -> None:
        a = await each.open(server.url)
        session = await a.start("a", ignore)
        server.request(b"ms %b 5\r\nhello" % each.key("r", "name"))
        with pytest.raises(ProtocolError, match="not written by Tenure"):
            await a.claim(session, "name", "1", "", 1)

    run(flavour, body)


# -- connecting ------------------------------------------------------------------------


def test_a_password_is_asked_for(flavour: str) -> None:
    """With ASCII authentication the right password serves; a wrong one, or none, is refused."""

    async def body(each: Bench) -> None:
        with MemcachedServer(password="s3cret-word", options=OPTIONS) as server:
            a = await each.open(server.url)
            await a.end(await a.start("a", ignore))
            assert not any("auth" in each.subject for each in await a.examine())
            for wrong in (server.url.replace("word", "w0rd"), server.url.replace("tenure:", "x:")):
                with pytest.raises(AuthenticationFailed, match="wrong") as caught:
                    await each.open(wrong)
                assert "s3cret" not in f"{caught.value!r}{a.url!r}{a._wire.settings!r}"
            bare = f"memcached://{server.host}:{server.port}?ttl_max=1"
            with pytest.raises(AuthenticationFailed, match="asks for"):
                await each.open(bare)

    run(flavour, body)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("memcached://a,b", "one server only"),
        ("memcached://a/1", "without a path"),
        ("memcached://a?ttl_max=0", "ttl_max"),
        ("memcached://a?ttl_max=100000", "86400"),
        ("memcached://a?database=1", "unknown option"),
        ("memcached://a%20b:c@a", "user name"),
        ("memcached://b:a%0Ac@a", "password"),
    ],
)
def test_a_bad_url_is_refused(url: str, text: str) -> None:
    """What cannot work is refused before anything is connected, and the error says why."""
    with pytest.raises(InvalidURL, match=text):
        MemcachedDriver(Url.parse(url), ThreadRuntime(), "default", TTL)


def test_a_ttl_is_bounded(server: MemcachedServer, flavour: str) -> None:
    """A TTL above ttl_max is refused, and so is a ttl_max that others of the namespace lack."""

    async def body(each: Bench) -> None:
        with pytest.raises(InvalidArgument, match=r"ttl_max=2"):
            await each.open(server.url, ttl=2.0)
        a, session, _ = await held(each, server, "name")
        b = await each.open(server.url.replace("ttl_max=1", "ttl_max=2"), ttl=2.0)
        with pytest.raises(InvalidURL, match=r"in use with ttl_max=1"):
            await b.start("b", ignore)
        await a.renew(session)

    run(flavour, body)


def test_a_quiet_server_is_found_in_order(server: MemcachedServer, flavour: str) -> None:
    """A server that lost nothing and is on a loopback address gives no cause for a warning."""

    async def body(each: Bench) -> None:
        a = await each.open(server.url)
        assert await a.examine() == []

    run(flavour, body)


def test_an_open_server_is_noted(flavour: str) -> None:
    """A server on all addresses without a password, and with -A, is told of."""

    async def body(each: Bench) -> None:
        settings = {"l": "0.0.0.0", "A": ""}
        with MemcachedServer(settings=settings, options=OPTIONS) as server:
            a = await each.open(server.url)
            found = {each.subject.partition(" ")[0]: each for each in await a.examine()}
            assert found["inter"].severity == found["shutdown_command"].severity == "note"

    run(flavour, body)


def test_a_server_without_versions_is_refused(flavour: str) -> None:
    """A server that was started with -C cannot compare and set, and connecting says so."""

    async def body(each: Bench) -> None:
        server = MemcachedServer(settings={"C": ""}, options=OPTIONS)
        with server, pytest.raises(Unsupported, match="-C"):
            await each.open(server.url)

    run(flavour, body)


# -- the wire --------------------------------------------------------------------------


def test_replies_may_come_in_pieces() -> None:
    """However the bytes are cut, the same replies come out."""
    data = b"HD c12\r\nVA 4 c1 f2\r\na\r\nb\r\nEN\r\nSTAT pid 1\r\nSTAT x y z\r\nEND\r\nNS c0\r\n"
    expected = [
        Reply(b"HD c12"),
        Reply(b"VA 4 c1 f2", b"a\r\nb"),
        Reply(b"EN"),
        Reply(b"END", b"pid 1\nx y z"),
        Reply(b"NS c0"),
    ]
    for size in range(1, len(data) + 1):
        parser, replies = Parser("here"), list[Reply]()
        for at in range(0, len(data), size):
            parser.feed(data[at : at + size], replies)
        assert replies == expected, size
        assert parser.idle()


def test_rubbish_is_no_reply() -> None:
    """What memcached never says is a protocol error, also without any end of a line."""
    for data in (b"HTTP/1.1 400\r\n", b"x" * 10_000, b"VA x\r\n", b"VA 2 c1\r\nabcd\r\n"):
        with pytest.raises(ProtocolError):
            Parser("here").feed(data, [])


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("ERROR", Unsupported),
        ("ERROR Too many open connections", Unavailable),
        ("SERVER_ERROR out of memory storing object", StorageError),
        ("SERVER_ERROR object too large for cache", StorageError),
        ("CLIENT_ERROR unauthenticated", AuthenticationFailed),
        ("CLIENT_ERROR authentication failure", AuthenticationFailed),
        ("CLIENT_ERROR bad data chunk", BackendError),
    ],
)
def test_errors_have_their_types(text: str, kind: type[BackendError]) -> None:
    """Each refusal of the server's becomes the error that says what it means."""
    assert type(translate(text, "here")) is kind


def test_the_index_spreads_names() -> None:
    """Names fall into all shards, and the same name always into the same."""
    index = Index.__new__(Index)
    numbers = {index.number(f"name-{number}") for number in range(2000)}
    assert numbers == set(range(64))

"""The consul driver on real servers: round trips, late requests, tokens, clusters, lock-delays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tenure
from tenure._model import Interest, Roll
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Host, Url
from tenure.drivers import _consul_polls
from tenure.drivers._consul_examine import seconds
from tenure.drivers._consul_keys import escaped, unescaped
from tenure.drivers._consul_url import settings
from tenure.drivers.consul import ConsulDriver
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
)
from tenure.testing.servers import ConsulCluster, ConsulServer, free_port
from tenure.wires import consul as wires
from tenure.wires.http import Reply

TOKEN = "5ec2e7ba-6a4f-4d6e-8f0a-0d1f2e3c4b5a"
WRONG = "0badf00d-0bad-4bad-8bad-00badf00d000"


@pytest.fixture(scope="module")
def server() -> Iterator[ConsulServer]:
    """One server for the tests that leave it as it was."""
    with ConsulServer() as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[ConsulServer]:
    """One server that wants a token."""
    with ConsulServer(password=TOKEN) as server:
        yield server


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token of the developer's own."""
    monkeypatch.delenv("CONSUL_HTTP_TOKEN", raising=False)
    monkeypatch.delenv("CONSUL_HTTP_TOKEN_FILE", raising=False)


class Client:
    """A driver with a session."""

    def __init__(self, runtime: Runtime, url: str, namespace: str, ttl: float) -> None:
        self.runtime = runtime
        self.driver = ConsulDriver(Url.parse(url), runtime, namespace, ttl)
        self.session = ""

    async def start(self) -> Client:
        await self.driver.open()
        self.session = await self.driver.start("owner", lambda _: None)
        return self

    def id(self, roster: str, id: str) -> str:
        """A claim's id, unique in all rosters."""
        return f"{self.session}.{roster}-{id}"

    async def claim(
        self, roster: str, id: str, width: int | None = None, body: str = "", shared: bool = False
    ) -> Roll:
        id = self.id(roster, id)
        return await self.driver.claim(self.session, roster, id, body, width, shared)

    async def read(self, roster: str, id: str) -> Roll:
        return await self.driver.read(self.session, roster, self.id(roster, id))

    async def withdraw(self, roster: str, id: str) -> None:
        await self.driver.withdraw(self.session, roster, self.id(roster, id))

    async def listen(
        self, roster: str, id: str, before: str | None, width: int = 1
    ) -> tuple[Interest, Any]:
        signal = self.runtime.signal()
        interest = Interest(self.session, roster, self.id(roster, id), before, width)
        await self.driver.listen(interest, signal.set)
        return interest, signal

    async def watch(self, roster: str) -> tuple[Interest, Any]:
        signal = self.runtime.signal()
        interest = Interest("", roster, self.runtime.unique(), None, watch=True)
        await self.driver.listen(interest, signal.set)
        return interest, signal

    def calls(self) -> list[str]:
        """From now on, the requests that the driver makes."""
        wire: Any = self.driver._connected()._http
        request, made = wire.request, []

        async def note(verb: str, path: str, *rest: Any, **more: Any) -> Reply:
            made.append(f"{verb} {path.split('/')[2].partition('?')[0]}")
            reply: Reply = await request(verb, path, *rest, **more)
            return reply

        wire.request = note
        return made

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

    async def woken(self, signal: Any, limit: float = 10.0) -> bool:
        result: bool = await signal.wait(self.runtime.now() + limit)
        return result

    async def until(self, ask: Callable[[], Awaitable[bool]], limit: float = 20.0) -> None:
        give_up = self.runtime.now() + limit
        while not await ask():
            assert self.runtime.now() < give_up, "waited in vain"
            await self.runtime.sleep(self.runtime.now() + 0.02)

    async def call(self, server: ConsulServer, *arguments: Any) -> Any:
        return await self.runtime.blocking(lambda: server.call(*arguments))

    async def close(self) -> None:
        for client in self.clients:
            try:
                await client.close()
            except BackendError:
                await client.driver.close()


Body = Callable[[World], Awaitable[None]]
Run = Callable[[Body], None]


@pytest.fixture(params=["thread", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
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
            await asyncio.wait_for(whole(body, AsyncioRuntime()), 100)

        asyncio.run(on_a_loop())

    return run


# -- the roster ------------------------------------------------------------


def test_requests_are_counted(server: ConsulServer, run: Run) -> None:
    """To claim is one request, to withdraw one, to try one that is refused or known to be free."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        made, others = a.calls(), b.calls()
        await a.claim("r", "1")
        assert made == ["PUT txn"]
        assert (await b.claim("r", "1", 1)).mine is None
        assert others == ["PUT txn"], "a try that is refused looks, and writes nothing"
        await a.withdraw("r", "1")
        assert made == ["PUT txn", "DELETE kv"]
        made.clear()
        for serial in "23":
            assert (await a.claim("r", serial, 1)).mine is not None
            await a.withdraw("r", serial)
        assert made == ["PUT txn", "DELETE kv"] * 2
        made.clear()
        await a.claim("r", "4", 1, "body", shared=True)
        await a.read("r", "4")
        await a.driver.census("r")
        await a.driver.renew(a.session)
        assert made == ["PUT txn", "GET kv", "GET kv", "PUT session"]

    run(body)


def test_what_is_known_of_a_roster_may_be_wrong(server: ConsulServer, run: Run) -> None:
    """A try that takes a roster for empty, where another has claimed since, is refused."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        await a.claim("r", "1")
        await a.withdraw("r", "1")
        await b.claim("r", "1")
        roll = await a.claim("r", "2", 1)
        assert roll.mine is None
        assert roll.claims[0].session == b.session
        await b.withdraw("r", "1")
        assert (await a.claim("r", "3", 1)).mine is not None

    run(body)


def test_a_late_claim_comes_to_nothing(server: ConsulServer, run: Run) -> None:
    """A claim that arrives after its withdrawal enters nothing, and the session goes on."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        wire: Any = a.driver._connected()
        txn, held = wire.txn, []

        async def keep(operations: Any) -> Any:
            held.append(operations)
            raise OutcomeUnknown("no answer")

        for width in (None, 1):
            wire.txn = keep
            with pytest.raises(OutcomeUnknown):
                await a.claim("r", f"late-{width}", width)
            wire.txn = txn
        other = await a.claim("s", "in-time")
        for width in (None, 1):
            await a.withdraw("r", f"late-{width}")
        for operations in held:
            assert isinstance(await txn(operations), wires.Refused)
        assert (await a.read("r", "late-1")).claims == ()
        assert (await a.read("s", "in-time")).mine == other.mine
        assert (await a.claim("r", "next", 1)).mine is not None

    run(body)


def test_a_claim_learns_of_withdrawals(server: ConsulServer, run: Run) -> None:
    """A claim that is refused because its session's key was written elsewhere finds out when."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        key = a.driver._keys.of_session(a.session)
        await a.driver._connected().txn([wires.lock(key, a.session, b"somebody")])
        assert (await a.claim("r", "1")).mine is not None
        await a.driver._connected().delete(key)
        with pytest.raises(SessionLost):
            await a.claim("r", "2")

    run(body)


def test_a_destroyed_session_is_told(server: ConsulServer, run: Run) -> None:
    """A session that an operator destroys is lost at the next renewal, and its claims are gone."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        await a.claim("r", "1")
        second = await b.claim("r", "1")
        _, signal = await b.listen("r", "1", second.before)
        assert await a.driver.last_seen(a.session) == 0.0
        await world.call(server, "PUT", f"session/destroy/{a.session}")
        assert await world.woken(signal), "the one behind is woken"
        assert (await b.read("r", "1")).rank == 0
        assert await b.driver.last_seen(a.session) is None
        for work in (a.driver.renew(a.session), a.claim("r", "2")):
            with pytest.raises(SessionLost):
                await work

    run(body)


def test_a_session_depends_on_its_ttl_alone(server: ConsulServer, run: Run) -> None:
    """No health check ends a session, so that it outlives the agent that was asked for it."""

    async def body(world: World) -> None:
        a = await world.client(server.url, ttl=7)
        (info,) = await world.call(server, "GET", f"session/info/{a.session}")
        assert (info["TTL"], info["LockDelay"], info["Behavior"]) == ("7000ms", 0, "delete")
        assert not info["NodeChecks"]
        assert not info["ServiceChecks"]

    run(body)


def test_too_long_a_text_is_refused(server: ConsulServer, run: Run) -> None:
    """What is longer than Consul takes is a `StorageError`, and leaves no doubt behind."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        with pytest.raises(StorageError):
            await a.claim("r", "1", None, "x" * 600_000)
        with pytest.raises(StorageError):
            await a.driver.record("r", "x" * 600_000, None)
        assert not a.driver._claims.places
        assert (await a.claim("r", "2", None, "x" * 300_000)).mine is not None

    run(body)


def test_names_are_kept_apart() -> None:
    """What a name becomes is no path, needs no escape, and leads back to it."""
    names = ["a/b", "a", ".", "..", "=2E", "%2E", "a b", "\u00e9\U0001f512", "\x00", "~", "-_."]
    made = [escaped(name) for name in names]
    assert len(set(made)) == len(names)
    assert [unescaped(text) for text in made] == names
    for text in made:
        assert text not in (".", "..")
        assert not set(text) & set("/%?#& \x00")
        assert text.isascii()


# -- wake-ups --------------------------------------------------------------


def test_only_what_is_asked_for_wakes(server: ConsulServer, run: Run) -> None:
    """A waiter is woken when the claim before it goes, not for others, nor after `unlisten`."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        await a.claim("r", "1")
        await a.claim("r", "2")
        third = await b.claim("r", "3")
        assert third.mine is not None
        assert third.rank == 2
        interest, signal = await b.listen("r", "3", third.before)
        await a.withdraw("r", "1")
        assert not await world.woken(signal, 0.2)
        await a.withdraw("r", "2")
        assert await world.woken(signal)
        b.driver.unlisten(interest)
        assert not b.driver._polls._questions
        fourth = await a.claim("r", "4")
        interest, signal = await a.listen("r", "4", fourth.before)
        a.driver.unlisten(interest)
        await b.withdraw("r", "3")
        assert not await world.woken(signal, 0.2)

    run(body)


def test_a_change_before_the_question_is_seen(server: ConsulServer, run: Run) -> None:
    """What happened between the look and the question wakes, in a queue and in a line."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        for width in (1, 2):
            roster = f"r{width}"
            for serial in range(width):
                await a.claim(roster, f"{width}.{serial}")
            behind = await b.claim(roster, f"{width}")
            await a.withdraw(roster, f"{width}.{width - 1}")
            interest, signal = await b.listen(roster, f"{width}", behind.before, width)
            assert await world.woken(signal), width
            b.driver.unlisten(interest)

    run(body)


def test_many_share_one_question(server: ConsulServer, run: Run) -> None:
    """Watchers of one roster share two questions, whoever comes later is told as well."""

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        bells = [await b.watch("r") for _ in range(5)]
        assert len(b.driver._polls._workers) == 2
        await a.claim("r", "1", None, "public")
        for _, signal in bells:
            assert await world.woken(signal)
            signal.clear()
        b.driver.unlisten(bells[0][0])
        await a.driver.record("r", "text", None)
        for _, signal in bells[1:]:
            assert await world.woken(signal)
        assert not bells[0][1].is_set()
        for interest, _ in bells[1:]:
            b.driver.unlisten(interest)
        assert not b.driver._polls._questions

    run(body)


def test_questions_are_bounded(
    server: ConsulServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No more questions than allowed are asked at a time; one that has to wait is asked later."""
    monkeypatch.setattr(_consul_polls, "JOBS_MAX", 2)

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        waiting = []
        for roster in ("r", "s", "t"):
            await a.claim(roster, "1")
            behind = await b.claim(roster, roster)
            waiting.append(await b.listen(roster, roster, behind.before))
        assert len(b.driver._polls._workers) == 2
        await a.withdraw("t", "1")
        assert not await world.woken(waiting[2][1], 0.2), "nobody asks"
        await a.withdraw("r", "1")
        assert await world.woken(waiting[0][1])
        assert await world.woken(waiting[2][1]), "a job that is free asks"
        assert not waiting[1][1].is_set()

    run(body)


def test_a_history_that_begins_anew(
    server: ConsulServer, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When Consul's index is smaller than before, as after a restore, the question is asked
    anew."""
    monkeypatch.setattr(_consul_polls, "_WAIT_SECONDS", 0.5)

    async def body(world: World) -> None:
        a, b = await world.client(server.url), await world.client(server.url)
        await a.claim("r", "1")
        behind = await b.claim("r", "2")
        place = b.driver._claims.places[b.id("r", "2")]
        assert place.before is not None
        place.before = place.before._replace(modified=1 << 40)
        _, signal = await b.listen("r", "2", behind.before)
        (question,) = b.driver._polls._questions.values()

        async def anew() -> bool:
            return 0 < question.answer.index < 1 << 40

        await world.until(anew)
        await a.withdraw("r", "1")
        assert await world.woken(signal)

    run(body)


def test_waiters_outlive_a_restart(run: Run) -> None:
    """After a restart of the agent claims still stand, and who waits is woken by a release."""
    with ConsulServer() as server:

        async def body(world: World) -> None:
            a = await world.client(server.url, ttl=30)
            b = await world.client(server.url, ttl=30)
            await a.claim("r", "1")
            behind = await b.claim("r", "2")
            _, waiter = await b.listen("r", "2", behind.before)
            _, watcher = await b.watch("s")
            await world.runtime.blocking(lambda: server.restart(graceful=False))

            async def renewed() -> bool:
                try:
                    await a.driver.renew(a.session)
                    await b.driver.renew(b.session)
                except Unavailable:
                    return False
                return True

            await world.until(renewed)
            assert (await b.read("r", "2")).before == behind.before
            watcher.clear()
            await a.claim("s", "1", None, "public")
            await a.withdraw("r", "1")
            assert await world.woken(waiter, 20)
            assert await world.woken(watcher, 20)

        run(body)


# -- lock-delay ------------------------------------------------------------


def test_a_lock_delay_is_kept(server: ConsulServer, run: Run) -> None:
    """Where the URL asks for it, a lock stays taken for so long after a session was lost."""

    async def body(world: World) -> None:
        a, b = [await world.client(f"{server.url}?lock_delay=2") for _ in "ab"]
        c = await world.client(server.url)
        await a.claim("r", "1")
        await a.claim("group", "1", None, "public")
        behind = await b.claim("r", "1")
        _, signal = await b.listen("r", "1", behind.before)
        before = world.runtime.now()
        await world.call(server, "PUT", f"session/destroy/{a.session}")
        after = world.runtime.now()
        assert await world.woken(signal)
        assert (await b.read("r", "1")).rank == 1, "granted before the delay was over"
        assert (await c.claim("r", "1", 1)).mine is None
        assert await b.driver.census("group") == (), "what is there to be read is not delayed"

        async def granted() -> bool:
            return (await b.read("r", "1")).rank == 0

        await world.until(granted)
        assert world.runtime.now() - before >= 2.0
        assert world.runtime.now() - after < 6.0
        keys = await world.call(server, "GET", f"kv/tenure/{world.namespace}/claim/?keys")
        assert len(keys) == 1, "the dead are buried"

    run(body)


def test_a_lock_delay_spares_who_leaves(server: ConsulServer, run: Run) -> None:
    """Who withdraws, or ends the session in good order, delays nobody."""

    async def body(world: World) -> None:
        a, b = [await world.client(f"{server.url}?lock_delay=30") for _ in "ab"]
        await a.claim("r", "1")
        assert (await b.claim("r", "1")).rank == 1
        await a.claim("r", "2")
        await a.withdraw("r", "1")
        assert (await b.read("r", "1")).rank == 0
        assert (await a.claim("s", "1")).mine is not None
        assert (await b.claim("s", "2")).rank == 1
        await a.driver.end(a.session)
        assert (await b.read("s", "2")).rank == 0

    run(body)


# -- tokens and TLS ----------------------------------------------------------


def test_a_token_is_wanted(guarded: ConsulServer, run: Run, tmp_path: Path) -> None:
    """The URL, a file or the environment give the token; none and a wrong one are refused."""
    plain = f"consul://{guarded.host}:{guarded.port}"
    file, wrong = tmp_path / "token", tmp_path / "wrong"
    file.write_text(f"{TOKEN}\n")
    wrong.write_text(f"{WRONG}\n")
    environment = pytest.MonkeyPatch()

    async def body(world: World) -> None:
        for url in (guarded.url, f"{plain}?token_file={file}"):
            client = await world.client(url)
            assert (await client.claim("r", "1")).mine is not None
            assert TOKEN not in repr(client.driver._wire)
        for url in (plain, f"{plain}?token_file={wrong}", guarded.url.replace(TOKEN, WRONG)):
            with pytest.raises(AuthenticationFailed) as caught:
                await world.client(url)
            assert WRONG not in f"{caught.value!r} {caught.value.__cause__!r}"
        for name, text in (
            ("CONSUL_HTTP_TOKEN", TOKEN),
            ("CONSUL_HTTP_TOKEN_FILE", str(file)),
        ):
            with environment.context() as patch:
                patch.setenv(name, text)
                await world.client(plain)

    run(body)


def test_a_token_that_is_revoked(guarded: ConsulServer, run: Run) -> None:
    """A token that is deleted while it is in use is a typed refusal, and no loss by itself."""

    async def body(world: World) -> None:
        rules = 'key_prefix "tenure/" { policy = "write" } session_prefix "" { policy = "write" }'
        name = f"tenure-{world.namespace}"
        await world.call(guarded, "PUT", "acl/policy", {"Name": name, "Rules": rules})
        made = await world.call(guarded, "PUT", "acl/token", {"Policies": [{"Name": name}]})
        secret = str(made["SecretID"])
        a = await world.client(guarded.url.replace(TOKEN, secret))
        assert (await a.claim("r", "1")).mine is not None, "these rights are enough"
        assert any("could not be read" in each.text for each in await a.driver.examine())
        await world.call(guarded, "DELETE", f"acl/token/{made['AccessorID']}")

        said: list[str] = []

        async def refused() -> bool:
            try:
                await a.driver.renew(a.session)
            except AuthenticationFailed as error:
                said.append(repr(error))
                return True
            return False

        await world.until(refused, 60)
        assert secret not in said[0]
        with pytest.raises(AuthenticationFailed):
            await a.claim("r", "2")
        await world.call(guarded, "PUT", f"session/destroy/{a.session}")
        a.session = ""

    run(body)


def test_certificates_are_checked(run: Run) -> None:
    """Certificates are checked both ways; without the authority the reason is plain."""
    with ConsulServer(mutual_tls=True) as server:

        async def body(world: World) -> None:
            a = await world.client(server.url)
            await a.claim("r", "1")
            b = await world.client(server.url)
            behind = await b.claim("r", "2")
            _, signal = await b.listen("r", "2", behind.before)
            await a.withdraw("r", "1")
            assert await world.woken(signal)
            with pytest.raises(AuthenticationFailed, match="'ca'"):
                await world.client(f"consul+https://{server.host}:{server.port}")

        run(body)


# -- servers that go away ----------------------------------------------------


def test_another_agent_is_found(server: ConsulServer, run: Run) -> None:
    """Where the first agent is down, the next one serves; where all are, it is `Unavailable`."""

    async def body(world: World) -> None:
        dead, dead_too = free_port(), free_port()
        a = await world.client(f"consul://127.0.0.1:{dead},127.0.0.1:{server.port}")
        assert (await a.claim("r", "1")).mine is not None
        with pytest.raises(Unavailable) as caught:
            await world.client(f"consul://127.0.0.1:{dead},127.0.0.1:{dead_too}")
        assert not isinstance(caught.value, OutcomeUnknown)

    run(body)


def test_a_paused_agent_is_an_unknown_outcome(run: Run) -> None:
    """No answer within the patience is `OutcomeUnknown`; afterwards the driver works again."""
    with ConsulServer() as server:

        async def body(world: World) -> None:
            a = await world.client(server.url, ttl=2.0)
            await world.runtime.blocking(server.pause)
            began = world.runtime.now()
            with pytest.raises(OutcomeUnknown):
                await a.claim("r", "1")
            assert world.runtime.now() - began < 2 * a.driver.patience + 1.0
            await world.runtime.blocking(server.resume)

            async def again() -> bool:
                try:
                    a.session = await a.driver.start("owner", lambda _: None)
                except Unavailable:
                    return False
                return True

            await world.until(again)
            assert (await a.claim("r", "2")).mine is not None

        run(body)


def test_a_leader_is_killed(run: Run) -> None:
    """When the leader of three is killed, leases survive, watches go on, and locks are taken."""
    with ConsulCluster() as cluster:
        leader = cluster.leader
        # The one that dies is asked first.
        hosts = sorted(cluster.servers, key=lambda each: each is not leader)
        url = "consul://" + ",".join(f"{each.host}:{each.port}" for each in hosts)

        async def body(world: World) -> None:
            a, b = await world.client(url, ttl=30), await world.client(url, ttl=30)
            held = await a.claim("r", "1")
            behind = await b.claim("r", "2")
            _, waiter = await b.listen("r", "2", behind.before)
            _, watcher = await b.watch("s")
            await world.runtime.blocking(leader.kill)

            async def renewed() -> bool:
                try:
                    await a.driver.renew(a.session)
                    await b.driver.renew(b.session)
                except Unavailable:
                    return False
                return True

            await world.until(renewed, 40)
            assert (await a.read("r", "1")).mine == held.mine, "the claim survives"
            assert (await b.read("r", "2")).rank == 1
            watcher.clear()
            entered = await a.claim("s", "1", None, "public")
            assert held.mine is not None
            assert entered.mine is not None
            assert entered.mine.token > held.mine.token
            assert await world.woken(watcher, 20)
            await a.withdraw("r", "1")
            assert await world.woken(waiter, 20)
            assert (await b.read("r", "2")).rank == 0

        run(body)


def test_a_minority_serves_nothing(run: Run) -> None:
    """One of three that is left alone refuses, and does not answer with what it last knew."""
    with ConsulCluster() as cluster:
        alone, *others = cluster.servers

        async def body(world: World) -> None:
            a = await world.client(alone.url, ttl=6)
            await a.claim("r", "1")
            for other in others:
                await world.runtime.blocking(other.kill)
            for work in (
                a.read("r", "1"),
                a.claim("r", "2"),
                a.claim("r", "3", 1),
                a.driver.recall("r"),
                a.driver.rosters(""),
                a.driver.renew(a.session),
            ):
                with pytest.raises(Unavailable):
                    await work
            a.session = ""

        run(body)


# -- what is configured --------------------------------------------------------


def test_a_short_ttl_is_refused(run: Run) -> None:
    """The server's least TTL is named when the driver opens; if it hides it, when a session
    starts."""
    with ConsulServer(settings={"session_ttl_min": '"10s"'}) as server:

        async def body(world: World) -> None:
            with pytest.raises(InvalidArgument, match=r"shorter than 10 s .*session_ttl_min"):
                await world.client(server.url, ttl=5)
            a = await world.client(server.url, ttl=10)
            hidden = ConsulDriver(Url.parse(server.url), world.runtime, "n", 10.0)
            await hidden.open()
            hidden.ttl = 5.0
            try:
                with pytest.raises(InvalidArgument, match="session_ttl_min"):
                    await hidden.start("owner", lambda _: None)
                assert [each for each in await hidden.examine() if each.severity == "error"]
            finally:
                await hidden.close()
            assert not [each for each in await a.driver.examine() if each.severity == "error"]

        run(body)


def test_what_a_look_finds(server: ConsulServer, run: Run) -> None:
    """One server alone is a warning, access for everybody a note, and so few connections."""

    async def body(world: World) -> None:
        a = await world.client(server.url)
        found = {each.subject: each.severity for each in await a.driver.examine()}
        assert found == {"servers: 1": "warning", "acl.enabled: false": "note"}
        with ConsulServer(settings={"limits": '{"http_max_conns_per_client": 200}'}) as narrow:
            b = await world.client(narrow.url)
            subjects = [each.subject for each in await b.driver.examine()]
            assert "limits.http_max_conns_per_client: 200" in subjects
            await b.close()
            world.clients.remove(b)

    run(body)


def test_a_look_at_a_development_server(run: Run) -> None:
    """A server that keeps nothing on disk is an error."""
    with ConsulServer(development=True) as server:

        async def body(world: World) -> None:
            a = await world.client(server.url)
            errors = [each for each in await a.driver.examine() if each.severity == "error"]
            assert [each.subject for each in errors] == ["dev mode"]

        run(body)


def test_a_look_at_a_policy_that_allows(run: Run) -> None:
    """Access control that allows what nobody forbade is a note."""
    access = '{"enabled": true, "default_policy": "allow"}'
    with ConsulServer(settings={"acl": access}) as server:

        async def body(world: World) -> None:
            a = await world.client(server.url)
            subjects = [each.subject for each in await a.driver.examine()]
            assert "acl.default_policy: allow" in subjects

        run(body)


def test_a_look_at_a_cluster(run: Run) -> None:
    """Three servers are well; without a majority there is no leader, which is an error."""
    with ConsulCluster() as cluster:
        alone, *others = cluster.servers

        async def body(world: World) -> None:
            a = await world.client(alone.url, ttl=20)
            kinds = {each.severity for each in await a.driver.examine()}
            assert kinds == {"note"}
            for other in others:
                await world.runtime.blocking(other.kill)

            async def leaderless() -> bool:
                return "leader: none" in [each.subject for each in await a.driver.examine()]

            await world.until(leaderless, 40)
            a.session = ""

        run(body)


@pytest.mark.parametrize(
    "text, expected",
    [("10s", 10.0), ("1m30s", 90.0), ("100ms", 0.1), ("1.5s", 1.5), ("", None), ("ten", None)],
)
def test_durations_are_read(text: str, expected: float | None) -> None:
    """What Go writes for a duration is read; what is none is not guessed."""
    assert seconds(text) == expected


# -- the URL and the wire ------------------------------------------------------


@pytest.mark.parametrize(
    "url, says",
    [
        ("consul://h/path", "path"),
        ("consul://token@h", "no user name"),
        ("consul://h?colour=red", "colour"),
        ("consul://h?ca=/x", r"consul\+https"),
        ("consul+https://h?key=/x", "'cert'"),
        ("consul://:t@h?token_file=/x", "exclude"),
        ("consul://h?lock_delay=61", "at most 60"),
        ("consul://h?lock_delay=soon", "lock_delay"),
    ],
)
def test_a_wrong_url_is_refused(url: str, says: str) -> None:
    """What cannot work is refused before anything is connected."""
    with pytest.raises(InvalidURL, match=says):
        ConsulDriver(Url.parse(url), ThreadRuntime(), "n", 9.0)


def test_a_url_is_understood(tmp_path: Path) -> None:
    """Ports, the datacenter and the token are what the URL says; the token is not shown."""
    known = settings(Url.parse(f"consul://:{TOKEN}@a,b:1234?dc=east%20one"), 2.0)
    assert known.http.hosts == (Host("a", 8500), Host("b", 1234))
    assert known.query == "dc=east%20one"
    assert known.http.headers == {"X-Consul-Token": TOKEN}
    assert TOKEN not in repr(known)
    assert settings(Url.parse("consul+https://"), 2.0).http.hosts == (Host("127.0.0.1", 8501),)
    missing = f"consul://h?token_file={tmp_path}/none"
    with pytest.raises(InvalidURL, match="'token_file' cannot be read"):
        settings(Url.parse(missing), 2.0)


def test_the_datacenter_is_asked_for(server: ConsulServer, run: Run) -> None:
    """All requests go to the datacenter that the URL names; one that is not there is refused."""

    async def body(world: World) -> None:
        a = await world.client(f"{server.url}?dc=dc1")
        assert (await a.claim("r", "1", 1)).mine is not None
        behind = await a.claim("r", "2")
        _, signal = await a.listen("r", "2", behind.before)
        await a.withdraw("r", "1")
        assert await world.woken(signal)
        with pytest.raises(BackendError, match="datacenter"):
            await world.client(f"{server.url}?dc=dc9")

    run(body)


@pytest.mark.parametrize(
    "status, text, kind",
    [
        (403, "Permission denied", AuthenticationFailed),
        (403, "ACL not found", AuthenticationFailed),
        (500, "rpc error making call: ACL not found", AuthenticationFailed),
        (413, "Request body too large, max size: 524288 bytes.", StorageError),
        (500, "No cluster leader", Unavailable),
        (500, "rpc error making call: node is not the leader", Unavailable),
        (429, "Your IP is issuing too many concurrent connections", Unavailable),
        (500, "rpc error making call: EOF", OutcomeUnknown),
        (500, "leadership lost while committing log", OutcomeUnknown),
        (503, "", OutcomeUnknown),
        (500, "Invalid Session TTL '1', must be between [10s=24h0m0s]", InvalidArgument),
        (400, "Missing key name", BackendError),
    ],
)
def test_refusals(status: int, text: str, kind: type[Exception]) -> None:
    """Each refusal becomes the error that tells whether the request may have been carried out."""
    error = wires.refusal(Reply(status, {}, text.encode()), "consul")
    assert type(error) is kind
    assert (text or str(status)) in str(error)


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"Results": 1}', b"null", b'"x"', b"7"])
def test_a_strange_answer_is_a_protocol_error(body: bytes) -> None:
    """Whatever is not what Consul says, although the status is well, is a `ProtocolError`."""

    async def work() -> None:
        wire = wires.ConsulWire(settings(Url.parse("consul://h"), 1.0), "thread")

        async def request(*_: Any) -> Reply:
            return Reply(200, {}, body)

        wire._http.request = request  # type: ignore[method-assign, assignment]
        for call in (
            wire.txn([]),
            wire.get("k"),
            wire.tree("k"),
            wire.create_session("n", "1s", "delete", "0s"),
        ):
            try:
                await call
            except ProtocolError:
                continue
            raise AssertionError("it was understood")

    drive(work())


@pytest.mark.parametrize("leaderless", [1, 2, 3])
def test_an_agent_without_a_leader_is_left(leaderless: int) -> None:
    """What was certainly not carried out is asked of each other agent once."""

    async def work() -> None:
        wire = wires.ConsulWire(settings(Url.parse("consul://a,b,c"), 5.0), "thread")
        replies = [Reply(500, {}, b"No cluster leader")] * leaderless
        replies.append(Reply(200, {}, b"[]"))

        async def request(*_: Any) -> Reply:
            return replies.pop(0)

        wire._http.request = request  # type: ignore[method-assign, assignment]
        if leaderless < 3:
            assert await wire.session_exists("s") is False
        else:
            with pytest.raises(Unavailable, match="No cluster leader"):
                await wire.session_exists("s")
        assert wire._http._turn == leaderless

    drive(work())


def test_no_token_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the log nor the coordinator's repr nor an error has the token."""
    caplog.set_level(logging.DEBUG)
    with ConsulServer(password=TOKEN) as server, tenure.connect(server.url, ttl=3) as coordinator:
        lease = coordinator.lock("x").acquire()
        server.kill()
        with pytest.raises(tenure.TenureError) as caught:
            lease.release()
        assert TOKEN not in f"{coordinator!r} {lease!r} {caught.value!r}"
    assert TOKEN not in caplog.text

"""What is particular to ZooKeeper: its sessions, nodes, users and servers, and kazoo."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kazoo.client import KazooClient
from kazoo.exceptions import KazooException

import tenure
import tenure.aio
from tenure._model import Interest
from tenure._runtime.thread import drive
from tenure.testing.proxy import Proxy
from tenure.testing.servers import ZookeeperEnsemble, ZookeeperServer

TTL = 4.0
SECONDS_MAX = 30.0
PASSWORD = "s3cret:@/%"


def until(condition: Callable[[], Any], what: str, seconds: float = SECONDS_MAX) -> Any:
    """Wait for a condition and return it."""
    give_up = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < give_up, f"waited {seconds:g} s in vain for {what}"
        time.sleep(0.01)
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[ZookeeperServer]:
    """One server for all."""
    with ZookeeperServer() as server:
        yield server


@pytest.fixture
def raw(server: ZookeeperServer) -> Iterator[KazooClient]:
    """kazoo itself, to look in and to interfere."""
    with raw_client(server) as client:
        yield client


@contextlib.contextmanager
def raw_client(server: ZookeeperServer) -> Iterator[KazooClient]:
    """kazoo itself."""
    client = KazooClient(f"{server.host}:{server.port}", logger=logging.getLogger("tenure.raw"))
    client.start()
    yield client
    client.stop()
    client.close()


def connect(url: str, **options: Any) -> tenure.Coordinator:
    """A coordinator with a namespace of its own, unless one is given."""
    known: dict[str, Any] = {"namespace": uuid.uuid4().hex, "ttl": TTL}
    return tenure.connect(url, **(known | options))


def session_of(coordinator: Any) -> Any:
    """The session inside."""
    return coordinator._session


def driver_of(coordinator: Any) -> Any:
    """The driver inside."""
    return coordinator._session.driver


def link_of(coordinator: Any) -> Any:
    """The connection of the session that goes on."""
    driver = driver_of(coordinator)
    return driver._sessions[session_of(coordinator)._life.id][0]


# -- the URL -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, says",
    [
        ("zookeeper://h?option=1", "unknown option 'option'"),
        ("zookeeper://user@h", "a user name and a password come together"),
        ("zookeeper://h?auth=sasl", "needs a user name"),
        ("zookeeper://u:p@h?auth=magic", "must be digest or sasl"),
        ("zookeeper://h?cert=/c&tls=true", "'cert' and 'key' come together"),
        ("zookeeper://h?cert=/c&key=/k", "without tls=true"),
        ("zookeeper://u%3Av:p@h", "no colon"),
        ("zookeeper://h/a/../b", "the path is that of a node"),
        ("zookeeper://h?ca=/not/there", "cannot be used"),
        ("zake://h/path", "write zake://"),
        ("zake://u:p@h", "write zake://"),
    ],
)
def test_a_bad_url_is_refused(url: str, says: str) -> None:
    """What cannot work is refused with a text that says what would."""
    with pytest.raises(tenure.InvalidURL, match=says):
        connect(url)


# -- round trips -------------------------------------------------------------------------------


def test_round_trips(server: ZookeeperServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An acquire waits once and a release once; a try on a taken name waits once."""
    with connect(server.url) as a:
        lock = a.lock("x")
        lock.acquire().release()
        wire = driver_of(a)._wire
        waits: list[float] = []
        wait = wire.wait

        async def counted(*args: Any) -> Any:
            waits.append(time.monotonic())
            return await wait(*args)

        session_of(a)._kick.set()
        monkeypatch.setattr(driver_of(a), "renew", _nothing)
        monkeypatch.setattr(wire, "wait", counted)
        lease = lock.acquire()
        assert len(waits) == 1
        lease.release()
        assert len(waits) == 2
        with connect(server.url, namespace=driver_of(a).namespace) as b:
            other = b.lock("x").acquire()
            waits.clear()
            assert lock.try_acquire() is None
            assert len(waits) == 1
            other.release()


async def _nothing(*_: object) -> None:
    pass


def test_a_census_reads_what_changed(
    server: ZookeeperServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of thirty members only the one that was amended since is read again."""
    with connect(server.url) as a, connect(server.url, namespace=driver_of(a).namespace) as b:
        session = drive(session_of(a).life()).id
        claims = [
            drive(driver_of(a).claim(session, "g", f"{session}.{number}", f"b{number}", None)).mine
            for number in range(30)
        ]
        driver = driver_of(b)
        asked: list[int] = []
        read = driver._read

        async def counted(link: Any, roster: str, nodes: list[str]) -> Any:
            asked.append(len(nodes))
            return await read(link, roster, nodes)

        monkeypatch.setattr(driver, "_read", counted)
        assert drive(driver.census("g")) == tuple(claims)
        assert drive(driver.census("g")) == tuple(claims)
        claims[7] = drive(driver_of(a).amend(claims[7], "new"))
        assert drive(driver.census("g")) == tuple(claims)
        claims[3] = drive(driver_of(a).amend(claims[3], "new"))
        claims[4] = drive(driver_of(a).amend(claims[4], "new"))
        assert drive(driver.census("g")) == tuple(claims)
        assert asked == [30, 0, 1, 30]


def test_a_thousand_requests_are_asked_for_at_once(server: ZookeeperServer) -> None:
    """However many requests are made before kazoo's thread runs, each is answered."""
    with connect(server.url, ttl=60) as a:
        drive(session_of(a).life())
        link, wire = link_of(a), driver_of(a)._wire
        for _ in range(5):
            replies = [link.exists("/") for _ in range(1_000)]
            drive(wire.wait(link, *replies))
            assert all(reply.successful() for reply in replies)


# -- folders and tokens ------------------------------------------------------------------------


def test_tokens_rise_when_the_folder_is_made_anew(
    server: ZookeeperServer, raw: KazooClient
) -> None:
    """A roster's folder that was removed numbers its nodes from 0 again; tokens rise."""
    with connect(server.url) as a:
        folder = f"/tenure/{driver_of(a).namespace}/rosters/x"
        last = 0
        for _ in range(3):
            for _ in range(3):
                lease = a.lock("x").acquire()
                assert (
                    last
                    < lease.token
                    <= raw.get(f"{folder}/{raw.get_children(folder)[0]}")[1].czxid
                )
                last = lease.token
                lease.release()
            raw.delete(folder)


def test_folders_that_vanish_harm_nobody(server: ZookeeperServer, raw: KazooClient) -> None:
    """While somebody removes the folder whenever it is empty, the lock excludes and tokens rise."""
    with connect(server.url) as a, connect(server.url, namespace=driver_of(a).namespace) as b:
        folder = f"/tenure/{driver_of(a).namespace}/rosters/x"
        stop = threading.Event()
        removed: list[int] = []

        def remove() -> None:
            while not stop.is_set():
                with contextlib.suppress(KazooException):
                    raw.delete(folder)
                    removed.append(1)

        held: list[int] = []
        tokens: list[int] = []

        def use(client: tenure.Coordinator) -> None:
            for number in range(40):
                lock = client.lock("x")
                lease = lock.try_acquire() if number % 4 == 3 else lock.acquire(timeout=20)
                if lease is not None:
                    held.append(1)
                    assert len(held) == 1, "two hold at once"
                    tokens.append(lease.token)
                    held.pop()
                    lease.release()

        remover = threading.Thread(target=remove)
        remover.start()
        workers = [threading.Thread(target=use, args=(each,)) for each in (a, b)]
        try:
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(60)
        finally:
            stop.set()
            remover.join(10)
        assert removed, "the fault did not bite"
        assert len(tokens) >= 60, len(tokens)
        assert tokens == sorted(set(tokens))


def test_the_server_removes_empty_folders() -> None:
    """Of a lock that nobody uses any more nothing stays, nor of a namespace."""
    with ZookeeperServer(settings={"-Dznode.container.checkIntervalMs": "200"}) as server:
        with connect(server.url) as a:
            a.lock("x").acquire().release()
        with raw_client(server) as raw:
            until(lambda: not raw.get_children("/tenure"), "the folders to be removed")
        with connect(server.url) as a:
            a.lock("x").acquire().release()


def test_what_others_put_there_is_no_claim(server: ZookeeperServer, raw: KazooClient) -> None:
    """Nodes with other names in a roster's folder stand in nobody's way."""
    with connect(server.url) as a:
        a.lock("x").acquire().release()
        folder = f"/tenure/{driver_of(a).namespace}/rosters/x"
        for name in ("note", "a:b:c:d:e", "lock-0000000000"):
            raw.create(f"{folder}/{name}")
        lease = a.lock("x").try_acquire()
        assert lease is not None
        lease.release()


def test_a_long_body_is_refused_before_it_is_sent(server: ZookeeperServer) -> None:
    """What ZooKeeper takes no request for is refused, and the session goes on."""
    with connect(server.url) as a:
        lease = a.lock("x").acquire()
        session = session_of(a)._life.id
        with pytest.raises(tenure.StorageError, match="too long"):
            drive(driver_of(a).claim(session, "g", "i", "x" * 1_100_000, None))
        with pytest.raises(tenure.StorageError, match="too long"):
            drive(driver_of(a).record("g", "x" * 1_100_000, None))
        drive(driver_of(a).renew(session))
        lease.check()
        lease.release()


# -- sessions ----------------------------------------------------------------------------------


def test_a_longer_ttl_than_the_servers_is_refused(server: ZookeeperServer) -> None:
    """A lease must not outlive its session, so the error names what the server bears."""
    with pytest.raises(tenure.InvalidArgument, match=r"at most 60 s \(maxSessionTimeout\), not 90"):
        connect(server.url, ttl=90)


def test_a_removed_session_is_lost_at_once(server: ZookeeperServer, raw: KazooClient) -> None:
    """Whoever removes a session's node ends the session: its owner is told, its claims go."""
    with (
        connect(server.url, ttl=60) as a,
        connect(server.url, namespace=driver_of(a).namespace, ttl=60) as b,
    ):
        lease = a.lock("x").acquire()
        began = time.monotonic()
        session = session_of(a)._life.id
        raw.delete(f"/tenure/{driver_of(a).namespace}/sessions/{session}")
        until(lambda: not lease.held(), "the loss")
        assert "somebody has ended" in str(lease.reason)
        b.lock("x").acquire(timeout=10).release()
        assert time.monotonic() - began < 10, "it was the TTL that ended it"
        assert a.lock("x").acquire(timeout=10).token > lease.token


def test_a_blocked_loop_does_not_hold_for_ever(server: ZookeeperServer) -> None:
    """While a loop hangs, kazoo's thread pings; the session ends with its TTL all the same."""
    tokens = []

    async def main() -> None:
        async with tenure.aio.connect(server.url, ttl=2, namespace="blocked") as a:
            lease = await a.lock("x").acquire()

            def take() -> None:
                with (
                    tenure.connect(server.url, ttl=2, namespace="blocked") as b,
                    b.lock("x", timeout=SECONDS_MAX) as other,
                ):
                    tokens.append(other.token)

            thread = threading.Thread(target=take)
            thread.start()
            thread.join(SECONDS_MAX)  # and the loop with it
            assert tokens
            assert tokens[0] > lease.token
            assert not lease.held()
            with contextlib.suppress(tenure.LeaseLost):
                await lease.release()

    asyncio.run(main())


def test_nothing_waits_while_the_connection_is_lost(server: ZookeeperServer) -> None:
    """Without a connection each call fails at once, as one that was certainly not carried out."""
    with Proxy(server.host, server.port) as proxy, connect(server.url_at(proxy.port), ttl=20) as a:
        lease = a.lock("x").acquire()
        driver, session = driver_of(a), session_of(a)._life.id
        proxy.cut()
        until(lambda: not link_of(a).connected(), "the loss of the connection")
        calls: list[Callable[[], Any]] = [
            lambda: driver.renew(session),
            lambda: driver.claim(session, "y", "i", "", None),
            lambda: driver.read(session, "x", "i"),
            lambda: driver.withdraw(session, "x", "i"),
        ]
        for call in calls:
            began = time.monotonic()
            with pytest.raises(tenure.Unavailable) as caught:
                drive(call())
            assert not isinstance(caught.value, tenure.OutcomeUnknown)
            assert time.monotonic() - began < 1
        proxy.heal()
        until(lambda: link_of(a).connected(), "the connection")
        drive(driver.renew(session))
        lease.check()
        lease.release()


def test_an_expired_session_is_not_brought_back(server: ZookeeperServer) -> None:
    """kazoo would begin another session by itself; here the old one is lost, and stays so."""
    with Proxy(server.host, server.port) as proxy, connect(server.url_at(proxy.port), ttl=2) as a:
        lease = a.lock("x").acquire()
        link, old = link_of(a), session_of(a)._life.id
        proxy.cut()
        until(lambda: not lease.held(), "the loss")
        with raw_client(server) as raw:
            path = f"/tenure/{driver_of(a).namespace}/sessions/{old}"
            until(lambda: raw.exists(path) is None, "the end of the session")
        proxy.heal()
        again = a.lock("x").acquire(timeout=SECONDS_MAX)
        assert session_of(a)._life.id != old
        assert link.over()
        assert not link.connected()
        assert not lease.held()
        again.release()


def test_watches_outlive_every_session(server: ZookeeperServer) -> None:
    """What is watched is watched on when the session ends that has the watches, however it ends."""
    with connect(server.url) as a, connect(server.url, namespace=driver_of(a).namespace) as b:
        session, driver = session_of(b), driver_of(b)
        rung: list[float] = []
        interest = Interest("", "g", "me", None, watch=True)
        drive(driver.listen(interest, lambda: rung.append(time.monotonic())))
        owner = drive(session_of(a).life()).id

        def moved() -> bool:
            """They are set on a session that lives, and have rung for what was missed."""
            known = list(driver._ear._rosters.values())
            return all(
                each.link.over() is None
                and "folder" in each._set
                and all(reply.ready() for reply in list(each._set.values()))
                for each in known
            )

        for number in range(6):
            heard = len(rung)  # before the end, since they may be set elsewhere at once
            if number % 2:
                drive(driver.end(drive(session.life()).id))  # begun on that very connection
                session.lose(session._life, "an experiment")
            else:
                drive(driver._any()).discard()
            until(lambda: len(rung) > heard and moved(), "the watches to be set elsewhere")  # noqa: B023
            heard = len(rung)
            drive(driver_of(a).claim(owner, "g", f"{owner}.{number}", "x", None))
            until(lambda: len(rung) > heard, "a wake-up")  # noqa: B023
        driver.unlisten(interest)


# -- users -------------------------------------------------------------------------------------


def test_a_users_nodes_are_his_own(
    server: ZookeeperServer, caplog: pytest.LogCaptureFixture
) -> None:
    """With a password, other users can neither enter the namespace nor read it; none is logged."""
    caplog.set_level(1)
    logging.getLogger("kazoo").setLevel(1)
    port, space = server.port, uuid.uuid4().hex
    secret = "s3cret%3A%40%2F%25"
    url = f"zookeeper://ann:{secret}@127.0.0.1:{port}/below/it"
    with connect(url, namespace=space) as ann:
        assert PASSWORD not in repr(ann)
        assert PASSWORD not in repr(driver_of(ann)._wire)
        with ann.lock("x", timeout=5):
            for other in (
                f"zookeeper://bob:other@127.0.0.1:{port}/below/it",
                f"zookeeper://127.0.0.1:{port}/below/it",
                f"zookeeper://ann:wrong@127.0.0.1:{port}/below/it",
            ):
                with pytest.raises(tenure.AuthenticationFailed):
                    connect(other, namespace=space)
    with connect(f"zookeeper://bob:other@127.0.0.1:{port}/below/it") as bob:
        bob.lock("x").acquire().release()
    assert PASSWORD not in caplog.text
    assert "ann:" not in caplog.text


def test_a_user_is_known_again_after_a_reconnection(server: ZookeeperServer) -> None:
    """A new connection authenticates before anything else is asked on it."""
    with Proxy(server.host, server.port) as proxy:
        url = f"zookeeper://ann:word@127.0.0.1:{proxy.port}"
        with connect(url) as a:
            for _ in range(5):
                a.lock("x").acquire(timeout=SECONDS_MAX).release()
                proxy.reset()


def test_sasl() -> None:
    """With `auth=sasl` the server knows the user by DIGEST-MD5, and refuses a wrong password."""
    with ZookeeperServer(user="ann", password="word", sasl=True) as server:
        with connect(server.url) as a:
            a.lock("x").acquire().release()
        with pytest.raises(tenure.AuthenticationFailed, match="refused the credentials"):
            connect(server.url.replace("ann:word", "ann:other"))


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(mutual: bool) -> None:
    """Over TLS the server's name is checked, and a certificate is shown where one is asked for."""
    with ZookeeperServer(tls=True, mutual_tls=mutual) as server:
        with connect(server.url) as a, connect(server.url, namespace=driver_of(a).namespace) as b:
            with a.lock("x", timeout=5):
                assert b.lock("x").try_acquire() is None
            claims = [drive(driver_of(b).census("x")) for _ in range(3)]
            assert claims == [()] * 3
        plain = f"zookeeper://127.0.0.1:{server.port}?tls=true"
        with pytest.raises(tenure.Unavailable, match="certificate"):
            connect(plain)


# -- findings ----------------------------------------------------------------------------------


def findings(url: str, **options: Any) -> dict[str, tuple[str, str]]:
    """What is found, by subject without the host."""
    with connect(url, **options) as a:
        return told(a)


def told(coordinator: tenure.Coordinator) -> dict[str, tuple[str, str]]:
    """The same of a coordinator that is there."""
    found = drive(driver_of(coordinator).examine())
    return {each.subject.partition(": ")[2] or each.subject: each[::2] for each in found}


def test_findings_about_one_server() -> None:
    """One server, a long least session, few connections and open nodes are told."""
    settings = {"minSessionTimeout": "9000", "maxClientCnxns": "10"}
    with ZookeeperServer(settings=settings) as server:
        found = findings(server.url)
        assert found["9 s"][0] == "warning"
        assert found["maxClientCnxns: 10"][0] == "warning"
        assert found["standalone"][0] == "warning"
        assert found["no credentials"][0] == "note"
        named = findings(f"zookeeper://u:p@127.0.0.1:{server.port}", ttl=9)
        assert named["auth=digest without TLS"][0] == "note"
        assert not {"9 s", "no credentials"} & named.keys()


def test_findings_where_nothing_may_be_asked() -> None:
    """A server that allows no words is a note, and so is nothing else that is not known."""
    with ZookeeperServer(settings={"4lw.commands.whitelist": "srvr"}) as server:
        found = findings(server.url)
    assert found["4lw.commands.whitelist"][0] == "note"
    assert "standalone" in found


def test_findings_about_an_ensemble() -> None:
    """A member that is down, one that is cut off from the majority, and an even number are told."""
    with ZookeeperEnsemble(4, {"-Dreadonlymode.enabled": "true"}) as ensemble:
        with connect(ensemble.url, ttl=20) as a:
            a.lock("x").acquire().release()
            found = told(a)
            assert found["4 servers"][0] == "warning"
            assert "standalone" not in found
            for server in ensemble.servers[:3]:
                server.kill()
            until(lambda: "read-only" in ensemble.servers[3].word("srvr"), "a read-only server")
            found = told(a)
        assert found["read-only"][0] == "error"
        assert any(each[0] == "warning" and "does not answer" in each[1] for each in found.values())


# -- ensembles ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ensemble() -> Iterator[ZookeeperEnsemble]:
    """Three servers for all."""
    with ZookeeperEnsemble() as ensemble:
        yield ensemble


def test_the_leader_is_killed(ensemble: ZookeeperEnsemble) -> None:
    """Over the death of the leader leases are kept, waiters served, and watches go on."""
    space = uuid.uuid4().hex
    with (
        connect(ensemble.url, ttl=30, namespace=space) as a,
        connect(ensemble.url, ttl=30, namespace=space) as b,
    ):
        lease = a.lock("x").acquire()
        group = b.group("g")
        group.create(exist_ok=True)
        tokens: list[int] = []

        def wait() -> None:
            with b.lock("x", timeout=60) as other:
                tokens.append(other.token)

        waiter = threading.Thread(target=wait)
        waiter.start()
        until(lambda: len(drive(driver_of(a).census("x"))) == 2, "the waiter to queue")
        with group.watch() as watch:
            leader = ensemble.leader
            leader.kill()
            until(lambda: lease.state is tenure.State.HELD and _renewed(a), "a renewal")
            member = until(lambda: _joined(a), "a member")
            until(lambda: _tells_of(watch, member.id), "the watch to tell of the member")
        lease.release()
        waiter.join(60)
        assert tokens
        assert tokens[0] > lease.token
        member.leave()
        leader.start()
        until(lambda: len(ensemble.followers) == 2, "the ensemble to be whole")


def _renewed(coordinator: tenure.Coordinator) -> bool:
    try:
        drive(driver_of(coordinator).renew(session_of(coordinator)._life.id))
    except tenure.Unavailable:
        return False
    return True


def _tells_of(watch: tenure.Watch, id: str) -> bool:
    change = watch.next(timeout=1)
    return change is not None and change.member is not None and change.member.id == id


def _joined(coordinator: tenure.Coordinator) -> Any:
    with contextlib.suppress(tenure.Unavailable):
        return coordinator.group("g").join()
    return None


def test_a_server_that_stops_is_left(ensemble: ZookeeperEnsemble) -> None:
    """When the client's server is stopped, its session goes on with another, and is renewed."""
    with connect(ensemble.url, ttl=15) as a:
        lease = a.lock("x").acquire()
        port = link_of(a)._handler.socket.getpeername()[1]
        server = next(each for each in ensemble.servers if each.port == port)
        session = session_of(a)._life.id
        server.pause()
        try:
            until(lambda: _renewed(a) and lease.held(), "a renewal by another server")
            assert link_of(a)._handler.socket.getpeername()[1] != port
            assert session_of(a)._life.id == session
            assert a.lock("x").try_acquire() is None
            lease.release()
        finally:
            server.resume()
        until(lambda: len(ensemble.followers) == 2, "the ensemble to be whole")


def test_what_is_read_is_current(ensemble: ZookeeperEnsemble) -> None:
    """What one client wrote another reads at once, whichever servers they talk to."""
    space = uuid.uuid4().hex
    urls = [each.url for each in ensemble.servers]
    with contextlib.ExitStack() as stack:
        drivers = [driver_of(stack.enter_context(connect(url, namespace=space))) for url in urls]
        version = None
        for number in range(30):
            writer, reader = drivers[number % 3], drivers[(number + 1) % 3]
            version = drive(writer.record("r", str(number), version))
            assert drive(reader.recall("r")) == (str(number), version)

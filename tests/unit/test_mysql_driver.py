"""The MySQL driver on a real MariaDB: its tokens, its readers, and when a loss is told."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

import tenure
import tenure.aio
from support.connects import connected_at_once
from support.gates import check_closed
from tenure._model import Finding
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.mysql import MysqlDriver
from tenure.errors import (
    AuthenticationFailed,
    BackendError,
    InvalidURL,
    StorageError,
    Unavailable,
    Unsupported,
)
from tenure.testing.servers import MysqlServer
from tenure.testing.servers._run import HOST, free_port
from tenure.wires import _mysql_connect, mysql_thread
from tenure.wires._mysql_packets import PACKET_MAX, Malformed, Replies, query

SECRET = "s3cret-word"
LIMIT = 30.0


@pytest.fixture(scope="module")
def server() -> Iterator[MysqlServer]:
    """One server for all tests of this module."""
    with MysqlServer(password=SECRET) as server:
        yield server


@pytest.fixture
def connect(server: MysqlServer) -> Iterator[Callable[..., tenure.Coordinator]]:
    """Coordinators that are closed in the end; with a long TTL, so that nothing ends by itself."""
    with contextlib.ExitStack() as stack:

        def connected(url: str = "", **options: Any) -> tenure.Coordinator:
            return stack.enter_context(tenure.connect(url or server.url, **{"ttl": 15} | options))

        yield connected


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition, and fail if it does not come true."""
    give_up = tenure.now() + LIMIT
    pause = ThreadRuntime()
    while not condition():
        assert tenure.now() < give_up, f"waited in vain for {what}"
        drive(pause.sleep(tenure.now() + 0.01))


def waits(server: MysqlServer, count: int) -> bool:
    """Whether so many connections stand in the queue for a lock."""
    return len(waiting(server)) == count


def waiting(server: MysqlServer) -> list[str]:
    """The numbers of the connections that wait for a lock."""
    listed = "SELECT id FROM information_schema.PROCESSLIST WHERE state = 'User lock'"
    return server.sql(listed).split()


def background(work: Callable[[], Any]) -> tuple[list[Any], Callable[[], bool]]:
    """Run work on a thread; its results, and whether it has ended."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except tenure.TenureError as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return results, lambda: not thread.is_alive()


def main_number(coordinator: Any) -> int:
    """The number of the connection that carries a coordinator's locks."""
    session = coordinator._session.driver.session
    assert session is not None
    return int(session.main.number)


# -- tokens ---------------------------------------------------------------------


def test_tokens_rise_over_restarts() -> None:
    """After a stop, and after a crash, tokens are higher than before."""
    with MysqlServer() as server:
        tokens = []
        for graceful in (True, False, True):
            with tenure.connect(server.url) as coordinator, coordinator.lock("x") as lease:
                tokens.append(lease.token)
            server.restart(graceful=graceful)
        with tenure.connect(server.url) as coordinator, coordinator.lock("x") as lease:
            tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


def test_a_waiter_draws_its_token_when_it_is_granted(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """A token drawn by another lock while somebody waits is lower than the one of who waited."""
    a, b = connect(), connect()
    held = a.lock("slow").acquire()
    results, ended = background(lambda: b.lock("slow").acquire(timeout=LIMIT))
    until(lambda: waits(server, 1), "the waiter")
    between = a.lock("other").acquire()
    held.release()
    until(ended, "the grant")
    (lease,) = results
    assert held.token < between.token < lease.token
    lease.release()
    between.release()


def test_tokens_that_would_fall_are_refused() -> None:
    """A server whose numbers are lower than those it gave out before is not used."""
    with MysqlServer() as server:
        with tenure.connect(server.url) as coordinator, coordinator.lock("x"):
            pass
        server.sql("UPDATE tenure.tenure_connection SET token = token + (1 << 40) WHERE number = 0")
        with pytest.raises(BackendError, match="server_id"):
            tenure.connect(server.url)
        server.sql("DELETE FROM tenure.tenure_connection")
        with tenure.connect(server.url) as coordinator, coordinator.lock("x"):
            pass


# -- losses -----------------------------------------------------------------------


def test_a_killed_connection_is_a_loss_at_once(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """An operator's KILL ends the lease without a call, and another coordinator is granted."""
    a, b = connect(), connect()
    lease = a.lock("x").acquire()
    server.sql(f"KILL {main_number(a)}")
    until(lambda: lease.lost.is_set(), "the loss")
    assert not lease.held()
    b.lock("x").acquire(timeout=LIMIT).release()
    a.lock("x").acquire(timeout=LIMIT).release()


def test_a_silent_connection_is_a_loss(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """A connection that the server ends because it was idle takes its lease with it."""
    a = connect(ttl=60)
    lease = a.lock("x").acquire()
    drive(a._session.driver.session.main.run(b"SET SESSION wait_timeout = 1"))  # type: ignore[attr-defined]
    until(lambda: lease.lost.is_set(), "the loss")
    assert "connection" in str(lease.reason)


def test_threads_that_connect_at_once_are_all_closed(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two threads that connect at the same moment, neither forgets the other's connection."""
    made = connected_at_once(server.url, mysql_thread.ThreadWire, monkeypatch)
    assert len(made) == 2
    assert all(link._finished for link in made)


def test_what_ends_as_somebody_comes_is_closed(
    connect: Callable[..., tenure.Coordinator],
) -> None:
    """A connection that ends just when somebody begins to use it leaves no descriptor open."""

    def use(link: Any) -> None:
        with pytest.raises(Unavailable, match="ended meanwhile"):
            drive(link.ping())

    check_closed(connect(), use, early=True)


@pytest.mark.parametrize("work", ["run", "ping"])
def test_what_ends_at_the_last_moment_is_closed(
    connect: Callable[..., tenure.Coordinator], work: str
) -> None:
    """A connection that ends just when its user lets go of it leaves no descriptor open."""
    check_closed(connect(), lambda link: drive(getattr(link, work)(b"SELECT 1")))


def test_a_restart_ends_every_lease(connect: Callable[..., tenure.Coordinator]) -> None:
    """When the server goes, holder and waiter know; when it is back, a new session is begun."""
    with MysqlServer() as server, tenure.connect(server.url) as a, tenure.connect(server.url) as b:
        lease = a.lock("x").acquire()
        results, ended = background(lambda: b.lock("x").acquire(timeout=LIMIT))
        until(lambda: waits(server, 1), "the waiter")
        server.restart(graceful=False)
        until(lambda: lease.lost.is_set(), "the loss")
        until(ended, "the waiter to be granted in its new session")
        (waited,) = results
        assert waited.token > lease.token
        waited.release()


def test_a_wait_that_an_operator_calls_off_goes_on(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """KILL QUERY on a waiter is no time-out: it waits again, and is granted once."""
    a, b = connect(), connect()
    held = a.lock("x").acquire()
    results, ended = background(lambda: b.lock("x").acquire(timeout=LIMIT))
    until(lambda: waits(server, 1), "the waiter")
    (number,) = waiting(server)
    server.sql(f"KILL QUERY {number}")
    until(lambda: waits(server, 1), "the waiter to wait again")
    held.release()
    until(ended, "the grant")
    results[0].release()
    a.lock("x").acquire(timeout=LIMIT).release()


# -- readers ------------------------------------------------------------------------


def test_readers_take_over_from_each_other(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """Whichever reader goes first, a writer waits for the last one, and the next reader for it."""
    clients = [connect() for _ in range(3)]
    writer = connect()
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2)):
        leases = [client.lock("r", shared=True).acquire() for client in clients]
        assert waits(server, 2), "all readers but the first stand in a queue"
        for index in order:
            assert writer.lock("r").try_acquire() is None
            assert leases[index].held()
            leases[index].release()
        lease = writer.lock("r").try_acquire()
        assert lease is not None
        assert lease.token > max(each.token for each in leases)
        assert clients[0].lock("r", shared=True).try_acquire() is None
        lease.release()
    until(lambda: waits(server, 0), "nobody to wait")


def test_a_reader_that_dies_leaves_the_others_in(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """When the reader goes that has the server's lock, the next one has it, and no writer."""
    a, b, writer = connect(), connect(), connect()
    first, second = (each.lock("r", shared=True).acquire() for each in (a, b))
    server.sql(f"KILL {main_number(a)}")
    until(lambda: first.lost.is_set(), "the loss")
    until(lambda: waits(server, 0), "the next reader to have the lock")
    assert writer.lock("r").try_acquire() is None
    assert second.held()
    # Called up by the server, its connection is idle now, and is kept alive by renewals.
    drive(b._session.driver.renew(b._session.alive.id))  # type: ignore[union-attr]
    second.release()
    writer.lock("r").acquire(timeout=LIMIT).release()


def test_a_reader_in_the_queue_knows_that_it_was_ended(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """The end of the connection on which a reader stands in the queue ends its lease.

    Nobody is in a call on that connection, and it is closed nevertheless.
    """
    a, b = connect(), connect()
    first, second = (each.lock("r", shared=True).acquire() for each in (a, b))
    (number,) = waiting(server)
    driver: Any = b._session.driver
    links = list(driver._wire._links)
    assert any(each.asking for each in links)
    server.sql(f"KILL {number}")
    until(lambda: second.lost.is_set(), "the loss")
    until(lambda: all(each._socket.fileno() < 0 for each in links), "the closing")
    assert first.held()
    first.release()


def test_a_waiting_writer_is_not_overtaken(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """New readers queue up behind a writer that waits for those who are in."""
    a, b, writer = connect(), connect(), connect()
    first = a.lock("r", shared=True).acquire()
    results, ended = background(lambda: writer.lock("r").acquire(timeout=LIMIT))
    until(lambda: waits(server, 1), "the writer")
    assert b.lock("r", shared=True).try_acquire() is None
    assert a.lock("r", shared=True).try_acquire() is None
    first.release()
    until(ended, "the writer's grant")
    results[0].release()
    b.lock("r", shared=True).acquire(timeout=LIMIT).release()


# -- names, rights, limits ----------------------------------------------------------


def test_names_are_told_apart(connect: Callable[..., tenure.Coordinator]) -> None:
    """Case, accents, blanks at the end and what follows 64 letters all make another lock."""
    a, b = connect(), connect()
    names = ["lock", "LOCK", "löck", "lock ", "x" * 64, "x" * 65]
    leases = [a.lock(name).acquire() for name in names]
    assert all(b.lock(name).try_acquire() is None for name in names)
    for lease in leases:
        lease.release()


def test_namespaces_and_databases_are_apart(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """The same name in another namespace or another database is another lock."""
    server.sql("CREATE DATABASE other; GRANT ALL ON other.* TO 'tenure'@'%'")
    here = connect()
    others = (connect(namespace="n"), connect(server.url.removesuffix("/tenure") + "/other"))
    with here.lock("x"):
        for other in others:
            lease = other.lock("x").try_acquire()
            assert lease is not None
            lease.release()


def test_locks_need_no_rights(server: MysqlServer) -> None:
    """Who may not make tables has locks all the same; the rest says what to run."""
    server.sql("CREATE DATABASE bare; CREATE USER poor@'%'; GRANT SELECT ON bare.* TO poor@'%'")
    url = f"mysql://poor@127.0.0.1:{server.port}/bare"
    with tenure.connect(url) as a, tenure.connect(url) as b:
        with a.lock("x"):
            assert b.lock("x").try_acquire() is None
            holder = b.lock("x").holder()
            assert holder is not None
            assert holder.owner.startswith("connection ")
        with pytest.raises(AuthenticationFailed, match="CREATE TABLE"):
            a.semaphore("s", 2).acquire(timeout=5)


def test_locks_need_no_database(server: MysqlServer) -> None:
    """Without a database there are locks, and an error that says what the rest needs."""
    url = server.url.removesuffix("/tenure")
    with tenure.connect(url) as coordinator:
        with coordinator.lock("x"):
            pass
        with pytest.raises(InvalidURL, match="database"):
            coordinator.semaphore("s", 2).acquire(timeout=5)


def test_what_is_too_long_is_refused_and_harms_nothing() -> None:
    """A record longer than the server's packets is a StorageError, and the session lives on."""
    with (
        MysqlServer(settings={"max-allowed-packet": "65536"}) as server,
        tenure.connect(server.url) as coordinator,
        coordinator.lock("x") as lease,
    ):
        with pytest.raises(StorageError, match="max_allowed_packet"):
            coordinator.election("e").campaign(value="x" * 65500, timeout=5)
        lease.check()


def test_the_owners_of_the_dead_are_forgotten(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """What a killed coordinator has written down is removed by another's renewals."""
    a, b = connect(), connect()
    a.lock("x").acquire().release()
    b.lock("x").acquire().release()
    number = main_number(a)
    row = f"SELECT COUNT(*) FROM tenure.tenure_connection WHERE number = {number}"
    assert server.sql(row) == "1"
    server.sql(f"KILL {number}")
    session = b._session
    assert session.alive is not None

    def swept() -> bool:
        assert session.alive is not None
        drive(session.driver.renew(session.alive.id))
        return server.sql(row) == "0"

    until(swept, "the row to be gone")


def test_a_name_is_known_once_it_was_held_for_long(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """Two renewals after a lock was taken, an operator is told its name, without any plugin too."""
    a = connect(namespace="named")
    driver: Any = a._session.driver
    with a.lock("some name"):
        assert a._session.alive is not None
        for _ in range(2):
            drive(driver.renew(a._session.alive.id))
        assert [each.name for each in a.status()] == ["some name"]
        with contextlib.ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr("tenure.drivers._mysql_notes._OF_PLUGIN", b"SELECT * FROM no.such_table")
            assert [each.name for each in a.status()] == ["some name"]
    assert a.status() == ()


def test_who_waits_is_counted(
    server: MysqlServer, connect: Callable[..., tenure.Coordinator]
) -> None:
    """An operator is told how many wait for a lock, of writers and of readers."""
    a, others = connect(namespace="waits"), [connect(namespace="waits") for _ in range(3)]

    def counted() -> list[tuple[bool, int, int | None]]:
        return [(each.shared, len(each.holders), each.waiters) for each in a.status()]

    def waiter(number: int, shared: bool) -> threading.Thread:
        lock = others[number].lock("x", shared=shared)
        thread = threading.Thread(target=lambda: lock.acquire(30).release())
        thread.start()
        return thread

    lease = a.lock("x").acquire()
    assert counted() == [(False, 1, 0)]
    threads = [waiter(0, False)]
    until(lambda: counted() == [(False, 1, 1)], "the writer to be counted")
    threads.append(waiter(1, True))
    until(lambda: counted() == [(False, 1, 2)], "the reader to be counted")
    lease.release()
    for thread in threads:
        thread.join()
    assert counted() == []
    readers = [each.lock("x", shared=True).acquire() for each in others]
    until(lambda: counted() == [(True, 3, 0)], "the readers that stand in the queue to be in")
    writer = threading.Thread(target=lambda: a.lock("x").acquire(30).release())
    writer.start()
    until(lambda: counted() == [(True, 3, 1)], "who waits for readers to be counted")
    for lease in readers:
        lease.release()
    writer.join()


# -- servers that will not do -----------------------------------------------------------


def test_a_read_only_server_is_passed_over(server: MysqlServer) -> None:
    """A replica is not locked on; with the primary named too, that one is used."""
    with MysqlServer(password=SECRET, settings={"read-only": "ON"}) as replica:
        with pytest.raises(Unavailable, match="read-only"):
            tenure.connect(replica.url)
        both = server.url.replace("@127.0.0.1", f"@127.0.0.1:{replica.port},127.0.0.1")
        with tenure.connect(both) as coordinator, coordinator.lock("x"):
            assert waits(server, 0)


class GaleraNode(MysqlServer):
    """A node of a Galera cluster on this machine: the first, or one that joins another's.

    Nothing is copied to who joins, so all nodes get their users and tables one by one.
    """

    def __init__(self, first: GaleraNode | None = None) -> None:
        self.cluster = f"{HOST}:{free_port()}"
        options = f"gmcast.listen_addr=tcp://{self.cluster};ist.recv_addr={HOST}:{free_port()}"
        super().__init__(
            settings={
                "wsrep-on": "ON",
                "wsrep-provider": "/usr/lib/galera/libgalera_smm.so",
                "wsrep-provider-options": f"{options};gcache.size=1M",
                "wsrep-cluster-address": f"gcomm://{first.cluster if first else ''}",
                "wsrep-node-address": HOST,
                "wsrep-sst-method": "skip",
                "binlog-format": "ROW",
                "innodb-autoinc-lock-mode": "2",
            }
        )

    def sql(self, text: str) -> str:
        return super().sql(f"SET SESSION wsrep_on = OFF; {text}")


def test_the_locks_of_a_galera_cluster_are_its_nodes_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Two nodes grant one lock, so a client of a cluster is warned, and the doctor calls it an
    error."""
    with GaleraNode() as first, tenure.connect(first.url):
        assert "Galera" not in caplog.text
        with GaleraNode(first) as second:
            until(lambda: _nodes(first) == 2, "the nodes to find each other")
            assert found(first)["wsrep_cluster_size"].severity == "error"
            with tenure.connect(first.url) as coordinator, coordinator.lock("x"):
                assert "a Galera cluster of 2" in caplog.text
                places = first.sql(_LOCKS).split()
                assert places
                for place in places:
                    assert second.sql(f"SELECT GET_LOCK('{place}', 0)") == "1"


_LOCKS = (
    "SELECT TABLE_SCHEMA FROM information_schema.METADATA_LOCK_INFO WHERE LOCK_TYPE = 'User lock'"
)


def _nodes(node: GaleraNode) -> int:
    return int(node.sql("SHOW STATUS LIKE 'wsrep_cluster_size'").split()[1])


def test_a_load_balancer_is_refused(connect: Callable[..., tenure.Coordinator]) -> None:
    """A second connection that leads to another server than the first one is a typed error."""
    a, b = connect(), connect()
    held = a.lock("x").acquire()
    b.lock("y").acquire().release()
    driver: Any = b._session.driver
    driver._server = (b"another-host", *driver._server[1:])
    with pytest.raises(Unsupported, match="load balancer"):
        b.lock("x").acquire(timeout=5)
    held.release()


def test_refused_credentials_give_nothing_away(server: MysqlServer) -> None:
    """A wrong password and an unknown database are typed errors, without the password."""
    for url, kind in (
        (server.url.replace(SECRET, "wr0ng-word"), AuthenticationFailed),
        (server.url.removesuffix("/tenure") + "/missing", BackendError),
    ):
        with pytest.raises(kind) as caught:
            tenure.connect(url)
        assert "wr0ng-word" not in str(caught.value)
        assert SECRET not in str(caught.value)
        assert SECRET not in repr(caught.value.__cause__)


def test_a_missing_package_is_named(server: MysqlServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyMySQL cannot encrypt the password, the error says what helps."""

    def refuse(*_: object) -> None:
        raise RuntimeError("'cryptography' package is required")

    monkeypatch.setattr(pymysql.connections.Connection, "connect", refuse)
    with pytest.raises(AuthenticationFailed, match=r"PyMySQL\[rsa\]"):
        tenure.connect(server.url)


def test_bad_urls_are_named() -> None:
    """What a URL lacks or has too much is an `InvalidURL` that says so."""
    for url, word in (
        ("mysql://", "host"),
        ("mysql://h/a/b", "path"),
        ("mysql://h/d?ca=/x", "tls=true"),
        ("mysql://h/d?tls=true&key=/x", "cert"),
        ("mysql://h/d?socket=/x", "socket"),
        ("mysql://h/d?nonsense=1", "nonsense"),
        ("mysql://h/d?tls=true&ca=/no/such/file", "TLS"),
    ):
        with pytest.raises(InvalidURL, match=word):
            tenure.connect(url)


def test_a_socket_file_will_do(server: MysqlServer) -> None:
    """Over the socket file, locks are the same as over the network."""
    url = f"mysql://tenure:{SECRET}@/tenure?socket={server.socket_file}"
    with tenure.connect(url) as a, tenure.connect(server.url) as b, a.lock("x"):
        assert b.lock("x").try_acquire() is None


# -- findings ---------------------------------------------------------------------------


def found(server: MysqlServer, url: str = "") -> dict[str, Finding]:
    """The findings, by the first word of their subjects."""
    driver = MysqlDriver(Url.parse(url or server.url), ThreadRuntime(), "tests", 9.0)
    drive(driver.open())
    try:
        return {each.subject.split()[0]: each for each in drive(driver.examine())}
    finally:
        drive(driver.close())


def test_a_server_that_is_set_up_badly_is_found_out() -> None:
    """Each setting that would break coordination is a finding, and says what to do."""
    settings = {
        "server-id": "200",
        "log-bin": "on",
        "max-allowed-packet": "65536",
        "max-connections": "12",
    }
    with MysqlServer(settings=settings) as server:
        with tenure.connect(server.url) as coordinator, coordinator.lock("x"):
            pass
        server.sql("ALTER TABLE tenure.tenure_document ENGINE=MyISAM")
        with contextlib.ExitStack() as stack:
            for _ in range(10):
                stack.enter_context(
                    pymysql.connect(host="127.0.0.1", port=server.port, user="tenure")
                )
            findings = found(server)
    expected = {
        "server_id": "note",
        "log_bin": "note",
        "max_allowed_packet": "warning",
        "max_connections": "warning",
        "innodb_flush_log_at_trx_commit": "note",
        "tenure_document": "error",
        "SHOW": "note",  # the user may not ask whether it is a replica
    }
    assert {name: each.severity for name, each in findings.items()} == expected
    assert all(each.text and each.advice for each in findings.values())


def test_a_good_server_has_no_findings() -> None:
    """With the rights to look at everything, and nothing amiss, nothing is found."""
    with MysqlServer(settings={"innodb-flush-log-at-trx-commit": "1"}) as server:
        server.sql("GRANT SLAVE MONITOR ON *.* TO 'tenure'@'%'")
        assert found(server) == {}


def test_what_changes_while_connected_is_found() -> None:
    """A server that became read-only, or a follower, and locks that are not listed, are told."""
    with MysqlServer() as server:
        server.sql("GRANT SLAVE MONITOR, READ_ONLY ADMIN ON *.* TO 'tenure'@'%'")
        server.sql("UNINSTALL SONAME 'metadata_lock_info'")
        server.sql("CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_USER='x'")
        driver = MysqlDriver(Url.parse(server.url), ThreadRuntime(), "tests", 9.0)
        drive(driver.open())
        server.sql("SET GLOBAL read_only = 1")
        findings = {each.subject: each.severity for each in drive(driver.examine())}
        drive(driver.close())
    assert findings["read_only ON"] == "error"
    assert findings["SHOW REPLICA STATUS"] == "warning"
    assert findings["locks are not listed"] == "note"


def test_without_a_database_that_is_found(server: MysqlServer) -> None:
    """A URL without a database is a warning."""
    assert found(server, server.url.removesuffix("/tenure"))["no"].severity == "warning"


# -- packets -----------------------------------------------------------------------------


def _packet(number: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes([number]) + payload


def test_replies_may_be_cut_anywhere() -> None:
    """A result and an OK are the same however the bytes arrive."""
    end = b"\xfe\0\0\2\0"
    rows = [_packet(5, b"\1a\xfb"), _packet(6, b"\xfc\x2c\1" + b"x" * 300 + b"\0")]
    result = b"".join(
        [_packet(1, b"\2"), _packet(2, b"col"), _packet(3, b"col"), _packet(4, end), *rows]
    ) + _packet(7, end)
    whole = Replies().feed(result)
    assert whole is not None
    assert whole.rows == [(b"a", None), (b"x" * 300, b"")]
    replies = Replies()
    for _ in range(2):
        parts = [replies.feed(result[at : at + 1]) for at in range(len(result))]
        assert parts[-1] == whole
        assert not any(parts[:-1])
    ok = replies.feed(_packet(1, b"\0\7\0\2\0\0\0"))
    assert ok is not None
    assert ok.changed == 7


def test_errors_and_rubbish_are_told_apart() -> None:
    """An error has its number and text; what is no reply is `Malformed`."""
    reply = Replies().feed(_packet(0, b"\xff\x1d\x04#HY000gone"))
    assert reply is not None
    assert reply.trouble == (1053, "gone", False)
    for rubbish in (b"\xfb", b"", b"\xfd\1"):
        with pytest.raises(Malformed):
            Replies().feed(_packet(1, rubbish))


def test_a_long_statement_is_several_packets() -> None:
    """A statement of the length of a packet or two is cut, with an empty packet at the end."""
    for size in (PACKET_MAX - 1, PACKET_MAX, 2 * PACKET_MAX - 1):
        sent, number = query(b"x" * size), 0
        lengths = []
        while sent:
            length = int.from_bytes(sent[:3], "little")
            assert sent[3] == number
            lengths.append(length)
            sent, number = sent[4 + length :], number + 1
        assert sum(lengths) == size + 1
        assert lengths[-1] < PACKET_MAX
        assert all(each == PACKET_MAX for each in lengths[:-1])


def test_a_target_does_not_show_its_password() -> None:
    """Nobody reads the password in a representation."""
    target = _mysql_connect.Target("h", 1, "", "u", SECRET, "d", None)
    assert SECRET not in repr(target)


def test_a_cancelled_connect_leaves_no_connection(
    server: MysqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is cancelled while the thread logs in leaves a connection that is closed there."""
    begun, go = threading.Event(), threading.Event()
    made: list[_mysql_connect.Greeted] = []

    def slow(target: _mysql_connect.Target, seconds: float) -> _mysql_connect.Greeted:
        begun.set()
        assert go.wait(LIMIT)
        made.append(_mysql_connect.greet(target, seconds))
        return made[0]

    monkeypatch.setattr("tenure.wires.mysql_loop.greet", slow)

    async def main() -> None:
        async def connect() -> None:
            await tenure.aio.connect(server.url)

        task = asyncio.ensure_future(connect())
        assert await asyncio.to_thread(begun.wait, LIMIT)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()

    asyncio.run(main())
    assert [each.socket.fileno() for each in made] == [-1]

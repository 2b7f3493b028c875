"""What is particular to the driver over tables on a server: connections, rights, clocks, errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure._runtime.thread import ThreadRuntime, drive
from tenure.cli import ExitCode, main
from tenure.errors import BackendError
from tenure.testing.backends import Backend, SqlMariadbBackend, SqlPostgresqlBackend
from tenure.testing.proxy import Proxy
from tenure.testing.servers import PostgresServer, find_program
from tenure.wires.sql import Duplicate

TTL = 3.0


@pytest.fixture(scope="module")
def postgresql() -> Iterator[SqlPostgresqlBackend]:
    """A server for the whole module."""
    backend = SqlPostgresqlBackend()
    backend.start()
    yield backend
    backend.stop()


@pytest.fixture(scope="module")
def mariadb() -> Iterator[SqlMariadbBackend]:
    """A server for the whole module."""
    backend = SqlMariadbBackend()
    backend.start()
    yield backend
    backend.stop()


@pytest.fixture(params=["postgresql", "mariadb"])
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each server in turn."""
    backend: Backend = request.getfixturevalue(request.param)
    return backend


def driver_of(coordinator: Any) -> Any:
    """The driver inside."""
    return coordinator._session.driver


def counted(coordinator: Any) -> list[str]:
    """Every statement from now on, as it is sent."""
    pool, sent = driver_of(coordinator).pool, []
    for name in ("rows", "change"):
        real = getattr(pool, name)

        async def noted(statement: str, values: Any = (), real: Any = real) -> Any:
            sent.append(statement)
            return await real(statement, values)

        setattr(pool, name, noted)
    return sent


def server_of(backend: Backend) -> Any:
    """The server, with the methods of its own kind."""
    assert backend.server is not None
    return backend.server


# -- the URL -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("sql://host/db", r"sql\+dialect\+module"),
        ("sql+://host/db", r"sql\+dialect\+module"),
        ("sql+oracle+oracledb://host/db", "dialects: mariadb, mysql, postgresql"),
        ("sql+postgresql+nothing://host/db", "SQLAlchemy has no dialect"),
        ("sql+postgresql+asyncpg://host/db", "blocking module"),
        ("sql+mysql+aiomysql://host/db", "blocking module"),
        ("sql+postgresql://one,two/db", "one host"),
        ("sql+postgresql://host/db?pool_size=0", "pool_size"),
        ("sql+postgresql://host/db?pool_size=1000", "pool_size"),
        ("sql+postgresql+psycopg2://host/db?nonsense=1&pool_size=x", "pool_size"),
    ],
)
def test_urls_that_cannot_work(url: str, told: str) -> None:
    """Whatever is wrong with a URL is named, and nothing is connected to."""
    with pytest.raises(tenure.InvalidURL, match=told):
        tenure.connect(url)


def test_a_module_that_is_missing() -> None:
    """The error says what to install."""
    with pytest.raises(tenure.UnknownDriver, match="pip install 'mysqlclient'"):
        tenure.connect("sql+mysql+mysqldb://host/db")


def test_an_option_that_nobody_knows(backend: Backend) -> None:
    """What is not ours goes to the module, which refuses it; that is an error of the URL."""
    with pytest.raises(tenure.InvalidURL):
        tenure.connect(f"{backend.url}?nonsense=1")


def test_certificates_are_read_for_whom_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyMySQL reads the system's certificates for no connection of a URL that wants no TLS."""
    import pymysql.connections

    read = []
    monkeypatch.setattr(
        pymysql.connections.Connection, "_create_ssl_ctx", lambda self, given: read.append(given)
    )
    with pytest.raises(tenure.Unavailable):
        tenure.connect("sql+mariadb+pymysql://127.0.0.1:1/x", ttl=1)
    assert not read


def test_a_certificate_that_is_not_there() -> None:
    """A URL that wants TLS with a file that cannot be read is refused, and the file named."""
    with pytest.raises(tenure.InvalidURL, match="No such file"):
        tenure.connect("sql+mariadb+pymysql://127.0.0.1:1/x?ssl_ca=/nowhere.pem", ttl=1)


def test_a_server_that_is_not_there() -> None:
    """Nobody listens: `Unavailable`, at once."""
    for dialect in ("postgresql", "mariadb"):
        with pytest.raises(tenure.Unavailable) as told:
            tenure.connect(f"sql+{dialect}://app:s3cret@127.0.0.1:1/db")
        assert not isinstance(told.value, tenure.OutcomeUnknown)
        assert "s3cret" not in str(told.value)


def test_a_wrong_password() -> None:
    """The credentials are refused; no error, and no repr, shows them."""
    with PostgresServer(password="right-one") as server:
        url = "sql+postgresql+psycopg" + server.url.removeprefix("postgresql")
        tenure.connect(url).close()
        wrong = url.replace("right-one", "wrong-one")
        with pytest.raises(tenure.AuthenticationFailed) as told:
            tenure.connect(wrong)
        assert "wrong-one" not in f"{told.value!r} {told.value.__cause__!r}"


# -- statements and connections ----------------------------------------------------------------


def test_one_statement_each(backend: Backend) -> None:
    """A free lock that was used before is taken by one statement and freed by one."""
    with tenure.connect(backend.url, namespace="statements") as coordinator:
        lock = coordinator.lock("name")
        lock.acquire().release()
        sent = counted(coordinator)
        lease = lock.acquire()
        assert len(sent) == 1
        lease.release()
        assert len(sent) == 2


def test_every_name_is_its_own(backend: Backend) -> None:
    """Names that differ in case, in an accent, or in a NUL are different locks, told as such."""
    names = [
        "name",
        "Name",
        "n\u00e4me",
        "na\u0308me",
        "n\0me",
        'n"m\\e%s',
        "\U0001f512",
        "n" * 1000,
    ]
    with tenure.connect(backend.url, namespace="\u0394\0") as coordinator:
        leases = [coordinator.lock(name).acquire(timeout=5) for name in names]
        assert {status.name for status in coordinator.status()} == set(names)
        for lease in leases:
            lease.release()


def test_a_server_that_was_restarted(backend: Backend) -> None:
    """A lease outlives a restart, and the next call makes a new connection without an error."""
    with tenure.connect(backend.url, namespace="restart", ttl=30) as coordinator:
        lease = coordinator.lock("name").acquire()
        coordinator.lock("other").acquire().release()
        server_of(backend).restart()
        with tenure.connect(backend.url, namespace="restart", ttl=30) as other:
            assert other.lock("name").try_acquire() is None
        coordinator.lock("other").acquire(timeout=20).release()
        lease.check()
        lease.release()


@pytest.mark.parametrize("flavour", ["thread", "asyncio"])
def test_a_reply_that_never_comes(backend: Backend, flavour: str) -> None:
    """The call ends in time, its outcome is unknown, and the connection is not used again."""
    server = server_of(backend)
    proxy = Proxy(server.host, server.port).start()
    url = server.url_at(proxy.port)

    async def silent(open_: Callable[..., Any], settle: Callable[[Any], Any]) -> None:
        coordinator = await settle(open_(url, ttl=TTL, namespace=f"silent-{flavour}"))
        try:
            await settle((await settle(coordinator.lock("name").acquire())).release())
            driver = driver_of(coordinator)
            session = coordinator._session.alive.id
            proxy.black_hole("to_client")
            began = tenure.now()
            with pytest.raises(tenure.OutcomeUnknown):
                await driver.claim(session, "roster", f"{session}.x", "", None)
            assert tenure.now() - began < TTL / 3 + 3
            proxy.heal()
            give_up = tenure.now() + 20
            while True:
                try:
                    roll = await driver.claim(session, "roster", f"{session}.x", "", None)
                    break
                except tenure.Unavailable:
                    assert tenure.now() < give_up
            assert roll.mine is not None
            assert roll.rank == 0
        finally:
            await settle(coordinator.close())

    async def at_once(value: Any) -> Any:
        return value

    async def awaited(value: Any) -> Any:
        return await value

    try:
        if flavour == "thread":
            drive(silent(tenure.connect, at_once))
        else:
            asyncio.run(silent(tenure.aio.connect, awaited))
    finally:
        proxy.close()


def test_a_pool_of_several(postgresql: SqlPostgresqlBackend) -> None:
    """With `pool_size`, so many connections are made at the most, and they all go at the end."""
    server = postgresql.server
    asked = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres' AND usename = 'tenure'"
    )
    with tenure.connect(f"{postgresql.url}?pool_size=3", namespace="pool") as coordinator:

        def work(number: int) -> None:
            for _ in range(20):
                coordinator.lock(f"lock-{number}").acquire(timeout=30).release()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert 1 <= int(server.psql(asked)) <= 3
    give_up = tenure.now() + 20
    while int(server.psql(asked)):
        assert tenure.now() < give_up, "a connection was left behind"


# -- the clock -----------------------------------------------------------------------------------

_HOLDER = """
import sys, tenure
with tenure.connect(sys.argv[1], ttl=float(sys.argv[2]), namespace=sys.argv[3]) as coordinator:
    lease = coordinator.lock("name").acquire(timeout=20)
    print(lease.token, flush=True)
    sys.stdin.readline()
    lease.check()
    lease.release()
    print("kept", flush=True)
"""


@pytest.mark.parametrize("shift", ["+1h", "-1h"])
def test_a_wrong_clock_changes_nothing(backend: Backend, shift: str) -> None:
    """Of two application servers one has a wrong clock: they exclude each other all the same."""
    name = f"clock{shift}"
    command = [find_program("faketime", "faketime"), "-f", shift, sys.executable, "-c", _HOLDER]
    process = subprocess.Popen(
        [*command, backend.url, str(TTL), name],
        env=os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"},
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process, tenure.connect(backend.url, ttl=TTL, namespace=name) as coordinator:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            token = int(process.stdout.readline())
            give_up = tenure.now() + 1.5 * TTL
            while tenure.now() < give_up:
                assert coordinator.lock("name").try_acquire() is None
                threading.Event().wait(0.05)
            process.stdin.write("\n")
            process.stdin.flush()
            assert process.stdout.readline() == "kept\n"
            lease = coordinator.lock("name").acquire(timeout=20)
            assert lease.token > token
            lease.release()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_the_clock_does_not_stand_still(backend: Backend) -> None:
    """Two statements of one connection are told two times, to better than a second."""
    with tenure.connect(backend.url) as coordinator:
        driver = driver_of(coordinator)
        first = drive(driver.database_now())
        before = tenure.now()
        threading.Event().wait(0.02)
        apart = drive(driver.database_now()) - first
        assert 0.01 <= apart <= tenure.now() - before + 5


def test_an_expired_session_takes_nothing(backend: Backend) -> None:
    """The statement that would enter a claim asks the clock, also for a roster that is new."""
    with tenure.connect(backend.url, ttl=30, namespace="expired") as coordinator:
        coordinator.lock("name").acquire().release()
        driver, life = driver_of(coordinator), coordinator._session.alive
        assert life is not None
        drive(driver.change("UPDATE tenure_session SET expires = 0"))
        for roster in ("new", ":name"):
            with pytest.raises(tenure.SessionLost):
                drive(driver.claim(life.id, roster, "id.1", "", None))
        with pytest.raises(tenure.SessionLost):
            drive(driver.renew(life.id))
        assert drive(driver.load("roster", "new"))[0] is None


# -- rights and tables ----------------------------------------------------------------------


def test_a_user_who_may_not_make_tables(capsys: pytest.CaptureFixture[str]) -> None:
    """The error names the command; with the tables that it prints, and rights, all works."""
    with PostgresServer() as server:
        url = "sql+postgresql+psycopg" + server.url.removeprefix("postgresql")
        server.psql("CREATE ROLE guest LOGIN; GRANT CONNECT ON DATABASE postgres TO guest;")
        guest = url.replace("//tenure@", "//guest@")
        with pytest.raises(tenure.AuthenticationFailed, match="tenure migrate"):
            tenure.connect(guest)
        assert main(["migrate", guest]) == ExitCode.FAILED
        assert main(["migrate", "--sql", guest]) == ExitCode.DONE
        server.psql(capsys.readouterr().out)
        with pytest.raises(tenure.AuthenticationFailed, match="permission denied"):
            tenure.connect(guest)
        tables = "tenure_schema, tenure_session, tenure_document"
        server.psql(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO guest;")
        with tenure.connect(guest) as coordinator:
            coordinator.lock("name").acquire().release()


def test_many_make_the_tables_at_once(backend: Backend) -> None:
    """Clients that find an empty database at the same moment all come in."""
    with tenure.connect(backend.url) as first:
        for table in ("tenure_schema", "tenure_session", "tenure_document"):
            drive(driver_of(first).change(f"DROP TABLE {table}"))
    failed: list[BaseException] = []
    gate = threading.Barrier(6)

    def enter() -> None:
        try:
            gate.wait(30)
            with tenure.connect(backend.url, ttl=30) as coordinator:
                coordinator.lock("name").acquire(timeout=30).release()
        except (tenure.TenureError, threading.BrokenBarrierError) as error:
            failed.append(error)

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed


def test_a_clash_over_the_type_of_the_rows_is_tried_again(
    postgresql: SqlPostgresqlBackend,
) -> None:
    """PostgreSQL makes a type with each table, and of two clients one may find just that."""
    server = server_of(postgresql)
    with tenure.connect(postgresql.url) as first:
        driver = driver_of(first)
        for table in ("tenure_schema", "tenure_session", "tenure_document"):
            drive(driver.change(f"DROP TABLE {table}"))
        server.psql("CREATE TYPE tenure_document AS ENUM ()")
        with pytest.raises(BackendError, match=r"tables cannot be made.*tenure_document"):
            drive(driver.migrate())
        change = driver.pool.change

        async def clash(*args: Any) -> int:
            try:
                return int(await change(*args))
            except Duplicate:
                server.psql("DROP TYPE IF EXISTS tenure_document")  # it was rolled back, say
                raise

        driver.pool.change = clash
        drive(driver.migrate())
        first.lock("name").acquire(timeout=30).release()


# -- findings ------------------------------------------------------------------------------


def found(url: str) -> dict[str, str]:
    """The findings: the severity of each, by its subject."""
    with tenure.connect(url) as coordinator:
        return {each.subject: each.severity for each in drive(driver_of(coordinator).examine())}


@pytest.mark.parametrize(
    ("setting", "value", "severity"),
    [
        ("default_transaction_read_only", "on", "error"),
        ("synchronous_commit", "off", "error"),
        ("default_transaction_isolation", "serializable", "warning"),
    ],
)
def test_settings_of_postgresql(
    postgresql: SqlPostgresqlBackend, setting: str, value: str, severity: str
) -> None:
    """What would break coordination is told, and no more once it is put right."""
    tenure.connect(postgresql.url).close()
    server = postgresql.server
    subject = f"{setting} = {value}"
    assert subject not in found(postgresql.url)
    server.psql(f"ALTER ROLE tenure SET {setting} = '{value}'")
    try:
        assert found(postgresql.url)[subject] == severity
    finally:
        server.psql(f"ALTER ROLE tenure RESET {setting}")


def test_a_server_that_does_not_flush(backend: Backend) -> None:
    """The servers of tests do not flush to the disk, which is a warning."""
    subjects = {"fsync = off", "innodb_flush_log_at_trx_commit = 0"}
    subjects |= {"innodb_flush_log_at_trx_commit = 2"}
    findings = found(backend.url)
    assert {findings.get(subject) for subject in subjects} == {None, "warning"}


def test_settings_of_mariadb(mariadb: SqlMariadbBackend) -> None:
    """A server that is read-only is an error, and an odd isolation a warning."""
    tenure.connect(mariadb.url).close()
    mariadb.server.sql("SET GLOBAL read_only = 1; SET GLOBAL tx_isolation = 'SERIALIZABLE'")
    try:
        findings = found(mariadb.url)
    finally:
        mariadb.server.sql("SET GLOBAL read_only = 0; SET GLOBAL tx_isolation = 'REPEATABLE-READ'")
    assert findings["read_only = 1"] == "error"
    assert findings["transaction_isolation = serializable"] == "warning"


def test_clocks_that_differ(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    """How far apart the clocks are is a note; it does no harm."""
    assert not [subject for subject in found(backend.url) if "clock" in subject]
    wall = ThreadRuntime.wall
    monkeypatch.setattr(ThreadRuntime, "wall", staticmethod(lambda: wall() - 100))
    (subject,) = [subject for subject in found(backend.url) if "clock" in subject]
    assert "100." in subject or "99." in subject
    assert "ahead of this machine's" in subject


def test_what_may_not_be_read(
    postgresql: SqlPostgresqlBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that is refused is a note, and the others are asked all the same."""
    from tenure.drivers import _sql_examine

    refused = _sql_examine.POSTGRESQL[0]._replace(question="TABLE pg_authid", subject="secret")
    monkeypatch.setattr(_sql_examine, "POSTGRESQL", (refused, *_sql_examine.POSTGRESQL))
    findings = found(postgresql.url)
    assert findings["secret"] == "note"
    assert findings["fsync = off"] == "warning"

"""What is particular to SQLite: its file, its locks, its clock, a fork, the machine's restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tenure
import tenure.aio
from tenure._runtime.thread import drive
from tenure.cli import ExitCode, main
from tenure.drivers import _file_examine, _sql_text
from tenure.testing.servers import find_program

TTL = 2.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A file that is not there yet."""
    return f"sqlite://{tmp_path}/locks.db"


@contextlib.contextmanager
def database(url: str) -> Iterator[sqlite3.Connection]:
    """The file, for a look behind the driver's back."""
    connection = sqlite3.connect(url.removeprefix("sqlite://"), timeout=10, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def driver_of(coordinator: tenure.Coordinator) -> Any:
    """The driver inside."""
    return coordinator._session.driver


def counted(coordinator: tenure.Coordinator) -> list[str]:
    """Every statement from now on, as it is sent."""
    pool, sent = driver_of(coordinator).pool, []
    for name in ("rows", "change"):
        real = getattr(pool, name)

        async def noted(statement: str, values: Any = (), real: Any = real) -> Any:
            sent.append(statement)
            return await real(statement, values)

        setattr(pool, name, noted)
    return sent


@pytest.mark.parametrize("end", ["released", "died"])
def test_a_waiter_who_is_told_the_same_sends_one_statement(url: str, end: str) -> None:
    """A release, and the end of the holder's session, are seen by the next look all the same."""
    with tenure.connect(url, ttl=TTL) as one, tenure.connect(url, ttl=TTL) as other:
        holder, waiter = driver_of(one), driver_of(other)
        holding = drive(holder.start("a", lambda reason: None))
        waiting = drive(waiter.start("b", lambda reason: None))
        assert drive(holder.claim(holding, "name", "1", "", 1)).rank == 0
        told = drive(waiter.claim(waiting, "name", "2", "", None))
        assert told.rank == 1
        assert drive(waiter.read(waiting, "name", "2")) == told
        sent = counted(other)
        assert drive(waiter.read(waiting, "name", "2")) == told
        assert len(sent) == 1
        if end == "released":
            drive(holder.withdraw(holding, "name", "1"))
        else:
            drive(holder.end(holding))  # its claim is still there
        after = drive(waiter.read(waiting, "name", "2"))
        assert (after.rank, after.before) == (0, None)
        assert [claim.id for claim in after.claims] == ["2"]


# -- the URL -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        *("sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite:////", "sqlite://host/file.db"),
        *("sqlite:///folder/", "sqlite:///file.db?mode=rw", "sql+sqlite:///file.db"),
    ],
)
def test_urls_that_cannot_work(wrong: str) -> None:
    """A database in memory, a folder, a host, an unknown option: refused, and it says why."""
    with pytest.raises(tenure.InvalidURL, match=r"sqlite|sql:"):
        tenure.connect(wrong)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """The file is made, its folder is not: a typed error that names the file."""
    with pytest.raises(tenure.StorageError, match=r"nowhere/locks\.db"):
        tenure.connect(f"sqlite://{tmp_path}/nowhere/locks.db")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    """Another kind of file is refused, and left as it is."""
    (tmp_path / "locks.db").write_text("no database " * 100)
    with pytest.raises(tenure.StorageError, match="not a database"):
        tenure.connect(f"sqlite://{tmp_path}/locks.db")
    assert (tmp_path / "locks.db").read_text().startswith("no database")


# -- statements ----------------------------------------------------------------------------


def test_one_statement_each(url: str) -> None:
    """A free lock that was used before is taken by one statement and freed by one."""
    with tenure.connect(url) as coordinator:
        lock = coordinator.lock("name")
        lock.acquire().release()
        sent = counted(coordinator)
        lease = lock.acquire()
        assert len(sent) == 1
        assert "EXISTS (SELECT 1 FROM tenure_session" in sent[0]
        lease.release()
        assert len(sent) == 2


def test_every_name_is_its_own(url: str) -> None:
    """Names that differ in case, in an accent, or in a NUL are different locks, told as such."""
    names = ["name", "Name", "n\u00e4me", "na\u0308me", "n\0me", 'n"m\\e', "\U0001f512", "n" * 1000]
    with tenure.connect(url, namespace="\u0394\0") as coordinator:
        leases = [coordinator.lock(name).acquire(timeout=5) for name in names]
        assert {status.name for status in coordinator.status()} == set(names)
        for lease in leases:
            lease.release()


# -- locked by somebody else -----------------------------------------------------------------


@pytest.mark.parametrize("flavour", ["thread", "asyncio"])
def test_a_file_that_is_kept_locked(url: str, flavour: str) -> None:
    """While another program is writing, a call is refused in time, and nothing was carried out."""

    async def with_asyncio() -> None:
        async with tenure.aio.connect(url, ttl=TTL) as coordinator:
            await (await coordinator.lock("name").acquire()).release()
            with database(url) as other:
                other.execute("BEGIN IMMEDIATE")
                began = tenure.now()
                with pytest.raises(tenure.Unavailable, match=r"locked|in use"):
                    await coordinator.lock("name").try_acquire()
                assert tenure.now() - began < 2 * TTL + 3
                other.execute("ROLLBACK")
            await (await coordinator.lock("name").acquire(timeout=10)).release()

    if flavour == "asyncio":
        asyncio.run(with_asyncio())
        return
    with tenure.connect(url, ttl=TTL) as coordinator:
        coordinator.lock("name").acquire().release()
        with database(url) as other:
            other.execute("BEGIN IMMEDIATE")
            began = tenure.now()
            with pytest.raises(tenure.Unavailable, match=r"locked|in use") as told:
                coordinator.lock("name").try_acquire()
            assert not isinstance(told.value, tenure.OutcomeUnknown)
            assert tenure.now() - began < 2 * TTL + 3
            other.execute("ROLLBACK")
        coordinator.lock("name").acquire(timeout=10).release()


def test_many_make_the_tables_at_once(url: str) -> None:
    """Clients that find a new file at the same moment all come in, and there is one schema."""
    failed: list[BaseException] = []
    gate = threading.Barrier(8)

    def enter() -> None:
        try:
            gate.wait(30)
            with tenure.connect(url, ttl=30) as coordinator:
                coordinator.lock("name").acquire(timeout=30).release()
        except (tenure.TenureError, threading.BrokenBarrierError) as error:
            failed.append(error)

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    with database(url) as other:
        assert other.execute("SELECT id, version FROM tenure_schema").fetchall() == [(1, 1)]


# -- the clock ---------------------------------------------------------------------------------

_HOLDER = """
import sys, tenure
with tenure.connect(sys.argv[1], ttl=float(sys.argv[2])) as coordinator:
    lease = coordinator.lock("name").acquire(timeout=20)
    print(lease.token, flush=True)
    sys.stdin.readline()
    lease.check()
    lease.release()
    print("kept", flush=True)
"""


def holder(url: str, shift: str) -> subprocess.Popen[str]:
    """A process that takes the lock, and whose wall clock is wrong."""
    command = [find_program("faketime", "faketime"), "-f", shift, sys.executable, "-c", _HOLDER]
    environment = os.environ | {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}
    return subprocess.Popen(
        [*command, url, str(TTL)],
        env=environment,
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """End it, and what it has started: the program that shifts the clock stays beside ours."""
    os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("shift", ["+1h", "-1h"])
def test_a_wrong_clock_changes_nothing(url: str, shift: str) -> None:
    """Who holds a lock keeps it past its TTL, and others out, whatever its wall clock says."""
    with tenure.connect(url, ttl=TTL) as coordinator, holder(url, shift) as process:
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
            kill(process)


def test_a_killed_holder_with_a_wrong_clock(url: str) -> None:
    """What it held is free after the TTL by the machine's clock, not an hour later."""
    with tenure.connect(url, ttl=TTL) as coordinator, holder(url, "+1h") as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline()
        finally:
            kill(process)
        began = tenure.now()
        coordinator.lock("name").acquire(timeout=60).release()
        assert tenure.now() - began < TTL + 15


def test_an_expired_session_takes_nothing(url: str) -> None:
    """The statement that would enter a claim asks the clock; the client then begins anew."""
    with tenure.connect(url, ttl=30) as coordinator:
        coordinator.lock("name").acquire().release()
        driver, before = driver_of(coordinator), coordinator._session.alive
        assert before is not None
        with database(url) as other:
            other.execute("UPDATE tenure_session SET expires = 0")
        with pytest.raises(tenure.SessionLost):
            drive(driver.claim(before.id, "roster", "id.1", "", None))
        with pytest.raises(tenure.SessionLost):
            drive(driver.renew(before.id))
        lease = coordinator.lock("name").acquire(timeout=10)
        assert coordinator._session.alive is not before
        lease.release()


def test_what_was_buried_stays_dead(url: str) -> None:
    """A session that was found dead does not live again, even if the clock is set back."""
    with tenure.connect(url, ttl=30) as a, tenure.connect(url, ttl=30) as b:
        a.lock("name").acquire()
        with database(url) as other:
            ((expires,),) = other.execute("SELECT max(expires) FROM tenure_session").fetchall()
            other.execute("UPDATE tenure_session SET expires = 0")
            session = a._session.alive
            assert session is not None
            b.lock("name").acquire(timeout=10).release()
            other.execute("UPDATE tenure_session SET expires = ?", (expires,))
        with pytest.raises(tenure.SessionLost):
            drive(driver_of(a).renew(session.id))


def test_the_machine_was_restarted(url: str) -> None:
    """Sessions of an earlier run of the machine are dead, and tokens go on from the clock."""
    with tenure.connect(url, ttl=30) as a:
        lease = a.lock("name").acquire()
        a._session._closing.set()
        with database(url) as other:
            other.execute("UPDATE tenure_session SET clock = 'earlier'")
            ((body,),) = other.execute("SELECT body FROM tenure_document")
            # As if the last statements had been undone.
            older = json.dumps(json.loads(body) | {"token": 7})
            other.execute("UPDATE tenure_document SET body = ?, version = 'earlier.x'", (older,))
        with tenure.connect(url, ttl=30) as b:
            again = b.lock("name").acquire(timeout=10)
            assert again.token > lease.token
            again.release()
        with database(url) as other:
            left = other.execute("SELECT id FROM tenure_session WHERE clock = 'earlier'").fetchall()
        assert left == []


def test_leftovers_are_swept(url: str) -> None:
    """The rows of sessions that expired are deleted when another begins."""
    with tenure.connect(url, ttl=30) as a:
        a.lock("name").acquire().release()
        with database(url) as other:
            other.execute("UPDATE tenure_session SET expires = 0")
        with tenure.connect(url, ttl=30) as b:
            b.lock("other").acquire().release()
            with database(url) as other:
                assert len(other.execute("SELECT id FROM tenure_session").fetchall()) == 1


# -- a fork ------------------------------------------------------------------------------------


def test_no_connection_goes_through_a_fork(url: str) -> None:
    """The child has no descriptor of the file, can connect, and the parent goes on."""
    with tenure.connect(url, ttl=30) as coordinator:
        lease = coordinator.lock("name").acquire()
        path = url.removeprefix("sqlite://")
        child = os.fork()
        if not child:
            status = 1
            try:
                links = []
                for each in os.listdir("/proc/self/fd"):
                    with contextlib.suppress(OSError):
                        links.append(os.readlink(f"/proc/self/fd/{each}"))
                if any(link.startswith(path) for link in links):
                    os._exit(2)
                with tenure.connect(url, ttl=30) as own:
                    if own.lock("name").try_acquire() is None:
                        own.lock("other").acquire().release()
                        status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        lease.check()
        assert coordinator.lock("other").acquire(timeout=10).token > 0
        lease.release()


# -- the schema ----------------------------------------------------------------------------------


def test_tables_of_another_version(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older tables name the command that updates them, which does; newer ones are left alone."""
    tenure.connect(url).close()

    def another(dialect: _sql_text.Dialect) -> tuple[str, ...]:
        return ("CREATE TABLE IF NOT EXISTS tenure_more (id INTEGER)",)

    with monkeypatch.context() as later:
        later.setattr(_sql_text, "SCHEMA_VERSION", 2)
        later.setattr(_sql_text, "MIGRATIONS", (*_sql_text.MIGRATIONS, another))
        with pytest.raises(tenure.BackendError, match=f"version 1.*needs 2; run: .*migrate {url}"):
            tenure.connect(url)
        assert main(["migrate", url]) == ExitCode.DONE
        assert "from version 1 to 2" in capsys.readouterr().out
        tenure.connect(url).close()
    with pytest.raises(tenure.BackendError, match="too old"):
        tenure.connect(url)
    assert main(["migrate", url]) == ExitCode.FAILED
    assert "version 2" in capsys.readouterr().err


def test_the_command(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It makes the tables once, prints the statements, and says where there are none."""
    assert main(["migrate", url]) == ExitCode.DONE
    assert "made the tables, version 1" in capsys.readouterr().out
    assert main(["migrate", "--url", url]) == ExitCode.DONE
    assert "as they should" in capsys.readouterr().out
    assert main(["migrate", "--sql", url]) == ExitCode.DONE
    script = capsys.readouterr().out
    with contextlib.closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(script)
        empty.executescript(script)
        assert empty.execute("SELECT version FROM tenure_schema").fetchall() == [(1,)]
    assert main(["migrate", "memory://"]) == ExitCode.USAGE
    assert "no tables" in capsys.readouterr().err


def test_a_row_that_is_damaged(url: str) -> None:
    """It is left as it is, and whoever needs it is told which one it is."""
    with tenure.connect(url) as coordinator:
        coordinator.lock("name").acquire().release()
        with database(url) as other:
            other.execute("UPDATE tenure_document SET body = '[]', version = 'x'")
        with pytest.raises(tenure.StorageError, match="name"):
            coordinator.lock("name").acquire(timeout=5)


def test_a_table_that_is_dropped(url: str) -> None:
    """The error says how to make it again."""
    with tenure.connect(url) as coordinator:
        with database(url) as other:
            other.execute("DROP TABLE tenure_document")
        with pytest.raises(tenure.BackendError, match="run: tenure migrate"):
            coordinator.lock("name").acquire(timeout=5)


# -- findings ------------------------------------------------------------------------------


def found(url: str) -> dict[str, str]:
    """The findings: the severity of each, by its subject."""
    with tenure.connect(url) as coordinator:
        return {each.subject: each.severity for each in drive(driver_of(coordinator).examine())}


def test_a_new_file_is_well(url: str) -> None:
    """Of a file that the driver has made there is nothing to tell."""
    assert "error" not in found(url).values()
    assert not [subject for subject in found(url) if "journal_mode" in subject]


def test_an_old_journal(url: str) -> None:
    """A database of somebody else's keeps its journal mode, with a warning."""
    with database(url) as other:
        other.execute("CREATE TABLE theirs (x)")
    assert found(url)["journal_mode = delete"] == "warning"
    with database(url) as other:
        assert other.execute("PRAGMA journal_mode").fetchall() == [("delete",)]


def test_a_file_on_a_network(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite does not work over a network: an error."""
    mounts = tmp_path / "mounts"
    mounts.write_text("36 35 98:0 / / rw - nfs4 server:/export rw\n")
    monkeypatch.setattr(_file_examine, "MOUNTS", str(mounts))
    path = url.removeprefix("sqlite://")
    assert found(url)[f"{path} is on nfs4"] == "error"


def test_a_file_that_all_can_write(url: str) -> None:
    """Everybody could free a lock: a warning."""
    tenure.connect(url).close()
    path = url.removeprefix("sqlite://")
    os.chmod(path, 0o666)
    assert found(url)[f"{path} has mode 0666"] == "warning"

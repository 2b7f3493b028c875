"""What Tooz's API says when the backend is away, and what it does about what was lost."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

from tenure.compat.tooz import ToozError, coordination
from tenure.compat.tooz._driver import TenureDriver
from tenure.compat.tooz.coordination import ToozConnectionError
from tenure.testing.servers import RedisServer

from .suite import until

TTL = 2


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """A Redis that each test leaves running."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[TenureDriver]:
    """A client that is started, with its heart."""
    made = coordination.get_coordinator(server.url, b"m", timeout=TTL)
    assert isinstance(made, TenureDriver)
    made.start(start_heart=True)
    yield made
    if made.is_started:
        made.stop()


def test_nobody_there_is_a_connection_error(server: RedisServer) -> None:
    """Starting raises it, can be tried again, and leaves nothing started."""
    client = coordination.get_coordinator("redis://127.0.0.1:1", b"m", timeout=TTL)
    for _ in range(2):
        with pytest.raises(ToozConnectionError):
            client.start()
        assert not client.is_started


def test_a_server_that_went_away_is_told_and_stopping_is_soon_over(
    server: RedisServer, client: TenureDriver
) -> None:
    """Calls raise connection errors, the lock tells its loss, and `stop` does not hang."""
    lock = client.get_lock(b"l")
    assert lock.acquire()
    client.create_group(b"g").get()
    server.kill()
    try:
        with pytest.raises(ToozConnectionError):
            client.get_members(b"g").get()
        with pytest.raises(ToozConnectionError):
            client.get_lock(b"other").acquire(blocking=False)
        until(lambda: not lock.acquired)
        assert not lock.is_still_owner()
        began = time.monotonic()
        client.stop()
        assert time.monotonic() - began < 10
    finally:
        server.start()


def test_a_heart_rejoins_after_a_restart(server: RedisServer, client: TenureDriver) -> None:
    """The heart alone makes the member one again, with what it has published, and it can leave."""
    client.join_group_create(b"g", {"zone": "a"})
    other = coordination.get_coordinator(server.url, b"other", timeout=TTL)
    other.start()
    server.kill()
    server.start()  # it has forgotten the group, too

    def there() -> bool:
        try:
            found = other.get_members_with_capabilities(b"g").get()
        except ToozError:
            return False
        return found.get(b"m") == {"zone": "a"}

    until(there)
    client.leave_group(b"g").get()
    assert other.get_members(b"g").get() == set()
    other.stop()


def test_a_heartbeat_tells_of_a_failed_renewal(server: RedisServer) -> None:
    """While the server does not answer, `heartbeat` raises, and the lock is lost in time."""
    client = coordination.get_coordinator(server.url, b"m", timeout=TTL)
    client.start()
    lock = client.get_lock(b"paused")
    assert lock.acquire()
    server.pause()
    try:

        def failing() -> bool:
            try:
                client.heartbeat()
            except ToozConnectionError:
                return True
            return False

        until(failing)
        until(lambda: not lock.heartbeat())
    finally:
        server.resume()
    client.stop()


def test_an_id_that_a_dead_one_had_can_be_waited_for(server: RedisServer) -> None:
    """With `join_timeout`, a restarted service takes its predecessor's place when that expires."""
    first = coordination.get_coordinator(server.url, b"same", timeout=TTL)
    first.start()
    first.join_group_create(b"g")
    assert isinstance(first, TenureDriver)
    first.tenure._session.driver.abandon()  # dead: nobody renews, and nobody says goodbye
    second = coordination.get_coordinator(server.url, b"same", timeout=TTL, join_timeout=20)
    second.start()
    second.join_group(b"g", {"second": True}).get()
    assert second.get_member_capabilities(b"g", b"same").get() == {"second": True}
    second.stop()
    first.stop()


def test_the_child_of_a_fork_has_nothing(client: TenureDriver) -> None:
    """In the child every call raises, and it can stop, start and work for itself."""
    lock = client.get_lock(b"forked")
    assert lock.acquire()
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads and forks, on Python 3.12
        process = os.fork()
    if process == 0:
        try:
            said = [lock.acquired, lock.release()]
            try:
                lock.acquire()
            except ToozError as error:
                said.append("fork" in str(error))
            client.stop()
            client.start()
            said.append(client.get_lock(b"forked").acquire(blocking=False))
            client.stop()
            os.write(writer, repr(said).encode())
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    os.close(writer)
    assert os.read(reader, 100) == b"[False, False, True, False]"
    os.close(reader)
    assert lock.is_still_owner()
    assert lock.release()


def test_many_threads_share_a_coordinator(client: TenureDriver) -> None:
    """One object and one name, from many threads: one holds it at a time."""
    lock, inside, most = client.get_lock(b"threads"), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == 1
    assert inside == 0

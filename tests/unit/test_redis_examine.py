"""What `tenure doctor` finds on a Redis that is really misconfigured."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure._model import Finding
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers.redis import RedisDriver
from tenure.errors import Unavailable
from tenure.testing.servers import RedisServer, ServerFailed

LIMIT = 30.0


async def look(url: str, runtime: Runtime, ttl: float) -> list[Finding]:
    """The findings of a driver that was opened for that."""
    driver = RedisDriver(Url.parse(url), runtime, "doctor", ttl)
    await driver.open()
    try:
        return list(await driver.examine())
    finally:
        await driver.close()


def examine(url: str, *, ttl: float = 15.0) -> list[Finding]:
    """The findings, which are the same on both runtimes."""
    return drive(look(url, ThreadRuntime(), ttl))


def told(found: list[Finding], severity: str) -> list[str]:
    """What the findings of a severity are about."""
    return [each.subject for each in found if each.severity == severity]


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for a condition."""
    give_up = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < give_up, f"in vain: {what}"
        time.sleep(0.01)


def info(server: RedisServer, section: str) -> str:
    """A section of INFO."""
    text: bytes = server.command("INFO", section)
    return text.decode()


@pytest.mark.parametrize("flavour", ["thread", "asyncio"])
def test_a_server_as_it_should_be(flavour: str) -> None:
    """A server that keeps everything on disk and evicts nothing gives no finding at all."""
    with RedisServer(persistent=True) as server:
        if flavour == "asyncio":

            async def main() -> list[Finding]:
                return await look(server.url, AsyncioRuntime(), 15.0)

            assert asyncio.run(main()) == []
        else:
            assert examine(server.url) == []


def test_memory() -> None:
    """A policy that evicts is an error where there is a limit; a full memory is a warning."""
    with RedisServer(persistent=True, settings={"maxmemory-policy": "volatile-lru"}) as server:
        assert told(examine(server.url), "warning") == ["maxmemory-policy volatile-lru"]
        server.command("CONFIG", "SET", "maxmemory", "100mb")
        found = examine(server.url)
        assert told(found, "error") == ["maxmemory-policy volatile-lru"]
        assert told(found, "warning") == []
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        assert examine(server.url) == []
        server.command("SET", "big", "x" * 20_000_000)
        server.command("CONFIG", "SET", "maxmemory", "21mb")
        (subject,) = told(examine(server.url), "warning")
        assert subject.startswith("used_memory ")


def test_persistence() -> None:
    """A server that forgets in a restart, or in a crash, is a warning."""
    with RedisServer() as server:
        assert told(examine(server.url), "warning") == ["appendonly no"]
    with RedisServer(persistent=True, settings={"appendfsync": "everysec"}) as server:
        assert told(examine(server.url), "warning") == ["appendfsync everysec"]


def test_a_save_that_failed(tmp_path: Path) -> None:
    """A server that could not save its data is a warning."""
    folder = tmp_path / "data"
    folder.mkdir()
    with RedisServer(persistent=True, settings={"appendonly": "no", "dir": str(folder)}) as server:
        shutil.rmtree(folder)
        server.command("BGSAVE")
        until(lambda: "rdb_last_bgsave_status:err" in info(server, "persistence"), "a failure")
        assert "rdb_last_bgsave_status err" in told(examine(server.url), "warning")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Have a file system of a few megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m,mode=777", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("nothing may be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_is_full(small_disk: Path) -> None:
    """A server that cannot append to its file any more refuses claims, which is an error."""
    settings = {"appendfsync": "everysec", "dir": str(small_disk)}
    with RedisServer(persistent=True, settings=settings) as server:

        def failed() -> bool:
            with contextlib.suppress(ServerFailed):
                server.command("APPEND", "much", "x" * 500_000)
            return "aof_last_write_status:err" in info(server, "persistence")

        until(failed, "the disk to be full")
        assert told(examine(server.url), "error") == ["aof_last_write_status err"]


def test_replicas() -> None:
    """A replica is an error; a master that needs none, or lacks those that it needs, is told."""
    with RedisServer(persistent=True) as master:
        settings = {"repl-ping-replica-period": "1"}
        with RedisServer(persistent=True, replica_of=master, settings=settings) as replica:
            until(lambda: "state=online" in info(master, "replication"), "the replica")
            assert told(examine(replica.url), "error") == ["role slave"]
            assert told(examine(master.url), "warning") == ["min-replicas-to-write 0"]
            master.command("CONFIG", "SET", "min-replicas-to-write", 1)
            until(lambda: "min_slaves_good_slaves:1" in info(master, "replication"), "a good one")
            assert examine(master.url) == []
            master.command("CONFIG", "SET", "min-replicas-max-lag", 0)
            assert told(examine(master.url), "warning") == ["min-replicas-to-write 0"]
            master.command("CONFIG", "SET", "min-replicas-max-lag", 10)
        until(lambda: "connected_slaves:0" in info(master, "replication"), "its end")
        (subject,) = told(examine(master.url), "error")
        assert subject == "min-replicas-to-write 1, 0 in touch"


def test_connections() -> None:
    """Idle connections that are closed are a note; a server that is nearly full, a warning."""
    with RedisServer(persistent=True, settings={"timeout": "4", "maxclients": "10"}) as server:
        assert told(examine(server.url, ttl=15.0), "note") == ["timeout 4"]
        assert examine(server.url, ttl=6.0) == []
        server.command("CONFIG", "SET", "timeout", "0")
        with contextlib.ExitStack() as stack:
            for _ in range(9):
                link = socket.create_connection((server.host, server.port), 5)
                stack.callback(link.close)
                link.sendall(b"PING\r\n")
                assert link.recv(100) == b"+PONG\r\n"
            assert told(examine(server.url), "warning") == ["10 of 10 clients"]


def test_what_may_not_be_read() -> None:
    """A renamed command and a missing right are notes; the rest is looked at all the same."""
    with RedisServer(persistent=True, settings={"rename-command": 'CONFIG ""'}) as server:
        (found,) = examine(server.url)
        assert (found.severity, found.subject) == ("note", "CONFIG GET")
        assert "appendfsync" in found.text
    with RedisServer() as server:
        server.command("ACL", "SETUSER", "app", "on", ">s3cret", "~*", "-@all", "+hello", "+time")
        found_ = examine(f"redis://app:s3cret@{server.host}:{server.port}")
        assert told(found_, "note") == ["INFO", "CONFIG GET"]
        assert told(found_, "warning") == told(found_, "error") == []
        assert "s3cret" not in str(found_)
        server.command("ACL", "SETUSER", "app", "-time", "+info")
        found_ = examine(f"redis://app:s3cret@{server.host}:{server.port}")
        assert told(found_, "error") == ["TIME"]
        assert told(found_, "warning") == ["appendonly no"]


@pytest.mark.parametrize(("off", "side"), [(-60.0, "ahead of"), (60.0, "behind")])
def test_clocks(off: float, side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that differs from ours is a warning."""
    wall = ThreadRuntime.wall
    monkeypatch.setattr(ThreadRuntime, "wall", staticmethod(lambda: wall() + off))
    with RedisServer(persistent=True) as server:
        (found,) = examine(server.url)
        assert found.severity == "warning"
        assert found.subject.startswith("clock ")
        assert f"{side} ours" in found.subject


def test_a_server_that_goes_away() -> None:
    """A server that ends under the look is unavailable, and no finding."""
    with RedisServer() as server:
        driver = RedisDriver(Url.parse(server.url), ThreadRuntime(), "doctor", 15.0)
        drive(driver.open())
        server.kill()
        with pytest.raises(Unavailable):
            drive(driver.examine())
        drive(driver.close())

"""The test servers themselves: they start, obey, and never outlive whoever started them."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tenure.testing.proxy import Proxy
from tenure.testing.servers import (
    ConsulServer,
    EtcdServer,
    PostgresServer,
    RedisServer,
    SentinelCluster,
    Server,
    ServerFailed,
    ServerMissing,
    _base,
    _proc,
    find_program,
    free_port,
)

LIMIT = 30.0
KINDS = [RedisServer, PostgresServer, EtcdServer, ConsulServer]


def until(condition: Callable[[], bool], limit: float = LIMIT) -> None:
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def write(server: Server) -> None:
    if isinstance(server, RedisServer):
        server.command("SET", "key", "value")
    elif isinstance(server, PostgresServer):
        server.psql("CREATE TABLE kept AS SELECT 'value' AS value")
    elif isinstance(server, EtcdServer):
        server.call("kv/put", {"key": server.encode("key"), "value": server.encode("value")})
    elif isinstance(server, ConsulServer):
        server.call("PUT", "kv/key", b"value")


def kept(server: Server) -> bool:
    if isinstance(server, RedisServer):
        return bool(server.command("GET", "key") == b"value")
    if isinstance(server, PostgresServer):
        return server.psql("SELECT value FROM kept") == "value"
    if isinstance(server, ConsulServer):
        return bool(server.call("GET", "kv/key"))
    assert isinstance(server, EtcdServer)
    answer = server.call("kv/range", {"key": server.encode("key")})
    return bool(answer.get("kvs") and answer["kvs"][0]["value"] == server.encode("value"))


def family(server: Server) -> list[int]:
    return [server.pid, *_proc.descendants(server.pid)]


@pytest.mark.parametrize("kind", KINDS)
def test_lifecycle(kind: Callable[..., Server]) -> None:
    """A server keeps its port and its data when it is restarted or killed, and then goes."""
    persistent = {"persistent": True} if kind is RedisServer else {}
    with kind(**persistent) as server:
        folder, port, url = server.folder, server.port, server.url
        assert server.alive()
        assert str(port) in url
        assert str(server.pid) in repr(server)
        write(server)

        server.restart()
        assert (server.port, server.url) == (port, url)
        assert kept(server)

        processes = family(server)
        server.kill()
        assert not server.alive()
        assert all(map(_proc.gone, processes))
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((server.host, port), 1.0)
        server.start()
        assert server.port == port
        assert kept(server)

        server.stop()
        server.stop()
        assert not server.alive()
        assert server.start() is server
        processes = family(server)
    assert all(map(_proc.gone, processes))
    assert not folder.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_pause(kind: Callable[[], Server]) -> None:
    """A pause stops every process of the server, and what was asked is answered after it."""
    with kind() as server:
        server.pause()
        assert server.alive()
        assert _proc.state(server.pid) == "T"
        assert {_proc.state(pid) for pid in family(server)} <= {"T", "Z"}
        with socket.create_connection((server.host, server.port), LIMIT) as link:
            # HTTP for etcd, an error for Redis, a question that PostgreSQL answers with a letter.
            asked = {RedisServer: b"PING\r\n", PostgresServer: b"\0\0\0\10\4\322\26\57"}
            link.sendall(asked.get(type(server), b"GET /health HTTP/1.0\r\n\r\n"))
            link.settimeout(0.1)
            with pytest.raises(TimeoutError):
                link.recv(1)
            link.settimeout(LIMIT)
            server.resume()
            assert link.recv(1)
        server.pause()
        server.stop()
        assert not server.alive()


def test_pause_stops_the_backends() -> None:
    """PostgreSQL's process for one client stops too, not only the one that accepts."""
    with PostgresServer() as server:
        asleep = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'"
        sleeper = threading.Thread(target=_quietly, args=(server, "SELECT pg_sleep(60)"))
        sleeper.start()
        until(lambda: server.psql(asleep) == "1")
        backend = int(server.psql(asleep.replace("count(*)", "pid")))
        server.pause()
        assert _proc.state(backend) == "T"
        server.resume()
        until(lambda: _proc.state(backend) == "S")
        server.kill()
        assert _proc.gone(backend)
        sleeper.join(LIMIT)
        assert not sleeper.is_alive()


def _quietly(server: PostgresServer, sql: str) -> None:
    with pytest.raises(ServerFailed):
        server.psql(sql)


def test_redis_forgets_by_default() -> None:
    """Redis without persistence is empty after a restart."""
    with RedisServer() as server:
        write(server)
        server.restart()
        assert not kept(server)


@pytest.mark.parametrize("user", [None, "app"])
def test_redis_password(user: str | None) -> None:
    """Redis refuses whoever does not know the password."""
    with RedisServer(user=user, password="open") as server:
        assert server.url == f"redis://{user or ''}:open@127.0.0.1:{server.port}/0"
        assert server.command("PING") == b"PONG"
        server.password = "wrong"
        with pytest.raises(ServerFailed, match="WRONGPASS"):
            server.command("PING")
        server.password = None
        with pytest.raises(ServerFailed, match="NOAUTH"):
            server.command("PING")
        assert "open" not in repr(server)


def test_redis_socket_file() -> None:
    """Redis listens on a socket file too, and its URL says which."""
    with RedisServer(password="open") as server:
        assert server.unix_url == f"unix://:open@{server.unix_socket}?db=0"
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(LIMIT)
            link.connect(str(server.unix_socket))
            link.sendall(b"PING\r\n")
            assert link.recv(100).startswith(b"-NOAUTH")


def test_postgresql_password() -> None:
    """PostgreSQL asks for the password and lets its user own the database."""
    with PostgresServer(user="o'app", password='it\'s "open"') as server:
        assert server.url.startswith("postgresql://o%27app:it%27s%20%22open%22@127.0.0.1:")
        psql = find_program("psql", "postgresql-client")
        command = [psql, "-XAtw", server.url, "-c", "CREATE SCHEMA mine; SELECT current_user"]
        assert _run(command).splitlines()[-1] == "o'app"
        command[2] = server.url.replace("open", "wrong")
        assert "password authentication failed" in _run(command)


@pytest.mark.parametrize("user", [None, "app"])
def test_etcd_password(user: str | None) -> None:
    """etcd with authentication on knows its user, who may write, and refuses the rest."""
    with EtcdServer(user=user, password="open") as server:
        assert server.url == f"etcd://{user or 'root'}:open@127.0.0.1:{server.port}"
        write(server)
        server.restart()
        assert kept(server)
        login = {"name": user or "root", "password": "open"}
        token = server._post("auth/authenticate", login, {})["token"]
        key = {"key": server.encode("\xff"), "value": ""}
        server._post("kv/put", key, {"Authorization": token})
        with pytest.raises(ServerFailed, match="status 4"):
            server._post("kv/put", key, {})


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_tls(kind: Callable[..., Server], mutual: bool) -> None:
    """The server shows a certificate of its authority, and asks for one if it should."""
    with kind(tls=not mutual, mutual_tls=mutual) as server:
        assert server.ca.read_text().startswith("-----BEGIN CERTIFICATE")
        assert stat.S_IMODE(server.key.stat().st_mode) == 0o600
        assert (str(server.key.name) in server.url) is mutual
        if isinstance(server, PostgresServer):
            psql = find_program("psql", "postgresql-client")
            question = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            assert _run([psql, "-XAt", server.url, "-c", question]).strip() == "t"
            bare = re.sub(r"&sslcert=.*", "", server.url)
            assert (_run([psql, "-XAt", bare, "-c", question]).strip() == "t") is not mutual
            plain = f"postgresql://tenure@127.0.0.1:{server.port}/postgres?sslmode=disable"
            assert "no pg_hba.conf entry" in _run([psql, "-XAt", plain, "-c", question])
        else:
            write(server)
            assert kept(server)
            assert server.url.startswith(("rediss://", "etcds://", "consul+https://"))


def _run(command: list[str]) -> str:
    # libpq insists that somebody be at home.
    environment = {**os.environ, "HOME": "/nonexistent"}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, check=False, env=environment
    )
    return done.stdout + done.stderr


def test_sentinels_replace_the_master() -> None:
    """When the master is silent, the sentinels agree on the replica."""
    with SentinelCluster(password="open", failover_after=0.5) as cluster:
        assert cluster.url.startswith("redis+sentinel://:open@127.0.0.1:")
        assert cluster.url.endswith("/tenure/0")
        assert cluster.current_master() is cluster.master
        cluster.master.pause()
        until(lambda: cluster.current_master() is cluster.replica)
        until(lambda: cluster.replica.command("ROLE")[0] == b"master")


def test_url_through_a_proxy() -> None:
    """A URL at the proxy's port leads to the server."""
    with RedisServer() as server, Proxy(server.host, server.port) as proxy:
        assert server.url_at(proxy.port) == f"redis://127.0.0.1:{proxy.port}/0"
        with socket.create_connection((proxy.host, proxy.port), LIMIT) as link:
            link.sendall(b"PING\r\n")
            assert link.recv(7) == b"+PONG\r\n"


@pytest.mark.parametrize("kind", KINDS)
def test_another_port_if_taken(kind: Callable[[], Server], monkeypatch: Any) -> None:
    """Whoever snatches the port first does not pass for the server; another is drawn."""
    with RedisServer() as thief:
        drawn = iter([thief.port])

        def draw() -> int:
            return next(drawn, 0) or free_port()

        monkeypatch.setattr(_base, "free_port", draw)
        monkeypatch.setattr("tenure.testing.servers._etcd.free_port", draw)
        with kind() as server:
            assert server.port != thief.port
            write(server)
            assert kept(server)
        assert thief.command("DBSIZE") == 0


def test_port_taken_while_down() -> None:
    """A server cannot come back when someone else has its port, and says so."""
    with RedisServer() as server:
        server.stop()
        with socket.create_server((server.host, server.port)):
            with pytest.raises(ServerFailed, match="was taken by someone else"):
                server.start()
            assert not server.alive()
        server.start()


def test_failure_shows_the_log() -> None:
    """A server that dies at once raises with what it wrote, and can be started later."""
    server = RedisServer(settings={"no-such-setting": "1"})
    with pytest.raises(ServerFailed, match=r"(?s)status 1; its log ends:.*no-such-setting"):
        server.start()
    assert not server.alive()
    with pytest.raises(ServerFailed, match="is not running"):
        server.pause()
    del server.settings["no-such-setting"]
    with server:
        assert server.alive()


def test_missing_program() -> None:
    """A program that is not installed is reported with its package."""
    with pytest.raises(ServerMissing, match=r"no-such-d is not installed: apt-get install such"):
        find_program("no-such-d", "such")


def test_without_tls_there_are_no_certificates() -> None:
    """Asking a server without TLS for certificates is a mistake that is reported."""
    with pytest.raises(ServerFailed, match="without TLS"):
        _ = RedisServer().ca


STARTS = """
import os, sys, tenure.testing.servers as servers
kept = [servers.RedisServer().start(), servers.PostgresServer().start()]
from tenure.testing.servers import _proc
family = [pid for one in kept for pid in [one.pid, *_proc.descendants(one.pid)]]
print(*family, kept[0].folder.parent, flush=True)
"""


@pytest.fixture
def child() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Run Python code in a process that may start servers."""
    started: list[subprocess.Popen[str]] = []

    def run(code: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-W", "error", "-c", code]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    "ending",
    ["", "raise SystemExit(0)", "[s.pause() for s in kept]; os.kill(os.getpid(), 9)"],
    ids=["returns", "exits", "killed while they are paused"],
)
def test_servers_do_not_outlive_their_process(
    child: Callable[[str], subprocess.Popen[str]], ending: str
) -> None:
    """However a test process ends, its servers end and their folders go."""
    process = child(STARTS + ending)
    assert process.stdout is not None
    *family, folder = process.stdout.readline().split()
    assert len(family) > 5
    assert process.wait(LIMIT) in {0, -signal.SIGKILL}
    until(lambda: all(_proc.gone(int(pid)) for pid in family))
    until(lambda: not Path(folder).exists())


def test_servers_survive_a_thread_and_a_fork(
    child: Callable[[str], subprocess.Popen[str]],
) -> None:
    """The end of the thread that started a server, or of a forked child, ends nothing."""
    process = child(
        "import threading, os, sys, tenure.testing.servers as servers\n"
        "server = servers.RedisServer()\n"
        "thread = threading.Thread(target=server.start); thread.start(); thread.join()\n"
        "pid = os.fork()\n"
        "if pid == 0: server = None; sys.exit(0)\n"
        "assert os.waitpid(pid, 0)[1] == 0\n"
        "print(server.command('PING'), flush=True)\n"
    )
    output, _ = process.communicate(timeout=LIMIT)
    assert output == "b'PONG'\n"
    assert process.returncode == 0


def test_ports_avoid_the_kernels_range() -> None:
    """A drawn port is none that the kernel gives to outgoing connections."""
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    lowest, highest = map(int, text.split())
    ports = {free_port() for _ in range(50)}
    assert len(ports) > 10
    if lowest > 12000:
        assert not any(lowest <= port <= highest for port in ports)

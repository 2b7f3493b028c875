"""What the drivers say that they are connected to, where no server of the kit's shows it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any, Self

import pytest

import tenure
from tenure._model import Server
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Host, Url
from tenure.drivers import _consul_examine, _file_mounts, _zookeeper_examine, registry
from tenure.drivers._redis_redlock import RedlockDriver
from tenure.drivers.base import Driver
from tenure.drivers.memory import MemoryDriver
from tenure.errors import AuthenticationFailed, Unavailable, Unsupported
from tenure.testing.servers import ConsulServer, PgBouncer, PostgresServer
from tenure.wires import _redis, redis, zookeeper
from tenure.wires._mysql_connect import Greeted
from tenure.wires._zookeeper_api import Place
from tenure.wires.mysql import Link
from tenure.wires.mysql_thread import ThreadLink


def opened(url: str) -> Server:
    """What the driver of that URL says; it is closed again."""
    with tenure.connect(url, ttl=4) as coordinator:
        return told(coordinator)


def told(coordinator: tenure.Coordinator) -> Server:
    """What a coordinator's driver says."""
    found: Server = drive(coordinator._session.driver.server())
    return found


def test_a_driver_need_not_say() -> None:
    """A driver from before there was such a question refuses it, and names its scheme."""

    class Old(MemoryDriver):
        server = Driver.server

    driver = Old(Url.parse("memory://old"), ThreadRuntime(), "n", 4.0)
    with pytest.raises(Unsupported, match="memory: the driver does not say"):
        drive(driver.server())


# -- redis ---------------------------------------------------------------------------------


def greeted(settings: _redis.Settings, *facts: Any) -> Server:
    """What a wire says whose server has greeted it so."""
    wire = redis.wire(settings, "thread")
    wire._told = _redis.check_hello(list(facts), settings, guide=False)
    return wire.server()


HOSTS = (Host("127.0.0.1", 1),)


def test_redis_says_product_and_mode() -> None:
    """The product is whatever the greeting names, and the way there is the topology."""
    valkey = (b"server", b"valkey", b"version", b"8.0.1", b"role", b"master")
    plain = greeted(_redis.Settings(HOSTS), *valkey, b"mode", b"standalone")
    assert plain[:3] == ("valkey", "8.0.1", "standalone")
    named = greeted(_redis.Settings(HOSTS, service="m"), *valkey, b"mode", b"standalone")
    assert named.topology == "sentinel"
    settings = _redis.Settings(HOSTS, slot=7)
    wire = redis.wire(settings, "thread")
    nodes: list[Any] = [[b"h%d" % number, 1] for number in range(6)]
    wire._named([[0, 8191, *nodes[:3]], [8192, 16383, *nodes[3:]]], HOSTS[0])
    wire._told = _redis.Told("redis", "7.0.15")
    assert wire.server().topology == "cluster of 6"


def test_redis_says_nothing_before_a_greeting() -> None:
    """A wire that was never connected does not guess."""
    with pytest.raises(Unavailable, match="not connected"):
        redis.wire(_redis.Settings(HOSTS), "thread").server()


def test_redlock_says_the_lowest_version() -> None:
    """Of those masters that could be reached, the lowest version by its numbers is told."""
    url = Url.parse("redis://a,b,c?lock=redlock")
    driver = registry.find(url)(url, ThreadRuntime(), "n", 4.0)
    assert isinstance(driver, RedlockDriver)
    with pytest.raises(Unavailable, match="no master"):
        drive(driver.server())
    first, second, _ = (member.wire for member in driver._fan.members)
    first._told, second._told = _redis.Told("redis", "7.0.15"), _redis.Told("redis", "7.0.9")
    assert drive(driver.server())[:3] == ("redis", "7.0.9", "3 independent masters")


# -- databases -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pooler() -> Iterator[PgBouncer]:
    """A pooler in transaction mode."""
    with PostgresServer() as server, PgBouncer(server) as pooler:
        yield pooler


def test_a_pooler_is_told(pooler: PgBouncer) -> None:
    """Behind a pooler it is the server's version that is told, and that there is a pooler."""
    mark = "&" if "?" in pooler.url else "?"
    found = opened(f"{pooler.url}{mark}lock=row")
    assert found.product == "postgresql"
    assert found.topology == "behind a pooler"


@pytest.mark.parametrize(
    "greeting, nodes, expected",
    [
        ("5.5.5-10.4.13-MariaDB-log", 3, ("mariadb", "10.4.13-MariaDB-log", "cluster of 3")),
        ("8.0.36", 0, ("mysql", "8.0.36", "")),
    ],
)
def test_mysql_says_its_own_version(greeting: str, nodes: int, expected: tuple[str, ...]) -> None:
    """What MariaDB puts before its version, for old clients, is left out."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link: Any = object.__new__(ThreadLink)  # without what watches the connection
        Link.__init__(link, Greeted(ours, greeting, 1), 1.0, lambda _, __: None)
        assert link.server(nodes)[:3] == expected


# -- consul --------------------------------------------------------------------------------

VOTER = "{{Suffrage:{kind} ID:{id} Address:127.0.0.1:1}}"


def raft(*kinds: str) -> dict[str, Any]:
    """A server's statistics, where the servers are of these kinds."""
    servers = " ".join(VOTER.format(kind=kind, id=id) for id, kind in enumerate(kinds))
    return {"raft": {"num_peers": "0", "latest_configuration": f"[{servers}]"}}


@pytest.mark.parametrize(
    "stats, topology",
    [
        (raft("Voter"), "standalone"),
        (raft("Voter", "Voter", "Voter", "Nonvoter"), "cluster of 3"),
        ({"consul": {"known_servers": "5", "server": "false"}}, "cluster of 5"),
        ({}, ""),
    ],
)
def test_consul_counts_servers(stats: dict[str, Any], topology: str) -> None:
    """Servers that vote are counted by a server, all servers by an agent that is none."""
    answer = {"Config": {"Version": "1.8.7"}, "Stats": stats}
    wire: Any = None
    found = drive(_consul_examine.server(wire, answer))
    assert found == Server("consul", "1.8.7", topology)


TOKEN = "11111111-2222-3333-4444-555555555555"


def test_a_right_is_missing_at_consul(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that may not ask the agent takes locks all the same; the refusal names the right."""
    monkeypatch.delenv("CONSUL_HTTP_TOKEN", raising=False)
    rules = 'key_prefix "tenure/" { policy = "write" } session_prefix "" { policy = "write" }'
    with ConsulServer(password=TOKEN) as server:
        server.call("PUT", "acl/policy", {"Name": "few", "Rules": rules})
        made = server.call("PUT", "acl/token", {"Policies": [{"Name": "few"}]})
        url = server.url.replace(TOKEN, str(made["SecretID"]))
        with tenure.connect(url, ttl=4) as coordinator:
            with pytest.raises(AuthenticationFailed, match="agent:read"):
                told(coordinator)
            with coordinator.lock("a"):
                pass


# -- zookeeper -----------------------------------------------------------------------------


class Answering:
    """A server that gives one answer to every connection, and a byte more of it at a time."""

    def __init__(self, answer: bytes, *, endless: bool = False) -> None:
        self._answer = answer
        self._endless = endless
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.place = Place("localhost", *self._socket.getsockname())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        link, _ = self._socket.accept()
        with link:
            link.recv(16)
            link.sendall(self._answer)
            while self._endless and not self._stop.wait(0.02):
                try:
                    link.sendall(b".")
                except OSError:
                    return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close()


def asked(server: Answering, patience: float = 5.0) -> Server:
    """What the driver makes of such a server."""
    settings = zookeeper.Settings("localhost:1", patience, 4.0, tenure.now)
    wire = zookeeper.connection(settings, "thread")
    link: Any = server  # all that is asked of it is its place
    return _zookeeper_examine.server(wire, link)


@pytest.mark.parametrize(
    "mode, topology", [("standalone", "standalone"), ("follower", "replicated")]
)
def test_zookeeper_says_its_mode(mode: str, topology: str) -> None:
    """The version is told without its build, and a server that is not alone is replicated."""
    answer = f"Zookeeper version: 3.8.4-9316c2a, built on 2024-02-12 22:16 UTC\nMode: {mode}\n"
    with Answering(answer.encode()) as server:
        assert asked(server)[:3] == ("zookeeper", "3.8.4-9316c2a", topology)


def test_zookeeper_may_not_say() -> None:
    """Where the word is not allowed, the setting that allows it is named."""
    answer = b"srvr is not executed because it is not in the whitelist.\n"
    with Answering(answer) as server, pytest.raises(Unsupported, match="whitelist"):
        asked(server)


def test_zookeeper_is_not_heard_for_ever() -> None:
    """An answer that never ends is given up when the patience is over."""
    began = tenure.now()
    with Answering(b"Zookeeper", endless=True) as server:
        with pytest.raises(Unavailable, match="'srvr'"):
            asked(server, 0.3)
        assert tenure.now() - began < 2


# -- files ---------------------------------------------------------------------------------


def test_no_table_of_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel shows no mounts, the file system's type is left empty."""
    assert _file_mounts.kind_of("/")
    monkeypatch.setattr(_file_mounts, "MOUNTS", "/proc/no/such/table")
    assert _file_mounts.kind_of("/") == ""

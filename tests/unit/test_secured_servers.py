"""Locks over servers that want passwords, users and certificates, through the public API."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote

import pytest

import tenure
import tenure.aio
from tenure.testing.backends import Backend
from tenure.testing.kit import CASES, Case, run
from tenure.testing.kit._base import Flavour
from tenure.testing.servers import (
    Certificates,
    ConsulServer,
    EtcdServer,
    MysqlServer,
    PostgresServer,
    RedisServer,
    SentinelCluster,
    Server,
    find_program,
)

# Whatever must be escaped in a URL is in it.
PASSWORD = "s3cret/w:rd@?%41#"
STRANGE = "wr0ng/w:rd@?%41#"
TTL = 3.0
CONNECT_SECONDS_MAX = 6.0

TOKENS, WAKE, RENEWAL = (
    "tokens_rise",
    "a_waiter_is_woken_by_the_release",
    "hooks_hear_of_everything",
)


class Secured(Backend):
    """A server that was started elsewhere, as the kit's cases want it."""

    name: ClassVar[str] = "secured"

    def __init__(self, url: str) -> None:
        self._url = url

    def start(self) -> None:
        """Started already."""

    def stop(self) -> None:
        """Stopped elsewhere."""

    @property
    def url(self) -> str:
        return self._url

    def footprint(self, namespace: str) -> int:
        raise NotImplementedError


class SecuredRedis(Secured):
    scheme = "redis"


class SecuredPostgresql(Secured):
    scheme = "postgresql"


class SecuredMysql(Secured):
    scheme = "mysql"


class SecuredEtcd(Secured):
    scheme = "etcd"


class SecuredConsul(Secured):
    scheme = "consul"


SERVERS: dict[str, Callable[[], Server | SentinelCluster]] = {
    "redis": lambda: RedisServer(password=PASSWORD),
    "redis-tls": lambda: RedisServer(tls=True, password=PASSWORD),
    "redis-mutual": lambda: RedisServer(mutual_tls=True, user="app", password=PASSWORD),
    "redis-sentinel": lambda: SentinelCluster(user="app", password=PASSWORD),
    "postgresql": lambda: PostgresServer(password=PASSWORD),
    "postgresql-tls": lambda: PostgresServer(tls=True, user="o'app", password=PASSWORD),
    "postgresql-mutual": lambda: PostgresServer(mutual_tls=True, password=PASSWORD),
    "mysql": lambda: MysqlServer(password=PASSWORD),
    "mysql-tls": lambda: MysqlServer(tls=True, user="o'app", password=PASSWORD),
    "mysql-mutual": lambda: MysqlServer(mutual_tls=True, password=PASSWORD),
    "etcd": lambda: EtcdServer(password=PASSWORD),
    "etcd-tls": lambda: EtcdServer(tls=True, user="app", password=PASSWORD),
    "etcd-mutual": lambda: EtcdServer(mutual_tls=True, user="app", password=PASSWORD),
    "consul": lambda: ConsulServer(password=PASSWORD),
    "consul-tls": lambda: ConsulServer(tls=True, password=PASSWORD),
    "consul-mutual": lambda: ConsulServer(mutual_tls=True, password=PASSWORD),
}
PLACES = [
    ("redis-tls", SecuredRedis),
    ("redis-mutual", SecuredRedis),
    ("redis-socket", SecuredRedis),
    ("redis-sentinel", SecuredRedis),
    ("postgresql-tls", SecuredPostgresql),
    ("postgresql-mutual", SecuredPostgresql),
    ("mysql-tls", SecuredMysql),
    ("mysql-mutual", SecuredMysql),
    ("etcd-tls", SecuredEtcd),
    ("etcd-mutual", SecuredEtcd),
    ("consul-tls", SecuredConsul),
    ("consul-mutual", SecuredConsul),
]


class Places:
    """Servers on demand, for the whole module."""

    def __init__(self) -> None:
        self._running: dict[str, Server | SentinelCluster] = {}

    def start(self, name: str) -> Server | SentinelCluster:
        """The server of that name, running."""
        if name not in self._running:
            self._running[name] = SERVERS[name]().start()
        return self._running[name]

    def server(self, name: str) -> Server:
        """The same, where it is one server."""
        server = self.start(name)
        assert isinstance(server, Server)
        return server

    def url(self, name: str) -> str:
        """The URL of a place."""
        if name == "redis-socket":
            server = self.start("redis")
            assert isinstance(server, RedisServer)
            return server.unix_url
        return self.start(name).url

    def close(self) -> None:
        """Stop them all."""
        for server in self._running.values():
            server.close()


@pytest.fixture(scope="module")
def places() -> Iterator[Places]:
    """Servers that start when they are first asked for."""
    running = Places()
    yield running
    running.close()


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The certificates of an authority that no server knows."""
    openssl = find_program("openssl", "openssl")
    return Certificates.of_run(tmp_path_factory.mktemp("stranger"), openssl)


def connected(url: str, flavour: Flavour) -> str:
    """Connect, take a lock and give it back; what the coordinator says of itself."""
    if flavour == "thread":
        with tenure.connect(url, ttl=TTL) as coordinator, coordinator.lock("secured"):
            return repr(coordinator)

    async def body() -> str:
        async with tenure.aio.connect(url, ttl=TTL) as coordinator:
            lease = await coordinator.lock("secured").acquire()
            await lease.release()
            return repr(coordinator)

    return asyncio.run(body())


def refused(url: str, flavour: Flavour) -> tenure.BackendError:
    """What a connection that must fail raises: soon, and without a secret in it."""
    began = tenure.now()
    with pytest.raises(tenure.BackendError) as caught:
        connected(url, flavour)
    assert tenure.now() - began < CONNECT_SECONDS_MAX
    error: BaseException | None = caught.value
    while error is not None:
        _no_secret(f"{error} {error!r}")
        error = error.__cause__ or error.__context__
    return caught.value


def _no_secret(text: str) -> None:
    for secret in (PASSWORD, STRANGE):
        assert secret not in text
        assert quote(secret, safe="") not in text


def _case(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


flavours = pytest.mark.parametrize("flavour", ["thread", "asyncio"])


@flavours
@pytest.mark.parametrize("name", [TOKENS, WAKE, RENEWAL])
@pytest.mark.parametrize("place, kind", PLACES, ids=[place for place, _ in PLACES])
def test_locks_work(
    places: Places, place: str, kind: type[Secured], name: str, flavour: Flavour
) -> None:
    """Clients take turns, wake each other and renew, over every connection that it takes."""
    run(_case(name), kind(places.url(place)), flavour, f"secured-{uuid.uuid4().hex}")


@flavours
@pytest.mark.parametrize("place", [place for place, _ in PLACES])
def test_no_secret_is_told(
    places: Places, place: str, flavour: Flavour, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the coordinator's repr nor the log has the password, in whatever spelling."""
    caplog.set_level(logging.DEBUG)
    shown = connected(places.url(place), flavour)
    assert "***" in shown
    _no_secret(shown)
    _no_secret(caplog.text)


@flavours
@pytest.mark.parametrize("place", [place for place, _ in PLACES])
def test_a_wrong_password_is_refused(places: Places, place: str, flavour: Flavour) -> None:
    """It is `AuthenticationFailed`, also on an encrypted connection and by way of sentinels."""
    right, wrong = (quote(secret, safe="") for secret in (PASSWORD, STRANGE))
    url = places.url(place)
    assert right in url
    assert isinstance(refused(url.replace(right, wrong), flavour), tenure.AuthenticationFailed)


MUTUAL = ["redis-mutual", "postgresql-mutual", "mysql-mutual", "etcd-mutual", "consul-mutual"]


@flavours
@pytest.mark.parametrize("place", MUTUAL)
def test_a_strange_server_is_refused(
    places: Places, place: str, flavour: Flavour, stranger: Certificates
) -> None:
    """A server whose certificate another authority has signed gets no password."""
    url = _exchanged(places, place, "ca", stranger.ca)
    error = refused(url, flavour)
    assert isinstance(error, tenure.AuthenticationFailed)
    assert "certificate" in str(error).lower()


@flavours
@pytest.mark.parametrize("place", MUTUAL)
def test_a_strange_client_is_refused(
    places: Places, place: str, flavour: Flavour, stranger: Certificates
) -> None:
    """Where the server wants a certificate, neither a strange one nor none at all will do."""
    url = _exchanged(places, place, "cert", stranger.cert)
    strange = _option(url, places.server(place).key, stranger.key)
    refused(strange, flavour)
    none = (
        url.partition("?")[0]
        + "?"
        + "&".join(
            option
            for option in url.partition("?")[2].split("&")
            if option.partition("=")[0] not in ("cert", "key", "sslcert", "sslkey")
        )
    )
    refused(none, flavour)


@flavours
def test_another_name_is_refused(places: Places, flavour: Flavour) -> None:
    """With verify-full, a certificate for another name than the one in the URL will not do."""
    server = places.server("postgresql-tls")
    url = server.url.replace(f"@{server.host}:", "@db.invalid:")
    error = refused(f"{url}&hostaddr={server.host}", flavour)
    assert isinstance(error, tenure.AuthenticationFailed)


@flavours
@pytest.mark.parametrize("kind", ["redis", "postgresql", "mysql", "etcd", "consul"])
def test_an_open_connection_is_refused(places: Places, kind: str, flavour: Flavour) -> None:
    """Without TLS in the URL, a server that has nothing but TLS gives a typed error, soon."""
    server = places.server(f"{kind}-tls")
    plain = server.url.partition("?")[0].replace("rediss:", "redis:").replace("etcds:", "etcd:")
    plain = plain.replace("consul+https:", "consul:")
    refused(plain + ("?sslmode=disable" if kind == "postgresql" else ""), flavour)


@flavours
@pytest.mark.parametrize("kind", ["redis", "postgresql", "mysql", "etcd", "consul"])
def test_a_server_without_tls_is_refused(places: Places, kind: str, flavour: Flavour) -> None:
    """With TLS in the URL, a server that has none is `Unavailable`; nothing falls back."""
    secured, open_ = places.server(f"{kind}-tls"), places.server(kind)
    url = secured.url.replace(f":{secured.port}", f":{open_.port}")
    assert isinstance(refused(url, flavour), tenure.Unavailable)


def _exchanged(places: Places, place: str, field: str, path: Path) -> str:
    """The URL of a place with another file."""
    server = places.server(place)
    return _option(server.url, getattr(server, field), path)


def _option(url: str, old: Path, new: Path) -> str:
    changed = url.replace(quote(str(old), safe=""), quote(str(new), safe=""))
    assert changed != url
    return changed

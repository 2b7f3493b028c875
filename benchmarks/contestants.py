"""Who is measured, and Tenure's own two contestants.

A contestant is one way to lock on one backend. It lives in a worker process of its own,
so that no two share an interpreter, a connection or a garbage collector.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from .grouping import Grouping


class Lock(Protocol):
    """One name, as one thread uses it."""

    def acquire(self) -> object: ...

    def release(self) -> object: ...


class AsyncLock(Protocol):
    """One name, as one task uses it."""

    async def acquire(self) -> object: ...

    async def release(self) -> object: ...


class Contestant:
    """A client that is connected, and hands out locks. Any thread may use it."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.options = options
        parts = urlsplit(url)
        first = urlsplit(f"//{parts.netloc.partition(',')[0]}")
        self.host = first.hostname or "127.0.0.1"
        self.port = first.port or 0
        self.path = parts.path

    def lock(self, name: str) -> Lock:
        """A lock for one thread at a time."""
        raise NotImplementedError

    def grouping(self) -> Grouping:
        """Groups and elections, where it has any."""
        raise NotImplementedError

    def cycle(self, name: str) -> Callable[[], object]:
        """What acquires and releases once, with as little around it as possible."""
        lock = self.lock(name)
        acquire, release = lock.acquire, lock.release

        def once() -> None:
            acquire()
            release()

        return once

    def close(self) -> None:
        """Disconnect."""


class AsyncContestant(Contestant):
    """The same for asyncio; made and used inside of a running loop."""

    async def start(self) -> None:
        """Connect."""

    def task_lock(self, name: str) -> AsyncLock:
        """A lock for one task at a time."""
        raise NotImplementedError

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        """What acquires and releases once."""
        lock = self.task_lock(name)

        async def once() -> None:
            await lock.acquire()
            await lock.release()

        return once

    async def stop(self) -> None:
        """Disconnect."""


@dataclass(frozen=True)
class Entry:
    """A contestant as the tables name it, and what it takes part in."""

    name: str
    target: str
    """`module:class`, relative to this package."""
    kind: str = "peer"
    """`raw`, `reference`, `tenure` or `peer`. The `raw` one is what ratios refer to."""
    flavour: str = "sync"
    waits: bool = True
    """Whether its acquire can wait, as hand-over and contention need."""
    environment: dict[str, str] = field(default_factory=dict)

    def make(self, url: str, options: dict[str, Any]) -> Contestant:
        """An instance, in this process."""
        module, _, name = self.target.partition(":")
        found = getattr(importlib.import_module(f".{module}", __package__), name)
        contestant: Contestant = found(url, **options)
        return contestant


class TenureLock:
    """A lock of Tenure's with the interface of the others."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._lease: Any = None

    def acquire(self) -> None:
        self._lease = self._lock.acquire()

    def release(self) -> None:
        self._lease.release()


class Tenure(Contestant):
    """Default settings: the fencing token, the keepalive and the loss signal are included."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        import tenure

        self.coordinator = tenure.connect(url, **options)

    def lock(self, name: str) -> TenureLock:
        return TenureLock(self.coordinator.lock(name))

    def grouping(self) -> Grouping:
        from .grouping import TenureGrouping

        return TenureGrouping(self.coordinator, self.url, self.options)

    def cycle(self, name: str) -> Callable[[], object]:
        acquire = self.coordinator.lock(name).acquire

        def once() -> None:
            acquire().release()

        return once

    def close(self) -> None:
        self.coordinator.close()


class TenureTaskLock:
    """A lock of Tenure's asyncio API with the interface of the others."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._lease: Any = None

    async def acquire(self) -> None:
        self._lease = await self._lock.acquire()

    async def release(self) -> None:
        await self._lease.release()


class TenureAsyncio(AsyncContestant):
    """The asyncio API with default settings."""

    coordinator: Any

    async def start(self) -> None:
        import tenure.aio

        self.coordinator = await tenure.aio.connect(self.url, **self.options)

    def task_lock(self, name: str) -> TenureTaskLock:
        return TenureTaskLock(self.coordinator.lock(name))

    def task_cycle(self, name: str) -> Callable[[], Awaitable[object]]:
        acquire = self.coordinator.lock(name).acquire

        async def once() -> None:
            await (await acquire()).release()

        return once

    async def stop(self) -> None:
        await self.coordinator.close()


DRIVERS = (
    "memory",
    "file",
    "ipc",
    "redis",
    "redlock",
    "memcached",
    "postgresql",
    "mysql",
    "postgresql-row",
    "etcd",
    "etcd-gateway",
    "consul",
    "zookeeper",
    "sqlite",
    "sql",
)

_TENURE = Entry("Tenure", "contestants:Tenure", "tenure")
_TENURE_ASYNCIO = Entry("Tenure, asyncio", "contestants:TenureAsyncio", "tenure", "asyncio")
_SLOW_PROTOBUF = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"}

ENTRIES: dict[str, tuple[Entry, ...]] = {
    "memory": (
        Entry("threading.Lock", "raw:ThreadLock", "raw"),
        _TENURE,
        Entry("asyncio.Lock", "raw:TaskLock", "raw", "asyncio"),
        _TENURE_ASYNCIO,
    ),
    "file": (
        Entry("open, flock, close", "raw:Flock", "raw"),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("fasteners", "peers:Fasteners"),
        Entry("filelock", "peers:Filelock"),
        Entry("portalocker", "peers:Portalocker"),
        Entry("open, flock, close, in a loop", "raw:TaskFlock", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
        Entry("filelock, asyncio", "peers:FilelockAsyncio", flavour="asyncio"),
    ),
    "ipc": (
        Entry("semop", "raw_ipc:Semop", "raw", waits=False),
        Entry("sysv_ipc", "raw_ipc:SysvIpc", "reference", waits=False),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("semop, in a loop", "raw_ipc:TaskSemop", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
    "redis": (
        Entry("redis-py, one connection", "raw:RedisClient", "raw", waits=False),
        Entry("redis-py, Connection", "raw:RedisConnection", "reference", waits=False),
        Entry("bare socket", "raw:RedisSocket", "reference", waits=False),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("redis-py Lock", "peers:RedisLock"),
        Entry("python-redis-lock", "peers:PythonRedisLock"),
        Entry("pottery", "peers:Pottery"),
        Entry("sherlock", "peers:Sherlock"),
        Entry("redis-py, asyncio", "raw:RedisAsyncio", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
        Entry("redis-py Lock, asyncio", "peers:RedisLockAsyncio", flavour="asyncio"),
    ),
    "redlock": (
        Entry("redis-py, Connection", "raw_redlock:Connections", "raw", waits=False),
        _TENURE,
        Entry("pottery", "raw_redlock:Pottery"),
        Entry("redis-py, asyncio", "raw_redlock:Clients", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
    "memcached": (
        Entry("pymemcache, raw commands", "raw_memcached:Pymemcache", "raw", waits=False),
        Entry("bare socket", "raw_memcached:MemcachedSocket", "reference", waits=False),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("asyncio streams", "raw_memcached:MemcachedStreams", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
    "postgresql": (
        Entry("psycopg, exec_prepared", "raw:PostgresqlPrepared", "raw"),
        Entry("psycopg, cursor", "raw:PostgresqlCursor", "reference"),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("pals", "peers:Pals"),
        Entry("psycopg, asyncio", "raw:PostgresqlAsyncio", "raw", "asyncio"),
        _TENURE_ASYNCIO,
    ),
    "mysql": (
        Entry("PyMySQL, cursor", "raw_mysql:Pymysql", "raw"),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("aiomysql, cursor", "raw_mysql:Aiomysql", "raw", "asyncio"),
        _TENURE_ASYNCIO,
    ),
    "etcd": (
        Entry("grpcio, Txn and DeleteRange", "raw:EtcdTxn", "raw", waits=False),
        Entry("grpcio, the server's Lock", "raw:EtcdLock", "reference"),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("etcd3gw", "peers:Etcd3gw", waits=False),
        # Its acquire raises TypeError on a lock that is taken, with the tenacity of today.
        Entry("etcd3", "peers:Etcd3", waits=False, environment=_SLOW_PROTOBUF),
        Entry("grpcio, asyncio", "raw:EtcdAsyncio", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
    "etcd-gateway": (
        Entry("httpx2, Txn and DeleteRange", "raw_etcd_gateway:Httpx", "raw", waits=False),
        Entry("http.client", "raw_etcd_gateway:HttpClient", "reference", waits=False),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("etcd3gw", "peers:Etcd3gw", waits=False),
        Entry("httpx2, asyncio", "raw_etcd_gateway:HttpxAsyncio", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
    "postgresql-row": (
        Entry("psycopg, a row", "raw_postgresql_row:Psycopg", "raw", waits=False),
        _TENURE,
        Entry(
            "psycopg, asyncio", "raw_postgresql_row:PsycopgAsyncio", "raw", "asyncio", waits=False
        ),
        _TENURE_ASYNCIO,
    ),
    "consul": (
        Entry("httpx2, acquire and release", "raw_consul:Httpx", "raw", waits=False),
        Entry("http.client", "raw_consul:HttpClient", "reference", waits=False),
        _TENURE,
        Entry("py-consul", "raw_consul:PyConsul", waits=False),
        Entry("httpx2, asyncio", "raw_consul:HttpxAsyncio", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
    "zookeeper": (
        Entry("kazoo, create and delete", "raw_zookeeper:Kazoo", "raw", waits=False),
        Entry("kazoo, with a queue", "raw_zookeeper:KazooQueue", "reference", waits=False),
        _TENURE,
        Entry("tooz", "peers:Tooz"),
        Entry("kazoo Lock", "raw_zookeeper:KazooLock"),
        Entry("kazoo, asyncio", "raw_zookeeper:KazooTasks", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
    "sqlite": (
        Entry("sqlite3, cursor", "raw_sql:Sqlite", "raw", waits=False),
        Entry("sqlite3, a bare row", "raw_sql:SqliteBare", "reference", waits=False),
        _TENURE,
        Entry("sqlite3, in threads", "raw_sql:SqliteThread", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
    "sql": (
        Entry("psycopg, cursor", "raw_sql:Psycopg", "raw", waits=False),
        Entry("psycopg, a bare row", "raw_sql:PsycopgBare", "reference", waits=False),
        Entry("SQLAlchemy, a bare row", "raw_sql:Core", "reference", waits=False),
        _TENURE,
        Entry("pals", "peers:Pals"),
        Entry("psycopg, asyncio", "raw_sql:PsycopgAsyncio", "raw", "asyncio", waits=False),
        _TENURE_ASYNCIO,
    ),
}


AS_TOOZ = Entry("Tenure as Tooz", "compat:AsTooz", "tenure")
"""Takes part in a scenario of its own."""


def find(driver: str, name: str) -> Entry:
    """The entry of that name."""
    return next(entry for entry in (*ENTRIES[driver], AS_TOOZ) if entry.name == name)

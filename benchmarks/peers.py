"""The peers, each as its own documentation shows it, with a TTL of 15 seconds.

tooz renews from a thread, as Tenure does; the others do not renew unless asked to, and
are not asked.
"""

from __future__ import annotations

import os
from typing import Any

from .contestants import AsyncContestant, AsyncLock, Contestant, Lock
from .grouping import Grouping, ToozGrouping
from .raw import load

TTL = 15


class Tooz(Contestant):
    """The coordination library of OpenStack."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._coordinator = self._connect(b"bench-%d" % os.getpid())
        self._coordinator.start(start_heart=True)

    def _connect(self, member: bytes) -> Any:
        return load("tooz.coordination").get_coordinator(self._url(), member)

    def _url(self) -> str:
        url = self.url
        if url.startswith("etcd:"):
            url = f"etcd3+http://{self.host}:{self.port}"
        joint = "&" if "?" in url else "?"
        return f"{url}{joint}timeout={self.options['ttl']}" if "ttl" in self.options else url

    def grouping(self) -> Grouping:
        return ToozGrouping(self._connect)

    def lock(self, name: str) -> Lock:
        lock: Lock = self._coordinator.get_lock(f"tooz-{name}".encode())
        return lock

    def close(self) -> None:
        self._coordinator.stop()


# -- files -------------------------------------------------------------------


class Fasteners(Contestant):
    """fasteners.InterProcessLock."""

    def lock(self, name: str) -> Lock:
        lock: Lock = load("fasteners").InterProcessLock(os.path.join(self.path, f"fast-{name}"))
        return lock


class Filelock(Contestant):
    """filelock.FileLock."""

    def lock(self, name: str) -> Lock:
        lock: Lock = load("filelock").FileLock(os.path.join(self.path, f"filelock-{name}"))
        return lock


class FilelockAsyncio(AsyncContestant):
    """filelock.AsyncFileLock."""

    def task_lock(self, name: str) -> AsyncLock:
        path = os.path.join(self.path, f"filelock-{name}")
        lock: AsyncLock = load("filelock").AsyncFileLock(path)
        return lock


class Portalocker(Contestant):
    """portalocker.Lock."""

    def lock(self, name: str) -> Lock:
        path = os.path.join(self.path, f"portalocker-{name}")
        lock: Lock = load("portalocker").Lock(path, timeout=60)
        return lock


# -- Redis -------------------------------------------------------------------


class _Redis(Contestant):
    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.client = load("redis").Redis(self.host, self.port)

    def close(self) -> None:
        self.client.close()


class RedisLock(_Redis):
    """The lock that redis-py ships."""

    def lock(self, name: str) -> Lock:
        lock: Lock = self.client.lock(f"redis-py-{name}", timeout=TTL)
        return lock


class PythonRedisLock(_Redis):
    """python-redis-lock, without its renewal."""

    def lock(self, name: str) -> Lock:
        lock: Lock = load("redis_lock").Lock(self.client, f"prl-{name}", expire=TTL)
        return lock


class Pottery(_Redis):
    """pottery's Redlock over a single master."""

    def lock(self, name: str) -> Lock:
        lock: Lock = load("pottery").Redlock(
            key=f"pottery-{name}", masters={self.client}, auto_release_time=TTL
        )
        return lock


class Sherlock(_Redis):
    """sherlock.RedisLock."""

    def lock(self, name: str) -> Lock:
        lock: Lock = load("sherlock").RedisLock(
            f"sherlock-{name}", client=self.client, expire=TTL, timeout=60
        )
        return lock


class RedisLockAsyncio(AsyncContestant):
    """The lock of redis-py's asyncio half."""

    async def start(self) -> None:
        self.client = load("redis.asyncio").Redis(host=self.host, port=self.port)

    def task_lock(self, name: str) -> AsyncLock:
        lock: AsyncLock = self.client.lock(f"redis-py-{name}", timeout=TTL)
        return lock

    async def stop(self) -> None:
        await self.client.aclose()


# -- PostgreSQL and etcd -----------------------------------------------------


class Pals(Contestant):
    """pals: advisory locks through SQLAlchemy."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._locker = load("pals").Locker(
            "bench", f"postgresql+psycopg://{url.partition('://')[2]}"
        )

    def lock(self, name: str) -> Lock:
        lock: Lock = self._locker.lock(name)
        return lock


class Etcd3gw(Contestant):
    """etcd3gw, over the HTTP gateway. Its acquire tries once."""

    def lock(self, name: str) -> Lock:
        client = load("etcd3gw").client(self.host, self.port)
        lock: Lock = client.lock(f"gw-{name}", ttl=TTL)
        return lock


class Etcd3(Contestant):
    """etcd3, over gRPC."""

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self._client = load("etcd3").client(self.host, self.port)

    def lock(self, name: str) -> Lock:
        lock: Lock = self._client.lock(f"etcd3-{name}", ttl=TTL)
        return lock

    def close(self) -> None:
        self._client.close()

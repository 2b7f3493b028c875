"""From a URL's scheme to the class of its driver.

The built-in drivers are found without scanning the installed distributions; only an
unknown scheme looks through the entry-point group `tenure.drivers`, in which the
built-in ones are listed too. A program may `register` a driver for itself.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

from .._url import Url
from ..errors import InvalidURL, UnknownDriver
from .base import Driver

GROUP = "tenure.drivers"
TABLES = "sql+"
"""What begins every scheme of the driver over tables: after it comes a scheme of SQLAlchemy's."""


class Entry(NamedTuple):
    """Where a scheme's driver lives, and what brings its client library."""

    scheme: str
    module: str
    attribute: str
    extra: str = ""

    @property
    def target(self) -> str:
        """The entry point's value, `module:attribute`."""
        return f"{self.module}:{self.attribute}"


BUILT_IN = {
    entry.scheme: entry
    for entry in (
        Entry("memory", "tenure.drivers.memory", "MemoryDriver"),
        Entry("file", "tenure.drivers.file", "FileDriver"),
        Entry("ipc", "tenure.drivers.ipc", "IpcDriver"),
        Entry("redis", "tenure.drivers.redis", "RedisDriver", "redis"),
        Entry("rediss", "tenure.drivers.redis", "RedisDriver", "redis"),
        Entry("unix", "tenure.drivers.redis", "RedisDriver", "redis"),
        Entry("redis+sentinel", "tenure.drivers.redis", "RedisDriver", "redis"),
        Entry("memcached", "tenure.drivers.memcached", "MemcachedDriver"),
        Entry("redis+cluster", "tenure.drivers.redis", "RedisDriver", "redis"),
        Entry("postgresql", "tenure.drivers.postgresql", "PostgresqlDriver", "postgresql"),
        Entry("postgres", "tenure.drivers.postgresql", "PostgresqlDriver", "postgresql"),
        Entry("mysql", "tenure.drivers.mysql", "MysqlDriver", "mysql"),
        Entry("mariadb", "tenure.drivers.mysql", "MysqlDriver", "mysql"),
        Entry("zookeeper", "tenure.drivers.zookeeper", "ZookeeperDriver", "zookeeper"),
        Entry("kazoo", "tenure.drivers.zookeeper", "ZookeeperDriver", "zookeeper"),
        Entry("zake", "tenure.drivers.zake", "ZakeDriver", "zake"),
        Entry("etcd", "tenure.drivers.etcd", "EtcdDriver", "etcd"),
        Entry("etcds", "tenure.drivers.etcd", "EtcdDriver", "etcd"),
        Entry("consul", "tenure.drivers.consul", "ConsulDriver"),
        Entry("consul+https", "tenure.drivers.consul", "ConsulDriver"),
        Entry("etcd3+http", "tenure.drivers.etcd_gateway", "EtcdGatewayDriver"),
        Entry("etcd3+https", "tenure.drivers.etcd_gateway", "EtcdGatewayDriver"),
        Entry("sqlite", "tenure.drivers.sqlite", "SqliteDriver"),
        Entry("sql", "tenure.drivers.sql", "SqlDriver", "sql"),
    )
}


_registered: dict[str, Entry] = {}


def register(scheme: str, driver: type[Driver]) -> None:
    """Make a driver known in this process alone, without installing it.

    It must be a class at the top of its module. `InvalidURL` if another driver has the scheme.
    """
    entry = Entry(scheme, driver.__module__, driver.__qualname__)
    known = BUILT_IN.get(scheme) or _registered.get(scheme) or _outside().get(scheme)
    if known is not None and known.target != entry.target:
        raise InvalidURL(f"{scheme}: this scheme is that of {known.target}")
    _registered[scheme] = entry


def entries() -> list[Entry]:
    """Every driver that is installed or registered, built in or not, by scheme."""
    return sorted({**_outside(), **_registered, **BUILT_IN}.values())


def find(url: Url) -> type[Driver]:
    """The driver's class for a URL; `UnknownDriver` if there is none."""
    return load(entry(url)).chosen(url)


def entry(url: Url) -> Entry:
    """Where the driver for a URL lives; `UnknownDriver` if there is none."""
    entry = BUILT_IN.get(url.scheme)
    if entry is None and url.scheme.startswith(TABLES):
        entry = BUILT_IN["sql"]
    entry = entry or _registered.get(url.scheme) or _outside().get(url.scheme)
    if entry is None:
        known = ", ".join(each.scheme for each in entries())
        raise UnknownDriver(f"no driver for the scheme {url.scheme!r}; installed: {known}")
    return entry


def load(entry: Entry) -> type[Driver]:
    """Import the driver; say what to install when its client library is missing."""
    try:
        module = importlib.import_module(entry.module)
    except ImportError as error:
        if not entry.extra or (error.name or "").startswith("tenure"):
            raise
        raise UnknownDriver(
            f"{entry.scheme}: the client library is missing ({error.name}); "
            f"install it with: pip install 'tenure[{entry.extra}]'"
        ) from error
    driver = getattr(module, entry.attribute, None)
    if not (isinstance(driver, type) and issubclass(driver, Driver)):
        raise InvalidURL(f"{entry.scheme}: {entry.target} is not a Tenure driver")
    return driver


def _outside() -> dict[str, Entry]:
    from importlib.metadata import entry_points

    found = {}
    for point in entry_points(group=GROUP):
        module, _, attribute = point.value.partition(":")
        found[point.name] = Entry(point.name, module, attribute)
    return found

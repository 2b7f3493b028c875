"""From a URL's scheme to the class of its driver.

Tenure's own come first, then what is installed for Tenure under `tenure.drivers`, and then what
is installed for Tooz under `tooz.backends`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..._url import Url
from ...drivers import registry
from ...errors import UnknownDriver
from ._base import CoordinationDriver
from ._errors import ToozDriverChosenPoorly
from ._foreign import adopted
from ._ids import Id

GROUP = "tooz.backends"

Maker = Callable[[Id, Any, dict[str, Any]], CoordinationDriver]

CLASSES = {
    "memory": "memory:MemoryDriver",
    "file": "file:FileDriver",
    "ipc": "ipc:IPCDriver",
    "redis": "redis:RedisDriver",
    "rediss": "redis:RedisDriver",
    "unix": "redis:RedisDriver",
    "redis+sentinel": "redis:RedisDriver",
    "redis+cluster": "redis:RedisDriver",
    "memcached": "memcached:MemcachedDriver",
    "postgresql": "pgsql:PostgresDriver",
    "postgres": "pgsql:PostgresDriver",
    "mysql": "mysql:MySQLDriver",
    "mariadb": "mysql:MySQLDriver",
    "zookeeper": "zookeeper:KazooDriver",
    "kazoo": "zookeeper:KazooDriver",
    "zake": "zake:ZakeDriver",
    "etcd": "etcd:EtcdDriver",
    "etcds": "etcd:EtcdDriver",
    "etcd3": "etcd:EtcdDriver",
    "etcd3+http": "etcd3gw:Etcd3Driver",
    "etcd3+https": "etcd3gw:Etcd3Driver",
    "consul": "consul:ConsulDriver",
    "consul+https": "consul:ConsulDriver",
    "sqlite": "sql:SqliteDriver",
    "sql": "sql:SqlDriver",
}
"""The class of each scheme in `drivers`, as `module:class`."""


def find(scheme: str) -> Maker:
    """What makes a coordinator for a scheme; `ToozDriverChosenPoorly` if nothing does."""
    target = CLASSES.get("sql" if scheme.startswith(registry.TABLES) else scheme)
    if target is not None:
        module, _, name = target.partition(":")
        found: Maker = getattr(importlib.import_module(f".drivers.{module}", __package__), name)
        return found
    try:
        registry.find(Url(scheme))
    except UnknownDriver as error:
        foreign = _entry_point(scheme)
        if foreign is None:
            known = ", ".join(sorted({*CLASSES, *(each.scheme for each in registry.entries())}))
            raise ToozDriverChosenPoorly(
                f"no driver for the scheme {scheme!r}, neither of Tenure's ({known})"
                f" nor under the entry points {GROUP}",
                error,
            ) from error
        return adopted(foreign)
    from ._driver import TenureDriver

    return TenureDriver


def _entry_point(scheme: str) -> Any:
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP, name=scheme):
        try:
            return point.load()
        except ImportError as error:
            raise ToozDriverChosenPoorly(
                f"the driver {point.value} for {scheme!r} cannot be imported: {error}", error
            ) from error
    return None

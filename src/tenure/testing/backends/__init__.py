"""What the conformance kit must know of a backend: how it starts, and how to reach it.

The author of another driver derives from `Backend`, and from `servers.Server` for its
server, and hands the class to `tenure.testing.kit.conformance`.
"""

from __future__ import annotations

from ._base import Backend, ServerBackend
from ._consul import ConsulBackend
from ._etcd import EtcdBackend, EtcdGatewayBackend
from ._file import FileBackend
from ._ipc import IpcBackend
from ._memcached import MemcachedBackend
from ._memory import MemoryBackend
from ._mysql import MysqlBackend
from ._postgresql import PostgresqlBackend, PostgresqlRowBackend
from ._redis import RedisBackend
from ._redlock import RedlockBackend
from ._sql import SqliteBackend, SqlMariadbBackend, SqlPostgresqlBackend
from ._zookeeper import ZakeBackend, ZookeeperBackend

BACKENDS: tuple[type[Backend], ...] = (
    MemoryBackend,
    FileBackend,
    IpcBackend,
    RedisBackend,
    RedlockBackend,
    PostgresqlBackend,
    PostgresqlRowBackend,
    MysqlBackend,
    EtcdBackend,
    EtcdGatewayBackend,
    ConsulBackend,
    ZookeeperBackend,
    ZakeBackend,
    SqliteBackend,
    SqlPostgresqlBackend,
    SqlMariadbBackend,
    MemcachedBackend,
)
"""Those of the built-in drivers, in the order of the tables."""

__all__ = [
    "BACKENDS",
    "Backend",
    "ConsulBackend",
    "EtcdBackend",
    "EtcdGatewayBackend",
    "FileBackend",
    "IpcBackend",
    "MemcachedBackend",
    "MemoryBackend",
    "MysqlBackend",
    "PostgresqlBackend",
    "PostgresqlRowBackend",
    "RedisBackend",
    "RedlockBackend",
    "ServerBackend",
    "SqlMariadbBackend",
    "SqlPostgresqlBackend",
    "SqliteBackend",
    "ZakeBackend",
    "ZookeeperBackend",
]

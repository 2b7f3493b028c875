"""Real servers for tests: private, on loopback, with their own folder and free ports.

    with RedisServer() as server:
        coordinator = tenure.connect(server.url)
        server.pause()

A server never outlives the process that started it, also when that process is killed.
The programs come from the system's packages; `ServerMissing` names the one to install.
Whoever writes a driver for another backend derives from `Server`.
"""

from __future__ import annotations

from ._base import Server
from ._consul import ConsulCluster, ConsulServer
from ._etcd import EtcdGatewayServer, EtcdServer
from ._etcd_cluster import EtcdCluster, EtcdMember
from ._memcached import MemcachedServer
from ._mysql import MysqlServer
from ._network import Network, Place
from ._pgbouncer import PgBouncer
from ._postgres import PostgresServer
from ._redis import RedisServer
from ._redis_cluster import RedisCluster, RedisClusterNode
from ._redlock import Proxies, RedisMasters
from ._run import free_port
from ._sentinel import RedisSentinel, SentinelCluster
from ._tls import Certificates
from ._tools import ServerFailed, ServerMissing, find_program
from ._zookeeper import ZookeeperEnsemble, ZookeeperServer

__all__ = [
    "Certificates",
    "ConsulCluster",
    "ConsulServer",
    "EtcdCluster",
    "EtcdGatewayServer",
    "EtcdMember",
    "EtcdServer",
    "MemcachedServer",
    "MysqlServer",
    "Network",
    "PgBouncer",
    "Place",
    "PostgresServer",
    "Proxies",
    "RedisCluster",
    "RedisClusterNode",
    "RedisMasters",
    "RedisSentinel",
    "RedisServer",
    "SentinelCluster",
    "Server",
    "ServerFailed",
    "ServerMissing",
    "ZookeeperEnsemble",
    "ZookeeperServer",
    "find_program",
    "free_port",
]

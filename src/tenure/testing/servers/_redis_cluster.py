"""A Redis Cluster: masters that share the slots, with replicas if wanted."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self
from urllib.parse import urlencode

from . import _proc
from ._base import START_LIMIT
from ._redis import RedisServer
from ._run import HOST, free_port
from ._tools import ServerFailed

_MASTERS = 3
_SLOTS = 16384
_SLOTS_AT_ONCE = 2000
_BUS_OFFSET = 10_000


class RedisClusterNode(RedisServer):
    """One node; it also listens on its port plus 10,000, for the other nodes."""

    kind: ClassVar[str] = "redis-cluster"

    def facts(self) -> dict[str, str]:
        """What it says of the cluster: cluster_state, cluster_known_nodes and more."""
        lines = self.command("CLUSTER", "INFO").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    @property
    def id(self) -> str:
        """By what name the other nodes know it."""
        name: bytes = self.command("CLUSTER", "MYID")
        return name.decode()

    def is_master(self) -> bool:
        """Whether it takes itself for a master."""
        return bool(self.command("ROLE")[0] == b"master")

    def _draw_ports(self) -> None:
        for _ in range(100):
            self.port = free_port()
            if self.port + _BUS_OFFSET > 65535:
                continue
            with socket.socket() as probe:
                try:
                    probe.bind((HOST, self.port + _BUS_OFFSET))
                except OSError:
                    continue
            return
        raise ServerFailed("no pair of free ports was found")


class RedisCluster:
    """Three masters, each with so many replicas; as a context manager it starts and closes.

    A node that is silent for `failover_after` seconds is replaced by its replica. What the
    masters lose by that is up to the settings, as with any Redis.
    """

    def __init__(
        self,
        *,
        replicas: int = 0,
        password: str | None = None,
        tls: bool = False,
        failover_after: float = 1.0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        common = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": str(round(failover_after * 1000)),
            "cluster-replica-validity-factor": "0",
            **({"tls-cluster": "yes"} if tls else {}),
            **(settings or {}),
        }
        self.nodes = [
            RedisClusterNode(password=password, tls=tls, settings=common)
            for _ in range(_MASTERS * (1 + replicas))
        ]

    @property
    def url(self) -> str:
        """The URL to connect with; it names every node."""
        userinfo = self.nodes[0]._authority(0).rpartition("@")[0]
        hosts = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        options = self.nodes[0]._tls_options()
        tls = urlencode({"tls": "true", **options}) if options else ""
        return (
            f"redis+cluster://{userinfo}{'@' if userinfo else ''}{hosts}{'?' if tls else ''}{tls}"
        )

    def owner_of(self, key: str) -> RedisClusterNode:
        """The node that the others hold to have the key's slot."""
        slot = self._any().command("CLUSTER", "KEYSLOT", key)
        for first, last, node, *_ in self._any().command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return self.at(node[1])
        raise ServerFailed(f"nobody has the slot of {key}")

    def replica_of(self, node: RedisClusterNode) -> RedisClusterNode:
        """The first replica that a master was given at the start."""
        return self.nodes[self.nodes.index(node) + _MASTERS]

    def at(self, port: int) -> RedisClusterNode:
        """The node that listens on a port."""
        return next(node for node in self.nodes if node.port == port)

    def start(self) -> Self:
        """Start everything; on return every node knows the others and all slots are served."""
        try:
            for node in self.nodes:
                node.start()
            self._join()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """Kill every node and remove its folder."""
        for node in reversed(self.nodes):
            node.close()

    def begin_move(self, slot: int, here: RedisClusterNode, there: RedisClusterNode) -> None:
        """Have a slot be between two nodes, until `end_move`."""
        there.command("CLUSTER", "SETSLOT", slot, "IMPORTING", here.id)
        here.command("CLUSTER", "SETSLOT", slot, "MIGRATING", there.id)

    def move_keys(self, here: RedisClusterNode, there: RedisClusterNode, *keys: str) -> None:
        """Move these keys of a slot that is being moved."""
        words = ("MIGRATE", there.host, there.port, "", 0, 5000)
        login = () if there.password is None else ("AUTH", there.password)
        here.command(*words, *login, "KEYS", *keys)

    def end_move(self, slot: int, there: RedisClusterNode) -> None:
        """Tell every master that a slot, all of whose keys were moved, is elsewhere now."""
        for node in [there, *(node for node in self.nodes if node is not there)]:
            if node.is_master():
                node.command("CLUSTER", "SETSLOT", slot, "NODE", there.id)

    def _any(self) -> RedisClusterNode:
        return next(node for node in self.nodes if node.alive() and not node._paused)

    def _join(self) -> None:
        masters, replicas = self.nodes[:_MASTERS], self.nodes[_MASTERS:]
        for number, node in enumerate(self.nodes):
            node.command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        bounds = [_SLOTS * number // _MASTERS for number in range(_MASTERS + 1)]
        for master, start, stop in zip(masters, bounds, bounds[1:], strict=False):
            for slot in range(start, stop, _SLOTS_AT_ONCE):
                last = min(slot + _SLOTS_AT_ONCE, stop)
                master.command("CLUSTER", "ADDSLOTS", *range(slot, last))
        for node in self.nodes[1:]:
            node.command("CLUSTER", "MEET", masters[0].host, masters[0].port)
        self._until(self._acquainted, "know each other")
        for number, replica in enumerate(replicas):
            replica.command("CLUSTER", "REPLICATE", masters[number % _MASTERS].id)
        self._until(lambda: self._replicated(replicas), "replicate")
        self._until(self._serving, "serve")

    def _acquainted(self) -> bool:
        count = str(len(self.nodes))
        ids = {node.id.encode() for node in self.nodes}
        return all(
            node.facts()["cluster_known_nodes"] == count
            and {line.split()[0] for line in _lines(node)} == ids
            and not any(b"handshake" in line for line in _lines(node))
            for node in self.nodes
        )

    def _replicated(self, replicas: Sequence[RedisClusterNode]) -> bool:
        return all(
            b"master_link_status:up" in replica.command("INFO", "replication")
            for replica in replicas
        ) and all(
            sum(b"slave" in line.split()[2] for line in _lines(node)) == len(replicas)
            for node in self.nodes
        )

    def _serving(self) -> bool:
        return all(
            node.facts()["cluster_state"] == "ok"
            and node.facts()["cluster_slots_ok"] == str(_SLOTS)
            for node in self.nodes
        )

    @staticmethod
    def _until(condition: Callable[[], bool], what: str) -> None:
        if not _proc.until(condition, START_LIMIT):
            raise ServerFailed(f"the nodes of the cluster do not {what}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _lines(node: RedisClusterNode) -> list[bytes]:
    told: bytes = node.command("CLUSTER", "NODES")
    return told.splitlines()

"""Which servers stand in for a target: three that agree, or a master and its replicas."""

from __future__ import annotations

from collections.abc import Sequence

from ..servers import (
    ConsulCluster,
    EtcdCluster,
    RedisCluster,
    RedisMasters,
    RedisServer,
    SentinelCluster,
    Server,
    ServerFailed,
    ZookeeperEnsemble,
)
from ._base import Target
from ._clusters import Alone, Cluster


def clusters(target: Target) -> list[Cluster]:
    """What to break instead of the target's own server, one after another.

    A target whose server is somebody else's is used as it is.
    """
    name = "" if target.backend is None else target.backend.name
    return [kind(target) for kind in _KINDS.get(name, (Alone,))]


def _listed(target: Target, servers: Sequence[Server], tail: str = "") -> str:
    """A URL of the target's scheme for these servers."""
    scheme = target.url.partition("://")[0]
    return f"{scheme}://{','.join(f'{each.host}:{each.port}' for each in servers)}{tail}"


class ThreeEtcd(Cluster):
    """Three members; each serves clients, and the leader orders what is written."""

    topology = "three etcd"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._cluster = EtcdCluster()

    @property
    def nodes(self) -> Sequence[Server]:
        return self._cluster.members

    @property
    def url(self) -> str:
        return _listed(self.target, self.nodes)

    def endpoint(self, node: int) -> str:
        return _listed(self.target, self.nodes[node : node + 1])

    def leader(self) -> int:
        return self._cluster.members.index(self._cluster.leader)

    def serves(self) -> bool:
        return all(member.serves() for member in self._cluster.members)

    def run(self) -> None:
        self.settle(self.nodes)
        self._cluster.start()

    def revive(self, node: int) -> None:
        self._cluster.heal()

    def end(self) -> None:
        self._cluster.close()


class ThreeZookeepers(Cluster):
    """An ensemble; each server reads for itself, and the leader orders what is written."""

    topology = "three ZooKeepers"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._ensemble: ZookeeperEnsemble | None = None

    @property
    def nodes(self) -> Sequence[Server]:
        return () if self._ensemble is None else self._ensemble.servers

    @property
    def url(self) -> str:
        return _listed(self.target, self.nodes)

    def endpoint(self, node: int) -> str:
        return _listed(self.target, self.nodes[node : node + 1])

    def leader(self) -> int:
        assert self._ensemble is not None
        try:
            return self._ensemble.servers.index(self._ensemble.leader)
        except StopIteration:
            raise ServerFailed("no ZooKeeper leads") from None

    def serves(self) -> bool:
        assert self._ensemble is not None
        told = [each.word("srvr") for each in self._ensemble.servers]
        modes = sorted("leader" if "Mode: leader" in each else "follower" for each in told)
        return all("Mode:" in each for each in told) and modes == ["follower", "follower", "leader"]

    def run(self) -> None:
        places = () if self.network is None else self.network.places
        self._ensemble = ZookeeperEnsemble(self.size, places=places)
        self._ensemble.start()

    def end(self) -> None:
        if self._ensemble is not None:
            self._ensemble.close()


class ThreeConsuls(Cluster):
    """Three servers; each serves clients, and the leader orders what is written."""

    topology = "three Consuls"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._cluster = ConsulCluster()

    @property
    def nodes(self) -> Sequence[Server]:
        return self._cluster.servers

    @property
    def url(self) -> str:
        return _listed(self.target, self.nodes)

    def endpoint(self, node: int) -> str:
        return _listed(self.target, self.nodes[node : node + 1])

    def leader(self) -> int:
        return self._cluster.servers.index(self._cluster.leader)

    def serves(self) -> bool:
        return all(server.serves() for server in self._cluster.servers)

    def run(self) -> None:
        self.settle(self.nodes)
        self._cluster.start()

    def end(self) -> None:
        self._cluster.close()


_REACHABLE = {"protected-mode": "no"}


class Sentinels(Cluster):
    """A master, a replica and three sentinels; who asks one sentinel is led to the master.

    Each of the three nodes has a sentinel, and two of them a server.
    """

    topology = "a Redis master, a replica, three sentinels"

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._cluster = SentinelCluster(settings=_REACHABLE)

    @property
    def nodes(self) -> Sequence[Server]:
        return (self._cluster.master, self._cluster.replica)

    @property
    def url(self) -> str:
        return self._cluster.url

    def endpoint(self, node: int) -> str:
        sentinel = self._cluster.sentinels[node]
        return f"redis+sentinel://{sentinel.host}:{sentinel.port}/{self._cluster.name}/0"

    def leader(self) -> int:
        master = self._cluster.current_master()
        if master is None:
            raise ServerFailed("the sentinels do not agree on a master")
        return self.nodes.index(master)

    def followers(self, leader: int) -> list[int]:
        return [1 - leader, 2]

    def serves(self) -> bool:
        master = self._cluster.current_master()
        try:
            votes = {int(sentinel.state()["port"]) for sentinel in self._cluster.sentinels}
            return (
                master is not None
                and votes == {master.port}
                and bool(master.command("ROLE")[0] == b"master")
            )
        except (OSError, ServerFailed):
            return False

    def run(self) -> None:
        if self.network is not None:
            places = self.network.places
            for server, place in zip(self.nodes, places, strict=False):
                server.settle(place)
            for sentinel, place in zip(self._cluster.sentinels, places, strict=True):
                sentinel.settle(place)
        self._cluster.start()

    def end(self) -> None:
        self._cluster.close()


class MastersWithReplicas(Cluster):
    """A Redis Cluster: the node of the namespace's slot leads, and its replica follows."""

    topology = "a Redis Cluster of three masters, three replicas"
    size = 6

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._cluster = RedisCluster(replicas=1, settings=_REACHABLE)

    @property
    def nodes(self) -> Sequence[Server]:
        return self._cluster.nodes

    @property
    def url(self) -> str:
        return self._cluster.url

    def endpoint(self, node: int) -> str:
        each = self.nodes[node]
        return f"redis+cluster://{each.host}:{each.port}"

    def leader(self) -> int:
        owner = self._cluster.owner_of(f"tenure:{{{self.target.namespace}}}:n")
        return self._cluster.nodes.index(owner)

    def followers(self, leader: int) -> list[int]:
        pair = (leader + self.size // 2) % self.size
        return [pair, *(node for node in super().followers(leader) if node != pair)]

    def serves(self) -> bool:
        try:
            return all(node.facts()["cluster_state"] == "ok" for node in self._cluster.nodes)
        except (OSError, ServerFailed):
            return False

    def run(self) -> None:
        self.settle(self.nodes)
        self._cluster.start()

    def end(self) -> None:
        self._cluster.close()


class ThreeMasters(Cluster):
    """Redlock's masters, which know nothing of each other. There is no leader: the first is."""

    topology = "three Redis masters"
    elects = False

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._masters = RedisMasters()

    @property
    def nodes(self) -> Sequence[RedisServer]:
        return self._masters.servers

    @property
    def url(self) -> str:
        return self._masters.url

    def endpoint(self, node: int) -> str:
        return self.url

    def url_at(self, ports: list[int]) -> str:
        """The URL by way of proxies."""
        return self._masters.url_at(ports)

    def leader(self) -> int:
        return 0

    def serves(self) -> bool:
        return all(node.alive() and node._ready() for node in self.nodes)

    def run(self) -> None:
        self._masters.start()

    def end(self) -> None:
        self._masters.close()

    def _enter_network(self) -> None:
        self.lack = "the masters have no links"


_KINDS: dict[str, tuple[type[Cluster], ...]] = {
    "etcd": (ThreeEtcd,),
    "etcd-gateway": (ThreeEtcd,),
    "zookeeper": (ThreeZookeepers,),
    "consul": (ThreeConsuls,),
    "redis": (Sentinels, MastersWithReplicas),
    "redis, redlock": (ThreeMasters,),
}

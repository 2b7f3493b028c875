"""What an experiment breaks: a target's own server, or several that keep one state together.

A target is one server as a rule. Where its backend is made to be several, `clusters` names
what stands in for it. Each has nodes, one of which leads; each can be asked alone, at its
`endpoint`. Links between nodes are those of a `Network`, if there can be one here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import ClassVar, Self

from ...policy.evidence import Fault as Seen
from ..servers import Network, Server, ServerFailed, ServerMissing, _proc
from ._base import Target, Untestable

HEAL_SECONDS_MAX = 30.0
BITE_SECONDS_MAX = 2.0


class Cluster(ABC):
    """Servers of an experiment's own. As a context manager it starts and closes."""

    topology: str
    """What it is, in a few words."""
    size: ClassVar[int] = 3
    """How many nodes."""
    elects: ClassVar[bool] = True
    """Whether the nodes replace one that leads and is gone."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.network: Network | None = None
        self.lack = ""
        """Why the links between the nodes cannot be cut here."""

    # What a kind of cluster says of itself.

    @property
    @abstractmethod
    def nodes(self) -> Sequence[Server]:
        """The server of each node that keeps the state."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL that names all nodes."""

    @abstractmethod
    def endpoint(self, node: int) -> str:
        """The URL of one node alone."""

    @abstractmethod
    def leader(self) -> int:
        """Which node leads now; `ServerFailed` if that does not come out."""

    @abstractmethod
    def serves(self) -> bool:
        """Whether all nodes are there, and work together."""

    @abstractmethod
    def run(self) -> None:
        """Start the servers, in `network` if there is one."""

    @abstractmethod
    def end(self) -> None:
        """Kill the servers and remove what they wrote."""

    def revive(self, node: int) -> None:
        """Start a node that was killed, without waiting for the others."""
        self.nodes[node].start()

    # What everybody uses.

    def start(self) -> Self:
        """Start everything; `Untestable` if a program is missing."""
        try:
            self._enter_network()
            self.run()
        except ServerMissing as error:
            self.close()
            raise Untestable(str(error)) from None
        except BaseException:
            self.close()
            raise
        return self

    def _enter_network(self) -> None:
        network = Network(self.size)
        try:
            self.network = network.start()
        except ServerMissing as error:
            self.lack = str(error)

    def close(self) -> None:
        """Leave nothing behind."""
        self.end()
        if self.network is not None:
            self.network.close()
            self.network = None

    def followers(self, leader: int) -> list[int]:
        """The other nodes; the one that would take over first is first."""
        return [node for node in range(self.size) if node != leader]

    def heal(self) -> None:
        """End every fault, and return once all nodes serve again."""
        if self.network is not None:
            self.network.mend()
        for node in self.nodes:
            node.resume()
        for at, node in enumerate(self.nodes):
            if not node.alive():
                self.revive(at)
        if not _proc.until(self.serves, HEAL_SECONDS_MAX):
            tails = "\n".join(node.log_tail() for node in self.nodes)
            raise ServerFailed(f"{self.topology}: no service after the fault:\n{tails}")

    def settle(self, servers: Sequence[Server]) -> None:
        """Have each server run on the host of its node."""
        if self.network is not None:
            for server, place in zip(servers, self.network.places, strict=True):
                server.settle(place)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Alone(Cluster):
    """The target as it is, of one node: its own server, or none that could be broken."""

    size = 1
    elects = False

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        server = target.backend.server if target.backend is not None else None
        self._nodes = [] if server is None else [server]
        self.topology = "one server" if target.traits.server else "no server"

    @property
    def nodes(self) -> Sequence[Server]:
        return self._nodes

    @property
    def url(self) -> str:
        return self.target.url

    def endpoint(self, node: int) -> str:
        return self.target.url

    def leader(self) -> int:
        return 0

    def serves(self) -> bool:
        return all(node.alive() for node in self._nodes)

    def run(self) -> None:
        """It runs already."""

    def end(self) -> None:
        """It is not ours; but what was done to it is undone."""
        for node in self._nodes:
            node.resume()
            node.start()

    def _enter_network(self) -> None:
        self.lack = "one node"


Fault = Callable[[Cluster], "Proof"]
"""Brings a fault about, and says how it can be seen to have bitten while it lasts."""

Proof = Callable[[], tuple[bool, str]]


def leader_killed(cluster: Cluster) -> Proof:
    """The leader is killed, while what it sends to its first follower is on its way."""
    at, network = cluster.leader(), cluster.network
    behind = cluster.followers(at)[:1] if network is not None else []
    if network is not None and behind:
        network.drop([at], behind)
        _proc.until(lambda: network.dropped() > 0, BITE_SECONDS_MAX)
    pid = cluster.nodes[at].pid
    cluster.nodes[at].kill()

    def proof() -> tuple[bool, str]:
        gone, text = _proc.gone(pid), f"process {pid} of node {at} is gone"
        if network is None or not behind:
            return gone, text
        lost = network.dropped()
        return gone and lost > 0, f"{text}; {lost} packets to node {behind[0]} were dropped before"

    return proof


def leader_paused(cluster: Cluster) -> Proof:
    """The leader is stopped, and goes on later as if nothing had happened."""
    at = cluster.leader()
    pid = cluster.nodes[at].pid
    cluster.nodes[at].pause()
    return lambda: (_proc.stopped(pid), f"process {pid} of node {at} is in state T")


def cut_off(cluster: Cluster, at: int) -> Proof:
    """A node and the others do not hear each other; all can be reached by clients."""
    network = cluster.network
    if network is None:
        return lambda: (False, f"the links cannot be cut: {cluster.lack}")
    network.cut([at], [node for node in range(cluster.size) if node != at])

    def proof() -> tuple[bool, str]:
        dropped = network.dropped()
        return dropped > 0, f"{dropped} packets between node {at} and the others were dropped"

    return proof


def leader_cut_off(cluster: Cluster) -> Proof:
    """The leader and the others do not hear each other."""
    return cut_off(cluster, cluster.leader())


def follower_cut_off(cluster: Cluster) -> Proof:
    """One that follows, and the others, do not hear each other."""
    return cut_off(cluster, cluster.followers(cluster.leader())[-1])


class Lag:
    """What the leader sends to one of the others is dropped, and comes when that is over."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._rounds = self._bitten = self._packets = 0
        self.possible = cluster.network is not None

    def begin(self) -> int:
        """Let another node lag than the last time; returns which."""
        assert self._cluster.network is not None
        leader = self._cluster.leader()
        node = self._cluster.followers(leader)[self._rounds % 2]
        self._cluster.network.drop([leader], [node])
        self._rounds += 1
        return node

    def end(self) -> bool:
        """Let everything through again; says whether anything was dropped meanwhile."""
        network = self._cluster.network
        assert network is not None
        bitten = _proc.until(lambda: network.dropped() > 0, BITE_SECONDS_MAX)
        self._packets += network.dropped()
        self._bitten += bitten
        network.mend()
        return bitten

    def seen(self, *, safe: bool) -> list[Seen]:
        """The fault, as it goes into the evidence; nothing if it could not be brought about."""
        if not self._rounds:
            return []
        proof = (
            f"{self._packets} packets from the leader were dropped, in {self._bitten} of"
            f" {self._rounds} rounds"
        )
        return [Seen("a follower lags", self._bitten > 0, proof, safe)]

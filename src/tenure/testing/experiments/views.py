"""SAME_VIEW_ACROSS_CLIENTS: is what was acknowledged to one what every other reads next?"""

from __future__ import annotations

import tenure

from ...policy.characteristics import Characteristic
from ...policy.evidence import Fault
from ..histories import told
from ..proxy import Proxy
from ..servers import _proc
from ._base import Found, Target, Untestable, experiment
from ._clients import Client, Scene
from ._clusters import BITE_SECONDS_MAX, Cluster, Lag
from ._kinds import ThreeMasters, clusters
from .sessions import lag_of

ROUNDS = 40
LAGS = 8
LOCK_ROUNDS = 10
DELAY_SECONDS = 0.3


@experiment(Characteristic.SAME_VIEW_ACROSS_CLIENTS)
def read_elsewhere_on_acknowledgement(target: Target, found: Found) -> None:
    """A record is written at the leader and, as soon as that is acknowledged, read at the other
    nodes; in some rounds what the leader sends does not reach one of them. Refuted by a read of
    what was there before."""
    for cluster in clusters(target):
        with cluster, Scene(cluster) as scene:
            if target.traits.rosters:
                _records(scene, found, lag_of(cluster, found))
            elif isinstance(cluster, ThreeMasters):
                found.parameters.setdefault("topologies", []).append(cluster.topology)
                _locks(cluster, scene, found)
            else:
                raise Untestable("the driver keeps no records, and its server is alone")
            if found.counterexample:
                return


def _records(scene: Scene, found: Found, lag: Lag) -> None:
    cluster = scene.cluster
    writers = [scene.client("writer", node) for node in range(cluster.size)]
    # On one server, several clients; on several nodes, one client of each.
    nodes = range(cluster.size) if cluster.size > 1 else [0, 0, 0]
    readers = [scene.client(f"r{at}", node) for at, node in enumerate(nodes)]
    for number in range(1, ROUNDS + 1):
        _round(cluster, writers, readers, number, found)
        if found.counterexample:
            return
    for number in range(ROUNDS + 1, ROUNDS + 1 + (LAGS if lag.possible else 0)):
        node, read = lag.begin(), found.trials
        _round(cluster, writers, readers[node : node + 1], number, found)
        if not lag.end():
            found.trials = read
        if found.counterexample:
            break
    found.faults += lag.seen(safe=not found.counterexample)


def _round(
    cluster: Cluster, writers: list[Client], readers: list[Client], number: int, found: Found
) -> None:
    write = writers[cluster.leader()].write("k", number)
    if write.outcome != "ok":
        return
    for reader in readers:
        read = reader.read("k", int)
        if read.outcome != "ok":
            continue
        found.trials += 1
        if not found.counterexample and (read.result is None or read.result < number):
            found.counterexample = f"{cluster.topology}: a stale read: {told((write, read))}"


def _locks(cluster: ThreeMasters, scene: Scene, found: Found) -> None:
    """A lock is taken and freed by one to whom one master is slow; another asks who holds it."""
    proxies = [Proxy(node.host, node.port) for node in cluster.nodes]
    late = 0
    try:
        for proxy in proxies:
            proxy.start()
        holder = scene.client("holder", url=cluster.url_at([proxy.port for proxy in proxies]))
        lock, same = holder.lock("k"), scene.client("other").lock("k")
        for number in range(LOCK_ROUNDS):
            slow = proxies[number % len(proxies)]
            before = slow.bytes_to_server
            slow.delay(DELAY_SECONDS)
            found.counterexample = _granted_and_freed(lock, same)
            slow.heal()
            late += _proc.until(lambda: slow.bytes_to_server > before, BITE_SECONDS_MAX)  # noqa: B023
            found.trials += 1
            if found.counterexample:
                break
    finally:
        for proxy in proxies:
            proxy.close()
    proof = f"requests reached one of the masters late in {late} of {found.trials} rounds"
    safe = not found.counterexample
    found.faults.append(Fault("one master is slow", late == found.trials, proof, safe))


def _granted_and_freed(lock: tenure.Lock, same: tenure.Lock) -> str:
    """What another client is told that is not so; empty if there is nothing."""
    with lock.acquire() as lease:
        holder = same.holder()
        if holder is None or holder.token != lease.token:
            return f"token {lease.token} was granted, and the next one to ask was told {holder}"
    holder = same.holder()
    return "" if holder is None else f"token {lease.token} was freed, and then {holder} held it"

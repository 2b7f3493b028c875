"""SAME_VIEW_UNDER_PARTITIONS: while servers are cut off, is a client told what others are not?"""

from __future__ import annotations

import tenure

from ...policy.characteristics import Characteristic
from ...policy.evidence import Fault
from ..histories import LOCK, linearizable
from ..proxy import Proxy
from ._base import Found, Target, Untestable, experiment
from ._clients import Client, Crowd, Scene
from ._clusters import follower_cut_off, leader_cut_off
from ._kinds import ThreeMasters, clusters
from ._phases import lock_and_free, phase

HOLD_SECONDS = 4.0
"""Longer than any of them takes to replace its leader."""
NODES_MIN = 3


@experiment(Characteristic.SAME_VIEW_UNDER_PARTITIONS)
def one_node_is_cut_off_with_its_client(target: Target, found: Found) -> None:
    """Each node has a client of its own that reads and compare-and-sets the same records, and one
    that only reads. First the leader and then a follower is cut off from the other nodes, but not
    from its clients. Refuted by an acknowledged write that is lost, or reads that differ."""
    for cluster in clusters(target):
        if cluster.size < NODES_MIN:
            raise Untestable(f"one node: {cluster.topology}")
        with cluster:
            found.parameters.setdefault("topologies", []).append(cluster.topology)
            if isinstance(cluster, ThreeMasters):
                _one_master_is_all_it_sees(cluster, found)
                return
            if cluster.network is None:
                raise Untestable(cluster.lack)
            for name, fault in (
                ("leader cut off", leader_cut_off),
                ("follower cut off", follower_cut_off),
            ):
                phase(cluster, found, _at_each, fault, name, HOLD_SECONDS)
                if found.counterexample:
                    return


def _at_each(scene: Scene) -> None:
    for node in range(scene.cluster.size):
        scene.client(f"c{node + 1}", node)
    # Who is cut off soon waits for a write that nobody answers; others go on to read meanwhile.
    for node in range(scene.cluster.size if scene.target.traits.rosters else 0):
        scene.client(f"r{node + 1}", node).only_reads = True


def _one_master_is_all_it_sees(cluster: ThreeMasters, found: Found) -> None:
    """A client is cut off with one of three masters, and takes and frees the same locks."""
    proxies = [Proxy(node.host, node.port) for node in cluster.nodes]
    try:
        for proxy in proxies:
            proxy.start()
        with Scene(cluster) as scene:
            scene.client("apart", url=cluster.url_at([proxy.port for proxy in proxies]))
            for number in range(1, NODES_MIN):
                scene.client(f"c{number}")
            work = lock_and_free(["k1", "k2"])
            crowd = Crowd(scene.clients, work.step, scene.target.seed)
            crowd.start()
            try:
                crowd.last(1.0)
                for proxy in proxies[1:]:
                    proxy.black_hole()
                crowd.last(HOLD_SECONDS)
                kept = sum(proxy.swallowed for proxy in proxies)
                over = tenure.now()
                for proxy in proxies:
                    proxy.heal()
                crowd.last(1.0)
            finally:
                crowd.stop()
            found.parameters["operations"] = len(scene.history)
            name = "a client cut off with one master"
            violation = linearizable(scene.history, LOCK)
            if violation is not None:
                found.counterexample = f"{cluster.topology}, {name}: {violation}"
            found.trials += 1
            proof = f"{kept} bytes between the client and two masters were kept back"
            again = _again(scene.clients[0], over)
            found.faults.append(Fault(name, kept > 0, proof, violation is None, again))
    finally:
        for proxy in proxies:
            proxy.close()


def _again(client: Client, since: float) -> float | None:
    """How long after that the client was granted something."""
    granted = [
        each.returned
        for each in client.operations()
        if each.kind == "acquire" and each.called >= since
    ]
    return round(min(granted) - since, 2) if granted else None

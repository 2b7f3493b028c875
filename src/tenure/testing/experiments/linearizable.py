"""LINEARIZABLE: does every operation take effect at one moment between its call and its return?"""

from __future__ import annotations

from ...policy.characteristics import Characteristic
from ..servers import _proc
from ._base import Found, Target, experiment
from ._clients import Scene
from ._clusters import (
    Alone,
    Cluster,
    Fault,
    Proof,
    leader_cut_off,
    leader_killed,
    leader_paused,
)
from ._kinds import ThreeMasters, clusters
from ._phases import phase

CLIENTS = 4
HOLD_SECONDS = 3.0
"""How long a fault lasts where the nodes replace a leader; etcd takes two seconds for that."""
ALONE_SECONDS = 1.0
FORGETS = 3


@experiment(Characteristic.LINEARIZABLE)
def compare_and_set_through_every_endpoint(target: Target, found: Found) -> None:
    """Clients read and compare-and-set records, one at each node and one that knows them all,
    while the leader is killed, cut off and stopped; where no records are kept, they take and
    free locks. Refuted by a history that no order of its operations explains."""
    for cluster in clusters(target):
        with cluster:
            found.parameters.setdefault("topologies", []).append(cluster.topology)
            for name, fault, seconds in _faults(cluster):
                phase(cluster, found, _clients, fault, name, seconds)
                if found.counterexample:
                    return


def _faults(cluster: Cluster) -> list[tuple[str, Fault | None, float]]:
    if isinstance(cluster, ThreeMasters):
        return [
            ("one master stopped", leader_paused, HOLD_SECONDS),
            ("one master killed", leader_killed, HOLD_SECONDS),
            ("one master stopped, another restarted without its data", one_forgets, 0.0),
        ]
    if cluster.elects:
        return [
            ("leader killed", leader_killed, HOLD_SECONDS),
            ("leader cut off", leader_cut_off, HOLD_SECONDS),
            ("leader stopped", leader_paused, HOLD_SECONDS),
        ]
    if not cluster.nodes:
        return [("no fault", None, ALONE_SECONDS)]
    return [
        ("server stopped", leader_paused, ALONE_SECONDS),
        ("server killed and restarted", leader_killed, ALONE_SECONDS),
    ]


def _clients(scene: Scene) -> None:
    if isinstance(scene.cluster, Alone | ThreeMasters):
        for number in range(1, CLIENTS + 1):
            scene.client(f"c{number}")
        return
    for node in range(scene.cluster.size):
        scene.client(f"c{node + 1}", node)
    scene.client("all")


def one_forgets(cluster: Cluster) -> Proof:
    """While one of three does not answer, another is killed and comes back empty."""
    silent, forgetful = cluster.nodes[2], cluster.nodes[1]
    stopped, gone = [], []
    for _ in range(FORGETS):
        silent.pause()
        stopped.append(_proc.stopped(silent.pid))
        # A lock that is taken now has the votes of two.
        _proc.until(lambda: False, 0.5)
        pid = forgetful.pid
        forgetful.restart(graceful=False)
        gone.append(_proc.gone(pid))
        silent.resume()
        _proc.until(lambda: False, 0.5)
    text = f"{sum(stopped)} times in state T, {sum(gone)} times another process"
    return lambda: (all(stopped) and all(gone), text)

"""SEQUENTIAL and CAUSAL: does anybody read backwards, or see an effect without its cause?"""

from __future__ import annotations

import random

from ...policy.characteristics import Characteristic
from ..histories import Operation, causal, sequential
from ._base import Found, Target, Untestable, experiment
from ._clients import Client, Crowd, Scene
from ._clusters import Cluster, Lag
from ._kinds import clusters

READERS = 3
CALM_SECONDS = 1.0
LAG_SECONDS = 0.7
"""Shorter than the time after which a follower that hears nothing asks for an election."""
ROUNDS = 30
LAGS = 4
TRIES_MAX = 200


def records_needed(target: Target) -> None:
    """`Untestable` where no records are kept."""
    if not target.traits.rosters:
        raise Untestable("the driver keeps no records, and nothing else can be read")


def lag_of(cluster: Cluster, found: Found) -> Lag:
    """What makes nodes lag; `Untestable` if there are several, and none can be made to."""
    found.parameters.setdefault("topologies", []).append(cluster.topology)
    if cluster.lack and cluster.size > 1:
        raise Untestable(f"{cluster.topology}: no replication was delayed: {cluster.lack}")
    if cluster.lack:
        found.parameters["no replication was delayed"] = cluster.lack
    return Lag(cluster)


@experiment(Characteristic.SEQUENTIAL)
def readers_hop_endpoints(target: Target, found: Found) -> None:
    """One client writes 1, 2, 3 and so on; readers ask one node after another, at random, while
    what the leader sends to one of them is dropped for a time. Refuted by a reader that reads
    less than before."""
    records_needed(target)
    for cluster in clusters(target):
        with cluster, Scene(cluster) as scene:
            lag = lag_of(cluster, found)
            _hop(scene, lag)
            violation = sequential(scene.history)
            reads = [each for each in scene.history if each.kind == "read"]
            found.trials += sum(each.outcome == "ok" for each in reads)
            found.faults += lag.seen(safe=violation is None)
            if violation is not None:
                found.counterexample = f"{cluster.topology}: {violation}"
                return
            changes_seen(scene)


def changes_seen(scene: Scene) -> None:
    """`Untestable` if somebody who read never saw a value change: then nothing was compared."""
    seen: dict[str, set[object]] = {}
    for each in scene.history:
        if each.kind == "read":
            values = seen.setdefault(each.process, set())
            if each.outcome == "ok" and each.result is not None:
                values.add(each.result)
    blind = sorted(process for process, values in seen.items() if len(values) < 2)
    if blind or not seen:
        raise Untestable(f"{', '.join(blind) or 'nobody'} saw no value change")


def _hop(scene: Scene, lag: Lag) -> None:
    cluster = scene.cluster
    writer = scene.client("writer", cluster.leader())
    readers = {
        f"r{number}": [scene.client(f"r{number}", node) for node in range(cluster.size)]
        for number in range(READERS)
    }
    count = 0

    def step(client: Client, chance: random.Random) -> None:
        nonlocal count
        if client is writer:
            count += 1
            client.write("k", count)
        else:
            chance.choice(readers[client.process]).read("k", int)

    crowd = Crowd([writer, *(each[0] for each in readers.values())], step, scene.target.seed)
    crowd.start()
    try:
        crowd.last(CALM_SECONDS)
        for _ in range(LAGS if lag.possible else 0):
            lag.begin()
            crowd.last(LAG_SECONDS)
            lag.end()
            crowd.last(CALM_SECONDS)
    finally:
        crowd.stop()


@experiment(Characteristic.CAUSAL)
def effects_and_their_causes(target: Target, found: Found) -> None:
    """A writes x; B, elsewhere, reads it and writes y; C reads y at one node and then x at
    another, which what the leader sends does not reach for a time. Refuted by a C that sees y,
    and x as it was before."""
    records_needed(target)
    for cluster in clusters(target):
        with cluster, Scene(cluster) as scene:
            lag, trial = lag_of(cluster, found), _Relay(scene)
            for _ in range(ROUNDS):
                found.trials += trial.runs(scene.target.seed)
            for _ in range(LAGS if lag.possible else 0):
                fine = trial.runs(scene.target.seed, last=lag.begin())
                found.trials += lag.end() and fine
                trial.catches_up()
            violation = causal(scene.history)
            found.faults += lag.seen(safe=violation is None)
            if violation is not None:
                found.counterexample = f"{cluster.topology}: {violation}"
                return
            changes_seen(scene)


class _Relay:
    """A, B and C, each at all endpoints."""

    def __init__(self, scene: Scene) -> None:
        size = scene.cluster.size
        self._size = size
        self._round = 0
        self._a, self._b, self._c = (
            [scene.client(name, node) for node in range(size)] for name in "ABC"
        )

    def runs(self, seed: int, last: int | None = None) -> bool:
        """One round; C reads x at the node given. Says whether C has read both."""
        self._round += 1
        chance, number = random.Random(seed + self._round), self._round
        fine = [node for node in range(self._size) if node != last] or [0]
        # Who writes a record stays at one node, or it would have to read what it wrote before.
        if self._a[fine[0]].write("x", number).outcome != "ok":
            return False
        b = self._b[fine[-1]]
        if not _reads(b, "x", number) or b.write("y", number).outcome != "ok":
            return False
        if not _reads(self._c[chance.choice(fine)], "y", number):
            return False
        there = self._c[chance.randrange(self._size) if last is None else last]
        return there.read("x", int).outcome == "ok"

    def catches_up(self) -> None:
        """Wait until every node reads what was written last."""
        for client in self._a:
            _reads(client, "x", self._round)


def _reads(client: Client, key: str, number: int) -> bool:
    """Read until it is that, or the tries are used up."""
    return any(_is(client.read(key, int), number) for _ in range(TRIES_MAX))


def _is(read: Operation, number: int) -> bool:
    return read.outcome == "ok" and read.result is not None and read.result >= number

"""A history under one fault: clients at work before it, under it and after it."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tenure

from ...policy.evidence import Fault
from ..histories import LOCK, REGISTER, Model, Operation, TooBig, linearizable
from ..servers import _proc
from . import _clusters
from ._base import Found, Untestable
from ._clients import Client, Crowd, Scene
from ._clusters import Cluster, Proof

KEYS = 2
CALM_SECONDS = 0.4
RECOVERY_SECONDS_MAX = 60.0
CHANGES_LEAST = 4
STALE_SHARE = 0.1
"""How often a client swaps from what it knows to be old."""


@dataclass(frozen=True)
class Work:
    """What the clients do, and how it is judged."""

    what: str
    step: Callable[[Client, random.Random], None]
    model: Model
    ended: Callable[[Client], None]
    """What each client looks at when all is over."""


def swap_or_read(keys: Sequence[str]) -> Work:
    """Compare-and-set of records, and reading them."""
    numbers = itertools.count(1)

    def step(client: Client, chance: random.Random) -> None:
        key = chance.choice(keys)
        if client.only_reads or not client.knows(key) or chance.random() < 0.4:
            client.read(key)
            return
        seen = client.known(key)
        client.swap(key, f"v{next(numbers)}")
        if seen is not None and chance.random() < STALE_SHARE:
            client.swap(key, f"v{next(numbers)}", seen)

    def ended(client: Client) -> None:
        for key in keys:
            client.read(key)

    return Work("records", step, REGISTER, ended)


def lock_and_free(keys: Sequence[str]) -> Work:
    """Taking a lock, holding it for a moment, and freeing it."""

    def step(client: Client, chance: random.Random) -> None:
        client.hold(chance.choice(keys), chance.choice((0.0, 0.0, 0.0, 0.0, 0.02, 0.1, 1.0)))

    return Work("locks", step, LOCK, lambda client: None)


def work_for(scene: Scene, keys: int = KEYS) -> Work:
    """Records where the driver keeps them, else locks."""
    names = [f"k{number}" for number in range(1, keys + 1)]
    return swap_or_read(names) if scene.target.traits.rosters else lock_and_free(names)


def phase(
    cluster: Cluster,
    found: Found,
    clients: Callable[[Scene], object],
    fault: _clusters.Fault | None,
    name: str,
    hold: float,
) -> None:
    """Let the clients work through the fault, and put into `found` what came of it."""
    with Scene(cluster) as scene:
        clients(scene)
        work = work_for(scene)
        crowd = Crowd(scene.clients, work.step, scene.target.seed)
        crowd.start()
        seen: Fault | None = None
        try:
            crowd.last(CALM_SECONDS)
            if fault is None:
                crowd.last(hold)
            else:
                seen = _under(cluster, scene, crowd, fault, name, hold)
            crowd.last(CALM_SECONDS)
        finally:
            crowd.stop()
        for client in scene.clients:
            work.ended(client)
        _judge(found, scene.history, work, seen, f"{cluster.topology}, {name}")


def _under(
    cluster: Cluster, scene: Scene, crowd: Crowd, fault: _clusters.Fault, name: str, hold: float
) -> Fault:
    proof: Proof = lambda: (False, "it was not brought about")  # noqa: E731
    try:
        proof = fault(cluster)
        crowd.last(hold)
        confirmed, text = proof()
    finally:
        over = tenure.now()
        cluster.heal()
    recovered = _proc.until(lambda: _all_served(scene, over), RECOVERY_SECONDS_MAX)
    seconds = round(tenure.now() - over, 2) if recovered else None
    return Fault(name, confirmed, text, recovery_seconds=seconds, recovered=recovered)


def _all_served(scene: Scene, since: float) -> bool:
    served = {
        (each.process, each.endpoint)
        for each in list(scene.history)
        if each.called >= since and each.outcome == "ok"
    }
    return all((client.process, client.endpoint) in served for client in scene.clients)


def _at_work(history: Sequence[Operation]) -> bool:
    """Whether several changes were made, and everybody was answered."""
    done = [each for each in history if each.outcome == "ok"]
    changes = [each for each in done if each.kind in ("swap", "acquire") and each.result]
    answered = {(each.process, each.endpoint) for each in done}
    asked = {(each.process, each.endpoint) for each in history}
    return len(changes) >= CHANGES_LEAST and answered == asked


def _judge(
    found: Found, history: Sequence[Operation], work: Work, seen: Fault | None, where: str
) -> None:
    done = sum(each.outcome == "ok" for each in history)
    found.parameters["operations"] = found.parameters.get("operations", 0) + len(history)
    found.parameters["acknowledged"] = found.parameters.get("acknowledged", 0) + done
    if not done:
        raise Untestable(f"{where}: no operation was answered")
    try:
        violation = linearizable(history, work.model)
    except TooBig as error:
        raise Untestable(f"{where}: the history is too big to judge: {error}") from None
    found.trials += 1
    if violation is not None:
        found.counterexample = f"{where}: {violation}"
    elif not _at_work(history):
        raise Untestable(f"{where}: too little was written, or by too few, to compare anything")
    if seen is not None:
        found.faults.append(seen._replace(safe=violation is None))

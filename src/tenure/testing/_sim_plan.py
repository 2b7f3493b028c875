"""What a schedule is like: the backend, the nodes, the weather and the faults."""

from __future__ import annotations

import random
from dataclasses import dataclass

from ._sim_drivers import (
    SimDocumentDriver,
    SimMutexDriver,
    SimPushingDocumentDriver,
    SimRosterDriver,
)
from ._sim_lease import Kind
from ._sim_world import World

DRIFT_MOST = 0.005
"""How much faster or slower than true time a clock may run."""

TRIALS = 0.3
"""The part of the schedules in which names are of the kinds that come next."""

FORCES = 0.4
"""The part of the schedules in which groups are deleted by force."""

TRIAL_KINDS: tuple[Kind, ...] = ("claims", "estate", "multilock", "barrier", "latch", "object")

DRIVERS = {
    "document": SimDocumentDriver,
    "document with hints": SimPushingDocumentDriver,
    "roster": SimRosterDriver,
    "roster without hints of death": SimRosterDriver,
    "mutex": SimMutexDriver,
}


@dataclass(slots=True)
class Plan:
    """What a schedule is like. Times are in seconds; faults are how often they happen."""

    backend: str
    ttl: float
    nodes: int
    clients: int
    kinds: tuple[Kind, ...]
    """What each name is the name of."""
    threads: bool
    chaos: float
    hold: float
    think: float
    delay: float
    late: float = 0.0
    late_most: float = 0.0
    lost: float = 0.0
    pushes_lost: float = 0.0
    drift: float = 0.0
    pauses: int = 0
    cuts: int = 0
    ambushes: int = 0
    stalls: int = 0
    restarts: int = 0
    crashes: int = 0
    closes: int = 0
    resizes: bool = False
    deletes: bool = False
    forces: bool = False
    """Whether groups are deleted by force."""
    cancels: int = 0
    jumps: int = 0


def draw_plan(world: World, kind: Kind | None = None) -> Plan:
    """A plan with some of the faults, so that each is also seen without the others.

    With a `kind`, all names are of that kind, and what else is drawn stays as it is.
    """
    pick, chance, between = world.rng.choice, world.chance, world.between
    ttl = pick((4.0, 10.0, 15.0))
    plan = Plan(
        backend=pick(("document", *DRIVERS)) if chance(0.8) else "roster",
        ttl=ttl,
        nodes=pick((2, 2, 3, 3, 4, 5)),
        clients=pick((1, 1, 2, 3)),
        kinds=tuple(_kind(world) for _ in range(pick((1, 1, 1, 2)))),
        threads=chance(0.3),
        chaos=ttl * between(1, 3.5),
        hold=ttl * pick((0.05, 0.3, 0.8, 2.0)),
        think=ttl * pick((0.05, 0.3)),
        delay=ttl * pick((0.0001, 0.001, 0.01)),
    )
    others = random.Random(f"trials of {world.seed}")
    if kind is not None:
        plan.kinds = (kind,) * len(plan.kinds)
    elif others.random() < TRIALS:
        # Drawn apart, so that what else is drawn stays as it is.
        plan.kinds = (others.choice(("lock", *TRIAL_KINDS)), others.choice(TRIAL_KINDS))
    plan.resizes = chance(0.3)
    plan.deletes = chance(0.3)
    plan.forces = random.Random(f"forces of {world.seed}").random() < FORCES
    if chance(0.1):
        return plan  # a calm day
    if not plan.backend.startswith("document") and chance(0.2):
        plan.delay = ttl * 0.06
    if chance(0.35):
        plan.late = pick((0.01, 0.05, 0.2))
    if chance(0.35):
        plan.lost = between(0.005, 0.1)
    plan.late_most = ttl * pick((0.3, 0.8))
    plan.pushes_lost = pick((0.0, 0.2, 1.0))
    plan.drift = pick((0.0, DRIFT_MOST, DRIFT_MOST))
    if chance(0.4):
        plan.pauses = pick((1, 2, 3))
    if chance(0.4):
        plan.cuts = pick((1, 2, 3))
    if chance(0.4):
        plan.ambushes = pick((1, 2, 3))
    if chance(0.4):
        plan.stalls = pick((1, 2, 3))
    if chance(0.25):
        plan.restarts = pick((1, 2))
    if chance(0.3):
        plan.crashes = pick((1, 2))
    if chance(0.15):
        plan.closes = 1
    if chance(0.7) and not plan.threads:
        plan.cancels = pick((2, 5, 10))
    if chance(0.2):
        plan.jumps = 2
    return plan


def _kind(world: World) -> Kind:
    if world.chance(0.5):
        return "lock"
    return world.rng.choice(("rwlock", "semaphore", "election", "group"))

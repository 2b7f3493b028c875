"""DISTRIBUTED_ACROSS_PROCESSES: do processes of one host exclude each other?"""

from __future__ import annotations

import os
import signal
import tempfile

import tenure

from ...policy.characteristics import Characteristic
from ...policy.evidence import Fault
from ..kit.actor import Actor
from ..servers import _proc
from ._base import Found, Target, experiment
from ._party_cast import SLACK_SECONDS, Cast, answered, kill_child, still_holds
from ._party_spells import overlap, race

PROCESSES = 8
TIMES = 6
FREE_SECONDS_MAX = 10.0
"""How much later than its session may count a dead holder's lock has to be free, at last."""


@experiment(Characteristic.DISTRIBUTED_ACROSS_PROCESSES)
def processes_that_race_fork_and_die(target: Target, found: Found) -> None:
    """8 processes hold one lock in turn; one that holds it forks a child, which tries what it
    has inherited and lives on while its parent is killed. Refuted by two inside at once, by a
    child that holds, frees or keeps its parent's lock, and by a dead holder that keeps it."""
    found.parameters |= {"processes": PROCESSES, "times": TIMES}
    with Cast(target, found, "processes") as cast:
        here = cast.connect()
        actors = cast.actors(PROCESSES)
        crowd = [(f"process {actor.pid}", actor) for actor in actors]
        found.counterexample = overlap(race(cast, found, crowd, cast.name(), TIMES))
        if found.counterexample or _counted_wrong(found, cast, actors[:2]):
            return
        for actor in actors[2:]:
            actor.kill()
        _inherited(cast, found, here, actors[0], actors[1])


def _counted_wrong(found: Found, cast: Cast, actors: list[Actor]) -> bool:
    """Whether they count wrong with a number in a file that nothing but the lock guards."""
    with tempfile.NamedTemporaryFile("w+", suffix=".count") as file:
        file.write("0")
        file.flush()
        name = cast.name()
        for actor in actors:
            actor.send(do="count", name=name, path=file.name, times=TIMES)
        for actor in actors:
            answered(actor.answer(), "a process that counts")
        file.seek(0)
        count, right = int(file.read()), TIMES * len(actors)
    found.trials += right
    if count != right:
        found.counterexample = f"{len(actors)} processes counted to {count} instead of {right}"
    return bool(found.counterexample)


def _inherited(
    cast: Cast, found: Found, here: tenure.Coordinator, actor: Actor, other: Actor
) -> None:
    name = cast.name()
    answered(actor.do("acquire", name=name, timeout=10), "the parent's acquire")
    child = answered(actor.do("fork", name=name), "the fork")
    cast.later(kill_child, child["child"])
    found.trials += 1
    taken = answered(other.do("try", name=name), "a third process")["token"]
    wrong = ""
    if child["held"]:
        wrong = "the lease of a forked child says that it is held"
    elif child["acquired"]:
        wrong = "a forked child acquired its parent's lock"
    elif taken is not None:
        still_holds(actor, name)
        wrong = f"while its holder had it, another process got it with token {taken}"
    if wrong:
        found.counterexample = f"{wrong} (parent {actor.pid}, child {child['child']})"
        return
    _killed(cast, found, here, actor, child["child"], name)


def _killed(
    cast: Cast, found: Found, here: tenure.Coordinator, actor: Actor, child: int, name: str
) -> None:
    limit = cast.death + FREE_SECONDS_MAX
    bid = cast.bid(here, name, limit + SLACK_SECONDS)
    killed = tenure.now()
    os.kill(actor.pid, signal.SIGKILL)
    actor.kill()
    freed = bid.wait(limit)
    lives = not _proc.gone(child)
    found.trials += 1
    found.faults.append(
        Fault(
            name="SIGKILL of the holder",
            confirmed=lives,
            proof=f"process {actor.pid} was reaped; its child {child} lived on",
            safe=freed,
            recovery_seconds=None if bid.at is None else round(bid.at - killed, 2),
            recovered=bid.at is not None,
        )
    )
    if bid.at is not None and bid.at < killed:
        found.counterexample = "another process acquired the lock while its holder ran"
    elif not freed:
        found.counterexample = (
            f"{limit:g} s after SIGKILL of the holder {actor.pid} "
            f"its lock was not free, while its child {child} lived"
        )

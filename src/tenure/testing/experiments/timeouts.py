"""NON_TIMEOUT_BASED: does a paused holder keep its lock, and a dead one free it at once?"""

from __future__ import annotations

import time

import tenure

from ...policy.characteristics import Characteristic
from ...policy.evidence import Fault
from ..kit.actor import Actor
from ._base import Found, Target, Untestable, experiment
from ._party_cast import (
    SLACK_SECONDS,
    Bid,
    Cast,
    Withheld,
    answered,
    excludes_processes,
    paused,
    still_holds,
)

PAUSE_TIMEOUTS = 3
AT_ONCE_SECONDS_MAX = 2.0
KILLS = 2
KILL_TTL_SECONDS = 2 * AT_ONCE_SECONDS_MAX
"""So long that a session which was renewed a third of it ago outlives what counts as at once."""


@experiment(Characteristic.NON_TIMEOUT_BASED)
def a_paused_and_a_killed_holder(target: Target, found: Found) -> None:
    """A holder is stopped with SIGSTOP for three times as long as a session may count that is
    not renewed, then killed; another is killed while it runs. Refuted if somebody else acquires
    during the pause, or more than 2 s after a kill. Where processes do not exclude each other,
    renewals are withheld instead."""
    with Cast(target, found, "timeouts") as cast:
        seconds = PAUSE_TIMEOUTS * cast.death
        found.parameters |= {"pause_seconds": seconds, "at_once_seconds": AT_ONCE_SECONDS_MAX}
        found.parameters["ttl_of_the_killed"] = max(cast.ttl, KILL_TTL_SECONDS)
        here = cast.connect()
        if not excludes_processes(cast, here):
            _withheld(cast, found, here, seconds)
        else:
            _try_both(cast, found, here, seconds)


def _try_both(cast: Cast, found: Found, here: tenure.Coordinator, pause: float) -> None:
    for seconds in (pause, 0.0):
        for left in reversed(range(KILLS)):
            # What should be at once can be late once, on a machine that does much else.
            if _killed(cast, found, here, seconds, spared=bool(left)) or found.counterexample:
                break
        if found.counterexample:
            return


def _killed(
    cast: Cast, found: Found, here: tenure.Coordinator, pause: float, spared: bool = False
) -> bool:
    """Whether a holder kept its lock during the pause, if any, and freed it when it was killed.

    If it is `spared`, to free it late refutes nothing yet.
    """
    name, ttl = cast.name(), cast.ttl if pause else max(cast.ttl, KILL_TTL_SECONDS)
    death = ttl * cast.target.traits.linger
    actor = cast.actor(ttl=ttl).ready()
    answered(actor.do("acquire", name=name, timeout=10), "the holder's acquire")
    bid = cast.bid(here, name, pause + death + 2 * SLACK_SECONDS)
    found.trials += 1
    if pause and not _kept(found, bid, actor, pause):
        return False
    if not pause and bid.wait(cast.chance.uniform(0.1, 0.4)):
        still_holds(actor, name)
        found.counterexample = "another process acquired the lock while its holder ran"
        return False
    killed = tenure.now()
    actor.kill()
    bid.wait(death + SLACK_SECONDS)
    took = None if bid.at is None else round(bid.at - killed, 2)
    prompt = took is not None and took <= AT_ONCE_SECONDS_MAX
    title = "SIGKILL of a holder that is stopped" if pause else "SIGKILL of a holder that runs"
    proof = f"process {actor.pid} was reaped"
    safe = prompt or (spared and took is not None)
    found.faults.append(Fault(title, True, proof, safe, took, took is not None))
    if took is not None and took < 0:
        found.counterexample = "another process acquired the lock while its holder had it"
    elif not safe:
        when = f"after {took:g} s" if took is not None else "not at all while it was waited for"
        found.counterexample = f"{title}: its lock was free {when}"
    bid.give_up()
    return prompt


def _kept(found: Found, bid: Bid, actor: Actor, pause: float) -> bool:
    actor.stop()
    stopped = tenure.now()
    granted = bid.wait(pause)
    proof = paused(actor)
    fault = Fault("SIGSTOP of the holder", bool(proof), proof or "it ran again", not granted)
    found.faults.append(fault)
    if granted and bid.at is not None:
        found.counterexample = (
            f"{bid.at - stopped:.2f} s after SIGSTOP of the holder {actor.pid} "
            f"another acquired its lock; the pause was to last {pause:g} s"
        )
    return not granted


def _withheld(cast: Cast, found: Found, here: tenure.Coordinator, pause: float) -> None:
    """The same in one process, where nobody can be stopped alone."""
    name = cast.name()
    holder = cast.connect()
    holder.lock(name).acquire(timeout=SLACK_SECONDS)
    withheld = Withheld(holder)
    began = tenure.now()
    bid = cast.bid(here, name, pause + SLACK_SECONDS)
    granted = bid.wait(pause)
    while not withheld.count and tenure.now() < began + pause:
        time.sleep(0.01)
    withheld.heal()
    found.trials += 1
    proof = withheld.proof
    found.faults.append(Fault("renewals withheld", bool(proof), proof, not granted))
    if granted and bid.at is not None:
        found.counterexample = (
            f"{bid.at - began:.2f} s after the holder's renewals were withheld another acquired"
        )
        return
    raise Untestable("its processes do not exclude each other, and a thread cannot be killed")

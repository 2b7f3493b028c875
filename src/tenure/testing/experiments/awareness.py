"""SELF_AWARE: does a holder know that it has lost no later than another can be granted?"""

from __future__ import annotations

import time
from typing import Any

import tenure

from ...policy.characteristics import Characteristic
from ...policy.evidence import Fault
from ..kit.actor import Actor
from ._base import Found, Target, experiment
from ._party_cast import (
    CONNECT_SECONDS_MAX,
    SLACK_SECONDS,
    Bid,
    Cast,
    Withheld,
    answered,
    excludes_processes,
    paused,
)
from ._party_restart import restart, restartable

VIGIL_SECONDS_MAX = 90.0
RESTART_TTL_SECONDS = 3.0
"""So long that the server is back before the next renewal, a third of it later, would tell."""
ONCE_MORE_SECONDS = 0.2
HEAD_START_TTLS = 0.7
"""A fault begins so long after the acquire at most: anywhere between two renewals."""


@experiment(Characteristic.SELF_AWARE)
def what_the_holder_knows_when_another_is_granted(target: Target, found: Found) -> None:
    """A holder is stopped until another is granted, and asked when it goes on; one is cut off
    by a proxy that swallows everything; one sees its server killed and restarted. The last two
    ask their lease all the time. Refuted if it says `held` to a question that was asked after
    another was granted. Where processes do not exclude each other, renewals are withheld."""
    with Cast(target, found, "awareness") as cast:
        here = cast.connect()
        if not excludes_processes(cast, here):
            found.parameters["faults"] = ["in one process: renewals withheld"]
            _Trial(cast, found, here).withhold()
            return
        own = restartable(cast)
        found.parameters["faults"] = ["pause", "cut", "restart"] if own else ["pause"]
        _Trial(cast, found, here).pause()
        for fault in ("cut", "restart") if own else ():
            if not found.counterexample:
                getattr(_Trial(cast, found, here), fault)()


class _Trial:
    """One fault, and what the holder said when."""

    def __init__(self, cast: Cast, found: Found, here: tenure.Coordinator) -> None:
        self._cast = cast
        self._found = found
        self._here = here
        self._name = cast.name()

    def pause(self) -> None:
        """The holder is stopped while it asks; its first question after waking is what counts."""
        actor, bid = self._holder()
        self._watch(actor, busy=True)
        actor.stop()
        bid.wait(self._cast.lapse)
        proof = paused(actor)
        actor.resume()
        woken = tenure.now()
        vigil = self._vigil(actor, bid)
        self._judge("pause of the holder", proof, bid, vigil["last"], woken, actor)

    def cut(self) -> None:
        """The holder's packets are swallowed, and the answers to them."""
        cast = self._cast
        proxy, url = cast.proxy()
        actor, bid = self._holder(url)
        self._watch(actor)
        before = proxy.swallowed
        proxy.black_hole()
        bid.wait(cast.lapse)
        swallowed = proxy.swallowed - before
        proxy.heal()
        healed = tenure.now()
        # A server that waits for the connection to end has heard of nothing until now.
        bid.wait(SLACK_SECONDS)
        vigil = self._vigil(actor, bid)
        proof = f"the proxy swallowed {swallowed} bytes" if swallowed else ""
        self._judge("cut before the holder", proof, bid, vigil["last"], healed, actor, vigil)

    def restart(self) -> None:
        """The server is killed just after a renewal, and started again with what is on disk."""
        cast = self._cast
        linger = cast.target.traits.linger
        ttl = max(cast.ttl, RESTART_TTL_SECONDS / linger)
        actor, bid = self._holder(ttl=ttl)
        actor.send(do="vigil", name=self._name, seconds=VIGIL_SECONDS_MAX)
        fault = restart(cast, graceful=False)
        up = tenure.now()
        other = cast.bid(self._here, cast.name(), CONNECT_SECONDS_MAX)
        bid.wait(1.25 * ttl * linger + 1.5)
        other.wait(CONNECT_SECONDS_MAX)
        if bid.at is None:  # a server that has forgotten leases grants nothing until they are over
            bid.wait(1.25 * ttl * linger + 1.5)
        vigil = self._vigil(actor, bid)
        proof = fault.proof if fault.confirmed else ""
        self._judge(fault.name, proof, bid, vigil["last"], up, vigil=vigil, again=other.at)

    def withhold(self) -> None:
        """The holder shares this process; its renewals do not reach the backend."""
        cast = self._cast
        holder = cast.connect()
        lease = holder.lock(self._name).acquire(timeout=SLACK_SECONDS)
        bid = cast.bid(self._here, self._name, 2 * cast.death + SLACK_SECONDS)
        self._lead()
        withheld, last = Withheld(holder), None
        give_up = tenure.now() + cast.lapse
        while (asked := tenure.now()) < give_up and (bid.at is None or asked < bid.at + 0.2):
            if lease.held():
                last = asked
            time.sleep(0.0005)
        withheld.heal()
        healed = tenure.now()
        self._judge("renewals withheld", withheld.proof, bid, last, healed, again=bid.at)

    def _holder(self, url: str | None = None, **options: Any) -> tuple[Actor, Bid]:
        """Another process that holds the lock, and somebody here who waits for it."""
        actor = self._cast.actor(url, **options).ready()
        got = actor.do("acquire", name=self._name, timeout=CONNECT_SECONDS_MAX)
        answered(got, "the holder's acquire")
        seconds = 2 * self._cast.death + CONNECT_SECONDS_MAX + 4 * SLACK_SECONDS
        bid = self._cast.bid(self._here, self._name, seconds)
        return actor, bid

    def _watch(self, actor: Actor, busy: bool = False) -> None:
        """Have the holder ask its lease all the time from now on."""
        actor.send(do="vigil", name=self._name, seconds=VIGIL_SECONDS_MAX, busy=busy)
        self._lead()

    def _lead(self) -> None:
        """Let time pass, so that the fault begins anywhere between two renewals."""
        time.sleep(self._cast.ttl * self._cast.chance.uniform(0.05, HEAD_START_TTLS))

    def _vigil(self, actor: Actor, bid: Bid) -> dict[str, Any]:
        """End the vigil, once the holder should long know that another was granted."""
        if bid.at is None:
            time.sleep(ONCE_MORE_SECONDS)  # it asks again, now that the fault is over
        give_up = tenure.now() + self._cast.ttl
        while bid.at is not None and not actor.has_answered() and tenure.now() < give_up:
            time.sleep(0.01)
        actor.send(do="state", name=self._name)
        vigil = answered(actor.answer(), "the holder's vigil")
        answered(actor.answer(), "the holder, after its vigil")
        return vigil

    def _judge(
        self,
        name: str,
        proof: str,
        bid: Bid,
        last: float | None,
        over: float,
        actor: Actor | None = None,
        vigil: dict[str, Any] | None = None,
        again: float | None = None,
    ) -> None:
        """Compare the holder's last yes with the grant, and see whether all works again."""
        found, granted = self._found, bid.at
        late = last is not None and granted is not None and last > granted
        if last is not None and granted is not None and late:
            found.counterexample = (
                f"{name}: {(last - granted) * 1000:.1f} ms after another was granted "
                f"the holder's lease still said that it was held"
            )
        if vigil is not None:
            knew = vigil["knew"]
            margin = None if granted is None or knew is None else round(granted - knew, 4)
            found.parameters.setdefault("knew_before_the_grant_seconds", {})[name] = margin
        found.trials += 1
        if actor is not None:
            again = self._again(actor)
            actor.kill()
        recovery = None if again is None else round(max(again - over, 0.0), 2)
        if granted is None and (last is None or last < over):
            # It was lost, and nobody was granted: so nothing was compared with anything.
            proof = ""
        seen = proof or "not seen, or nobody was granted"
        fault = Fault(name, bool(proof), seen, not late, recovery, again is not None)
        found.faults.append(fault)
        bid.give_up()

    def _again(self, actor: Actor) -> float | None:
        """When the holder could acquire something again; None if it could not."""
        give_up, name = tenure.now() + CONNECT_SECONDS_MAX, self._cast.name()
        while "error" in (got := actor.do("acquire", name=name, timeout=5)):
            if tenure.now() > give_up:
                return None
            time.sleep(0.05)
        return float(got["at"])

"""The judge: sees every event of a simulated schedule, and knows the rules.

It is told what the store does at the moment when it does it, and what the clients get.
It asks a lease `held()` only when something depends on the answer, because the
question itself ends a lease whose time is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .._session import Session
from ._sim_lease import Acquire, SimLease
from ._sim_world import Node, World

SHORTLY = 2e-5
"""A moment after which whatever was due at an instant has happened."""


class Judge:
    """The rules, each checked when something happens that could break it."""

    def __init__(self, world: World, ttl: float) -> None:
        self.world = world
        self.ttl = ttl
        self.sessions: dict[Node, Session] = {}
        self.granted_count = 0
        self.lost_count = 0
        self.refused_count = 0
        self.standing: dict[str, dict[str, str]] = {}
        """By name: the session of each claim in the store, in the order of entry."""
        self.ended_sessions: set[str] = set()
        self.closed_sessions: set[str] = set()
        self.withdrawals: dict[str, float] = {}
        """By claim: when a withdrawal last ended; infinite while one goes on."""
        self.renewals: dict[str, float] = {}
        """By session: when a renewal was last sent."""
        self.fenced: dict[str, tuple[int, int]] = {}
        """By name: of the last write that was accepted, the token and the order of its lease."""
        self._last_token: dict[str, int] = {}
        self._candidates: dict[str, list[SimLease]] = {}
        self._by_claim: dict[str, SimLease] = {}
        self._asking: dict[tuple[Node, str], dict[int, Acquire]] = {}
        self._orders = 0

    # -- what the store says -----------------------------------------------------

    def entered(self, roster: str, id: str, session: str) -> None:
        """A claim was entered at the end of a roster."""
        self.world.note("entered", roster, id)
        standing = self.standing.setdefault(roster, {})
        if id in standing:
            self.world.fail(f"the claim {id} stands in {roster!r} twice")
        if session in self.ended_sessions:
            pass  # a request that the network held; whoever finds it buries it
        standing[id] = session

    def removed(self, roster: str, id: str) -> None:
        """A claim was withdrawn or buried."""
        self.world.note("removed", roster, id)
        self.standing.get(roster, {}).pop(id, None)
        lease = self._by_claim.get(id)
        if lease is not None and self._says_held(lease):
            self.world.fail(f"the claim {id} of {lease!r} was removed while it is held")

    def session_ended(self, session: str) -> None:
        """The store ended a session: whatever depends on it may be granted to others."""
        self.world.note("session ended", session)
        self.ended_sessions.add(session)
        for leases in self._candidates.values():
            for lease in leases:
                if lease.session_id == session and self._says_held(lease):
                    self.world.fail(f"the store ended the session of {lease!r}, which is held")

    # -- what drivers are asked --------------------------------------------------

    def renewing(self, node: Node, session: Session) -> Callable[[str], None]:
        """What a driver calls when it sends a renewal."""

        def sent(id: str) -> None:
            self.renewals[id] = self.world.time
            if node.ambushed:
                node.ambushed = False
                node.passes = 1 + int(2 * self.world.random())
            life = session._life
            if id in self.closed_sessions or life is None or life.id != id or life.reason:
                self.world.fail(f"a renewal was sent for {id}, a session that is over")

        return sent

    def withdrawing(self, id: str, begins: bool) -> None:
        """A driver begins to withdraw a claim, or has ended that, in whatever way."""
        self.withdrawals[id] = math.inf if begins else self.world.time

    # -- what clients do and get -------------------------------------------------

    def asks(self, node: Node, name: str, wait: bool, until: float | None) -> Acquire:
        """A client begins an acquire."""
        self._orders += 1
        acquire = Acquire(node, name, wait, self._orders)
        if wait:
            self._asking.setdefault((node, name), {})[acquire.order] = acquire
        if until is not None:
            late = node.when(until + 4 * self.ttl)
            self.world.push(late, node, self._check_timeout, (acquire, node.pauses))
        return acquire

    def granted(self, lease: SimLease) -> None:
        """A lease came into being."""
        world, name = self.world, lease.name
        self.granted_count += 1
        world.note("granted", lease.node, name, f"token={lease.token}", lease.claim_id)
        current = world.current
        acquire = current.acquire if current is not None else None
        if not isinstance(acquire, Acquire):
            world.fail(f"{lease!r} was granted to nobody")
            return
        acquire.leases.append(lease)
        lease.acquire = acquire
        if lease.token <= self._last_token.get(name, 0):
            world.fail(f"{lease!r}: the token does not rise, it was {self._last_token[name]}")
        self._last_token[name] = lease.token
        standing = self.standing.get(name, {})
        first = next(iter(standing), None)
        if lease.claim_id not in standing:
            world.fail(f"{lease!r} was granted, and has no claim in the store")
        elif first != lease.claim_id:
            world.fail(f"{lease!r} was granted before {first}, which came first")
        if lease.session_id in self.ended_sessions:
            world.fail(f"{lease!r} was granted on a session that the store had ended")
        for other in self._asking.get((lease.node, name), {}).values():
            if other.order < acquire.order and acquire.wait:
                world.fail(f"{lease!r} was granted before a local waiter that came first")
        lease.order = self.granted_count
        self._by_claim[lease.claim_id] = lease
        candidates = [each for each in self._candidates.get(name, ()) if self._matters(each)]
        candidates.append(lease)
        self._candidates[name] = candidates
        if len(candidates) > 1:
            world.watch = self.look
            self.look()
        lease.on_lost(self._lost)
        self._expect_end(lease)

    def returned(self, acquire: Acquire, lease: SimLease) -> None:
        """The client has its lease."""
        self._over(acquire)
        if acquire.leases != [lease]:
            self.world.fail(f"an acquire returned {lease!r}, and made {acquire.leases}")
        if not lease.asked():
            self.world.fail(f"{lease!r} is not held at the moment when it is granted")

    def refused(self, acquire: Acquire) -> None:
        """The client has no lease: time-out, cancellation or error."""
        self._over(acquire)
        self.refused_count += 1
        world = self.world
        if acquire.leases:
            world.fail(f"an acquire failed, and made {acquire.leases}")
        if not acquire.unsure and self._leaked(acquire):
            world.fail(f"an acquire that failed left a claim: {self._leaked(acquire)}")
        if acquire.unsure:
            later = acquire.node.when(acquire.node.now() + 1.2 * self.ttl)
            arg = (acquire, acquire.node.pauses)
            world.push(later, acquire.node, self._check_leak, arg)

    def releasing_failed(self, lease: SimLease) -> None:
        """`LeaseLost` was raised by a release."""
        if not lease.losses:
            self.world.fail(f"a release says that {lease!r} was lost, and its signal did not")

    def released(self, lease: SimLease) -> None:
        """A release came to its end: returned, failed or was cancelled."""
        if not lease.losses:
            lease.released = True
            self.world.note("released", lease.node, lease.name, lease.token)
            if lease.asked():
                self.world.fail(f"{lease!r} is held after it was released")

    def write(self, lease: SimLease, *, known_held: bool) -> None:
        """A write arrives at the fenced resource, which compares tokens and nothing else."""
        token, order = self.fenced.get(lease.name, (0, 0))
        if lease.token >= token:
            if lease.order < order:
                self.world.fail(f"{lease!r} wrote after a newer lease had written")
            self.fenced[lease.name] = (lease.token, lease.order)
        elif known_held:
            self.world.fail(f"{lease!r} is held, and its write was refused: {token} wrote")

    def resumed(self, node: Node) -> None:
        """A node runs again: its leases must know at once."""
        for leases in self._candidates.values():
            for lease in leases:
                if lease.node is not node or lease.over or not lease.asked():
                    continue
                if lease.session_id in self.ended_sessions:
                    self.world.fail(f"after a pause, {lease!r} does not know that it was lost")
                elif lease.claim_id not in self.standing.get(lease.name, {}):
                    self.world.fail(f"after a pause, {lease!r} is held without a claim")
        self.look()

    def look(self) -> None:
        """No two leases of one name are held at one moment, as far as anybody can ask."""
        disputed = False
        for name, leases in self._candidates.items():
            if len(leases) < 2:
                continue
            leases = [each for each in leases if self._matters(each)]
            self._candidates[name] = leases
            disputed = disputed or len(leases) > 1
            held = [each for each in leases if self._says_held(each)]
            if len(held) > 1:
                self.world.fail(f"held at once: {held}")
        if not disputed:
            self.world.watch = None

    def holds(self, node: Node) -> bool:
        """Whether a node has a lease, as far as can be said without asking it."""
        return any(
            each.node is node and not each.over
            for leases in self._candidates.values()
            for each in leases
        )

    # -- at the end --------------------------------------------------------------

    def leftovers(self, node: Node, session: Session) -> str:
        """What an idle session still has, or its claims in the store; empty if nothing."""
        life = session._life
        found: list[object] = []
        if session.gates._gates:
            found.append(f"gates {list(session.gates._gates)}")
        if life is not None and life.reason is None:
            found += [f"{each!r} in its leases" for each in life.leases]
            if life.waiters:
                found.append("waiters of the life")
            for name, standing in self.standing.items():
                found += [f"{id} in {name!r}" for id, its in standing.items() if its == life.id]
        return f"{node} still has {found}" if found else ""

    # -- inside ------------------------------------------------------------------

    def _matters(self, lease: SimLease) -> bool:
        return not lease.over and not lease.node.dead

    def _says_held(self, lease: SimLease) -> bool:
        """Whether its holder, if it could ask now, would be told that it holds."""
        return not lease.over and not lease.node.stopped and lease.asked()

    def _over(self, acquire: Acquire) -> None:
        acquire.over = True
        if acquire.wait:
            del self._asking[acquire.node, acquire.name][acquire.order]

    def _lost(self, lease: SimLease) -> None:
        self.lost_count += 1
        lease.losses += 1
        self.world.note("lost", lease.node, lease.name, lease.token, lease.reason)
        if lease.losses > 1:
            self.world.fail(f"{lease!r} was lost twice")
        if lease.released:
            self.world.fail(f"{lease!r} was lost after it was released")
        if not lease.reason:
            self.world.fail(f"{lease!r} was lost without a reason")
        if lease.asked():
            self.world.fail(f"{lease!r} was lost, and is held")
        life, open = lease._life, self.sessions[lease.node]._closed is None
        if open and lease.node.now() >= life.deadline and not lease.node.pauses:
            # The deadline is for a backend that does not answer, so it must have been asked.
            since = self.world.time - self.renewals.get(life.id, -math.inf)
            if since > self.ttl * 0.88:
                self.world.fail(f"{lease!r} was lost without one attempt to renew its session")

    def _expect_end(self, lease: SimLease) -> None:
        if lease.deadline < math.inf:
            when = lease.node.when(lease.deadline) + SHORTLY
            self.world.push(when, lease.node, self._check_deadline, lease)

    def _check_deadline(self, lease: SimLease) -> None:
        world, node = self.world, lease.node
        if lease.over:
            if lease.reason and not lease.losses:
                world.fail(f"{lease!r} was lost and nobody was told")
        elif lease.deadline > node.now():
            self._expect_end(lease)
        elif world.time - node.resumed_at < SHORTLY:
            world.push(world.time + SHORTLY, node, self._check_deadline, lease)
        else:
            world.fail(f"{lease!r} is past its deadline, and its loss was not signalled")

    def _check_timeout(self, arg: tuple[Acquire, int]) -> None:
        acquire, pauses = arg
        if not acquire.over and acquire.node.pauses == pauses:
            self.world.fail(f"an acquire on {acquire.node} is not over long after its time-out")

    def _leaked(self, acquire: Acquire) -> list[str]:
        life = self.sessions[acquire.node]._life
        if life is None or life.reason is not None:
            return []  # what it left goes with the session, which nobody renews
        standing = self.standing.get(acquire.name, {})
        return [id for id in acquire.ids if standing.get(id) == life.id]

    def _check_leak(self, arg: tuple[Acquire, int]) -> None:
        acquire, pauses = arg
        if acquire.node.pauses != pauses:
            return
        for id in self._leaked(acquire):
            session = self.standing[acquire.name][id]
            renewed = self.world.time - self.renewals.get(session, -math.inf)
            tried = self.world.time - self.withdrawals.get(id, -math.inf)
            busy = any(
                when == math.inf and each.startswith(f"{session}.")
                for each, when in self.withdrawals.items()
            )
            if renewed < self.ttl <= tried and not busy:
                self.world.fail(
                    f"the claim {id} was given up on a TTL ago; it stands, its session is renewed, "
                    "and nobody withdraws anything"
                )

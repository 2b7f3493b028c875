"""The judge: sees every event of a simulated schedule, and knows the rules.

It is told what the store does at the moment when it does it, and what the clients get.
It asks a lease `held()` only when something depends on the answer, because the
question itself ends a lease whose time is over.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .. import _names
from .._model import Claim
from .._session import Session
from ._sim_groups import GroupRules
from ._sim_lease import Acquire, Kind, Reported, SimMember
from ._sim_world import Node, World

if TYPE_CHECKING:
    from ._sim_trials import Trial

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
        """By roster: the session of each claim in the store, in the order of entry."""
        self.limits: dict[str, list[tuple[float, int]]] = {}
        """By semaphore's roster: each limit that it had, and since when."""
        self.ended_sessions: set[str] = set()
        self.closed_sessions: set[str] = set()
        self.withdrawals: dict[str, float] = {}
        """By claim: when a withdrawal last ended; infinite while one goes on."""
        self.renewals: dict[str, float] = {}
        """By session: when a renewal was last sent."""
        self.fenced: dict[str, tuple[int, int]] = {}
        """By roster: of the last write that was accepted, the token and the order of its lease."""
        self._last_token: dict[str, int] = {}
        """By roster: the greatest token granted."""
        self._last_exclusive: dict[str, int] = {}
        """By roster: the greatest token granted to one alone."""
        self._tokens: dict[str, set[int]] = {}
        self._where: dict[str, str] = {}
        """By claim: its roster."""
        self._readers: set[str] = set()
        """The claims that are shared."""
        self._candidates: dict[str, list[Reported]] = {}
        self._by_claim: dict[str, Reported] = {}
        self._asking: dict[tuple[Node, str], dict[int, Acquire]] = {}
        self._orders = 0
        self.groups = GroupRules(self)
        self.trials: tuple[Trial, ...] = ()
        """Who is told what is entered and recorded, too."""

    # -- what the store says -----------------------------------------------------

    def entered(self, claim: Claim) -> None:
        """A claim was entered at the end of a roster."""
        roster, id, session = claim.roster, claim.id, claim.session
        self.world.note("entered", roster, id)
        standing = self.standing.setdefault(roster, {})
        if id in standing:
            self.world.fail(f"the claim {id} stands in {roster!r} twice")
        if session in self.ended_sessions:
            pass  # a request that the network held; whoever finds it buries it
        standing[id] = session
        for trial in self.trials:
            trial.entered(claim)
        self.groups.entered(claim)
        self._where[id] = roster
        if claim.shared:
            self._readers.add(id)
        kind, name = _names.read(roster)
        if kind == "leader":
            token = json.loads(claim.body)["token"]
            if token not in self._tokens.get(_names.of("election", name), ()):
                self.world.fail(f"{claim} shows a term that was never granted")

    def recorded(self, name: str, text: str | None) -> None:
        """A record was written, or deleted."""
        self.world.note("recorded", name, text)
        for trial in self.trials:
            trial.recorded(name, text)
        if _names.read(name).kind == "semaphore" and text is not None:
            limits = self.limits.setdefault(name, [(-math.inf, 0)])
            limits.append((self.world.time, json.loads(text)["limit"]))
        self.groups.recorded(name, text)

    def removed(self, roster: str, id: str) -> None:
        """A claim was withdrawn or buried."""
        self.world.note("removed", roster, id)
        self.standing.get(roster, {}).pop(id, None)
        self.groups.removed(id)
        lease = self._by_claim.get(id)
        if lease is not None and self.says_held(lease):
            self.world.fail(f"the claim {id} of {lease!r} was removed while it is held")

    def session_ended(self, session: str) -> None:
        """The store ended a session: whatever depends on it may be granted to others."""
        self.world.note("session ended", session)
        self.ended_sessions.add(session)
        for lease in self._all():
            if lease.session_id == session and self.says_held(lease):
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

    def asks(
        self, node: Node, roster: str, kind: Kind, wait: bool, until: float | None, shared: bool
    ) -> Acquire:
        """A client begins an acquire."""
        self._orders += 1
        acquire = Acquire(node, roster, kind, wait, shared, self._orders)
        if wait:
            self._asking.setdefault((node, roster), {})[acquire.order] = acquire
        if until is not None:
            # A barrier that is given up asks thrice, for a TTL each, and many do so at once.
            ttls = 12 if kind == "barrier" else 8 if acquire.posted else 4
            late = node.when(until + ttls * self.ttl)
            self.world.push(late, node, self._check_timeout, (acquire, node.pauses))
        return acquire

    def granted(self, lease: Reported) -> None:
        """A lease came into being."""
        world, roster = self.world, lease.roster
        self.granted_count += 1
        world.note("granted", lease.node, roster, f"token={lease.token}", lease.claim_id)
        current = world.current
        acquire = current.acquire if current is not None else None
        if lease.background and acquire is None:
            acquire = self.asks(lease.node, roster, "lock", False, None, False)
            acquire.over = True
        if not isinstance(acquire, Acquire):
            world.fail(f"{lease!r} was granted to nobody")
            return
        acquire.leases.append(lease)
        lease.acquire = acquire
        self._check_token(lease, acquire)
        self._check_place(lease, acquire)
        if lease.session_id in self.ended_sessions:
            world.fail(f"{lease!r} was granted on a session that the store had ended")
        # A semaphore's record is read before the gate, and others may queue more than once.
        if acquire.kind in ("lock", "rwlock") and acquire.wait:
            for other in self._asking.get((lease.node, roster), {}).values():
                if other.order < acquire.order and not (other.shared and acquire.shared):
                    world.fail(f"{lease!r} was granted before a local waiter that came first")
        lease.order = self.granted_count
        self._by_claim[lease.claim_id] = lease
        candidates = self.leases(roster)
        candidates.append(lease)
        self._candidates[roster] = candidates
        if len(candidates) > 1:
            world.watch = self.look
            self.look()
        lease.on_lost(self._lost)
        self._expect_end(lease)

    def _check_token(self, lease: Reported, acquire: Acquire) -> None:
        """Tokens rise; of those who hold together, none has another's."""
        roster, token, last = lease.roster, lease.token, 0
        tokens = self._tokens.setdefault(roster, set())
        if token in tokens:
            self.world.fail(f"{lease!r}: another had that token")
        tokens.add(token)
        if acquire.kind != "semaphore":
            tops = self._last_exclusive if acquire.shared else self._last_token
            last = tops.get(roster, 0)
        if token <= last:
            self.world.fail(f"{lease!r}: the token does not rise, it was {last}")
        self._last_token[roster] = max(token, self._last_token.get(roster, 0))
        if not acquire.shared:
            self._last_exclusive[roster] = self._last_token[roster]

    def _check_place(self, lease: Reported, acquire: Acquire) -> None:
        """Nobody stands in its way in the store."""
        standing = list(self.standing.get(lease.roster, ()))
        if lease.claim_id not in standing:
            self.world.fail(f"{lease!r} was granted, and has no claim in the store")
            return
        before = standing[: standing.index(lease.claim_id)]
        if acquire.shared:
            before = [each for each in before if each not in self._readers]
        if len(before) >= self._places(lease.roster, acquire.kind, acquire.began):
            self.world.fail(f"{lease!r} was granted before {before}, which came first")

    def _places(self, roster: str, kind: Kind, since: float) -> int:
        """How many may hold at a time, at the most: by any limit that was in force since then."""
        if kind != "semaphore":
            return 1
        limits = self.limits.get(roster, [])
        ends = [when for when, _ in limits[1:]] + [math.inf]
        return max((limit for (_, limit), end in zip(limits, ends, strict=True) if end >= since))

    def returned(self, acquire: Acquire, lease: Reported) -> None:
        """The client has its lease."""
        self._over(acquire)
        others = acquire.leases[:-1]
        if isinstance(lease, SimMember):
            self.groups.returned(lease)
        if acquire.leases[-1:] != [lease] or (others and not acquire.posted):
            self.world.fail(f"an acquire returned {lease!r}, and made {acquire.leases}")
        if not all(other.over for other in others):
            self.world.fail(f"an acquire returned {lease!r}, and kept {others}")
        closed = self.sessions[lease.node]._closed is not None
        if not lease.asked() and not (acquire.posted and (lease.losses or closed)):
            self.world.fail(f"{lease!r} is not held at the moment when it is granted")

    def returned_all(self, acquire: Acquire, leases: Sequence[Reported]) -> None:
        """The client has many leases, at one moment."""
        self._over(acquire)
        for lease in acquire.leases:
            if lease not in leases and not lease.over:
                self.world.fail(f"an acquire returned {leases}, and kept {lease!r}")
        for lease in leases:
            if lease not in acquire.leases or not lease.asked():
                self.world.fail(f"{lease!r} is not held at the moment when all are granted")

    def refused(self, acquire: Acquire) -> None:
        """The client has no lease: time-out, cancellation or error."""
        self._over(acquire)
        self.refused_count += 1
        world = self.world
        many = acquire.posted or acquire.kind == "multilock"
        if any(not (many and each.over) for each in acquire.leases):
            world.fail(f"an acquire failed, and made {acquire.leases}")
        if not acquire.unsure and self._leaked(acquire):
            world.fail(f"an acquire that failed left a claim: {self._leaked(acquire)}")
        if acquire.unsure:
            later = acquire.node.when(acquire.node.now() + 1.2 * self.ttl)
            arg = (acquire, acquire.node.pauses)
            world.push(later, acquire.node, self._check_leak, arg)

    def releasing_failed(self, lease: Reported) -> None:
        """`LeaseLost` was raised by a release."""
        if not lease.losses:
            self.world.fail(f"a release says that {lease!r} was lost, and its signal did not")

    def released(self, lease: Reported) -> None:
        """A release came to its end: returned, failed or was cancelled."""
        if not lease.losses:
            lease.released = True
            self.world.note("released", lease.node, lease.roster, lease.token)
            if lease.asked():
                self.world.fail(f"{lease!r} is held after it was released")

    def write(self, lease: Reported, *, known_held: bool) -> None:
        """A write arrives at the fenced resource, which compares tokens and nothing else."""
        token, order = self.fenced.get(lease.roster, (0, 0))
        if lease.token >= token:
            if lease.order < order:
                self.world.fail(f"{lease!r} wrote after a newer lease had written")
            self.fenced[lease.roster] = (lease.token, lease.order)
        elif known_held:
            self.world.fail(f"{lease!r} is held, and its write was refused: {token} wrote")

    def resumed(self, node: Node) -> None:
        """A node runs again: its leases must know at once."""
        for lease in self._all():
            if lease.node is not node or lease.over or not lease.asked():
                continue
            if lease.session_id in self.ended_sessions:
                self.world.fail(f"after a pause, {lease!r} does not know that it was lost")
            elif lease.claim_id not in self.standing.get(lease.roster, {}):
                self.world.fail(f"after a pause, {lease!r} is held without a claim")
        self.look()

    def look(self) -> None:
        """At no moment are more leases of a name held, as far as anybody can ask, than may be."""
        disputed = False
        for roster, leases in self._candidates.items():
            if len(leases) < 2:
                continue
            leases = [each for each in leases if self._matters(each)]
            self._candidates[roster] = leases
            if all(each.shared for each in leases) or len(leases) <= self._together(leases):
                continue
            disputed = True
            held = [each for each in leases if self.says_held(each)]
            if len(held) > self._together(held) and not all(each.shared for each in held):
                self.world.fail(f"held at once: {held}")
        if not disputed:
            self.world.watch = None

    def _together(self, leases: list[Reported]) -> int:
        """How many of these leases of one name may be held at a time."""
        acquires = [each.acquire for each in leases if each.acquire is not None]
        if not acquires or acquires[0].kind != "semaphore":
            return 1
        since = min(each.began for each in acquires)
        return self._places(leases[0].roster, "semaphore", since)

    def holds(self, node: Node) -> bool:
        """Whether a node has a lease, as far as can be said without asking it."""
        return any(each.node is node and not each.over for each in self._all())

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

    def present(self, roster_prefix: str) -> list[Reported]:
        """The leases that are held in rosters whose names begin so."""
        return [
            each
            for each in self._all()
            if each.roster.startswith(roster_prefix) and self.says_held(each)
        ]

    def leases(self, roster: str) -> list[Reported]:
        """The leases of a roster that are not over, on nodes that live; none is asked."""
        return [each for each in self._candidates.get(roster, ()) if self._matters(each)]

    def says_held(self, lease: Reported) -> bool:
        """Whether its holder, if it could ask now, would be told that it holds."""
        return not lease.over and not lease.node.stopped and lease.asked()

    # -- inside ------------------------------------------------------------------

    def _all(self) -> list[Reported]:
        return [each for leases in self._candidates.values() for each in leases]

    def _matters(self, lease: Reported) -> bool:
        return not lease.over and not lease.node.dead

    def _over(self, acquire: Acquire) -> None:
        acquire.over = True
        if acquire.wait:
            del self._asking[acquire.node, acquire.roster][acquire.order]

    def _lost(self, lease: Reported) -> None:
        self.lost_count += 1
        lease.losses += 1
        self.world.note("lost", lease.node, lease.roster, lease.token, lease.reason)
        if lease.losses > 1:
            self.world.fail(f"{lease!r} was lost twice")
        if lease.released:
            self.world.fail(f"{lease!r} was lost after it was released")
        if not lease.reason:
            self.world.fail(f"{lease!r} was lost without a reason")
        if lease.asked():
            self.world.fail(f"{lease!r} was lost, and is held")
        self.groups.lost(lease)
        life, open = lease._life, self.sessions[lease.node]._closed is None
        over = lease.node.now() >= life.deadline
        ends = life.id in self.ended_sessions or self.sessions[lease.node].driver.mutex is not None
        if open and life.reason is not None and not over and not ends:
            self.world.fail(f"{lease!r} was lost with its session, which nothing has ended")
        if open and over and not lease.node.pauses:
            # The deadline is for a backend that does not answer, so it must have been asked.
            since = self.world.time - self.renewals.get(life.id, -math.inf)
            if since > self.ttl * 0.88:
                self.world.fail(f"{lease!r} was lost without one attempt to renew its session")

    def _expect_end(self, lease: Reported) -> None:
        if lease.deadline < math.inf:
            when = lease.node.when(lease.deadline) + SHORTLY
            self.world.push(when, lease.node, self._check_deadline, lease)

    def _check_deadline(self, lease: Reported) -> None:
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
        if acquire.posted and self.sessions[acquire.node]._closed is not None:
            return []  # it was released by the close, which ends the session, too
        return [id for id in sorted(acquire.ids) if self._session_of(id) == life.id]

    def _session_of(self, id: str) -> str | None:
        """Whose claim it is, if it stands."""
        return self.standing.get(self._where.get(id, ""), {}).get(id)

    def _check_leak(self, arg: tuple[Acquire, int]) -> None:
        acquire, pauses = arg
        if acquire.node.pauses != pauses:
            return
        for id in self._leaked(acquire):
            session = self._session_of(id)
            assert session is not None
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

"""The leases of the simulator, which report to the judge, and the acquire that led to each."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias

from .._lease import BaseLease
from .._recipes.election import TermLease
from .._recipes.members import BaseMember
from .._recipes.semaphore import PermitLease
from .._session import Session
from ._sim_world import Node

Kind: TypeAlias = Literal[
    "lock", "rwlock", "semaphore", "election", "group",
    "claims", "estate", "multilock", "barrier", "latch", "object",
]  # fmt: skip
POSTED: tuple[Kind, ...] = ("election", "group")
"""Whose leases are shown in a roster: between the lock and the post much can happen."""


class Acquire:
    """One acquire of one client, from the call to what came of it."""

    __slots__ = (
        "began",
        "ids",
        "kind",
        "leases",
        "node",
        "order",
        "over",
        "roster",
        "served",
        "shared",
        "unsure",
        "wait",
    )

    def __init__(
        self, node: Node, roster: str, kind: Kind, wait: bool, shared: bool, order: int
    ) -> None:
        self.node = node
        self.roster = roster
        self.kind = kind
        self.wait = wait
        self.shared = shared
        self.order = order
        self.began = node.world.time
        self.ids: set[str] = set()
        self.leases: list[Reported] = []
        self.served = -math.inf
        """When the store carried out the last call that was answered."""
        self.unsure = False
        """Whether a call that it made got no answer."""
        self.over = False

    @property
    def posted(self) -> bool:
        """Whether its lease is shown in a roster, too."""
        return self.kind in POSTED


class Reported(BaseLease):
    """A lease that reports to the judge when it is granted."""

    background = False
    """Whether it is taken by a job, and by no client's acquire."""

    def __init__(self, session: Session, *args: Any) -> None:
        super().__init__(session, *args)
        runtime: Any = session.runtime
        self.node: Node = runtime.node
        self.judge = runtime.world.judge
        self.losses = 0
        self.released = False
        self.leaving = False
        """Whether its release has begun."""
        self.going = False
        """Whether that, or a close of its session."""
        self.was_over = False
        self.order = 0
        self.acquire: Acquire | None = None
        self.judge.granted(self)

    def __hash__(self) -> int:
        # Not the address: the order of a set of leases must be the same in every run.
        return hash(self.token)

    def __eq__(self, other: object) -> bool:
        return self is other

    @property
    def over(self) -> bool:
        """Whether it was lost or released, without asking the clock."""
        return self._ended

    @property
    def session_id(self) -> str:
        """The session on which it depends."""
        return self._life.id

    @property
    def claim_id(self) -> str:
        """The claim behind it."""
        return self._id

    @property
    def roster(self) -> str:
        """Where that claim stands."""
        return self._roster

    def asked(self) -> bool:
        """What `held()` says; once it has said no, it must never say yes again."""
        held = self.held()
        if held and self.was_over:
            self.node.world.fail(f"{self!r} was lost or released, and is held again")
        self.was_over = not held
        return held

    async def release(self) -> None:
        """As the façades do it."""
        self.leaving = True
        await self._release()


class SimLease(Reported):
    """The lease of a lock."""


class SimPermit(Reported, PermitLease):
    """The lease of a semaphore."""


class SimTerm(Reported, TermLease):
    """The lease of an election."""


class SimMember(Reported, BaseMember):
    """The lease of a member of a group."""

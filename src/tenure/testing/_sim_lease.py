"""The lease of the simulator, which reports to the judge, and the acquire that led to it."""

from __future__ import annotations

from typing import Any

from .._lease import BaseLease
from .._recipes.lock import LockRecipe
from .._session import Session
from ._sim_world import Node


class Acquire:
    """One acquire of one client, from the call to what came of it."""

    __slots__ = (
        "began",
        "ids",
        "leases",
        "name",
        "node",
        "order",
        "over",
        "unsure",
        "until",
        "wait",
    )

    def __init__(self, node: Node, name: str, wait: bool, order: int) -> None:
        self.node = node
        self.name = name
        self.wait = wait
        self.order = order
        self.ids: set[str] = set()
        self.leases: list[SimLease] = []
        self.unsure = False
        """Whether a call that it made got no answer."""
        self.over = False


class SimLease(BaseLease):
    """A lease that reports to the judge when it is granted."""

    __slots__ = ("acquire", "judge", "losses", "node", "order", "released", "was_over")

    def __init__(self, session: Session, *args: Any) -> None:
        super().__init__(session, *args)
        runtime: Any = session.runtime
        self.node: Node = runtime.node
        self.judge = runtime.world.judge
        self.losses = 0
        self.released = False
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

    def asked(self) -> bool:
        """What `held()` says; once it has said no, it must never say yes again."""
        held = self.held()
        if held and self.was_over:
            self.node.world.fail(f"{self!r} was lost or released, and is held again")
        self.was_over = not held
        return held

    async def release(self) -> None:
        """As the façades do it."""
        await self._release()


Recipe = LockRecipe[SimLease]

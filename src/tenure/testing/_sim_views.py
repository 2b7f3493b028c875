"""Watchers of groups and elections in a schedule: what they are told, and whether it is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import _names
from .._model import Leader
from .._recipes.groupwatch import GroupWatch
from .._recipes.members import Change, MemberInfo
from ..errors import BackendError, ClosedError
from ._sim_lease import SimMember, SimTerm
from ._sim_world import World

if TYPE_CHECKING:
    from ._sim_judge import Judge
    from ._sim_schedule import Process, Schedule


class View:
    """What one watcher knows, from what it was told and nothing else."""

    def __init__(self, schedule: Schedule, process: Process, name: str) -> None:
        self.world: World = schedule.world
        self.judge: Judge = schedule.judge
        self.clients = schedule.clients
        self.process = process
        self.name = name

    def start(self) -> None:
        """Watch in the background, until the session is closed."""
        self.process.node.start(self._watching(), f"{self.process.node}/watch")

    async def _watching(self) -> None:
        try:
            while not self.world.over:
                try:
                    await self._told()
                except BackendError:
                    self.world.note(self.process.node, "cannot see", self.name)
        except ClosedError:
            pass

    async def _told(self) -> None:
        """Wait for one thing to be told."""
        raise NotImplementedError

    def true(self) -> bool:
        """Whether what it knows is what is."""
        raise NotImplementedError


class GroupView(View):
    """Knows who is in a group."""

    def __init__(self, schedule: Schedule, process: Process, name: str) -> None:
        super().__init__(schedule, process, name)
        self._watch = GroupWatch(self.clients.group(process, name), None, 1000)
        self._known: dict[str, MemberInfo] | None = None

    async def _told(self) -> None:
        if self._known is None:
            await self._watch.open()
            assert self._watch.known is not None
            self._known = {info.id: info for info in self._watch.known}
        change = await self._watch.next(None)
        if change is not None and change.member is not None:
            self._apply(change, self._known, change.member)

    def _apply(self, change: Change, known: dict[str, MemberInfo], member: MemberInfo) -> None:
        before = known.get(member.id)
        self.world.note(self.process.node, "is told", change.kind, member.id, member.token)
        if change.kind == "joined":
            fits = before is None
        else:
            fits = before == (change.before if change.kind == "changed" else member)
        if not fits:
            self.world.fail(f"{self.process.node} knew {before}, and was told {change}")
        if change.kind == "left":
            known.pop(member.id, None)
        else:
            known[member.id] = member

    def true(self) -> bool:
        truth: dict[str, tuple[int, Any]] = {}
        for lease in self.judge.present(_names.of("member", self.name, "")):
            assert isinstance(lease, SimMember)
            if not self.judge.groups.shown(lease):
                continue  # it was removed, and does not know yet
            truth[lease.id] = (lease.token, lease.capabilities)
        known = {info.id: (info.token, info.capabilities) for info in (self._known or {}).values()}
        return known == truth


class LeaderView(View):
    """Knows who leads."""

    def __init__(self, schedule: Schedule, process: Process, name: str) -> None:
        super().__init__(schedule, process, name)
        self._watch = self.clients.election(process, name).watch()
        self._known: list[Leader | None] = []

    async def _told(self) -> None:
        if not await self._watch.change(None):
            return
        leader = self._watch.leader
        self.world.note(self.process.node, "is told", "leader", leader)
        if self._known and self._known[-1] == leader:
            self.world.fail(f"{self.process.node} was told twice of {leader}")
        tokens = [each.token for each in (*self._known, leader) if each is not None]
        if tokens != sorted(tokens):
            self.world.fail(f"{self.process.node} was told of leaders out of order: {tokens}")
        self._known.append(leader)

    def true(self) -> bool:
        terms = self.judge.present(_names.of("election", self.name))
        truth = [(lease.token, lease.value) for lease in terms if isinstance(lease, SimTerm)]
        known = [(each.token, each.value) for each in self._known[-1:] if each is not None]
        return known == truth

"""What the judge knows of groups: who deletes them, who is removed by force, who is told."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, NamedTuple

from .. import _names
from .._model import Claim
from .._recipes.group import GroupRecipe
from .._recipes.lock import LockRecipe
from ..errors import LeaseLost
from ._sim_lease import Reported, SimLease, SimMember
from ._sim_trials import Trial

if TYPE_CHECKING:
    from ._sim_judge import Judge
    from ._sim_schedule import Process

Key = tuple[str, int]
"""A membership: the roster of its lock, and its token."""


class _Post(NamedTuple):
    """A claim that shows a member."""

    group: str
    key: Key
    entered: float


class _Deletion:
    """One call of `delete`: of what kind, and from when until when."""

    def __init__(self, began: float, force: bool) -> None:
        self.began = began
        self.ended = math.inf
        self.force = force


class GroupRules:
    """Who is in a group is shown there, unless somebody deletes the group by force."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.world = judge.world
        self._born: dict[str, float] = {}
        """By group that exists: since when."""
        self._identities: dict[str, str] = {}
        self._died: dict[str, float] = {}
        """By group: when one of that name was deleted last."""
        self._deletions: dict[str, list[_Deletion]] = {}
        self._posts: dict[str, _Post] = {}
        """By claim; also of those that are gone."""
        self._removed: dict[Key, float] = {}
        """Members that are not shown any more, and since when."""
        self._wills: dict[str, tuple[str, float]] = {}
        """By estate's record: what it says, and since when."""

    # -- what the store says -----------------------------------------------------

    def entered(self, claim: Claim) -> None:
        """A claim was entered in some roster."""
        kind, name = _names.read(claim.roster)
        if kind != "group":
            return
        shown = json.loads(claim.body)
        key = (_names.of("member", name, shown["id"]), shown["token"])
        self._posts[claim.id] = _Post(name, key, self.world.time)
        lease = self._member(key)
        if lease is None or not self._joined(lease):
            self._removed.pop(key, None)
        # Else the network held the request, and nobody is a member again because of that.

    def removed(self, id: str) -> None:
        """A claim is gone: if it shows somebody who has not left, it was taken away by force."""
        post = self._posts.get(id)
        lease = None if post is None else self._member(post.key)
        if post is None or lease is None:
            return
        self._removed.setdefault(post.key, self.world.time)
        if self._there(lease) and not self._forced(post.group, post.entered):
            self.world.fail(f"{lease!r} was removed from its group, and nobody deletes that")

    def recorded(self, name: str, text: str | None) -> None:
        """A record was written, or deleted."""
        kind, group = _names.read(name)
        if kind == "estate":
            self._wills.pop(name, None)
            if text is not None:
                self._wills[name] = (text, self.world.time)
        elif kind == "group" and text is None:
            self._died[group] = self.world.time
            self._born.pop(group, None)
            self._identities.pop(group, None)
            for lease in self.judge.present(_names.of("member", group, "")):
                joined = isinstance(lease, SimMember) and self._joined(lease)
                if joined and self.shown(lease):
                    self.world.fail(f"the group {group!r} was deleted with {lease!r} in it")
        elif kind == "group" and text is not None:
            identity = json.loads(text)["id"]
            if self._identities.get(group) != identity:
                self._identities[group] = identity
                self._born[group] = self.world.time

    # -- what clients do and get -------------------------------------------------

    async def delete(self, group: GroupRecipe[SimMember], force: bool) -> None:
        """Delete a group; when that is done, there was none of that name meanwhile."""
        world, name = self.world, group.name
        deletion = _Deletion(world.time, force)
        others = self._deletions.setdefault(name, [])
        others.append(deletion)
        world.note("deleting", name, "by force" if force else "")
        try:
            await group.delete(force)
        finally:
            if not world.over:
                deletion.ended = world.time
        if name in self._born and self._died.get(name, -math.inf) < deletion.began:
            world.fail(f"the group {name!r} was deleted by {group.session.owner}, and is there")
        alone = all(each is deletion or each.ended < deletion.began for each in others)
        if force and alone:
            for estate, (text, since) in self._wills.items():
                if estate.startswith(group.estates()) and since < deletion.began:
                    world.fail(f"the group {name!r} was deleted by force, and left {text}")

    def returned(self, member: SimMember) -> None:
        """Somebody has joined: if it looked at a group that was made meanwhile, it is in that."""
        gone, acquire = self._removed.get(self._key(member)), member.acquire
        born = self._born.get(member.group)
        assert acquire is not None
        # With an estate, the last that it asked for is not the group.
        if gone is None or born is None or member.estate is not None:
            return
        if gone < born <= acquire.served:
            self.world.fail(f"{member!r} has joined a group after it was removed, and is not shown")

    async def update(self, member: SimMember, capabilities: object) -> None:
        """Change what a member shows, which tells it if it was removed."""
        began = self.world.time
        await member._update(capabilities)
        if self._removed.get(self._key(member), math.inf) < began:
            self.world.fail(f"{member!r} was removed from its group, and was not told")

    def lost(self, lease: Reported) -> None:
        """A lease was lost."""
        if "removed from the group" in (lease.reason or "") and self.shown(lease):
            self.world.fail(f"{lease!r} was told that it was removed, and it was not")

    # -- what others ask ---------------------------------------------------------

    def shown(self, lease: Reported) -> bool:
        """Whether a member is shown, as far as nobody has removed it."""
        return not isinstance(lease, SimMember) or self._key(lease) not in self._removed

    def deletes_by_force(self, group: str) -> bool:
        """Whether what is removed now may be removed by force."""
        return self._forced(group, -math.inf)

    # -- inside ------------------------------------------------------------------

    def _forced(self, group: str, entered: float) -> bool:
        """Whether a deletion by force may remove now what was entered then."""
        # The network never holds a request for a whole TTL.
        least = self.world.time - self.judge.ttl
        return any(
            each.force and entered <= each.ended and each.ended >= least
            for each in self._deletions.get(group, ())
        )

    def _key(self, lease: SimMember) -> Key:
        return lease.roster, lease.token

    def _member(self, key: Key) -> SimMember | None:
        for lease in self.judge.leases(key[0]):
            if isinstance(lease, SimMember) and lease.token == key[1]:
                return lease
        return None

    def _joined(self, lease: SimMember) -> bool:
        return lease.acquire is not None and lease.acquire.over and not lease.leaving

    def _there(self, lease: SimMember) -> bool:
        """Whether it is a member, and neither it nor anybody else of its process ends that."""
        open = self.judge.sessions[lease.node]._closed is None
        return open and self._joined(lease) and self.judge.says_held(lease)


class Expulsion(Trial):
    """With the faults over: of those who are removed, each is told, and its id is free again."""

    def finale(self) -> None:
        groups, clients, ttl = self.judge.groups, self.schedule.clients, self.plan.ttl
        first, second, other = self.alive(3)
        there: list[SimMember] = []
        gone, told, again = [False], [False], [False]

        async def join(process: Process, id: str) -> SimMember:
            group, roster = clients.group(process, self.name), _names.of("member", self.name, id)
            member = await clients.judged(
                process, roster, "group", True, None, False,
                lambda: group.join({"n": 0}, id, True, None, None),
            )  # fmt: skip
            assert isinstance(member, SimMember)
            return member

        async def wait(process: Process, over: list[bool]) -> None:
            while not over[0]:
                await process.node.runtime.sleep(process.node.now() + ttl / 20)

        async def reside(process: Process) -> None:
            beside = f"beside {self.name} on {process.node}"
            lock = LockRecipe(process.session, beside, False, SimLease)
            lease = await clients.judged(
                process, beside, "lock", True, None, False, lambda: lock.acquire(None)
            )
            assert lease is not None
            member = await join(process, str(process.node))
            there.append(member)
            await wait(process, gone)
            try:
                await groups.update(member, {"n": 1})
            except LeaseLost:
                if member.asked() or not lease.asked():
                    self.world.fail(f"of {member!r} and {lease!r}, not the first alone was lost")
            await clients.release(member)
            await clients.release(lease)

        async def expel(process: Process) -> None:
            await groups.delete(clients.group(process, self.name), True)
            told[0] = True

        async def follow(process: Process) -> None:
            for member in there:
                await clients.release(await join(process, member.id))
            again[0] = True

        for process in (first, second):
            self.start(process, reside(process), "reside")
        self.until((self.schedule.crashed + 4) * 1.5, "two join", lambda: len(there) == 2)
        self.start(other, expel(other), "expel")
        self.until(3, "the group is deleted by force", lambda: told[0])
        known = lambda: all(view.true() for each in self.schedule.alive() for view in each.views)  # noqa: E731
        self.until(2.5, "watchers know that nobody is there", known)
        gone[0] = True
        self.until(3, "each is told")
        self.start(other, follow(other), "follow")
        self.until(4, "the ids of those who were removed are free", lambda: again[0])

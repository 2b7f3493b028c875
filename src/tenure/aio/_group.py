"""Groups, their members, and watching them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .._coordinator import checked_name, checked_timeout
from .._lease import State
from .._recipes.estates import BaseOrphan, Heirs, Vigil
from .._recipes.group import GroupRecipe
from .._recipes.groupwatch import BUFFER, Callbacks, GroupWatch
from .._recipes.members import BaseMember, Change, MemberInfo, Members
from .._session import Session
from ..errors import InvalidArgument
from ._lock import Lease
from ._run import run

if TYPE_CHECKING:
    from ._claims import Claims
    from ._ring import Ring


class Member(BaseMember, Lease):
    """Membership in a group: a lease that everybody can see, until it leaves or is lost.

    Made by `Group.join`, never by hand. As a context manager it leaves at the end of the
    block.
    """

    __slots__ = ()

    async def update(self, capabilities: Any) -> None:
        """Publish other capabilities.

        Raises `InvalidArgument` if they are no JSON value or too large, and `LeaseLost` if
        it is no member any more.
        """
        await run(self._update(capabilities))

    async def bequeath(self, estate: Any) -> None:
        """Leave something else behind in case it dies; nothing, with None.

        Raises what `update` raises.
        """
        await run(self._bequeath(estate))

    def claims(
        self,
        slots: Iterable[str],
        *,
        on_gain: Callable[[str, Lease], object] | None = None,
        on_release: Callable[[str, Lease], object] | None = None,
        on_lost: Callable[[str, Lease], object] | None = None,
        weights: Callable[[MemberInfo], float] | None = None,
        ignore: Collection[str] = (),
    ) -> Claims:
        """This member's share of up to 10,000 slots, for `async with`; no slot has two holders.

        Each member of the group must claim the same slots, but for the ids to `ignore`; what
        is due to one that does not is held by nobody. `weights` says of a member what its
        weight is, instead of 1.

        Callbacks get the slot and its lease, in the background, one at a time for all slots:
        `on_gain` when it is held, `on_release` when it is due to another member, and is
        released once that returns, `on_lost` when its lease was lost. An error of a callback
        is logged.
        """
        from ._claims import claims

        return claims(self, slots, on_gain, on_release, on_lost, weights, ignore)

    async def leave(self) -> None:
        """Leave the group, and nothing behind. The same as `release`."""
        await self.release()


class Orphan(BaseOrphan, Lease):
    """The estate of a member that died, and the right to handle it: a lease of its own.

    Made by `Group.inherit`, never by hand. As a context manager it is settled at the end
    of the block, unless the block raises: then it is left for somebody else.
    """

    __slots__ = ()

    async def settle(self) -> None:
        """Say that the work is done: the estate is deleted, and nobody inherits it again.

        Raises `LeaseLost` if somebody else may have taken over meanwhile.
        """
        await run(self._settle())

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None and self.state is not State.RELEASED:
            await self.settle()
        else:
            await super().__aexit__(kind, error, trace)


class Group:
    """A group's name. Joining it returns a `Member`; the group itself holds nothing.

    A group exists from `create`, or from the first `join`, until `delete`, whether or
    not it has members.
    """

    __slots__ = ("_heirs", "_recipe")

    def __init__(self, session: Session, name: str) -> None:
        self._recipe = GroupRecipe(session, checked_name(name), Member)
        self._heirs = Heirs(self._recipe, Orphan)

    @property
    def name(self) -> str:
        """The group's name."""
        return self._recipe.name

    async def create(self, *, exist_ok: bool = False) -> None:
        """Create the group; `GroupExists` if it exists, unless `exist_ok`."""
        await run(self._recipe.create(exist_ok))

    async def delete(self, *, force: bool = False) -> None:
        """Delete the group.

        Raises `GroupNotFound` if there is none, and `GroupNotEmpty` if it has members, or
        dead members' estates that nobody has inherited. With `force` those are removed, too:
        a member vanishes from everybody's view at once, and learns of it from a watch, or
        from `LeaseLost` at its next `update`.
        """
        await run(self._recipe.delete(force))

    async def exists(self) -> bool:
        """Say whether the group exists."""
        return await run(self._recipe.exists())

    async def members(self) -> Members:
        """Who is in the group at this moment: one round trip, however many there are.

        Raises `GroupNotFound` if there is no such group.
        """
        return await run(self._recipe.members())

    async def member(self, id: str) -> MemberInfo:
        """One member, with when it was last seen; `MemberNotFound` if there is none."""
        return await run(self._recipe.member(checked_name(id, "member id")))

    async def join(
        self,
        capabilities: Any = None,
        *,
        member: str | None = None,
        create: bool = True,
        timeout: float | None = 0,
        estate: Any = None,
    ) -> Member:
        """Join the group, and be a member until it leaves, or its session is lost.

        `capabilities` is any JSON value of up to 64 KiB, for everybody to read. `member`
        is its id in the group: the coordinator's owner, if it is not given. If another has
        that id, its departure is waited for, at most `timeout` seconds; None waits for
        ever. A group that does not exist is created, unless `create` is false. `estate` is
        what it leaves behind if it dies, a JSON value, too; if an earlier member of that id
        died and nobody has inherited, that one's estate is kept in its place.

        Raises `MemberExists` if the id is still taken by then (`AlreadyJoined` if by this
        very coordinator), `GroupNotFound` if there is no such group and none is to be
        created, and `InvalidArgument` for capabilities or an estate that cannot be.
        """
        seconds = checked_timeout(timeout)
        id = None if member is None else checked_name(member, "member id")
        return await run(self._recipe.join(capabilities, id, create, seconds, estate))

    def watch(self, *, since: Members | None = None, buffer: int = BUFFER) -> Watch:
        """Iterate over the changes of its members.

        They are counted from the snapshot `since`, or from when the watch is entered, or
        first asked. A consumer that sleeps through more than `buffer` wake-ups is told with
        a change of kind `lagged`. The group need not exist yet.
        """
        return Watch(self._watch(since, buffer))

    async def on_change(
        self, callback: Callable[[Change], object], *, since: Members | None = None
    ) -> Subscription:
        """Have `callback(change)` called for each change, in the background, until closed.

        Changes are counted from the snapshot `since`, or from now. They come one at a time
        and in order. An error of the callback is logged.
        """
        watch = self._watch(since, BUFFER)
        await run(watch.open())
        what = f"watching the group {self.name!r}"
        session = self._recipe.session
        return Subscription(
            Callbacks(session, what, lambda: watch.next(None), callback, watch.close)
        )

    def ring(
        self,
        member: Member | None = None,
        *,
        weights: Callable[[MemberInfo], float] | None = None,
        points: int = 128,
        ignore: Collection[str] = (),
    ) -> Ring:
        """The consistent hash ring of its members, for `async with`: who owns which key.

        `member` is who asks `mine` and `is_mine`. `weights` says of a member what its weight
        is, by its capabilities, say; where it fails, that is 1. `points` is how many points a
        member of weight 1 has, and `ignore` the ids of those that shall own nothing. Weights,
        points and who is ignored must be the same wherever the same answer is due.
        """
        from .._recipes.ring import RingRecipe
        from ._ring import Ring

        return Ring(RingRecipe(self._recipe, member, weights, points, ignore))

    async def orphans(self) -> tuple[str, ...]:
        """The ids of members that died and left an estate, also of those being handled."""
        return await run(self._heirs.orphans())

    async def inherit(self) -> Orphan | None:
        """Take over from one member that died; None if there is none to take over from."""
        return await run(self._heirs.inherit())

    async def on_orphan(self, callback: Callable[[Orphan], object]) -> Subscription:
        """Have `callback(orphan)` called in the background, until closed, for each that died.

        Of all who call this, one is called for each estate, and one at a time: it is
        settled when the callback returns. If the callback fails, that is logged and the
        estate is left to others, or to the same one after a TTL; if its process dies,
        another is called. So a callback may be called more than once for the same estate.
        """
        vigil = Vigil(self._heirs, callback)
        what = f"inheriting in the group {self.name!r}"
        callbacks = Callbacks(self._recipe.session, what, vigil.next, vigil.handle, vigil.close)
        return Subscription(callbacks)

    def _watch(self, since: Members | None, buffer: int) -> GroupWatch:
        if since is not None and (not isinstance(since, Members) or since.group != self.name):
            raise InvalidArgument(
                f"since must be a snapshot of the group {self.name!r}, from its members(),"
                f" not {since!r}"
            )
        if isinstance(buffer, bool) or not isinstance(buffer, int) or buffer < 1:
            raise InvalidArgument(f"buffer must be a number of wake-ups from 1, not {buffer!r}")
        return GroupWatch(self._recipe, since, buffer)

    def __repr__(self) -> str:
        return f"<group {self.name!r}>"


class Watch(AsyncIterator[Change]):
    """The changes of a group, one at a time, for one task. It ends when it is closed.

    Only what differs between two readings is told, so each change is told once, and what
    came and went in between is not. While the backend is away, nothing comes.
    """

    def __init__(self, watch: GroupWatch) -> None:
        self._watch = watch

    async def next(self, timeout: float | None = None) -> Change | None:
        """The next change; None if there is none within `timeout` seconds, or it was closed."""
        seconds = checked_timeout(timeout)
        until = None if seconds is None else self._watch.group.session.now() + seconds
        return await run(self._watch.next(until))

    async def close(self) -> None:
        """End it. A task that waits for a change gets none."""
        self._watch.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Change:
        """The next change, whenever it comes; the iteration ends when it was closed."""
        change = await run(self._watch.next(None))
        if change is None:
            raise StopAsyncIteration
        return change

    async def __aenter__(self) -> Self:
        await run(self._watch.open())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._watch.closed else f"known: {self._watch.known!r}"
        return f"<watch of the group {self._watch.group.name!r}, {state}>"


class Subscription:
    """Callbacks in the background. They end with `close`, or with the coordinator."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    async def close(self) -> None:
        """No callback begins after this; one that runs is waited for, up to ten seconds."""
        await run(self._callbacks.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{self._callbacks.what}{', closed' if self._callbacks.closed else ''}>"

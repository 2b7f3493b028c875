"""Groups, their members, and watching them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Any, Self

from .._coordinator import checked_name, checked_timeout
from .._recipes.group import GroupRecipe
from .._recipes.groupwatch import BUFFER, Callbacks, GroupWatch
from .._recipes.members import BaseMember, Change, MemberInfo, Members
from .._session import Session
from ..errors import InvalidArgument
from ._lock import Lease
from ._run import run


class Member(BaseMember, Lease):
    """Membership in a group: a lease that everybody in the group can see.

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

    async def leave(self) -> None:
        """Leave the group. The same as `release`."""
        await self.release()


class Group:
    """A group's name. Joining it returns a `Member`; the group itself holds nothing.

    A group exists from `create`, or from the first `join`, until `delete`, whether or
    not it has members.
    """

    __slots__ = ("_recipe",)

    def __init__(self, session: Session, name: str) -> None:
        self._recipe = GroupRecipe(session, checked_name(name), Member)

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
    ) -> Member:
        """Join the group, and be a member until it leaves, or its session is lost.

        `capabilities` is any JSON value of up to 64 KiB, for everybody to read. `member`
        is its id in the group: the coordinator's owner, if it is not given. If another has
        that id, its departure is waited for, at most `timeout` seconds; None waits for
        ever. A group that does not exist is created, unless `create` is false.

        Raises `MemberExists` if the id is still taken by then (`AlreadyJoined` if by this
        very coordinator), `GroupNotFound` if there is no such group and none is to be
        created, and `InvalidArgument` for capabilities that cannot be.
        """
        seconds = checked_timeout(timeout)
        id = None if member is None else checked_name(member, "member id")
        return await run(self._recipe.join(capabilities, id, create, seconds))

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

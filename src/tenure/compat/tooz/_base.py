"""The coordinator that every driver derives from, Tenure's and those that others write."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
from collections import defaultdict
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from ..._runtime._clock import now
from . import NotImplemented as NotProvided
from . import ToozError
from ._errors import (
    GroupAlreadyExist,
    GroupNotCreated,
    MemberNotJoined,
    OperationTimedOut,
    WatchCallbackNotFound,
)
from ._events import (
    Characteristics,
    EventCallback,
    Hooks,
    LeaderElected,
    MemberJoinedGroup,
    MemberLeftGroup,
)
from ._heart import Heart
from ._ids import Id
from ._results import CoordAsyncResult, Settled
from .partitioner import Partitioner
from .utils import ProxyExecutor, collapse

if TYPE_CHECKING:
    from .locking import Lock

logger = logging.getLogger("tenure")

Capabilities = Any


class CoordinationDriver:
    """A client of a backend, and a member of its groups. Made by `get_coordinator`.

    What a driver does not implement raises `tooz.NotImplemented`. The calls that return a
    `CoordAsyncResult` raise their errors in its `get`.
    """

    requires_beating = False
    """Whether `heartbeat` must be called in time, or `start(start_heart=True)`."""
    CHARACTERISTICS: tuple[Characteristics, ...] = ()
    """What it can be relied upon to be."""

    def __init__(self, member_id: Id, parsed_url: Any, options: dict[str, Any]) -> None:
        self._member_id: Any = member_id
        self._started = False
        self._joined_groups: set[Id] = set()
        self._hooks_join_group: dict[Id, Hooks] = defaultdict(Hooks)
        self._hooks_leave_group: dict[Id, Hooks] = defaultdict(Hooks)
        self._hooks_elected_leader: dict[Id, Hooks] = defaultdict(Hooks)
        kind = type(self)
        # Who has written a heartbeat has it called, whether or not the class says so.
        beats = kind.heartbeat is not CoordinationDriver.heartbeat
        self.requires_beating = kind.requires_beating or beats
        self.heart = Heart(self)

    # -- its life ----------------------------------------------------------------

    @property
    def is_started(self) -> bool:
        """Whether it was started, and not stopped."""
        return self._started

    def start(self, start_heart: bool = False) -> None:
        """Connect; with `start_heart`, call `heartbeat` in a thread from now on.

        Raises `ToozConnectionError` if the backend cannot be reached, and `ToozError` if it
        was started already.
        """
        if self._started:
            raise ToozError("This coordinator was started already; stop it first")
        self._start()
        self._joined_groups = set()  # those of an earlier life, which `stop` may not have left
        self._started = True
        if start_heart and self.requires_beating:
            self.heart.start()

    def _start(self) -> None:
        """Connect."""

    def stop(self) -> None:
        """Leave the groups, give the locks back, and disconnect.

        Raises `ToozError` if it was not started.
        """
        if not self._started:
            raise ToozError("This coordinator was not started")
        self.heart.stop()
        self.heart.wait()
        self._leave_all()
        self._stop()
        self._started = False

    def _leave_all(self) -> None:
        leaving = [(group, self.leave_group(group)) for group in list(self._joined_groups)]
        for group, result in leaving:
            try:
                result.get()
            except ToozError as error:
                logger.info("tenure: leaving %r while stopping: %s", group, error)

    def _stop(self) -> None:
        """Disconnect."""

    def heartbeat(self) -> float | None:
        """Keep alive what needs it; in how many seconds that is due again."""
        return None

    # -- groups ------------------------------------------------------------------

    def create_group(self, group_id: Id) -> CoordAsyncResult[None]:
        """Create a group; `GroupAlreadyExist` if there is one."""
        raise NotProvided

    def get_groups(self) -> CoordAsyncResult[list[bytes]]:
        """The ids of all groups."""
        raise NotProvided

    def join_group(
        self, group_id: Id, capabilities: Capabilities | None = None
    ) -> CoordAsyncResult[None]:
        """Join a group, and publish `capabilities` there.

        Raises `GroupNotCreated`, and `MemberAlreadyExist` if it has a member of this id.
        """
        raise NotProvided

    def join_group_create(self, group_id: Id, capabilities: Capabilities | None = None) -> None:
        """Join a group, creating it if there is none. Returns when that is done."""
        while True:
            try:
                return self.join_group(group_id, capabilities).get()
            except GroupNotCreated:
                pass
            with contextlib.suppress(GroupAlreadyExist):  # somebody else was faster
                self.create_group(group_id).get()

    def leave_group(self, group_id: Id) -> CoordAsyncResult[None]:
        """Leave a group; `GroupNotCreated`, or `MemberNotJoined` if it is no member."""
        raise NotProvided

    def delete_group(self, group_id: Id) -> CoordAsyncResult[None]:
        """Delete a group; `GroupNotCreated`, or `GroupNotEmpty` if it has members."""
        raise NotProvided

    def get_members(self, group_id: Id) -> CoordAsyncResult[set[bytes]]:
        """The ids of a group's members; `GroupNotCreated` if there is no such group."""
        raise NotProvided

    def get_member_capabilities(
        self, group_id: Id, member_id: Id
    ) -> CoordAsyncResult[Capabilities | None]:
        """What a member has published; `GroupNotCreated`, `MemberNotJoined`."""
        raise NotProvided

    def get_members_with_capabilities(
        self, group_id: Id
    ) -> CoordAsyncResult[dict[bytes, Capabilities | None]]:
        """What all the members have published, by id; `GroupNotCreated`.

        Here it asks for each by itself, for drivers that have no call for all of them.
        """
        members = self.get_members(group_id)

        def work() -> dict[bytes, Capabilities | None]:
            found: dict[bytes, Capabilities | None] = {}
            for member in members.get():
                with contextlib.suppress(MemberNotJoined):  # it has left since
                    found[member] = self.get_member_capabilities(group_id, member).get()
            return found

        return Settled(work)

    def get_member_info(self, group_id: Id, member_id: Id) -> CoordAsyncResult[dict[str, Any]]:
        """A member's `capabilities`, `created_at` and `updated_at`; `MemberNotJoined`."""
        raise NotProvided

    def update_capabilities(
        self, group_id: Id, capabilities: Capabilities
    ) -> CoordAsyncResult[None]:
        """Publish something else; `GroupNotCreated`, `MemberNotJoined`."""
        raise NotProvided

    # -- partitioned groups --------------------------------------------------------

    def join_partitioned_group(
        self, group_id: Id, weight: int = 1, partitions: int = Partitioner.DEFAULT_PARTITION_NUMBER
    ) -> Partitioner:
        """Join a group whose members share objects out by hashing, in proportion to weights."""
        self.join_group_create(group_id, capabilities={"weight": weight})
        return Partitioner(self, group_id, partitions=partitions)

    def leave_partitioned_group(self, partitioner: Partitioner) -> None:
        """Leave the group, and stop the partitioner."""
        leaving = self.leave_group(partitioner.group_id)
        partitioner.stop()
        leaving.get()

    # -- leaders -------------------------------------------------------------------

    def get_leader(self, group_id: Id) -> CoordAsyncResult[bytes | None]:
        """The id of who leads the group; None if nobody does."""
        raise NotProvided

    def stand_down_group_leader(self, group_id: Id) -> bool:
        """Lead the group no longer; False if it did not."""
        raise NotProvided

    def run_elect_coordinator(self) -> None:
        """Try to lead the groups that have a callback, and call those of the groups it leads."""
        raise NotProvided

    def watch_elected_as_leader(self, group_id: Id, callback: EventCallback[LeaderElected]) -> None:
        """Have `callback(event)` called when this client leads the group, by the `run_…` calls.

        With that, it is a candidate.
        """
        self._hooks_elected_leader[group_id].append(callback)

    def unwatch_elected_as_leader(
        self, group_id: Id, callback: EventCallback[LeaderElected]
    ) -> None:
        """Call it no more; `WatchCallbackNotFound` if it was not registered.

        Without a callback it is no candidate any more, but leads on if it does.
        """
        _remove(self._hooks_elected_leader, group_id, callback)

    # -- watching ------------------------------------------------------------------

    def run_watchers(self, timeout: float | None = None) -> list[Any]:
        """Call the callbacks for what has happened since the last time; what they returned.

        Raises `OperationTimedOut` if that takes more than `timeout` seconds.
        """
        raise NotProvided

    def watch_join_group(self, group_id: Id, callback: EventCallback[MemberJoinedGroup]) -> None:
        """Have `callback(event)` called by `run_watchers` for each member that has joined."""
        self._hooks_join_group[group_id].append(callback)

    def unwatch_join_group(self, group_id: Id, callback: EventCallback[MemberJoinedGroup]) -> None:
        """Call it no more; `WatchCallbackNotFound` if it was not registered."""
        _remove(self._hooks_join_group, group_id, callback)

    def watch_leave_group(self, group_id: Id, callback: EventCallback[MemberLeftGroup]) -> None:
        """Have `callback(event)` called by `run_watchers` for each member that has left."""
        self._hooks_leave_group[group_id].append(callback)

    def unwatch_leave_group(self, group_id: Id, callback: EventCallback[MemberLeftGroup]) -> None:
        """Call it no more; `WatchCallbackNotFound` if it was not registered."""
        _remove(self._hooks_leave_group, group_id, callback)

    def _has_hooks_for_group(self, group_id: Id) -> bool:
        """Whether a callback waits for its members' comings or goings."""
        return group_id in self._hooks_join_group or group_id in self._hooks_leave_group

    # -- locks ---------------------------------------------------------------------

    def get_lock(self, name: Id) -> Lock:
        """The lock of a name. Nothing is asked of the backend yet."""
        raise NotProvided


def _remove(hooks: dict[Id, Hooks], group_id: Id, callback: object) -> None:
    registered = hooks.get(group_id, ())
    if callback not in registered:
        raise WatchCallbackNotFound(group_id, callback)
    hooks[group_id].remove(callback)
    if not hooks[group_id]:
        del hooks[group_id]


class CoordinationDriverCachedRunWatchers(CoordinationDriver):
    """For drivers that can read a group, and are not told of its changes."""

    def __init__(self, member_id: Id, parsed_url: Any, options: dict[str, Any]) -> None:
        super().__init__(member_id, parsed_url, options)
        self._group_members: dict[Id, set[Any]] = defaultdict(set)
        """By group, the members that were told."""

    def watch_join_group(self, group_id: Id, callback: EventCallback[MemberJoinedGroup]) -> None:
        self._init_watch_group(group_id)
        super().watch_join_group(group_id, callback)

    def unwatch_join_group(self, group_id: Id, callback: EventCallback[MemberJoinedGroup]) -> None:
        super().unwatch_join_group(group_id, callback)
        self._forget(group_id)

    def watch_leave_group(self, group_id: Id, callback: EventCallback[MemberLeftGroup]) -> None:
        self._init_watch_group(group_id)
        super().watch_leave_group(group_id, callback)

    def unwatch_leave_group(self, group_id: Id, callback: EventCallback[MemberLeftGroup]) -> None:
        super().unwatch_leave_group(group_id, callback)
        self._forget(group_id)

    def _init_watch_group(self, group_id: Id) -> None:
        if group_id not in self._group_members:
            self._group_members[group_id] = set(self.get_members(group_id).get())

    def _forget(self, group_id: Id) -> None:
        if not self._has_hooks_for_group(group_id):
            self._group_members.pop(group_id, None)

    def run_watchers(self, timeout: float | None = None) -> list[Any]:
        """Call the callbacks for what has happened since the last time; what they returned.

        Raises `OperationTimedOut` if that takes more than `timeout` seconds, and what a callback
        raises; what is left, with the event of that callback, is told the next time.
        """
        until = None if timeout is None else now() + timeout
        told: list[Any] = []
        for group_id in {**self._hooks_join_group, **self._hooks_leave_group}:
            if not self._has_hooks_for_group(group_id):
                continue  # a callback has taken them away
            left = _left(until)
            try:
                members = set(self.get_members(group_id).get(timeout=left))
            except GroupNotCreated:
                members = set()  # it was deleted, and they were in it
            if self._member_id not in members:
                self._joined_groups.discard(group_id)
            known = self._group_members[group_id]
            # A member counts as told when the callbacks have returned, and not before.
            for member in sorted(members - known, key=repr):
                _left(until)
                hooks = self._hooks_join_group.get(group_id, Hooks())
                told += hooks.run(MemberJoinedGroup(group_id, member))
                known.add(member)
            for member in sorted(known - members, key=repr):
                _left(until)
                hooks = self._hooks_leave_group.get(group_id, Hooks())
                told += hooks.run(MemberLeftGroup(group_id, member))
                known.discard(member)
        return told


def _left(until: float | None) -> float | None:
    """How much time is left; `OperationTimedOut` if it is none."""
    left = None if until is None else until - now()
    if left is not None and left <= 0:
        raise OperationTimedOut("watching took more time than it had")
    return left


class CoordinationDriverWithExecutor(CoordinationDriver):
    """For drivers whose calls run in an executor, which the option `executor` chooses."""

    EXCLUDE_OPTIONS: ClassVar[Collection[str] | None] = None

    def __init__(self, member_id: Id, parsed_url: Any, options: dict[str, Any]) -> None:
        self._options = collapse(options, exclude=self.EXCLUDE_OPTIONS)
        self._executor: ProxyExecutor = ProxyExecutor.build(type(self).__name__, self._options)
        super().__init__(member_id, parsed_url, options)

    def start(self, start_heart: bool = False) -> None:
        self._executor.start()
        super().start(start_heart)

    def stop(self) -> None:
        super().stop()
        self._executor.stop()

    def submit(self, call: Callable[..., Any], *args: Any) -> concurrent.futures.Future[Any]:
        """Have a call carried out by the executor."""
        return self._executor.submit(call, *args)

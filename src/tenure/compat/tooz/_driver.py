"""A coordinator of Tooz's API over a coordinator of Tenure's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..._coordinator import make_session
from ..._runtime import _clock
from ..._runtime.thread import ThreadRuntime
from ..._sync import Coordinator, connect
from ..._sync._election import Term
from ..._sync._group import Group
from ...errors import LeaseLost, TenureError
from . import NotImplemented as NotProvided
from . import ToozError, _inside, _payload
from ._base import Capabilities, CoordinationDriver
from ._earned import Earned, earned
from ._errors import MemberNotJoined, OperationTimedOut, ToozConnectionError, rethrow
from ._events import (
    EventCallback,
    Hooks,
    LeaderElected,
    MemberJoinedGroup,
    MemberLeftGroup,
)
from ._ids import Id, id_of, name_of, to_bytes
from ._locks import TenureLock
from ._memberships import Memberships, told
from ._results import CoordAsyncResult, Settled
from ._urls import translate
from ._watching import GroupWatcher
from .utils import millis_to_datetime

T = TypeVar("T")


class TenureDriver(CoordinationDriver):
    """What all of Tenure's drivers are in Tooz's API.

    What is held is renewed in the background, whether or not `heartbeat` is called; that
    joins again where a membership was lost.
    """

    requires_beating = True
    SCHEME: ClassVar[str]
    """The URL scheme under which Tenure knows it."""
    if not TYPE_CHECKING:  # a checker sees what the base declares
        CHARACTERISTICS = Earned()

    def __init__(self, member_id: Id, parsed_url: Any, options: dict[str, Any]) -> None:
        super().__init__(member_id, parsed_url, options)
        self._member_id = to_bytes(member_id)
        self._owner = name_of(member_id)
        self._target = target = translate(parsed_url, options)
        try:
            # Made to be checked; the connection is made by `start`.
            session = make_session(
                ThreadRuntime(), target.url, target.namespace, target.ttl, self._owner, None
            )
        except TenureError as error:
            rethrow(error)
        # A strategy that the URL chooses may have earned something else than the class tells.
        self.CHARACTERISTICS = earned(session.driver.url)
        self._has_groups = session.driver.traits.rosters
        self._coordinator: Coordinator | None = None
        self._memberships = Memberships(self._owner, member_id, target.join_timeout)
        self._watchers: dict[str, GroupWatcher] = {}
        self._terms: dict[str, Term] = {}

    @property
    def tenure(self) -> Coordinator:
        """Tenure's own coordinator, for what Tooz's API lacks. `ToozError` if not started."""
        if self._coordinator is None:
            raise ToozError("This coordinator was not started: call start() first")
        return self._coordinator

    # -- its life ------------------------------------------------------------------

    def _start(self) -> None:
        target = self._target
        self._memberships.forget()  # `stop` may have been interrupted
        try:
            self._coordinator = connect(
                target.url,
                namespace=target.namespace,
                ttl=target.ttl,
                owner=self._owner,
                min_level=target.min_level,
                allow=target.allow,
            )
        except TenureError as error:
            rethrow(error)

    def stop(self) -> None:
        """Leave the groups, give the locks back, and disconnect; `ToozError` if not started.

        It takes no longer than two calls may take, also while the backend is away: what cannot be
        given back then ends with the session, after the TTL at the latest.
        """
        if not self._started:
            raise ToozError("This coordinator was not started")
        coordinator = self.tenure
        self.heart.stop()
        self._memberships.forget()
        try:
            coordinator.close()
        finally:
            for watcher in self._watchers.values():
                watcher.close()  # and kept, as the callbacks are: after a start they go on
            self._terms.clear()
            # Not sooner: it may be waiting for a backend that the closing gave up.
            self.heart.wait(coordinator.ttl)
            self._coordinator = None
            self._started = False

    def heartbeat(self) -> float:
        """Join again where a membership was lost; in how many seconds to look again.

        Raises `ToozConnectionError` if that fails, or if the last renewal did.
        """
        coordinator = self.tenure
        self._memberships.restore(coordinator.group)
        doubt = _inside.doubt(coordinator)
        if doubt is not None:
            raise ToozConnectionError(f"the last renewal failed: {doubt}")
        return coordinator.ttl / 3

    # -- groups --------------------------------------------------------------------

    def _need_groups(self) -> None:
        """`NotImplemented` where there are locks and nothing else."""
        if not self._has_groups:
            raise NotProvided(f"{self._target!r}: groups and elections are not supported")

    def _group(self, group_id: Id) -> Group:
        return self.tenure.group(name_of(group_id))

    def _settled(
        self, group_id: Id, call: Callable[[Group], T], member_id: Id | None = None
    ) -> CoordAsyncResult[T]:
        """What becomes of a call on a group."""

        def work() -> T:
            with told(group_id, self._member_id if member_id is None else member_id):
                return call(self._group(group_id))

        return Settled(work)

    def create_group(self, group_id: Id) -> CoordAsyncResult[None]:
        return self._settled(group_id, Group.create)

    def delete_group(self, group_id: Id) -> CoordAsyncResult[None]:
        return self._settled(group_id, Group.delete)

    def get_groups(self) -> CoordAsyncResult[list[bytes]]:
        def work() -> list[bytes]:
            try:
                return list(map(id_of, self.tenure.groups()))
            except TenureError as error:
                rethrow(error)

        return Settled(work)

    def join_group(
        self, group_id: Id, capabilities: Capabilities | None = None
    ) -> CoordAsyncResult[None]:
        join = self._memberships.join
        return self._settled(group_id, lambda group: join(group, group_id, capabilities, False))

    def join_group_create(self, group_id: Id, capabilities: Capabilities | None = None) -> None:
        join = self._memberships.join
        self._settled(group_id, lambda group: join(group, group_id, capabilities, True)).get()

    def leave_group(self, group_id: Id) -> CoordAsyncResult[None]:
        return self._settled(group_id, lambda group: self._memberships.leave(group, group_id))

    def update_capabilities(
        self, group_id: Id, capabilities: Capabilities
    ) -> CoordAsyncResult[None]:
        update = self._memberships.update
        return self._settled(group_id, lambda group: update(group, group_id, capabilities))

    def get_members(self, group_id: Id) -> CoordAsyncResult[set[bytes]]:
        return self._settled(group_id, lambda group: set(map(id_of, group.members().ids)))

    def get_member_capabilities(
        self, group_id: Id, member_id: Id
    ) -> CoordAsyncResult[Capabilities | None]:
        def call(group: Group) -> Any:
            info = group.members().get(name_of(member_id))
            if info is None:
                raise MemberNotJoined(group_id, member_id)
            return _payload.decode(info.capabilities)

        return self._settled(group_id, call, member_id)

    def get_members_with_capabilities(
        self, group_id: Id
    ) -> CoordAsyncResult[dict[bytes, Capabilities | None]]:
        def call(group: Group) -> dict[bytes, Any]:
            members = group.members()
            return {id_of(info.id): _payload.decode(info.capabilities) for info in members}

        return self._settled(group_id, call)

    def get_member_info(self, group_id: Id, member_id: Id) -> CoordAsyncResult[dict[str, Any]]:
        """A member's `capabilities`, `created_at` and `updated_at`; `MemberNotJoined`.

        The times are local ones, without a time zone: when it joined, and when its session was
        known to be alive last.
        """

        def call(group: Group) -> dict[str, Any]:
            info = group.member(name_of(member_id))
            seen = _clock.wall() - (info.last_seen or 0.0)
            return {
                "capabilities": _payload.decode(info.capabilities),
                "created_at": millis_to_datetime(info.joined * 1000),
                "updated_at": millis_to_datetime(max(seen, info.joined) * 1000),
            }

        return self._settled(group_id, call, member_id)

    # -- leaders -------------------------------------------------------------------

    def get_leader(self, group_id: Id) -> CoordAsyncResult[bytes | None]:
        def work() -> bytes | None:
            try:
                leader = self.tenure.election(name_of(group_id)).leader()
            except TenureError as error:
                rethrow(error)
            return None if leader is None else id_of(leader.owner)

        return Settled(work)

    def watch_elected_as_leader(self, group_id: Id, callback: EventCallback[LeaderElected]) -> None:
        self._need_groups()
        super().watch_elected_as_leader(group_id, callback)

    def unwatch_elected_as_leader(
        self, group_id: Id, callback: EventCallback[LeaderElected]
    ) -> None:
        self._need_groups()
        super().unwatch_elected_as_leader(group_id, callback)

    def run_elect_coordinator(self) -> None:
        self._need_groups()
        self._campaign(None)

    def _campaign(self, until: float | None) -> None:
        for group_id, hooks in list(self._hooks_elected_leader.items()):
            name = name_of(group_id)
            term = self._terms.get(name)
            if not hooks or (term is not None and term.held()):
                continue
            _check_time(until)
            try:
                term = self.tenure.election(name).try_campaign()
            except TenureError as error:
                rethrow(error)
            if term is not None:
                self._terms[name] = term
                hooks.run(LeaderElected(group_id, self._member_id))

    def stand_down_group_leader(self, group_id: Id) -> bool:
        self._need_groups()
        term = self._terms.pop(name_of(group_id), None)
        if term is None:
            return False
        try:
            term.resign()
        except LeaseLost:
            return False
        except TenureError as error:
            rethrow(error)
        return True

    # -- watching ------------------------------------------------------------------

    def watch_join_group(self, group_id: Id, callback: EventCallback[MemberJoinedGroup]) -> None:
        """Have `callback(event)` called by `run_watchers` for each member that has joined.

        Raises `GroupNotCreated` if there is no such group.
        """
        self._watch(group_id)
        super().watch_join_group(group_id, callback)

    def watch_leave_group(self, group_id: Id, callback: EventCallback[MemberLeftGroup]) -> None:
        """Have `callback(event)` called by `run_watchers` for each member that has left.

        Raises `GroupNotCreated` if there is no such group.
        """
        self._watch(group_id)
        super().watch_leave_group(group_id, callback)

    def unwatch_join_group(self, group_id: Id, callback: EventCallback[MemberJoinedGroup]) -> None:
        self._need_groups()
        super().unwatch_join_group(group_id, callback)
        self._unwatch(group_id)

    def unwatch_leave_group(self, group_id: Id, callback: EventCallback[MemberLeftGroup]) -> None:
        self._need_groups()
        super().unwatch_leave_group(group_id, callback)
        self._unwatch(group_id)

    def _watch(self, group_id: Id) -> None:
        name = name_of(group_id)
        if name not in self._watchers:
            with told(group_id, self._member_id):
                self._watchers[name] = GroupWatcher(self._group(group_id))

    def _unwatch(self, group_id: Id) -> None:
        name = name_of(group_id)
        if not self._watched(name):
            watcher = self._watchers.pop(name, None)
            if watcher is not None:
                watcher.close()

    def _watched(self, name: str) -> list[Id]:
        """The ids by which a group is watched: bytes, text, or both."""
        ids = {*self._hooks_join_group, *self._hooks_leave_group}
        return [group_id for group_id in ids if name_of(group_id) == name]

    def run_watchers(self, timeout: float | None = None) -> list[Any]:
        """Call the callbacks for what has happened since the last time; what they returned.

        Then it tries to lead, as `run_elect_coordinator` does. Raises `OperationTimedOut` if it
        takes more than `timeout` seconds, and what a callback raises; what is left, with the event
        of that callback, is told the next time.
        """
        self._need_groups()
        until = None if timeout is None else _clock.now() + timeout
        results: list[Any] = []
        for name, watcher in list(self._watchers.items()):
            self._tell(name, watcher, until, results)  # what was left the last time
            if self._watchers.get(name) is not watcher:
                continue  # a callback has taken the last one of the group away
            _check_time(until)
            try:
                with told(name, self._member_id):
                    watcher.look(self._group(name), until)
            except ToozConnectionError as error:
                _check_time(until, error)
                raise
            self._tell(name, watcher, until, results)
        self._campaign(until)
        return results

    def _tell(
        self, name: str, watcher: GroupWatcher, until: float | None, results: list[Any]
    ) -> None:
        while watcher.untold:
            _check_time(until)
            # Taken out meanwhile, so that no callback, and no other thread, tells it as well.
            step = watcher.untold.popleft()
            joined = step.kind == "joined"
            event = MemberJoinedGroup if joined else MemberLeftGroup
            hooks = self._hooks_join_group if joined else self._hooks_leave_group
            try:
                for group_id in self._watched(name):
                    callbacks = hooks.get(group_id, Hooks())
                    results += callbacks.run(event(group_id, id_of(step.member)))
            except BaseException:
                watcher.untold.appendleft(step)
                raise

    # -- locks ---------------------------------------------------------------------

    def get_lock(self, name: Id) -> TenureLock:
        return TenureLock(lambda: self.tenure, name)

    def __repr__(self) -> str:
        state = "started" if self._started else "not started"
        return f"<{type(self).__name__} {self._owner!r} at {self._target!r}, {state}>"


def _check_time(until: float | None, cause: BaseException | None = None) -> None:
    """`OperationTimedOut` when the time is over."""
    if until is not None and _clock.now() >= until:
        raise OperationTimedOut("watching took more time than it had", cause) from cause

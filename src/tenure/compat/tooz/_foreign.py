"""Drivers that were written for Tooz itself, and so raise its errors and tell its events.

A coordinator of this package's own stands before such a driver and passes every call on. What
comes back has this package's types, which are found by the names of theirs: so the program's
`except` clauses work whatever the driver.
"""

from __future__ import annotations

import contextlib
import enum
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from . import NotImplemented as NotProvided
from . import ToozError, _errors, _events
from ._base import CoordinationDriver
from ._ids import Id
from ._results import CoordAsyncResult
from .locking import Lock
from .utils import SerializationError

_ERRORS: dict[str, type[ToozError]] = {
    name: kind
    for name, kind in {**vars(_errors), "SerializationError": SerializationError}.items()
    if isinstance(kind, type) and issubclass(kind, ToozError)
}
_EVENTS = {
    kind.__name__: kind
    for kind in (_events.MemberJoinedGroup, _events.MemberLeftGroup, _events.LeaderElected)
}
_PASSED_ON = (
    *("create_group", "get_groups", "join_group", "join_group_create", "leave_group"),
    *("delete_group", "get_members", "get_member_capabilities"),
    *("get_member_info", "update_capabilities", "get_leader", "stand_down_group_leader"),
    *("run_elect_coordinator", "run_watchers", "heartbeat"),
)
_WATCHES = ("join_group", "leave_group", "elected_as_leader")


def adopted(driver_class: Any) -> Callable[[Id, Any, dict[str, Any]], CoordinationDriver]:
    """What makes a coordinator of a class that somebody else has written."""
    if isinstance(driver_class, type) and issubclass(driver_class, CoordinationDriver):
        return driver_class

    def make(member_id: Id, parsed_url: Any, options: dict[str, Any]) -> CoordinationDriver:
        with _translated():
            driver = driver_class(member_id, parsed_url, options)
        return ForeignDriver(member_id, driver)

    return make


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except ToozError:
        raise
    except Exception as error:
        names = [kind.__name__ for kind in type(error).__mro__]
        if "ToozError" not in names:
            raise
        kind = next((_ERRORS[name] for name in names if name in _ERRORS), ToozError)
        if "NotImplemented" in names:
            kind = NotProvided
        found = kind.__new__(kind)
        ToozError.__init__(found, str(error), getattr(error, "cause", None) or error)
        for name in ("group_id", "member_id", "callback"):
            if hasattr(error, name):
                setattr(found, name, getattr(error, name))
        raise found from error


class _Result(CoordAsyncResult[Any]):
    """A result of theirs."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def get(self, timeout: float | None = None) -> Any:
        with _translated():
            return self._result.get(timeout)

    def done(self) -> bool:
        return bool(self._result.done())


class ForeignLock(Lock):
    """A lock of theirs."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock.name)
        self._lock = lock

    def acquire(self, *args: Any, **kwargs: Any) -> bool:
        with _translated():
            return bool(self._lock.acquire(*args, **kwargs))

    def release(self) -> bool:
        with _translated():
            return bool(self._lock.release())

    def break_(self) -> bool:
        with _translated():
            return bool(self._lock.break_())

    def is_still_owner(self) -> bool:
        with _translated():
            return bool(self._lock.is_still_owner())

    def heartbeat(self) -> bool:
        beat = getattr(self._lock, "heartbeat", None)
        if beat is None:
            raise NotProvided
        with _translated():
            return bool(beat())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)


class ForeignDriver(CoordinationDriver):
    """A driver of theirs."""

    def __init__(self, member_id: Id, driver: Any) -> None:
        super().__init__(member_id, None, {})
        self._driver = driver
        self._callbacks: dict[tuple[str, Id], list[tuple[Any, Any]]] = {}
        theirs = getattr(driver, "CHARACTERISTICS", ())
        self.CHARACTERISTICS = tuple(_characteristic(each) for each in theirs)
        self.requires_beating = bool(getattr(driver, "requires_beating", False))
        self.heart = getattr(driver, "heart", self.heart)
        for name in _PASSED_ON:
            setattr(self, name, functools.partial(self._pass_on, name))
        for what in _WATCHES:
            setattr(self, f"watch_{what}", functools.partial(self._watch, what))
            setattr(self, f"unwatch_{what}", functools.partial(self._unwatch, what))

    @property
    def is_started(self) -> bool:
        return bool(self._driver.is_started)

    def start(self, start_heart: bool = False) -> None:
        self._pass_on("start", start_heart=start_heart)

    def stop(self) -> None:
        self._pass_on("stop")

    def get_lock(self, name: Id) -> Lock:
        lock = self._pass_on("get_lock", name)
        return lock if isinstance(lock, Lock) else ForeignLock(lock)

    def get_members_with_capabilities(self, group_id: Id) -> CoordAsyncResult[dict[bytes, Any]]:
        name = "get_members_with_capabilities"
        if hasattr(self._driver, name):  # which Tooz got later than the calls for one member
            with contextlib.suppress(NotProvided):
                found: CoordAsyncResult[dict[bytes, Any]] = self._pass_on(name, group_id)
                return found
        return super().get_members_with_capabilities(group_id)

    def _pass_on(self, name: str, *args: Any, **kwargs: Any) -> Any:
        with _translated():
            found = getattr(self._driver, name)(*args, **kwargs)
        result = hasattr(found, "get") and hasattr(found, "done")
        return _Result(found) if result else found

    def _watch(self, what: str, group_id: Id, callback: Any) -> None:
        def told(event: Any) -> Any:
            kind = _EVENTS.get(type(event).__name__)
            if kind is not None and not isinstance(event, kind):
                event = kind(event.group_id, event.member_id)
            return callback(event)

        self._pass_on(f"watch_{what}", group_id, told)
        self._callbacks.setdefault((what, group_id), []).append((callback, told))

    def _unwatch(self, what: str, group_id: Id, callback: Any) -> None:
        registered = self._callbacks.get((what, group_id), [])
        for pair in registered:
            if pair[0] == callback:
                self._pass_on(f"unwatch_{what}", group_id, pair[1])
                registered.remove(pair)
                return
        raise _errors.WatchCallbackNotFound(group_id, callback)

    def __getattr__(self, name: str) -> Any:
        if name == "_driver":
            raise AttributeError(name)
        return getattr(self._driver, name)

    def __repr__(self) -> str:
        return f"<{self._driver!r}, for Tenure>"


def _characteristic(theirs: Any) -> _events.Characteristics:
    name = theirs.name if isinstance(theirs, enum.Enum) else str(theirs)
    return _events.Characteristics[name]

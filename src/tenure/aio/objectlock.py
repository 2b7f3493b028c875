"""Locks on objects by their ids: lock, do the work, unlock.

    from tenure.aio import objectlock

    async with objectlock.service("etcd://localhost") as locks:
        await locks.lock("port-7")
        await locks.unlock("port-7")

The backend is a URL, of a driver of Tenure's own or of any that is installed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from .._coordinator import checked_name, checked_timeout
from .._recipes.objectids import deriver
from ..errors import AcquireTimeout, ClosedError, InvalidArgument, LeaseLost, NotHeld
from ._coordinator import Coordinator, connect
from ._lock import Lease
from ._run import check_function, mutex

if TYPE_CHECKING:
    from ..policy.characteristics import Characteristic
    from ..policy.level import Level

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["LockService", "service"]


def service(
    url: str | None = None,
    *,
    namespace: str | None = None,
    ttl: float | None = None,
    owner: str | None = None,
    timeout: float | None = None,
    require: Iterable[Characteristic | str] = (),
    min_level: Level | str | None = None,
    allow: Iterable[str] = (),
) -> LockService:
    """A lock service over a backend; it connects when it is entered, or first used.

    `timeout` is for how many seconds `lock` blocks if it is not told otherwise; None is for
    ever. Everything else is as for `tenure.aio.connect`.
    """
    return LockService(
        url,
        namespace=namespace,
        ttl=ttl,
        owner=owner,
        timeout=timeout,
        require=require,
        min_level=min_level,
        allow=allow,
    )


class _Hold:
    """A lock that one caller holds, and how many times over."""

    __slots__ = ("depth", "lease")

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.depth = 1


class LockService:
    """Locks on objects, each held by one task at a time. Made by `service`.

    A task that locks an object that it holds already holds it once more, and must unlock
    it as often. Any number of tasks may share one service. As a context manager it is
    closed, and all is unlocked, at the end of the block.
    """

    __slots__ = ("_closed", "_connecting", "_coordinator", "_held", "_options", "_url", "timeout")

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        ttl: float | None = None,
        owner: str | None = None,
        timeout: float | None = None,
        require: Iterable[Characteristic | str] = (),
        min_level: Level | str | None = None,
        allow: Iterable[str] = (),
    ) -> None:
        self.timeout = checked_timeout(timeout)
        self._url = url
        self._options: dict[str, Any] = {
            "namespace": namespace,
            "ttl": ttl,
            "owner": owner,
            "require": require,
            "min_level": min_level,
            "allow": allow,
        }
        self._connecting = mutex()
        self._coordinator: Coordinator | None = None
        self._closed = False
        self._held: dict[tuple[object, str], _Hold] = {}

    async def lock(
        self, object_id: str, block: bool = True, *, timeout: float | None = None
    ) -> int:
        """Lock an object, and return the fencing token: greater than any before for this object.

        Waits in turn, at most `timeout` seconds (None: the service's own), and raises
        `AcquireTimeout` if the object is still locked by then; with `block` false, at once.
        A task that holds it already holds it once more, without a word to the backend.
        Raises `LeaseLost` if it held it and has lost it: unlock it first.
        """
        checked_name(object_id, "given object id")
        if not block and timeout is not None:
            raise InvalidArgument("a lock that does not block has no timeout")
        coordinator = await self._connected()
        key = self._key(coordinator, object_id)
        hold = self._held.get(key)
        if hold is not None:
            hold.lease.check()
            hold.depth += 1
            return hold.lease.token
        lock = coordinator.lock(object_id, timeout=self.timeout)
        lease = await lock.acquire(timeout) if block else await lock.try_acquire()
        if lease is None:
            raise AcquireTimeout(f"{object_id!r} is locked by another")
        self._held[key] = _Hold(lease)
        return lease.token

    async def unlock(self, object_id: str) -> None:
        """Unlock an object; at last, if the task holds it more than once.

        Raises `NotHeld` if this task does not hold it, whoever else does, and `LeaseLost` if
        it was lost meanwhile: then another may have worked on the object at the same time.
        """
        key, hold = self._hold(object_id)
        hold.depth -= 1
        if hold.depth:
            hold.lease.check()
            return
        del self._held[key]
        await hold.lease.release()

    def token(self, object_id: str) -> int:
        """The fencing token of an object that this task holds; raises what `check` raises."""
        self.check(object_id)
        return self._hold(object_id)[1].lease.token

    def check(self, object_id: str) -> None:
        """Raise `LeaseLost` if the lock was lost, `NotHeld` if this task does not hold it.

        It compares clocks and asks nobody: call it before each side effect.
        """
        self._hold(object_id)[1].lease.check()

    def holding(self, object_id: str, *, timeout: float | None = None) -> Holding:
        """A block that holds an object: `async with locks.holding("port-7") as token: ...`."""
        return Holding(self, object_id, True, checked_timeout(timeout))

    def locked(
        self,
        object_id: str | Callable[..., str],
        *,
        block: bool = True,
        timeout: float | None = None,
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R]]], Callable[P, Coroutine[Any, Any, R]]]:
        """Decorate a coroutine function: each call holds the object that it is about.

        `object_id` is a template with the names of parameters, `"port-{port_id}"` or
        `"port-{port.id}"`, or a function that makes the id of the same arguments.
        """
        seconds = checked_timeout(timeout)

        def decorate(
            function: Callable[P, Coroutine[Any, Any, R]],
        ) -> Callable[P, Coroutine[Any, Any, R]]:
            check_function(function)
            derive = deriver(function, object_id)

            @functools.wraps(function)
            async def locked(*args: P.args, **kwargs: P.kwargs) -> R:
                async with Holding(self, derive(*args, **kwargs), block, seconds):
                    return await function(*args, **kwargs)

            return locked

        return decorate

    async def open(self) -> None:
        """Connect now, so that a wrong URL or a backend that is away shows; raises as `connect`."""
        await self._connected()

    async def close(self) -> None:
        """Unlock everything and disconnect. Does nothing the second time."""
        async with self._connecting:
            self._closed = True
            if self._coordinator is not None:
                await self._coordinator.close()

    async def _connected(self) -> Coordinator:
        if self._coordinator is not None and not self._closed:
            return self._coordinator
        async with self._connecting:
            if self._closed:
                raise ClosedError("the lock service is closed")
            if self._coordinator is None:
                self._coordinator = await connect(self._url, **self._options)
            return self._coordinator

    def _key(self, coordinator: Coordinator, object_id: str) -> tuple[object, str]:
        return coordinator._session.runtime.caller(), object_id

    def _hold(self, object_id: str) -> tuple[tuple[object, str], _Hold]:
        coordinator = self._coordinator
        if coordinator is not None:
            key = self._key(coordinator, object_id)
            hold = self._held.get(key)
            if hold is not None:
                return key, hold
        others = any(held == object_id for _, held in list(self._held))
        also = "; another task of this process does" if others else ""
        raise NotHeld(f"this task does not hold {object_id!r}{also}")

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        if self._closed:
            return "<lock service: closed>"
        if self._coordinator is None:
            return "<lock service: not connected>"
        where = repr(self._coordinator).removeprefix("<coordinator ").removesuffix(">")
        held = {id: hold.lease.token for (_, id), hold in list(self._held.items())}
        shown = ", ".join(f"{id!r} (token {token})" for id, token in list(held.items())[:5])
        shown += ", …" if len(held) > 5 else ""
        return f"<lock service {where}: {len(held)} held{': ' if shown else ''}{shown}>"


class Holding:
    """The block of `LockService.holding`."""

    __slots__ = ("_block", "_object_id", "_service", "_timeout")

    def __init__(
        self, service: LockService, object_id: str, block: bool, timeout: float | None
    ) -> None:
        self._service = service
        self._object_id = object_id
        self._block = block
        self._timeout = timeout

    async def __aenter__(self) -> int:
        return await self._service.lock(self._object_id, self._block, timeout=self._timeout)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._service.unlock(self._object_id)
        except LeaseLost as loss:
            if error is None:
                raise
            error.add_note(f"tenure: {loss}")

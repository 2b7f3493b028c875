"""The connection to a backend, and everything that begins with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .._caller import caller
from .._coordinator import Terms, open_session
from .._model import Event
from .._runtime.thread import ThreadRuntime, drive
from .._session import Session
from ._lock import Lock
from ._run import run

if TYPE_CHECKING:
    from .._recipes.status import Status
    from ..policy.characteristics import Characteristic
    from ..policy.level import Level
    from ._barrier import Barrier, Latch
    from ._election import Election
    from ._group import Group
    from ._multilock import MultiLock, RWLock
    from ._semaphore import Semaphore


class Coordinator:
    """A connection to a backend, and an identity there. Made by `connect`.

    Any number of threads may share one. It is a context manager; closing it releases
    all that it holds.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def owner(self) -> str:
        """The name under which it holds what it holds."""
        return self._session.owner

    @property
    def ttl(self) -> float:
        """How long, in seconds, its session outlives its last renewal."""
        return self._session.ttl

    def lock(self, name: str, *, timeout: float | None = None, shared: bool = False) -> Lock:
        """A lock on a name of up to 1,000 characters. Nothing is asked of the backend yet.

        `timeout` in seconds is the default of `acquire` and of `with`; None waits for
        ever. `shared` asks for a reader's lock and raises `Unsupported` where the
        driver has none.
        """
        return Lock(self._session, name, timeout, shared)

    def rwlock(self, name: str) -> RWLock:
        """The reader-writer lock of a name: many readers together, or one writer alone.

        Raises `Unsupported` where the driver has no shared locks.
        """
        from ._multilock import RWLock

        return RWLock(self._session, name)

    def multi_lock(self, names: Iterable[str], *, timeout: float | None = None) -> MultiLock:
        """The locks of several names, to be held together: all of them, or none.

        `timeout` in seconds is the default of `acquire` and of `with`; None waits for ever.
        """
        from ._multilock import MultiLock

        return MultiLock(self._session, names, timeout)

    def semaphore(
        self, name: str, limit: int | None = None, *, timeout: float | None = None
    ) -> Semaphore:
        """A semaphore: a lock that up to `limit` may hold at a time, from 1 to 10,000.

        The first to acquire sets the limit; after that, whoever gives another one is refused.
        None is whatever was set. `timeout` in seconds is the default of `acquire` and of
        `with`; None waits for ever.
        """
        from ._semaphore import Semaphore

        return Semaphore(self._session, name, limit, timeout)

    def barrier(self, name: str, parties: int, *, timeout: float | None = None) -> Barrier:
        """A barrier, at which so many parties wait for each other, from 1 to 1,000.

        `timeout` in seconds is the default of `wait`; None waits for ever.
        """
        from ._barrier import Barrier

        return Barrier(self._session, name, parties, timeout)

    def latch(self, name: str, count: int | None = None, *, timeout: float | None = None) -> Latch:
        """A latch, which is open once it was counted down from `count`, at most 1,000,000.

        The first to count down sets where it begins; after that, whoever gives another count
        is refused. None is whatever was set. `timeout` in seconds is the default of `wait`;
        None waits for ever.
        """
        from ._barrier import Latch

        return Latch(self._session, name, count, timeout)

    def election(self, name: str) -> Election:
        """The election of one leader under a name of up to 1,000 characters."""
        from ._election import Election

        return Election(self._session, name)

    def group(self, name: str) -> Group:
        """A group of members, by its name. Nothing is asked of the backend yet."""
        from ._group import Group

        return Group(self._session, name)

    def groups(self) -> tuple[str, ...]:
        """The names of all groups, sorted."""
        from .._recipes.group import groups

        return tuple(run(groups(self._session)))

    def status(self) -> tuple[Status, ...]:
        """What goes on in the namespace, by kind and name, for an operator to read.

        Two round trips, and one or two for each name that there is. They follow each other,
        so it is no snapshot.
        """
        from .._recipes.status import status

        return run(status(self._session))

    def close(self) -> None:
        """Release all that it holds and disconnect. Does nothing the second time."""
        drive(self._session.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<coordinator {self.owner!r} at {self._session.driver.url}>"


def connect(
    url: str | None = None,
    *,
    namespace: str | None = None,
    ttl: float | None = None,
    owner: str | None = None,
    on_event: Callable[[Event], object] | None = None,
    require: Iterable[Characteristic | str] = (),
    min_level: Level | str | None = None,
    allow: Iterable[str] = (),
) -> Coordinator:
    """Connect to a backend.

    `url` defaults to the variable TENURE_URL, else to lock files in the user's runtime
    directory. Names in different namespaces never meet. `ttl` is how many seconds a
    session outlives its last renewal (15 by default); after a crash of the holder, the
    backend may need that long to free what it held. `owner` names this client to
    others. `on_event` is called with each `Event`; it must be quick.

    `require` names characteristics that have to be corroborated, `min_level` the least
    level that the driver must have earned, which the variable TENURE_MIN_LEVEL can raise.
    Without a level, a driver below stable is warned of once, and one that is unverified
    is refused, unless `allow`, or the variable TENURE_ALLOW, has its name.

    Raises `InvalidURL`, `UnknownDriver` or `InvalidArgument` for bad arguments,
    `PolicyError` if the driver has not earned what is demanded, `Unavailable` if the
    backend cannot be reached, `AuthenticationFailed` if it refuses the credentials.
    """
    terms = Terms(require, min_level, allow, caller())
    runtime = ThreadRuntime()
    return Coordinator(drive(open_session(runtime, url, namespace, ttl, owner, on_event, terms)))

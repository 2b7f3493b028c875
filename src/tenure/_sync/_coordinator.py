"""The connection to a backend, and everything that begins with it."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from .._coordinator import make_session
from .._model import Event
from .._runtime.thread import ThreadRuntime, drive
from .._session import Session
from ._lock import Lock
from ._run import run

if TYPE_CHECKING:
    from ._election import Election
    from ._group import Group


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
) -> Coordinator:
    """Connect to a backend.

    `url` defaults to the variable TENURE_URL, else to lock files in the user's runtime
    directory. Names in different namespaces never meet. `ttl` is how many seconds a
    session outlives its last renewal (15 by default); after a crash of the holder, the
    backend may need that long to free what it held. `owner` names this client to
    others. `on_event` is called with each `Event`; it must be quick.

    Raises `InvalidURL`, `UnknownDriver` or `InvalidArgument` for bad arguments,
    `Unavailable` if the backend cannot be reached, `AuthenticationFailed` if it
    refuses the credentials.
    """
    session = make_session(ThreadRuntime(), url, namespace, ttl, owner, on_event)
    drive(session.open())
    return Coordinator(session)

"""The connection to a backend, and everything that begins with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .._coordinator import make_session
from .._model import Event
from .._runtime.aio import AsyncioRuntime
from .._session import Session
from ._lock import Lock
from ._run import run

if TYPE_CHECKING:
    from ._election import Election
    from ._group import Group


class Coordinator:
    """A connection to a backend, and an identity there. Made by `connect`.

    Any number of tasks may share one. It is a context manager; closing it releases
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

        `timeout` in seconds is the default of `acquire` and of `async with`; None
        waits for ever. `shared` asks for a reader's lock and raises `Unsupported`
        where the driver has none.
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

    async def groups(self) -> tuple[str, ...]:
        """The names of all groups, sorted."""
        from .._recipes.group import groups

        return tuple(await run(groups(self._session)))

    async def close(self) -> None:
        """Release all that it holds and disconnect. Does nothing the second time."""
        await self._session.close()

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
        return f"<coordinator {self.owner!r} at {self._session.driver.url}>"


class _Connecting:
    """What `connect` returns: await it, or enter it with `async with`."""

    def __init__(self, open: Callable[[], Awaitable[Coordinator]]) -> None:
        self._open = open
        self._coordinator: Coordinator | None = None

    def __await__(self) -> Generator[Any, None, Coordinator]:
        return self._open().__await__()

    async def __aenter__(self) -> Coordinator:
        self._coordinator = await self._open()
        return self._coordinator

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._coordinator is not None
        await self._coordinator.close()


def connect(
    url: str | None = None,
    *,
    namespace: str | None = None,
    ttl: float | None = None,
    owner: str | None = None,
    on_event: Callable[[Event], object] | None = None,
) -> _Connecting:
    """Connect to a backend: `await connect(url)`, or `async with connect(url)`.

    `url` defaults to the variable TENURE_URL, else to lock files in the user's runtime
    directory. Names in different namespaces never meet. `ttl` is how many seconds a
    session outlives its last renewal (15 by default); after a crash of the holder, the
    backend may need that long to free what it held. `owner` names this client to
    others. `on_event` is called with each `Event`; it must be quick.

    Raises `InvalidURL`, `UnknownDriver` or `InvalidArgument` for bad arguments,
    `Unavailable` if the backend cannot be reached, `AuthenticationFailed` if it
    refuses the credentials.
    """

    async def opened() -> Coordinator:
        session = make_session(AsyncioRuntime(), url, namespace, ttl, owner, on_event)
        await session.open()
        return Coordinator(session)

    return _Connecting(opened)

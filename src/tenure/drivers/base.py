"""The contract that a driver keeps with the core.

A driver implements the roster verbs, or a native mutex, or both; `traits` says what
it claims and the conformance kit (`tenure.testing`) proves or refutes it. A driver
is written once as `async def` over an injected `Runtime` and must never import
asyncio, threading or time: leaf I/O lives in `tenure.wires`, in two flavours.

Every error that leaves a driver is one of `tenure.errors`. The distinction that
matters most: `Unavailable` means the request was certainly not carried out,
`OutcomeUnknown` that it may have been. The core retries both, by claim id.

No call may take longer than `Driver.patience` seconds (a wait in `seize` aside): a
leaf that gets no answer by then gives up with `OutcomeUnknown` and drops the
connection, since a reply that comes late must not be taken for the next one's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from .._model import (
    Claim,
    Finding,
    Grant,
    Holder,
    Interest,
    Record,
    Roll,
    Server,
    Taken,
    Traits,
)
from .._runtime.base import Runtime
from .._url import Url
from ..errors import Unsupported

__all__ = [
    "Claim",
    "Driver",
    "Finding",
    "Grant",
    "Holder",
    "Interest",
    "Lost",
    "Mutex",
    "Record",
    "Records",
    "Roll",
    "Runtime",
    "Server",
    "Taken",
    "Traits",
    "Url",
    "Wake",
]

Wake = Callable[[], None]
Lost = Callable[[str], None]


class Mutex(ABC):
    """A lock that the backend has of its own, with a queue of its own."""

    @abstractmethod
    async def seize(
        self, session: str, name: str, id: str, *, shared: bool, until: float | None
    ) -> Grant | None:
        """Take the lock; return None if it is still taken when the time has come.

        With `until` None, do not wait. The token is drawn while the lock is held.
        The core asks for an exclusive lock only while no other grant of this name
        is held or waited for by the same session. A call that fails or is
        cancelled leaves neither a lock nor a place in the queue; a call whose
        outcome cannot be known ends the connection that the lock would live on.
        A session that is lost while it waits is refused with `SessionLost`.
        """

    @abstractmethod
    async def unseize(self, grant: Grant) -> None:
        """Free the lock. Idempotent; it can free nothing but this very grant."""

    async def holder(self, name: str) -> Holder | None:
        """Say who holds the lock, for an operator to read."""
        return None

    async def taken(self) -> Sequence[Taken]:
        """All locks of the namespace that are held, for an operator to read."""
        return ()


class Records(ABC):
    """Where records are kept, if that is apart from the rosters. See `Driver.recall`."""

    @abstractmethod
    async def recall(self, name: str) -> Record | None:
        """Read one."""

    @abstractmethod
    async def record(self, name: str, text: str | None, version: Any) -> Any:
        """Write or delete one if its version is still that; return the new version."""

    @abstractmethod
    async def recorded(self, prefix: str) -> Sequence[str]:
        """The names that begin with the prefix, sorted."""


class Driver(ABC):
    """One connection to one backend. Built from a parsed URL and a runtime; opened once."""

    traits: ClassVar[Traits]
    mutex: Mutex | None = None
    """The native mutex; the lock recipe uses it instead of a roster."""
    records: Records | None = None
    """What `recall`, `record` and `recorded` ask, unless the driver has these itself."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        self.url = url
        self.runtime = runtime
        self.namespace = namespace
        self.ttl = ttl
        self.patience = min(10.0, ttl / 3)

    @classmethod
    def chosen(cls, url: Url) -> type[Driver]:
        """The class for a URL of this driver: another one, if the URL names a strategy."""
        return cls

    @abstractmethod
    async def open(self) -> None:
        """Connect and authenticate, so that a wrong URL fails here and not later."""

    @abstractmethod
    async def close(self) -> None:
        """Drop every connection. Called after `end`; must not fail.

        Called again if it was interrupted: then it does what is left to do.
        """

    def abandon(self) -> None:
        """In a forked child: forget every connection without a word to the backend.

        Descriptors inherited from the parent are closed, never shut down: no
        farewell may be sent on them, and no lock may be released through them.
        """

    async def examine(self) -> Sequence[Finding]:
        """What in the backend's configuration would break coordination, read off it now.

        For an operator to read, with `tenure doctor`. Called on a driver that is open,
        with or without a session. What one may not read is a finding, too.
        """
        return ()

    async def server(self) -> Server:
        """What this is connected to: product, version and what can be told of its topology.

        Called at every connect, on a driver that is open, with or without a session. So it costs
        nothing where the greeting has told, and else one round trip at most, within
        `patience`. A `BackendError` if nobody answers, or if one may not ask; then what it is
        stays unknown, and all else works. `Unsupported` if the driver, or the server, never tells.
        """
        raise Unsupported(f"{self.url.scheme}: the driver does not say what it is connected to")

    # -- the session -------------------------------------------------------

    @abstractmethod
    async def start(self, owner: str, lost: Lost) -> str:
        """Begin a session that lives `self.ttl` seconds unless renewed; return its id.

        `lost(reason)` may be called at any time, from any thread, when the backend
        is seen to have ended the session (a closed connection, an expired lease).
        """

    @abstractmethod
    async def renew(self, session: str) -> None:
        """Give the session another `self.ttl` seconds. `SessionLost` if it is gone."""

    @abstractmethod
    async def end(self, session: str) -> None:
        """End the session and free all that it holds. Idempotent."""

    async def last_seen(self, session: str) -> float | None:
        """Seconds since a session, of whomever, was renewed last; None if it is dead.

        For an operator to read. Where the backend sees a death by itself, 0.
        """
        raise Unsupported(f"{self.url.scheme}: rosters are not supported")

    # -- the roster --------------------------------------------------------

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        """Enter a claim at the end of the roster, and read the roll, in one round trip.

        Idempotent by `id`. With a `width`, enter it only if its rank would be under
        that, else write nothing and return a roll without `mine`. The claims of
        dead sessions do not count. `SessionLost` if the session itself is dead.
        A claim with a body is public: watchers hear of its entry, change and end. Such
        a claim is there to be read, so entered without a width its roll may be `mine` alone.
        """
        raise Unsupported(f"{self.url.scheme}: rosters are not supported")

    async def amend(self, claim: Claim, body: str) -> Claim:
        """Replace the body if the claim still has the body given; else `SessionLost`.

        Finding the new body is success, too: the reply to an earlier try may be lost.
        """
        raise Unsupported(f"{self.url.scheme}: rosters are not supported")

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        """Remove a claim and wake whoever comes under `width`. Idempotent.

        It is one's own, but for a group that is deleted by force, which evicts others'.
        """
        raise Unsupported(f"{self.url.scheme}: rosters are not supported")

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        """Read the roll as seen from the claim `id`, in one round trip.

        No dead claim may keep it from coming under `width` for longer than a session's
        time to live; where nothing else buries the dead, this call does.
        """
        raise Unsupported(f"{self.url.scheme}: rosters are not supported")

    async def census(self, roster: str) -> tuple[Claim, ...]:
        """Every claim of a session that lives, ordered by token, in one round trip."""
        raise Unsupported(f"{self.url.scheme}: rosters are not supported")

    async def rosters(self, prefix: str) -> Sequence[str]:
        """The names of the rosters that have a claim and begin with the prefix, sorted."""
        raise Unsupported(f"{self.url.scheme}: rosters are not supported")

    # -- records: what outlives every session -------------------------------

    async def recall(self, name: str) -> Record | None:
        """Read the record of a name; None if there is none."""
        return await self._kept().recall(name)

    async def record(self, name: str, text: str | None, version: Any) -> Any:
        """Write the record, or delete it if `text` is None, if its version is still that.

        With a version of None, only if there is none. Returns the new version, which
        is never None, or None if somebody else was faster. Wakes the watchers of the
        roster of that name. A version is never used twice.
        """
        return await self._kept().record(name, text, version)

    async def recorded(self, prefix: str) -> Sequence[str]:
        """The names of the records that begin with the prefix, sorted."""
        return await self._kept().recorded(prefix)

    def _kept(self) -> Records:
        if self.records is None:
            raise Unsupported(f"{self.url.scheme}: records are not supported")
        return self.records

    # -- wake-ups -------------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        """Call `wake` whenever the interest may have come true, until `unlisten`.

        A wake-up is a hint: it may come in vain, and a missed one costs one poll. A
        driver without push does nothing here.
        """

    def unlisten(self, interest: Interest) -> None:
        """Forget the interest. Never fails and never waits."""

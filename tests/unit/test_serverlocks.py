"""The locks of PostgreSQL and MySQL between two steps, where no server can be made to wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tenure._runtime.thread import ThreadRuntime, drive
from tenure.drivers._serverlocks import Hold, ServerLocks, Session, Values


class ScriptedLink:
    """A connection whose server counts how often a lock is held, as PostgreSQL does."""

    service = "scripted"
    busy = False
    asking = False

    def __init__(self) -> None:
        self.count = 0
        self.reason: str | None = None
        self.interrupted = False

    async def call(self, statement: bytes, values: Values, undo: bytes = b"") -> bytes:
        if self.interrupted:
            raise KeyboardInterrupt  # before anything was sent
        self.count += 1 if statement == b"seize" else -1
        return b"%d" % self.count if statement == b"seize" else b"t"

    def end(self, reason: str) -> None:
        self.reason, self.count = reason, 0


class Locks(ServerLocks):
    """Locks in a language of two words."""

    SEIZE = SHARE = SHARE_AGAIN = b"seize"
    FREE = FREE_SHARED = b"free"
    FREED = b"t"

    def _values(self, name: str) -> Values:
        return (name.encode(),)


class Connections:
    """A driver of one connection."""

    def __init__(self, link: ScriptedLink) -> None:
        made: Any = Session(self, ThreadRuntime(), "s", None, "me", link, lambda reason: None)  # type: ignore[arg-type]
        self.session = made

    def current(self, session: str) -> Any:
        return self.session


def test_a_release_that_is_interrupted_keeps_nothing_at_the_server() -> None:
    """Nobody frees it a second time, so the connection ends, and with it the lock."""
    link = ScriptedLink()
    locks = Locks(Connections(link), ThreadRuntime())  # type: ignore[arg-type]
    grant = drive(locks.seize("s", "x", "1", shared=False, until=None))
    assert grant is not None
    assert link.count == 1
    link.interrupted = True
    with pytest.raises(KeyboardInterrupt):
        drive(locks.unseize(grant))
    assert link.reason == "a release was interrupted"
    assert link.count == 0


class Gate:
    """A lock that lets somebody else in as soon as it is let go of."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.then: Callable[[], object] | None = None

    def __enter__(self) -> object:
        return self._inner.__enter__()

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(*error)
        then, self.then = self.then, None
        if then is not None:
            then()


def test_a_reader_that_comes_as_the_last_one_leaves_is_counted() -> None:
    """It is the first of the next readers, and its own leaving finds it there."""
    session = Connections(ScriptedLink()).session
    values = (b"1",)
    assert session.share("x", values, b"first", b"again") == b"first"
    first, second = (Hold(session, session.main, "x", values, True, b"free") for _ in range(2))
    session._lock = Gate(session._lock)
    asked: list[bytes] = []
    session._lock.then = lambda: asked.append(session.share("x", values, b"first", b"again"))
    session.leave(first)
    assert asked == [b"first"]
    assert values in session.keys
    session.leave(second)
    assert not session.keys

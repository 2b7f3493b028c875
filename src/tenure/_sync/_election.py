"""Elections, and the terms of those who lead."""

# Made by scripts/twins from aio/_election.py: change it there.

from __future__ import annotations

import logging
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from .._coordinator import checked_name, checked_timeout
from .._model import Candidate, Leader
from .._recipes.election import BoardWatch, ElectionRecipe, TermLease
from .._recipes.groupwatch import Callbacks
from .._session import Session
from ..errors import AcquireTimeout, LeaseLost, Unavailable
from ._group import Subscription
from ._lock import Lease
from ._run import run, while_held

R = TypeVar("R")

logger = logging.getLogger("tenure")


class Term(TermLease, Lease):
    """Proof of leading: a lease, so it has a token, a deadline and a loss signal.

    Made by campaigning, never by hand. Any thread may use it. As a context manager it is
    resigned at the end of the block.
    """

    __slots__ = ()

    def resign(self) -> None:
        """Lead no longer: the next candidate does. The same as `release`."""
        self.release()

    def publish(self, value: Any) -> None:
        """Show another value to all who ask who leads: JSON data of up to 64 KiB.

        Raises `LeaseLost` if it does not lead any more, `InvalidArgument` if the value is
        no JSON data or is too long. After an `Unavailable` either value may be shown.
        """
        run(self._publish(value))

    def stand_down(self, *, to: str, timeout: float | None = None) -> bool:
        """Resign in favour of a candidate who waits: the first with that owner, or of that id.

        For at most `timeout` seconds (None: the session's TTL), or until that candidate has
        given up or died, all others who are elected stand aside; then whoever comes first
        leads. Says whether the chosen one leads. Raises `CandidateNotFound`, and still leads,
        if no such candidate waits.
        """
        seconds = checked_timeout(timeout)
        return run(self._stand_down(to, self._session.ttl if seconds is None else seconds))

    def __repr__(self) -> str:
        return "<term" + super().__repr__().removeprefix("<lease")


class LeaderWatch:
    """The leaders of an election as they change. Made by `Election.observe`, never by hand.

    An iterator: the first item is who leads now, each later one whoever leads then, or the
    same leader with another value; None while there is none. It waits in between, and ends
    when it is closed. It compares what it reads, so nothing is told twice and the order is
    right whatever became of the connection; a leader who came and went in between two
    looks is not seen. As a context manager it is closed at the end of the block.
    """

    __slots__ = ("_watch",)

    def __init__(self, watch: BoardWatch) -> None:
        self._watch = watch

    @property
    def leader(self) -> Leader | None:
        """The leader as it was told last; None as well before the first time."""
        return self._watch.leader

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until there is something to tell, at most `timeout` seconds; say whether there is.

        Then `leader` tells it. Raises `Unavailable` if the backend does not answer for a
        whole TTL; it can be asked again.
        """
        seconds = checked_timeout(timeout)
        until = None if seconds is None else self._watch.now() + seconds
        return run(self._watch.change(until))

    def close(self) -> None:
        """Watch no more; whoever waits for it goes on. Does nothing the second time."""
        self._watch.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Leader | None:
        if not run(self._watch.change(None)):
            raise StopIteration
        return self._watch.leader

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
        if self._watch.closed:
            return f"<watch of election {self._watch.name!r}: closed>"
        return f"<watch of election {self._watch.name!r}: {self._watch.leader}>"


class Election:
    """The election of one leader under a name. Campaigning returns a `Term` to who wins.

    The election itself holds nothing, and any number of threads may use it.
    """

    __slots__ = ("_recipe",)

    def __init__(self, session: Session, name: str) -> None:
        self._recipe = ElectionRecipe(session, checked_name(name), Term)

    @property
    def name(self) -> str:
        """The election's name, as it was asked for."""
        return self._recipe.name

    def campaign(self, timeout: float | None = None, *, value: Any = None) -> Term:
        """Wait in turn, and lead. `value`, any JSON data of up to 64 KiB, is shown to all.

        `timeout` is in seconds; None waits for ever. Raises `AcquireTimeout` if another
        still leads by then, `Unavailable` if the backend cannot be reached for a whole TTL;
        then nothing is held and no candidacy is left.
        """
        seconds = checked_timeout(timeout)
        until = None if seconds is None else self._recipe.now() + seconds
        term = run(self._recipe.campaign(until, value))
        if term is None:
            raise AcquireTimeout(f"another still led {self.name!r} after {seconds:g} s")
        return term

    def try_campaign(self, *, value: Any = None) -> Term | None:
        """Lead if nobody does at this moment; None if somebody leads or was chosen to."""
        return run(self._recipe.try_campaign(value))

    def run_as_leader(self, work: Callable[[Term], R], *, value: Any = None) -> R:
        """Campaign, run `work(term)` while leading, and again whenever the term was lost.

        With asyncio, `work` is cancelled when the term is lost. A thread cannot be stopped
        from outside: there `work` must look at `term.lost`, or call `term.check()`, before
        each step that matters, and end. When `work` ends in time, it resigns and returns
        what `work` returned, or raises what it raised.

        A backend that cannot be reached is waited for. To end it from outside while it
        campaigns, close the coordinator (`ClosedError`), or with asyncio cancel it.
        """
        while True:
            try:
                term = self.campaign(value=value)
            except Unavailable as error:
                logger.warning("tenure: campaigning for %r again: %s", self.name, error)
                run(self._recipe.pause())
                continue
            try:
                with term, while_held(term):
                    return work(term)
            except LeaseLost as loss:
                if loss.lease is not term:
                    raise
                logger.warning("tenure: campaigning for %r again: %s", self.name, loss)

    def leader(self) -> Leader | None:
        """Who leads, in one round trip; None if nobody does, or is just about to."""
        return run(self._recipe.leader())

    def candidates(self) -> tuple[Candidate, ...]:
        """Who waits to lead, in the order in which they came, in one round trip.

        Of several campaigns of one coordinator only one is there: the others wait behind it.
        """
        return run(self._recipe.candidates())

    def observe(self) -> LeaderWatch:
        """Iterate over the leaders as they change, beginning with the present one."""
        return LeaderWatch(self._recipe.watch())

    def on_change(self, callback: Callable[[Leader | None], object]) -> Subscription:
        """Have `callback(leader)` called, in the background, until closed.

        First with the present leader, then with each later one, in order; with None while
        there is none. An error of the callback is logged.
        """
        watch = self._recipe.watch()
        run(watch.open())
        what = f"watching the election {self.name!r}"
        return Subscription(
            Callbacks(
                self._recipe.session, what, watch.news, lambda news: callback(*news), watch.close
            )
        )

    def __repr__(self) -> str:
        return f"<election {self.name!r}>"

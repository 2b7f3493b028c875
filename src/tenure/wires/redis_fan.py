"""Several independent Redis masters, asked the same at the same time.

A call goes to all of them at once and comes back when a majority has answered and the others
have had a moment more. One that is slow is left out until its answer has come or its time is
over; one that cannot be reached is tried again in the background. So the dead and the slow
cost the others nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from .._runtime.base import Job, Runtime
from ..errors import OutcomeUnknown, TenureError, Unavailable
from ._redis import Reply, Settings
from ._redis_calls import Script, ScriptMissing, packed_command
from .redis import Wire, wire

__all__ = ["Answers", "Fan", "Member", "fan", "heard"]

GRACE_SECONDS = 0.005
"""How long those behind the majority are waited for, besides what the majority took."""

_SETTLE_SECONDS = 0.25
_PAUSE_SECONDS = 0.05


class Member:
    """One master."""

    def __init__(self, wire: Wire[Any]) -> None:
        self.wire = wire
        self.down = True
        """Whether nothing is asked of it, until it can be reached again."""
        self.error: TenureError | None = None
        """What went wrong last."""
        self.late: list[Any] = []
        """Exchanges whose answers have not come yet."""

    def __repr__(self) -> str:
        return f"<Member {self.wire.settings.label}>"


Answers = Mapping[Member, Reply | TenureError]
"""What each of those has answered that were asked. `OutcomeUnknown` if it did not, in time."""


def heard(answers: Answers) -> set[Member]:
    """Those that have answered, and not with an error."""
    return {member for member in answers if not isinstance(answers[member], TenureError)}


class Fan(ABC):
    """Asks all masters at once."""

    def __init__(self, settings: Sequence[Settings], runtime: Runtime) -> None:
        self._runtime = runtime
        self.patience = settings[0].patience
        self.members = [Member(wire(each, runtime.flavour)) for each in settings]
        self.quorum = len(self.members) // 2 + 1
        self._stop = runtime.signal()
        self._changed = runtime.signal()
        self._jobs: dict[Member, Job] = {}
        self._lock = runtime.lock()

    async def open(self) -> None:
        """Connect to a majority at least; a wrong URL or password anywhere fails here."""
        now = self._runtime.now
        for member in self.members:
            self._revive(member)
        give_up, enough = now() + self.patience, None
        while now() < (give_up if enough is None else min(give_up, enough)):
            for member in self.members:
                if member.error is not None and not isinstance(member.error, Unavailable):
                    raise member.error
            up = sum(not member.down for member in self.members)
            if up == len(self.members):
                return
            if up >= self.quorum and enough is None:
                enough = now() + _SETTLE_SECONDS
            settled = all(not member.down or member.error for member in self.members)
            if settled and up >= self.quorum:
                return
            await self._changed.wait(now() + 0.05)
            self._changed.clear()
        self.check_reached()

    def check(self, answers: Answers, good: int) -> None:
        """Raise what is right when fewer than a majority have done it."""
        if good >= self.quorum:
            return
        for error in answers.values():
            if isinstance(error, TenureError) and not isinstance(error, Unavailable):
                raise error
        if any(isinstance(each, OutcomeUnknown) for each in answers.values()) or good:
            raise OutcomeUnknown(f"redlock: {good} of {len(self.members)} masters have answered")
        self.check_reached()
        raise Unavailable("redlock: too few masters can do it now")

    def check_reached(self) -> None:
        """Raise `Unavailable` unless a majority can be asked."""
        down = [member for member in self.members if member.down]
        if len(self.members) - len(down) < self.quorum:
            cause = next((member.error for member in down if member.error), None)
            raise Unavailable(
                f"redlock: {len(down)} of {len(self.members)} masters are away: "
                f"{cause or 'no answer in time'}"
            ) from cause

    async def command(self, *words: bytes | int, among: Collection[Member] = ()) -> Answers:
        """Carry out one command everywhere, or among these."""
        return await self._ask(packed_command(*words), among or self.members)

    async def run(
        self, script: Script, *words: bytes | int, among: Collection[Member] = ()
    ) -> Answers:
        """Run a script everywhere, or among these; who does not know it is taught."""
        packed = script.begin(*words, more=0)
        answers = await self._ask(packed, among or self.members)
        ignorant = [member for member in answers if isinstance(answers[member], ScriptMissing)]
        if not ignorant:
            return answers
        taught = await self.command(b"SCRIPT", b"LOAD", script.text, among=ignorant)
        learned = [member for member in taught if isinstance(taught[member], bytes)]
        return {**answers, **taught, **(await self._ask(packed, learned) if learned else {})}

    async def close(self) -> None:
        """Close every connection."""
        self._stop.set()
        for member in self.members:
            await member.wire.close()
        until = self._runtime.now() + self.patience + 1.0
        for job in list(self._jobs.values()):
            if not await job.join(until):
                job.cancel()

    def abandon(self) -> None:
        """In a forked child: let go of the parent's connections without a word."""
        for member in self.members:
            member.wire.abandon()

    @abstractmethod
    async def _ask(self, packed: bytes, among: Collection[Member]) -> Answers:
        """Send the command to those that are there, and gather what they answer in time."""

    # -- those that are away -------------------------------------------------

    def lost(self, member: Member, error: TenureError) -> None:
        """It cannot be asked for now."""
        member.error = error
        with self._lock:
            if member.down:
                return
            member.down = True
        self._revive(member)

    def _revive(self, member: Member) -> None:
        if not self._stop.is_set():
            self._jobs[member] = self._runtime.spawn(lambda: self._reach(member), "redis-master")

    async def _reach(self, member: Member) -> None:
        pause = _PAUSE_SECONDS
        while not self._stop.is_set():
            try:
                await member.wire.open(self._runtime)
                await member.wire.command(b"PING")
            except TenureError as error:
                member.error = bare(error)
            else:
                member.error = None
                member.down = False
                self._changed.set()
                return
            self._changed.set()
            now = self._runtime.now()
            await self._stop.wait(now + pause * (0.5 + 0.5 * self._runtime.random()))
            pause = min(pause * 2, self.patience)


def bare(error: TenureError) -> TenureError:
    """The error alone. With its traceback it would keep alive what failed, sockets among it."""
    return type(error)(str(error))


def unanswered(member: Member) -> OutcomeUnknown:
    """What stands for an answer that has not come."""
    return OutcomeUnknown(f"{member.wire.settings.label}: no reply in time")


def fan(settings: Sequence[Settings], runtime: Runtime) -> Fan:
    """The masters, for a flavour of concurrency. Only asyncio's imports asyncio."""
    if runtime.flavour == "asyncio":
        from ._redis_fan_asyncio import AsyncioFan

        return AsyncioFan(settings, runtime)
    from ._redis_fan_blocking import BlockingFan

    return BlockingFan(settings, runtime)

"""Several Redis masters at once, on an event loop: a task for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection

from ..errors import TenureError, Unavailable
from ._redis import Reply
from ._redis_calls import ScriptMissing
from .redis_fan import GRACE_SECONDS, Answers, Fan, Member, bare, unanswered


class AsyncioFan(Fan):
    """Tasks of the running loop; one that is late goes on, and its member is left out."""

    async def _ask(self, packed: bytes, among: Collection[Member]) -> Answers:
        began = time.monotonic()
        members = self._ready(among)
        while len(members) < min(self.quorum, len(among)):
            # Too few without those that are late: so they are worth waiting for.
            late = [task for member in among for task in member.late]
            rest = began + self.patience / 2 - time.monotonic()
            if not late or rest <= 0:
                break
            await asyncio.wait(late, timeout=rest, return_when=asyncio.FIRST_COMPLETED)
            members = self._ready(among)
        tasks = {asyncio.create_task(self._one(member, packed)): member for member in members}
        answers: dict[Member, Reply | TenureError] = {}
        waiting = set(tasks)
        limit, enough = began + self.patience, False
        try:
            while waiting and time.monotonic() < limit:
                done, waiting = await asyncio.wait(
                    waiting,
                    timeout=max(0.0, limit - time.monotonic()),
                    return_when=asyncio.FIRST_COMPLETED,
                )
                for task in done:
                    answers[tasks[task]] = task.result()
                good = sum(not isinstance(each, Unavailable) for each in answers.values())
                if good >= self.quorum and not enough:
                    enough, now = True, time.monotonic()
                    limit = min(limit, now + GRACE_SECONDS + (now - began))
        except BaseException:
            for task in waiting:
                task.cancel()
            raise
        for task in waiting:
            self._leave(tasks[task], task)
            answers[tasks[task]] = unanswered(tasks[task])
        return answers

    @staticmethod
    def _ready(among: Collection[Member]) -> list[Member]:
        return [
            member
            for member in among
            if not member.down and all(task.done() for task in member.late)
        ]

    async def _one(self, member: Member, packed: bytes) -> Reply | TenureError:
        try:
            return await member.wire.ask(packed)
        except Unavailable as error:
            found = bare(error)
            if not isinstance(error, ScriptMissing):
                self.lost(member, found)
            return found
        except TenureError as error:
            return bare(error)

    @staticmethod
    def _leave(member: Member, task: asyncio.Task[Reply | TenureError]) -> None:
        member.late.append(task)

        def done(task: asyncio.Task[Reply | TenureError]) -> None:
            member.late.remove(task)

        task.add_done_callback(done)

    async def close(self) -> None:
        late = [task for member in self.members for task in member.late]
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late, timeout=self.patience)
        await super().close()

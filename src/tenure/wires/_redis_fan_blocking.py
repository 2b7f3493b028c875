"""Several Redis masters at once, on a thread: all are written to, then all are polled."""

from __future__ import annotations

import select
import time
from collections.abc import Collection
from typing import cast

import hiredis

from ..errors import TenureError, Unavailable
from ._redis import MORE, Reply
from ._redis_blocking import BlockingLink
from ._sockets import left
from .redis_fan import GRACE_SECONDS, Answers, Fan, Member, bare, unanswered

_SLICE_SECONDS = 0.01


class BlockingFan(Fan):
    """One thread asks them all; a connection whose answer is late is read by a later call."""

    async def _ask(self, packed: bytes, among: Collection[Member]) -> Answers:
        began = time.monotonic()
        until = began + self.patience
        answers: dict[Member, Reply | TenureError] = {}
        waiting: dict[int, tuple[Member, BlockingLink]] = {}
        poll = select.poll()
        for member in await self._ready(among, began + self.patience / 2):
            try:
                # Idle as a rule. A new one is made here only if several threads ask at once.
                link = cast("BlockingLink", await member.wire.take(began + self.patience / 4))
                try:
                    await link.send(packed, left(until))
                except BaseException as error:
                    member.wire.failed(link, error)
                    raise
            except TenureError as error:
                answers[member] = found = bare(error)
                self.lost(member, found)
                continue
            waiting[link.fileno()] = (member, link)
            poll.register(link.fileno(), select.POLLIN)
        limit, good = until, 0
        while waiting and time.monotonic() < limit:
            for file, _ in poll.poll(max(1, int((limit - time.monotonic()) * 1000))):
                member, link = waiting[file]
                answer = await self._read(member, link)
                if answer is MORE:
                    continue
                poll.unregister(file)
                del waiting[file]
                answers[member] = answer
                good += not isinstance(answer, Unavailable)
                if good == self.quorum:
                    now = time.monotonic()
                    limit = min(limit, now + GRACE_SECONDS + (now - began))
        for member, link in waiting.values():
            with self._lock:
                member.late.append((link, until))
            answers[member] = unanswered(member)
        return answers

    async def _read(self, member: Member, link: BlockingLink) -> Reply | TenureError:
        """What there is to read: a reply, `MORE`, or what went wrong."""
        try:
            reply = await link.receive(_SLICE_SECONDS)
            if reply is MORE:
                return cast("Reply", reply)
            link.settle()
        except TenureError as error:
            member.wire.failed(link, error)
            found = bare(error)
            if isinstance(error, Unavailable):
                self.lost(member, found)
            return found
        member.wire.give_back(link)
        if type(reply) is hiredis.ReplyError:
            return member.wire.refused(str(reply))
        return reply

    async def _ready(self, among: Collection[Member], until: float) -> list[Member]:
        """Those that can be asked; the late ones are waited for if there are too few others."""
        while True:
            ready = [
                member for member in among if not member.down and not await self._is_late(member)
            ]
            late = [link for member in among for link, _ in list(member.late)]
            enough = len(ready) >= min(self.quorum, len(among))
            if enough or not late or time.monotonic() >= until:
                return ready
            poll = select.poll()
            for link in late:
                if link.fileno() >= 0:  # closed meanwhile by another thread
                    poll.register(link.fileno(), select.POLLIN)
            poll.poll(max(1, min(50, int((until - time.monotonic()) * 1000))))

    async def _is_late(self, member: Member) -> bool:
        """Whether an answer is still owed; what has come meanwhile is thrown away."""
        if not member.late:
            return False
        with self._lock:
            late, member.late = member.late, []
        for link, until in late:
            if link.fileno() < 0:
                continue
            poll = select.poll()
            poll.register(link.fileno(), select.POLLIN)
            if poll.poll(0) and await self._read(member, link) is not MORE:
                continue
            if time.monotonic() < until:
                with self._lock:
                    member.late.append((link, until))
            else:
                error = unanswered(member)
                member.wire.failed(link, error)
                self.lost(member, error)
        return bool(member.late) or member.down

    async def close(self) -> None:
        with self._lock:
            late = [(member, link) for member in self.members for link, _ in member.late]
            for member in self.members:
                member.late = []
        for member, link in late:
            member.wire.discard(link)  # nobody else would
        await super().close()

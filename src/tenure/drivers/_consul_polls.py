"""Wake-ups from Consul: questions that it answers when the answer has changed.

Each question that somebody waits on has a connection of its own, and a job that asks it again
and again; many who wait for the same share it. A job that has nothing to ask stays for a while,
so that one who waits often does not connect often. There are so many jobs at most, since agents
take only so many connections from one address: further questions have to wait for a free one,
and who waits on them looks for himself meanwhile.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import Enum
from typing import Protocol

from .._model import Interest
from .._runtime.base import Job, Runtime
from ..errors import AuthenticationFailed, TenureError
from ..wires import consul as wires
from ..wires.consul import Answer, ConsulWire
from ..wires.http import Reply
from ._consul_keys import Place
from .base import Wake

logger = logging.getLogger("tenure")

JOBS_MAX = 16
_WAIT_SECONDS = 50.0
_IDLE_SECONDS = 10.0
UNKNOWN = Answer(0, False)
"""Before the first answer, or when something may have been missed: the next one wakes."""
_PAUSE_VAIN = 0.02
_PAUSE_LEAST = 0.05
_PAUSE_MOST = 2.0
_PAUSE_REFUSED = 30.0


class Verdict(Enum):
    """What an answer means to one who waits."""

    NOTHING = "nothing"
    WAKE = "wake"
    ENOUGH = "wake, and ask no more"


class Purpose(Protocol):
    """Decides for one interest whether an answer shall wake somebody."""

    def judge(self, reply: Reply) -> Verdict:
        """The answer is another than before, or may be."""


class Gone:
    """One key, of the claim directly before one's own: that it is gone, or nobody's any more."""

    def judge(self, reply: Reply) -> Verdict:
        return Verdict.NOTHING if wires.locked(reply) else Verdict.ENOUGH


class Line:
    """All claims of a roster, where more than one may be granted: that enough have gone."""

    def __init__(self, place: Place, width: int) -> None:
        self._place = place
        self._width = width

    def judge(self, reply: Reply) -> Verdict:
        there, place = wires.names(reply), self._place
        if place.key in there and len(place.ahead & there) >= self._width:
            return Verdict.NOTHING
        return Verdict.WAKE


class Whatever:
    """Any change."""

    def judge(self, reply: Reply) -> Verdict:
        return Verdict.WAKE


class _Question:
    """What is asked, and for whom."""

    __slots__ = ("answer", "text", "waiters", "worker")

    def __init__(self, text: str, answer: Answer) -> None:
        self.text = text
        self.answer = answer
        self.waiters: dict[Interest, tuple[Purpose, Wake]] = {}
        self.worker: _Worker | None = None


class _Worker:
    """A job, and the connection on which it waits."""

    __slots__ = ("job", "poll", "question", "signal")

    def __init__(self, poll: wires.Poll, runtime: Runtime) -> None:
        self.poll = poll
        self.signal = runtime.signal()
        self.question: _Question | None = None
        self.job: Job | None = None


class Polls:
    """`add` and `remove` may be called from any thread; they never wait for the backend."""

    def __init__(self, runtime: Runtime, wire: Callable[[], ConsulWire], patience: float) -> None:
        self._runtime = runtime
        self._wire = wire
        self._patience = patience
        self._questions: dict[str, _Question] = {}
        self._of: dict[Interest, list[_Question]] = {}
        self._workers: set[_Worker] = set()
        self._idle: list[_Worker] = []
        self._lock = runtime.lock()
        self._closed = False

    async def known(self, text: str) -> Answer:
        """The answer to a question now, to hear of what comes after it."""
        with self._lock:
            question = self._questions.get(text)
            if question is not None and question.answer.index:
                return question.answer
        return await self._wire().answer(text)

    def add(
        self, interest: Interest, text: str, answer: Answer, purpose: Purpose, wake: Wake
    ) -> None:
        """Ask a question for an interest, and wake it if the answer is another than it knows."""
        missed = False
        with self._lock:
            if self._closed:
                return
            question = self._questions.get(text)
            if question is None:
                question = self._questions[text] = _Question(text, answer)
            else:
                missed = answer.index != question.answer.index
            question.waiters[interest] = (purpose, wake)
            self._of.setdefault(interest, []).append(question)
            self._assign(question)
        if missed:
            wake()

    def remove(self, interest: Interest) -> None:
        """Ask no more for an interest."""
        with self._lock:
            for question in self._of.pop(interest, ()):
                question.waiters.pop(interest, None)
                self._drop_unwanted(question)

    def _drop_unwanted(self, question: _Question) -> None:
        if question.waiters or self._questions.get(question.text) is not question:
            return
        del self._questions[question.text]
        worker = question.worker
        if worker is not None and worker.question is question:
            worker.poll.close()
            worker.signal.set()

    async def close(self) -> None:
        """End every wait, and the jobs."""
        with self._lock:
            self._closed = True
            workers = list(self._workers)
        for worker in workers:
            worker.poll.close()
            worker.signal.set()
        until = self._runtime.now() + self._patience
        for worker in workers:
            if worker.job is not None and not await worker.job.join(until):
                worker.job.cancel()

    def abandon(self) -> None:
        """In a forked child: the jobs and the connections are the parent's."""
        self._closed = True
        self._workers = set()
        self._idle = []

    def _assign(self, question: _Question) -> None:
        """Find somebody to ask a question that nobody asks. Called with the lock."""
        if question.worker is not None:
            return
        if self._idle:
            worker = self._idle.pop()
        elif len(self._workers) < JOBS_MAX:
            worker = _Worker(self._wire().poll(), self._runtime)
            self._workers.add(worker)
        else:
            logger.debug("tenure: %d questions are asked of consul already", JOBS_MAX)
            return
        question.worker, worker.question = worker, question
        worker.signal.set()
        if worker.job is None:
            worker.job = self._runtime.spawn(lambda: self._run(worker), "consul-poll")

    # -- a job -------------------------------------------------------------

    async def _run(self, worker: _Worker) -> None:
        try:
            while not self._closed:
                question = worker.question
                if question is not None:
                    await self._ask(worker, question)
                    self._free(worker)
                elif await worker.signal.wait(self._runtime.now() + _IDLE_SECONDS):
                    worker.signal.clear()
                elif self._dismissed(worker):
                    return
        finally:
            self._dismissed(worker)
            worker.poll.close()

    def _dismissed(self, worker: _Worker) -> bool:
        """Let a worker go that has nothing to do, or cannot do it any more."""
        with self._lock:
            if worker.question is not None and not self._closed:
                return False
            self._workers.discard(worker)
            if worker in self._idle:
                self._idle.remove(worker)
            return True

    def _free(self, worker: _Worker) -> None:
        """The worker's question is not asked any more: take another one."""
        with self._lock:
            if worker.poll.closed and not self._closed:
                worker.poll = self._wire().poll()
            worker.question = None
            self._idle.append(worker)
            waiting = [each for each in self._questions.values() if each.worker is None]
            if waiting and not self._closed:
                self._assign(waiting[0])

    async def _ask(self, worker: _Worker, question: _Question) -> None:
        """Ask until nobody wants to know any more."""
        runtime, pause = self._runtime, _PAUSE_LEAST
        while question.waiters and not self._closed:
            worker.signal.clear()
            wait, index = _WAIT_SECONDS * (0.9 + 0.2 * runtime.random()), question.answer.index
            try:
                reply = await worker.poll.read(question.text, index, wait, self._patience)
                if self._heed(question, reply):
                    pause = _PAUSE_LEAST
                    continue
                pause = _PAUSE_VAIN
            except AuthenticationFailed as error:
                logger.warning("tenure: consul refuses to tell of changes: %s", error)
                pause, question.answer = _PAUSE_REFUSED, UNKNOWN
            except TenureError as error:
                if question.waiters and not self._closed:
                    logger.debug("tenure: a question to consul was not answered: %s", error)
                question.answer = UNKNOWN  # something may have been missed
            if question.waiters and not self._closed:
                await worker.signal.wait(runtime.now() + pause * (0.5 + runtime.random()))
                pause = max(pause, min(pause * 2, _PAUSE_MOST))

    def _heed(self, question: _Question, reply: Reply) -> bool:
        """Wake those to whom the answer means something; say False if it was in vain."""
        with self._lock:  # whoever comes later knows by the index that there is news
            old, new = question.answer, wires.answer(reply)
            if new.index == old.index:
                return True  # the time was up
            # An index that falls means that Consul's history began anew.
            question.answer = new if new.index > old.index else UNKNOWN
            waiters = list(question.waiters.items())
        if old.index and old.absent and new.absent:
            return False  # what is not there has the index of whatever was written last
        for interest, (purpose, wake) in waiters:
            verdict = purpose.judge(reply)
            if verdict is Verdict.ENOUGH:
                with self._lock:
                    question.waiters.pop(interest, None)
                    if not question.waiters and self._questions.get(question.text) is question:
                        del self._questions[question.text]
            if verdict is not Verdict.NOTHING:
                wake()
        return True

"""While the command runs: forward signals, watch the lease and the clock, end it in time."""

from __future__ import annotations

import argparse
import math
import os
import signal

from .. import Lease, now
from ._exit import ExitCode, say, seconds_text
from ._job import Job, Terminal, end_group
from ._signals import ENDING, Signals, stop_ourselves

_TICK_SECONDS = 1.0
_LOOK_SECONDS = 0.02
"""Between two looks whether a group, of which only its leader is our child, is gone."""


class Supervisor:
    """One command under one lease, from its start to the time when that can go."""

    def __init__(
        self,
        job: Job,
        signals: Signals,
        lease: Lease,
        what: str,
        ttl: float,
        options: argparse.Namespace,
    ) -> None:
        self._job = job
        self._signals = signals
        self._lease = lease
        self._what = what
        self._options = options
        self._terminal = Terminal()
        self._since = now()
        self._until = math.inf if options.max_hold is None else self._since + options.max_hold
        self.verdict: ExitCode | None = None
        """Why the command was ended; None if it was not."""
        self._kill_at = math.inf
        self.interrupted = False
        """Whether we were asked to end while it ran."""
        # The guard comes second, when we have not acted: half of the lease's own margin later.
        self._slack = min(1.0, ttl * 0.1) / 2
        lease.on_lost(lambda _: signals.wake())
        if os.isatty(0) and os.isatty(1):
            # In a pipeline the terminal may be a neighbour's, so there the command
            # gets it only when it asks for it.
            self._terminal.give(job.pid)

    def run(self) -> int:
        """Watch the started command to its end, and longer; return the exit code."""
        self._watch()
        status = self._job.status
        assert status is not None
        killed_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if self.verdict is not None or killed_by:
            self._clear()
        self._job.dismiss_guard()
        self._terminal.take_back(self._job.pid)
        if self.verdict is not None:
            return self.verdict
        if not self.interrupted and killed_by not in {signal.SIGINT, signal.SIGQUIT}:
            signum = self._stay(self._since + self._options.min_hold)
            if signum:
                return ExitCode.SIGNAL + signum
        return ExitCode.SIGNAL + killed_by if killed_by else os.WEXITSTATUS(status)

    def close(self) -> None:
        """Give the terminal back to ourselves."""
        self._terminal.take_back(self._job.pid)

    def _watch(self) -> None:
        """Until the command itself has ended; what it has started may go on."""
        job = self._job
        job.deadline(self._lease.deadline + self._slack)
        while job.status is None:
            for signum in self._signals.take():
                self._forward(signum)
            stopped = job.poll()
            if stopped is not None:
                self._stopped(stopped)
            self._judge()
            if job.status is None:
                wake = min(self._until, self._kill_at, now() + _TICK_SECONDS)
                self._signals.wait(wake - now())

    def _judge(self) -> None:
        if self.verdict is not None:
            if now() >= self._kill_at:
                self._kill_at = math.inf
                say(f"the command did not end in {self._options.grace:g} s; killing it")
                self._job.send(signal.SIGKILL)
            return
        lease = self._lease
        if not lease.held():
            self._end(ExitCode.LOST, f"{self._what} was lost: {lease.reason}")
        elif now() >= self._until and self._job.status is None:
            held = seconds_text(now() - self._since)
            self._end(ExitCode.MAX_HOLD, f"the command still ran after {held} (--max-hold)")

    def _end(self, verdict: ExitCode, why: str) -> None:
        self.verdict = verdict
        self._job.deadline(math.inf)  # we are at it
        running = self._job.status is None
        say(f"{why}; {'ending the command' if running else 'the command has ended'}")
        self._kill_at = now() + self._options.grace
        end_group(self._job.pid)

    def _clear(self) -> None:
        """Whoever is left of a group that was to end, or whose leader was killed, ends too.

        A shell dies of a signal at once, and what it has started may go on with the
        work that the lock protects.
        """
        job = self._job
        if self.verdict is None:
            self._kill_at = now() + self._options.grace
            if not self.interrupted:
                end_group(job.pid)
        while job.send(0):
            if now() >= self._kill_at:
                job.send(signal.SIGKILL)
                return
            for signum in self._signals.take():
                self._forward(signum)
            self._signals.wait(min(_LOOK_SECONDS, self._kill_at - now()))

    def _stay(self, until: float) -> int:
        """Keep the lock until then (--min-hold); a signal that ends it is returned."""
        while now() < until and self._lease.held():
            for signum in self._signals.take():
                if signum in ENDING:
                    return signum
            self._signals.wait(min(until - now(), _TICK_SECONDS))
        return 0

    # -- signals and job control ---------------------------------------------

    def _forward(self, signum: int) -> None:
        if signum == signal.SIGCONT:
            self._continue()
            return
        if signum in ENDING:
            self.interrupted = True
        self._job.send(signum)

    def _stopped(self, signum: int) -> None:
        """The command was stopped. From the keyboard that means the whole job: us too."""
        group = self._job.pid
        if signum in {signal.SIGTTIN, signal.SIGTTOU} and self._terminal.give(group):
            self._job.send(signal.SIGCONT)  # it asked for the terminal, and it was ours to give
        elif signum != signal.SIGSTOP and os.isatty(0):
            self._terminal.take_back(group)
            stop_ourselves()
            self._continue()

    def _continue(self) -> None:
        """After `fg` or `bg`: the terminal, if we have it now, and the word to go on."""
        self._terminal.give(self._job.pid)
        self._job.send(signal.SIGCONT)

"""Signals, in two ways: raised while waiting for the lock, collected while a command runs."""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
from collections import deque
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""What asks a program to end."""
OTHERS = (signal.SIGUSR1, signal.SIGUSR2)
JOB_CONTROL = (signal.SIGTSTP, signal.SIGCONT)


class Interrupted(BaseException):
    """A signal came that ends what is going on. Not an `Exception`: nothing may swallow it."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


class Signals:
    """The signals that came, in order, and a pipe that wakes whoever waits for them.

    At first a signal that asks to end is raised as `Interrupted`, once, on the main
    thread: that ends a wait for a lock, wherever in it we are, and the lock's own
    cleaning up follows. After `collect` every signal is only kept for `take`.

    A signal that was ignored when we started (`nohup`) stays ignored.
    """

    def __init__(self) -> None:
        self._came: deque[int] = deque()
        self._raising = True
        self._hasty_after = math.inf
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        # A write to the terminal, or taking it back, must not stop us while the
        # command has it. Blocked and not ignored, since that ends with us.
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
        self._caught_here: set[signal.Signals] = set()
        self._catch(*ENDING, *OTHERS, signal.SIGCHLD)

    def _catch(self, *signums: signal.Signals) -> None:
        for signum in signums:
            if signal.getsignal(signum) is not signal.SIG_IGN:
                signal.signal(signum, self._caught)
                self._caught_here.add(signum)

    def give_back(self) -> list[int]:
        """Catch nothing any more, as before; return what came since the last `take`."""
        for signum in self._caught_here:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        return self.take()

    def _caught(self, signum: int, frame: FrameType | None) -> None:
        self._came.append(signum)
        if signum not in ENDING:
            return
        if self._hasty_after <= 0:
            os._exit(128 + signum)  # the guard sees to what is left; the TTL to the lock
        self._hasty_after -= 1
        if self._raising:
            self._raising = False
            self.leaving(0)
            raise Interrupted(signum)

    def collect(self) -> None:
        """From now on keep every signal, also those that stop and continue."""
        self._raising = False
        self._came.clear()
        self._catch(*JOB_CONTROL)

    def leaving(self, tolerated: int) -> None:
        """Nothing but cleaning up is left: after so many more signals, do not wait for that.

        A backend that does not answer can hold it up for as long as its time limits.
        """
        self._hasty_after = tolerated

    def take(self) -> list[int]:
        """The signals that came since the last time, without those of ended children."""
        came = []
        while self._came:
            signum = self._came.popleft()
            if signum != signal.SIGCHLD:
                came.append(signum)
        return came

    def wake(self) -> None:
        """End the present or the next `wait`. From any thread."""
        with contextlib.suppress(BlockingIOError):  # full: it wakes all the same
            os.write(self._write, b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until something came, for no longer than so many seconds."""
        if self._poll.poll(max(0.0, seconds) * 1000):
            try:
                while len(os.read(self._read, 4096)) == 4096:
                    pass
            except BlockingIOError:
                pass


def stop_ourselves() -> None:
    """Stop our process group, as the terminal would have; return when continued.

    The whole group, because the shell script or pipeline that we belong to is one
    job. The system ignores it where no shell is left that could continue us.
    """
    handler = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
    os.killpg(0, signal.SIGTSTP)
    signal.signal(signal.SIGTSTP, handler)

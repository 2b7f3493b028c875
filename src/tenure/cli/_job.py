"""The command's process, its process group, and the guard that outlives us.

Both are forked before there is any thread or connection in this process, and wait.
That is the one time at which a fork may run Python in the child without risk (of a
lock that a vanished thread held), and neither inherits a descriptor of the backend's,
so that a lock ends with us and not with them.

The guard is for the two things that we cannot do ourselves. If we are killed, it kills
the command's whole group; the kernel's own death signal, set as well, would only reach
the command itself and not what it has started. If we are stopped, nobody renews the
lease: the guard knows its deadline and ends the command in time.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import select
import signal
import struct
import sys
from collections.abc import Iterator, Mapping

from .. import now
from ._exit import ExitCode

_GO = b"\0go"
_TICK_SECONDS = 1.0
_PR_SET_PDEATHSIG = 1
_WORD = struct.Struct("d")


class CommandFailed(Exception):
    """The command could not be executed; `code` is the exit code that says so."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


class Job:
    """A command that is forked now, started later, and watched until it ends."""

    def __init__(self, command: list[str], grace: float) -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would reap our children
        self._name = command[0]
        self.status: int | None = None
        """How the command ended, as `waitpid` tells it; None while it runs."""
        wait, self._go = os.pipe()
        self._failure, failure = os.pipe()
        us = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            with _never_return():
                os.close(self._go)
                os.close(self._failure)
                _become(command, us, wait, failure)
        os.close(wait)
        os.close(failure)
        # By both of us, so that it is done whoever runs first.
        with contextlib.suppress(OSError):
            os.setpgid(self.pid, self.pid)
        watch, self._tell = os.pipe()
        self._guard = os.fork()
        if self._guard == 0:
            with _never_return():
                for file in (self._tell, self._go, self._failure):
                    os.close(file)
                _guard(watch, self.pid, grace)
        os.close(watch)
        os.set_blocking(self._tell, False)

    def start(self, environment: Mapping[str, str]) -> None:
        """Have the command executed; `CommandFailed` if that cannot be."""
        pairs = [f"{key}={value}" for key, value in environment.items()]
        # A broken pipe means that somebody killed it: `poll` will tell.
        with contextlib.suppress(BrokenPipeError), open(self._go, "wb") as go:
            go.write(os.fsencode("\0".join(pairs)) + _GO)
        self._go = -1
        with open(self._failure, "rb") as failure:
            number = failure.read()  # its end is closed by a successful exec
        self._failure = -1
        if number:
            code = int(number)
            found = code not in {errno.ENOENT, errno.ENOTDIR}
            raise CommandFailed(
                f"{self._name}: {os.strerror(code) if found else 'command not found'}",
                ExitCode.NOT_EXECUTABLE if found else ExitCode.NOT_FOUND,
            )

    def poll(self) -> int | None:
        """See whether the command has ended; return the signal if one has stopped it."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                return os.WSTOPSIG(status)
            if pid:
                self.status = status
        return None

    def send(self, signum: int) -> bool:
        """Signal the whole group; False if nobody is left in it."""
        return _send(self.pid, signum)

    def deadline(self, when: float) -> None:
        """Tell the guard until when the command may run without our word."""
        # A pipe that is full or closed means a guard that is stopped or dead.
        with contextlib.suppress(BlockingIOError, BrokenPipeError):
            os.write(self._tell, _WORD.pack(when))

    def dismiss_guard(self) -> None:
        """The command has ended: what it left behind is not the guard's business."""
        guard, self._guard = self._guard, 0
        if guard:
            os.kill(guard, signal.SIGKILL)
            os.waitpid(guard, 0)

    def close(self) -> None:
        """Let go: a command that was not started never will be, and none runs unwatched."""
        if self._go < 0 and self.status is None:
            self.send(signal.SIGKILL)
        for file in (self._go, self._failure):
            if file >= 0:
                os.close(file)
        self._go = self._failure = -1
        if self.status is None:
            self.status = os.waitpid(self.pid, 0)[1]
        self.dismiss_guard()
        os.close(self._tell)


class Terminal:
    """Standard input, if it is our controlling terminal: who is in its foreground."""

    def ours(self) -> bool:
        """Whether our own process group is in the foreground."""
        return self._foreground() == os.getpgrp()

    def give(self, group: int) -> bool:
        """Put the group into the foreground if that is our place; say whether it was."""
        if not self.ours():
            return False
        with contextlib.suppress(OSError):
            os.tcsetpgrp(0, group)
            return True
        return False

    def take_back(self, group: int) -> None:
        """Return to the foreground if the group is there."""
        if self._foreground() == group:
            with contextlib.suppress(OSError):
                os.tcsetpgrp(0, os.getpgrp())

    def _foreground(self) -> int:
        try:
            return os.tcgetpgrp(0)
        except OSError:
            return -1


@contextlib.contextmanager
def _never_return() -> Iterator[None]:
    """In a forked child: whatever happens, nothing of the parent's is carried on."""
    try:
        yield
    finally:
        os._exit(ExitCode.FAILED)


def _become(command: list[str], parent: int, wait: int, failure: int) -> None:
    """In the child: wait for the word, then become the command."""
    os.setpgid(0, 0)
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, signal.SIG_DFL)  # Python ignores them, and that is inherited
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _die_with_parent()
    if os.getppid() != parent:
        return  # it died before the line above
    with open(wait, "rb") as word:
        message = word.read()
    if not message.endswith(_GO):
        return  # the parent gave up
    environment = dict(os.environb)
    for pair in message[: -len(_GO)].split(b"\0"):
        key, _, value = pair.partition(b"=")
        environment[key] = value
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - what we are here for
    except OSError as error:
        os.write(failure, str(error.errno).encode())


def _die_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _guard(watch: int, group: int, grace: float) -> None:
    """In the guard: end the group when the parent has died, or its deadline has passed."""
    os.setpgid(0, 0)
    for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        with contextlib.suppress(OSError, ValueError):  # those of the C library's own
            signal.signal(signum, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):
        os.dup2(null, file)  # a pipe that the parent writes to ends with the parent
    deadline, last = math.inf, False
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    while True:
        # In small steps, because a wait does not count the time of a suspend.
        wait = max(0.0, min(deadline - now(), _TICK_SECONDS))
        if poll.poll(None if deadline == math.inf else math.ceil(wait * 1000)):
            words = os.read(watch, _WORD.size * 64)
            if not words:
                break  # the parent is gone
            if not last:
                deadline = _WORD.unpack(words[-_WORD.size :])[0]
        elif now() >= deadline:
            if last:
                break
            last, deadline = True, now() + grace
            end_group(group)
    _send(group, signal.SIGKILL)


def end_group(group: int) -> bool:
    """Ask every process of the group to end, also those that are stopped."""
    return _send(group, signal.SIGTERM) and _send(group, signal.SIGCONT)


def _send(group: int, signum: int) -> bool:
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it became another user's: it is there, and beyond our reach
    return True

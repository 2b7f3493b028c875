"""`tenure lock` on a terminal: what it shows, and who may read and be interrupted."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tenure

LIMIT = 20.0
TENURE = f"{shlex.quote(sys.executable)} -m tenure lock job"


class Screen:
    """A shell on a terminal of its own, and all that it has shown."""

    def __init__(self, folder: Path, *shell: str) -> None:
        self.shown = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(TENURE_URL=f"file://{folder}/locks", COLUMNS="300", PS1="$ ")
            os.execvp(shell[0], shell)

    def look(self) -> bool:
        """Read what there is to read; False if the shell is gone."""
        try:
            if select.select([self._terminal], [], [], 0.01)[0]:
                self.shown += os.read(self._terminal, 65536).decode(errors="replace")
        except OSError:  # how Linux says that the other end was closed
            return False
        return True

    def until(self, text: str) -> None:
        """Wait until the text was shown, and forget all up to there."""
        deadline = time.monotonic() + LIMIT
        while text not in self.shown:
            there = self.look()
            assert there or text in self.shown, f"no {text!r} in {self.shown!r}"
            assert time.monotonic() < deadline, f"no {text!r} in {self.shown!r}"
        self.shown = self.shown.partition(text)[2]

    def type(self, text: str) -> None:
        """Type on the keyboard."""
        os.write(self._terminal, text.encode())

    def end(self) -> int:
        """Wait for the shell's end; return its exit code."""
        deadline = time.monotonic() + LIMIT
        while self.look():
            assert time.monotonic() < deadline, self.shown
        pid, self.pid = self.pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def close(self) -> None:
        """Hang up."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._terminal)


Open = Callable[..., Screen]


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Open]:
    """Open terminals, and close them after the test."""
    with contextlib.ExitStack() as stack:

        def start(*shell: str) -> Screen:
            opened = Screen(tmp_path, *shell)
            stack.callback(opened.close)
            return opened

        yield start


def test_waiting_is_shown(screen: Open, tmp_path: Path) -> None:
    """One line says who holds the lock and for how long, and goes when the wait is over."""
    with tenure.connect(f"file://{tmp_path}/locks", owner="somebody") as coordinator:
        lease = coordinator.lock("job").acquire()
        window = screen("sh", "-c", f"{TENURE} -- echo inside")
        window.until("\r\x1b[Ktenure: 'job': waiting for 0.")
        window.until("somebody holds it for ")
        window.until("\r\x1b[Ktenure: 'job': waiting for ")  # written again
        lease.release()
    window.until("\r\x1b[K")
    window.until("inside\r\n")
    assert window.end() == 0


def test_interrupt_while_waiting(screen: Open, tmp_path: Path) -> None:
    """The interrupt key ends the wait and clears its line."""
    with tenure.connect(f"file://{tmp_path}/locks") as coordinator:
        with coordinator.lock("job"):
            window = screen("sh", "-c", f"trap : INT; {TENURE} -- echo inside; echo code $?")
            window.until("waiting for ")
            window.type("\x03")
            window.until("\r\x1b[K")
            window.until("code 130")
            assert window.end() == 0
        assert coordinator.lock("job").try_acquire() is not None


def test_interrupt_and_terminal_afterwards(screen: Open) -> None:
    """The interrupt key ends the command, and what follows may read from the terminal."""
    window = screen("sh", "-c", f"{TENURE} -- sh -c 'echo in; cat'; echo code $?; read x; echo +$x")
    window.until("in\r\n")
    window.type("one\n")
    window.until("one\r\none\r\n")  # the terminal's echo, and the command's
    window.type("\x03")
    window.until("code 130")
    window.type("two\n")
    window.until("+two")
    assert window.end() == 0


def test_pipeline(screen: Open) -> None:
    """In a pipeline the command gets the terminal when it reads from it."""
    script = "'echo in; read x; read y; echo -$x-$y-'"
    window = screen("sh", "-c", f"{TENURE} -- sh -c {script} | tr a-z A-Z; echo over")
    window.type("one\ntwo\n")
    window.until("-ONE-TWO-")
    window.until("over")
    assert window.end() == 0


def test_stop_and_continue(screen: Open) -> None:
    """The stop key stops the command and tenure; the shell's `fg` and `bg` continue both."""
    window = screen("bash", "--norc", "--noprofile", "-i")
    window.type(f"{TENURE} -- sh -c 'echo in-; while read x; do echo got-$x-; done'\n")
    window.until("in-\r\n")
    window.type("\x1a")
    window.until("Stopped")
    window.type("echo shell-$((1+1))\n")
    window.until("shell-2")
    window.type("fg\n")
    window.type("one\n")
    window.until("got-one-")
    window.type("\x1a")
    window.until("Stopped")
    window.type("bg\n")
    window.type("while jobs | grep -q Running; do :; done; echo stopped-$((1+1))\n")
    window.until("stopped-2")  # it reads, and has no terminal to read from
    window.type("fg\n")
    window.type("two\n")
    window.until("got-two-")
    window.type("\x04")
    window.type("echo code $?; exit 5\n")
    window.until("code 0")
    assert window.end() == 5


def test_background(screen: Open) -> None:
    """Started in the background, the command leaves the terminal to the shell."""
    window = screen("bash", "--norc", "--noprofile", "-i")
    window.type(f"{TENURE} -- sh -c 'echo in-; sleep 1000' &\n")
    window.until("in-\r\n")
    window.type("echo shell-$((1+1))\n")
    window.until("shell-2")
    window.type("kill %1; wait %1; echo code $?; exit 5\n")
    window.until("code 143")
    assert window.end() == 5

"""What the servers of one test process share: a folder, and a guard that outlives it.

The guard is a shell that reads a pipe whose other end only this process holds. When the
process is gone, by whatever means, the read ends; the guard then kills the servers and
removes the folder. A parent-death signal would not do: Linux sends it when the *thread*
that started the server ends, and it is lost when the server changes its user.
(A child forked from this process holds the pipe too, so the guard acts after the last.)
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

HOST = "127.0.0.1"

MEMORY = Path("/dev/shm")

_GUARD = """
pids=' '
while read -r verb pid; do
    case $verb in
    watch) pids="$pids$pid " ;;
    sweep) set -- "$@" "$pid" ;;
    forget) case $pids in *" $pid "*) pids="${pids%%" $pid "*} ${pids#*" $pid "}" ;; esac ;;
    esac
done
for pid in $pids; do kill -9 "$pid"; done
rm -rf -- "$@" || { sleep 1; rm -rf -- "$@"; }
"""


class Run:
    """The folder and the guard of one process; `current_run` makes it when first needed."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.folder = Path(tempfile.mkdtemp(prefix="tenure-servers-"))
        self.folder.chmod(0o755)  # servers that run as another user must get through
        self.closers: dict[int, Callable[[], None]] = {}
        self._swept: list[Path] = []
        self._count = 0
        self._lock = threading.Lock()
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "tenure-guard", str(self.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            start_new_session=True,  # an interrupt from the keyboard is not for the guard
        )
        atexit.register(self._close)

    def new_folder(self, kind: str) -> Path:
        """Make an empty folder that this user alone can read."""
        with self._lock:
            self._count += 1
            folder = self.folder / f"{kind}-{self._count}"
        folder.mkdir(mode=0o700)
        return folder

    def memory_folder(self, kind: str) -> Path:
        """Make an empty folder in memory, for what is synced often and need not last.

        Where there is no such place, it is made like any other.
        """
        if not os.access(MEMORY, os.W_OK | os.X_OK):
            return self.new_folder(kind)
        folder = Path(tempfile.mkdtemp(prefix=f"tenure-{kind}-", dir=MEMORY))
        self._swept.append(folder)
        self._tell(f"sweep {folder}\n")
        return folder

    def watch(self, pid: int) -> None:
        """Have the guard kill this process when the test process is gone."""
        self._tell(f"watch {pid}\n")

    def forget(self, pid: int) -> None:
        """Tell the guard that this process has ended, or needs no guard any more."""
        self._tell(f"forget {pid}\n")

    def _tell(self, line: str) -> None:
        pipe = self._guard.stdin
        if pipe is not None and os.getpid() == self.owner:
            with contextlib.suppress(BrokenPipeError):
                os.write(pipe.fileno(), line.encode())  # one write: threads do not mix lines

    def _close(self) -> None:
        if os.getpid() != self.owner:  # a forked child that leaves by sys.exit
            return
        for close in list(self.closers.values()):
            close()
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait()
        for folder in (self.folder, *self._swept):
            shutil.rmtree(folder, ignore_errors=True)


_run: Run | None = None
_run_lock = threading.Lock()


def current_run() -> Run:
    """The run of this process; a forked child gets one of its own."""
    global _run
    with _run_lock:
        if _run is None or _run.owner != os.getpid():
            _run = Run()
        return _run


def _new_lock() -> None:
    global _run_lock
    _run_lock = threading.Lock()


os.register_at_fork(after_in_child=_new_lock)


def free_port() -> int:
    """Pick a loopback port that nobody listens on, below those the kernel hands out.

    A port from the kernel's own range could be taken by an outgoing connection while the
    server is down; a client that tries again and again could even connect to itself.
    """
    try:
        lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        lowest = 32768
    top = lowest if lowest > 12000 else 65536
    for _ in range(1000):
        port = random.randrange(10000, top)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        return port
    raise OSError("no free port was found on loopback in 1000 attempts")

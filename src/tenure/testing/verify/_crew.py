"""The parent's hold on the processes that run cases, each with a backend of its own."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from ..._model import Server
from ..._ungated import UNGATED

START_SECONDS_MAX = 120.0
STOP_SECONDS_MAX = 60.0


class WorkerLost(Exception):
    """The process has ended, or had to be ended because it gave no answer in time."""


class WorkFailed(Exception):
    """What was ordered raised an error, which the text names."""


def ungated(**more: str) -> dict[str, str]:
    """The environment of what earns a level, and so cannot be asked for one."""
    demanded = {"TENURE_MIN_LEVEL"}
    own = {key: value for key, value in os.environ.items() if key not in demanded}
    return own | {UNGATED: "1"} | more


class Source(NamedTuple):
    """What a worker starts: a recipe of a manifest, or the URL of somebody's own server."""

    recipe: str = ""
    url: str = ""


class Up(NamedTuple):
    """What a worker says once its backend is up."""

    url: str
    server: Server
    seconds: float


class Worker:
    """One process and its backend. After it was lost, the next order makes another.

    data: where its coverage is written to, as a prefix of file names; empty to measure none.
    sources: the files whose coverage is measured.
    """

    def __init__(self, source: Source, data: str = "", sources: Sequence[Path] = ()) -> None:
        self._source = source
        self._data = data
        self._sources = [str(path) for path in sources] if data else []
        self.namespaces = set[str]()
        """All that somebody in the process has connected to."""
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None
        self._log: Any = None
        self._started = 0

    def up(self) -> Up:
        """Start process and backend, if they are not up.

        Raises `WorkFailed` if the backend cannot be brought up or reached.
        """
        if self._process is None:
            self._start()
            try:
                self.known: Up = self._ask(START_SECONDS_MAX, "start", tuple(self._source))
            except (WorkFailed, WorkerLost) as error:
                self.end()
                raise WorkFailed(str(error)) from error
        return self.known

    def do(self, seconds: float, verb: str, *arguments: Any) -> Any:
        """Have something done; `WorkFailed` tells its error, `WorkerLost` that it did not end."""
        self.up()
        return self._ask(seconds, verb, arguments)

    def close(self) -> None:
        """Let it stop its backend, and write down its coverage."""
        if self._connection is not None:
            with contextlib.suppress(WorkerLost, WorkFailed):
                self._send(None)
                self._answer(STOP_SECONDS_MAX, "its end")
        self.end()

    def end(self) -> None:
        """End the process with all that it has started; harmless the second time."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.wait()
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._log is not None:
            self._log.close()
            self._log = None

    def _start(self) -> None:
        self._started += 1
        data = f"{self._data}.{self._started}" if self._data else ""
        ours, theirs = socket.socketpair()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - `end` closes it
        with theirs:
            module = f"{__package__}._worker"
            command = [sys.executable, "-P", "-m", module, str(theirs.fileno()), data]
            self._process = subprocess.Popen(
                [*command, *self._sources],
                env=ungated(),
                stdin=subprocess.DEVNULL,
                stdout=self._log,  # cases print, and break what then says so
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
            )
        self._connection = Connection(ours.detach())

    def _ask(self, seconds: float, verb: str, arguments: tuple[Any, ...]) -> Any:
        self._send((verb, arguments))
        return self._answer(seconds, verb)

    def _send(self, order: Any) -> None:
        assert self._connection is not None
        try:
            self._connection.send(order)
        except OSError:
            raise self._lost("it has ended") from None

    def _answer(self, seconds: float, what: str) -> Any:
        assert self._connection is not None
        try:
            if not self._connection.poll(seconds):
                raise self._lost(f"no answer in {seconds:g} s")
            kind, value, used = self._connection.recv()
        except (EOFError, OSError):
            raise self._lost("its process has ended") from None
        self.namespaces.update(used)
        if kind == "failed":
            raise WorkFailed(value)
        return value

    def _lost(self, text: str) -> WorkerLost:
        tail = ""
        if self._log is not None:
            self._log.seek(0)
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            tail = f"; the last that it said: {lines[-1][:200]}" if lines else ""
        self.end()
        return WorkerLost(text + tail)

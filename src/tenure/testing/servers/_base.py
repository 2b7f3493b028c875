"""The base of every test server: start, stop, kill, pause, resume, restart."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self
from urllib.parse import quote

from . import _proc
from ._network import Place
from ._run import HOST, Run, current_run, free_port
from ._tls import Certificates
from ._tools import ServerFailed, environment, find_program, identity

START_LIMIT = 30.0
STOP_LIMIT = 20.0
PROBE_LIMIT = 1.0
_TRIES = 5
_TAIL_LINES = 25


class _PortTaken(Exception):
    pass


class Server(ABC):
    """One private server process on loopback; as a context manager it starts and closes.

    `port` and the data stay the same through `stop`, `kill` and `restart`. Its methods
    are for one thread at a time. `settings` goes into the server's own configuration.
    """

    kind: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    host = HOST

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        mutual_tls: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.user = user
        self.password = password
        self.tls = tls or mutual_tls
        self.mutual_tls = mutual_tls
        self.settings = dict(settings or {})
        self.port = 0
        self._prefix: tuple[str, ...] = ()
        self._paused: list[int] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._run: Run | None = None
        self._folder: Path | None = None
        self._certificates: Certificates | None = None

    # What a subclass says about its server.

    @abstractmethod
    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""

    @abstractmethod
    def _prepare(self) -> None:
        """Write configuration and data; before each attempt at the first start."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """The command line; the process that it starts must be the server itself."""

    @abstractmethod
    def _ready(self) -> bool:
        """Ask the server once whether it serves, for no longer than `PROBE_LIMIT`."""

    def _finish(self) -> None:
        """Make users and the like, once, when the server answers for the first time."""

    def _account(self) -> str | None:
        """The system user to run as, or None for the present one."""
        return None

    def _draw_ports(self) -> None:
        self.port = free_port()

    # What everybody uses.

    @property
    def url(self) -> str:
        """The URL to connect with, including the password and where the certificates are."""
        return self.url_at(self.port)

    @property
    def folder(self) -> Path:
        """The server's own folder, with its data, its configuration and its log."""
        if self._folder is None:
            self._run = current_run()
            self._folder = self._run.new_folder(self.kind)
        return self._folder

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerFailed(f"{self.kind} is not running")
        return self._process.pid

    @property
    def ca(self) -> Path:
        """The certificate of the authority that signed the server's and the client's."""
        return self.certificates.ca

    @property
    def cert(self) -> Path:
        """A client's certificate that the server accepts."""
        return self.certificates.cert

    @property
    def key(self) -> Path:
        """The private key to `cert`."""
        return self.certificates.key

    @property
    def certificates(self) -> Certificates:
        """The certificates of this server; they are made once per run."""
        if not self.tls:
            raise ServerFailed(f"{self.kind} was set up without TLS")
        if self._certificates is None:
            folder = self.folder  # sees to the run
            assert self._run is not None
            common = Certificates.of_run(self._run.folder, find_program("openssl", "openssl"))
            self._certificates = common.install(folder, self._account())
        return self._certificates

    def settle(self, place: Place) -> None:
        """Have the server run on a host of a `Network`; before its first start."""
        self.host, self._prefix = place

    def alive(self) -> bool:
        """Whether the server's process runs (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start the server and return once it serves; nothing to do if it already runs."""
        if self.alive():
            return self
        self._forget()
        if self.port:
            try:
                self._launch()
            except _PortTaken as error:
                raise ServerFailed(f"{self.kind}: {error}") from None
            return self
        for left in reversed(range(_TRIES)):
            self._draw_ports()
            self._prepare()
            try:
                self._launch()
                self._finish()
            except _PortTaken as error:
                self.port = 0
                if not left:
                    raise ServerFailed(f"{self.kind}: {error}") from None
            except BaseException:
                self.port = 0
                self.kill()
                raise
            else:
                break
        return self

    def stop(self) -> None:
        """Shut the server down in good order; its port and its data stay for `start`."""
        if self.alive():
            self.resume()
            _proc.send(self.pid, self.stop_signal)
            try:
                self._wait(STOP_LIMIT)
            except subprocess.TimeoutExpired:
                self.kill()
                raise ServerFailed(self._with_log(f"did not stop in {STOP_LIMIT:g} s")) from None
        self._forget()

    def kill(self) -> None:
        """End the server at once with SIGKILL, and every process it has started."""
        if self.alive():
            # Stopped first, so that none of them can start another meanwhile.
            family = _proc.freeze(self.pid, STOP_LIMIT)
            for pid in family:
                _proc.send(pid, signal.SIGKILL)
            self._wait(STOP_LIMIT)
            if not _proc.until(lambda: all(map(_proc.gone, family)), STOP_LIMIT):
                raise ServerFailed(f"{self.kind}: processes {family} outlived SIGKILL")
        self._forget()

    def pause(self) -> None:
        """Stop the server's processes with SIGSTOP; on return every one of them has stopped."""
        if not self.alive():
            raise ServerFailed(f"{self.kind} is not running")
        self._paused = _proc.freeze(self.pid, STOP_LIMIT)
        if self._run is not None:
            for pid in self._paused[1:]:  # a stopped child would not notice its parent's end
                self._run.watch(pid)

    def resume(self) -> None:
        """Let a paused server go on."""
        if self.alive():
            _proc.thaw(self.pid)
        self._unwatch_paused()

    def restart(self, *, graceful: bool = True) -> None:
        """Stop or kill the server and start it again on the same port with the same data."""
        if graceful:
            self.stop()
        else:
            self.kill()
        self.start()

    def close(self) -> None:
        """Kill the server and remove its folder; a later `start` begins anew."""
        self.kill()
        if self._run is not None and self._folder is not None and self._run.owner == os.getpid():
            self._run.closers.pop(id(self), None)
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._certificates = self._run = None
        self.port = 0

    def log_tail(self) -> str:
        """The last lines that the server has written."""
        try:
            lines = (self.folder / "log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_TAIL_LINES:])

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.alive() else "down"
        return f"<{type(self).__name__} {self.host}:{self.port} {state}>"

    # How it is done.

    def _launch(self) -> None:
        command = [*self._prefix, *self._command()]
        folder = self.folder
        assert self._run is not None
        self._run.closers[id(self)] = self.kill
        with (folder / "log").open("ab") as log:
            mark = log.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=environment(folder),
                start_new_session=True,
                **identity(self._account()),
            )
        self._run.watch(self._process.pid)
        deadline = time.monotonic() + START_LIMIT
        while self.alive():
            if self._listening() and self._ready():
                return
            if time.monotonic() >= deadline:
                problem = self._with_log(f"was not ready after {START_LIMIT:g} s")
                self.kill()
                raise ServerFailed(problem)
            time.sleep(0.01)
        code = self._process.returncode
        self._forget()
        with (folder / "log").open("rb") as log:
            log.seek(mark)
            taken = re.search(rb"address already in use", log.read(), re.IGNORECASE)
        if taken:
            raise _PortTaken(f"port {self.port} was taken by someone else")
        raise ServerFailed(self._with_log(f"ended at start with status {code}"))

    def _listening(self) -> bool:
        return _proc.listens(self.pid, self.port)

    def _wait(self, limit: float) -> None:
        if self._process is not None:
            self._process.wait(limit)

    def _forget(self) -> None:
        if self._process is not None and self._run is not None:
            self._run.forget(self._process.pid)
        self._unwatch_paused()
        self._process = None

    def _unwatch_paused(self) -> None:
        for pid in self._paused[1:]:
            if self._run is not None:
                self._run.forget(pid)
        self._paused = []

    def _with_log(self, problem: str) -> str:
        tail = self.log_tail()
        return f"{self.kind} {problem}" + (f"; its log ends:\n{tail}" if tail else "")

    def _authority(self, port: int) -> str:
        """`user:password@host:port`, escaped for a URL."""
        user = quote(self.user, safe="") if self.user else ""
        secret = "" if self.password is None else ":" + quote(self.password, safe="")
        return f"{user}{secret}{'@' if user or secret else ''}{self.host}:{port}"

    def _tls_options(self) -> dict[str, str]:
        """The URL's options for a client that speaks TLS."""
        if not self.tls:
            return {}
        options = {"ca": str(self.ca)}
        if self.mutual_tls:
            options |= {"cert": str(self.cert), "key": str(self.key)}
        return options

    def _ssl_context(self) -> ssl.SSLContext | None:
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca)
        context.load_cert_chain(self.cert, self.key)
        return context

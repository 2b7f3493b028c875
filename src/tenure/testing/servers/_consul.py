"""A private Consul: one server, or three that form a cluster."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import quote, urlencode

from ._base import PROBE_LIMIT, START_LIMIT, Server
from ._run import free_port
from ._tools import ServerFailed, ServerMissing, find_program, write_private

_CALL_LIMIT = 10.0
_TTL_MIN = "100ms"


class ConsulServer(Server):
    """A Consul server that keeps its data on disk.

    With a password, access control is on, everything is denied by default, and the password is
    the token that may do anything. `settings` are added to the configuration; a value is JSON.
    """

    kind: ClassVar[str] = "consul"
    # A server that is asked to leave waits for others to notice; its data is safe anyway.
    stop_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        mutual_tls: bool = False,
        settings: Mapping[str, str] | None = None,
        development: bool = False,
    ) -> None:
        super().__init__(
            user=user, password=password, tls=tls, mutual_tls=mutual_tls, settings=settings
        )
        self.development = development
        self.peers: Sequence[ConsulServer] = (self,)
        """The servers of its cluster, itself among them."""
        self.server_port = 0
        self.serf_port = 0
        self._data: Path | None = None

    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""
        options = urlencode(self._tls_options())
        scheme = "consul+https" if self.tls else "consul"
        secret = "" if self.password is None else f":{quote(self.password, safe='')}@"
        return f"{scheme}://{secret}{self.host}:{port}{'?' if options else ''}{options}"

    def call(self, verb: str, path: str, body: object = None, token: str | None = None) -> Any:
        """Call the HTTP API, as root: `call("PUT", "kv/name", b"value")`; `path` is after `/v1/`.

        Returns the answer's JSON, None for "not found". A refusal raises `ServerFailed`, no
        connection `OSError`.
        """
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        status, text = self._ask(verb, path, data, token or self.password, _CALL_LIMIT)
        if status == 404:
            return None
        if status != 200:
            raise ServerFailed(f"consul refused {path} with status {status}: {text}")
        return json.loads(text)

    def leads(self) -> bool:
        """Whether this server is the leader of its cluster."""
        with contextlib.suppress(OSError, ServerFailed):
            leader = self.call("GET", "status/leader")
            return bool(leader == f"{self.host}:{self.server_port}")
        return False

    def _ask(
        self, verb: str, path: str, body: bytes | None, token: str | None, limit: float
    ) -> tuple[int, str]:
        context = self._ssl_context()
        link: http.client.HTTPConnection
        if context is None:
            link = http.client.HTTPConnection(self.host, self.port, timeout=limit)
        else:
            link = http.client.HTTPSConnection(self.host, self.port, timeout=limit, context=context)
        try:
            link.request(verb, f"/v1/{path}", body, {"X-Consul-Token": token} if token else {})
            reply = link.getresponse()
            return reply.status, reply.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise ConnectionError(f"consul did not answer in HTTP: {error}") from error
        finally:
            link.close()

    def _draw_ports(self) -> None:
        self.port, self.server_port, self.serf_port = free_port(), free_port(), free_port()

    def _prepare(self) -> None:
        # What a failed attempt wrote has the ports of that attempt in it.
        self._forget_data()
        folder = self.folder  # sees to the run
        assert self._run is not None
        # Consul syncs every write, and cannot be told not to.
        self._data = self._run.memory_folder("consul")
        write_private(folder / "consul.json", json.dumps(self._configuration()))

    def _forget_data(self) -> None:
        if self._data is not None:
            shutil.rmtree(self._data, ignore_errors=True)
        self._data = None

    def close(self) -> None:
        """Kill the server and remove its data; a later `start` begins anew."""
        super().close()
        self._forget_data()

    def _configuration(self) -> dict[str, Any]:
        here = "https" if self.tls else "http"
        ports = {"http": -1, "https": -1, "dns": -1, "grpc": -1, "serf_wan": -1}
        others = [peer for peer in self.peers if peer is not self]
        configuration: dict[str, Any] = {
            "node_name": f"tenure-{self.server_port}",
            "bind_addr": self.host,
            "client_addr": self.host,
            "datacenter": "dc1",
            "server": True,
            "session_ttl_min": _TTL_MIN,
            # All of a test's clients have one address; the kit makes hundreds.
            "limits": {"http_max_conns_per_client": 2000},
            "disable_update_check": True,
            "disable_host_node_id": True,
            "leave_on_terminate": False,
            "log_level": "warn",
            "ports": ports
            | {here: self.port, "server": self.server_port, "serf_lan": self.serf_port},
        }
        if not self.development:
            configuration |= {
                "data_dir": str(self._data),
                "bootstrap_expect": len(self.peers),
                "retry_join": [f"{peer.host}:{peer.serf_port}" for peer in others],
                "retry_interval": "200ms",
                # What the documentation advises for production; elections take a second or two.
                "performance": {"raft_multiplier": 1},
            }
        if self.tls:
            configuration |= {
                "cert_file": str(self.certificates.server_cert),
                "key_file": str(self.certificates.server_key),
                "ca_file": str(self.ca),
                "verify_incoming_https": self.mutual_tls,
            }
        if self.password is not None:
            access = {"enabled": True, "default_policy": "deny", "down_policy": "deny"}
            configuration["acl"] = access | {"tokens": {"master": self.password}}
        return configuration | {key: json.loads(text) for key, text in self.settings.items()}

    def _command(self) -> Sequence[str]:
        command = [find_consul(), "agent", "-config-file", str(self.folder / "consul.json")]
        return [*command, "-dev"] if self.development else command

    def _ready(self) -> bool:
        if self._cluster_forms:
            return True  # a server alone cannot lead; the cluster asks when all have started
        return self.serves()

    _cluster_forms = False

    def serves(self) -> bool:
        """Whether it can read what a majority of its cluster agrees on."""
        try:
            path = "kv/tenure-probe?consistent"
            status, text = self._ask("GET", path, None, self.password, PROBE_LIMIT)
        except OSError:
            return False
        return status == 404 and not text


class ConsulCluster:
    """Three Consul servers; any of them serves clients."""

    def __init__(self) -> None:
        self.servers = [ConsulServer() for _ in range(3)]
        for server in self.servers:
            server.peers = self.servers

    @property
    def url(self) -> str:
        """The URL that names all three."""
        hosts = ",".join(f"{server.host}:{server.port}" for server in self.servers)
        return f"consul://{hosts}"

    @property
    def leader(self) -> ConsulServer:
        """The server that leads now; waits for one."""
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            for server in self.servers:
                if server.alive() and server.leads():
                    return server
            time.sleep(0.02)
        raise ServerFailed(f"the Consul cluster had no leader for {START_LIMIT:g} s")

    def start(self) -> Self:
        """Start all three, and return when each of them serves."""
        for server in self.servers:
            server._draw_ports()
        for server in self.servers:
            server._prepare()
            server._cluster_forms = True
            try:
                server.start()
            finally:
                server._cluster_forms = False
        deadline = time.monotonic() + START_LIMIT
        while not all(server.serves() for server in self.servers):
            if time.monotonic() > deadline:
                self.close()
                raise ServerFailed(f"the Consul cluster did not serve within {START_LIMIT:g} s")
            time.sleep(0.02)
        return self

    def close(self) -> None:
        """Kill all three and remove their folders."""
        for server in self.servers:
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def find_consul() -> str:
    """The path of a consul: from the PATH, or where scripts/get-consul puts it."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    try:
        return find_program("consul", "consul", (str(Path(home) / "tenure"),))
    except ServerMissing:
        raise ServerMissing(
            "consul is not installed: run scripts/get-consul (or scripts/test), "
            "or put a consul of version 1.7 or newer into the PATH"
        ) from None

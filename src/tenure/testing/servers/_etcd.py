"""A private etcd of one member."""

from __future__ import annotations

import base64
import functools
import http.client
import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlencode

from ._base import PROBE_LIMIT, Server
from ._run import free_port
from ._tools import ServerFailed, find_program

_PACKAGE = "etcd-server"
_CALL_LIMIT = 10.0


class EtcdServer(Server):
    """etcd; with a password, authentication is on and `user` (root by default) has it."""

    kind: ClassVar[str] = "etcd"
    schemes: ClassVar[tuple[str, str]] = ("etcd", "etcds")
    """Those of the URL without TLS and with it."""

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        mutual_tls: bool = False,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        user = user or (None if password is None else "root")
        super().__init__(
            user=user, password=password, tls=tls, mutual_tls=mutual_tls, settings=settings
        )
        self.peer_port = 0

    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""
        options = urlencode(self._tls_options())
        scheme = self.schemes[self.tls]
        return f"{scheme}://{self._authority(port)}{'?' if options else ''}{options}"

    def call(self, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """Call the JSON gateway as root: `call("kv/range", {"key": encode("a")})`.

        A refusal raises `ServerFailed`; no connection raises `OSError`.
        """
        headers = {}
        if self.password is not None and self._secured:
            login = {"name": "root", "password": self.password}
            headers["Authorization"] = self._post("auth/authenticate", login, {})["token"]
        return self._post(path, body or {}, headers)

    @staticmethod
    def encode(text: str | bytes) -> str:
        """A key or a value as the gateway wants it."""
        return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()

    _secured = False

    def _post(
        self, path: str, body: Mapping[str, object], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        status, text = self._ask("POST", f"/v3/{path}", json.dumps(body), headers, _CALL_LIMIT)
        if status != 200:
            raise ServerFailed(f"etcd refused {path} with status {status}: {text}")
        answer: dict[str, Any] = json.loads(text)
        return answer

    def _ask(
        self, verb: str, path: str, body: str, headers: Mapping[str, str], limit: float
    ) -> tuple[int, str]:
        context = self._ssl_context()
        link: http.client.HTTPConnection
        if context is None:
            link = http.client.HTTPConnection(self.host, self.port, timeout=limit)
        else:
            link = http.client.HTTPSConnection(self.host, self.port, timeout=limit, context=context)
        try:
            link.request(verb, path, body or None, dict(headers))
            reply = link.getresponse()
            return reply.status, reply.read().decode(errors="replace")
        except http.client.HTTPException as error:
            raise ConnectionError(f"etcd did not answer in HTTP: {error}") from error
        finally:
            link.close()

    def _draw_ports(self) -> None:
        self.port, self.peer_port = free_port(), free_port()

    def _prepare(self) -> None:
        # What a failed attempt wrote has the ports of that attempt in it.
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        self._secured = False

    def _command(self) -> Sequence[str]:
        program = find_program("etcd", _PACKAGE)
        here = f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"
        peer = f"http://{self.host}:{self.peer_port}"
        settings = {
            "name": "tenure",
            "data-dir": str(self.folder / "data"),
            "listen-client-urls": here,
            "advertise-client-urls": here,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"tenure={peer}",
            "logger": "zap",
            "log-level": "error",
        }
        if self.tls:
            settings |= {
                "cert-file": str(self.certificates.server_cert),
                "key-file": str(self.certificates.server_key),
            }
            # An etcd that knows an authority for clients wants their certificates.
            if self.mutual_tls:
                settings |= {"trusted-ca-file": str(self.ca), "client-cert-auth": "true"}
        if "unsafe-no-fsync" in _help(program):  # since 3.5
            settings["unsafe-no-fsync"] = "true"
        return [program, *(f"--{key}={value}" for key, value in (settings | self.settings).items())]

    def _ready(self) -> bool:
        try:
            status, text = self._ask("GET", "/health", "", {}, PROBE_LIMIT)
        except OSError:
            return False
        return status == 200 and '"true"' in text

    def _finish(self) -> None:
        if self.password is None:
            return
        self.call("auth/user/add", {"name": "root", "password": self.password})
        self.call("auth/role/add", {"name": "root"})
        self.call("auth/user/grant", {"user": "root", "role": "root"})
        if self.user != "root":
            self.call("auth/user/add", {"name": self.user, "password": self.password})
            self.call("auth/role/add", {"name": "everything"})
            # From the empty key to the end of all keys.
            whole = {"permType": "READWRITE", "key": "AA==", "range_end": "AA=="}
            self.call("auth/role/grant", {"name": "everything", "perm": whole})
            self.call("auth/user/grant", {"user": self.user, "role": "everything"})
        self.call("auth/enable")
        self._secured = True


class EtcdGatewayServer(EtcdServer):
    """etcd, for clients of its HTTP gateway."""

    schemes: ClassVar[tuple[str, str]] = ("etcd3+http", "etcd3+https")


@functools.cache
def _help(program: str) -> str:
    done = subprocess.run(
        [program, "--help"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_CALL_LIMIT,
        check=False,
    )
    return done.stdout.decode(errors="replace")

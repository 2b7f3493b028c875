"""A private Redis, and just enough of its protocol to ask it something."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from ._base import PROBE_LIMIT, Server
from ._tools import ServerFailed, find_program, write_private


class RedisServer(Server):
    """Redis; by default it forgets everything when it stops.

    With `password` alone, that is the default user's; with `user` too, only that user may
    connect. With `persistent` each write is on disk before it is answered.
    """

    kind: ClassVar[str] = "redis"

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        tls: bool = False,
        mutual_tls: bool = False,
        persistent: bool = False,
        replica_of: RedisServer | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            user=user, password=password, tls=tls, mutual_tls=mutual_tls, settings=settings
        )
        self.persistent = persistent
        self.replica_of = replica_of

    @property
    def unix_socket(self) -> Path:
        """The path of the socket file that the server listens on as well."""
        return self.folder / "redis.sock"

    @property
    def unix_url(self) -> str:
        """The URL that connects over the socket file."""
        userinfo = self._authority(0).rpartition("@")[0]
        return f"unix://{userinfo}{'@' if userinfo else ''}{quote(str(self.unix_socket))}?db=0"

    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""
        options = urlencode(self._tls_options())
        scheme = "rediss" if self.tls else "redis"
        return f"{scheme}://{self._authority(port)}/0{'?' if options else ''}{options}"

    def command(self, *words: str | int) -> Any:
        """Carry out one command over a connection of its own and return the reply.

        Text comes as bytes. A refusal raises `ServerFailed`, no connection `OSError`.
        """
        words = tuple(map(str, words))
        with contextlib.ExitStack() as stack:
            link: socket.socket = socket.create_connection((self.host, self.port), PROBE_LIMIT)
            stack.callback(lambda: link.close())
            context = self._ssl_context()
            if context is not None:
                link = context.wrap_socket(link, server_hostname="localhost")
            replies = stack.enter_context(link.makefile("rb"))
            if self.password is not None:
                login = (self.user, self.password) if self.user else (self.password,)
                link.sendall(_encode(("AUTH", *login)))
                _decode(replies)
            link.sendall(_encode(words))
            return _decode(replies)

    def _prepare(self) -> None:
        write_private(self.folder / "redis.conf", "\n".join([*self._config(), ""]))

    def _config(self) -> Sequence[str]:
        lines = [
            f"bind {self.host}",
            f"port {0 if self.tls else self.port}",
            f'dir "{self.folder}"',
            f'unixsocket "{self.unix_socket}"',
            "unixsocketperm 700",
            'save ""',
            "daemonize no",
            f"appendonly {'yes' if self.persistent else 'no'}",
            "appendfsync always",
            "repl-diskless-sync-delay 0",
        ]
        if self.tls:
            certificates = self.certificates
            lines += [
                f"tls-port {self.port}",
                f'tls-ca-cert-file "{certificates.ca}"',
                f'tls-cert-file "{certificates.server_cert}"',
                f'tls-key-file "{certificates.server_key}"',
                f"tls-auth-clients {'yes' if self.mutual_tls else 'optional'}",
                "tls-replication yes",
            ]
        if self.password is not None:
            if self.user:
                lines += ["user default off", f"user {self.user} on >{self.password} ~* &* +@all"]
                lines.append(f"masteruser {self.user}")
            else:
                lines.append(f'requirepass "{self.password}"')
            lines.append(f'masterauth "{self.password}"')
        if self.replica_of is not None:
            lines.append(f"replicaof {self.replica_of.host} {self.replica_of.port}")
        return lines + [f"{key} {value}" for key, value in self.settings.items()]

    def _command(self) -> Sequence[str]:
        program = find_program("redis-server", "redis-server")
        return [program, str(self.folder / "redis.conf")]

    def _ready(self) -> bool:
        try:
            return bool(self.command("PING") == b"PONG")
        except (OSError, ServerFailed):  # not listening yet, or still loading its data
            return False


def _encode(words: Sequence[object]) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    for word in words:
        data = str(word).encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def _decode(replies: BufferedReader) -> Any:
    line = replies.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionError("redis closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"-":
        raise ServerFailed(f"redis refused: {rest.decode(errors='replace')}")
    size = int(rest)
    if size < 0:
        return None
    if kind == b"$":
        return replies.read(size + 2)[:-2]
    if kind == b"*":
        return [_decode(replies) for _ in range(size)]
    raise ServerFailed(f"redis answered {line!r}")

"""A private memcached, and just enough of its protocol to ask it something."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import urlencode

from ._base import PROBE_LIMIT, Server
from ._tools import ServerFailed, find_program, write_private


class MemcachedServer(Server):
    """memcached; it forgets everything when it stops.

    With a password, clients have to log in. `settings` are its command line's options, by
    letter or by name: `{"m": "2"}` gives it two megabytes, and `{"M": ""}` has no value.
    `options` are what the URL says beside the address.
    """

    kind: ClassVar[str] = "memcached"

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        user = user or (None if password is None else "tenure")
        super().__init__(user=user, password=password, settings=settings)
        self.options = dict(options or {})

    def url_at(self, port: int) -> str:
        """The backend URL with another port: that of a proxy, for instance."""
        options = urlencode(self.options)
        return f"memcached://{self._authority(port)}{'?' if options else ''}{options}"

    def request(self, *requests: bytes) -> list[bytes]:
        """Send requests over a connection of its own; the lines of all replies, values included.

        The requests are without the end of the line. No connection raises `OSError`.
        """
        with socket.create_connection((self.host, self.port), PROBE_LIMIT) as link:
            if self.password is not None:
                login = f"{self.user} {self.password}".encode()
                link.sendall(b"set login 0 0 %d\r\n%b\r\n" % (len(login), login))
                if link.recv(1024) != b"STORED\r\n":
                    raise ServerFailed("memcached refused the login")
            # What "mn" answers comes last.
            link.sendall(b"\r\n".join([*requests, b"mn", b""]))
            data = b""
            while not (data == b"MN\r\n" or data.endswith(b"\r\nMN\r\n")):
                piece = link.recv(65536)
                if not piece:
                    raise ConnectionError("memcached closed the connection")
                data += piece
        return data.split(b"\r\n")[:-2]

    def stats(self, what: str = "") -> dict[str, str]:
        """The server's statistics, or those of a kind."""
        lines = self.request(f"stats {what}".strip().encode())
        words = [line.decode().split(" ", 2) for line in lines]
        return {each[1]: each[2] for each in words if each[0] == "STAT" and len(each) == 3}

    def _prepare(self) -> None:
        if self.password is not None:
            write_private(self.folder / "users", f"{self.user}:{self.password}\n")

    def _command(self) -> Sequence[str]:
        program = find_program("memcached", "memcached")
        settings = {"l": self.host, "p": str(self.port), "U": "0", "m": "64"} | self.settings
        if os.geteuid() == 0:
            settings.setdefault("u", "root")  # the folder is ours alone
        if self.password is not None:
            settings["Y"] = str(self.folder / "users")
        words = []
        for key, value in settings.items():
            words += [f"-{key}" if len(key) == 1 else f"--{key}", *([value] if value else [])]
        return [program, *words]

    def _ready(self) -> bool:
        try:
            return bool(self.stats().get("pid"))
        except (OSError, ServerFailed):
            return False

"""What the conformance kit must know of a backend: how it starts, and how to reach it.

The author of another driver derives from `Backend`, and from `servers.Server` for its
server, and hands the class to `tenure.testing.kit.conformance`.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from .._model import Traits
from .._url import Url
from ..drivers import registry
from .servers import EtcdServer, PostgresServer, RedisServer, Server


class Backend(ABC):
    """One backend, started once for a whole suite."""

    name: ClassVar[str]
    """As it appears in the table of results."""
    scheme: ClassVar[str]
    """The URL scheme under which the driver is registered."""
    server: Server | None = None
    """The server to restart, pause and cut off; None if the backend has none."""

    @abstractmethod
    def start(self) -> None:
        """Bring the backend up."""

    @abstractmethod
    def stop(self) -> None:
        """Take the backend down and leave nothing behind."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL to connect with."""

    @abstractmethod
    def footprint(self, namespace: str) -> int:
        """How many claims or locks the backend keeps now, of one namespace if it can tell.

        The kit compares two counts to find what an acquire left behind. The namespaces
        that it asks for have plain names of letters, digits and hyphens.
        """

    @classmethod
    def traits(cls) -> Traits:
        """What the driver claims."""
        return registry.find(Url(cls.scheme)).traits


class MemoryBackend(Backend):
    """A dictionary in this process."""

    name = "memory"
    scheme = "memory"

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    @property
    def url(self) -> str:
        return "memory://kit"

    def footprint(self, namespace: str) -> int:
        from ..drivers.memory import stored_claims

        return stored_claims("kit", namespace)


class FileBackend(Backend):
    """A folder of files."""

    name = "file"
    scheme = "file"
    _folder = ""

    def start(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="tenure-kit-")

    def stop(self) -> None:
        shutil.rmtree(self._folder)

    @property
    def url(self) -> str:
        return f"file://{self._folder}"

    def footprint(self, namespace: str) -> int:
        with os.scandir(os.path.join(self._folder, namespace)) as files:
            inodes = {str(file.inode()) for file in files}
        with open("/proc/locks", encoding="ascii") as table:
            locks = [line.split() for line in table if "FLOCK" in line]
        held = sum(word.rpartition(":")[2] in inodes for words in locks for word in words)
        rosters = Path(self._folder, namespace, "rosters").glob("*.json")
        return held + sum(map(self._claims, rosters))

    @staticmethod
    def _claims(roster: Path) -> int:
        lines = roster.read_text().splitlines()
        return len(json.loads(lines[1])["claims"]) if lines else 0


class ServerBackend(Backend):
    """A backend with a server of its own."""

    server: Server

    @abstractmethod
    def make_server(self) -> Server:
        """A server that is not started yet."""

    def start(self) -> None:
        self.server = self.make_server()
        self.server.start()

    def stop(self) -> None:
        self.server.close()

    @property
    def url(self) -> str:
        return self.server.url


class RedisBackend(ServerBackend):
    """One Redis without persistence."""

    name = "redis"
    scheme = "redis"
    server: RedisServer

    def make_server(self) -> RedisServer:
        return RedisServer()

    def footprint(self, namespace: str) -> int:
        command, start = self.server.command, f"tenure:{{{namespace}}}:"
        # What is left of a claim in another key counts like the claim.
        listing = {b"r:": ("ZRANGE", 0, -1), b"h:": ("ZRANGE", 0, -1), b"b:": ("HKEYS",)}
        claims: set[tuple[bytes, bytes]] = set()
        for key in command("KEYS", start + "*"):
            kind, name = key[len(start) :][:2], key[len(start) + 2 :]
            if kind in listing:
                verb, *ends = listing[kind]
                claims.update((name, member) for member in command(verb, key.decode(), *ends))
        return len(claims)


class PostgresqlBackend(ServerBackend):
    """One PostgreSQL."""

    name = "postgresql"
    scheme = "postgresql"
    server: PostgresServer

    def make_server(self) -> PostgresServer:
        return PostgresServer()

    def footprint(self, namespace: str) -> int:
        import psycopg

        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
        claims = "SELECT count(*) FROM tenure_claim WHERE namespace = %s"
        with psycopg.connect(self.url, autocommit=True) as connection:
            row = connection.execute(locks).fetchone()
            assert row is not None
            count = int(row[0])
            exists = connection.execute("SELECT to_regclass('tenure_claim')").fetchone()
            if exists is not None and exists[0] is not None:
                row = connection.execute(claims, (namespace,)).fetchone()
                assert row is not None
                count += int(row[0])
        return count


class EtcdBackend(ServerBackend):
    """One etcd."""

    name = "etcd"
    scheme = "etcd"
    server: EtcdServer

    def make_server(self) -> EtcdServer:
        return EtcdServer()

    def footprint(self, namespace: str) -> int:
        encode = self.server.encode
        start = f"/tenure/{namespace}/"
        body = {"key": encode(start), "range_end": encode(start[:-1] + "0"), "keys_only": True}
        found = self.server.call("kv/range", body).get("kvs", [])
        keys = [base64.b64decode(each["key"]) for each in found]
        # A session's own key and a record are no claims.
        return len([key for key in keys if b"//" not in key and b"/!/" not in key])


BACKENDS: tuple[type[Backend], ...] = (
    MemoryBackend,
    FileBackend,
    RedisBackend,
    PostgresqlBackend,
    EtcdBackend,
)

"""Redis with a replica and three sentinels that put it in the master's place."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import ClassVar, Self

from . import _proc
from ._base import START_LIMIT, Server
from ._redis import RedisServer
from ._tools import ServerFailed, find_program, write_private

_SENTINELS = 3
_QUORUM = 2


class RedisSentinel(RedisServer):
    """One sentinel that watches a master; it rewrites its own configuration."""

    kind: ClassVar[str] = "sentinel"

    def __init__(self, master: RedisServer, name: str, settings: Mapping[str, str]) -> None:
        super().__init__(settings=settings)
        self.master = master
        self.name = name

    def state(self) -> dict[str, str]:
        """What the sentinel knows of the master: ip, port, num-slaves, flags and more."""
        flat = [part.decode() for part in self.command("SENTINEL", "MASTER", self.name)]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def _config(self) -> Sequence[str]:
        master, name = self.master, self.name
        lines = [
            f"bind {self.host}",
            f"port {self.port}",
            f'dir "{self.folder}"',
            f"sentinel monitor {name} {master.host} {master.port} {_QUORUM}",
        ]
        if master.password is not None:
            if master.user:
                lines.append(f"sentinel auth-user {name} {master.user}")
            lines.append(f"sentinel auth-pass {name} {master.password}")
        return lines + [f"sentinel {key} {name} {value}" for key, value in self.settings.items()]

    def _prepare(self) -> None:
        write_private(self.folder / "sentinel.conf", "\n".join([*self._config(), ""]))

    def _command(self) -> Sequence[str]:
        program = find_program("redis-sentinel", "redis-sentinel")
        return [program, str(self.folder / "sentinel.conf")]


class SentinelCluster:
    """A master, a replica and three sentinels; as a context manager it starts and closes.

    `failover_after` is for how many seconds the master must be silent. Kill or pause
    `master` and the sentinels make `replica` the master; `current_master` tells.
    """

    def __init__(
        self,
        *,
        name: str = "tenure",
        user: str | None = None,
        password: str | None = None,
        failover_after: float = 1.0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.master = RedisServer(user=user, password=password, settings=settings)
        self.replica = RedisServer(
            user=user, password=password, replica_of=self.master, settings=settings
        )
        milliseconds = round(failover_after * 1000)
        timing = {
            "down-after-milliseconds": str(milliseconds),
            "failover-timeout": str(3 * milliseconds),
        }
        self.sentinels = [RedisSentinel(self.master, name, timing) for _ in range(_SENTINELS)]

    @property
    def url(self) -> str:
        """The URL to connect with, by way of the sentinels."""
        hosts = ",".join(f"{sentinel.host}:{sentinel.port}" for sentinel in self.sentinels)
        userinfo = self.master._authority(0).rpartition("@")[0]
        return f"redis+sentinel://{userinfo}{'@' if userinfo else ''}{hosts}/{self.name}/0"

    @property
    def members(self) -> list[Server]:
        """Every server of the cluster, in the order of starting."""
        return [self.master, self.replica, *self.sentinels]

    def start(self) -> Self:
        """Start everything; on return every sentinel knows the others and the replica."""
        try:
            for member in self.members:
                member.start()
        except BaseException:
            self.close()
            raise
        if not _proc.until(self._formed, START_LIMIT):
            states = [sentinel.state() for sentinel in self.sentinels]
            self.close()
            raise ServerFailed(f"the sentinels did not find each other: {states}")
        return self

    def current_master(self) -> RedisServer | None:
        """The server that most sentinels call master; None while they do not agree."""
        votes = []
        for sentinel in self.sentinels:
            with contextlib.suppress(OSError, ServerFailed):
                votes.append(int(sentinel.state()["port"]))
        for server in (self.master, self.replica):
            if votes.count(server.port) >= _QUORUM:
                return server
        return None

    def close(self) -> None:
        """Kill every server and remove its folder."""
        for member in reversed(self.members):
            member.close()

    def _formed(self) -> bool:
        for sentinel in self.sentinels:
            try:
                state = sentinel.state()
            except (OSError, ServerFailed):
                return False
            others = int(state["num-other-sentinels"])
            if others < _SENTINELS - 1 or int(state["num-slaves"]) < 1:
                return False
        return b"master_link_status:up" in self.replica.command("INFO", "replication")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

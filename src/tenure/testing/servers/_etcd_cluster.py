"""A private etcd of three members."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from ._base import START_LIMIT
from ._etcd import EtcdServer
from ._tools import ServerFailed

_MEMBERS = 3
_TRIES = 3


class EtcdMember(EtcdServer):
    """One of the members; it serves only with another one."""

    forming = False
    """Whether its cluster is being started, and answers when all have been."""

    def _ready(self) -> bool:
        return self.forming or super()._ready()

    def serves(self) -> bool:
        """Whether it has a leader and answers."""
        return self.alive() and super()._ready()

    def leads(self) -> bool:
        """Whether it leads its cluster."""
        try:
            status = self.call("maintenance/status")
        except (OSError, ServerFailed):
            return False
        return bool(status.get("leader", "0") == status["header"]["member_id"])


class EtcdCluster:
    """Three members; `settings` are those of each. With a password, authentication is on."""

    def __init__(
        self,
        *,
        user: str | None = None,
        password: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.members = [
            EtcdMember(user=user, password=password, settings=settings) for _ in range(_MEMBERS)
        ]

    @property
    def url(self) -> str:
        """The URL that names all of them."""
        first, *others = self.members
        hosts = [f"{member.host}:{member.port}" for member in others]
        return ",".join([first.url, *hosts])

    @property
    def leader(self) -> EtcdMember:
        """The member that leads now; waits for one."""
        deadline = time.monotonic() + START_LIMIT
        while time.monotonic() < deadline:
            for member in self.members:
                if member.alive() and not member._paused and member.leads():
                    return member
            time.sleep(0.02)
        raise ServerFailed(f"the etcd cluster had no leader for {START_LIMIT:g} s")

    def start(self) -> Self:
        """Start all of them, and return when each one serves."""
        for left in reversed(range(_TRIES)):
            try:
                self._start()
                return self
            except ServerFailed:
                self.close()
                if not left:
                    raise
            except BaseException:
                self.close()
                raise
        return self

    def _start(self) -> None:
        for member in self.members:
            member._draw_ports()
        names = {f"m{at}": member for at, member in enumerate(self.members)}
        cluster = ",".join(
            f"{name}=http://{member.host}:{member.peer_port}" for name, member in names.items()
        )
        for name, member in names.items():
            # Without a token of its own for all of them, they would never form one cluster.
            token = f"tenure-{self.members[0].peer_port}"
            member.settings |= {
                "name": name,
                "initial-cluster": cluster,
                "initial-cluster-token": token,
            }
            member._prepare()
            member.forming = True
            try:
                member.start()
            finally:
                member.forming = False
        self.heal()
        first, *others = self.members
        first._finish()
        for member in others:
            member._secured = first._secured

    def heal(self) -> None:
        """Start and resume whoever is down or paused; return when every member serves."""
        for member in self.members:
            member.resume()
        for member in self.members:
            member.forming = True
            try:
                member.start()
            finally:
                member.forming = False
        deadline = time.monotonic() + START_LIMIT
        while not all(member.serves() for member in self.members):
            if time.monotonic() > deadline:
                tails = "\n".join(member.log_tail() for member in self.members)
                raise ServerFailed(f"the members did not serve in {START_LIMIT:g} s:\n{tails}")
            time.sleep(0.02)

    def close(self) -> None:
        """Kill all of them and remove their folders."""
        for member in self.members:
            member.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

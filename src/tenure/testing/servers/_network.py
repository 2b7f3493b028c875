"""Hosts of their own on one machine, whose links can be cut: Linux network namespaces.

A bridge in a namespace of its own joins the hosts and this process. What is cut is dropped on
that bridge by nftables, which counts it. It needs root, and `ip`, `nft`, `nsenter` and
`unshare`. Namespaces and links end with the processes that hold them, which the run's guard
kills, so nothing is left behind however this process ends.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from . import _proc
from ._run import current_run
from ._tools import ServerFailed, ServerMissing, find_program, run_tool

_LIMIT = 10.0
_TRIES = 5
_RULES = """
table bridge cut {
  chain forward { type filter hook forward priority 0; }
}
"""


class Place(NamedTuple):
    """Where a server runs: its address, and what comes before its command line."""

    host: str
    prefix: tuple[str, ...]


class Network:
    """So many hosts, each with an address that this process can reach, too.

    `ServerMissing` from `start` says what is lacking here: the rights or a program.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._holders: list[subprocess.Popen[bytes]] = []
        self.places: list[Place] = []

    def start(self) -> Self:
        """Make the namespaces and the links between them."""
        if os.geteuid() != 0:
            raise ServerMissing("hosts that can be cut off from each other need root")
        self._ip, self._nft = find_program("ip", "iproute2"), find_program("nft", "nftables")
        self._enter = find_program("nsenter", "util-linux")
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def _build(self) -> None:
        hub, *hosts = [self._hold() for _ in range(self._count + 1)]
        net = self._join(hub)
        self._run(hub, [self._ip, "link", "add", "bridge", "type", "bridge"])
        self._run(hub, [self._ip, "link", "set", "up0", "up", "master", "bridge"])
        self._run(hub, [self._ip, "link", "set", "bridge", "up"])
        for number, host in enumerate(hosts):
            peer = ["type", "veth", "peer", "name", "eth0", "netns", str(host)]
            self._run(hub, [self._ip, "link", "add", f"h{number}", *peer])
            self._run(hub, [self._ip, "link", "set", f"h{number}", "up", "master", "bridge"])
            address = f"{net}.{number + 1}"
            self._run(host, [self._ip, "address", "add", f"{address}/24", "dev", "eth0"])
            self._run(host, [self._ip, "link", "set", "eth0", "up"])
            self._run(host, [self._ip, "link", "set", "lo", "up"])
            prefix = (self._enter, f"--net=/proc/{host}/ns/net", "--")
            self.places.append(Place(address, prefix))
        self._rules(_RULES)

    def _join(self, hub: int) -> str:
        """Link this process' own namespace with the hub's, in a net that nobody uses here."""
        for left in reversed(range(_TRIES)):
            # The addresses are those for measuring networks; nobody routes them.
            net = f"198.{random.choice((18, 19))}.{random.randrange(256)}"
            if f" {net}." in self._tool([self._ip, "-o", "address"]):
                continue
            link = f"tn{os.getpid() % 100_000}-{random.randrange(16**4):04x}"
            peer = ["type", "veth", "peer", "name", "up0", "netns", str(hub)]
            try:
                self._tool([self._ip, "link", "add", link, *peer])
            except ServerFailed as error:
                if not left:
                    raise ServerMissing(f"no network can be made here: {error}") from None
                continue
            self._tool([self._ip, "address", "add", f"{net}.254/24", "dev", link])
            self._tool([self._ip, "link", "set", link, "up"])
            return net
        raise ServerFailed("no free network was found")

    def close(self) -> None:
        """Give everything back. The servers in it should have been closed before."""
        for holder in self._holders:
            holder.kill()
            holder.wait(_LIMIT)
            current_run().forget(holder.pid)
        self._holders, self.places = [], []

    def move_in(self, at: int) -> None:
        """Have the calling thread, and those that it starts, make connections from that host.

        There is no way back for the thread.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{self._holders[at + 1].pid}/ns/net", "rb") as its:
            if libc.setns(its.fileno(), 0):
                problem = os.strerror(ctypes.get_errno())
                raise ServerFailed(f"a thread cannot move to host {at}: {problem}")

    # -- faults -----------------------------------------------------------------

    def cut(self, some: Sequence[int], others: Sequence[int]) -> None:
        """From now on drop whatever the one or the other send to each other."""
        self.drop(some, others)
        self.drop(others, some)

    def drop(self, senders: Sequence[int], receivers: Sequence[int]) -> None:
        """From now on drop what these send to those, and not what those send to these."""
        sets = [", ".join(self.places[at].host for at in each) for each in (senders, receivers)]
        if all(sets):
            rule = f"ip saddr {{ {sets[0]} }} ip daddr {{ {sets[1]} }} counter drop"
            self._rules(f"add rule bridge cut forward {rule}\n")

    def dropped(self) -> int:
        """How many packets were dropped since the last `mend`."""
        listed = json.loads(
            run_tool([*self._hub, self._nft, "-j", "list", "ruleset"], home=Path("/"))
        )
        return sum(_counted(each) for each in listed["nftables"])

    def mend(self) -> None:
        """Let everything through again, and count anew."""
        self._rules("flush chain bridge cut forward\n")

    # -- how it is done ------------------------------------------------------------

    def _hold(self) -> int:
        """A process that holds a network namespace of its own; its id."""
        command = [find_program("unshare", "util-linux"), "--net", "--", "sleep", "infinity"]
        holder = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._holders.append(holder)
        current_run().watch(holder.pid)
        mine, its = Path("/proc/self/ns/net"), Path(f"/proc/{holder.pid}/ns/net")
        if not _proc.until(lambda: _names(its) not in ("", _names(mine)), _LIMIT):
            raise ServerMissing("no network namespace can be made here")
        return holder.pid

    @property
    def _hub(self) -> tuple[str, ...]:
        return (self._enter, f"--net=/proc/{self._holders[0].pid}/ns/net", "--")

    def _run(self, pid: int, command: Sequence[str]) -> None:
        self._tool([self._enter, f"--net=/proc/{pid}/ns/net", "--", *command])

    def _rules(self, text: str) -> None:
        run_tool([*self._hub, self._nft, "-f", "-"], home=Path("/"), text=text)

    @staticmethod
    def _tool(command: Sequence[str]) -> str:
        return run_tool(command, home=Path("/"))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _names(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def _counted(entry: dict[str, Any]) -> int:
    expressions = entry.get("rule", {}).get("expr", ())
    return sum(each["counter"]["packets"] for each in expressions if "counter" in each)

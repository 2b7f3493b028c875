"""Two hosts on one machine: namespaces of their own, joined by a bridge, as root on Linux.

Each host has a network, host name, process ids, semaphores and mounts of its own, and the same
name and the same ids as the other. What its URL names, it reaches under the very same address:
a relay in its network passes connections on, over the bridge, to the real server.

Nothing has a name that could stay behind: a namespace lives as long as a process in it, and
those end when a pipe does that only this process holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ..._url import Host as Address
from ..._url import Url
from ..servers import _proc
from ._party_relay import Relay

__all__ = ["Host", "Network", "unavailable"]

PROGRAMS = ("unshare", "nsenter", "ip", "mount", "hostname")
NETWORK = "10.77.0"
HUB = f"{NETWORK}.1"
FIRST_PORT = 20000
SECONDS_MAX = 10.0
LAST_ID = 99
"""The next process of each host has the number after this one."""

_KINDS = ("net", "uts", "ipc", "pid", "mnt")

_HUB = f"""set -e
ip link set lo up
ip link add bridge type bridge
ip addr add {HUB}/24 dev bridge
ip link set bridge up
echo ready
exec cat"""

_HOST = f"""set -e
address=$1 names=$2
shift 2
hostname tenure-host
mount -t proc proc /proc
for folder; do mount -t tmpfs -o mode=1777 none "$folder"; done
if [ -n "$names" ]; then
    mount -t tmpfs none /mnt
    echo "127.0.0.1 localhost $names" >/mnt/hosts
    mount --bind /mnt/hosts /etc/hosts
fi
ip link set lo up
echo ready
read -r attached
ip addr add "$address/24" dev eth0
ip link set eth0 up
echo {LAST_ID} >/proc/sys/kernel/ns_last_pid
echo ready
exec cat"""


def unavailable() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if not sys.platform.startswith("linux"):
        return "namespaces are Linux's"
    if os.geteuid() != 0:
        return "namespaces need root"
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    return f"not installed: {', '.join(missing)}" if missing else ""


class Host:
    """One host: what runs in it is started with its `prefix`."""

    def __init__(self, address: str, names: Sequence[str], masks: Sequence[str]) -> None:
        flags = ["--net", "--uts", "--ipc", "--pid", "--mount", "--fork", "--kill-child"]
        command = [*flags, "sh", "-c", _HOST, "host", address, " ".join(names), *masks]
        self._holder = _Holder(command)
        self.pid = _proc.descendants(self._holder.pid)[0]

    def attached(self) -> None:
        """Its network card is there: use it."""
        self._holder.go_on()

    @property
    def prefix(self) -> list[str]:
        """The command that runs another one in this host."""
        return ["nsenter", "-t", str(self.pid), "-n", "-u", "-i", "-p", "-m"]

    def inodes(self) -> dict[str, str]:
        """What identifies each of its namespaces."""
        return {kind: os.readlink(f"/proc/{self.pid}/ns/{kind}") for kind in _KINDS}

    def close(self) -> None:
        """End all that runs in it."""
        self._holder.close()


class Network:
    """A bridge, two hosts on it, and relays to the servers that a URL names.

    masks: folders that each host sees empty, and has for itself.
    """

    def __init__(self, servers: Sequence[Address], masks: Sequence[str] = ()) -> None:
        self.hosts: list[Host] = []
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as failed:
            failed.callback(self.close)
            self._open(servers, masks)
            failed.pop_all()

    def _open(self, servers: Sequence[Address], masks: Sequence[str]) -> None:
        self._hub = hub = _Holder(["--net", "sh", "-c", _HUB])
        self._closing.callback(hub.close)
        names = sorted({server.name for server in servers if not _is_address(server.name)})
        for number in (1, 2):
            host = Host(f"{NETWORK}.{number + 1}", names, masks)
            self._closing.callback(host.close)
            self.hosts.append(host)
            self._attach(host.pid, f"host{number}")
            host.attached()
        for number, server in enumerate(servers):
            middle = (HUB, FIRST_PORT + number)
            self._relay(hub.pid, middle, os.getpid(), (server.name, server.port))
            for host in self.hosts:
                near = server.name if _is_address(server.name) else "127.0.0.1"
                if not near.startswith("127."):
                    _inside(host.pid, "ip", "addr", "add", near, "dev", "lo")
                self._relay(host.pid, (near, server.port), host.pid, middle)

    def _attach(self, pid: int, card: str) -> None:
        create = f"ip link add {card} type veth peer name eth0 netns {pid}"
        _inside(self._hub.pid, *create.split())
        _inside(self._hub.pid, *f"ip link set {card} master bridge up".split())

    def _relay(self, at: int, near: tuple[str, int], by: int, far: tuple[str, int]) -> None:
        listener, dialler = (f"/proc/{pid}/ns/net" for pid in (at, by))
        relay = Relay(near, far, lambda: enter(listener), lambda: enter(dialler))
        self._closing.callback(relay.close)

    def close(self) -> None:
        """End everything: the relays, the hosts, and the bridge."""
        self._closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Holder:
    """A process that keeps namespaces alive, and ends with this one."""

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            ["unshare", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # an interrupt from the keyboard is not for it
        )
        try:
            self._ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._ready()

    def _ready(self) -> None:
        process = self._process
        assert process.stdout is not None and process.stderr is not None
        if not select.select([process.stdout], [], [], SECONDS_MAX)[0]:
            raise OSError(f"a namespace was not ready after {SECONDS_MAX:g} s")
        if process.stdout.readline() != "ready\n":
            process.wait(SECONDS_MAX)
            raise OSError(f"a namespace was refused: {process.stderr.read().strip()}")

    def close(self) -> None:
        for pid in reversed(_proc.descendants(self.pid)):
            _proc.send(pid, 9)  # type: ignore[arg-type]
        self._process.kill()
        self._process.wait(SECONDS_MAX)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def enter(namespace: str) -> None:
    """Let the calling thread use another network: what it opens from now on is in that one."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(namespace, "rb") as file:
        if libc.setns(file.fileno(), _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), namespace)


_CLONE_NEWNET = 0x40000000


def _inside(pid: int, *command: str) -> None:
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-n", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


def _is_address(name: str) -> bool:
    import ipaddress

    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


_PORTS = {
    "redis+sentinel": 26379,
    "redis": 6379,
    "memcached": 11211,
    "postgres": 5432,
    "mysql": 3306,
    "mariadb": 3306,
    "zookeeper": 2181,
    "kazoo": 2181,
    "etcd": 2379,
    "consul+https": 8501,
    "consul": 8500,
}


def servers_of(url: Url) -> list[Address]:
    """The servers that a URL names, with their ports; `LookupError` says what is not known."""
    scheme = url.scheme.removeprefix("sql+")
    if scheme == "unix" or url.options.get("socket", "") or url.options.get("host", ""):
        raise LookupError("the URL names a socket file of this host")
    port = next((port for start, port in _PORTS.items() if scheme.startswith(start)), 0)
    found = [host.or_port(port) for host in url.hosts or (Address("localhost"),)]
    if not all(host.port for host in found):
        raise LookupError("the URL names no port, and the driver's own is not known here")
    return found


def masks_of(url: Url) -> list[str]:
    """The folders that two hosts do not share: that in memory, and the one that the URL names."""
    masks = ["/dev/shm"]
    folder = Path(url.path) if url.path.strip("/") and not url.hosts else None
    while folder is not None and not folder.is_dir():
        folder = folder.parent
    if folder is not None and folder != Path("/"):
        masks.append(str(folder))
    return masks

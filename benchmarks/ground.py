"""The ground: one processor for everybody, real servers, and the workers' other end."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from .contestants import Entry

ROOT = Path(__file__).resolve().parent.parent
ANSWER_SECONDS = 120.0


class WorkerFailed(Exception):
    """A worker reported an error, ended, or did not answer in time."""


class ClientMissing(WorkerFailed):
    """The contestant's library is not installed."""


class Worker:
    """A contestant in a process of its own."""

    def __init__(
        self, driver: str, entry: Entry, url: str, options: Mapping[str, Any] | None = None
    ) -> None:
        self.entry = entry
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        source = f"{ROOT}{os.pathsep}{ROOT / 'src'}"
        command = [sys.executable, "-m", "benchmarks.worker", driver, entry.name, url]
        self._process = subprocess.Popen(
            [*command, json.dumps(dict(options or {}))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**os.environ, "PYTHONPATH": source, **entry.environment},
            cwd=ROOT,
        )
        try:
            self.pid = int(self.answer()["pid"])
        except BaseException:
            self.kill()
            raise

    def send(self, do: str, **arguments: Any) -> None:
        """Send a command; `answer` fetches its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise WorkerFailed(self._said("has ended")) from error

    def answer(self, seconds: float = ANSWER_SECONDS) -> dict[str, Any]:
        """The answer to the oldest command that has none yet."""
        pipe = self._process.stdout
        assert pipe is not None
        if not select.select([pipe], [], [], seconds)[0]:
            raise WorkerFailed(f"{self.entry.name}: no answer within {seconds:g} s")
        line = pipe.readline()
        if not line:
            raise WorkerFailed(self._said("has ended"))
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            kind = ClientMissing if reply.get("missing") else WorkerFailed
            raise kind(self._said(reply["error"]))
        return reply

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.send(do, **arguments)
        return self.answer()

    def cpu_seconds(self) -> float:
        """The processor time that all its threads have used so far."""
        spent = 0
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):
                spent += int((task / "schedstat").read_text().split()[0])
        return spent / 1e9

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it is gone."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._shut()

    def close(self) -> None:
        """Let it disconnect, then end it."""
        try:
            self.send("close")
            self.answer(20.0)
        except (WorkerFailed, OSError):
            pass  # whatever it is, it ends now
        self.kill()

    def _shut(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._log.close()

    def _said(self, what: str) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f"{self.entry.name}: {what}" + (f" ({lines[-1]})" if lines else "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def pin() -> int:
    """Put this process, and all that it starts, on one processor; say which."""
    processor = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {processor})
    return processor


@contextlib.contextmanager
def backend(driver: str) -> Iterator[tuple[str, str]]:
    """A fresh backend: its URL, and what it is."""
    if driver == "memory":
        yield "memory://bench", "in this process"
        return
    if driver == "file":
        with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
            yield f"file://{folder}", _file_system(folder)
        return
    if driver == "sqlite":
        with tempfile.TemporaryDirectory(prefix="tenure-bench-") as folder:
            yield f"sqlite://{folder}/locks.db", f"SQLite on {_file_system(folder)}"
        return
    if driver == "ipc":
        yield f"ipc://bench-{os.getpid()}", f"Linux {os.uname().release}"
        return
    from tenure.testing import servers

    if driver == "redis":
        with servers.RedisServer() as redis:
            info = redis.command("INFO", "server").decode()
            version = next(line for line in info.splitlines() if line.startswith("redis_version"))
            yield redis.url, f"Redis {version.partition(':')[2]}"
    elif driver == "redlock":
        with servers.RedisMasters() as masters:
            info = masters.servers[0].command("INFO", "server").decode()
            version = next(line for line in info.splitlines() if line.startswith("redis_version"))
            yield masters.url, f"{len(masters.servers)} masters, Redis {version.partition(':')[2]}"
    elif driver == "zookeeper":
        with servers.ZookeeperServer() as zookeeper:
            version = zookeeper.word("srvr").split()[2].partition("-")[0]
            yield zookeeper.url, f"ZooKeeper {version}, one server, writes not flushed"
    elif driver == "consul":
        with servers.ConsulServer() as consul:
            version = consul.call("GET", "agent/self")["Config"]["Version"]
            yield consul.url, f"Consul {version}, one server, its data in memory"
    elif driver == "memcached":
        with servers.MemcachedServer(options={"ttl_max": "15"}) as memcached:
            # A younger one may have forgotten leases, for all that a client knows.
            while int(memcached.stats()["uptime"]) < 20:
                time.sleep(0.1)
            yield memcached.url, f"memcached {memcached.stats()['version']}"
    elif driver == "postgresql":
        with servers.PostgresServer() as postgres:
            yield postgres.url, f"PostgreSQL {postgres.psql('show server_version')}, fsync off"
    elif driver == "postgresql-row":
        with servers.PostgresServer(options={"lock": "row"}) as postgres:
            yield postgres.url, f"PostgreSQL {postgres.psql('show server_version')}, fsync off"
    elif driver == "etcd-gateway":
        with servers.EtcdGatewayServer() as etcd:
            yield etcd.url, f"etcd {_etcd_version()}, one member, its gateway"
    elif driver == "sql":
        from tenure.testing.backends import SqlPostgresqlBackend

        with SqlPostgresqlBackend().make_server() as tables:
            yield tables.url, f"PostgreSQL {tables.psql('show server_version')}, fsync off"
    elif driver == "mysql":
        with servers.MysqlServer() as mysql:
            yield mysql.url, f"MariaDB {mysql.sql('SELECT VERSION()')}, commits not flushed"
    else:
        with servers.EtcdServer() as etcd:
            yield etcd.url, f"etcd {_etcd_version()}, one member"


def _etcd_version() -> str:
    text = subprocess.run(["etcd", "--version"], capture_output=True, text=True, check=True).stdout
    return text.split("\n")[0].partition(":")[2].strip()


def _file_system(folder: str) -> str:
    best = ("", "?")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if (folder + "/").startswith(where.rstrip("/") + "/") and len(where) >= len(best[0]):
            best = (where, kind)
    return best[1]


def pause(seconds: float) -> None:
    """Let another process go on for a while."""
    time.sleep(seconds)

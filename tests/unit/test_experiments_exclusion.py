"""Experiments on exclusion, time-outs, tokens and loss: liars are caught, the honest are not."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tenure._model import Roll
from tenure._url import Url
from tenure.drivers import registry
from tenure.drivers.memory import MemoryDriver
from tenure.errors import InvalidURL, Unavailable
from tenure.policy.characteristics import Characteristic
from tenure.policy.evidence import Judgement
from tenure.testing import liars
from tenure.testing.backends import FileBackend, RedisBackend
from tenure.testing.experiments import (
    EXPERIMENTS,
    Found,
    Target,
    _netns,
    _party_cast,
    processes,
    timeouts,
)
from tenure.testing.experiments._party_spells import Spell, fallen, overlap
from tenure.testing.kit.actor import guarded_write
from tenure.testing.servers import RedisServer, _proc

LINEARIZABLE = Characteristic.LINEARIZABLE
CLIENTS = Characteristic.SAME_VIEW_ACROSS_CLIENTS
CAUSAL = Characteristic.CAUSAL
SEQUENTIAL = Characteristic.SEQUENTIAL
THREADS = Characteristic.DISTRIBUTED_ACROSS_THREADS
PROCESSES = Characteristic.DISTRIBUTED_ACROSS_PROCESSES
HOSTS = Characteristic.DISTRIBUTED_ACROSS_HOSTS
NO_TIMEOUT = Characteristic.NON_TIMEOUT_BASED
FENCED = Characteristic.FENCED
SELF_AWARE = Characteristic.SELF_AWARE

TTL_SECONDS = 1.0

no_namespaces = pytest.mark.skipif(bool(_netns.unavailable()), reason=_netns.unavailable())


class DurableRedis(RedisBackend):
    """A Redis that loses nothing in a restart."""

    def make_server(self) -> RedisServer:
        return RedisServer(persistent=True)


@pytest.fixture(scope="module")
def redis() -> Iterator[DurableRedis]:
    """One for all tests."""
    backend = DurableRedis()
    backend.start()
    yield backend
    backend.stop()


@pytest.fixture
def files() -> Iterator[FileBackend]:
    """A folder."""
    backend = FileBackend()
    backend.start()
    yield backend
    backend.stop()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No experiment leaves a process, a thread or a descriptor of a pipe behind."""
    before = children()
    yield
    assert children() <= before
    names = [thread.name for thread in threading.enumerate()]
    assert not [name for name in names if name.startswith(("tenure-bid", "tenure-relay"))]


def children() -> set[int]:
    """The processes below this one, but for the servers that tests share."""
    return {pid for pid in _proc.descendants(os.getpid()) if "redis-server" not in command(pid)}


def command(pid: int) -> str:
    """What the process was started with; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def judge(characteristic: Characteristic, target: Target) -> Judgement:
    """Run the experiment, and show all that it saw if the test fails."""
    judgement = EXPERIMENTS[characteristic].judge(target)
    print(judgement)
    return judgement


def aimed(url: str, namespace: str = "experiment", **more: object) -> Target:
    """A target for a URL alone, or with a backend."""
    traits = registry.find(Url.parse(url)).traits
    known = {"ttl": TTL_SECONDS, "preload": ("tenure.testing.liars",), **more}
    return Target(url, traits, namespace, seed=7, **known)  # type: ignore[arg-type]


LIES = [
    (THREADS, "liar-threads://lies", "inside at once"),
    (PROCESSES, "liar-processes://{folder}", "two inside at once"),
    (PROCESSES, "liar-release://{folder}/locks.db", "two inside at once"),
    (LINEARIZABLE, "liar-processes://{folder}", "no order of these fits"),
    (CLIENTS, "liar-processes://{folder}", ""),
    (PROCESSES, "liar-children://{folder}", "was not free, while its child"),
    (NO_TIMEOUT, "liar-death://{folder}", "SIGKILL of a holder that runs: its lock was free"),
    (NO_TIMEOUT, "sqlite://{folder}/locks.db", "after SIGSTOP"),
    (FENCED, "liar-tokens://{folder}", "came after"),
    (SELF_AWARE, "liar-expiry://{folder}/locks.db", "pause of the holder"),
    (SELF_AWARE, "liar-news://{folder}/locks.db", "pause of the holder"),
]


@pytest.mark.parametrize(("characteristic", "url", "said"), LIES)
def test_a_lie_is_refuted(
    characteristic: Characteristic,
    url: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A driver that lies about a characteristic is refuted, for the reason that it lies about."""
    monkeypatch.setattr(processes, "PROCESSES", 3)
    monkeypatch.setattr(processes, "FREE_SECONDS_MAX", 1.0)
    monkeypatch.setattr(timeouts, "KILLS", 1)
    monkeypatch.setattr(timeouts, "PAUSE_TIMEOUTS", 2)
    # It lies about a part of it only, and what it lies about must be seen on a busy machine.
    ttl = 4 * TTL_SECONDS if "expiry" in url else TTL_SECONDS
    judgement = judge(characteristic, aimed(url.format(folder=tmp_path), ttl=ttl))
    assert judgement.verdict == "refuted", judgement
    assert said in judgement.counterexample
    assert judgement.trials > 0
    assert all(fault.confirmed for fault in judgement.faults)


class DiesOfContention(MemoryDriver):
    """Has an error of its own where somebody must wait."""

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        raise KeyError("nobody has thought of this")


class WritesNothing(MemoryDriver):
    """Cannot keep a record."""

    async def record(self, name: str, text: str | None, version: object) -> None:
        raise Unavailable("it is full")


@pytest.mark.parametrize(
    ("characteristic", "driver", "said"),
    [
        (THREADS, DiesOfContention, "KeyError"),
        (LINEARIZABLE, WritesNothing, "too little was written"),
        (SEQUENTIAL, WritesNothing, "saw no value change"),
        (CAUSAL, WritesNothing, "saw no value change"),
    ],
)
def test_what_does_not_work_is_not_corroborated(
    characteristic: Characteristic,
    driver: type[MemoryDriver],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A driver that does nothing does nothing wrong; that proves nothing."""
    monkeypatch.setattr(MemoryDriver, "chosen", classmethod(lambda cls, url: driver))
    judgement = judge(characteristic, aimed(f"memory://{driver.__name__}-{characteristic}"))
    assert judgement.verdict == "untestable", judgement
    assert said in judgement.reason


@pytest.mark.parametrize("characteristic", [CAUSAL, SEQUENTIAL])
def test_what_nobody_sees_has_no_order(characteristic: Characteristic, tmp_path: Path) -> None:
    """Where each process has data of its own, no reader reads less than before; nor anything."""
    judgement = judge(characteristic, aimed(f"liar-processes://{tmp_path}"))
    assert judgement.verdict == "untestable", judgement
    assert "saw no value change" in judgement.reason


@no_namespaces
def test_a_lock_in_a_folder_is_no_lock_between_hosts(tmp_path: Path) -> None:
    """A driver that claims hosts, and locks files, lets both of two hosts in."""
    judgement = judge(HOSTS, aimed(f"liar-hosts://{tmp_path}"))
    assert judgement.verdict == "refuted", judgement
    assert "the second host got it" in judgement.counterexample
    assert judgement.faults[0].confirmed


@no_namespaces
def test_a_process_id_is_not_unique_among_hosts(redis: DurableRedis) -> None:
    """A driver that names its sessions after the host and the process is refuted by two alike."""
    url = redis.url.replace("redis", "liar-owners", 1)
    judgement = judge(HOSTS, aimed(url, "owners"))
    assert judgement.verdict == "refuted", judgement


def test_every_liar_is_caught_by_a_test() -> None:
    """No liar is there for nothing, and each is registered."""
    used = {url.partition(":")[0] for _, url, _ in LIES} | {"liar-hosts", "liar-owners"}
    assert used >= set(liars.LIARS)
    assert {entry.scheme for entry in registry.entries()} >= set(liars.LIARS)


HONEST = [THREADS, PROCESSES, NO_TIMEOUT, SELF_AWARE]


@pytest.mark.parametrize("characteristic", HONEST)
def test_files_are_what_they_say(characteristic: Characteristic, files: FileBackend) -> None:
    """The file driver is refuted in nothing but hosts."""
    judgement = judge(characteristic, aimed(files.url, backend=files))
    assert judgement.verdict == "corroborated", judgement
    assert all(fault.confirmed and fault.safe for fault in judgement.faults)


def test_threads_have_memory() -> None:
    """The memory driver excludes threads, and knows when it has lost."""
    for characteristic in (THREADS, SELF_AWARE):
        assert judge(characteristic, aimed("memory://experiment")).verdict == "corroborated"


@no_namespaces
def test_hosts_share_a_server(redis: DurableRedis) -> None:
    """Two hosts that look the same exclude each other on one server, and are shown to be two."""
    judgement = judge(HOSTS, aimed(redis.url, "hosts", backend=redis))
    assert judgement.verdict == "corroborated", judgement
    (fault,) = judgement.faults
    assert fault.confirmed
    assert "net:[" in fault.proof
    assert "tenure-host:100" in fault.proof


def test_a_server_that_keeps_its_data(redis: DurableRedis) -> None:
    """On a Redis that loses nothing, tokens rise and holders know, whatever is done to it."""
    for characteristic, faults in ((FENCED, 4), (SELF_AWARE, 3)):
        judgement = judge(characteristic, aimed(redis.url, str(characteristic), backend=redis))
        assert judgement.verdict == "corroborated", judgement
        assert len(judgement.faults) == faults
        assert all(fault.confirmed and fault.safe for fault in judgement.faults)
        assert all(fault.recovery_seconds is not None for fault in judgement.faults)


def test_a_server_of_somebody_else_is_only_used(redis: DurableRedis) -> None:
    """Without a backend there is no restart and no cut, and the judgement says so."""
    pid = redis.server.pid
    judgement = judge(SELF_AWARE, aimed(redis.url, "theirs"))
    assert judgement.verdict == "corroborated", judgement
    assert judgement.parameters["faults"] == ["pause"]
    assert redis.server.pid == pid


def test_no_root_no_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Who may not make namespaces is told so, and no verdict comes of it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    judgement = judge(HOSTS, aimed(f"liar-hosts://{tmp_path}"))
    assert (judgement.verdict, judgement.reason) == ("untestable", "namespaces need root")


def test_what_goes_wrong_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that cannot be reached leaves every characteristic untestable, with the reason."""
    monkeypatch.setattr(_party_cast, "PATIENCE_SECONDS", 0.5)
    judgement = judge(FENCED, dataclasses.replace(aimed("redis://127.0.0.1:1"), ttl=0.5))
    assert judgement.verdict == "untestable"
    assert "Unavailable" in judgement.reason


def test_spells_overlap_or_do_not() -> None:
    """Two spells that touch are in order; one inside of another, or of an earlier one, is not."""
    a, b = Spell(1.0, 2.0, 1, "a"), Spell(2.0, 3.0, 2, "b")
    assert overlap([a, b]) == overlap([]) == ""
    assert "1000.0 ms: a" not in overlap([a, b])
    long, inside, after = Spell(1.0, 9.0, 1, "a"), Spell(2.0, 3.0, 2, "b"), Spell(4, 5, 3, "c")
    assert "a with token 1" in overlap([long, inside])
    assert overlap([long, inside, after])


def test_tokens_rise_or_do_not() -> None:
    """A token that is equal to the one before it, or less, is found; rising ones are not."""
    assert fallen([("a", 1), ("b", 2)]) == fallen([]) == ""
    assert fallen([("a", 2), ("b", 2)]) == "token 2 (b) came after 2 (a)"
    assert fallen([("a", 2), ("b", 3), ("c", 1)]) == "token 1 (c) came after 3 (b)"


def test_the_resource_checks_tokens(tmp_path: Path) -> None:
    """It takes a token as long as it has seen no greater one."""
    path = str(tmp_path / "resource")
    assert [guarded_write(path, token) for token in (3, 3, 5, 4, 3, 6)] == [
        True,
        True,
        True,
        False,
        False,
        True,
    ]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://a:1,b/0", [("a", 1), ("b", 6379)]),
        ("sql+postgresql+psycopg://u:p@db.example/x", [("db.example", 5432)]),
        ("consul+https://c", [("c", 8501)]),
        ("etcd3+http://", [("localhost", 2379)]),
    ],
)
def test_which_servers_a_url_names(url: str, expected: list[tuple[str, int]]) -> None:
    """Servers are found in a URL, with the port that the driver would take."""
    assert [tuple(each) for each in _netns.servers_of(Url.parse(url))] == expected


@pytest.mark.parametrize("url", ["unix:///run/redis.sock", "mysql://u@/x?socket=/s", "new://host"])
def test_a_socket_file_is_of_one_host(url: str) -> None:
    """What another host could not reach, or nobody knows the port of, is not guessed."""
    with pytest.raises(LookupError):
        _netns.servers_of(Url.parse(url))


def test_a_scheme_is_registered_once() -> None:
    """The scheme of another driver is refused; the same driver may be registered again."""
    registry.register("liar-threads", liars.DoubleGrants)
    for scheme in ("file", "liar-threads"):
        with pytest.raises(InvalidURL, match=scheme):
            registry.register(scheme, MemoryDriver)


def test_all_six_are_there() -> None:
    """Each experiment has a text that tells what it does, and a name."""
    for characteristic in (THREADS, PROCESSES, HOSTS, NO_TIMEOUT, FENCED, SELF_AWARE):
        experiment = EXPERIMENTS[characteristic]
        assert "Refuted" in experiment.text
        assert experiment.name in vars(sys.modules[experiment.body.__module__])
    assert Found().trials == 0

"""Experiments on what clients see: liars are caught, the honest are not, and faults bite."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tenure._url import Url
from tenure.drivers import registry
from tenure.policy.characteristics import Characteristic
from tenure.policy.evidence import Judgement
from tenure.testing import liars_views
from tenure.testing.backends import Backend, EtcdBackend, FileBackend, MemoryBackend, RedisBackend
from tenure.testing.experiments import EXPERIMENTS, Target, linearizable, sessions
from tenure.testing.servers import Network, RedisServer, ServerMissing, _proc

LINEARIZABLE = Characteristic.LINEARIZABLE
SEQUENTIAL = Characteristic.SEQUENTIAL
CAUSAL = Characteristic.CAUSAL
SERIALIZABLE = Characteristic.SERIALIZABLE
PARTITIONS = Characteristic.SAME_VIEW_UNDER_PARTITIONS
CLIENTS = Characteristic.SAME_VIEW_ACROSS_CLIENTS


class LoneRedis(RedisBackend):
    """A Redis that nothing stands in for, which forgets everything when it is killed."""

    name = "a Redis that is alone"


class DurableRedis(LoneRedis):
    """One that keeps what it has acknowledged."""

    def make_server(self) -> RedisServer:
        return RedisServer(persistent=True)


def judged(characteristic: Characteristic, url: str, backend: Backend | None = None) -> Judgement:
    """What the experiment says of the driver for the URL."""
    traits = registry.find(Url.parse(url)).traits
    target = Target(url, traits, f"views-{characteristic}", 7, backend)
    return EXPERIMENTS[characteristic].judge(target)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No longer than it takes."""
    monkeypatch.setattr(linearizable, "ALONE_SECONDS", 0.4)
    monkeypatch.setattr(sessions, "CALM_SECONDS", 0.6)


@pytest.fixture(params=[FileBackend, MemoryBackend, LoneRedis])
def honest(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Backends that one server, or none, makes up."""
    backend: Backend = request.param()
    backend.start()
    yield backend
    backend.stop()


def test_the_honest_are_not_refuted(honest: Backend, short: None) -> None:
    """Without a fault, memory, files and Redis are corroborated where they can be tested."""
    verdicts = {
        each: judged(each, honest.url).verdict
        for each in (LINEARIZABLE, SEQUENTIAL, CAUSAL, PARTITIONS, CLIENTS)
    }
    assert verdicts.pop(PARTITIONS) == "untestable"
    assert set(verdicts.values()) == {"corroborated"}, verdicts


@pytest.mark.parametrize(
    "scheme, characteristic, words",
    [
        ("liar-stale", LINEARIZABLE, "no order of these fits"),
        ("liar-stale", CLIENTS, "a stale read: "),
        ("liar-effects", CAUSAL, "when it had seen what came after"),
        ("liar-past", SEQUENTIAL, ", and then "),
        ("liar-updates", LINEARIZABLE, "no order of these fits"),
        ("liar-swaps", LINEARIZABLE, "no order of these fits"),
        ("liar-holders", LINEARIZABLE, "two held it"),
    ],
)
def test_liars_are_caught(
    scheme: str, characteristic: Characteristic, words: str, short: None
) -> None:
    """Each lie is refuted by the experiment that looks for it, with a short counterexample."""
    judgement = judged(characteristic, f"{scheme}://{characteristic.lower()}")
    assert judgement.verdict == "refuted", judgement
    assert words in judgement.counterexample
    assert judgement.counterexample.count(";") <= 5, judgement.counterexample


def test_effects_first_reads_nothing_backwards(short: None) -> None:
    """A driver that is behind, but never goes back, keeps the weaker promise."""
    assert judged(SEQUENTIAL, "liar-effects://sequential").verdict == "corroborated"


@pytest.mark.parametrize("kind, verdict", [(DurableRedis, "corroborated"), (LoneRedis, "refuted")])
def test_a_server_is_stopped_and_killed(kind: type[LoneRedis], verdict: str, short: None) -> None:
    """What a server keeps on disk outlives SIGKILL; one that forgets is refuted."""
    backend = kind()
    backend.start()
    try:
        judgement = judged(LINEARIZABLE, backend.url, backend)
        assert backend.server.alive()
    finally:
        backend.stop()
    assert judgement.verdict == verdict, judgement
    stopped, killed = judgement.faults
    assert stopped.confirmed
    assert "in state T" in stopped.proof
    assert stopped.safe
    assert killed.confirmed
    assert killed.proof.endswith("of node 0 is gone")
    assert killed.safe is (verdict == "corroborated")
    assert killed.recovery_seconds is not None


def test_operations_on_several_keys_cannot_be_tested() -> None:
    """The contract has none, and the verdict says so."""
    judgement = judged(SERIALIZABLE, "memory://serializable")
    assert judgement.verdict == "untestable"
    assert "no operation on several keys" in judgement.reason


def test_without_records_there_is_nothing_to_read() -> None:
    """A driver of locks alone is untestable where records are read."""
    for each in (SEQUENTIAL, CAUSAL, CLIENTS):
        judgement = judged(each, f"liar-holders://{each.lower()}")
        assert judgement.verdict == "untestable"
        assert "no records" in judgement.reason


def test_every_liar_is_known_by_its_scheme() -> None:
    """What is registered can be connected to."""
    for scheme, driver in liars_views.LIARS.items():
        assert registry.find(Url(scheme)) is driver


@pytest.fixture
def network() -> Iterator[Network]:
    """Two hosts; skips where there can be none."""
    made = Network(2)
    try:
        made.start()
    except ServerMissing as error:
        pytest.skip(str(error))
    yield made
    made.close()


def reached(network: Network, at: int, address: tuple[str, int]) -> bool:
    """Whether a thread on a host can connect to an address within a short time."""
    answers: list[bool] = []

    def connect() -> None:
        network.move_in(at)
        try:
            socket.create_connection(address, 0.5).close()
            answers.append(True)
        except TimeoutError:
            answers.append(False)

    thread = threading.Thread(target=connect)
    thread.start()
    thread.join()
    return answers[0]


def test_what_is_dropped_between_hosts_is_counted(network: Network) -> None:
    """A cut in one direction keeps a connection from being made, until it is mended; this process
    reaches the host all the time, and nothing is left at the end."""
    listeners: list[socket.socket] = []

    def listen() -> None:
        network.move_in(1)
        listeners.append(socket.create_server((network.places[1].host, 0)))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    with listeners[0] as listener:
        address = listener.getsockname()
        assert reached(network, 0, address)
        network.drop([1], [0])
        assert not reached(network, 0, address)
        assert network.dropped() > 0
        socket.create_connection(address, 5).close()
        network.mend()
        assert network.dropped() == 0
        assert reached(network, 0, address)
    network.close()
    mine = f"tn{os.getpid() % 100_000}-"
    assert _proc.until(
        lambda: not [name for _, name in socket.if_nameindex() if name.startswith(mine)], 5
    )


@pytest.fixture
def etcd(network: Network) -> Iterator[EtcdBackend]:
    """An etcd, for which three stand in; skips where links between them cannot be cut."""
    del network  # there can be one here
    backend = EtcdBackend()
    backend.start()
    yield backend
    backend.stop()


def test_a_cut_shows_who_asks_one_member_alone(etcd: EtcdBackend) -> None:
    """A driver that lets a member answer without the others is refuted when its member is cut off,
    and the packets that were dropped are counted."""
    judgement = judged(PARTITIONS, etcd.url.replace("etcd://", "liar-member://"), etcd)
    assert judgement.verdict == "refuted", judgement
    assert " cut off: no order of these fits" in judgement.counterexample
    fault = judgement.faults[-1]
    assert fault.confirmed
    assert not fault.safe
    assert "and the others were dropped" in fault.proof


def test_a_fault_that_was_not_seen_decides_nothing(
    etcd: EtcdBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where links cannot be cut, the verdict is no more than that it needs root."""

    def start(network: Network) -> Network:
        raise ServerMissing("this needs root")

    monkeypatch.setattr(Network, "start", start)
    judgement = judged(PARTITIONS, etcd.url, etcd)
    assert judgement.verdict == "untestable"
    assert judgement.reason == "this needs root"

"""What is found in an etcd that is configured badly, by `Driver.examine`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tenure._model import Finding
from tenure._runtime.aio import AsyncioRuntime
from tenure._runtime.base import Runtime
from tenure._runtime.thread import ThreadRuntime, drive
from tenure._url import Url
from tenure.drivers import _etcd_examine as module
from tenure.drivers import registry
from tenure.errors import StorageError, Unavailable
from tenure.testing.servers import EtcdCluster, EtcdServer, ServerFailed
from tenure.wires import _etcd_upkeep as upkeep
from tenure.wires._etcd_api import Member, Status

PASSWORD = "s3cret-word"
QUOTA = 8 << 20


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    """One member with authentication and a user without any right."""
    with EtcdServer(password=PASSWORD) as server:
        server.call("auth/user/add", {"name": "powerless", "password": PASSWORD})
        yield server


@pytest.fixture(params=["etcd", "etcd3+http"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Both wires."""
    found: str = request.param
    return found


async def asked(runtime: Runtime, url: str) -> Sequence[Finding]:
    parsed = Url.parse(url)
    driver = registry.find(parsed)(parsed, runtime, "default", 9.0)
    await driver.open()
    try:
        return await driver.examine()
    finally:
        await driver.close()


def findings(url: str) -> dict[str, Finding]:
    """What is found, by its subject; the same in both flavours, sizes aside."""

    async def main() -> Sequence[Finding]:
        return await asked(AsyncioRuntime(), url)

    found = drive(asked(ThreadRuntime(), url))
    again = asyncio.run(main())
    assert [each.subject.split(":")[0] for each in found] == [
        each.subject.split(":")[0] for each in again
    ]
    return {each.subject: each for each in found}


def test_a_single_member_is_told(server: EtcdServer, scheme: str) -> None:
    """One member alone is a warning; there is room, and no alarm."""
    url = server.url.replace("etcd:", f"{scheme}:")
    found = findings(url)
    assert found["1 voting member"].severity == "warning"
    version = server.call("maintenance/status")["version"]
    assert set(found) <= {"1 voting member", f"etcd {version}"}


def test_a_full_database_is_told(scheme: str) -> None:
    """Near the quota it is a warning; at the quota, where etcd raises its alarm, an error."""
    settings = {"quota-backend-bytes": str(QUOTA)}
    with EtcdServer(settings=settings) as server:
        url = server.url.replace("etcd:", f"{scheme}:")
        assert not any("quota" in subject for subject in findings(url))
        text = server.encode("x" * (1 << 19))
        with contextlib.suppress(ServerFailed):
            for number in range(100):
                body: dict[str, Any] = {"key": server.encode(f"k{number}"), "value": text}
                server.call("kv/put", body)
                size = int(server.call("maintenance/status")["dbSize"])
                if size >= QUOTA * 0.8:
                    break
        (near,) = (each for subject, each in findings(url).items() if "of its quota" in subject)
        assert near.severity == "warning"
        with contextlib.suppress(ServerFailed):
            for number in range(100):
                server.call("kv/put", {"key": server.encode(f"l{number}"), "value": text})
        found = findings(url)
        assert found["alarm NOSPACE"].severity == "error"
        assert "etcdctl alarm disarm" in found["alarm NOSPACE"].advice

        async def refused() -> None:
            parsed = Url.parse(url)
            driver = registry.find(parsed)(parsed, ThreadRuntime(), "default", 9.0)
            await driver.open()
            try:
                await driver.start("me", lambda reason: None)
            finally:
                await driver.close()

        with pytest.raises(StorageError):
            drive(refused())


def test_a_user_without_rights_is_told(server: EtcdServer, scheme: str) -> None:
    """What may not be read is a finding, and not an exception."""

    async def powerless() -> Sequence[Finding]:
        parsed = Url.parse(server.url.replace("etcd:", f"{scheme}:"))
        driver = registry.find(parsed)(parsed, ThreadRuntime(), "default", 9.0)
        await driver.open()
        try:
            wire: Any = driver._connected()  # type: ignore[attr-defined]
            for verb in ("alarms", "members", "status"):
                setattr(wire, verb, lambda: wire.get_as_nobody())
            wire.get_as_nobody = lambda: nobody(server)
            return await driver.examine()
        finally:
            await driver.close()

    found = {each.subject: each for each in drive(powerless())}
    assert set(found) == {"the members", "the alarms", "the status"}
    assert {each.severity for each in found.values()} == {"note"}
    assert all(PASSWORD not in each.text for each in found.values())


async def nobody(server: EtcdServer) -> None:
    """A refusal, as a user without any right gets it from this server."""
    url = f"etcd://powerless:{PASSWORD}@{server.host}:{server.port}"
    parsed = Url.parse(url)
    driver = registry.find(parsed)(parsed, ThreadRuntime(), "default", 9.0)
    await driver.open()


def test_members_are_counted(scheme: str) -> None:
    """Three members are well; a URL that names one of them, and a fourth, are told."""
    # Else etcd would take no member before the others have been connected for five seconds.
    with EtcdCluster(settings={"strict-reconfig-check": "false"}) as cluster:
        url = cluster.url.replace("etcd:", f"{scheme}:")
        assert not any("member" in subject for subject in findings(url))
        one = findings(cluster.members[0].url.replace("etcd:", f"{scheme}:"))
        assert one["the URL names 1 of 3 members"].severity == "note"
        # Two are announced, and never started: a learner, and then one that votes.
        added = cluster.members[0].call(
            "cluster/member/add", {"peerURLs": ["http://127.0.0.1:1"], "isLearner": True}
        )
        found = findings(url)
        assert any(subject.startswith("learner") for subject in found)
        assert not any("voting" in subject for subject in found)
        cluster.members[0].call("cluster/member/remove", {"ID": added["member"]["ID"]})
        cluster.members[0].call("cluster/member/add", {"peerURLs": ["http://127.0.0.1:2"]})
        assert findings(url)["4 voting members"].severity == "warning"


def test_the_quota_that_nobody_tells_is_a_note(
    server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without metrics, and before 3.6, it is said that the quota cannot be known."""
    with EtcdServer(settings={"listen-metrics-urls": "http://127.0.0.1:0"}) as silent:
        status = silent.call("maintenance/status")
        found = findings(silent.url)
        if "dbSizeQuota" not in status and upkeep.quota(silent.host, silent.port, None, 5) is None:
            assert found["the space quota"].severity == "note"
    monkeypatch.setattr(upkeep, "quota", lambda *_: None)
    old = Status("3.5.13", 1 << 20, 1 << 19, 0)
    told = drive(module._space(old, Url.parse(server.url), ThreadRuntime(), 1.0))
    assert [each.subject for each in told] == ["the space quota"]


@pytest.mark.parametrize("mutual", [False, True])
def test_the_quota_is_read_over_tls(mutual: bool) -> None:
    """The metrics are asked for with the certificates of the URL."""
    settings = {"quota-backend-bytes": str(QUOTA)}
    with EtcdServer(settings=settings, tls=True, mutual_tls=mutual) as server:
        options = Url.parse(server.url).options
        assert upkeep.quota(server.host, server.port, options, 5.0) == QUOTA
        assert upkeep.quota(server.host, server.port, None, 5.0) is None
        assert not any("quota" in subject for subject in findings(server.url))


@pytest.mark.parametrize(
    "version, severity",
    [
        ("3.3.27", "error"),
        ("3.4.30", "warning"),
        ("3.4.31", None),
        ("3.5.12", "warning"),
        ("3.5.13", None),
        ("3.6.0", None),
        ("4.0.0", None),
        ("unheard of", None),
    ],
)
def test_versions_are_judged(version: str, severity: str | None) -> None:
    """Versions that end sessions wrongly, or lack what is needed, are told."""
    assert [each.severity for each in module._version(version)] == ([severity] if severity else [])


def test_a_damaged_cluster_is_told() -> None:
    """The alarm of members that disagree is an error, over both wires."""
    alarm = b"\x12\x04\x08\x07\x10\x02"
    assert upkeep.alarm_reply(alarm) == ["CORRUPT"]
    assert upkeep.alarm_json({"alarms": [{"memberID": "7", "alarm": "CORRUPT"}]}) == ["CORRUPT"]

    class Damaged:
        async def members(self) -> list[Member]:
            return [Member(f"m{at}", False) for at in range(3)]

        async def alarms(self) -> list[str]:
            return ["CORRUPT"]

        async def status(self) -> Status:
            return Status("3.6.0", 1, 1, 100)

    wire: Any = Damaged()
    url = Url.parse("etcd://a,b,c")
    (found,) = drive(module.examine(wire, url, ThreadRuntime(), 1.0))
    assert (found.severity, found.subject) == ("error", "alarm CORRUPT")


def test_a_server_that_is_gone_is_no_finding(server: EtcdServer) -> None:
    """Where nobody answers, that is raised, as by any other call."""

    async def gone() -> None:
        with EtcdServer() as other:
            parsed = Url.parse(other.url)
            driver = registry.find(parsed)(parsed, ThreadRuntime(), "default", 3.0)
            await driver.open()
            other.kill()
            try:
                await driver.examine()
            finally:
                await driver.close()

    with pytest.raises(Unavailable):
        drive(gone())

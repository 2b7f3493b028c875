"""Manifests and evidence for tests of the policy: complete, and easy to spoil in one place."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from tenure.policy import manifest
from tenure.policy.characteristics import Characteristic
from tenure.policy.evidence import Cell, Check, Evidence, Fault, Judgement, Run, Test
from tenure.policy.levels import Record, RecordedRun
from tenure.policy.manifest import Manifest
from tenure.policy.profiles import PROFILES, RUNTIMES

TODAY = date(2030, 6, 1)
RELEASED = date(2029, 12, 31)
"""When the client library had its last release."""

MANIFEST = """\
driver = "sample"
summary = "A sample."
schemes = ["sample"]
owners = ["Somebody"]
page = "docs/drivers/sample.md"
unit_tests = ["tests/test_sample.py"]
sources = ["sample.py"]
client = "client"

[ci]
job = "kit"
votes = true

[strategies.default]
summary = "As it comes."
provision = ["sample:Backend"]
profiles = ["lock", "group"]
claims = ["FENCED"]
recovery_seconds = 10

[strategies.default.unsupported]
"object-lock" = "not built"
rwlock = "not built"
semaphore = "not built"
watch = "not built"
election = "not built"
partition = "not built"

[[strategies.default.supports]]
os = "debian ==12"
python = ">=3.11"
backend = "sample >=7,<8"
client = "client >=3"

[strategies.other]
summary = "In another way."
when = { lock = "other" }
provision = ["sample:Other"]
profiles = ["lock"]
claims = []

[strategies.other.unsupported]
"object-lock" = "not built"
rwlock = "not built"
semaphore = "not built"
group = "not built"
watch = "not built"
election = "not built"
partition = "not built"

[[strategies.other.supports]]
os = "debian ==12"
python = ">=3.11"
backend = "sample >=7,<8"
"""


def sample() -> Manifest:
    """The manifest of a driver that claims locks and groups."""
    return manifest.parse(MANIFEST, "sample.toml")


def evidence(strategy: str = "default", days: int = 1, **changes: Any) -> Evidence:
    """What a run found that was so many days ago, in which all was well, but for the changes."""
    started = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC) - timedelta(days=days)
    profiles = ("lock", "group") if strategy == "default" else ("lock",)
    made = Evidence(
        driver="sample",
        strategy=strategy,
        entry_point="sample:Driver",
        driver_version="1.0",
        source_hash="now",
        suite_version="1",
        suite_hash="suite",
        cell=Cell("debian 12", "3.11.7", "sample", "7.2.1", "", "client", "3.1"),
        run=Run("abc1234", False, started.isoformat(), 60.0, False),
        tests=tuple(
            Test(profile, case, runtime, "passed", 0.1)
            for profile in profiles
            for case in (*PROFILES[profile].basic, f"another_of_{profile}")
            for runtime in RUNTIMES
        ),
        characteristics=(judgement(),),
        checks={
            id: Check(True, "", RELEASED if id == "P6" else None)
            for id in ("E2", "E4", "E5", "E6", "P3", "P6", "S4")
        },
        coverage_percent=80.0,
        planned={
            f"{profile}/{runtime}": len(PROFILES[profile].basic) + 1
            for profile in profiles
            for runtime in RUNTIMES
        },
        benchmark={f"p99_seconds_{count}": 0.01 for count in (1, 16, 64)},
    )
    return made._replace(**changes)


def judgement(verdict: Any = "corroborated", **changes: Any) -> Judgement:
    """What the experiment on FENCED said, under a fault that bit."""
    fault = Fault("restart", True, "process 1 ended", True, 1.0)
    made = Judgement(
        Characteristic.FENCED, verdict, "tokens", {"ttl": 1}, 7, 10, 3.0, "", "", (fault,)
    )
    return made._replace(**changes)


def runs(count: int = 20, strategy: str = "default", every_hours: int = 24) -> list[RecordedRun]:
    """So many green runs, the last one yesterday."""
    last = datetime(TODAY.year, TODAY.month, TODAY.day, tzinfo=UTC) - timedelta(days=1)
    return [
        RecordedRun(
            "kit",
            "sample",
            strategy,
            (last - timedelta(hours=every_hours * index)).isoformat(),
            "abc1234",
            True,
            100,
            0,
        )
        for index in range(count)
    ]


def record(*found: Evidence, ran: list[RecordedRun] | None = None) -> Record:
    """All that is known: by default, what makes the sample stable in both strategies."""
    default = [*runs(), *runs(strategy="other")]
    return Record(
        found or (evidence(), evidence("other")),
        tuple(default if ran is None else ran),
        "now",
        "suite",
    )

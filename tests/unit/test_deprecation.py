"""A driver goes away in steps, never sooner than was promised, and leaves a tombstone."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

import tenure
import tenure.aio
from support.gated import Sample, closed
from support.policy import MANIFEST
from tenure import cli
from tenure.drivers import registry
from tenure.errors import DriverDeprecated, UnknownDriver
from tenure.policy import deprecation, gate, manifest, standing
from tenure.policy.deprecation import Phase, Released, Tombstone
from tenure.policy.home import built_in
from tenure.policy.manifest import Manifest

ROOT = Path(__file__).parents[2]
RELEASED = ROOT / "tests" / "fixtures" / "released.json"
URL = "sample://"
BLOCK = """
[deprecation]
since = "0.5.0"
since_date = 2030-01-31
remove_in = "0.8.0"
reason = "its client library had no release for three years"
replacement = "redis"
migration = "docs/drivers/redis.md"
"""
STONE = Tombstone(
    "sample",
    "0.5.0",
    date(2030, 1, 31),
    "0.8.0",
    date(2030, 11, 1),
    "its client library had no release for three years",
    "redis",
    "docs/drivers/redis.md",
)
BEFORE = Released(
    "0.7.0", {"sample": "sample:Driver"}, {"sample": ("0.5.0", date(2030, 1, 31))}, frozenset()
)
LATE = date(2030, 11, 1)


def deprecated(old: str = "", new: str = "") -> Manifest:
    """The sample's manifest with a deprecation in it, of which one passage may be replaced."""
    assert old in BLOCK
    return manifest.parse(MANIFEST + BLOCK.replace(old, new), "sample.toml")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sample]:
    """The sample, which has earned everything, and is deprecated since 0.5.0."""
    for made in closed(tmp_path, monkeypatch, inside=True):
        made.known(of=deprecated())
        yield made


def release(monkeypatch: pytest.MonkeyPatch, version: str, today: date) -> None:
    """A new process of a program, with that release of Tenure, on that day."""
    monkeypatch.setattr(tenure, "__version__", version)
    monkeypatch.setattr(standing, "today", lambda: today)
    gate.forget()


def heard(times: int = 1, **options: Any) -> list[warnings.WarningMessage]:
    """What is warned of when one connects so many times."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        for _ in range(times):
            tenure.connect(URL, **options).close()
    return found


def test_a_driver_goes_away_in_steps(
    own: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """From the release before the announcement to the one after the removal, a program sees it."""
    release(monkeypatch, "0.4.2", date(2030, 1, 1))
    assert heard() == []

    release(monkeypatch, "0.5.0", date(2030, 1, 31))
    (once,) = heard(times=3)
    assert once.category is tenure.DeprecatedDriverWarning
    assert once.filename == __file__
    for part in (
        "since 0.5.0",
        "removed in 0.8.0",
        "no release for three",
        "use redis",
        "redis.md",
    ):
        assert part in str(once.message)

    release(monkeypatch, "0.6.1", date(2030, 5, 1))
    caplog.clear()
    assert len(heard(times=3)) == 3
    assert [each.levelno for each in caplog.records] == [logging.WARNING] * 3

    release(monkeypatch, "0.7.0", date(2030, 8, 1))
    with pytest.raises(DriverDeprecated, match="allow='sample' or TENURE_ALLOW=sample") as refused:
        heard()
    assert refused.value.driver == "sample"
    assert "use redis, as docs/drivers/redis.md tells" in str(refused.value)
    assert len(heard(times=2, allow="sample")) == 2
    assert own.driver.opened == 0

    release(monkeypatch, "0.8.0", date(2030, 10, 30))  # three releases, but not nine months
    assert "it was deleted, and it is deprecated since 2030-01-31" in _checked({}, [])[0]
    with pytest.raises(DriverDeprecated):
        heard()

    release(monkeypatch, "0.8.0", LATE)
    assert _checked({}, [STONE]) == []
    monkeypatch.delitem(registry.BUILT_IN, "sample")
    path = tmp_path / "tombstones.toml"
    path.write_text(_toml(STONE))
    monkeypatch.setattr(deprecation, "TOMBSTONES", path)
    with pytest.raises(UnknownDriver, match=r"was removed in 0\.8\.0: .*; use redis, as docs/dr"):
        heard()
    with pytest.raises(UnknownDriver, match="no driver for the scheme 'samples'"):
        tenure.connect("samples://")


def _checked(schemes: Any, stones: list[Tombstone]) -> list[str]:
    today = standing.today()
    return deprecation.check(BEFORE, schemes, [], stones, tenure.__version__, today)


def _toml(stone: Tombstone) -> str:
    values = (
        f"{name} = {value}" if isinstance(value, date) else f'{name} = "{value}"'
        for name, value in stone._asdict().items()
    )
    return "[[tombstones]]\n" + "\n".join(values) + "\n"


def test_the_command_line_is_told_when_it_is_grave(
    own: Sample, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first release says nothing on standard error, and the second a line at each run."""
    logger = logging.getLogger("tenure")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "handlers", [])
    for version, lines in (("0.5.0", 0), ("0.6.0", 1)):
        release(monkeypatch, version, date(2030, 5, 1))
        with pytest.raises(SystemExit) as ended:
            raise SystemExit(cli.main(["status", "--url", URL]))
        assert ended.value.code == cli.ExitCode.DONE
        said = capsys.readouterr().err.splitlines()
        assert [line[:35] for line in said] == ["tenure: sample: this driver is depre"[:35]] * lines


def test_the_version_is_that_of_the_distribution(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver of others goes by its own releases; one that nobody has installed is announced."""
    for made in closed(tmp_path, monkeypatch, inside=False):
        made.known(of=deprecated())
        release(monkeypatch, "0.7.0", date(2030, 8, 1))
        assert len(heard(times=2, min_level="preview")) == 1
        info = tmp_path / "sample_driver-0.7.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: sample-driver\nVersion: 0.7.0\n"
        )
        (info / "entry_points.txt").write_text("[tenure.drivers]\nsample = sample:Driver\n")
        with pytest.raises(DriverDeprecated):
            heard()


@pytest.mark.parametrize(
    "version, today, phase",
    [
        ("0.4.9", date(2030, 12, 1), Phase.NONE),
        ("0.5.0", date(2030, 2, 1), Phase.ANNOUNCED),
        ("0.5.7", date(2033, 2, 1), Phase.ANNOUNCED),
        ("0.6.0", date(2030, 2, 1), Phase.LOUD),
        ("0.7.0", date(2030, 2, 1), Phase.REFUSED),
        ("0.8.0", date(2030, 10, 30), Phase.REFUSED),
        ("0.8.0", date(2030, 10, 31), Phase.DUE),
        ("0.12.0", date(2030, 10, 31), Phase.DUE),
        ("1.0.0", date(2031, 1, 1), Phase.LOUD),
        ("1.2.0", date(2031, 1, 1), Phase.DUE),
        ("", date(2031, 1, 1), Phase.ANNOUNCED),
    ],
)
def test_phases(version: str, today: date, phase: Phase) -> None:
    """Each minor release is one step, a major one too, and the last needs nine months besides."""
    block = deprecated().deprecation
    assert block is not None
    assert deprecation.phase(block, version, today) is phase


@pytest.mark.parametrize(
    "since, due",
    [
        (date(2030, 1, 1), date(2030, 10, 1)),
        (date(2030, 5, 31), date(2031, 3, 1)),
        (date(2031, 5, 29), date(2032, 2, 29)),
        (date(2030, 12, 31), date(2031, 10, 1)),
        (date(2030, 3, 31), date(2030, 12, 31)),
    ],
)
def test_nine_months_are_never_less(since: date, due: date) -> None:
    """Where the month has no such day, it is the first day of the next one."""
    found = deprecation.due(since)
    assert found == due or (found.day == 1 and found > due)
    assert found >= due


def test_the_banner() -> None:
    """The page carries a banner from the second release on, and it names the replacement."""
    block, today = deprecated().deprecation, date(2030, 9, 1)
    assert deprecation.banner("sample", None, "0.6.0", today) == ""
    assert deprecation.banner("sample", block, "0.5.3", today) == ""
    loud = deprecation.banner("sample", block, "0.6.0", today)
    assert loud.startswith("> **Deprecated since 0.5.0, to be removed in 0.8.0:** its client")
    assert "Use redis: see docs/drivers/redis.md." in loud
    assert "allow=" not in loud
    assert '`allow="sample"`' in deprecation.banner("sample", block, "0.7.0", today)


# -- what CI rejects -------------------------------------------------------------------------------


def test_the_tree_keeps_its_promises(tmp_path: Path) -> None:
    """No entry point of the last release was deleted early, and no deprecation is too short."""
    schemes = {scheme: entry.target for scheme, entry in registry.BUILT_IN.items()}
    manifests = [home.load() for home in built_in()]
    stones, today = deprecation.tombstones(), standing.today()
    before = deprecation.released(RELEASED)
    version = tenure.__version__
    assert deprecation.check(before, schemes, manifests, stones, version, today) == []
    # And it would be found out: with all that is there today as released, nothing may go.
    path = tmp_path / "released.json"
    path.write_text(deprecation.state(version, schemes, manifests))
    now = deprecation.released(path)
    for gone in schemes.keys() - {
        each for of in manifests if of.deprecation for each in of.schemes
    }:
        (wrong,) = deprecation.check(
            now, schemes.keys() - {gone}, manifests, stones, version, today
        )
        assert wrong == f"{gone}: it was deleted, and no release has called it deprecated"
    for migration in (
        *(each.deprecation.migration for each in manifests if each.deprecation),
        *(stone.migration for stone in stones),
    ):
        assert (ROOT / migration).exists(), migration


def test_the_last_release_is_recorded() -> None:
    """What CI compares with is the newest release of the changelog, and not an older one."""
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[([0-9][^\]]*)\]", text, re.MULTILINE)
    assert deprecation.released(RELEASED).version == (versions[0] if versions else "")


def test_what_a_release_records_is_read_again(tmp_path: Path) -> None:
    """A release records entry points and announcements in the form that the next one reads."""
    path = tmp_path / "released.json"
    path.write_text(deprecation.state("0.7.0", {"sample": "sample:Driver"}, [deprecated()]))
    assert deprecation.released(path) == BEFORE


@pytest.mark.parametrize(
    "before, stones, version, today, says",
    [
        (BEFORE._replace(deprecations={}), [STONE], "0.8.0", LATE, "no release has called it"),
        (BEFORE, [STONE], "0.7.0", LATE, "since 0.5.0, which is not 3 minor releases ago"),
        (BEFORE, [STONE], "0.8.0", date(2030, 10, 30), "2030-01-31, which is not 9 months ago"),
        (BEFORE, [], "0.8.0", LATE, "it has no tombstone"),
        (BEFORE, [STONE._replace(since="0.4.0")], "0.8.0", LATE, "since 0.4.0, not since 0.5.0"),
    ],
)
def test_an_entry_point_is_not_deleted_early(
    before: Released, stones: list[Tombstone], version: str, today: date, says: str
) -> None:
    """Too few releases, too few months, no announcement or no tombstone: each is rejected."""
    (wrong,) = deprecation.check(before, {}, [], stones, version, today)
    assert wrong.startswith("sample: it was deleted, and ")
    assert says in wrong


def test_a_tombstone_stays_and_is_of_the_dead() -> None:
    """An entry may neither vanish, nor be about a driver that is there."""
    before = BEFORE._replace(entry_points={}, tombstones=frozenset({"ferry"}))
    wrong = deprecation.check(before, {"sample": ""}, [], [STONE], "0.9.0", LATE)
    assert wrong == ["ferry: its tombstone is gone", "sample: it has a tombstone and lives"]


@pytest.mark.parametrize(
    "old, new, before, says",
    [
        ("0.8.0", "0.7.0", BEFORE, "remove_in 0.7.0 is less than 3 minor releases after 0.5.0"),
        ("2030-01-31", "2039-01-31", BEFORE, "since_date 2039-01-31 is yet to come"),
        ("2030-01-31", "2029-01-31", BEFORE, "it has been deprecated since 0.5.0, 2030-01-31"),
        ("", "", BEFORE._replace(deprecations={}), "since 0.5.0 is not after 0.7.0, which was"),
    ],
)
def test_a_promise_is_not_broken(old: str, new: str, before: Released, says: str) -> None:
    """An announcement is neither too short, nor dated forward or back, nor changed later."""
    found = deprecated(old, new) if old else deprecated()
    wrong = deprecation.check(before, {"sample": ""}, [found], [], "0.8.0", LATE)
    assert any(line.startswith(f"sample: {says}") for line in wrong), wrong


def test_a_promise_is_kept() -> None:
    """A driver that was announced and is still there is as it should be."""
    assert deprecation.check(BEFORE, {"sample": ""}, [deprecated()], [], "0.8.0", LATE) == []


@pytest.mark.parametrize(
    "text, says",
    [
        ('[[tombstones]]\nscheme = "ferry"', "tombstone 1: 'since' is None, and it must be text"),
        (_toml(STONE) + "level = 3", "there is no key level"),
        (
            _toml(STONE).replace("removed_on = 2030-11-01", 'removed_on = "lately"'),
            "'removed_on' is 'lately', and it must be a date",
        ),
    ],
)
def test_a_tombstone_is_whole(tmp_path: Path, text: str, says: str) -> None:
    """An entry that lacks something, or has more, is named with what is wrong."""
    path = tmp_path / "tombstones.toml"
    path.write_text(text)
    with pytest.raises(deprecation.InvalidTombstones, match=re.escape(says)):
        deprecation.tombstones(path)

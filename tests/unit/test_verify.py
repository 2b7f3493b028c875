"""The runner: what it records, what of an older file it keeps, where it writes, what it leaves."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import tenure
from tenure._model import Server
from tenure._url import Url
from tenure.drivers import registry
from tenure.errors import InvalidArgument, StorageError, Unavailable
from tenure.policy import evidence as evidence_
from tenure.policy.characteristics import Characteristic
from tenure.policy.evidence import Cell, Evidence, Judgement, Run
from tenure.policy.home import Home, home, homes, load_runs
from tenure.policy.index import read as read_index
from tenure.policy.levels import POLICY, Level, Record, evaluate
from tenure.policy.profiles import PROFILES
from tenure.testing.backends import FileBackend, MemoryBackend, RedlockBackend
from tenure.testing.kit import CASES, Case
from tenure.testing.verify import _probes, cells, checks, files, index, ledger, pages, runner
from tenure.testing.verify import subject as subjects
from tenure.testing.verify._coverage import Coverage
from tenure.testing.verify._crew import Source
from tenure.testing.verify._theirs import NotOurs, at_port, one_address
from tenure.testing.verify.events import Event, Found, Judged, Left, Tried
from tenure.testing.verify.runner import Options, verify_driver, verify_url
from tenure.testing.verify.subject import checkout, named, of_url
from tenure.testing.verify.suite import Suite, planned

ROOT = Path(__file__).parents[2]
BASIC = "acquire_and_release_leave_nothing"
LITTER = (
    "tokens_rise",
    "a_group_is_made_joined_left_and_deleted",
    "rosters_of_two_namespaces_never_meet",
    "namespaces_never_meet",
)
"""Cases that leave records, counters and files behind; and one that is not run on another's."""


def few(*names: str) -> Callable[[Case], bool]:
    """Chooses these cases alone."""
    return lambda case: case.name in names


NOTHING = Suite(few(), characteristics=(), contenders=(), programs=False, unit_tests=False)


def only(*names: str) -> Suite:
    """A suite of these cases and nothing else."""
    return NOTHING._replace(cases=few(*names))


# -- a driver that is broken, as another distribution ------------------------------------------

BROKEN = '''
"""A driver that keeps what is released."""

from tenure.drivers.memory import MemoryDriver
from tenure.testing.backends import MemoryBackend


class BrokenDriver(MemoryDriver):
    async def withdraw(self, session, roster, id, width=1):
        pass


class BrokenBackend(MemoryBackend):
    name = scheme = "broken-locks"

    @property
    def url(self):
        return "broken-locks://kit"
'''

MANIFEST = """
driver = "broken_locks"
summary = "It keeps what is released."
schemes = ["broken-locks"]
page = "docs/broken.md"
sources = ["broken_locks.py"]

[ci]
job = "kit"
votes = false

[strategies.default]
summary = "There is one."
provision = ["broken_locks:BrokenBackend"]
profiles = ["lock"]
claims = []

[strategies.default.unsupported]
object-lock = "it says so"
rwlock = "it says so"
semaphore = "it says so"
group = "it says so"
watch = "it says so"
election = "it says so"
partition = "it says so"
"""


@pytest.fixture
def broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a broken driver is installed."""
    folder = tmp_path / "site-packages"
    info = folder / "broken_locks-1.5.dist-info"
    info.mkdir(parents=True)
    (folder / "broken_locks.py").write_text(BROKEN)
    (folder / "broken_locks.toml").write_text(MANIFEST)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-locks\nVersion: 1.5\n")
    (info / "top_level.txt").write_text("broken_locks\n")
    entry = "[tenure.drivers]\nbroken-locks = broken_locks:BrokenDriver\n"
    (info / "entry_points.txt").write_text(entry)
    monkeypatch.delitem(sys.modules, "broken_locks", raising=False)  # of another test's folder
    monkeypatch.syspath_prepend(str(folder))
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    return folder


def test_a_failing_case_lowers_the_level(broken: Path, tmp_path: Path) -> None:
    """A driver out of tree whose lock stays held: its cases fail, and E1 is not met."""
    out = tmp_path / "out"
    (found,) = verify_driver("broken_locks", None, Options(out=out, suite=only(BASIC)), _ignore)
    assert found.path is not None
    read = evidence_.load(found.path)
    assert [(test.case, test.outcome) for test in read.tests] == [(BASIC, "failed")] * 2
    assert "basic.py:" in read.tests[0].detail  # the line of the case that found it
    assert (read.driver_version, read.provenance) == ("1.5", "self-reported")
    assert read.entry_point == "broken_locks:BrokenDriver"
    # What it calls unsupported works, and that is a failure, too.
    assert not read.checks["E6"].holds
    assert "object-lock (thread) is said to be unsupported" in read.checks["E6"].detail
    assert {each.partition(" ")[0] for each in found.failures} == {BASIC, "E6:"}
    manifest = named("broken_locks")[0].manifest
    standing = evaluate(manifest, Record((read,)), POLICY, read.started.date())
    assert standing.level is Level.UNVERIFIED
    assert "E1" in {each.requirement for each in standing.strategies["default"].profiles["lock"][1]}


def test_a_case_that_passes_is_not_held_against_it(tmp_path: Path) -> None:
    """The same case passes on the driver that is not broken, and E1 is met."""
    heard: list[Event] = []
    options = Options(out=tmp_path, suite=only(BASIC))
    (found,) = verify_driver("memory", "default", options, heard.append)
    assert found.failures == ()
    assert found.path is not None
    read = evidence_.load(found.path)
    assert [test.outcome for test in read.tests] == ["passed", "passed"]
    assert [event.number for event in heard if isinstance(event, Tried)] == [1, 2]
    assert read.cell == cells.cell(Server("python", sys.version.partition(" ")[0]))
    assert read.source_hash == home("tenure.drivers.memory").source_hash(
        named("memory")[0].manifest
    )
    assert read.checks["E2"].holds
    assert read.checks["P3"].holds, read.checks["P3"]
    assert read.run.voting is False
    standing = evaluate(named("memory")[0].manifest, Record((read,)), POLICY, read.started.date())
    unmet = standing.strategies["default"].profiles["lock"].unmet
    assert "E1" not in {each.requirement for each in unmet}


def test_a_case_interrupts_in_the_background_of_a_shell(tmp_path: Path) -> None:
    """What a shell starts there ignores SIGINT; what the cases start does not."""
    options = Options(out=tmp_path, suite=only("an_interrupted_acquire_leaves_nothing"))
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        (found,) = verify_driver("file", "default", options, _ignore)
    finally:
        signal.signal(signal.SIGINT, usual)
    assert found.path is not None
    assert [each.outcome for each in evidence_.load(found.path).tests] == ["passed", "passed"]


def test_a_characteristic_is_judged_whatever_is_claimed(tmp_path: Path) -> None:
    """Threads are tried on the driver, and what is found stands in the evidence."""
    heard: list[Event] = []
    suite = NOTHING._replace(characteristics=(Characteristic.DISTRIBUTED_ACROSS_THREADS,))
    (found,) = verify_driver(
        "memory", None, Options(out=tmp_path / "one.json", suite=suite, seed=7), heard.append
    )
    (judgement,) = found.evidence.characteristics
    assert (judgement.verdict, judgement.seed) == ("corroborated", 7)
    assert [event.claimed for event in heard if isinstance(event, Judged)] == [True]
    assert evidence_.load(tmp_path / "one.json") == found.evidence


def _ignore(event: Event) -> None:
    """For whom the evidence is enough."""


# -- what stays of an older file ---------------------------------------------------------------


def judgement(verdict: Any, of: Characteristic = Characteristic.FENCED, seed: int = 1) -> Judgement:
    """One that was not made by an experiment."""
    return Judgement(of, verdict, "x", {}, seed, 1, 0.1, counterexample="seen")


def evidence(*judgements: Judgement, source: str = "s", version: str = "7.0") -> Evidence:
    """Some evidence about nothing."""
    return Evidence(
        driver="redis",
        strategy="default",
        entry_point="m:C",
        driver_version="1",
        source_hash=source,
        suite_version="1",
        suite_hash="h",
        cell=Cell("debian 12", "3.11.7", "redis", version),
        run=Run("c", False, "2026-01-01T00:00:00+00:00", 1.0, False),
        tests=(),
        characteristics=judgements,
        checks={},
    )


def test_a_refutation_is_carried_over() -> None:
    """A new run that found nothing does not wipe out what an older one has refuted."""
    old, new = judgement("refuted", seed=1), judgement("corroborated", seed=2)
    assert files.carried(evidence(new), evidence(old)).characteristics == (old,)
    assert files.carried(evidence(), evidence(old)).characteristics == (old,)
    again = judgement("refuted", seed=3)
    assert files.carried(evidence(again), evidence(old)).characteristics == (again,)


@pytest.mark.parametrize("changed", [{"source": "t"}, {"version": "7.2"}])
def test_a_refutation_ends_with_a_change(changed: Mapping[str, str]) -> None:
    """With other code of the driver, or another version of the backend, the new run counts."""
    new = evidence(judgement("corroborated"))
    assert files.carried(new, evidence(judgement("refuted"), **changed)) == new
    assert files.carried(new, evidence(judgement("corroborated", seed=4))) == new
    assert files.carried(new, None) == new


def test_a_run_carries_what_its_file_says(tmp_path: Path) -> None:
    """The runner looks into the file that it replaces."""
    out = tmp_path / "one.json"
    (found,) = verify_driver("memory", None, Options(out=out, suite=NOTHING), _ignore)
    refuted = judgement("refuted")._replace(characteristic=Characteristic.SELF_AWARE)
    files.write(out, found.evidence._replace(characteristics=(refuted,)))
    (found,) = verify_driver("memory", None, Options(out=out, suite=NOTHING), _ignore)
    assert evidence_.load(out).characteristics == (refuted,)
    assert found.failures == ("SELF_AWARE refuted",)


# -- where it writes ---------------------------------------------------------------------------


def test_two_recipes_are_two_cells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where two bring up the same, one would overwrite the other; that is told before any work."""
    (one,) = named("memory")
    twin = "support.backends:Twin"
    recipes = (*one.strategy.provision, twin)
    both = one._replace(strategy=one.strategy._replace(provision=recipes))
    monkeypatch.setattr(runner, "named", lambda name, strategy: [both])
    monkeypatch.setattr(type(both), "backends", lambda self: [MemoryBackend, MemoryBackend])
    up = runner._boot(Source(recipes[0]))
    assert not isinstance(up, str)
    monkeypatch.setattr(runner, "_boot", lambda source: up._replace(source=source))
    with pytest.raises(InvalidArgument, match=rf"MemoryBackend and {twin} bring up the same cell"):
        verify_driver("memory", None, Options(out=tmp_path, suite=NOTHING), _ignore)
    assert not list(tmp_path.rglob("*.json"))


def test_what_cannot_be_written_fails_at_once(tmp_path: Path) -> None:
    """A folder that is none is refused before any backend is started."""
    (tmp_path / "file").write_text("")
    heard: list[Event] = []
    with pytest.raises(StorageError, match="file"):
        verify_driver("memory", None, Options(out=tmp_path / "file" / "x"), heard.append)
    with pytest.raises(InvalidArgument, match="2 cells"):
        verify_driver("redis", None, Options(out=tmp_path / "one.json"), heard.append)
    assert not heard


def test_evidence_has_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it lies beside the driver in a checkout, and else in a folder here."""
    (subject,) = named("memory")
    cell = Cell("debian 12", "3.11.7", "python", "3.11.7")
    name = f"memory/default/{cell.name}.json"
    assert files.Files(tmp_path).path(subject, cell) == tmp_path / name
    assert files.Files(None).path(subject, cell) == subject.home.evidence / name
    monkeypatch.setattr(files, "checkout", lambda folder: None)
    assert files.Files(None).path(subject, cell) == Path("evidence") / name


def test_an_installed_driver_is_in_no_checkout(tmp_path: Path) -> None:
    """A virtual environment in somebody's checkout makes no checkout of what is in it."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "pyproject.toml").write_text("")
    installed = tmp_path / "venv" / "site-packages" / "package" / "drivers"
    assert checkout(installed) is None
    assert checkout(tmp_path / "src" / "package") == tmp_path
    assert checkout(home("tenure.drivers.memory").folder) == ROOT


def test_the_index_follows_the_evidence(broken: Path, tmp_path: Path) -> None:
    """Where evidence lands beside the driver, `connect` knows of it; elsewhere nothing changes."""
    path = broken / "evidence" / "index.json"
    verify_driver("broken_locks", None, Options(out=tmp_path / "x", suite=NOTHING), _ignore)
    assert not path.exists()
    verify_driver("broken_locks", None, Options(out=broken / "evidence", suite=NOTHING), _ignore)
    assert read_index(path)["broken_locks"]["strategies"][0]["backends"]
    assert {each.name for each in path.parent.iterdir()} == {"broken_locks", "index.json"}


def test_code_that_changes_meanwhile_makes_no_evidence(broken: Path, tmp_path: Path) -> None:
    """What ran is then neither the old code for certain, nor the new."""
    source = broken / "broken_locks.py"
    assert source.exists(), sorted(broken.iterdir())

    def hear(event: Event) -> None:
        source.write_text(source.read_text() + "\n# changed\n")

    with pytest.raises(Unavailable, match="was changed while it was verified"):
        verify_driver("broken_locks", None, Options(out=tmp_path / "x", suite=NOTHING), hear)
    assert not list(tmp_path.rglob("*.json"))


def test_a_part_of_the_suite_is_not_put_in_its_place(tmp_path: Path) -> None:
    """Evidence of a selection is written only where somebody asked for it; it is told, though."""
    heard: list[Event] = []
    (found,) = verify_driver("memory", None, Options(suite=NOTHING), heard.append)
    assert found.path is None
    assert [event for event in heard if isinstance(event, Found)] == [found]


@pytest.mark.parametrize(
    ("name", "strategy", "said"),
    [
        ("nosuch", None, "no driver 'nosuch'"),
        ("redis/nosuch", None, "no strategy 'nosuch'; it has default, redlock"),
        ("redis", "nosuch", "no strategy 'nosuch'"),
    ],
)
def test_who_is_not_there(name: str, strategy: str | None, said: str) -> None:
    """Names that are none are told, with those that there are."""
    with pytest.raises(InvalidArgument, match=said):
        named(name, strategy)


def test_a_profile_must_be_claimed() -> None:
    """A profile that the strategy lacks is not silently left out."""
    with pytest.raises(InvalidArgument, match="redis/redlock does not claim the profile 'group'"):
        verify_driver("redis/redlock", None, Options(profiles=["group"]), _ignore)


# -- what is run -------------------------------------------------------------------------------


def test_cases_follow_profiles_and_traits() -> None:
    """Every case that the traits allow is run for a claimed profile, with either API."""
    traits = MemoryBackend.traits()
    plan = planned(Suite(), PROFILES, traits)
    allowed = {
        (case.name, each) for case in CASES if not case.unmet(traits) for each in case.flavours
    }
    assert {(each.case, each.flavour) for each in plan} == allowed
    assert len(plan) == len(allowed)
    assert {each.profile for each in planned(Suite(), ["group"], traits)} == {"group"}


def test_the_plan_is_that_of_the_whole_suite(tmp_path: Path) -> None:
    """Whatever is left out of a run, its evidence says how many runs of cases there are."""
    options = Options(out=tmp_path / "x.json", profiles=["lock"], suite=NOTHING)
    (found,) = verify_driver("memory", None, options, _ignore)
    whole = planned(Suite(), PROFILES, MemoryBackend.traits())
    assert sum(found.evidence.planned.values()) == len(whole)
    asyncio = [each for each in whole if each[::2] == ("watch", "asyncio")]
    assert found.evidence.planned["watch/asyncio"] == len(asyncio) > 0


@pytest.mark.parametrize("flavour", ["thread", "asyncio"])
@pytest.mark.parametrize("profile", PROFILES)
def test_probes_use_what_they_name(profile: str, flavour: Any) -> None:
    """On a driver that has everything, no probe is refused."""
    assert set(_probes.USES) == set(PROFILES)
    backend = MemoryBackend()
    said = _probes.probe(backend, profile, flavour, f"probe-{profile}-{flavour}")
    # A watch, and a ring, need a group that is there.
    assert said == "it worked" or "GroupNotFound" in said


# -- somebody's own server ---------------------------------------------------------------------


@pytest.fixture
def folder() -> Iterator[FileBackend]:
    """A folder of lock files."""
    backend = FileBackend()
    backend.start()
    yield backend
    backend.stop()


def test_a_url_is_left_as_it_was(folder: FileBackend) -> None:
    """After a run nothing is there but what was before; and nothing of that was touched."""
    root = Path(folder.url.removeprefix("file://"))
    heard: list[Event] = []
    with tenure.connect(folder.url, namespace="theirs") as coordinator:
        group = coordinator.group("g")
        member = group.join(member="one")
        before = sorted(root.rglob("*"))
        (found,) = verify_url(folder.url, Options(suite=only(*LITTER)), heard.append)
        assert sorted(root.rglob("*")) == before
        assert [each.id for each in group.members()] == ["one"]
        member.leave()
    assert not [event for event in heard if isinstance(event, Left)]
    assert found.path is None
    assert found.failures == ()
    assert found.evidence.provenance == "self-reported"
    details = {test.case: test.detail for test in found.evidence.tests}
    assert set(details) == set(LITTER)
    # One case makes namespaces that might be somebody else's, and so it was not run.
    assert {case for case, detail in details.items() if detail} == {LITTER[-1]}
    assert "may be somebody else's" in details[LITTER[-1]]


def test_nobody_takes_the_place_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another distribution has broken, or called as one of Tenure's, changes nothing."""
    (tmp_path / "redis.toml").write_text("x")
    monkeypatch.setattr(subjects, "homes", lambda: [*homes(), Home(tmp_path, "redis")])
    assert of_url(Url.parse("memory://")).name == "memory/default"
    assert named("redis", "default")[0].home.folder != tmp_path


def test_the_url_chooses_the_strategy() -> None:
    """Its options do, and its scheme the driver; also one that only a table's scheme begins."""
    assert of_url(Url.parse("redis://a:1,b:1,c:1?lock=redlock")).name == "redis/redlock"
    assert of_url(Url.parse("postgresql://h/d?lock=row")).name == "postgresql/row"
    assert of_url(Url.parse("sql+mariadb+pymysql://h/d")).manifest.driver == "sql"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://cache", "does not name one host and its port"),
        ("redis://a:1,b:2", "does not name one host and its port"),
        ("redis+sentinel://a:1/s", "addresses that it does not name"),
        ("rediss://a:1", "certificate"),
        ("postgresql://a:1/d?sslmode=verify-full", "certificate"),
    ],
)
def test_where_no_proxy_can_stand(url: str, why: str) -> None:
    """It is said why a case that needs a proxy before the server was not run."""
    with pytest.raises(NotOurs, match=why):
        one_address(Url.parse(url))


def test_a_url_by_way_of_a_proxy() -> None:
    """The address is another, and user, path and options stay."""
    url = "redis://u:p%40@cache:6379/3?connections=2"
    assert one_address(Url.parse(url)) == ("cache", 6379)
    assert at_port(url, "127.0.0.1", 9) == "redis://u:p%40@127.0.0.1:9/3?connections=2"


# -- the checks --------------------------------------------------------------------------------


def test_unit_tests_must_name_the_driver(tmp_path: Path) -> None:
    """A test file that never mentions the driver is no test of it, and one must be there."""
    (subject,) = named("file")
    assert checks.unit_tests(subject).holds
    manifest = subject.manifest._replace(unit_tests=("tests/unit/test_hashring.py",))
    assert "neither imports" in checks.unit_tests(subject._replace(manifest=manifest)).detail
    manifest = subject.manifest._replace(unit_tests=("tests/unit/nosuch.py",))
    assert "is not here" in checks.unit_tests(subject._replace(manifest=manifest)).detail
    assert not checks.unit_tests(subject._replace(root=tmp_path)).holds


def test_a_page_must_have_its_sections(tmp_path: Path) -> None:
    """A missing section, and a scheme of another driver, are named."""
    (subject,) = named("file")
    assert checks.page(subject).holds
    text = (ROOT / subject.manifest.page).read_text()
    copy = tmp_path / subject.manifest.page
    copy.parent.mkdir(parents=True)
    copy.write_text(text.replace("## Considerations", "## Thoughts"))
    assert "nothing under 'Considerations'" in checks.page(subject._replace(root=tmp_path)).detail
    other = subject._replace(manifest=subject.manifest._replace(schemes=("file", "redis")))
    assert "redis is not this driver's" in checks.page(other).detail


def test_the_quick_start_runs_on_the_backend(folder: FileBackend, tmp_path: Path) -> None:
    """It is the live URL that it connects to; one that fails is told with what it says."""
    (subject,) = named("file")
    assert checks.quick_start(subject, folder.url, "verify-quick").holds
    assert Path(folder.url.removeprefix("file://"), "verify-quick").exists()
    copy = tmp_path / subject.manifest.page
    copy.parent.mkdir(parents=True)
    copy.write_text("\n## Quick start\n\n```python\nraise SystemExit('nothing works')\n```\n")
    found = checks.quick_start(subject._replace(root=tmp_path), folder.url, "verify-quick")
    assert (found.holds, found.detail) == (False, "nothing works")


def test_no_argument_has_a_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick start has the URL in its text, and the list of processes has neither."""
    (subject,) = named("redis", "default")
    page = tmp_path / subject.manifest.page
    page.parent.mkdir(parents=True)
    text = "import sys\nraise SystemExit(f\"{sys.orig_argv} {len('redis://db.example')}\")"
    page.write_text(f"\n## Quick start\n\n```python\n{text}\n```\n")
    found = checks.quick_start(subject._replace(root=tmp_path), "redis://:hunter2@h:1/0", "n")
    assert found.detail == f"{[sys.executable, '-']} {len('redis://:hunter2@h:1/0?namespace=n')}"


@pytest.mark.parametrize("secret", ["p@s/s", "p%40s%2fs", "p%40s/s", "t&ken", "t%26ken"])
def test_no_secret_is_told(tmp_path: Path, secret: str) -> None:
    """What a program says is told without the secrets of the URL, in any form, and cut after."""
    (subject,) = named("redis", "default")
    page = tmp_path / subject.manifest.page
    page.parent.mkdir(parents=True)
    said = f"{'x' * 297}{secret} and {secret}"
    page.write_text(f"\n## Quick start\n\n```python\nraise SystemExit({said!r})\n```\n")
    url = "redis://:p%40s%2Fs@h:1/0?token=t%26ken"
    found = checks.quick_start(subject._replace(root=tmp_path), url, "n")
    assert found.detail == f"{'x' * 297}***"


def test_quoted_urls_of_a_page_are_live() -> None:
    """Hosts that end in .example, and every URL in quotes of the driver's own schemes."""
    text = "connect('redis://a:b@c.example:1/0'); connect(\"file:///tmp/x\"); connect('memory://')"
    shown = pages.live_for(text, ["file"], "file:///live")
    assert shown == "connect('file:///live'); connect('file:///live'); connect('memory://')"


@pytest.mark.parametrize("program", ["nightly_job", "scheduler", "shared_work"])
def test_the_programs_pass(program: str, folder: FileBackend) -> None:
    """Each of the example programs passes on files, and fails where processes never meet."""
    command = [sys.executable, "-m", f"tenure.testing.programs.{program}"]
    done = subprocess.run([*command, folder.url], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([*command, "memory://"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout[:6]) == (1, "FAILED")


def test_the_newest_python() -> None:
    """A manifest that admits a newer Python than this one is not verified by this one."""
    (subject,) = named("memory")
    (line,) = subject.strategy.supports
    own = sys.version_info[1]
    python = line.python._replace(clauses=((">=", (3, own), False), ("<", (3, own + 1), False)))
    exact = subject.strategy._replace(supports=(line._replace(python=python),))
    assert checks.alive(subject._replace(strategy=exact), []).holds
    assert not checks.alive(subject._replace(strategy=exact), ["it did not boot"]).holds
    wider = python._replace(clauses=((">=", (3, own), False), ("<", (3, own + 2), False)))
    other = exact._replace(supports=(line._replace(python=wider),))
    found = checks.alive(subject._replace(strategy=other), [])
    assert f"admits 3.{own + 1}" in found.detail
    older = python._replace(clauses=(("<", (3, own), False),))
    none = exact._replace(supports=(line._replace(python=older),))
    assert "does not list" in checks.alive(subject._replace(strategy=none), []).detail


class Index(ThreadingHTTPServer):
    """A package index with one distribution, or with none."""

    def __init__(self, *files: Mapping[str, Any]) -> None:
        self.files = files
        self.asked: list[tuple[str, str, str | None]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://u:secret@127.0.0.1:{self.server_port}/simple"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        heads = self.headers
        self.server.asked.append((self.path, heads["Accept"], heads["Authorization"]))
        self.send_response(200 if self.server.files else 404)
        self.end_headers()
        if self.server.files:
            self.wfile.write(json.dumps({"files": self.server.files}).encode())

    def log_message(self, *_: Any) -> None:
        """It says nothing."""


def test_the_index_is_asked_for_the_last_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest file counts, but one that was withdrawn; pip's credentials are used, and kept."""
    with Index(
        {"upload-time": "2020-01-01T00:00:00Z"},
        {"upload-time": "2024-05-06T07:08:09.1Z"},
        {"upload-time": "2025-01-01T00:00:00Z", "yanked": "broken"},
    ) as server:
        monkeypatch.setenv("PIP_INDEX_URL", server.url)
        assert index.last_release("Some_Client").date() == date(2024, 5, 6)
        assert server.asked == [("/simple/some-client/", index.JSON, "Basic dTpzZWNyZXQ=")]
        server.shutdown()


@pytest.mark.parametrize("files", [(), ({"filename": "x"},)])
def test_an_index_that_does_not_say(monkeypatch: pytest.MonkeyPatch, files: Any) -> None:
    """One that knows nothing, or has no dates, is no proof of life; no secret is told."""
    with Index(*files) as server:
        monkeypatch.setattr(index, "_pip", lambda: (server.url, None))
        with pytest.raises(index.CannotAsk) as raised:
            index.last_release("client")
        assert "secret" not in str(raised.value)
        server.shutdown()


def test_a_client_library_must_be_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """It imports, and had a release within the months that the policy allows; else it says so."""
    now = datetime.now(UTC)
    ages = {"pytest": now - timedelta(days=30), "mypy": now - timedelta(days=31 * 25)}
    monkeypatch.setattr(checks, "last_release", ages.__getitem__)
    assert checks._client("pytest")[1:] == ("", ages["pytest"].date())
    assert checks._client("mypy")[1:] == ("", ages["mypy"].date())
    assert "cannot be imported" in checks._client("no-such-client")[1]

    def silent(distribution: str) -> datetime:
        raise index.CannotAsk("nobody answers")

    monkeypatch.setattr(checks, "last_release", silent)
    assert "is not known: nobody answers" in checks._client("pytest")[1]


# -- the cell and the ledger -------------------------------------------------------------------


def test_the_cell_is_read_off_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's name and version come from its own file, else from the kernel."""
    release = tmp_path / "os-release"
    release.write_text('NAME="Some Linux"\nID=some\nVERSION_ID="4.2"\n')
    monkeypatch.setattr(cells, "OS_RELEASE", str(release))
    assert cells.os_name() == "some 4.2"
    release.write_text("ID=rolling\n")
    assert cells.os_name() == "rolling"
    release.unlink()
    assert cells.os_name() == f"linux {os.uname().release}"


def test_evidence_makes_no_checkout_dirty(tmp_path: Path) -> None:
    """Only what is not evidence does; where there is no checkout, nobody can tell."""
    assert cells.commit(tmp_path) == ("", True)

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=x", "-c", "user.email=x@x.example")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, timeout=60)

    git("init", "-q")
    (tmp_path / "code.py").write_text("")
    git("add", ".")
    git("commit", "-q", "-m", "x")
    folder = tmp_path / "src" / "evidence" / "redis"
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text("{}")
    commit, dirty = cells.commit(tmp_path)
    assert (len(commit), dirty) == (40, False)
    (tmp_path / "code.py").write_text("changed")
    assert cells.commit(tmp_path) == (commit, True)


def test_the_ledger_counts_what_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each strategy gets a line: what is in the results has passed, what is not has failed."""
    runs = tmp_path / "runs.jsonl"
    monkeypatch.setattr(type(homes()[0]), "runs", property(lambda self: runs))
    traits = RedlockBackend.traits()
    allowed = [(c.name, f) for c in CASES if not c.unmet(traits) for f in c.flavours]
    results = tmp_path / "results.jsonl"
    with results.open("w") as file:
        for case, flavour in allowed[1:]:
            line = {"driver": RedlockBackend.name, "case": case, "runtime": flavour}
            file.write(json.dumps(line) + "\n")
    started = "2026-01-02T03:04:05+00:00"
    arguments = ["--results", str(results), "--started", "2026-01-02T05:04:05+02:00", "--ci"]
    assert ledger.main(arguments) == 0
    found = {(run.driver, run.strategy): run for run in load_runs(runs)}
    assert {name for name, _ in found} == {each.name for each in homes()}
    run = found["redis", "redlock"]
    assert (run.passed, run.failed, run.green) == (len(allowed) - 1, 1, False)
    assert (run.started, run.job, run.voting) == (started, "kit", True)
    assert len(run.commit) == 40
    assert found["redis", "default"].passed == 0
    assert found["redis", "default"].failed > 100
    assert ledger.main(["--results", str(tmp_path / "nosuch")]) == 1
    assert len(load_runs(runs)) == len(found)
    # What somebody has run at home is a result, and has no vote.
    assert ledger.main(["--results", str(results)]) == 0
    assert not any(run.voting for run in load_runs(runs)[len(found) :])


@pytest.mark.parametrize("started", ["lately", "2026-01-02T03:04:05"])
def test_a_run_began_at_a_time(started: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A text that is no time in a zone is refused, and nothing is recorded."""
    with pytest.raises(SystemExit) as ended:
        ledger.main(["--results", "x", "--started", started])
    assert ended.value.code == 2
    assert f"argument --started: '{started}' is no time" in capsys.readouterr().err


def test_every_recipe_is_a_backend() -> None:
    """Each recipe of each manifest in the tree names a class of the kit's."""
    for each in homes():
        for subject in named(each.name):
            for backend in subject.backends():
                assert registry.find(Url(backend.scheme)), subject.name


def test_unit_tests_count_for_coverage(tmp_path: Path) -> None:
    """Lines that only a unit test runs count, also when it fails; without any, nothing does."""
    source = tmp_path / "sample.py"
    source.write_text("def one():\n    return 1\n\n\ndef two():\n    return 2\n")
    (tmp_path / "test_sample.py").write_text(
        "import sample\n\n\ndef test_one():\n    assert sample.one() == 2\n"
    )
    with contextlib.closing(Coverage([source])) as coverage:
        coverage.unit_tests(tmp_path, ["test_other.py"])
        assert coverage.percent() is None
        coverage.unit_tests(tmp_path, ["test_sample.py", "test_other.py"])
        assert coverage.percent() == 75.0

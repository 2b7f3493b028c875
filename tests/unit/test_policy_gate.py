"""`connect` demands of a driver what it is told to, and warns of what is below stable."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tenure
import tenure.aio
from support.gated import SOURCE, Sample, closed
from support.policy import MANIFEST, evidence, judgement, record, runs
from tenure import Characteristic, Level, cli, objectlock
from tenure._model import Server
from tenure._url import Url
from tenure.drivers import registry
from tenure.errors import (
    AuthenticationFailed,
    CharacteristicUnmet,
    InvalidArgument,
    LevelTooLow,
    Unavailable,
    Unsupported,
)
from tenure.policy import gate, manifest, standing
from tenure.policy.evidence import Check
from tenure.policy.home import homes
from tenure.policy.levels import Record

URL = "sample://"
HERE = __file__


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sample]:
    """The sample as one of Tenure's own drivers, about which all is known."""
    for made in closed(tmp_path, monkeypatch, inside=True):
        made.known()
        yield made


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sample]:
    """The sample as the driver of another distribution."""
    for made in closed(tmp_path, monkeypatch, inside=False):
        made.known()
        yield made


def preview() -> Record:
    """All but twenty green runs."""
    return record(ran=[*runs(19), *runs(19, "other")])


def experimental() -> Record:
    """A claim that was refuted, and coverage that was not measured."""
    refuted = judgement("refuted", counterexample="token 7 came after token 9")
    spoiled = evidence(characteristics=(refuted,), coverage_percent=None)
    return record(spoiled, evidence("other"))


def use(**options: Any) -> None:
    """Connect and disconnect."""
    tenure.connect(URL, **options).close()


def use_twice() -> None:
    """Connect and disconnect, and once more."""
    use()
    use()


def caught(work: Callable[[], object]) -> list[warnings.WarningMessage]:
    """What was warned of."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        work()
    return found


# -- by default ----------------------------------------------------------------------------------


def test_stable_says_nothing(own: Sample) -> None:
    """A stable driver on a version that the evidence is about is connected without a word."""
    assert caught(use) == []
    assert own.driver.opened == 0


def test_below_stable_warns_once_in_the_callers_name(
    own: Sample, caplog: pytest.LogCaptureFixture
) -> None:
    """The first connect warns of what is missing, in the program's own line and in the log."""
    own.known(preview())
    caplog.set_level(logging.INFO, "tenure")
    (found,) = caught(use_twice)
    assert found.category is tenure.DriverLevelWarning
    text = str(found.message)
    assert "sample: this driver is a preview, not stable; S1: the last 19 recorded runs" in text
    assert found.filename == HERE
    assert found.lineno == inspect.getsourcelines(use)[1] + 2
    assert [(each.levelname, each.getMessage()) for each in caplog.records] == [("INFO", text)]


async def _connected() -> None:
    await (await tenure.aio.connect(URL)).close()  # here


async def _entered() -> None:
    async with tenure.aio.connect(URL):  # here
        pass


async def _waited() -> None:
    coordinator = await asyncio.wait_for(tenure.aio.connect(URL), 10)  # here
    await coordinator.close()


async def _in_a_task() -> None:
    async def opened(connecting: Any) -> Any:
        return await connecting

    connecting = tenure.aio.connect(URL)  # here
    await (await asyncio.create_task(opened(connecting))).close()


async def _locked_an_object() -> None:
    async with tenure.aio.objectlock.service(URL) as locks:  # here
        await locks.lock("a")


async def _locked_without_entering() -> None:
    locks = tenure.aio.objectlock.service(URL)
    await locks.lock("a")  # here
    await locks.close()


def _with_a_block() -> None:
    with tenure.connect(URL):  # here
        pass


def _with_objects() -> None:
    with objectlock.service(URL) as locks:  # here
        locks.lock("a")


def _with_a_decorator() -> None:
    locks = objectlock.service(URL)

    @locks.locked("a")
    def work() -> None:
        pass

    work()  # here
    locks.close()


@pytest.mark.parametrize(
    "work",
    [
        *(_connected, _entered, _waited, _in_a_task, _locked_an_object, _locked_without_entering),
        *(_with_a_block, _with_objects, _with_a_decorator),
    ],
    ids=lambda work: str(work.__name__),
)
def test_the_line_is_the_programs(own: Sample, work: Callable[[], Any]) -> None:
    """Whatever lies between, the warning names the line of the program that has connected."""
    own.known(preview())
    (found,) = caught(lambda: asyncio.run(work()) if inspect.iscoroutinefunction(work) else work())
    lines, first = inspect.getsourcelines(work)
    (offset,) = (at for at, line in enumerate(lines) if line.rstrip().endswith("# here"))
    assert (found.filename, found.lineno) == (HERE, first + offset)


def test_a_warning_that_is_an_error_is_one_each_time(own: Sample) -> None:
    """Who wants an error gets it at every connect, and nothing stays open."""
    own.known(preview())
    for _ in range(2):
        with pytest.raises(tenure.DriverLevelWarning):
            use()
    own.known()
    own.driver.told = Server("sample", "9.0")
    for _ in range(2):
        with pytest.raises(tenure.BackendVersionWarning):
            use()
    assert own.driver.opened == 0


def test_unverified_is_refused(own: Sample) -> None:
    """A driver about which nothing is known is not connected; the error says what would help."""
    own.known(Record())
    with pytest.raises(LevelTooLow, match="E1: there is no evidence") as found:
        use()
    assert found.value.driver == "sample"
    assert "E2: there is no evidence" in found.value.unmet
    assert "allow='sample' or TENURE_ALLOW=sample" in str(found.value)
    assert own.driver.opened == own.driver.asked == 0


@pytest.mark.parametrize("allow", ["sample", ("redis", "sample"), {"sample"}])
def test_it_is_connected_if_it_is_allowed(own: Sample, allow: Any) -> None:
    """Who allows a driver by name gets it, without a warning and without a question."""
    own.known(Record())
    assert caught(lambda: use(allow=allow)) == []
    assert own.driver.asked == 0


def test_another_name_allows_nothing(own: Sample) -> None:
    """What is allowed is that driver alone."""
    own.known(Record())
    with pytest.raises(LevelTooLow):
        use(allow=("redis", "samples"))


def test_the_environment_allows_too(own: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator allows drivers in TENURE_ALLOW, for programs that he does not write."""
    own.known(Record())
    monkeypatch.setenv("TENURE_ALLOW", "redis, sample")
    assert caught(use) == []


def test_it_may_be_warned_of_only(own: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where unverified is not refused, it is warned of like every other level."""
    own.known(Record())
    monkeypatch.setattr(gate, "REFUSES_UNVERIFIED", False)
    found = caught(use)
    assert [each.category for each in found] == [
        tenure.DriverLevelWarning,
        tenure.BackendVersionWarning,
    ]


def test_a_driver_without_an_index_is_unverified(own: Sample) -> None:
    """Without an index, with a broken one, or with one of others, the error says which it is."""
    path = own.folder / "evidence" / "index.json"
    for text, says in (
        ("{", "not JSON"),
        ('{"schema": 1, "drivers": {}}', "does not list it"),
        ('{"schema": 1, "drivers": {"sample": {"strategies": []}}}', "not as Tenure writes it"),
        ('{"schema": 7, "drivers": {}}', "schema 7"),
        (None, "no evidence beside its module"),
    ):
        if text is None:
            path.unlink()
        else:
            path.write_text(text)
        gate.forget()
        with pytest.raises(LevelTooLow, match=says):
            use()
        use(allow="sample")


def _spoil(*path: Any, value: Any) -> Callable[[Any], None]:
    def spoil(found: Any) -> None:
        for each in path[:-1]:
            found = found[each]
        found[path[-1]] = value

    return spoil


FIRST = ("strategies", 0)


@pytest.mark.parametrize(
    "spoil",
    [
        _spoil("strategies", value={}),
        _spoil(*FIRST, "steps", value=[]),
        _spoil(*FIRST, "steps", 0, "unmet", value=["S1"]),
        _spoil(*FIRST, "steps", 0, "level", value="good"),
        _spoil(*FIRST, "backends", value=None),
        _spoil(*FIRST, "backends", "sample", value=[7]),
        _spoil(*FIRST, "series", value={"sample": "1"}),
        _spoil(*FIRST, "series", value={"sample": -1}),
        _spoil(*FIRST, "characteristics", value=[]),
        _spoil(*FIRST, "characteristics", "FENCED", value="corroborated"),
        _spoil(*FIRST, "characteristics", "FENCED", "verdict", value="fine"),
        _spoil(*FIRST, "characteristics", "FENCED", "backends", value=[]),
        _spoil("deprecation", value="soon"),
        _spoil("deprecation", value={"since": "1.0"}),
    ],
)
def test_an_index_that_was_spoiled_says_nothing(own: Sample, spoil: Callable[[Any], None]) -> None:
    """Whatever is wrong in it, the driver is unverified, and the error says that it is broken."""
    path = own.folder / "evidence" / "index.json"
    found = json.loads(path.read_text())
    spoil(found["drivers"]["sample"])
    path.write_text(json.dumps(found))
    gate.forget()
    for options in ({}, {"min_level": "stable"}):
        with pytest.raises(LevelTooLow, match="its index is not as Tenure writes it"):
            use(**options)


def test_the_index_is_read_in_an_archive(
    own: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver in a zip file has its evidence in there."""
    archive = tmp_path / "drivers.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("zipped.py", SOURCE)
        text = (own.folder / "evidence" / "index.json").read_text()
        file.writestr("evidence/index.json", text.replace('"sample": {', '"zipped": {', 1))
    monkeypatch.syspath_prepend(str(archive))
    entry = registry.Entry("zipped", "zipped", "Driver")
    monkeypatch.setattr(registry, "BUILT_IN", {**registry.BUILT_IN, "zipped": entry})
    registry.load(entry)
    assert standing.of(entry, {}).level is Level.STABLE
    monkeypatch.delitem(sys.modules, "zipped")


def test_the_strategy_of_the_url_is_judged(own: Sample) -> None:
    """A URL that chooses another strategy gets that one's level, and its name in messages."""
    own.known(record(evidence()))
    assert standing.of(own.entry, {}).level is Level.STABLE
    with pytest.raises(LevelTooLow, match=r"^sample \(other\): "):
        tenure.connect(URL + "?lock=other", min_level="experimental")
    assert standing.of(own.entry, {"lock": "neither"}).strategy == "default"


def test_a_strategy_tells_what_it_lacks_for_the_next_level(own: Sample) -> None:
    """Beside the default that is stable, and what is open for it is told for a preview, too."""
    own.known(record(ran=[*runs(), *runs(19, "other")]))
    reason = "S1: the last 19 recorded runs were green, not 20"
    (found,) = caught(lambda: tenure.connect(URL + "?lock=other").close())
    assert f"sample (other): this driver is experimental, not stable; {reason};" in str(
        found.message
    )
    with pytest.raises(LevelTooLow) as refused:
        tenure.connect(URL + "?lock=other", min_level="preview")
    assert refused.value.unmet == (reason,)


def test_a_strategy_tells_what_keeps_the_default_down(own: Sample) -> None:
    """No strategy is above the default, and so what that lacks is open for each."""
    own.known(record(evidence(coverage_percent=1.0), evidence("other")))
    (found,) = caught(lambda: tenure.connect(URL + "?lock=other").close())
    reason = "P5: the default strategy: 1 % of its lines are covered, not 60 %"
    assert reason in str(found.message)
    with pytest.raises(LevelTooLow) as refused:
        tenure.connect(URL + "?lock=other", min_level="stable")
    assert refused.value.unmet == (reason,)


def test_an_author_alone_reaches_a_preview(foreign: Sample) -> None:
    """An index of another distribution that says stable is taken for a preview."""
    assert '"level": "stable"' in (foreign.folder / "evidence" / "index.json").read_text()
    (found,) = caught(use)
    assert "a preview, not stable" in str(found.message)
    use(min_level="preview")
    with pytest.raises(LevelTooLow, match="its level is preview, and stable is demanded"):
        use(min_level="stable")


# -- demands --------------------------------------------------------------------------------------


def test_a_level_is_demanded(own: Sample) -> None:
    """Less than the level is refused with what is unmet; enough of it is not even warned of."""
    own.known(experimental())
    with pytest.raises(LevelTooLow, match="its level is experimental, and preview is") as found:
        use(min_level="preview")
    assert found.value.unmet == (
        "P4: FENCED is claimed and refuted",
        "P5: coverage was not measured",
    )
    assert caught(lambda: use(min_level=Level.EXPERIMENTAL)) == []
    assert own.driver.opened == 0


def test_to_be_allowed_meets_no_demand(own: Sample) -> None:
    """`allow` lifts what is refused by default, and nothing that was asked for."""
    own.known(experimental())
    with pytest.raises(LevelTooLow):
        use(min_level="preview", allow="sample")
    with pytest.raises(CharacteristicUnmet):
        use(require="FENCED", allow="sample")


def test_code_can_only_raise_the_floor(own: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """TENURE_MIN_LEVEL holds whatever the code says, unless that says more."""
    own.known(preview())
    monkeypatch.setenv("TENURE_MIN_LEVEL", "preview")
    assert caught(use) == []
    with pytest.raises(LevelTooLow):
        use(min_level="stable")
    monkeypatch.setenv("TENURE_MIN_LEVEL", "stable")
    for options in ({}, {"min_level": "experimental"}, {"allow": "sample"}):
        with pytest.raises(LevelTooLow, match="stable is demanded"):
            use(**options)
    monkeypatch.setenv("TENURE_MIN_LEVEL", "perfect")
    with pytest.raises(InvalidArgument, match="TENURE_MIN_LEVEL is one of unverified"):
        use()


def test_what_is_required_must_be_corroborated(own: Sample) -> None:
    """Only what is claimed and corroborated counts; the error has a reason for everything else."""
    assert caught(lambda: use(require=[Characteristic.FENCED])) == []
    own.known(record(evidence(characteristics=(judgement(), _tried())), evidence("other")))
    with pytest.raises(CharacteristicUnmet) as found:
        use(require={"FENCED", "CAUSAL"}, min_level="experimental")
    assert found.value.unmet == ("CAUSAL: it does not claim that",)
    own.known(experimental())
    with pytest.raises(CharacteristicUnmet, match="token 7 came after token 9"):
        use(require="FENCED", min_level="experimental")
    own.known(record(evidence(characteristics=()), evidence("other")))
    with pytest.raises(CharacteristicUnmet, match="FENCED: claimed, and not tried yet"):
        use(require="FENCED", min_level="experimental")


def _tried() -> Any:
    return judgement(characteristic=Characteristic.CAUSAL)


@pytest.mark.parametrize(
    "options, says",
    [
        ({"require": "FENCY"}, "'FENCY' is no characteristic; there are DISTRIBUTED"),
        ({"require": 7}, "require is a name or several, not 7"),
        ({"allow": [7]}, "allow has names, not 7"),
        ({"min_level": "perfect"}, "min_level is one of unverified, experimental"),
        ({"min_level": 2}, "min_level is one of unverified, experimental"),
    ],
)
def test_what_is_no_demand_is_refused(own: Sample, options: Any, says: str) -> None:
    """A demand that means nothing is an error, and not simply met."""
    with pytest.raises(InvalidArgument, match=says):
        use(**options)


# -- the version of the backend -------------------------------------------------------------------


@pytest.mark.parametrize("version", ["7.2.1", "7.2.9-debian", "7.2", "7.4.0", "7.9.9"])
def test_a_version_within_the_evidence(own: Sample, version: str) -> None:
    """The same series, or one between two that were tried, is what the evidence is about."""
    cell = evidence().cell
    newest = evidence(cell=cell._replace(backend_version="7.10.3"))
    own.known(record(evidence(), newest, evidence("other")))
    own.driver.told = Server("sample", version)
    assert caught(lambda: use(min_level="stable", require="FENCED")) == []


def test_what_is_required_was_corroborated_on_that_version(own: Sample) -> None:
    """Evidence about a version is not enough if it was on another that something was tried."""
    cell = evidence().cell
    newer = evidence(
        cell=cell._replace(backend_version="8.0.1"),
        characteristics=(judgement("untestable", reason="no proxy"),),
    )
    own.known(record(evidence(), newer, evidence("other")))
    use(require="FENCED", min_level="experimental")
    own.driver.told = Server("sample", "8.0.1")
    assert caught(lambda: use(min_level="experimental")) == []
    with pytest.raises(CharacteristicUnmet) as found:
        use(require="FENCED", min_level="experimental")
    assert found.value.unmet == (
        "FENCED: this is sample 8.0.1, and it was corroborated on sample 7.2.1",
    )
    newest = evidence(cell=cell._replace(backend_version="9.0"))
    own.known(record(evidence(), newer, newest, evidence("other")))
    with pytest.raises(CharacteristicUnmet):  # it was tried on that, which is between the others
        use(require="FENCED", min_level="experimental")
    own.driver.told = Server("sample", "8.1")
    use(require="FENCED", min_level="experimental")
    assert own.driver.opened == 0


def test_what_is_required_was_corroborated_of_this_code(own: Sample) -> None:
    """What was found out about other code of the driver counts for nothing."""
    own.known(record(evidence(source_hash="then"), evidence("other")))
    with pytest.raises(CharacteristicUnmet, match="FENCED: claimed, and not tried yet"):
        use(require="FENCED", min_level="experimental")


@pytest.mark.parametrize("version", ["7.0.0", "7.9"])
def test_a_series_has_as_many_numbers_as_the_manifest_says(own: Sample, version: str) -> None:
    """Where the first number alone makes a series, no minor release is another version."""
    own.driver.told = Server("sample", version)
    assert len(caught(use)) == 1
    series = MANIFEST.replace('"sample >=7,<8"\nclient', '"sample >=7,<8"\nseries = 1\nclient')
    own.known(of=manifest.parse(series, "sample.toml"))
    assert caught(lambda: use(require="FENCED", min_level="stable")) == []


@pytest.mark.parametrize(
    "told", [Server("sample", "7.1.9"), Server("sample", "8.0"), Server("twin", "7.2.1")]
)
def test_a_version_outside_of_the_evidence(own: Sample, told: Server) -> None:
    """It is warned of once, and counts as experimental at most: no demand for more is met."""
    own.driver.told = told
    (found,) = caught(use_twice)
    assert found.category is tenure.BackendVersionWarning
    assert found.filename == HERE
    reason = f"this is {told.product} {told.version}, and the evidence is about sample 7.2.1"
    assert reason in str(found.message)
    with pytest.raises(LevelTooLow) as refused:
        use(min_level="preview")
    assert refused.value.unmet == (reason,)
    assert "its level is experimental, and preview is demanded" in str(refused.value)
    with pytest.raises(CharacteristicUnmet) as unmet:
        use(require="FENCED")
    assert unmet.value.unmet == (f"FENCED: {reason}",)
    assert caught(lambda: use(min_level="experimental")) == []
    assert own.driver.opened == 0


def test_the_same_with_asyncio(own: Sample) -> None:
    """The question is asked on the loop, and what is refused is closed."""
    own.driver.told = Server("sample", "9.0")

    async def refused() -> None:
        with pytest.raises(LevelTooLow):
            await tenure.aio.connect(URL, min_level="stable")

    asyncio.run(refused())
    assert own.driver.asked == 1
    assert own.driver.opened == 0


def test_it_is_asked_once_where_only_a_warning_depends_on_it(own: Sample) -> None:
    """Without a demand it is asked once per URL; with one, each time."""
    use()
    use()
    assert own.driver.asked == 1
    tenure.connect(URL + "?lock=other").close()
    assert own.driver.asked == 2
    use(require="FENCED")
    use(min_level="preview")
    assert own.driver.asked == 4


@pytest.mark.parametrize(
    "told",
    [
        Unsupported("it never tells"),
        AuthenticationFailed("it tells only others"),
        Server("sample", "unknown"),
    ],
)
def test_a_version_that_is_not_told_meets_no_demand(own: Sample, told: Any) -> None:
    """Nobody is warned of it, but what is demanded is not known to be met."""
    own.driver.told = told
    assert caught(use) == []
    use()
    assert own.driver.asked == 1
    with pytest.raises(CharacteristicUnmet, match="version of the backend cannot be told"):
        use(require="FENCED")
    assert own.driver.opened == 0


def test_a_backend_that_went_away_is_no_judgement(own: Sample) -> None:
    """Who demands something is told that the backend is away; who does not, asks again later."""
    own.driver.told = Unavailable("gone")
    assert caught(use_twice) == []
    assert own.driver.asked == 2
    with pytest.raises(Unavailable):
        use(require="FENCED")
    assert own.driver.opened == 0


# -- where nobody reads warnings ----------------------------------------------------------------


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Commands run in this process; what they do to the log is undone."""
    monkeypatch.setattr(logging.getLogger("tenure"), "propagate", True)
    monkeypatch.setattr(logging.getLogger("tenure"), "handlers", [caplog.handler])


@pytest.mark.usefixtures("commands")
def test_the_command_line_does_not_warn(
    own: Sample, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """What cron would mail every night is in the log alone, and not above INFO."""
    own.known(preview())
    own.driver.told = Server("sample", "9.0")
    caplog.set_level(logging.INFO, "tenure")
    with pytest.raises(SystemExit) as ended:
        sys.exit(cli.main(["status", "--url", URL]))
    assert ended.value.code == cli.ExitCode.DONE
    assert [each.levelname for each in caplog.records] == ["INFO", "INFO"]
    assert "this driver is a preview" in caplog.records[0].getMessage()
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("commands")
def test_the_command_line_refuses(own: Sample, capsys: pytest.CaptureFixture[str]) -> None:
    """A driver that is refused ends a command as a wrong URL does, and the line says why."""
    own.known(Record())
    with pytest.raises(SystemExit) as ended:
        sys.exit(cli.main(["status", "--url", URL]))
    assert ended.value.code == cli.ExitCode.USAGE
    assert "TENURE_ALLOW=sample" in capsys.readouterr().err


@pytest.mark.usefixtures("commands")
def test_to_look_at_a_backend_needs_no_level(own: Sample) -> None:
    """The doctor examines whatever there is."""
    own.known(Record())
    with pytest.raises(SystemExit) as ended:
        sys.exit(cli.main(["doctor", URL]))
    assert ended.value.code == cli.ExitCode.DONE


def test_tools_lift_the_gate(own: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is lifted nothing is refused, warned of or asked that was not demanded."""
    own.known(Record())
    monkeypatch.setenv("TENURE_MIN_LEVEL", "stable")
    with gate.lifted():
        assert caught(use) == []
        child = "import os; print(os.environ['TENURE_UNGATED'], 'TENURE_MIN_LEVEL' in os.environ)"
        done = subprocess.run(
            [sys.executable, "-c", child], capture_output=True, text=True, check=True
        )
        assert done.stdout.split() == ["1", "False"]
        with pytest.raises(CharacteristicUnmet):
            use(require="FENCED")
        with pytest.raises(LevelTooLow):
            use(min_level="experimental")
    assert own.driver.asked == 0
    with pytest.raises(LevelTooLow, match="stable is demanded"):
        use()


@pytest.mark.parametrize("text", ["1", "true", "Yes", " on "])
def test_the_variable_lifts_the_gate(
    own: Sample, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """The words for yes lift it, and nobody who is unverified is refused."""
    own.known(Record())
    monkeypatch.setenv("TENURE_UNGATED", text)
    assert caught(use) == []


@pytest.mark.parametrize("text", ["0", "false", "No", "off", "", " "])
def test_the_variable_says_no(own: Sample, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The words for no, and nothing at all, leave the gate closed."""
    own.known(Record())
    monkeypatch.setenv("TENURE_UNGATED", text)
    with pytest.raises(LevelTooLow, match="unverified"):
        use()
    with pytest.raises(LevelTooLow, match="unverified"):
        use(min_level="experimental")


@pytest.mark.usefixtures("own")
def test_the_variable_says_neither(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another text is no answer, and is refused by the variable's name."""
    monkeypatch.setenv("TENURE_UNGATED", "maybe")
    for options in ({}, {"min_level": "stable"}):
        with pytest.raises(InvalidArgument, match=r"TENURE_UNGATED is 1 or 0.*'maybe'"):
            use(**options)


def test_to_connect_takes_no_evidence_apart(own: Sample) -> None:
    """A connect reads the index, and loads neither manifests, nor evidence, nor requirements."""
    code = f"""
import sys
sys.path.insert(0, {str(own.folder)!r})
from tenure.drivers import registry
registry.BUILT_IN["sample"] = registry.Entry("sample", "sample", "Driver")
import tenure
tenure.connect({URL!r}, require="FENCED").close()
print(*(name for name in sys.modules if name.startswith("tenure.policy.") or name == "tomllib"))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {name.removeprefix("tenure.policy.") for name in done.stdout.split()}
    assert names == {
        *("characteristics", "gate", "index", "level", "notices", "standing", "versions"),
    }


def test_no_driver_with_evidence_is_refused() -> None:
    """Those of the tree that have earned a level are connected without being allowed."""
    modules = {entry.module.rpartition(".")[2]: entry for entry in registry.BUILT_IN.values()}
    for home in homes():
        if home.name in modules and list((home.evidence / home.name / "default").glob("*.json")):
            entry = modules[home.name]
            registry.load(entry)
            assert standing.of(entry, {}).level > Level.UNVERIFIED, home.name


def test_a_check_can_fail_the_gate(own: Sample) -> None:
    """The reasons come from the evidence: a page without a section leaves a driver unverified."""
    checks = {**evidence().checks, "E5": Check(False, "the page has no 'Summary'")}
    own.known(record(evidence(checks=checks), evidence("other")))
    with pytest.raises(LevelTooLow, match="E5: the page has no 'Summary'"):
        use()


def test_the_url_is_not_told_with_its_password(own: Sample) -> None:
    """No message of the gate has a secret in it."""
    own.driver.told = Server("sample", "9.0")
    with pytest.raises(LevelTooLow) as found:
        tenure.connect("sample://app:s3cret@/", min_level="stable")
    assert "s3cret" not in str(found.value)
    assert Url.parse("sample://app:s3cret@/").password == "s3cret"

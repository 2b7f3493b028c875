"""A manifest says what it may say; whatever else it says is an error that names the line."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from support.policy import MANIFEST
from tenure._url import Url
from tenure.drivers import registry
from tenure.errors import InvalidArgument
from tenure.policy import manifest
from tenure.policy.characteristics import Characteristic
from tenure.policy.home import Home, home, homes
from tenure.policy.manifest import InvalidManifest
from tenure.policy.versions import release, support
from tenure.testing import backends
from tenure.testing.kit import CASES

ROOT = Path(__file__).parents[2] / "src" / "tenure"

SUPPORTS = '"sample >=7,<8"\nclient'

BAD = {
    "not TOML": ('driver = "sample"', "driver = sample", "line 1"),
    "a key too many": (
        'client = "client"\n\n',
        'client = "client"\nlevel = "stable"\n\n',
        ":9: level: there is no such key",
    ),
    "a key too few": ('page = "docs/drivers/sample.md"\n', "", "'page' is missing"),
    "an empty text": ('"A sample."', '" "', ":2: summary: it is empty"),
    "the wrong type": (
        "votes = true",
        'votes = "yes"',
        ":12: ci.votes: true or false was expected",
    ),
    "a profile that is none": (
        '["lock", "group"]',
        '["lock", "groups"]',
        ":17: strategies.default.profiles: 'groups' is none of lock",
    ),
    "a profile forgotten": (
        'watch = "not built"\n',
        "",
        "strategies.default.unsupported: the profile 'watch' is neither",
    ),
    "a profile twice": (
        '["lock", "group"]',
        '["lock", "group", "watch"]',
        "'watch' is both claimed and unsupported",
    ),
    "a characteristic that is none": (
        'claims = ["FENCED"]',
        'claims = ["FAST"]',
        ":18: strategies.default.claims: 'FAST' is none of",
    ),
    "a specifier that is none": (
        SUPPORTS,
        '"sample ~7"\nclient',
        ":32: strategies.default.supports[0].backend: '~7' in 'sample ~7' is no",
    ),
    "a strategy nobody can choose": (
        'when = { lock = "other" }\n',
        "",
        "strategies.other.when: every strategy but 'default'",
    ),
    "no default": (
        "strategies.default",
        "strategies.usual",
        "there is no 'default' among them",
    ),
    "text in a list": ('["Somebody"]', "[7]", ":4: owners: a list of texts was expected"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_manifest_is_refused_with_its_line(what: str) -> None:
    """Each mistake is told with the file, the line and the key."""
    old, new, message = BAD[what]
    assert old in MANIFEST
    with pytest.raises(InvalidManifest) as caught:
        manifest.parse(MANIFEST.replace(old, new), "sample.toml")
    assert str(caught.value).startswith("sample.toml")
    assert message in str(caught.value)


DEPRECATION = '\n[deprecation]\nsince = "1.0"\nsince_date = 2030-01-01\n'
WAIVER = '\n[[waivers]]\nrequirement = "P5"\nreason = "r"\nuntil = 2030-01-01\nspec = "s.rst"\n'


@pytest.mark.parametrize(
    "more, message",
    [
        (WAIVER.replace("P5", "X5"), "'X5' is no requirement"),
        (WAIVER.replace("P5", "S9"), "'S9' is no requirement"),
        (WAIVER.replace("P5", "E1"), "E1 is the evidence, and never waived"),
        (WAIVER.replace("P5", "E2"), "E2 is the evidence, and never waived"),
        (WAIVER.replace("P5", "P4"), "P4 is the evidence, and never waived"),
        (WAIVER.replace("P5", "preview"), "'default' needs no waiver to be a preview"),
        (WAIVER + 'strategy = "none"\n', "there is no strategy 'none'"),
        (WAIVER.replace("2030-01-01", '"2030-01-01"'), "a date was expected"),
        ('\n[deprecation]\nsince = "1.0"\n', "'since_date' is missing"),
        ('\n[deprecation]\nsince = "soon"\n', "a version such as 1.4.0 was expected, not 'soon'"),
        (DEPRECATION + 'remove_in = "2.x"\n', "remove_in: a version such as 1.4.0 was expected"),
    ],
)
def test_a_bad_waiver_or_deprecation_is_refused(more: str, message: str) -> None:
    """Waivers and deprecations are checked like everything else."""
    with pytest.raises(InvalidManifest, match=message):
        manifest.parse(MANIFEST + more, "sample.toml")


@pytest.mark.parametrize("series", ["0", "5", '"1"', "true"])
def test_a_series_is_a_small_number(series: str) -> None:
    """A version has one number at least, and not very many."""
    text = MANIFEST.replace('backend = "sample', f'series = {series}\nbackend = "sample', 1)
    with pytest.raises(InvalidManifest, match=r"supports\[0\].series: "):
        manifest.parse(text, "sample.toml")


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1.5"])
def test_a_time_to_recover_is_a_number(seconds: str) -> None:
    """A bound that nothing can exceed is none."""
    text = MANIFEST.replace("recovery_seconds = 10", f"recovery_seconds = {seconds}")
    with pytest.raises(InvalidManifest, match="recovery_seconds: a number above 0 was expected"):
        manifest.parse(text, "sample.toml")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('lock = "other"', "lock = 1", "when: a text was expected for 'lock', not 1"),
        ('rwlock = "not built"', "rwlock = true", "a text was expected for 'rwlock', not True"),
        ("strategies.other", 'strategies."../x"', "'../x' is no name"),
        ("strategies.other", 'strategies."a/b"', "'a/b' is no name"),
        ("strategies.other", 'strategies.""', "'' is no name"),
    ],
)
def test_texts_and_names_are_what_they_are_used_as(old: str, new: str, message: str) -> None:
    """Options are compared with texts, and strategies are folders of evidence."""
    with pytest.raises(InvalidManifest, match=message):
        manifest.parse(MANIFEST.replace(old, new), "sample.toml")


def test_a_manifest_is_text(tmp_path: Path) -> None:
    """A file that is no UTF-8 is no manifest, and named."""
    path = tmp_path / "sample.toml"
    path.write_bytes(b"driver = '\xff'")
    with pytest.raises(InvalidManifest, match=r"sample\.toml: not UTF-8, at byte 10"):
        manifest.load(path)


def test_a_claim_cannot_be_made_and_withdrawn() -> None:
    """What is withdrawn is no longer claimed."""
    text = MANIFEST + (
        '\n[[strategies.default.withdrawn]]\ncharacteristic = "FENCED"\non = 2030-01-01\n'
        'reason = "it was not"\n'
    )
    with pytest.raises(InvalidManifest, match="is claimed, and so it is not withdrawn"):
        manifest.parse(text, "sample.toml")
    of = manifest.parse(text.replace('claims = ["FENCED"]', "claims = []"), "sample.toml")
    (withdrawn,) = of.default.withdrawn
    assert withdrawn.characteristic is Characteristic.FENCED


def test_a_url_chooses_a_strategy() -> None:
    """The options of a URL choose the strategy; whoever chooses none has the default."""
    of = manifest.parse(MANIFEST, "sample.toml")
    assert of.strategy({}).name == "default"
    assert of.strategy({"lock": "another"}).name == "default"
    assert of.strategy({"lock": "other", "ttl": "3"}).name == "other"


@pytest.mark.parametrize(
    "text, name, version, admitted",
    [
        ("redis >=7.0,<8", "redis", "7.0.15", True),
        ("redis >=7.0,<8", "redis", "8.0", False),
        ("redis >=7.0,<8", "valkey", "7.2", False),
        ("redis ==7.*", "redis", "7.9.9-rc1", True),
        ("redis !=7.0.*", "redis", "7.0.3", False),
        ("redis ==7", "redis", "7.0.0", True),
        ("redis >7", "redis", "7.0", False),
        ("redis <=7.2", "redis", "7.2.0", True),
        ("redis", "redis", "1", True),
    ],
)
def test_specifiers(text: str, name: str, version: str, admitted: bool) -> None:
    """A specifier admits the versions that PEP 440 says."""
    assert support(text).admits(name, version) is admitted


@pytest.mark.parametrize("text", ["", ">=7", "redis 7", "redis >=7.*", "redis >=x", "7 >=1"])
def test_bad_specifiers(text: str) -> None:
    """What is no specifier is refused."""
    with pytest.raises(InvalidArgument, match=r"redis >=7\.0|no version specifier"):
        support(text)


def test_a_version_begins_with_numbers() -> None:
    """Only the numbers at the beginning of a version count."""
    assert release("7.0.15-0+deb12u1") == (7, 0, 15)
    assert release("unknown") == ()


HOMES = {each.name: each for each in homes() if each.folder == ROOT / "drivers"}


def test_every_driver_has_a_manifest() -> None:
    """Each built-in driver has one, and it lists exactly the driver's schemes."""
    by_module: dict[str, set[str]] = {}
    for entry in registry.BUILT_IN.values():
        by_module.setdefault(entry.module, set()).add(entry.scheme)
    assert {f"tenure.drivers.{name}" for name in HOMES} == by_module.keys()
    for name, each in HOMES.items():
        assert set(each.load().schemes) == by_module[f"tenure.drivers.{name}"]


@pytest.mark.parametrize("name", HOMES)
def test_a_manifest_names_what_there_is(name: str) -> None:
    """Recipes, pages and unit tests that a manifest names are in the tree."""
    of = HOMES[name].load()
    for strategy in of.strategies:
        for recipe in strategy.provision:
            module, _, attribute = recipe.partition(":")
            assert module == backends.__name__
            backend = getattr(backends, attribute)
            url = Url(backend.scheme, options=dict(strategy.when))
            assert registry.find(url).traits == backend.traits()
    for path in (of.page, *of.unit_tests, *(each.spec for each in of.waivers)):
        assert (ROOT.parents[1] / path).is_file(), path


def test_every_backend_of_the_kit_is_a_recipe() -> None:
    """What the kit runs on is what the manifests provision, each once."""
    recipes = [
        recipe
        for each in HOMES.values()
        for strategy in each.load().strategies
        for recipe in strategy.provision
    ]
    expected = {f"{backends.__name__}:{each.__name__}" for each in backends.BACKENDS}
    assert sorted(recipes) == sorted(expected)


def imported(path: Path) -> list[list[str]]:
    """The parts of the names of everything that a module imports."""
    package = ["tenure", *path.relative_to(ROOT).parts[:-1]]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = [*base, *(node.module.split(".") if node.module else [])]
            found += [[*base, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [alias.name.split(".") for alias in node.names]
    return [parts for parts in found if parts[0] == "tenure"]


def closure(path: Path) -> set[Path]:
    """The modules of drivers and wires that a driver is made of."""
    todo, seen = [path], set[Path]()
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for parts in imported(module):
            for length in (len(parts), len(parts) - 1):
                other = ROOT.joinpath(*parts[1:length]).with_suffix(".py")
                if other.is_file() and other.parent.name in ("drivers", "wires"):
                    todo.append(other)
                    break
    return seen


@pytest.mark.parametrize("name", HOMES)
def test_the_sources_are_what_the_driver_imports(name: str) -> None:
    """The files whose hash is the driver's are those that it is made of, without the contract."""
    each = HOMES[name]
    made_of = closure(each.folder / f"{name}.py") - {each.folder / "base.py"}
    assert set(each.sources(each.load())) == made_of


def test_every_case_belongs_to_a_profile() -> None:
    """The kit's modules are shared out among the profiles, and the basic cases are in them."""
    from tenure.policy.profiles import PROFILES, profile_of

    names = {case.body.__module__.rpartition(".")[2]: case for case in CASES}
    assert set(names) == {module for each in PROFILES.values() for module in each.modules}
    for case in CASES:
        assert profile_of(case.body.__module__.rpartition(".")[2]) in PROFILES
    for profile in PROFILES.values():
        for basic in profile.basic:
            (case,) = (case for case in CASES if case.name == basic)
            assert case.body.__module__.rpartition(".")[2] in profile.modules


def test_a_manifest_under_another_name_is_refused(tmp_path: Path) -> None:
    """The name in a manifest is that of its file; sources that are not there are an error."""
    (tmp_path / "other.toml").write_text(MANIFEST)
    with pytest.raises(InvalidManifest, match="by the file's name it is 'other'"):
        Home(tmp_path, "other").load()
    (tmp_path / "sample.toml").write_text(MANIFEST)
    here = Home(tmp_path, "sample")
    with pytest.raises(InvalidManifest, match=r"no file is 'sample\.py'"):
        here.source_hash(here.load())


def test_the_hash_is_that_of_the_code(tmp_path: Path) -> None:
    """A changed line changes the hash; the manifest itself does not count."""
    (tmp_path / "sample.toml").write_text(MANIFEST)
    (tmp_path / "sample.py").write_text("a = 1\n")
    here = Home(tmp_path, "sample")
    before = here.source_hash(here.load())
    (tmp_path / "sample.toml").write_text(MANIFEST.replace("Somebody", "Another"))
    assert here.source_hash(here.load()) == before
    (tmp_path / "sample.py").write_text("a = 2\n")
    assert here.source_hash(here.load()) != before


def test_a_driver_is_found_without_importing_it() -> None:
    """The home of a built-in driver is the folder of its module."""
    found = home("tenure.drivers.redis")
    assert (found.folder, found.name) == (ROOT / "drivers", "redis")

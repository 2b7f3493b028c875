"""The checks: facts that the requirements ask for, beside what cases and experiments find."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from urllib.parse import quote, quote_plus

from ... import _url
from ...drivers import registry
from ...errors import TenureError
from ...policy.evidence import Check
from ...policy.manifest import Strategy
from ..programs import ALL, LOCKS_ONLY
from . import pages
from ._crew import ungated
from .index import CannotAsk, last_release
from .subject import Subject, entry_of

SECTIONS = ("Summary", "Entry point", "Characteristics", "Considerations")
SCRIPT_SECONDS_MAX = 120.0
_SAID_MAX = 300


def unit_tests(subject: Subject) -> Check:
    """E4: each of the unit tests that the manifest names imports the driver or names its scheme."""
    names = subject.manifest.unit_tests
    modules = {f"{_package(subject)}.{path.stem}" for path in _own_modules(subject)}
    for name in names:
        path = subject.root / name
        if not path.exists():
            return Check(False, f"{name} is not here; in a checkout it would be")
        if not _uses(path, modules, subject.manifest.schemes):
            return Check(False, f"{name} neither imports the driver nor names one of its schemes")
    return Check(bool(names), f"{len(names)} unit tests import the driver" if names else "none")


def _own_modules(subject: Subject) -> list[Path]:
    folder = subject.home.folder.resolve()
    return [path for path in subject.home.sources(subject.manifest) if path.parent == folder]


def _package(subject: Subject) -> str:
    return subject.entry.module.rpartition(".")[0]


def _uses(path: Path, modules: set[str], schemes: Sequence[str]) -> bool:
    starts = tuple(f"{scheme}{more}" for scheme in schemes for more in ("://", "+"))
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith(starts):
                return True
        elif isinstance(node, ast.Import):
            if any(alias.name in modules for alias in node.names):
                return True
        elif isinstance(node, ast.ImportFrom):
            names = {node.module or "", *(f"{node.module}.{each.name}" for each in node.names)}
            if names & modules:
                return True
    return False


def page(subject: Subject) -> Check:
    """E5: the page has its sections, and each scheme leads to this driver."""
    path = subject.root / subject.manifest.page
    if not path.exists():
        return Check(False, f"{subject.manifest.page} is not here; in a checkout it would be")
    for heading in SECTIONS:
        if not pages.section(path, heading).strip():
            return Check(False, f"{subject.manifest.page} has nothing under {heading!r}")
    for scheme in subject.manifest.schemes:
        entry = entry_of(scheme)
        if entry is None or entry.module != subject.entry.module:
            return Check(False, f"the entry point of {scheme} is not this driver's")
        try:
            registry.load(entry)
        except (TenureError, ImportError) as error:
            return Check(False, f"the entry point of {scheme} does not resolve: {error}")
    return Check(True, f"{len(SECTIONS)} sections; {len(subject.manifest.schemes)} entry points")


def quick_start(subject: Subject, url: str, namespace: str) -> Check:
    """P3: the quick start on the page runs, with the live backend's URL in it."""
    url = f"{url}{'&' if '?' in url else '?'}namespace={namespace}"
    path = subject.root / subject.manifest.page
    block = pages.quick_start(path) if path.exists() else None
    if block is None:
        return Check(False, f"there is no program under 'Quick start' in {subject.manifest.page}")
    text = pages.live_for(block.text, subject.manifest.schemes, url)
    said = _run([sys.executable, "-"], url, f"import tenure\n{text}")
    return Check(not said, said or f"{path.name}:{block.line} runs")


def programs(subject: Subject, url: str, namespace: Callable[[], str]) -> Check:
    """S4: the example programs pass on the backend, each in a namespace of its own."""
    names = ALL if "group" in subject.strategy.profiles else LOCKS_ONLY
    for name in names:
        module = f"tenure.testing.programs.{name}"
        said = _run([sys.executable, "-P", "-m", module, "--namespace", namespace()], url)
        if said:
            return Check(False, f"{name}: {said}")
    return Check(True, ", ".join(names))


def _run(command: list[str], url: str, program: str = "") -> str:
    """Run a program that finds the URL in its environment; empty if it passes, else what it says.

    What has a password in it is no argument, for that could be read by everybody. So a program
    with the URL in its text is handed over by the standard input.
    """
    with tempfile.TemporaryDirectory(prefix="tenure-verify-") as folder:
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=ungated(TENURE_URL=url, HOME=folder),
                input=program,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=SCRIPT_SECONDS_MAX,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"it did not end in {SCRIPT_SECONDS_MAX:g} s"
    if done.returncode == 0:
        return ""
    lines = done.stdout.strip().splitlines() or ["it said nothing"]
    # Masked first: half a secret, at the end of what is kept, would not be found.
    said = lines[-1].removeprefix("FAILED: ").replace(url, "the URL")
    return masked(said, _url.Url.parse(url))[:_SAID_MAX]


def masked(text: str, url: _url.Url) -> str:
    """The text without the secrets of a URL, however a program may have written them."""
    forms = {
        form
        for secret in url.secrets
        for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    }
    for form in sorted(forms, key=len, reverse=True):
        text = re.sub(re.escape(form), "***", text, flags=re.IGNORECASE)
    return text


def alive(subject: Subject, boots: Sequence[str]) -> Check:
    """P6: the client library is alive, on the newest Python; every recipe has booted.

    boots: the recipes that did not boot, each with the reason.
    """
    wrong = list(boots)
    wrong += filter(None, (_newest_python(subject.strategy),))
    client, said, released = subject.manifest.client, "no client library", None
    if client:
        said, problem, released = _client(client)
        wrong += [problem] if problem else []
    return Check(not wrong, "; ".join(wrong) or f"{said}; every recipe boots", released)


def _newest_python(strategy: Strategy) -> str:
    """Why this Python is not the newest that the manifest admits; empty if it is."""
    own = sys.version_info[:2]
    lines = [line.python for line in strategy.supports]
    if not any(line.admits("python", f"{own[0]}.{own[1]}") for line in lines):
        return f"this is Python {own[0]}.{own[1]}, which the manifest does not list"
    newer = [f"{own[0]}.{minor}" for minor in range(own[1] + 1, own[1] + 30)] + [f"{own[0] + 1}.0"]
    for each in newer:
        if any(line.admits("python", each) for line in lines):
            return f"this is Python {own[0]}.{own[1]}, and the manifest admits {each}"
    return ""


def _client(distribution: str) -> tuple[str, str, date | None]:
    """What is known of the client library, what is wrong with it, if anything, and its last
    release. Whether that is too long ago is for the policy to say, on the day when it is asked."""
    for name in _modules_of(distribution):
        try:
            importlib.import_module(name)
        except ImportError as error:
            return "", f"{distribution} cannot be imported: {error}", None
    try:
        version = metadata.version(distribution)
        released = last_release(distribution)
    except metadata.PackageNotFoundError:
        return "", f"{distribution} is not installed", None
    except CannotAsk as error:
        return "", f"whether {distribution} had a release lately is not known: {error}", None
    day = released.date()
    return f"{distribution} {version} imports, and had a release on {day.isoformat()}", "", day


def _modules_of(distribution: str) -> list[str]:
    """What a distribution is imported as; itself, if it does not say."""

    def plain(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    found = [
        module
        for module, names in metadata.packages_distributions().items()
        if plain(distribution) in map(plain, names) and not module.startswith("_")
    ]
    return sorted(found) or [distribution]

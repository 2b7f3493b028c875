"""What a spec says of the tree: its files, its drivers, its tests and requirements."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from docutils import nodes

from ..drivers import registry
from ._spec_form import Found, says_none
from ._spec_page import Page, Section, line_of, literals, prose
from .characteristics import Characteristic
from .requirements import REQUIREMENTS

DRIVERS, TESTS = "Driver impact", "Testing"

_FOLDERS = frozenset(
    ("src", "docs", "tests", "examples", "benchmarks", "scripts", "evidence", "tools")
)
_PATH = re.compile(r"(?P<file>[\w.+*-]+(?:/[\w.+*-]+)+/?|[\w.+-]+/)(?:::(?P<names>[\w:.]+))?")
_WORD = re.compile(r"\b[A-Z][A-Z_]*[A-Z0-9]\b")
_KIT = Path(__file__).parents[1] / "testing" / "kit"


@dataclass
class Tree:
    """The checkout that a spec belongs to; without a root its files cannot be looked for."""

    root: Path | None
    unchecked: set[str] = field(default_factory=set)
    """The paths that nobody has looked for."""

    def looks_like_path(self, text: str) -> re.Match[str] | None:
        """The match if the text is meant for a file of the repository."""
        match = _PATH.fullmatch(text)
        if match is None:
            return None
        first = match["file"].partition("/")[0]
        known = first in _FOLDERS or (self.root is not None and (self.root / first).is_dir())
        return match if known else None

    def wrong(self, match: re.Match[str]) -> str | None:
        """Why the path does not resolve; None if it does, or if there is no tree to look in."""
        file = match["file"]
        if ".." in file.split("/"):
            return f"{file:.200} leads up: name files from the root of the repository"
        if self.root is None:
            self.unchecked.add(match[0])
            return None
        try:
            return self._wrong(self.root, file, match["names"])
        except (OSError, ValueError) as error:  # too long for a name, or no pattern
            return f"{file:.200} is no path: {getattr(error, 'strerror', None) or error}"

    def _wrong(self, root: Path, file: str, names: str | None) -> str | None:
        if "*" in file:
            return None if any(root.glob(file.rstrip("/"))) else f"no file matches {file!r}"
        there = root / file
        if not (there.is_dir() if file.endswith("/") else there.exists()):
            return f"there is no {file!r} in the repository"
        if names:
            name = names.rpartition(":")[2]
            if not there.is_file() or not _defines(there, name):
                return f"{file!r} has no {name!r}"
        return None


def root_of(file: Path) -> Path | None:
    """The checkout that the file is in: the nearest folder above with a project in it."""
    for folder in file.absolute().parents:
        if (folder / "pyproject.toml").is_file() or (folder / ".git").exists():
            return folder
    return None


def _defines(file: Path, name: str) -> bool:
    text = file.read_text(encoding="utf-8", errors="replace")
    return re.search(rf"^\s*(?:async )?(?:def|class) {re.escape(name)}\b", text, re.M) is not None


@functools.cache
def kit_cases() -> frozenset[str]:
    """The names of the conformance kit's cases, read without importing it."""
    found = set()
    for file in sorted(_KIT.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef) and any(map(_is_case, node.decorator_list)):
                found.add(node.name)
    return frozenset(found)


def _is_case(decorator: ast.expr) -> bool:
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(called, ast.Name) and called.id == "case"


def drivers() -> list[str]:
    """The names of the drivers in the tree, as their pages have them."""
    modules = {entry.module for entry in registry.BUILT_IN.values()}
    return sorted(plain_name(module.rpartition(".")[2]) for module in modules)


def plain_name(driver: str) -> str:
    """A driver's name as its page has it: `etcd-gateway` also for `etcd_gateway`."""
    return driver.replace("_", "-")


def references(page: Page, tree: Tree) -> Found:
    """The files that the spec names, or links to, are there."""
    for line, text in literals(page.tree):
        match = tree.looks_like_path(text)
        wrong = match and tree.wrong(match)
        if wrong:
            yield line, "reference", wrong
    for each in page.tree.findall(nodes.reference):
        target = str(each.get("refuri", "")).partition("#")[0]
        if target and not re.match(r"[a-z][a-z0-9+.-]*:", target, re.I):
            if tree.root is None:
                tree.unchecked.add(target)
            elif not _exists(page.file.parent / target):
                yield line_of(each), "reference", f"the link {target!r:.200} leads nowhere"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # nothing can have such a name
        return False


def driver_impact(page: Page, tree: Tree) -> Found:
    """Each driver of the tree has its place in the list of what the change does to it."""
    for section in _called(page, DRIVERS):
        named = {
            plain_name(text)
            for term in section.node.findall(nodes.term)
            for _, text in literals(term)
        }
        left_out = [name for name in drivers() if name not in named]
        if left_out:
            text = f"say in the list of {DRIVERS!r} what changes for {', '.join(left_out)}"
            yield section.line, "driver-impact", text


def testing(page: Page, tree: Tree) -> Found:
    """The tests are named by something that exists: a case, a file, a requirement."""
    for section in _called(page, TESTS):
        text = prose([section.node]).removeprefix(section.title)
        if not text.strip() or says_none(text):
            continue  # said already, by the rule for that
        # What cannot be looked for is told apart, and is no violation.
        if not any(_proves(section, tree)):
            message = (
                "names no test that exists: a case of the kit, a file of tests, a requirement "
                "(E1 to S6) or a characteristic"
            )
            yield section.line, "testing", f"{TESTS!r} {message}"


def _proves(section: Section, tree: Tree) -> Iterator[bool]:
    words = set(_WORD.findall(section.node.astext()))
    yield not words.isdisjoint({*REQUIREMENTS, *Characteristic})
    for _, text in literals(section.node):
        yield text in kit_cases()
        match = tree.looks_like_path(text)
        if match:
            name = match["file"].rpartition("/")[2]
            is_test = name.startswith("test_") and name.endswith(".py")
            yield is_test and tree.wrong(match) is None


def _called(page: Page, title: str) -> Iterator[Section]:
    return (each for each in page.sections if each.title == title)

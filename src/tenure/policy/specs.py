"""Specs: how a change is proposed, on a template, and what a program can find wrong with one.

A new driver, strategy, deprecation or waiver comes with a spec in `docs/specs`. `new` writes
one from the template, and `check` holds specs against it. Checking needs docutils, which the
extra `specs` brings; nothing else of Tenure does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from ..errors import InvalidArgument, StorageError, Unsupported

FOLDER = Path("docs/specs")
"""Where specs are, from the root of a repository."""

RULES = {
    "docutils": "docutils reports nothing at the level of a warning or above",
    "driver-impact": "Driver impact has every driver in the tree in its list",
    "empty": "no section is empty: one that has nothing to say says None",
    "file-name": "the file is called as the last part of the spec's URL",
    "image": "a diagram is drawn in characters; there are no images",
    "line-length": "no line is over 79 columns, links and literal blocks aside",
    "none": "the problem, use cases, change, alternatives and tests do not say None",
    "reference": "every reference resolves, and every file that is named exists",
    "section-missing": "every section of the template is there",
    "section-order": "the sections stand in the template's order, each once, at its level",
    "section-renamed": "no section has another name than the template gives it",
    "template": "the spec pins the edition of the template",
    "template-text": "no guidance of the template was left in",
    "testing": "Testing names a test, a requirement or a characteristic that exists",
}
"""Each rule, and what holds where nothing breaks it."""

_Answer = tuple[list[tuple[int, str, str]], list[str]]
_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


class DocutilsMissing(Unsupported):
    """docutils is not installed, and specs cannot be checked without it."""


class Violation(NamedTuple):
    """A rule that a spec breaks, where, and how. Lines are counted from 1."""

    file: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}: {self.message}"


@dataclass
class Report:
    """What was found: violations by file and line, and the names that nobody could look for.

    `unchecked` has, by file, the paths that a spec outside of any checkout names.
    """

    files: list[str] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    unchecked: dict[str, list[str]] = field(default_factory=dict)


def template() -> str:
    """The template, as a text."""
    return (files(__package__) / "spec-template.rst").read_text(encoding="utf-8")


def new(name: str, out: Path | None = None) -> Path:
    """Write a spec of that name from the template, and return where.

    `out` is the file, or a folder for it, instead of `docs/specs` under the current folder.
    Folders are made. `InvalidArgument` if the name cannot be one or the file exists;
    `StorageError` if it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{name!r} is no name for a spec: take small letters, digits and single hyphens, "
            "as in 'redis-redlock'"
        )
    file = FOLDER / f"{name}.rst" if out is None else out
    if file.is_dir():
        file /= f"{name}.rst"
    if file.name != f"{name}.rst":
        raise InvalidArgument(f"{file}: the file must be called {name}.rst, as its URL will be")
    text = re.sub(r"(?m)^(:url: .*/)example$", rf"\g<1>{name}", template())
    if file.exists():
        raise InvalidArgument(f"{file} exists already, and is not overwritten")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}") from error
    return file


def check(paths: Iterable[Path | str] = (), root: Path | None = None) -> Report:
    """Hold these specs against the template, or else all in `docs/specs` here.

    A folder stands for the specs in it. `root` is the checkout whose files the specs name; if
    it is not given, it is looked for above each spec. `InvalidArgument` if there is no such
    file or no spec at all, `StorageError` if one cannot be read, `DocutilsMissing`.
    """
    report = Report()
    for file in _files([Path(path) for path in paths]):
        report.files.append(str(file))
        violations, unchecked = _check_one(file, root)
        report.violations += violations
        if unchecked:
            report.unchecked[str(file)] = unchecked
    return report


def _files(paths: list[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths or [FOLDER]:
        if path.is_dir():
            found.update(dict.fromkeys(sorted(path.glob("*.rst"))))
        elif path.is_file() or not paths:
            found[path] = None
        else:
            raise InvalidArgument(f"there is no file {str(path)!r}")
    found = {path: None for path in found if path.is_file()}
    if not found:
        where = ", ".join(map(str, paths or [FOLDER]))
        raise InvalidArgument(f"there is no spec in {where}: name the files to check")
    return list(found)


def _check_one(file: Path, root: Path | None) -> tuple[list[Violation], list[str]]:
    find = _finder()
    try:
        text = file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        return [Violation(str(file), 1, "docutils", f"not UTF-8, at byte {error.start}")], []
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    found, unchecked = find(file, text, template(), root)
    return [Violation(str(file), *each) for each in found], unchecked


def _finder() -> Callable[[Path, str, str, Path | None], _Answer]:
    try:
        from ._spec_check import find
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "docutils":
            raise
        raise DocutilsMissing(
            "docutils is missing, and specs cannot be checked without it; "
            "install it with: pip install 'tenure[specs]'"
        ) from error
    return find

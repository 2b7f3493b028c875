"""A spec as docutils reads it: its sections, what was found wrong with it, and where things stand.

This is the one module that needs docutils; `specs` imports it when something is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import docutils.frontend
import docutils.utils
from docutils import nodes
from docutils.parsers.rst import Parser
from docutils.readers.standalone import Reader

_SETTINGS = {
    "report_level": 5,  # nothing on standard error: an observer hears it all
    "halt_level": 6,  # and nothing is so bad that reading ends
    "warning_stream": False,
    "raw_enabled": False,  # a spec is text, and reads no file of the machine that checks it
    "file_insertion_enabled": False,
    "doctitle_xform": False,  # the title stays a section around the others
    "docinfo_xform": False,
    "sectsubtitle_xform": False,
}
_ASIDE = (nodes.title, nodes.system_message, nodes.comment, nodes.target)
_SENTENCE_END = re.compile(r"(?<=[.?!:])\s+")


class Message(NamedTuple):
    """What docutils reports, at the level of a warning (2) or above."""

    level: int
    line: int
    text: str


@dataclass(frozen=True)
class Section:
    """A section under the title; `depth` is 1 for those directly under it."""

    title: str
    depth: int
    line: int
    parent: str
    node: nodes.section = field(repr=False)

    def own(self, known: Callable[[str], bool]) -> Iterator[nodes.Element]:
        """What stands in it itself, and not in a section within it that is `known` by title."""
        for child in self.node.children:
            if not isinstance(child, nodes.Element) or isinstance(child, _ASIDE):
                continue
            if not (isinstance(child, nodes.section) and known(title_of(child))):
                yield child


@dataclass(frozen=True)
class Page:
    """A spec, or the template. `title` is None if there is none over all sections."""

    file: Path
    lines: list[str]
    tree: nodes.document = field(repr=False)
    messages: list[Message]
    title: str | None
    title_line: int
    sections: list[Section]

    @property
    def head(self) -> list[nodes.Element]:
        """What stands between the title and the first section."""
        within = self.tree.children if self.title is None else self._top().children
        found = []
        for child in within:
            if isinstance(child, nodes.section):
                break
            if isinstance(child, nodes.Element) and not isinstance(child, _ASIDE):
                found.append(child)
        return found

    def fields(self) -> dict[str, tuple[str, int]]:
        """The fields of the head: name to text and line."""
        found = {}
        for block in self.head:
            for each in block.findall(nodes.field):
                name, body = each.children
                found[name.astext()] = (body.astext(), line_of(each))
        return found

    def _top(self) -> nodes.section:
        return next(child for child in self.tree.children if isinstance(child, nodes.section))


def parse(file: Path, text: str) -> Page:
    """Read a spec. Whatever is wrong with it is in `messages`; nothing is raised."""
    settings = docutils.frontend.get_default_settings(Parser)
    for name, value in _SETTINGS.items():
        setattr(settings, name, value)
    tree = docutils.utils.new_document(str(file), settings)
    reported: list[nodes.system_message] = []
    tree.reporter.attach_observer(reported.append)
    Parser().parse(text, tree)
    tree.transformer.add_transforms(Reader().get_transforms())
    tree.transformer.apply_transforms()
    messages = [
        Message(int(each["level"]), int(each.get("line", 1)), _said(each))
        for each in reported
        if int(each["level"]) >= 2
    ]
    tops = [child for child in tree.children if isinstance(child, nodes.section)]
    # One section around all others is the title; several mean that there is none.
    title = title_of(tops[0]) if len(tops) == 1 else None
    under = tops[0].children if len(tops) == 1 else tree.children
    lines = text.splitlines()
    line = _heading_line(tops[0], lines) if tops else 1
    found = list(_sections(under, lines, 1, ""))
    return Page(file, lines, tree, messages, title, line, found)


def _sections(
    children: list[nodes.Node], lines: list[str], depth: int, parent: str
) -> Iterator[Section]:
    for child in children:
        if isinstance(child, nodes.section):
            title = title_of(child)
            yield Section(title, depth, _heading_line(child, lines), parent, child)
            yield from _sections(child.children, lines, depth + 1, title)


def _heading_line(section: nodes.section, lines: list[str]) -> int:
    line = line_of(section)
    # docutils gives the line of the underline, but for a heading that has an overline, too.
    under = lines[line - 1].strip() if line <= len(lines) else ""
    return line - 1 if line > 1 and under and set(under) == {under[0]} else line


def _said(message: nodes.system_message) -> str:
    # Its first paragraph; what comes after it quotes the source.
    return " ".join(message.children[0].astext().split()) if message.children else ""


def title_of(section: nodes.section) -> str:
    """A section's heading."""
    return section.children[0].astext() if section.children else ""


def line_of(node: nodes.Node) -> int:
    """The line on which the node, or what it stands in, begins."""
    here: nodes.Node | None = node
    while here is not None:
        if here.line is not None:
            return here.line
        here = here.parent
    return 1


def prose(nodes_: Iterator[nodes.Element] | list[nodes.Element]) -> str:
    """The text of these, with every gap as one space."""
    return " ".join(" ".join(each.astext() for each in nodes_).split())


def paragraphs(under: nodes.Node) -> Iterator[tuple[int, str]]:
    """Line and text of each paragraph, and not of what docutils has put in."""
    for each in under.findall(nodes.paragraph):
        if not isinstance(each.parent, nodes.system_message):
            yield line_of(each), " ".join(each.astext().split())


def literals(under: nodes.Node) -> Iterator[tuple[int, str]]:
    """Line and text of each inline literal; one that is wrapped has a space there."""
    for each in under.findall(nodes.literal):
        yield line_of(each), " ".join(each.astext().split())


def sentences(text: str) -> list[str]:
    """What the text falls into at full stops, question marks and colons."""
    return _SENTENCE_END.split(text)

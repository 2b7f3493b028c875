"""What can be said of a spec's form by looking at it and at the template."""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from docutils import nodes

from ._spec_page import Page, Section, line_of, paragraphs, prose, sentences

COLUMNS = 79
TAB_COLUMNS = 8
NEVER_NONE = ("Problem description", "Use Cases", "Proposed change", "Alternatives", "Testing")
"""The sections in which there is always something to say."""

Found = Iterator[tuple[int, str, str]]
"""Line, rule and message."""

_URL = re.compile(r"\w[\w+.-]*://[^\s>`]+")
_LINK_TARGET = re.compile(r"\.\. _[^:]+: \S+")
_REFERENCE = re.compile(
    r"Unknown target name|Undefined substitution|Too many \w+|Anonymous hyperlink mismatch"
    r"|Indirect hyperlink target"
)
_IMAGE = re.compile(r"(image|figure)::")
_SENTENCE_WORDS_MIN = 3


def edition(page: Page, template: Page) -> Found:
    """The spec names the edition of the template that there is."""
    current, _ = template.fields()["template"]
    given, line = page.fields().get("template", (None, page.title_line))
    if given is None:
        yield line, "template", f"pin the template under the title, with ':template: {current}'"
    elif given != current:
        yield line, "template", f"there is no edition {given!r} of the template, but {current}"


def file_name(page: Page, template: Page) -> Found:
    """The URL ends with the file's name."""
    url, line = page.fields().get("url", (None, page.title_line))
    if url is None:
        yield line, "file-name", "name the spec's URL under the title, with ':url: https://…'"
        return
    try:
        parts = urlsplit(url)
    except ValueError as error:
        yield line, "file-name", f"{url!r} is no URL: {error}"
        return
    last = parts.path.rpartition("/")[2]
    if not (parts.scheme and parts.netloc):
        yield line, "file-name", f"{url!r} is no URL: write all of it, with https://"
    elif last != page.file.stem or page.file.suffix != ".rst":
        yield line, "file-name", f"the URL ends with {last!r}, so the file must be {last}.rst"


def sections(page: Page, template: Page) -> Found:
    """Every section of the template is there, once, in its order, and no other one."""
    if page.title is None:
        yield 1, "section-missing", "a title over all sections is missing"
    wanted = {each.title: each for each in template.sections}
    known = [each for each in page.sections if each.title in wanted]
    there = {each.title for each in known}
    missing = [each for each in template.sections if each.title not in there]
    unknown = [each for each in page.sections if _foreign(each, page, wanted)]
    for each in unknown:
        meant = _meant(each, [other for other in missing if other.parent == each.parent])
        if meant:
            missing = [other for other in missing if other.title != meant]
            yield each.line, "section-renamed", f"{each.title!r} must be called {meant!r}"
        else:
            yield each.line, "section-renamed", f"{each.title!r} is no section of the template"
    for each in missing:
        after = _before(each, template)
        line = next((other.line for other in known if other.title == after), page.title_line)
        where = f"after {after!r}" if after else "under the title"
        yield line, "section-missing", f"{each.title!r} is missing: it belongs {where}"
    yield from _order(known, wanted, there)


def _foreign(section: Section, page: Page, wanted: dict[str, Section]) -> bool:
    """Say whether it stands where only the template's sections may.

    Within a section that has none of its own in the template, the writer is free.
    """
    if section.title in wanted:
        return False
    containers = {each.parent for each in wanted.values()}
    return section.parent in containers


def _meant(section: Section, missing: Sequence[Section]) -> str | None:
    titles = {each.title.lower(): each.title for each in missing}
    close = difflib.get_close_matches(section.title.lower(), titles, 1, 0.4)
    return titles[close[0]] if close else None


def _before(section: Section, template: Page) -> str:
    titles = ["", *(each.title for each in template.sections)]
    return titles[titles.index(section.title) - 1]


def _order(known: list[Section], wanted: dict[str, Section], there: set[str]) -> Found:
    places = {title: place for place, title in enumerate(wanted)}
    seen: dict[str, Section] = {}
    last: Section | None = None
    for each in known:
        parent = wanted[each.title].parent
        if each.title in seen:
            text = f"{each.title!r} stands twice, first in line {seen[each.title].line}"
            yield each.line, "section-order", text
            continue
        seen[each.title] = each
        if last is not None and places[each.title] < places[last.title]:
            yield each.line, "section-order", f"{each.title!r} belongs before {last.title!r}"
            continue
        if each.parent != parent and (not parent or parent in there):
            within = f"within {parent!r}" if parent else "directly under the title"
            yield each.line, "section-order", f"{each.title!r} belongs {within}"
        last = each


def contents(page: Page, template: Page) -> Found:
    """No section is empty, and those that matter do not say None."""
    titles = {each.title for each in template.sections}
    speaks = {each.title for each in template.sections if prose(each.own(titles.__contains__))}
    if not prose([each for each in page.head if not isinstance(each, nodes.field_list)]):
        yield page.title_line, "empty", "a paragraph under the title says why anything is done"
    for section in page.sections:
        if section.title not in speaks:
            continue
        text = prose(section.own(titles.__contains__))
        if not text and section.title in NEVER_NONE:
            yield section.line, "empty", f"{section.title!r} is empty, and must have a text"
        elif not text:
            yield section.line, "empty", f"{section.title!r} is empty: write a text, or None"
        elif says_none(text) and section.title in NEVER_NONE:
            yield section.line, "none", f"{section.title!r} may not say None"


def says_none(text: str) -> bool:
    """Say whether that is all that the text says."""
    return text.strip().rstrip(".").lower() == "none"


def left_in(page: Page, template: Page) -> Found:
    """No sentence of the template's guidance is in the spec, nor its title."""
    guidance = [
        sentence
        for _, text in paragraphs(template.tree)
        for sentence in sentences(text)
        if len(sentence.split()) >= _SENTENCE_WORDS_MIN
    ]
    if page.title is not None and page.title == template.title:
        yield page.title_line, "template-text", "the title is still the template's"
    for line, text in paragraphs(page.tree):
        found = next((sentence for sentence in guidance if sentence in text), None)
        if found:
            yield line, "template-text", f"the template's text was left in: {found!r}"


def markup(page: Page, template: Page) -> Found:
    """docutils has nothing to say, at the level of a warning or above."""
    for each in page.messages:
        rule = "reference" if _REFERENCE.match(each.text) else "docutils"
        yield each.line, rule, each.text


def line_length(page: Page, template: Page) -> Found:
    """No line takes more than 79 columns, but for its links, and for what is literal."""
    literal = {
        line.strip()
        for block in page.tree.findall(nodes.literal_block)
        for line in block.astext().splitlines()
    }
    for number, line in enumerate(page.lines, 1):
        line = line.expandtabs(TAB_COLUMNS)  # as docutils reads it
        if _width(line) <= COLUMNS or line.strip() in literal or _LINK_TARGET.match(line):
            continue
        columns = _width(_URL.sub("", line))
        if columns > COLUMNS:
            text = f"{columns} columns; wrap at {COLUMNS}, links and literal blocks aside"
            yield number, "line-length", text


def _width(line: str) -> int:
    if line.isascii():
        return len(line)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        for char in line
    )


def images(page: Page, template: Page) -> Found:
    """There is no image: a diagram is drawn in characters."""
    for each in page.tree.findall(nodes.image):
        text = f"draw {str(each.get('uri', 'this'))!r} as an ASCII diagram, in a literal block"
        # Some versions of docutils give the line after the directive.
        line = line_of(each)
        near = (at for at in (line, line - 1) if _IMAGE.search(page.lines[at - 1]))
        yield next(near, line), "image", text

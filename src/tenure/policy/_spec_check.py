"""All rules in turn, over one spec. Importing it needs docutils."""

from __future__ import annotations

import functools
from pathlib import Path

from . import _spec_facts as facts
from . import _spec_form as form
from ._spec_page import Page, parse

Found = tuple[int, str, str]
"""Line, rule and message."""

_OF_FORM = (
    form.edition,
    form.file_name,
    form.sections,
    form.contents,
    form.left_in,
    form.markup,
    form.line_length,
    form.images,
)
_OF_FACTS = (facts.references, facts.driver_impact, facts.testing)


def find(file: Path, text: str, template: str, root: Path | None) -> tuple[list[Found], list[str]]:
    """What is wrong with the spec, by line; and the paths in it that could not be looked for."""
    page, model = parse(file, text), _parsed(template)
    tree = facts.Tree(root or facts.root_of(file))
    found: list[Found] = []
    for rule in _OF_FORM:
        found += rule(page, model)
    for look in _OF_FACTS:
        found += look(page, tree)
    return sorted(found), sorted(tree.unchecked)


@functools.cache
def _parsed(template: str) -> Page:
    return parse(Path("spec-template.rst"), template)

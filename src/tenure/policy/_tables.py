"""The tables of a manifest, as they are read: whatever is wrong in one is told with its line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from ..errors import InvalidArgument, TenureError

_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*", re.ASCII)


class InvalidManifest(TenureError):
    """A manifest says something that it may not, or lacks something."""


class Source(NamedTuple):
    """The text, to find the line of what is wrong in it."""

    text: str
    where: str

    def error(self, path: tuple[str | int, ...], message: str) -> InvalidManifest:
        """What is wrong with a key, with the file and its line."""
        return InvalidManifest(f"{self.where}:{self.line(path)}: {_dotted(path)}: {message}")

    def line(self, path: tuple[str | int, ...]) -> int:
        """The line on which a key stands, or else the table that should have it."""
        best = 1
        for number, at in _positions(self.text):
            if at == path:
                return number
            if path[: len(at)] == at:
                best = number
        return best


_HEADER = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[A-Za-z0-9_"'-]+)*)\s*=""")


def _positions(text: str) -> list[tuple[int, tuple[str | int, ...]]]:
    """The line of every table and key. Values over several lines have none of their own."""
    found: list[tuple[int, tuple[str | int, ...]]] = []
    table: tuple[str | int, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _HEADER.fullmatch(line), _KEY.match(line)
        if header:
            names = _names(header[2])
            table = tuple(names)
            if header[1] == "[[":
                index = counts[names] = counts.get(names, -1) + 1
                table = (*names, index)
            found.append((number, table))
        elif key:
            found.append((number, (*table, *_names(key[1]))))
    return found


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the manifest"


class Table:
    """A table that is being read: what nobody asked for is an error in the end."""

    def __init__(self, found: Any, path: tuple[str | int, ...], source: Source) -> None:
        self.path = path
        self.source = source
        if not isinstance(found, dict):
            raise source.error(path, "a table was expected")
        self.found: dict[str, Any] = dict(found)

    def take(self, key: str, kind: type, default: Any = ...) -> Any:
        """The value of a key, which is gone then."""
        if key not in self.found:
            if default is ...:
                raise self.source.error(self.path, f"{key!r} is missing")
            return default
        value = self.found.pop(key)
        if kind is float and type(value) is int:
            value = float(value)
        if kind is float and type(value) is float and not (math.isfinite(value) and value > 0):
            raise self.error(key, f"a number above 0 was expected, not {value!r}")
        if type(value) is not kind:
            names = {str: "text", list: "a list", bool: "true or false", dict: "a table"}
            what = names.get(kind, f"a {kind.__name__}")
            raise self.error(key, f"{what} was expected, not {value!r:.60}")
        if isinstance(value, str) and not value.strip() and default is ...:
            raise self.error(key, "it is empty")
        return value

    def texts(self, key: str, default: Any = ...) -> tuple[str, ...]:
        """A list of texts."""
        values: list[Any] = self.take(key, list, default)
        for each in values:
            if not isinstance(each, str) or not each.strip():
                raise self.error(key, f"a list of texts was expected, not with {each!r}")
        return tuple(values)

    def mapping(self, key: str) -> dict[str, str]:
        """A table of texts; empty if it is missing."""
        values: dict[str, Any] = self.take(key, dict, {})
        for name, each in values.items():
            if not isinstance(each, str) or not each.strip():
                raise self.error(key, f"a text was expected for {name!r}, not {each!r:.60}")
        return values

    def tables(self, key: str) -> list[Table]:
        """A list of tables; none if it is missing."""
        values = self.take(key, list, [])
        return [
            Table(each, (*self.path, key, index), self.source) for index, each in enumerate(values)
        ]

    def table(self, key: str, default: Any = ...) -> Table:
        """A table in this one."""
        return Table(self.take(key, dict, default), (*self.path, key), self.source)

    def version(self, key: str) -> str:
        """A version of a distribution, which can be compared."""
        text: str = self.take(key, str)
        if not _VERSION.fullmatch(text):
            raise self.error(key, f"a version such as 1.4.0 was expected, not {text!r}")
        return text

    def converted(self, key: str, convert: Callable[[str], Any]) -> Any:
        """A text, as something else; what `convert` refuses is an error here."""
        text = self.take(key, str)
        try:
            return convert(text)
        except InvalidArgument as error:
            raise self.error(key, str(error)) from None

    def error(self, key: str, message: str) -> InvalidManifest:
        """What is wrong with a key."""
        return self.source.error((*self.path, key), message)

    def done(self) -> None:
        """Nothing may be left."""
        for key in self.found:
            raise self.error(key, "there is no such key")

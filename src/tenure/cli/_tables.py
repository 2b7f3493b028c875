"""Tables for a terminal, and standard output, which may be closed at any time."""

from __future__ import annotations

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

_GAP = "  "
_CELL_MIN = 8
_MORE = "\N{HORIZONTAL ELLIPSIS}"


def shown(text: str) -> str:
    """The text without anything that a terminal would obey, all of it visible."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def width(text: str) -> int:
    """How many columns of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_columns, text))


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, most: int) -> str:
    """The text, shortened if it takes more columns than that."""
    if width(text) <= most:
        return text
    taken, kept = 1, ""
    for char in text:
        taken += _columns(char)
        if taken > most:
            break
        kept += char
    return kept + _MORE


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], most: int, elastic: Iterable[int]
) -> list[str]:
    """The lines of a table, none of them longer than `most` columns.

    Columns that nobody has anything in are left out. The `elastic` ones are shortened where
    there is no room for all, the longest of them first.
    """
    every = [head, *rows]
    used = [at for at in range(len(head)) if any(row[at] for row in every[1:])]
    widths = {at: max(width(row[at]) for row in every) for at in used}
    surplus = sum(widths.values()) + len(_GAP) * (len(used) - 1) - most
    may_shrink = [at for at in elastic if at in widths]
    while surplus > 0 and may_shrink:
        longest = max(may_shrink, key=lambda at: widths[at])
        if widths[longest] <= _CELL_MIN:
            break
        widths[longest] -= 1
        surplus -= 1
    lines = []
    for row in every:
        cells = [cut(row[at], widths[at]) for at in used]
        padded = (
            cell + " " * (widths[at] - width(cell)) for at, cell in zip(used, cells, strict=True)
        )
        lines.append(cut(_GAP.join(padded).rstrip(), most))
    return lines


def emit(text: str) -> None:
    """Write to standard output now; what its encoding lacks is written as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
    sys.stdout.flush()


@contextlib.contextmanager
def while_read() -> Iterator[None]:
    """Go on until nobody reads standard output any more, and that is no error."""
    try:
        yield
    except BrokenPipeError:
        # So that the interpreter's own last flush does not fail either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

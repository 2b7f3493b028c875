"""The line of the program that has called: what a warning is attributed to."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

_PASSED = {"tenure", "asyncio", "concurrent", "contextlib", "threading"}
"""What lies between a program's own line and the library."""
_COMMANDS = "tenure.cli"


class Caller(NamedTuple):
    """A line outside of Tenure.

    command: whether it has called through Tenure's own command line.
    registry: what Python's warnings remember about that module.
    """

    file: str
    line: int
    module: str
    registry: dict[Any, Any]
    command: bool


def caller() -> Caller:
    """The line outside of Tenure and asyncio that the call at hand comes from."""
    frame = sys._getframe(1)
    command = False
    while frame.f_back is not None:
        name = frame.f_globals.get("__name__") or ""
        command = command or name.startswith(_COMMANDS)
        if name.partition(".")[0] not in _PASSED:
            break
        frame = frame.f_back
    known = frame.f_globals
    registry = known.setdefault("__warningregistry__", {})
    name = known.get("__name__") or "<string>"
    return Caller(frame.f_code.co_filename, frame.f_lineno, name, registry, command)

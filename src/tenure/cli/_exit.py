"""What the commands end with, and how they speak: exit codes, one-line messages."""

from __future__ import annotations

import enum
import sys

from ..errors import (
    AcquireTimeout,
    GroupNotFound,
    InvalidArgument,
    LeaseLost,
    PolicyError,
    SessionLost,
    TenureError,
    Unavailable,
    Unsupported,
)


class ExitCode(enum.IntEnum):
    """Tenure's own exit codes. A command that ran passes on its own instead.

    Those up to 78 mean what they mean in <sysexits.h>; the others are in nobody's way.
    """

    DONE = 0
    """Nothing went wrong."""
    USAGE = 64
    """An argument, the URL or an option of it is wrong, or the driver cannot or may not do it."""
    UNREACHABLE = 69
    """The backend cannot be reached or does not answer."""
    FAILED = 74
    """The backend refused or failed: credentials, permission, storage."""
    BUSY = 75
    """The lock, the lead or the id was taken: at once, or still after --timeout."""
    LOST = 80
    """The lock was lost before it was released; the command was ended."""
    MAX_HOLD = 81
    """The command ran longer than --max-hold and was ended."""
    ABSENT = 82
    """What was asked for is not there: nobody leads, or there is no such group."""
    RISKY = 83
    """The doctor has found something that may break coordination under load or after a fault."""
    BROKEN = 84
    """The doctor has found something that breaks coordination."""
    UNMET = 85
    """The runner has found that something which a driver claims does not hold."""
    NOT_EXECUTABLE = 126
    """The command was found and cannot be executed."""
    NOT_FOUND = 127
    """The command was not found."""
    SIGNAL = 128
    """Plus N: the command was killed by signal N, or the wait for the lock was."""


def exit_code(error: TenureError) -> ExitCode:
    """The exit code that tells this error."""
    if isinstance(error, (InvalidArgument, PolicyError, Unsupported)):
        return ExitCode.USAGE
    if isinstance(error, AcquireTimeout):
        return ExitCode.BUSY
    if isinstance(error, GroupNotFound):
        return ExitCode.ABSENT
    if isinstance(error, Unavailable):
        return ExitCode.UNREACHABLE
    if isinstance(error, (LeaseLost, SessionLost)):
        return ExitCode.LOST
    return ExitCode.FAILED


def plain(text: str) -> str:
    """The text on one line, without anything that a terminal would obey.

    The owner of a lock is named by whoever holds it, and that may be anybody.
    """
    line = " ".join(text.split())
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def say(text: str) -> None:
    """Write one line to standard error. That nobody can read it ends nothing."""
    write(f"tenure: {plain(text)}\n")


def write(text: str) -> None:
    """Write to standard error as it is."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # closed, or a pipe that nobody reads


def seconds_text(seconds: float) -> str:
    """A duration for a person to read: '3.2 s', '45 s', '3 min 20 s', '2 h 5 min'."""
    if seconds < 10:
        return f"{max(0.0, seconds):.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"

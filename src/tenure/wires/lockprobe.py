"""Whether `flock` really keeps another process out: asked of another process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from typing import Literal

Verdict = Literal["excludes", "does not exclude", "refused", "unknown"]

# It says what became of its own try.
_CHILD = """
import fcntl, sys
with open(sys.argv[1], 'r+b') as file:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('excludes')
    else:
        print('does not exclude')
"""


def probe(folder: str, patience: float) -> Verdict:
    """Lock a new file of the folder, and have another process try the same.

    "refused" if the file system takes no lock at all; "unknown" if no process could be
    started, or it did not answer in so many seconds. Raises `OSError` if the file cannot be made.
    """
    file, path = tempfile.mkstemp(prefix=".probe-", suffix=".new", dir=folder)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return "refused"
        return _asked(path, patience)
    finally:
        os.close(file)
        with contextlib.suppress(OSError):
            os.unlink(path)


def _asked(path: str, patience: float) -> Verdict:
    if not sys.executable:
        return "unknown"
    try:
        done = subprocess.run(  # noqa: S603  (our own interpreter, and a path of ours)
            [sys.executable, "-I", "-S", "-c", _CHILD, path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=patience,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    verdicts: dict[str, Verdict] = {
        "excludes": "excludes",
        "does not exclude": "does not exclude",
    }
    return verdicts.get(done.stdout.strip(), "unknown")

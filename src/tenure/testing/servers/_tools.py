"""What the servers need from the system: programs, another user, private files."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_TOOL_LIMIT = 60.0
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/usr/local/bin", "/usr/bin")


class ServerMissing(RuntimeError):
    """The server's program is not installed; the message names the package."""


class ServerFailed(RuntimeError):
    """The server did not start, stop or answer; the message ends with its log."""


def find_program(name: str, package: str, folders: Sequence[str] = _FOLDERS) -> str:
    """The path of a program, or `ServerMissing` with the Debian package that has it."""
    for folder in (None, *folders):  # None: those in PATH
        path = shutil.which(name, path=folder)
        if path is not None:
            return str(path)
    raise ServerMissing(f"{name} is not installed: apt-get install {package} (or run scripts/test)")


def environment(home: Path) -> dict[str, str]:
    """A small environment: what the developer exports must not configure a test's server."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "HOME": str(home), "LC_ALL": "C"}


def identity(account: str | None) -> dict[str, Any]:
    """What makes `subprocess` start a program as another user."""
    if account is None:
        return {}
    return {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []}


def run_tool(
    command: Sequence[str], *, home: Path, account: str | None = None, text: str = ""
) -> str:
    """Run a tool to its end, with a time limit; return what it printed."""
    try:
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=home,
            env=environment(home),
            timeout=_TOOL_LIMIT,
            check=False,
            **identity(account),
        )
    except subprocess.TimeoutExpired:
        raise ServerFailed(f"{command[0]} took longer than {_TOOL_LIMIT:g} s") from None
    output = str(done.stdout, errors="replace")
    if done.returncode:
        raise ServerFailed(f"{command[0]} ended with status {done.returncode}:\n{output}")
    return output


def write_private(path: Path, text: str, account: str | None = None) -> None:
    """Write a file that only its owner can read."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w") as file:
        file.write(text)
    if account is not None:
        shutil.chown(path, account)

"""Where evidence is from: the machine, the interpreter, the checkout, and what is connected to."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from ..._model import Server
from ...policy.evidence import Cell

OS_RELEASE = "/etc/os-release"
_GIT_SECONDS_MAX = 30.0


def cell(server: Server) -> Cell:
    """The cell of a run against that server."""
    return Cell(
        os=os_name(),
        python=platform.python_version(),
        backend=server.product,
        backend_version=server.version,
        topology=server.topology,
        client=server.client,
        client_version=server.client_version,
    )


def os_name() -> str:
    """The system and its version, as in `debian 12`; the kernel's name if there is no file."""
    try:
        text = Path(OS_RELEASE).read_text(encoding="utf-8")
    except OSError:
        return f"{platform.system().lower()} {platform.release()}"
    lines = (line.partition("=") for line in text.splitlines())
    found = {key: value.strip().strip("\"'") for key, _, value in lines}
    return f"{found.get('ID', 'linux')} {found.get('VERSION_ID', '')}".strip()


def commit(root: Path) -> tuple[str, bool]:
    """The commit of a checkout, and whether anything in it but evidence is not committed.

    No commit, and dirty, where there is no checkout or no git: then nobody can tell what ran.
    """
    if not (root / ".git").exists() or shutil.which("git") is None:
        return "", True
    head = _git(root, "rev-parse", "HEAD")
    changes = _git(root, "status", "--porcelain", "--", ".", ":(exclude,glob)**/evidence/**")
    if head is None or changes is None:
        return "", True
    return head.strip(), bool(changes.strip())


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        timeout=_GIT_SECONDS_MAX,
        check=False,
    )
    return done.stdout if done.returncode == 0 else None


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")

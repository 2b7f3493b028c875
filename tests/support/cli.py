"""Running `tenure` as a process of its own, in a folder that its commands leave traces in."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIMIT = 20.0


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition to come true."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    """Say whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end; return the exit code and what was said."""
    errors = process.communicate(timeout=LIMIT)[1]
    return process.returncode, errors


class Commands:
    """Starts `tenure` in a folder with a file backend in it, and cleans up afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file://{folder}/locks"
        self._runs: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `tenure` with these arguments."""
        process = subprocess.Popen(
            [sys.executable, "-m", "tenure", *arguments],
            cwd=self.folder,
            env=os.environ | {"TENURE_URL": self.url},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._runs.append(process)
        return process

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Run `tenure` to its end; return the exit code and what was written and said."""
        process = self.start(*arguments)
        out, errors = process.communicate(timeout=LIMIT)
        return process.returncode, out, errors

    def trace(self, name: str) -> str:
        """Wait for a file that a command writes, and return what is in it."""
        path = self.folder / name
        until(lambda: path.exists() and path.read_text().endswith("\n"))
        return path.read_text().strip()

    def close(self) -> None:
        """Kill what still runs; the guards kill the commands."""
        for process in self._runs:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            with process:
                pass

"""What the programs have in common: their arguments, and the processes that they start."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import NoReturn, Self

import tenure

from ..._coordinator import default_url
from ..._model import Traits
from ..._ungated import UNGATED
from ..._url import Url
from ...drivers import registry

SECONDS_MAX = 60.0
"""How long anything that must happen may take."""
TTL_SECONDS = 2.0


class Failed(Exception):
    """What was promised did not hold; the text says what happened instead."""


class Part:
    """A process that takes part. It says one line at a time, and reads lines."""

    def __init__(self, program: str, name: str, namespace: str) -> None:
        self.name = name
        self.said: list[str] = []
        """The lines that were read so far."""
        self._rest = b""
        command = [sys.executable, "-P", "-m", program, "--namespace", namespace, "--part", name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def tell(self, line: str) -> None:
        """Write a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    def listen(self) -> None:
        """Read what it has said since, without waiting; `Failed` if it ended by itself."""
        assert self._process.stdout is not None
        handle = self._process.stdout.fileno()
        while select.select([handle], [], [], 0)[0]:
            data = os.read(handle, 65536)
            if not data:
                raise Failed(f"{self.name} ended with {self._process.wait()}")
            *lines, self._rest = (self._rest + data).split(b"\n")
            self.said += [line.decode() for line in lines]

    def kill(self) -> None:
        """SIGKILL, and wait for its end. Harmless the second time."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):  # what was told last was never read
                    pipe.close()


class Cast:
    """The processes of a program, which are killed when it ends."""

    def __init__(self, program: str, namespace: str) -> None:
        self._program = program
        self.namespace = namespace
        self.parts: list[Part] = []

    def start(self, name: str) -> Part:
        """Start one more."""
        part = Part(self._program, name, self.namespace)
        self.parts.append(part)
        return part

    def kill(self, part: Part) -> None:
        """Kill one, which is no part any more."""
        self.parts.remove(part)
        part.kill()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Listen to all until something has come true; `Failed` if it does not in time."""
        give_up = time.monotonic() + SECONDS_MAX
        while True:
            for part in self.parts:
                part.listen()
            if condition():
                return
            if time.monotonic() > give_up:
                said = {part.name: part.said[-1:] for part in self.parts}
                raise Failed(f"waited {SECONDS_MAX:g} s in vain for {what}; last said: {said}")
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in self.parts:
            part.kill()


def connect(namespace: str) -> tenure.Coordinator:
    """A coordinator on $TENURE_URL, with a short session."""
    return tenure.connect(namespace=namespace, ttl=max(TTL_SECONDS, _traits().min_ttl))


def _traits() -> Traits:
    return registry.find(Url.parse(os.environ.get("TENURE_URL") or default_url())).traits


def say(line: str) -> None:
    """Tell the program something, from one of its parts."""
    print(line, flush=True)


def heard() -> str:
    """A line that the program has written to this part; the part ends with the program."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    return line.strip()


def run(
    module: str,
    text: str | None,
    play: Callable[[Cast], str],
    part: Callable[[str, str], None],
    arguments: Iterable[str] | None = None,
) -> NoReturn:
    """The whole program: `play` directs and returns what it has seen, `part` is what a part does.

    A part is called with its name and the namespace.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=text)
    add = parser.add_argument
    add("url", metavar="URL", nargs="?", help="the backend (default: $TENURE_URL)")
    add("--namespace", default=f"program-{uuid.uuid4().hex[:12]}", help="where to do it")
    add("--part", help=argparse.SUPPRESS)
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.url:
        os.environ["TENURE_URL"] = options.url  # and so for the parts, of whom nobody can read it
    os.environ.setdefault(UNGATED, "1")  # no level is asked for: a program is how one is earned
    if options.part:
        part(options.part, options.namespace)
        raise SystemExit(0)
    try:
        if _traits().scope == "threads":
            raise Failed("processes do not exclude each other with this driver")
        with Cast(module, options.namespace) as cast:
            print(play(cast))
    except (Failed, tenure.TenureError) as error:
        print(f"FAILED: {error}")
        raise SystemExit(1) from None
    raise SystemExit(0)

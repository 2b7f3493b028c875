"""What a worker can do: start a backend, run a case, a probe, an experiment, the benchmark."""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tenure

from ..._model import Server
from ..._runtime.thread import drive
from ...drivers.base import Driver, Runtime, Url
from ...policy.characteristics import Characteristic
from ...policy.evidence import Judgement
from ..backends import Backend
from ..experiments import EXPERIMENTS, Target
from ..kit import CASES, run
from . import _benchmark, _probes
from ._crew import Up
from ._sweep import PREFIX, sweep
from ._theirs import NotOurs, theirs
from .subject import backend_class

DETAIL_MAX = 500
NOT_RUN = "not run: "
"""What the detail of a case begins with that could not be run."""

Outcome = tuple[str, float, str]
"""Whether a case passed, how many seconds it took, and what it says if it failed."""


class Tasks:
    """The orders, by their names. What they raise is told to the parent."""

    def __init__(self) -> None:
        self._backend: Backend | None = None
        self._theirs = False
        self._used: set[str] = set()
        self._watch_namespaces()

    def _watch_namespaces(self) -> None:
        """Notice every namespace that is connected to: a case may make others of its own.

        On somebody's own server, none is used whose name might be somebody else's.
        """
        make, tasks = Driver.__init__, self

        def noticed(self: Driver, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
            if tasks._theirs and PREFIX not in namespace:
                raise NotOurs(
                    f"it uses the namespace {namespace:.20}, which may be somebody else's"
                )
            tasks._used.add(namespace)
            make(self, url, runtime, namespace, ttl)

        Driver.__init__ = noticed  # type: ignore[method-assign]

    def namespaces(self) -> list[str]:
        """Those that were connected to since this was asked last."""
        used = list(self._used)
        self._used.difference_update(used)
        return used

    def start(self, recipe: str, url: str) -> Up:
        """Bring up the backend, and ask through the driver what it is."""
        began = time.monotonic()
        self._theirs = not recipe
        backend = (backend_class(recipe) if recipe else theirs(url))()
        backend.start()
        self._backend = backend
        ttl = max(4.0, backend.traits().min_ttl)
        namespace = f"{PREFIX}{uuid.uuid4().hex[:12]}"
        with tenure.connect(backend.url, namespace=namespace, ttl=ttl) as coordinator:
            told: Server = drive(coordinator._session.driver.server())
        if self._theirs:
            sweep(backend.url, backend.traits(), [namespace], namespace)
        return Up(backend.url, told, round(time.monotonic() - began, 2))

    def stop(self) -> None:
        """Take the backend down."""
        if self._backend is not None:
            self._backend.stop()

    def case(self, name: str, flavour: Any, namespace: str) -> Outcome:
        """Run one case once."""
        chosen = next(each for each in CASES if each.name == name)
        began, detail, passed = time.monotonic(), "", True
        try:
            run(chosen, self._up, flavour, namespace)
        except NotOurs as error:
            detail, passed = f"{NOT_RUN}{error}", False
        except BaseException as error:
            detail, passed = _told(error), False
        return "passed" if passed else "failed", round(time.monotonic() - began, 3), detail

    def probe(self, profile: str, flavour: Any, namespace: str) -> str:
        """Use an unsupported profile; empty if it is refused as it should be."""
        return _probes.probe(self._up, profile, flavour, namespace)

    def judge(self, name: str, namespace: str, seed: int) -> Judgement:
        """Run the experiment that decides a characteristic."""
        backend = self._up
        ours = None if self._theirs else backend
        target = Target(backend.url, backend.traits(), namespace, seed, ours)
        return EXPERIMENTS[Characteristic(name)].judge(target)

    def measure(self, contenders: int, namespace: str) -> Mapping[str, float]:
        """The small benchmark, with so many contenders."""
        return _benchmark.measure(self._up, contenders, namespace)

    def sweep(self, namespaces: list[str], mark: str) -> list[str]:
        """Remove what is left in namespaces; returns what could not be removed."""
        return sweep(self._up.url, self._up.traits(), namespaces, mark)

    @property
    def _up(self) -> Backend:
        assert self._backend is not None
        return self._backend


def _told(error: BaseException) -> str:
    """The error, and for an assertion without a text the line that made it."""
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    kit = [frame for frame in frames if Path(frame.filename).parent.name == "kit"]
    if kit:
        frame = kit[-1]
        text += f" ({Path(frame.filename).name}:{frame.lineno}: {frame.line})"
    return text if len(text) <= DETAIL_MAX else text[: DETAIL_MAX - 1] + "\N{HORIZONTAL ELLIPSIS}"

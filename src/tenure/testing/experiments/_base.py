"""What every experiment is made of: what it runs against, and how it is judged.

An experiment is a plain function over the synchronous API. It tries to refute one
characteristic, whatever the driver claims, and returns what it found. Only what it has seen
counts: a fault that was not confirmed makes a trial worthless, and the characteristic
untestable.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import tenure

from ..._model import Traits
from ...policy import gate
from ...policy.characteristics import Characteristic
from ...policy.evidence import Fault, Judgement, Verdict
from ..backends import Backend


class Untestable(Exception):
    """The characteristic cannot be decided here; the text says what is missing."""


@dataclass(frozen=True)
class Target:
    """What an experiment runs against.

    backend: the backend that was started for this, whose server may be stopped, paused and cut
        off; None for a server of somebody else, which is only used.
    namespace: everything that an experiment makes is in it, or in names that begin with it.
    preload: modules that another process has to import for the URL's scheme to be known.
    """

    url: str
    traits: Traits
    namespace: str
    seed: int
    backend: Backend | None = None
    ttl: float = 2.0
    preload: tuple[str, ...] = ()

    def connect(self, url: str | None = None, **options: Any) -> tenure.Coordinator:
        """A coordinator in the target's namespace."""
        chosen: dict[str, Any] = {"namespace": self.namespace, "ttl": self.ttl, **options}
        return tenure.connect(url or self.url, **chosen)


@dataclass
class Found:
    """What an experiment saw. It fills this in as it goes."""

    parameters: dict[str, Any] = field(default_factory=dict)
    trials: int = 0
    counterexample: str = ""
    """What refutes the characteristic, so that a person can follow it; empty if nothing did."""
    faults: list[Fault] = field(default_factory=list)


Body = Callable[[Target, Found], None]


@dataclass(frozen=True)
class Experiment:
    """One characteristic, and the code that tries to refute it."""

    characteristic: Characteristic
    name: str
    text: str
    body: Body

    def judge(self, target: Target) -> Judgement:
        """Run it and say what it found."""
        found, reason, began = Found(), "", time.monotonic()
        try:
            with gate.lifted():
                self.body(target, found)
        except Untestable as error:
            reason = str(error)
        except Exception as error:
            # What was seen before still counts; that it went no further refutes nothing.
            reason = f"cut short by {type(error).__name__}: {error}"
        seconds = round(time.monotonic() - began, 2)
        verdict: Verdict = "corroborated"
        unseen = [fault.name for fault in found.faults if not fault.confirmed]
        if found.counterexample:
            verdict, reason = "refuted", ""
        elif reason:
            verdict = "untestable"
        elif unseen:
            verdict, reason = "untestable", f"not seen to bite: {', '.join(unseen)}"
        elif not found.trials:
            verdict, reason = "untestable", "no trial was finished"
        return Judgement(
            characteristic=self.characteristic,
            verdict=verdict,
            experiment=self.name,
            parameters=found.parameters,
            seed=target.seed,
            trials=found.trials,
            seconds=seconds,
            counterexample=found.counterexample,
            reason=reason,
            faults=tuple(found.faults),
        )


EXPERIMENTS: dict[Characteristic, Experiment] = {}


def experiment(characteristic: Characteristic) -> Callable[[Body], Body]:
    """Register the experiment that decides a characteristic; its docstring tells what it does."""

    def register(body: Body) -> Body:
        name = getattr(body, "__name__", "")
        text = " ".join((inspect.getdoc(body) or "").split())
        EXPERIMENTS[characteristic] = Experiment(characteristic, name, text, body)
        return body

    return register


def judge_all(
    target: Target, heard: Callable[[Judgement], object] = lambda judgement: None
) -> Mapping[Characteristic, Judgement]:
    """Run every experiment; `heard` is told of each as it ends."""
    verdicts = {}
    for characteristic in Characteristic:
        if characteristic in EXPERIMENTS:
            verdicts[characteristic] = EXPERIMENTS[characteristic].judge(target)
            heard(verdicts[characteristic])
    return verdicts

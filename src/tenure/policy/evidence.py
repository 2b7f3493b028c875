"""What a program has found out about a driver: one file for each cell, and how it is read.

A file lies at `<driver>/<strategy>/<cell>.json`. It is written by `tenure verify` and by nobody
else. Reading one checks its form; `InvalidEvidence` names the file and the field that is wrong.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Union

from ..errors import TenureError
from .characteristics import Characteristic
from .versions import release

SCHEMA = 1
PART_CHARACTERS_MAX = 40
"""So much of each part of a cell is in its name, which must be that of a file."""
YEAR_MAX = 9000
"""Later than that nothing has happened, and no day can be added to the last ones there are."""

Verdict = Literal["corroborated", "refuted", "untestable"]
Passing = Literal["passed", "failed"]
Provenance = Literal["in-tree", "reproduced", "self-reported"]


class InvalidEvidence(TenureError):
    """A file of evidence has not the form that the runner gives it."""


class Fault(NamedTuple):
    """A fault that an experiment injected, and how it was seen to bite.

    `confirmed` is whether `proof` (a process state, packets that were counted) was observed;
    without it a trial says nothing. `safe` is whether nothing wrong was seen under it.
    `recovered` is whether the driver worked again after the fault was over, and
    `recovery_seconds` how long that took; None if it was not measured.
    """

    name: str
    confirmed: bool
    proof: str
    safe: bool = True
    recovery_seconds: float | None = None
    recovered: bool | None = None


class Judgement(NamedTuple):
    """What an experiment said of one characteristic.

    `corroborated` means: not refuted in `trials` trials. `counterexample` is what refuted it,
    for a person to read; `reason` is why it could not be tested.
    """

    characteristic: Characteristic
    verdict: Verdict
    experiment: str
    parameters: Mapping[str, Any]
    seed: int
    trials: int
    seconds: float
    counterexample: str = ""
    reason: str = ""
    faults: tuple[Fault, ...] = ()


class Test(NamedTuple):
    """One run of one case of the kit. What is not here has not been run, and counts as failed."""

    profile: str
    case: str
    runtime: str
    outcome: Passing
    seconds: float
    detail: str = ""


class Check(NamedTuple):
    """A fact of the driver that its requirements ask for, and that needed a run to be known.

    released: the day on which the client library had its last release, which grows old.
    """

    holds: bool
    detail: str
    released: date | None = None


class Cell(NamedTuple):
    """Where the evidence is from; read off the live connection and the running interpreter."""

    os: str
    python: str
    backend: str
    backend_version: str
    topology: str = ""
    client: str = ""
    client_version: str = ""

    @property
    def name(self) -> str:
        """What the file is called, without its ending: builds of one release are one cell."""
        backend = f"{self.backend}{_numbers(self.backend_version)}"
        parts = [self.os, f"py{self.python}", backend, self.topology]
        parts += [f"{self.client}{_numbers(self.client_version)}"] if self.client else []
        return "_".join(_UNFIT.sub("-", part)[:PART_CHARACTERS_MAX] for part in parts if part)


_UNFIT = re.compile(r"[^A-Za-z0-9.-]+")


def _numbers(version: str) -> str:
    return ".".join(map(str, release(version)))


class Run(NamedTuple):
    """The run that produced the evidence."""

    commit: str
    dirty: bool
    started: str
    seconds: float
    voting: bool


class Evidence(NamedTuple):
    """All that one run found out about one strategy of a driver in one cell.

    planned: how many runs of cases the whole suite has for the driver's traits, by profile and
        runtime as in `lock/thread`, whatever was left out of this run.
    """

    driver: str
    strategy: str
    entry_point: str
    driver_version: str
    source_hash: str
    suite_version: str
    suite_hash: str
    cell: Cell
    run: Run
    tests: tuple[Test, ...]
    characteristics: tuple[Judgement, ...]
    checks: Mapping[str, Check]
    coverage_percent: float | None = None
    benchmark: Mapping[str, float] = types.MappingProxyType({})
    provenance: Provenance = "in-tree"
    planned: Mapping[str, int] = types.MappingProxyType({})
    schema: int = SCHEMA

    @property
    def started(self) -> datetime:
        """When the run began, in UTC."""
        return moment(self.run.started)

    def judgement(self, characteristic: Characteristic) -> Judgement | None:
        """What was said of a characteristic; None if it was not tried."""
        return next((j for j in self.characteristics if j.characteristic is characteristic), None)


def moment(text: str) -> datetime:
    """A time as records have it, in UTC; `InvalidEvidence` if it is none, or in no time zone."""
    try:
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None and found.year <= YEAR_MAX:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InvalidEvidence(f"{text!r} is no time with its zone, as in 2026-01-31T12:00:00+00:00")


def dump(evidence: Evidence) -> str:
    """The text of a file of evidence: JSON with sorted keys, for a diff to be read."""
    return json.dumps(plain(evidence), indent=1, sort_keys=True) + "\n"


def plain(value: Any) -> Any:
    """The value as JSON has it: named tuples are objects, other tuples are lists."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items()}
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    return value


def load(path: Path) -> Evidence:
    """Read a file of evidence; `InvalidEvidence` if it is not one."""
    return parse(path.read_bytes(), str(path))


def parse(text: str | bytes, where: str) -> Evidence:
    """Take a file of evidence apart; `where` begins the message of an error."""
    found = read(text, where)
    if isinstance(found, dict) and found.get("schema") != SCHEMA:
        raise InvalidEvidence(f"{where}: schema {found.get('schema')!r}; this reads {SCHEMA}")
    evidence: Evidence = made(Evidence, found, where)
    return evidence


def read(text: str | bytes, where: str) -> Any:
    """What JSON says; `InvalidEvidence` if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidEvidence(f"{where}: not JSON: {error}") from None


def made(kind: Any, value: Any, where: str) -> Any:
    """The value as the type that a field declares; `InvalidEvidence` says where it is not."""
    if kind is Any:
        return _finite(value, where)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None:
            return None
        (kind,) = (each for each in arguments if each is not type(None))
        return made(kind, value, where)
    if origin is Literal:
        if value not in arguments:
            raise InvalidEvidence(f"{where}: {value!r} is none of {', '.join(arguments)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InvalidEvidence(f"{where}: a list was expected, not {value!r:.60}")
        return tuple(made(arguments[0], each, f"{where}[{i}]") for i, each in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise InvalidEvidence(f"{where}: an object was expected, not {value!r:.60}")
        return {key: made(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
    if hasattr(kind, "_fields"):
        return _record(kind, value, where)
    if kind is Characteristic:
        if not isinstance(value, str) or value not in Characteristic.__members__:
            raise InvalidEvidence(f"{where}: {value!r} is no characteristic")
        return Characteristic(value)
    if kind is float:
        return _number(value, where)
    if kind is date:
        return _day(value, where)
    if type(value) is not kind:
        raise InvalidEvidence(f"{where}: {kind.__name__} was expected, not {value!r:.60}")
    return value


def _number(value: Any, where: str) -> float:
    if type(value) in (int, float):
        with contextlib.suppress(OverflowError):
            if math.isfinite(number := float(value)):
                return number
    raise InvalidEvidence(f"{where}: a finite number was expected, not {value!r:.60}")


def _day(value: Any, where: str) -> date:
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            if (day := date.fromisoformat(value)).year <= YEAR_MAX:
                return day
    raise InvalidEvidence(f"{where}: a day was expected, as in 2026-01-31, not {value!r:.60}")


def _finite(value: Any, where: str) -> Any:
    """The value, in which no number is infinite or none at all."""
    if isinstance(value, float):
        return _number(value, where)
    if isinstance(value, dict):
        return {key: _finite(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each, f"{where}[{i}]") for i, each in enumerate(value)]
    return value


def _record(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise InvalidEvidence(f"{where}: an object was expected, not {value!r:.60}")
    hints = _hints(kind)
    for name in value:
        if name not in hints:
            raise InvalidEvidence(f"{where}: there is no field {name!r}")
    fields = {}
    for name, hint in hints.items():
        if name in value:
            fields[name] = made(hint, value[name], f"{where}.{name}")
        elif name not in kind._field_defaults:
            raise InvalidEvidence(f"{where}: the field {name!r} is missing")
    if "started" in fields:
        try:
            moment(fields["started"])
        except InvalidEvidence as error:
            raise InvalidEvidence(f"{where}.started: {error}") from None
    return kind(**fields)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def latest(found: Sequence[Evidence]) -> list[Evidence]:
    """The same, the newest first."""
    return sorted(found, key=lambda each: each.started, reverse=True)

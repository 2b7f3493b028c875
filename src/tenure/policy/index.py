"""What follows from manifests and evidence, in one file that is quickly read.

To take all evidence apart is too slow for every `connect`. So `tenure verify` and the generator
of the pages write `index.json` into the folder of the evidence; `connect` reads nothing else. What
was changed by hand, a manifest say, needs `python -m tenure.policy.index`.

A level may fall by itself: evidence grows old, a waiver ends. Those days are known beforehand, so
the index has a level for each, as steps: each holds from its day on. It knows no day of its own
making, and the same evidence gives the same text on any day.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import TenureError

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    from .evidence import Evidence
    from .home import Home
    from .levels import Assessment, Ledgered, Policy, Record, StrategyStanding
    from .manifest import Manifest, Strategy

SCHEMA = 1
ALWAYS = "0001-01-01"
"""The day from which on the first step holds."""
REASON_CHARACTERS_MAX = 200


class InvalidIndex(TenureError):
    """A file is no index of evidence, or one of another version of Tenure."""


# -- reading: no more than `connect` needs, and nothing is imported for it ---------------------


def read(path: Path) -> dict[str, Any]:
    """The drivers in an index, by name; `InvalidIndex` if it is none."""
    return parse(path.read_bytes(), str(path))


def parse(text: bytes | str, where: str) -> dict[str, Any]:
    """The drivers in the text of an index, by name; `where` is what an error calls it."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidIndex(f"{where}: not JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("drivers"), dict):
        raise InvalidIndex(f"{where}: it lists no drivers")
    if found.get("schema") != SCHEMA:
        raise InvalidIndex(f"{where}: schema {found.get('schema')!r}; this reads {SCHEMA}")
    drivers: dict[str, Any] = found["drivers"]
    return drivers


def strategy(driver: Mapping[str, Any], options: Mapping[str, str]) -> Mapping[str, Any]:
    """The strategy of a driver that a URL with these options chooses."""
    default: Mapping[str, Any] = {}
    for each in driver["strategies"]:
        when = each["when"]
        if not when:
            default = each
        elif all(key in options and value in ("*", options[key]) for key, value in when.items()):
            chosen: Mapping[str, Any] = each
            return chosen
    return default


def step(strategy: Mapping[str, Any], day: str) -> Mapping[str, Any]:
    """How a strategy stands on a day, written as 2026-01-31."""
    steps: Sequence[Mapping[str, Any]] = strategy["steps"]
    return next((each for each in reversed(steps) if each["from"] <= day), steps[0])


# -- making --------------------------------------------------------------------------------------


class Known(NamedTuple):
    """A driver, and all that is known about it."""

    manifest: Manifest
    record: Record


def known(home: Home) -> Known:
    """What lies in the home of a driver."""
    return Known(home.load(), home.record())


def write(folder: Path, found: Iterable[Known]) -> bool:
    """Write the index of these drivers into a folder; say whether it says anything new."""
    import os
    import tempfile
    from pathlib import Path

    path, text = folder / "index.json", render(build(found))
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=folder, prefix=".new-")  # others may write at that time
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
        os.fchmod(handle, 0o644)
    Path(name).replace(path)
    return True


def refresh(folder: Path) -> bool:
    """Write the index of a folder of evidence anew, about all installed drivers that have it.

    Says whether it says anything new.
    """
    from .home import homes

    return write(folder, [known(home) for home in homes() if same(home.evidence, folder)])


def same(folder: Path, other: Path) -> bool:
    """Whether two paths name one folder, which need not be there."""
    return folder.resolve() == other.resolve()


def render(index: Mapping[str, Any]) -> str:
    """The text of an index, always the same for the same content."""
    return json.dumps(index, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def build(found: Iterable[Known], policy: Policy | None = None) -> dict[str, Any]:
    """The index of these drivers; the policy is the one in force, if none is given."""
    from .levels import POLICY

    drivers = {each.manifest.driver: _driver(each, policy or POLICY) for each in found}
    return {"schema": SCHEMA, "drivers": drivers}


def _driver(found: Known, policy: Policy) -> dict[str, Any]:
    from .levels import evaluate

    manifest, record = found.manifest, found.record
    days = _days(manifest, record, policy)
    assessed = {day: evaluate(manifest, record, policy, day) for day in days}
    return {
        "schemes": list(manifest.schemes),
        "page": manifest.page,
        "unmaintained": manifest.unmaintained,
        "deprecation": _deprecation(manifest),
        "levels": _merged((day.isoformat(), str(each.level)) for day, each in assessed.items()),
        "strategies": [
            {
                "name": each.name,
                "when": dict(each.when),
                "steps": _steps(each.name, assessed),
                "characteristics": _characteristics(
                    next(iter(assessed.values())), record, each.name
                ),
                "backends": _backends(record.of(each.name)),
                "series": _series(each),
                "pythons": _ordered({found.cell.python for found in record.of(each.name)}),
            }
            for each in manifest.strategies
        ],
    }


def _days(manifest: Manifest, record: Record, policy: Policy) -> list[date]:
    """The days on which something changes by itself, after the beginning of days."""
    from datetime import date, timedelta

    from .deprecation import later

    aged = timedelta(days=policy.evidence_days_max + 1)
    found = {each.started.date() + aged for each in record.evidence}
    found |= {each.until + timedelta(days=1) for each in manifest.waivers if each.until < date.max}
    found |= {
        later(check.released, policy.client_release_months_max)
        for each in record.evidence
        for check in each.checks.values()
        if check.released is not None
    }
    return sorted({date.min} | found)


def _merged(steps: Iterable[tuple[str, Any]]) -> list[list[Any]]:
    """The steps without those that change nothing."""
    merged: list[list[Any]] = []
    for day, value in steps:
        if not merged or merged[-1][1] != value:
            merged.append([day, value])
    return merged


def _steps(name: str, assessed: Mapping[date, Assessment]) -> list[dict[str, Any]]:
    steps = _merged(
        (day.isoformat(), _step(each.strategies[name])) for day, each in assessed.items()
    )
    return [{"from": day, **content} for day, content in steps]


def _step(standing: StrategyStanding) -> dict[str, Any]:
    """The level of a strategy, and what is unmet; what all profiles lack is said once."""
    lacking: dict[tuple[str, str, str, str], list[str]] = {}
    for profile, each in standing.profiles.items():
        for unmet in each.unmet:
            key = unmet.requirement, str(unmet.level), unmet.reason, unmet.waived
            lacking.setdefault(key, []).append(profile)
    return {
        "level": str(standing.level),
        "profiles": {name: str(each.level) for name, each in standing.profiles.items()},
        "unmet": [
            {
                "requirement": requirement,
                "level": level,
                "reason": reason,
                **({"waived": waived} if waived else {}),
                **({"profiles": names} if len(names) < len(standing.profiles) else {}),
            }
            for (requirement, level, reason, waived), names in lacking.items()
        ],
    }


def _characteristics(assessment: Assessment, record: Record, name: str) -> dict[str, Any]:
    """All that are claimed, or were tried; and on what today's code was seen to have each."""
    standing = assessment.strategies[name]
    return {
        str(characteristic): {
            "claimed": line.claimed,
            "verdict": line.verdict,
            "backends": _backends(
                evidence
                for evidence in record.current(name)
                if (found := evidence.judgement(characteristic)) is not None
                and found.verdict == "corroborated"
            ),
            **({"reason": reason} if (reason := _reason(line)) else {}),
        }
        for characteristic, line in standing.ledger.items()
        if line.claimed or line.verdict is not None
    }


def _reason(line: Ledgered) -> str:
    if line.judgement is None:
        return ""
    text = " ".join((line.judgement.counterexample or line.judgement.reason).split())
    return text[:REASON_CHARACTERS_MAX]


def _backends(found: Iterable[Evidence]) -> dict[str, list[str]]:
    """On what evidence was found: products, and the versions of each in their order."""
    backends: dict[str, set[str]] = {}
    for each in found:
        backends.setdefault(each.cell.backend, set()).add(each.cell.backend_version)
    return {product: _ordered(versions) for product, versions in backends.items()}


def _ordered(versions: Iterable[str]) -> list[str]:
    from .versions import release

    return sorted(versions, key=lambda version: (release(version), version))


def _series(strategy: Strategy) -> dict[str, int]:
    """How many numbers of a product's version make a series, where that is said."""
    return {each.backend.name: each.series for each in strategy.supports if each.series is not None}


def _deprecation(manifest: Manifest) -> dict[str, str] | None:
    found = manifest.deprecation
    if found is None:
        return None
    return {**found._asdict(), "since_date": found.since_date.isoformat()}


def main(arguments: list[str]) -> int:
    """Write an index: `python -m tenure.policy.index [FOLDER]`, by default that of the tree."""
    import argparse
    from pathlib import Path

    from ..drivers import registry

    parser = argparse.ArgumentParser(
        prog="python -m tenure.policy.index",
        description="Write the index of the drivers whose evidence lies in a folder.",
    )
    ours = Path(registry.__file__).with_name("evidence")
    parser.add_argument("folder", nargs="?", type=Path, default=ours, help="(Tenure's own)")
    folder = parser.parse_args(arguments).folder
    if not folder.is_dir():
        parser.error(f"{folder} is no folder: tenure verify --out makes one")
    refresh(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What is run: the cases of the kit, the experiments and the small benchmark."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from ..._model import Traits
from ...policy.characteristics import Characteristic
from ...policy.manifest import Strategy
from ...policy.profiles import RUNTIMES, profile_of
from ..experiments import EXPERIMENTS
from ..kit import CASES, Case

SUITE_VERSION = "1"
"""It goes up when a case or an experiment is added, removed, or judges in another way."""

CONTENDERS = (1, 16, 64)


class Suite(NamedTuple):
    """A selection of what there is; the whole of it, if nothing is said."""

    cases: Callable[[Case], bool] = lambda case: True
    characteristics: Collection[Characteristic] = tuple(Characteristic)
    contenders: Collection[int] = CONTENDERS
    programs: bool = True
    unit_tests: bool = True


class Planned(NamedTuple):
    """One run of one case, which belongs to a profile."""

    profile: str
    case: str
    flavour: str


def profile_of_case(case: Case) -> str:
    """The profile that a case belongs to, by its module."""
    return profile_of(case.body.__module__.rpartition(".")[2])


def planned(suite: Suite, profiles: Collection[str], traits: Traits) -> list[Planned]:
    """The runs of the cases that the profiles ask for and the driver's traits allow."""
    return [
        Planned(profile_of_case(case), case.name, flavour)
        for case in CASES
        if profile_of_case(case) in profiles and case.unmet(traits) is None and suite.cases(case)
        for flavour in case.flavours
    ]


def counts(strategy: Strategy, traits: Traits) -> dict[str, int]:
    """How many runs of cases the whole suite has for what a strategy claims."""
    found = {f"{profile}/{each}": 0 for profile in strategy.profiles for each in RUNTIMES}
    for run in planned(Suite(), strategy.profiles, traits):
        found[f"{run.profile}/{run.flavour}"] += 1
    return found


def tried(suite: Suite) -> list[Characteristic]:
    """The characteristics that an experiment decides, in their order."""
    return [
        each for each in Characteristic if each in EXPERIMENTS and each in suite.characteristics
    ]

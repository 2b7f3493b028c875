"""One experiment for each characteristic that a driver may claim.

    from tenure.testing.experiments import EXPERIMENTS, Target

    judgement = EXPERIMENTS[Characteristic.FENCED].judge(Target(url, traits, namespace, seed))

An experiment runs whatever the driver claims: a false claim must not switch off the test
that would refute it.
"""

from __future__ import annotations

from . import (  # noqa: F401 - they register
    awareness,
    fencing,
    hosts,
    linearizable,
    partitions,
    processes,
    serializable,
    sessions,
    threads,
    timeouts,
    views,
)
from ._base import EXPERIMENTS, Experiment, Found, Target, Untestable, experiment, judge_all

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Found",
    "Target",
    "Untestable",
    "experiment",
    "judge_all",
]

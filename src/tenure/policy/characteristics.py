"""What a driver may claim of itself, each decided by an experiment.

The names of the first ten are those that the field has used for long (see the page of
characteristics); FENCED and SELF_AWARE are Tenure's own.
"""

from __future__ import annotations

from enum import StrEnum


class Characteristic(StrEnum):
    """A promise that an experiment corroborates or refutes. `meaning` tells what it promises."""

    DISTRIBUTED_ACROSS_THREADS = "DISTRIBUTED_ACROSS_THREADS"
    DISTRIBUTED_ACROSS_PROCESSES = "DISTRIBUTED_ACROSS_PROCESSES"
    DISTRIBUTED_ACROSS_HOSTS = "DISTRIBUTED_ACROSS_HOSTS"
    NON_TIMEOUT_BASED = "NON_TIMEOUT_BASED"
    LINEARIZABLE = "LINEARIZABLE"
    SEQUENTIAL = "SEQUENTIAL"
    CAUSAL = "CAUSAL"
    SERIALIZABLE = "SERIALIZABLE"
    SAME_VIEW_UNDER_PARTITIONS = "SAME_VIEW_UNDER_PARTITIONS"
    SAME_VIEW_ACROSS_CLIENTS = "SAME_VIEW_ACROSS_CLIENTS"
    FENCED = "FENCED"
    SELF_AWARE = "SELF_AWARE"

    @property
    def meaning(self) -> str:
        """What it promises, in a sentence."""
        return _MEANINGS[self]


_MEANINGS = {
    Characteristic.DISTRIBUTED_ACROSS_THREADS: "Threads of one process exclude each other.",
    Characteristic.DISTRIBUTED_ACROSS_PROCESSES: (
        "Processes of one host exclude each other, and a forked child inherits nothing."
    ),
    Characteristic.DISTRIBUTED_ACROSS_HOSTS: (
        "Hosts exclude each other, also those with the same name and process ids."
    ),
    Characteristic.NON_TIMEOUT_BASED: (
        "A paused holder keeps what it holds for ever; a dead one frees it at once."
    ),
    Characteristic.LINEARIZABLE: (
        "Every operation takes effect at one moment between its call and its return."
    ),
    Characteristic.SEQUENTIAL: "Nobody reads backwards, whatever endpoint is asked.",
    Characteristic.CAUSAL: "Who sees an effect sees its causes.",
    Characteristic.SERIALIZABLE: (
        "Operations on several keys behave as if they had run one after another."
    ),
    Characteristic.SAME_VIEW_UNDER_PARTITIONS: (
        "While servers are cut off from each other, no client is told what others are not."
    ),
    Characteristic.SAME_VIEW_ACROSS_CLIENTS: (
        "What was acknowledged to one client is what every other reads next."
    ),
    Characteristic.FENCED: "Tokens rise strictly per name, also across crashes and restarts.",
    Characteristic.SELF_AWARE: (
        "A holder knows that it has lost no later than another can be granted."
    ),
}

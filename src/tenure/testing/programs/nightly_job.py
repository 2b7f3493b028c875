"""The same nightly job on three machines: each night one of them runs it, the others skip it."""

from __future__ import annotations

from ._cast import Cast, Failed, Part, connect, heard, run, say

MACHINES = 3
NIGHTS = 3


def play(cast: Cast) -> str:
    """Let so many nights pass, and see who ran the job."""
    machines = [cast.start(f"machine-{number}") for number in range(1, MACHINES + 1)]
    tokens: list[int] = []
    for night in range(1, NIGHTS + 1):
        token = _night(cast, machines)
        if tokens and token <= tokens[-1]:
            raise Failed(f"night {night}: token {token} came after token {tokens[-1]}")
        tokens.append(token)
    return f"{NIGHTS} nights, {MACHINES} machines: the job ran {len(tokens)} times"


def _night(cast: Cast, machines: list[Part]) -> int:
    """Let all machines try; the token of the one that ran the job."""
    for each in machines:
        each.said.clear()
        each.tell("it is night")
    # Whoever runs the job is not done before all three have tried.
    cast.until(lambda: all(each.said for each in machines), "all to have tried")
    ran = [each for each in machines if each.said[0].startswith("ran")]
    if len(ran) != 1:
        raise Failed(f"{len(ran)} machines ran the job in one night")
    ran[0].tell("the job is done")
    cast.until(lambda: "released" in ran[0].said, "the lock to be released")
    return int(ran[0].said[0].split()[1])


def machine(name: str, namespace: str) -> None:
    """Try to run the job, every night."""
    with connect(namespace) as coordinator:
        lock = coordinator.lock("nightly-report")
        while heard():
            lease = lock.try_acquire()
            if lease is None:
                say("skipped")
                continue
            with lease:
                say(f"ran {lease.token}")
                heard()
                lease.check()
            say("released")


if __name__ == "__main__":
    run("tenure.testing.programs.nightly_job", __doc__, play, machine)

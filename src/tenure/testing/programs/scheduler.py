"""A scheduler, elected among three processes: its leader is killed, the next one resigns."""

from __future__ import annotations

import threading

import tenure

from ._cast import Cast, Failed, Part, connect, heard, run, say

PROCESSES = 3


def play(cast: Cast) -> str:
    """See one lead at a time: the first is killed, the second resigns, the third leads."""
    standing = [cast.start(f"scheduler-{number}") for number in range(1, PROCESSES + 1)]
    cast.until(lambda: all(each.said for each in standing), "all to stand")
    with connect(cast.namespace) as coordinator:
        election = coordinator.election("scheduler")
        terms = [_leader(cast, standing, election, 0)]
        cast.kill(_leading(standing, terms))
        standing = [each for each in standing if each in cast.parts]
        terms.append(_leader(cast, standing, election, terms[-1]))
        second = _leading(standing, terms)
        second.tell("resign")
        standing.remove(second)
        terms.append(_leader(cast, standing, election, terms[-1]))
        standing[0].tell("resign")
        cast.until(lambda: election.leader() is None, "nobody to lead")
    return f"{len(terms)} leaders, one after another, with the tokens {terms}"


def _leader(cast: Cast, standing: list[Part], election: tenure.Election, after: int) -> int:
    """Wait for one to lead, whom everybody sees; its token, which is greater than those before."""
    cast.until(lambda: len(_terms(standing)) > 0, "one to lead")
    cast.until(lambda: all("round" in each.said for each in _leaders(standing)), "its first round")
    tokens = _terms(standing)
    if len(tokens) != 1:
        raise Failed(f"{len(tokens)} lead at a time, with the tokens {tokens}")
    if tokens[0] <= after:
        raise Failed(f"token {tokens[0]} came after token {after}")
    seen = election.leader()
    if seen is None or seen.token != tokens[0]:
        raise Failed(f"the leader with token {tokens[0]} is not seen; seen is {seen}")
    return tokens[0]


def _leaders(standing: list[Part]) -> list[Part]:
    return [each for each in standing if any(line.startswith("leads") for line in each.said)]


def _terms(standing: list[Part]) -> list[int]:
    return [int(line.split()[1]) for each in standing for line in each.said if "leads" in line]


def _leading(standing: list[Part], terms: list[int]) -> Part:
    return next(each for each in standing if f"leads {terms[-1]}" in each.said)


def scheduler(name: str, namespace: str) -> None:
    """Stand for election, and do one round after another while leading."""
    resigned = threading.Event()

    def listen() -> None:
        heard()
        resigned.set()

    threading.Thread(target=listen, daemon=True).start()
    with connect(namespace) as coordinator:
        say("stands")
        with coordinator.election("scheduler").campaign(value=name) as term:
            say(f"leads {term.token}")
            while not resigned.wait(0.1):
                term.check()
                say("round")
    threading.Event().wait()  # it is killed with the program


if __name__ == "__main__":
    run("tenure.testing.programs.scheduler", __doc__, play, scheduler)

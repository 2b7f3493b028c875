"""Spells: from when to when a lock was held, with which token, on one clock for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ..kit.actor import Actor
from ._base import Found, Untestable
from ._party_cast import Cast, answered

ANSWER_SECONDS_MAX = 60.0
LOST_SHARE_MAX = 0.1
"""How much may be lost by the machine's load; what is lost says nothing of the driver."""


class Spell(NamedTuple):
    """One time that somebody held the lock."""

    began: float
    ended: float
    token: int
    who: str

    def __str__(self) -> str:
        milliseconds = (self.ended - self.began) * 1000
        return f"{self.who} with token {self.token} for {milliseconds:.1f} ms"


def race(
    cast: Cast, found: Found, actors: Sequence[tuple[str, Actor]], name: str, times: int
) -> list[Spell]:
    """Have all of them hold one lock in turn, as fast as they can; what they held, in order."""
    for _, actor in actors:
        seed = cast.chance.randrange(2**32)
        actor.send(do="spells", name=name, times=times, seconds=0.002, seed=seed)
    spells: list[Spell] = []
    lost = 0
    for who, actor in actors:
        answer = answered(actor.answer(ANSWER_SECONDS_MAX), f"{who} in the race")
        spells += [Spell(began, ended, token, who) for began, ended, token in answer["spells"]]
        lost += answer["lost"]
    found.trials += len(spells)
    if lost:
        found.parameters["lost_by_load"] = found.parameters.get("lost_by_load", 0) + lost
    if lost > LOST_SHARE_MAX * times * len(actors):
        raise Untestable(f"{lost} of {times * len(actors)} locks were lost before they were freed")
    return sorted(spells)


def overlap(spells: Sequence[Spell]) -> str:
    """The first two that were held at the same time; empty if there are none."""
    last: Spell | None = None
    for spell in spells:
        if last is not None and spell.began < last.ended:
            late = (last.ended - spell.began) * 1000
            return f"two inside at once for {late:.1f} ms: {last}, and {spell}"
        if last is None or spell.ended > last.ended:
            last = spell
    return ""


def fallen(tokens: Iterable[tuple[str, int]]) -> str:
    """The first token that is not greater than the one before it; empty if all are."""
    before: tuple[str, int] | None = None
    for what, token in tokens:
        if before is not None and token <= before[1]:
            return f"token {token} ({what}) came after {before[1]} ({before[0]})"
        before = what, token
    return ""


def describe(answer: dict[str, Any]) -> str:
    """An answer that should not have been, in a word."""
    return f"{answer.get('error', '')}: {answer.get('text', '')}".strip(": ")

"""Whether a history is linearizable: the search of Wing and Gong, with Lowe's memory.

Every operation must take effect at one moment between its call and its return. The search
takes, again and again, one of the operations that may come next, and remembers which sets of
operations led to which state, so that it goes no way twice. One of unknown outcome may take
effect at any time after its call, or never.

Keys are judged one by one, since a history is linearizable if that of each key is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ._operations import Operation, Violation

STATES_MAX = 200_000
"""How many states the search of one key may remember before it gives up."""
_STATES_MAX_TO_SHRINK = 5_000


class TooBig(Exception):
    """The history has too many ways to be ordered; nothing is known of it."""


Step = Callable[[Hashable, Operation], tuple[bool, Hashable]]


@dataclass(frozen=True)
class Model:
    """What an operation may do to one key.

    step: whether the operation can take effect in a state, and what the state is then.
    weaker: an operation that asks less of an order, or None if it can be left out: a
        history that is linearizable is so still with the weaker operation instead.
    whole: what all those have in common that can be left out together, if anything.
    """

    kinds: frozenset[str]
    initial: Hashable
    step: Step
    weaker: Callable[[Operation], Operation | None]
    whole: Callable[[Operation], Hashable]
    text: str


def _register(state: Hashable, each: Operation) -> tuple[bool, Hashable]:
    if each.kind == "read":
        return state == each.result, state
    old, new = each.value
    if each.outcome == "unknown" or each.result:
        return state == old, new  # that it found another value in vain needs no moment
    return state != old, state


def _weaker_in_register(each: Operation) -> Operation | None:
    if each.kind == "read" or not each.result:
        return None
    return replace(each, outcome="unknown", returned=math.inf)


REGISTER = Model(
    frozenset(("read", "swap")),
    None,
    _register,
    _weaker_in_register,
    lambda each: None,
    "no order of these fits what they were told",
)
"""A value that is read, or swapped for another if it is what was expected. Each value that is
written is new to the world."""


def _lock(state: Hashable, each: Operation) -> tuple[bool, Hashable]:
    assert isinstance(state, tuple)
    holder, greatest = state
    if each.kind == "acquire":
        token = each.result
        free = holder is None and (greatest is None or token > greatest)
        return free, (token, token)
    if each.kind == "holds":
        return holder == each.value, state
    return holder == each.value, (None, greatest)


def _weaker_in_lock(each: Operation) -> Operation | None:
    if each.kind == "holds":
        return None
    if each.kind == "release":
        return replace(each, outcome="unknown", returned=math.inf)
    return each


LOCK = Model(
    frozenset(("acquire", "holds", "release")),
    (None, None),
    _lock,
    _weaker_in_lock,
    lambda each: each.result if each.kind == "acquire" else each.value,
    "two held it, or a token did not rise",
)
"""A lock that one holds at a time, with tokens that rise."""


def linearizable(
    history: Sequence[Operation], model: Model = REGISTER, most: int = STATES_MAX
) -> Violation | None:
    """Judge the operations of the model's kinds; `TooBig` after so many states of one key."""
    keys: dict[str, list[Operation]] = defaultdict(list)
    for each in history:
        if each.kind in model.kinds and _counts(each):
            keys[each.key].append(each)
    for operations in keys.values():
        if not fits(operations, model, most):
            return Violation(model.text, tuple(_shrunk(operations, model)))
    return None


def _counts(each: Operation) -> bool:
    """Whether it may have had an effect, or tells something."""
    if each.outcome == "unknown":
        return each.kind in ("swap", "release")
    return each.outcome == "ok" and (each.kind != "acquire" or each.result is not None)


def fits(operations: Sequence[Operation], model: Model, most: int = STATES_MAX) -> bool:
    """Whether the operations of one key can be put in an order; `TooBig` if that takes long."""
    following, preceding, calls = _events(operations)
    size = len(operations)
    head = 2 * size
    must = sum(each.outcome == "ok" for each in operations)
    state, taken = model.initial, 0
    seen = {(0, state)}
    path: list[tuple[int, Hashable]] = []
    at = following[head]
    while must:
        if at in calls:
            possible, after = model.step(state, operations[at])
            step = (taken | 1 << at, after)
            if possible and step not in seen:
                seen.add(step)
                if len(seen) > most:
                    raise TooBig(f"{size} operations, more than {most} states")
                path.append((at, state))
                taken, state = step
                must -= operations[at].outcome == "ok"
                for node in (at, at + size):
                    following[preceding[node]] = following[node]
                    preceding[following[node]] = preceding[node]
                at = following[head]
            else:
                at = following[at]
            continue
        # At the return of one that has not been taken, or past the end: the last was wrong.
        if not path:
            return False
        at, state = path.pop()
        taken &= ~(1 << at)
        must += operations[at].outcome == "ok"
        for node in (at + size, at):
            following[preceding[node]] = preceding[following[node]] = node
        at = following[at]
    return True


def _events(operations: Sequence[Operation]) -> tuple[list[int], list[int], range]:
    """Calls and returns in order, as a list linked both ways.

    A node below the number of operations is a call, the same plus that number its return.
    What touches counts as overlapping, and one of unknown outcome returns after all others.
    """
    size = len(operations)
    moments = []
    for at, each in enumerate(operations):
        moments.append((each.called, 0, at))
        end = each.returned if each.outcome == "ok" else math.inf
        moments.append((end, 1, at + size))
    moments.sort()
    order = [2 * size, *(node for _, _, node in moments), 2 * size + 1]
    following, preceding = [0] * (2 * size + 2), [0] * (2 * size + 2)
    for before, after in pairwise(order):
        following[before], preceding[after] = after, before
    following[2 * size + 1] = 2 * size + 1
    return following, preceding, range(size)


# -- the few that cannot be ordered ---------------------------------------------------------------


def _shrunk(operations: Sequence[Operation], model: Model) -> list[Operation]:
    """Of a history of one key that does not fit, those without which it would."""
    kept = _first_part(sorted(operations, key=lambda each: each.returned), model)
    for whole in dict.fromkeys(model.whole(each) for each in kept):
        less = [each for each in kept if whole is None or model.whole(each) != whole]
        if _refuted(less, model):
            kept = less
    slots: list[Operation | None] = list(kept)
    size = len(slots)
    while size:
        for start in range(0, len(slots), size):
            part = [_weaker(each, model) for each in slots[start : start + size]]
            tried = [*slots[:start], *part, *slots[start + size :]]
            if _refuted([each for each in tried if each is not None], model):
                slots = tried
        size //= 2
    return [each for each in slots if each is not None and each.outcome == "ok"]


def _weaker(each: Operation | None, model: Model) -> Operation | None:
    return model.weaker(each) if each is not None and each.outcome == "ok" else each


def _refuted(operations: Sequence[Operation], model: Model) -> bool:
    try:
        return not fits(operations, model, _STATES_MAX_TO_SHRINK)
    except TooBig:
        return False


def _first_part(ordered: Sequence[Operation], model: Model) -> list[Operation]:
    """The history until the first return at which it does not fit any more."""
    moments = sorted({each.returned for each in ordered if each.outcome == "ok"})
    low, high = 0, len(moments) - 1
    while low < high:
        middle = (low + high) // 2
        if _refuted(_until(ordered, moments[middle], model), model):
            high = middle
        else:
            low = middle + 1
    return _until(ordered, moments[high], model)


def _until(ordered: Sequence[Operation], moment: float, model: Model) -> list[Operation]:
    found = []
    for each in ordered:
        if each.called > moment:
            continue
        if each.outcome != "ok" or each.returned <= moment:
            found.append(each)
        elif each.kind in ("swap", "release") and ((weaker := model.weaker(each)) is not None):
            found.append(weaker)
    return found

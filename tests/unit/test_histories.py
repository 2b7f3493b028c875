"""The judges of histories, on histories that are known to be good or bad."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenure.testing.histories import (
    LOCK,
    REGISTER,
    Model,
    Operation,
    TooBig,
    Transaction,
    causal,
    linearizable,
    sequential,
    serializable,
)

SEEDS = st.integers(0, 2**32 - 1)


def read(process: str, called: float, returned: float, result: Any, key: str = "k") -> Operation:
    """A read that was answered."""
    return Operation(process, "read", key, called, returned, result=result)


def swap(
    process: str, called: float, returned: float, old: Any, new: Any, done: bool | None = True
) -> Operation:
    """A compare-and-set; None for one of which nothing was heard."""
    outcome = "unknown" if done is None else "ok"
    return Operation(
        process,
        "swap",
        "k",
        called,
        returned,
        (old, new),
        done,
        outcome=outcome,  # type: ignore[arg-type]
    )


def write(process: str, called: float, returned: float, value: int, key: str = "k") -> Operation:
    """A write that was acknowledged."""
    return Operation(process, "write", key, called, returned, value)


# -- linearizable --------------------------------------------------------------------------------


def test_what_overlaps_may_be_ordered_either_way() -> None:
    """Two reads that overlap a write may see it or not, as long as the second follows the first."""
    begun = swap("a", 0, 1, None, "x")
    change = swap("a", 2, 9, "x", "y")
    good = [begun, change, read("b", 3, 4, "x"), read("b", 5, 6, "y")]
    assert linearizable(good) is None
    bad = [begun, change, read("b", 3, 4, "y"), read("b", 5, 6, "x")]
    assert linearizable(bad) is not None


def test_a_stale_read_is_told_in_two_operations() -> None:
    """Of a long history, the counterexample is the write and the read that did not see it."""
    history, value = [], None
    for number in range(40):
        new = f"v{number}"
        history.append(swap("a", number, number + 0.5, value, new))
        history.append(read("b", number + 0.6, number + 0.8, new))
        value = new
    history.append(read("c", 30.55, 30.58, "v29"))
    violation = linearizable(history)
    assert violation is not None
    assert [each.process for each in violation.operations] == ["a", "c"]
    assert "swap k from 'v29' to 'v30': done; " in str(violation)
    assert str(violation).endswith("read k: 'v29'")


def test_two_who_replace_the_same_value_are_refuted() -> None:
    """A compare-and-set that succeeds twice from the same value is told as those two."""
    history = [swap("a", 0, 1, None, "x"), swap("b", 2, 3, "x", "y"), swap("c", 2.5, 4, "x", "z")]
    violation = linearizable(history)
    assert violation is not None
    assert {each.process for each in violation.operations} == {"b", "c"}


def test_a_refusal_without_a_cause_is_refuted() -> None:
    """A compare-and-set that was refused although its value stood there is a lie."""
    history = [swap("a", 0, 1, None, "x"), swap("b", 2, 3, "x", "y", done=False)]
    assert linearizable(history) is not None
    assert linearizable([*history, swap("c", 2, 3, "x", "z")]) is None


def test_an_unknown_outcome_may_come_late_or_never() -> None:
    """What was given up on may take effect long afterwards, but only once."""
    begun, lost = swap("a", 0, 1, None, "x"), swap("a", 2, 3, "x", "y", done=None)
    assert linearizable([begun, lost, read("b", 50, 51, "x")]) is None
    assert linearizable([begun, lost, read("b", 50, 51, "x"), read("b", 52, 53, "y")]) is None
    back = [begun, lost, read("b", 50, 51, "y"), read("b", 52, 53, "x")]
    assert linearizable(back) is not None
    early = [begun, read("b", 1.2, 1.5, "y"), lost]
    assert linearizable(early) is not None


def test_what_failed_has_had_no_effect() -> None:
    """A swap that was certainly not carried out must not be seen."""
    failed = replace(swap("a", 2, 3, "x", "y", done=None), outcome="failed")
    history = [swap("a", 0, 1, None, "x"), failed, read("b", 4, 5, "y")]
    assert linearizable(history) is not None


def test_keys_are_judged_one_by_one() -> None:
    """What happened to one key says nothing of another."""
    other = replace(swap("a", 0, 1, None, "x"), key="other")
    assert linearizable([other, read("b", 2, 3, None)]) is None


def test_too_many_orders_are_not_judged() -> None:
    """A history with more orders than may be tried is called too big, and neither good nor bad."""
    many = [read(f"p{at}", 0, 100, None) for at in range(20)]
    impossible = [*many, read("q", 0, 100, "never written")]
    with pytest.raises(TooBig, match="21 operations"):
        linearizable(impossible, most=1000)


def test_two_holders_of_a_lock_are_refuted() -> None:
    """A lock that was granted while its holder still said that it held is told as these."""
    history = [
        Operation("a", "acquire", "k", 0, 1, result=1),
        Operation("a", "release", "k", 2, 3, 1),
        Operation("b", "acquire", "k", 2, 4, result=2),
        Operation("c", "acquire", "k", 5, 6, result=3),
    ]
    violation = linearizable(history, LOCK)
    assert violation is not None
    assert [each.process for each in violation.operations] == ["b", "c"]
    expired = Operation("b", "release", "k", 4, value=2, outcome="unknown")
    assert linearizable([*history, expired], LOCK) is None
    violation = linearizable([*history, expired, Operation("b", "holds", "k", 7, 7, 2)], LOCK)
    assert violation is not None
    assert [each.process for each in violation.operations] == ["b", "c", "b"]


def test_a_token_that_does_not_rise_is_refuted() -> None:
    """A lock that is free may be granted, but never with a token from before."""
    history = [
        Operation("a", "acquire", "k", 0, 1, result=2),
        Operation("a", "release", "k", 2, 3, 2),
        Operation("b", "acquire", "k", 4, 5, result=2),
    ]
    assert linearizable(history, LOCK) is not None
    assert linearizable([*history[:-1], replace(history[-1], result=3)], LOCK) is None


# -- against brute force --------------------------------------------------------------------------


def possible(history: Sequence[Operation], model: Model) -> bool:
    """Whether any order at all fits, with any of those of unknown outcome left out."""
    certain = [each for each in history if each.outcome == "ok"]
    unknown = [each for each in history if each.outcome == "unknown"]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            if any(_runs(order, model) for order in itertools.permutations([*certain, *some])):
                return True
    return False


def _runs(order: Sequence[Operation], model: Model) -> bool:
    state: Hashable = model.initial
    for at, each in enumerate(order):
        if any(later.outcome == "ok" and later.returned < each.called for later in order[at + 1 :]):
            return False
        fine, state = model.step(state, each)
        if not fine:
            return False
    return True


def true_history(chance: random.Random, size: int) -> list[Operation]:
    """Operations that took effect at once, one after another, seen through late replies."""
    state: str | None = None
    history = []
    for at in range(size):
        called, returned = at - chance.random() * 2, at + chance.random() * 2
        process = f"p{at}"
        if chance.random() < 0.4:
            history.append(read(process, called, returned, state))
            continue
        old = state if chance.random() < 0.7 else "never"
        done = old == state
        history.append(swap(process, called, returned, old, f"v{at}", done))
        if chance.random() < 0.2:
            history[-1] = replace(history[-1], outcome="unknown", result=None, returned=math.inf)
        if done:
            state = f"v{at}"
    return history


def changed(chance: random.Random, history: Sequence[Operation]) -> list[Operation]:
    """The same, with the answer of one operation, or its time, made up."""
    at = chance.randrange(len(history))
    each = history[at]
    values = [None, *(other.value[1] for other in history if other.kind == "swap")]
    if chance.random() < 0.3:
        shift = chance.uniform(-3, 3)
        new = replace(each, called=each.called + shift, returned=each.returned + shift)
    elif each.kind == "read":
        new = replace(each, result=chance.choice(values))
    elif each.outcome == "ok" and chance.random() < 0.5:
        new = replace(each, result=not each.result)
    else:
        new = replace(each, value=(chance.choice(values), each.value[1]))
    return [*history[:at], new, *history[at + 1 :]]


@settings(deadline=None, max_examples=100)
@given(SEEDS, st.integers(1, 60))
def test_a_history_made_in_order_is_accepted(seed: int, size: int) -> None:
    """Whatever took effect at once, inside its call, is linearizable."""
    assert linearizable(true_history(random.Random(seed), size)) is None


@settings(deadline=None, max_examples=150)
@given(SEEDS, st.integers(2, 6))
def test_the_search_agrees_with_trying_every_order(seed: int, size: int) -> None:
    """Histories with an invented answer are judged as by trying all permutations."""
    chance = random.Random(seed)
    history = changed(chance, true_history(chance, size))
    violation = linearizable(history)
    assert (violation is None) == possible(history, REGISTER)


@settings(deadline=None, max_examples=60)
@given(SEEDS)
def test_no_operation_of_a_counterexample_is_in_excess(seed: int) -> None:
    """If the answer of any operation in a counterexample is forgotten, the rest can be ordered."""
    chance = random.Random(seed)
    history = true_history(chance, 25)
    for _ in range(3):
        history = changed(chance, history)
    violation = linearizable(history)
    if violation is None:
        return
    rest = [
        each
        if each in violation.operations
        else REGISTER.weaker(each)
        if each.outcome == "ok"
        else each
        for each in history
    ]
    assert linearizable([each for each in rest if each is not None]) is not None
    assert len(violation.operations) <= 6


@settings(deadline=None, max_examples=80)
@given(SEEDS, st.integers(2, 6))
def test_locks_are_judged_as_by_trying_every_order(seed: int, size: int) -> None:
    """Acquires and releases with random times and tokens are judged as by all permutations."""
    chance = random.Random(seed)
    history: list[Operation] = []
    for at in range(size):
        called = chance.uniform(0, 6)
        times = (called, called + chance.uniform(0, 3))
        if history and chance.random() < 0.5:
            token = chance.choice([e.result or e.value for e in history])
            kind = chance.choice(["holds", "release"])
            history.append(Operation(f"p{at}", kind, "k", *times, token))
        else:
            history.append(Operation(f"p{at}", "acquire", "k", *times, result=at + 1))
    assert (linearizable(history, LOCK) is None) == possible(history, LOCK)


# -- weaker promises ---------------------------------------------------------------------------


def test_reading_backwards_is_refuted() -> None:
    """A process that reads less than before is told; two processes may differ."""
    good = [read("a", 0, 1, 5), read("b", 2, 3, 4), read("a", 4, 5, 5), read("b", 6, 7, None, "m")]
    assert sequential(good) is None
    violation = sequential([*good, read("b", 8, 9, None)])
    assert violation is not None
    assert violation.text == "b read 4, and then None"
    assert [each.result for each in violation.operations] == [4, None]


def test_an_effect_without_its_cause_is_refuted() -> None:
    """Who reads y, written by who had read x, must find that x, or a later one."""
    history = [
        write("a", 0, 1, 7, "x"),
        read("b", 2, 3, 7, "x"),
        write("b", 4, 5, 1, "y"),
        read("c", 6, 7, 1, "y"),
    ]
    for fine in (7, 8):
        assert causal([*history, read("c", 8, 9, fine, "x")]) is None
    for old in (6, None):
        violation = causal([*history, read("c", 8, 9, old, "x")])
        assert violation is not None
        assert len(violation.operations) == 4, violation
    assert causal([*history, read("d", 8, 9, None, "x")]) is None, "it has not seen y"


def test_a_cause_is_a_cause_through_several_hands() -> None:
    """What the writer of y had only heard of through z is a cause of y."""
    history = [
        write("a", 0, 1, 1, "x"),
        write("a", 2, 3, 1, "z"),
        read("b", 4, 5, 1, "z"),
        write("b", 6, 7, 1, "y"),
        read("c", 8, 9, 1, "y"),
    ]
    assert causal([*history, read("c", 10, 11, 1, "x")]) is None
    assert causal([*history, read("c", 10, 11, None, "x")]) is not None


def test_write_skew_is_a_cycle() -> None:
    """Two transactions that each read what the other replaces cannot have run in turn."""
    one = Transaction("t1", {"x": None, "y": None}, {"x": 1})
    two = Transaction("t2", {"x": None, "y": None}, {"y": 2})
    text = serializable([one, two])
    assert text is not None
    assert "t1 read y=None, which t2 replaced" in text
    assert serializable([one, Transaction("t2", {"x": 1, "y": None}, {"y": 2})]) is None


def test_a_lost_update_is_a_cycle() -> None:
    """Two transactions that replace the same value cannot have run in turn."""
    both = [Transaction(f"t{at}", {"x": None}, {"x": at}) for at in (1, 2)]
    assert serializable(both) is not None


def test_what_nobody_wrote_was_not_read() -> None:
    """A value that is read, but was only written by what failed, is told."""
    failed = Transaction("t1", {"x": None}, {"x": 1}, "failed")
    reader = Transaction("t2", {"x": 1})
    assert serializable([failed, reader]) == "t2: read x=1 - but nobody has written x=1"
    assert serializable([replace(failed, outcome="unknown"), reader]) is None


def test_a_transaction_reads_what_it_writes() -> None:
    """Without having read a key, nobody knows which value its write replaces."""
    with pytest.raises(ValueError, match="t1 writes x without reading it"):
        Transaction("t1", {}, {"x": 1})


@settings(deadline=None, max_examples=150)
@given(SEEDS, st.integers(2, 5))
def test_cycles_are_found_as_by_trying_every_order(seed: int, size: int) -> None:
    """Transactions over two keys, with reads made up, are judged as by all permutations."""
    chance = random.Random(seed)
    history: list[Transaction] = []
    state: dict[str, Hashable] = {"x": None, "y": None}
    for at in range(size):
        keys = chance.choice([("x",), ("y",), ("x", "y")])
        written = {key: f"{key}{at}" for key in keys if chance.random() < 0.6}
        old = [None, *(value for each in history for value in each.writes.values())]
        reads = {
            key: state[key]
            if chance.random() < 0.8
            else chance.choice([each for each in old if each is None or str(each)[0] == key])
            for key in keys
        }
        history.append(Transaction(f"t{at}", reads, written))
        state.update(written)
    assert (serializable(history) is None) == any(
        _serial(order) for order in itertools.permutations(history)
    )


def _serial(order: Sequence[Transaction]) -> bool:
    state: dict[str, Hashable] = {}
    for each in order:
        if any(state.get(key) != value for key, value in each.reads.items()):
            return False
        state.update(each.writes)
    return True

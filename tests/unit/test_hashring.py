"""The hash ring: who owns what, how little moves, and how evenly it is shared."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tenure
import tenure.aio
from tenure import _hashring
from tenure._hashring import HashRing

KEYS = [f"key-{number}" for number in range(2000)]

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
rings = st.builds(
    HashRing, st.dictionaries(names, st.sampled_from((0.5, 1.0, 2)), max_size=8), points=st.just(8)
)
keys = st.lists(names | st.binary(max_size=8), max_size=30)


def owners(ring: HashRing, keys: list[Any]) -> list[str | None]:
    return [ring.owner(key) for key in keys]


@given(rings, names, keys)
def test_a_new_node_only_takes(ring: HashRing, node: str, keys: list[Any]) -> None:
    """When a node joins, every key that moves goes to it."""
    ring = ring.without(node)
    more = ring.adding([node])
    for _key, before, after in zip(keys, owners(ring, keys), owners(more, keys), strict=True):
        assert after in (before, node)


@given(rings, keys, st.data())
def test_a_node_that_leaves_only_loses(ring: HashRing, keys: list[Any], data: Any) -> None:
    """When nodes leave, only their keys move, and each to the next of its owners."""
    gone = data.draw(st.sets(st.sampled_from(sorted(ring.nodes)))) if len(ring) else set()
    fewer = ring.without(gone)
    for key, before, after in zip(keys, owners(ring, keys), owners(fewer, keys), strict=True):
        assert before == after or before in gone
        heirs = [node for node in ring.owners(key, len(ring)) if node not in gone]
        assert after == (heirs[0] if heirs else None)
        assert ring.owner(key, ignore=gone) == after
        assert ring.owners(key, 9, ignore=gone) == fewer.owners(key, 9) == tuple(heirs)
    assert ring.shares(keys, ignore=gone) == fewer.shares(keys)
    assert ring.dealt(keys, ignore=gone) == fewer.dealt(keys)


@given(rings, rings, keys)
def test_a_ring_has_no_history(old: HashRing, other: HashRing, keys: list[Any]) -> None:
    """A ring that was changed into another is the other, point for point."""
    made = old.replacing(other.nodes)
    assert made == other
    assert hash(made) == hash(other)
    assert made._points == other._points
    assert made._of == other._of
    assert owners(made, keys) == owners(other, keys)


@pytest.mark.parametrize("nodes", [1, 3, 40])
def test_an_index_changes_nothing(monkeypatch: pytest.MonkeyPatch, nodes: int) -> None:
    """A ring large enough for an index gives the same answers, also after it was changed."""
    members = [f"n{number}" for number in range(nodes)]
    plain = HashRing(members)
    changed = plain.without(members[:1]).adding(["x", "y"])
    monkeypatch.setattr(_hashring, "_INDEXED", 1)
    indexed = HashRing(members)
    assert indexed._index
    assert owners(indexed, KEYS) == owners(plain, KEYS)
    other = indexed.without(members[:1]).adding(["x", "y"])
    assert other._index == _hashring._index(other._points)
    assert owners(other, KEYS) == owners(changed, KEYS)


@given(rings, keys)
def test_keys_are_dealt_out_fairly(ring: HashRing, keys: list[Any]) -> None:
    """Every key is dealt out once, and no node has less than its share, or more, by a whole key."""
    dealt = ring.dealt(keys)
    assert set(dealt) == set(ring.nodes)
    if not len(ring):
        return
    given = [key for share in dealt.values() for key in share]
    assert Counter(given) == Counter(dict.fromkeys(keys, 1))
    for node, share in dealt.items():
        due = len(given) * ring.nodes[node] / sum(ring.nodes.values())
        assert due - 1 < len(share) < due + 1


@given(rings, st.lists(names, unique=True, max_size=30), st.randoms())
def test_the_order_does_not_matter(ring: HashRing, keys: list[str], random: Any) -> None:
    """However nodes and keys are ordered, the same keys go to the same nodes."""
    nodes, shuffled = list(ring.nodes.items()), list(keys)
    random.shuffle(nodes)
    random.shuffle(shuffled)
    other = HashRing(dict(nodes), points=8)
    assert other.dealt(shuffled) == ring.dealt(keys)
    assert owners(other, keys) == owners(ring, keys)


@pytest.mark.parametrize("nodes", [2, 5, 10])
def test_few_dealt_keys_move(nodes: int) -> None:
    """When a node joins, at most twice as many keys are dealt anew as it must get."""
    ring = HashRing([f"n{number}" for number in range(nodes)], points=64)
    before, after = ring.dealt(KEYS), ring.adding(["new"]).dealt(KEYS)
    stayed = sum(len(set(before[node]) & set(after[node])) for node in before)
    assert len(KEYS) - stayed <= 2 * len(KEYS) / (nodes + 1)


def test_equal_nodes_share_evenly() -> None:
    """With 128 points each, ten nodes' shares are within a third of the mean."""
    shares = HashRing([f"n{number}" for number in range(10)]).shares(KEYS * 5)
    for share in shares.values():
        assert 2 / 3 < len(share) / len(KEYS * 5) * 10 < 4 / 3


def test_weights_count() -> None:
    """A node of three times the weight has about three times the keys."""
    ring = HashRing({"small": 1, "large": 3.0})
    assert 2.2 < len(ring.mine("large", KEYS)) / len(ring.mine("small", KEYS)) < 4
    dealt = ring.dealt(KEYS)
    assert (len(dealt["large"]), len(dealt["small"])) == (1500, 500)
    assert ring.adding({"small": 3}).nodes == {"small": 3, "large": 3.0}


def test_answers_never_change() -> None:
    """The owners of some keys, as they were in the first version: they are a wire format."""
    ring = HashRing({"a": 1, "b": 2, "ü": 0.5})
    assert "".join(str(ring.owner(key)) for key in KEYS[:24]) == "bbbbabbübbabbabübbaabbbb"
    assert ring.owner("clé") == ring.owner("clé".encode())
    assert ring.owners("key-1", 3) == ("b", "ü", "a")


def test_other_processes_agree() -> None:
    """A process with another seed of Python's own hashes finds the same owners."""
    code = (
        "import tenure; ring = tenure.HashRing(['a', 'b', 'c']);"
        "print(*(ring.owner(f'key-{number}') for number in range(2000)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.split() == owners(HashRing(["a", "b", "c"]), KEYS)


def test_an_empty_ring() -> None:
    """Nobody owns anything of an empty ring, or of one whose nodes are all ignored."""
    for ring, ignore in ((HashRing(), ()), (HashRing(["a"]), ("a", "b")), (HashRing(["ab"]), "ab")):
        assert ring.owner("k", ignore=ignore) is None
        assert ring.owners("k", 2, ignore=ignore) == ()
        assert ring.mine("a", ["k"], ignore=ignore) == []
        assert ring.shares(["k"], ignore=ignore) == ring.dealt(["k"], ignore=ignore) == {}
    assert HashRing(["ab"]).owner("k", ignore="a") == "ab"


def test_a_ring_is_a_value() -> None:
    """Rings of the same nodes are equal; one can be copied, pickled, and told apart by eye."""
    ring = HashRing({"a": 2, "b": 1}, points=16)
    assert ring == HashRing({"b": 1.0, "a": 2.0}, points=16) != HashRing(["a", "b"], points=16)
    assert ring != HashRing({"a": 2, "b": 1})
    assert ring != "ring"
    for other in (pickle.loads(pickle.dumps(ring)), copy.deepcopy(ring)):
        assert other == ring
        assert owners(other, KEYS) == owners(ring, KEYS)
    assert len(ring) == 2
    assert "a" in ring
    assert "c" not in ring
    assert repr(ring) == "<hash ring of 2: 'a', 'b'>"
    assert repr(HashRing()) == "<hash ring of 0>"
    assert repr(HashRing(map(str, range(9)))) == "<hash ring of 9: '0', '1', '2', '3', '4', …>"
    ring.nodes.clear()  # type: ignore[attr-defined]
    assert len(ring) == 2
    assert ring.without(["c"]) is ring
    assert tenure.HashRing is tenure.aio.HashRing is HashRing


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: HashRing("abc"), "not the one text 'abc'"),
        (lambda: HashRing([1]), "not 1"),  # type: ignore[list-item]
        (lambda: HashRing(["\ud800"]), "UTF-8"),
        (lambda: HashRing({"a": 0}), "weight of 'a' must be above 0 and at most 512, not 0"),
        (lambda: HashRing({"a": float("nan")}), "not nan"),
        (lambda: HashRing({"a": True}), "not True"),
        (lambda: HashRing({"a": "2"}), "not '2'"),
        (lambda: HashRing({"a": 16_000_000_000}), "at most 512"),
        (lambda: HashRing().adding({"a": -1}), "not -1"),
        (lambda: HashRing(points=0), "from 1 to 65,536, not 0"),
        (lambda: HashRing(points=True), "not True"),
        (lambda: HashRing(["a"]).owner(7), "text or bytes, not 7"),  # type: ignore[arg-type]
        (lambda: HashRing(["a"]).owner("\ud800"), "text or bytes"),
        (lambda: HashRing(["a"]).owners("k", -1), "not -1"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, words: str) -> None:
    """Bad nodes, weights, points and keys are refused, and the message names them."""
    with pytest.raises(tenure.InvalidArgument) as error:
        make()
    assert words in str(error.value)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(0, 40))
def test_equal_nodes_are_dealt_the_same_number(nodes: int, count: int) -> None:
    """Of N keys and M equal nodes, each is dealt N/M, rounded down or up."""
    dealt = HashRing(map(str, range(nodes)), points=16).dealt(KEYS[:count])
    sizes = {len(share) for share in dealt.values()}
    assert sizes <= {count // nodes, -(-count // nodes)}

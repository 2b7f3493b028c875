"""Consistent hashing: which node owns a key, so that few keys move when nodes come and go.

Each node has many points on a circle, in proportion to its weight; a key belongs to the
first point behind its own place (Karger et al., "Consistent Hashing and Random Trees",
1997). Places are the first eight bytes of BLAKE2b, so every process, on any machine and in
any version of Python, finds the same owner.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from fractions import Fraction
from hashlib import blake2b
from itertools import accumulate, islice
from math import floor, isfinite
from operator import add, itemgetter
from typing import TypeVar

from .errors import InvalidArgument

POINTS = 128
"""Points of a node of weight 1: the shares of equal nodes differ by about a tenth."""

POINTS_MAX = 65_536
"""Points that one node can have, whatever its weight."""

_PLACE = 8
_BLOCK = 8
"""Points that one call of the hash function yields."""

_INDEXED = 1 << 16
"""From so many points on, an index pays."""

Key = str | bytes
K = TypeVar("K", bound=Key)


class HashRing:
    """Nodes and their places. Immutable, so that any number of threads may ask it.

    `nodes` are names, or a mapping from names to weights, of which 1 is the usual one.
    `points` is how many places a node of weight 1 has: more of them share more evenly, and
    cost memory (about 60 bytes each) and time to make. Keys are text or bytes; text counts
    as its UTF-8. Raises `InvalidArgument` for nodes, weights or points that cannot be.
    """

    __slots__ = ("_index", "_nodes", "_of", "_points", "points")

    def __init__(
        self, nodes: Mapping[str, float] | Iterable[str] = (), *, points: int = POINTS
    ) -> None:
        if isinstance(points, bool) or not isinstance(points, int) or not 1 <= points <= POINTS_MAX:
            raise InvalidArgument(f"points must be from 1 to {POINTS_MAX:,}, not {points!r}")
        self.points = points
        self._nodes = weighted(nodes, points)
        self._of = {_tag(node): node for node in self._nodes}
        self._points = sorted(self._all_places(self._nodes))
        self._index = _index(self._points)

    # -- whose -----------------------------------------------------------------

    def owner(self, key: Key, *, ignore: Collection[str] = ()) -> str | None:
        """The node that owns the key; None if there is none but those to `ignore`."""
        points = self._points
        if ignore or not points:
            return next(self._from(self._behind(_place(key)), ignore), None)
        at = self._behind(_place(key))
        return self._of[points[at if at < len(points) else 0][_PLACE:]]

    def owners(self, key: Key, count: int, *, ignore: Collection[str] = ()) -> tuple[str, ...]:
        """The owner, and whoever would own the key if those before were gone: `count` at most."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise InvalidArgument(f"count must be a number of nodes from 0, not {count!r}")
        return tuple(islice(self._from(self._behind(_place(key)), ignore), count))

    def mine(self, node: str, keys: Iterable[K], *, ignore: Collection[str] = ()) -> list[K]:
        """Those of the keys that a node owns, in their order."""
        return [key for key in keys if self.owner(key, ignore=ignore) == node]

    def shares(self, keys: Iterable[K], *, ignore: Collection[str] = ()) -> dict[str, list[K]]:
        """All the keys by their owner, for every node that may own one."""
        ignored = _names(ignore)
        shares: dict[str, list[K]] = {node: [] for node in self._nodes if node not in ignored}
        for key in keys:
            owner = self.owner(key, ignore=ignored)
            if owner is not None:
                shares[owner].append(key)
        return shares

    def dealt(self, keys: Iterable[K], *, ignore: Collection[str] = ()) -> dict[str, list[K]]:
        """All the keys, dealt out so that each node gets its fair share and not one more.

        Of so many keys, a node gets what is due to its weight, rounded down or up. A key goes
        to its owner, or to the next node that has room; so some more keys move when nodes
        come and go than with `shares`. It costs a sort of the keys.
        """
        ignored = _names(ignore)
        weights = {node: Fraction(w) for node, w in self._nodes.items() if node not in ignored}
        dealt: dict[str, list[K]] = {node: [] for node in weights}
        if not weights:
            return dealt
        ordered = sorted(((_place(key), key) for key in dict.fromkeys(keys)), key=itemgetter(0))
        whole = sum(weights.values())
        due = {node: len(ordered) * weight / whole for node, weight in weights.items()}
        least = {node: floor(each) for node, each in due.items()}
        over = len(ordered) - sum(least.values())  # for so many nodes, one more
        for place, key in ordered:
            for node in self._from(self._behind(place), ignored):
                have = len(dealt[node])
                if have < least[node] or (over and have < due[node]):
                    over -= have >= least[node]
                    dealt[node].append(key)
                    break
        return dealt

    def _behind(self, place: bytes) -> int:
        """The number of the first point behind a place."""
        index = self._index
        if not index:
            return bisect_right(self._points, place)
        start = place[0] << 8 | place[1]
        return bisect_right(self._points, place, index[start], index[start + 1])

    def _from(self, at: int, ignore: Collection[str]) -> Iterator[str]:
        """The nodes from a place on, each once."""
        points, seen = self._points, set(_names(ignore))
        left = len(self._nodes) - sum(node in self._nodes for node in seen)
        for step in range(len(points)):
            if not left:
                return
            node = self._of[points[(at + step) % len(points)][_PLACE:]]
            if node not in seen:
                seen.add(node)
                left -= 1
                yield node

    # -- who -------------------------------------------------------------------

    @property
    def nodes(self) -> Mapping[str, float]:
        """The nodes and their weights, as a copy."""
        return dict(self._nodes)

    def adding(self, nodes: Mapping[str, float] | Iterable[str]) -> HashRing:
        """A ring with more nodes, or with other weights for some that it has."""
        return self.replacing({**self._nodes, **weighted(nodes, self.points)})

    def without(self, nodes: Collection[str]) -> HashRing:
        """A ring without these nodes; those that it does not have do not matter."""
        gone = {nodes} if isinstance(nodes, str) else set(nodes)
        return self.replacing({n: w for n, w in self._nodes.items() if n not in gone})

    def replacing(self, nodes: Mapping[str, float] | Iterable[str]) -> HashRing:
        """A ring of these nodes; made faster than anew where most of them are the same."""
        wanted = weighted(nodes, self.points)
        if wanted == self._nodes:
            return self
        gone = {n: w for n, w in self._nodes.items() if wanted.get(n) != w}
        come = {n: w for n, w in wanted.items() if self._nodes.get(n) != w}
        if len(come) + len(gone) > len(self._nodes) // 2:
            return HashRing(wanted, points=self.points)
        new = HashRing(points=self.points)
        leaving, coming = self._all_places(gone), self._all_places(come)
        new._points = _edited(self._points, leaving, coming)
        new._index = _moved(self._index, leaving, coming) or _index(new._points)
        new._nodes = wanted
        new._of = {tag: node for tag, node in self._of.items() if node not in gone}
        new._of.update((_tag(node), node) for node in come)
        return new

    def _all_places(self, nodes: Mapping[str, float]) -> list[bytes]:
        return [place for node, weight in nodes.items() for place in self._places(node, weight)]

    def _places(self, node: str, weight: float) -> list[bytes]:
        count = max(1, round(self.points * weight))
        name, tag = node.encode(), _tag(node)
        found: list[bytes] = []
        for block in range(-(-count // _BLOCK)):
            hashes = blake2b(b"%d:%b" % (block, name), digest_size=_PLACE * _BLOCK).digest()
            found += [hashes[at : at + _PLACE] + tag for at in range(0, len(hashes), _PLACE)]
        return found[:count]

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, node: str) -> bool:
        return node in self._nodes

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, HashRing):
            return NotImplemented
        return self._nodes == other._nodes and self.points == other.points

    def __hash__(self) -> int:
        return hash((frozenset(self._nodes.items()), self.points))

    def __repr__(self) -> str:
        names = ", ".join(map(repr, list(self._nodes)[:5])) + (", …" if len(self) > 5 else "")
        return f"<hash ring of {len(self)}{': ' if names else ''}{names}>"


def _index(points: list[bytes]) -> list[int]:
    """Where the points of each two first bytes begin, so that a search need not go far."""
    if len(points) < _INDEXED:
        return []
    starts = [bisect_left(points, each.to_bytes(2, "big")) for each in range(1 << 16)]
    return [*starts, len(points)]


def _edited(points: list[bytes], gone: list[bytes], come: list[bytes]) -> list[bytes]:
    """The points without some, and with others, by copying what lies in between."""
    edits = [*((point, False) for point in gone), *((point, True) for point in come)]
    new: list[bytes] = []
    start = 0
    for point, stays in sorted(edits):
        at = bisect_left(points, point, start)
        new += points[start:at]
        if stays:
            new.append(point)
            start = at
        else:
            start = at + 1
    new += points[start:]
    return new


def _moved(index: list[int], gone: list[bytes], come: list[bytes]) -> list[int]:
    """The index after an edit; none if there was none."""
    if not index:
        return []
    steps = [0] * len(index)
    for points, step in ((gone, -1), (come, 1)):
        for point in points:
            steps[(point[0] << 8 | point[1]) + 1] += step
    return list(map(add, index, accumulate(steps)))


def _names(nodes: Collection[str]) -> Collection[str]:
    """The nodes to ignore; a text is one of them, and not its letters."""
    return (nodes,) if isinstance(nodes, str) else nodes


def _place(key: Key) -> bytes:
    try:
        data = key.encode() if isinstance(key, str) else key
        return blake2b(data, digest_size=_PLACE).digest()
    except (TypeError, AttributeError, UnicodeEncodeError):
        raise InvalidArgument(f"a key is text or bytes, not {key!r:.60}") from None


def _tag(node: str) -> bytes:
    """What names a node in its points: sixteen bytes, so that no two nodes share one."""
    return blake2b(node.encode(), digest_size=16, person=b"tenure node").digest()


def weighted(nodes: Mapping[str, float] | Iterable[str], points: int) -> dict[str, float]:
    """The nodes and their weights; `InvalidArgument` if some cannot be."""
    if isinstance(nodes, str):
        raise InvalidArgument(f"nodes are several names, not the one text {nodes!r:.60}")
    weights = dict(nodes) if isinstance(nodes, Mapping) else dict.fromkeys(nodes, 1.0)
    most = POINTS_MAX / points
    for node, weight in weights.items():
        if not isinstance(node, str) or not node.isascii():
            _check_name(node)
        if weight.__class__ is float and 0 < weight <= most:
            continue
        if (
            isinstance(weight, bool)
            or not isinstance(weight, (int, float))
            or not isfinite(weight)
            or not 0 < weight <= most
        ):
            raise InvalidArgument(
                f"the weight of {node!r:.60} must be above 0 and at most {most:g}, not {weight!r}"
            )
    return weights


def _check_name(node: object) -> None:
    try:
        if isinstance(node, str):
            node.encode()
            return
    except UnicodeEncodeError:
        pass
    raise InvalidArgument(f"a node is a name that UTF-8 can encode, not {node!r:.60}")

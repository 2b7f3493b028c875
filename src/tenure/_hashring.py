"""Consistent hashing: which node owns a key, so that few keys move when nodes come and go.

Each node has many points on a circle, in proportion to its weight; a key belongs to the
first point behind its own place (Karger et al., "Consistent Hashing and Random Trees",
1997). Places are the first eight bytes of BLAKE2b, so every process, on any machine and in
any version of Python, finds the same owner.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from math import isfinite

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


class HashRing:
    """Nodes and their places. Immutable, so that any number of threads may ask it.

    `nodes` are names, or a mapping from names to weights. `points` is how many places a
    node of weight 1 has: more of them share more evenly, and cost memory (about 60 bytes
    each) and time to make.
    """

    __slots__ = ("_index", "_nodes", "_of", "_points", "points")

    def __init__(
        self, nodes: Mapping[str, float] | Iterable[str] = (), *, points: int = POINTS
    ) -> None:
        if isinstance(points, bool) or not isinstance(points, int) or not 1 <= points <= POINTS_MAX:
            raise InvalidArgument(f"points must be from 1 to {POINTS_MAX:,}, not {points!r}")
        self.points = points
        self._nodes = _weighted(nodes)
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
        found: list[str] = []
        for node in self._from(self._behind(_place(key)), ignore):
            if len(found) >= count:
                break
            found.append(node)
        return tuple(found)

    def mine(self, node: str, keys: Iterable[Key], *, ignore: Collection[str] = ()) -> list[Key]:
        """Those of the keys that a node owns, in their order."""
        return [key for key in keys if self.owner(key, ignore=ignore) == node]

    def shares(self, keys: Iterable[Key], *, ignore: Collection[str] = ()) -> dict[str, list[Key]]:
        """All the keys by their owner, for every node that may own one."""
        shares: dict[str, list[Key]] = {node: [] for node in self._nodes if node not in ignore}
        for key in keys:
            owner = self.owner(key, ignore=ignore)
            if owner is not None:
                shares[owner].append(key)
        return shares

    def _behind(self, place: bytes) -> int:
        """The number of the first point behind a place."""
        index = self._index
        if not index:
            return bisect_right(self._points, place)
        start = place[0] << 8 | place[1]
        return bisect_right(self._points, place, index[start], index[start + 1])

    def _from(self, at: int, ignore: Collection[str]) -> Iterator[str]:
        """The nodes from a place on, each once."""
        points, seen = self._points, set(ignore)
        left = len(self._nodes.keys() - seen)
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
        return self.replacing({**self._nodes, **_weighted(nodes)})

    def without(self, nodes: Collection[str]) -> HashRing:
        """A ring without these nodes; those that it does not have do not matter."""
        gone = {nodes} if isinstance(nodes, str) else set(nodes)
        return self.replacing({n: w for n, w in self._nodes.items() if n not in gone})

    def replacing(self, nodes: Mapping[str, float] | Iterable[str]) -> HashRing:
        """A ring of these nodes; made faster than anew where most of them are the same."""
        wanted = _weighted(nodes)
        if wanted == self._nodes:
            return self
        new = HashRing(points=self.points)
        gone = {n: w for n, w in self._nodes.items() if wanted.get(n) != w}
        come = {n: w for n, w in wanted.items() if self._nodes.get(n) != w}
        points: list[bytes] = []
        start = 0
        for at in sorted(bisect_left(self._points, each) for each in self._all_places(gone)):
            points += self._points[start:at]
            start = at + 1
        points += self._points[start:]
        points += self._all_places(come)
        points.sort()  # fast, since nearly all of them are in order
        new._points = points
        new._index = _index(points)
        new._nodes = wanted
        new._of = {tag: node for tag, node in self._of.items() if node not in gone}
        new._of.update((_tag(node), node) for node in come)
        return new

    def _all_places(self, nodes: Mapping[str, float]) -> list[bytes]:
        return [place for node, weight in nodes.items() for place in self._places(node, weight)]

    def _places(self, node: str, weight: float) -> list[bytes]:
        count = min(POINTS_MAX, max(1, round(self.points * weight)))
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


def _place(key: Key) -> bytes:
    try:
        data = key.encode() if isinstance(key, str) else key
        return blake2b(data, digest_size=_PLACE).digest()
    except (TypeError, AttributeError, UnicodeEncodeError):
        raise InvalidArgument(f"a key is text or bytes, not {key!r:.60}") from None


def _tag(node: str) -> bytes:
    """What names a node in its points: sixteen bytes, so that no two nodes share one."""
    return blake2b(node.encode(), digest_size=16, person=b"tenure node").digest()


def _weighted(nodes: Mapping[str, float] | Iterable[str]) -> dict[str, float]:
    if isinstance(nodes, str):
        raise InvalidArgument(f"nodes are several names, not the one text {nodes!r:.60}")
    weights = dict(nodes) if isinstance(nodes, Mapping) else dict.fromkeys(nodes, 1.0)
    for node, weight in weights.items():
        if not isinstance(node, str):
            raise InvalidArgument(f"a node is a name, not {node!r:.60}")
        if (
            isinstance(weight, bool)
            or not isinstance(weight, (int, float))
            or not isfinite(weight)
            or weight <= 0
        ):
            raise InvalidArgument(f"the weight of {node!r:.60} must be above 0, not {weight!r}")
    return weights

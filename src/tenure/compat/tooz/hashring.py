"""A consistent hash ring that places keys where Tooz's does.

So the processes of a service agree on who owns what while some of them still import Tooz, and
others import this. `tenure.HashRing` is another one, which places keys elsewhere.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Hashable, Iterable
from typing import Any

from . import ToozError
from .utils import to_binary

Node = Hashable


class UnknownNode(ToozError):
    """The node is not on the ring."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"The ring has no node {node!r}")
        self.node = node


class HashRing:
    """Nodes, each with `partitions` points on a circle for each unit of its weight.

    A node is text or bytes. A key belongs to the node of the first point behind its own
    place. Raises `ValueError` for a hash function that hashlib does not know.
    """

    DEFAULT_PARTITION_NUMBER = 32
    DEFAULT_HASH_FUNCTION = "md5"

    def __init__(
        self,
        nodes: Iterable[Node],
        partitions: int = DEFAULT_PARTITION_NUMBER,
        hash_function: str = DEFAULT_HASH_FUNCTION,
    ) -> None:
        if hash_function not in hashlib.algorithms_available:
            known = ", ".join(sorted(hashlib.algorithms_available))
            raise ValueError(f"there is no hash function {hash_function!r}; there are {known}")
        self.nodes: dict[Node, int] = {}
        """The weight of each node."""
        self._partitions_per_weight = partitions
        self._hash = hash_function
        # Replaced as a whole, so that any thread may ask while another changes it.
        self._ring: tuple[list[int], dict[int, Node]] = [], {}
        self.add_nodes(nodes)

    def add_node(self, node: Node, weight: int = 1) -> None:
        """Add a node, or give one that is there another weight."""
        self.add_nodes((node,), weight)

    def add_nodes(self, nodes: Iterable[Node], weight: int = 1) -> None:
        """Add nodes of the same weight."""
        owner = dict(self._ring[1])
        for node in nodes:
            if self.nodes.get(node, weight) != weight:
                self._take(node, owner)
            owner.update(dict.fromkeys(self._places(node, weight), node))
            self.nodes[node] = weight
        self._ring = sorted(owner), owner

    def remove_node(self, node: Node) -> None:
        """Take a node away; `UnknownNode` if it is not there."""
        if node not in self.nodes:
            raise UnknownNode(node)
        owner = dict(self._ring[1])
        self._take(node, owner)
        self._ring = sorted(owner), owner

    def _take(self, node: Node, owner: dict[int, Node]) -> None:
        for point in self._places(node, self.nodes.pop(node)):
            owner.pop(point, None)

    def _places(self, node: Node, weight: int) -> list[int]:
        # Each point is the hash of the node's name, once more repeated than for the one before.
        name: Any = node
        text = to_binary(name, "utf-8")
        state = self._new(text)
        places = []
        for _ in range(self._partitions_per_weight * weight):
            state.update(text)
            places.append(int(state.hexdigest(), 16))
        return places

    def _new(self, data: bytes) -> Any:
        return hashlib.new(self._hash, data, usedforsecurity=False)

    def get_nodes(
        self, data: bytes, ignore_nodes: Iterable[Node] | None = None, replicas: int = 1
    ) -> set[Node]:
        """The owner of a key, and those that follow it: `replicas` in all, if there are so many.

        Those to ignore are passed over.
        """
        ignored = set(ignore_nodes or ())
        wanted = min(replicas, sum(node not in ignored for node in list(self.nodes)))
        (points, owner), found = self._ring, set[Node]()
        if wanted <= 0 or not points:
            return found
        at = bisect.bisect(points, int(self._new(to_binary(data, "utf-8")).hexdigest(), 16))
        for step in range(len(points)):
            node = owner[points[(at + step) % len(points)]]
            if node not in ignored:
                found.add(node)
                if len(found) >= wanted:
                    break
        return found

    def __getitem__(self, key: bytes) -> set[Node]:
        """The owner of a key, as `get_nodes` tells it; an empty set if there is none."""
        return self.get_nodes(key)

    def __len__(self) -> int:
        """How many points there are."""
        return len(self._ring[0])

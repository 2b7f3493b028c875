"""Sharing objects out among the members of a group, by a hash ring."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ._errors import MemberNotJoined, WatchCallbackNotFound
from ._events import MemberJoinedGroup, MemberLeftGroup
from ._ids import Id, to_bytes
from .hashring import HashRing, UnknownNode

if TYPE_CHECKING:
    from ._base import CoordinationDriver


class Partitioner:
    """Who of a group handles which object. Made by `join_partitioned_group`.

    It is as new as the coordinator's last `run_watchers`. For a moment after a change two
    members may each think that an object is theirs: a lock, or a token, decides.
    """

    DEFAULT_PARTITION_NUMBER = HashRing.DEFAULT_PARTITION_NUMBER

    def __init__(
        self,
        coordinator: CoordinationDriver,
        group_id: Id,
        partitions: int = DEFAULT_PARTITION_NUMBER,
    ) -> None:
        self.group_id = group_id
        self.partitions = partitions
        self._coordinator = coordinator
        self.ring = HashRing((), partitions=partitions)
        coordinator.watch_join_group(group_id, self._joined)
        try:
            coordinator.watch_leave_group(group_id, self._left)
            self._fill()
        except BaseException:
            # Nobody has it, so nobody could stop it.
            with contextlib.suppress(WatchCallbackNotFound):
                self.stop()
            raise

    def _fill(self) -> None:
        members = self._coordinator.get_members_with_capabilities(self.group_id).get()
        by_weight: dict[int, list[bytes]] = {}
        for member, capabilities in members.items():
            by_weight.setdefault(_weight(capabilities), []).append(to_bytes(member))
        for weight, alike in by_weight.items():
            self.ring.add_nodes(alike, weight)

    def _joined(self, event: MemberJoinedGroup) -> None:
        coordinator, member = self._coordinator, to_bytes(event.member_id)
        try:
            capabilities = coordinator.get_member_capabilities(self.group_id, member).get()
        except MemberNotJoined:
            return  # it has left since
        self.ring.add_node(member, _weight(capabilities))

    def _left(self, event: MemberLeftGroup) -> None:
        # It may have come and gone before anybody could ask for its weight.
        with contextlib.suppress(UnknownNode):
            self.ring.remove_node(to_bytes(event.member_id))

    def members_for_object(
        self, obj: object, ignore_members: Iterable[Any] | None = None, replicas: int = 1
    ) -> set[Any]:
        """The ids of the members that handle an object: `replicas` of them.

        An object is hashed by its own method `__tooz_hash__`, which returns bytes, if it has
        one, and else by its `str`.
        """
        ignored = [to_bytes(member) for member in ignore_members or ()]
        return self.ring.get_nodes(_hashed(obj), ignored, replicas)

    def belongs_to_member(
        self,
        obj: object,
        member_id: Id,
        ignore_members: Iterable[Any] | None = None,
        replicas: int = 1,
    ) -> bool:
        """Say whether a member handles the object."""
        return to_bytes(member_id) in self.members_for_object(obj, ignore_members, replicas)

    def belongs_to_self(
        self, obj: object, ignore_members: Iterable[Any] | None = None, replicas: int = 1
    ) -> bool:
        """Say whether this coordinator handles the object."""
        member = self._coordinator._member_id
        return self.belongs_to_member(obj, member, ignore_members, replicas)

    def stop(self) -> None:
        """Follow the group no more."""
        self._coordinator.unwatch_join_group(self.group_id, self._joined)
        self._coordinator.unwatch_leave_group(self.group_id, self._left)


def _hashed(obj: object) -> bytes:
    own = getattr(obj, "__tooz_hash__", None)
    return bytes(own()) if own is not None else str(obj).encode()


def _weight(capabilities: Any) -> int:
    """The weight that a member has published; 1 if it has published none that can be."""
    weight = capabilities.get("weight", 1) if isinstance(capabilities, dict) else 1
    return weight if isinstance(weight, int) and weight >= 0 else 1

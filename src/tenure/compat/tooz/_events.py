"""What a coordinator tells its callbacks, and how they are kept."""

from __future__ import annotations

import enum
from typing import Any, Protocol, TypeVar


class Characteristics(enum.Enum):
    """What a driver can be asked to be."""

    DISTRIBUTED_ACROSS_THREADS = "DISTRIBUTED_ACROSS_THREADS"
    """It coordinates threads of one process."""
    DISTRIBUTED_ACROSS_PROCESSES = "DISTRIBUTED_ACROSS_PROCESSES"
    """It coordinates processes of one machine."""
    DISTRIBUTED_ACROSS_HOSTS = "DISTRIBUTED_ACROSS_HOSTS"
    """It coordinates machines."""
    NON_TIMEOUT_BASED = "NON_TIMEOUT_BASED"
    """What is held does not end because of a time that passed."""
    LINEARIZABLE = "LINEARIZABLE"
    """Each operation takes effect at one moment between its start and its end."""
    SEQUENTIAL = "SEQUENTIAL"
    """Each client's operations take effect in the order in which it made them."""
    CAUSAL = "CAUSAL"
    """Who sees an effect sees its causes."""
    SERIALIZABLE = "SERIALIZABLE"
    """Operations that take effect together do so as if one by one."""
    SAME_VIEW_UNDER_PARTITIONS = "SAME_VIEW_UNDER_PARTITIONS"
    """A client sees the same also when the network is cut."""
    SAME_VIEW_ACROSS_CLIENTS = "SAME_VIEW_ACROSS_CLIENTS"
    """All clients see the same at the same moment."""


class Event:
    """Something that happened."""


class _MemberEvent(Event):
    """Something that happened to a member of a group."""

    group_id: bytes | str
    member_id: bytes | str

    def __init__(self, group_id: bytes | str, member_id: bytes | str) -> None:
        self.group_id = group_id
        self.member_id = member_id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: group={self.group_id!r} member={self.member_id!r}>"


class MemberJoinedGroup(_MemberEvent):
    """A member has joined the group."""


class MemberLeftGroup(_MemberEvent):
    """A member has left the group, or has died."""


class LeaderElected(_MemberEvent):
    """This very client leads the group now."""


EventT = TypeVar("EventT", contravariant=True)


class EventCallback(Protocol[EventT]):
    """A function of one event."""

    def __call__(self, event: EventT, /) -> Any:
        """Be told of it. What it returns is returned by `run_watchers`."""


class Hooks(list[Any]):
    """The callbacks for one kind of event in one group."""

    def run(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Call all of them, in order; what they returned."""
        return [call(*args, **kwargs) for call in list(self)]

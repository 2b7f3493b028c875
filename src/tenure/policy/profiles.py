"""Profiles: what a driver can be used for, and the cases of the kit that judge it.

A driver claims profiles; its level is the lowest that any of them has reached.
"""

from __future__ import annotations

from typing import NamedTuple

RUNTIMES = ("thread", "asyncio")
"""The two ways in which every case is run that can be."""


class Profile(NamedTuple):
    """One use of a driver.

    modules: the modules of the conformance kit whose cases belong to it.
    basic: the cases that show the least of it: that it can be begun and ended at all.
    rosters: whether it needs them. Where a driver has none, it must be refused.
    """

    name: str
    text: str
    modules: tuple[str, ...]
    basic: tuple[str, ...]
    rosters: bool = True


PROFILES = {
    each.name: each
    for each in (
        Profile(
            "lock",
            "exclusive locks",
            ("basic", "faults", "processes", "backend"),
            ("acquire_and_release_leave_nothing",),
            rosters=False,
        ),
        Profile(
            "object-lock",
            "locks on objects, by their ids",
            ("objectlock",),
            ("an_object_is_locked_until_it_is_unlocked",),
            rosters=False,
        ),
        Profile(
            "rwlock",
            "reader-writer locks",
            ("rwlock",),
            ("readers_and_writers_keep_apart",),
            rosters=False,
        ),
        Profile(
            "semaphore",
            "semaphores, locks on many names, barriers and latches",
            ("semaphore", "barrier"),
            ("a_semaphore_has_so_many_permits",),
        ),
        Profile(
            "group",
            "groups and their members, and what stands on rosters and records",
            ("group", "rosters", "queues", "records", "status"),
            ("a_group_is_made_joined_left_and_deleted",),
        ),
        Profile("watch", "watches of groups", ("watch",), ("changes_are_told_in_order",)),
        Profile("election", "leader election", ("election",), ("one_leads_and_is_seen",)),
        Profile("partition", "hash rings and slots", ("partition",), ("a_ring_follows_its_group",)),
    )
}
"""All profiles, by name, in the order of the tables."""


def profile_of(module: str) -> str:
    """The profile to which a module of the kit belongs."""
    return next(each.name for each in PROFILES.values() if module in each.modules)

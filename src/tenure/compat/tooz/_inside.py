"""The few questions to Tenure's core that its own API does not have, since Tooz's has them."""

from __future__ import annotations

from ..._runtime.thread import drive
from ..._sync import Coordinator, Lease, Lock
from ..._sync._group import Group
from ...errors import GroupNotFound, SessionLost, Unsupported

EVICTED_MAX = 10_000
"""How many that share a lock it is taken away from."""


def stands(lease: Lease) -> bool:
    """Whether a lease is held, and the backend says so, too: in one round trip.

    Where the lock is the backend's own, there is nobody to ask: the connection, or the
    process, has it for as long as it lives, and its end is a loss at once.
    """
    if not lease.held():
        return False
    if lease._grant is not None:
        return True
    session, life = lease._session, lease._life
    driver, roster, id = session.driver, lease._roster, lease._id
    try:
        work = session.retry(life, lambda: driver.read(life.id, roster, id), None, session.ttl / 3)
        roll = drive(work)
    except SessionLost as error:
        session.lose(life, str(error))
        return False
    return roll.mine is not None and lease.held()


def dismissed(lease: Lease) -> bool:
    """Whether a lease was taken away although its session lives: on purpose, that is."""
    return not lease.held() and lease._life.reason is None


def evict(lock: Lock) -> bool:
    """Remove the claim that holds a lock, or all that share it; False if there is none."""
    recipe = lock._recipe
    session, roster = recipe._session, recipe.roster
    session.check_open()
    driver = session.driver
    if recipe._mutex is not None:
        raise Unsupported(
            f"{driver.url.scheme}: a lock cannot be broken by this driver: it is the backend's own,"
            " and free when its holder's process ends"
        )
    evicted = False
    for _ in range(EVICTED_MAX):
        life = drive(session.life())
        roll = drive(driver.read(life.id, roster, ""))
        if not roll.claims or (evicted and not roll.claims[0].shared):
            break  # a writer that waited behind the readers holds it now
        head = roll.claims[0]
        drive(driver.withdraw(head.session, roster, head.id))
        evicted = True
        if not head.shared:
            break
    return evicted


def present(group: Group, until: float | None) -> dict[str, int]:
    """The token of each member; asked for again, without an answer, no later than `until`.

    Raises `GroupNotFound` if there is no such group.
    """
    if until is None:
        return {info.id: info.token for info in group.members()}
    recipe = group._recipe
    session, roster = recipe.session, recipe.roster
    session.check_open()
    life, driver = drive(session.life()), session.driver
    claims = drive(session.retry(life, lambda: driver.census(roster), until, session.ttl / 3))
    found = {info.id: info.token for info in recipe._members(claims)}
    if not found and not group.exists():
        raise GroupNotFound(f"there is no group {group.name!r}")
    return found


def doubt(coordinator: Coordinator) -> str | None:
    """Why the last renewal of the session failed; None if it succeeded, or none was due."""
    life = coordinator._session.alive
    return None if life is None else life.doubt

"""What a coordinator is a member of, and wants to be again when it was lost."""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..._sync._group import Group, Member
from ...errors import (
    GroupExists,
    GroupNotEmpty,
    GroupNotFound,
    InvalidArgument,
    InvalidName,
    LeaseLost,
    MemberExists,
    MemberNotFound,
    TenureError,
)
from . import ToozError, _errors, _inside, _payload
from ._ids import Id
from .utils import SerializationError

logger = logging.getLogger("tenure")


@contextmanager
def told(group_id: Id, member_id: Id) -> Iterator[None]:
    """Raise Tooz's errors for Tenure's, with the ids that the caller knows."""
    try:
        yield
    except GroupNotFound as error:
        raise _errors.GroupNotCreated(group_id) from error
    except GroupExists as error:
        raise _errors.GroupAlreadyExist(group_id) from error
    except GroupNotEmpty as error:
        raise _errors.GroupNotEmpty(group_id) from error
    except MemberExists as error:
        raise _errors.MemberAlreadyExist(group_id, member_id) from error
    except (MemberNotFound, LeaseLost) as error:
        raise _errors.MemberNotJoined(group_id, member_id) from error
    except TenureError as error:
        _errors.rethrow(error)


def written(capabilities: Any) -> Any:
    """Capabilities as JSON; `SerializationError` for those that cannot be."""
    try:
        return _payload.encode(capabilities)
    except (TypeError, ValueError) as error:
        raise SerializationError(f"capabilities: {error}", error) from error


class _Wish:
    """One membership: the one that there is, or that was lost, and what it is to be."""

    __slots__ = ("capabilities", "group_id", "member")

    def __init__(self, group_id: Id, capabilities: Any, member: Member) -> None:
        self.group_id = group_id
        self.capabilities = capabilities
        self.member = member


class Memberships:
    """The memberships of one member id. Any thread may use it."""

    def __init__(self, id: str, member_id: Id, join_timeout: float) -> None:
        self._id = id
        self._member_id = member_id
        self._join_timeout = join_timeout
        self._wishes: dict[str, _Wish] = {}
        self._generation = 0
        """How often everything was forgotten."""
        self._guard = threading.Lock()
        self._turns: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def _turn(self, name: str) -> Any:
        """The lock of a group: the heart may be joining again while the program leaves.

        There is one for each group, since joining may wait for as long as `join_timeout`.
        """
        with self._guard:
            return self._turns.setdefault(name, threading.RLock())

    def join(self, group: Group, group_id: Id, capabilities: Any, create: bool) -> None:
        """Join a group, and be its member until `leave`, also after a loss."""
        text = written(capabilities)
        generation = self._generation
        with self._turn(group.name), told(group_id, self._member_id):
            wish = self._wishes.get(group.name)
            if wish is not None and wish.member.held():
                raise _errors.MemberAlreadyExist(group_id, self._member_id)
            member = self._join(group, text, create, self._join_timeout)
            with self._guard:
                if self._generation == generation:
                    self._wishes[group.name] = _Wish(group_id, text, member)
                    return
            # The session has ended, and the membership with it: the next one must not join again.
            raise ToozError("This coordinator was stopped while it joined")

    def _join(self, group: Group, text: Any, create: bool, timeout: float) -> Member:
        try:
            return group.join(text, member=self._id, create=create, timeout=timeout)
        except InvalidName:
            raise
        except InvalidArgument as error:
            raise SerializationError(str(error), error) from error

    def leave(self, group: Group, group_id: Id) -> None:
        """Leave it."""
        with self._turn(group.name), told(group_id, self._member_id):
            wish = self._wish(group, group_id)
            # Forgotten first: whatever becomes of the request, it is not to join again.
            self._wishes.pop(group.name, None)
            wish.member.leave()

    def update(self, group: Group, group_id: Id, capabilities: Any) -> None:
        """Publish something else there. If the membership was lost, join again with that."""
        text = written(capabilities)
        with self._turn(group.name), told(group_id, self._member_id):
            wish = self._wish(group, group_id)
            if wish.member.held():
                try:
                    wish.member.update(text)
                except InvalidArgument as error:
                    raise SerializationError(str(error), error) from error
            elif _inside.dismissed(wish.member):
                self._wishes.pop(group.name, None)
                raise _errors.MemberNotJoined(group_id, self._member_id)
            else:
                wish.member = self._join(group, text, True, self._join_timeout)
            wish.capabilities = text

    def _wish(self, group: Group, group_id: Id) -> _Wish:
        wish = self._wishes.get(group.name)
        if wish is None:
            if not group.exists():
                raise _errors.GroupNotCreated(group_id)
            raise _errors.MemberNotJoined(group_id, self._member_id)
        return wish

    def restore(self, group: Callable[[str], Group]) -> None:
        """Join again where the session was lost; raise the first error if that fails.

        A backend that forgot the group as well gets it anew, since nobody has left it.
        """
        failed: ToozError | None = None
        for name, wish in list(self._wishes.items()):
            turn = self._turn(name)
            # Who has the turn is joining it, or leaving; the next beat is time enough.
            if wish.member.held() or not turn.acquire(blocking=False):
                continue
            try:
                if self._wishes.get(name) is wish:
                    self._rejoin(name, wish, group)
            except ToozError as error:
                failed = failed or error
            finally:
                turn.release()
        if failed is not None:
            raise failed

    def _rejoin(self, name: str, wish: _Wish, group: Callable[[str], Group]) -> None:
        if wish.member.held():
            return
        if _inside.dismissed(wish.member):
            logger.warning("tenure: %r was removed from the group %r", self._id, name)
            self._wishes.pop(name, None)
            return
        with told(wish.group_id, self._member_id):
            wish.member = self._join(group(name), wish.capabilities, True, 0)
        logger.warning("tenure: %r is a member of %r again", self._id, name)

    def forget(self) -> None:
        """Want to be a member nowhere, and of what is being joined no more either."""
        with self._guard:
            self._generation += 1
            self._wishes.clear()

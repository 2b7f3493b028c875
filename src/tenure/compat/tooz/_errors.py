"""The errors that `coordination` names, and which of them stands for which of Tenure's."""

from __future__ import annotations

from typing import NoReturn

from ... import errors
from . import NotImplemented as NotProvided
from . import ToozError


def shown(id: object) -> str:
    """A group's or member's id as an error names it."""
    return id.decode("utf-8", "backslashreplace") if isinstance(id, bytes) else str(id)


class ToozConnectionError(ToozError):
    """The backend cannot be reached, or refuses the credentials."""


class OperationTimedOut(ToozError):
    """The operation was not done in the time that it had."""


class OutcomeUnknown(OperationTimedOut, ToozConnectionError):
    """A request was sent and no answer came: it may or may not have been carried out."""


class LockAcquireFailed(ToozError):
    """The lock of a `with` statement was not to be had."""


class ToozDriverChosenPoorly(ToozError):
    """No driver of that name, or one that is not, or has not earned, what was asked for."""


class InvalidOption(ToozError, ValueError):
    """A URL, an option or an id has a value that cannot work; the message says what would."""


class GroupNotCreated(ToozError):
    """There is no group of that id."""

    def __init__(self, group_id: str | bytes) -> None:
        self.group_id = shown(group_id)
        super().__init__(f"There is no group {self.group_id}")


class GroupAlreadyExist(ToozError):
    """There is a group of that id already."""

    def __init__(self, group_id: str | bytes) -> None:
        self.group_id = shown(group_id)
        super().__init__(f"There is a group {self.group_id} already")


class GroupNotEmpty(ToozError):
    """The group has members, so it was not deleted."""

    def __init__(self, group_id: str | bytes) -> None:
        self.group_id = shown(group_id)
        super().__init__(f"The group {self.group_id} has members")


class MemberAlreadyExist(ToozError):
    """The group has a member of that id already."""

    def __init__(self, group_id: str | bytes, member_id: str | bytes) -> None:
        self.group_id, self.member_id = shown(group_id), shown(member_id)
        super().__init__(f"The group {self.group_id} has a member {self.member_id} already")


class MemberNotJoined(ToozError):
    """The group has no member of that id."""

    def __init__(self, group_id: str | bytes, member_id: str | bytes) -> None:
        self.group_id, self.member_id = shown(group_id), shown(member_id)
        super().__init__(f"The group {self.group_id} has no member {self.member_id}")


class WatchCallbackNotFound(ToozError):
    """The callback to remove was not registered for that group."""

    def __init__(self, group_id: str | bytes, callback: object) -> None:
        self.group_id, self.callback = shown(group_id), callback
        name = getattr(callback, "__name__", repr(callback))
        super().__init__(f"{name} is no callback of the group {self.group_id}")


_KINDS: tuple[tuple[type[errors.TenureError], type[ToozError]], ...] = (
    (errors.Unsupported, NotProvided),
    (errors.UnknownDriver, ToozDriverChosenPoorly),
    (errors.PolicyError, ToozDriverChosenPoorly),
    (errors.InvalidArgument, InvalidOption),
    (errors.OutcomeUnknown, OutcomeUnknown),
    (errors.Unavailable, ToozConnectionError),
    (errors.AuthenticationFailed, ToozConnectionError),
    (errors.AcquireTimeout, OperationTimedOut),
    (errors.WaitTimeout, OperationTimedOut),
)
"""From the special to the general. What is none of these is a plain `ToozError`."""


def of(error: errors.TenureError) -> ToozError:
    """The error of Tooz's that tells what an error of Tenure's tells."""
    kind = next((kind for theirs, kind in _KINDS if isinstance(error, theirs)), ToozError)
    return kind(str(error), error)


def rethrow(error: errors.TenureError) -> NoReturn:
    """Raise that error, with the other one as its cause."""
    raise of(error) from error

"""Every exception that a caller of Tenure may see.

All of them derive from `TenureError`. Where the standard library has a type that
callers already catch (`ValueError`, `TimeoutError`, `ConnectionError`), the error
derives from it too. No message ever contains a password.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "AcquireTimeout",
    "AlreadyJoined",
    "AuthenticationFailed",
    "BackendError",
    "CandidateNotFound",
    "CharacteristicUnmet",
    "ClosedError",
    "DriverDeprecated",
    "ForkedError",
    "GroupExists",
    "GroupNotEmpty",
    "GroupNotFound",
    "InvalidArgument",
    "InvalidName",
    "InvalidURL",
    "LeaseLost",
    "LevelTooLow",
    "LimitMismatch",
    "MemberExists",
    "MemberNotFound",
    "NotHeld",
    "OutcomeUnknown",
    "PolicyError",
    "ProtocolError",
    "SessionLost",
    "StorageError",
    "TenureError",
    "Unavailable",
    "UnknownDriver",
    "Unsupported",
    "WaitTimeout",
]


class TenureError(Exception):
    """The base of every error that Tenure raises."""


class InvalidArgument(TenureError, ValueError):
    """An argument has a value that cannot work; the message says what would."""


class InvalidName(InvalidArgument):
    """A lock's or namespace's name is empty, too long, or not text that can be encoded."""


class InvalidURL(InvalidArgument):
    """A backend URL cannot be parsed, or has an option that its driver does not know."""


class UnknownDriver(InvalidURL):
    """No driver is installed for the URL's scheme."""


class PolicyError(TenureError):
    """The driver has not earned what `connect` was asked for, or what it demands by itself.

    `driver` is the driver's name, and `unmet` says what is missing, each with its reason.
    """

    def __init__(self, message: str, *, driver: str = "", unmet: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.driver = driver
        self.unmet = unmet


class LevelTooLow(PolicyError):
    """The driver's level, on the backend that has answered, is lower than it has to be."""


class CharacteristicUnmet(PolicyError):
    """A characteristic is required that no experiment has corroborated for this driver."""


class DriverDeprecated(PolicyError):
    """The driver is about to be removed, and is connected only if it is allowed by name."""


class Unsupported(TenureError, NotImplementedError):
    """The backend cannot do what was asked; its driver declares so in its traits."""


class ClosedError(TenureError):
    """The coordinator was closed; connect again."""


class ForkedError(TenureError):
    """The coordinator was opened before a fork; the child must connect for itself."""


class AcquireTimeout(TenureError, TimeoutError):
    """The lock was still taken when the timeout passed; nothing is held or queued."""


class NotHeld(TenureError):
    """The caller asks about, or unlocks, an object that it has not locked.

    Or it leaves a `with` block of a lock that it has not entered, while several others have.
    """


class LimitMismatch(InvalidArgument):
    """A semaphore, barrier or latch is in use with another number than the one given.

    `given` is what was asked for, `found` what is in use.
    """

    def __init__(self, message: str, *, given: int | None = None, found: int | None = None) -> None:
        super().__init__(message)
        self.given = given
        self.found = found


class WaitTimeout(TenureError, TimeoutError):
    """What was waited for had not come when the timeout passed; nothing is left behind."""


class CandidateNotFound(TenureError, LookupError):
    """Nobody of that name waits to lead the election; the leader still leads."""


class GroupExists(TenureError):
    """There is a group of that name already."""


class GroupNotFound(TenureError, LookupError):
    """There is no group of that name, or it was deleted."""


class GroupNotEmpty(TenureError):
    """The group has members, or estates that nobody has inherited; it was not deleted."""


class MemberExists(TenureError):
    """The group has a living member of that id already, or somebody handles its estate."""


class AlreadyJoined(MemberExists):
    """This very coordinator is a member of that id already."""


class MemberNotFound(TenureError, LookupError):
    """The group has no living member of that id."""


class SessionLost(TenureError):
    """The backend no longer knows the session; everything that it held is gone."""


class LeaseLost(TenureError):
    """The lease ended before it was released: someone else may hold the lock now.

    `lease` is the lease in question and `reason` says what ended it.
    """

    def __init__(self, message: str, *, lease: object = None, reason: str = "") -> None:
        super().__init__(message)
        self.lease = lease
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        # The lease stays behind: it means nothing in another process.
        return LeaseLost, self.args, {**self.__dict__, "lease": None}


class BackendError(TenureError):
    """The backend refused, failed, or could not be understood."""


class Unavailable(BackendError, ConnectionError):
    """The backend cannot be reached now, and the request was certainly not carried out."""


class OutcomeUnknown(Unavailable):
    """The request was sent and no reply came: it may or may not have been carried out."""


class AuthenticationFailed(BackendError):
    """The backend refused the credentials or the permission; trying again will not help."""


class ProtocolError(BackendError):
    """The backend answered something that its protocol does not allow."""


class StorageError(BackendError, OSError):
    """A file or the storage under the backend cannot be used (full, read-only, not ours)."""

"""Coordinators: how to get one, and what they return, raise and tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import ToozError, _urls
from ._base import (
    Capabilities,
    CoordinationDriver,
    CoordinationDriverCachedRunWatchers,
    CoordinationDriverWithExecutor,
)
from ._errors import (
    GroupAlreadyExist,
    GroupNotCreated,
    GroupNotEmpty,
    InvalidOption,
    LockAcquireFailed,
    MemberAlreadyExist,
    MemberNotJoined,
    OperationTimedOut,
    OutcomeUnknown,
    ToozConnectionError,
    ToozDriverChosenPoorly,
    WatchCallbackNotFound,
)
from ._events import (
    Characteristics,
    Event,
    EventCallback,
    Hooks,
    LeaderElected,
    MemberJoinedGroup,
    MemberLeftGroup,
)
from ._find import GROUP as TOOZ_BACKENDS_NAMESPACE
from ._find import find
from ._heart import Heart
from ._results import CoordAsyncResult, CoordinatorResult
from .utils import SerializationError

__all__ = [
    "TOOZ_BACKENDS_NAMESPACE",
    "Capabilities",
    "Characteristics",
    "CoordAsyncResult",
    "CoordinationDriver",
    "CoordinationDriverCachedRunWatchers",
    "CoordinationDriverWithExecutor",
    "CoordinatorResult",
    "Event",
    "EventCallback",
    "GroupAlreadyExist",
    "GroupNotCreated",
    "GroupNotEmpty",
    "Heart",
    "Hooks",
    "InvalidOption",
    "LeaderElected",
    "LockAcquireFailed",
    "MemberAlreadyExist",
    "MemberJoinedGroup",
    "MemberLeftGroup",
    "MemberNotJoined",
    "OperationTimedOut",
    "OutcomeUnknown",
    "SerializationError",
    "ToozConnectionError",
    "ToozDriverChosenPoorly",
    "ToozError",
    "WatchCallbackNotFound",
    "get_coordinator",
]


def get_coordinator(
    backend_url: str,
    member_id: bytes | str,
    characteristics: Iterable[Characteristics] | None = None,
    **kwargs: Any,
) -> CoordinationDriver:
    """A coordinator for a backend, which is not connected yet: `start` does that.

    `backend_url` is one of Tooz's or of Tenure's, and `member_id` what this client is called in
    groups. Options are part of the URL, or `kwargs`, which count more.

    Raises `ToozDriverChosenPoorly` if there is no driver for the URL's scheme, or if it lacks one
    of the `characteristics`, and `InvalidOption` for a URL, an option or an id that cannot be.
    """
    parsed = _urls.split(backend_url)
    driver_class = find(parsed.scheme)
    driver = driver_class(member_id, parsed, _urls.options_of(parsed, kwargs))
    wanted = set(characteristics or ())
    missing = sorted(each.name for each in wanted - set(driver.CHARACTERISTICS))
    if missing:
        has = ", ".join(each.name for each in driver.CHARACTERISTICS) or "none"
        raise ToozDriverChosenPoorly(
            f"{parsed.scheme}: the driver is not {', '.join(missing)}; its characteristics: {has}"
        )
    return driver

"""What `connect` does before it opens anything: check the arguments, find the driver."""

from __future__ import annotations

import math
import os
import stat
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from ._caller import Caller
from ._model import Event
from ._runtime.base import Runtime
from ._session import Session
from ._ungated import ungated
from ._url import Url
from .drivers import registry
from .errors import InvalidArgument, InvalidName, InvalidURL, StorageError, UnknownDriver

if TYPE_CHECKING:
    from .policy.characteristics import Characteristic
    from .policy.gate import Gate
    from .policy.level import Level

DEFAULT_TTL_SECONDS = 15.0
TTL_SECONDS_MAX = 86_400.0
NAME_CHARACTERS_MAX = 1000

_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


class Terms(NamedTuple):
    """What `connect` was told to demand of the driver, and the line that has told it."""

    require: Iterable[Characteristic | str]
    min_level: Level | str | None
    allow: Iterable[str]
    caller: Caller


async def open_session(
    runtime: Runtime,
    url: str | None,
    namespace: str | None,
    ttl: float | None,
    owner: str | None,
    on_event: Callable[[Event], object] | None,
    terms: Terms,
) -> Session:
    """A session over a driver that has met the terms, and is open."""
    gate, session = _made(runtime, url, namespace, ttl, owner, on_event, terms)
    await session.open()
    if gate is not None:
        try:
            await gate.check(session.driver)
        except BaseException:
            await runtime.finish(session.close())
            raise
    return session


def _gate(entry: registry.Entry, url: Url, terms: Terms) -> Gate | None:
    """The policy's gate, if it has more to ask once the driver is open; raises `PolicyError`."""
    if ungated() and "TENURE_MIN_LEVEL" not in os.environ:
        require, min_level, allow, _ = terms
        if not (require or min_level or allow):
            return None  # tests and tools; see `policy.gate`, which would say the same
    from .policy import gate

    return gate.admit(entry, url, gate.demands(*terms[:3]), terms.caller)


def make_session(
    runtime: Runtime,
    url: str | None,
    namespace: str | None,
    ttl: float | None,
    owner: str | None,
    on_event: Callable[[Event], object] | None,
) -> Session:
    """A session over a driver that is not open yet. Touches neither network nor disk.

    The policy is not asked: this is for what looks at a backend, and coordinates nothing.
    """
    return _made(runtime, url, namespace, ttl, owner, on_event, None)[1]


def _made(
    runtime: Runtime,
    url: str | None,
    namespace: str | None,
    ttl: float | None,
    owner: str | None,
    on_event: Callable[[Event], object] | None,
    terms: Terms | None,
) -> tuple[Gate | None, Session]:
    parsed = Url.parse(os.environ.get("TENURE_URL") or default_url() if url is None else url)
    given = parsed.options.pop("namespace", "default")
    namespace = checked_name(given if namespace is None else namespace, "namespace")
    given_ttl = parsed.number("ttl", DEFAULT_TTL_SECONDS)
    parsed.options.pop("ttl", None)
    ttl = given_ttl if ttl is None else ttl
    entry = _entry(parsed)
    driver_class = registry.load(entry).chosen(parsed)
    least = driver_class.traits.min_ttl
    if (
        isinstance(ttl, bool)
        or not isinstance(ttl, (int, float))
        or not (least <= ttl <= TTL_SECONDS_MAX)
    ):
        raise InvalidArgument(
            f"ttl must be a number of seconds from {least:g} to {TTL_SECONDS_MAX:g}"
            f" for {parsed.scheme}, not {ttl!r}"
        )
    if owner is None:
        owner = f"{os.uname().nodename}:{os.getpid()}:{runtime.unique()[:6]}"
    owner = checked_name(owner, "owner")
    gate = None if terms is None else _gate(entry, parsed, terms)
    driver = driver_class(parsed, runtime, namespace, float(ttl))
    session = Session(runtime, driver, owner, float(ttl), on_event)
    _sessions.add(session)
    return gate, session


def _entry(url: Url) -> registry.Entry:
    """Where the driver lives; of one that was removed, `UnknownDriver` names the replacement."""
    try:
        return registry.entry(url)
    except UnknownDriver as error:
        from .policy.deprecation import buried

        stone = buried(url.scheme)
        raise error if stone is None else UnknownDriver(stone) from None


def checked_name(name: str, what: str = "name") -> str:
    """The name, if it can be one: text of 1 to 1,000 characters that UTF-8 can encode."""
    if not isinstance(name, str):
        raise InvalidName(f"a {what} is text, not {type(name).__name__}")
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        raise InvalidName(
            f"a {what} has from 1 to {NAME_CHARACTERS_MAX:,} characters, not {len(name):,}"
        )
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InvalidName(
            f"the {what} {name[:40]!r} has a character that UTF-8 cannot encode: {error.reason}"
        ) from None
    return name


def checked_number(number: int, what: str, most: int) -> int:
    """The number, if it is an integer from 1 to `most`."""
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= most:
        raise InvalidArgument(f"a {what} is an integer from 1 to {most:,}, not {number!r}")
    return number


def checked_timeout(timeout: float | None) -> float | None:
    """The timeout, if it is None or a number of seconds from zero."""
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise InvalidArgument(f"a timeout is a number of seconds or None, not {timeout!r}")
    if timeout != timeout or timeout < 0:
        raise InvalidArgument(f"a timeout is zero or more seconds, or None, not {timeout!r}")
    try:
        seconds = float(timeout)
    except OverflowError:
        return None  # an integer beyond every float
    return None if seconds == math.inf else seconds


def default_url() -> str:
    """The file driver in the user's own runtime directory, which nobody else can write."""
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    if os.path.isdir(runtime_dir) and os.access(runtime_dir, os.W_OK | os.X_OK):
        folder = os.path.join(runtime_dir, "tenure")
    else:
        import tempfile  # pulls in shutil and the compression modules

        folder = os.path.join(tempfile.gettempdir(), f"tenure-{os.getuid()}")
    try:
        os.mkdir(folder, mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise StorageError(
            f"{folder}: {os.strerror(error.errno or 0)}; name a backend in TENURE_URL"
        ) from error
    # In a world-writable place, somebody may have made it before us.
    found = os.lstat(folder)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise StorageError(
            f"{folder}: not a folder of ours alone; remove it, or name a backend in TENURE_URL"
        )
    if "%" in folder or "?" in folder:
        raise InvalidURL(f"{folder}: cannot be a URL; name a backend in TENURE_URL")
    return f"file://{folder}"


def _abandon_all() -> None:
    for session in list(_sessions):
        session.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)

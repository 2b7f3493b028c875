"""What Tooz's own drivers share, for those that others write."""

from __future__ import annotations

import base64
import concurrent.futures
import datetime as dt
import json
import operator
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar, NoReturn, ParamSpec, Self, TypeVar

from . import ToozError, _payload

P = ParamSpec("P")
R = TypeVar("R")


class SerializationError(ToozError):
    """A value cannot be written down, or what was written cannot be read."""


class Base64LockEncoder:
    """Makes a URL of a lock's name, below `keyspace_url` and behind `prefix`."""

    def __init__(self, keyspace_url: str, prefix: str = "") -> None:
        self.keyspace_url = keyspace_url + prefix

    def check_and_encode(self, name: str | bytes) -> str:
        """The URL; `TypeError` if the name is neither text nor bytes, `ValueError` beyond ASCII."""
        if not isinstance(name, str | bytes):
            raise TypeError(f"a lock's name is text or bytes, not {type(name).__name__}")
        try:
            return self.encode(name)
        except UnicodeError as error:
            raise ValueError(f"a lock's name is ASCII, or bytes: {error}") from error

    def encode(self, name: str | bytes) -> str:
        """The URL of a name: in base64, which a URL can hold."""
        coded = base64.urlsafe_b64encode(to_binary(name)).decode("ascii")
        return f"{self.keyspace_url}/{coded}"


class _Now(concurrent.futures.Executor):
    """Carries a call out when it is submitted."""

    def submit(
        self, call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[R]:
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is the future's to raise
            future.set_exception(error)
        return future


def _threads() -> concurrent.futures.Executor:
    # One: drivers rely upon it that their calls are carried out in the order of submission.
    return concurrent.futures.ThreadPoolExecutor(1, "tenure-tooz")


class ProxyExecutor:
    """An executor that can be started and stopped again: a thread, or the caller's own."""

    KIND_TO_FACTORY: ClassVar[Mapping[str, Callable[[], concurrent.futures.Executor]]] = {
        "threaded": _threads,
        "thread": _threads,
        "threading": _threads,
        "synchronous": _Now,
        "sync": _Now,
    }
    DEFAULT_KIND = "threaded"

    def __init__(
        self, driver_name: str, default_executor_factory: Callable[[], concurrent.futures.Executor]
    ) -> None:
        self.driver_name = driver_name
        self._factory = default_executor_factory
        self.executor: concurrent.futures.Executor | None = None

    @classmethod
    def build(cls, driver_name: str, options: dict[str, Any]) -> Self:
        """One of the kind that the option `executor` names; `ToozError` if there is none."""
        kind = str(options.get("executor", cls.DEFAULT_KIND)).strip().lower()
        factory = cls.KIND_TO_FACTORY.get(kind)
        if factory is None:
            known = ", ".join(sorted(cls.KIND_TO_FACTORY))
            raise ToozError(f"the option 'executor' is one of {known}, not {kind!r}")
        return cls(driver_name, factory)

    @property
    def started(self) -> bool:
        """Whether it takes calls."""
        return self.executor is not None

    def start(self) -> None:
        """Take calls."""
        if self.executor is None:
            self.executor = self._factory()

    def stop(self) -> None:
        """Take no more, and wait for those under way."""
        executor, self.executor = self.executor, None
        if executor is not None:
            executor.shutdown()

    def submit(
        self, cb: Callable[P, R], *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[R]:
        """Have a call carried out; `ToozError` if it takes none."""
        executor = self.executor
        if executor is None:
            raise ToozError(f"the executor of {self.driver_name} was not started")
        try:
            return executor.submit(cb, *args, **kwargs)
        except RuntimeError as error:  # another thread was faster, and stopped it
            raise ToozError(f"the executor of {self.driver_name} was stopped", error) from error


def collapse(
    config: dict[str, Any],
    exclude: Collection[str] | None = None,
    item_selector: Callable[[Sequence[Any]], Any] = operator.itemgetter(-1),
) -> dict[str, Any]:
    """Of each option that has several values, one; of one that has none, nothing.

    `exclude` names those that keep all of theirs.
    """
    kept = frozenset(exclude or ())
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in kept or not isinstance(value, list | tuple):
            found[key] = value
        elif value:
            found[key] = item_selector(value)
    return found


def convert_blocking(
    blocking: bool | float | str, timeout: float | None = None
) -> tuple[bool, float | None]:
    """Whether to wait, and how long: `blocking` may be a number of seconds itself."""
    if isinstance(blocking, bool):
        return blocking, timeout
    return True, float(blocking)


def dumps(data: Any, excp_cls: type[ToozError] = SerializationError) -> bytes:
    """A value as bytes that `loads` reads."""
    try:
        return json.dumps(_payload.encode(data), separators=(",", ":")).encode()
    except (TypeError, ValueError) as error:
        raise excp_cls(f"the value cannot be written down: {error}", error) from error


def loads(blob: bytes, excp_cls: type[ToozError] = SerializationError) -> Any:
    """The value that `dumps` has written."""
    try:
        return _payload.decode(json.loads(blob))
    except (TypeError, ValueError, RecursionError) as error:
        raise excp_cls(f"the bytes cannot be read: {error}", error) from error


def millis_to_datetime(milliseconds: str | float) -> dt.datetime:
    """Milliseconds of Unix time as a local time, without a time zone."""
    moment = dt.datetime.fromtimestamp(float(milliseconds) / 1000, dt.UTC)
    return moment.astimezone().replace(tzinfo=None)


def raise_with_cause(exc_cls: type[ToozError], message: str, *args: Any, **kwargs: Any) -> NoReturn:
    """Raise an error whose cause is the one being handled, unless `cause` names another."""
    import sys

    kwargs.setdefault("cause", sys.exc_info()[1])
    raise exc_cls(message, *args, **kwargs) from kwargs["cause"]


def safe_abs_path(rooted_at: str, *pieces: str) -> str:
    """A path below `rooted_at`; `ValueError` if it leads out of there."""
    root = os.path.abspath(rooted_at)
    path = os.path.abspath(os.path.join(root, *pieces))
    if path != root and not path.startswith(root.rstrip(os.sep) + os.sep):
        raise ValueError(f"{os.path.join(*pieces)!r} leads out of {root!r}")
    return path


def to_binary(text: str | bytes, encoding: str = "ascii") -> bytes:
    """Text as bytes; bytes as they are."""
    return text if isinstance(text, bytes) else text.encode(encoding)

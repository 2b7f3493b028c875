"""What an asynchronous call returns. Tenure's own are done when they are returned."""

from __future__ import annotations

import concurrent.futures
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from . import ToozError
from ._errors import OperationTimedOut

T = TypeVar("T")


class CoordAsyncResult(ABC, Generic[T]):
    """The result of a call that may still be under way."""

    @abstractmethod
    def get(self, timeout: float | None = None) -> T:
        """Wait for the result, at most `timeout` seconds; raise what the call raised.

        Raises `OperationTimedOut` if it is not there by then.
        """

    @abstractmethod
    def done(self) -> bool:
        """Say whether `get` would return at once."""


class CoordinatorResult(CoordAsyncResult[T]):
    """The result of a future. `failure_translator` makes a context in which it is asked for."""

    def __init__(
        self,
        fut: concurrent.futures.Future[T],
        failure_translator: Callable[[], contextlib.AbstractContextManager[Any]] | None = None,
    ) -> None:
        self._future = fut
        self._translator = failure_translator or contextlib.nullcontext

    def get(self, timeout: float | None = None) -> T:
        with self._translator():
            try:
                return self._future.result(timeout)
            except concurrent.futures.TimeoutError as error:
                if self._future.done():
                    raise  # it is the call itself that timed out
                raise OperationTimedOut(f"no result within {timeout} s", error) from error

    def done(self) -> bool:
        return self._future.done()


class Settled(CoordAsyncResult[T]):
    """The result of a call that was carried out before this was made."""

    __slots__ = ("_error", "_value")

    _value: T

    def __init__(self, call: Callable[[], T]) -> None:
        self._error: ToozError | None = None
        try:
            self._value = call()
        except ToozError as error:
            self._error = error

    def get(self, timeout: float | None = None) -> T:
        if self._error is not None:
            raise self._error
        return self._value

    def done(self) -> bool:
        return True

"""Calls to what the caller has given us: whatever they raise is logged, and harms nothing here.

Whatever: a callback that calls `sys.exit()`, or that waits for something which was cancelled, must
not end the thread or task that it happens to run on, which has others to serve.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from ._runtime.base import Runtime

logger = logging.getLogger("tenure")


def call_back(call: Callable[..., object], news: tuple[Any, ...], failed: str, *about: Any) -> None:
    """Call it with the news; `failed` is what to log if it raises, about what."""
    try:
        call(*news)
    except KeyboardInterrupt:
        raise  # not the callback's: somebody pressed the keys at this moment
    except BaseException:
        logger.exception(failed, *about)


async def call_back_and_wait(
    runtime: Runtime, call: Callable[..., object], news: tuple[Any, ...], failed: str, *about: Any
) -> None:
    """The same, and wait for what it returns, if that is to be waited for."""
    try:
        told = call(*news)
        if isinstance(told, Awaitable):
            await told
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and runtime.cancelling():
            raise
        logger.exception(failed, *about)

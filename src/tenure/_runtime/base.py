"""What the core and the drivers may ask of the world: time, signals, background jobs.

Recipes, session and drivers are plain `async def` over this protocol; they import
neither asyncio nor threading nor time. Three runtimes implement it: `thread` (the
public synchronous API; a coroutine runs to its end in one `send`, because every
leaf blocks), `asyncio` (native), and the simulator's (virtual time, seeded).

All times are seconds on `now()`, the local monotonic clock that counts suspend.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Literal, Protocol, TypeVar

T = TypeVar("T")

Flavour = Literal["thread", "asyncio", "simulated"]


class Signal(Protocol):
    """A flag that can be waited for. `set` may be called from any thread."""

    def set(self) -> None: ...

    def clear(self) -> None: ...

    def is_set(self) -> bool: ...

    async def wait(self, until: float | None) -> bool:
        """Wait until it is set or the time `until` has come; say whether it is set."""
        ...


class Timer(Protocol):
    """A call that is due later."""

    def cancel(self) -> None: ...


class Job(Protocol):
    """Background work. Its errors are reported to the runtime's logger, never lost."""

    def cancel(self) -> None:
        """Cancel the task (asyncio), or do nothing (threads: set the job's own stop signal)."""
        ...

    def ended(self) -> bool:
        """Say whether the job has ended, for whatever reason."""
        ...

    async def join(self, until: float) -> bool:
        """Wait for the end of the job, at most until the time given; say whether it ended."""
        ...


class Runtime(Protocol):
    """Time, signals and background work of one flavour of concurrency."""

    flavour: Flavour

    def now(self) -> float:
        """Seconds on a monotonic clock that goes on while the machine is suspended."""
        ...

    def wall(self) -> float:
        """Unix time in seconds; for people to read, never for a decision."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...

    def unique(self) -> str:
        """A short name that is used once in the world: ASCII letters and digits only."""
        ...

    def caller(self) -> object:
        """An identity for the thread or task that is running."""
        ...

    def cancelling(self) -> bool:
        """Whether the task that is running was asked to end: then it passes a cancellation on."""
        ...

    def signal(self) -> Signal: ...

    def lock(self) -> AbstractContextManager[bool]:
        """A mutual exclusion for a few lines that never wait. Not reentrant."""
        ...

    def mutex(self) -> AbstractAsyncContextManager[None]:
        """A mutual exclusion whose holder may wait."""
        ...

    async def sleep(self, until: float) -> None: ...

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        """Call `call` at that time, whatever else hangs. It must be short and not block."""
        ...

    def spawn(self, main: Callable[[], Coroutine[Any, Any, None]], name: str) -> Job:
        """Start `main()` in the background."""
        ...

    async def blocking(self, call: Callable[[], T]) -> T:
        """Run a short blocking call (of the file system, say) without blocking a loop."""
        ...

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end even if the caller is cancelled while it runs.

        The cancellation is raised when the work has ended.
        """
        ...

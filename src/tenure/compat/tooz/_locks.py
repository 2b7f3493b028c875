"""The lock of Tenure's drivers: each acquire has a lease, which knows when it is lost."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from ..._sync import Coordinator, Lease
from ..._sync import Lock as TenureNamed
from ...errors import AcquireTimeout, LeaseLost, TenureError
from . import _inside
from ._errors import of, rethrow
from ._ids import Id, name_of
from .locking import Lock, LockLost
from .utils import convert_blocking


class TenureLock(Lock):
    """A lock on a name. Any thread may use it; a second acquire contends like any other."""

    def __init__(self, coordinator: Callable[[], Coordinator], name: Id) -> None:
        super().__init__(name)
        self._coordinator = coordinator
        self._text = name_of(name)
        self._leases: list[Lease] = []
        self._of: Coordinator | None = None
        self._named: dict[bool, TenureNamed] = {}

    @property
    def lease(self) -> Lease | None:
        """Tenure's lease, with its fencing token and its loss signal; None if nothing is held.

        Of several that are held shared, the one acquired last.
        """
        return next((lease for lease in reversed(self._leases) if lease.held()), None)

    @property
    def acquired(self) -> bool:
        """Whether it is held, by the clock of this very moment. Asks nobody."""
        return self.lease is not None

    def _lock(self, shared: bool) -> TenureNamed:
        coordinator = self._coordinator()
        if self._of is not coordinator:
            self._of, self._named = coordinator, {}
        named = self._named.get(shared)
        if named is None:
            named = self._named[shared] = coordinator.lock(self._text, shared=shared)
        return named

    def acquire(
        self, blocking: bool | float = True, shared: bool = False, timeout: float | None = None
    ) -> bool:
        if blocking is not True:
            blocking, timeout = convert_blocking(blocking, timeout)
        try:
            if blocking:
                wait = None if timeout is None else max(0.0, timeout)
                lease: Lease | None = self._lock(shared).acquire(wait)
            else:
                lease = self._lock(shared).try_acquire()
        except AcquireTimeout:
            return False
        except TenureError as error:
            rethrow(error)
        if lease is None:
            return False
        if self._leases:  # what was lost is forgotten
            self._leases = [held for held in self._leases if held.held()]
        self._leases.append(lease)
        return True

    def release(self) -> bool:
        return self._release() is None

    def _release(self) -> str | None:
        """Give it back; if there was nothing to give back, why."""
        reason = "it was not held"
        while self._leases:
            try:
                self._leases.pop().release()
            except IndexError:
                break  # another thread was faster
            except LeaseLost as loss:
                reason = loss.reason
            except TenureError as error:
                rethrow(error)
            else:
                return None
        return reason

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        reason = self._release()
        if reason is None:
            return
        text = f"the lock {self._text!r} was lost: {reason}"
        if exc_val is None:
            raise LockLost(text)
        exc_val.add_note(f"tenure: {text}")

    def is_still_owner(self) -> bool:
        """Ask the backend whether the lock is held.

        False if it was lost, or broken; `ToozConnectionError` if the backend does not answer.
        """
        try:
            return any(_inside.stands(lease) for lease in list(self._leases))
        except TenureError as error:
            rethrow(error)

    def heartbeat(self) -> bool:
        """Say whether it is held. What is held is renewed in the background."""
        return self.acquired

    def break_(self) -> bool:
        """Take the lock away from whoever holds it; False if nobody does.

        The holder is not asked. It learns of that from `is_still_owner`; until then only its
        token, which is smaller than the next holder's, shows that it is late.
        """
        try:
            return _inside.evict(self._lock(False))
        except TenureError as error:
            raise of(error) from error

    def __repr__(self) -> str:
        return f"<lock {self._text!r}: {self.lease or 'not held'}>"

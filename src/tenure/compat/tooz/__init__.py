"""The API of Tooz 9.1 over Tenure's drivers: change the import, and keep the program.

    from tenure.compat.tooz import coordination

    coordinator = coordination.get_coordinator("redis://cache", b"host-1")
    coordinator.start(start_heart=True)
    with coordinator.get_lock(b"nightly"):
        ...
    coordinator.stop()

The modules have Tooz's names: `coordination`, `locking`, `hashring`, `partitioner`, `utils` and
`drivers`. What differs on purpose is told in docs/guides/from-tooz.md.
"""

from __future__ import annotations

__all__ = ["NotImplemented", "ToozError"]


class ToozError(Exception):
    """The base of every error. `cause` is the error behind it, or None."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class NotImplemented(NotImplementedError, ToozError):
    """The driver cannot do what was asked."""

    def __init__(
        self, message: str = "not implemented by this driver", cause: BaseException | None = None
    ) -> None:
        ToozError.__init__(self, message, cause)

"""The memory driver's backend."""

from __future__ import annotations

from ._base import Backend


class MemoryBackend(Backend):
    """A dictionary in this process."""

    name = "memory"
    scheme = "memory"

    def start(self) -> None:
        """Nothing to start."""

    def stop(self) -> None:
        """Nothing to stop."""

    @property
    def url(self) -> str:
        return "memory://kit"

    def footprint(self, namespace: str) -> int:
        from ...drivers.memory import stored_claims

        return stored_claims("kit", namespace)

"""The queue inside of one coordinator: local waiters on one name share one remote wait.

First come, first served. Exclusive tickets exclude all others; shared tickets that
stand together at the head are admitted together, so a waiting writer is not starved.
"""

from __future__ import annotations

from collections import deque

from ._runtime.base import Runtime, Signal
from .errors import ClosedError


class Ticket:
    """One local acquire, from its place in the queue until it leaves the gate."""

    __slots__ = ("admitted", "left", "name", "shared", "signal")

    def __init__(self, name: str, shared: bool) -> None:
        self.name = name
        self.shared = shared
        self.admitted = False
        self.left = False
        self.signal: Signal | None = None


class _Gate:
    __slots__ = ("inside", "queue", "shared")

    def __init__(self) -> None:
        self.inside = 0
        self.shared = False
        self.queue: deque[Ticket] = deque()

    def admits(self, ticket: Ticket) -> bool:
        return self.inside == 0 or (self.shared and ticket.shared)

    def let_in(self, ticket: Ticket) -> None:
        ticket.admitted = True
        self.inside += 1
        self.shared = ticket.shared


class Gates:
    """One gate for each name that somebody holds or waits for."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = runtime.lock()
        self._gates: dict[str, _Gate] = {}
        self._closed = False

    def enter_now(self, name: str, shared: bool) -> Ticket | None:
        """Enter if nobody is in the way."""
        ticket = Ticket(name, shared)
        with self._lock:
            if self._closed:
                raise ClosedError("the coordinator is closed")
            gate = self._gates.get(name)
            if gate is None:
                gate = self._gates[name] = _Gate()
            elif gate.queue or not gate.admits(ticket):
                return None
            gate.let_in(ticket)
        return ticket

    async def enter(self, name: str, shared: bool, until: float | None) -> Ticket | None:
        """Enter in turn; None if the time came first."""
        ticket = Ticket(name, shared)
        signal = ticket.signal = self._runtime.signal()
        with self._lock:
            gate = self._gates.setdefault(name, _Gate())
            gate.queue.append(ticket)
            self._advance(name, gate)
        try:
            await signal.wait(until)
            if self._closed:
                raise ClosedError("the coordinator was closed while it waited for the lock")
        except BaseException:
            self.leave(ticket)
            raise
        if ticket.admitted:
            return ticket
        self.leave(ticket)
        return None

    def leave(self, ticket: Ticket) -> None:
        """Leave the gate or its queue, and let in whoever comes next. Idempotent."""
        with self._lock:
            if ticket.left:
                return
            ticket.left = True
            gate = self._gates[ticket.name]
            if ticket.admitted:
                gate.inside -= 1
            else:
                gate.queue.remove(ticket)
            self._advance(ticket.name, gate)

    def waiting(self, name: str) -> int:
        """How many local acquires stand in the queue of a name."""
        gate = self._gates.get(name)
        return len(gate.queue) if gate else 0

    def close(self) -> None:
        """Turn away everybody who waits."""
        with self._lock:
            self._closed = True
            for gate in self._gates.values():
                for ticket in gate.queue:
                    if ticket.signal is not None:
                        ticket.signal.set()

    def _advance(self, name: str, gate: _Gate) -> None:
        while gate.queue and gate.admits(gate.queue[0]) and not self._closed:
            ticket = gate.queue.popleft()
            gate.let_in(ticket)
            if ticket.signal is not None:
                ticket.signal.set()
        if not gate.inside and not gate.queue:
            del self._gates[name]

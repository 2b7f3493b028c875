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

    __slots__ = ("admitted", "left", "name", "shared", "signal", "waited")

    def __init__(self, name: str, shared: bool) -> None:
        self.name = name
        self.shared = shared
        self.admitted = False
        self.left = False
        self.waited = False
        """Whether it was not served at once, here or at the backend."""
        self.signal: Signal | None = None


class _Gate:
    """Who is inside, and who waits, where that is more than one ticket."""

    __slots__ = ("inside", "queue", "shared")

    def __init__(self, first: Ticket) -> None:
        self.inside = 1
        self.shared = first.shared
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
        # Most names have one ticket and no queue: then the ticket stands for the gate.
        self._gates: dict[str, _Gate | Ticket] = {}
        self._closed = False

    def enter_now(self, ticket: Ticket) -> bool:
        """Enter if nobody is in the way; say whether it did.

        The ticket is made before, so that whoever is interrupted in here can leave.
        """
        name = ticket.name
        with self._lock:
            if self._closed:
                raise ClosedError("the coordinator is closed")
            if name not in self._gates:
                ticket.admitted = True
                self._gates[name] = ticket
                return True
            if not ticket.shared:
                return False
            gate = self._gate(name)
            if gate.queue or not gate.admits(ticket):
                return False
            gate.let_in(ticket)
            return True

    def _gate(self, name: str) -> _Gate:
        gate = self._gates[name]
        if isinstance(gate, Ticket):
            gate = self._gates[name] = _Gate(gate)
        return gate

    async def enter(self, ticket: Ticket, until: float | None) -> bool:
        """Enter in turn; False if the time came first. Whoever fails to enter must leave."""
        name = ticket.name
        ticket.waited = True
        signal = ticket.signal = self._runtime.signal()
        with self._lock:
            if self._closed:
                raise ClosedError("the coordinator is closed")
            if name not in self._gates:
                ticket.admitted = True
                self._gates[name] = ticket
                return True
            gate = self._gate(name)
            gate.queue.append(ticket)
            self._advance(name, gate)
        await signal.wait(until)
        if self._closed:
            raise ClosedError("the coordinator was closed while it waited for the lock")
        return ticket.admitted

    def leave(self, ticket: Ticket) -> None:
        """Leave the gate or its queue, and let in whoever comes next. Idempotent.

        Does nothing for a ticket that has entered neither.
        """
        with self._lock:
            if ticket.left:
                return
            gate = self._gates.get(ticket.name)
            if gate is ticket:
                del self._gates[ticket.name]
            ticket.left = True
            if isinstance(gate, _Gate):
                if ticket.admitted:
                    gate.inside -= 1
                elif ticket in gate.queue:
                    gate.queue.remove(ticket)
                self._advance(ticket.name, gate)

    def taken(self, name: str) -> bool:
        """Say whether somebody here holds the name, or waits for it."""
        return name in self._gates

    def waiting(self, name: str) -> int:
        """How many local acquires stand in the queue of a name."""
        gate = self._gates.get(name)
        return len(gate.queue) if isinstance(gate, _Gate) else 0

    def close(self) -> None:
        """Turn away everybody who waits."""
        with self._lock:
            self._closed = True
            for gate in self._gates.values():
                for ticket in gate.queue if isinstance(gate, _Gate) else ():
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

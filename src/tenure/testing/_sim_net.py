"""The simulated network: requests and replies that are late, lost, or out of order.

A request that a client gave up on may still arrive, as long as the network holds it:
that is what makes an outcome unknown. It never holds one for a whole TTL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import OutcomeUnknown, TenureError, Unavailable
from ._sim_world import Node, Waiter, World

T = TypeVar("T")

UNKNOWN = "no reply in time"
RESET = "the connection was reset"


@dataclass(slots=True)
class Weather:
    """How bad the network is. Delays are in seconds, the rest are probabilities."""

    delay: float = 0.001
    late: float = 0.0
    """That a message takes up to `late_most` instead."""
    late_most: float = 0.0
    lost: float = 0.0
    push_lost: float = 0.0


class Flight:
    """One request on its way, and its reply on its way back."""

    __slots__ = ("call", "epoch", "limit", "node", "served", "slow", "waiter")

    def __init__(
        self, node: Node, waiter: Waiter, call: Callable[[], Any], limit: float, epoch: int
    ) -> None:
        self.node = node
        self.waiter = waiter
        self.call = call
        self.limit = limit
        self.epoch = epoch
        self.slow = False
        self.served = 0.0


def _described(call: Callable[[], Any]) -> list[object]:
    """A request for the trace: the verb, and the short texts that it was made with."""
    cells = [cell.cell_contents for cell in call.__closure__ or ()]
    verb = call.__qualname__.split(".")[1]
    return [verb, *(each for each in cells if isinstance(each, str))]


class Network:
    """Between all nodes and the one store, which may be down for a while."""

    def __init__(self, world: World, weather: Weather) -> None:
        self.world = world
        self.weather = weather
        self.up = True
        self.restarted: Callable[[], None] = lambda: None
        self.epoch = 0
        """Counts the restarts of the store: each resets every connection."""
        self.serving: Node | None = None
        """Whose request the store carries out."""
        self.flying = 0
        """Requests that have not arrived, given up on or not."""

    def stop_store(self) -> None:
        """Nothing is carried out from now on; replies on their way are lost."""
        self.world.note("the store is down")
        self.up = False
        self.epoch += 1
        self.restarted()

    def start_store(self) -> None:
        """It answers again, and has kept its data."""
        self.world.note("the store is up")
        self.up = True

    def heal(self) -> None:
        """From now on nothing is lost or late."""
        self.weather = Weather(self.weather.delay)
        self.start_store()

    async def call(self, node: Node, patience: float, call: Callable[[], T]) -> T:
        """Have the store carry out `call`; wait for its reply as long as patience lasts."""
        world = self.world
        waiter = Waiter(world)
        acquire = waiter.task.acquire
        if acquire is not None and (node.cut_out or not self.up):
            acquire.unsure = True
        limit = world.time + patience / node.rate
        if not self.up:
            # No answer is waited for longer than patience lasts.
            world.push(min(world.time + self._delay(), limit), node, waiter.fire)
            await waiter
            raise Unavailable("the connection was refused")
        if node.cut_out and world.chance(0.3):
            world.push(limit, node, waiter.fire)
            await waiter
            raise Unavailable("no connection in time")
        flight = Flight(node, waiter, call, limit, self.epoch)
        lost = node.cut_out or world.chance(self.weather.lost)
        held = 0.0
        if node.passes is not None and not lost:
            if node.passes == 0:
                lost = world.chance(0.7)
                held = self.weather.late_most * world.between(0.6, 1)
            node.passes = max(0, node.passes - 1)
            flight.slow = world.chance(0.7)
        if lost:
            world.push(limit, node, waiter.fire, UNKNOWN)
        else:
            arrival = max(world.time + self._delay(), world.time + held, node.stalled_until)
            self.flying += 1
            world.push(arrival, None, self._arrive, flight)
            if arrival >= limit:
                world.push(limit, node, waiter.fire, UNKNOWN)
        if world.trace is not None:
            world.note(node, "sends", *_described(call))
        reply: Any = UNKNOWN
        try:
            reply = await waiter
        finally:
            # Also when it was cancelled: then, too, nobody knows.
            if acquire is not None and (reply is UNKNOWN or reply is RESET):
                acquire.unsure = True
        if reply is UNKNOWN or reply is RESET:
            world.note(node, "has", repr(reply))
            raise OutcomeUnknown(reply)
        if acquire is not None:
            acquire.served = flight.served
        if isinstance(reply, TenureError):
            raise reply
        result: T = reply
        return result

    def hint(self, node: Node, call: Callable[[], None]) -> None:
        """Push something to a node; it may be lost, and nobody will know."""
        if not (node.cut_in or self.world.chance(self.weather.push_lost)):
            self.world.push(self.world.time + self._delay(), node, lambda _: call())

    def tell(self, node: Node, call: Callable[[], None]) -> None:
        """Tell the store something without waiting; it may be lost."""

        def arrive(_: object) -> None:
            self.flying -= 1
            if self.up:
                call()

        if self.up and not (node.cut_out or self.world.chance(self.weather.lost)):
            self.flying += 1
            self.world.push(self.world.time + self._delay(), None, arrive)

    def _delay(self) -> float:
        weather, random = self.weather, self.world.random
        if weather.late and random() < weather.late:
            return weather.late_most * random()
        return weather.delay * (0.2 + random() + random())

    def _arrive(self, flight: Flight) -> None:
        self.flying -= 1
        world, node, waiter = self.world, flight.node, flight.waiter
        if not self.up:
            back = min(world.time + self._delay(), max(world.time, flight.limit))
            world.push(back, node, waiter.fire, RESET)
            return
        try:
            if world.trace is not None:
                world.note("the store runs", *_described(flight.call), "of", node)
            self.serving = node
            flight.served = world.time
            result = flight.call()
        except TenureError as error:
            result = error
        if waiter.fired or node.dead:
            return
        back = world.time + self._delay()
        if flight.slow:
            back += (flight.limit - world.time) * world.random()
        if node.cut_in or back >= flight.limit or world.chance(self.weather.lost):
            world.push(max(world.time, flight.limit), node, waiter.fire, UNKNOWN)
        else:
            world.push(back, node, self._deliver, (flight, result))

    def _deliver(self, arrived: tuple[Flight, Any]) -> None:
        flight, result = arrived
        if flight.epoch != self.epoch:
            result = RESET
        elif self.world.time > flight.limit and self.world.chance(0.5):
            result = UNKNOWN  # after a pause, both the reply and the time-out are due
        flight.waiter.fire(result)

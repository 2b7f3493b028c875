"""Several independent Redis masters, and a proxy before each of them."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from ..proxy import Direction, Proxy
from ._redis import RedisServer


class RedisMasters:
    """An odd number of Redis servers that know nothing of each other, as one server.

    As a context manager it starts and closes.
    """

    def __init__(self, count: int = 3, *, password: str | None = None) -> None:
        self.servers = [RedisServer(password=password) for _ in range(count)]

    @property
    def url(self) -> str:
        """The URL to connect with."""
        return self.url_at([server.port for server in self.servers])

    def url_at(self, ports: list[int]) -> str:
        """The URL with other ports: those of proxies, for instance."""
        userinfo = self.servers[0]._authority(0).rpartition("@")[0]
        hosts = ",".join(f"{self.servers[0].host}:{port}" for port in ports)
        return f"redis://{userinfo}{'@' if userinfo else ''}{hosts}/0?lock=redlock"

    def start(self) -> Self:
        """Start them all."""
        try:
            for server in self.servers:
                server.start()
        except BaseException:
            self.close()
            raise
        return self

    def restart(self, *, graceful: bool = True) -> None:
        """Restart them all, so that none is there for a moment."""
        for server in self.servers:
            if graceful:
                server.stop()
            else:
                server.kill()
        for server in self.servers:
            server.start()

    def pause(self) -> None:
        """Stop the processes of all."""
        for server in self.servers:
            server.pause()

    def resume(self) -> None:
        """Let them all go on."""
        for server in self.servers:
            server.resume()

    def close(self) -> None:
        """Kill them all, and remove their folders."""
        for server in self.servers:
            server.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Proxies:
    """A proxy before each of several servers; what befalls one befalls all."""

    def __init__(self, masters: RedisMasters) -> None:
        self.each = [Proxy(server.host, server.port) for server in masters.servers]

    @property
    def ports(self) -> list[int]:
        """Where to connect to."""
        return [proxy.port for proxy in self.each]

    @property
    def swallowed(self) -> int:
        """How many bytes have been kept back by all of them."""
        return sum(proxy.swallowed for proxy in self.each)

    def start(self) -> Self:
        """Begin to accept connections."""
        for proxy in self.each:
            proxy.start()
        return self

    def close(self) -> None:
        """Reset every connection and give the ports back."""
        for proxy in self.each:
            proxy.close()

    def cut(self) -> None:
        """As `Proxy.cut`."""
        for proxy in self.each:
            proxy.cut()

    def reset(self) -> None:
        """As `Proxy.reset`."""
        for proxy in self.each:
            proxy.reset()

    def heal(self) -> None:
        """As `Proxy.heal`."""
        for proxy in self.each:
            proxy.heal()

    def black_hole(self, direction: Direction = "both", *, drop: bool = False) -> None:
        """As `Proxy.black_hole`."""
        for proxy in self.each:
            proxy.black_hole(direction, drop=drop)

    def delay(self, seconds: float, direction: Direction = "both") -> None:
        """As `Proxy.delay`."""
        for proxy in self.each:
            proxy.delay(seconds, direction)

    def garbage(self, data: bytes) -> None:
        """As `Proxy.garbage`."""
        for proxy in self.each:
            proxy.garbage(data)

"""What the conformance kit must know of a backend: how it starts, and how to reach it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from ..._model import Traits
from ..._url import Url
from ...drivers import registry
from ..proxy import Proxy
from ..servers import Server


class Backend(ABC):
    """One backend, started once for a whole suite."""

    name: ClassVar[str]
    """As it appears in the table of results."""
    scheme: ClassVar[str]
    """The URL scheme under which the driver is registered."""
    shows_waiters: ClassVar[bool] = True
    """Whether `footprint` counts those who wait; not where they only look again and again."""
    server: Server | None = None
    """The server to restart, pause and cut off; None if the backend has none."""

    @abstractmethod
    def start(self) -> None:
        """Bring the backend up."""

    @abstractmethod
    def stop(self) -> None:
        """Take the backend down and leave nothing behind."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The URL to connect with."""

    @abstractmethod
    def footprint(self, namespace: str) -> int:
        """How many claims or locks the backend keeps now, of one namespace if it can tell.

        The kit compares two counts to find what an acquire left behind. The namespaces
        that it asks for have plain names of letters, digits and hyphens.
        """

    def proxy(self) -> Proxy:
        """A proxy before the server, which is not started yet."""
        assert self.server is not None
        return Proxy(self.server.host, self.server.port)

    def url_through(self, proxy: Proxy) -> str:
        """The URL by way of the proxy."""
        assert self.server is not None
        return self.server.url_at(proxy.port)

    @classmethod
    def traits(cls) -> Traits:
        """What the driver claims."""
        return registry.find(Url(cls.scheme)).traits


class ServerBackend(Backend):
    """A backend with a server of its own."""

    server: Server

    @abstractmethod
    def make_server(self) -> Server:
        """A server that is not started yet."""

    def start(self) -> None:
        self.server = self.make_server()
        self.server.start()

    def stop(self) -> None:
        self.server.close()

    @property
    def url(self) -> str:
        return self.server.url

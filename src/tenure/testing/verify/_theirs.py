"""A backend that is somebody's own server: it is used, and never stopped, paused or restarted."""

from __future__ import annotations

import re
from typing import Any

from ..._coordinator import make_session
from ..._model import Traits
from ..._runtime.thread import ThreadRuntime, drive
from ..._url import Url
from ...drivers import registry
from ...drivers.base import Driver
from ...errors import Unsupported
from ..backends import Backend
from ..proxy import Proxy

_TLS = ("tls", "ca", "sslmode", "sslrootcert", "cert")


class NotOurs(Exception):
    """The case would do something to a server that is not ours to do it to."""


def theirs(given: str) -> type[Backend]:
    """The backend behind a URL."""
    parsed = Url.parse(given)

    class Theirs(Backend):
        """It asks the driver itself what is kept, since nothing else can be asked."""

        name = parsed.scheme
        scheme = parsed.scheme
        shows_waiters = False
        _driver: Driver | None = None

        @classmethod
        def traits(cls) -> Traits:
            return registry.find(parsed).traits

        @property
        def url(self) -> str:
            return given

        @property
        def server(self) -> Any:  # type: ignore[override]
            if not self.traits().server:
                return None
            raise NotOurs("it restarts or pauses the server, and this one is not ours")

        def start(self) -> None:
            """It is up."""

        def stop(self) -> None:
            self._forget()

        def proxy(self) -> Proxy:
            host, port = one_address(parsed)
            return Proxy(host, port)

        def url_through(self, proxy: Proxy) -> str:
            return at_port(given, proxy.host, proxy.port)

        def footprint(self, namespace: str) -> int:
            if self._driver is None or self._driver.namespace != namespace:
                self._forget()
                session = make_session(ThreadRuntime(), given, namespace, None, None, None)
                drive(session.driver.open())
                self._driver = session.driver
            return drive(_kept(self._driver))

        def _forget(self) -> None:
            if self._driver is not None:
                drive(self._driver.close())
                self._driver = None

    return Theirs


async def _kept(driver: Driver) -> int:
    """How many claims and locks the driver finds in its namespace."""
    count = 0
    try:
        for roster in await driver.rosters(""):
            count += len(await driver.census(roster))
    except Unsupported:
        pass  # it has locks only
    if driver.mutex is not None:
        for taken in await driver.mutex.taken():
            count += len(taken.holders) + (taken.waiters or 0)
    return count


def one_address(url: Url) -> tuple[str, int]:
    """Where a proxy can lead; `NotOurs` says why none can stand before the server."""
    why = ""
    if len(url.hosts) != 1 or not url.hosts[0].port:
        why = "the URL does not name one host and its port"
    elif re.search(r"\+(sentinel|cluster)$", url.scheme) or url.options.get("lock") == "redlock":
        why = "the servers behind the URL have addresses that it does not name"
    elif re.search(r"(rediss|etcds|https)$", url.scheme) or any(key in url.options for key in _TLS):
        why = "with TLS, the server's certificate is not for the proxy's address"
    if why:
        raise NotOurs(f"it needs a proxy before the server, and {why}")
    return url.hosts[0].name, url.hosts[0].port


def at_port(text: str, host: str, port: int) -> str:
    """The URL with another address, and all else as it was."""
    scheme, _, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    authority, question, query = authority.partition("?")
    user, at, _ = authority.rpartition("@")
    return f"{scheme}://{user}{at}{host}:{port}{question}{query}{slash}{path}"

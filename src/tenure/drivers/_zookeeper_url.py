"""What a ZooKeeper URL says."""

from __future__ import annotations

from collections.abc import Callable

from .._url import Host, Url
from ..errors import InvalidURL
from ..wires.zookeeper import Settings

_PORT = 2181
_TLS = ("ca", "cert", "key", "verify")


def settings(url: Url, ttl: float, patience: float, now: Callable[[], float]) -> Settings:
    """The wire's settings; `InvalidURL` if the URL has something in it that cannot work."""
    url.check_options({"auth", "tls", *_TLS})
    tls = url.flag("tls", "ca" in url.options)
    given = ", ".join(sorted(set(_TLS) & url.options.keys()))
    if given and not tls:
        raise InvalidURL(f"{url.scheme}: {given}: TLS options have no effect without tls=true")
    option = url.options.get
    if (option("cert") is None) != (option("key") is None):
        raise InvalidURL(f"{url.scheme}: the options 'cert' and 'key' come together")
    if (url.username is None) != (url.password is None):
        raise InvalidURL(f"{url.scheme}: a user name and a password come together")
    auth = option("auth")
    if auth not in (None, "digest", "sasl"):
        raise InvalidURL(f"{url.scheme}: option 'auth' must be digest or sasl, not {auth!r}")
    if auth is not None and url.username is None:
        raise InvalidURL(f"{url.scheme}: option 'auth' needs a user name and a password")
    if url.username is not None and ":" in url.username:
        raise InvalidURL(f"{url.scheme}: a user name has no colon in it")
    if any(part in (".", "..", "zookeeper") for part in url.path.split("/")) or "//" in url.path:
        raise InvalidURL(f"{url.scheme}: the path is that of a node, such as /apps/mine")
    hosts = url.hosts or (Host("127.0.0.1"),)
    credentials = None if url.username is None else (url.username, url.password or "")
    return Settings(
        ",".join(str(host.or_port(_PORT)) for host in hosts),
        patience,
        ttl,
        now,
        credentials,
        auth == "sasl",
        tls,
        option("ca"),
        option("cert"),
        option("key"),
        url.flag("verify", True),
    )

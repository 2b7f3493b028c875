"""What the URL of the MySQL driver may say."""

from __future__ import annotations

from .._url import Url
from ..errors import InvalidURL
from ..wires._mysql_connect import Target, Tls

_TLS_OPTIONS = {"ca", "cert", "key", "verify"}
OPTIONS = _TLS_OPTIONS | {"connect_timeout", "socket", "tls"}


def targets(url: Url) -> list[Target]:
    """The servers to try, in turn."""
    tls = _tls(url)
    user = url.username or "root"
    database = url.path.removeprefix("/")
    if "/" in database:
        raise InvalidURL(
            f"{url.scheme}: the path is the name of a database: {url.scheme}://host/db"
        )
    path = url.options.get("socket", "")
    if path and (url.hosts or tls is not None):
        raise InvalidURL(f"{url.scheme}: option 'socket' goes without a host and without TLS")
    if path:
        return [Target("", 0, path, user, url.password, database, None)]
    hosts = [host.or_port(3306) for host in url.hosts]
    if not hosts:
        raise InvalidURL(
            f"{url.scheme}: name a host, or a socket file: {url.scheme}:///db?socket=/run/…"
        )
    return [Target(host.name, host.port, "", user, url.password, database, tls) for host in hosts]


def _tls(url: Url) -> Tls | None:
    if not url.flag("tls"):
        if _TLS_OPTIONS & url.options.keys():
            raise InvalidURL(f"{url.scheme}: TLS options have no effect without tls=true")
        return None
    option = url.options.get
    if option("key") is not None and option("cert") is None:
        raise InvalidURL(f"{url.scheme}: option 'key' needs 'cert' too")
    return Tls(option("ca"), option("cert"), option("key"), url.flag("verify", True))

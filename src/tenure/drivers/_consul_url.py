"""What a Consul URL says."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

from .._url import Host, Url
from ..errors import InvalidURL
from ..wires.consul import Settings
from ..wires.http import Settings as HttpSettings
from ..wires.http import Tls

_PORTS = {"consul": 8500, "consul+https": 8501}
_TLS_OPTIONS = {"ca", "cert", "key", "verify"}
LOCK_DELAY_MAX = 60.0
"""Seconds; Consul takes no more."""


def check(url: Url) -> None:
    """`InvalidURL` if the URL has something in it that cannot work."""
    url.check_options({"dc", "lock_delay", "token_file", "connections"} | _TLS_OPTIONS)
    if url.path.strip("/"):
        raise InvalidURL(f"{url.scheme}: the URL takes no path")
    if url.username is not None:
        raise InvalidURL(
            f"{url.scheme}: there is no user name; a token is written {url.scheme}://:token@host"
        )
    if url.password is not None and "token_file" in url.options:
        raise InvalidURL(f"{url.scheme}: a token in the URL and 'token_file' exclude each other")
    if url.scheme != "consul+https" and _TLS_OPTIONS & url.options.keys():
        given = ", ".join(sorted(_TLS_OPTIONS & url.options.keys()))
        raise InvalidURL(f"{url.scheme}: {given}: for TLS the URL begins with consul+https://")
    if "key" in url.options and "cert" not in url.options:
        raise InvalidURL(f"{url.scheme}: option 'key' needs 'cert' too")
    lock_delay(url)


def lock_delay(url: Url) -> float:
    """How long a lock stays taken whose holder's session was lost, in seconds."""
    seconds = url.number("lock_delay", 0.0)
    if seconds > LOCK_DELAY_MAX:
        raise InvalidURL(f"{url.scheme}: option 'lock_delay' is at most {LOCK_DELAY_MAX:g} seconds")
    return seconds


def settings(url: Url, patience: float) -> Settings:
    """The wire's settings; reads the token where the URL or the environment say it is."""
    port = _PORTS.get(url.scheme, 8500)
    hosts = tuple(host.or_port(port) for host in url.hosts) or (Host("127.0.0.1", port),)
    tls = None
    if url.scheme == "consul+https":
        option = url.options.get
        tls = Tls(option("ca"), option("cert"), option("key"), url.flag("verify", True))
    token = _token(url)
    http = HttpSettings(
        hosts,
        "consul",
        tls,
        patience,
        int(url.number("connections", 64, least=1)),
        {} if not token else {"X-Consul-Token": token},
    )
    datacenter = url.options.get("dc")
    return Settings(http, "" if datacenter is None else f"dc={quote(datacenter, safe='')}")


def _token(url: Url) -> str | None:
    """The token: the URL's own, that of the file it names, or what Consul's own tools take."""
    if url.password is not None:
        return url.password
    path = url.options.get("token_file")
    if path is not None:
        return _read(path, f"{url.scheme}: the file of option 'token_file'")
    if token := os.environ.get("CONSUL_HTTP_TOKEN"):
        return token
    if path := os.environ.get("CONSUL_HTTP_TOKEN_FILE"):
        return _read(path, f"{url.scheme}: the file that CONSUL_HTTP_TOKEN_FILE names")
    return None


def _read(path: str, what: str) -> str:
    try:
        return Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidURL(f"{what} cannot be read: {reason}") from error

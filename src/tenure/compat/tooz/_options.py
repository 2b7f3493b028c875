"""What each option of Tooz's drivers is in a URL of Tenure's.

An option that is none of a driver's, but another's, has no effect, as with Tooz. One that would
make the connection safer, and that Tenure cannot honour, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..._url import Host, Url
from ...drivers import registry
from ...errors import InvalidURL

ELSEWHERE = frozenset(
    (
        *("api_version", "command_retry", "connection_retry", "encoding", "executor", "handler"),
        *("health_check_interval", "max_pool_size", "randomize_hosts", "retry_on_timeout"),
        *("socket_connect_timeout", "socket_keepalive", "socket_timeout"),
        # Those of one driver, given to another.
        *("ca_cert", "cert_cert", "cert_key", "certfile", "db", "dbname", "hosts", "keyfile"),
        *("keyfile_password", "sentinel", "sentinel_fallback", "sentinel_password"),
        *("sentinel_ssl", "sentinel_username", "ssl", "ssl_", "ssl_ca", "ssl_ca_certs"),
        *("ssl_capath", "ssl_cert", "ssl_certfile", "ssl_check_hostname", "ssl_cipher"),
        *("ssl_ciphers", "ssl_key", "ssl_key_password", "ssl_keyfile", "ssl_verify_mode"),
        *("unix_socket", "use_ssl", "verify_certs"),
    )
)
"""Options of Tooz's that have no effect, if the driver's own translation has not taken them."""

CLIENTS = frozenset(
    (
        *("autocommit", "binary_prefix", "charset", "client_encoding", "client_flag", "collation"),
        *("init_command", "local_infile", "max_allowed_packet", "read_timeout", "sql_mode"),
        *("use_unicode", "write_timeout"),
    )
)
"""Options of database clients: a service has one URL for its tables and for its locks, and they
have no effect upon the locks, with Tooz either."""

BLANK = (
    ELSEWHERE
    | CLIENTS
    | {
        *("timeout", "lock_timeout", "membership_timeout", "leader_timeout", "namespace"),
        *("host", "port", "ca", "protocol", "acl_token", "datacenter"),
    }
)
"""Those that count as not given when nothing is behind their `=`, as with Tooz."""


def inert(scheme: str) -> frozenset[str]:
    """The options without an effect in URLs of a scheme."""
    if not scheme.startswith(registry.TABLES):
        return ELSEWHERE | CLIENTS
    # There they are those of the client that SQLAlchemy chooses, and may be what encrypts.
    return frozenset(name for name in ELSEWHERE if not name.startswith("ssl"))


class Given:
    """The options of one call; each is taken once."""

    def __init__(self, scheme: str, options: Mapping[str, Any]) -> None:
        self._scheme = scheme
        found = {key: _given(key, value) for key, value in options.items()}
        self._options = {key: values for key, values in found.items() if values}

    def values(self, name: str) -> list[str]:
        """All values of an option, as text."""
        return self._options.pop(name, [])

    def has(self, name: str) -> bool:
        """Whether an option is given, and was not taken."""
        return name in self._options

    def text(self, name: str) -> str | None:
        """The last value of an option; None if it is not given."""
        values = self.values(name)
        return values[-1] if values else None

    def number(self, name: str) -> float | None:
        """The same, as a number of seconds from 0."""
        text = self.text(name)
        return None if text is None else Url(self._scheme, options={name: text}).number(name, 0.0)

    def flag(self, name: str) -> bool | None:
        """The same, as true or false."""
        text = self.text(name)
        return None if text is None else Url(self._scheme, options={name: text}).flag(name)

    def refuse(self, why: str, *names: str) -> None:
        """`InvalidURL` if one of these options is given, and not empty or false."""
        for name in names:
            text = self.text(name)
            if text is not None and text.lower() not in {"", "0", "false", "no", "off"}:
                raise InvalidURL(f"{self._scheme}: the option {name!r} cannot be honoured: {why}")

    def drop(self, names: Collection[str]) -> list[str]:
        """Forget these; which of them were given."""
        found = [name for name in self._options if name in names]
        for name in found:
            del self._options[name]
        return found

    def left(self) -> list[str]:
        """The names of those that nobody has taken."""
        return list(self._options)


def _given(name: str, value: Any) -> list[str]:
    """The values of an option, as text, of a list in a list, too."""
    if isinstance(value, list | tuple):
        return [text for each in value for text in _given(name, each)]
    text = None if value is None else _text(value)
    return [] if text is None or (text == "" and name in BLANK) else [text]


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _move(given: Given, url: Url, names: Mapping[str, str]) -> bool:
    """Take options under other names; say whether there were any."""
    found = {ours: given.text(theirs) for theirs, ours in names.items()}
    moved = {ours: text for ours, text in found.items() if text is not None}
    url.options.update(moved)
    return bool(moved)


def _hosts(scheme: str, texts: Collection[str]) -> tuple[Host, ...]:
    return Url.parse(f"{scheme}://{','.join(texts)}").hosts if texts else ()


def _redis(url: Url, given: Given) -> Url:
    service, database = given.text("sentinel"), given.text("db")
    secured, of_sentinels = given.flag("ssl"), given.flag("sentinel_ssl")
    if service is not None or url.scheme == "redis+sentinel":
        if None not in (secured, of_sentinels) and secured != of_sentinels:
            raise InvalidURL("redis: the options 'ssl' and 'sentinel_ssl' must be the same")
        if secured or of_sentinels:
            url.options["tls"] = "true"
        if service is not None:
            url.scheme, url.path = "redis+sentinel", f"/{service}{url.path}"
            url.hosts = (*url.hosts, *_hosts("redis", given.values("sentinel_fallback")))
        users = ("sentinel_username", "sentinel_password")
        _move(given, url, dict(zip(users, users, strict=True)))
        if database is not None:
            url.path = f"/{url.path.split('/')[1]}/{database}"
    elif not url.hosts and url.path:
        url.scheme = "unix"
        if database is not None:
            url.options["db"] = database
    else:
        if secured and url.scheme == "redis":
            url.scheme = "rediss"
        if database is not None:
            url.path = f"/{database}"
    if url.scheme == "rediss" or "tls" in url.options:
        _move(given, url, {"ssl_ca_certs": "ca", "ssl_certfile": "cert", "ssl_keyfile": "key"})
    return url


def _memcached(url: Url, given: Given) -> Url:
    given.refuse(
        "the driver has no TLS",
        "use_ssl",
        "ca_cert",
        "ssl_ca",
        "ssl_cert",
        "ssl_key",
        "ssl_ciphers",
    )
    size = given.text("max_pool_size")
    if size is not None:
        url.options["connections"] = size
    return url


def _ipc(url: Url, given: Given) -> Url:
    if not url.hosts and not url.path.strip("/"):
        url.hosts, url.path = (Host("tooz"),), ""
    return url


def _postgresql(url: Url, given: Given) -> Url:
    host, port, database = given.text("host"), given.text("port"), given.text("dbname")
    if host is not None or port is not None:
        old = url.hosts[0] if url.hosts else Host("")
        url.hosts = ()
        url.options["host"] = host or old.name
        if port or old.port:
            url.options["port"] = port or str(old.port)
        if not url.options["host"]:
            del url.options["host"]
    if database is not None:
        url.path = f"/{database}"
    return url


def _mysql(url: Url, given: Given) -> Url:
    why = "write the authority's file in 'ssl_ca'; the ciphers are the client's own"
    given.refuse(why, "ssl_capath", "ssl_cipher")
    secured = _move(given, url, {"ssl_ca": "ca", "ssl_cert": "cert", "ssl_key": "key"})
    mode, checks_host = given.text("ssl_verify_mode"), given.flag("ssl_check_hostname")
    lax = mode is not None and mode.lower() in {"none", "cert_none", "0", "false", "no"}
    if checks_host is False and not lax:
        raise InvalidURL("mysql: without 'ssl_check_hostname', 'ssl_verify_mode' must be none, too")
    if secured or mode is not None or checks_host is not None:
        url.options["tls"] = "true"
        if mode is not None:
            url.options["verify"] = "false" if lax else "true"
    socket = given.text("unix_socket")
    if socket is not None:
        url.hosts = ()
        url.options["socket"] = socket
    elif not url.hosts and not given.has("socket"):
        url.hosts = (Host("localhost"),)
    return url


def _zookeeper(url: Url, given: Given) -> Url:
    given.refuse("use a key without a password", "keyfile_password")
    names = {"ca": "ca", "certfile": "cert", "keyfile": "key", "verify_certs": "verify"}
    secured = given.flag("use_ssl")
    if secured:
        url.options["tls"] = "true"
    if secured or (secured is None and (given.has("ca") or given.has("tls"))):
        _move(given, url, names)
    given.drop(names)  # kazoo ignores them, too
    url.hosts = (*url.hosts, *_hosts(url.scheme, given.values("hosts")))
    return url


def _etcd(url: Url, given: Given) -> Url:
    names = {"ca_cert": "ca", "cert_cert": "cert", "cert_key": "key"}
    secured = _move(given, url, names)
    protocol = given.text("protocol")
    if url.scheme in ("etcd", "etcd3"):
        url.scheme = "etcds" if secured or protocol == "https" else "etcd"
    return url


def _consul(url: Url, given: Given) -> Url:
    token = given.text("acl_token")
    if token is not None:
        url.password = token
    _move(given, url, {"datacenter": "dc"})
    return url


TRANSLATIONS: Mapping[str, Callable[[Url, Given], Url]] = {
    **dict.fromkeys(("redis", "rediss", "unix", "redis+sentinel", "redis+cluster"), _redis),
    "memcached": _memcached,
    "ipc": _ipc,
    **dict.fromkeys(("postgresql", "postgres"), _postgresql),
    **dict.fromkeys(("mysql", "mariadb"), _mysql),
    **dict.fromkeys(("zookeeper", "kazoo"), _zookeeper),
    **dict.fromkeys(("etcd", "etcds", "etcd3", "etcd3+http", "etcd3+https"), _etcd),
    **dict.fromkeys(("consul", "consul+https"), _consul),
}
"""By scheme, what makes Tenure's URL of one of Tooz's; in others, only `ELSEWHERE` is left out."""

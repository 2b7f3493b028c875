"""What the URL of the PostgreSQL driver may say, in libpq's words."""

from __future__ import annotations

from .._url import Url
from ..errors import InvalidURL

# fmt: off
_PASSED_ON = frozenset((
    "channel_binding", "gssencmode", "hostaddr", "krbsrvname", "passfile", "require_auth",
    "ssl_max_protocol_version", "ssl_min_protocol_version", "sslcert", "sslcrl", "sslcrldir",
    "sslkey", "sslmode", "sslnegotiation", "sslpassword", "sslrootcert", "sslsni",
    "target_session_attrs",
))
# fmt: on
OPTIONS = _PASSED_ON | {"connect_timeout", "host", "lock", "port", "schema"}


def by_rows(url: Url) -> bool:
    """Whether the URL chooses locks in rows, not the server's own advisory locks."""
    strategy = url.options.get("lock", "advisory")
    if strategy not in ("advisory", "row"):
        raise InvalidURL(
            f"{url.scheme}: option 'lock' is 'advisory', the default, or 'row', not {strategy!r}"
        )
    return strategy == "row"


def attempts(url: Url) -> list[dict[str, str]]:
    """What to connect with, host by host, in libpq's own words."""
    common = {key: value for key, value in url.options.items() if key in _PASSED_ON}
    common["client_encoding"] = "UTF8"
    common.setdefault("target_session_attrs", "read-write")
    if url.username is not None:
        common["user"] = url.username
    if url.password is not None:
        common["password"] = url.password
    if url.path.strip("/"):
        common["dbname"] = url.path.removeprefix("/")
    if url.hosts:
        if "host" in url.options or "port" in url.options:
            raise InvalidURL(
                f"{url.scheme}: the hosts stand before the path or after '?', not both"
            )
        return [
            {**common, "host": host.name, **({"port": str(host.port)} if host.port else {})}
            for host in url.hosts
        ]
    named: dict[str, str] = {
        key: url.options[key] for key in ("host", "port") if key in url.options
    }
    if any("," in value for value in named.values()):
        raise InvalidURL(f"{url.scheme}: several hosts stand before the path: host:port,host:port")
    return [{**common, **named}]


def quoted(schema: str) -> str:
    """The name of a schema as an SQL identifier."""
    if not schema or "\0" in schema or len(schema.encode()) > 63:
        raise InvalidURL("postgresql: option 'schema' must be the name of a schema")
    inside = schema.replace('"', '""')
    return f'"{inside}"'

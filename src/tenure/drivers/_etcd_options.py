"""What an etcd URL may say, whatever the wire."""

from __future__ import annotations

from .._url import Url
from ..errors import InvalidURL

PORT = 2379


def check(url: Url, tls: str) -> None:
    """`InvalidURL` if the URL has something in it that cannot work; `tls` is the secure scheme."""
    url.check_options(("ca", "cert", "key"))
    if url.path.strip("/"):
        raise InvalidURL(f"{url.scheme}: the URL takes no path")
    if (url.username is None) != (url.password is None):
        raise InvalidURL(f"{url.scheme}: a user name and a password come together")
    if url.scheme != tls and url.options:
        given = ", ".join(sorted(url.options))
        raise InvalidURL(f"{url.scheme}: {given}: for TLS the URL begins with {tls}://")
    if ("cert" in url.options) != ("key" in url.options):
        raise InvalidURL(f"{url.scheme}: the options 'cert' and 'key' come together")

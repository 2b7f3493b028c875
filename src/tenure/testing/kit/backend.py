"""What the backend says of itself: what a lease was proved on, and by which client."""

from __future__ import annotations

import re
from importlib import metadata

from ..._model import Server
from ._base import Env, case

_VERSION = re.compile(r"\d+(\.\d+)+")


def check(told: Server) -> None:
    """It names a product and a version, and the client library that is installed."""
    assert told.product and told.product == told.product.strip().lower(), told
    assert _VERSION.match(told.version), told
    if told.client:
        assert told.client_version == metadata.version(told.client), told
    else:
        assert not told.client_version, told


@case()
async def the_backend_says_what_it_is(env: Env) -> None:
    """Product and version are told off the live connection, with the client library that is
    installed."""
    a = await env.connect()
    driver = env.session_of(a).driver
    told: Server = await driver.server()
    check(told)
    assert await driver.server() == told

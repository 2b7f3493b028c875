"""What the backend says of itself: what a lease was proved on, and by which client."""

from __future__ import annotations

import re
from importlib import metadata

import tenure

from ..._model import Server
from ...errors import BackendError
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
    installed; and the same again after a restart of the server."""
    a = await env.connect()
    driver = env.session_of(a).driver
    told: Server = await driver.server()
    check(told)
    assert await driver.server() == told
    server = env.backend.server
    if server is None:
        return
    server.restart(graceful=False)
    give_up = tenure.now() + 10
    while True:
        try:
            again = await driver.server()
            break
        except BackendError:
            assert tenure.now() < give_up, "it does not answer after a restart"
        await env.pause(0.05)
    assert again == told

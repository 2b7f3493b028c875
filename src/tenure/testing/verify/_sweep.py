"""After a run on somebody's own server: nothing of it stays there, as far as the driver can tell.

Only namespaces with the mark of the run in their names are touched; nobody else has such.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..._coordinator import make_session
from ..._model import Traits
from ..._runtime.thread import ThreadRuntime, drive
from ...drivers.base import Driver
from ...drivers.document import DocumentDriver
from ...errors import TenureError, Unsupported

PREFIX = "verify-"
TTL_SECONDS = 4.0
KINDS = ("roster", "record", "session")


def sweep(url: str, traits: Traits, namespaces: Sequence[str], mark: str) -> list[str]:
    """Remove what the runs have left in these namespaces; returns what could not be removed.

    Those without the mark in their names are left alone. The claims of those that were killed
    are waited for: a session's time to live.
    """
    ttl = max(TTL_SECONDS, traits.min_ttl)
    give_up = time.monotonic() + 2 * ttl * traits.linger
    problems = []
    for namespace in (each for each in namespaces if mark in each):
        session = make_session(ThreadRuntime(), url, namespace, ttl, None, None)
        driver = session.driver
        try:
            drive(driver.open())
            try:
                while (left := drive(_swept(driver, mark))) and time.monotonic() < give_up:
                    time.sleep(0.2)
                if left:
                    problems.append(f"{namespace}: {', '.join(left)}")
            finally:
                drive(driver.close())
        except TenureError as error:
            problems.append(f"{namespace}: {error}")
    return problems


async def _swept(driver: Driver, mark: str) -> Sequence[str]:
    """Remove what can be removed now; returns what is still there, for who lives or seems to."""
    left: Sequence[str] = ()
    try:
        for name in await driver.recorded(""):
            record = await driver.recall(name)
            if record is not None:
                await driver.record(name, None, record.version)
        left = [name for name in await driver.rosters("") if await driver.census(name)]
    except Unsupported:
        pass  # it has locks only
    if left:
        return left
    if isinstance(driver, DocumentDriver):
        await _documents(driver)
    await _own(driver, mark)
    return ()


async def _documents(driver: DocumentDriver) -> None:
    for kind in KINDS:
        for name in await driver.names(kind):
            document, version = await driver.load(kind, name)
            if document is not None:
                await driver.save(kind, name, None, version)


async def _own(driver: Any, mark: str) -> None:
    """What only one driver has: the counter of its tokens, or a folder for each name."""
    module = type(driver).__module__.rpartition(".")[2]
    if module == "redis":
        await driver._wire.command(b"DEL", driver._keys.counter)
    elif module == "consul":
        for key in await driver._wire.keys(driver._keys.root, ""):
            await driver._wire.delete(key)
    elif module in ("zookeeper", "zake"):
        await _nodes(driver, await driver._any(), driver._paths.root)
    elif module in ("file", "_file_rosters"):
        folder = Path(driver._folder)
        if mark in folder.name:
            shutil.rmtree(folder, ignore_errors=True)


async def _nodes(driver: Any, link: Any, path: str) -> None:
    """Remove a node of ZooKeeper and all below it."""
    names, _ = await driver._wait(link, link.children(path))
    for child in names:
        await _nodes(driver, link, f"{path}/{child}")
    await driver._wait(link, link.delete(path))

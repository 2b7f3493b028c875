"""Passes TCP connections on, from an address in one network to one in another."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

_CHUNK = 65536
_SECONDS_MAX = 10.0
_TURNS = 10
"""More than a connection takes from being accepted to `_pass_on`: asyncio makes two tasks of it."""

Address = tuple[str, int]


class Relay:
    """Listens at one address and connects to another for each connection, in its own thread.

    enter, leave: called in the threads that open the sockets on this side and on that one,
        to go to the network in which they are to be.
    """

    def __init__(
        self, near: Address, far: Address, enter: Callable[[], None], leave: Callable[[], None]
    ) -> None:
        self._near = near
        self._far = far
        self._leave = leave
        self._links: set[asyncio.Task[None]] = set()
        self._errors: list[OSError] = []
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._listener = self._listen(enter)
        self._thread = threading.Thread(target=self._work, name="tenure-relay", daemon=True)
        self._thread.start()
        self._up.wait(_SECONDS_MAX)
        if self._errors:
            self.close()
            raise self._errors[0]

    def _listen(self, enter: Callable[[], None]) -> socket.socket:
        made: list[socket.socket | OSError] = []

        def listen() -> None:
            family = socket.AF_INET6 if ":" in self._near[0] else socket.AF_INET
            try:
                enter()
                made.append(socket.create_server(self._near, family=family))
            except OSError as error:
                made.append(error)

        thread = threading.Thread(target=listen, name="tenure-relay-listen")
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            self._loop.close()
            raise made[0]
        return made[0]

    def _work(self) -> None:
        try:
            self._leave()
            self._loop.run_until_complete(self._serve())
        except OSError as error:
            self._errors.append(error)
        finally:
            self._up.set()
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pass_on, sock=self._listener)
        self._stop = asyncio.Event()
        self._up.set()
        async with server:
            await self._stop.wait()
            # What was accepted just now takes some turns to begin, and would be left open by a
            # server that is closed before.
            self._loop.remove_reader(self._listener)
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            server.close()
            for link in list(self._links):
                link.cancel()
            await asyncio.gather(*self._links, return_exceptions=True)
            await asyncio.sleep(0)  # what is aborted is closed in the next turn

    async def _pass_on(self, here: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        writers = [back]
        try:
            there, on = await asyncio.open_connection(*self._far)
            writers.append(on)
            await asyncio.gather(_pump(here, on), _pump(there, back))
        except (OSError, asyncio.CancelledError):
            pass  # the other side hears of it by the end of its connection
        finally:
            self._links.discard(task)
            for writer in writers:
                writer.transport.abort()

    def close(self) -> None:
        """Drop every connection, and listen no more."""
        with contextlib.suppress(RuntimeError):  # it has ended by itself
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_SECONDS_MAX)
        self._listener.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()

"""The hash ring of a group."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from .._hashring import HashRing, K, Key
from .._recipes.ring import RingChange, RingRecipe
from ._group import Subscription
from ._run import run


class Ring:
    """Who of a group owns which key, by consistent hashing. Made by `Group.ring`.

    It is read when it is entered, and kept up to date in the background until the end of
    the block; asking it costs no round trip. While the backend is away it answers from what
    it read last. It says who should do the work; that nobody else does it at this moment,
    only a lock, or claims, can say.
    """

    __slots__ = ("_recipe",)

    def __init__(self, recipe: RingRecipe) -> None:
        self._recipe = recipe

    @property
    def group(self) -> str:
        """The group's name."""
        return self._recipe.group.name

    @property
    def snapshot(self) -> HashRing:
        """The ring as it is at this moment, which never changes: one answer to many questions.

        Raises `ClosedError` if the ring is not open.
        """
        return self._recipe.current()

    def owner(self, key: Key) -> str | None:
        """The id of the member that owns the key; None if there is no member."""
        return self._recipe.current().owner(key)

    def owners(self, key: Key, count: int) -> tuple[str, ...]:
        """The owner, and who would be if those before were gone: `count` members at most."""
        return self._recipe.current().owners(key, count)

    def is_mine(self, key: Key) -> bool:
        """Say whether the member that the ring was made with owns the key.

        It owns nothing once it has left, or its session is lost.
        """
        return self._recipe.is_mine(key)

    def mine(self, keys: Iterable[K]) -> list[K]:
        """Those of the keys that the member that the ring was made with owns, in their order.

        They are none once it has left, or its session is lost.
        """
        return self._recipe.mine(keys)

    async def on_change(self, callback: Callable[[RingChange], object]) -> Subscription:
        """Have `callback(change)` called, in the background, when ownership has moved.

        `change.moves(keys)` tells which of the keys went from whom to whom. They come one at
        a time and in order; several changes in quick succession may be told as one. An error
        of the callback is logged. It ends with the ring, at the latest.
        """
        return Subscription(self._recipe.follow(callback))

    async def open(self) -> None:
        """Read the group, and begin to follow it; the same as entering. Idempotent."""
        await run(self._recipe.open())

    async def close(self) -> None:
        """Follow the group no more, and end what `on_change` began. Idempotent."""
        await run(self._recipe.close())

    def __contains__(self, member: str) -> bool:
        return member in self._recipe.current()

    def __len__(self) -> int:
        return len(self._recipe.current())

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        state = "closed" if self._recipe.closed else repr(self._recipe.latest)[1:-1]
        return f"<ring of the group {self.group!r}: {state}>"

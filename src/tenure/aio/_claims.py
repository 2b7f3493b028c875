"""Claims of slots."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from types import TracebackType
from typing import Self

from .._coordinator import checked_name
from .._recipes.claims import ClaimsRecipe, Told
from .._recipes.group import GroupRecipe
from .._recipes.members import MemberInfo
from ..errors import InvalidArgument
from ._group import Member
from ._lock import Lease
from ._run import run

SLOTS_MAX = 10_000

Call = Callable[[str, Lease], object] | None


class Claims:
    """A member's share of a list of slots, each under a lease of its own. Made by `Member.claims`.

    From when it is entered to the end of the block, it takes the slots that are due to the
    member, and gives up those that are due to others, in the background, as members come
    and go. Of N slots and M members, each has N/M, rounded down or up, and no slot ever has
    two holders.
    """

    __slots__ = ("_recipe",)

    def __init__(self, recipe: ClaimsRecipe[Lease]) -> None:
        self._recipe = recipe

    @property
    def member(self) -> str:
        """The member's id."""
        return self._recipe.member.id

    @property
    def group(self) -> str:
        """The group's name."""
        return self._recipe.member.group

    @property
    def slots(self) -> tuple[str, ...]:
        """All the slots."""
        return self._recipe.slots

    @property
    def assigned(self) -> tuple[str, ...]:
        """The slots that are due to the member, as the group was read last; held or not yet."""
        wanted = self._recipe.wanted
        return tuple(slot for slot in self._recipe.slots if slot in wanted)

    def held(self) -> dict[str, Lease]:
        """The slots that it holds at this moment, each with its lease; no I/O."""
        return self._recipe.held()

    async def open(self) -> None:
        """Begin to take slots; the same as entering. Idempotent.

        Raises `LeaseLost` if the member has left or is lost.
        """
        await run(self._recipe.open())

    async def close(self) -> None:
        """Give up all slots, each after its `on_release`, and take no more. Idempotent.

        Waits for callbacks for up to ten seconds; a slot whose callback takes longer is
        released when that returns.
        """
        await run(self._recipe.close())

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
        held, due = self.held(), self.assigned
        shown = ", ".join(f"{slot!r} (token {held[slot].token})" for slot in list(held)[:5])
        shown += ", …" if len(held) > 5 else ""
        state = ", closed" if self._recipe.closed else ""
        return (
            f"<claims of {self.member!r} in {self.group!r}{state}: {len(held)} held, {len(due)} due"
            f" of {len(self.slots)}{': ' if shown else ''}{shown}>"
        )


def claims(
    member: Member,
    slots: Iterable[str],
    on_gain: Call,
    on_release: Call,
    on_lost: Call,
    weights: Callable[[MemberInfo], float] | None,
    ignore: Collection[str],
) -> Claims:
    """The claims of a member; `InvalidArgument` for slots and callbacks that cannot be."""
    if isinstance(slots, str):
        raise InvalidArgument(f"slots are several names, not the one text {slots!r:.60}")
    known = [checked_name(slot, "slot") for slot in slots]
    if not 1 <= len(known) <= SLOTS_MAX:
        raise InvalidArgument(f"there must be from 1 to {SLOTS_MAX:,} slots, not {len(known):,}")
    if len(set(known)) < len(known):
        twice = next(slot for slot in known if known.count(slot) > 1)
        raise InvalidArgument(f"the slot {twice!r} is named twice")
    for call in (on_gain, on_release, on_lost):
        if call is not None and not callable(call):
            raise InvalidArgument(f"a callback is a function of a slot and a lease, not {call!r}")
    group = GroupRecipe(member._session, member.group, Member)
    told = Told(on_gain, on_release, on_lost)
    return Claims(ClaimsRecipe(group, member, known, Lease, told, weights, ignore))

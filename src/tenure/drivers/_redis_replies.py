"""What the scripts of the redis driver return, and how names are written in their words."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from .._model import Claim, Roll
from ..errors import ProtocolError, SessionLost, Unsupported
from ..wires.redis import Reply

T = TypeVar("T")

_MEMBER = re.compile(rb"([0-9A-Za-z.]+)([ +])(.*)", re.DOTALL)


def gone() -> SessionLost:
    """The error for a session that its server does not know."""
    return SessionLost("redis: the session is gone: it expired, or the server lost its data")


def utf8(text: str) -> bytes:
    """A word to send."""
    return text.encode("utf-8", "surrogatepass")


def text_of(data: Any) -> str:
    """A word that came; nothing is an empty one."""
    return "" if data is None else checked(data, bytes).decode("utf-8", "surrogatepass")


def member_of(session: str, id: str, shared: bool = False) -> bytes:
    """A claim as it stands in its roster."""
    return utf8(f"{session}{'+' if shared else ' '}{id}")


def checked(reply: Any, kind: type[T]) -> T:
    """The reply if it is of that kind; `ProtocolError` if it is not."""
    if not isinstance(reply, kind):
        raise _odd()
    return reply


def listed(reply: Any, size: int | None = None) -> list[Any]:
    """The reply if it is a list, of that size; `ProtocolError` if it is not."""
    if not isinstance(reply, list) or len(reply) != (len(reply) if size is None else size):
        raise _odd()
    return reply


def owner_of(value: Any) -> str:
    """The owner's name in what a session's key holds."""
    return text_of(value).partition(" ")[2]


def roll_of(reply: Reply, roster: str, id: str, session: str, owner: str) -> Roll:
    """Read what the scripts' `look` returns, or the -1 for a dead session."""
    if reply == -1:
        raise gone()
    if reply == -2:
        raise Unsupported(f"redis: {roster!r} is held with lock=redlock: use the same strategy")
    token, rank, before, shared, head, head_token, value, head_body, body = listed(reply, 9)
    if head is None:
        return Roll()
    head_session, mark, head_id = _parts(head)
    first = Claim(
        roster,
        text_of(head_id),
        text_of(head_session),
        _token(head_token),
        owner_of(value),
        text_of(head_body),
        mark,
    )
    if token is None:
        return Roll((first,))
    if first.id == id and first.session == session:
        return Roll((first,), first)
    mine = Claim(roster, id, session, _token(token), owner, text_of(body), shared == 1)
    ahead = None if before is None else text_of(_parts(before)[2])
    return Roll((first, mine), mine, checked(rank, int), ahead)


def census_of(reply: Reply, roster: str) -> tuple[Claim, ...]:
    """Read what the script for a census returns."""
    members, texts, values = map(listed, listed(reply, 3))
    bodies = dict(zip(texts[::2], texts[1::2], strict=True))
    owners: dict[bytes, str | None] = {}
    claims = []
    for member, token in zip(members[::2], members[1::2], strict=True):
        session, mark, id = _parts(member)
        if session not in owners:
            value = values[len(owners)]
            owners[session] = None if value is None else owner_of(value)
        owner = owners[session]
        if owner is not None:
            words = roster, text_of(id), text_of(session), _token(token), owner
            claims.append(Claim(*words, text_of(bodies.get(member)), mark))
    return tuple(claims)


def _odd() -> ProtocolError:
    return ProtocolError("redis: the server answered something that the script does not return")


def _parts(member: bytes) -> tuple[bytes, bool, bytes]:
    """The session, whether the claim is shared, and the claim's id."""
    found = _MEMBER.match(member)
    if found is None:
        raise _odd()
    return found[1], found[2] == b"+", found[3]


def _token(score: Any) -> int:
    # Exact: a token is below 2**53, and a score is a double that Redis may write as 1e+15.
    return int(float(checked(score, bytes)))

"""The roster on ZooKeeper: a claim is an ephemeral numbered node.

Nodes are `/tenure/<namespace>/rosters/<roster>/<claim>`, names percent-encoded. All that
is in a claim but its body stands in its node's name. To claim is to create the node and to
read the names in its folder, both asked for at once. A waiter watches the node directly
before its own.

ZooKeeper carries out the requests of a session in the order in which they were made, also
over a change of server. So what was asked for and never answered has happened, or never
will, once a later request was answered; a claim in doubt is found by its id.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from .._model import Claim, Interest, Roll
from .._runtime.base import Runtime
from .._url import Url
from ..errors import SessionLost, Unavailable, Unsupported
from ..wires._zookeeper_api import BadVersion, Link, NoNode, Reply, Stat
from ._zookeeper_names import claim_of, entries_of, find, name_of, node_of, roll_of
from ._zookeeper_places import Bodies, Place
from ._zookeeper_records import NodeRecords, checked
from ._zookeeper_sessions import RACES, ZookeeperSessions
from .base import Wake

_AT_ONCE = 200
"""How many bodies are asked for before one of the answers is waited for."""


class ZookeeperRosters(ZookeeperSessions):
    """All of the driver but what it says of itself."""

    def __init__(self, url: Url, runtime: Runtime, namespace: str, ttl: float) -> None:
        super().__init__(url, runtime, namespace, ttl)
        self._bodies = Bodies()
        self.records = NodeRecords(self._paths, runtime, self._any, self._ask, self._make)

    # -- the roster --------------------------------------------------------

    async def claim(
        self,
        session: str,
        roster: str,
        id: str,
        body: str,
        width: int | None,
        shared: bool = False,
    ) -> Roll:
        link = self._of(session)
        place, fresh = self._places.take(session, roster, id, shared)
        async with place.turn:
            if fresh:
                place.body = body
            else:
                roll = await self.read(session, roster, id)
                if roll.mine is not None:
                    if width is None or roll.rank < width:
                        return roll
                    await self._delete(link, place)  # it was to be taken back
            roll = await self._enter(link, place, id, body, width)
            if roll.mine is None:
                self._places.drop(id)
            return roll

    async def _enter(self, link: Link, place: Place, id: str, body: str, width: int | None) -> Roll:
        roster, shared, folder = place.roster, place.shared, self._paths.of_roster(place.roster)
        owner = self._sessions[place.session][1] if place.session in self._sessions else ""
        name = node_of(place.session, id, owner, public=bool(body), shared=shared)
        data = checked(body.encode(), "a claim's body")
        alone = bool(body) and width is None  # it is there to be read, and waits for nobody
        missing = False
        for _ in range(RACES):
            if width is not None:
                roll = await self._roll(link, roster, "", shared)
                if roll.rank >= width:
                    return roll
            if missing:
                link.folder(folder)  # answered first; it may be there by now
            made = link.create(f"{folder}/{name}", data, own=True, numbered=True)
            seen = link.exists(folder) if alone else link.children(folder)
            try:
                found = await self._wait(link, made, seen)
                place.node = self._made(link, made)
            except NoNode:
                if made.successful():
                    return Roll()  # somebody has removed both, the claim and the folder
                if missing:
                    await self._make(link, folder)
                missing = True
                continue
            if alone:
                return _alone(roster, place.node, found, body)
            names, stat = found
            roll = roll_of(roster, names, stat, place.node, {place.node: body})
            place.before = _before(names, roll)
            if width is None or roll.mine is None or roll.rank < width:
                return await self._whole(link, roll, names)
            # Others have come at the same moment: look again whether it is taken.
            await self._delete(link, place)
        raise Unavailable("zookeeper: too many others claimed at the same time")

    def _made(self, link: Link, made: Reply) -> str:
        assert self._wire is not None
        path: str = self._wire.value(link, made)
        return path.rpartition("/")[2]

    async def _roll(self, link: Link, roster: str, mine: str, shared: bool) -> Roll:
        """The roll as seen from a node; from none, what one that came now would see."""
        folder = self._paths.of_roster(roster)
        try:
            names, stat = await self._wait(link, link.sync(folder), link.children(folder))
        except NoNode:
            return Roll()
        roll = roll_of(roster, names, stat, mine, {})
        if shared:
            rank = sum(not entry.shared for entry in entries_of(names))
            roll = roll._replace(rank=rank)
        return await self._whole(link, roll, names)

    async def _whole(self, link: Link, roll: Roll, names: Sequence[str]) -> Roll:
        """The same roll with the bodies of the public claims in it."""
        wanted = [each for each in {*roll.claims, roll.mine} if each is not None and not each.body]
        if not any("p:" in name[:3] for name in names):
            return roll
        nodes = {each.id: find(names, each.id) for each in wanted}
        nodes = {id: node for id, node in nodes.items() if node[1:2] == "p"}
        if not nodes:
            return roll
        known = await self._read(link, roll.claims[0].roster, list(nodes.values()))
        bodies = {id: known.get(node, "") for id, node in nodes.items()}

        def full(claim: Claim) -> Claim:
            return claim._replace(body=bodies.get(claim.id, claim.body))

        mine = None if roll.mine is None else full(roll.mine)
        return roll._replace(claims=tuple(map(full, roll.claims)), mine=mine)

    async def _read(self, link: Link, roster: str, nodes: list[str]) -> dict[str, str]:
        """The bodies of these nodes; of those that are gone, none."""
        assert self._wire is not None
        wire, folder, bodies = self._wire, self._paths.of_roster(roster), {}
        for start in range(0, len(nodes), _AT_ONCE):
            part = nodes[start : start + _AT_ONCE]
            replies = [link.get(f"{folder}/{node}") for node in part]
            with contextlib.suppress(NoNode):
                await self._ask(link, *replies)
            bodies.update(Bodies.read(part, replies, lambda reply: wire.value(link, reply)))
        return bodies

    async def amend(self, claim: Claim, body: str) -> Claim:
        place = self._places.get(claim.id)
        link = await self._link_of(claim.session)
        folder = self._paths.of_roster(claim.roster)
        node = place.node if place is not None else ""
        if not node:
            node = await self._find(link, claim.roster, claim.id)
        gone = SessionLost(f"zookeeper: the claim {claim.id} is gone")
        if not node:
            raise gone
        if node[1:2] != "p":
            raise Unsupported("zookeeper: a claim that was entered without a body gets none")
        path, data = f"{folder}/{node}", checked(body.encode(), "a claim's body")
        for _ in range(RACES):
            try:
                found, stat = await self._wait(link, link.get(path))
                now = found.decode(errors="replace")
                if now != claim.body:
                    break
                # The folder is written for those who watch it, and for `Bodies`.
                steps = ("set", path, data, stat.version), ("set", folder, node.encode(), -1)
                await self._wait(link, link.all(*steps))
                now = body
                break
            except BadVersion:
                continue
            except NoNode:
                raise gone from None
        else:
            raise Unavailable("zookeeper: too many others amended the claim")
        if now != body:
            raise SessionLost(f"zookeeper: the claim {claim.id} has another body by now")
        if place is not None:
            place.body = body
        return claim._replace(body=body)

    async def _find(self, link: Link, roster: str, id: str) -> str:
        folder = self._paths.of_roster(roster)
        try:
            names, _ = await self._wait(link, link.sync(folder), link.children(folder))
        except NoNode:
            return ""
        return find(names, id)

    async def _link_of(self, session: str) -> Link:
        """The session's own connection if it is one's own, or else any."""
        return self._of(session) if session in self._sessions else await self._any()

    async def withdraw(self, session: str, roster: str, id: str, width: int = 1) -> None:
        place = self._places.get(id)
        link = await self._link_of(session)
        if place is None:
            place = Place(session, roster, False, self.runtime.mutex())
        async with place.turn:
            if not place.node:
                # What may still be under way to enter it is carried out before this is read.
                place.node = await self._find(link, roster, id)
            if place.node:
                await self._delete(link, place)
            self._places.drop(id)

    async def _delete(self, link: Link, place: Place) -> None:
        path = f"{self._paths.of_roster(place.roster)}/{place.node}"
        with contextlib.suppress(NoNode):
            await self._wait(link, link.delete(path))
        place.node = ""

    async def read(self, session: str, roster: str, id: str, width: int = 1) -> Roll:
        place = self._places.get(id) if id else None
        link = await self._link_of(session)
        folder = self._paths.of_roster(roster)
        # Whoever stands in it needs no sync: what a server that lags behind does not know
        # yet is that those before it have gone.
        own = place is not None and bool(place.node)
        try:
            replies = () if own else (link.sync(folder),)
            names, stat = await self._wait(link, *replies, link.children(folder))
        except NoNode:
            return Roll()
        node = place.node if place is not None else ""
        if id and not node:
            node = find(names, id)
        bodies = {} if place is None else {node: place.body}
        roll = roll_of(roster, names, stat, node, bodies)
        if place is not None:
            place.node, place.before = node, _before(names, roll)
        return await self._whole(link, roll, names)

    async def census(self, roster: str) -> tuple[Claim, ...]:
        link, folder = await self._any(), self._paths.of_roster(roster)
        asked = link.sync(folder), link.children(folder), link.get(folder)
        try:
            newest, now = await self._ask(link, *asked)
        except NoNode:
            return ()
        if asked[1].exception is not None:
            return ()
        names, stat = asked[1].value
        entries = entries_of(names)
        public = {entry.node for entry in entries if entry.public}
        bodies: dict[str, str] = {}
        if public:
            amended = newest.decode(errors="replace") if now.version == stat.version else ""
            bodies = self._bodies.known(roster, stat, public, amended)
            bodies |= await self._read(link, roster, sorted(public - bodies.keys()))
            self._bodies.keep(roster, stat, bodies)
        return tuple(
            claim_of(roster, entry, stat, bodies.get(entry.node, ""))
            for entry in entries
            if entry.node in bodies or not entry.public
        )

    async def rosters(self, prefix: str) -> Sequence[str]:
        link, folder = await self._any(), self._paths.rosters
        try:
            nodes, _ = await self._ask(link, link.sync(folder), link.children(folder))
        except NoNode:
            return ()
        found = sorted((name, node) for node in nodes if (name := name_of(node)).startswith(prefix))
        replies = [link.exists(f"{folder}/{node}") for _, node in found]
        if replies:
            await self._ask(link, *replies)
        stats: list[Stat | None] = [reply.value for reply in replies]
        pairs = zip(found, stats, strict=True)
        return [name for (name, _), stat in pairs if stat is not None and stat.children]

    # -- wake-ups ----------------------------------------------------------

    async def listen(self, interest: Interest, wake: Wake) -> None:
        if interest.watch:
            self._ear.begin()
            await self._ear.watch(await self._any(), interest, "", wake)
            return
        link = self._of(interest.session)
        place = self._places.get(interest.id)
        folder = self._paths.of_roster(interest.roster)
        if place is None or not place.node:
            wake()  # it is gone: a look will tell
        elif interest.width == 1 and place.before:
            await self._ear.wait_behind(link, interest, f"{folder}/{place.before}", wake)
        else:
            await self._ear.watch(link, interest, place.node, wake)

    def unlisten(self, interest: Interest) -> None:
        self._ear.unlisten(interest)


def _before(names: Sequence[str], roll: Roll) -> str:
    """The node of the claim directly before the own one."""
    return "" if roll.before is None else find(names, roll.before)


def _alone(roster: str, node: str, stat: Stat | None, body: str) -> Roll:
    """The roll of a claim that was entered without a look at the others."""
    if stat is None:
        return Roll()
    (entry,) = entries_of([node])
    mine = claim_of(roster, entry, stat, body)
    return Roll((mine,), mine)

"""DISTRIBUTED_ACROSS_HOSTS: do hosts exclude each other that look the same?"""

from __future__ import annotations

from pathlib import Path

from ..._url import Url
from ...policy.characteristics import Characteristic
from ...policy.evidence import Fault
from ..kit.actor import Actor
from ..servers import _proc
from ._base import Found, Target, Untestable, experiment
from ._netns import Host, Network, masks_of, servers_of, unavailable
from ._party_cast import Cast, answered, still_holds
from ._party_spells import describe, fallen, overlap, race

TURNS = 6
TIMES = 20


@experiment(Characteristic.DISTRIBUTED_ACROSS_HOSTS)
def two_hosts_with_one_name(target: Target, found: Found) -> None:
    """A process on each of two hosts, which are namespaces with the same name and process ids
    and no folder in common that the URL names: they take turns with one lock, then race for it.
    Refuted by two inside at once, by sessions or owners that collide, and by a host that finds
    no backend where there is no server to reach."""
    if reason := unavailable():
        raise Untestable(reason)
    url = Url.parse(target.url)
    try:
        servers = servers_of(url) if target.traits.server else []
    except LookupError as error:
        raise Untestable(str(error)) from None
    masks = masks_of(url)
    found.parameters |= {"turns": TURNS, "times": TIMES, "masked": masks}
    with Network(servers, masks) as network, Cast(target, found, "hosts") as cast:
        actors = [cast.actor(prefix=host.prefix) for host in network.hosts]
        if not _connected(target, found, actors):
            return
        found.faults.append(_look(network.hosts, actors))
        names = ["the first host", "the second host"]
        if _take_turns(cast, found, list(zip(names, actors, strict=True))):
            return
        crowd = list(zip(names, actors, strict=True))
        found.counterexample = overlap(race(cast, found, crowd, cast.name(), TIMES))


def _connected(target: Target, found: Found, actors: list[Actor]) -> bool:
    """Whether both have a backend; a host that has none refutes what needs no server."""
    for number, actor in enumerate(actors, 1):
        answer = actor.answer()
        if "error" in answer:
            if target.traits.server:
                raise Untestable(f"host {number} did not connect: {describe(answer)}")
            found.counterexample = f"host {number} finds no backend: {describe(answer)}"
            return False
        actor.owner = answer["owner"]
    return True


def _look(hosts: list[Host], actors: list[Actor]) -> Fault:
    """What shows that the two are different hosts that look the same."""
    first, second = (host.inodes() for host in hosts)
    looks = [_looks(actor) for actor in actors]
    names = [actor.owner.rpartition(":")[0] for actor in actors]
    apart = all(first[kind] != second[kind] for kind in first)
    same = looks[0] == looks[1] != 0 and names[0] == names[1]
    return Fault(
        name="two hosts that look the same",
        confirmed=apart and same,
        proof=f"{first['net']} and {second['net']}; inside, both are {names[0]} with process id "
        f"{' and '.join(map(str, sorted(set(looks))))}",
    )


def _looks(actor: Actor) -> int:
    """The process id that the actor has inside of its host; 0 if it cannot be known."""
    for pid in _proc.descendants(actor.pid):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def _take_turns(cast: Cast, found: Found, hosts: list[tuple[str, Actor]]) -> bool:
    """Whether one got what the other held, or both are the same to the backend."""
    name, tokens = cast.name(), []
    looks: dict[str, set[str]] = {"owner": set(), "session": set()}
    for turn in range(TURNS):
        (holder, actor), (who, other) = hosts[turn % 2], hosts[1 - turn % 2]
        got = answered(actor.do("acquire", name=name, timeout=10), f"{holder} in its turn")
        tokens.append((holder, int(got["token"])))
        for kind, seen in looks.items():
            seen.add(got[kind])
        taken = answered(other.do("try", name=name), f"{who}, while the other held")
        found.trials += 1
        if taken["token"] is not None:
            still_holds(actor, name)
            found.counterexample = (
                f"{holder} held {name!r} with token {got['token']}, "
                f"and {who} got it with token {taken['token']}"
            )
            return True
        answered(actor.do("release", name=name), f"{holder}, releasing")
    for kind, seen in looks.items():
        if len(seen) < len(hosts):
            found.counterexample = f"both hosts have the {kind} {seen.pop()}"
            return True
    if falls := fallen(tokens):
        found.counterexample = falls
    return bool(found.counterexample)

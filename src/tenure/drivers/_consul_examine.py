"""What in a Consul cluster's configuration would break coordination."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from .._model import Finding, Server
from ..errors import AuthenticationFailed, BackendError, InvalidArgument
from ..wires.consul import ConsulWire

_UNITS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_OLDEST = (1, 7)
_CONNECTIONS_LEAST = 1000


async def check_ttl(wire: ConsulWire, ttl: float) -> dict[str, Any] | None:
    """What the agent says of itself; None if it may not be asked.

    `InvalidArgument` if it is a server and says that it allows no such session.
    """
    try:
        answer: dict[str, Any] = await wire.ask("agent/self")
        least = _least(answer)
    except BackendError:
        return None  # then the first session shows it
    if least is not None and ttl < least:
        raise InvalidArgument(
            f"consul: the servers allow no session shorter than {least:g} s (session_ttl_min), "
            f"and the ttl is {ttl:g} s; choose a longer ttl, or set session_ttl_min on every server"
        )
    return answer


async def server(wire: ConsulWire, known: dict[str, Any] | None) -> Server:
    """What the agent tells of itself and of the servers; `known`: what it has just told."""
    try:
        answer: dict[str, Any] = known or await wire.ask("agent/self")
    except AuthenticationFailed as error:
        text = f"{error}; the token lacks agent:read, which tells what the agent is"
        raise AuthenticationFailed(text) from error
    return Server("consul", _told(answer), _topology(answer.get("Stats") or {}))


def _topology(stats: dict[str, Any]) -> str:
    """How many servers vote, as one of them tells; an agent that is none knows of all."""
    count = str((stats.get("raft") or {}).get("latest_configuration", "")).count("Suffrage:Voter")
    known = str((stats.get("consul") or {}).get("known_servers", ""))
    if not count and known.isdecimal():
        count = int(known)
    if count == 1:
        return "standalone"
    return f"cluster of {count}" if count else ""


async def examine(wire: ConsulWire, ttl: float) -> list[Finding]:
    """The findings; what may not be read is one, too."""
    found: list[Finding] = []
    for look in (_cluster, _agent):
        try:
            found += await look(wire, ttl)
        except BackendError as error:
            text = f"It could not be read: {error}"
            advice = "Give the token agent:read, or ask somebody who may read it."
            found.append(Finding("note", look.__name__.strip("_"), text, advice))
    return found


async def _cluster(wire: ConsulWire, ttl: float) -> list[Finding]:
    found = []
    leader, peers = await wire.ask("status/leader"), await wire.ask("status/peers")
    if not leader:
        text = "The cluster has no leader: nothing can be locked, and nothing is renewed."
        found.append(Finding("error", "leader: none", text, "See to it that most servers run."))
    count = len(peers or ())
    if count == 1:
        text = "While this one server is down nothing can be locked, and leases are lost."
        advice = "Run three servers, or five, on different machines."
        found.append(Finding("warning", "servers: 1", text, advice))
    elif count and count % 2 == 0:
        text = f"{count} servers outlast no more failures than {count - 1}."
        found.append(Finding("note", f"servers: {count}", text, "Run an odd number of servers."))
    return found


async def _agent(wire: ConsulWire, ttl: float) -> list[Finding]:
    answer = await wire.ask("agent/self")
    debug = answer.get("DebugConfig") or {}
    return [
        *_session(answer, ttl),
        *_mode(debug),
        *_room(debug),
        *_access(debug),
        *_version(answer),
    ]


def _session(answer: dict[str, Any], ttl: float) -> Iterator[Finding]:
    least = _least(answer)
    if least is None:
        text = "This agent is no server, so what session the servers allow is not known here."
        advice = "If sessions are refused, choose a longer ttl, or set it on every server."
        yield Finding("note", "session_ttl_min", text, advice)
    elif ttl < least:
        text = f"No session may be shorter, and the ttl is {ttl:g} s: there will be none."
        advice = "Choose a longer ttl, or set session_ttl_min on every server."
        yield Finding("error", f"session_ttl_min: {least:g} s", text, advice)


def _mode(debug: dict[str, Any]) -> Iterator[Finding]:
    if debug.get("DevMode"):
        text = "Nothing is kept on disk: after a restart all is free, and tokens begin anew."
        yield Finding("error", "dev mode", text, "Start the agent without -dev.")


def _room(debug: dict[str, Any]) -> Iterator[Finding]:
    most = debug.get("HTTPMaxConnsPerClient")
    if isinstance(most, int) and 0 < most < _CONNECTIONS_LEAST:
        text = f"The coordinators on one host, or behind one address, have {most} connections."
        advice = (
            "Count on three for each, and one more for each name waited for; raise it if needed."
        )
        yield Finding("note", f"limits.http_max_conns_per_client: {most}", text, advice)


def _access(debug: dict[str, Any]) -> Iterator[Finding]:
    policy = debug.get("ACLDefaultPolicy", debug.get("ACLResolverSettings", {}))
    if isinstance(policy, dict):
        policy = policy.get("ACLDefaultPolicy")
    if debug.get("ACLsEnabled") is False:
        text = "Whoever reaches an agent can take, free and delete everything."
        yield Finding("note", "acl.enabled: false", text, "Turn access control on.")
    elif policy == "allow":
        text = "Whoever has no token can take, free and delete what no policy names."
        yield Finding("note", "acl.default_policy: allow", text, "Set the policy to deny.")


def _version(answer: dict[str, Any]) -> Iterator[Finding]:
    text = _told(answer)
    numbers = tuple(int(each) for each in re.findall(r"\d+", text)[:2])
    if numbers and numbers < _OLDEST:
        said = "Older than 1.7 it ties every session to the health of the agent asked."
        yield Finding("error", f"version {text}", said, "Use Consul 1.7 or newer.")


def _told(answer: dict[str, Any]) -> str:
    return str((answer.get("Config") or {}).get("Version", ""))


def _least(answer: dict[str, Any]) -> float | None:
    """The shortest session that the servers allow, in seconds; None if the agent is none."""
    debug = answer.get("DebugConfig") or {}
    if not (answer.get("Config") or {}).get("Server"):
        return None
    return seconds(str(debug.get("SessionTTLMin", "")))


def seconds(text: str) -> float | None:
    """What Go calls a duration, such as `1m30s`, in seconds."""
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|\u00b5s|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in parts)

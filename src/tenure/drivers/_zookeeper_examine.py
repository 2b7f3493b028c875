"""What in the configuration of ZooKeeper would break coordination."""

from __future__ import annotations

from collections.abc import Iterator

from .._model import Finding, Server
from ..errors import Unsupported
from ..wires._zookeeper_api import Link
from ..wires.zookeeper import CLIENT, Wire

_CONNECTIONS_LEAST = 20


def server(wire: Wire, link: Link) -> Server:
    """What the server says of itself to which the link leads. Blocks."""
    answer = wire.ask_there(link, "srvr")
    version = answer.partition("Zookeeper version: ")[2].partition("\n")[0].partition(",")[0]
    if not version:
        raise Unsupported(
            f"zookeeper: {link.place.name} does not tell its version: its zoo.cfg must have srvr "
            "in 4lw.commands.whitelist"
        )
    mode = _facts(answer).get("Mode", "")
    topology = mode if mode in ("", "standalone") else "replicated"
    return Server("zookeeper", version, topology, *CLIENT)


def examine(wire: Wire, ttl: float, given: float) -> list[Finding]:
    """The findings about every host that the URL names. Blocks; it asks by four-letter words.

    ttl: what a session was asked to live, in seconds; given: what the server made of that.
    """
    found = list(_sessions(ttl, given))
    found += _access(wire)
    servers = {host: _facts(answer) for host, answer in wire.ask("conf").items()}
    modes = wire.ask("srvr")
    for host in servers:
        if modes[host].startswith("unreachable"):
            text = f"It does not answer: {modes[host]}. The others have to do without it."
            found.append(Finding("warning", host, text, "Start it, or leave it out of the URL."))
        elif "clientPort" not in servers[host] and "secureClientPort" not in servers[host]:
            text = "The words conf and srvr are not allowed, so it was not looked at."
            advice = "Set 4lw.commands.whitelist=conf,srvr in its zoo.cfg."
            found.append(Finding("note", f"{host}: 4lw.commands.whitelist", text, advice))
        else:
            found += _server(host, servers[host], _facts(modes[host]))
    return found + list(_ensemble(servers, modes))


def _sessions(ttl: float, given: float) -> Iterator[Finding]:
    if given > ttl * 1.01:
        yield Finding(
            "warning",
            f"minSessionTimeout: {given:g} s",
            f"The server keeps no session for less, so what a killed process holds stays taken for "
            f"{given:g} s, and not for the TTL of {ttl:g} s.",
            "Take a TTL of that length, or set a shorter tickTime or minSessionTimeout.",
        )


def _access(wire: Wire) -> Iterator[Finding]:
    settings = wire.settings
    if settings.credentials is None:
        yield Finding(
            "note",
            "no credentials",
            "All nodes are open: whoever can connect can remove claims and end sessions.",
            "Put a user and a password into the URL; all clients of a namespace need the same.",
        )
    elif not settings.tls and not settings.sasl:
        yield Finding(
            "note",
            "auth=digest without TLS",
            "The password goes over the network as it is.",
            "Connect with tls=true, or with auth=sasl.",
        )


def _server(host: str, conf: dict[str, str], mode: dict[str, str]) -> Iterator[Finding]:
    if mode.get("Mode") == "read-only":
        yield Finding(
            "error",
            f"{host}: read-only",
            "It is cut off from the majority, and takes no lock.",
            "See to the others, and to the network between them.",
        )
    limit = int(conf.get("maxClientCnxns", "0"))
    if 0 < limit < _CONNECTIONS_LEAST:
        yield Finding(
            "warning",
            f"{host}: maxClientCnxns: {limit}",
            "So many coordinators can connect from one address, and not one more.",
            "Set it to the number of processes on a host, or to 0 for no limit.",
        )


def _ensemble(servers: dict[str, dict[str, str]], modes: dict[str, str]) -> Iterator[Finding]:
    if any("Mode: standalone" in answer for answer in modes.values()):
        yield Finding(
            "warning",
            "standalone",
            "There is one server. While it is down nothing can be had, and leases are lost.",
            "Run three, where that matters.",
        )
    sizes = {
        size
        for conf in servers.values()
        if (size := sum(key.startswith("server.") and "observer" not in conf[key] for key in conf))
    }
    for size in sizes:
        if size % 2 == 0:
            yield Finding(
                "warning",
                f"{size} servers",
                f"A majority is {size // 2 + 1}, so it bears no more failures than "
                f"{size - 1} would, and has more servers that can fail.",
                "Add one, or take one away.",
            )


def _facts(answer: str) -> dict[str, str]:
    """The lines of an answer, whatever stands between a name and its value."""
    facts = {}
    for line in answer.splitlines():
        for mark in ("=", "\t", ": "):
            name, found, value = line.partition(mark)
            if found:
                facts[name.strip()] = value.strip()
                break
    return facts

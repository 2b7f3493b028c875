"""What an operator asks etcd of its own state: status, alarms, members, and the space quota."""

from __future__ import annotations

import contextlib
import http.client
import re
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ProtocolError
from ._etcd_api import Member, Status
from ._etcd_proto import _fields, _number

ALARMS = {1: "NOSPACE", 2: "CORRUPT"}

_QUOTA = re.compile(rb"^etcd_server_quota_backend_bytes (\S+)$", re.MULTILINE)
_METRICS_BYTES_MAX = 1 << 22


# -- gRPC --------------------------------------------------------------------

ALARM_REQUEST = _number(1, 0)  # AlarmRequest.GET, of all members


def status_reply(data: bytes) -> Status:
    """A StatusResponse."""
    texts: dict[int, bytes] = {}
    numbers: dict[int, int] = {}
    for field, number, text in _fields(data):
        texts[field], numbers[field] = text, number
    version = texts.get(2, b"").decode("ascii", "replace")
    return Status(version, numbers.get(3, 0), numbers.get(9, 0), numbers.get(12, 0))


def alarm_reply(data: bytes) -> list[str]:
    """An AlarmResponse."""
    kinds = [
        number
        for field, _, text in _fields(data)
        if field == 2
        for part, number, _ in _fields(text)
        if part == 2
    ]
    return _names(kinds)


def members_reply(data: bytes) -> list[Member]:
    """A MemberListResponse."""
    members = []
    for field, _, text in _fields(data):
        if field == 2:
            name, learner = "", False
            for part, number, value in _fields(text):
                if part == 2:
                    name = value.decode("utf-8", "replace")
                elif part == 5:
                    learner = bool(number)
            members.append(Member(name, learner))
    return members


def _names(kinds: Sequence[int]) -> list[str]:
    return sorted({ALARMS.get(kind, f"alarm {kind}") for kind in kinds if kind})


# -- JSON --------------------------------------------------------------------


def status_json(message: Mapping[str, Any]) -> Status:
    """The same from the gateway."""
    size, in_use, quota = (_int(message, key) for key in ("dbSize", "dbSizeInUse", "dbSizeQuota"))
    return Status(str(message.get("version", "")), size, in_use, quota)


def alarm_json(message: Mapping[str, Any]) -> list[str]:
    """The same from the gateway, which names the alarms."""
    return sorted({str(each.get("alarm", "NONE")) for each in message.get("alarms", ())} - {"NONE"})


def members_json(message: Mapping[str, Any]) -> list[Member]:
    """The same from the gateway."""
    return [
        Member(str(each.get("name", "")), bool(each.get("isLearner")))
        for each in message.get("members", ())
    ]


def _int(message: Mapping[str, Any], key: str) -> int:
    try:
        return int(message.get(key, 0))
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"etcd: {key} is no number in an answer") from error


# -- the quota ---------------------------------------------------------------


def quota(host: str, port: int, tls: Mapping[str, str] | None, seconds: float) -> int | None:
    """The space quota in bytes, from the metrics that each member serves; None if it does not.

    `tls` has the files of the URL's options 'ca', 'cert' and 'key'. Blocks.
    """
    link: http.client.HTTPConnection
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError, OverflowError):
        if tls is None:
            link = http.client.HTTPConnection(host, port, timeout=seconds)
        else:
            context = ssl.create_default_context(cafile=tls.get("ca"))
            if "cert" in tls:
                context.load_cert_chain(tls["cert"], tls["key"])
            link = http.client.HTTPSConnection(host, port, timeout=seconds, context=context)
        with contextlib.closing(link):
            link.request("GET", "/metrics")
            found = _QUOTA.search(link.getresponse().read(_METRICS_BYTES_MAX))
            return int(float(found[1])) if found else None
    return None

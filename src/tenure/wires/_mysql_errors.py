"""What the error numbers of MySQL and MariaDB come to."""

from __future__ import annotations

from ..errors import AuthenticationFailed, BackendError, StorageError, TenureError, Unavailable
from ._mysql_packets import Trouble
from .links import Withdrawn

NO_SUCH_TABLE = 1146
DUPLICATE_KEY = 1062


class Refused(BackendError):
    """The server refused a statement; `code` is its error number."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


_GONE = {
    1053: "the server shuts down",
    1927: "the connection was killed",
    4031: "the server ended the connection, since it was idle for too long",
}
"""What the server says when it ends a connection, whatever was asked."""

_WITHDRAWN = {1317}
_RETRIED = {
    *(1205, 1213, 3058),  # waited too long for a row; deadlocks, which only others can cause
    *(1040, 1203, 1226, 1129),  # too many connections; a host that is blocked
    *(1290, 1792, 1836, 3100),  # read-only
    *(1037, 1038, 1041, 1135),  # out of memory
    *(1047, 1180, 1158, 1159, 1160, 1161),  # a node without its cluster; the network
}
_DENIED = {
    *(1044, 1045, 1095, 1142, 1143, 1227, 1251, 1370, 1396, 1410, 1698, 1820, 1862),
    *(1524, 1862, 2059, 2061, 3118, 3159, 4151),
}
_STORAGE = {3, 5, 1021, 1030, 1114, 1118, 1153, 1406, 1712, 3675}


def ending(trouble: Trouble) -> str | None:
    """Why the connection is over, if that is what the server says."""
    if trouble.code in _GONE:
        return _GONE[trouble.code]
    return None if trouble.asked else trouble.text or "the server ended the connection"


def refusal(code: int, text: str) -> TenureError:
    """The error that a statement, or an attempt to connect, ended with."""
    said = f"mysql: {' '.join(text.split())}"
    if code in _WITHDRAWN:
        return Withdrawn(said)
    if code in _RETRIED:
        return Unavailable(said)
    if code in _DENIED:
        return AuthenticationFailed(said)
    if code in _STORAGE:
        return StorageError(said)
    if code == 1049:
        return Refused(f"{said}; the URL's path names the database", code)
    return Refused(said, code)

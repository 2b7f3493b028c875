"""What MySQL and MariaDB send in reply to a statement, taken apart; no I/O.

The text protocol: a reply is one packet that says OK, one that says what went wrong, or a
result: the number of columns, their descriptions, a mark, the rows, a mark.
"""

from __future__ import annotations

from typing import NamedTuple

from .links import Row

PACKET_MAX = 0xFFFFFF
"""A packet of just this length is continued in the next one."""

_OK, _END, _ERROR, _NULL = 0x00, 0xFE, 0xFF, 0xFB
_MORE_RESULTS = 0x0008


class Trouble(NamedTuple):
    """An error that the server told. `asked` is false if nobody had asked it anything."""

    code: int
    text: str
    asked: bool = True


class Reply(NamedTuple):
    """What one statement came to: its rows, or how many rows it has changed."""

    rows: list[Row]
    changed: int = 0
    trouble: Trouble | None = None


class Malformed(Exception):
    """What came is no reply of this protocol."""


def query(statement: bytes) -> bytes:
    """The packets that carry a statement to the server."""
    size = len(statement) + 1
    if size < PACKET_MAX:
        return b"%b\0\x03%b" % (size.to_bytes(3, "little"), statement)
    body = b"\x03" + statement
    packets = []
    # The last one is shorter than the longest possible, if need be empty.
    for number, at in enumerate(range(0, size + 1, PACKET_MAX)):
        part = body[at : at + PACKET_MAX]
        packets += [len(part).to_bytes(3, "little"), bytes((number & 0xFF,)), part]
    return b"".join(packets)


QUIT = b"\x01\0\0\0\x01"
"""The packet that takes leave."""


class Replies:
    """Takes replies out of the stream of what arrives, however it is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._long = bytearray()  # the beginning of a packet that is continued
        self._columns = -1  # those yet to be described; -1 when a reply begins
        self._rows: list[Row] | None = None

    def feed(self, data: bytes) -> Reply | None:
        """Take in what arrived; return the reply if it is complete.

        Nothing may follow a reply, since only one statement is under way at a time.
        """
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        at, end = 0, len(buffer)
        reply: Reply | None = None
        while end - at >= 4:
            start = at + 4
            stop = start + (buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16)
            if stop > end:
                break
            if reply is not None:
                raise Malformed("more than one reply to one statement")
            payload = bytes(buffer[start:stop])
            asked = buffer[at + 3] != 0
            at = stop
            if stop - start == PACKET_MAX:
                self._long += payload
                continue
            if self._long:
                payload = bytes(self._long) + payload
                self._long.clear()
            reply = self._packet(payload, asked)
        if buffer is self._buffer:
            del self._buffer[:at]
        elif at < end:
            self._buffer += data[at:]
        return reply

    def _packet(self, payload: bytes, asked: bool) -> Reply | None:
        try:
            if self._rows is not None:
                return self._row(payload)
            if self._columns >= 0:
                if payload[0] == _END and len(payload) < 9:
                    if self._columns:
                        raise Malformed("a result without all its columns")
                    self._rows = []
                else:
                    self._columns -= 1
                return None
            return self._first(payload, asked)
        except IndexError:
            raise Malformed("a packet ends too early") from None

    def _first(self, payload: bytes, asked: bool) -> Reply | None:
        kind = payload[0]
        if kind == _ERROR:
            return Reply([], 0, _trouble(payload, asked))
        if kind == _OK:
            changed, at = _number(payload, 1)
            _, at = _number(payload, at)
            return self._done([], changed, payload[at])
        if kind == _NULL:
            raise Malformed("the server asks for a file of this machine")
        self._columns, _ = _number(payload, 0)
        return None

    def _row(self, payload: bytes) -> Reply | None:
        rows = self._rows
        assert rows is not None
        kind = payload[0]
        if kind == _END and len(payload) < 9:
            self._columns, self._rows = -1, None
            return self._done(rows, 0, payload[3])
        if kind == _ERROR:
            self._columns, self._rows = -1, None
            return Reply([], 0, _trouble(payload, True))
        row: list[bytes | None] = []
        at, end = 0, len(payload)
        while at < end:
            if payload[at] == _NULL:
                row.append(None)
                at += 1
            else:
                size, at = _number(payload, at)
                row.append(payload[at : at + size])
                at += size
        if at > end:
            raise Malformed("a value ends too early")
        rows.append(tuple(row))
        return None

    @staticmethod
    def _done(rows: list[Row], changed: int, status: int) -> Reply:
        if status & _MORE_RESULTS:
            raise Malformed("several results for one statement")
        return Reply(rows, changed)


def _number(payload: bytes, at: int) -> tuple[int, int]:
    """A length-encoded number, and where it ends."""
    first = payload[at]
    if first < 0xFB:
        return first, at + 1
    size = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first)
    if size is None or at + 1 + size > len(payload):
        raise Malformed("a number cannot be read")
    return int.from_bytes(payload[at + 1 : at + 1 + size], "little"), at + 1 + size


def _trouble(payload: bytes, asked: bool) -> Trouble:
    code = payload[1] | payload[2] << 8
    text = payload[9:] if payload[3:4] == b"#" else payload[3:]
    return Trouble(code, text.decode(errors="replace"), asked)

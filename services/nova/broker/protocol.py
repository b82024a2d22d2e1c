"""The wire format of AMQP 0-9-1: frames, method numbers, and the values in methods' arguments.

Pure and shared: nova-broker and the RPC client's hot path parse and build their frames here. It knows neither who
is speaking nor what a method means. A frame is type u8, channel u16, size u32, payload, 0xCE; a method's payload
begins with class u16 and method u16, read and written here as one number (basic.publish: 60 << 16 | 40).

    splitter = FrameSplitter()                    bytes -> frames
    for kind, channel, payload in splitter.feed(data): ...
    method(1, BASIC_ACK, U64.pack(tag) + b"\\0")   one frame
    content(1, DELIVER + arguments, header, body, frame_max)   the frames of one message

Source: AMQP 0-9-1 specification, section 4.2; https://www.rabbitmq.com/resources/specs/amqp0-9-1.pdf.
"""

from __future__ import annotations

import struct
from typing import Any

from nova.broker import table

PROTOCOL_HEADER = b"AMQP\0\0\x09\x01"

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE
FRAME_OVERHEAD = 8  # seven bytes before the payload and the end octet behind it
FRAME_MIN = 4096  # the smallest frame_max that a peer may ask for (section 4.2.3)
FRAME_MAX = 131072  # what RabbitMQ offers

U8 = struct.Struct(">B")
U16 = struct.Struct(">H")
U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")
CONTENT_HEAD_SIZE = 14  # of a content header without properties
FRAME_HEAD = struct.Struct(">BHI")
METHOD_HEAD = struct.Struct(">BHII")

HEARTBEAT_FRAME = b"\x08\0\0\0\0\0\0\xce"

CONNECTION_START = 10 << 16 | 10
CONNECTION_START_OK = 10 << 16 | 11
CONNECTION_SECURE = 10 << 16 | 20
CONNECTION_SECURE_OK = 10 << 16 | 21
CONNECTION_TUNE = 10 << 16 | 30
CONNECTION_TUNE_OK = 10 << 16 | 31
CONNECTION_OPEN = 10 << 16 | 40
CONNECTION_OPEN_OK = 10 << 16 | 41
CONNECTION_CLOSE = 10 << 16 | 50
CONNECTION_CLOSE_OK = 10 << 16 | 51
CONNECTION_BLOCKED = 10 << 16 | 60
CONNECTION_UNBLOCKED = 10 << 16 | 61
CONNECTION_UPDATE_SECRET = 10 << 16 | 70
CONNECTION_UPDATE_SECRET_OK = 10 << 16 | 71

CHANNEL_OPEN = 20 << 16 | 10
CHANNEL_OPEN_OK = 20 << 16 | 11
CHANNEL_FLOW = 20 << 16 | 20
CHANNEL_FLOW_OK = 20 << 16 | 21
CHANNEL_CLOSE = 20 << 16 | 40
CHANNEL_CLOSE_OK = 20 << 16 | 41

EXCHANGE_DECLARE = 40 << 16 | 10
EXCHANGE_DECLARE_OK = 40 << 16 | 11
EXCHANGE_DELETE = 40 << 16 | 20
EXCHANGE_DELETE_OK = 40 << 16 | 21
EXCHANGE_BIND = 40 << 16 | 30
EXCHANGE_BIND_OK = 40 << 16 | 31
EXCHANGE_UNBIND = 40 << 16 | 40
EXCHANGE_UNBIND_OK = 40 << 16 | 51

QUEUE_DECLARE = 50 << 16 | 10
QUEUE_DECLARE_OK = 50 << 16 | 11
QUEUE_BIND = 50 << 16 | 20
QUEUE_BIND_OK = 50 << 16 | 21
QUEUE_PURGE = 50 << 16 | 30
QUEUE_PURGE_OK = 50 << 16 | 31
QUEUE_DELETE = 50 << 16 | 40
QUEUE_DELETE_OK = 50 << 16 | 41
QUEUE_UNBIND = 50 << 16 | 50
QUEUE_UNBIND_OK = 50 << 16 | 51

BASIC_QOS = 60 << 16 | 10
BASIC_QOS_OK = 60 << 16 | 11
BASIC_CONSUME = 60 << 16 | 20
BASIC_CONSUME_OK = 60 << 16 | 21
BASIC_CANCEL = 60 << 16 | 30
BASIC_CANCEL_OK = 60 << 16 | 31
BASIC_PUBLISH = 60 << 16 | 40
BASIC_RETURN = 60 << 16 | 50
BASIC_DELIVER = 60 << 16 | 60
BASIC_GET = 60 << 16 | 70
BASIC_GET_OK = 60 << 16 | 71
BASIC_GET_EMPTY = 60 << 16 | 72
BASIC_ACK = 60 << 16 | 80
BASIC_REJECT = 60 << 16 | 90
BASIC_RECOVER_ASYNC = 60 << 16 | 100
BASIC_RECOVER = 60 << 16 | 110
BASIC_RECOVER_OK = 60 << 16 | 111
BASIC_NACK = 60 << 16 | 120

CONFIRM_SELECT = 85 << 16 | 10
CONFIRM_SELECT_OK = 85 << 16 | 11

TX_SELECT = 90 << 16 | 10
TX_SELECT_OK = 90 << 16 | 11
TX_COMMIT = 90 << 16 | 20
TX_COMMIT_OK = 90 << 16 | 21
TX_ROLLBACK = 90 << 16 | 30
TX_ROLLBACK_OK = 90 << 16 | 31

Frame = tuple[int, int, bytes]


class MalformedFrame(ValueError):
    """The stream is no sequence of frames any more (reply code 501): the connection is useless.

    The text is in RabbitMQ's words, Erlang terms and all.
    """

    def __init__(self, kind: int, payload: bytes, reason: str) -> None:
        super().__init__(f"{describe_frame(kind, payload)}: {reason}")


class MalformedArguments(ValueError):
    """A method's arguments end early or hold what their type forbids (reply code 502)."""


class FrameSplitter:
    """Cuts a stream of bytes into frames. `frame_max` counts the whole frame, as connection.tune does."""

    __slots__ = ("_rest", "frame_max")

    def __init__(self, frame_max: int = FRAME_MAX) -> None:
        self.frame_max = frame_max
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that `data` completes, as (type, channel, payload).

        Raises `MalformedFrame` for a frame over `frame_max` and for a wrong end octet; frames before it in the
        same `data` are lost, and further calls are of no use.
        """
        if self._rest:
            data = self._rest + data
        frames = []
        start, size, head = 0, len(data), FRAME_HEAD.unpack_from
        largest = self.frame_max - FRAME_OVERHEAD
        while size - start >= FRAME_HEAD.size:
            kind, channel, length = head(data, start)
            if length > largest:
                raise MalformedFrame(kind, b"", f"{{frame_too_large,{length},{largest}}}")
            end = start + 7 + length
            if end >= size:
                break
            if data[end] != FRAME_END:
                reason = f"{{invalid_frame_end_marker,{data[end]}}}"
                raise MalformedFrame(kind, data[start + 7 : end], reason)
            frames.append((kind, channel, data[start + 7 : end]))
            start = end + 1
        self._rest = data[start:]
        return frames

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return len(self._rest)


def is_whole_message(frames: list[Frame], index: int) -> bool:
    """Whether the method at `index` is followed by its content header and all of its body, as almost every one is."""
    if index + 2 >= len(frames):
        return False
    header_kind, header_channel, header = frames[index + 1]
    body_kind, body_channel, body = frames[index + 2]
    return (
        header_kind == HEADER
        and body_kind == BODY
        and frames[index][1] == header_channel == body_channel
        and len(header) >= CONTENT_HEAD_SIZE
        and U64.unpack_from(header, 4)[0] == len(body) != 0
    )


def describe_frame(kind: int, payload: bytes) -> str:
    """A frame in the words of an error text."""
    return f"type {kind}, all octets = {describe_octets(payload)}"


def describe_octets(data: bytes) -> str:
    """Bytes as Erlang writes them."""
    if data.isascii() and data.decode().isprintable():
        return f'<<"{data.decode()}">>' if data else "<<>>"
    return f"<<{','.join(map(str, data[:100]))}>>"


def method_of(kind: int, payload: bytes) -> int:
    """The number of the method in a frame, 0 where it carries content. Raises `MalformedFrame`."""
    if kind != METHOD:
        return 0
    if len(payload) < 4:
        raise MalformedFrame(kind, payload, "unknown_frame")
    number: int = U32.unpack_from(payload)[0]
    return number


def method_at_fault(kind: int, payload: bytes) -> int:
    """The number of the method that a frame's fault is blamed on: content belongs to basic.publish."""
    if kind != METHOD:
        return BASIC_PUBLISH
    number: int = U32.unpack_from(payload)[0] if len(payload) >= 4 else 0
    return 0 if number == CONNECTION_START_OK else number  # as RabbitMQ answers a refused login


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """One frame."""
    return b"%b%b\xce" % (FRAME_HEAD.pack(kind, channel, len(payload)), payload)


def method(channel: int, method_id: int, arguments: bytes = b"") -> bytes:
    """One method frame; `arguments` are encoded already."""
    return b"%b%b\xce" % (METHOD_HEAD.pack(METHOD, channel, len(arguments) + 4, method_id), arguments)


def content(channel: int, method_payload: bytes, header: bytes, body: bytes, frame_max: int) -> bytes:
    """The frames of a message: the method (its number and arguments), the content header, the body in pieces."""
    size, head = len(body), FRAME_HEAD.pack
    if size <= frame_max - FRAME_OVERHEAD:
        if not size:
            return b"%b%b\xce%b%b\xce" % (
                head(METHOD, channel, len(method_payload)),
                method_payload,
                head(HEADER, channel, len(header)),
                header,
            )
        return b"%b%b\xce%b%b\xce%b%b\xce" % (
            head(METHOD, channel, len(method_payload)),
            method_payload,
            head(HEADER, channel, len(header)),
            header,
            head(BODY, channel, size),
            body,
        )
    step = frame_max - FRAME_OVERHEAD
    parts = [frame(METHOD, channel, method_payload), frame(HEADER, channel, header)]
    parts += [frame(BODY, channel, body[i : i + step]) for i in range(0, size, step)]
    return b"".join(parts)


def shortstr(text: str | bytes) -> bytes:
    """A string of at most 255 bytes with its length in front. Raises `ValueError` for a longer one."""
    raw = text.encode() if isinstance(text, str) else text
    return bytes((len(raw),)) + raw


def longstr(raw: bytes) -> bytes:
    """A string with its length in 32 bits in front."""
    return U32.pack(len(raw)) + raw


class Arguments:
    """Reads a method's arguments in order. Every reader raises `MalformedArguments` when there is too little.

    Bits that follow one another share an octet: read it once with `octet` and mask it.
    """

    __slots__ = ("_data", "_position")

    def __init__(self, payload: bytes, start: int = 4) -> None:
        self._data = payload
        self._position = start

    def _take(self, size: int) -> int:
        start = self._position
        end = start + size
        if end > len(self._data):
            raise MalformedArguments("the arguments end early")
        self._position = end
        return start

    def octet(self) -> int:
        return self._data[self._take(1)]

    def short(self) -> int:
        value: int = U16.unpack_from(self._data, self._take(2))[0]
        return value

    def long(self) -> int:
        value: int = U32.unpack_from(self._data, self._take(4))[0]
        return value

    def longlong(self) -> int:
        value: int = U64.unpack_from(self._data, self._take(8))[0]
        return value

    def shortstr(self) -> str:
        size = self.octet()
        start = self._take(size)
        try:
            return str(self._data[start : start + size], "utf-8")
        except UnicodeDecodeError as error:
            raise MalformedArguments("a short string is not UTF-8") from error

    def longstr(self) -> bytes:
        size = self.long()
        start = self._take(size)
        return self._data[start : start + size]

    def table(self) -> dict[str, Any]:
        try:
            value, self._position = table.decode(self._data, self._position)
        except table.MalformedTable as error:
            raise MalformedArguments(str(error)) from error
        return value

    def is_at_end(self) -> bool:
        return self._position >= len(self._data)

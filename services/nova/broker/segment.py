"""One file of the journal: messages of durable queues, and what became of them.

A file only grows, by records: size u32, CRC-32 u32, kind u8, payload. `P` is a message, `D` names messages that
were delivered once, `A` such that are settled; `D` and `A` stand in the file of their messages, so that a file can be
understood, compacted and deleted without the others. Reading stops at the first record that is cut off or
damaged: the tail that a crash left.
"""

from __future__ import annotations

import functools
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from nova.broker import protocol
from nova.broker.message import Message

RECORD_HEAD = struct.Struct(">IIB")
_NUMBER = struct.Struct(">Q")
_MESSAGE = struct.Struct(">QQBQ")  # number, queue's number, redelivered, expiry (Unix time in ms, 0: never)
_U32 = struct.Struct(">I")
_FIXED_SIZE = RECORD_HEAD.size + _MESSAGE.size + _U32.size  # of a `P` record
PUBLISHED, DELIVERED, SETTLED = ord("P"), ord("D"), ord("A")


class Stored(NamedTuple):
    """A message as a file holds it; `payload` is what the record carries."""

    number: int
    queue: int
    redelivered: bool
    expires_ms: int
    payload: bytes


def encode_record(kind: int, payload: bytes) -> bytes:
    return RECORD_HEAD.pack(len(payload), zlib.crc32(payload), kind) + payload


@functools.lru_cache(maxsize=1024)
def _names(exchange: str, routing_key: str) -> bytes:
    """Where a message was published, encoded: a few places are where almost all messages come from."""
    return protocol.shortstr(exchange) + protocol.shortstr(routing_key)


def encode_message(message: Message, queue: int, expires_ms: int) -> bytes:
    """The payload of a `P` record."""
    return b"%b%b%b%b%b" % (
        _MESSAGE.pack(message.number, queue, message.redelivered, expires_ms),
        _names(message.exchange, message.routing_key),
        _U32.pack(len(message.header)),
        message.header,
        message.body,
    )


def record_size(message: Message) -> int:
    """The bytes of the message's `P` record."""
    names = len(_names(message.exchange, message.routing_key))
    return _FIXED_SIZE + names + len(message.header) + len(message.body)


def decode_content(payload: bytes) -> tuple[str, str, bytes, bytes]:
    """Exchange, routing key, header and body of a `P` record's payload."""
    position = _MESSAGE.size
    texts = []
    for _ in range(2):
        end = position + 1 + payload[position]
        texts.append(payload[position + 1 : end].decode())
        position = end
    end = position + 4 + _U32.unpack_from(payload, position)[0]
    return texts[0], texts[1], payload[position + 4 : end], payload[end:]


def records(data: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Kind, payload and end offset of each whole record, up to the first that is not."""
    position, size = 0, len(data)
    while position + RECORD_HEAD.size <= size:
        length, checksum, kind = RECORD_HEAD.unpack_from(data, position)
        start = position + RECORD_HEAD.size
        position = start + length
        payload = data[start:position]
        if position > size or zlib.crc32(payload) != checksum:
            return
        yield kind, payload, position


def alive(data: bytes) -> tuple[list[Stored], int]:
    """The messages of a file that are not settled, in their order, and the length of its undamaged part."""
    found: dict[int, Stored] = {}
    end = 0
    for kind, payload, end in records(data):  # noqa: B007 (the last value is the result)
        if kind == PUBLISHED and len(payload) >= _MESSAGE.size:
            number, queue, redelivered, expires_ms = _MESSAGE.unpack_from(payload)
            found[number] = Stored(number, queue, bool(redelivered), expires_ms, payload)
        elif kind == SETTLED:
            for (number,) in _NUMBER.iter_unpack(payload):
                found.pop(number, None)
        elif kind == DELIVERED:
            for (number,) in _NUMBER.iter_unpack(payload):
                if number in found:
                    found[number] = found[number]._replace(redelivered=True)
    return list(found.values()), end


class Segment:
    """An open file; what is added waits in memory until `write`."""

    __slots__ = (
        "_delivered",
        "_pending",
        "_settled",
        "fd",
        "live",
        "live_bytes",
        "path",
        "pending_bytes",
        "size",
    )

    def __init__(self, path: Path) -> None:
        """Opens or makes the file. Raises `OSError`."""
        self.path = path
        self.fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self.fd).st_size
        self.live = 0  # messages not settled
        self.live_bytes = 0
        self._pending: list[bytes] = []
        self._delivered: list[int] = []
        self._settled: list[int] = []
        self.pending_bytes = 0

    def add_message(self, payload: bytes) -> None:
        record = encode_record(PUBLISHED, payload)
        self._pending.append(record)
        self.pending_bytes += len(record)
        self.live += 1
        self.live_bytes += len(record)

    def add_delivered(self, number: int) -> None:
        self._delivered.append(number)
        self.pending_bytes += _NUMBER.size

    def add_settled(self, number: int, message_bytes: int) -> None:
        """`message_bytes` is the size of the message's record, about."""
        self._settled.append(number)
        self.pending_bytes += _NUMBER.size
        self.live -= 1
        self.live_bytes -= message_bytes

    def write(self) -> None:
        """Hands what waits to the operating system: from then on it survives this process.

        Raises `OSError`; then the file is as before and everything waits on.
        """
        if not self.pending_bytes:
            return
        records = [*self._pending, *_numbers(DELIVERED, self._delivered), *_numbers(SETTLED, self._settled)]
        data = memoryview(b"".join(records))
        written = 0
        try:
            while written < len(data):
                written += os.write(self.fd, data[written:])
        except OSError:
            os.ftruncate(self.fd, self.size)
            raise
        self.size += written
        self._pending.clear()
        self._delivered.clear()
        self._settled.clear()
        self.pending_bytes = 0

    def sync(self) -> None:
        """Returns when the disk has it. Raises `OSError`."""
        os.fdatasync(self.fd)

    def cut(self, length: int) -> None:
        """Drops a damaged tail."""
        os.ftruncate(self.fd, length)
        self.size = length

    def compact(self) -> None:
        """Replaces the file by one that holds its live messages alone; atomic. Raises `OSError`."""
        self.write()
        stored, _ = alive(self.path.read_bytes())
        fresh = self.path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        copy = Segment(fresh)
        try:
            for each in stored:
                copy.add_message(mark_redelivered(each.payload) if each.redelivered else each.payload)
            copy.write()
            copy.sync()
            os.rename(fresh, self.path)
        except OSError:
            copy.close()
            raise
        os.close(self.fd)
        self.fd, self.size = copy.fd, copy.size
        self.live, self.live_bytes = copy.live, copy.live_bytes

    def close(self) -> None:
        os.close(self.fd)

    def delete(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def _numbers(kind: int, numbers: list[int]) -> list[bytes]:
    """The `D` or `A` record of these messages, if there are any."""
    return [encode_record(kind, struct.pack(f">{len(numbers)}Q", *numbers))] if numbers else []


def mark_redelivered(payload: bytes) -> bytes:
    return payload[:16] + b"\1" + payload[17:]

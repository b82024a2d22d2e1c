"""The content header of a message: its body's size and the fourteen properties of class basic.

Pure. The header travels through the broker and the RPC client as opaque bytes; what a hot path needs from it is
found by offset (`locate`), never by decoding the whole. Layout: class id u16, weight u16, body size u64, flags
u16, then the present properties in the order of their flags (AMQP 0-9-1, section 4.2.6.1 and the class basic).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Mapping
from typing import Any

from nova.broker import table

BASIC_CLASS = 60
PERSISTENT = 2  # delivery_mode

_HEAD = struct.Struct(">HHQH")
_SIZE = struct.Struct(">Q")
_FLAGS = struct.Struct(">H")
_U32 = struct.Struct(">I")
_U64 = struct.Struct(">Q")

# Name -> (flag, kind): a short string, a table, an octet or a 64-bit timestamp.
FIELDS: dict[str, tuple[int, str]] = {
    "content_type": (1 << 15, "text"),
    "content_encoding": (1 << 14, "text"),
    "headers": (1 << 13, "table"),
    "delivery_mode": (1 << 12, "octet"),
    "priority": (1 << 11, "octet"),
    "correlation_id": (1 << 10, "text"),
    "reply_to": (1 << 9, "text"),
    "expiration": (1 << 8, "text"),
    "message_id": (1 << 7, "text"),
    "timestamp": (1 << 6, "time"),
    "type": (1 << 5, "text"),
    "user_id": (1 << 4, "text"),
    "app_id": (1 << 3, "text"),
    "cluster_id": (1 << 2, "text"),
}
_SIMPLE = sum(FIELDS[name][0] for name in ("content_type", "delivery_mode", "correlation_id")).to_bytes(2, "big")
_SIMPLE_SIZE = _HEAD.size + 3  # an empty type, a mode, an empty id
_ROWS = tuple((flag, name, kind) for name, (flag, kind) in FIELDS.items())


class MalformedHeader(ValueError):
    """The bytes are no content header of class basic."""


def body_size(header: bytes) -> int:
    """The size of the body in bytes. Raises `MalformedHeader`."""
    if len(header) < _HEAD.size:
        raise MalformedHeader(f"a content header of {len(header)} bytes is too short")
    size: int = _SIZE.unpack_from(header, 4)[0]
    return size


def flags_of(header: bytes) -> int:
    """The property flags; `header` must have passed `body_size`."""
    flags: int = _FLAGS.unpack_from(header, 12)[0]
    return flags


def locate(header: bytes) -> dict[str, tuple[int, int]]:
    """Each present property's slice of `header`, in its encoded form. Raises `MalformedHeader`."""
    body_size(header)
    flags = flags_of(header)
    if flags & 1:
        raise MalformedHeader("continued property flags: class basic has none")
    position, end, found = _HEAD.size, len(header), {}
    for name, kind in _present(flags):
        start = position
        position += _extent(header, position, kind)
        if position > end:
            raise MalformedHeader(f"ends inside the property {name}")
        found[name] = (start, position)
    return found


def mode_of_simple(header: bytes) -> int | None:
    """The delivery mode of a header with just a content type, that mode and a correlation id, None of any other.

    So look the calls and casts of `nova.rpc`, each with another id: `locate` takes five times as long.
    """
    size = len(header)
    if size < _SIMPLE_SIZE or header[12:14] != _SIMPLE:
        return None
    position = _HEAD.size + 1 + header[_HEAD.size]
    if position + 1 >= size or position + 2 + header[position + 1] != size:
        return None
    return header[position]


@functools.lru_cache(maxsize=256)
def _present(flags: int) -> tuple[tuple[str, str], ...]:
    """Name and kind of each property that the flags announce, in their order: a publisher has one or two sets."""
    return tuple((name, kind) for flag, name, kind in _ROWS if flags & flag)


def _extent(header: bytes, position: int, kind: str) -> int:
    if kind == "text":
        return 1 + header[position] if position < len(header) else 1
    if kind == "octet":
        return 1
    if kind == "time":
        return 8
    return 4 + _U32.unpack_from(header, position)[0] if position + 4 <= len(header) else 4


def read(header: bytes, name: str) -> Any:
    """One property decoded, None where it is absent. Raises `MalformedHeader`."""
    if not flags_of(header) & FIELDS[name][0]:
        return None
    return _decode(header, name, locate(header)[name])


def decode(header: bytes) -> dict[str, Any]:
    """All present properties. Raises `MalformedHeader`."""
    return {name: _decode(header, name, extent) for name, extent in locate(header).items()}


def _decode(header: bytes, name: str, extent: tuple[int, int]) -> Any:
    start, end = extent
    kind = FIELDS[name][1]
    if kind == "octet":
        return header[start]
    if kind == "time":
        return table.Timestamp(_U64.unpack_from(header, start)[0])
    try:
        if kind == "text":
            return str(header[start + 1 : end], "utf-8")
        return table.decode(header, start)[0]
    except ValueError as error:
        raise MalformedHeader(f"property {name}: {error}") from error


def encode(size: int, properties: Mapping[str, Any]) -> bytes:
    """The content header of a body of `size` bytes. A value of None counts as absent. Raises `ValueError`."""
    flags, parts = 0, []
    for flag, name, kind in _ROWS:
        value = properties.get(name)
        if value is not None:
            flags |= flag
            parts.append(_encode(kind, value))
    unknown = properties.keys() - FIELDS.keys()
    if unknown:
        raise ValueError(f"no such property: {', '.join(sorted(unknown))}")
    return _HEAD.pack(BASIC_CLASS, 0, size, flags) + b"".join(parts)


def _encode(kind: str, value: Any) -> bytes:
    if kind == "octet":
        return bytes((value,))
    if kind == "time":
        return _U64.pack(int(value))
    if kind == "table":
        return table.encode(value)
    raw = value.encode() if isinstance(value, str) else bytes(value)
    return bytes((len(raw),)) + raw


def replace(header: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """`header` with some properties exchanged for encoded ones, or removed (None). Raises `MalformedHeader`."""
    found = locate(header)
    flags, parts = 0, []
    for flag, name, _ in _ROWS:
        if name in changes:
            encoded = changes[name]
        else:
            encoded = header[slice(*found[name])] if name in found else None
        if encoded is not None:
            flags |= flag
            parts.append(encoded)
    return _HEAD.pack(BASIC_CLASS, 0, body_size(header), flags) + b"".join(parts)

"""Field tables of AMQP 0-9-1: the typed dictionaries in arguments and message headers.

Pure: bytes in, values out, and back. The type letters are those that RabbitMQ uses, which differ from the text
of the specification (https://www.rabbitmq.com/amqp-0-9-1-errata.html#section_3). Decoding checks every length
against what is there and limits the depth: no input makes it read beyond the end or recurse without bound.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

MAX_DEPTH = 32  # RabbitMQ sets no limit; what is nested deeper than this is no message of ours but an attack

_U32 = struct.Struct(">I")
_FIXED = {
    ord("b"): struct.Struct(">b"),
    ord("B"): struct.Struct(">B"),
    ord("s"): struct.Struct(">h"),
    ord("u"): struct.Struct(">H"),
    ord("I"): struct.Struct(">i"),
    ord("i"): struct.Struct(">I"),
    ord("l"): struct.Struct(">q"),
    ord("L"): struct.Struct(">q"),
    ord("f"): struct.Struct(">f"),
    ord("d"): struct.Struct(">d"),
    ord("T"): struct.Struct(">Q"),
}
_DECIMAL = struct.Struct(">Bi")


class MalformedTable(ValueError):
    """The bytes are no field table, or the value has no place in one."""


class Timestamp(int):
    """Seconds since the epoch, as the type letter `T` carries them; an int that keeps its type."""


def decode(data: bytes, start: int = 0) -> tuple[dict[str, Any], int]:
    """The table at `start` of `data`, which begins with its length, and the offset behind it.

    Strings become `str` where they are UTF-8, otherwise `bytes`. Raises `MalformedTable`.
    """
    return _table(data, start, 0)


def encode(values: Mapping[str, Any]) -> bytes:
    """The table with its length in front. Integers take the smallest of `I` and `l` that holds them.

    Raises `MalformedTable` for a value that AMQP has no type for.
    """
    return join({key: encode_value(value) for key, value in values.items()})


def split(data: bytes, start: int = 0) -> dict[str, bytes]:
    """The fields of the table at `start`, each still encoded with its type letter: the inverse of `join`.

    This is how one header is replaced without a change to the types of the others. Raises `MalformedTable`.
    """
    fields, position, end = {}, start + 4, _end(data, start, _length(data, start))
    while position < end:
        key, value_start = _key(data, position, end)
        _, position = _value(data, value_start, end, 1)
        fields[key] = bytes(data[value_start:position])
    return fields


def join(fields: Mapping[str, bytes]) -> bytes:
    """A table of fields that are encoded already, its length in front."""
    parts: list[bytes] = []
    for key, value in fields.items():
        name = key.encode()
        if len(name) > 255:
            raise MalformedTable(f"field name of {len(name)} bytes: at most 255")
        parts += (bytes((len(name),)), name, value)
    body = b"".join(parts)
    return _U32.pack(len(body)) + body


def encode_value(value: Any) -> bytes:
    """One value with its type letter in front. Raises `MalformedTable`."""
    for kinds, encoder in _ENCODERS:
        if isinstance(value, kinds):
            return encoder(value)
    raise MalformedTable(f"{type(value).__name__} has no AMQP field type")


def decode_value(data: bytes) -> Any:
    """The value of one field as `split` returns it. Raises `MalformedTable`."""
    return _value(data, 0, len(data), 1)[0]


def encode_array(values: list[bytes]) -> bytes:
    """An array of values that are encoded already."""
    return _with_length(b"A", b"".join(values))


def _encode_int(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"I" + struct.pack(">i", value)
    if -(2**63) <= value < 2**63:
        return b"l" + struct.pack(">q", value)
    raise MalformedTable(f"{value} does not fit into 64 bits")


def _encode_decimal(value: Decimal) -> bytes:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int):
        raise MalformedTable(f"{value} is not a number")
    scale = max(0, -exponent)
    unscaled = int("".join(map(str, digits)) or "0") * 10 ** max(0, exponent)
    if scale > 255 or unscaled >= 2**31 + sign:
        raise MalformedTable(f"{value} does not fit into a decimal of 32 bits")
    return b"D" + _DECIMAL.pack(scale, -unscaled if sign else unscaled)


def _with_length(letter: bytes, data: bytes) -> bytes:
    return letter + _U32.pack(len(data)) + data


_ENCODERS: tuple[tuple[Any, Any], ...] = (
    (bool, lambda value: b"t\1" if value else b"t\0"),
    (Timestamp, lambda value: b"T" + struct.pack(">Q", value)),
    (int, _encode_int),
    (str, lambda value: _with_length(b"S", value.encode())),
    ((bytes, bytearray), lambda value: _with_length(b"x", bytes(value))),
    (Mapping, lambda value: b"F" + encode(value)),
    ((list, tuple), lambda value: _with_length(b"A", b"".join(map(encode_value, value)))),
    (type(None), lambda value: b"V"),
    (float, lambda value: b"d" + struct.pack(">d", value)),
    (Decimal, _encode_decimal),
    (datetime, lambda value: b"T" + struct.pack(">Q", int(value.astimezone(UTC).timestamp()))),
)


def _length(data: bytes, start: int) -> int:
    if start < 0 or start + 4 > len(data):
        raise MalformedTable("ends inside a length")
    length: int = _U32.unpack_from(data, start)[0]
    return length


def _end(data: bytes, start: int, length: int, limit: int | None = None) -> int:
    end = start + 4 + length
    if end > (len(data) if limit is None else limit):
        raise MalformedTable(f"a length of {length} bytes reaches beyond the end")
    return end


def _key(data: bytes, start: int, limit: int) -> tuple[str, int]:
    end = start + 1 + data[start]
    if end > limit:
        raise MalformedTable("ends inside a field name")
    return _text(data[start + 1 : end]), end


def _text(raw: bytes) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise MalformedTable("a field name is not UTF-8") from error


def _table(data: bytes, start: int, depth: int) -> tuple[dict[str, Any], int]:
    if depth >= MAX_DEPTH:
        raise MalformedTable(f"nested deeper than {MAX_DEPTH}")
    end = _end(data, start, _length(data, start))
    values: dict[str, Any] = {}
    position = start + 4
    while position < end:
        key, position = _key(data, position, end)
        values[key], position = _value(data, position, end, depth + 1)
    return values, end


def _array(data: bytes, start: int, end: int, depth: int) -> list[Any]:
    if depth >= MAX_DEPTH:
        raise MalformedTable(f"nested deeper than {MAX_DEPTH}")
    values = []
    while start < end:
        value, start = _value(data, start, end, depth + 1)
        values.append(value)
    return values


def _value(data: bytes, start: int, limit: int, depth: int) -> tuple[Any, int]:
    if start >= limit:
        raise MalformedTable("ends where a value should begin")
    letter, start = data[start], start + 1
    fixed = _FIXED.get(letter)
    if fixed is not None:
        if start + fixed.size > limit:
            raise MalformedTable("ends inside a number")
        number = fixed.unpack_from(data, start)[0]
        return Timestamp(number) if letter == ord("T") else number, start + fixed.size
    if letter in b"SxFA":
        end = _end(data, start, _length(data, start), limit)
        if letter == ord("F"):
            return _table(data, start, depth)
        if letter == ord("A"):
            return _array(data, start + 4, end, depth), end
        raw = bytes(data[start + 4 : end])
        return (_string(raw) if letter == ord("S") else raw), end
    return _small(data, letter, start, limit)


def _small(data: bytes, letter: int, start: int, limit: int) -> tuple[Any, int]:
    if letter == ord("V"):
        return None, start
    if letter == ord("t") and start < limit:
        return data[start] != 0, start + 1
    if letter == ord("D") and start + _DECIMAL.size <= limit:
        scale, unscaled = _DECIMAL.unpack_from(data, start)
        return Decimal(unscaled).scaleb(-scale), start + _DECIMAL.size
    raise MalformedTable(f"unknown or cut off type {chr(letter)!r}")


def _string(raw: bytes) -> str | bytes:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw

"""Who a client is: the SASL mechanisms PLAIN and AMQPLAIN of connection.start-ok.

Pure. RabbitMQ's text for a refusal says nothing about which of name and password was wrong, and neither do we.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from nova.broker import table
from nova.broker.errors import ACCESS_REFUSED, COMMAND_INVALID, AmqpFault

MECHANISMS = b"PLAIN AMQPLAIN"


def check(mechanism: str, response: bytes, users: Mapping[str, str]) -> str:
    """The name of the user that `response` proves to be. Raises `AmqpFault`."""
    if mechanism not in MECHANISMS.decode().split():
        raise AmqpFault(COMMAND_INVALID, f"unknown authentication mechanism '{mechanism}'")
    name, password = _plain(response) if mechanism == "PLAIN" else _amqplain(response)
    expected = users.get(name)
    if expected is None or not _is_same(password.encode(), expected.encode()):
        raise AmqpFault(
            ACCESS_REFUSED,
            f"Login was refused using authentication mechanism {mechanism}. For details see the broker logfile.",
        )
    return name


def _plain(response: bytes) -> tuple[str, str]:
    parts = response.split(b"\0")
    if len(parts) != 3:
        return "", ""
    return parts[1].decode(errors="replace"), parts[2].decode(errors="replace")


def _amqplain(response: bytes) -> tuple[str, str]:
    """A field table without its length."""
    try:
        fields, _ = table.decode(struct.pack(">I", len(response)) + response)
    except table.MalformedTable:
        return "", ""
    return str(fields.get("LOGIN", "")), str(fields.get("PASSWORD", ""))


def _is_same(one: bytes, other: bytes) -> bool:
    """In a time that does not tell how much of them agrees."""
    if len(one) != len(other):
        return False
    difference = 0
    for a, b in zip(one, other, strict=True):
        difference |= a ^ b
    return difference == 0

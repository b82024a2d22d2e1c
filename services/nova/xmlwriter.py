"""XML out of nested values, for both of the APIs. Pure.

A value is text, a number, a bool, a time, a mapping of children, or a sequence, which repeats its element; None
leaves it out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from xml.sax.saxutils import escape

# What XML 1.0 cannot hold, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def document(name: str, value: Mapping[str, Any], namespace: str | None = None) -> bytes:
    """A whole document."""
    attribute = f' xmlns="{namespace}"' if namespace else ""
    body = "".join(_element(child, item) for child, item in value.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{name}{attribute}>{body}</{name}>'.encode()


def _element(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return "".join(_element(name, item) for item in value)
    return f"<{name}>{_content(value)}</{name}>"


def _content(value: Any) -> str:
    if isinstance(value, Mapping):
        return "".join(_element(child, item) for child, item in value.items())
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return timestamp(value)
    return text(str(value))


def text(value: str) -> str:
    """Text as XML holds it; a carriage return survives a parser only as a reference."""
    return escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value), {"\r": "&#13;"})


def timestamp(value: datetime) -> str:
    """ISO 8601 with milliseconds, in UTC."""
    value = value.astimezone(UTC)
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"

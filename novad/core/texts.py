"""The texts of configuration files as values: how one is read, and what several are compared by. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping


def digest(texts: Mapping[str, str]) -> str:
    """What the texts of configuration files are compared by, in the order in which they were read."""
    joined = "\0".join(part for pair in texts.items() for part in pair)
    return hashlib.sha256(joined.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def text(raw: bytes) -> str:
    """A configuration file as it is read: without a byte order mark, lines ended in one way. Raises `ValueError`."""
    return raw.decode("utf-8-sig").replace("\r\n", "\n")

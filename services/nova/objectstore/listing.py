"""One page of a bucket's listing: keys in order, grouped by a delimiter. Pure.

Keys are UTF-8 bytes, because S3 sorts by them. The store is reached through `fetch(start, limit)`: the entries
whose key is >= `start`, in order, at most `limit`. A group of a million keys behind one common prefix costs one
fetch: the listing jumps behind the prefix instead of reading through it.
Invariant: pages taken one after another give exactly what one large page gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Entry(Protocol):
    @property
    def key(self) -> bytes: ...


E = TypeVar("E", bound=Entry)


@dataclass
class Page(Generic[E]):
    entries: list[E] = field(default_factory=list)
    prefixes: list[bytes] = field(default_factory=list)
    is_truncated: bool = False
    last: bytes = b""  # the last key or common prefix of the page; the next page begins after it


def behind(prefix: bytes) -> bytes:
    """The smallest key after every key that begins with `prefix`; 0xFF is never part of UTF-8."""
    return prefix + b"\xff"


def after(key: bytes) -> bytes:
    """The smallest key greater than `key`."""
    return key + b"\x00"


def page(
    fetch: Callable[[bytes, int], Sequence[E]],
    *,
    prefix: bytes = b"",
    delimiter: bytes = b"",
    marker: bytes = b"",
    limit: int = 1000,
) -> Page[E]:
    """At most `limit` entries and common prefixes after `marker`, which may itself be a common prefix."""
    result: Page[E] = Page()
    position = max(prefix, _start(marker, prefix, delimiter))
    while (room := limit - len(result.entries) - len(result.prefixes)) >= 0:
        jump = None
        for entry in fetch(position, room + 1):  # one more than fits, to learn whether anything follows
            if not entry.key.startswith(prefix):
                return result
            if room == 0:
                result.is_truncated = limit > 0
                return result
            room -= 1
            group = _group(entry.key, prefix, delimiter)
            if group is not None:
                result.prefixes.append(group)
                result.last, jump = group, behind(group)
                break
            result.entries.append(entry)
            result.last = entry.key
        if jump is None:
            return result
        position = jump
    return result


def _start(marker: bytes, prefix: bytes, delimiter: bytes) -> bytes:
    if not marker:
        return b""
    group = _group(marker, prefix, delimiter) if marker.startswith(prefix) else None
    return behind(marker) if group == marker else after(marker)


def _group(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """The common prefix that stands for `key`, or None where it stands for itself."""
    if not delimiter:
        return None
    end = key.find(delimiter, len(prefix))
    return None if end < 0 else key[: end + len(delimiter)]

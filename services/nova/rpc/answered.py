"""The replies that this process gave last, for the requests that come twice.

Pure. A connection that breaks may lose an acknowledgement that was on its way: the request comes again, and
gets the reply it had. Bounded in number and bytes, the oldest go first; whoever must be sure keeps a journal.
"""

from __future__ import annotations

from collections import OrderedDict

MAX_COUNT = 2048
MAX_BYTES = 8 * 1024 * 1024


class Answered:
    """unique id -> the bytes of the reply (empty for a cast)."""

    def __init__(self, max_count: int = MAX_COUNT, max_bytes: int = MAX_BYTES) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._bytes = 0
        self._replies: OrderedDict[str, bytes] = OrderedDict()

    def get(self, unique_id: str) -> bytes | None:
        return self._replies.get(unique_id)

    def add(self, unique_id: str, reply: bytes) -> None:
        self._bytes += len(reply) - len(self._replies.pop(unique_id, b""))
        self._replies[unique_id] = reply
        while self._bytes > self._max_bytes or len(self._replies) > self._max_count:
            _, gone = self._replies.popitem(last=False)
            self._bytes -= len(gone)

"""The messages of a queue that wait for a consumer, in order.

Pure. Order is priority first where the queue has priorities, then arrival; a message that comes back (requeue)
goes to the place its number gives it, so that an order that was there survives a consumer's death. What came back
is kept in a heap beside the line of those that never left: a million of them return in n log n steps.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator

from nova.broker.message import Message


class Backlog:
    """First in, first out, by number."""

    __slots__ = ("_fresh", "_returned", "append")

    def __init__(self) -> None:
        self._fresh: deque[Message] = deque()
        self._returned: list[tuple[int, Message]] = []
        self.append = self._fresh.append

    def __len__(self) -> int:
        return len(self._fresh) + len(self._returned)

    def __iter__(self) -> Iterator[Message]:
        """In the order of `pop`."""
        return heapq.merge((message for _, message in sorted(self._returned)), self._fresh, key=_number)

    def first(self) -> Message:
        """The message that `pop` would take. Raises `IndexError` where there is none."""
        if self._is_returned_first():
            return self._returned[0][1]
        return self._fresh[0]

    def pop(self) -> Message:
        """Takes the first message. Raises `IndexError` where there is none."""
        if self._is_returned_first():
            return heapq.heappop(self._returned)[1]
        return self._fresh.popleft()

    def _is_returned_first(self) -> bool:
        returned, fresh = self._returned, self._fresh
        return bool(returned) and (not fresh or returned[0][0] < fresh[0].number)

    def put_back(self, message: Message) -> None:
        """Returns a popped message to its place."""
        heapq.heappush(self._returned, (message.number, message))

    def clear(self) -> list[Message]:
        """Removes and returns all."""
        messages = list(self)
        self._fresh.clear()
        self._returned.clear()
        return messages


class PriorityBacklog:
    """A `Backlog` for every priority from 0 to `highest`; higher ones go first."""

    __slots__ = ("_lines", "highest")

    def __init__(self, highest: int) -> None:
        self.highest = highest
        self._lines = [Backlog() for _ in range(highest + 1)]

    def _line(self, message: Message) -> Backlog:
        return self._lines[min(message.facts.priority, self.highest)]

    def __len__(self) -> int:
        return sum(map(len, self._lines))

    def __iter__(self) -> Iterator[Message]:
        for line in reversed(self._lines):
            yield from line

    def append(self, message: Message) -> None:
        self._line(message).append(message)

    def first(self) -> Message:
        for line in reversed(self._lines):
            if line:
                return line.first()
        raise IndexError("no message")

    def pop(self) -> Message:
        for line in reversed(self._lines):
            if line:
                return line.pop()
        raise IndexError("no message")

    def put_back(self, message: Message) -> None:
        self._line(message).put_back(message)

    def clear(self) -> list[Message]:
        return [message for line in reversed(self._lines) for message in line.clear()]


def _number(message: Message) -> int:
    return message.number

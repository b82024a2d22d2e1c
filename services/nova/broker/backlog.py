"""The messages of a queue that wait for a consumer, in order.

Pure. Order is priority first where the queue has priorities, then arrival; a message that comes back (requeue)
goes to the place its number gives it, so that an order that was there survives a consumer's death.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from nova.broker.message import Message


class Backlog:
    """First in, first out."""

    __slots__ = ("_messages", "append", "pop")

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self.append = self._messages.append
        self.pop = self._messages.popleft

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages)

    def first(self) -> Message:
        """The message that `pop` would take. Raises `IndexError` where there is none."""
        return self._messages[0]

    def put_back(self, message: Message) -> None:
        """Returns a popped message to its place."""
        _insert(self._messages, message)

    def clear(self) -> list[Message]:
        """Removes and returns all."""
        messages = list(self._messages)
        self._messages.clear()
        return messages


class PriorityBacklog:
    """A first-in-first-out line for every priority from 0 to `highest`; higher ones go first."""

    __slots__ = ("_lines", "_size", "highest")

    def __init__(self, highest: int) -> None:
        self.highest = highest
        self._lines: list[deque[Message]] = [deque() for _ in range(highest + 1)]
        self._size = 0

    def _line(self, message: Message) -> deque[Message]:
        return self._lines[min(message.facts.priority, self.highest)]

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Message]:
        for line in reversed(self._lines):
            yield from line

    def append(self, message: Message) -> None:
        self._line(message).append(message)
        self._size += 1

    def first(self) -> Message:
        for line in reversed(self._lines):
            if line:
                return line[0]
        raise IndexError("no message")

    def pop(self) -> Message:
        message = self.first()
        self._line(message).popleft()
        self._size -= 1
        return message

    def put_back(self, message: Message) -> None:
        _insert(self._line(message), message)
        self._size += 1

    def clear(self) -> list[Message]:
        messages = list(self)
        for line in self._lines:
            line.clear()
        self._size = 0
        return messages


def _insert(line: deque[Message], message: Message) -> None:
    """Only messages that came back earlier are ahead of `message`, so this walks over few."""
    ahead = []
    while line and line[0].number < message.number:
        ahead.append(line.popleft())
    line.appendleft(message)
    line.extendleft(reversed(ahead))

"""When the broker's process looks for cycles of objects that nobody refers to any more: what closed connections leave.

The interpreter does it whenever a quarter more objects have survived, whatever there is to look through, and for that
time nobody is served: 0.3 s with a million messages. Messages are no litter, so this looks when they are few, and
otherwise only once many connections have been closed.
"""

from __future__ import annotations

import gc

# Full looks by the interpreter itself: never.
NEVER = 1_000_000_000
# Of the interpreter's smaller looks before ours, as by default.
SMALLER_LOOKS = 10
FEW_BYTES = 32 * 1024 * 1024
MANY_CLOSED = 1000


class Litter:
    """To be told of every turn, for a process that has nothing but a broker in it."""

    def __init__(self) -> None:
        often, seldom, _ = gc.get_threshold()
        gc.set_threshold(often, seldom, NEVER)
        self._closed_before = 0

    def end_turn(self, message_bytes: int, closed: int) -> bool:
        """`closed` is how many connections were closed since the start. Whether it looked."""
        if gc.get_count()[2] < SMALLER_LOOKS:
            return False
        if message_bytes > FEW_BYTES and closed - self._closed_before < MANY_CLOSED:
            return False
        self._closed_before = closed
        gc.collect()
        return True

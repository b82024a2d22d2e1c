"""The acknowledgements of one channel, merged: many in one frame where they follow each other.

Pure. `multiple` acknowledges all that was delivered up to a tag, so it is only used for tags before which nothing is
outstanding; every other one is acknowledged by itself. Tags grow, and a dict keeps their order.
"""

from __future__ import annotations


class Acks:
    """`outstanding` are the tags of what was delivered and must be settled, `due` those to acknowledge next."""

    __slots__ = ("due", "outstanding")

    def __init__(self) -> None:
        self.outstanding: dict[int, None] = {}
        self.due: set[int] = set()

    def take(self) -> list[tuple[int, bool]]:
        """What to send, as (tag, whether it stands for all before it too)."""
        acked, self.due = self.due, set()
        outstanding, frames = self.outstanding, []
        first = []
        for tag in outstanding:
            if tag not in acked:
                break
            first.append(tag)
        if first:
            frames.append((first[-1], len(first) > 1))
            for tag in first:
                del outstanding[tag]
            acked.difference_update(first)
        for tag in sorted(acked):
            outstanding.pop(tag, None)
            frames.append((tag, False))
        return frames

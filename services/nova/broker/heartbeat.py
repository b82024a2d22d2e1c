"""Heartbeats: proof of life while there is nothing else to say.

Pure; `tick` is called every half interval. A side that said nothing since the last tick sends a heartbeat; a peer
from which nothing came for twice the interval is dead (AMQP 0-9-1, section 4.2.7).
"""

from __future__ import annotations

TICKS_TO_DEATH = 4  # halves of the interval


class Heartbeat:
    """Both sides are known by the number of bytes that they have sent so far."""

    def __init__(self, interval_s: int) -> None:
        self.tick_s = interval_s / 2
        self._heard_bytes = -1
        self._said_bytes = -1
        self._silent_ticks = 0

    def tick(self, heard_bytes: int, said_bytes: int) -> bool:
        """Whether a heartbeat must be sent now; see `is_dead` as well."""
        self._silent_ticks = self._silent_ticks + 1 if heard_bytes == self._heard_bytes else 0
        must_speak = said_bytes == self._said_bytes
        self._heard_bytes, self._said_bytes = heard_bytes, said_bytes
        return must_speak

    @property
    def is_dead(self) -> bool:
        return self._silent_ticks >= TICKS_TO_DEATH

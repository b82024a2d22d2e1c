"""What a connection has to say and its socket has not taken yet.

Pure. Output collects during a turn and is sent in one call at its end (`take`, then `note_sent`). A client that
does not take it is congested: it gets no more deliveries and is not read, so that what waits for it is bounded.
"""

from __future__ import annotations

from collections.abc import Callable

CONGESTED_BYTES = 512 * 1024  # a few turns' worth; RabbitMQ leaves it to the kernel's buffers and its own credit


class Output:
    """`on_output` is called when there is something to take, `on_drained` when congestion is over."""

    __slots__ = (
        "_on_drained",
        "_on_output",
        "_pieces",
        "_pieces_bytes",
        "_untaken_bytes",
        "is_congested",
        "sent_bytes",
    )

    def __init__(self, on_output: Callable[[], None], on_drained: Callable[[], None]) -> None:
        self.is_congested = False
        self.sent_bytes = 0
        self._on_output = on_output
        self._on_drained = on_drained
        self._pieces: list[bytes] = []
        self._pieces_bytes = 0
        self._untaken_bytes = 0  # taken from here, but not by the socket

    def add(self, data: bytes) -> None:
        if not self._pieces:
            self._on_output()
        self._pieces.append(data)
        self._pieces_bytes += len(data)
        if self._pieces_bytes + self._untaken_bytes > CONGESTED_BYTES:
            self.is_congested = True

    def take(self) -> bytes:
        """All that was added since the last call."""
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._untaken_bytes += self._pieces_bytes
        self._pieces_bytes = 0
        return data

    def note_sent(self, size: int) -> None:
        """The socket took `size` bytes of what was taken from here."""
        self.sent_bytes += size
        self._untaken_bytes -= size
        if self.is_congested and self._untaken_bytes + self._pieces_bytes < CONGESTED_BYTES // 2:
            self.is_congested = False
            self._on_drained()

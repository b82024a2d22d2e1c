"""Lines that scroll and a block at the bottom that is drawn over: all that a live view needs.

Everything of one turn goes out in one write: the old block is erased, new lines scroll by, the block is drawn
again. Where the stream cannot repaint there is no block.
"""

from __future__ import annotations

import os
from typing import IO

from novad.client.render.escape import harmless
from novad.client.render.paint import clip, visible_length


class Screen:
    """A live view on `stream`, a terminal when `can_repaint`."""

    def __init__(self, stream: IO[str], *, can_repaint: bool) -> None:
        self._stream = stream
        self._can_repaint = can_repaint
        self._drawn: list[str] = []

    def show(self, lines: list[str], block: list[str] | None = None) -> None:
        """Lets `lines` scroll by above `block`; the block stays as it is where None is given."""
        wanted = self._drawn if block is None else self._clipped(block)
        if self._can_repaint:
            lines = [harmless(line) for line in lines]
        if not self._can_repaint:
            if lines:
                self._write("".join(f"{line}\n" for line in lines))
            return
        if not lines and wanted == self._drawn:
            return
        text = self._erase() + "".join(f"{line}\n" for line in lines) + "\n".join(wanted)
        self._drawn = wanted
        self._write(text)

    def close(self) -> None:
        """Takes the block away; the cursor is where the block was."""
        if self._can_repaint and self._drawn:
            self._write(self._erase())
            self._drawn = []

    def _erase(self) -> str:
        if not self._drawn:
            return ""
        # In a terminal that became narrower meanwhile, what was one line takes several.
        width = self.width()
        rows = sum(max(1, -(-visible_length(line) // width)) for line in self._drawn)
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        return f"\r{up}\x1b[J"

    def _clipped(self, block: list[str]) -> list[str]:
        width = self.width()
        return [clip(harmless(line), width - 1) for line in block]

    def width(self) -> int:
        try:
            return max(20, os.get_terminal_size(self._stream.fileno()).columns)
        except (OSError, ValueError):
            return 80

    def height(self) -> int:
        try:
            return max(4, os.get_terminal_size(self._stream.fileno()).lines)
        except (OSError, ValueError):
            return 24

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()

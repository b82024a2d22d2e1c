"""The live log: lines that scroll by, and under them one line with the states, or a prompt.

Where stdout is no terminal, lines are written as they are and nothing is drawn.
"""

from __future__ import annotations

import sys
from collections import deque

from novad.client.app import App
from novad.client.feed import Feed
from novad.client.prompt import Prompt
from novad.client.render.progress import status_line
from novad.client.render.words import plural
from novad.client.screen import Screen

HELD_LINES = 100_000


class View:
    """`ending` says on the right what Ctrl-C does; `prompt` replaces the line while something is typed."""

    def __init__(self, app: App, feed: Feed, ending: str, has_keys: bool) -> None:
        self.app, self.feed, self.ending, self.has_keys = app, feed, ending, has_keys
        self.is_live = app.terminal.out_is_terminal and app.terminal.can_repaint
        self.prompt: Prompt | None = None
        self._held: deque[str] | None = None
        self._screen = Screen(sys.stdout, can_repaint=self.is_live)

    def show(self, lines: list[str]) -> None:
        """Log lines; held back while paused."""
        if self._held is not None:
            self._held.extend(lines)
            lines = []
        if self.is_live:
            self._screen.show(lines, [self._bottom()])
        elif lines:
            data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
            self.app.terminal.out_bytes(data)

    def insert(self, lines: list[str]) -> None:
        """Something the user asked for: shown at once, paused or not."""
        self._screen.show(lines)

    def say(self, text: str) -> None:
        """A word of novad's own, between the lines of the log."""
        if self.is_live:
            self.insert([self.app.terminal.paint(text, "bold")])
        else:
            self.app.terminal.note(text)

    def toggle_pause(self) -> None:
        if self._held is None:
            self._held = deque(maxlen=HELD_LINES)
        else:
            held, self._held = self._held, None
            self.show(list(held))

    def close(self) -> None:
        """Takes the bottom line away."""
        self._screen.close()

    def width(self) -> int:
        return self._screen.width()

    def _bottom(self) -> str:
        if self.prompt is not None:
            return self.prompt.line()
        middle = self.feed.wanted.told() or self.feed.recent()
        if self._held is not None:
            middle = f"paused, {plural(len(self._held), 'line')} held: p goes on"
        keys = f"? keys  {self.ending}" if self.has_keys else self.ending
        processes = list(self.feed.processes.values())
        return status_line(processes, middle, keys, self.width(), self.app.terminal.paint)

"""Pushed events -> the lines to print: log lines that pass the filter, and a line for each crash.

Remembers the newest value of each process on the way, which is what a status line shows. No screen, no socket.
"""

from __future__ import annotations

import time
from typing import Any

from novad.client.render.lines import LineStyle, format_line, json_line
from novad.client.render.paint import Paint
from novad.client.render.words import SHAPES, exit_words, plural
from novad.client.sift import Sieve, Wanted

SHOWN_S = 20.0


class Feed:
    """`style` None prints each log line as JSON. `ended` becomes true when the daemon says goodbye."""

    def __init__(self, style: LineStyle | None, paint: Paint, command: str) -> None:
        self.processes: dict[str, dict[str, Any]] = {}
        self.wanted = Wanted()
        self.ended = False
        self._style, self._paint, self._command = style, paint, command
        self._sieves: dict[str, Sieve] = {}
        self._last = ("", 0.0)

    def sift(self, wanted: Wanted) -> None:
        """Shows only what is `wanted` from now on."""
        self.wanted = wanted
        self._sieves = {}

    def take(self, events: list[dict[str, Any]]) -> list[str]:
        lines: list[str] = []
        for event in events:
            kind = event.get("type")
            if kind == "lines":
                lines += self._log_lines(event)
            elif kind == "state":
                lines += self._state_change(event)
            elif kind == "skipped":
                lines.append(self._paint(f"{event['name']}: {plural(event['lines'], 'line')} skipped", "yellow"))
            elif kind == "ended":
                self.ended = True
        return lines

    def running(self) -> int:
        """How many processes have a pid."""
        return sum(1 for item in self.processes.values() if item.get("pid") is not None)

    def recent(self) -> str:
        """What happened last, unless that is long ago."""
        text, at_s = self._last
        return text if time.monotonic() - at_s < SHOWN_S else ""

    def _log_lines(self, event: dict[str, Any]) -> list[str]:
        name = event["name"]
        sieve = self._sieves.setdefault(name, Sieve(self.wanted))
        stamped = event["text"].encode("utf-8", "surrogateescape").removesuffix(b"\n").split(b"\n")
        if self._style is None:
            return [json_line(name, line) for line in sieve.lines(stamped)]
        return [format_line(name, line, self._style) for line in sieve.lines(stamped)]

    def _state_change(self, event: dict[str, Any]) -> list[str]:
        """A crash and a restart for a changed file leave a line; other changes show in the status line."""
        name, state = event["name"], event["state"]
        known = self.processes.get(name, {})
        self.processes[name] = {**known, **event}
        self._last = (f"{name} {state}", time.monotonic())
        has_failed = state == "failed" and known.get("state") != state
        cause = event.get("cause") or ""
        if self._style is not None and state in ("stopping", "waiting") and cause.endswith(" changed"):
            return [] if known.get("cause") == cause else [self._paint(f"↻ {name} restarting: {cause}", "yellow")]
        if self._style is None or not (event.get("crashed") or has_failed):
            return []
        how = exit_words(event.get("exit_code"), event.get("signal"))
        word = "failed" if has_failed else "crashed"
        text = f"{SHAPES['failed'][0]} {name} {word}{f': {how}' if how else ''}"
        return [f"{self._paint(text, 'red bold')}  {self._command} why {name}"]

"""Shows a start until it is settled: a repainted block on a terminal, a line a change elsewhere.

Takes the subscription's events; lines of log that come meanwhile are handed on (without a terminal) or kept
until the block is gone.
"""

from __future__ import annotations

import enum
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from novad.client.app import App
from novad.client.deadline import Deadline
from novad.client.interrupts import Interrupts
from novad.client.keyboard import Keyboard
from novad.client.link import Link
from novad.client.render.progress import block, name_width, plain_line, row_line, still_waiting
from novad.client.screen import Screen
from novad.client.startup import Startup
from novad.core.errors import NotRunning

TICK_S = 0.1
STILL_S = 10.0
KEPT_EVENTS = 1000
# What an attached `up` shows as its log: lines, and how many of them it lost because it did not keep up.
OF_THE_LOG = ("lines", "skipped")


class Outcome(enum.Enum):
    SETTLED = "settled"
    INTERRUPTED = "interrupted"
    TIMED_OUT = "timed out"
    LEFT = "left"


class Starting:
    """`processes` is the status when it began; `kept` holds the line events that came meanwhile, `typed` the keys."""

    def __init__(
        self,
        app: App,
        link: Link,
        startup: Startup,
        processes: list[dict[str, Any]],
        deadline: Deadline,
        attaches: bool,
    ) -> None:
        self.app, self.link, self.startup = app, link, startup
        self.kept: deque[dict[str, Any]] = deque(maxlen=KEPT_EVENTS)
        self.has_dropped = False
        self.typed: list[str] = []
        self.means_to_leave: Callable[[list[str]], bool] = lambda typed: False
        self.on_lines: Callable[[dict[str, Any]], None] = self._keep
        self._deadline = deadline
        self._attaches = attaches
        self._screen = Screen(sys.stderr, can_repaint=app.terminal.can_repaint and not app.options.quiet)
        self._paint = app.terminal.err_paint
        self._first = processes
        self._still_at_s = startup.now_s + STILL_S

    def run(self, interrupts: Interrupts, keyboard: Keyboard | None = None) -> Outcome:
        """Returns when nothing more can be expected, when the time ran out or at Ctrl-C, which the caller takes.

        Keys wait in `typed` for the block to be gone, but those that `means_to_leave` says yes to.
        """
        try:
            lines = [line for process in self._first for line in self._changed(process)]
            outcome = self._loop(interrupts, keyboard, lines)
            # A Ctrl-C in the moment in which all got ready means the cluster as much as one before it.
            return Outcome.INTERRUPTED if interrupts.is_pressed else outcome
        finally:
            self._screen.close()

    def run_alone(self) -> Outcome:
        """`run` for a command that ends at the first Ctrl-C."""
        with Interrupts() as interrupts:
            outcome = self.run(interrupts)
            return Outcome.INTERRUPTED if interrupts.take() else outcome

    def _loop(self, interrupts: Interrupts, keyboard: Keyboard | None, lines: list[str]) -> Outcome:
        while True:
            self._paint_block(lines)
            if self.startup.is_settled:
                return Outcome.SETTLED
            if self._deadline.is_over:
                return Outcome.TIMED_OUT
            left_s = self._deadline.left_s()
            wait_s = TICK_S if self.app.terminal.can_repaint else max(0.0, self._still_at_s - time.monotonic())
            typing = keyboard.sources() if keyboard else []
            ready = self.link.wait([interrupts.fileno(), *typing], min(wait_s, left_s or wait_s))
            if interrupts.fileno() in ready and interrupts.is_pressed:
                return Outcome.INTERRUPTED
            if keyboard and set(typing).intersection(ready):
                self.typed += keyboard.read()
                if self.means_to_leave(self.typed):
                    return Outcome.LEFT
            lines = self._take_events() if self.link in ready else self._still_lines()

    def _paint_block(self, lines: list[str]) -> None:
        if self.app.options.quiet:
            return
        now_s = time.monotonic()
        height = max(2, self._screen.height() - 3)
        self._screen.show(lines, block(self.startup, now_s, height, self._paint))

    def _take_events(self) -> list[str]:
        """Lines to print for what has happened. Raises `NotRunning` when the daemon is gone."""
        lines: list[str] = []
        for event in self.link.pending_events():
            kind = event.get("type")
            if kind == "state":
                lines += self._changed(event)
            elif kind == "probe":
                self.startup.probe(event["name"], event["text"])
            elif kind in OF_THE_LOG and self._attaches:
                self.on_lines(event)
            elif kind == "ended":
                raise NotRunning("novad ended while the services were starting", "novad up")
        if self.link.ended:
            raise NotRunning("the daemon died while the services were starting", "see .novad/novad.log")
        return lines

    def _keep(self, event: dict[str, Any]) -> None:
        self.has_dropped = self.has_dropped or len(self.kept) == self.kept.maxlen
        self.kept.append(event)

    def _changed(self, process: dict[str, Any]) -> list[str]:
        """The line that stays for this change: on a terminal only what settled, elsewhere every change."""
        now_s = time.monotonic()
        if not self.startup.update(process, now_s):
            return []
        row = self.startup.rows[process["name"]]
        width = name_width(self.startup)
        if not self.app.terminal.can_repaint:
            if row.state == "waiting" and not row.process.get("waiting_for"):
                return []  # between a crash and its restart: no news
            return [plain_line(row, now_s - self.startup.now_s, width)]
        return [row_line(row, width, now_s, self._paint)] if row.state in ("ready", "done", "failed") else []

    def _still_lines(self) -> list[str]:
        now_s = time.monotonic()
        if self.app.terminal.can_repaint or now_s < self._still_at_s:
            return []
        self._still_at_s = now_s + STILL_S
        return [still_waiting(self.startup, now_s)]

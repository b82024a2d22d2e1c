"""The attached `up`: the log, the status line, single keys, and Ctrl-C.

One loop waits for the socket, the keys and Ctrl-C. An owner's Ctrl-C stops the cluster (again: kills, a third
time: leaves at once); in an attached `up` it detaches.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any

from novad.client.app import App
from novad.client.feed import Feed
from novad.client.guardian import Sentry
from novad.client.interrupts import Interrupts
from novad.client.keyboard import Keyboard
from novad.client.keys import Keys
from novad.client.link import Link
from novad.client.render.lines import LineStyle
from novad.client.render.paint import visible_length
from novad.client.render.progress import summary
from novad.client.render.status import status_table
from novad.client.render.words import plural
from novad.client.starting import Outcome, Starting
from novad.client.verbs.control import survivor_text
from novad.client.verbs.why import tell_failures
from novad.client.view import View
from novad.core.errors import NotRunning

REFRESH_S = 1.0
INTERRUPTED = 130


class Attached:
    """`shown` are the processes whose lines are printed. With a `sentry` the cluster ends with this command."""

    def __init__(
        self, app: App, link: Link, starting: Starting, shown: list[str], sentry: Sentry | None, *, keys: bool
    ) -> None:
        self.app, self.link, self.starting, self.sentry = app, link, starting, sentry
        self.owns = owns = sentry is not None
        terminal = app.terminal
        style = LineStyle(
            paint=terminal.paint,
            prefix_width=max(map(len, shown), default=1),
            for_terminal=terminal.out_is_terminal,
        )
        self.feed = Feed(None if app.options.json else style, terminal.paint, app.command_name())
        has_keys = keys and terminal.out_is_terminal and terminal.can_repaint and sys.stdin.isatty()
        self.view = View(app, self.feed, "Ctrl-C stops" if owns else "Ctrl-C detaches", has_keys)
        self.keys = Keys(app, link, self.view)
        starting.means_to_leave = self.keys.means_to_leave
        self._stopping: int | None = None
        self._presses = 0
        self._running = 0  # at the first Ctrl-C

    @property
    def is_stopping(self) -> bool:
        """Ctrl-C was pressed by the owner of the cluster."""
        return self._stopping is not None

    def run(self) -> int:
        """The exit code of `up`. Raises `NotRunning` when the daemon dies under it."""
        if not self.view.is_live:
            self.view.show(self.feed.take(list(self.starting.kept)))
            self.starting.kept.clear()
            self.starting.on_lines = lambda event: self.view.show(self.feed.take([event]))
        keyboard = Keyboard(sys.stdin) if self.view.has_keys else contextlib.nullcontext()
        with Interrupts() as interrupts, keyboard as keys:
            return self._start_and_follow(interrupts, keys)

    def _start_and_follow(self, interrupts: Interrupts, keyboard: Keyboard | None) -> int:
        outcome = self.starting.run(interrupts, keyboard)
        document = self.link.request("status", names=[], usage=False)
        self.feed.processes = {item["name"]: item for item in document["processes"]}
        if outcome is Outcome.LEFT or (outcome is Outcome.INTERRUPTED and not self.owns):
            interrupts.take()
            return self._leave()
        if outcome is not Outcome.INTERRUPTED:
            self._sum_up(outcome)
            if not self.view.is_live and not self.owns and self.starting.startup.is_good:
                return self._report_only(document)
        try:
            if self.starting.has_dropped:
                self.view.say(f"earlier lines: {self.app.command_name()} logs")
            self.view.show(self.feed.take([*self.starting.kept, *self.link.queued_events()]))
            self.keys.typed(self.starting.typed)
            return self._loop(interrupts, keyboard)
        finally:
            self.view.close()

    def _sum_up(self, outcome: Outcome) -> None:
        startup, terminal = self.starting.startup, self.app.terminal
        hints = [self.view.ending, *(["d detaches", "? keys"] if self.view.has_keys else [])]
        first, *below = summary(startup, time.monotonic(), terminal.err_paint, terminal.width())
        ending = " · ".join(hints)
        if visible_length(first) + len(ending) + 3 <= terminal.width():
            first, ending = f"{first} · {ending}", ""
        terminal.note("\n".join([first, *below, *([ending] if ending else [])]))
        if not startup.is_good and outcome is Outcome.SETTLED:
            tell_failures(self.app, self.link, [row.name for row in startup.failed()])

    def _report_only(self, document: dict[str, Any]) -> int:
        """Without a terminal, an `up` of what is up already says so and returns: scripts must not hang in it."""
        terminal = self.app.terminal
        terminal.out("\n".join(status_table(document, terminal.width(), terminal.paint)))
        terminal.note(f"already running; {self.app.command_name()} logs -f follows")
        return 0

    def _loop(self, interrupts: Interrupts, keyboard: Keyboard | None) -> int:
        while True:
            self.view.show([])
            typing = keyboard.sources() if keyboard else []
            reader = self.app.terminal.reader()
            sources = [interrupts.fileno(), *typing, *reader]
            ready = self.link.wait(sources, REFRESH_S if self.view.is_live else None)
            if set(reader).intersection(ready):
                raise BrokenPipeError
            for _ in range(interrupts.take()):
                code = self._interrupted()
                if code is not None:
                    return code
            if self.link in ready:
                self.view.show(self.feed.take(self.link.pending_events()))
            if keyboard and set(typing).intersection(ready):
                self.keys.typed(keyboard.read())
            if self.keys.wants_to_leave:
                return self._leave()
            code = self._over()
            if code is not None:
                return code

    def _over(self) -> int | None:
        """The exit code once the cluster has ended."""
        if self._stopping is not None and self.link.answered(self._stopping):
            reply = self.link.result(self._stopping)
            self.view.close()
            for item in reply.get("survivors") or []:
                self.app.terminal.err(f"error: {survivor_text(item)}")
            self.app.terminal.note(f"stopped {plural(self._running, 'process')}")
            return 1 if reply.get("survivors") else INTERRUPTED
        if not (self.feed.ended or self.link.ended):
            return None
        self.view.close()
        if self.feed.ended and self._stopping is not None:
            return INTERRUPTED
        if self.feed.ended:
            self.app.terminal.note("novad has ended: somebody stopped it")
            return 0
        raise NotRunning("the daemon died", f"{self.app.command_name()} up takes over what still runs")

    def _interrupted(self) -> int | None:
        """Ctrl-C; an exit code where it ends the command."""
        if not self.owns:
            return self._leave()
        self._presses += 1
        if self._presses == 1:
            self._running = self.feed.running()
            self.view.say(f"stopping {plural(self._running, 'service')} (Ctrl-C again kills)")
            self.view.ending = "Ctrl-C kills"
            self._stopping = self.link.send("down", timeout_s=None, kill=False)
            return None
        if self._presses == 2:
            self.view.say("killing (Ctrl-C again leaves at once)")
            self.view.ending = "Ctrl-C leaves"
            self._stopping = self.link.send("down", timeout_s=None, kill=True)
            return None
        self.view.close()
        self.app.terminal.err("left while services were stopping; novad ends them")
        return INTERRUPTED

    def _leave(self) -> int:
        """Detaches. An owner gives its lease back first, or the cluster would end with this connection."""
        if self.sentry is not None:
            self.link.request("lease", release=True)
            self.sentry.dismiss()
        self.view.close()
        running = self.feed.running()
        count = f"{plural(running, 'service')} still running" if running else "the cluster goes on"
        self.app.terminal.note(f"detached; {count} — {self.app.command_name()} down stops them")
        return 0

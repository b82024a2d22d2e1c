"""The attached `up`: the coloured log, one status line under it, single keys, and Ctrl-C.

One loop waits for the socket, the keys and Ctrl-C. An owner's Ctrl-C stops the cluster (again: kills, a third
time: leaves at once); in an attached `up` it detaches. Lines come pushed; what was typed at the bottom (a name,
a filter) is edited by `Prompt`.
"""

from __future__ import annotations

import contextlib
import re
import select
import sys
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from novad.client.app import App
from novad.client.interrupts import Interrupts, ordinary_interrupts
from novad.client.keyboard import Keyboard
from novad.client.link import Link
from novad.client.prompt import Prompt
from novad.client.render.lines import LineStyle, format_line, json_line
from novad.client.render.paint import Paint
from novad.client.render.progress import status_line, summary
from novad.client.render.status import status_table
from novad.client.render.words import SHAPES, exit_words, plural
from novad.client.screen import Screen
from novad.client.sift import LEVELS, Sieve, Wanted
from novad.client.starting import Outcome, Starting
from novad.client.verbs.why import tell_failures
from novad.core.errors import NotRunning, NovadError

REFRESH_S = 1.0
INTERRUPTED = 130
KEYS_HELP = "s status  r restart  / filter  l level  p pause  Enter or m mark  w why  d detach  : command  ? keys"
EVENT_SHOWN_S = 20.0


class Attached:
    """`shown` are the processes whose lines are printed; `owns` says that the cluster ends with this command."""

    def __init__(
        self, app: App, link: Link, starting: Starting, shown: list[str], *, owns: bool, keys: bool
    ) -> None:
        self.app, self.link, self.starting, self.owns = app, link, starting, owns
        terminal = app.terminal
        self.is_live = terminal.out_is_terminal and terminal.can_repaint
        self.screen = Screen(sys.stdout, can_repaint=self.is_live)
        self.processes: dict[str, dict[str, Any]] = {}
        self.style = LineStyle(
            paint=terminal.paint,
            prefix_width=max(map(len, shown), default=1),
            for_terminal=terminal.out_is_terminal,
        )
        self.wanted = Wanted()
        self.sieves: dict[str, Sieve] = {}
        self.paused: list[str] | None = None
        self.prompt: Prompt | None = None
        self.detached = False
        self._keys = keys and self.is_live and sys.stdin.isatty()
        self._last = ("", 0.0)
        self._stopping: int | None = None
        self._presses = 0
        self._ended = False

    def run(self) -> int:
        """The exit code of `up`."""
        outcome = self.starting.run()
        if outcome is Outcome.INTERRUPTED and not self.owns:
            return self._leave()
        document = self.link.request("status", names=[], usage=False)
        self.processes = {item["name"]: item for item in document["processes"]}
        if outcome is not Outcome.INTERRUPTED:
            self._sum_up(outcome)
            if not self.is_live and not self.owns and self.starting.startup.is_good:
                return self._report_only(document)
        keyboard = Keyboard(sys.stdin) if self._keys else contextlib.nullcontext()
        with Interrupts() as interrupts, keyboard as keys:
            try:
                self._print(self._take(list(self.starting.kept)))
                if outcome is Outcome.INTERRUPTED:
                    self._interrupted()
                return self._loop(interrupts, keys)
            finally:
                self.screen.close()

    def _sum_up(self, outcome: Outcome) -> None:
        startup, terminal = self.starting.startup, self.app.terminal
        keys = "Ctrl-C stops" if self.owns else "Ctrl-C detaches"
        more = f" · {keys}, d detaches, ? keys" if self._keys and self.owns else f" · {keys}"
        terminal.note(summary(startup, time.monotonic(), terminal.err_paint) + more)
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
            self._print([])
            sources = [self.link.fileno(), interrupts.fileno(), *(keyboard.sources() if keyboard else [])]
            ready = select.select(sources, [], [], REFRESH_S if self.is_live else None)[0]
            for _ in range(interrupts.take()):
                code = self._interrupted()
                if code is not None:
                    return code
            if self.link.fileno() in ready:
                self._print(self._take(self.link.pending_events()))
            if keyboard and any(source in ready for source in keyboard.sources()):
                self._typed(keyboard)
            if self.detached:
                return self._leave()
            code = self._over()
            if code is not None:
                return code

    def _over(self) -> int | None:
        """The exit code once the cluster has ended."""
        if self._stopping is not None and self.link.answered(self._stopping):
            reply = self.link.result(self._stopping)
            self.screen.close()
            for item in reply.get("survivors") or []:
                self.app.terminal.err(f"error: {item['name']}: pid {item['pid']} did not die: {item['command']}")
            self.app.terminal.note(f"stopped {plural(len(reply['stopped']), 'process')}")
            return 1 if reply.get("survivors") else INTERRUPTED
        if self._ended or self.link.ended:
            self.screen.close()
            if self._stopping is not None:
                return INTERRUPTED
            if self._ended:
                self.app.terminal.note("novad has ended: somebody stopped it")
                return 0
            raise NotRunning("the daemon died", f"{self.app.command_name()} up takes over what still runs")
        return None

    def _interrupted(self) -> int | None:
        """Ctrl-C; an exit code where it ends the command."""
        if not self.owns:
            return self._leave()
        self._presses += 1
        if self._presses == 1:
            running = [item for item in self.processes.values() if item.get("pid") is not None]
            self._say(f"stopping {plural(len(running), 'service')} (Ctrl-C again kills)")
            self._stopping = self.link.send("down", timeout_s=None, kill=False)
            return None
        if self._presses == 2:
            self._say("killing (Ctrl-C again leaves at once)")
            self._stopping = self.link.send("down", timeout_s=None, kill=True)
            return None
        self.screen.close()
        self.app.terminal.err("left while services were stopping; novad ends them")
        return INTERRUPTED

    def _leave(self) -> int:
        """Detaches. An owner gives its lease back first, or the cluster would end with this connection."""
        if self.owns:
            self.link.request("lease", release=True)
        self.screen.close()
        running = sum(1 for item in self.processes.values() if item.get("pid") is not None)
        count = f"{plural(running, 'service')} still running" if running else "the cluster goes on"
        self.app.terminal.note(f"detached; {count} — {self.app.command_name()} down stops them")
        return 0

    def _take(self, events: list[dict[str, Any]]) -> list[str]:
        """The lines to print for `events`."""
        lines: list[str] = []
        for event in events:
            kind = event.get("type")
            if kind == "lines":
                lines += self._log_lines(event)
            elif kind == "state":
                lines += self._state_change(event)
            elif kind == "ended":
                self._ended = True
        return lines

    def _log_lines(self, event: dict[str, Any]) -> list[str]:
        name = event["name"]
        sieve = self.sieves.setdefault(name, Sieve(self.wanted))
        stamped = event["text"].encode("utf-8", "surrogateescape").removesuffix(b"\n").split(b"\n")
        chosen = sieve.lines(stamped)
        if self.app.options.json:
            return [json_line(name, line) for line in chosen]
        return [format_line(name, line, self.style) for line in chosen]

    def _state_change(self, event: dict[str, Any]) -> list[str]:
        """Remembers the state; a crash also leaves a line, with the command that explains it."""
        name = event["name"]
        known = self.processes.get(name, {})
        self.processes[name] = {**known, **event}
        state = event["state"]
        self._last = (f"{name} {state}", time.monotonic())
        if self.app.options.json or state not in ("backoff", "failed") or known.get("state") == state:
            return []
        paint = self.app.terminal.paint
        how = exit_words(event.get("exit_code"), event.get("signal"))
        word = "crashed" if state == "backoff" else "failed"
        text = f"{SHAPES['failed'][0]} {name} {word}{f': {how}' if how else ''}"
        return [f"{paint(text, 'red bold')}  {self.app.command_name()} why {name}"]

    def _print(self, lines: list[str]) -> None:
        if self.paused is not None and lines:
            self.paused += lines
            lines = []
        if self.is_live:
            self.screen.show(lines, [self._bottom()])
        elif lines:
            data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
            self.app.terminal.out_bytes(data)

    def _bottom(self) -> str:
        if self.prompt is not None:
            return self.prompt.line()
        text, at_s = self._last
        recent = text if time.monotonic() - at_s < EVENT_SHOWN_S else ""
        if self.paused is not None:
            recent = f"paused, {plural(len(self.paused), 'line')} held: p goes on"
        ending = (
            "Ctrl-C kills" if self._stopping is not None else "Ctrl-C stops" if self.owns else "Ctrl-C detaches"
        )
        keys = f"? keys  {ending}" if self._keys else ending
        return status_line(list(self.processes.values()), recent, keys, self.screen.width(), self._bottom_paint())

    def _bottom_paint(self) -> Paint:
        return self.app.terminal.paint

    def _say(self, text: str) -> None:
        """A word of novad's own, between the lines of the log."""
        if self.is_live:
            self.screen.show([self.app.terminal.paint(text, "bold")])
        else:
            self.app.terminal.note(text)

    def _typed(self, keyboard: Keyboard) -> None:
        for key in keyboard.read():
            if self.prompt is not None:
                done = self.prompt.key(key)
                if done:
                    self.prompt = None
            elif key in ACTIONS:
                ACTIONS[key](self)
            elif key == "\x04":
                self.detached = True

    def ask(self, label: str, use: Callable[[str], None], words: list[str] | None = None) -> None:
        self.prompt = Prompt(label, use, words or [])

    def show_status(self) -> None:
        document = self.link.request("status", names=[], usage=True)
        self.screen.show(status_table(document, self.screen.width(), self.app.terminal.paint))

    def ask_restart(self) -> None:
        names = dict.fromkeys(
            name for item in self.processes.values() for name in (item["service"], item["name"])
        )
        self.ask("restart: ", lambda name: self.command(f"restart --no-wait {name}"), list(names))

    def ask_filter(self) -> None:
        self.ask("filter (a regular expression, empty shows all): ", self.set_filter)

    def set_filter(self, text: str) -> None:
        try:
            self.sift(Wanted(grep=re.compile(text.encode()) if text else None, level=self.wanted.level))
        except re.error as error:
            self._say(f"error: `{text}` is not a regular expression: {error}")

    def ask_level(self) -> None:
        self.ask("level (empty shows all): ", self.set_level, ["debug", "info", "warning", "error"])

    def set_level(self, text: str) -> None:
        if text and text.lower() not in LEVELS:
            self._say(f"error: `{text}` is not a level")
            return
        self.sift(Wanted(grep=self.wanted.grep, level=LEVELS[text.lower()] if text else None))

    def sift(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.sieves = {}

    def toggle_pause(self) -> None:
        held, self.paused = self.paused, [] if self.paused is None else None
        if held:
            self._print(held)

    def mark(self) -> None:
        now = datetime.now().strftime("%H:%M:%S")
        self.screen.show([self.app.terminal.paint(f"──── {now} ".ljust(self.screen.width() - 1, "─"), "cyan")])

    def ask_command(self) -> None:
        self.ask("novad ", self.command)

    def command(self, line: str) -> None:
        """Runs a command line of the same grammar; its output scrolls by above the status line."""
        if not line.strip():
            return
        self.screen.close()
        from novad.client.line import run_line

        try:
            with ordinary_interrupts():
                run_line(self.app, line)
        except NovadError as error:
            self._say(f"error: {error.message}")

    def detach(self) -> None:
        self.detached = True

    def help(self) -> None:
        self.screen.show([self.app.terminal.paint(KEYS_HELP, "cyan")])


ACTIONS: dict[str, Callable[[Attached], None]] = {
    "s": Attached.show_status,
    "r": Attached.ask_restart,
    "/": Attached.ask_filter,
    "l": Attached.ask_level,
    "p": Attached.toggle_pause,
    "m": Attached.mark,
    "\n": Attached.mark,
    "\r": Attached.mark,
    "w": lambda attached: attached.command("why"),
    "d": Attached.detach,
    ":": Attached.ask_command,
    "?": Attached.help,
}

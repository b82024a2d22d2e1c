"""What single keys do in the attached `up`. A row a key: the table is also the help line."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from novad.client.app import App
from novad.client.interrupts import ordinary_interrupts
from novad.client.line import run_line
from novad.client.link import Link
from novad.client.prompt import Prompt
from novad.client.render.status import status_table
from novad.client.sift import LEVELS, Wanted
from novad.client.view import View
from novad.core.errors import NovadError

ASKING = (":", "/", "r", "l")
LEAVING = ("d", "\x04")


class Keys:
    """`wants_to_leave` becomes true when the user detaches."""

    def __init__(self, app: App, link: Link, view: View) -> None:
        self.wants_to_leave = False
        self._app, self._link, self._view = app, link, view
        self._actions: dict[str, Callable[[], None]] = {
            "s": self._status,
            "r": self._restart,
            "/": self._filter,
            "l": self._level,
            "p": view.toggle_pause,
            "m": self._mark,
            "\n": self._mark,
            "\r": self._mark,
            "w": self._watch,
            "y": lambda: self._run("why"),
            **dict.fromkeys(LEAVING, self._leave),
            ":": lambda: self._ask("novad ", self._run),
            "?": self._help,
        }

    def typed(self, keys: list[str]) -> None:
        view = self._view
        for key in keys:
            if view.prompt is not None:
                prompt = view.prompt
                # What is entered may open the next prompt.
                if prompt.key(key) and view.prompt is prompt:
                    view.prompt = None
            elif key in self._actions:
                self._actions[key]()

    def means_to_leave(self, typed: list[str]) -> bool:
        """Whether one of these keys, typed one after another, detaches and is not part of what was asked for."""
        for key in typed:
            if key in LEAVING:
                return True
            if key in ASKING:
                return False
        return False

    def _ask(self, label: str, use: Callable[[str], None], words: list[str] | None = None) -> None:
        self._view.prompt = Prompt(label, use, words or [])

    def _status(self) -> None:
        document = self._link.request("status", names=[], usage=True)
        self._view.insert(status_table(document, self._view.width(), self._app.terminal.paint))

    def _restart(self) -> None:
        processes = self._view.feed.processes.values()
        names = dict.fromkeys(name for item in processes for name in (item["service"], item["name"]))
        self._ask("restart: ", lambda name: self._run(f"restart --no-wait {name}" if name else ""), list(names))

    def _watch(self) -> None:
        """Switches the restarts for changed files on or off."""
        try:
            before = self._link.request("watch", on=None)
            now = self._link.request("watch", on=not before["on"])
        except NovadError as error:
            self._view.say(f"error: {error.message}")
            return
        if not now["on"]:
            self._view.say("files are not watched any more")
        elif now["names"]:
            self._view.say(f"watching the files of {', '.join(now['names'])}")
        else:
            self._view.say("nothing to watch: no service has `watch` in nova.toml")

    def _filter(self) -> None:
        self._ask("filter (a regular expression, empty shows all): ", self._set_filter)

    def _set_filter(self, text: str) -> None:
        feed = self._view.feed
        try:
            feed.sift(Wanted(grep=re.compile(text.encode()) if text else None, level=feed.wanted.level))
        except re.error as error:
            self._view.say(f"error: `{text}` is not a regular expression: {error}")

    def _level(self) -> None:
        self._ask("level (empty shows all): ", self._set_level, ["debug", "info", "warning", "error"])

    def _set_level(self, text: str) -> None:
        feed = self._view.feed
        if text and text.lower() not in LEVELS:
            self._view.say(f"error: `{text}` is not a level: {', '.join(LEVELS)}")
            return
        feed.sift(Wanted(grep=feed.wanted.grep, level=LEVELS[text.lower()] if text else None))

    def _mark(self) -> None:
        line = f"──── {datetime.now():%H:%M:%S} ".ljust(self._view.width() - 1, "─")
        self._view.insert([self._app.terminal.paint(line, "cyan")])

    def _run(self, line: str) -> None:
        """Runs a command line of the same grammar; its output scrolls by above the status line."""
        if not line.strip():
            return
        self._view.prompt = None
        self._view.close()
        try:
            with ordinary_interrupts():
                run_line(self._app, line)
        except NovadError as error:
            self._view.say(f"error: {error.message}")

    def _leave(self) -> None:
        self.wants_to_leave = True

    def _help(self) -> None:
        self._view.insert([self._app.terminal.paint(HELP, "cyan")])


HELP = "s status  r restart  / filter  l level  p pause  Enter or m mark  w watch  y why  d detach  : command  ? keys"

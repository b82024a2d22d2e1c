"""The interactive shell on prompt_toolkit: the only module that imports it.

Commands run between prompts, in the same process, through the same grammar as the command line. While the
prompt is up, the watcher's thread keeps completion and toolbar fresh and may print log lines above it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prompt_toolkit import PromptSession
from prompt_toolkit.auto_suggest import AutoSuggestFromHistory
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import FileHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.patch_stdout import patch_stdout
from prompt_toolkit.styles import Style

from novad import __version__
from novad.client.app import App
from novad.client.calls import known_calls
from novad.client.commands import VERBS
from novad.client.grammar import Verb
from novad.client.private import private_directory, private_file
from novad.client.render.lines import LineStyle, format_line
from novad.client.render.words import count_states, plural
from novad.client.shell.complete import candidates
from novad.client.shell.lines import LEAVE, Leave, run_text, tell
from novad.client.shell.watcher import Watcher
from novad.client.sift import LEVELS, Sieve, Wanted
from novad.core.errors import NovadError, UsageError
from novad.core.select import ALL

TOOLBAR_S = 0.5
LAST_SHOWN_S = 30.0
STYLE = Style.from_dict(
    {
        "bottom-toolbar": "noreverse bg:#303030 #d0d0d0",
        "bottom-toolbar.bad": "#ff8787",
        "bottom-toolbar.good": "#87d787",
        "bottom-toolbar.key": "#a0a0a0",
        "prompt": "bold",
        "prompt.down": "bold ansired",
    }
)


class History(FileHistory):
    """Per project, readable by its user only; a line that begins with a space is not kept."""

    def __init__(self, path: Path) -> None:
        os.close(private_file(path))
        super().__init__(str(path))

    def append_string(self, string: str) -> None:
        if string.strip() and not string.startswith(" "):
            super().append_string(string)


class ShellCompleter(Completer):
    def __init__(self, app: App, watcher: Watcher) -> None:
        self._app = app
        self._watcher = watcher
        self._verbs: dict[str, tuple[Verb, tuple[str, ...]]] = {verb.name: (verb, ()) for verb in VERBS}
        self._verbs |= {name: (verb, prefix) for verb in VERBS for name, prefix in verb.aliases.items()}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        processes = list((self._watcher.processes or {}).values())
        word, found = candidates(document.text_before_cursor, self._verbs, processes, known_calls(self._app))
        for item in found:
            yield Completion(item.text, -len(word), display_meta=item.meta)


class Shell:
    def __init__(self, app: App) -> None:
        self.app = app
        self.place = app.place()
        self.watcher = Watcher(self.place, self._changed, self._lines)
        self.session: PromptSession[str] = PromptSession(
            history=self._history(),
            completer=ShellCompleter(app, self.watcher),
            complete_while_typing=False,
            auto_suggest=AutoSuggestFromHistory(),
            key_bindings=self._keys(),
            bottom_toolbar=self._toolbar,
            style=STYLE,
        )
        self.last_line = ""
        self.has_toolbar = True
        self.wanted = Wanted()
        self.followed: list[str] = []
        self._sieves: dict[str, Sieve] = {}
        self._drawn_at_s = 0.0

    def run(self) -> int:
        self.watcher.start()
        try:
            self._greet()
            while True:
                try:
                    self._once()
                except KeyboardInterrupt:
                    continue
        except (Leave, EOFError):
            return 0
        finally:
            self.watcher.close()

    def _once(self) -> None:
        """One prompt and its line; a paste of several lines is run line by line."""
        with patch_stdout(raw=True):
            text = self.session.prompt(self._message)
        for line in text.splitlines():
            self._run_line(line)

    def _run_line(self, line: str) -> None:
        try:
            if line.split()[:1] == ["set"]:
                self._set(line.split()[1:])
            else:
                run_text(self.app, line, self.last_line)
        except NovadError as error:
            tell(self.app, error)
        if line.strip() and line.split()[0] not in (*LEAVE, "watch"):
            self.last_line = line.strip()
        self.watcher.refresh()

    def _greet(self) -> None:
        watcher = self.watcher
        count = plural(len(watcher.processes), "process") if watcher.processes is not None else "not running"
        parts = [f"novad {__version__}", self._name(), count, "Tab completes, ? helps, Ctrl-D leaves"]
        self.app.terminal.note(" · ".join(parts) + (" (services keep running)" if watcher.is_up else ""))

    def _name(self) -> str:
        return self.watcher.project or os.path.basename(self.place.dir)

    def _message(self) -> StyleAndTextTuples:
        if self.watcher.is_up:
            return [("class:prompt", f"{self._name()}> ")]
        return [("class:prompt", self._name()), ("class:prompt.down", " (down)"), ("class:prompt", "> ")]

    def _history(self) -> History | None:
        try:
            private_directory(Path(self.place.state_dir))
            return History(Path(self.place.state_dir) / "history")
        except OSError:
            return None

    def _keys(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("f2")
        def _(event: KeyPressEvent) -> None:
            self.watcher.follow(None if self.watcher.follows else self.followed)

        @keys.add("c-c")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.reset()

        return keys

    def _set(self, words: list[str]) -> None:
        """`set follow [off|SVC...] [level=LEVEL]`, `set toolbar on|off`."""
        match words:
            case ["toolbar", ("on" | "off") as choice]:
                self.has_toolbar = choice == "on"
            case ["follow", "off"]:
                self.watcher.follow(None)
            case ["follow", *names]:
                self._follow(names)
            case _:
                raise UsageError("set knows `follow` and `toolbar`", "set follow api level=warn, set toolbar off")

    def _follow(self, words: list[str]) -> None:
        level = next((word.partition("=")[2].lower() for word in words if word.startswith("level=")), None)
        if level is not None and level not in LEVELS:
            raise UsageError(f"`{level}` is not a level", "set follow api level=warn")
        names = [word for word in words if "=" not in word and word != ALL]
        self.wanted = Wanted(level=None if level is None else LEVELS[level])
        self._sieves = {}
        if names:
            # A name that means nothing is told here, not swallowed by the watcher.
            with self.app.link() as link:
                link.request("status", names=names, usage=False)
        self.followed = names
        self.watcher.follow(names)

    def _lines(self, name: str, text: bytes) -> None:
        """Called in the watcher's thread; patch_stdout puts what is written above the prompt."""
        sieve = self._sieves.setdefault(name, Sieve(self.wanted))
        width = max((len(each) for each in self.watcher.processes or {}), default=1)
        style = LineStyle(self.app.terminal.paint, width)
        kept = sieve.lines(text.removesuffix(b"\n").split(b"\n"))
        shown = "".join(f"{format_line(name, line, style)}\n" for line in kept)
        if shown:
            sys.stdout.write(shown)

    def _changed(self) -> None:
        """Draws the toolbar again, at most twice a second."""
        now_s = time.monotonic()
        if now_s - self._drawn_at_s >= TOOLBAR_S and self.session.app.is_running:
            self._drawn_at_s = now_s
            self.session.app.invalidate()

    def _toolbar(self) -> Any:
        if not self.has_toolbar:
            return None
        processes = list((self.watcher.processes or {}).values())
        if not self.watcher.is_up:
            return [("class:bottom-toolbar.bad", " not running "), ("class:bottom-toolbar.key", "  up starts it")]
        bad = any(item["state"] in ("backoff", "failed") for item in processes)
        left = f" {count_states(processes)} "
        middle = f"  F2 logs:{'on' if self.watcher.follows else 'off'}  ? help  Ctrl-D leaves  "
        recent = time.monotonic() - self.watcher.last_at_s < LAST_SHOWN_S
        last = self.watcher.last if recent else ""
        room = self.session.output.get_size().columns - len(left) - len(middle) - 1
        return [
            ("class:bottom-toolbar.bad" if bad else "class:bottom-toolbar.good", left),
            ("class:bottom-toolbar.key", middle),
            ("", last[: max(0, room)].rjust(max(0, room))),
        ]


def interactive(app: App) -> int:
    return Shell(app).run()

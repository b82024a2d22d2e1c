"""What a line of the shell means beyond the verbs: pipes, `!cmd`, `watch`, `set`, leaving. No prompt_toolkit.

Used by the interactive shell and by scripts alike.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys

from novad.client.app import App
from novad.client.line import run_line
from novad.core.errors import NovadError, UsageError

LEAVE = ("q", "quit", "exit")
WATCH_S = 2.0
INTERRUPTED = 130
SHORT = {"?": "help"}


class Leave(Exception):
    """The user wants out."""


def run_text(app: App, line: str, last: str = "") -> int:
    """The exit code of one line. `last` is the line before, for a bare `watch`. Raises `Leave`."""
    text = line.strip()
    if not text or text.startswith("#"):
        return 0
    if text in LEAVE:
        raise Leave
    if text.startswith("!"):
        return subprocess.run(text[1:], shell=True).returncode
    first, _, rest = text.partition(" ")
    if first == "watch":
        return watch(app, rest.strip() or last)
    command, pipe = split_pipe(SHORT.get(text, text))
    return run_line(app, command) if pipe is None else run_piped(app, command, pipe)


def split_pipe(line: str) -> tuple[str, str | None]:
    """The command and the shell command after the first `|` that is not quoted."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError as error:
        raise UsageError(f"{str(error).lower()}: {line}", "quotes come in pairs") from error
    if "|" not in words:
        return line, None
    quote = ""
    for index, character in enumerate(line):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character == "|":
            return line[:index].strip(), line[index + 1 :].strip()
    return line, None


def run_piped(app: App, command: str, pipe: str) -> int:
    """`status --json | jq .`: the output goes to a shell command; the code of the one that failed."""
    process = subprocess.Popen(pipe, shell=True, stdin=subprocess.PIPE)
    assert process.stdin is not None
    before = sys.stdout
    sys.stdout = io.TextIOWrapper(process.stdin, encoding="utf-8", errors="surrogateescape")
    try:
        code = run_line(app, command)
        sys.stdout.close()
    except BrokenPipeError:
        code = 0
    finally:
        sys.stdout = before
    return code or process.wait()


def watch(app: App, line: str) -> int:
    """Runs a line again and again in place until Ctrl-C or q."""
    if not line or line.split()[0] == "watch":
        raise UsageError("watch: which command?", "watch status")
    from novad.client.keyboard import Keyboard

    if not app.terminal.out_is_terminal:
        raise UsageError("watch needs a terminal", line)
    footer = app.terminal.paint(f"every {WATCH_S:g} s: {line} — q ends", "dim")
    with Keyboard(sys.stdin) as keyboard:
        try:
            while True:
                # The screen is cleared with what comes in its place: a command may take its time, or be interrupted.
                code, shown = output_of(app, line)
                if code == INTERRUPTED:
                    return 0
                app.terminal.draw(f"\x1b[H\x1b[2J{shown}{footer}\n")
                if any(key in ("q", "\x04") for key in keyboard.wait(WATCH_S)):
                    return 0
        except KeyboardInterrupt:
            return 0


class _InPlace(io.TextIOWrapper):
    """Keeps what is meant for the terminal, colours and all."""

    def isatty(self) -> bool:
        return True


def output_of(app: App, line: str) -> tuple[int, str]:
    """The exit code of a line, and what it prints to stdout, as it would on the terminal."""
    before, kept = sys.stdout, io.BytesIO()
    shown = _InPlace(kept, encoding="utf-8", errors="surrogateescape")
    sys.stdout = shown
    try:
        code = run_line(app, line)
        shown.flush()
        return code, kept.getvalue().decode("utf-8", "replace")
    finally:
        sys.stdout = before


def run_script(app: App, keep_going: bool) -> int:
    """Lines from stdin; ends at the first failure with its code."""
    last = ""
    code = 0
    for line in sys.stdin:
        try:
            code = run_text(app, line, last)
        except Leave:
            return 0
        except NovadError as error:
            code = tell(app, error)
        if code and not keep_going:
            app.terminal.note(f"stopped at: {line.strip()}")
            return code
        last = line.strip() or last
    return code if not keep_going else 0


def tell(app: App, error: NovadError) -> int:
    app.terminal.err(f"error: {error.message}")
    if error.hint:
        app.terminal.err(f"hint: {error.hint}")
    return error.exit_code

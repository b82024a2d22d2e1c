"""One command line of the grammar, run inside another command: a line of the shell, the `:` key of `up`."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from novad.client.app import App
from novad.core.errors import UsageError

Runner = Callable[[list[str], App], int]
MAX_DEPTH = 8


def split(line: str) -> list[str]:
    """The words of a line, as a shell would see them. Raises `UsageError` for an open quote."""
    try:
        return shlex.split(line, comments=True)
    except ValueError as error:
        raise UsageError(f"{str(error).lower()}: {line}", "quotes come in pairs") from error


def run_line(app: App, line: str) -> int:
    """Runs `line` for the same project; its exit code. Errors are told as on the command line."""
    words = split(line)
    if words[:1] == ["novad"]:
        words = words[1:]
    if not words:
        return 0
    if app.depth >= MAX_DEPTH:
        raise UsageError("shells inside shells go no deeper", "Ctrl-D leaves this one")
    return app.runner(words, App(app.options, app.compiler, app.runner, app.environ, app.depth + 1))

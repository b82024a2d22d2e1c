"""The two streams of a command: where results go, where hints go, and whether they can show colour.

Colour: `--color`, then NO_COLOR, FORCE_COLOR or CLICOLOR_FORCE, TERM=dumb, then whether the stream is a terminal.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Mapping
from typing import IO

from novad.client.render.escape import harmless
from novad.client.render.paint import Paint


def wants_colour(choice: str, environ: Mapping[str, str], is_terminal: bool) -> bool:
    if choice in ("always", "never"):
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    forced = environ.get("FORCE_COLOR") or environ.get("CLICOLOR_FORCE")
    if forced:
        return forced not in ("0", "false")
    return is_terminal and environ.get("TERM") != "dumb"


def is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:
        return False


class Terminal:
    """Standard output and error of this command. `quiet` drops hints and progress, never results or errors."""

    def __init__(
        self, color: str = "auto", quiet: bool = False, environ: Mapping[str, str] | None = None
    ) -> None:
        environ = os.environ if environ is None else environ
        self.quiet = quiet
        self._is_line_open = False
        self.out_is_terminal = is_terminal(sys.stdout)
        self.err_is_terminal = is_terminal(sys.stderr)
        self.can_draw = self.out_is_terminal and environ.get("TERM") != "dumb"
        self.can_repaint = self.err_is_terminal and environ.get("TERM") != "dumb"
        self.paint = Paint(wants_colour(color, environ, self.out_is_terminal))
        self.err_paint = Paint(wants_colour(color, environ, self.err_is_terminal))

    def out(self, text: str, end: str = "\n") -> None:
        """A result: one or several lines, to stdout. On a terminal it can only print (`harmless`)."""
        sys.stdout.write((harmless(text) if self.out_is_terminal else text) + end)
        sys.stdout.flush()

    def draw(self, text: str) -> None:
        """What moves the cursor of a terminal; anything of others in it has been through `harmless`."""
        sys.stdout.write(text)
        sys.stdout.flush()

    def out_bytes(self, data: bytes) -> None:
        """A result as it is, to stdout."""
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def reader(self) -> list[int]:
        """What to wait on to learn that whoever read our output has gone (`novad up | head`): stdout, where it is a
        pipe. It becomes readable when nobody has its other end open any more (select(2), POLLERR).
        """
        try:
            descriptor = sys.stdout.fileno()
            return [descriptor] if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else []
        except (OSError, ValueError):
            return []

    def note(self, text: str) -> None:
        """Progress or a hint, to stderr, unless quiet."""
        if not self.quiet:
            self.err(text)

    def begin_note(self, text: str) -> None:
        """The first half of a line of progress, for `finish_note`; whatever is told in between ends it."""
        if not self.quiet:
            self._tell(text)
            self._is_line_open = True

    def finish_note(self, text: str) -> None:
        if not self.quiet:
            self._is_line_open = False
            self.err(text)

    def err(self, text: str) -> None:
        if self._is_line_open:
            self._is_line_open = False
            self._tell("\n")
        self._tell(f"{text}\n")

    def _tell(self, text: str) -> None:
        sys.stderr.write(harmless(text) if self.err_is_terminal else text)
        sys.stderr.flush()

    def confirms(self, question: str) -> bool:
        """Asks the user; a script, or who wants quiet, has said what it wants by running this."""
        if self.quiet or not (is_terminal(sys.stdin) and self.err_is_terminal):
            return True
        self._tell(f"{question} [Y/n] ")
        answer = sys.stdin.readline()
        return answer != "" and answer.strip().lower() in ("", "y", "yes")

    def width(self) -> int:
        """Columns to fit into; a pipe gets as many as a line needs (COLUMNS still rules)."""
        fallback = 80 if self.out_is_terminal or self.err_is_terminal else 10_000
        return max(20, shutil.get_terminal_size((fallback, 24)).columns)

    def height(self) -> int:
        return max(4, shutil.get_terminal_size((80, 24)).lines)

"""One line of input at the bottom of a live view: typed key by key while the log goes on above. Pure."""

from __future__ import annotations

import os
from collections.abc import Callable

ERASE_LINE, ERASE_WORD = "\x15", "\x17"
LEAVE = ("\x1b", "\x03", "\x04")


class Prompt:
    """`use` is called with what was entered; Tab completes from `words`; Escape leaves without."""

    def __init__(self, label: str, use: Callable[[str], None], words: list[str]) -> None:
        self._label, self._use, self._words = label, use, words
        self._text = ""

    def line(self) -> str:
        matching = [word for word in self._words if word.startswith(self._text)] if self._words else []
        offer = f"   {'  '.join(matching[:12])}" if matching and matching != [self._text] else ""
        return f"{self._label}{self._text}▏{offer}"

    def key(self, key: str) -> bool:
        """Takes one key; True when the prompt is over."""
        if key in ("\r", "\n"):
            self._use(self._text)
            return True
        if key in LEAVE:
            return True
        if key in ("\x7f", "\x08"):
            self._text = self._text[:-1]
        elif key == ERASE_LINE:
            self._text = ""
        elif key == ERASE_WORD:
            self._text = self._text.rstrip().rpartition(" ")[0]
        elif key == "\t":
            self._complete()
        elif key.isprintable() and len(key) == 1:
            self._text += key
        return False

    def _complete(self) -> None:
        matching = [word for word in self._words if word.startswith(self._text)]
        if matching:
            self._text = os.path.commonprefix(matching)  # noqa: RUF071 - these are words, not paths

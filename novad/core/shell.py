"""A command as a person would type it, on one line. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

NAMED = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\t": "\\t"}


def joined(argv: Iterable[str]) -> str:
    """The words quoted for a shell; one with control characters as bash, zsh and ksh read it: `$'two\\nlines'`."""
    return " ".join(shlex.quote(word) if word.isprintable() else escaped(word) for word in argv)


def escaped(word: str) -> str:
    return "$'" + "".join(map(_letter, word)) + "'"


def _letter(letter: str) -> str:
    if letter in NAMED:
        return NAMED[letter]
    if letter.isprintable():
        return letter
    code = ord(letter)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\U{code:08x}"

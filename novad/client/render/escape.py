"""What a child wrote, made harmless for a terminal. Pure.

A child's output may hold bytes that are no UTF-8 and sequences that move the cursor, rename the window, answer
questions or hide text. On a terminal only colour survives; everything else is shown as what it is. Files and
pipes get the bytes unchanged (that is the caller's decision).
"""

from __future__ import annotations

import re

RESET = "\x1b[0m"
COLOUR = re.compile(r"\x1b\[([0-9;]*)m")
# C0 except tab, DEL, C1, and the characters that reorder or hide text (Unicode TR 36, "bidi" and zero width).
UNSAFE = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]|[\ud800-\udfff]"
)
HIDDEN = {"8", "08"}


def for_terminal(data: bytes, *, colour: bool) -> str:
    """The line `data` (without its newline) as text that only prints; colours kept where `colour`."""
    text = data.decode("utf-8", "surrogateescape")
    if text.isascii() and text.isprintable():
        return text
    text = text.rstrip("\r")
    if "\r" in text:
        # A progress bar draws over itself: what it showed last is the line.
        text = text.rsplit("\r", 1)[1]
    return _only_colour(text, colour)


def harmless(text: str) -> str:
    """Text of ours, several lines, with what services said of themselves in it: it only prints, in colour.

    The last door before a terminal: names, notes, exit reasons and command lines come through here.
    """
    if not UNSAFE.search(text):
        return text
    return "\n".join(_only_colour(line, True) for line in text.split("\n"))


def _only_colour(line: str, colour: bool) -> str:
    """`line` with every control character as text, but for colours where `colour`; they end with the line."""
    last = RESET
    pieces, position = [], 0
    for match in COLOUR.finditer(line):
        pieces.append(UNSAFE.sub(visible, line[position : match.start()]))
        if colour and not HIDDEN.intersection(match[1].split(";")):
            pieces.append(match[0])
            last = match[0]
        position = match.end()
    pieces.append(UNSAFE.sub(visible, line[position:]))
    return "".join(pieces) + ("" if last == RESET else RESET)


def visible(match: re.Match[str]) -> str:
    """A control character as text: `\\x1b`, `\\xff`, `\\u202e`."""
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"

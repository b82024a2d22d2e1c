"""Colour: styles by name, and one stable colour for each service. Pure.

A `Paint` that is off returns every text as it is, so that the callers never ask.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

STYLES = {
    "bold": "1",
    "dim": "2",
    "reverse": "7",
    "red": "31",
    "green": "32",
    "yellow": "33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
}
RESET = "\x1b[0m"
SGR = re.compile(r"\x1b\[[0-9;]*m")

# Hues of the 256-colour palette that are readable on black and on white, each in three shades for replicas.
HUES = (
    (33, 75, 27),
    (35, 78, 29),
    (166, 208, 130),
    (134, 171, 97),
    (37, 80, 30),
    (161, 204, 125),
    (136, 178, 100),
    (62, 105, 56),
    (64, 106, 70),
    (132, 175, 89),
)


@dataclass(frozen=True, slots=True)
class Paint:
    on: bool

    def __call__(self, text: str, style: str) -> str:
        """`text` in a style of `STYLES`; several are joined by a space."""
        if not self.on or not text or not style:
            return text
        codes = ";".join(STYLES[name] for name in style.split())
        return f"\x1b[{codes}m{text}{RESET}"

    def service(self, name: str, text: str) -> str:
        """`text` in the colour of the process `name`: by its service's hash, so that it never changes."""
        if not self.on:
            return text
        service, _, replica = name.rpartition(".")
        if not service or not replica.isdigit():
            service, replica = name, "1"
        shades = HUES[zlib.crc32(service.encode()) % len(HUES)]
        return f"\x1b[38;5;{shades[(int(replica) - 1) % len(shades)]}m{text}{RESET}"


def visible_length(text: str) -> int:
    """Cells that `text` takes without its colour sequences."""
    return len(SGR.sub("", text))


def clip(text: str, width: int) -> str:
    """`text` cut to `width` cells; colour sequences take none and stay whole."""
    if visible_length(text) <= width:
        return text
    out, cells, position = [], 0, 0
    while position < len(text):
        match = SGR.match(text, position)
        if match:
            out.append(match[0])
            position = match.end()
            continue
        if cells < width - 1:
            out.append(text[position])
        cells += 1
        position += 1
    cut = "".join(out) + "…"
    return cut + RESET if SGR.search(text) else cut

"""Globs over paths: `*`, `?` and `[...]` within a name, `**` for any number of directories. Pure.

Unlike fnmatch's, a `*` ends at a slash; as in .gitignore and pathlib, `**` counts as a whole name only, and may
stand for none.
"""

from __future__ import annotations

import re

MAGIC = re.compile(r"[*?\[]")
PARTS = re.compile(r"\*+|\?|\[!?\]?[^\]]*\]|.", re.DOTALL)


def base(glob: str) -> str:
    """The directory above everything that an absolute glob can match: its names before the first with magic."""
    names = glob.split("/")
    fixed = next((index for index, name in enumerate(names) if MAGIC.search(name)), len(names) - 1)
    return "/".join(names[:fixed]) or "/"


def compiled(glob: str) -> re.Pattern[str]:
    """Matches whole paths. A glob that ends in a slash stands for all that is below."""
    names = (glob + "**" if glob.endswith("/") else glob).split("/")
    text = ""
    for index, name in enumerate(names):
        is_last = index == len(names) - 1
        if name == "**":
            text += ".*" if is_last else "(?:[^/]+/)*"
        else:
            text += _name(name) + ("" if is_last else "/")
    try:
        return re.compile(rf"(?s:{text})\Z")
    except re.error:
        # A range that ends before it begins: no name has such a character, but one may have such a text.
        return re.compile(rf"{re.escape(glob)}\Z")


def _name(name: str) -> str:
    """The pattern of one name."""
    out = ""
    for part in PARTS.findall(name):
        if part[0] == "*":
            out += "[^/]*"
        elif part == "?":
            out += "[^/]"
        elif part[0] == "[" and len(part) > 1:
            chosen = part[1:-1].replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^")
            out += f"(?!/)[^{chosen[1:]}]" if chosen[0] == "!" else f"[{chosen}]"
        else:
            out += re.escape(part)
    return out

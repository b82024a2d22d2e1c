"""What is on nobody's screen and in nobody's report: values that are secrets by their name or their shape. Pure.

A name decides for the whole value, `user:password@` in a URL for that part of any text. What a service itself writes
into its log is its own business.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

NAME = re.compile(
    r"passw|passphrase|(?:^|_)pass(?:$|_)|secret|token|credential|private|auth(?!or)|key(?!board|map|code)",
    re.IGNORECASE,
)
USERINFO = re.compile(r"(?<=://)[^/@\s:]*:[^/@\s]*(?=@)")
OPTION = re.compile(r"(--?|)([A-Za-z][\w-]*)=(.*)", re.DOTALL)
MASK = "***"


def is_secret(name: str, marked: Sequence[str] = ()) -> bool:
    """Whether a variable or option of this name holds a secret; `marked` are globs of the project's own."""
    return NAME.search(name.replace("-", "_")) is not None or any(fnmatchcase(name, glob) for glob in marked)


def hidden(value: str) -> str:
    """What is shown in place of a secret: enough to see that there is one."""
    count = len(value)
    return f"(hidden, {count} character{'' if count == 1 else 's'})" if value else ""


def without_userinfo(text: str) -> str:
    """`text` with what stands before the `@` of each URL in it masked."""
    return USERINFO.sub(MASK, text)


def shown(name: str, value: str, marked: Sequence[str] = ()) -> str:
    """The value of the variable `name` as it may be shown."""
    return hidden(value) if is_secret(name, marked) else without_userinfo(value)


def shown_words(argv: Sequence[str]) -> list[str]:
    """A command line as it may be shown: `--token=x`, `--token x`, `TOKEN=x` and URLs masked."""
    words: list[str] = []
    masks_next = False
    for word in argv:
        option = OPTION.fullmatch(word)
        if masks_next and not word.startswith("-"):
            words.append(MASK)
        elif option is not None and is_secret(option[2]):
            words.append(f"{option[1]}{option[2]}={MASK}")
        else:
            words.append(without_userinfo(word))
        masks_next = word.startswith("--") and option is None and is_secret(word)
    return words

"""Where each key and value of a TOML text stands.

The TOML parser gives values without positions (cpython#115516), so this scanner walks the same text once more.
It is only run on text that the parser accepted and therefore checks nothing: it knows just enough of TOML 1.1
to step over strings, numbers, arrays, inline tables and headers. A path is a tuple of keys and array indices,
as one would index the parsed value.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import tomli

from novad.config.source import Span

Path = tuple[str | int, ...]


class Place(NamedTuple):
    """The name, quotes included, and the value; of a table with a header, the header."""

    key: Span
    value: Span


MAX_DEPTH = 40  # of a configuration by hand; what walks the values may then recurse

BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
BASIC_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
LITERAL_STRING = re.compile(r"'[^'\n]*'")
# Numbers, booleans and dates; a date may hold one space, so only these characters end it.
BARE_VALUE = re.compile(r"[^,\]}#\n]*")


def positions(text: str) -> dict[Path, Place]:
    """The places of all keys and array items of `text`, which the TOML parser accepted.

    Raises `RecursionError` for values nested deeper than `MAX_DEPTH`.
    """
    return _Scanner(text).document()


def prefix_positions(text: str) -> tuple[dict[Path, Place], Path, Span]:
    """The same for a text that the parser accepted up to its end, and the path and key it met last."""
    scanner = _Scanner(text)
    scanner.document()
    return scanner.places, scanner.last, scanner.last_key


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places: dict[Path, Place] = {}
        self.last_index: dict[Path, int] = {}  # of each array of tables
        self.last: Path = ()
        self.last_key = Span(0, 0)

    def document(self) -> dict[Path, Place]:
        table: Path = ()
        while self.skip_blank():
            if self.text.startswith("[", self.at):
                table = self.header()
            else:
                self.pair(table)
        return self.places

    def skip_blank(self) -> bool:
        """Moves to the next character that means something; False at the end of the text."""
        match = BLANK.match(self.text, self.at)
        assert match
        self.at = match.end()
        return self.at < len(self.text)

    def header(self) -> Path:
        start = self.at
        brackets = 2 if self.text.startswith("[[", start) else 1
        self.at += brackets
        keys = self.dotted_key()
        self.at += brackets
        header = Span(start, self.at)
        path: Path = ()
        for number, (name, key) in enumerate(keys, 1):
            path += (name,)
            if brackets == 2 and number == len(keys):
                self.last_index[path] = self.last_index.get(path, -1) + 1
            self.places.setdefault(path, Place(key, header))
            if path in self.last_index:
                path += (self.last_index[path],)
                self.places.setdefault(path, Place(key, header))
        self.last, self.last_key = path, keys[-1][1]
        return path

    def pair(self, table: Path) -> None:
        path = table
        keys = self.dotted_key()
        self.at += 1  # the equals sign
        self.skip_blank()
        value = self.value((*table, *(name for name, _ in keys)))
        for name, key in keys:
            path += (name,)
            self.places.setdefault(path, Place(key, value))
        self.last, self.last_key = path, keys[-1][1]

    def dotted_key(self) -> list[tuple[str, Span]]:
        keys = []
        while True:
            self.skip_blank()
            keys.append(self.simple_key())
            self.skip_blank()
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def simple_key(self) -> tuple[str, Span]:
        start = self.at
        pattern = {'"': BASIC_STRING, "'": LITERAL_STRING}.get(self.here(), BARE_KEY)
        match = pattern.match(self.text, start)
        assert match
        self.at = match.end()
        name = match.group()
        if pattern is not BARE_KEY:
            (name,) = tomli.loads(f"{name} = 0")
        return name, Span(start, self.at)

    def value(self, path: Path) -> Span:
        if len(path) > MAX_DEPTH:
            raise RecursionError(f"more than {MAX_DEPTH} levels")
        start = self.at
        match self.here():
            case "[":
                self.array(path)
            case "{":
                self.inline_table(path)
            case '"' | "'" as quote:
                self.string(quote)
            case _:
                bare = BARE_VALUE.match(self.text, start)
                assert bare
                self.at = start + len(bare.group().rstrip())
        return Span(start, self.at)

    def array(self, path: Path) -> None:
        self.at += 1
        index = 0
        while self.inside("]"):
            item = self.value((*path, index))
            self.places[(*path, index)] = Place(item, item)
            index += 1

    def inline_table(self, path: Path) -> None:
        self.at += 1
        while self.inside("}"):
            self.pair(path)

    def inside(self, closing: str) -> bool:
        """Moves to the next item of an array or inline table; past `closing` and False at its end."""
        self.skip_blank()
        if self.here() == ",":
            self.at += 1
            self.skip_blank()
        if self.here() in (closing, ""):
            self.at += 1
            return False
        return True

    def here(self) -> str:
        """The next character; empty at the end of the text."""
        return self.text[self.at : self.at + 1]

    def string(self, quote: str) -> None:
        if not self.text.startswith(quote * 3, self.at):
            match = (BASIC_STRING if quote == '"' else LITERAL_STRING).match(self.text, self.at)
            assert match
            self.at = match.end()
            return
        self.at += 3
        while not self.text.startswith(quote * 3, self.at):
            self.at += 2 if quote == '"' and self.here() == "\\" else 1
        self.at += 3
        # Up to two quotes may stand directly before the closing three and belong to the string.
        extra = 0
        while extra < 2 and self.text.startswith(quote, self.at):
            self.at += 1
            extra += 1

"""As much of YAML as compose and process-compose files use: enough to read them, and a refusal for the rest. Pure.

Mappings and sequences by indentation or in brackets, plain and quoted scalars, `|` and `>` blocks, comments. Anchors,
aliases, tags, merge keys and several documents are refused with their line. YAML 1.2's core schema gives the types.
"""

from __future__ import annotations

import json
import re
from typing import Any

DOUBLE, SINGLE = r'"(?:[^"\\]|\\.)*"', r"'(?:[^']|'')*'"
PLAIN = r"[^\s#\[\]{},&*!|>'\"%@`-][^#]*?|-[^\s#][^#]*?"
KEY = re.compile(rf"^(?P<key>{DOUBLE}|{SINGLE}|{PLAIN})\s*:(?=\s|$)")
FOREIGN = "&*!%@`"
BLOCK = re.compile(r"^([|>])([+-]?)$")


class CannotRead(ValueError):
    """`line` is counted from 1."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")


def load(text: str) -> Any:
    """The value of the document. Raises `CannotRead`."""
    reader = _Reader(text)
    found = reader.block(0) if reader.more() else None
    if reader.more():
        raise reader.fault("this is indented differently from what it belongs to")
    return found


class _Reader:
    def __init__(self, text: str) -> None:
        if "\t" in text.replace("\t#", ""):
            for number, line in enumerate(text.splitlines(), 1):
                if line.lstrip(" ").startswith("\t"):
                    raise CannotRead(number, "a tab in the indentation")
        self.raw = text.splitlines()
        self.at = 0

    def fault(self, message: str) -> CannotRead:
        return CannotRead(min(self.at, len(self.raw) - 1) + 1, message)

    def more(self) -> bool:
        """Steps over what says nothing; whether a line is left."""
        while self.at < len(self.raw):
            stripped = self.raw[self.at].strip()
            if stripped and not stripped.startswith("#") and not (stripped == "---" and self.at == 0):
                if stripped in ("---", "..."):
                    raise self.fault("several documents in one file")
                return True
            self.at += 1
        return False

    def indent(self) -> int:
        line = self.raw[self.at]
        return len(line) - len(line.lstrip(" "))

    def block(self, least: int) -> Any:
        """The collection or scalar that begins here, at least `least` deep."""
        depth = self.indent()
        if depth < least:
            return None
        text = without_comment(self.raw[self.at].strip())
        if text == "-" or text.startswith("- "):
            return self.sequence(depth)
        if KEY.match(text):
            return self.mapping(depth)
        self.at += 1
        return self.flow(text)

    def sequence(self, depth: int) -> list[Any]:
        found = []
        while self.more() and self.indent() == depth:
            line = self.raw[self.at]
            text = line.strip()
            if text != "-" and not text.startswith("- "):
                break
            rest = text[1:].strip()
            if not without_comment(rest):
                self.at += 1
                found.append(self.block(depth + 1) if self.more() else None)
            elif KEY.match(without_comment(rest)) or rest.startswith("- "):
                # The item's own lines are as deep as what stands behind the dash.
                inner = depth + len(text) - len(text[1:].lstrip())
                self.raw[self.at] = " " * inner + rest
                found.append(self.block(inner))
            else:
                found.append(self.value(rest, depth))
        return found

    def mapping(self, depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while self.more() and self.indent() == depth:
            text = self.raw[self.at].strip()
            match = KEY.match(text)
            if match is None:
                raise self.fault("expected `key: value`")
            name = str(scalar(match["key"], self))
            if name == "<<":
                raise self.fault("merge keys are not read")
            if name in found:
                raise self.fault(f"`{name}` is there twice")
            rest = text[match.end() :].strip()
            if without_comment(rest):
                found[name] = self.value(rest, depth)
                continue
            self.at += 1
            is_list = self.more() and self.indent() == depth and self.raw[self.at].lstrip().startswith("- ")
            found[name] = self.block(depth if is_list else depth + 1) if self.more() else None
        return found

    def value(self, rest: str, depth: int) -> Any:
        """What stands behind a key or a dash, perhaps going on in deeper lines."""
        plain = without_comment(rest)
        if plain[0] in FOREIGN:
            raise self.fault(f"`{plain}`: anchors, aliases and tags are not read")
        if block := BLOCK.match(plain):
            self.at += 1
            return self.literal(depth, block[1] == ">", block[2])
        self.at += 1
        while open_brackets(plain) and self.at < len(self.raw):
            plain += f" {without_comment(self.raw[self.at].strip())}"
            self.at += 1
        if plain[0] not in "\"'[{":
            while self.more() and self.indent() > depth:
                plain += f" {without_comment(self.raw[self.at].strip())}"
                self.at += 1
        return self.flow(plain)

    def literal(self, depth: int, folded: bool, chomp: str) -> str:
        lines: list[str] = []
        inner = -1
        while self.at < len(self.raw):
            line = self.raw[self.at]
            if line.strip():
                if self.indent() <= depth:
                    break
                inner = self.indent() if inner < 0 else inner
            lines.append(line[max(inner, 0) :] if line.strip() else "")
            self.at += 1
        text = (" " if folded else "\n").join(lines).rstrip() if folded else "\n".join(lines).rstrip("\n")
        return text if chomp == "-" else f"{text}\n"

    def flow(self, text: str) -> Any:
        found, rest = _flow(text, self)
        if rest.strip():
            raise self.fault(f"`{rest.strip()}` is one too many")
        return found


def _flow(text: str, reader: _Reader) -> tuple[Any, str]:
    """A value in one line, and what follows it."""
    text = text.lstrip()
    if text[:1] == "[":
        return _items(text, "]", reader)
    if text[:1] == "{":
        pairs, rest = _items(text, "}", reader)
        return {str(key): value for key, value in pairs}, rest
    if text[:1] in ("'", '"'):
        end = end_of_quote(text)
        if end < 0:
            raise reader.fault("a quote is not closed")
        return scalar(text[: end + 1], reader), text[end + 1 :]
    return scalar(text, reader), ""


def _items(text: str, close: str, reader: _Reader) -> tuple[list[Any], str]:
    found: list[Any] = []
    rest = text[1:].lstrip()
    while not rest.startswith(close):
        if not rest:
            raise reader.fault(f"a {close} is missing")
        before = rest
        key, rest = _word(rest, reader)
        if rest == before:
            raise reader.fault(f"expected a value or {close}")
        if close == "}":
            if not rest.lstrip().startswith(":"):
                raise reader.fault("expected `key: value` in { }")
            value, rest = _word(rest.lstrip()[1:].lstrip(), reader)
            found.append((key, value))
        else:
            found.append(key)
        rest = rest.lstrip().removeprefix(",").lstrip()
    return found, rest[1:]


def _word(text: str, reader: _Reader) -> tuple[Any, str]:
    if text[:1] in ("[", "{", "'", '"'):
        return _flow(text, reader)
    match = re.match(r"(?:[^,\]}:]|:(?!\s))*", text)
    assert match is not None
    return scalar(match[0].strip(), reader), text[match.end() :]


def end_of_quote(text: str) -> int:
    """The index of the quote that closes the one at 0, or -1."""
    index = 1
    while index < len(text):
        if text[index] == "\\" and text[0] == '"':
            index += 1
        elif text[index] == text[0]:
            if text[0] == "'" and text[index + 1 : index + 2] == "'":
                index += 1
            else:
                return index
        index += 1
    return -1


def without_comment(text: str) -> str:
    """`text` up to a # that begins a comment."""
    index = 0
    while index < len(text):
        if text[index] in "\"'" and (index == 0 or text[index - 1] in " [{,:"):
            end = end_of_quote(text[index:])
            index = len(text) if end < 0 else index + end
        elif text[index] == "#" and (index == 0 or text[index - 1].isspace()):
            return text[:index].rstrip()
        index += 1
    return text.rstrip()


def open_brackets(text: str) -> bool:
    """Whether a [ or { of a flow collection is still open at the end."""
    if text[:1] not in ("[", "{"):
        return False
    outside = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'', "", text)
    return outside.count("[") + outside.count("{") > outside.count("]") + outside.count("}")


def scalar(text: str, reader: _Reader) -> Any:
    """The value of a scalar by the core schema."""
    if text[:1] == '"':
        try:
            return json.loads(text)
        except ValueError as error:
            raise reader.fault(f"an escape in {text} is not read") from error
    if text[:1] == "'":
        return text[1:-1].replace("''", "'")
    if text[:1] in FOREIGN and text:
        raise reader.fault(f"`{text}`: anchors, aliases and tags are not read")
    if text in ("", "~", "null", "Null", "NULL"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if re.fullmatch(r"[-+]?\d+", text):
        return int(text)
    return float(text) if re.fullmatch(r"[-+]?\d+\.\d*(?:[eE][-+]?\d+)?", text) else text

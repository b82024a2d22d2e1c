"""What is wrong with a text that is not TOML, and what was probably meant."""

from __future__ import annotations

import re

import tomli

from novad.config.report import Fault
from novad.config.source import Source, Span

WORDS = {"True": "true", "False": "false", "yes": "true", "no": "false", "on": "true", "off": "false"}


def fault(source: Source, error: Exception) -> Fault:
    """The fault for what the TOML parser raised on the text of `source`."""
    if not isinstance(error, tomli.TOMLDecodeError):
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else f"{error}".partition(";")[0]
        return Fault(f"not TOML: {reason}", source)
    at = min(error.pos, len(source.text))
    if at == len(source.text) and at:
        at = len(source.text.rstrip()) or at
    number, column = source.locate(at)
    line = source.line(number)
    rest = re.match(r"[^\s,\]}=]*", line[column - 1 :])
    width = max(1, len(rest.group()) if rest else 1)
    message = error.msg[:1].lower() + error.msg[1:]
    return Fault(f"not TOML: {message}", source, Span(at, at + width), _hints(message, line, column))


def _hints(message: str, line: str, column: int) -> tuple[str, ...]:
    """One guess from the parser's message and the line it stopped at, or none."""
    before, rest = line[: column - 1], line[column - 1 :]
    word = re.match(r"[A-Za-z_][\w.-]*", rest)
    if "expected '='" in message:
        if ":" in line and "=" not in line:
            return (f"TOML writes `{line.partition(':')[0].strip()} = ...`, with an equals sign",)
        if re.match(r"\s*[\w-]+\s*$", before) and rest:
            return ("is there an `=` missing, or are there quotes missing around a name with spaces?",)
        return ("every line is `key = value`",)
    if "invalid value" in message:
        if word and word.group() in WORDS:
            return (f"TOML writes `{WORDS[word.group()]}`",)
        if word and word.group() in ("None", "null", "nil"):
            return ("TOML has no null; leave the key out",)
        if not rest.strip() or rest.lstrip().startswith("#"):
            return ("a value is missing after `=`",)
        return (f'text needs quotes: "{rest.strip()}"',) if word and '"' not in rest else ()
    if "illegal character" in message and not rest.strip():
        return ("the string is not closed: a quote is missing at the end of the line",)
    if "unterminated" in message or "unclosed" in message:
        return ("a closing quote or bracket is missing",)
    if "after a statement" in message:
        return ("a line holds one `key = value`; is a quote or a `#` missing?",)
    if "unescaped '\\'" in message:
        return ("write backslashes twice, or use 'single quotes'",)
    if "cannot overwrite" in message or "twice" in message or "already" in message:
        return ("this is defined twice",)
    return ()

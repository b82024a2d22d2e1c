"""What is wrong with a text that is not TOML, and what was probably meant.

The parser says where it could not go on and why in its own terms; each of its messages has a rule here that tells
it in a user's terms and guesses the cause. A message without a rule is passed on as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import tomli

from novad.config.position import prefix_positions
from novad.config.report import Fault
from novad.config.source import Source, Span

# What other languages write, and TOML's word for it.
WORDS = {"True": "true", "False": "false", "yes": "true", "no": "false", "on": "true", "off": "false"}
NULLS = ("None", "null", "nil", "~")

WORD = re.compile(r"[^\s,\]}=#\"']*")
LAST_QUOTE = re.compile(r"[\"'][^\"']*$")
# The rest of a line that begins a new statement, which means that something above it was left open.
STATEMENT = re.compile(r"""(?:[\w.-]+|"[^"]*"|'[^']*')\s*=|\[[\w."' -]+\]\s*(?:#.*)?$""")

Telling = tuple[str, Span, tuple[str, ...]]
"""The sentence, what to point at, and help."""


def fault(source: Source, error: Exception) -> Fault:
    """The fault for what the TOML parser raised on the text of `source`."""
    if isinstance(error, RecursionError):
        return Fault(f"{source.shown} is nested too deeply", source)
    if not isinstance(error, tomli.TOMLDecodeError):
        return Fault(f"{source.shown} holds a number that is too long", source)  # sys.set_int_max_str_digits
    at = min(error.pos, len(source.text))
    for pattern, rule in RULES:
        if re.match(pattern, error.msg):
            message, span, help = rule(source, at)
            return Fault(message, source, span, help)
    return Fault(error.msg[:1].lower() + error.msg[1:], source, _word_at(source, at))


def _word_at(source: Source, at: int) -> Span:
    """The word at an offset; at the end of the text, its last character."""
    if at >= len(source.text):
        at = max(len(source.text.rstrip()) - 1, 0)
        return Span(at, at + 1)
    match = WORD.match(source.text, at)
    return Span(at, max(match.end() if match else at, at + 1))


def _line_at(source: Source, at: int) -> tuple[str, str]:
    """The line around an offset, before and from it on."""
    number, column = source.locate(at)
    line = source.line(number)
    return line[: column - 1], line[column - 1 :]


def _equals(source: Source, at: int) -> Telling:
    before, rest = _line_at(source, at)
    name = before.strip()
    if rest.startswith(":"):
        help = f"TOML writes `{name} = ...`, with an equals sign"
    elif re.match(r"[\w-]+\s*=", rest):
        help = f'a name of several words needs quotes: "{name} {rest.partition("=")[0].strip()}" = ...'
    else:
        help = f"is an `=` missing after `{name}`?" if name else "every line is `key = value`"
    return "expected `key = value`", _word_at(source, at), (help,)


def _value(source: Source, at: int) -> Telling:
    before, rest = _line_at(source, at)
    rest = re.sub(r"\s*(#.*)?$", "", rest)
    span = _word_at(source, at)
    word = source.text[span.start : span.end]
    if before.rstrip().endswith("=") and not rest:
        return "a value is missing", Span(at - 1, at), ("a line is `key = value`",)
    if at >= len(source.text.rstrip()) or STATEMENT.match(rest):
        return "expected a value", span, ("is a closing `]` missing above?",)
    if word in WORDS:
        return f"`{word}` is not a value in TOML", span, (f"did you mean `{WORDS[word]}`?",)
    if word in NULLS:
        return f"`{word}` is not a value in TOML", span, ("there is no null; leave the key out",)
    if re.search(r"[\[{]", before):
        rest = re.split(r"[,\]}]", rest)[0].rstrip()
    help = (f'text needs quotes: "{rest}"',) if rest[:1].isalpha() and '"' not in rest else ()
    return "this is not a value in TOML", span, help


def _open_string(source: Source, at: int) -> Telling:
    before, rest = _line_at(source, at)
    if rest and not rest[0].isprintable():
        return f"a string cannot hold the character U+{ord(rest[0]):04X} itself", Span(at, at + 1), ()
    for quotes in ('"""', "'''"):
        if source.text.count(quotes, 0, at) % 2:
            start = source.text.rindex(quotes, 0, at)
            return "this string is never closed", Span(start, start + 3), (f"it ends at the next {quotes}",)
    opening = LAST_QUOTE.search(before)
    start = at - len(opening.group()) if opening else max(source.text.rfind("'", 0, at), 0)
    end = start + len(source.text[start:at].partition("\n")[0])
    return "this string is not closed", Span(start, end), ("a quote is missing at the end of the line",)


def _closing(kind: str, bracket: str) -> Callable[[Source, int], Telling]:
    def rule(source: Source, at: int) -> Telling:
        before, rest = _line_at(source, at)
        if at >= len(source.text.rstrip()) or (STATEMENT.match(rest) and not before.strip()):
            return f"{kind} is not closed", _word_at(source, at), (f"a `{bracket}` is missing",)
        return f"expected `,` or `{bracket}`", _word_at(source, at), ("is a comma or a quote missing before it?",)

    return rule


def _twice(source: Source, at: int) -> Telling:
    """Names what is defined twice, and where first."""
    places, path, key = prefix_positions(source.text[:at])
    for length in range(len(path), 0, -1):
        first = places.get(path[:length])
        if first is not None and first.key.start < key.start:
            name = ".".join(str(part) for part in path[:length] if isinstance(part, str))
            line = source.locate(first.key.start)[0]
            return f"`{name}` is defined twice", key, (f"first defined at {source.shown}:{line}",)
    return "this is defined twice", _word_at(source, at), ()


def _header(source: Source, at: int) -> Telling:
    help = "a header is one line, such as [services.api]; a name with other characters needs quotes"
    return "expected `]`", _word_at(source, at), (help,)


def _line_end(source: Source, at: int) -> Telling:
    before, rest = _line_at(source, at)
    if re.search(r"=\s*[+-]?0\d*$", before) and rest[:1].isdigit():
        return "a number cannot begin with 0", _word_at(source, at), ()
    return (
        "expected the end of the line",
        _word_at(source, at),
        ("is a quote, a comma or a `#` missing before it?",),
    )


def _backslash(source: Source, at: int) -> Telling:
    start = source.text.rfind("\\", 0, at + 1)
    help = "write each backslash twice, or put the text in 'single quotes'"
    return "this backslash has no meaning", Span(max(start, 0), max(start, 0) + 2), (help,)


def _statement(source: Source, at: int) -> Telling:
    return "expected `key = value` or a header such as [services.api]", _word_at(source, at), ()


def _key(source: Source, at: int) -> Telling:
    return (
        "expected a key",
        _word_at(source, at),
        ("a key with other characters than A-Z a-z 0-9 _ - needs quotes",),
    )


RULES: tuple[tuple[str, Callable[[Source, int], Telling]], ...] = (
    ("Expected '=' after", _equals),
    ("Expected newline", _line_end),
    ("Expected ']", _header),
    ("Invalid value", _value),
    ("Invalid statement", _statement),
    ("Invalid initial character", _key),
    ("(Unterminated string|Illegal character|Found invalid character|Expected \"')", _open_string),
    ("Unclosed array", _closing("this array", "]")),
    ("Unclosed inline table", _closing("this table", "}")),
    ("(Cannot (overwrite|declare|mutate|redefine)|Duplicate inline)", _twice),
    ("Unescaped", _backslash),
)

"""`${...}`: the one rule of interpolation.

`${name}` is replaced, `${env.VAR:-default}` uses its default where the variable is unset or empty, `$${` stands
for a literal `${`, and every other `$` is left alone. Pure: what a name means is asked of a `Lookup`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Lookup = Callable[[str], str | None]
"""The value of a name; None for a variable that is not set. Raises `Unresolved`."""

MAX_DEPTH = 20  # of defaults within defaults
START = re.compile(r"\$?\$\{")


class Unresolved(Exception):
    """A `${...}` that means nothing; `fragment` is its text, None where only the name is known so far."""

    def __init__(self, message: str, fragment: str | None, *help: str) -> None:
        super().__init__(message)
        self.message = message
        self.fragment = fragment
        self.help = help


@dataclass(frozen=True, slots=True)
class Reference:
    """`${name}` or `${name:-default}`; `fragment` is how it was written."""

    name: str
    default: str | None
    fragment: str


def parse(text: str) -> Iterator[str | Reference]:
    """The literal pieces and references of `text`. Raises `Unresolved` for one that is not closed."""
    at = 0
    while match := START.search(text, at):
        yield text[at : match.start()]
        if match.group() == "$${":
            yield "${"
            at = match.end()
            continue
        end = _closing(text, match.end())
        if end is None:
            raise Unresolved("`${` is not closed", text[match.start() :], "write `$${` for a literal `${`")
        name, has_default, default = text[match.end() : end].partition(":-")
        at = end + 1
        yield Reference(name, default if has_default else None, text[match.start() : at])
    yield text[at:]


def _closing(text: str, at: int) -> int | None:
    """The index of the brace that closes a reference whose inside begins at `at`."""
    depth = 1
    while at < len(text) and depth <= MAX_DEPTH:
        if text.startswith("${", at):
            depth += 1
            at += 1
        elif text[at] == "}":
            depth -= 1
            if depth == 0:
                return at
        at += 1
    return None


def expand(text: str, lookup: Lookup) -> str:
    """`text` with every reference replaced. Raises `Unresolved`."""
    if "${" not in text:
        return text
    return "".join(piece if isinstance(piece, str) else _value(piece, lookup) for piece in parse(text))


def _value(reference: Reference, lookup: Lookup) -> str:
    if reference.default is not None and not reference.name.startswith("env."):
        raise Unresolved(f"only `${{env.VAR:-...}}` takes a default, not `{reference.name}`", reference.fragment)
    try:
        value = lookup(reference.name)
    except Unresolved as error:
        # A lookup knows names; where the name stands is known here. Inner templates have set it already.
        if error.fragment is None:
            error.fragment = reference.fragment
        raise
    if reference.default is not None and not value:
        return expand(reference.default, lookup)
    if value is None:
        variable = reference.name.removeprefix("env.")
        raise Unresolved(
            f"the environment variable `{variable}` is not set",
            reference.fragment,
            f"give it a default: `${{env.{variable}:-...}}`",
        )
    return value


def names(text: str) -> set[str]:
    """The names that `text` refers to, defaults included; what is not closed refers to nothing."""
    found: set[str] = set()
    try:
        for piece in parse(text):
            if isinstance(piece, Reference):
                found.add(piece.name)
                found |= names(piece.default or "")
    except Unresolved:
        pass
    return found


def split_words(text: str, split: Callable[[str], list[str]]) -> list[str]:
    """Words of `text` as `split` (shlex) finds them, without looking into `${...}`: one reference stays one word.

    Raises what `split` raises.
    """
    fragments: list[str] = []

    def hide(piece: str | Reference) -> str:
        if isinstance(piece, Reference):
            fragments.append(piece.fragment)
        elif piece == "${":
            fragments.append("$${")
        else:
            return piece
        return f"\N{OBJECT REPLACEMENT CHARACTER}{len(fragments) - 1}\N{OBJECT REPLACEMENT CHARACTER}"

    hidden = "".join(hide(piece) for piece in parse(text))
    marks = re.compile("\N{OBJECT REPLACEMENT CHARACTER}([0-9]+)\N{OBJECT REPLACEMENT CHARACTER}")
    return [marks.sub(lambda mark: fragments[int(mark[1])], word) for word in split(hidden)]

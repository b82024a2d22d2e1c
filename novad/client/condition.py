"""`db.ready && worker.log ~ /consuming/ && !flapping`: a condition over states and log lines. Pure.

    or    := and ("||" and)*
    and   := not ("&&" not)*
    not   := "!" not | "(" or ")" | atom
    atom  := [SVC "."] WORD | SVC ".log" "~" (/regular expression/[i] | "text")

SVC is a process, a service, a group or a glob; without one a word is about all processes. `ready done stopped` want it
of all of them, every other word of any. A log line counts once it was written since the wait began.
"""

from __future__ import annotations

import difflib
import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass

from novad.core.errors import UsageError

# Word -> the states that it means. `ready` holds for a one-shot that is done, as in the plain form of `wait`.
WORDS: dict[str, frozenset[str]] = {
    "ready": frozenset({"ready", "done"}),
    "done": frozenset({"done"}),
    "stopped": frozenset({"stopped", "done", "failed"}),
    "waiting": frozenset({"waiting"}),
    "starting": frozenset({"starting"}),
    "stopping": frozenset({"stopping"}),
    "backoff": frozenset({"backoff"}),
    "failed": frozenset({"failed"}),
}
OF_ALL = ("ready", "done", "stopped")
FLAPPING = "flapping"
# Where a process rests, `ready` and `done` do not come by themselves.
HOPELESS_IN = {"ready": ("failed", "stopped"), "done": ("failed", "stopped")}
AT_REST = ("failed", "stopped", "done")

TOKEN = re.compile(
    r"\s*(?:(?P<sign>&&|\|\||[!()~])|(?P<regex>/(?:[^/\\]|\\.)*/i?)|(?P<text>\"[^\"]*\")|(?P<name>[\w.*?\[\]-]+))"
)
EXAMPLE = "novad wait 'db.ready && worker.log ~ /consuming/'"


class Verdict(enum.IntEnum):
    """`HOPELESS`: it does not hold and nothing that runs will change that. && is the least, || the greatest of two."""

    HOPELESS = 0
    OPEN = 1
    HOLDS = 2


@dataclass(frozen=True, slots=True)
class State:
    """`selector` is empty for all processes."""

    selector: str
    word: str

    def __str__(self) -> str:
        return f"{self.selector}.{self.word}" if self.selector else self.word


@dataclass(frozen=True, slots=True)
class Line:
    """A line in the log of any process of `selector`."""

    selector: str
    pattern: re.Pattern[str]

    def __str__(self) -> str:
        return f"{self.selector or 'any'}.log ~ /{self.pattern.pattern}/"


@dataclass(frozen=True, slots=True)
class Not:
    item: Condition

    def __str__(self) -> str:
        return f"!{self.item}"


@dataclass(frozen=True, slots=True)
class Both:
    """`sign` is && or ||."""

    sign: str
    left: Condition
    right: Condition

    def __str__(self) -> str:
        return f"({self.left} {self.sign} {self.right})"


Condition = State | Line | Not | Both


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known: process -> state, who flaps, the lines that were seen, and what each selector means."""

    states: Mapping[str, str]
    flapping: frozenset[str]
    seen: frozenset[Line]
    names: Mapping[str, tuple[str, ...]]


# --- Reading ------------------------------------------------------------------------------------------------


def is_condition(words: tuple[str, ...]) -> bool:
    """Whether the arguments of `wait` are a condition and not names."""
    text = " ".join(words)
    ends = "|".join([*WORDS, FLAPPING])
    return bool(re.search(rf"&&|\|\||~|(?:^|\s)[!(]|\.(?:{ends})(?:$|\s)", text)) or text.strip() == FLAPPING


def is_meant_as_condition(word: str) -> bool:
    """Whether a name that nothing has, like `api.redy`, looks like a misspelled condition."""
    return bool(difflib.get_close_matches(word.rpartition(".")[2], [*WORDS, FLAPPING, "log"], n=1))


def parse(text: str) -> Condition:
    """The condition. Raises `UsageError` that points at the place."""
    parser = _Parser(text)
    found = parser.either()
    if parser.token:
        raise parser.fault("expected && or || here")
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = self.start = 0
        self.token = self.kind = ""
        self.next()

    def next(self) -> str:
        """Steps on; the token that was current."""
        before = self.token
        rest = self.text[self.position :]
        match = TOKEN.match(rest)
        if match is None:
            self.start = self.position + len(rest) - len(rest.lstrip())
            self.token = self.kind = ""
            if rest.strip():
                raise self.fault("this is no word of a condition")
            return before
        self.kind = match.lastgroup or ""
        self.token = match[self.kind]
        self.start = self.position + match.start(self.kind)
        self.position += match.end()
        return before

    def fault(self, message: str) -> UsageError:
        return UsageError(f"{message}\n  {self.text}\n  {' ' * self.start}^", EXAMPLE)

    def either(self) -> Condition:
        found = self.both()
        while self.token == "||":
            self.next()
            found = Both("||", found, self.both())
        return found

    def both(self) -> Condition:
        found = self.negated()
        while self.token == "&&":
            self.next()
            found = Both("&&", found, self.negated())
        return found

    def negated(self) -> Condition:
        if self.token == "!":
            self.next()
            return Not(self.negated())
        if self.token == "(":
            self.next()
            found = self.either()
            if self.token != ")":
                raise self.fault("a ) is missing here")
            self.next()
            return found
        return self.atom()

    def atom(self) -> Condition:
        if self.kind != "name":
            raise self.fault("expected SVC.ready, SVC.log ~ /.../ or another condition here")
        selector, _, word = self.token.rpartition(".")
        if word == "log":
            return self.line(selector)
        if word not in WORDS and word != FLAPPING:
            close = difflib.get_close_matches(word, [*WORDS, FLAPPING, "log"], n=1)
            meant = f"; did you mean `{close[0]}`?" if close else f", one of {' '.join(WORDS)} {FLAPPING} log"
            raise self.fault(f"`{word}` is no state{meant}")
        self.next()
        return State(selector, word)

    def line(self, selector: str) -> Condition:
        self.next()
        if self.token != "~":
            raise self.fault("expected ~ /regular expression/ after .log")
        self.next()
        if self.kind == "text":
            pattern, flags = re.escape(self.token[1:-1]), 0
        elif self.kind == "regex":
            body, _, letters = self.token[1:].rpartition("/")
            pattern, flags = body.replace("\\/", "/"), re.IGNORECASE if letters else 0
        else:
            raise self.fault('expected /regular expression/ or "text" here')
        try:
            compiled = re.compile(pattern, flags)
        except re.error as error:
            raise self.fault(f"not a regular expression: {error}") from error
        self.next()
        return Line(selector, compiled)


# --- Judging ------------------------------------------------------------------------------------------------


def atoms(condition: Condition) -> list[State | Line]:
    """What it is made of, from left to right."""
    match condition:
        case Not(item):
            return atoms(item)
        case Both(_, left, right):
            return [*atoms(left), *atoms(right)]
        case State() | Line():
            return [condition]


def judge(condition: Condition, facts: Facts) -> Verdict:
    """Whether it holds now, and whether it can still come to hold."""
    match condition:
        case Not(item):
            return Verdict.OPEN if judge(item, facts) is Verdict.HOLDS else Verdict.HOLDS
        case Both(sign, left, right):
            found = judge(left, facts), judge(right, facts)
            return min(found) if sign == "&&" else max(found)
        case Line():
            return _judge_line(condition, facts)
        case State():
            return _judge_state(condition, facts)


def _judge_line(line: Line, facts: Facts) -> Verdict:
    if line in facts.seen:
        return Verdict.HOLDS
    is_over = all(facts.states[name] in AT_REST for name in facts.names[line.selector])
    return Verdict.HOPELESS if is_over else Verdict.OPEN


def _judge_state(state: State, facts: Facts) -> Verdict:
    names = facts.names[state.selector]
    if state.word == FLAPPING:
        return Verdict.HOLDS if facts.flapping.intersection(names) else Verdict.OPEN
    found = [facts.states[name] in WORDS[state.word] for name in names]
    if all(found) if state.word in OF_ALL else any(found):
        return Verdict.HOLDS
    is_lost = any(facts.states[name] in HOPELESS_IN.get(state.word, ()) for name in names)
    return Verdict.HOPELESS if is_lost else Verdict.OPEN


def unmet(condition: Condition, facts: Facts) -> list[tuple[str, str]]:
    """What keeps it from holding: each part with what is so instead."""
    if judge(condition, facts) is Verdict.HOLDS:
        return []
    match condition:
        case Both(_, left, right):
            return [*unmet(left, facts), *unmet(right, facts)]
        case Line(selector):
            return [(str(condition), f"no such line yet; {_present(facts, selector)}")]
        case Not(item):
            selectors = {atom.selector for atom in atoms(item)}
            return [(str(condition), "; ".join(_present(facts, selector) for selector in sorted(selectors)))]
        case State(selector):
            return [(str(condition), _present(facts, selector))]


def _present(facts: Facts, selector: str) -> str:
    """`api ready, compute.2 flapping`."""
    return ", ".join(
        f"{name} {facts.states[name]}{' (flapping)' if name in facts.flapping else ''}"
        for name in facts.names[selector]
    )

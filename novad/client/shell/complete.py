"""Completion by position, from the table of verbs and the live states. No prompt_toolkit in here: pure.

The first word is a verb; after it, `-` completes options, an option or argument with choices its choices, and an
argument for services the names, those that make sense for the verb first.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from novad.client.grammar import Verb
from novad.client.render.words import SHAPES, duration, exit_words

# Verb -> the states whose processes one means most often.
LIKELY = {
    "start": ("stopped", "failed", "done"),
    "why": ("failed", "backoff", "waiting", "starting"),
    "stop": ("ready", "starting", "backoff"),
    "restart": ("failed", "backoff", "ready"),
}
OWN_WORDS = {
    "watch": "run a command again and again, in place",
    "set": "set follow [SVC...] [level=LEVEL] | set toolbar on|off",
    "exit": "leave; the services keep running",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    text: str
    meta: str = ""


def candidates(
    before: str,
    verbs: dict[str, tuple[Verb, tuple[str, ...]]],
    processes: Sequence[dict[str, Any]],
    calls: Sequence[tuple[str, str]] = (),
) -> tuple[str, list[Candidate]]:
    """The word that is being typed, and what could complete it. `calls` are (topic, method) known from before."""
    words = before.split()
    word = "" if not words or before[-1].isspace() else words.pop()
    while words[:1] in (["watch"], ["novad"]):
        words.pop(0)
    if not words:
        rows = {name: row[0].help.split(". ")[0].rstrip(".") for name, row in verbs.items() if not row[0].hidden}
        found = [Candidate(name, text) for name, text in (rows | OWN_WORDS).items()]
    elif words[0] == "set":
        found = [Candidate("follow", "live log lines above the prompt"), Candidate("toolbar")]
        found += service_candidates("set", processes)
    elif words[0] == "call" and not word.startswith("-") and len(words) < 3:
        found = call_candidates(words[1:], processes, calls)
    elif words[0] in verbs:
        found = argument_candidates(verbs[words[0]][0], words[1:], word, verbs, processes)
    else:
        found = []
    return word, matching(word, found)


def matching(word: str, found: list[Candidate]) -> list[Candidate]:
    """Those that begin with the word, then those that hold its letters in order (`ap` finds nova-api)."""
    begin = [item for item in found if item.text.startswith(word)]
    rest = [item for item in found if item not in begin and not item.text.startswith("-")]
    return begin + [item for item in rest if word and is_subsequence(word, item.text)]


def is_subsequence(word: str, text: str) -> bool:
    letters = iter(text)
    return all(letter in letters for letter in word)


def argument_candidates(
    verb: Verb,
    words: list[str],
    word: str,
    verbs: dict[str, tuple[Verb, tuple[str, ...]]],
    processes: Sequence[dict[str, Any]],
) -> list[Candidate]:
    options = [param for param in verb.params if isinstance(param, click.Option)]
    if word.startswith("-"):
        return [
            Candidate(name, param.help or "")
            for param in options
            for name in (*param.opts, *param.secondary_opts)
            if name.startswith("--") or len(word) == 1
        ]
    previous = words[-1] if words else ""
    for param in options:
        if previous in param.opts and not param.is_flag:
            return choices(param) or (service_candidates(verb.name, processes) if param.metavar == "SVC" else [])
    argument = argument_at(verb, position(words, options))
    if argument is None:
        return []
    if argument.name == "names" or argument.metavar == "SVC":
        return service_candidates(verb.name, processes, frozenset(words))
    if argument.name == "signal_name":
        return [Candidate(item.name.removeprefix("SIG")) for item in signal.Signals]
    if argument.name == "verb_name":
        return [Candidate(name, row[0].help.split(". ")[0]) for name, row in verbs.items()]
    return choices(argument)


def call_candidates(
    words: list[str], processes: Sequence[dict[str, Any]], calls: Sequence[tuple[str, str]]
) -> list[Candidate]:
    """Topics: those called before, then services. Methods: those called on the topic before."""
    if words:
        return [Candidate(method) for topic, method in calls if topic == words[0]]
    called = dict.fromkeys(topic for topic, _ in calls)
    services = [item for item in service_candidates("call", processes) if item.text not in called]
    return [*(Candidate(topic, "called before") for topic in called), *services]


def position(words: list[str], options: list[click.Option]) -> int:
    """How many arguments (no options, no values of options) stand before."""
    takes_value = {name for param in options if not param.is_flag for name in param.opts}
    count = 0
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = word in takes_value
        else:
            count += 1
    return count


def argument_at(verb: Verb, index: int) -> click.Argument | None:
    arguments = [param for param in verb.params if isinstance(param, click.Argument)]
    for number, argument in enumerate(arguments):
        if number == index or argument.nargs == -1:
            return argument
    return None


def choices(param: click.Parameter) -> list[Candidate]:
    return [Candidate(str(item)) for item in param.type.choices] if isinstance(param.type, click.Choice) else []


def service_candidates(
    verb: str, processes: Sequence[dict[str, Any]], given: frozenset[str] = frozenset()
) -> list[Candidate]:
    """Services, replicas and groups, each with its state; the likely ones for this verb first."""
    found: list[tuple[bool, Candidate]] = []
    likely = LIKELY.get(verb, ())
    services: dict[str, list[dict[str, Any]]] = {}
    for process in processes:
        services.setdefault(process["service"], []).append(process)
    for service, members in services.items():
        if len(members) > 1 or members[0]["name"] != service:
            states = {item["state"] for item in members}
            is_likely = bool(states.intersection(likely))
            found.append((is_likely, Candidate(service, f"{len(members)} replicas, {', '.join(sorted(states))}")))
        found += [(item["state"] in likely, Candidate(item["name"], state_meta(item))) for item in members]
    groups = dict.fromkeys(group for item in processes for group in item.get("groups") or [])
    found += [(False, Candidate(group, "group")) for group in groups]
    found.sort(key=lambda item: not item[0])
    return [item for _, item in found if item.text not in given]


def state_meta(process: dict[str, Any]) -> str:
    """`● ready 12m04s`, `↻ backoff, exit 1`."""
    shape = SHAPES.get(process["state"], ("?", ""))[0]
    if process["state"] in ("backoff", "failed"):
        ended = exit_words(process.get("exit_code"), process.get("signal"))
        return f"{shape} {process['state']}{', ' + ended if ended else ''}"
    uptime = f" {duration(process['uptime_s'])}" if process.get("uptime_s") is not None else ""
    return f"{shape} {process['state']}{uptime}"

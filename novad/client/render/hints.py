"""What people who know the error would say next. Pure: facts in, sentences with commands out.

A table of patterns over the last lines of a dead run, then rules on how it ended. Facts about the machine (who
holds a port, how much memory there is) are looked up by the caller and handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hint:
    sentence: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """What the caller found out.

    `virtual_env` and `interpreter` (a path) are those of the process; `beside_python` is where the missing program is,
    beside novad's own interpreter.
    """

    port_owners: dict[int, str] = field(default_factory=dict)
    port_services: dict[int, tuple[str, str]] = field(default_factory=dict)
    virtual_env: str = ""
    interpreter: str = ""
    oom_kills: int | None = None
    beside_python: str = ""


# A start that takes longer than this deserves advice.
SLOW_START_S = 3.0

Rule = Callable[[re.Match[str], Entry, Facts], Hint]


def busy_port(match: re.Match[str], entry: Entry, facts: Facts) -> Hint:
    numbers = [int(number) for number in re.findall(r"\b(\d{2,5})\b", match[0])]
    for number in [*numbers, *facts.port_owners]:
        owner = facts.port_owners.get(number)
        if owner:
            pid = re.match(r"pid (\d+)", owner)
            command = f"kill {pid[1]}" if pid else f"novad check --show {entry['name']}"
            return Hint(f'port {number} is held by {owner}; end that, or write the port as "auto"', command)
    return Hint(
        "another process holds the port it wants to bind",
        f"novad check --system; novad check --show {entry['name']}",
    )


def no_module(match: re.Match[str], entry: Entry, facts: Facts) -> Hint:
    interpreter = facts.interpreter or (entry.get("argv") or ["python"])[0]
    where = f", VIRTUAL_ENV was {facts.virtual_env}" if facts.virtual_env else ", no VIRTUAL_ENV was set"
    return Hint(
        f"module `{match[1]}` is not installed for the interpreter that ran: {interpreter}{where}",
        f"novad check --show {entry['name']}",
    )


def breakpoint_without_terminal(_match: re.Match[str], entry: Entry, _facts: Facts) -> Hint:
    return Hint(
        "it stopped in a breakpoint, and a supervised process has no terminal",
        f"novad fg {entry['name']}",
    )


def refused(match: re.Match[str], entry: Entry, facts: Facts) -> Hint:
    for number in [*map(int, re.findall(r"\b(\d{2,5})\b", match[0])), *mentioned_ports(entry)]:
        if number in facts.port_services:
            name, state = facts.port_services[number]
            return Hint(
                f"nobody answered on port {number}: that is `{name}`, which is {state}", f"novad why {name}"
            )
    return Hint(
        "nobody listens where it tried to connect; a service it needs may be missing from its `after`",
        f"novad status; novad check --show {entry['name']}",
    )


def mentioned_ports(entry: Entry) -> list[int]:
    """Numbers in the command and, after a colon or the word port, in the last lines.

    A traceback rarely names the port.
    """
    exits = entry.get("exits") or [{}]
    lines = "\n".join(strip_stamp(line) for line in exits[0].get("lines") or [])
    found = re.findall(r"(?<![\w.])(\d{2,5})(?![\w.])", " ".join(entry.get("argv") or []))
    found += re.findall(r"(?:port\W{0,3}|[\w\]]:)(\d{2,5})\b", lines)
    return list(dict.fromkeys(int(text) for text in found if 0 < int(text) < 65536))


def permission(match: re.Match[str], entry: Entry, _facts: Facts) -> Hint:
    path = match[1] or match[2]
    subject = f"`{path}`" if path else "a file"
    return Hint(
        f"it may not use {subject}; it runs as you", f"ls -ld {path}" if path else f"novad logs {entry['name']}"
    )


def no_file(match: re.Match[str], entry: Entry, _facts: Facts) -> Hint:
    return Hint(
        f"`{match[1]}` does not exist; relative paths start at its cwd", f"novad check --show {entry['name']}"
    )


PATTERNS: tuple[tuple[re.Pattern[str], Rule], ...] = (
    (re.compile(r".*(?:EADDRINUSE|[Aa]ddress already in use).*"), busy_port),
    (re.compile(r"bdb\.BdbQuit|^\(Pdb\) ?$", re.M), breakpoint_without_terminal),
    (re.compile(r"(?:ModuleNotFoundError|ImportError): No module named '?([\w.]+)"), no_module),
    (re.compile(r".*(?:ECONNREFUSED|[Cc]onnection refused).*"), refused),
    (re.compile(r"PermissionError: .*?'([^']+)'|(\S+): [Pp]ermission denied"), permission),
    (re.compile(r"FileNotFoundError: .*?'([^']+)'"), no_file),
)


def hints_for(entry: Entry, facts: Facts, exit_index: int = 0) -> list[Hint]:
    """At most two hints, the most specific first; every entry that is not well gets at least one."""
    exits = entry.get("exits") or []
    name, state = entry["name"], entry["state"]
    found: list[Hint] = []
    if len(exits) > exit_index and not exits[exit_index].get("sent_by_novad"):
        found += exit_hints(exits[exit_index], entry, facts)
    if state == "starting" and (entry.get("since_s") or 0) >= SLOW_START_S:
        found.append(starting_hint(entry))
    if state == "waiting":
        found += [waiting_hint(item) for item in (entry.get("waiting_for") or []) if isinstance(item, dict)]
    if "not ready within" in (entry.get("cause") or "") and not found:
        saw = f", its probe last saw: {entry['awaiting']}" if entry.get("awaiting") else ""
        found.append(Hint(f"it ran, but did not get ready in its ready_timeout{saw}", f"novad logs {name} -n 20"))
    if state == "failed":
        found.append(Hint("it stays down until you start it again", f"novad restart {name}"))
    if state == "stopped":
        found.append(Hint("it is down because that is wanted", f"novad start {name}"))
    if state == "backoff" and not found:
        found.append(Hint("the whole log of that run", f"novad logs {name} --run -1"))
    return found[:2]


def exit_hints(item: dict[str, Any], entry: Entry, facts: Facts) -> list[Hint]:
    name = entry["name"]
    error = item.get("error")
    if error and facts.beside_python:
        return [
            Hint(
                f"{facts.beside_python} exists, but its directory is not in the PATH of the shell that ran `up`",
                f'PATH="{facts.beside_python.rpartition("/")[0]}:$PATH" novad reload --env',
            )
        ]
    if error:
        return [Hint("what would be run, where, and with which PATH", f"novad check --show {name}")]
    text = "\n".join(strip_stamp(line) for line in item.get("lines") or [])
    for pattern, rule in PATTERNS:
        matches = list(pattern.finditer(text))
        if matches:
            return [rule(matches[-1], entry, facts)]
    if item.get("signal") == "SIGKILL":
        counted = f"; the kernel counts {facts.oom_kills} out-of-memory kills" if facts.oom_kills else ""
        return [Hint(f"somebody else killed it, or the kernel for want of memory{counted}", "dmesg | tail")]
    if item.get("signal") == "SIGSEGV":
        return [Hint("a crash in native code (segmentation fault)", f"PYTHONFAULTHANDLER=1 in the env of {name}")]
    if item.get("exit_code") == 100:
        return [
            Hint("it says that trying again is pointless: flags or configuration", f"novad logs {name} --run 0")
        ]
    return []


def starting_hint(entry: Entry) -> Hint:
    name = entry["name"]
    if entry.get("awaiting"):
        return Hint("its probe has not been satisfied yet; its log may say why", f"novad logs {name} -n 20")
    return Hint("it has not said that it is ready", f"novad logs {name} -f")


def waiting_hint(item: dict[str, Any]) -> Hint:
    blocker, state = item.get("name"), item.get("state")
    if state == "stopped":
        return Hint(f"`{blocker}` is stopped", f"novad start {blocker}")
    return Hint(f"`{blocker}` is {state}", f"novad why {blocker}")


def strip_stamp(line: str) -> str:
    return line[30:] if len(line) >= 30 and line[26:28] == "Z " and line[29] == " " else line

"""One causal answer: what happened to a process, why, who is hurt, and what to type. Pure.

Reads an entry of the `why` reply. A process that novad itself ended is never shown as a crash.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from novad.client.render.escape import for_terminal
from novad.client.render.hints import Hint
from novad.client.render.paint import Paint
from novad.client.render.words import (
    EXIT_MEANINGS,
    SHAPES,
    awaited,
    duration,
    exit_words,
    plural,
    shorten,
    signal_number,
)
from novad.core.secret import shown_words
from novad.core.shell import joined

Entry = dict[str, Any]
LABEL = 11
FACT_LINES = 3
# A line of a child takes this many lines of the report at most, and one that says that something is left out.
EXCERPT_PARTS = 6


@dataclass(frozen=True, slots=True)
class WhyStyle:
    """`lines` of the dead run are shown; `home` is written as `~`; `exit_index` 0 is the last exit."""

    paint: Paint
    width: int = 80
    lines: int = 10
    home: str = ""
    exit_index: int = 0


def why_report(entry: Entry, hints: list[Hint], style: WhyStyle) -> list[str]:
    """The whole answer about one process."""
    paint = style.paint
    lines = [paint(line, "bold") for line in textwrap.wrap(headline(entry), style.width, break_long_words=False)]
    rows = [(label, value) for label, value in fact_rows(entry, style) if value]
    if rows:
        lines.append("")
    for label, value in rows:
        lines += fact_lines(label, value, style)
    lines += excerpt(entry, style)
    if hints:
        lines.append("")
    for hint in hints:
        sentence = textwrap.wrap(
            hint.sentence, max(20, style.width - 8), break_long_words=False, break_on_hyphens=False
        )
        lines.append(f"  {paint('hint', 'cyan')}  {sentence[0]}")
        lines += [f"        {text}" for text in sentence[1:]]
        if hint.command:
            lines.append(f"        {paint(hint.command, 'bold')}")
    return lines


def fact_lines(label: str, value: str, style: WhyStyle) -> list[str]:
    """A fact, over several lines where it is long; a value of one word (a path) is never cut."""
    width = max(20, style.width - LABEL - 3)
    wrapped = textwrap.wrap(value, width, break_long_words=False, break_on_hyphens=False)
    if len(wrapped) > FACT_LINES:
        wrapped = [*wrapped[: FACT_LINES - 1], shorten(" ".join(wrapped[FACT_LINES - 1 :]), width)]
    labels = [style.paint(label.ljust(LABEL), "dim"), *[" " * LABEL] * (FACT_LINES - 1)]
    return [f"  {head} {text}" for head, text in zip(labels, wrapped, strict=False)]


def headline(entry: Entry) -> str:
    """What is so, in one sentence."""
    name, state = entry["name"], entry["state"]
    since = f" for {duration(entry['since_s'])}" if entry.get("since_s") is not None else ""
    crashes = crash_count(entry)
    retry = entry.get("retry_in_s")
    if state == "backoff":
        when = "" if retry is None else f" — next try in {duration(retry)}"
        limit = entry.get("give_up_after")
        attempt = "" if not limit else f" (failure {entry.get('failures') or crashes} of {limit}, then failed)"
        return f"{name} crashed{times(crashes)} and is in backoff{when}{attempt}"
    if state == "failed":
        could_not_start = bool(entry.get("exits")) and entry["exits"][0].get("error")
        return f"{name} has failed{since}: {'it cannot be started' if could_not_start else cause_words(entry)}"
    if state == "waiting":
        return f"{name} is waiting{since} for {waited_for(entry) or 'its turn'}"
    if state == "starting":
        saw = f": {entry['awaiting']}" if entry.get("awaiting") else ""
        return f"{name} is starting{since} and not ready yet{saw}"
    if state in ("stopped", "stopping"):
        return f"{name} is {state}{since}" + (f": {entry['cause']}" if entry.get("cause") else "")
    if crashes and not entry["exits"][0].get("sent_by_novad"):
        return f"{name} is {state}{since}; before that it crashed{times(crashes)}"
    return f"{name} is {state}{since}: nothing is wrong with it"


def times(count: int) -> str:
    return "" if count <= 1 else f" {count} times"


def crash_count(entry: Entry) -> int:
    return sum(1 for item in entry.get("exits") or [] if is_crash(item))


def is_crash(item: dict[str, Any]) -> bool:
    if item.get("sent_by_novad"):
        return False
    return bool(item.get("error")) or item.get("signal") is not None or item.get("exit_code") not in (0, None)


def cause_words(entry: Entry) -> str:
    exits = entry.get("exits") or []
    if entry.get("cause"):
        return str(entry["cause"])
    return exit_phrase(exits[0]) if exits else "it never ran"


def waited_for(entry: Entry) -> str:
    return awaited(entry.get("waiting_for") or [])


def exit_phrase(item: dict[str, Any]) -> str:
    """`exit code 1 after 0.31s`, `killed by SIGKILL (9), not sent by novad, after 3.0s`."""
    after = "" if item.get("lived_s") is None else f" after {duration(item['lived_s'])}"
    if item.get("error"):
        return str(item["error"])
    if item.get("signal") is not None:
        who = "stopped by novad with" if item.get("sent_by_novad") else "killed by"
        number = signal_number(item["signal"])
        foreign = "" if item.get("sent_by_novad") else ", not sent by novad,"
        return f"{who} {item['signal']}{number}{foreign}{after}"
    if item.get("exit_code") is None:
        return f"ended{after}; how is not known"
    meaning = EXIT_MEANINGS.get(item["exit_code"])
    asked = ", as novad asked" if item.get("sent_by_novad") else ""
    return f"exit code {item['exit_code']}{f' ({meaning})' if meaning else ''}{after}{asked}"


def fact_rows(entry: Entry, style: WhyStyle) -> list[tuple[str, str]]:
    """Label and value of each known fact; empty values are left out by the caller."""
    exits = entry.get("exits") or []
    rows: list[tuple[str, str]] = []
    if len(exits) > style.exit_index:
        chosen = exits[style.exit_index]
        label = "last exit" if style.exit_index == 0 else "exit"
        rows.append((label, f"{exit_phrase(chosen)}   {when_words(chosen)}"))
        rows.append(("before", earlier_words(exits[style.exit_index + 1 :], chosen)))
        rows.append(("was", was_words(entry, chosen)))
    if entry["state"] == "starting":
        rows.append(("awaiting", entry.get("awaiting") or ""))
    if entry["state"] != "waiting":
        rows.append(("waits for", waited_for(entry)))
    rows.append(("command", joined(shown_words(entry.get("argv") or []))))
    rows.append(("cwd", tilde(entry.get("cwd") or "", style.home)))
    hurt = entry.get("hurts") or []
    if entry["state"] not in ("ready", "done"):
        rows.append(("hurts", ", ".join(hurt) if hurt else "nothing waits for it"))
    rows.append(("log", tilde(entry.get("log") or "", style.home)))
    return rows


def when_words(item: dict[str, Any]) -> str:
    at = item.get("at")
    clock = "" if at is None else datetime.fromtimestamp(at).strftime("%H:%M:%S, ")
    pid = "" if item.get("pid") is None else f", pid {item['pid']}"
    return f"{clock}run {item.get('run', '?')}{pid}"


def earlier_words(earlier: list[dict[str, Any]], last: dict[str, Any]) -> str:
    """`exit 1 (0.30s) · exit 1 (0.31s) — always the same error`."""
    if not earlier:
        return ""
    shown = [f"{earlier_word(item)} ({duration(item.get('lived_s'))})" for item in earlier[:4]]
    more = f" and {len(earlier) - 4} more" if len(earlier) > 4 else ""
    same = all(error_line(item) == error_line(last) and same_exit(item, last) for item in earlier)
    return " · ".join(shown) + more + (" — always the same error" if same and is_crash(last) else "")


def earlier_word(item: dict[str, Any]) -> str:
    if item.get("error"):
        return "not started"
    if item.get("sent_by_novad"):
        return "stopped by novad"
    return exit_words(item.get("exit_code"), item.get("signal")) or "ended"


def same_exit(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(one.get(key) == other.get(key) for key in ("exit_code", "signal", "error"))


def error_line(item: dict[str, Any]) -> str:
    """The line that names the error: the last that is not blank, without its stamp."""
    for line in reversed(item.get("lines") or []):
        text = line_text(line)
        if text.strip():
            return text.strip()
    return ""


def line_text(line: str) -> str:
    """A line of a run, without the stamp where it still has one."""
    is_stamped = len(line) >= 30 and line[26] == "Z" and line[27] == " " and line[29] == " "
    return line[30:] if is_stamped else line


def was_words(entry: Entry, item: dict[str, Any]) -> str:
    if not is_crash(item) or item.get("error"):
        return ""
    return "ready before" if item.get("was_ready") else "never ready"


def excerpt(entry: Entry, style: WhyStyle) -> list[str]:
    """The last lines of the run that ended."""
    exits = entry.get("exits") or []
    if len(exits) <= style.exit_index or style.lines == 0:
        return []
    chosen = exits[style.exit_index]
    kept = [line_text(line) for line in chosen.get("lines") or []]
    if not kept or (not is_crash(chosen) and entry["state"] == "ready"):
        return []
    shown = kept[-style.lines :]
    lines = ["", f"  last {plural(len(shown), 'line')} of run {chosen.get('run', '?')}"]
    for text in shown:
        safe = for_terminal(text.encode("utf-8", "surrogateescape"), colour=False)
        lines += [f"  {style.paint('│', 'red')} {part}" for part in folded(safe, max(20, style.width - 5))]
    return lines


def folded(line: str, width: int) -> list[str]:
    """A line over several where it is long: what says most (a number, an error) often stands at its end.

    Of a very long one the middle is left out.
    """
    indent = " " * min(len(line) - len(line.lstrip()), width // 2)
    parts = textwrap.wrap(
        line, width, subsequent_indent=f"{indent}  ", break_on_hyphens=False, expand_tabs=False,
        replace_whitespace=False, drop_whitespace=True,
    )  # fmt: skip
    if len(parts) > EXCERPT_PARTS:
        kept = EXCERPT_PARTS // 2
        parts = [*parts[:kept], f"{indent}  …", *parts[-kept:]]
    return parts or [""]


def tilde(path: str, home: str) -> str:
    return f"~{path[len(home) :]}" if home and (path == home or path.startswith(home + "/")) else path


def ok_line(paint: Paint) -> str:
    shape, style = SHAPES["ready"]
    return f"{paint(shape, style)} no process has crashed, and nothing waits"

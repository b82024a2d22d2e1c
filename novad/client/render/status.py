"""The status document as text: the table, one process in detail. Pure.

A table fits the given width: first the note is shortened, then columns go from the right (ports, rss, cpu...),
and the last line says which ones, because a missing column must not look like a missing value.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import Any

from novad.client.render.paint import Paint, visible_length
from novad.client.render.words import (
    NOTHING,
    SHAPES,
    count_states,
    describe_wait,
    duration,
    exit_words,
    shorten,
    shown_state,
    size,
)
from novad.core.secret import shown_words
from novad.core.shell import joined

Process = dict[str, Any]
NOTE_MIN = 14
GAP = "  "


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    right: bool = False


COLUMNS = {
    "service": Column("SERVICE"),
    "state": Column("STATE"),
    "pid": Column("PID", right=True),
    "uptime": Column("UPTIME", right=True),
    "rst": Column("RST", right=True),
    "cpu": Column("CPU%", right=True),
    "rss": Column("RSS", right=True),
    "ports": Column("PORTS"),
    "note": Column("NOTE"),
}
DROPPED_FIRST = ("ports", "rss", "cpu", "rst", "uptime", "pid")


def status_table(document: dict[str, Any], width: int, paint: Paint, columns: tuple[str, ...] = ()) -> list[str]:
    """Header, table and the next command to type. `columns` names what to show whatever the width."""
    processes = document["processes"]
    lines = header(document, paint, width)
    if not processes:
        return [*lines, "no services"]
    rows = [cells(process) for process in processes]
    shown = columns or tuple(COLUMNS)
    hidden: tuple[str, ...] = ()
    if not columns:
        shown, hidden = fit(rows, width)
    lines += table(processes, rows, shown, width if not columns else 10_000, paint)
    hint = next_command(processes)
    if hint:
        lines.append(paint(hint, "dim"))
    if hidden:
        lines.append(paint(f"{', '.join(COLUMNS[name].title for name in hidden)}: novad status -o wide", "dim"))
    return lines


def header(document: dict[str, Any], paint: Paint, width: int) -> list[str]:
    """`nova-dev  up 12m04s  6 ready · 1 backoff`, on two lines where one is too short."""
    project = document["project"] or "no cluster"
    namespace = document.get("namespace") or "default"
    title = project if namespace == "default" else f"{project} ({namespace})"
    up = duration(document["daemon"]["uptime_s"])
    first, counts = f"{paint(title, 'bold')}  up {up}", count_states(document["processes"])
    if visible_length(first) + len(GAP) + len(counts) > width:
        return [first, *textwrap.wrap(counts, width), *_disk(document, paint)]
    return [f"{first}{GAP}{counts}".rstrip(), *_disk(document, paint)]


def _disk(document: dict[str, Any], paint: Paint) -> list[str]:
    """A word on a disk that does not keep up: logs and journal are behind."""
    disk = document["daemon"].get("disk", {})
    if not disk.get("late_s"):
        return []
    said = f"the disk is slow: {disk['waiting']} writes of novad wait, the oldest for {duration(disk['late_s'])}"
    return [paint(said, "yellow")]


def cells(process: Process) -> dict[str, str]:
    """The text of each column of one process, without colour."""
    cpu = process.get("cpu_percent")
    is_running = process.get("pid") is not None
    uptime = process.get("uptime_s") if is_running or process["state"] == "done" else None
    return {
        "service": process["name"],
        "state": state_cell(process),
        "pid": str(process["pid"]) if is_running else NOTHING,
        "uptime": duration(uptime),
        "rst": str(process.get("restarts") or 0),
        "cpu": NOTHING if cpu is None else f"{cpu:.1f}",
        "rss": size(process.get("rss_bytes")),
        "ports": ",".join(str(number) for number in (process.get("ports") or {}).values()),
        "note": note(process),
    }


def state_cell(process: Process) -> str:
    word = shown_state(process)
    return f"{SHAPES.get(word, ('?', ''))[0]} {word}"


def note(process: Process) -> str:
    """What a person asks next about this state: what it waits for, why it ended, when it tries again."""
    said = process.get("note") or ""
    if shown_state(process) == "paused":
        said = said.removeprefix("paused").removeprefix(", ")
    waits = [describe_wait(item) for item in process.get("waiting_for") or []]
    if not said and process["state"] == "waiting" and waits:
        said = "after " + ", ".join(waits)
    if not said and process["state"] == "starting":
        said = process.get("awaiting") or ""
    if not said and process["state"] in ("backoff", "failed"):
        said = exit_words(process.get("exit_code"), process.get("signal"))
    return "".join(character for character in said if character.isprintable())


def fit(rows: list[dict[str, str]], width: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which columns are shown in `width` cells, and which are not."""
    shown = list(COLUMNS)
    hidden: list[str] = []
    if all(not row["ports"] for row in rows):
        shown.remove("ports")
    if all(not row["note"] for row in rows):
        shown.remove("note")
    for candidate in DROPPED_FIRST:
        if needed_width(rows, shown) <= width:
            break
        if candidate in shown:
            shown.remove(candidate)
            hidden.append(candidate)
    return tuple(shown), tuple(hidden)


def needed_width(rows: list[dict[str, str]], shown: list[str]) -> int:
    widths = column_widths(rows, tuple(shown))
    if "note" in widths:
        widths["note"] = min(widths["note"], NOTE_MIN)
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def column_widths(rows: list[dict[str, str]], shown: tuple[str, ...]) -> dict[str, int]:
    return {name: max(len(COLUMNS[name].title), *(len(row[name]) for row in rows)) for name in shown}


def table(
    processes: list[Process], rows: list[dict[str, str]], shown: tuple[str, ...], width: int, paint: Paint
) -> list[str]:
    widths = column_widths(rows, shown)
    if "note" in widths:
        rest = sum(widths[name] + len(GAP) for name in shown if name != "note")
        widths["note"] = max(4, min(widths["note"], width - rest))
    titles = GAP.join(aligned(name, COLUMNS[name].title, widths[name]) for name in shown).rstrip()
    lines = [paint(titles, "dim")]
    for process, row in zip(processes, rows, strict=True):
        texts = [aligned(name, shorten(row[name], widths[name]), widths[name]) for name in shown]
        if not paint.on:
            lines.append(GAP.join(texts).rstrip())
            continue
        styled = [styled_cell(name, text, process, paint) for name, text in zip(shown, texts, strict=True)]
        lines.append(GAP.join(styled).rstrip())
    return lines


def aligned(name: str, text: str, width: int) -> str:
    return text.rjust(width) if COLUMNS[name].right else text.ljust(width)


def styled_cell(name: str, text: str, process: Process, paint: Paint) -> str:
    if name == "state":
        return paint(text, SHAPES.get(shown_state(process), ("", ""))[1])
    if name == "service":
        return paint.service(process["name"], text)
    return text


def next_command(processes: list[Process]) -> str:
    """The one command that fits this table best."""
    for state in ("failed", "backoff"):
        for process in processes:
            if process["state"] == state:
                return f"novad why {process['name']} tells what happened"
    for process in processes:
        if process["state"] in ("starting", "waiting"):
            return f"novad why {process['name']} tells what it waits for"
    return ""


def status_details(process: Process, more: dict[str, Any] | None, paint: Paint) -> list[str]:
    """One process in full; `more` is its entry of the `why` reply where there is one."""
    word = shown_state(process)
    style = SHAPES.get(word, ("", ""))[1]
    facts = [f"pid {process['pid']}"] if process.get("pid") is not None else []
    if process.get("restarts"):
        facts.append(f"{process['restarts']} restarts" if process["restarts"] > 1 else "1 restart")
    since = f" for {duration(more.get('since_s'))}" if more and more.get("since_s") is not None else ""
    title = f"{paint(state_cell(process).split(' ')[0], style)} {paint.service(process['name'], process['name'])}"
    lines = [f"{title}  {paint(word, style)}{since}{''.join(f', {fact}' for fact in facts)}"]
    for label, value in detail_rows(process, more):
        if value:
            lines.append(f"  {label.ljust(8)}  {value}")
    return lines


def detail_rows(process: Process, more: dict[str, Any] | None) -> list[tuple[str, str]]:
    usage = ""
    if process.get("rss_bytes") is not None:
        cpu = process.get("cpu_percent")
        usage = f"{size(process['rss_bytes'])} of memory" + ("" if cpu is None else f", {cpu:.1f} % of a CPU")
    want = process.get("want") or ""
    wanted = want if {"up": "ready", "down": "stopped", "once": "done"}.get(want) != process["state"] else ""
    noted, said = note(process), process.get("status_text") or ""
    return [
        ("want", wanted),
        ("note", noted),
        ("says", said if said != noted else ""),
        ("command", joined(shown_words(more["argv"])) if more and more.get("argv") else ""),
        ("cwd", (more or {}).get("cwd") or ""),
        ("ports", ", ".join(f"{key} {number}" for key, number in (process.get("ports") or {}).items())),
        ("url", process.get("url") or ""),
        ("usage", usage),
        ("ready in", duration(process["ready_in_s"]) if process.get("ready_in_s") is not None else ""),
        ("log", process.get("log") or ""),
    ]


def widest(lines: list[str]) -> int:
    return max((visible_length(line) for line in lines), default=0)

"""The start of a cluster as text: the block that is repainted, the lines that stay, the summary. Pure."""

from __future__ import annotations

import textwrap
from typing import Any

from novad.client.render.paint import Paint, visible_length
from novad.client.render.status import note
from novad.client.render.words import SHAPES, describe_wait, duration, exit_words, plural
from novad.client.startup import Row, Startup
from novad.core.secret import without_userinfo

SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAME_S = 0.1


def about(project: str, count: int, paint: Paint) -> str:
    """The second half of the header, known once nova.toml is read: ` · nova-dev · 9 processes`."""
    return f" · {paint(project, 'bold')} · {plural(count, 'process')}"


def row_line(row: Row, width: int, now_s: float, paint: Paint) -> str:
    """` ⠹ api           starting  1.1s  http 127.0.0.1:8774/healthz: connection refused`."""
    shape, style = SHAPES.get(row.state, ("?", ""))
    word = row.state
    if row.state == "starting":
        shape = SPINNER[int(now_s / FRAME_S) % len(SPINNER)]
    elif row.state == "backoff":
        word = "crashed"
        shape, style = SHAPES["failed"]
    took = row_time(row, now_s)
    name = paint.service(row.name, row.name.ljust(width))
    text = f" {paint(shape, style)} {name}  {paint(word.ljust(8), style)}  {took.rjust(6)}"
    detail = row_detail(row)
    return f"{text}  {detail}" if detail else text.rstrip()


def row_time(row: Row, now_s: float) -> str:
    if row.state == "waiting":
        return ""
    took_s = row.took_s() if row.state in ("ready", "done") else now_s - row.since_s
    return duration(took_s) if took_s is not None else ""


def row_detail(row: Row) -> str:
    """What it waits for, or how it ended."""
    process = row.process
    if row.state == "waiting":
        waits = [describe_wait(item) for item in process.get("waiting_for") or []]
        return f"after {', '.join(waits)}" if waits else ""
    if row.state == "starting":
        return row.awaiting or process.get("status_text") or ""
    if row.state in ("backoff", "failed", "stopped"):
        return note(process)
    return ""


def block(startup: Startup, now_s: float, height: int, paint: Paint) -> list[str]:
    """What is not settled, at most `height` lines; those that do something come before those that wait."""
    rows = startup.unsettled()
    rows.sort(key=lambda row: row.state == "waiting")
    width = name_width(startup)
    lines = [row_line(row, width, now_s, paint) for row in rows[:height]]
    if len(rows) > height:
        lines[-1] = paint(f" · and {len(rows) - height + 1} more", "dim")
    return lines


def name_width(startup: Startup) -> int:
    return max((len(name) for name in startup.names), default=0)


def plain_line(row: Row, elapsed_s: float, width: int) -> str:
    """A line for a log: `01.8 broker      ready`."""
    detail = row_detail(row)
    word = "crashed" if row.state == "backoff" else row.state
    text = f"{elapsed_s:04.1f} {row.name.ljust(width)}  {word.ljust(8)}"
    return f"{text}  {detail}" if detail else text.rstrip()


def still_waiting(startup: Startup, now_s: float) -> str:
    """`still waiting for api (starting 8.2s: connection refused), volume (after db-sync)`."""
    parts = []
    for row in startup.unsettled():
        detail = row_detail(row)
        took = row_time(row, now_s)
        said = " ".join(word for word in (row.state if row.state != "waiting" else "", took) if word)
        parts.append(f"{row.name} ({': '.join(part for part in (said, detail) if part) or row.state})")
    return f"still waiting for {', '.join(parts)}"


def summary(startup: Startup, now_s: float, paint: Paint, width: int) -> list[str]:
    """`9 ready in 6.4s (critical: broker 1.8 → api 3.1) · http://127.0.0.1:8774/`, of at most `width` cells.

    What does not fit, and several URLs, stand below it.
    """
    text = f"{counts(startup, paint)} in {duration(now_s - startup.now_s)}"
    below = []
    path = startup.critical_path()
    if len(path) > 1 and sum(took for _, took in path) >= 0.1:
        critical = f"critical: {' → '.join(f'{name} {took:.1f}' for name, took in path)}"
        if visible_length(text) + len(critical) + 3 <= width:
            text += f" ({critical})"
        else:
            below += textwrap.wrap(critical, width, initial_indent="  ", subsequent_indent="    ")
    urls = [(row.name, url_of(row.process)) for row in startup.rows.values() if row.state == "ready"]
    urls = [(name, url) for name, url in urls if url]
    if len(urls) == 1 and visible_length(text) + len(urls[0][1]) + 3 <= width:
        return [f"{text} · {urls[0][1]}", *below]
    names = max((len(name) for name, _ in urls), default=0)
    return [text, *below, *(f"  {paint.service(name, name.ljust(names))}  {url}" for name, url in urls)]


def counts(startup: Startup, paint: Paint) -> str:
    """`9 ready, 1 done`."""
    found: dict[str, int] = {}
    blocked = {row.name for row in startup.blocked()}
    for row in startup.rows.values():
        word = "blocked" if row.name in blocked else row.state
        found[word] = found.get(word, 0) + 1
    order = ("ready", "done", "failed", "blocked", "stopped")
    shown = [f"{found[word]} {word}" for word in order if word in found]
    shown += [f"{count} {word}" for word, count in found.items() if word not in order]
    return paint(", ".join(shown), "bold green" if startup.is_good else "bold red")


def url_of(process: dict[str, Any]) -> str:
    return without_userinfo(process.get("url") or "")


def status_line(processes: list[dict[str, Any]], last: str, keys: str, width: int, paint: Paint) -> str:
    """The one line at the bottom: states on the left, what happened last, keys on the right."""
    good = sum(1 for item in processes if item["state"] in ("ready", "done"))
    wanted = sum(1 for item in processes if item.get("want") != "down" or item["state"] != "stopped")
    left = f" {good}/{wanted} ready "
    bad = [item for item in processes if item["state"] in ("backoff", "failed")]
    if bad:
        left += (
            f"· {bad[0]['name']} {exit_words(bad[0].get('exit_code'), bad[0].get('signal')) or bad[0]['state']} "
        )
    middle = f"· {last} " if last else ""
    room = width - 1 - len(left) - len(keys) - 1
    middle = middle if len(middle) <= room else (middle[: max(0, room - 1)] + "…" if room > 8 else "")
    line = (left + middle).ljust(width - 1 - len(keys) - 1) + keys + " "
    return paint(line[: width - 1], "reverse")

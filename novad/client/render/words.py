"""Numbers and states in the words a person reads: durations, sizes, exits, counts. Pure."""

from __future__ import annotations

import re
import signal
from typing import Any

from novad.core.errors import UsageError

# State -> shape and style. A state is never told by its colour alone.
SHAPES: dict[str, tuple[str, str]] = {
    "waiting": ("·", "dim"),
    "starting": ("▸", "yellow"),
    "ready": ("●", "green"),
    "stopping": ("▾", "yellow"),
    "stopped": ("○", "dim"),
    "backoff": ("↻", "yellow"),
    "failed": ("✖", "red"),
    "done": ("✔", "green"),
    "fg": ("◆", "cyan"),
    "paused": ("⏸", "yellow"),
}
ORDER = ("ready", "fg", "paused", "starting", "waiting", "stopping", "backoff", "failed", "stopped", "done")
NOTHING = "\N{EN DASH}"
UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")


def whereabouts(config: str, logs: str) -> str:
    """The first half of the header of a start, known before anything is read: `nova.toml · logs in .novad/logs`."""
    return f"{config} · logs in {logs}"


def duration(seconds: float | None) -> str:
    """Short and aligned by eye: 0.31s, 4.2s, 59s, 12m04s, 3h07m, 2d04h; an en dash for nothing."""
    if seconds is None:
        return NOTHING
    seconds = max(0.0, seconds)
    if seconds < 0.995:
        return f"{seconds:.2f}s"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for size_s, below_s, names in ((86400, 3600, "dh"), (3600, 60, "hm"), (60, 1, "ms")):
        if whole >= size_s:
            return f"{whole // size_s}{names[0]}{whole % size_s // below_s:02d}{names[1]}"
    return f"{whole}s"


def parse_duration(text: str) -> float:
    """Seconds of `90`, `90s`, `2m`, `1h30m`, `250ms`. Raises `UsageError`."""
    position, total_s = 0, 0.0
    cleaned = text.strip()
    while position < len(cleaned):
        match = DURATION.match(cleaned, position)
        # A number without a unit is seconds only where it stands alone: `1h30` may be meant either way.
        if match is None or (match[2] is None and match[0] != cleaned):
            break
        total_s += float(match[1]) * UNIT_S[match[2] or "s"]
        position = match.end()
    if not cleaned or position < len(cleaned):
        raise UsageError(f"`{text}` is not a duration", "write 30, 30s, 1.5s, 250ms, 2m or 1h30m")
    return total_s


def size(count: int | None) -> str:
    """Bytes with three digits at most: 812K, 92M, 1.9G."""
    if count is None:
        return NOTHING
    value = float(count)
    for unit in ("B", "K", "M", "G"):
        if value < 999.5:
            return f"{value:.1f}{unit}" if value < 9.95 and unit in "MG" else f"{value:.0f}{unit}"
        value /= 1024
    return f"{value:.1f}T"


def plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def signal_number(name: str) -> str:
    """` (9)` for SIGKILL; nothing where the name is not known here."""
    try:
        return f" ({signal.Signals[name].value})"
    except KeyError:
        return ""


def exit_words(exit_code: int | None, signal_sent: str | None) -> str:
    """`exit 1`, `killed by SIGKILL`, or `` where neither is known."""
    if signal_sent is not None:
        return f"killed by {signal_sent}"
    return "" if exit_code is None else f"exit {exit_code}"


# What an exit code means, where a convention says so (the shell's, sysexits.h, and nova's own).
EXIT_MEANINGS = {
    2: "wrong command line",
    3: "hard stop",
    4: "drain timed out",
    78: "configuration error",
    100: "permanent failure",
    111: "temporary failure",
    126: "not executable",
    127: "command not found",
    137: "killed by SIGKILL inside",
    143: "ended by SIGTERM inside",
}


def is_settled(state: str) -> bool:
    return state in ("ready", "done", "failed", "stopped")


def shown_state(process: dict[str, Any]) -> str:
    """The word for the state column: a note that replaces the state (`fg`, `paused`) wins."""
    note = process.get("note") or ""
    first = note.split(" ", 1)[0].rstrip(",")
    return (
        first
        if first in ("fg", "paused") and process["state"] in ("ready", "starting", "stopped")
        else process["state"]
    )


def terminals(processes: list[dict[str, Any]]) -> str:
    """`api (pts/3), worker (pts/4)`: what `novad fg` runs on somebody's terminal; "" where nothing."""
    shown = [item for item in processes if shown_state(item) == "fg"]
    return ", ".join(f"{item['name']} ({item['note'].split(',')[0].removeprefix('fg on ')})" for item in shown)


def count_states(processes: list[dict[str, Any]]) -> str:
    """`6 ready · 1 backoff · 1 done`."""
    counts: dict[str, int] = {}
    for process in processes:
        word = shown_state(process)
        counts[word] = counts.get(word, 0) + 1
    rank = {word: index for index, word in enumerate(ORDER)}
    words = sorted(counts, key=lambda word: rank.get(word, len(rank)))
    return " · ".join(f"{counts[word]} {word}" for word in words)


def describe_wait(item: Any) -> str:
    """One entry of `waiting_for`, which is a name or names its condition too."""
    if isinstance(item, dict):
        condition = item.get("condition") or "ready"
        suffix = "" if condition == "ready" else f":{condition}"
        return f"{item.get('name')}{suffix}"
    return str(item)


def awaited(items: list[Any]) -> str:
    """`db (starting), cache:done (failed)`."""
    parts = []
    for item in items:
        state = item.get("state") if isinstance(item, dict) else None
        parts.append(describe_wait(item) + (f" ({state})" if state else ""))
    return ", ".join(parts)


def shorten(text: str, width: int) -> str:
    """`text` in at most `width` cells, with an ellipsis where it was cut."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…" if width > 0 else ""

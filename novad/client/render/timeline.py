"""The start of a cluster as bars over time, after `systemd-analyze plot`. Pure.

The picture ends soon after everything was settled for the first time: a cluster that has run for hours would
otherwise show its start in one column. A crash is a mark of its own even where it lasted less than a column.
"""

from __future__ import annotations

from collections.abc import Sequence

from novad.client.journal import Change
from novad.client.render.paint import Paint

BARS = {"waiting": "·", "starting": "▒", "ready": "█", "stopping": "▽", "done": " ", "stopped": " ", "failed": " ",
        "backoff": "·"}  # fmt: skip
MARKS = {"backoff": "✖", "failed": "✖", "done": "✔"}
STYLES = {"·": "dim", "▒": "yellow", "█": "green", "▽": "yellow", "✖": "red", "✔": "green"}
LEGEND = "· waiting   ▒ starting   █ ready   ✖ crash   ✔ done"
SETTLED = ("ready", "done", "failed", "stopped")
TAIL = 0.15
TICKS_S = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    20,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
    7200,
    21600,
    86400,
)
TICK_CELLS = 8


def timeline(changes: Sequence[Change], names: Sequence[str], now: float, width: int, paint: Paint) -> list[str]:
    """An axis, a bar a process in the order of `names`, and the legend. Times are unix times."""
    if not changes:
        return ["nothing has been started yet"]
    begin = changes[0].at
    end = min(now, window_end(changes, begin))
    label = max(map(len, names), default=0)
    cells = max(20, min(width, 160) - label - 3)
    scale = cells / max(end - begin, 0.001)
    lines = [f"{''.ljust(label)}  {axis(end - begin, cells)}"]
    for name in names:
        bar = bar_of([change for change in changes if change.name == name], begin, scale, cells)
        painted = "".join(paint(cell, STYLES.get(cell, "")) for cell in bar.rstrip())
        lines.append(f"{paint.service(name, name.ljust(label))}  {painted}")
    return [*lines, f"{''.ljust(label)}  {paint(LEGEND, 'dim')}"]


def window_end(changes: Sequence[Change], begin: float) -> float:
    """A little after the last process was settled for the first time."""
    first: dict[str, float] = {}
    for change in changes:
        if change.state in SETTLED and change.at > begin:
            first.setdefault(change.name, change.at)
    last = max(first.values(), default=changes[-1].at)
    return last + max((last - begin) * TAIL, 0.05)


def axis(seconds: float, cells: int) -> str:
    """`0s      1s      2s`: ticks at round times that leave room for their labels."""
    step = next((tick for tick in TICKS_S if tick / max(seconds, 0.001) * cells >= TICK_CELLS), TICKS_S[-1])
    text = ""
    count = 0
    while (column := round(count * step / max(seconds, 0.001) * cells)) < cells:
        text = text.ljust(column) + f"{round(count * step, 2):g}s"
        count += 1
    return text


def bar_of(changes: Sequence[Change], begin: float, scale: float, cells: int) -> str:
    bar = [" "] * cells
    for index, change in enumerate(changes):
        start = column_of(change.at, begin, scale)
        stop = column_of(changes[index + 1].at, begin, scale) if index + 1 < len(changes) else cells
        for column in range(max(0, start), min(cells, max(stop, start + 1))):
            bar[column] = BARS.get(change.state, "?")
    for change in changes:
        column = column_of(change.at, begin, scale)
        if change.state in MARKS and 0 <= column < cells:
            bar[column] = MARKS[change.state]
    return "".join(bar)


def column_of(at: float, begin: float, scale: float) -> int:
    return int((at - begin) * scale)

"""The timeline as one HTML page that needs nothing else: inline SVG and style, no script, no network. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from novad.client.journal import Change
from novad.client.render.timeline import MARKS, TICKS_S, window_end
from novad.client.render.words import duration

COLOURS = {
    "waiting": "#c9ccd1",
    "starting": "#e8b63a",
    "ready": "#3fa45b",
    "stopping": "#d98a2b",
    "backoff": "#b3b7bd",
}
MARK_COLOURS = {"✖": "#cc3b3b", "✔": "#3fa45b"}
LEFT, WIDTH, ROW, TOP = 160, 1000, 26, 40
TICK_PIXELS = 70
STYLE = """
body { font: 14px system-ui, sans-serif; margin: 2em; color: #222; background: #fff }
h1 { font-size: 1.2em } text { font: 13px system-ui, sans-serif; fill: currentColor }
line { stroke: #8884 } .legend span { display: inline-block; width: .9em; height: .9em; margin: 0 .3em 0 1em }
@media (prefers-color-scheme: dark) { body { color: #ddd; background: #181a1d } }
"""


def page(changes: Sequence[Change], names: Sequence[str], now: float, title: str) -> str:
    """The whole document. Times are unix times; every bar tells its state and length when pointed at."""
    began = datetime.fromtimestamp(changes[0].at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if changes else ""
    body = picture(changes, names, now) if changes else "<p>nothing has been started yet</p>"
    legend = "".join(f'<span style="background: {colour}"></span>{state}' for state, colour in COLOURS.items())
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}: timeline</title>\n'
        f"<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n<p>started {began}</p>\n{body}\n"
        f'<p class="legend">{legend} &nbsp; ✖ crash &nbsp; ✔ done</p>\n</html>'
    )


def picture(changes: Sequence[Change], names: Sequence[str], now: float) -> str:
    """The bars, a row a process in the order of `names`."""
    begin = changes[0].at
    end = max(min(now, window_end(changes, begin)), begin + 0.001)
    scale = WIDTH / (end - begin)
    height = TOP + ROW * len(names) + 10
    parts = [
        f'<svg role="img" width="{LEFT + WIDTH + 20}" height="{height}" viewBox="0 0 {LEFT + WIDTH + 20} {height}">'
    ]
    parts += ticks(end - begin, scale, height)
    for row, name in enumerate(names):
        y = TOP + ROW * row
        parts.append(f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(name)}</text>')
        own = [change for change in changes if change.name == name]
        parts += bars(own, begin, end, scale, y)
    return "\n".join([*parts, "</svg>"])


def ticks(seconds: float, scale: float, height: int) -> list[str]:
    step = next((tick for tick in TICKS_S if tick * scale >= TICK_PIXELS), TICKS_S[-1])
    found = []
    for count in range(int(seconds / step) + 1):
        x = LEFT + count * step * scale
        found.append(f'<line x1="{x:.1f}" y1="24" x2="{x:.1f}" y2="{height}"/>')
        found.append(f'<text x="{x:.1f}" y="18">{round(count * step, 2):g}s</text>')
    return found


def bars(own: Sequence[Change], begin: float, end: float, scale: float, y: int) -> list[str]:
    found, marks = [], []
    for index, change in enumerate(own):
        if change.at > end:
            break
        until = min(own[index + 1].at, end) if index + 1 < len(own) else end
        x, width = LEFT + (change.at - begin) * scale, max((until - change.at) * scale, 1.0)
        colour = COLOURS.get(change.state)
        told = f"{change.name} {change.state} from {change.at - begin:.2f} s for {duration(until - change.at)}"
        if colour:
            found.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 8}" rx="2" fill="{colour}">'
                f"<title>{escape(told)}</title></rect>"
            )
        if change.state in MARKS:
            mark = MARKS[change.state]
            marks.append(f'<text x="{x:.1f}" y="{y + 14}" style="fill: {MARK_COLOURS[mark]}">{mark}'
                         f"<title>{escape(told)}</title></text>")  # fmt: skip
    return [*found, *marks]

"""A run as one HTML page that needs nothing else: a picture of the times, crashes, logs, configuration. Pure."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from html import escape

from novad import __version__
from novad.client.render.words import duration, plural
from novad.testing.story import Story, configuration

WIDTH, ROW, LEFT = 900, 22, 150
COLOURS = {
    "waiting": "#bbb", "starting": "#e8b33a", "ready": "#3f9d5a", "stopping": "#8aa6c1", "backoff": "#d23f31",
    "failed": "#d23f31", "done": "#3f9d5a",
}  # fmt: skip
STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse } td, th { text-align: left; padding: .15rem .9rem .15rem 0; vertical-align: top }
pre { overflow: auto; padding: .7rem; background: #8881; font-size: 13px; max-height: 30rem }
svg { max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif; fill: currentColor }
.bad { color: #d23f31 } .good { color: #3f9d5a } summary { cursor: pointer }
"""


def page(story: Story, tails: Mapping[str, str]) -> str:
    """The document."""
    tone = "good" if story.code == 0 else "bad"
    title = f"{story.cluster.project}: {story.verdict}"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f"<h1 class={tone}>{escape(title)}</h1>",
        f"<p><code>{escape(' '.join(story.command))}</code> · exit {story.code} · {duration(story.took_s)} · "
        f"profile {escape(story.cluster.profile or 'none')} · namespace {escape(story.cluster.namespace)}</p>",
        *crash_cards(story),
        "<h2>Times</h2>", picture(story),
        "<h2>Services</h2>", services(story),
        "<h2>Logs</h2>", *(folded(name, tail) for name, tail in tails.items()),
        "<h2>Configuration</h2>", *settings(story),
        f"<p>novad {__version__}, Python {platform.python_version()}, {escape(platform.platform())}</p></html>",
    ]  # fmt: skip
    return "\n".join(parts) + "\n"


def crash_cards(story: Story) -> list[str]:
    cards = [(f"{crash.name}: {crash.how}", crash.why) for crash in story.crashes]
    cards += [(f"{name} did not get ready", text) for name, text in story.unready.items()]
    if story.survivors or story.leaks:
        cards.append(("something was left", "\n".join([*story.survivors, *story.leaks])))
    return [f"<h2 class=bad>{escape(title)}</h2><pre>{escape(text)}</pre>" for title, text in cards]


def picture(story: Story) -> str:
    """A bar a service, coloured by state; the line is where the command began."""
    names = list(dict.fromkeys(change.name for change in story.changes))
    span_s = max(story.took_s, 0.001)

    def x(at: float) -> float:
        return LEFT + (WIDTH - LEFT) * min(max((at - story.began_at) / span_s, 0.0), 1.0)

    shapes = []
    for number, name in enumerate(names):
        top = number * ROW
        shapes.append(f'<text x="0" y="{top + 15}">{escape(name)}</text>')
        own = [change for change in story.changes if change.name == name]
        ends = [change.at for change in own[1:]] + [story.ended_at]
        for change, end in zip(own, ends, strict=True):
            colour = COLOURS.get(change.state)
            if colour:
                wide = max(x(end) - x(change.at), 2.0)
                label = f"{name} {change.state} at {change.at - story.began_at:.2f} s"
                shapes.append(
                    f'<rect x="{x(change.at):.1f}" y="{top + 3}" width="{wide:.1f}" height="{ROW - 6}" '
                    f'fill="{colour}"><title>{escape(label)}</title></rect>'
                )
    height = len(names) * ROW + 20
    if story.command_at is not None:
        at = x(story.command_at)
        shapes.append(f'<path d="M{at:.1f} 0V{height - 18}" stroke="currentColor" stroke-dasharray="3 3"/>')
        shapes.append(f'<text x="{at:.1f}" y="{height - 4}">command</text>')
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="times">{"".join(shapes)}</svg>'


def services(story: Story) -> str:
    rows = [
        f"<tr><td>{escape(row['name'])}<td>{escape(row['state'])}<td>{duration(row.get('ready_in_s'))}"
        f"<td>{row['restarts']}<td>{escape(row.get('note') or '')}"
        for row in story.rows
    ]
    return f"<table><tr><th>service<th>state<th>ready in<th>restarts<th>{''.join(rows)}</table>"


def folded(name: str, text: str) -> str:
    lines = text.count("\n")
    return (
        f"<details><summary>{escape(name)} ({plural(lines, 'line')})</summary><pre>{escape(text)}</pre></details>"
    )


def settings(story: Story) -> list[str]:
    found = []
    for name, rows in configuration(story.cluster):
        listed = "".join(f"<tr><th>{escape(key)}<td>{escape(value)}" for key, value in rows)
        found.append(f"<details><summary>{escape(name)}</summary><table>{listed}</table></details>")
    return found

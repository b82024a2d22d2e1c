"""`novad status`: the table, one service in detail, the same in place again and again."""

from __future__ import annotations

import glob
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from novad.client.app import App
from novad.client.link import Link
from novad.client.logfile import last_lines
from novad.client.render.escape import harmless
from novad.client.render.lines import LineStyle, format_line
from novad.client.render.paint import clip
from novad.client.render.status import COLUMNS, status_details, status_table
from novad.client.render.svstat import svstat
from novad.core import texts
from novad.core.errors import NotRunning, UsageError

DETAIL_LINES = 10
DETAIL_MAX = 3
SHORTEST_S = 0.1


def run(
    app: App,
    names: tuple[str, ...],
    watch: float | None,
    check: bool,
    timeline: str | None,
    environment: bool,
    graph: str | None,
    columns: str | None,
    output: str | None,
) -> int:
    chosen = chosen_columns(columns, output)
    try:
        link = app.link()
    except NotRunning as error:
        error.hint = error.hint.replace("novad", app.command_name(), 1)
        raise
    with link:
        if watch is not None and not app.options.json:
            return watch_table(app, link, names, chosen, watch)
        document = link.request("status", names=list(names), usage=not (check or timeline or graph))
        if environment:
            from novad.client.verbs.environment import show_environments

            return show_environments(app, names, document["processes"])
        if timeline or graph:
            return picture(app, link, document, graph, timeline)
        show(app, link, document, names, chosen, output)
    return 3 if check and not all_well(document["processes"]) else 0


def picture(app: App, link: Link, document: dict[str, Any], graph: str | None, timeline: str | None) -> int:
    from novad.client.verbs.pictures import show_graph, show_timeline

    if graph:
        return show_graph(app, link, document["processes"], graph)
    return show_timeline(app, document, timeline or "text")


def chosen_columns(columns: str | None, output: str | None) -> tuple[str, ...]:
    if output == "wide":
        return tuple(COLUMNS)
    names = tuple(name.strip().lower().rstrip("%") for name in (columns or "").split(",") if name.strip())
    for name in names:
        if name not in COLUMNS:
            raise UsageError(f"no such column `{name}`", f"columns: {', '.join(COLUMNS)}")
    return names


def show(
    app: App,
    link: Link,
    document: dict[str, Any],
    names: tuple[str, ...],
    columns: tuple[str, ...],
    output: str | None,
) -> None:
    terminal = app.terminal
    processes = document["processes"]
    if app.options.json:
        app.print_json(document)
    elif output == "svstat":
        for process in processes:
            terminal.out(svstat(process))
    elif names and len(processes) <= DETAIL_MAX and not columns:
        show_details(app, link, processes)
    else:
        terminal.out("\n".join(table_lines(app, document, columns)))


def table_lines(app: App, document: dict[str, Any], columns: tuple[str, ...]) -> list[str]:
    """The table, with a remark under its header where the files are not what runs any more."""
    lines = status_table(document, app.terminal.width(), app.terminal.paint, columns)
    changed = changed_files(document)
    if changed:
        remark = f"{changed} changed since it was loaded: {app.command_name()} reload"
        lines.insert(1, app.terminal.paint(remark, "yellow"))
    return lines


def changed_files(document: dict[str, Any]) -> str:
    """What of the running definitions' files is new or reads differently now; "" where nothing does."""
    if not document.get("files_digest"):
        return ""
    folder = os.path.dirname(document["config"])
    files = document["files"]
    new = [path for path in document.get("files_absent") or () if os.path.exists(path)]
    new += [path for path in included(document.get("files_globs") or (), folder) if path not in files]
    if new:
        return ", ".join(os.path.relpath(path, folder) for path in dict.fromkeys(new))
    what = os.path.relpath(files[0], folder) if len(files) == 1 else "the configuration"
    try:
        found = {path: texts.text(Path(path).read_bytes()) for path in files}
    except (OSError, ValueError):
        return what
    return what if texts.digest(found) != document["files_digest"] else ""


def included(globs: Sequence[str], folder: str) -> Iterator[str]:
    """What `include` asks for; nova.local.toml is an overlay, and never a part."""
    for pattern in globs:
        for path in map(os.path.normpath, glob.iglob(pattern, recursive=True)):
            if path != f"{folder}/nova.local.toml":
                yield path


def show_details(app: App, link: Link, processes: list[dict[str, Any]]) -> None:
    """Each process in full, with the end of its log as `systemctl status` shows it."""
    terminal = app.terminal
    reply = link.request("why", names=[process["name"] for process in processes])
    more = {item["name"]: item for item in reply["processes"]}
    style = LineStyle(paint=terminal.paint, prefix_width=0, for_terminal=terminal.out_is_terminal)
    for index, process in enumerate(processes):
        lines = status_details(process, more.get(process["name"]), terminal.paint)
        if process.get("log"):
            lines.append("")
            lines += [
                format_line(process["name"], line, style) for line in last_lines(process["log"], DETAIL_LINES)
            ]
        terminal.out(("\n" if index else "") + "\n".join(lines))


def all_well(processes: list[dict[str, Any]]) -> bool:
    """Whether everything that is wanted up is ready or done."""
    return all(
        process["state"] in ("ready", "done") or (process.get("want") == "down" and process["state"] == "stopped")
        for process in processes
    )


def watch_table(app: App, link: Link, names: tuple[str, ...], columns: tuple[str, ...], period_s: float) -> int:
    """Repaints on every event, and every `period_s` for the numbers, until q or Ctrl-C."""
    terminal = app.terminal
    if not terminal.can_draw:
        raise UsageError(
            "status -w needs a terminal whose cursor can be moved", "novad status --json, or novad logs -f"
        )
    from novad.client.keyboard import Keyboard

    link.request("subscribe", states=True, lines=None)
    with Keyboard(sys.stdin) as keyboard:
        terminal.draw("\x1b[?25l")
        try:
            while True:
                document = link.request("status", names=list(names), usage=True)
                lines = table_lines(app, document, columns)
                repaint(app, [*lines[: terminal.height() - 2], terminal.paint("q quits", "dim")])
                if not wait_for_change(link, keyboard, period_s):
                    return 0
        except KeyboardInterrupt:
            return 0
        finally:
            terminal.draw("\x1b[?25h")


def repaint(app: App, lines: list[str]) -> None:
    """Draws over the last picture: home, each line erased to its end, the rest of the screen erased."""
    width = app.terminal.width()
    body = "".join(f"{clip(harmless(line), width)}\x1b[K\n" for line in lines)
    app.terminal.draw(f"\x1b[H{body}\x1b[J")


def wait_for_change(link: Link, keyboard: Any, period_s: float) -> bool:
    """Waits for an event, a key or the interval; False when the user leaves."""
    deadline_s = time.monotonic() + max(period_s, SHORTEST_S)
    while (left_s := deadline_s - time.monotonic()) > 0:
        ready = link.wait(keyboard.sources(), left_s)
        if link in ready:
            link.pending_events()
            return True
        if ready and any(key in ("q", "\x04", "\x1b") for key in keyboard.read()):
            return False
    return True

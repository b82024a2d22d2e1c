"""`novad logs`: stored lines straight from the files, then live ones from the daemon, without gap or duplicate.

The daemon tells, together with the subscription, up to which byte of each file it had written: the stored part
ends exactly there and the pushed lines begin there.
"""

from __future__ import annotations

import difflib
import fnmatch
import heapq
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from novad.client import logfile
from novad.client.app import App
from novad.client.link import Link
from novad.client.render.lines import LineStyle, format_line, json_line
from novad.client.render.words import plural
from novad.client.sift import LEVELS, Sieve, Wanted
from novad.client.when import stamp_of
from novad.core.errors import NoSuchService, NotRunning, NovadError, UsageError

FOLLOW_LINES = 10
Line = tuple[str, bytes]


@dataclass
class Choice:
    """Which lines of which files: the options after they were understood."""

    paths: dict[str, str]
    wanted: Wanted
    count: int | None
    since: bytes | None
    until: bytes | None
    run_number: int | None


def run(app: App, names: tuple[str, ...], follow: bool, lines: str | None, **options: Any) -> int:
    link = app.link_or_none()
    paths = paths_of(app, link, names)
    choice = understood(paths, follow, lines, options)
    write = writer(app, list(paths), names, options)
    offsets: dict[str, int] | None = None
    if follow and link is not None:
        offsets = link.request("subscribe", states=True, lines=list(paths))["offsets"]
    sieves = {name: Sieve(choice.wanted) for name in paths}
    write(stored_lines(choice, sieves, offsets))
    if not follow:
        return 0
    if link is None:
        raise NotRunning("novad is not running: no new lines will come", f"{app.command_name()} up")
    with link:
        return follow_lines(app, link, choice, sieves, write)


def paths_of(app: App, link: Link | None, names: tuple[str, ...]) -> dict[str, str]:
    """Process name -> log file. Raises `NoSuchService`."""
    if link is not None:
        processes = link.request("status", names=list(names), usage=False)["processes"]
        return {item["name"]: item["log"] for item in processes if item.get("log")}
    found = logfile.stored_names(app.place().log_dir)
    if not names or "all" in names:
        return found
    chosen: dict[str, str] = {}
    for selector in names:
        matching = {name: path for name, path in found.items() if is_selected(selector, name)}
        if not matching:
            close = difflib.get_close_matches(selector, found, n=2)
            hint = (
                f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(found) or 'no log yet'}"
            )
            raise NoSuchService(f"no log of `{selector}`", hint)
        chosen |= matching
    return chosen


def is_selected(selector: str, name: str) -> bool:
    service, _, replica = name.rpartition(".")
    is_replica = replica.isdigit() and selector == service
    return selector == name or is_replica or fnmatch.fnmatchcase(name, selector)


def understood(paths: dict[str, str], follow: bool, lines: str | None, options: dict[str, Any]) -> Choice:
    now = datetime.now().astimezone()
    if (options["run_number"] or 0) > 0:
        raise UsageError(
            f"--run {options['run_number']}: counts backwards", "0 is the current run, -1 the one before"
        )
    level = options["level"]
    if level is not None and level.lower() not in LEVELS:
        raise UsageError(f"`{level}` is not a level", "debug, info, warning, error or critical")
    wanted = Wanted(
        grep=pattern(options["grep"]),
        exclude=pattern(options["exclude"]),
        level=None if level is None else LEVELS[level.lower()],
        streams=b"e" if options["stderr"] else b"oen",
        context=options["context"],
    )
    since, until = (None if options[key] is None else stamp_of(options[key], now) for key in ("since", "until"))
    unlimited = not follow or since is not None or options["run_number"] is not None
    return Choice(paths, wanted, line_count(lines, None if unlimited else FOLLOW_LINES), since, until,
                  options["run_number"])  # fmt: skip


def line_count(text: str | None, default: int | None) -> int | None:
    if text is None or text == "all":
        return default if text is None else None
    if not text.isdigit():
        raise UsageError(f"-n {text}: not a number of lines", "novad logs -n 100, or -n all")
    return int(text)


def pattern(text: str | None) -> re.Pattern[bytes] | None:
    """A regular expression over bytes. Raises `UsageError`."""
    if text is None:
        return None
    try:
        return re.compile(text.encode("utf-8", "surrogateescape"))
    except re.error as error:
        raise UsageError(
            f"`{text}` is not a regular expression: {error}", "novad logs -g 'ERROR|Traceback'"
        ) from error


def stored_lines(choice: Choice, sieves: dict[str, Sieve], offsets: dict[str, int] | None) -> Iterable[Line]:
    """The wanted lines of all files in time order, at most the last `count`."""
    sources, is_kept = [], choice.run_number is None
    for name, path in choice.paths.items():
        spans = logfile.stored(path, None if offsets is None else offsets.get(name, 0))
        if choice.run_number is not None:
            spans = logfile.of_run(spans, choice.run_number)
            is_kept = is_kept or bool(spans)
        if choice.since is not None:
            spans = logfile.since(spans, choice.since)
        if choice.until is not None:
            spans = logfile.until(spans, choice.until)
        sources.append(lines_of(name, spans, sieves[name], choice))
    if not is_kept:
        names = ", ".join(choice.paths)
        raise NovadError(
            f"no run {choice.run_number} of {names} is kept", "--run 0 is the last one, --run -1 the one before"
        )
    merged = sources[0] if len(sources) == 1 else heapq.merge(*sources, key=line_stamp)
    return merged if choice.count is None else deque(merged, maxlen=choice.count)


def lines_of(name: str, spans: list[logfile.Span], sieve: Sieve, choice: Choice) -> Iterator[Line]:
    if choice.count is not None and choice.wanted.is_everything:
        found: Iterable[bytes] = logfile.tail(spans, choice.count)
    else:
        found = sieve.blocks(block for span in spans for block in logfile.blocks(span))
    return ((name, line) for line in found)


def line_stamp(item: Line) -> bytes:
    return item[1][: logfile.STAMP]


class Writer:
    """Writes lines to stdout: JSON, bare text for a pipe, or with time and name."""

    def __init__(self, app: App, style: LineStyle, is_bare: bool) -> None:
        self._app, self._style, self._is_bare = app, style, is_bare

    def __call__(self, lines: Iterable[Line]) -> None:
        out = sys.stdout.buffer
        sys.stdout.flush()
        if self._app.options.json:
            out.writelines(json_line(name, line).encode() + b"\n" for name, line in lines)
        elif self._is_bare:
            out.writelines(line[logfile.TEXT :] + b"\n" for _, line in lines)
        else:
            style = self._style
            out.writelines(
                format_line(name, line, style).encode("utf-8", "surrogateescape") + b"\n" for name, line in lines
            )
        out.flush()


def writer(app: App, shown: list[str], names: tuple[str, ...], options: dict[str, Any]) -> Writer:
    """How lines look: one named service in a pipe is bare text, so that `| jq` works."""
    terminal = app.terminal
    prefix = options["prefix"]
    one_in_pipe = bool(names) and len(shown) == 1 and not terminal.out_is_terminal
    is_bare = one_in_pipe and prefix is None and not options["full_time"]
    width = 0 if prefix is False or (one_in_pipe and not prefix) else max(map(len, shown), default=1)
    highlight = options["highlight"]
    if highlight is not None:
        pattern(highlight)
    style = LineStyle(
        paint=terminal.paint,
        prefix_width=width,
        time="none" if options["no_time"] else "full" if options["full_time"] else "short",
        for_terminal=terminal.out_is_terminal,
        highlight=None if highlight is None else re.compile(highlight),
    )
    return Writer(app, style, is_bare)


def next_event(app: App, link: Link) -> dict[str, Any]:
    """The next pushed event. Raises `BrokenPipeError` when nobody reads our output any more."""
    reader = app.terminal.reader()
    while (event := link.next_event(0.0)) is None:
        ready = link.wait(reader)
        if set(reader).intersection(ready):
            raise BrokenPipeError
    return event


def follow_lines(app: App, link: Link, choice: Choice, sieves: dict[str, Sieve], write: Writer) -> int:
    """Pushed lines until the daemon ends, `--until` is reached or Ctrl-C."""
    while True:
        event = next_event(app, link)
        if event.get("type") == "ended":
            app.terminal.note("novad has ended")
            return 0
        if event.get("type") == "skipped":
            left_out = f"{plural(event['lines'], 'line')} {'was' if event['lines'] == 1 else 'were'} left out"
            app.terminal.note(f"{event['name']}: {left_out}: this terminal is too slow")
        if event.get("type") != "lines" or event["name"] not in sieves:
            continue
        text = event["text"].encode("utf-8", "surrogateescape")
        lines = text.removesuffix(b"\n").split(b"\n")
        write([(event["name"], line) for line in sieves[event["name"]].lines(lines)])
        if choice.until is not None and lines[-1][: logfile.STAMP] >= choice.until:
            return 0

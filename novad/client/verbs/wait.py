"""`novad wait`: until services are ready, stopped or done, or until a condition over states and log lines holds."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from novad.client import logfile
from novad.client.app import App
from novad.client.condition import (
    Condition,
    Facts,
    Line,
    Verdict,
    atoms,
    is_condition,
    is_meant_as_condition,
    judge,
    parse,
    unmet,
)
from novad.client.deadline import Deadline
from novad.client.link import Link
from novad.client.render.words import duration
from novad.client.verbs.control import TIMED_OUT, answer, tell_unmet, wait_until
from novad.core.errors import NoSuchService, UsageError

# A process flaps for this long after a crash.
FLAPS_S = 5.0


def run(
    app: App, names: tuple[str, ...], condition: str | None, hold: float | None, timeout: float | None
) -> int:
    began_at, deadline = time.time(), Deadline(timeout)
    if is_condition(names):
        if condition is not None:
            raise UsageError("--for and a condition exclude one another", f"novad wait '{' '.join(names)}'")
        wanted = parse(" ".join(names))
        with app.link() as link:
            return Waiting(app, link, wanted, hold or 0.0, deadline).run(began_at)
    goal = condition or "ready"
    with app.link() as link:
        try:
            code = wait_until(app, link, list(names), goal, deadline, None if hold else {})
        except NoSuchService:
            for name in names:
                if "." in name and is_meant_as_condition(name):
                    parse(name)
            raise
        if code or not hold:
            return code
        return hold_for(app, link, names, goal, hold, deadline)


def hold_for(
    app: App, link: Link, names: tuple[str, ...], condition: str, hold_s: float, deadline: Deadline
) -> int:
    """Waits until `condition` has held for `hold_s` without a break, by the pushed state changes."""
    snapshot = link.request("subscribe", states=True, lines=None)
    chosen = {item["name"] for item in link.request("status", names=list(names), usage=False)["processes"]}
    states = {item["name"]: item["state"] for item in snapshot["processes"] if item["name"] in chosen}
    held_from_s = time.monotonic()
    while True:
        holds = all(state == condition or (condition == "ready" and state == "done") for state in states.values())
        now_s = time.monotonic()
        if not holds:
            held_from_s = now_s
        if holds and now_s - held_from_s >= hold_s:
            return answer(app, {"met": True}, f"{condition} for {duration(hold_s)}: {', '.join(sorted(states))}")
        left_s = deadline.left_s()
        if left_s == 0.0:
            unmet = [
                {"name": name, "state": state, "note": ""} for name, state in states.items() if state != condition
            ]
            return tell_unmet(app, unmet, condition, TIMED_OUT)
        patience_s = held_from_s + hold_s - now_s if holds else left_s
        event = link.next_event(min(value for value in (patience_s, left_s, 60.0) if value is not None))
        if event and event.get("type") == "state" and event["name"] in states:
            states[event["name"]] = event["state"]
            if event["state"] != condition:
                held_from_s = time.monotonic()


class Waiting:
    """A condition, what is known, and the link that tells what is new."""

    def __init__(self, app: App, link: Link, wanted: Condition, hold_s: float, deadline: Deadline) -> None:
        self._app, self._link, self._wanted = app, link, wanted
        self._hold_s, self._deadline = hold_s, deadline
        self._states: dict[str, str] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._crashed_s: dict[str, float] = {}
        self._seen: set[Line] = set()
        self._lines = [atom for atom in atoms(wanted) if isinstance(atom, Line)]

    def run(self, began_at: float) -> int:
        """The exit code. Log lines count from `began_at` (unix time) on."""
        for selector in {atom.selector for atom in atoms(self._wanted)}:
            rows = self._link.request("status", names=[selector] if selector else [], usage=False)["processes"]
            self._names[selector] = tuple(row["name"] for row in rows)
        followed = sorted({name for line in self._lines for name in self._names[line.selector]})
        picture = self._link.request("subscribe", states=True, lines=followed or None)
        self._states = {row["name"]: row["state"] for row in picture["processes"]}
        logs = {row["name"]: row["log"] for row in picture["processes"]}
        for name in followed:
            self._read_stored(name, logs[name], picture["offsets"].get(name), began_at)
        return self._loop()

    def _read_stored(self, name: str, path: str, end: int | None, began_at: float) -> None:
        """What was written between the beginning of the command and the subscription."""
        stamp = datetime.fromtimestamp(began_at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
        for line in logfile.lines(logfile.since(logfile.stored(path, end), stamp)):
            self._look_at(name, line)

    def _look_at(self, name: str, line: bytes) -> None:
        if line[logfile.TEXT - 2 : logfile.TEXT - 1] == b"n":
            # A remark of novad's own is no line of the service.
            return
        text = line[logfile.TEXT :].decode(errors="replace")
        for wanted in self._lines:
            if name in self._names[wanted.selector] and wanted.pattern.search(text):
                self._seen.add(wanted)

    def _facts(self) -> Facts:
        now_s = time.monotonic()
        crashed = {name for name, at_s in self._crashed_s.items() if now_s - at_s < FLAPS_S}
        crashed |= {name for name, state in self._states.items() if state == "backoff"}
        known = dict.fromkeys((name for names in self._names.values() for name in names), "stopped")
        return Facts(known | self._states, frozenset(crashed), frozenset(self._seen), self._names)

    def _loop(self) -> int:
        held_from_s: float | None = None
        while True:
            facts, now_s = self._facts(), time.monotonic()
            verdict = judge(self._wanted, facts)
            if verdict is not Verdict.HOLDS:
                held_from_s = None
            elif held_from_s is None:
                held_from_s = now_s
            if held_from_s is not None and now_s - held_from_s >= self._hold_s:
                held = f" for {duration(self._hold_s)}" if self._hold_s else ""
                return answer(self._app, {"met": True}, f"{self._wanted} holds{held}")
            if verdict is Verdict.HOPELESS:
                return self._tell(facts, 1)
            left_s = self._deadline.left_s()
            if left_s == 0.0:
                return self._tell(facts, TIMED_OUT)
            self._hear(self._patience_s(held_from_s, left_s, now_s))

    def _patience_s(self, held_from_s: float | None, left_s: float | None, now_s: float) -> float | None:
        """When something may change without an event: the hold is over, the time is up, a crash is long ago."""
        dues = [at_s + FLAPS_S - now_s for at_s in self._crashed_s.values() if at_s + FLAPS_S > now_s]
        dues += [] if held_from_s is None else [held_from_s + self._hold_s - now_s]
        dues += [] if left_s is None else [left_s]
        return max(min(dues), 0.0) if dues else None

    def _hear(self, patience_s: float | None) -> None:
        event = self._link.next_event(patience_s)
        if event is None:
            return
        if event.get("type") == "state":
            self._states[event["name"]] = event["state"]
            if event.get("crashed"):
                self._crashed_s[event["name"]] = time.monotonic()
        elif event.get("type") == "lines":
            for line in event["text"].encode("utf-8", "surrogateescape").removesuffix(b"\n").split(b"\n"):
                self._look_at(event["name"], line)

    def _tell(self, facts: Facts, code: int) -> int:
        """What is not so, part by part."""
        parts = unmet(self._wanted, facts)
        if self._app.options.json:
            rows = [{"condition": part, "present": present} for part, present in parts]
            self._app.print_json({"met": False, "timed_out": code == TIMED_OUT, "unmet": rows})
            return code
        reason = "the time ran out" if code == TIMED_OUT else "this will not happen any more"
        self._app.terminal.err(f"error: it does not hold: {reason}")
        for part, present in parts:
            self._app.terminal.err(f"  {part}  {self._app.terminal.err_paint(present, 'dim')}")
        self._app.terminal.note(f"hint: {self._app.command_name()} status")
        return code

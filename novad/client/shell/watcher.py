"""What the shell knows of the cluster while it waits for a line: states by pushed events, lines on request.

A thread of its own holds one subscription, and connects again when the daemon comes back. It hands values over
by replacing them, and never draws: it calls `on_change` and `on_lines`.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from novad.client.link import Link, connect
from novad.core.errors import NovadError
from novad.core.place import Place

RETRY_S = 1.0


class Watcher:
    """`processes` is the newest picture, None while no daemon answers."""

    def __init__(
        self, place: Place, on_change: Callable[[], None], on_lines: Callable[[str, bytes], None]
    ) -> None:
        self.processes: dict[str, dict[str, Any]] | None = None
        self.project = ""
        self.last = ""
        self.last_at_s = 0.0
        self._place = place
        self._on_change, self._on_lines = on_change, on_lines
        self._follow: list[str] | None = None
        self._subscribed: list[str] | None = None
        self._wake_reader, self._wake_writer = os.pipe()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    @property
    def is_up(self) -> bool:
        return self.processes is not None

    def start(self) -> None:
        """Takes the first picture, so that the first prompt is right, then watches."""
        link = self._connect()
        self._thread = threading.Thread(target=self._run, args=(link,), name="watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping = True
        self._wake()
        self._thread.join(RETRY_S * 2)

    def follow(self, names: list[str] | None) -> None:
        """Whose lines to push from now on; an empty list means all, None nobody's."""
        self._follow = names
        self._wake()

    @property
    def follows(self) -> bool:
        return self._follow is not None

    def refresh(self) -> None:
        """Looks at once whether a daemon is there: a command may have started one."""
        if not self.is_up:
            self._wake()

    def _wake(self) -> None:
        os.write(self._wake_writer, b"x")

    def _run(self, link: Link | None) -> None:
        while not self._stopping:
            if link is not None:
                with link:
                    is_lost = self._watch(link)
                link = None if is_lost else self._connect()
                if link is not None:
                    continue
                self.processes = None
                self._on_change()
            if not self._stopping:
                self._pause(RETRY_S)
                link = self._connect()
                if link is not None:
                    self._on_change()

    def _connect(self) -> Link | None:
        """A subscribed link, with the picture taken."""
        try:
            link = connect(self._place)
        except NovadError:
            return None
        # The wish may change at any moment: what was asked for here is what the link brings.
        wish = self._subscribed = self._follow
        try:
            snapshot = link.request("subscribe", states=True, lines=wish)
            self.project = link.request("status", names=[], usage=False).get("project") or ""
        except NovadError:
            link.close()
            return None
        self.processes = {item["name"]: item for item in snapshot["processes"]}
        return link

    def _watch(self, link: Link) -> bool:
        """Until the daemon is gone (True), or the wish has changed or the shell leaves (False)."""
        while not self._stopping and self._follow is self._subscribed:
            ready = link.wait([self._wake_reader])
            if self._wake_reader in ready:
                os.read(self._wake_reader, 4096)
            try:
                self._take(link.pending_events())
            except NovadError:
                return True
            if link.ended:
                return True
        return False

    def _take(self, events: Iterable[dict[str, Any]]) -> None:
        changed = False
        processes = dict(self.processes or {})
        for event in events:
            if event.get("type") == "state":
                known = processes.get(event["name"], {})
                processes[event["name"]] = {**known, **event}
                if known.get("state") != event["state"]:
                    self.last, self.last_at_s = describe(event), time.monotonic()
                changed = True
            elif event.get("type") == "lines":
                self._on_lines(event["name"], event["text"].encode("utf-8", "surrogateescape"))
        if changed:
            self.processes = processes
            self._on_change()

    def _pause(self, seconds: float) -> None:
        if select.select([self._wake_reader], [], [], seconds)[0]:
            os.read(self._wake_reader, 4096)


def describe(event: dict[str, Any]) -> str:
    """`compute.2 crashed: why compute.2`."""
    name, state = event["name"], event["state"]
    if state in ("backoff", "failed"):
        return f"{name} {'crashed' if state == 'backoff' else 'failed'}: why {name}"
    return f"{name} {state}"

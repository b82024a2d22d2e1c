"""Waits until a cluster is ready, and no longer than there is hope: the first crash ends the wait."""

from __future__ import annotations

import time

from novad.client.app import App
from novad.client.deadline import Deadline
from novad.client.owned import Owned
from novad.client.startup import Startup, brought_up_to_date
from novad.client.verbs.why import report
from novad.core.errors import NovadError

ANSWER_S = 60.0
LINES = 20


class NotUp(NovadError):
    """The cluster did not come up; the text is what `novad why` says."""


def come_up(app: App, cluster: Owned, names: tuple[str, ...], timeout_s: float) -> None:
    """Start the services (none named: all that start by themselves) and wait until each is ready or done.

    Raises `NotUp` at the first crash, and when the time has run out.
    """
    link, deadline = cluster.link, Deadline(timeout_s)
    picture = link.request("subscribe", states=True, lines=None)["processes"]
    spec = link.request("spec")["cluster"]
    started = link.request("up", ANSWER_S, cluster=spec, names=list(names))["names"]
    startup = Startup(tuple(started), {}, time.monotonic())
    rows = brought_up_to_date(picture, link.queued_events())
    news = [rows[name] for name in started]
    while True:
        for row in news:
            startup.update(row, time.monotonic())
        crashed = [row.name for row in startup.rows.values() if row.state in ("backoff", "failed")]
        if crashed:
            raise NotUp(text(app, cluster, "a service crashed while the cluster started", crashed))
        if startup.is_settled:
            break
        event = link.next_event(deadline.left_s())
        if event is None:
            unready = [row.name for row in startup.unsettled()]
            raise NotUp(text(app, cluster, f"not ready after {timeout_s:g} s: {', '.join(unready)}", unready))
        news = [event] if event.get("type") == "state" else []
    if not startup.is_good:
        bad = [row.name for row in startup.rows.values() if row.state not in ("ready", "done")]
        raise NotUp(text(app, cluster, f"not started: {', '.join(bad)}", bad))


def text(app: App, cluster: Owned, what: str, names: list[str]) -> str:
    rows = cluster.processes()
    entries = cluster.ask("why", names=names)["processes"]
    return "\n\n".join([what, *("\n".join(report(app, entry, rows, LINES)) for entry in entries)])

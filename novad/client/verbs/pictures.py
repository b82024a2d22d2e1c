"""`status --timeline` and `status --graph`: how the start went, and what waits for what."""

from __future__ import annotations

import time
from typing import Any

from novad.client.app import App
from novad.client.journal import last_run
from novad.client.link import Link
from novad.client.render.graph import dot, edges, mermaid, tree
from novad.client.render.timeline import timeline
from novad.core.errors import NotRunning
from novad.core.spec import cluster_from_json


def show_timeline(app: App, document: dict[str, Any], style: str) -> int:
    processes = document["processes"]
    changes = last_run(app.place().journal)
    chosen = [item["name"] for item in processes]
    changes = [change for change in changes if change.name in chosen]
    if app.options.json:
        rows = [{"at": change.at, "name": change.name, "state": change.state} for change in changes]
        app.print_json({"changes": rows})
        return 0
    terminal = app.terminal
    if style == "html":
        from novad.client.render.timeline_page import page

        terminal.out(page(changes, chosen, time.time(), f"{document['project']}, {document['namespace']}"))
        return 0
    width = terminal.width() if terminal.out_is_terminal else 100
    terminal.out("\n".join(timeline(changes, chosen, time.time(), width, terminal.paint)))
    return 0


def show_graph(app: App, link: Link, processes: list[dict[str, Any]], style: str) -> int:
    data = link.request("spec")["cluster"]
    if data is None:
        raise NotRunning("no cluster is loaded", f"{app.command_name()} up")
    cluster = cluster_from_json(data)
    if app.options.json:
        found = edges(cluster)
        app.print_json(
            {
                "edges": [
                    {"service": service, "after": target, "condition": condition}
                    for service, targets in found.items()
                    for target, condition in targets
                ]
            }
        )
        return 0
    # Of replicas, the state of the one that is worst off.
    rank = ("done", "ready", "stopped", "stopping", "waiting", "starting", "backoff", "failed")
    states: dict[str, str] = {}
    for item in processes:
        before = states.get(item["service"], "done")
        states[item["service"]] = max(before, item["state"], key=lambda state: rank.index(state))
    lines = {"text": lambda: tree(cluster, states, app.terminal.paint), "mermaid": lambda: mermaid(cluster),
             "dot": lambda: dot(cluster)}[style]()  # fmt: skip
    app.terminal.out("\n".join(lines))
    return 0

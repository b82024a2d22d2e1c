"""The names a user may type for services: for completion, quickly and without complaint."""

from __future__ import annotations

from typing import Any

from novad.client.app import App, read_names
from novad.core.errors import NovadError

PATIENCE_S = 0.3


def known_processes(app: App) -> list[dict[str, Any]]:
    """The processes of the running daemon; nothing where none answers at once."""
    try:
        with app.link_at_once() as link:
            return link.request("status", PATIENCE_S, names=[], usage=False)["processes"]
    except NovadError:
        return []


def known_names(app: App) -> list[str]:
    """Services and processes, in the order of the file where the daemon runs."""
    processes = known_processes(app)
    if not processes:
        try:
            return read_names(app.place())
        except NovadError:
            return []
    names = dict.fromkeys(process["service"] for process in processes)
    return list(names | dict.fromkeys(process["name"] for process in processes))

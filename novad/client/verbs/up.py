"""`novad up` shows that it has begun before it imports what it needs: the compiler alone takes 0.2 s to load."""

from __future__ import annotations

import os
from typing import Any

from novad.client.app import App
from novad.client.render.words import whereabouts


def run(app: App, *, explain: bool, **given: Any) -> int:
    """The exit code of `up`. Raises `NovadError`."""
    place = app.place(missing_ok=False)
    if not explain:
        app.terminal.begin_note(whereabouts(app.config_name(), os.path.relpath(place.log_dir, place.dir)))
    from novad.client.bringing import up

    return up(app, explain=explain, **given)

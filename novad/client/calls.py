"""The topics and methods that were called here before, for completion: novad speaks no RPC and cannot ask for them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from novad.client.app import App
from novad.client.private import replace_file
from novad.core.errors import NovadError

KEPT = 500


def known_calls(app: App) -> list[tuple[str, str]]:
    """(topic, method) of the calls that succeeded, the last one first; nothing where there is no project."""
    try:
        lines = Path(app.place().state_dir, "calls").read_text().splitlines()
    except (OSError, ValueError, NovadError):
        return []
    return [(topic, method) for topic, _, method in (line.partition(" ") for line in lines) if method]


def remember(app: App, topic: str, method: str) -> None:
    """That it cannot be remembered is no reason to fail."""
    rows = list(dict.fromkeys([(topic, method), *known_calls(app)]))[:KEPT]
    with contextlib.suppress(OSError):
        replace_file(Path(app.place().state_dir, "calls"), "".join(f"{' '.join(row)}\n" for row in rows))

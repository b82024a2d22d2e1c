"""daemontools' svstat line for a process (man page svstat(8) of daemontools-encore). Pure."""

from __future__ import annotations

from typing import Any


def svstat(process: dict[str, Any]) -> str:
    """`api: up (pid 4020) 721 seconds`, `api: down 12 seconds, normally up, want up`."""
    uptime_s = process.get("uptime_s")
    seconds = 0 if uptime_s is None else int(uptime_s)
    state, want = process["state"], process.get("want")
    if process.get("pid") is None:
        return (
            f"{process['name']}: down {seconds} seconds{', want up' if want == 'up' and state != 'done' else ''}"
        )
    extra = {"starting": ", starting", "stopping": ", stopping"}.get(state, "")
    if want == "down" and state != "stopping":
        extra += ", want down"
    if (process.get("note") or "").startswith("paused"):
        extra += ", paused"
    return f"{process['name']}: up (pid {process['pid']}) {seconds} seconds{extra}"

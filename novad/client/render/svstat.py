"""daemontools' svstat line for a process (man page svstat(8) of daemontools-encore). Pure."""

from __future__ import annotations

from typing import Any


def svstat(process: dict[str, Any]) -> str:
    """`api: up (pid 4020) 721 seconds`, `api: down 12 seconds, normally up, want up`."""
    passed_s = process.get("uptime_s" if process.get("pid") is not None else "since_s")
    seconds = 0 if passed_s is None else int(passed_s)
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

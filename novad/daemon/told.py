"""What a service tells of itself by sd_notify(3), as events."""

from __future__ import annotations

import re

from novad.core.messages import Event, Extended, Pinged, Said, WatchdogSet

RELOADING, STOPPING = "reloading", "stopping"
# A number of 64 bits; more would be no time that a clock knows.
MICROSECONDS = re.compile(r"[0-9]{1,19}")
PID = re.compile(r"[0-9]{1,9}")


def events(fields: dict[str, str], incarnation: int, before: str) -> list[Event]:
    """`before` is the line for humans that the service said last."""
    found: list[Event] = []
    said = _what_it_says(fields, before)
    if said is not None:
        found.append(Said(incarnation, said))
    if fields.get("WATCHDOG") == "1":
        found.append(Pinged(incarnation))
    for key, kind in (("WATCHDOG_USEC", WatchdogSet), ("EXTEND_TIMEOUT_USEC", Extended)):
        if MICROSECONDS.fullmatch(fields.get(key, "")):
            found.append(kind(incarnation, int(fields[key]) / 1_000_000))
    return found


def main_pid(fields: dict[str, str]) -> int | None:
    """The process that is the service from now on; 0 where what was said is no pid, None where nothing was said."""
    if "MAINPID" not in fields:
        return None
    return int(fields["MAINPID"]) if PID.fullmatch(fields["MAINPID"]) else 0


def _what_it_says(fields: dict[str, str], before: str) -> str | None:
    """The line for humans after a notification (sd_notify(3)); None where it stays."""
    if "STATUS" in fields:
        return fields["STATUS"][:200]
    if fields.get("RELOADING") == "1":
        return RELOADING
    if fields.get("STOPPING") == "1":
        return STOPPING
    return "" if fields.get("READY") == "1" and before == RELOADING else None

"""Times as users write them for `--since` and `--until` -> the stamp that log lines begin with."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from novad.client.render.words import parse_duration
from novad.core.errors import UsageError

CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,6}))?)?")


def stamp_of(text: str, now: datetime) -> bytes:
    """`5m` (ago), `17:01`, `17:01:02` (today, or yesterday if that is ahead), `2026-11-23T17:01:02[Z]`, `today`,
    `yesterday`. `now` is aware; times without a zone are of its zone. Raises `UsageError`.
    """
    return moment_of(text.strip(), now).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()


def moment_of(text: str, now: datetime) -> datetime:
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("now", "today", "yesterday"):
        return {"now": now, "today": midnight, "yesterday": midnight - timedelta(days=1)}[text]
    clock = CLOCK.fullmatch(text)
    try:
        if clock:
            moment = midnight.replace(
                hour=int(clock[1]),
                minute=int(clock[2]),
                second=int(clock[3] or 0),
                microsecond=int((clock[4] or "0").ljust(6, "0")),
            )
            return moment if moment <= now else moment - timedelta(days=1)
        if "-" in text[1:]:
            moment = datetime.fromisoformat(text)
            return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)
        return now - timedelta(seconds=parse_duration(text.removesuffix(" ago").lstrip("-")))
    except (ValueError, UsageError) as error:
        raise UsageError(
            f"`{text}` is not a time", "write 5m, 1h30m, 17:01, 17:01:02 or 2026-11-23T17:01"
        ) from error

"""The difference that `novad reload` shows, in the notation of nova.toml."""

from __future__ import annotations

from typing import Any

import pytest
import tomli

from novad.client.render.difference import ABSENT, change_lines
from novad.client.render.paint import Paint
from novad.core.spec import (
    Backoff,
    Dependency,
    Health,
    HttpProbe,
    Log,
    Port,
    Probe,
    Stop,
    TcpProbe,
    Watch,
    to_json,
)


def shown(key: str, old: Any, new: Any, width: int = 100) -> list[str]:
    field = {"key": key, "old": to_json(old), "new": to_json(new)}
    return [line.removeprefix("  ~ ") for line in change_lines("api", field, Paint(False), width)]


@pytest.mark.parametrize(
    ("key", "old", "new", "expected"),
    [
        ("env.LEVEL", "info", 'say "x"', ['api.env.LEVEL  "info" → "say \\"x\\""']),
        ("env.a b", None, "1", ['api.env."a b"  (none) → "1"']),
        ("argv", ["a"], ["a", "-v"], ['api.command  ["a"] → ["a", "-v"]']),
        ("stop", Stop(), Stop("INT", 0.25), ['api.stop.signal  "TERM" → "INT"', 'api.stop.timeout  "10s" → "0.25s"']),
        ("backoff", Backoff(), Backoff(1.0), ['api.backoff.min  "0.25s" → "1s"']),
        ("ready", None, Probe(tcp=TcpProbe("127.0.0.1", 80)), ['api.ready  (none) → { tcp = "127.0.0.1:80" }']),
        ("ready", Probe(log="up"), Probe(http=HttpProbe("http://x/")),
         ['api.ready  { log = "up" } → { http = "http://x/" }']),
        ("health", None, Health(Probe(exec=("true",)), 3.0),
         ['api.health  (none) → { exec = ["true"], period = "3s" }']),
        ("health", Health(Probe(notify=True)), Health(Probe(notify=True), 3.0), ['api.health.period  "10s" → "3s"']),
        ("ports", {"http": Port(80)}, {"http": Port(81), "new": Port(9, False)},
         ["api.ports.http  80 → 81", "api.ports.new  (none) → 9"]),
        ("after", (), (Dependency("db", "ready"),), ['api.after  [] → ["db:ready"]']),
        ("watch", None, Watch(("*.py",)), ['api.watch  (none) → ["*.py"]']),
        ("log", Log("/x"), Log("/x", 1024**2), ['api.logs.max  "10MiB" → "1MiB"']),
        ("oneshot", False, True, ["api.oneshot  false → true"]),
        ("ready_timeout_s", 30.0, 5.0, ['api.ready_timeout  "30s" → "5s"']),
    ],
)  # fmt: skip
def test_a_change_is_written_as_the_file_would_have_it(key: str, old: Any, new: Any, expected: list[str]) -> None:
    lines = shown(key, old, new)
    assert lines == expected
    for line in lines:
        for value in line.partition("  ")[2].split(" → "):
            assert value == ABSENT or tomli.loads(f"x = {value}")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_of_long_values_the_place_where_they_differ_is_seen(width: int) -> None:
    long = "word " * 40
    lines = shown(
        "argv", ["sh", "-c", long + "sleep 1000" + long], ["sh", "-c", long + "sleep 2001" + long], width
    )
    assert lines[0] == "api.command"
    assert "sleep 1000" in lines[1]
    assert "sleep 2001" in lines[2]
    assert max(map(len, lines)) <= width

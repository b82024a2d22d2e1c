"""What a reload would change, field by field, in the words of nova.toml. Pure.

The daemon compares compiled values (`novad.core.spec`); whoever reads the answer knows the keys and the notation of
the file: `stop.timeout  "10s" → "3s"`, not a JSON value of the daemon.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from typing import Any

from novad.client.render.paint import Paint
from novad.client.render.words import shorten
from novad.core.spec import Backoff, Health, Log, Stop, Watch

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Fields with parts are told part by part; what a part is where the file says nothing.
PARTS: dict[str, dict[str, Any]] = {
    name: {item.name: item.default for item in fields(kind) if item.default is not MISSING}
    for name, kind in (("backoff", Backoff), ("health", Health), ("log", Log), ("stop", Stop), ("watch", Watch))
} | {"limits": {}, "ports": {}}
# The compiled name -> the key of nova.toml, where they differ.
KEYS = {"argv": "command", "log": "logs", "start_s": "ready_after", "max_bytes": "max", "files": "keep"}
ABSENT = "(none)"


def change_lines(name: str, field: dict[str, Any], paint: Paint, width: int) -> list[str]:
    """One changed field of the process `name`: a line for each of its parts that differs."""
    lines = []
    for key, old, new in parts(field["key"], field["old"], field["new"]):
        head, before, after = f"{name}.{key}", written(key, old), written(key, new)
        if len(head) + len(before) + len(after) + 9 <= width:
            lines.append(f"  {paint('~', 'yellow')} {head}  {before} → {after}")
            continue
        # Too long for one line: beneath each other it is seen where they differ.
        room = max(20, width - 8)
        lines.append(f"  {paint('~', 'yellow')} {head}")
        lines += [
            f"      {paint(sign, style)} {part}"
            for sign, style, part in (
                ("-", "red", around(before, after, room)),
                ("+", "green", around(after, before, room)),
            )
        ]
    return lines


def around(text: str, other: str, room: int) -> str:
    """`text` in `room` cells, cut so that the first place where it differs from `other` is seen."""
    if len(text) <= room:
        return text
    same = next((at for at, (one, two) in enumerate(zip(text, other, strict=False)) if one != two), 0)
    begin = min(max(0, same - room // 3), len(text) - room + 1)
    return shorten(text, room) if begin == 0 else "…" + shorten(text[begin:], room - 1)


def parts(key: str, old: Any, new: Any) -> list[tuple[str, Any, Any]]:
    """(key, old, new) of what differs within a field, by the keys of nova.toml."""
    if key.startswith("env."):
        return [(f"env.{quoted(key.removeprefix('env.'))}", old, new)]
    if key not in PARTS or not (isinstance(old, dict) and isinstance(new, dict)):
        return [(toml_key(key), old, new)]
    default = PARTS[key]
    before, after = {**default, **old}, {**default, **new}
    names = dict.fromkeys([*before, *after])
    return [
        (f"{toml_key(key)}.{quoted(toml_key(name))}", before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    ]


def toml_key(name: str) -> str:
    return KEYS.get(name, name.removesuffix("_s"))


def quoted(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else toml(key)


def written(key: str, value: Any) -> str:
    """A compiled value of `key` as nova.toml has it."""
    return ABSENT if value is None else toml(plain(key, value))


def plain(key: str, value: Any) -> Any:
    """The value as a person writes it: probes by their kind, dependencies with a suffix, ports by number."""
    if key.startswith("ports.") and isinstance(value, dict):
        return value["number"]
    if key == "after":
        return [f"{item['name']}:{item['condition']}" for item in value]
    if key in ("ready", "health.probe"):
        return {kind: target(kind, item) for kind, item in value.items()}
    if key == "health":
        rest = {toml_key(name): plain(f"health.{toml_key(name)}", item) for name, item in value.items()}
        return {**rest.pop("probe"), **rest}
    if key == "watch":
        return value["globs"]
    if key == "python":
        return value["target"]
    if key == "logs.max":
        return binary(value)
    return f"{value:g}s" if isinstance(value, float) else value


def binary(count: int) -> int | str:
    """Bytes as the file counts them: `10MiB`."""
    for unit, bytes_ in (("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count and count % bytes_ == 0:
            return f"{count // bytes_}{unit}"
    return count


def target(kind: str, item: Any) -> Any:
    """What a probe looks at."""
    if kind == "http":
        return item["url"]
    return f"{item['host']}:{item['port']}" if kind == "tcp" else item


def toml(value: Any) -> str:
    """A value in TOML's notation, tables inline (TOML 1.0, https://toml.io)."""
    if isinstance(value, dict):
        pairs = (f"{quoted(key)} = {toml(item)}" for key, item in value.items())
        return f"{{ {', '.join(pairs)} }}" if value else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    return json.dumps(value, ensure_ascii=False)
